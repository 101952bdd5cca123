/*
 * The engine: its life and its poll.
 *
 * One poll: receive bursts until the port is empty or the poll has had its share; have the gateway sort each packet; expire what is old;
 * send what is ready. No I/O of its own: the port does that.
 */
#include "r2p2_engine.h"

#include <stdlib.h>

#include "r2p2_resp.h"

/* ---- counters ---- */

#define NAME_OF(name, help) #name,
#define HELP_OF(name, help) help,
static const char *const counter_names[] = {R2P2_ENGINE_COUNTERS(NAME_OF) R2P2_PORT_COUNTERS(NAME_OF)};
static const char *const counter_helps[] = {R2P2_ENGINE_COUNTERS(HELP_OF) R2P2_PORT_COUNTERS(HELP_OF)};
#define COUNTERS_COUNT (sizeof counter_names / sizeof counter_names[0])
_Static_assert(COUNTERS_COUNT * 8 == sizeof(r2p2_engine_counters) + sizeof(r2p2_port_counters), "one name a counter");

uint32_t r2p2_counters_count(void) { return COUNTERS_COUNT; }
const char *r2p2_counter_name(uint32_t index) { return index < COUNTERS_COUNT ? counter_names[index] : NULL; }
const char *r2p2_counter_help(uint32_t index) { return index < COUNTERS_COUNT ? counter_helps[index] : NULL; }
void r2p2_counters_read(r2p2_engine *engine, uint64_t *values) {
    memcpy(values, &engine->counters, sizeof engine->counters);
    memcpy(values + sizeof engine->counters / 8, engine->port->counters, sizeof *engine->port->counters);
}

/* ---- life ---- */

r2p2_engine *r2p2_engine_new(uintptr_t port_address, const r2p2_engine_config *config, int32_t *error) {
    r2p2_port *port = (r2p2_port *)port_address;
    *error = R2P2_ERROR_ARGUMENT;
    if (!port || port->abi != R2P2_PORT_ABI || port->struct_size != sizeof(r2p2_port)) return NULL;
    if (config->packets_per_poll_max == 0 || config->log_entries_max == 0) return NULL;
    r2p2_engine *engine = calloc(1, sizeof *engine);
    *error = R2P2_ERROR_NO_MEMORY;
    if (!engine) return NULL;
    engine->port = port;
    engine->config = *config;
    engine->tx.port = port;
    engine->tx.counters = &engine->counters;
    engine->tx.now_ns = &engine->now_ns;
    r2p2_engine_default_sink(engine);
    engine->now_ns = port->now_ns(port->self);
    engine->stamps.seen_ns = engine->now_ns;
    engine->stamps.due_ns = UINT64_MAX; /* no clock yet: entries carry no time */
    engine->raft_arena = malloc(R2P2_RAFT_ARENA_BYTES);
    int status = engine->raft_arena ? 0 : R2P2_ERROR_NO_MEMORY;
    if (!status)
        status = r2p2_reassembly_init(&engine->client_halves, config->reassembly_count_max, config->reassembly_bytes_max,
                                      config->reassembly_timeout_ns, R2P2_SOURCE_SHARE);
    if (port->rx_room_count) engine->client_halves.granted_max = port->rx_room_count / 2;
    if (!status)
        status = r2p2_reassembly_init(&engine->raft_halves, config->reassembly_count_max, config->reassembly_bytes_max,
                                      config->reassembly_timeout_ns, R2P2_SOURCE_SHARE);
    /* A follower may hold what the leader has just forgotten: its log has a little more room than the bound on admission. So many
     * bytes fit in entries of any size: what comes back from a disk was counted in bytes. */
    uint64_t log_bytes = config->log_bytes_max + config->log_bytes_max / 4 + R2P2_MESSAGE_BYTES_MAX;
    if (!status) status = r2p2_log_init(&engine->log, log_bytes, log_bytes / R2P2_ENTRY_HEADER_BYTES);
    if (!status) status = r2p2_sessions_init(&engine->sessions, config->sessions_count_max, config->sessions_bytes_max);
    if (status) {
        *error = status;
        r2p2_engine_free(engine);
        return NULL;
    }
    *error = 0;
    return engine;
}

int32_t r2p2_set_group(r2p2_engine *engine, uint32_t cluster_id, const r2p2_target *peers, uint32_t peers_count) {
    if (peers_count > R2P2_PEERS_MAX) return R2P2_ERROR_ARGUMENT;
    if (peers_count) memcpy(engine->peers, peers, peers_count * sizeof *peers);
    engine->peers_count = peers_count;
    engine->cluster_id = cluster_id;
    engine->has_cluster = 1;
    if (engine->port->keep_peers) {
        r2p2_port_target targets[R2P2_PEERS_MAX];
        for (uint32_t i = 0; i < peers_count; i++) targets[i] = (r2p2_port_target){peers[i].ip, peers[i].port, 0};
        engine->port->keep_peers(engine->port->self, targets, peers_count);
    }
    return R2P2_OK;
}

static void raft_release(r2p2_engine *engine) {
    for (uint32_t i = 0; i < engine->raft_count; i++)
        if (engine->raft[i].detached.base) r2p2_reassembly_return(&engine->raft_halves, engine->raft[i].detached);
    engine->raft_count = engine->raft_taken = 0;
    engine->raft_arena_used = 0;
}

void r2p2_engine_free(r2p2_engine *engine) {
    if (!engine) return;
    r2p2_tx_close(&engine->tx);
    raft_release(engine);
    if (engine->client_halves.halves) r2p2_reassembly_destroy(&engine->client_halves);
    if (engine->raft_halves.halves) r2p2_reassembly_destroy(&engine->raft_halves);
    r2p2_log_destroy(&engine->log);
    r2p2_sessions_destroy(&engine->sessions);
    free(engine->answers);
    r2p2_requests_destroy(&engine->requests);
    r2p2_requests_destroy(&engine->applying);
    r2p2_requests_destroy(&engine->reads.gathered);
    for (uint32_t i = 0; i < engine->clients_count; i++) r2p2_client_free(engine->clients[i]);
    r2p2_capture_stop(&engine->capture);
    free(engine->raft_arena);
    free(engine->held.data);
    free(engine->scratch.data);
    free(engine->completions);
    free(engine->completion_slab.data);
    free(engine);
}

uint64_t r2p2_engine_now_ns(r2p2_engine *engine) { return engine->port->now_ns(engine->port->self); }
void r2p2_engine_flush(r2p2_engine *engine) { r2p2_tx_flush(&engine->tx); }

static void capture_received(r2p2_engine *engine, const r2p2_rx_packet *packets, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        r2p2_capture_add(&engine->capture, engine->now_ns, packets[i].source_ip, packets[i].source_port,
                         engine->port->local_ip, packets[i].local_port, packets[i].data, packets[i].length);
}

int32_t r2p2_capture_set(r2p2_engine *engine, uint64_t rate, uint32_t snap_bytes) {
    int32_t status = R2P2_OK;
    if (rate == 0) r2p2_capture_stop(&engine->capture);
    else status = r2p2_capture_start(&engine->capture, rate, snap_bytes, engine->now_ns);
    engine->tx.capture = engine->capture.records ? &engine->capture : NULL;
    return status;
}

uint64_t r2p2_capture_take(r2p2_engine *engine, const uint8_t **records, uint64_t *missed) {
    uint64_t used = engine->capture.used;
    *records = engine->capture.records;
    *missed = engine->capture.missed;
    engine->capture.used = 0;
    return used;
}

static void expire(r2p2_engine *engine) {
    engine->counters.rx_expired_halves += r2p2_reassembly_expire(&engine->client_halves, engine->now_ns) +
                                          r2p2_reassembly_expire(&engine->raft_halves, engine->now_ns);
    engine->counters.rx_evicted_halves += engine->client_halves.evicted_count + engine->raft_halves.evicted_count;
    engine->client_halves.evicted_count = engine->raft_halves.evicted_count = 0;
    for (uint32_t i = 0; i < engine->clients_count; i++)
        engine->counters.client_timeouts +=
            r2p2_client_expire(engine->clients[i], engine->now_ns, engine->sink, engine->sink_context);
    r2p2_held_expire(engine);
    r2p2_reads_expire(engine);
}

void r2p2_engine_poll(r2p2_engine *engine, r2p2_poll_result *result) {
    r2p2_rx_packet packets[R2P2_BURST_MAX];
    uint64_t received = 0;
    raft_release(engine);
    engine->counters.requests_unanswered += engine->requests.count;
    r2p2_requests_clear(&engine->requests);
    engine->steady.done = engine->steady.state.answered_mask = 0;
    engine->now_ns = engine->port->now_ns(engine->port->self);
    while (received < engine->config.packets_per_poll_max) {
        uint64_t room = engine->config.packets_per_poll_max - received;
        uint32_t n = engine->port->rx_burst(engine->port->self, packets,
                                            room < R2P2_BURST_MAX ? (uint32_t)room : R2P2_BURST_MAX);
        if (n == 0) break;
        if (engine->capture.records) capture_received(engine, packets, n);
        r2p2_packets_in(engine, packets, n);
        engine->port->rx_release(engine->port->self, packets, n);
        received += n;
    }
    expire(engine);
    r2p2_grants_give(engine);
    if (engine->steady.role == R2P2_STEADY_LEADS && engine->appended_count > 0) r2p2_steady_send(engine);
    r2p2_tx_flush(&engine->tx);
    result->now_ns = engine->now_ns;
    result->packets_count = received;
    result->requests_count = engine->requests.count;
    result->appended_count = engine->appended_count;
    result->held_count = engine->held_count;
    result->raft_count = engine->raft_count;
    result->completions_count = engine->completions_count;
    result->log_last_index = engine->log.last_index;
    result->reads_count = engine->reads.gathered.count;
    result->steady_done = engine->steady.done;
    engine->counters.log_appended += engine->appended_count;
    engine->appended_count = 0;
}

/* ---- unreplicated requests ---- */

void r2p2_requests_batch(r2p2_engine *engine, r2p2_batch *batch) {
    *batch = (r2p2_batch){
        .slab = engine->requests.slab.data,
        .lengths = engine->requests.lengths,
        .policies = engine->requests.policies,
        .askers = (const uint8_t *)engine->requests.askers,
        .slab_bytes = engine->requests.slab.length,
        .requests_count = engine->requests.count,
    };
}

int32_t r2p2_requests_reply(r2p2_engine *engine, const uint8_t *slab, uint64_t slab_bytes, const uint32_t *lengths,
                            uint64_t count) {
    int32_t status = r2p2_replies_send(engine, &engine->requests, slab, slab_bytes, lengths, count);
    if (status == R2P2_OK) r2p2_requests_clear(&engine->requests);
    return status;
}

/* ---- pure functions ---- */

int32_t r2p2_header_check(const uint8_t *data, uint64_t length, uint16_t fields[8]) {
    r2p2_header header;
    enum r2p2_header_error error = r2p2_header_parse(data, length, &header);
    if (error) return error;
    fields[0] = header.header_size;
    fields[1] = header.type;
    fields[2] = header.policy;
    fields[3] = header.is_first;
    fields[4] = header.is_last;
    fields[5] = header.rid;
    fields[6] = header.p_order;
    fields[7] = 0;
    return 0;
}

int32_t r2p2_resp_is_whole(const uint8_t *data, uint64_t length) { return r2p2_resp_whole(data, length); }

uint64_t r2p2_resp_first_broken(const uint8_t *slab, const uint32_t *lengths, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        if (!r2p2_resp_whole(slab, lengths[i])) return i;
        slab += lengths[i];
    }
    return count;
}
