/*
 * The R2P2 header, 8 bytes on the wire (docs/wire.md).
 *
 * What: constants, the decoded form, and two pure functions over (pointer, length).
 * Leaves to others: reassembly (r2p2_reassembly.h), what a message means (r2p2_engine.c).
 */
#ifndef R2P2_WIRE_H
#define R2P2_WIRE_H

#include <stddef.h>
#include <stdint.h>

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

/* Writes the 8 bytes of a plain header (no extension) to `out`. */
void r2p2_header_write(uint8_t *out, uint8_t type, uint8_t policy, int is_first, int is_last, uint16_t rid, uint16_t p_order);

static inline uint16_t r2p2_load_u16(const uint8_t *p) { return (uint16_t)((p[0] << 8) | p[1]); }
static inline void r2p2_store_u16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

#endif
