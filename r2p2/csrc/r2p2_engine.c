/*
 * The engine: what becomes of every received packet, and the calls Python makes that are not about replication.
 *
 * One poll: receive bursts until the port is empty or the poll has had its share; sort each packet by type; expire what is old;
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

/* ---- whole messages ---- */

static void whole_request(r2p2_engine *engine, const r2p2_rx_packet *packet, uint16_t rid, uint8_t policy,
                          const uint8_t *payload, uint32_t bytes, int has_session) {
    r2p2_asker asker = {packet->source_ip, packet->source_port, packet->local_port, rid, policy, 0};
    engine->counters.rx_requests++;
    if (policy == R2P2_POLICY_REPLICATED_NO_SE) {
        r2p2_read_request(engine, &asker, payload, bytes);
        return;
    }
    if (policy == R2P2_POLICY_REPLICATED) {
        r2p2_replicated_request(engine, &asker, payload, bytes, has_session);
        return;
    }
    if (r2p2_requests_add(&engine->requests, &asker, payload, bytes)) {
        r2p2_tx_address to = {asker.ip, asker.port, asker.local_port};
        engine->counters.drops_backlog++;
        r2p2_drop_send(engine, to, rid);
    }
}

/* The client whose waiting call an answer is for; NULL, counted, when there is none or the sender is not trusted. */
static r2p2_client *answered_client(r2p2_engine *engine, const r2p2_rx_packet *packet, uint16_t rid) {
    r2p2_client *client = r2p2_engine_client(engine, packet->local_port);
    if (!client || !r2p2_client_waiting(client, rid)) {
        engine->counters.rx_unmatched++;
        return NULL;
    }
    if (!r2p2_client_trusts(client, packet->source_ip, packet->source_port)) {
        engine->counters.rx_bad_sender++;
        return NULL;
    }
    return client;
}

/* Whether an answer is to the very request that waits: a session's carries back which one it is to, any other carries nothing. */
static int is_to_request(r2p2_engine *engine, const r2p2_client *client, uint16_t rid, int has_session,
                         const uint8_t *payload) {
    if (r2p2_client_is_asked(client, rid, has_session ? payload : NULL)) return 1;
    engine->counters.rx_stale_answers++;
    return 0;
}

static void whole_response(r2p2_engine *engine, const r2p2_rx_packet *packet, uint16_t rid, const uint8_t *payload,
                           uint32_t bytes, int has_session) {
    r2p2_client *client = answered_client(engine, packet, rid);
    if (!client || !is_to_request(engine, client, rid, has_session, payload)) return;
    if (has_session) {
        payload += R2P2_SESSION_BYTES;
        bytes -= R2P2_SESSION_BYTES;
    }
    engine->counters.rx_responses++;
    r2p2_client_end(client, rid, R2P2_DONE_OK, engine->now_ns, payload, bytes, packet->source_ip, packet->source_port,
                    engine->sink, engine->sink_context);
}

_Static_assert(R2P2_RAFT_HEAD_BYTES == R2P2_STEADY_HEAD_BYTES, "the head is the head");

/* Whether a Raft message, or its first packet, is of our cluster; counted when not. Its bytes begin with the head. */
static int is_of_cluster(r2p2_engine *engine, const uint8_t *payload, uint32_t bytes) {
    if (!engine->has_cluster) return 1;
    switch (r2p2_raft_head_check(payload, bytes, engine->cluster_id)) {
    case R2P2_RAFT_HEAD_SHORT: engine->counters.rx_bad_raft++; return 0;
    case R2P2_RAFT_HEAD_VERSION: engine->counters.raft_bad_version++; return 0;
    case R2P2_RAFT_HEAD_CLUSTER: engine->counters.raft_bad_cluster++; return 0;
    case R2P2_RAFT_HEAD_OK: break;
    }
    return 1;
}

/* Whether it comes from where a member is. While nobody knows where, everybody may be one. */
static int is_of_member(const r2p2_engine *engine, const r2p2_rx_packet *packet) {
    for (uint32_t i = 0; i < engine->peers_count; i++)
        if (engine->peers[i].ip == packet->source_ip && engine->peers[i].port == packet->source_port) return 1;
    return engine->peers_count == 0;
}

/* Half of what a poll keeps for Python is for members alone: a cluster's id is no secret. */
static int lane_has_room(const r2p2_engine *engine, const r2p2_rx_packet *packet, uint32_t bytes, const r2p2_half *half) {
    uint32_t used = engine->raft_arena_used + (half ? 0 : bytes);
    if (engine->raft_count < R2P2_RAFT_MESSAGES_MAX / 2 && used <= R2P2_RAFT_ARENA_BYTES / 2) return 1;
    return engine->raft_count < R2P2_RAFT_MESSAGES_MAX && used <= R2P2_RAFT_ARENA_BYTES && is_of_member(engine, packet);
}

static void whole_raft(r2p2_engine *engine, const r2p2_rx_packet *packet, const r2p2_header *header,
                       const uint8_t *payload, uint32_t bytes, r2p2_half *half) {
    /* Behind a message that waits for Python everything waits, so that all are decided in the order in which they came. */
    if (engine->steady.role && engine->raft_count == 0 &&
        r2p2_steady_take(engine, header->type, header->rid, payload, bytes)) {
        engine->counters.rx_raft_messages++;
        if (half) r2p2_reassembly_finish(&engine->raft_halves, half);
        return;
    }
    if (!half && !is_of_cluster(engine, payload, bytes)) return; /* of a longer one its first packet has been looked at */
    if (!lane_has_room(engine, packet, bytes, half)) {
        engine->counters.rx_drop_raft_full++;
        if (half) r2p2_reassembly_finish(&engine->raft_halves, half);
        return;
    }
    engine->counters.rx_raft_messages++;
    r2p2_raft_slot *slot = &engine->raft[engine->raft_count++];
    *slot = (r2p2_raft_slot){
        .length = bytes,
        .source_ip = packet->source_ip,
        .source_port = packet->source_port,
        .rid = header->rid,
        .type = header->type,
    };
    if (half) {
        slot->data = payload;
        slot->detached = r2p2_reassembly_detach(&engine->raft_halves, half);
    } else {
        uint8_t *copy = engine->raft_arena + engine->raft_arena_used;
        memcpy(copy, payload, bytes);
        engine->raft_arena_used += (bytes + 7) & ~7u;
        slot->data = copy;
    }
}

#define EXPIRED_WORD "SESSION_EXPIRED"

static void control(r2p2_engine *engine, const r2p2_rx_packet *packet, const r2p2_header *header,
                    const uint8_t *payload, uint32_t bytes) {
    r2p2_client *client = answered_client(engine, packet, header->rid);
    if (!client) return;
    if (header->type == R2P2_TYPE_ACK) {
        r2p2_tx_address to = {packet->source_ip, packet->source_port, packet->local_port};
        r2p2_client_acked(client, header->rid, to);
        return;
    }
    const r2p2_pair *pair = r2p2_client_waiting(client, header->rid);
    if (!header->has_session && !r2p2_client_refusal_ends(pair)) { /* refused, by whom it may be; sent again after a pause */
        r2p2_client_refused(client, header->rid, engine->now_ns);
        return;
    }
    if (pair->session) {
        if (!is_to_request(engine, client, header->rid, 1, payload)) return;
        int is_expired = bytes == R2P2_SESSION_BYTES + sizeof EXPIRED_WORD - 1 &&
                         memcmp(payload + R2P2_SESSION_BYTES, EXPIRED_WORD, sizeof EXPIRED_WORD - 1) == 0;
        if (is_expired) engine->counters.client_expired++;
        else engine->counters.client_dropped++;
        r2p2_client_end(client, header->rid, is_expired ? R2P2_DONE_EXPIRED : R2P2_DONE_DROPPED, engine->now_ns, NULL, 0,
                        packet->source_ip, packet->source_port, engine->sink, engine->sink_context);
        return;
    }
    if (header->has_session) {
        engine->counters.rx_stale_answers++;
        return;
    }
    engine->counters.client_dropped++;
    r2p2_client_end(client, header->rid, R2P2_DONE_DROPPED, engine->now_ns, NULL, 0, packet->source_ip,
                    packet->source_port, engine->sink, engine->sink_context);
}

static void whole(r2p2_engine *engine, const r2p2_rx_packet *packet, const r2p2_header *header, uint8_t policy,
                  const uint8_t *payload, uint32_t bytes, r2p2_half *half) {
    int has_session = half ? half->has_session : header->has_session; /* the payload begins with it */
    switch (header->type) {
    case R2P2_TYPE_REQUEST:
        whole_request(engine, packet, header->rid, policy, payload, bytes, has_session);
        break;
    case R2P2_TYPE_RESPONSE:
        whole_response(engine, packet, header->rid, payload, bytes, has_session);
        break;
    case R2P2_TYPE_ACK:
    case R2P2_TYPE_DROP:
        control(engine, packet, header, payload, bytes);
        break;
    default:
        whole_raft(engine, packet, header, payload, bytes, half);
        return; /* which took the half */
    }
    if (half) r2p2_reassembly_finish(&engine->client_halves, half);
}

/* ---- packets ---- */

static void header_refused(r2p2_engine_counters *counters, enum r2p2_header_error error) {
    switch (error) {
    case R2P2_HEADER_SHORT: counters->rx_bad_short++; break;
    case R2P2_HEADER_MAGIC: counters->rx_bad_magic++; break;
    case R2P2_HEADER_SIZE: counters->rx_bad_header_size++; break;
    case R2P2_HEADER_TYPE: counters->rx_bad_type++; break;
    case R2P2_HEADER_POLICY: counters->rx_bad_policy++; break;
    case R2P2_HEADER_FLAGS: counters->rx_bad_flags++; break;
    case R2P2_HEADER_ORDER: counters->rx_bad_order++; break;
    case R2P2_HEADER_OK: break;
    }
}

/* The rest of the request may come. */
static void acknowledge(r2p2_engine *engine, const r2p2_half *half) {
    r2p2_tx_address to = {half->source_ip, half->source_port, half->local_port};
    r2p2_tx_single(&engine->tx, R2P2_TYPE_ACK, R2P2_POLICY_FIXED_ROUTE, half->rid, to, (const uint8_t *)"ACK", 3);
}

static void part(r2p2_engine *engine, const r2p2_rx_packet *packet, const r2p2_header *header, const uint8_t *payload,
                 uint32_t bytes) {
    r2p2_engine_counters *counters = &engine->counters;
    int is_raft = header->type >= R2P2_TYPE_RAFT_REQ, is_vouched = 1;
    /* Neither is what nobody waits for worth a half message, nor what is of another cluster. */
    if (header->type == R2P2_TYPE_RESPONSE) {
        r2p2_client *client = answered_client(engine, packet, header->rid);
        if (!client) return;
        is_vouched = r2p2_client_asked(client, header->rid, packet->source_ip, packet->source_port);
    }
    if (is_raft) {
        if (header->is_first && !is_of_cluster(engine, payload, bytes)) return;
        is_vouched = is_of_member(engine, packet);
    }
    int is_announced = header->type == R2P2_TYPE_REQUEST && header->is_first;
    if (is_announced && header->policy == R2P2_POLICY_REPLICATED) { /* what will not be taken need not come */
        r2p2_asker asker = {packet->source_ip, packet->source_port, packet->local_port, header->rid, header->policy, 0};
        if (r2p2_replicated_announced(engine, &asker, header, payload, bytes)) return;
    }
    r2p2_whole message;
    enum r2p2_reassembly_result result =
        r2p2_reassembly_add(is_raft ? &engine->raft_halves : &engine->client_halves, header, payload, bytes,
                            packet->source_ip, packet->source_port, packet->local_port,
                            is_vouched, engine->now_ns, &message);
    switch (result) {
    case R2P2_HALF_REPLACED: counters->rx_replaced_halves++; break;
    case R2P2_HALF_DUPLICATE: counters->rx_duplicate_packets++; break;
    case R2P2_HALF_BAD_ORDER: counters->rx_bad_order++; return;
    case R2P2_HALF_BAD_LENGTH: counters->rx_bad_length++; return;
    case R2P2_HALF_FULL: counters->rx_drop_reassembly_full++; return;
    case R2P2_HALF_QUOTA: counters->rx_drop_source_quota++; return;
    case R2P2_HALF_COMPLETE:
        whole(engine, packet, header, message.half->policy, message.data, message.length, message.half);
        return;
    case R2P2_HALF_STORED: break;
    }
    if (!is_announced) return;
    /* One that has been acknowledged, or is over: its ACK was lost. Else its turn comes at the poll's end. */
    if (message.half->is_done || message.half->grant == R2P2_GRANT_GIVEN) acknowledge(engine, message.half);
    else r2p2_grants_ask(&engine->client_halves, message.half);
}

static inline void packet_in(r2p2_engine *engine, const r2p2_rx_packet *packet) {
    r2p2_header header;
    enum r2p2_header_error error = r2p2_header_parse(packet->data, packet->length, &header);
    if (error) {
        header_refused(&engine->counters, error);
        return;
    }
    /* The session extension goes with the payload it stands in front of; what else follows the first 8 bytes is skipped. */
    uint32_t skipped = header.has_session ? R2P2_HEADER_BYTES : header.header_size;
    const uint8_t *payload = packet->data + skipped;
    uint32_t bytes = packet->length - skipped;
    if (bytes > R2P2_PAYLOAD_BYTES_MAX) {
        engine->counters.rx_bad_length++;
        return;
    }
    if (header.type == R2P2_TYPE_FEEDBACK || (header.type >= R2P2_TYPE_RAFT_REQ && engine->role == R2P2_ROLE_NONE)) {
        engine->counters.rx_unexpected++;
        return;
    }
    if (header.type >= R2P2_TYPE_RAFT_REQ && bytes == 0) { /* also without a group, and of later packets */
        engine->counters.rx_bad_raft++;
        return;
    }
    if (header.is_first && header.is_last)
        whole(engine, packet, &header, header.policy, payload, bytes, NULL);
    else if (header.type == R2P2_TYPE_ACK || header.type == R2P2_TYPE_DROP)
        engine->counters.rx_bad_flags++;
    else
        part(engine, packet, &header, payload, bytes);
}

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
        for (uint32_t i = 0; i < n; i++) packet_in(engine, &packets[i]);
        engine->port->rx_release(engine->port->self, packets, n);
        received += n;
    }
    expire(engine);
    for (const r2p2_half *half; (half = r2p2_grants_next(&engine->client_halves, engine->now_ns));) acknowledge(engine, half);
    engine->counters.rx_requests_waited += engine->client_halves.waited_count;
    engine->client_halves.waited_count = 0;
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
