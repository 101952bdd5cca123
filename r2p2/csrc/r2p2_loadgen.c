/* The load generator. See r2p2_loadgen_api.h. */
#include <math.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "r2p2_engine.h"
#include "r2p2_loadgen.h"

#define SUB_BITS 6u
#define SUB_COUNT (1u << SUB_BITS)
#define BUCKETS_COUNT ((64u - SUB_BITS + 1) * SUB_COUNT)
#define BACKOFF_NS 1000000u /* after a DROP, before the slot calls again */
#define KEY_BYTES 12u
#define IDLE_POLL_MS 1

/* One call in flight, or none. */
typedef struct load_slot {
    uint64_t key;       /* SET: of the waiting call */
    uint64_t cursor;    /* SET: next of this slot's keys to try */
    uint64_t due_ns;    /* when the call was due: latency counts from here */
    uint32_t target;    /* index */
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
    uint64_t *acked, *issued;
    uint8_t *uncertain;
    uint8_t request[R2P2_PAYLOAD_BYTES_MAX];
    uint32_t key_at, value_at, value_bytes;
    uint64_t random;
    double due_ns; /* open loop: when the next call begins */
    int issuing;
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

static uint64_t random_next(r2p2_loadgen *load) { /* splitmix64 */
    uint64_t z = load->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* ---- histogram: SUB_COUNT linear steps for each power of two ---- */

static uint32_t bucket_of(uint64_t ns) {
    if (ns < SUB_COUNT) return (uint32_t)ns;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(ns) - SUB_BITS;
    return (shift + 1) * SUB_COUNT + (uint32_t)((ns >> shift) & (SUB_COUNT - 1));
}

uint32_t r2p2_loadgen_buckets_count(void) { return BUCKETS_COUNT; }
uint64_t r2p2_loadgen_bucket_ns(uint32_t index) {
    if (index < SUB_COUNT) return index;
    uint32_t shift = index / SUB_COUNT - 1;
    return (((uint64_t)SUB_COUNT + index % SUB_COUNT + 1) << shift) - 1;
}

/* ---- requests ---- */

static void digits(uint8_t *out, uint32_t width, uint64_t value) {
    for (uint32_t i = width; i > 0; i--) {
        out[i - 1] = (uint8_t)('0' + value % 10);
        value /= 10;
    }
}

/* "*3 SET key value" with the value as wide as makes the whole `size` bytes. The widths of lengths depend on each other: try. */
static int template_set(r2p2_loadgen *load) {
    uint32_t size = load->config.size;
    for (uint32_t value_bytes = size; value_bytes > 0; value_bytes--) {
        char head[96];
        int n = snprintf(head, sizeof head, "*3\r\n$3\r\nSET\r\n$%u\r\n%012u\r\n$%u\r\n", KEY_BYTES, 0u, value_bytes);
        if ((uint32_t)n + value_bytes + 2 != size) continue;
        memcpy(load->request, head, (size_t)n);
        load->value_at = (uint32_t)n;
        load->value_bytes = value_bytes;
        load->key_at = (uint32_t)(strstr(head, "000000000000") - head);
        memset(load->request + load->value_at, '0', value_bytes);
        memcpy(load->request + load->value_at + value_bytes, "\r\n", 2);
        return 1;
    }
    return 0;
}

uint32_t r2p2_loadgen_key(r2p2_loadgen *load, uint64_t key, uint8_t *out) {
    out[0] = 'k';
    digits(out + 1, KEY_BYTES - 1, key);
    (void)load;
    return KEY_BYTES;
}

uint32_t r2p2_loadgen_value(r2p2_loadgen *load, uint64_t key, uint64_t version, uint8_t *out) {
    (void)key;
    uint32_t width = load->value_bytes < 19 ? load->value_bytes : 19;
    memset(out, '0', load->value_bytes);
    digits(out + load->value_bytes - width, width, version);
    return load->value_bytes;
}

/* The slot's next key that is certain: keys slot, slot + outstanding, slot + 2 * outstanding... 0 when none is left. */
static int next_key(r2p2_loadgen *load, uint32_t slot_index, uint64_t *key) {
    load_slot *slot = &load->slots[slot_index];
    uint64_t step = load->config.outstanding, count = (load->config.keys_count - slot_index + step - 1) / step;
    for (uint64_t tried = 0; tried < count; tried++) {
        *key = slot_index + slot->cursor * step;
        slot->cursor = slot->cursor + 1 < count ? slot->cursor + 1 : 0;
        if (!load->uncertain[*key]) return 1;
    }
    return 0;
}

static void issue(r2p2_loadgen *load, uint32_t slot_index, uint64_t due_ns) {
    load_slot *slot = &load->slots[slot_index];
    if (load->config.workload == R2P2_LOAD_SET) {
        if (!next_key(load, slot_index, &slot->key)) { /* every key of this slot is uncertain: it rests */
            slot->resume_ns = UINT64_MAX;
            return;
        }
        r2p2_loadgen_key(load, slot->key, load->request + load->key_at);
        r2p2_loadgen_value(load, slot->key, ++load->issued[slot->key], load->request + load->value_at);
    } else if (load->config.size >= 8) {
        uint64_t tag = load->stats.issued;
        memcpy(load->request, &tag, 8);
        slot->key = tag;
    }
    slot->due_ns = due_ns;
    slot->target = load->target;
    const r2p2_target *target = &load->targets[slot->target];
    r2p2_call call = {
        .to = {target->ip, target->port, load->config.local_port},
        .payload = load->request,
        .bytes = load->config.size,
        .timeout_ns = load->config.timeout_ns,
        .tag = slot_index,
        .policy = load->config.policy,
    };
    if (load->config.sessions)
        call.session = (uint16_t)(load->first_session + slot_index % load->config.sessions + 1);
    int32_t rid = r2p2_client_start(load->client, &call, load->engine->now_ns);
    /* Rids used up by quarantine after an outage, or a session that waits for one old call: try again soon, nothing was sent. */
    if (rid < 0) {
        if (load->config.workload == R2P2_LOAD_SET) load->issued[slot->key]--;
        slot->resume_ns = load->engine->now_ns + BACKOFF_NS;
        list_push(load, &load->backoff, slot_index);
        load->backoff_count++;
        return;
    }
    load->stats.issued++;
    load->stats.waiting++;
}

/* ---- answers ---- */

static r2p2_timeline_bucket *timeline_at(r2p2_loadgen *load, uint64_t now_ns) {
    uint64_t index = (now_ns - load->stats.started_ns) / load->config.timeline_step_ns;
    if (index >= load->config.timeline_count) index = load->config.timeline_count - 1;
    return &load->timeline[index];
}

static int is_expected(const r2p2_loadgen *load, const load_slot *slot, const r2p2_completion *completion,
                       const uint8_t *payload) {
    if (load->config.workload == R2P2_LOAD_SET) return completion->length == 5 && memcmp(payload, "+OK\r\n", 5) == 0;
    if (completion->length != load->config.size) return 0;
    return load->config.size < 8 || (memcmp(payload, &slot->key, 8) == 0 &&
                                     memcmp(payload + 8, load->request + 8, load->config.size - 8) == 0);
}

static void answered(r2p2_loadgen *load, load_slot *slot, const r2p2_completion *completion, const uint8_t *payload) {
    uint64_t now_ns = load->engine->now_ns, latency_ns = now_ns - slot->due_ns;
    r2p2_loadgen_stats *stats = &load->stats;
    stats->answered++;
    if (!is_expected(load, slot, completion, payload)) stats->wrong++;
    else if (load->config.workload == R2P2_LOAD_SET) load->acked[slot->key] = load->issued[slot->key];
    if (stats->first_answer_ns == 0) stats->first_answer_ns = now_ns;
    else if (now_ns - stats->last_answer_ns > stats->max_gap_ns) {
        stats->max_gap_ns = now_ns - stats->last_answer_ns;
        stats->max_gap_at_ns = now_ns;
    }
    stats->last_answer_ns = now_ns;
    load->histogram[bucket_of(latency_ns)]++;
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
        timeline_at(load, load->engine->now_ns)->failed++;
        if (load->config.workload == R2P2_LOAD_SET) load->uncertain[slot->key] = 1;
        /* Of all its calls that end so the first finds it expired; the others find it new. */
        (void)r2p2_client_session_renew(
            r2p2_client_session_at(load->client, load->first_session + slot_index % load->config.sessions));
        break;
    default: /* no answer: it may or may not have been executed */
        load->stats.timeouts++;
        timeline_at(load, load->engine->now_ns)->failed++;
        if (load->config.workload == R2P2_LOAD_SET) load->uncertain[slot->key] = 1;
        retarget(load, slot);
    }
    if (load->config.rate == 0 && load->issuing) issue(load, slot_index, load->engine->now_ns);
    else list_push(load, &load->free, slot_index);
}

/* ---- the loop ---- */

static void issue_due(r2p2_loadgen *load) {
    uint64_t now_ns = load->engine->now_ns;
    while (load->backoff.head != NO_SLOT && load->slots[load->backoff.head].resume_ns <= now_ns) {
        list_push(load, &load->free, list_pop(load, &load->backoff));
        load->backoff_count--;
    }
    if (!load->issuing) return;
    if (load->config.rate == 0) {
        for (uint32_t slot; (slot = list_pop(load, &load->free)) != NO_SLOT;) issue(load, slot, now_ns);
        return;
    }
    while (load->due_ns <= (double)now_ns && load->free.head != NO_SLOT) {
        issue(load, list_pop(load, &load->free), (uint64_t)load->due_ns);
        double uniform = ((double)(random_next(load) >> 11) + 0.5) / 9007199254740992.0;
        load->due_ns += -log(uniform) * 1e9 / load->config.rate;
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

/* ---- life ---- */

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
    if (!client || targets_count == 0 || targets_count > R2P2_TARGETS_MAX) return NULL;
    if (config->outstanding == 0 || config->outstanding > client->calls_max || config->size > R2P2_PAYLOAD_BYTES_MAX)
        return NULL;
    if (config->timeline_count == 0 || config->timeline_step_ns == 0 || config->rate < 0) return NULL;
    if (config->workload > R2P2_LOAD_SET) return NULL;
    if (config->sessions > R2P2_CLIENT_SESSIONS_MAX || (config->sessions && config->policy != R2P2_POLICY_REPLICATED)) return NULL;
    if (config->workload == R2P2_LOAD_SET && config->keys_count < config->outstanding) return NULL;
    r2p2_loadgen *load = calloc(1, sizeof *load);
    *error = R2P2_ERROR_NO_MEMORY;
    if (!load) return NULL;
    load->engine = engine;
    load->client = client;
    load->config = *config;
    load->random = config->seed;
    memcpy(load->targets, targets, targets_count * sizeof *targets);
    load->targets_count = targets_count;
    for (uint32_t i = 0; i < config->size; i++) load->request[i] = (uint8_t)('a' + i % 26);
    uint64_t keys = config->workload == R2P2_LOAD_SET ? config->keys_count : 1;
    load->slots = calloc(config->outstanding, sizeof *load->slots);
    load->acked = calloc(keys, sizeof *load->acked);
    load->issued = calloc(keys, sizeof *load->issued);
    load->uncertain = calloc(keys, 1);
    load->histogram = calloc(BUCKETS_COUNT, sizeof *load->histogram);
    load->timeline = calloc(config->timeline_count, sizeof *load->timeline);
    int has_memory = load->slots && load->acked && load->issued && load->uncertain && load->histogram && load->timeline;
    if (has_memory) *error = R2P2_ERROR_ARGUMENT;
    if (!has_memory || (config->workload == R2P2_LOAD_SET && !template_set(load))) {
        r2p2_loadgen_free(load);
        return NULL;
    }
    load->first_session = load->client->sessions_count;
    for (uint32_t i = 0; i < config->sessions; i++) {
        int32_t number = r2p2_client_session_add(client, targets, targets_count);
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
    *error = R2P2_OK;
    return load;
}

void r2p2_loadgen_free(r2p2_loadgen *load) {
    if (!load) return;
    if (load->engine->sink_context == load) r2p2_engine_default_sink(load->engine);
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
    memset(load->histogram, 0, BUCKETS_COUNT * sizeof *load->histogram);
    memset(load->timeline, 0, load->config.timeline_count * sizeof *load->timeline);
}

void r2p2_loadgen_stats_read(r2p2_loadgen *load, r2p2_loadgen_stats *stats) { *stats = load->stats; }
void r2p2_loadgen_histogram(r2p2_loadgen *load, uint64_t *counts) {
    memcpy(counts, load->histogram, BUCKETS_COUNT * sizeof *counts);
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
