/*
 * The session table: which numbered requests of which client have been executed, and what was replied. Replicated state.
 *
 * It makes a request execute once however often it comes (Ongaro's dissertation, 6.3). Every replica puts the same committed
 * requests through it in log order, so its content, evictions included, depends on the log alone: no clock, no chance, and nothing
 * depends on where one batch of entries ends and the next begins. That last point shapes it:
 *
 * - What is decided when a request begins (is it a duplicate? which session gives way to a new one? is there room for its place?) uses
 *   only what was decided before, never a reply, which may not be known yet.
 * - The bytes of long replies are held to their bound only at r2p2_sessions_bound, which the caller calls at fixed indices of the log.
 *
 * A session keeps a place for each sequence from `first` (what the client still wants to know) up to `end`. Places lie in a ring that
 * follows the span; a reply of up to 24 bytes lies in its place, a longer one in a block that is reused. In the steady state there is no
 * allocation. Sessions are in a list by their last request; the least recently used one gives way to a new one. For places and bytes
 * only those give way that have more than their share, the greediest first: whoever keeps little loses nothing to who keeps much.
 * Leaves to others: the log and its indices, whom to answer (r2p2_apply.c).
 */
#ifndef R2P2_SESSIONS_H
#define R2P2_SESSIONS_H

#include "r2p2_wire.h"

#define R2P2_KEPT_INLINE_BYTES 24u
#define R2P2_NO_SESSION 0xffffffffu

enum r2p2_kept_state {
    R2P2_KEPT_NOTHING = 0, /* not executed */
    R2P2_KEPT_PENDING,     /* given to the application, which has not replied yet */
    R2P2_KEPT_REPLY,
    R2P2_KEPT_REFUSAL /* the application refused it: that is what a duplicate gets, too */
};

typedef struct r2p2_kept {
    uint32_t length;
    uint8_t state; /* enum r2p2_kept_state */
    uint8_t reserved[3];
    union {
        uint8_t bytes[R2P2_KEPT_INLINE_BYTES];
        uint8_t *block; /* length > R2P2_KEPT_INLINE_BYTES */
    } reply;
} r2p2_kept;
_Static_assert(sizeof(r2p2_kept) == R2P2_SESSION_KEPT_BYTES, "two places a cache line");

/* Lists of sessions by their last request: all of them, and those with more places than places_share by how many bits the number of their
 * places has, 17 at most (R2P2_SESSION_WINDOW_MAX). */
#define R2P2_ALL_SESSIONS 0u
#define R2P2_SESSIONS_LISTS 18u
_Static_assert(R2P2_SESSION_WINDOW_MAX >> (R2P2_SESSIONS_LISTS - 1) == 0, "a list for the widest");

typedef struct r2p2_session_links {
    uint32_t older, newer;
} r2p2_session_links;

typedef struct r2p2_session {
    uint64_t id;         /* the index of the entry that opened it; 0: unused */
    uint64_t first, end; /* places for first..end-1; places outside are R2P2_KEPT_NOTHING */
    uint64_t block_bytes;
    r2p2_kept *ring;
    uint32_t capacity; /* of the ring: 0 or a power of two */
    uint32_t hash_next;
    r2p2_session_links links[2]; /* in the list of all, and in that of its width */
    uint8_t width;               /* the list of its width; 0: it is in none */
} r2p2_session;

#define R2P2_BLOCK_CLASSES 8u /* 32, 64.. 4096 bytes; longer blocks are allocated each */

typedef struct r2p2_sessions {
    r2p2_session *sessions;
    uint32_t sessions_size, unused; /* unused: a list through hash_next */
    uint32_t *buckets;              /* sessions_size of them, a power of two */
    uint32_t latest;                /* found last; R2P2_NO_SESSION or any index */
    uint32_t oldest[R2P2_SESSIONS_LISTS], newest[R2P2_SESSIONS_LISTS];
    uint32_t count, count_max;
    uint64_t places, places_max; /* end - first, summed over sessions */
    uint64_t places_share;       /* a session with as many keeps them */
    uint64_t block_bytes, bytes_max;
    uint64_t opened, evicted; /* since the start */
    struct {
        void *head;
        uint32_t count;
    } spare[R2P2_BLOCK_CLASSES];
} r2p2_sessions;

enum r2p2_begin_result {
    R2P2_BEGIN_RUN = 0,   /* new: give it to the application, then r2p2_sessions_end */
    R2P2_BEGIN_DUPLICATE, /* executed, or about to be in this batch: r2p2_sessions_kept has the reply once it is known */
    R2P2_BEGIN_STALE,     /* the session's client has said that it does not wait for it */
    R2P2_BEGIN_EXPIRED,   /* there is no such session (any more) */
    R2P2_BEGIN_NO_MEMORY  /* the table cannot go on as the other replicas do: the member must end */
};

/* count_max >= 1; bytes_max at least twice a window's places. Nothing is allocated before the first session. */
int r2p2_sessions_init(r2p2_sessions *table, uint32_t count_max, uint64_t bytes_max);
void r2p2_sessions_destroy(r2p2_sessions *table);
/* Opens session `id`, larger than every one before; the least recently used one gives way when the table is full. */
int r2p2_sessions_open(r2p2_sessions *table, uint64_t id);
/* A request of a session, in log order. *session: where r2p2_sessions_end finds it. The extension is r2p2_session_valid and no opening. */
enum r2p2_begin_result r2p2_sessions_begin(r2p2_sessions *table, const r2p2_session_extension *extension,
                                           uint32_t *session);
/* Keeps the reply to a request that began with R2P2_BEGIN_RUN, if it is still wanted. refused: the application's, without bytes. */
int r2p2_sessions_end(r2p2_sessions *table, uint32_t session, uint64_t id, uint64_t sequence, const uint8_t *reply,
                      uint32_t length, int refused);
/* The kept reply (or refusal), or NULL: not executed, not known yet, or not wanted any more. *bytes: the reply. */
const r2p2_kept *r2p2_sessions_kept(const r2p2_sessions *table, uint32_t session, uint64_t id, uint64_t sequence,
                                    const uint8_t **bytes);
/* The session's index, or R2P2_NO_SESSION. */
uint32_t r2p2_sessions_find(const r2p2_sessions *table, uint64_t id);
/* Evicts until the bytes are within their bound: by last use those with more than an eighth (R2P2_SESSIONS_SHARE) of them, then those with
 * more than a sixteenth, and so on; never those with no more than they would have if all had the same. At fixed log indices. */
void r2p2_sessions_bound(r2p2_sessions *table);

/* The table as bytes (docs/exactly-once.md); equal tables give equal bytes. No reply is pending. Bytes needed; written when out has room. */
uint64_t r2p2_sessions_save(const r2p2_sessions *table, uint8_t *out, uint64_t room);
/* Replaces the table by what r2p2_sessions_save wrote. A negative status, and the table as it was, when the bytes are not that or go
 * beyond its bounds. */
int r2p2_sessions_load(r2p2_sessions *table, uint64_t through_index, const uint8_t *data, uint64_t length);

static inline uint64_t r2p2_sessions_bytes(const r2p2_sessions *table) {
    return table->places * R2P2_SESSION_KEPT_BYTES + table->block_bytes;
}

#endif
