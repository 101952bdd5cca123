/*
 * The replicated policy below Raft: requests into the log (leader) or on hold for the leader (follower), entries in and out of it, Raft
 * messages in and out. Decisions are Python's (raft/, r2p2/node/); bytes are handled here.
 */
#include <stdlib.h>

#include "r2p2_engine.h"

/* ---- requests in ---- */

static void refuse(r2p2_engine *engine, const r2p2_asker *asker, uint64_t *counter) {
    r2p2_tx_address to = {asker->ip, asker->port, asker->local_port};
    (*counter)++;
    r2p2_drop_send(engine, to, asker->rid);
}

/* Admission of new requests; a follower's appends may go a little beyond (r2p2_engine_new). */
static int log_is_full(const r2p2_engine *engine) {
    const r2p2_log *log = &engine->log;
    return log->tail - log->head >= engine->config.log_bytes_max ||
           log->last_index + 1 - log->first_index >= engine->config.log_entries_max;
}

/* Bytes of log on disk, with what this poll has added: one poll may bring more than there is room for. */
static uint64_t stored_bytes(const r2p2_engine *engine) {
    return engine->has_storage ? engine->log.tail - engine->storage_head : 0;
}

/* Why the leader takes no request: the counter of such refusals, or NULL. */
static uint64_t *leader_refusal(r2p2_engine *engine) {
    if (engine->log.last_index - engine->applied_index >= engine->config.backlog_entries_max)
        return &engine->counters.drops_backlog;
    if (stored_bytes(engine) >= engine->config.log_bytes_max) return &engine->counters.drops_storage_full;
    return log_is_full(engine) ? &engine->counters.drops_log_full : NULL;
}

static int hold_has_room(const r2p2_engine *engine, uint64_t bytes) {
    return engine->held.length - engine->held_offset + bytes <= engine->config.hold_bytes_max;
}

static void hold(r2p2_engine *engine, const r2p2_asker *asker, const r2p2_entry *entry, const uint8_t *payload) {
    uint64_t bytes = r2p2_entry_bytes(entry->body_length);
    if (!hold_has_room(engine, bytes) || r2p2_buffer_reserve(&engine->held, bytes)) {
        refuse(engine, asker, &engine->counters.drops_hold_full);
        return;
    }
    uint8_t *out = engine->held.data + engine->held.length;
    r2p2_entry_encode(out, entry);
    if (entry->body_length) memcpy(out + R2P2_ENTRY_HEADER_BYTES, payload, entry->body_length);
    memset(out + R2P2_ENTRY_HEADER_BYTES + entry->body_length, 0, bytes - R2P2_ENTRY_HEADER_BYTES - entry->body_length);
    if (engine->held_count++ == 0) engine->held_since_ns = engine->now_ns;
    engine->held.length += bytes;
}

/* Answers a request that the session table knows the answer to already. Only the leader: clients take who answers for it. */
static int answer_early(r2p2_engine *engine, const r2p2_asker *asker, const r2p2_session_extension *extension) {
    uint32_t session = r2p2_sessions_find(&engine->sessions, extension->client_id);
    if (session == R2P2_NO_SESSION) return 0; /* or not yet: an entry before this one may open it */
    const uint8_t *reply;
    const r2p2_kept *kept =
        r2p2_sessions_kept(&engine->sessions, session, extension->client_id, extension->sequence, &reply);
    if (!kept) return 0;
    r2p2_session_extension answer = {extension->client_id, extension->sequence, 0};
    engine->counters.sessions_answered_early++;
    r2p2_session_answer(engine, asker, &answer,
                        kept->state == R2P2_KEPT_REFUSAL ? R2P2_TYPE_DROP : R2P2_TYPE_RESPONSE, reply, kept->length);
    return 1;
}

int r2p2_replicated_announced(r2p2_engine *engine, const r2p2_asker *asker, const r2p2_header *header, const uint8_t *payload,
                              uint32_t bytes) {
    uint64_t *refusal = NULL;
    if (engine->role == R2P2_ROLE_LEADER) {
        if (header->has_session && bytes >= R2P2_SESSION_BYTES) {
            r2p2_session_extension extension = r2p2_session_read(payload);
            if (r2p2_session_valid(&extension) && answer_early(engine, asker, &extension)) return 1;
        }
        refusal = leader_refusal(engine);
    } else if (engine->role == R2P2_ROLE_NONE) {
        refusal = &engine->counters.drops_no_service;
    } else if (!hold_has_room(engine, (header->p_order - 1u) * (uint64_t)R2P2_PAYLOAD_BYTES_MAX)) {
        refusal = &engine->counters.drops_hold_full;
    }
    /* One that comes again is in the log maybe, or its ACK is out: the client must not hear that it was not taken. */
    if (!refusal || r2p2_reassembly_is_repeat(&engine->client_halves, header, payload, bytes, asker->ip, asker->port,
                                              asker->local_port))
        return 0;
    refuse(engine, asker, refusal);
    return 1;
}

void r2p2_replicated_request(r2p2_engine *engine, const r2p2_asker *asker, const uint8_t *payload, uint32_t bytes,
                             int has_session) {
    r2p2_entry entry = {
        .body_length = bytes,
        .client_ip = asker->ip,
        .client_port = asker->port,
        .rid = asker->rid,
        .kind = has_session ? R2P2_ENTRY_SESSION : R2P2_ENTRY_REQUEST,
        .policy = asker->policy,
    };
    engine->counters.rx_requests_replicated++;
    /* 254 packets with more than 14 bytes in the first could carry more than any member would take as an entry. */
    if (bytes > R2P2_REQUEST_BYTES_MAX + (has_session ? R2P2_SESSION_BYTES : 0)) {
        engine->counters.rx_bad_length++;
        return;
    }
    if (has_session) {
        r2p2_session_extension extension = r2p2_session_read(payload);
        if (!r2p2_session_valid(&extension)) {
            engine->counters.rx_bad_session++;
            return;
        }
        if (engine->role == R2P2_ROLE_LEADER && answer_early(engine, asker, &extension)) return;
        if (extension.client_id == 0 && !r2p2_openings_take(&engine->openings, asker->ip, engine->now_ns)) {
            refuse(engine, asker, &engine->counters.drops_openings);
            return;
        }
    }
    switch (engine->role) {
    case R2P2_ROLE_LEADER: {
        uint64_t *refusal = leader_refusal(engine);
        if (!refusal && (engine->now_ns < engine->stamps.due_ns ? r2p2_log_append(&engine->log, &entry, payload)
                                                                 : r2p2_append_stamped(engine, entry, payload)))
            refusal = &engine->counters.drops_log_full;
        if (refusal) refuse(engine, asker, refusal);
        else engine->appended_count++;
        break;
    }
    case R2P2_ROLE_FOLLOWER:
    case R2P2_ROLE_HOLD:
        hold(engine, asker, &entry, payload);
        break;
    default:
        refuse(engine, asker, &engine->counters.drops_no_service);
    }
}

/* Answers DROP to the client of each of `count` checked entries. */
static void drop_entries(r2p2_engine *engine, const uint8_t *entries, uint64_t count, uint64_t *counter) {
    for (uint64_t i = 0; i < count; i++) {
        r2p2_entry entry;
        r2p2_entry_decode(entries, &entry);
        r2p2_tx_address to = {entry.client_ip, entry.client_port, 0};
        (*counter)++;
        r2p2_drop_send(engine, to, entry.rid);
        entries += r2p2_entry_bytes(entry.body_length);
    }
}

static void held_clear(r2p2_engine *engine) {
    engine->held.length = 0;
    engine->held_offset = 0;
    engine->held_count = 0;
}

void r2p2_held_expire(r2p2_engine *engine) {
    if (engine->held_count == 0 || engine->now_ns - engine->held_since_ns <= engine->config.hold_timeout_ns) return;
    drop_entries(engine, engine->held.data + engine->held_offset, engine->held_count, &engine->counters.drops_no_leader);
    held_clear(engine);
}

/* ---- roles and forwarding ---- */

/* What was held for a leader is now ours to append: as much as would be taken if it came now. A log that is much longer
 * than its bound does not fit the followers'. */
static void take_held(r2p2_engine *engine) {
    const r2p2_log *log = &engine->log;
    const r2p2_engine_config *config = &engine->config;
    const uint8_t *entries = engine->held.data + engine->held_offset;
    uint64_t in_memory = log->tail - log->head, on_disk = stored_bytes(engine);
    uint64_t used = in_memory > on_disk ? in_memory : on_disk, there = log->last_index + 1 - log->first_index;
    uint64_t backlog = log->last_index - engine->applied_index, length = 0, count = 0;
    while (count < engine->held_count && used + length < config->log_bytes_max &&
           there + count < config->log_entries_max && backlog + count < config->backlog_entries_max) {
        r2p2_entry entry;
        r2p2_entry_decode(entries + length, &entry);
        length += r2p2_entry_bytes(entry.body_length);
        count++;
    }
    if (count > 0 && r2p2_append_wire_at_time(engine, entries, length, count)) length = count = 0;
    engine->appended_count += count;
    if (count < engine->held_count) {
        uint64_t *refusal = leader_refusal(engine);
        if (!refusal) refusal = &engine->counters.drops_log_full;
        drop_entries(engine, entries + length, engine->held_count - count, refusal);
    }
    held_clear(engine);
}

void r2p2_set_role(r2p2_engine *engine, int32_t role) {
    engine->role = role;
    if (role == R2P2_ROLE_LEADER && engine->held_count > 0) take_held(engine);
    if (role == R2P2_ROLE_NONE && engine->held_count > 0) {
        drop_entries(engine, engine->held.data + engine->held_offset, engine->held_count,
                     &engine->counters.drops_no_service);
        held_clear(engine);
    }
}

int64_t r2p2_forward_held(r2p2_engine *engine, const uint8_t *header, uint32_t header_bytes, uint32_t ip, uint16_t port) {
    if (engine->held_count == 0) return 0;
    if (header_bytes + 8 > R2P2_RAFT_PREFIX_BYTES) return R2P2_ERROR_ARGUMENT;
    /* As many whole entries as one message takes; one always fits, since a request is smaller than a message. */
    const uint8_t *entries = engine->held.data + engine->held_offset;
    uint64_t length = 0, count = 0, room = R2P2_MESSAGE_BYTES_MAX - header_bytes - 8;
    while (count < engine->held_count) {
        r2p2_entry entry;
        r2p2_entry_decode(entries + length, &entry);
        uint64_t bytes = r2p2_entry_bytes(entry.body_length);
        if (length + bytes > room) break;
        length += bytes;
        count++;
    }
    uint64_t total = header_bytes + 8 + length;
    if (r2p2_buffer_reserve(&engine->scratch, total)) return R2P2_ERROR_NO_MEMORY;
    uint8_t *out = engine->scratch.data;
    memcpy(out, header, header_bytes);
    r2p2_store_u16(out + header_bytes, (uint16_t)(count >> 16));
    r2p2_store_u16(out + header_bytes + 2, (uint16_t)count);
    r2p2_store_u16(out + header_bytes + 4, (uint16_t)(length >> 16));
    r2p2_store_u16(out + header_bytes + 6, (uint16_t)length);
    memcpy(out + header_bytes + 8, entries, length);
    r2p2_tx_address to = {ip, port, 0};
    r2p2_tx_source source = {.head = out, .head_bytes = total};
    /* The rid tells one forward from the next while their packets are under way. */
    r2p2_tx_message(&engine->tx, R2P2_TYPE_RAFT_MSG, R2P2_POLICY_FIXED_ROUTE, (uint16_t)engine->counters.forwarded_requests,
                    to, &source);
    engine->counters.forwarded_requests += count;
    engine->held_offset += length;
    engine->held_count -= count;
    if (engine->held_count == 0) held_clear(engine);
    return (int64_t)count;
}

static const r2p2_raft_slot *raft_slot(const r2p2_engine *engine, uint32_t handle) {
    return handle < engine->raft_count ? &engine->raft[handle] : NULL;
}

/* The entries of a message: they follow header_bytes, whose last 8 bytes are count and bytes. */
static int entries_of(const r2p2_raft_slot *slot, uint32_t header_bytes, const uint8_t **entries, uint64_t *length,
                      uint64_t *count) {
    if (!slot || header_bytes < 8 || slot->length < header_bytes) return R2P2_ERROR_ARGUMENT;
    const uint8_t *p = slot->data + header_bytes - 8;
    *count = (uint64_t)r2p2_load_u16(p) << 16 | r2p2_load_u16(p + 2);
    *length = (uint64_t)r2p2_load_u16(p + 4) << 16 | r2p2_load_u16(p + 6);
    *entries = slot->data + header_bytes;
    return *length == slot->length - header_bytes ? R2P2_OK : R2P2_ERROR_MALFORMED;
}

int32_t r2p2_raft_check(r2p2_engine *engine, uint32_t handle, uint32_t header_bytes) {
    const uint8_t *entries;
    uint64_t length, count;
    int status = entries_of(raft_slot(engine, handle), header_bytes, &entries, &length, &count);
    if (status) return status;
    int good = r2p2_entries_check(entries, length, count);
    if (!good) return R2P2_ERROR_MALFORMED;
    engine->raft[handle].checked_bytes = header_bytes;
    return good == R2P2_ENTRIES_TIMED;
}

/* entries_of a message that has passed r2p2_raft_check. */
static int checked_entries_of(const r2p2_raft_slot *slot, uint32_t header_bytes, const uint8_t **entries,
                              uint64_t *length, uint64_t *count) {
    if (!slot || slot->checked_bytes != header_bytes) return R2P2_ERROR_STATE;
    return entries_of(slot, header_bytes, entries, length, count);
}

int64_t r2p2_drop_forwarded(r2p2_engine *engine, uint32_t handle, uint32_t header_bytes) {
    const uint8_t *entries;
    uint64_t length, count;
    int status = checked_entries_of(raft_slot(engine, handle), header_bytes, &entries, &length, &count);
    if (status) return status;
    drop_entries(engine, entries, count, &engine->counters.drops_forwarded);
    return (int64_t)count;
}

/* ---- the log ---- */

uint64_t r2p2_log_first_index(r2p2_engine *engine) { return engine->log.first_index; }
uint64_t r2p2_log_last_index(r2p2_engine *engine) { return engine->log.last_index; }
uint64_t r2p2_log_bytes(r2p2_engine *engine) { return engine->log.tail - engine->log.head; }

int32_t r2p2_log_append_noop(r2p2_engine *engine) {
    r2p2_entry entry = {.kind = R2P2_ENTRY_NOOP};
    int status = r2p2_log_append(&engine->log, &entry, NULL);
    if (!status) engine->counters.log_appended++;
    return status;
}

int32_t r2p2_log_append_time(r2p2_engine *engine) {
    if (log_is_full(engine)) return R2P2_ERROR_FULL;
    if (engine->stamps.due_ns == UINT64_MAX || r2p2_stamp_ms(engine) <= engine->log.time_ms) return R2P2_ERROR_STATE;
    engine->stamps.due_ns = 0;
    int status = r2p2_append_stamped(engine, (r2p2_entry){.kind = R2P2_ENTRY_NOOP}, NULL);
    if (!status) engine->counters.log_appended++;
    return status;
}

int64_t r2p2_log_append_message(r2p2_engine *engine, uint32_t handle, uint32_t header_bytes, uint32_t skip,
                                uint32_t count) {
    const uint8_t *entries;
    uint64_t length, all;
    int status = checked_entries_of(raft_slot(engine, handle), header_bytes, &entries, &length, &all);
    if (status) return status;
    if (skip > all || count > all - skip) return R2P2_ERROR_RANGE;
    uint64_t from = skip ? r2p2_entries_skip(entries, skip) : 0;
    uint64_t bytes = skip + count == all ? length - from : r2p2_entries_skip(entries + from, count);
    status = r2p2_log_append_wire(&engine->log, entries + from, bytes, count);
    if (status) return status;
    r2p2_time_look(engine, 0);
    engine->counters.log_appended += count;
    return count;
}

int64_t r2p2_log_append_forwarded(r2p2_engine *engine, uint32_t handle, uint32_t header_bytes) {
    const uint8_t *entries;
    uint64_t length, count;
    int status = checked_entries_of(raft_slot(engine, handle), header_bytes, &entries, &length, &count);
    if (!status) status = r2p2_append_wire_at_time(engine, entries, length, count);
    if (status) return status;
    engine->counters.log_appended += count;
    return (int64_t)count;
}

int32_t r2p2_log_truncate_suffix(r2p2_engine *engine, uint64_t from_index) {
    if (from_index <= engine->applied_index || from_index < engine->log.first_index) return R2P2_ERROR_RANGE;
    if (from_index <= engine->log.last_index) r2p2_log_truncate(&engine->log, from_index);
    return R2P2_OK;
}

int32_t r2p2_log_drop_prefix(r2p2_engine *engine, uint64_t through_index) {
    if (through_index > engine->applied_index) return R2P2_ERROR_RANGE;
    if (through_index >= engine->log.first_index) r2p2_log_drop(&engine->log, through_index);
    return R2P2_OK;
}

static int in_log(const r2p2_engine *engine, uint64_t first, uint64_t last) {
    return first >= engine->log.first_index && last <= engine->log.last_index && first <= last;
}

uint64_t r2p2_log_fit(r2p2_engine *engine, uint64_t first_index, uint64_t last_index, uint64_t bytes_max) {
    if (!in_log(engine, first_index, last_index)) return first_index;
    uint64_t start = r2p2_log_position(&engine->log, first_index), low = first_index, high = last_index;
    if (r2p2_log_position(&engine->log, high + 1) - start <= bytes_max) return high;
    while (low < high) { /* the largest index whose end lies within bytes_max, or first_index */
        uint64_t middle = low + (high - low + 1) / 2;
        if (r2p2_log_position(&engine->log, middle + 1) - start <= bytes_max) low = middle;
        else high = middle - 1;
    }
    return low;
}

uint64_t r2p2_log_range_bytes(r2p2_engine *engine, uint64_t first_index, uint64_t last_index) {
    if (!in_log(engine, first_index, last_index)) return 0;
    return r2p2_log_position(&engine->log, last_index + 1) - r2p2_log_position(&engine->log, first_index);
}

/* ---- Raft messages ---- */

_Static_assert(sizeof(r2p2_raft_message) == 320, "five cache lines a descriptor");
_Static_assert(sizeof(((r2p2_raft_message *)0)->prefix) == R2P2_RAFT_PREFIX_BYTES, "the prefix is what limits say");

uint32_t r2p2_raft_next(r2p2_engine *engine, r2p2_raft_message *messages, uint32_t max) {
    uint32_t n = 0;
    while (n < max && engine->raft_taken < engine->raft_count) {
        const r2p2_raft_slot *slot = &engine->raft[engine->raft_taken];
        r2p2_raft_message *message = &messages[n++];
        memset(message, 0, offsetof(r2p2_raft_message, prefix));
        message->handle = engine->raft_taken++;
        message->length = slot->length;
        message->source_ip = slot->source_ip;
        message->source_port = slot->source_port;
        message->rid = slot->rid;
        message->type = slot->type;
        message->prefix_bytes =
            (uint16_t)(slot->length < R2P2_RAFT_PREFIX_BYTES ? slot->length : R2P2_RAFT_PREFIX_BYTES);
        memcpy(message->prefix, slot->data, message->prefix_bytes);
    }
    return n;
}

int32_t r2p2_raft_send(r2p2_engine *engine, uint8_t type, uint16_t rid, const uint8_t *header, uint32_t header_bytes,
                       uint64_t first_index, uint64_t last_index, const r2p2_target *targets, uint32_t targets_count) {
    if (type < R2P2_TYPE_RAFT_REQ || type > R2P2_TYPE_RAFT_MSG || header_bytes == 0) return R2P2_ERROR_ARGUMENT;
    if (targets_count > R2P2_TARGETS_MAX) return R2P2_ERROR_ARGUMENT;
    r2p2_tx_source source = {.head = header, .head_bytes = header_bytes, .log = &engine->log};
    if (first_index <= last_index) {
        if (!in_log(engine, first_index, last_index)) return R2P2_ERROR_RANGE;
        source.log_position = r2p2_log_position(&engine->log, first_index);
        source.log_bytes = r2p2_log_position(&engine->log, last_index + 1) - source.log_position;
    }
    uint64_t bytes = source.head_bytes + source.log_bytes;
    if (r2p2_tx_packets_count(bytes, 0) == 0) return R2P2_ERROR_TOO_LARGE;
    if (bytes <= R2P2_PAYLOAD_BYTES_MAX && targets_count > 1) {
        /* One packet, the same for all: the port may send it in one go. */
        uint8_t packet[R2P2_DATAGRAM_BYTES_MAX];
        r2p2_port_target ports[R2P2_TARGETS_MAX];
        r2p2_header_write(packet, type, R2P2_POLICY_FIXED_ROUTE, 1, 1, rid, 1);
        memcpy(packet + R2P2_HEADER_BYTES, header, header_bytes);
        if (source.log_bytes)
            r2p2_log_read(&engine->log, source.log_position, packet + R2P2_HEADER_BYTES + header_bytes, source.log_bytes);
        for (uint32_t i = 0; i < targets_count; i++) {
            ports[i] = (r2p2_port_target){targets[i].ip, targets[i].port, 0};
            if (engine->capture.records)
                r2p2_capture_add(&engine->capture, engine->now_ns, engine->port->local_ip, engine->port->local_port,
                                 targets[i].ip, targets[i].port, packet, (uint32_t)(R2P2_HEADER_BYTES + bytes));
        }
        engine->port->tx_broadcast(engine->port->self, packet, (uint32_t)(R2P2_HEADER_BYTES + bytes), 0, ports,
                                   targets_count);
        engine->counters.tx_messages += targets_count;
        return R2P2_OK;
    }
    for (uint32_t i = 0; i < targets_count; i++) {
        r2p2_tx_address to = {targets[i].ip, targets[i].port, 0};
        r2p2_tx_message(&engine->tx, type, R2P2_POLICY_FIXED_ROUTE, rid, to, &source);
    }
    return R2P2_OK;
}
