/*
 * The steady step: what raft/following.py and raft/leading.py would decide of a message that is the usual one, and of what came in.
 *
 * Every condition that is not met leaves the message to Python, which decides by the same rules and also knows the unusual.
 */
#include "r2p2_engine.h"

#define APPEND_BYTES 80
#define APPEND_REPLY_BYTES 72
#define INDEX_LIMIT ((uint64_t)1 << 63)
#define ACCEPTED ((uint64_t)1 << 56) /* a u8 flag of 1 with seven reserved zero bytes behind it */

static inline uint64_t word(const uint8_t *message, uint32_t number) {
    return r2p2_load_u64(message + R2P2_STEADY_HEAD_BYTES + 8 * number);
}

static inline uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }
static inline uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* ---- following ---- */

static void answer_append(r2p2_engine *engine, uint16_t rid, uint64_t round) {
    r2p2_steady *steady = &engine->steady;
    uint8_t reply[APPEND_REPLY_BYTES];
    const uint64_t fields[6] = {round, engine->log.last_index, 0, 0, engine->applied_index, ACCEPTED};
    memcpy(reply, steady->own_head, R2P2_STEADY_HEAD_BYTES);
    for (uint32_t i = 0; i < 6; i++) r2p2_store_u64(reply + R2P2_STEADY_HEAD_BYTES + 8 * i, fields[i]);
    r2p2_tx_address to = {steady->peers[0].ip, steady->peers[0].port, 0};
    r2p2_tx_single(&engine->tx, R2P2_TYPE_RAFT_REP, R2P2_POLICY_FIXED_ROUTE, rid, to, reply, sizeof reply);
}

/* Entries of the leader's own term behind the last one, which has that term, too. */
static int take_append(r2p2_engine *engine, uint16_t rid, const uint8_t *message, uint32_t bytes) {
    r2p2_steady *steady = &engine->steady;
    r2p2_log *log = &engine->log;
    if (bytes <= APPEND_BYTES || memcmp(message, steady->heads[0], R2P2_STEADY_HEAD_BYTES)) return 0;
    uint64_t prev_index = word(message, 0), prev_term = word(message, 1), entries_term = word(message, 2);
    uint64_t commit = word(message, 3), global_commit = word(message, 4), round = word(message, 5), counts = word(message, 6);
    uint64_t count = counts >> 32, length = counts & UINT32_MAX;
    if (prev_index != log->last_index || prev_term != steady->term || entries_term != steady->term) return 0;
    if (global_commit > commit || commit >= INDEX_LIMIT || round == 0 || round >= INDEX_LIMIT) return 0;
    if (count == 0 || length != bytes - APPEND_BYTES) return 0;
    const uint8_t *entries = message + APPEND_BYTES;
    if (!r2p2_entries_check(entries, length, count)) return 0;
    if (count == 1) {
        r2p2_entry entry;
        r2p2_entry_decode(entries, &entry);
        if (entry.kind == R2P2_ENTRY_CONFIGURATION) return 0;
    }
    uint64_t bound = engine->config.log_bytes_max;
    if (log->tail - log->head + length > bound + bound / 4 || r2p2_log_append_wire(log, entries, length, count)) return 0;
    r2p2_time_look(engine, 0);
    engine->counters.log_appended += count;
    r2p2_steady_state *state = &steady->state;
    state->commit_index = larger(state->commit_index, smaller(commit, log->last_index));
    state->global_commit = larger(state->global_commit, smaller(global_commit, engine->applied_index));
    answer_append(engine, rid, round);
    steady->done |= R2P2_STEADY_FOLLOWED;
    return 1;
}

/* ---- leading ---- */

/* The largest index that so many peers hold as make a majority together with this member, which holds everything. */
static uint64_t majority_index(const r2p2_steady *steady) {
    uint32_t needed = (steady->peers_count + 1) / 2;
    uint64_t reached = 0;
    for (uint32_t i = 0; i < steady->peers_count; i++) {
        uint32_t holders = 0;
        for (uint32_t j = 0; j < steady->peers_count; j++) holders += steady->matches[j] >= steady->matches[i];
        if (holders >= needed) reached = larger(reached, steady->matches[i]);
    }
    return reached;
}

static int take_answer(r2p2_engine *engine, const uint8_t *message, uint32_t bytes) {
    r2p2_steady *steady = &engine->steady;
    r2p2_steady_state *state = &steady->state;
    if (bytes != APPEND_REPLY_BYTES) return 0;
    uint32_t peer = 0;
    while (peer < steady->peers_count && memcmp(message, steady->heads[peer], R2P2_STEADY_HEAD_BYTES)) peer++;
    if (peer == steady->peers_count) return 0;
    uint64_t round = word(message, 0), match = word(message, 1), applied = word(message, 4);
    if (word(message, 2) || word(message, 3) || word(message, 5) != ACCEPTED) return 0;
    if (round == 0 || round > state->round || match > steady->last_index || applied > steady->last_index) return 0;
    r2p2_steady_answer *answer = &state->answers[peer];
    if (!(state->answered_mask >> peer & 1)) *answer = (r2p2_steady_answer){0, 0, 0};
    answer->round = larger(answer->round, round);
    answer->match_index = larger(answer->match_index, match);
    answer->applied_index = larger(answer->applied_index, applied);
    state->answered_mask |= (uint64_t)1 << peer;
    steady->applied[peer] = larger(steady->applied[peer], applied);
    steady->matches[peer] = larger(steady->matches[peer], larger(match, applied));
    state->commit_index = larger(state->commit_index, majority_index(steady));
    steady->done |= R2P2_STEADY_ANSWERED;
    return 1;
}

void r2p2_steady_send(r2p2_engine *engine) {
    r2p2_steady *steady = &engine->steady;
    r2p2_steady_state *state = &steady->state;
    r2p2_log *log = &engine->log;
    uint64_t first = steady->last_index + 1, last = log->last_index, count = engine->appended_count;
    /* Reads that came along need a round of their own, which the next Append gives them: Python's. */
    if (engine->raft_count || engine->reads.gathered.count || state->appends_room == 0 || first + count - 1 != last) return;
    uint64_t bytes = log->tail - r2p2_log_position(log, first);
    if (bytes > steady->append_bytes_max || count > UINT32_MAX) return;
    uint64_t everywhere = smaller(engine->applied_index, steady->last_index);
    for (uint32_t i = 0; i < steady->peers_count; i++) everywhere = smaller(everywhere, steady->applied[i]);
    state->global_commit = larger(state->global_commit, everywhere);
    uint8_t header[APPEND_BYTES];
    const uint64_t fields[7] = {steady->last_index,   steady->term,     steady->term,       state->commit_index,
                                state->global_commit, state->round + 1, count << 32 | bytes};
    memcpy(header, steady->own_head, R2P2_STEADY_HEAD_BYTES);
    for (uint32_t i = 0; i < 7; i++) r2p2_store_u64(header + R2P2_STEADY_HEAD_BYTES + 8 * i, fields[i]);
    uint16_t rid = (uint16_t)(steady->rid + 1);
    if (r2p2_raft_send(engine, R2P2_TYPE_RAFT_REQ, rid, header, sizeof header, first, last, steady->peers, steady->peers_count))
        return;
    steady->rid = rid;
    steady->last_index = last;
    state->round++;
    state->appends_room--;
    state->sent_bytes = bytes;
    steady->done |= R2P2_STEADY_SENT;
}

/* ---- both ---- */

int r2p2_steady_take(r2p2_engine *engine, uint8_t type, uint16_t rid, const uint8_t *payload, uint32_t bytes) {
    if (engine->steady.role == R2P2_STEADY_FOLLOWS)
        return type == R2P2_TYPE_RAFT_REQ && take_append(engine, rid, payload, bytes);
    return type == R2P2_TYPE_RAFT_REP && take_answer(engine, payload, bytes);
}

void r2p2_steady_off(r2p2_engine *engine) { engine->steady.role = R2P2_STEADY_OFF; }

int32_t r2p2_steady_follow(r2p2_engine *engine, const uint8_t *leader_head, const uint8_t *own_head,
                           const r2p2_target *leader, uint64_t commit_index, uint64_t global_commit) {
    r2p2_steady *steady = &engine->steady;
    memcpy(steady->heads[0], leader_head, R2P2_STEADY_HEAD_BYTES);
    memcpy(steady->own_head, own_head, R2P2_STEADY_HEAD_BYTES);
    steady->term = r2p2_load_u64(own_head + R2P2_STEADY_HEAD_BYTES - 8);
    steady->peers[0] = *leader;
    steady->peers_count = 1;
    steady->state.commit_index = commit_index;
    steady->state.global_commit = global_commit;
    steady->role = R2P2_STEADY_FOLLOWS;
    return R2P2_OK;
}

int32_t r2p2_steady_lead(r2p2_engine *engine, const uint8_t *own_head, const uint8_t *peer_heads,
                         const r2p2_target *peers, const uint64_t *matches, uint32_t peers_count, uint64_t commit_index,
                         uint64_t global_commit, uint64_t round, uint16_t rid, uint64_t appends_room,
                         uint64_t append_bytes_max) {
    r2p2_steady *steady = &engine->steady;
    if (peers_count == 0 || peers_count > R2P2_TARGETS_MAX) return R2P2_ERROR_ARGUMENT;
    memcpy(steady->own_head, own_head, R2P2_STEADY_HEAD_BYTES);
    memcpy(steady->heads, peer_heads, (size_t)peers_count * R2P2_STEADY_HEAD_BYTES);
    memcpy(steady->peers, peers, peers_count * sizeof *peers);
    for (uint32_t i = 0; i < peers_count; i++) {
        steady->matches[i] = matches[2 * i];
        steady->applied[i] = matches[2 * i + 1];
    }
    steady->term = r2p2_load_u64(own_head + R2P2_STEADY_HEAD_BYTES - 8);
    steady->peers_count = peers_count;
    steady->last_index = engine->log.last_index;
    steady->append_bytes_max = append_bytes_max;
    steady->rid = rid;
    steady->state.commit_index = commit_index;
    steady->state.global_commit = global_commit;
    steady->state.round = round;
    steady->state.appends_room = appends_room;
    steady->role = R2P2_STEADY_LEADS;
    return R2P2_OK;
}

void r2p2_steady_room(r2p2_engine *engine, uint64_t appends_room) { engine->steady.state.appends_room = appends_room; }

const r2p2_steady_state *r2p2_steady_read(r2p2_engine *engine) { return &engine->steady.state; }
