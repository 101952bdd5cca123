/* The session table. See r2p2_sessions.h. */
#include "r2p2_sessions.h"

#include <stdlib.h>

#include "r2p2_engine_status.h"

#define SESSIONS_SIZE_FIRST 64u
#define RING_FIRST 8u
#define BLOCK_BYTES_MIN 32u
#define BLOCK_BYTES_MAX (BLOCK_BYTES_MIN << (R2P2_BLOCK_CLASSES - 1))
#define SPARE_BYTES_MAX (1u << 20) /* kept for reuse, in each class */

/* ---- blocks for long replies ---- */

static uint32_t class_of(uint32_t length) {
    uint32_t at = 0;
    while (BLOCK_BYTES_MIN << at < length) at++;
    return at;
}

static uint8_t *block_take(r2p2_sessions *table, uint32_t length) {
    if (length > BLOCK_BYTES_MAX) return malloc(length);
    uint32_t at = class_of(length);
    void *block = table->spare[at].head;
    if (!block) return malloc(BLOCK_BYTES_MIN << at);
    memcpy(&table->spare[at].head, block, sizeof block); /* a spare block begins with the next one's address */
    table->spare[at].count--;
    return block;
}

static void block_give(r2p2_sessions *table, uint8_t *block, uint32_t length) {
    uint32_t at = length > BLOCK_BYTES_MAX ? 0 : class_of(length);
    if (length > BLOCK_BYTES_MAX || table->spare[at].count >= SPARE_BYTES_MAX / (BLOCK_BYTES_MIN << at)) {
        free(block);
        return;
    }
    memcpy(block, &table->spare[at].head, sizeof(void *));
    table->spare[at].head = block;
    table->spare[at].count++;
}

/* ---- places ---- */

static r2p2_kept *place(const r2p2_session *session, uint64_t sequence) {
    return &session->ring[sequence & (session->capacity - 1)];
}

static void place_clear(r2p2_sessions *table, r2p2_session *session, r2p2_kept *kept) {
    if (kept->state == R2P2_KEPT_REPLY && kept->length > R2P2_KEPT_INLINE_BYTES) {
        block_give(table, kept->reply.block, kept->length);
        session->block_bytes -= kept->length;
        table->block_bytes -= kept->length;
    }
    kept->state = R2P2_KEPT_NOTHING;
}

/* A ring of another size with the same places. */
static int ring_resize(r2p2_session *session, uint32_t capacity) {
    r2p2_kept *ring = calloc(capacity, sizeof *ring);
    if (!ring) return R2P2_ERROR_NO_MEMORY;
    for (uint64_t sequence = session->first; sequence < session->end; sequence++)
        ring[sequence & (capacity - 1)] = *place(session, sequence);
    free(session->ring);
    session->ring = ring;
    session->capacity = capacity;
    return 0;
}

/* The client does not want replies below `first` any more. */
static void forget_below(r2p2_sessions *table, r2p2_session *session, uint64_t first) {
    uint64_t end = first < session->end ? first : session->end;
    for (uint64_t sequence = session->first; sequence < end; sequence++)
        place_clear(table, session, place(session, sequence));
    table->places -= end - session->first;
    session->first = first;
    if (session->end < first) session->end = first;
    uint64_t span = session->end - first;
    if (session->capacity <= RING_FIRST || span * 4 > session->capacity) return;
    /* A ring four times too large for its span becomes twice as large as it; without memory for that it stays. */
    uint32_t capacity = RING_FIRST;
    while (capacity < 2 * span) capacity *= 2;
    if (capacity < session->capacity) (void)ring_resize(session, capacity);
}

/* ---- the table ---- */

int r2p2_sessions_init(r2p2_sessions *table, uint32_t count_max, uint64_t bytes_max) {
    memset(table, 0, sizeof *table);
    if (count_max == 0 || count_max > R2P2_SESSIONS_COUNT_MAX) return R2P2_ERROR_ARGUMENT;
    if (bytes_max < 2ull * R2P2_SESSION_WINDOW_MAX * R2P2_SESSION_KEPT_BYTES) return R2P2_ERROR_ARGUMENT;
    table->count_max = count_max;
    table->bytes_max = bytes_max;
    /* Places alone may take half of the bytes; that bound can be held at once, since it knows no replies. */
    table->places_max = bytes_max / 2 / R2P2_SESSION_KEPT_BYTES;
    /* As many for each as leave room for one whole window: where there are too many, another session than the one that
     * asks has more than its share. */
    table->places_share = (table->places_max - R2P2_SESSION_WINDOW_MAX) / count_max;
    table->unused = table->latest = R2P2_NO_SESSION;
    for (uint32_t list = 0; list < R2P2_SESSIONS_LISTS; list++) table->oldest[list] = table->newest[list] = R2P2_NO_SESSION;
    return 0;
}

static uint32_t *bucket_of(const r2p2_sessions *table, uint64_t id) {
    uint64_t h = id * 0x9e3779b97f4a7c15u;
    return &table->buckets[(h ^ h >> 32) & (table->sessions_size - 1)];
}

uint32_t r2p2_sessions_find(const r2p2_sessions *table, uint64_t id) {
    if (table->latest != R2P2_NO_SESSION && table->sessions[table->latest].id == id) return table->latest;
    if (table->count == 0) return R2P2_NO_SESSION;
    uint32_t index = *bucket_of(table, id);
    while (index != R2P2_NO_SESSION && table->sessions[index].id != id) index = table->sessions[index].hash_next;
    return index;
}

static void list_remove(r2p2_sessions *table, uint32_t list, const r2p2_session *session) {
    uint32_t which = list != R2P2_ALL_SESSIONS;
    const r2p2_session_links *links = &session->links[which];
    if (links->older != R2P2_NO_SESSION) table->sessions[links->older].links[which].newer = links->newer;
    else table->oldest[list] = links->newer;
    if (links->newer != R2P2_NO_SESSION) table->sessions[links->newer].links[which].older = links->older;
    else table->newest[list] = links->older;
}

static void list_append(r2p2_sessions *table, uint32_t list, uint32_t index) {
    uint32_t which = list != R2P2_ALL_SESSIONS, newest = table->newest[list];
    r2p2_session_links *links = &table->sessions[index].links[which];
    links->newer = R2P2_NO_SESSION;
    links->older = newest;
    if (newest != R2P2_NO_SESSION) table->sessions[newest].links[which].newer = index;
    else table->oldest[list] = index;
    table->newest[list] = index;
}

/* The list of sessions about as wide as this one; 0: it has no more than its share. */
static uint8_t width_of(const r2p2_sessions *table, const r2p2_session *session) {
    uint64_t span = session->end - session->first;
    return span > table->places_share ? (uint8_t)(64 - __builtin_clzll(span)) : 0;
}

/* The session has been used, and its span may be another one: it is the newest of the lists that it is in. */
static void list_used(r2p2_sessions *table, uint32_t index) {
    r2p2_session *session = &table->sessions[index];
    if (table->newest[R2P2_ALL_SESSIONS] != index) {
        list_remove(table, R2P2_ALL_SESSIONS, session);
        list_append(table, R2P2_ALL_SESSIONS, index);
    }
    uint8_t width = width_of(table, session);
    if (width == session->width && (width == 0 || table->newest[width] == index)) return;
    if (session->width) list_remove(table, session->width, session);
    if (width) list_append(table, width, index);
    session->width = width;
}

static void remove_session(r2p2_sessions *table, uint32_t index) {
    r2p2_session *session = &table->sessions[index];
    for (uint64_t sequence = session->first; sequence < session->end; sequence++)
        place_clear(table, session, place(session, sequence));
    table->places -= session->end - session->first;
    free(session->ring);
    uint32_t *link = bucket_of(table, session->id);
    while (*link != index) link = &table->sessions[*link].hash_next;
    *link = session->hash_next;
    list_remove(table, R2P2_ALL_SESSIONS, session);
    if (session->width) list_remove(table, session->width, session);
    *session = (r2p2_session){.hash_next = table->unused};
    table->unused = index;
    table->count--;
}

static void evict(r2p2_sessions *table, uint32_t index) {
    remove_session(table, index);
    table->evicted++;
}

/* Makes room for the places of this session, the newest: of the widest others the least recently used one gives way. There
 * is one with more than its share (places_share). */
static void evict_wide(r2p2_sessions *table, uint32_t index) {
    while (table->places > table->places_max) {
        uint32_t list = R2P2_SESSIONS_LISTS - 1;
        while (table->oldest[list] == R2P2_NO_SESSION || table->oldest[list] == index) list--;
        evict(table, table->oldest[list]);
    }
}

void r2p2_sessions_destroy(r2p2_sessions *table) {
    while (table->count > 0) remove_session(table, table->oldest[R2P2_ALL_SESSIONS]);
    for (uint32_t at = 0; at < R2P2_BLOCK_CLASSES; at++)
        while (table->spare[at].head) {
            void *block = table->spare[at].head;
            memcpy(&table->spare[at].head, block, sizeof block);
            free(block);
        }
    free(table->sessions);
    free(table->buckets);
    memset(table, 0, sizeof *table);
}

/* Twice the room for sessions; indices stay. */
static int grow(r2p2_sessions *table) {
    uint32_t size = table->sessions_size ? table->sessions_size * 2 : SESSIONS_SIZE_FIRST;
    uint32_t *buckets = malloc(size * sizeof *buckets);
    if (!buckets) return R2P2_ERROR_NO_MEMORY;
    r2p2_session *sessions = realloc(table->sessions, size * sizeof *sessions);
    if (!sessions) {
        free(buckets);
        return R2P2_ERROR_NO_MEMORY;
    }
    table->sessions = sessions;
    free(table->buckets);
    table->buckets = buckets;
    for (uint32_t i = 0; i < size; i++) buckets[i] = R2P2_NO_SESSION;
    uint32_t old_size = table->sessions_size;
    table->sessions_size = size;
    for (uint32_t i = 0; i < old_size; i++) { /* grown only when all are used */
        uint32_t *bucket = bucket_of(table, sessions[i].id);
        sessions[i].hash_next = *bucket;
        *bucket = i;
    }
    for (uint32_t i = size; i > old_size; i--) {
        sessions[i - 1] = (r2p2_session){.hash_next = table->unused};
        table->unused = i - 1;
    }
    return 0;
}

/* A new session, the most recently used one, in a table with room for it. R2P2_NO_SESSION: no memory. */
static uint32_t add(r2p2_sessions *table, uint64_t id) {
    if (table->unused == R2P2_NO_SESSION && grow(table)) return R2P2_NO_SESSION;
    uint32_t index = table->unused, *bucket = bucket_of(table, id);
    r2p2_session *session = &table->sessions[index];
    table->unused = session->hash_next;
    *session = (r2p2_session){.id = id, .first = 1, .end = 1, .hash_next = *bucket};
    *bucket = index;
    list_append(table, R2P2_ALL_SESSIONS, index);
    table->count++;
    return index;
}

int r2p2_sessions_open(r2p2_sessions *table, uint64_t id) {
    if (table->count == table->count_max) evict(table, table->oldest[R2P2_ALL_SESSIONS]);
    if (add(table, id) == R2P2_NO_SESSION) return R2P2_ERROR_NO_MEMORY;
    table->opened++;
    return 0;
}

enum r2p2_begin_result r2p2_sessions_begin(r2p2_sessions *table, const r2p2_session_extension *extension,
                                           uint32_t *session_index) {
    uint32_t index = r2p2_sessions_find(table, extension->client_id);
    if (index == R2P2_NO_SESSION) return R2P2_BEGIN_EXPIRED;
    *session_index = table->latest = index;
    r2p2_session *session = &table->sessions[index];
    uint64_t sequence = extension->sequence;
    if (extension->oldest_pending > session->first) forget_below(table, session, extension->oldest_pending);
    if (sequence >= session->end) {
        uint64_t span = sequence + 1 - session->first; /* at most the window: first >= oldest_pending */
        uint32_t capacity = session->capacity ? session->capacity : RING_FIRST;
        while (capacity < span) capacity *= 2;
        if (capacity != session->capacity && ring_resize(session, capacity)) return R2P2_BEGIN_NO_MEMORY;
        table->places += sequence + 1 - session->end;
        session->end = sequence + 1;
    }
    list_used(table, index);
    if (sequence < session->first) return R2P2_BEGIN_STALE;
    evict_wide(table, index);
    r2p2_kept *kept = place(session, sequence);
    if (kept->state != R2P2_KEPT_NOTHING) return R2P2_BEGIN_DUPLICATE;
    kept->state = R2P2_KEPT_PENDING;
    return R2P2_BEGIN_RUN;
}

int r2p2_sessions_end(r2p2_sessions *table, uint32_t index, uint64_t id, uint64_t sequence, const uint8_t *reply,
                      uint32_t length, int refused) {
    r2p2_session *session = &table->sessions[index];
    if (session->id != id || sequence < session->first) return 0; /* evicted, or not wanted any more */
    r2p2_kept *kept = place(session, sequence);
    if (length > R2P2_KEPT_INLINE_BYTES) {
        kept->reply.block = block_take(table, length);
        if (!kept->reply.block) return R2P2_ERROR_NO_MEMORY;
        memcpy(kept->reply.block, reply, length);
        session->block_bytes += length;
        table->block_bytes += length;
    } else if (length) {
        memcpy(kept->reply.bytes, reply, length);
    }
    kept->length = length;
    kept->state = refused ? R2P2_KEPT_REFUSAL : R2P2_KEPT_REPLY;
    return 0;
}

const r2p2_kept *r2p2_sessions_kept(const r2p2_sessions *table, uint32_t index, uint64_t id, uint64_t sequence,
                                    const uint8_t **bytes) {
    const r2p2_session *session = &table->sessions[index];
    if (session->id != id || sequence < session->first || sequence >= session->end) return NULL;
    const r2p2_kept *kept = place(session, sequence);
    if (kept->state < R2P2_KEPT_REPLY) return NULL;
    *bytes = kept->length > R2P2_KEPT_INLINE_BYTES ? kept->reply.block : kept->reply.bytes;
    return kept;
}

static uint64_t bytes_of(const r2p2_session *session) {
    return (session->end - session->first) * R2P2_SESSION_KEPT_BYTES + session->block_bytes;
}

/* Evicts by last use those with more than `share` bytes, until the bytes are within their bound. */
static void evict_beyond(r2p2_sessions *table, uint64_t share) {
    for (uint32_t index = table->oldest[R2P2_ALL_SESSIONS]; index != R2P2_NO_SESSION && r2p2_sessions_bytes(table) > table->bytes_max;) {
        uint32_t newer = table->sessions[index].links[R2P2_ALL_SESSIONS].newer;
        if (bytes_of(&table->sessions[index]) > share) evict(table, index);
        index = newer;
    }
}

void r2p2_sessions_bound(r2p2_sessions *table) {
    uint64_t share = table->bytes_max / R2P2_SESSIONS_SHARE, least = table->bytes_max / table->count_max;
    for (; share > least; share /= 2) evict_beyond(table, share);
    evict_beyond(table, least); /* were none above that, they would all fit */
}

/* ---- as bytes: what a snapshot holds ----
 * version u32, reserved u32, sessions u64; then each session, the least recently used first: id u64, first u64, end u64, kept u64; then
 * each kept reply by sequence: sequence u64, length u32, state u8, reserved 3, the reply, zeros to a multiple of 8. All big-endian. */

#define SAVE_VERSION 1u
#define SAVE_HEADER_BYTES 16u
#define SAVE_SESSION_BYTES 32u
#define SAVE_KEPT_BYTES 16u

static void store_u32(uint8_t *out, uint32_t v) {
    r2p2_store_u16(out, (uint16_t)(v >> 16));
    r2p2_store_u16(out + 2, (uint16_t)v);
}

static uint64_t padded(uint64_t length) { return (length + 7) & ~(uint64_t)7; }

/* One session; returns its bytes, written when out is not NULL. */
static uint64_t save_session(const r2p2_session *session, uint8_t *out) {
    uint64_t at = SAVE_SESSION_BYTES, count = 0;
    for (uint64_t sequence = session->first; sequence < session->end; sequence++) {
        const r2p2_kept *kept = place(session, sequence);
        if (kept->state < R2P2_KEPT_REPLY) continue;
        if (out) {
            uint8_t *head = out + at;
            memset(head, 0, SAVE_KEPT_BYTES + padded(kept->length));
            r2p2_store_u64(head, sequence);
            store_u32(head + 8, kept->length);
            head[12] = kept->state;
            if (kept->length)
                memcpy(head + SAVE_KEPT_BYTES,
                       kept->length > R2P2_KEPT_INLINE_BYTES ? kept->reply.block : kept->reply.bytes, kept->length);
        }
        at += SAVE_KEPT_BYTES + padded(kept->length);
        count++;
    }
    if (out) {
        r2p2_store_u64(out, session->id);
        r2p2_store_u64(out + 8, session->first);
        r2p2_store_u64(out + 16, session->end);
        r2p2_store_u64(out + 24, count);
    }
    return at;
}

uint64_t r2p2_sessions_save(const r2p2_sessions *table, uint8_t *out, uint64_t room) {
    uint64_t bytes = SAVE_HEADER_BYTES;
    for (uint32_t i = table->oldest[R2P2_ALL_SESSIONS]; i != R2P2_NO_SESSION; i = table->sessions[i].links[R2P2_ALL_SESSIONS].newer)
        bytes += save_session(&table->sessions[i], NULL);
    if (bytes > room) return bytes;
    store_u32(out, SAVE_VERSION);
    store_u32(out + 4, 0);
    r2p2_store_u64(out + 8, table->count);
    uint64_t at = SAVE_HEADER_BYTES;
    for (uint32_t i = table->oldest[R2P2_ALL_SESSIONS]; i != R2P2_NO_SESSION; i = table->sessions[i].links[R2P2_ALL_SESSIONS].newer)
        at += save_session(&table->sessions[i], out + at);
    return bytes;
}

/* Reads one session's kept replies; 0, or a negative status. *at moves beyond them. */
static int load_kept(r2p2_sessions *table, uint32_t index, uint64_t count, const uint8_t *data, uint64_t length,
                     uint64_t *at) {
    uint64_t next = table->sessions[index].first;
    for (uint64_t i = 0; i < count; i++) {
        if (length - *at < SAVE_KEPT_BYTES) return R2P2_ERROR_MALFORMED;
        const uint8_t *head = data + *at;
        uint64_t sequence = r2p2_load_u64(head), bytes = r2p2_load_u32(head + 8);
        uint8_t state = head[12];
        if (sequence < next || sequence >= table->sessions[index].end) return R2P2_ERROR_MALFORMED;
        if (bytes > R2P2_MESSAGE_BYTES_MAX || length - *at - SAVE_KEPT_BYTES < padded(bytes)) return R2P2_ERROR_MALFORMED;
        if (state != R2P2_KEPT_REPLY && (state != R2P2_KEPT_REFUSAL || bytes)) return R2P2_ERROR_MALFORMED;
        if (head[13] || head[14] || head[15]) return R2P2_ERROR_MALFORMED;
        for (uint64_t p = bytes; p < padded(bytes); p++)
            if (head[SAVE_KEPT_BYTES + p]) return R2P2_ERROR_MALFORMED;
        int status = r2p2_sessions_end(table, index, table->sessions[index].id, sequence, head + SAVE_KEPT_BYTES,
                                       (uint32_t)bytes, state == R2P2_KEPT_REFUSAL);
        if (status) return status;
        *at += SAVE_KEPT_BYTES + padded(bytes);
        next = sequence + 1;
    }
    /* What makes a span is an executed request at its end. */
    if (next != table->sessions[index].end) return R2P2_ERROR_MALFORMED;
    return 0;
}

static int load_session(r2p2_sessions *table, uint64_t through_index, const uint8_t *data, uint64_t length, uint64_t *at) {
    if (length - *at < SAVE_SESSION_BYTES) return R2P2_ERROR_MALFORMED;
    const uint8_t *head = data + *at;
    uint64_t id = r2p2_load_u64(head), first = r2p2_load_u64(head + 8), end = r2p2_load_u64(head + 16);
    uint64_t count = r2p2_load_u64(head + 24), span = end - first;
    if (id > through_index) return R2P2_ERROR_MALFORMED; /* the entry of that index would open it again */
    if (id == 0 || first == 0 || end < first || span > R2P2_SESSION_WINDOW_MAX || count > span) return R2P2_ERROR_MALFORMED;
    if (table->count == table->count_max || span > table->places_max - table->places) return R2P2_ERROR_FULL;
    if (r2p2_sessions_find(table, id) != R2P2_NO_SESSION) return R2P2_ERROR_MALFORMED;
    uint32_t index = add(table, id), capacity = RING_FIRST;
    if (index == R2P2_NO_SESSION) return R2P2_ERROR_NO_MEMORY;
    while (capacity < span) capacity *= 2;
    r2p2_session *session = &table->sessions[index];
    session->first = session->end = first;
    if (span && ring_resize(session, capacity)) return R2P2_ERROR_NO_MEMORY;
    session->end = end;
    table->places += span;
    list_used(table, index);
    *at += SAVE_SESSION_BYTES;
    return load_kept(table, index, count, data, length, at);
}

int r2p2_sessions_load(r2p2_sessions *table, uint64_t through_index, const uint8_t *data, uint64_t length) {
    if (length < SAVE_HEADER_BYTES || r2p2_load_u32(data) != SAVE_VERSION || r2p2_load_u32(data + 4)) return R2P2_ERROR_MALFORMED;
    r2p2_sessions loaded;
    int status = r2p2_sessions_init(&loaded, table->count_max, table->bytes_max);
    uint64_t count = r2p2_load_u64(data + 8), at = SAVE_HEADER_BYTES;
    for (uint64_t i = 0; i < count && !status; i++) status = load_session(&loaded, through_index, data, length, &at);
    if (!status && at != length) status = R2P2_ERROR_MALFORMED;
    if (status) {
        r2p2_sessions_destroy(&loaded);
        return status;
    }
    loaded.opened = table->opened;
    loaded.evicted = table->evicted;
    r2p2_sessions_destroy(table);
    *table = loaded;
    return 0;
}
