/*
 * The requests that wait at the router for a slot (JBSQ): a ring of first packets, in order of arrival, and a table of whose they
 * are, to know one that comes again.
 * Leaves to others: when one may go, and when it has waited too long (r2p2_router.c).
 */
#ifndef R2P2_ROUTER_QUEUE_H
#define R2P2_ROUTER_QUEUE_H

#include <stdint.h>

#include "r2p2_limits.h"
#include "r2p2_pending.h"

/* A client's request: its first packet. */
typedef struct r2p2_router_request {
    const uint8_t *data;
    uint32_t length; /* <= R2P2_DATAGRAM_BYTES_MAX */
    uint32_t client_ip;
    uint16_t client_port;
    uint16_t client_rid;
    uint8_t policy;
    uint8_t has_more; /* packets, which the client sends after an ACK */
} r2p2_router_request;

/* One that waits, as it came. */
typedef struct r2p2_router_waiting {
    uint64_t since_ns;
    uint32_t client_ip;
    uint32_t length;
    uint32_t name; /* its entry in `names` */
    uint16_t client_port;
    uint16_t client_rid;
    uint8_t policy;
    uint8_t has_more;
    uint8_t data[R2P2_DATAGRAM_BYTES_MAX];
} r2p2_router_waiting;

typedef struct r2p2_router_queue {
    r2p2_router_waiting *ring; /* of size */
    uint32_t size;
    uint32_t head, count;
    r2p2_pending_table names; /* of the count requests in the ring */
} r2p2_router_queue;

/* 0, or not when there is no memory. One that is zero is empty, and may be destroyed. */
int r2p2_router_queue_init(r2p2_router_queue *queue, uint32_t size, uint64_t seed);
void r2p2_router_queue_destroy(r2p2_router_queue *queue);
int r2p2_router_queue_has(const r2p2_router_queue *queue, const r2p2_router_request *request);
/* 0: it is full. */
int r2p2_router_queue_add(r2p2_router_queue *queue, const r2p2_router_request *request, uint64_t now_ns);
/* The oldest; there is one. Valid until it is removed. */
static inline const r2p2_router_waiting *r2p2_router_queue_first(const r2p2_router_queue *queue) { return &queue->ring[queue->head]; }
static inline r2p2_router_request r2p2_router_request_of(const r2p2_router_waiting *waiting) {
    return (r2p2_router_request){waiting->data,       waiting->length, waiting->client_ip, waiting->client_port,
                                 waiting->client_rid, waiting->policy, waiting->has_more};
}
void r2p2_router_queue_remove_first(r2p2_router_queue *queue, uint64_t now_ns);

#endif
