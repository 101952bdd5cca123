/*
 * The entry log: entries of contiguous indices in their wire form (docs/wire.md, "Entries").
 *
 * Bytes lie in one endless address space of which a window [head, tail) is backed by fixed pages; entries may cross pages.
 * Freed pages go to a LIFO pool, so that a log which is truncated as fast as it grows keeps reusing the same warm pages,
 * and memory follows the live log. A second page table holds the position of every entry.
 * Leaves to others: terms (raft/), what an entry means (r2p2_apply.c).
 */
#ifndef R2P2_LOG_H
#define R2P2_LOG_H

#include <stdint.h>
#include <string.h>

#include "r2p2_limits.h"
#include "r2p2_wire.h"

#define R2P2_LOG_PAGE_MASK ((uint64_t)R2P2_LOG_PAGE_BYTES - 1)
_Static_assert((R2P2_LOG_PAGE_BYTES & (R2P2_LOG_PAGE_BYTES - 1)) == 0, "pages are a power of two");

/* A configuration of the group travels alone, so that no other code has to look for one among requests. */
enum r2p2_entry_kind {
    R2P2_ENTRY_NOOP = 0,
    R2P2_ENTRY_REQUEST = 1,
    R2P2_ENTRY_SESSION = 2,
    R2P2_ENTRY_CONFIGURATION = 3
};

/* The body begins with the log's time, from this entry on. */
#define R2P2_ENTRY_TIMED 1u

/* An entry's header, decoded. */
typedef struct r2p2_entry {
    uint32_t body_length; /* all of it, a time included */
    uint32_t client_ip;
    uint16_t client_port;
    uint16_t rid;
    uint8_t kind;
    uint8_t policy;
    uint8_t flags;    /* R2P2_ENTRY_TIMED or 0 */
    uint64_t time_ms; /* for r2p2_log_append of a timed entry; decoding does not fill it in */
} r2p2_entry;

typedef struct r2p2_page_pool {
    uint8_t **free_pages;
    uint32_t free_count, free_max;
    uint64_t allocated_count; /* pages that exist, free ones included */
} r2p2_page_pool;

/* Pages numbered from 0 for ever; those in [first, end) exist, at slots[number % slots_count]. */
typedef struct r2p2_page_window {
    uint8_t **slots;
    uint64_t slots_count;
    uint64_t first, end;
} r2p2_page_window;

typedef struct r2p2_log {
    r2p2_page_pool pool;
    r2p2_page_window bytes, positions;
    uint64_t head, tail;              /* byte positions; head == tail: empty */
    uint64_t first_index, last_index; /* last_index + 1 == first_index: empty */
    uint64_t bytes_max, entries_max;
    uint64_t time_ms; /* the largest that any entry carried which was ever here, truncated ones included; 0: none did */
} r2p2_log;

int r2p2_log_init(r2p2_log *log, uint64_t bytes_max, uint64_t entries_max);
void r2p2_log_destroy(r2p2_log *log);

/* The bytes of an entry with this body: header, body, padding. */
static inline uint64_t r2p2_entry_bytes(uint32_t body_length) {
    return (R2P2_ENTRY_HEADER_BYTES + (uint64_t)body_length + 7) & ~(uint64_t)7;
}
void r2p2_entry_encode(uint8_t out[R2P2_ENTRY_HEADER_BYTES], const r2p2_entry *entry);
void r2p2_entry_decode(const uint8_t in[R2P2_ENTRY_HEADER_BYTES], r2p2_entry *entry);
/* Checks `count` entries that fill exactly `length` bytes; pure, for bytes of a peer. 0: they do not. R2P2_ENTRIES_TIMED: some carry a time. */
#define R2P2_ENTRIES_GOOD 1
#define R2P2_ENTRIES_TIMED 2
int r2p2_entries_check(const uint8_t *data, uint64_t length, uint64_t count);
/* Bytes of the first `count` of entries that r2p2_entries_check accepted. */
uint64_t r2p2_entries_skip(const uint8_t *data, uint64_t count);

/* The time at the head of a timed entry's body. */
static inline uint64_t r2p2_entry_time(const uint8_t *wire) { return r2p2_load_u64(wire + R2P2_ENTRY_HEADER_BYTES); }

/* Appends one entry / `count` checked entries in wire form. `body` is without the time. 0, or R2P2_ERROR_FULL / R2P2_ERROR_NO_MEMORY with the log unchanged. */
int r2p2_log_append(r2p2_log *log, const r2p2_entry *entry, const uint8_t *body);
int r2p2_log_append_wire(r2p2_log *log, const uint8_t *entries, uint64_t length, uint64_t count);
void r2p2_log_truncate(r2p2_log *log, uint64_t from_index);
void r2p2_log_drop(r2p2_log *log, uint64_t through_index);
/* Empties the log; the next entry is index + 1. */
void r2p2_log_begin_behind(r2p2_log *log, uint64_t index);

/* Where entry `index` begins, for first_index <= index <= last_index + 1. */
static inline uint64_t r2p2_log_position(const r2p2_log *log, uint64_t index) {
    if (index > log->last_index) return log->tail;
    const uint64_t per_page = R2P2_LOG_PAGE_BYTES / 8;
    const uint64_t *page = (const uint64_t *)(const void *)log->positions.slots[(index / per_page) % log->positions.slots_count];
    return page[index % per_page];
}

/* Copies `length` bytes at `position` out. */
static inline void r2p2_log_read(const r2p2_log *log, uint64_t position, uint8_t *out, uint64_t length) {
    while (length > 0) {
        uint64_t offset = position & R2P2_LOG_PAGE_MASK, room = R2P2_LOG_PAGE_BYTES - offset;
        uint64_t n = length < room ? length : room;
        memcpy(out, log->bytes.slots[(position / R2P2_LOG_PAGE_BYTES) % log->bytes.slots_count] + offset, n);
        out += n;
        position += n;
        length -= n;
    }
}

/* A pointer to `length` bytes at `position` when they lie in one page, else NULL. */
static inline const uint8_t *r2p2_log_view(const r2p2_log *log, uint64_t position, uint64_t length) {
    uint64_t offset = position & R2P2_LOG_PAGE_MASK;
    if (offset + length > R2P2_LOG_PAGE_BYTES) return NULL;
    return log->bytes.slots[(position / R2P2_LOG_PAGE_BYTES) % log->bytes.slots_count] + offset;
}

#endif
