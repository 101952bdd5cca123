/*
 * The calls that Python makes of other servers: clients by their port, calls and sessions, how each ended.
 *
 * Leaves to others: a client's table (r2p2_client.h), its sessions (r2p2_client_session.h).
 */
#include <stdlib.h>

#include "r2p2_engine.h"

/* ---- client ---- */

r2p2_client *r2p2_engine_client(r2p2_engine *engine, uint16_t local_port) {
    for (uint32_t i = 0; i < engine->clients_count; i++)
        if (engine->clients[i]->local_port == local_port) return engine->clients[i];
    return NULL;
}

int32_t r2p2_client_open(r2p2_engine *engine, uint16_t local_port, uint32_t calls_max) {
    if (r2p2_engine_client(engine, local_port)) return R2P2_ERROR_STATE;
    if (engine->clients_count == R2P2_CLIENTS_MAX) return R2P2_ERROR_FULL;
    if (calls_max == 0 || local_port == 0) return R2P2_ERROR_ARGUMENT;
    r2p2_client *client = r2p2_client_new(local_port, calls_max, &engine->tx, engine->port->now_ns(engine->port->self));
    if (!client) return R2P2_ERROR_NO_MEMORY;
    engine->clients[engine->clients_count++] = client;
    return R2P2_OK;
}

int32_t r2p2_client_number_from(r2p2_engine *engine, uint16_t local_port, uint16_t rid) {
    r2p2_client *client = r2p2_engine_client(engine, local_port);
    if (!client) return R2P2_ERROR_STATE;
    client->next_rid = rid;
    return R2P2_OK;
}

int32_t r2p2_client_call(r2p2_engine *engine, uint16_t local_port, uint32_t ip, uint16_t port, uint8_t policy,
                         const uint8_t *payload, uint64_t length, uint64_t timeout_ns, uint64_t retry_ns, uint64_t tag) {
    r2p2_client *client = r2p2_engine_client(engine, local_port);
    if (!client) return R2P2_ERROR_STATE;
    r2p2_call call = {
        .to = {ip, port, local_port},
        .payload = payload,
        .bytes = length,
        .timeout_ns = timeout_ns,
        .retry_ns = retry_ns,
        .tag = tag,
        .policy = policy,
    };
    return r2p2_client_start(client, &call, engine->port->now_ns(engine->port->self));
}

int32_t r2p2_client_restrict(r2p2_engine *engine, uint16_t local_port, const r2p2_target *senders, uint32_t count) {
    r2p2_client *client = r2p2_engine_client(engine, local_port);
    if (!client) return R2P2_ERROR_STATE;
    if (count > R2P2_TARGETS_MAX) return R2P2_ERROR_ARGUMENT;
    memcpy(client->senders, senders, count * sizeof *senders);
    client->senders_count = count;
    return R2P2_OK;
}

int32_t r2p2_client_cancel(r2p2_engine *engine, uint16_t local_port, uint16_t rid) {
    r2p2_client *client = r2p2_engine_client(engine, local_port);
    if (!client || !r2p2_client_waiting(client, rid)) return R2P2_ERROR_STATE;
    r2p2_client_end(client, rid, R2P2_DONE_CANCELLED, engine->port->now_ns(engine->port->self), NULL, 0, 0, 0,
                    engine->sink, engine->sink_context);
    return R2P2_OK;
}

/* ---- client sessions ---- */

int32_t r2p2_session_new(r2p2_engine *engine, uint16_t local_port, const r2p2_target *targets, uint32_t count,
                         uint64_t first_sequence) {
    r2p2_client *client = r2p2_engine_client(engine, local_port);
    if (first_sequence == 0 || first_sequence > UINT64_MAX / 2) return R2P2_ERROR_ARGUMENT;
    return client ? r2p2_client_session_add(client, targets, count, first_sequence) : R2P2_ERROR_STATE;
}

static r2p2_client_session *session_at(r2p2_engine *engine, uint16_t local_port, uint32_t session) {
    r2p2_client *client = r2p2_engine_client(engine, local_port);
    return client ? r2p2_client_session_at(client, session) : NULL;
}

int32_t r2p2_session_call(r2p2_engine *engine, uint16_t local_port, uint32_t session, const uint8_t *payload,
                          uint64_t length, uint64_t timeout_ns, uint64_t retry_ns, uint64_t tag) {
    if (!session_at(engine, local_port, session)) return R2P2_ERROR_ARGUMENT;
    r2p2_call call = {
        .payload = payload,
        .bytes = length,
        .timeout_ns = timeout_ns,
        .retry_ns = retry_ns,
        .tag = tag,
        .session = (uint16_t)(session + 1),
        .policy = R2P2_POLICY_REPLICATED,
    };
    return r2p2_client_start(r2p2_engine_client(engine, local_port), &call, engine->port->now_ns(engine->port->self));
}

int32_t r2p2_session_renew(r2p2_engine *engine, uint16_t local_port, uint32_t session) {
    r2p2_client_session *at = session_at(engine, local_port, session);
    return at ? r2p2_client_session_renew(at) : R2P2_ERROR_ARGUMENT;
}

int32_t r2p2_session_close(r2p2_engine *engine, uint16_t local_port, uint32_t session) {
    r2p2_client_session *at = session_at(engine, local_port, session);
    if (!at) return R2P2_ERROR_ARGUMENT;
    if (at->waiting_count || at->state == R2P2_SESSION_OPENING) return R2P2_ERROR_STATE;
    r2p2_client_session_free(at);
    r2p2_engine_client(engine, local_port)->sessions[session] = NULL;
    return R2P2_OK;
}

int32_t r2p2_session_read_info(r2p2_engine *engine, uint16_t local_port, uint32_t session, r2p2_session_info *info) {
    const r2p2_client_session *at = session_at(engine, local_port, session);
    if (!at) return R2P2_ERROR_ARGUMENT;
    *info = (r2p2_session_info){
        .client_id = at->client_id,
        .next_sequence = at->next_sequence,
        .oldest_pending = at->oldest_pending,
        .waiting_count = at->waiting_count,
        .state = at->state,
        .target_ip = at->targets[at->current].ip,
        .target_port = at->targets[at->current].port,
    };
    return R2P2_OK;
}

/* The default sink keeps completions until Python fetches them. The calls a client may have bound their number. */
static void completion_store(void *context, const r2p2_completion *completion, const uint8_t *payload) {
    r2p2_engine *engine = context;
    if (engine->completions_count == engine->completions_capacity) {
        uint64_t capacity = engine->completions_capacity ? engine->completions_capacity * 2 : 1024;
        r2p2_completion *grown = realloc(engine->completions, capacity * sizeof *grown);
        if (!grown) abort(); /* an ended call must be told; without memory for 48 bytes nothing can go on */
        engine->completions = grown;
        engine->completions_capacity = capacity;
    }
    if (completion->length && r2p2_buffer_reserve(&engine->completion_slab, completion->length)) abort();
    r2p2_completion *kept = &engine->completions[engine->completions_count++];
    *kept = *completion;
    kept->offset = engine->completion_slab.length;
    if (completion->length) memcpy(engine->completion_slab.data + kept->offset, payload, completion->length);
    engine->completion_slab.length += completion->length;
}

void r2p2_engine_default_sink(r2p2_engine *engine) {
    engine->sink = completion_store;
    engine->sink_context = engine;
}

uint64_t r2p2_client_completions(r2p2_engine *engine, const r2p2_completion **completions, const uint8_t **slab,
                                 uint64_t *slab_bytes) {
    uint64_t count = engine->completions_count;
    *completions = engine->completions;
    *slab = engine->completion_slab.data;
    *slab_bytes = engine->completion_slab.length;
    engine->completions_count = 0;
    engine->completion_slab.length = 0;
    return count;
}
