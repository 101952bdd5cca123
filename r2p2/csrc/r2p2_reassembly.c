/* Half messages. See r2p2_reassembly.h. */
#include "r2p2_reassembly.h"

#include <stdlib.h>
#include <string.h>

#include "r2p2_engine_status.h"

#define SLOT_BYTES ((uint64_t)R2P2_PAYLOAD_BYTES_MAX)
/* How long a whole message is remembered: longer than the network keeps a duplicate, shorter than rids take to come round. */
#define MEMORY_NS 50000000u

int r2p2_reassembly_init(r2p2_reassembly *table, uint32_t count_max, uint64_t bytes_max, uint64_t timeout_ns) {
    memset(table, 0, sizeof *table);
    if (count_max == 0 || (count_max & (count_max - 1))) return R2P2_ERROR_ARGUMENT;
    table->count_max = count_max;
    table->bytes_max = bytes_max;
    table->timeout_ns = timeout_ns;
    table->halves = calloc(count_max, sizeof *table->halves);
    table->buckets = calloc(count_max, sizeof *table->buckets);
    if (!table->halves || !table->buckets) {
        r2p2_reassembly_destroy(table);
        return R2P2_ERROR_NO_MEMORY;
    }
    for (uint32_t i = 0; i < count_max; i++) {
        table->halves[i].hash_next = table->unused;
        table->unused = &table->halves[i];
    }
    return 0;
}

void r2p2_reassembly_destroy(r2p2_reassembly *table) {
    for (r2p2_half *half = table->active.oldest; half; half = half->newer) free(half->bytes);
    free(table->halves);
    free(table->buckets);
    memset(table, 0, sizeof *table);
}

static uint32_t bucket_of(const r2p2_reassembly *table, uint32_t ip, uint16_t port, uint16_t local_port, uint16_t rid,
                          uint8_t type) {
    uint64_t h = ((uint64_t)ip << 32 | (uint32_t)port << 16 | rid) ^ ((uint64_t)local_port << 24 | (uint64_t)type << 56);
    h *= 0x9e3779b97f4a7c15u;
    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9u;
    return (uint32_t)(h >> 32) & (table->count_max - 1);
}

static r2p2_half **bucket_for(r2p2_reassembly *table, const r2p2_half *half) {
    return &table->buckets[bucket_of(table, half->source_ip, half->source_port, half->local_port, half->rid, half->type)];
}

static void list_append(struct r2p2_half_list *list, r2p2_half *half) {
    half->newer = NULL;
    half->older = list->newest;
    if (list->newest) list->newest->newer = half;
    else list->oldest = half;
    list->newest = half;
}

static void list_remove(struct r2p2_half_list *list, r2p2_half *half) {
    if (half->older) half->older->newer = half->newer;
    else list->oldest = half->newer;
    if (half->newer) half->newer->older = half->older;
    else list->newest = half->older;
}

/* Ends a half or a memory: its bytes, its place, its name. */
static void forget(r2p2_reassembly *table, r2p2_half *half) {
    table->bytes -= half->slots_count * SLOT_BYTES;
    free(half->bytes);
    half->bytes = NULL;
    half->slots_count = 0;
    r2p2_half **link = bucket_for(table, half);
    while (*link != half) link = &(*link)->hash_next;
    *link = half->hash_next;
    list_remove(half->is_done ? &table->done : &table->active, half);
    half->hash_next = table->unused;
    table->unused = half;
    table->count--;
}

/* A half whose bytes have gone to somebody else becomes a memory. */
static void remember(r2p2_reassembly *table, r2p2_half *half) {
    half->bytes = NULL;
    half->slots_count = 0;
    list_remove(&table->active, half);
    half->is_done = 1;
    half->created_ns = table->now_ns;
    list_append(&table->done, half);
}

void r2p2_reassembly_finish(r2p2_reassembly *table, r2p2_half *half) {
    table->bytes -= half->slots_count * SLOT_BYTES;
    free(half->bytes);
    remember(table, half);
}

r2p2_detached r2p2_reassembly_detach(r2p2_reassembly *table, r2p2_half *half) {
    r2p2_detached detached = {half->bytes, half->slots_count * SLOT_BYTES};
    remember(table, half);
    return detached;
}

void r2p2_reassembly_return(r2p2_reassembly *table, r2p2_detached detached) {
    table->bytes -= detached.bytes;
    free(detached.base);
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

/* Gives the half room for `slots` packets. Growth is by what is needed: the FIRST packet tells the final size. */
static int ensure_slots(r2p2_reassembly *table, r2p2_half *half, uint32_t slots) {
    if (slots <= half->slots_count) return 1;
    uint64_t more = (slots - half->slots_count) * SLOT_BYTES;
    if (table->bytes + more > table->bytes_max) return 0;
    uint8_t *bytes = realloc(half->bytes, slots * SLOT_BYTES);
    if (!bytes) return 0;
    half->bytes = bytes;
    half->slots_count = (uint16_t)slots;
    table->bytes += more;
    return 1;
}

static int has_packet(const r2p2_half *half, uint32_t index) { return half->received[index >> 6] >> (index & 63) & 1; }

/* The message as contiguous bytes. Full middle packets already lie end to end; others are moved together. */
static void make_contiguous(r2p2_half *half, r2p2_whole *whole) {
    uint32_t start = R2P2_PAYLOAD_BYTES_MAX - half->lengths[0], end = R2P2_PAYLOAD_BYTES_MAX;
    for (uint32_t i = 1; i < half->expected_count; i++) {
        if (end != i * SLOT_BYTES) memmove(half->bytes + end, half->bytes + i * SLOT_BYTES, half->lengths[i]);
        end += half->lengths[i];
    }
    whole->half = half;
    whole->data = half->bytes + start;
    whole->length = end - start;
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
    for (uint32_t i = packets; i < R2P2_PACKETS_MAX; i++)
        if (has_packet(half, i)) return 0;
    return 1;
}

enum r2p2_reassembly_result r2p2_reassembly_add(r2p2_reassembly *table, const r2p2_header *header, const uint8_t *payload,
                                                uint32_t length, uint32_t source_ip, uint16_t source_port,
                                                uint16_t local_port, uint64_t now_ns, r2p2_whole *whole) {
    if (length > R2P2_PAYLOAD_BYTES_MAX || length == 0) return R2P2_HALF_BAD_LENGTH;
    uint32_t index = header->is_first ? 0 : header->p_order;
    enum r2p2_reassembly_result result = R2P2_HALF_STORED;

    r2p2_half *half = table->buckets[bucket_of(table, source_ip, source_port, local_port, header->rid, header->type)];
    while (half && !(half->source_ip == source_ip && half->source_port == source_port && half->local_port == local_port &&
                     half->rid == header->rid && half->type == header->type))
        half = half->hash_next;

    if (half && header->is_first &&
        (has_packet(half, 0) ? !same_first(half, header, payload, length) : !fits_first(half, header->p_order))) {
        if (!half->is_done) result = R2P2_HALF_REPLACED;
        forget(table, half);
        half = NULL;
    }
    if (!half) {
        if (!table->unused && table->done.oldest) forget(table, table->done.oldest);
        half = table->unused;
        if (!half) return R2P2_HALF_FULL;
        table->unused = half->hash_next;
        memset(half, 0, offsetof(r2p2_half, lengths));
        half->bytes = NULL;
        half->created_ns = now_ns;
        half->source_ip = source_ip;
        half->source_port = source_port;
        half->local_port = local_port;
        half->rid = header->rid;
        half->type = header->type;
        half->policy = header->policy;
        r2p2_half **bucket = bucket_for(table, half);
        half->hash_next = *bucket;
        *bucket = half;
        list_append(&table->active, half);
        table->count++;
    }
    if (half->is_done || has_packet(half, index)) return R2P2_HALF_DUPLICATE;
    if (half->expected_count && index >= half->expected_count) return R2P2_HALF_BAD_ORDER;
    if (half->expected_count && header->is_last != (index + 1 == half->expected_count)) return R2P2_HALF_BAD_ORDER;
    if (!ensure_slots(table, half, header->is_first ? header->p_order : index + 1)) {
        if (half->received_count == 0) forget(table, half);
        return R2P2_HALF_FULL;
    }
    uint8_t *slot = half->bytes + index * SLOT_BYTES;
    if (index == 0) {
        half->expected_count = header->p_order;
        half->policy = header->policy;
        half->first_digest = digest(payload, length);
        slot += R2P2_PAYLOAD_BYTES_MAX - length;
    }
    memcpy(slot, payload, length);
    half->lengths[index] = (uint16_t)length;
    half->received[index >> 6] |= (uint64_t)1 << (index & 63);
    half->received_count++;
    if (half->received_count != half->expected_count) return result;
    make_contiguous(half, whole);
    return R2P2_HALF_COMPLETE;
}
