/*
 * The gateway: every datagram's bytes are checked here, once, and what it is decides where it goes: a request to the application's batch, the
 * log or the reads, an answer to its call, a Raft message to the lane; a part of a longer message to reassembly.
 */
#include "r2p2_engine.h"

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

void r2p2_packets_in(r2p2_engine *engine, const r2p2_rx_packet *packets, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) packet_in(engine, &packets[i]);
}

void r2p2_grants_give(r2p2_engine *engine) {
    for (const r2p2_half *half; (half = r2p2_grants_next(&engine->client_halves, engine->now_ns));) acknowledge(engine, half);
    engine->counters.rx_requests_waited += engine->client_halves.waited_count;
    engine->client_halves.waited_count = 0;
}
