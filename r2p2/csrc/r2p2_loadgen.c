/* The load generator. See r2p2_loadgen_api.h. */
#include <poll.h>
#include <sched.h>
#include <stdlib.h>

#include "r2p2_engine.h"
#include "r2p2_histogram.h"
#include "r2p2_load_draw.h"
#include "r2p2_load_frame.h"

#define BACKOFF_NS 1000000u /* after a DROP, before the slot calls again */
#define GET_BYTES_MAX 96u
#define IDLE_POLL_MS 1
/* A poll takes several bursts in, and its answers are not all of its beginning: the clock is read again every so many. */
#define COMPLETIONS_PER_CLOCK 8u

/* One call in flight, or none. */
typedef struct load_slot {
    uint64_t key;       /* of the waiting call; ECHO, SPIN: the number it carries */
    uint64_t cursor;    /* SET: next of this slot's keys to try */
    uint64_t due_ns;    /* when the call was due: latency counts from here */
    uint32_t target;    /* index */
    uint32_t session;   /* of config.sessions */
    uint32_t bytes;     /* of the request */
    uint32_t is_read;   /* a GET among SETs */
    uint32_t next;      /* in the free or the backoff list */
    uint64_t resume_ns; /* backoff: when to go on */
} load_slot;

typedef struct load_list {
    uint32_t head, tail;
} load_list;

struct r2p2_loadgen {
    r2p2_engine *engine;
    r2p2_client *client;
    r2p2_loadgen_config config;
    r2p2_target targets[R2P2_TARGETS_MAX];
    uint32_t targets_count, target;
    uint64_t retargeted_ns;
    load_slot *slots;
    load_list free, backoff;
    uint32_t backoff_count;
    uint32_t first_session; /* of config.sessions in the client's table */
    uint32_t next_session;
    uint64_t *acked, *issued;
    uint8_t *uncertain;
    uint8_t *request; /* room for the largest */
    uint8_t read_bytes[GET_BYTES_MAX];
    r2p2_load_frame set, get; /* over `request` and `read_bytes` */
    r2p2_zipf zipf;
    uint64_t random;
    double due_ns; /* open loop: when the next call begins */
    int issuing;
    uint32_t until_clock;
    uint64_t clock_ns; /* when it was last read; the engine's is that of the poll's beginning */
    r2p2_loadgen_stats stats;
    uint64_t *histogram;
    r2p2_timeline_bucket *timeline;
};

#define NO_SLOT 0xffffffffu

static void list_push(r2p2_loadgen *load, load_list *list, uint32_t slot) {
    load->slots[slot].next = NO_SLOT;
    if (list->head == NO_SLOT) list->head = slot;
    else load->slots[list->tail].next = slot;
    list->tail = slot;
}

static uint32_t list_pop(r2p2_loadgen *load, load_list *list) {
    uint32_t slot = list->head;
    if (slot != NO_SLOT) list->head = load->slots[slot].next;
    return slot;
}

static uint64_t load_now_ns(const r2p2_loadgen *load) {
    return load->clock_ns > load->engine->now_ns ? load->clock_ns : load->engine->now_ns;
}

/* ---- histogram ---- */

uint32_t r2p2_loadgen_buckets_count(void) { return R2P2_HISTOGRAM_BUCKETS; }
uint64_t r2p2_loadgen_bucket_ns(uint32_t index) { return r2p2_histogram_edge(index); }

/* One search for all of them: asked under load, each walk through the buckets is a time in which nothing is sent. */
void r2p2_loadgen_percentiles_ns(r2p2_loadgen *load, const double *fractions, uint32_t count, uint64_t *values) {
    uint64_t total = 0, upto = 0;
    for (uint32_t i = 0; i < R2P2_HISTOGRAM_BUCKETS; i++) total += load->histogram[i];
    for (uint32_t i = 0, bucket = 0; i < count; i++) {
        values[i] = 0;
        if (total == 0) continue;
        uint64_t rank = (uint64_t)(fractions[i] * (double)total);
        if (rank > total - 1) rank = total - 1;
        while (upto <= rank) upto += load->histogram[bucket++]; /* of all buckets before `bucket` */
        values[i] = r2p2_histogram_edge(bucket - 1);
    }
}

/* ---- requests ---- */

uint32_t r2p2_loadgen_key(r2p2_loadgen *load, uint64_t key, uint8_t *out) {
    (void)load;
    r2p2_load_key(out, key);
    return R2P2_LOAD_KEY_BYTES;
}

double r2p2_load_draw(uint64_t *state, const r2p2_distribution *distribution) { return r2p2_draw_from(state, distribution); }

void r2p2_load_draw_keys(uint64_t seed, uint64_t keys_count, double skew, uint64_t *keys, uint32_t count) {
    r2p2_zipf zipf = r2p2_zipf_new(keys_count, skew);
    for (uint32_t i = 0; i < count; i++) keys[i] = r2p2_zipf_draw(&zipf, &seed);
}

/* A size drawn for a request of at least `least` bytes. */
static uint32_t draw_size(r2p2_loadgen *load, uint32_t least) {
    double size = r2p2_draw_from(&load->random, &load->config.sizes);
    if (size < least) return least;
    return size > R2P2_REQUEST_BYTES_MAX ? R2P2_REQUEST_BYTES_MAX : (uint32_t)size;
}

/* The slot's next key that is certain: keys slot, slot + outstanding, slot + 2 * outstanding... 0 when none is left. With a skew the search
 * begins at one drawn by chance. */
static int next_key(r2p2_loadgen *load, uint32_t slot_index, uint64_t *key) {
    load_slot *slot = &load->slots[slot_index];
    uint64_t step = load->config.outstanding, count = (load->config.keys_count - slot_index + step - 1) / step;
    if (load->config.zipf > 0) {
        slot->cursor = r2p2_zipf_draw(&load->zipf, &load->random);
        if (slot->cursor >= count) slot->cursor = count - 1; /* the last slots may have one key less */
    }
    for (uint64_t tried = 0; tried < count; tried++) {
        *key = slot_index + slot->cursor * step;
        slot->cursor = slot->cursor + 1 < count ? slot->cursor + 1 : 0;
        if (!load->uncertain[*key]) return 1;
    }
    return 0;
}

static uint64_t any_key(r2p2_loadgen *load) {
    if (load->config.workload == R2P2_LOAD_GET && load->config.zipf > 0) return r2p2_zipf_draw(&load->zipf, &load->random);
    return r2p2_draw(&load->random) % load->config.keys_count;
}

/* Fills in the slot's next request. 0: it has none, ever. */
static int request_make(r2p2_loadgen *load, uint32_t slot_index, r2p2_call *call) {
    load_slot *slot = &load->slots[slot_index];
    const r2p2_loadgen_config *config = &load->config;
    call->payload = load->request;
    slot->is_read = 0;
    switch (config->workload) {
    case R2P2_LOAD_SET:
        if (config->reads > 0 && r2p2_draw_unit(&load->random) < config->reads) {
            slot->is_read = 1;
            call->policy = R2P2_POLICY_REPLICATED_NO_SE;
            break;
        }
        if (!next_key(load, slot_index, &slot->key)) return 0;
        r2p2_load_frame_set(&load->set, draw_size(load, R2P2_LOAD_SET_BYTES_MIN));
        r2p2_load_frame_fill(&load->set, slot->key, load->issued[slot->key] + 1);
        call->bytes = load->set.size;
        break;
    case R2P2_LOAD_GET:
        slot->is_read = 1;
        break;
    case R2P2_LOAD_SPIN: { /* decimal nanoseconds */
        slot->key = (uint64_t)r2p2_draw_from(&load->random, &config->service_ns);
        uint32_t width = 1;
        for (uint64_t rest = slot->key; rest >= 10; rest /= 10) width++;
        r2p2_load_digits(load->request, width, slot->key);
        call->bytes = width;
        break;
    }
    case R2P2_LOAD_STSS: /* u64 nanoseconds, u32 reply bytes, anything */
        r2p2_store_u64(load->request, (uint64_t)r2p2_draw_from(&load->random, &config->service_ns));
        r2p2_store_u16(load->request + 8, (uint16_t)(config->reply_bytes >> 16));
        r2p2_store_u16(load->request + 10, (uint16_t)config->reply_bytes);
        call->bytes = draw_size(load, 12);
        break;
    default: /* ECHO: what can be told from its neighbours is told */
        slot->key = load->stats.issued;
        call->bytes = draw_size(load, 0);
        if (call->bytes >= 8) memcpy(load->request, &slot->key, 8);
    }
    if (slot->is_read) {
        r2p2_load_key(load->read_bytes + load->get.key_at, any_key(load));
        call->payload = load->read_bytes;
        call->bytes = load->get.size;
    }
    return 1;
}

/* Whether a call was sent. If not, the slot comes back after a pause, or rests for good, and the call is still to be made. */
static int issue(r2p2_loadgen *load, uint32_t slot_index, uint64_t due_ns) {
    load_slot *slot = &load->slots[slot_index];
    r2p2_call call = {
        .timeout_ns = load->config.timeout_ns,
        .tag = slot_index,
        .policy = load->config.policy,
    };
    if (!request_make(load, slot_index, &call)) { /* every key of this slot is uncertain: it rests */
        slot->resume_ns = UINT64_MAX;
        return 0;
    }
    slot->due_ns = due_ns;
    slot->bytes = (uint32_t)call.bytes;
    slot->target = load->config.spread && slot->is_read ? slot_index % load->targets_count : load->target;
    const r2p2_target *target = &load->targets[slot->target];
    call.to = (r2p2_tx_address){target->ip, target->port, load->config.local_port};
    if (load->config.sessions && !slot->is_read) {
        slot->session = load->next_session;
        call.session = (uint16_t)(load->first_session + slot->session + 1);
    }
    int32_t rid = r2p2_client_start(load->client, &call, load->engine->now_ns);
    /* Rids used up by quarantine after an outage, or a session that waits for one old call: try again soon, nothing was sent. */
    if (rid < 0) {
        slot->resume_ns = load->engine->now_ns + BACKOFF_NS;
        list_push(load, &load->backoff, slot_index);
        load->backoff_count++;
        return 0;
    }
    if (load->config.workload == R2P2_LOAD_SET && !slot->is_read) load->issued[slot->key]++;
    if (load->config.sessions && !slot->is_read && ++load->next_session == load->config.sessions) load->next_session = 0;
    load->stats.issued++;
    load->stats.waiting++;
    load->stats.bytes_sent += call.bytes;
    return 1;
}

/* ---- answers ---- */

static r2p2_timeline_bucket *timeline_at(r2p2_loadgen *load, uint64_t now_ns) {
    uint64_t index = (now_ns - load->stats.started_ns) / load->config.timeline_step_ns;
    if (index >= load->config.timeline_count) index = load->config.timeline_count - 1;
    return &load->timeline[index];
}

static int is_expected(const r2p2_loadgen *load, const load_slot *slot, const r2p2_completion *completion,
                       const uint8_t *payload) {
    if (slot->is_read) return completion->length >= 5 && payload[0] == '$';
    switch (load->config.workload) {
    case R2P2_LOAD_SET:
        return completion->length == 5 && memcmp(payload, "+OK\r\n", 5) == 0;
    case R2P2_LOAD_STSS:
        return completion->length == load->config.reply_bytes;
    case R2P2_LOAD_SPIN: {
        uint8_t text[20];
        if (completion->length != slot->bytes) return 0;
        r2p2_load_digits(text, slot->bytes, slot->key);
        return memcmp(payload, text, slot->bytes) == 0;
    }
    default:
        if (completion->length != slot->bytes) return 0;
        return slot->bytes < 8 || (memcmp(payload, &slot->key, 8) == 0 && memcmp(payload + 8, load->request + 8, slot->bytes - 8) == 0);
    }
}

/* How long a call has taken, or waited in vain. */
static uint64_t measure(r2p2_loadgen *load, const load_slot *slot) {
    uint64_t latency_ns = load_now_ns(load) - slot->due_ns;
    load->histogram[r2p2_histogram_bucket(latency_ns)]++;
    return latency_ns;
}

static void answered(r2p2_loadgen *load, load_slot *slot, const r2p2_completion *completion, const uint8_t *payload) {
    uint64_t now_ns = load_now_ns(load), latency_ns = measure(load, slot);
    r2p2_loadgen_stats *stats = &load->stats;
    stats->answered++;
    if (slot->is_read && load->config.workload == R2P2_LOAD_SET) stats->reads_answered++;
    if (!is_expected(load, slot, completion, payload)) stats->wrong++;
    else if (load->config.workload == R2P2_LOAD_SET && !slot->is_read) load->acked[slot->key] = load->issued[slot->key];
    if (stats->first_answer_ns == 0) stats->first_answer_ns = now_ns;
    else if (now_ns - stats->last_answer_ns > stats->max_gap_ns) {
        stats->max_gap_ns = now_ns - stats->last_answer_ns;
        stats->max_gap_at_ns = now_ns;
    }
    stats->last_answer_ns = now_ns;
    r2p2_timeline_bucket *bucket = timeline_at(load, now_ns);
    bucket->answered++;
    bucket->latency_sum_ns += latency_ns;
    if (latency_ns > bucket->latency_max_ns) bucket->latency_max_ns = latency_ns;
    if (stats->leader_ip != completion->source_ip) {
        stats->leader_ip = completion->source_ip;
        for (uint32_t i = 0; i < load->targets_count; i++)
            if (load->targets[i].ip == completion->source_ip && load->targets[i].port == completion->source_port)
                load->target = i;
    }
}

/* Who did not answer, or refused, is not asked next; once for all the calls that fail together. */
static void retarget(r2p2_loadgen *load, const load_slot *slot) {
    uint64_t now_ns = load->engine->now_ns;
    if (slot->target != load->target || now_ns - load->retargeted_ns < BACKOFF_NS) return;
    load->target = (load->target + 1) % load->targets_count;
    load->retargeted_ns = now_ns;
    load->stats.retargets++;
}

static void on_completion(void *context, const r2p2_completion *completion, const uint8_t *payload) {
    r2p2_loadgen *load = context;
    uint32_t slot_index = (uint32_t)completion->tag;
    load_slot *slot = &load->slots[slot_index];
    load->stats.waiting--;
    if (load->until_clock-- == 0) {
        load->until_clock = COMPLETIONS_PER_CLOCK - 1;
        load->clock_ns = r2p2_engine_now_ns(load->engine);
    }
    switch (completion->status) {
    case R2P2_DONE_OK:
        answered(load, slot, completion, payload);
        break;
    case R2P2_DONE_DROPPED: /* refused: it was not executed */
        load->stats.dropped++;
        timeline_at(load, load->engine->now_ns)->failed++;
        retarget(load, slot);
        slot->resume_ns = load->engine->now_ns + BACKOFF_NS;
        list_push(load, &load->backoff, slot_index);
        load->backoff_count++;
        return;
    case R2P2_DONE_EXPIRED: /* it may or may not have been executed */
        load->stats.expired++;
        measure(load, slot);
        timeline_at(load, load->engine->now_ns)->failed++;
        if (load->config.workload == R2P2_LOAD_SET && !slot->is_read) load->uncertain[slot->key] = 1;
        /* Of all its calls that end so the first finds it expired; the others find it new. */
        (void)r2p2_client_session_renew(
            r2p2_client_session_at(load->client, load->first_session + slot->session));
        break;
    default: /* no answer: it may or may not have been executed */
        load->stats.timeouts++;
        measure(load, slot);
        timeline_at(load, load->engine->now_ns)->failed++;
        if (load->config.workload == R2P2_LOAD_SET && !slot->is_read) load->uncertain[slot->key] = 1;
        retarget(load, slot);
    }
    if (load->config.rate == 0 && load->issuing) (void)issue(load, slot_index, load_now_ns(load));
    else list_push(load, &load->free, slot_index);
}

/* ---- the loop ---- */

static void issue_due(r2p2_loadgen *load) {
    uint64_t now_ns = load_now_ns(load);
    while (load->backoff.head != NO_SLOT && load->slots[load->backoff.head].resume_ns <= now_ns) {
        list_push(load, &load->free, list_pop(load, &load->backoff));
        load->backoff_count--;
    }
    if (!load->issuing) return;
    if (load->config.rate == 0) {
        for (uint32_t slot; (slot = list_pop(load, &load->free)) != NO_SLOT;) (void)issue(load, slot, now_ns);
        return;
    }
    while (load->due_ns <= (double)now_ns && load->free.head != NO_SLOT) {
        uint64_t due_ns = (uint64_t)load->due_ns, late_ns = now_ns - due_ns;
        if (!issue(load, list_pop(load, &load->free), due_ns)) continue; /* still due: another slot's, or later */
        load->stats.late_sum_ns += late_ns;
        if (late_ns > load->stats.late_max_ns) load->stats.late_max_ns = late_ns;
        load->due_ns += r2p2_draw_exponential(&load->random, 1e9 / load->config.rate);
    }
}

static void idle(r2p2_loadgen *load) {
    int fd = load->engine->port->poll_fd;
    if (fd < 0) {
        sched_yield();
        return;
    }
    /* Open loop: the next call may be due before a datagram comes. */
    if (load->issuing && load->config.rate > 0 && load->due_ns - (double)load->engine->now_ns < 2e6 && load->free.head != NO_SLOT) {
        sched_yield();
        return;
    }
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    poll(&wait, 1, IDLE_POLL_MS);
}

int32_t r2p2_loadgen_run(r2p2_loadgen *load, uint64_t duration_ns, int32_t issuing) {
    r2p2_engine *engine = load->engine;
    r2p2_poll_result result;
    uint64_t end_ns = r2p2_engine_now_ns(engine) + duration_ns;
    if (issuing && !load->issuing) load->due_ns = (double)r2p2_engine_now_ns(engine);
    load->issuing = issuing != 0;
    do {
        r2p2_engine_poll(engine, &result);
        issue_due(load);
        r2p2_engine_flush(engine);
        load->stats.polls++;
        if (result.packets_count == 0) {
            load->stats.idle_polls++;
            idle(load);
        }
        if (!issuing && load->stats.waiting == 0) break;
    } while (result.now_ns < end_ns);
    return R2P2_OK;
}

int32_t r2p2_loadgen_set_rate(r2p2_loadgen *load, double rate) {
    if (!(rate > 0) || load->config.rate == 0) return R2P2_ERROR_ARGUMENT; /* slots of a closed loop are issued by their answers */
    load->config.rate = rate;
    load->due_ns = (double)r2p2_engine_now_ns(load->engine);
    return R2P2_OK;
}

/* ---- life ---- */

static int config_valid(const r2p2_loadgen_config *config) {
    if (config->timeline_count == 0 || config->timeline_step_ns == 0 || !(config->rate >= 0)) return 0;
    if (config->workload > R2P2_LOAD_STSS) return 0;
    if (!r2p2_distribution_valid(&config->sizes) || !r2p2_distribution_valid(&config->service_ns)) return 0;
    if (!(config->reads >= 0) || config->reads > 1 || !(config->zipf >= 0) || config->zipf >= 1) return 0;
    if (config->workload == R2P2_LOAD_GET && config->keys_count == 0) return 0;
    if (config->workload == R2P2_LOAD_SET && config->keys_count < config->outstanding) return 0;
    return config->sessions <= R2P2_CLIENT_SESSIONS_MAX && (config->sessions == 0 || config->policy == R2P2_POLICY_REPLICATED);
}

/* Room for everything that goes by numbers of the configuration. */
static int allocate(r2p2_loadgen *load) {
    const r2p2_loadgen_config *config = &load->config;
    uint64_t keys = config->workload == R2P2_LOAD_SET ? config->keys_count : 1;
    load->request = malloc(R2P2_REQUEST_BYTES_MAX);
    load->slots = calloc(config->outstanding, sizeof *load->slots);
    load->acked = calloc(keys, sizeof *load->acked);
    load->issued = calloc(keys, sizeof *load->issued);
    load->uncertain = calloc(keys, 1);
    load->histogram = calloc(R2P2_HISTOGRAM_BUCKETS, sizeof *load->histogram);
    load->timeline = calloc(config->timeline_count, sizeof *load->timeline);
    return load->request && load->slots && load->acked && load->issued && load->uncertain && load->histogram && load->timeline;
}

r2p2_loadgen *r2p2_loadgen_new(r2p2_engine *engine, const r2p2_loadgen_config *config, const r2p2_target *targets,
                               uint32_t targets_count, int32_t *error) {
    *error = R2P2_ERROR_ARGUMENT;
    r2p2_client *client = r2p2_engine_client(engine, config->local_port);
    /* It takes over the ends of all calls of its engine: those of somebody else would be counted as its own. */
    for (uint32_t i = 0; i < engine->clients_count; i++) {
        if (engine->clients[i]->waiting_count == 0) continue;
        *error = R2P2_ERROR_STATE;
        return NULL;
    }
    if (!client || targets_count == 0 || targets_count > R2P2_TARGETS_MAX || !config_valid(config)) return NULL;
    if (config->outstanding == 0 || config->outstanding > client->calls_max) return NULL;
    r2p2_loadgen *load = calloc(1, sizeof *load);
    *error = R2P2_ERROR_NO_MEMORY;
    if (!load) return NULL;
    load->engine = engine;
    load->client = client;
    load->config = *config;
    load->random = config->seed;
    memcpy(load->targets, targets, targets_count * sizeof *targets);
    load->targets_count = targets_count;
    if (!allocate(load)) {
        r2p2_loadgen_free(load);
        return NULL;
    }
    for (uint32_t i = 0; i < R2P2_REQUEST_BYTES_MAX; i++) load->request[i] = (uint8_t)('a' + i % 26);
    load->set.bytes = load->request;
    load->get.bytes = load->read_bytes;
    r2p2_load_frame_get(&load->get);
    if (config->zipf > 0) { /* SET: over the keys of one slot */
        uint64_t step = config->workload == R2P2_LOAD_SET ? config->outstanding : 1;
        load->zipf = r2p2_zipf_new((config->keys_count + step - 1) / step, config->zipf);
    }
    load->first_session = load->client->sessions_count;
    for (uint32_t i = 0; i < config->sessions; i++) {
        int32_t number = r2p2_client_session_add(client, targets, targets_count, 1);
        if (number < 0) {
            *error = number;
            r2p2_loadgen_free(load);
            return NULL;
        }
    }
    load->free.head = load->backoff.head = NO_SLOT;
    for (uint32_t i = 0; i < config->outstanding; i++) list_push(load, &load->free, i);
    load->stats.started_ns = r2p2_engine_now_ns(engine);
    engine->sink = on_completion;
    engine->sink_context = load;
    r2p2_loadgen_reset(load); /* touches all of it, so that no page is first met under load */
    *error = R2P2_OK;
    return load;
}

void r2p2_loadgen_free(r2p2_loadgen *load) {
    if (!load) return;
    if (load->engine->sink_context == load) r2p2_engine_default_sink(load->engine);
    free(load->request);
    free(load->slots);
    free(load->acked);
    free(load->issued);
    free(load->uncertain);
    free(load->histogram);
    free(load->timeline);
    free(load);
}

void r2p2_loadgen_reset(r2p2_loadgen *load) {
    uint64_t waiting = load->stats.waiting, leader_ip = load->stats.leader_ip;
    memset(&load->stats, 0, sizeof load->stats);
    load->stats.waiting = waiting;
    load->stats.leader_ip = leader_ip;
    load->stats.started_ns = r2p2_engine_now_ns(load->engine);
    memset(load->histogram, 0, R2P2_HISTOGRAM_BUCKETS * sizeof *load->histogram);
    memset(load->timeline, 0, load->config.timeline_count * sizeof *load->timeline);
}

void r2p2_loadgen_stats_read(r2p2_loadgen *load, r2p2_loadgen_stats *stats) {
    double behind_ns = load->issuing && load->config.rate > 0 ? (double)load->engine->now_ns - load->due_ns : 0;
    load->stats.behind_ns = behind_ns > 0 ? (uint64_t)behind_ns : 0;
    *stats = load->stats;
}
void r2p2_loadgen_histogram(r2p2_loadgen *load, uint64_t *counts) {
    memcpy(counts, load->histogram, R2P2_HISTOGRAM_BUCKETS * sizeof *counts);
}
void r2p2_loadgen_timeline(r2p2_loadgen *load, r2p2_timeline_bucket *buckets) {
    memcpy(buckets, load->timeline, load->config.timeline_count * sizeof *buckets);
}

int32_t r2p2_loadgen_keys(r2p2_loadgen *load, uint64_t first, uint64_t count, uint64_t *acked, uint64_t *issued,
                          uint8_t *certain) {
    if (load->config.workload != R2P2_LOAD_SET || first > load->config.keys_count ||
        count > load->config.keys_count - first)
        return R2P2_ERROR_RANGE;
    memcpy(acked, load->acked + first, count * sizeof *acked);
    memcpy(issued, load->issued + first, count * sizeof *issued);
    for (uint64_t i = 0; i < count; i++) certain[i] = !load->uncertain[first + i];
    return R2P2_OK;
}
