/*
 * The R2P2 header, 8 bytes on the wire (docs/wire.md).
 *
 * What: constants, the decoded form, and two pure functions over (pointer, length).
 * Leaves to others: reassembly (r2p2_reassembly.h), what a message means (r2p2_gateway.c).
 */
#ifndef R2P2_WIRE_H
#define R2P2_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "r2p2_limits.h"

#define R2P2_MAGIC 0xCCu
#define R2P2_FLAG_FIRST 0x80u
#define R2P2_FLAG_LAST 0x40u

enum r2p2_type {
    R2P2_TYPE_REQUEST = 0,
    R2P2_TYPE_RESPONSE = 1,
    R2P2_TYPE_FEEDBACK = 2,
    R2P2_TYPE_ACK = 3,
    R2P2_TYPE_DROP = 4,
    R2P2_TYPE_RAFT_REQ = 5,
    R2P2_TYPE_RAFT_REP = 6,
    R2P2_TYPE_RAFT_MSG = 7,
};

enum r2p2_policy {
    R2P2_POLICY_LB_ROUTE = 0,
    R2P2_POLICY_FIXED_ROUTE = 1,
    R2P2_POLICY_REPLICATED = 2,
    R2P2_POLICY_REPLICATED_NO_SE = 3,
};

/* The bytes as they lie in the datagram; p_order and rid big-endian. */
struct r2p2_wire_header {
    uint8_t magic;
    uint8_t header_size;
    uint8_t type_policy;
    uint8_t flags;
    uint8_t rid[2];
    uint8_t p_order[2];
};
_Static_assert(sizeof(struct r2p2_wire_header) == R2P2_HEADER_BYTES, "the header is 8 bytes");
_Static_assert(offsetof(struct r2p2_wire_header, rid) == 4, "rid at 4");
_Static_assert(offsetof(struct r2p2_wire_header, p_order) == 6, "p_order at 6");

/* A header that has passed r2p2_header_parse: every field is in range, and is_first/is_last agree with p_order. */
typedef struct r2p2_header {
    uint8_t header_size; /* 8..length of the datagram */
    uint8_t type;        /* enum r2p2_type */
    uint8_t policy;      /* enum r2p2_policy */
    uint8_t is_first;
    uint8_t is_last;
    uint8_t has_session; /* the session extension follows the first 8 bytes, in a type that may have it */
    uint16_t rid;
    uint16_t p_order; /* FIRST: packets of the message 1..254; else the packet's index 1..253 */
} r2p2_header;

/* Why a datagram was refused; 0 is good. Each value is a counter (rx_bad_*). */
enum r2p2_header_error {
    R2P2_HEADER_OK = 0,
    R2P2_HEADER_SHORT,
    R2P2_HEADER_MAGIC,
    R2P2_HEADER_SIZE,
    R2P2_HEADER_TYPE,
    R2P2_HEADER_POLICY,
    R2P2_HEADER_FLAGS,
    R2P2_HEADER_ORDER,
};

/* Reads a header from `length` bytes at `data`. Touches nothing beyond them. */
enum r2p2_header_error r2p2_header_parse(const uint8_t *data, size_t length, r2p2_header *header);

/*
 * The session extension (docs/wire.md): 24 bytes behind the header's first 8 of a FIRST packet with header_size 32. In a replicated
 * request it says which of the client's numbered requests this is; answers carry it back, with oldest_pending 0.
 */
typedef struct r2p2_session_extension {
    uint64_t client_id;      /* the session; 0: open one */
    uint64_t sequence;       /* from 1; 0 when opening */
    uint64_t oldest_pending; /* every answer below it has come, or is not waited for; 0 when opening and in answers */
} r2p2_session_extension;
#define R2P2_SESSION_HEADER_BYTES (R2P2_HEADER_BYTES + R2P2_SESSION_BYTES)
_Static_assert(sizeof(r2p2_session_extension) == R2P2_SESSION_BYTES, "three words");

/* Whether a request may carry these: an opening, or a sequence within the window from oldest_pending on. */
static inline int r2p2_session_valid(const r2p2_session_extension *extension) {
    if (extension->client_id == 0) return extension->sequence == 0 && extension->oldest_pending == 0;
    return extension->oldest_pending >= 1 && extension->oldest_pending <= extension->sequence &&
           extension->sequence - extension->oldest_pending < R2P2_SESSION_WINDOW_MAX && extension->sequence < UINT64_MAX;
}

/*
 * The head that every Raft message begins with (docs/wire.md), as far as it says whose message this is: version u8, kind u8, sender u16,
 * cluster_id u32, incarnation u64, term u64. Everything behind the cluster's id is raft/codec.py's to check.
 */
#define R2P2_RAFT_HEAD_BYTES 24
#define R2P2_RAFT_VERSION 1u
enum r2p2_raft_head { R2P2_RAFT_HEAD_OK = 0, R2P2_RAFT_HEAD_SHORT, R2P2_RAFT_HEAD_VERSION, R2P2_RAFT_HEAD_CLUSTER };
/* Reads no more than `length` bytes at `data`: a whole message, or the first packet of one. */
enum r2p2_raft_head r2p2_raft_head_check(const uint8_t *data, size_t length, uint32_t cluster_id);

/* Writes the 8 bytes of a plain header (no extension) to `out`. */
void r2p2_header_write(uint8_t *out, uint8_t type, uint8_t policy, int is_first, int is_last, uint16_t rid, uint16_t p_order);

static inline uint16_t r2p2_load_u16(const uint8_t *p) { return (uint16_t)((p[0] << 8) | p[1]); }
static inline void r2p2_store_u16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static inline uint32_t r2p2_load_u32(const uint8_t *p) { return (uint32_t)r2p2_load_u16(p) << 16 | r2p2_load_u16(p + 2); }
static inline uint64_t r2p2_load_u64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return __builtin_bswap64(v);
}
static inline void r2p2_store_u64(uint8_t *p, uint64_t v) {
    v = __builtin_bswap64(v);
    memcpy(p, &v, 8);
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a host that stores the low byte first");

static inline r2p2_session_extension r2p2_session_read(const uint8_t in[R2P2_SESSION_BYTES]) {
    return (r2p2_session_extension){r2p2_load_u64(in), r2p2_load_u64(in + 8), r2p2_load_u64(in + 16)};
}
static inline void r2p2_session_write(uint8_t out[R2P2_SESSION_BYTES], const r2p2_session_extension *extension) {
    r2p2_store_u64(out, extension->client_id);
    r2p2_store_u64(out + 8, extension->sequence);
    r2p2_store_u64(out + 16, extension->oldest_pending);
}

#endif
