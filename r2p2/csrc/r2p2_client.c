/* The client's pair table. See r2p2_client.h. */
#include "r2p2_client.h"

#include <stdlib.h>

#define REFUSALS_MAX 5u
#define REFUSED_PAUSE_NS 1000000u /* after the first refusal; twice as long after each further one up to REFUSALS_MAX */
#define SPARE_PAYLOAD_BYTES R2P2_PAYLOAD_BYTES_MAX

r2p2_client *r2p2_client_new(uint16_t local_port, uint32_t calls_max, r2p2_tx *tx, uint64_t now_ns) {
    r2p2_client *client = calloc(1, sizeof *client); /* 6 MiB of address space; touched as rids are used */
    if (!client) return NULL;
    client->local_port = local_port;
    client->calls_max = calls_max < R2P2_RIDS_COUNT - 1 ? calls_max : R2P2_RIDS_COUNT - 1;
    client->next_rid = 1;
    client->tx = tx;
    client->wheel_ns = now_ns - now_ns % R2P2_WHEEL_TICK_NS;
    for (uint32_t i = 0; i < R2P2_WHEEL_SLOTS; i++) client->wheel[i] = R2P2_NO_RID;
    return client;
}

/* ---- copies of requests ---- */

static uint8_t *payload_take(r2p2_client *client, uint64_t bytes) {
    if (bytes > SPARE_PAYLOAD_BYTES) return malloc(bytes);
    void *spare = client->spare_payloads;
    if (!spare) return malloc(SPARE_PAYLOAD_BYTES);
    memcpy(&client->spare_payloads, spare, sizeof spare); /* begins with the next one's address */
    return spare;
}

static uint64_t payload_size(const r2p2_pair *pair) {
    return pair->payload_bytes + (pair->session ? R2P2_SESSION_BYTES : 0);
}

static void payload_give(r2p2_client *client, r2p2_pair *pair) {
    uint8_t *payload = pair->payload;
    if (!payload) return;
    pair->payload = NULL;
    if (payload_size(pair) > SPARE_PAYLOAD_BYTES) {
        free(payload);
        return;
    }
    memcpy(payload, &client->spare_payloads, sizeof(void *));
    client->spare_payloads = payload;
}

void r2p2_client_free(r2p2_client *client) {
    if (!client) return;
    for (uint32_t i = 0; i < R2P2_WHEEL_SLOTS; i++)
        for (uint32_t rid = client->wheel[i]; rid != R2P2_NO_RID; rid = client->pairs[rid].wheel_next)
            payload_give(client, &client->pairs[rid]);
    while (client->spare_payloads) {
        void *spare = client->spare_payloads;
        memcpy(&client->spare_payloads, spare, sizeof spare);
        free(spare);
    }
    for (uint32_t i = 0; i < client->sessions_count; i++) r2p2_client_session_free(client->sessions[i]);
    free(client->sessions);
    free(client);
}

/* ---- the wheel ---- */

static uint32_t *wheel_slot(r2p2_client *client, uint64_t due_ns) {
    return &client->wheel[(due_ns / R2P2_WHEEL_TICK_NS) % R2P2_WHEEL_SLOTS];
}

static void wheel_insert(r2p2_client *client, uint32_t rid, uint64_t due_ns) {
    r2p2_pair *pair = &client->pairs[rid];
    /* What is already behind the wheel goes to the slot that is done next. */
    pair->due_ns = due_ns > client->wheel_ns ? due_ns : client->wheel_ns;
    uint32_t *slot = wheel_slot(client, pair->due_ns);
    pair->wheel_previous = R2P2_NO_RID;
    pair->wheel_next = *slot;
    if (*slot != R2P2_NO_RID) client->pairs[*slot].wheel_previous = rid;
    *slot = rid;
}

static void wheel_remove(r2p2_client *client, uint32_t rid) {
    r2p2_pair *pair = &client->pairs[rid];
    if (pair->wheel_previous != R2P2_NO_RID) client->pairs[pair->wheel_previous].wheel_next = pair->wheel_next;
    else *wheel_slot(client, pair->due_ns) = pair->wheel_next;
    if (pair->wheel_next != R2P2_NO_RID) client->pairs[pair->wheel_next].wheel_previous = pair->wheel_previous;
}

/* The deadline, or `pause_ns` from now when that is sooner. */
static uint64_t due_after(const r2p2_pair *pair, uint64_t now_ns, uint64_t pause_ns) {
    if (pair->deadline_ns <= now_ns || pair->deadline_ns - now_ns <= pause_ns) return pair->deadline_ns;
    return now_ns + pause_ns;
}

static uint64_t next_due(const r2p2_pair *pair, uint64_t now_ns) {
    if (pair->retry_ns == 0 || pair->kind == R2P2_CALL_PARKED) return pair->deadline_ns;
    return due_after(pair, now_ns, pair->retry_ns);
}

/* ---- sending ---- */

/* The whole request: one packet, or REQ0, whose ACK brings the rest. `request` is the copy, where there is one. */
static void send_request(r2p2_client *client, r2p2_pair *pair, uint16_t rid, const uint8_t *request) {
    const uint8_t *extension = pair->session ? pair->payload : NULL;
    pair->awaits_ack = r2p2_tx_request_packets_count(pair->payload_bytes, extension != NULL) > 1;
    if (pair->awaits_ack)
        r2p2_tx_request_packets(client->tx, pair->policy, rid, pair->target, extension, request, pair->payload_bytes, 0, 0);
    else if (extension)
        r2p2_tx_single_session(client->tx, R2P2_TYPE_REQUEST, pair->policy, rid, pair->target, extension, request,
                               pair->payload_bytes);
    else
        r2p2_tx_single(client->tx, R2P2_TYPE_REQUEST, pair->policy, rid, pair->target, request, pair->payload_bytes);
}

static const uint8_t *copy_of(const r2p2_pair *pair) {
    return pair->payload ? pair->payload + (pair->session ? R2P2_SESSION_BYTES : 0) : NULL;
}

static r2p2_client_session *session_of(const r2p2_client *client, const r2p2_pair *pair) {
    return client->sessions[pair->session - 1];
}

static void aim(r2p2_client *client, r2p2_pair *pair, const r2p2_target *target) {
    pair->target = (r2p2_tx_address){target->ip, target->port, client->local_port};
}

/* So long before now; 0 where the clock is younger. */
static uint64_t before(uint64_t now_ns, uint64_t ns) { return now_ns > ns ? now_ns - ns : 0; }

/* Sends a request again; a session's to whom its session would ask next. */
static void repeat(r2p2_client *client, r2p2_pair *pair, uint16_t rid, uint64_t now_ns) {
    client->tx->counters->client_retries++;
    pair->is_repeated = 1;
    if (pair->session) {
        aim(client, pair, r2p2_client_session_rotate(session_of(client, pair), pair->target.ip, pair->target.port,
                                                     before(now_ns, pair->retry_ns), now_ns));
        pair->sent_ns = now_ns;
    }
    send_request(client, pair, rid, copy_of(pair));
}

/* ---- calls ---- */

/* A free rid, or R2P2_NO_RID. */
static uint32_t rid_take(r2p2_client *client) {
    if (client->waiting_count + client->openings_count + client->quarantined_count >= R2P2_RIDS_COUNT) return R2P2_NO_RID;
    uint32_t rid = client->next_rid;
    while (client->pairs[rid].state != R2P2_PAIR_FREE) rid = (rid + 1) % R2P2_RIDS_COUNT;
    client->next_rid = (rid + 1) % R2P2_RIDS_COUNT;
    return rid;
}

/* Asks for an id for the session. Not being able to is not the caller's error: its parked calls will time out. */
static void open_session(r2p2_client *client, r2p2_client_session *session, uint16_t index, uint64_t timeout_ns,
                         uint64_t now_ns) {
    uint32_t rid = rid_take(client);
    uint8_t *payload = rid == R2P2_NO_RID ? NULL : payload_take(client, R2P2_SESSION_BYTES);
    if (!payload) return;
    memset(payload, 0, R2P2_SESSION_BYTES);
    r2p2_pair *pair = &client->pairs[rid];
    *pair = (r2p2_pair){
        .start_ns = now_ns,
        .deadline_ns = now_ns + timeout_ns,
        .retry_ns = R2P2_SESSION_RETRY_NS,
        .payload = payload,
        .session = index,
        .state = R2P2_PAIR_WAITING,
        .policy = R2P2_POLICY_REPLICATED,
        .kind = R2P2_CALL_OPENING,
        .sent_ns = now_ns,
    };
    aim(client, pair, &session->targets[session->current]);
    client->openings_count++;
    session->state = R2P2_SESSION_OPENING;
    wheel_insert(client, rid, next_due(pair, now_ns));
    send_request(client, pair, (uint16_t)rid, copy_of(pair));
}

static void park(r2p2_client *client, r2p2_client_session *session, uint32_t rid) {
    r2p2_pair *pair = &client->pairs[rid];
    pair->kind = R2P2_CALL_PARKED;
    pair->parked_next = R2P2_NO_RID;
    pair->parked_previous = session->parked_last;
    if (session->parked_last != R2P2_NO_RID) client->pairs[session->parked_last].parked_next = rid;
    else session->parked_first = rid;
    session->parked_last = rid;
}

static void unpark(r2p2_client *client, r2p2_client_session *session, r2p2_pair *pair) {
    if (pair->parked_previous != R2P2_NO_RID) client->pairs[pair->parked_previous].parked_next = pair->parked_next;
    else session->parked_first = pair->parked_next;
    if (pair->parked_next != R2P2_NO_RID) client->pairs[pair->parked_next].parked_previous = pair->parked_previous;
    else session->parked_last = pair->parked_previous;
    pair->kind = R2P2_CALL_SESSION;
}

/* What the extension of a session's request says from its first sending on. */
static void extension_write(r2p2_pair *pair, const r2p2_client_session *session, uint64_t sequence) {
    r2p2_session_extension extension = {session->client_id, sequence, session->oldest_pending};
    r2p2_session_write(pair->payload, &extension);
}

/* The session has its id: what was parked is sent. */
static void opened(r2p2_client *client, r2p2_client_session *session, uint64_t now_ns) {
    while (session->parked_first != R2P2_NO_RID) {
        uint32_t rid = session->parked_first;
        r2p2_pair *pair = &client->pairs[rid];
        unpark(client, session, pair);
        extension_write(pair, session, r2p2_session_read(pair->payload).sequence);
        aim(client, pair, &session->targets[session->current]);
        pair->sent_ns = now_ns;
        wheel_remove(client, rid);
        wheel_insert(client, rid, next_due(pair, now_ns));
        send_request(client, pair, (uint16_t)rid, copy_of(pair));
    }
}

int32_t r2p2_client_start(r2p2_client *client, const r2p2_call *call, uint64_t now_ns) {
    r2p2_client_session *session = call->session ? r2p2_client_session_at(client, call->session - 1u) : NULL;
    uint32_t packets = r2p2_tx_request_packets_count(call->bytes, session != NULL);
    if (packets == 0) return R2P2_ERROR_TOO_LARGE;
    if (call->policy > R2P2_POLICY_REPLICATED_NO_SE || (call->session && !session)) return R2P2_ERROR_ARGUMENT;
    if (session && session->state == R2P2_SESSION_EXPIRED) return R2P2_ERROR_STATE;
    if (client->waiting_count >= client->calls_max) return R2P2_ERROR_FULL;
    uint32_t rid = rid_take(client);
    if (rid == R2P2_NO_RID) return R2P2_ERROR_FULL;
    uint8_t *copy = NULL;
    uint32_t prefix = session ? R2P2_SESSION_BYTES : 0;
    if (session || packets > 1 || (call->retry_ns && call->bytes)) {
        copy = payload_take(client, prefix + call->bytes);
        if (!copy) return R2P2_ERROR_NO_MEMORY;
        if (call->bytes) memcpy(copy + prefix, call->payload, call->bytes);
    }
    r2p2_pair *pair = &client->pairs[rid];
    *pair = (r2p2_pair){
        .tag = call->tag,
        .start_ns = now_ns,
        .deadline_ns = now_ns + call->timeout_ns,
        .retry_ns = call->retry_ns || !session ? call->retry_ns : R2P2_SESSION_RETRY_NS,
        .target = call->to,
        .payload = copy,
        .payload_bytes = (uint32_t)call->bytes,
        .session = call->session,
        .policy = call->policy,
    };
    if (session) {
        uint64_t sequence = r2p2_client_session_take(session);
        if (sequence == 0) {
            payload_give(client, pair);
            return R2P2_ERROR_FULL;
        }
        pair->kind = R2P2_CALL_SESSION;
        pair->policy = R2P2_POLICY_REPLICATED;
        pair->retry_ns = r2p2_client_session_patience(session, pair->retry_ns);
        pair->sent_ns = now_ns;
        aim(client, pair, &session->targets[session->current]);
        extension_write(pair, session, sequence);
    }
    pair->state = R2P2_PAIR_WAITING;
    client->waiting_count++;
    client->tx->counters->client_calls++;
    if (session && session->state != R2P2_SESSION_OPEN) park(client, session, rid);
    wheel_insert(client, rid, next_due(pair, now_ns));
    if (pair->kind != R2P2_CALL_PARKED) send_request(client, pair, (uint16_t)rid, call->payload);
    else if (session->state == R2P2_SESSION_NEW) open_session(client, session, call->session, call->timeout_ns, now_ns);
    return (int32_t)rid;
}

void r2p2_client_acked(r2p2_client *client, uint16_t rid, r2p2_tx_address to) {
    r2p2_pair *pair = &client->pairs[rid];
    /* Of a request of one packet, of one not sent yet, or once more: 11 bytes must not draw out the whole request each time they come. */
    if (!pair->awaits_ack) {
        client->tx->counters->rx_unmatched++;
        return;
    }
    pair->awaits_ack = 0;
    r2p2_tx_request_packets(client->tx, pair->policy, rid, to, pair->session ? pair->payload : NULL, copy_of(pair),
                            pair->payload_bytes, 1, R2P2_PACKETS_MAX);
    if (pair->retry_ns) return; /* it may be needed again */
    payload_give(client, pair);
}

void r2p2_client_refused(r2p2_client *client, uint16_t rid, uint64_t now_ns) {
    r2p2_pair *pair = &client->pairs[rid];
    client->tx->counters->client_refusals++;
    if (pair->kind == R2P2_CALL_PARKED) return; /* of an earlier call with this rid */
    if (pair->session)
        (void)r2p2_client_session_rotate(session_of(client, pair), pair->target.ip, pair->target.port,
                                         before(now_ns, R2P2_SESSION_RETRY_NS), now_ns);
    pair->is_refused = 1;
    wheel_remove(client, rid);
    wheel_insert(client, rid, due_after(pair, now_ns, REFUSED_PAUSE_NS << pair->refusals_count));
    if (pair->refusals_count < REFUSALS_MAX) pair->refusals_count++;
}

/* An opening has ended. */
static void opening_ended(r2p2_client *client, uint16_t rid, uint32_t status, const uint8_t *payload, uint32_t bytes,
                          uint64_t now_ns) {
    r2p2_pair *pair = &client->pairs[rid];
    r2p2_client_session *session = session_of(client, pair);
    uint64_t id = status == R2P2_DONE_OK && bytes == 8 ? r2p2_load_u64(payload) : 0;
    uint16_t index = pair->session;
    client->openings_count--;
    session->state = id ? R2P2_SESSION_OPEN : R2P2_SESSION_NEW;
    session->client_id = id;
    if (id) opened(client, session, now_ns);
    else if (session->parked_first != R2P2_NO_RID)
        open_session(client, session, index, pair->deadline_ns - pair->start_ns, now_ns);
}

/* A call of a session has ended, and its number need not be kept. */
static void session_call_ended(r2p2_client *client, r2p2_pair *pair, uint32_t status, uint32_t source_ip,
                               uint16_t source_port, uint64_t now_ns) {
    r2p2_client_session *session = session_of(client, pair);
    r2p2_session_extension extension = r2p2_session_read(pair->payload);
    session->waiting_count--;
    if (pair->kind == R2P2_CALL_PARKED) unpark(client, session, pair);
    if (extension.client_id != session->client_id) return; /* of a session before it was renewed */
    r2p2_client_session_ended(session, extension.sequence);
    if (status == R2P2_DONE_EXPIRED) session->state = R2P2_SESSION_EXPIRED;
    if (status == R2P2_DONE_OK) r2p2_client_session_learn(session, source_ip, source_port, pair->sent_ns, now_ns);
}

void r2p2_client_end(r2p2_client *client, uint16_t rid, uint32_t status, uint64_t now_ns, const uint8_t *payload,
                     uint32_t bytes, uint32_t source_ip, uint16_t source_port, r2p2_completion_sink sink, void *context) {
    r2p2_pair *pair = &client->pairs[rid];
    r2p2_completion completion = {
        .tag = pair->tag,
        .latency_ns = now_ns - pair->start_ns,
        .length = bytes,
        .status = status,
        .source_ip = source_ip,
        .source_port = source_port,
        .rid = rid,
    };
    int is_opening = pair->kind == R2P2_CALL_OPENING;
    /* No answer has come, or not the one to each copy. Those of a session say themselves what they are to. */
    int is_owed = status == R2P2_DONE_TIMEOUT || status == R2P2_DONE_CANCELLED || (pair->is_repeated && !pair->session);
    wheel_remove(client, rid);
    if (!is_opening) client->waiting_count--;
    if (!is_opening && pair->session) session_call_ended(client, pair, status, source_ip, source_port, now_ns);
    payload_give(client, pair);
    if (is_owed) {
        pair->state = R2P2_PAIR_QUARANTINED;
        client->quarantined_count++;
        wheel_insert(client, rid, now_ns + R2P2_QUARANTINE_NS);
    } else {
        pair->state = R2P2_PAIR_FREE;
    }
    if (is_opening) opening_ended(client, rid, status, payload, bytes, now_ns);
    else sink(context, &completion, payload);
}

/* A waiting call is due before its deadline. */
static void again(r2p2_client *client, uint32_t rid, uint64_t now_ns) {
    r2p2_pair *pair = &client->pairs[rid];
    wheel_remove(client, rid);
    repeat(client, pair, (uint16_t)rid, now_ns);
    /* What was refused has waited for its pause alone, which is no silence; it may be refused a thousand times. */
    if (!pair->is_refused || pair->kind == R2P2_CALL_SESSION) pair->retry_ns *= 2;
    pair->is_refused = 0;
    /* An opening may go on doubling: each one that reaches the log opens a session, of which one will be used. */
    if (pair->kind == R2P2_CALL_SESSION) {
        uint64_t most = r2p2_client_session_patience(session_of(client, pair), R2P2_SESSION_RETRY_MAX_NS);
        if (pair->retry_ns > most) pair->retry_ns = most;
    }
    wheel_insert(client, rid, next_due(pair, now_ns));
}

uint32_t r2p2_client_expire(r2p2_client *client, uint64_t now_ns, r2p2_completion_sink sink, void *context) {
    uint32_t timeouts = 0;
    if (now_ns < client->wheel_ns + R2P2_WHEEL_TICK_NS) return 0;
    uint64_t ticks = (now_ns - client->wheel_ns) / R2P2_WHEEL_TICK_NS;
    uint64_t first = client->wheel_ns / R2P2_WHEEL_TICK_NS, turns = ticks < R2P2_WHEEL_SLOTS ? ticks : R2P2_WHEEL_SLOTS;
    /* Deadlines set from here on, by calls made in the sink too, lie at or after the new position. */
    client->wheel_ns += ticks * R2P2_WHEEL_TICK_NS;
    for (uint64_t i = 0; i < turns; i++) {
        uint32_t rid = client->wheel[(first + i) % R2P2_WHEEL_SLOTS];
        while (rid != R2P2_NO_RID) {
            r2p2_pair *pair = &client->pairs[rid];
            uint32_t next = pair->wheel_next;
            if (pair->due_ns < client->wheel_ns) {
                if (pair->state == R2P2_PAIR_WAITING && pair->deadline_ns > now_ns) {
                    again(client, rid, now_ns);
                } else if (pair->state == R2P2_PAIR_WAITING) {
                    timeouts += pair->kind != R2P2_CALL_OPENING;
                    r2p2_client_end(client, (uint16_t)rid, R2P2_DONE_TIMEOUT, now_ns, NULL, 0, 0, 0, sink, context);
                } else {
                    wheel_remove(client, rid);
                    pair->state = R2P2_PAIR_FREE;
                    client->quarantined_count--;
                }
            }
            rid = next;
        }
    }
    return timeouts;
}

int32_t r2p2_client_session_add(r2p2_client *client, const r2p2_target *targets, uint32_t targets_count,
                                uint64_t first_sequence) {
    uint32_t index = 0;
    if (targets_count == 0 || targets_count > R2P2_TARGETS_MAX) return R2P2_ERROR_ARGUMENT;
    while (index < client->sessions_count && client->sessions[index]) index++;
    if (index == R2P2_CLIENT_SESSIONS_MAX) return R2P2_ERROR_FULL;
    if (index == client->sessions_capacity) {
        uint32_t capacity = index ? index * 2 : 4;
        r2p2_client_session **grown = realloc(client->sessions, capacity * sizeof *grown);
        if (!grown) return R2P2_ERROR_NO_MEMORY;
        client->sessions = grown;
        client->sessions_capacity = capacity;
    }
    r2p2_client_session *session = r2p2_client_session_new(targets, targets_count, first_sequence);
    if (!session) return R2P2_ERROR_NO_MEMORY;
    client->sessions[index] = session;
    if (index == client->sessions_count) client->sessions_count++;
    return (int32_t)index;
}
