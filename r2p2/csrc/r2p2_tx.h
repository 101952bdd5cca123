/*
 * Sending: packets are filled in where the port will send them from, and leave in bursts.
 *
 * A message comes from up to two places: bytes at hand and a range of the entry log; it is cut into packets on the way.
 */
#ifndef R2P2_TX_H
#define R2P2_TX_H

#include "r2p2_capture.h"
#include "r2p2_counters.h"
#include "r2p2_log.h"
#include "r2p2_port.h"
#include "r2p2_wire.h"

typedef struct r2p2_tx {
    r2p2_port *port;
    r2p2_engine_counters *counters;
    r2p2_capture *capture; /* NULL: off */
    const uint64_t *now_ns; /* of the poll */
    r2p2_tx_packet packets[R2P2_BURST_MAX];
    uint32_t reserved_count; /* packets[0..reserved) are ours */
    uint32_t filled_count;   /* packets[0..filled) are ready to go */
} r2p2_tx;

typedef struct r2p2_tx_address {
    uint32_t ip;
    uint16_t port;
    uint16_t local_port;
} r2p2_tx_address;

/* The session extension (NULL: none), head, then `log_bytes` of the log at `log_position` (log may be NULL when log_bytes is 0). */
typedef struct r2p2_tx_source {
    const uint8_t *extension; /* R2P2_SESSION_BYTES; they take their room from the first packet's payload */
    const uint8_t *head;
    uint64_t head_bytes;
    const r2p2_log *log;
    uint64_t log_position, log_bytes;
} r2p2_tx_source;

/* The next packet to fill, or NULL (counted) when the port has none. */
r2p2_tx_packet *r2p2_tx_next(r2p2_tx *tx);
void r2p2_tx_flush(r2p2_tx *tx);
/* Hands reserved packets back to the port unsent, after a flush. */
void r2p2_tx_close(r2p2_tx *tx);

/* Packets a message of `bytes`, its extension among them, needs: full packets, or (request) 14 bytes first. 0 when over 254. */
uint32_t r2p2_tx_packets_count(uint64_t bytes, int is_request);
/* As many for a request of `bytes` with or without a session extension. */
static inline uint32_t r2p2_tx_request_packets_count(uint64_t bytes, int has_session) {
    if (has_session && bytes <= R2P2_PAYLOAD_BYTES_MAX && bytes > R2P2_PAYLOAD_BYTES_MAX - R2P2_SESSION_BYTES) return 2;
    return r2p2_tx_packets_count(bytes, 1);
}
/* A whole message to one address. The caller has checked its size. */
void r2p2_tx_message(r2p2_tx *tx, uint8_t type, uint8_t policy, uint16_t rid, r2p2_tx_address to,
                     const r2p2_tx_source *source);
/* Packets first..last (0-based) of a multi-packet request. extension: NULL or R2P2_SESSION_BYTES. */
void r2p2_tx_request_packets(r2p2_tx *tx, uint8_t policy, uint16_t rid, r2p2_tx_address to, const uint8_t *extension,
                             const uint8_t *payload, uint64_t bytes, uint32_t first, uint32_t last);

/* A message of one packet; the fast way. */
static inline void r2p2_tx_single(r2p2_tx *tx, uint8_t type, uint8_t policy, uint16_t rid, r2p2_tx_address to,
                                  const uint8_t *payload, uint32_t bytes) {
    r2p2_tx_packet *packet = r2p2_tx_next(tx);
    if (!packet) return;
    r2p2_header_write(packet->data, type, policy, 1, 1, rid, 1);
    if (bytes) memcpy(packet->data + R2P2_HEADER_BYTES, payload, bytes);
    packet->length = R2P2_HEADER_BYTES + bytes;
    packet->target_ip = to.ip;
    packet->target_port = to.port;
    packet->local_port = to.local_port;
    tx->counters->tx_messages++;
}

/* The same with a session extension. */
static inline void r2p2_tx_single_session(r2p2_tx *tx, uint8_t type, uint8_t policy, uint16_t rid, r2p2_tx_address to,
                                          const uint8_t extension[R2P2_SESSION_BYTES], const uint8_t *payload,
                                          uint32_t bytes) {
    r2p2_tx_packet *packet = r2p2_tx_next(tx);
    if (!packet) return;
    r2p2_header_write(packet->data, type, policy, 1, 1, rid, 1);
    packet->data[1] = R2P2_SESSION_HEADER_BYTES;
    memcpy(packet->data + R2P2_HEADER_BYTES, extension, R2P2_SESSION_BYTES);
    if (bytes) memcpy(packet->data + R2P2_SESSION_HEADER_BYTES, payload, bytes);
    packet->length = R2P2_SESSION_HEADER_BYTES + bytes;
    packet->target_ip = to.ip;
    packet->target_port = to.port;
    packet->local_port = to.local_port;
    tx->counters->tx_messages++;
}

#endif
