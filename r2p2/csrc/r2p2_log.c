/* The entry log. See r2p2_log.h. */
#include "r2p2_log.h"

#include <stdlib.h>

#include "r2p2_engine_status.h"
#include "r2p2_wire.h"

#define POSITIONS_PER_PAGE ((uint64_t)R2P2_LOG_PAGE_BYTES / 8)
/* Free pages kept for reuse: 8 MiB. More go back to the system. */
#define FREE_PAGES_MAX 32

static uint8_t *page_take(r2p2_page_pool *pool) {
    if (pool->free_count > 0) return pool->free_pages[--pool->free_count];
    uint8_t *page = aligned_alloc(4096, R2P2_LOG_PAGE_BYTES);
    if (page) pool->allocated_count++;
    return page;
}

static void page_give(r2p2_page_pool *pool, uint8_t *page) {
    if (pool->free_count < pool->free_max) {
        pool->free_pages[pool->free_count++] = page;
        return;
    }
    free(page);
    pool->allocated_count--;
}

/* Makes pages exist up to `end` (exclusive). 0 or R2P2_ERROR_NO_MEMORY; pages already added stay, they are within bounds. */
static int window_extend(r2p2_page_window *window, r2p2_page_pool *pool, uint64_t end) {
    while (window->end < end) {
        uint8_t *page = page_take(pool);
        if (!page) return R2P2_ERROR_NO_MEMORY;
        window->slots[window->end++ % window->slots_count] = page;
    }
    return 0;
}

static void window_shrink(r2p2_page_window *window, r2p2_page_pool *pool, uint64_t end) {
    while (window->end > end) page_give(pool, window->slots[--window->end % window->slots_count]);
}

static void window_advance(r2p2_page_window *window, r2p2_page_pool *pool, uint64_t first) {
    while (window->first < first && window->first < window->end)
        page_give(pool, window->slots[window->first++ % window->slots_count]);
}

int r2p2_log_init(r2p2_log *log, uint64_t bytes_max, uint64_t entries_max) {
    memset(log, 0, sizeof *log);
    log->bytes_max = bytes_max;
    log->entries_max = entries_max;
    log->first_index = 1;
    log->pool.free_max = FREE_PAGES_MAX;
    /* +2: a window of n bytes can touch n / page + 2 pages. */
    log->bytes.slots_count = bytes_max / R2P2_LOG_PAGE_BYTES + 2;
    log->positions.slots_count = entries_max / POSITIONS_PER_PAGE + 2;
    log->pool.free_pages = calloc(FREE_PAGES_MAX, sizeof(uint8_t *));
    log->bytes.slots = calloc(log->bytes.slots_count, sizeof(uint8_t *));
    log->positions.slots = calloc(log->positions.slots_count, sizeof(uint8_t *));
    if (!log->pool.free_pages || !log->bytes.slots || !log->positions.slots) {
        r2p2_log_destroy(log);
        return R2P2_ERROR_NO_MEMORY;
    }
    return 0;
}

void r2p2_log_destroy(r2p2_log *log) {
    log->pool.free_max = 0; /* nothing is kept: every page given back now is freed */
    if (log->bytes.slots) window_shrink(&log->bytes, &log->pool, log->bytes.first);
    if (log->positions.slots) window_shrink(&log->positions, &log->pool, log->positions.first);
    while (log->pool.free_count > 0) free(log->pool.free_pages[--log->pool.free_count]);
    free(log->pool.free_pages);
    free(log->bytes.slots);
    free(log->positions.slots);
    memset(log, 0, sizeof *log);
}

void r2p2_entry_encode(uint8_t out[R2P2_ENTRY_HEADER_BYTES], const r2p2_entry *entry) {
    r2p2_store_u16(out, (uint16_t)(entry->body_length >> 16));
    r2p2_store_u16(out + 2, (uint16_t)entry->body_length);
    r2p2_store_u16(out + 4, (uint16_t)(entry->client_ip >> 16));
    r2p2_store_u16(out + 6, (uint16_t)entry->client_ip);
    r2p2_store_u16(out + 8, entry->client_port);
    r2p2_store_u16(out + 10, entry->rid);
    out[12] = entry->kind;
    out[13] = entry->policy;
    out[14] = 0;
    out[15] = entry->flags;
}

void r2p2_entry_decode(const uint8_t in[R2P2_ENTRY_HEADER_BYTES], r2p2_entry *entry) {
    entry->body_length = (uint32_t)r2p2_load_u16(in) << 16 | r2p2_load_u16(in + 2);
    entry->client_ip = (uint32_t)r2p2_load_u16(in + 4) << 16 | r2p2_load_u16(in + 6);
    entry->client_port = r2p2_load_u16(in + 8);
    entry->rid = r2p2_load_u16(in + 10);
    entry->kind = in[12];
    entry->policy = in[13];
    entry->flags = in[15];
    entry->time_ms = 0;
}

/* Whether an entry may be among `count`, with a body of its length. */
static int kind_is_good(const r2p2_entry *entry, uint64_t count) {
    if (entry->kind == R2P2_ENTRY_CONFIGURATION)
        return count == 1 && entry->client_ip == 0 && entry->flags == 0 && entry->body_length > 0 &&
               entry->body_length <= R2P2_CONFIGURATION_BYTES_MAX;
    uint64_t prefix = (entry->kind == R2P2_ENTRY_SESSION ? R2P2_SESSION_BYTES : 0) +
                      (entry->flags & R2P2_ENTRY_TIMED ? R2P2_TIME_BYTES : 0);
    return entry->kind <= R2P2_ENTRY_SESSION && entry->body_length >= prefix &&
           entry->body_length - prefix <= R2P2_REQUEST_BYTES_MAX;
}

int r2p2_entries_check(const uint8_t *data, uint64_t length, uint64_t count) {
    uint64_t at = 0;
    unsigned flags = 0;
    for (uint64_t i = 0; i < count; i++) {
        if (length - at < R2P2_ENTRY_HEADER_BYTES) return 0;
        r2p2_entry entry;
        r2p2_entry_decode(data + at, &entry);
        if (!kind_is_good(&entry, count)) return 0;
        if (entry.policy > R2P2_POLICY_REPLICATED_NO_SE || data[at + 14] || entry.flags & ~R2P2_ENTRY_TIMED) return 0;
        if (entry.kind == R2P2_ENTRY_NOOP && entry.client_ip) return 0;
        uint64_t bytes = r2p2_entry_bytes(entry.body_length);
        if (length - at < bytes) return 0;
        uint64_t body = at + R2P2_ENTRY_HEADER_BYTES;
        flags |= entry.flags;
        if (entry.flags & R2P2_ENTRY_TIMED) {
            if (r2p2_entry_time(data + at) == 0 || r2p2_entry_time(data + at) > R2P2_TIME_MS_MAX) return 0;
            body += R2P2_TIME_BYTES;
        }
        if (entry.kind == R2P2_ENTRY_SESSION) {
            r2p2_session_extension extension = r2p2_session_read(data + body);
            if (!r2p2_session_valid(&extension)) return 0;
        }
        for (uint64_t p = at + R2P2_ENTRY_HEADER_BYTES + entry.body_length; p < at + bytes; p++)
            if (data[p]) return 0;
        at += bytes;
    }
    if (at != length) return 0;
    return flags ? R2P2_ENTRIES_TIMED : R2P2_ENTRIES_GOOD;
}

uint64_t r2p2_entries_skip(const uint8_t *data, uint64_t count) {
    uint64_t at = 0;
    for (uint64_t i = 0; i < count; i++) {
        r2p2_entry entry;
        r2p2_entry_decode(data + at, &entry);
        at += r2p2_entry_bytes(entry.body_length);
    }
    return at;
}

static void bytes_write(r2p2_log *log, uint64_t position, const uint8_t *data, uint64_t length) {
    while (length > 0) {
        uint64_t offset = position & R2P2_LOG_PAGE_MASK, room = R2P2_LOG_PAGE_BYTES - offset;
        uint64_t n = length < room ? length : room;
        memcpy(log->bytes.slots[(position / R2P2_LOG_PAGE_BYTES) % log->bytes.slots_count] + offset, data, n);
        data += n;
        position += n;
        length -= n;
    }
}

static inline void position_set(r2p2_log *log, uint64_t index, uint64_t position) {
    uint64_t *page =
        (uint64_t *)(void *)log->positions.slots[(index / POSITIONS_PER_PAGE) % log->positions.slots_count];
    page[index % POSITIONS_PER_PAGE] = position;
}

/* Room for `count` entries of `length` bytes at the tail, in bounds and backed by pages. */
static int reserve(r2p2_log *log, uint64_t length, uint64_t count) {
    if (log->tail - log->head + length > log->bytes_max) return R2P2_ERROR_FULL;
    if (log->last_index + 1 - log->first_index + count > log->entries_max) return R2P2_ERROR_FULL;
    uint64_t bytes_end = (log->tail + length + R2P2_LOG_PAGE_MASK) / R2P2_LOG_PAGE_BYTES;
    uint64_t positions_end = (log->last_index + count) / POSITIONS_PER_PAGE + 1;
    if (log->bytes.end < bytes_end && window_extend(&log->bytes, &log->pool, bytes_end)) return R2P2_ERROR_NO_MEMORY;
    if (log->positions.end < positions_end && window_extend(&log->positions, &log->pool, positions_end))
        return R2P2_ERROR_NO_MEMORY;
    return 0;
}

int r2p2_log_append(r2p2_log *log, const r2p2_entry *entry, const uint8_t *body) {
    static const uint8_t zeros[8] = {0};
    uint64_t bytes = r2p2_entry_bytes(entry->body_length);
    int status = reserve(log, bytes, 1);
    if (status) return status;
    uint64_t pad = bytes - R2P2_ENTRY_HEADER_BYTES - entry->body_length, offset = log->tail & R2P2_LOG_PAGE_MASK;
    uint32_t head = R2P2_ENTRY_HEADER_BYTES, length = entry->body_length;
    if (entry->flags & R2P2_ENTRY_TIMED) {
        head += R2P2_TIME_BYTES;
        length -= R2P2_TIME_BYTES;
        if (entry->time_ms > log->time_ms) log->time_ms = entry->time_ms;
    }
    if (offset + bytes <= R2P2_LOG_PAGE_BYTES) {
        uint8_t *out = log->bytes.slots[(log->tail / R2P2_LOG_PAGE_BYTES) % log->bytes.slots_count] + offset;
        r2p2_entry_encode(out, entry);
        if (entry->flags) r2p2_store_u64(out + R2P2_ENTRY_HEADER_BYTES, entry->time_ms);
        if (length) memcpy(out + head, body, length);
        memset(out + head + length, 0, pad);
    } else {
        uint8_t header[R2P2_ENTRY_HEADER_BYTES + R2P2_TIME_BYTES];
        r2p2_entry_encode(header, entry);
        if (entry->flags) r2p2_store_u64(header + R2P2_ENTRY_HEADER_BYTES, entry->time_ms);
        bytes_write(log, log->tail, header, head);
        if (length) bytes_write(log, log->tail + head, body, length);
        bytes_write(log, log->tail + head + length, zeros, pad);
    }
    position_set(log, ++log->last_index, log->tail);
    log->tail += bytes;
    return 0;
}

int r2p2_log_append_wire(r2p2_log *log, const uint8_t *entries, uint64_t length, uint64_t count) {
    int status = reserve(log, length, count);
    if (status) return status;
    bytes_write(log, log->tail, entries, length);
    uint64_t at = 0;
    for (uint64_t i = 0; i < count; i++) {
        position_set(log, ++log->last_index, log->tail + at);
        uint32_t body_length = (uint32_t)r2p2_load_u16(entries + at) << 16 | r2p2_load_u16(entries + at + 2);
        if (entries[at + 15] && r2p2_entry_time(entries + at) > log->time_ms) log->time_ms = r2p2_entry_time(entries + at);
        at += r2p2_entry_bytes(body_length);
    }
    log->tail += length;
    return 0;
}

void r2p2_log_truncate(r2p2_log *log, uint64_t from_index) {
    log->tail = r2p2_log_position(log, from_index);
    log->last_index = from_index - 1;
    uint64_t bytes_end = (log->tail + R2P2_LOG_PAGE_MASK) / R2P2_LOG_PAGE_BYTES;
    uint64_t positions_end = from_index / POSITIONS_PER_PAGE + 1;
    window_shrink(&log->bytes, &log->pool, bytes_end > log->bytes.first ? bytes_end : log->bytes.first);
    window_shrink(&log->positions, &log->pool,
                  positions_end > log->positions.first ? positions_end : log->positions.first);
}

void r2p2_log_drop(r2p2_log *log, uint64_t through_index) {
    log->head = r2p2_log_position(log, through_index + 1);
    log->first_index = through_index + 1;
    window_advance(&log->bytes, &log->pool, log->head / R2P2_LOG_PAGE_BYTES);
    window_advance(&log->positions, &log->pool, log->first_index / POSITIONS_PER_PAGE);
}

void r2p2_log_begin_behind(r2p2_log *log, uint64_t index) {
    window_shrink(&log->bytes, &log->pool, log->bytes.first);
    window_shrink(&log->positions, &log->pool, log->positions.first);
    /* Byte positions go on where they were, so that a reader's stale position never names new bytes. */
    log->tail = (log->tail + R2P2_LOG_PAGE_MASK) & ~R2P2_LOG_PAGE_MASK;
    log->head = log->tail;
    log->bytes.first = log->bytes.end = log->head / R2P2_LOG_PAGE_BYTES;
    log->last_index = index;
    log->first_index = index + 1;
    log->positions.first = log->positions.end = log->first_index / POSITIONS_PER_PAGE;
}
