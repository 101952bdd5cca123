/* Half messages. See r2p2_reassembly.h. */
#include "r2p2_reassembly.h"

#include <stdlib.h>
#include <string.h>

#include "r2p2_engine_status.h"
#include "r2p2_grants.h"

#define SLOT_BYTES ((uint64_t)R2P2_PAYLOAD_BYTES_MAX)
/* How long a whole message is remembered: longer than the network keeps a duplicate, shorter than rids take to come round. */
#define MEMORY_NS 50000000u

int r2p2_reassembly_init(r2p2_reassembly *table, uint32_t count_max, uint64_t bytes_max, uint64_t timeout_ns,
                         uint32_t share) {
    memset(table, 0, sizeof *table);
    if (count_max == 0 || (count_max & (count_max - 1)) || share == 0) return R2P2_ERROR_ARGUMENT;
    table->count_max = count_max;
    table->bytes_max = bytes_max;
    table->timeout_ns = timeout_ns;
    table->source_count_max = count_max / share ? count_max / share : 1;
    table->source_bytes_max = bytes_max / share;
    table->granted_max = R2P2_GRANT_PACKETS_MAX;
    table->halves = calloc(count_max, sizeof *table->halves);
    table->buckets = calloc(count_max, sizeof *table->buckets);
    table->sources = calloc(count_max, sizeof *table->sources);
    table->source_buckets = calloc(count_max, sizeof *table->source_buckets);
    if (!table->halves || !table->buckets || !table->sources || !table->source_buckets) {
        r2p2_reassembly_destroy(table);
        return R2P2_ERROR_NO_MEMORY;
    }
    for (uint32_t i = 0; i < count_max; i++) {
        table->halves[i].hash_next = table->unused;
        table->unused = &table->halves[i];
        table->sources[i].hash_next = table->unused_source;
        table->unused_source = &table->sources[i];
    }
    return 0;
}

void r2p2_reassembly_destroy(r2p2_reassembly *table) {
    for (r2p2_half *half = table->active.oldest; half; half = half->links[R2P2_LINKS_TIME].newer) free(half->bytes);
    free(table->halves);
    free(table->buckets);
    free(table->sources);
    free(table->source_buckets);
    memset(table, 0, sizeof *table);
}

/* ---- sources ---- */

static r2p2_source **source_bucket(r2p2_reassembly *table, uint32_t ip) {
    return &table->source_buckets[(ip * 0x9e3779b1u >> 7) & (table->count_max - 1)];
}

/* The source's account; NULL when it holds nothing. */
static r2p2_source *source_find(r2p2_reassembly *table, uint32_t ip) {
    r2p2_source *source = *source_bucket(table, ip);
    while (source && source->ip != ip) source = source->hash_next;
    return source;
}

/* The source's account, made when it has none: there are as many as halves, and only who holds a half has one. */
static r2p2_source *source_of(r2p2_reassembly *table, uint32_t ip) {
    r2p2_source **bucket = source_bucket(table, ip), *source = source_find(table, ip);
    if (source) return source;
    source = table->unused_source;
    table->unused_source = source->hash_next;
    *source = (r2p2_source){.ip = ip, .hash_next = *bucket};
    *bucket = source;
    return source;
}

static void source_leave(r2p2_reassembly *table, r2p2_source *source) {
    if (--source->count > 0) return;
    r2p2_source **link = source_bucket(table, source->ip);
    while (*link != source) link = &(*link)->hash_next;
    *link = source->hash_next;
    source->hash_next = table->unused_source;
    table->unused_source = source;
}

/* ---- halves ---- */

static void bytes_free(r2p2_reassembly *table, r2p2_half *half) {
    table->bytes -= half->capacity;
    half->source->bytes -= half->capacity;
    free(half->bytes);
    half->bytes = NULL;
    half->capacity = 0;
}

/* All answers to one call lie in one bucket, whoever sends them: there are few. */
static uint32_t bucket_of(const r2p2_reassembly *table, uint32_t ip, uint16_t port, uint16_t local_port, uint16_t rid,
                          uint8_t type) {
    if (type == R2P2_TYPE_RESPONSE) ip = port = 0;
    uint64_t h = ((uint64_t)ip << 32 | (uint32_t)port << 16 | rid) ^ ((uint64_t)local_port << 24 | (uint64_t)type << 56);
    h *= 0x9e3779b97f4a7c15u;
    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9u;
    return (uint32_t)(h >> 32) & (table->count_max - 1);
}

static r2p2_half **bucket_for(r2p2_reassembly *table, const r2p2_half *half) {
    return &table->buckets[bucket_of(table, half->source_ip, half->source_port, half->local_port, half->rid, half->type)];
}

static void list_append(struct r2p2_half_list *list, r2p2_half *half, int by) {
    half->links[by].newer = NULL;
    half->links[by].older = list->newest;
    if (list->newest) list->newest->links[by].newer = half;
    else list->oldest = half;
    list->newest = half;
}

static void list_remove(struct r2p2_half_list *list, r2p2_half *half, int by) {
    struct r2p2_half_links *links = &half->links[by];
    if (links->older) links->older->links[by].newer = links->newer;
    else list->oldest = links->newer;
    if (links->newer) links->newer->links[by].older = links->older;
    else list->newest = links->older;
}

/* Whether the half is one of those that give way where there is no room. It may only cease to be. */
static int may_give_way(const r2p2_half *half) {
    return half->received_count == 1 || half->expected_count == 0 || !half->is_vouched;
}

/* Whether the half may give way has changed, or its age. */
static void set_first_to_go(r2p2_reassembly *table, r2p2_half *half, int is_first_to_go) {
    if (half->is_first_to_go) list_remove(&table->first_to_go, half, R2P2_LINKS_TO_GO);
    if (is_first_to_go) list_append(&table->first_to_go, half, R2P2_LINKS_TO_GO);
    half->is_first_to_go = (uint8_t)is_first_to_go;
}

/* Ends a half or a memory: its bytes, its place, its name. */
static void forget(r2p2_reassembly *table, r2p2_half *half) {
    if (!half->is_done) {
        r2p2_grants_end(table, half);
        set_first_to_go(table, half, 0);
        bytes_free(table, half);
        source_leave(table, half->source);
    }
    r2p2_half **link = bucket_for(table, half);
    while (*link != half) link = &(*link)->hash_next;
    *link = half->hash_next;
    list_remove(half->is_done ? &table->done : &table->active, half, R2P2_LINKS_TIME);
    half->hash_next = table->unused;
    table->unused = half;
    table->count--;
}

static void give_way(r2p2_reassembly *table, r2p2_half *half) {
    forget(table, half);
    table->evicted_count++;
}

/* A half without bytes becomes a memory. */
static void remember(r2p2_reassembly *table, r2p2_half *half) {
    r2p2_grants_end(table, half);
    set_first_to_go(table, half, 0);
    source_leave(table, half->source);
    half->source = NULL;
    list_remove(&table->active, half, R2P2_LINKS_TIME);
    half->is_done = 1;
    half->created_ns = table->now_ns;
    list_append(&table->done, half, R2P2_LINKS_TIME);
}

void r2p2_reassembly_finish(r2p2_reassembly *table, r2p2_half *half) {
    bytes_free(table, half);
    remember(table, half);
}

r2p2_detached r2p2_reassembly_detach(r2p2_reassembly *table, r2p2_half *half) {
    r2p2_detached detached = {half->bytes, half->capacity};
    half->source->bytes -= half->capacity; /* the table's account goes down when the bytes come back */
    half->bytes = NULL;
    half->capacity = 0;
    remember(table, half);
    return detached;
}

void r2p2_reassembly_return(r2p2_reassembly *table, r2p2_detached detached) {
    table->bytes -= detached.bytes;
    free(detached.base);
}

void r2p2_reassembly_renew(r2p2_reassembly *table, r2p2_half *half, uint64_t now_ns) {
    list_remove(&table->active, half, R2P2_LINKS_TIME);
    half->created_ns = now_ns;
    list_append(&table->active, half, R2P2_LINKS_TIME);
    set_first_to_go(table, half, half->is_first_to_go);
}

uint32_t r2p2_reassembly_expire(r2p2_reassembly *table, uint64_t now_ns) {
    uint32_t expired = 0;
    table->now_ns = now_ns;
    while (table->active.oldest && now_ns - table->active.oldest->created_ns > table->timeout_ns) {
        forget(table, table->active.oldest);
        expired++;
    }
    while (table->done.oldest && now_ns - table->done.oldest->created_ns > MEMORY_NS) forget(table, table->done.oldest);
    return expired;
}

/* Changes the half's room to `capacity` bytes within the bounds. */
static enum r2p2_reassembly_result resize(r2p2_reassembly *table, r2p2_half *half, uint32_t capacity) {
    uint64_t more = capacity - half->capacity;
    if (half->source->bytes + more > table->source_bytes_max) return R2P2_HALF_QUOTA;
    while (table->bytes + more > table->bytes_max) {
        r2p2_half *oldest = table->first_to_go.oldest;
        if (oldest == half) oldest = half->links[R2P2_LINKS_TO_GO].newer;
        if (!oldest) return R2P2_HALF_FULL;
        give_way(table, oldest);
    }
    uint8_t *bytes = realloc(half->bytes, capacity);
    if (!bytes) return R2P2_HALF_FULL;
    half->bytes = bytes;
    half->capacity = capacity;
    table->bytes += more;
    half->source->bytes += more;
    return R2P2_HALF_STORED;
}

/* Room for one more packet: doubling, but never beyond what the message can need. */
static enum r2p2_reassembly_result ensure_slot(r2p2_reassembly *table, r2p2_half *half, uint32_t expected_count) {
    uint32_t needed = half->received_count + 1u, slots = half->capacity / SLOT_BYTES;
    if (needed <= slots) return R2P2_HALF_STORED;
    uint32_t most = expected_count ? expected_count : R2P2_PACKETS_MAX;
    slots = 2 * slots > needed ? 2 * slots : needed;
    return resize(table, half, (uint32_t)((slots < most ? slots : most) * SLOT_BYTES));
}

static int has_packet(const r2p2_half *half, uint32_t index) { return half->received[index >> 6] >> (index & 63) & 1; }

/* The message as contiguous bytes: as it lies when its packets came in order and full, else put together anew. */
static enum r2p2_reassembly_result make_contiguous(r2p2_reassembly *table, r2p2_half *half, r2p2_whole *whole) {
    uint32_t count = half->expected_count, total = 0;
    int in_place = half->slot_of[0] == 0;
    for (uint32_t i = 0; i < count; i++) {
        total += half->lengths[i];
        if (half->slot_of[i] != i || (i > 0 && i + 1 < count && half->lengths[i] != SLOT_BYTES)) in_place = 0;
    }
    if (in_place) {
        *whole = (r2p2_whole){half, half->bytes + SLOT_BYTES - half->lengths[0], total};
        return R2P2_HALF_COMPLETE;
    }
    uint8_t *bytes = malloc(total);
    if (!bytes) return R2P2_HALF_FULL;
    for (uint32_t i = 0, at = 0; i < count; at += half->lengths[i++]) {
        const uint8_t *slot = half->bytes + half->slot_of[i] * SLOT_BYTES;
        memcpy(bytes + at, i == 0 ? slot + SLOT_BYTES - half->lengths[0] : slot, half->lengths[i]);
    }
    /* At most what it was: every packet's slot is at least its length. */
    bytes_free(table, half);
    half->bytes = bytes;
    half->capacity = total;
    table->bytes += total;
    half->source->bytes += total;
    *whole = (r2p2_whole){half, bytes, total};
    return R2P2_HALF_COMPLETE;
}

static uint64_t digest(const uint8_t *data, uint32_t length) {
    uint64_t h = length, word = 0;
    uint32_t i = 0;
    for (; i + 8 <= length; i += 8) {
        memcpy(&word, data + i, 8);
        h = (h ^ word) * 0x9e3779b97f4a7c15u;
        h ^= h >> 32;
    }
    word = 0;
    memcpy(&word, data + i, length - i);
    return (h ^ word) * 0x9e3779b97f4a7c15u;
}

/* A FIRST packet for a half or a memory that already has one. */
static int same_first(const r2p2_half *half, const r2p2_header *header, const uint8_t *payload, uint32_t length) {
    return half->expected_count == header->p_order && half->policy == header->policy && half->lengths[0] == length &&
           half->first_digest == digest(payload, length);
}

/* Packets beyond a count learned late, or a LAST flag on a packet that is not the last, cannot be of this message. */
static int fits_first(const r2p2_half *half, uint16_t packets) {
    if (half->last_index && half->last_index + 1 != packets) return 0;
    for (uint32_t i = packets; i < R2P2_PACKETS_MAX; i++)
        if (has_packet(half, i)) return 0;
    return 1;
}

/* A half for a message of `ip`, in the table but without a name; NULL and *result when there is none to be had. */
static r2p2_half *half_new(r2p2_reassembly *table, uint32_t ip, int has_quota, uint64_t now_ns,
                           enum r2p2_reassembly_result *result) {
    /* The quota first: who is at his must not push out another's half only to be refused. */
    const r2p2_source *known = source_find(table, ip);
    if (has_quota && known && known->count >= table->source_count_max) {
        *result = R2P2_HALF_QUOTA;
        return NULL;
    }
    if (!table->unused) {
        if (table->done.oldest) forget(table, table->done.oldest);
        else if (table->first_to_go.oldest) give_way(table, table->first_to_go.oldest);
        else {
            *result = R2P2_HALF_FULL;
            return NULL;
        }
    }
    r2p2_source *source = source_of(table, ip);
    source->count++;
    r2p2_half *half = table->unused;
    table->unused = half->hash_next;
    memset(half, 0, offsetof(r2p2_half, lengths));
    half->source = source;
    half->source_ip = ip;
    half->created_ns = now_ns;
    list_append(&table->active, half, R2P2_LINKS_TIME);
    table->count++;
    return half;
}

static r2p2_half *half_find(const r2p2_reassembly *table, const r2p2_header *header, uint32_t source_ip,
                            uint16_t source_port, uint16_t local_port) {
    r2p2_half *half = table->buckets[bucket_of(table, source_ip, source_port, local_port, header->rid, header->type)];
    while (half && !(half->source_ip == source_ip && half->source_port == source_port && half->local_port == local_port &&
                     half->rid == header->rid && half->type == header->type))
        half = half->hash_next;
    return half;
}

/* Room for one more answer to a call. A bucket has the newest first. */
static void bound_answers(r2p2_reassembly *table, uint16_t local_port, uint16_t rid) {
    uint32_t count = 0;
    r2p2_half *oldest = NULL;
    for (r2p2_half *half = table->buckets[bucket_of(table, 0, 0, local_port, rid, R2P2_TYPE_RESPONSE)]; half; half = half->hash_next) {
        if (half->type != R2P2_TYPE_RESPONSE || half->rid != rid || half->local_port != local_port) continue;
        count++;
        if (half->is_done || !half->is_vouched) oldest = half;
    }
    if (count < R2P2_ANSWER_HALVES_MAX || !oldest) return; /* all are of servers that were asked: as few as these */
    if (oldest->is_done) forget(table, oldest);
    else give_way(table, oldest);
}

int r2p2_reassembly_is_repeat(const r2p2_reassembly *table, const r2p2_header *header, const uint8_t *payload,
                              uint32_t length, uint32_t source_ip, uint16_t source_port, uint16_t local_port) {
    const r2p2_half *half = half_find(table, header, source_ip, source_port, local_port);
    return half && !(half->is_done && header->has_session) && has_packet(half, 0) &&
           same_first(half, header, payload, length);
}

enum r2p2_reassembly_result r2p2_reassembly_add(r2p2_reassembly *table, const r2p2_header *header, const uint8_t *payload,
                                                uint32_t length, uint32_t source_ip, uint16_t source_port,
                                                uint16_t local_port, int is_vouched, uint64_t now_ns, r2p2_whole *whole) {
    if (length > R2P2_PAYLOAD_BYTES_MAX || length == 0) return R2P2_HALF_BAD_LENGTH;
    uint32_t index = header->is_first ? 0 : header->p_order;
    enum r2p2_reassembly_result result = R2P2_HALF_STORED;

    r2p2_half *half = half_find(table, header, source_ip, source_port, local_port);
    if (half && header->is_first &&
        ((half->is_done && header->has_session) ||
         (has_packet(half, 0) ? !same_first(half, header, payload, length) : !fits_first(half, header->p_order)))) {
        if (!half->is_done) result = R2P2_HALF_REPLACED;
        forget(table, half);
        half = NULL;
    }
    if (!half) {
        /* A response belongs to a call of ours, whose number is bounded, and so are the answers to each. */
        if (header->type == R2P2_TYPE_RESPONSE) bound_answers(table, local_port, header->rid);
        half = half_new(table, source_ip, header->type != R2P2_TYPE_RESPONSE, now_ns, &result);
        if (!half) return result;
        half->source_port = source_port;
        half->local_port = local_port;
        half->rid = header->rid;
        half->type = header->type;
        half->policy = header->policy;
        half->is_vouched = (uint8_t)is_vouched;
        r2p2_half **bucket = bucket_for(table, half);
        half->hash_next = *bucket;
        *bucket = half;
    }
    whole->half = half;
    if (half->is_done || has_packet(half, index)) return R2P2_HALF_DUPLICATE;
    if (half->expected_count && index >= half->expected_count) return R2P2_HALF_BAD_ORDER;
    if (half->expected_count && header->is_last != (index + 1 == half->expected_count)) return R2P2_HALF_BAD_ORDER;
    enum r2p2_reassembly_result room = ensure_slot(table, half, header->is_first ? header->p_order : half->expected_count);
    if (room != R2P2_HALF_STORED) {
        if (half->received_count == 0) forget(table, half);
        return room;
    }
    uint8_t *slot = half->bytes + half->received_count * SLOT_BYTES;
    if (index == 0) {
        half->expected_count = header->p_order;
        half->policy = header->policy;
        half->has_session = header->has_session;
        half->first_digest = digest(payload, length);
        slot += SLOT_BYTES - length;
    }
    if (header->is_last) half->last_index = (uint16_t)index;
    memcpy(slot, payload, length);
    half->lengths[index] = (uint16_t)length;
    half->slot_of[index] = (uint8_t)half->received_count;
    half->received[index >> 6] |= (uint64_t)1 << (index & 63);
    half->received_count++;
    if (may_give_way(half) != half->is_first_to_go) set_first_to_go(table, half, !half->is_first_to_go);
    if (index) r2p2_grants_arrived(table, half);
    if (half->received_count != half->expected_count) return result;
    result = make_contiguous(table, half, whole);
    if (result != R2P2_HALF_COMPLETE) forget(table, half);
    return result;
}
