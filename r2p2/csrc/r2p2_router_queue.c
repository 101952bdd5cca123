/* The requests that wait for a slot: see r2p2_router_queue.h. */
#include "r2p2_router_queue.h"

#include <stdlib.h>
#include <string.h>

#include "r2p2_router.h"

_Static_assert(R2P2_ROUTER_QUEUE_MAX <= R2P2_PENDING_SLOTS, "each request in the queue has a name");

int r2p2_router_queue_init(r2p2_router_queue *queue, uint32_t size, uint64_t seed) {
    queue->size = size;
    queue->ring = calloc(size, sizeof *queue->ring);
    return r2p2_pending_init(&queue->names, seed) || !queue->ring;
}

void r2p2_router_queue_destroy(r2p2_router_queue *queue) {
    r2p2_pending_destroy(&queue->names);
    free(queue->ring);
}

int r2p2_router_queue_has(const r2p2_router_queue *queue, const r2p2_router_request *request) {
    return queue->count > 0 && r2p2_pending_find(&queue->names, request->client_ip, request->client_port, request->client_rid) !=
                                   R2P2_PENDING_NONE;
}

int r2p2_router_queue_add(r2p2_router_queue *queue, const r2p2_router_request *request, uint64_t now_ns) {
    if (queue->count == queue->size) return 0;
    if (queue->count == 0) queue->head = queue->names.next = 0; /* the same few lines of cache while the queue is short */
    r2p2_router_waiting *waiting = &queue->ring[(queue->head + queue->count++) % queue->size];
    waiting->since_ns = now_ns;
    waiting->client_ip = request->client_ip;
    waiting->client_port = request->client_port;
    waiting->client_rid = request->client_rid;
    waiting->name = r2p2_pending_add(&queue->names, request->client_ip, request->client_port, request->client_rid, now_ns);
    waiting->policy = request->policy;
    waiting->has_more = request->has_more;
    waiting->length = request->length;
    memcpy(waiting->data, request->data, request->length);
    return 1;
}

void r2p2_router_queue_remove_first(r2p2_router_queue *queue, uint64_t now_ns) {
    r2p2_pending_end(&queue->names, queue->ring[queue->head].name, 0, now_ns);
    queue->head = (queue->head + 1) % queue->size;
    queue->count--;
}
