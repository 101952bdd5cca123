/* Batches of requests on their way to the application, and the replies on their way back. See r2p2_engine.h. */
#include <stdlib.h>

#include "r2p2_engine.h"

int r2p2_buffer_reserve(r2p2_buffer *buffer, uint64_t more) {
    if (buffer->length + more <= buffer->capacity) return 0;
    uint64_t capacity = buffer->capacity ? buffer->capacity : 65536;
    while (capacity < buffer->length + more) capacity *= 2;
    uint8_t *data = realloc(buffer->data, capacity);
    if (!data) return R2P2_ERROR_NO_MEMORY;
    buffer->data = data;
    buffer->capacity = capacity;
    return 0;
}

static int requests_grow(r2p2_requests *requests) {
    uint32_t capacity = requests->capacity ? requests->capacity * 2 : 1024;
    r2p2_asker *askers = realloc(requests->askers, capacity * sizeof *askers);
    if (askers) requests->askers = askers;
    uint32_t *lengths = realloc(requests->lengths, capacity * sizeof *lengths);
    if (lengths) requests->lengths = lengths;
    uint8_t *policies = realloc(requests->policies, capacity);
    if (policies) requests->policies = policies;
    if (!askers || !lengths || !policies) return R2P2_ERROR_NO_MEMORY;
    requests->capacity = capacity;
    return 0;
}

int r2p2_requests_add(r2p2_requests *requests, const r2p2_asker *asker, const uint8_t *payload, uint32_t bytes) {
    if (requests->count == requests->capacity && requests_grow(requests)) return R2P2_ERROR_NO_MEMORY;
    if (r2p2_buffer_reserve(&requests->slab, bytes)) return R2P2_ERROR_NO_MEMORY;
    if (bytes) memcpy(requests->slab.data + requests->slab.length, payload, bytes);
    requests->slab.length += bytes;
    requests->askers[requests->count] = *asker;
    requests->lengths[requests->count] = bytes;
    requests->policies[requests->count++] = asker->policy;
    return 0;
}

void r2p2_requests_clear(r2p2_requests *requests) {
    requests->count = 0;
    requests->slab.length = 0;
}

void r2p2_requests_destroy(r2p2_requests *requests) {
    free(requests->slab.data);
    free(requests->askers);
    free(requests->lengths);
    free(requests->policies);
}

_Static_assert(sizeof(r2p2_asker) == R2P2_ASKER_BYTES, "Python copies askers as bytes");

/* Tells the router that this server is done with a request: rid, client port, client address (docs/wire.md). */
static inline void feedback(r2p2_engine *engine, r2p2_tx_address client, uint16_t rid) {
    if (engine->config.router_ip == 0) return;
    uint8_t body[8];
    r2p2_store_u16(body, rid);
    r2p2_store_u16(body + 2, client.port);
    r2p2_store_u16(body + 4, (uint16_t)(client.ip >> 16));
    r2p2_store_u16(body + 6, (uint16_t)client.ip);
    r2p2_tx_address router = {engine->config.router_ip, (uint16_t)engine->config.router_port, client.local_port};
    engine->counters.feedbacks++;
    r2p2_tx_single(&engine->tx, R2P2_TYPE_FEEDBACK, R2P2_POLICY_FIXED_ROUTE, rid, router, body, sizeof body);
}

void r2p2_drop_send(r2p2_engine *engine, r2p2_tx_address to, uint16_t rid) {
    r2p2_tx_single(&engine->tx, R2P2_TYPE_DROP, R2P2_POLICY_FIXED_ROUTE, rid, to, (const uint8_t *)"DROP", 4);
    feedback(engine, to, rid);
}

void r2p2_session_answer(r2p2_engine *engine, const r2p2_asker *asker, const r2p2_session_extension *extension,
                         uint8_t type, const uint8_t *payload, uint32_t bytes) {
    r2p2_tx_address to = {asker->ip, asker->port, asker->local_port};
    uint8_t wire[R2P2_SESSION_BYTES];
    r2p2_session_write(wire, extension);
    if (bytes <= R2P2_PAYLOAD_BYTES_MAX - R2P2_SESSION_BYTES) {
        r2p2_tx_single_session(&engine->tx, type, R2P2_POLICY_FIXED_ROUTE, asker->rid, to, wire, payload, bytes);
    } else {
        r2p2_tx_source source = {.extension = wire, .head = payload, .head_bytes = bytes};
        r2p2_tx_message(&engine->tx, type, R2P2_POLICY_FIXED_ROUTE, asker->rid, to, &source);
    }
    feedback(engine, to, asker->rid);
}

static void response_send(r2p2_engine *engine, r2p2_tx_address to, uint16_t rid, const uint8_t *payload, uint32_t bytes) {
    if (bytes <= R2P2_PAYLOAD_BYTES_MAX) {
        r2p2_tx_single(&engine->tx, R2P2_TYPE_RESPONSE, R2P2_POLICY_FIXED_ROUTE, rid, to, payload, bytes);
    } else {
        r2p2_tx_source source = {.head = payload, .head_bytes = bytes};
        r2p2_tx_message(&engine->tx, R2P2_TYPE_RESPONSE, R2P2_POLICY_FIXED_ROUTE, rid, to, &source);
    }
    feedback(engine, to, rid);
}

int32_t r2p2_reply_later(r2p2_engine *engine, const uint8_t *asker_bytes, const uint8_t *payload, uint64_t length,
                         int32_t drop) {
    if (length > R2P2_MESSAGE_BYTES_MAX) return R2P2_ERROR_TOO_LARGE;
    r2p2_asker asker;
    memcpy(&asker, asker_bytes, sizeof asker);
    r2p2_tx_address to = {asker.ip, asker.port, asker.local_port};
    if (drop) {
        engine->counters.drops_application++;
        r2p2_drop_send(engine, to, asker.rid);
    } else {
        response_send(engine, to, asker.rid, payload, (uint32_t)length);
    }
    return R2P2_OK;
}

/* Whole lengths first: nothing is sent when the application's slab and lengths disagree. */
int32_t r2p2_replies_check(const r2p2_requests *requests, uint64_t slab_bytes, const uint32_t *lengths, uint64_t count,
                           uint32_t bytes_max) {
    if (count != requests->count) return R2P2_ERROR_ARGUMENT;
    uint64_t total = 0;
    for (uint64_t i = 0; i < count; i++) {
        if (lengths[i] >= R2P2_REPLY_NONE) continue;
        if (lengths[i] > bytes_max) return R2P2_ERROR_TOO_LARGE;
        total += lengths[i];
    }
    return total == slab_bytes ? R2P2_OK : R2P2_ERROR_ARGUMENT;
}

void r2p2_reply_send(r2p2_engine *engine, const r2p2_asker *asker, const uint8_t *reply, uint32_t length) {
    r2p2_tx_address to = {asker->ip, asker->port, asker->local_port};
    if (length == R2P2_REPLY_NONE) return;
    if (length == R2P2_REPLY_DROP) {
        engine->counters.drops_application++;
        r2p2_drop_send(engine, to, asker->rid);
        return;
    }
    response_send(engine, to, asker->rid, reply, length);
}

int32_t r2p2_replies_send(r2p2_engine *engine, const r2p2_requests *requests, const uint8_t *slab, uint64_t slab_bytes,
                          const uint32_t *lengths, uint64_t count) {
    int32_t status = r2p2_replies_check(requests, slab_bytes, lengths, count, R2P2_MESSAGE_BYTES_MAX);
    if (status) return status;
    for (uint64_t i = 0; i < count; i++) {
        r2p2_reply_send(engine, &requests->askers[i], slab, lengths[i]);
        if (lengths[i] < R2P2_REPLY_NONE) slab += lengths[i];
    }
    return R2P2_OK;
}
