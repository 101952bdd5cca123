/*
 * Hostile input for the whole engine: codec, reassembly, pair tables, sessions on both sides, log, Raft lane, capture.
 *
 * What: bytes of an input are read as a script of steps: datagrams (raw, or built so that they pass the first checks), polls,
 * role changes, and every call that Python makes, with arguments a correct caller could give. The engine runs over a port
 * whose datagrams lie in allocations of exactly their length, so that reading one byte too far is seen. Some of what the
 * engine sends comes back to it.
 * Checked: sanitizers find nothing; every datagram ends in a counter or in a half message; whole messages are made of their own
 * packets in order; what is sent parses; the tables keep their bounds and their books, and are empty once all has expired; all
 * buffers and all memory come back.
 *
 * `fuzz_engine SEED SECONDS` makes random scripts (with gcc) for so many seconds of its own processor time, so that an hour is an
 * hour on a busy machine too; `fuzz_engine SEED 0 NUMBER` plays script NUMBER again, the one
 * that a failure names. With clang -fsanitize=fuzzer -DFUZZ_LIBFUZZER, libFuzzer makes them.
 */
#include "fuzz_buffers.h"
#include "r2p2_engine.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define QUEUE_MAX 1024u
#define SERVER_PORT 9000
#define CLIENT_PORT 9001
#define LOCAL_IP 1u
#define CALLS_MAX 32u
#define PROGRESS_S 60u

static uint64_t script_number;
static uint64_t script_seed;
static int left_watched; /* each script twice, and what leaves is compared */

static void fail(const char *what, uint64_t got, uint64_t wanted) {
    fprintf(stderr, "%s: %" PRIu64 ", expected %" PRIu64 "; replay with: %" PRIu64 " 0 %" PRIu64 "%s\n", what, got, wanted,
            script_seed, script_number, left_watched ? " twice" : "");
    abort();
}

static void expect(const char *what, uint64_t got, uint64_t wanted) {
    if (got != wanted) fail(what, got, wanted);
}

static void expect_at_most(const char *what, uint64_t got, uint64_t most) {
    if (got > most) fail(what, got, most);
}

/* ---- the script: a cursor over the input; zeros beyond its end ---- */

typedef struct script {
    const uint8_t *data;
    size_t left;
} script;

static uint32_t take(script *input, uint32_t bytes) {
    uint32_t value = 0;
    for (; bytes > 0 && input->left > 0; bytes--, input->left--) value = value << 8 | *input->data++;
    return value;
}

static uint32_t below(script *input, uint32_t bound) { return take(input, bound > 256 ? 4 : 1) % bound; }

/* ---- payloads that tell where they belong ----
 * The first packet of a message of n packets is filled with n, packet i with i. A whole message is then a run of n and runs of
 * 1, 2..n-1, whatever the lengths of the packets were. */

/* As an engine cuts a message: `first` bytes in packet 0. */
static void pattern(uint8_t *out, uint32_t length, uint32_t first) {
    if (length <= R2P2_PAYLOAD_BYTES_MAX) {
        memset(out, 1, length);
        return;
    }
    uint32_t count = 1 + (length - first + R2P2_PAYLOAD_BYTES_MAX - 1) / R2P2_PAYLOAD_BYTES_MAX;
    memset(out, (int)count, first);
    for (uint32_t index = 1, from = first; from < length; index++, from += R2P2_PAYLOAD_BYTES_MAX)
        memset(out + from, (int)index, length - from < R2P2_PAYLOAD_BYTES_MAX ? length - from : R2P2_PAYLOAD_BYTES_MAX);
}

static void expect_pattern(const char *what, const uint8_t *data, uint64_t length) {
    if (length == 0) return;
    uint32_t count = data[0], run = 0;
    for (uint64_t i = 0; i < length; i++) {
        if (data[i] == (run ? run : count)) continue;
        expect(what, data[i], ++run);
    }
    expect(what, run + 1, count);
}

/* What has left in this script: every byte of every datagram, and of every answer handed up. */
static uint64_t left_digest;

static void left(const uint8_t *data, uint64_t length) {
    if (!left_watched) return;
    left_digest = (left_digest ^ length) * UINT64_C(0x100000001B3);
    for (uint64_t i = 0; i < length; i++) left_digest = (left_digest ^ data[i]) * UINT64_C(0x100000001B3); /* FNV-1a */
}

/* ---- the port ---- */

typedef struct datagram {
    uint8_t *data;
    uint32_t length;
    uint32_t source_ip;
    uint16_t source_port;
    uint16_t local_port;
} datagram;

typedef struct fuzz_port {
    fuzz_buffers buffers;
    r2p2_port_counters counters;
    uint64_t now_ns;
    datagram queue[QUEUE_MAX]; /* received in this order */
    uint32_t queue_count;
    uint32_t loop_every;     /* of every so many sent datagrams one comes back; 0: none */
    uint32_t loop_copies;    /* so many times */
    uint32_t sent; /* datagrams */
} fuzz_port;

static void enqueue(fuzz_port *self, const uint8_t *data, uint32_t length, uint32_t ip, uint16_t port, uint16_t local_port) {
    if (self->queue_count == QUEUE_MAX) return;
    datagram *added = &self->queue[self->queue_count++];
    *added = (datagram){malloc(length), length, ip, port, local_port}; /* malloc(0) too has no readable byte */
    if (length) memcpy(added->data, data, length);
}

static uint32_t rx_burst(void *port, r2p2_rx_packet *packets, uint32_t max) {
    fuzz_port *self = port;
    uint32_t count = self->queue_count < max ? self->queue_count : max;
    for (uint32_t i = 0; i < count; i++) {
        const datagram *one = &self->queue[i];
        packets[i] = (r2p2_rx_packet){one->data, one->length, one->source_ip, one->source_port, one->local_port, one->data};
    }
    memmove(self->queue, self->queue + count, (self->queue_count - count) * sizeof self->queue[0]);
    self->queue_count -= count;
    self->buffers.out_rx += count;
    return count;
}

/* What leaves must parse, and comes back now and then as if a peer had answered. */
static void sent(fuzz_port *self, const uint8_t *data, uint32_t length, uint16_t local_port, uint16_t target_port) {
    r2p2_header header;
    expect_at_most("sent length", length, R2P2_DATAGRAM_BYTES_MAX);
    expect("sent datagram parses", r2p2_header_parse(data, length, &header), R2P2_HEADER_OK);
    self->sent++;
    left(data, length);
    if (!self->loop_every || self->sent % self->loop_every) return;
    for (uint32_t i = 0; i < self->loop_copies; i++)
        enqueue(self, data, length, LOCAL_IP, local_port ? local_port : SERVER_PORT, target_port);
}

static void tx_commit(void *port, r2p2_tx_packet *packets, uint32_t count) {
    fuzz_port *self = port;
    self->buffers.out_tx -= count;
    for (uint32_t i = 0; i < count; i++) {
        if (packets[i].length) sent(self, packets[i].data, packets[i].length, packets[i].local_port, packets[i].target_port);
        free(packets[i].owner);
    }
}

static void tx_broadcast(void *port, const uint8_t *data, uint32_t length, uint16_t local_port,
                         const r2p2_port_target *targets, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) sent(port, data, length, local_port, targets[i].port);
}

static uint64_t now_ns(void *port) { return ((fuzz_port *)port)->now_ns; }

/* ---- datagrams ---- */

/* Fills the payload as its header wants it; then the datagram is on its way. */
static void enqueue_filled(fuzz_port *self, uint8_t *data, uint32_t length, uint32_t ip, uint16_t port, uint16_t local_port) {
    r2p2_header header;
    if (r2p2_header_parse(data, length, &header) == R2P2_HEADER_OK)
        memset(data + header.header_size, header.p_order, length - header.header_size);
    enqueue(self, data, length, ip, port, local_port);
}

static uint32_t payload_length(script *input) {
    switch (below(input, 8)) {
    case 0: return 0;
    case 1: return R2P2_FIRST_PAYLOAD_BYTES;
    case 2: return R2P2_PAYLOAD_BYTES_MAX;
    case 3: return below(input, R2P2_PAYLOAD_BYTES_MAX + 1);
    case 4: return R2P2_PAYLOAD_BYTES_MAX - below(input, 9);
    default: return below(input, 40);
    }
}

static uint16_t a_port(script *input) { return below(input, 2) ? CLIENT_PORT : SERVER_PORT; }

static const r2p2_sessions *table_now; /* of the script's engine */
static int replies_changed;             /* a changed table was taken: the replies it keeps are sent as they are */

/* The id of a session there is, or one that may never have been. */
static uint64_t any_session(script *input) {
    if (table_now->count == 0 || below(input, 8) == 0) return below(input, 30);
    return table_now->sessions[(below(input, 2) ? table_now->newest : table_now->oldest)[R2P2_ALL_SESSIONS]].id;
}

/* Few sessions and few requests of each, so that they meet. */
static void session_numbers(uint8_t out[R2P2_SESSION_BYTES], script *input) {
    r2p2_session_extension extension = {any_session(input), 1 + below(input, 40), 1};
    if (below(input, 4) == 0) extension.oldest_pending += below(input, 40);
    if (below(input, 64) == 0) extension.sequence = below(input, R2P2_SESSION_WINDOW_MAX + 2);
    if (extension.client_id < 2 || below(input, 16) == 0) extension = (r2p2_session_extension){0, 0, 0};
    if (below(input, 8) == 0) extension.sequence ^= (uint64_t)take(input, 4) << below(input, 60);
    r2p2_session_write(out, &extension);
}

/* A datagram of few rids and sources, so that they meet in the tables; a quarter has one byte of its header changed. */
static void send_built(fuzz_port *port, script *input) {
    uint8_t data[R2P2_DATAGRAM_BYTES_MAX];
    uint32_t type = below(input, 8), count = below(input, 4) ? 1 + below(input, 5) : 1 + below(input, R2P2_PACKETS_MAX);
    uint32_t index = below(input, count), bytes = payload_length(input);
    r2p2_header_write(data, (uint8_t)type, (uint8_t)below(input, 4), index == 0, index + 1 == count, (uint16_t)below(input, 6),
                      (uint16_t)(index ? index : count));
    static const uint8_t edges[] = {0, 1, 7, 8, 9, 0x40, 0x80, 0xC0, 0xFE, 0xFF};
    if (below(input, 4) == 0)
        data[below(input, R2P2_HEADER_BYTES)] = below(input, 2) ? edges[below(input, sizeof edges)] : (uint8_t)take(input, 1);
    memset(data + R2P2_HEADER_BYTES, 0, bytes);
    if (index == 0 && bytes + R2P2_SESSION_BYTES <= R2P2_PAYLOAD_BYTES_MAX && below(input, 2)) {
        data[1] = R2P2_SESSION_HEADER_BYTES;
        session_numbers(data + R2P2_HEADER_BYTES, input);
        bytes += R2P2_SESSION_BYTES;
    }
    enqueue_filled(port, data, R2P2_HEADER_BYTES + bytes, 1 + below(input, 2), (uint16_t)below(input, 3), a_port(input));
}

/* A whole message of `length` bytes in full packets, in order or reversed. */
static void send_message(fuzz_port *port, script *input, uint8_t type, uint8_t policy, const uint8_t *bytes, uint32_t length) {
    uint32_t count = (length + R2P2_PAYLOAD_BYTES_MAX - 1) / R2P2_PAYLOAD_BYTES_MAX, reversed = below(input, 2);
    uint16_t rid = (uint16_t)below(input, 6);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t data[R2P2_DATAGRAM_BYTES_MAX];
        uint32_t index = reversed ? count - 1 - i : i, from = index * R2P2_PAYLOAD_BYTES_MAX;
        uint32_t part = length - from < R2P2_PAYLOAD_BYTES_MAX ? length - from : R2P2_PAYLOAD_BYTES_MAX;
        r2p2_header_write(data, type, policy, index == 0, index + 1 == count, rid, (uint16_t)(index ? index : count));
        memcpy(data + R2P2_HEADER_BYTES, bytes + from, part);
        enqueue(port, data, R2P2_HEADER_BYTES + part, 2, SERVER_PORT, SERVER_PORT);
    }
}

#define RAFT_HEADER_BYTES 32u /* the harness's own: counts at its end, as in FORWARD */

static void store_u32(uint8_t *out, uint32_t value) {
    r2p2_store_u16(out, (uint16_t)(value >> 16));
    r2p2_store_u16(out + 2, (uint16_t)value);
}

/* Entries behind the first `length` bytes; their number. */
static uint32_t build_entries(script *input, uint8_t bytes[R2P2_MESSAGE_BYTES_MAX], uint32_t *length) {
    uint32_t count = below(input, 30);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t body = below(input, 10) ? below(input, 60) : below(input, 20000);
        r2p2_entry entry = {.body_length = body,
                            .client_ip = 7,
                            .client_port = 8,
                            .rid = (uint16_t)i,
                            .kind = R2P2_ENTRY_REQUEST,
                            .policy = R2P2_POLICY_REPLICATED};
        uint32_t all = (uint32_t)r2p2_entry_bytes(body);
        uint8_t *out = bytes + *length;
        if (*length + all > R2P2_MESSAGE_BYTES_MAX) return i;
        if (body == 0) entry = (r2p2_entry){.kind = R2P2_ENTRY_NOOP};
        uint32_t time_bytes = body >= R2P2_TIME_BYTES && below(input, 3) == 0 ? R2P2_TIME_BYTES : 0;
        if (time_bytes) entry.flags = R2P2_ENTRY_TIMED;
        int has_session = body >= R2P2_SESSION_BYTES + time_bytes && below(input, 2);
        if (has_session) entry.kind = R2P2_ENTRY_SESSION;
        r2p2_entry_encode(out, &entry);
        memset(out + R2P2_ENTRY_HEADER_BYTES, 3, body);
        if (time_bytes) r2p2_store_u64(out + R2P2_ENTRY_HEADER_BYTES, 1 + below(input, 1000));
        if (has_session) session_numbers(out + R2P2_ENTRY_HEADER_BYTES + time_bytes, input);
        memset(out + R2P2_ENTRY_HEADER_BYTES + body, 0, all - R2P2_ENTRY_HEADER_BYTES - body);
        *length += all;
    }
    return count;
}

/* A Raft message with entries, which are right but for an eighth that has one byte changed anywhere. */
static void send_entries(fuzz_port *port, script *input) {
    static uint8_t bytes[R2P2_MESSAGE_BYTES_MAX];
    uint32_t length = RAFT_HEADER_BYTES;
    memset(bytes, 1, RAFT_HEADER_BYTES);
    uint32_t count = build_entries(input, bytes, &length);
    store_u32(bytes + RAFT_HEADER_BYTES - 8, count);
    store_u32(bytes + RAFT_HEADER_BYTES - 4, length - RAFT_HEADER_BYTES);
    if (below(input, 8) == 0) bytes[take(input, 4) % length] = (uint8_t)take(input, 1);
    if (below(input, 16) == 0) length = 1 + take(input, 4) % length;
    send_message(port, input, (uint8_t)(R2P2_TYPE_RAFT_REQ + below(input, 3)), 1, bytes, length);
}

/* ---- the steady step ---- */

#define STEADY_PEERS 3u
#define STEADY_HEAD 9 /* every byte of the heads, hence of the term, too; a peer's head ends in its number */

static void steady_head(uint8_t *head, uint32_t peer) {
    memset(head, STEADY_HEAD, R2P2_STEADY_HEAD_BYTES);
    head[2] = (uint8_t)peer;
}

/* Takes the step from now on, as one or the other, or no longer. */
static void steady(r2p2_engine *engine, script *input) {
    uint8_t own[R2P2_STEADY_HEAD_BYTES], heads[STEADY_PEERS * R2P2_STEADY_HEAD_BYTES];
    r2p2_target peers[STEADY_PEERS];
    uint64_t matches[2 * STEADY_PEERS], last = engine->log.last_index;
    steady_head(own, 0);
    for (uint32_t i = 0; i < STEADY_PEERS; i++) {
        steady_head(heads + i * R2P2_STEADY_HEAD_BYTES, i + 1);
        peers[i] = (r2p2_target){i + 1, SERVER_PORT, 0};
        matches[2 * i] = last;
        matches[2 * i + 1] = engine->applied_index;
    }
    switch (below(input, 5)) {
    case 0: r2p2_steady_off(engine); break;
    case 1: case 2:
        r2p2_set_role(engine, R2P2_ROLE_FOLLOWER);
        expect("follow", (uint64_t)r2p2_steady_follow(engine, heads, own, peers, engine->applied_index, 0), R2P2_OK);
        break;
    default:
        r2p2_set_role(engine, R2P2_ROLE_LEADER);
        expect("lead", (uint64_t)r2p2_steady_lead(engine, own, heads, peers, matches, 1 + below(input, STEADY_PEERS),
                                                  engine->applied_index, 0, 1 + below(input, 9), 7, below(input, 4), 100000),
               R2P2_OK);
    }
}

/* An Append, or the answer to one, as the usual ones are; a quarter has a byte changed. */
static void send_steady(r2p2_engine *engine, fuzz_port *port, script *input) {
    static uint8_t bytes[R2P2_MESSAGE_BYTES_MAX];
    uint64_t term, last = engine->log.last_index, near = last + below(input, 3);
    int is_answer = (int)below(input, 2);
    uint32_t length = is_answer ? 72 : 80, count = 0;
    steady_head(bytes, 1 + below(input, STEADY_PEERS));
    memset(&term, STEADY_HEAD, sizeof term);
    if (!is_answer) count = build_entries(input, bytes, &length);
    const uint64_t append[7] = {near, term, term, last, below(input, 4), 1 + below(input, 20), (uint64_t)count << 32 | (length - 80)};
    const uint64_t answer[6] = {1 + below(input, 12), near, 0, 0, last - below(input, 4), (uint64_t)1 << 56};
    for (uint32_t i = 0; i < (is_answer ? 6u : 7u); i++)
        r2p2_store_u64(bytes + R2P2_STEADY_HEAD_BYTES + 8 * i, is_answer ? answer[i] : append[i]);
    if (below(input, 4) == 0) bytes[take(input, 4) % length] = (uint8_t)take(input, 1);
    if (below(input, 16) == 0) length = 1 + take(input, 4) % length;
    send_message(port, input, is_answer ? R2P2_TYPE_RAFT_REP : R2P2_TYPE_RAFT_REQ, 1, bytes, length);
}

/* What the last poll says it did agrees with the log. */
static void check_steady(r2p2_engine *engine, const r2p2_poll_result *result, uint64_t last_before) {
    const r2p2_steady_state *state = r2p2_steady_read(engine);
    if (result->steady_done & R2P2_STEADY_FOLLOWED) expect("entries came", engine->log.last_index > last_before, 1);
    if (engine->steady.role == R2P2_STEADY_FOLLOWS && result->steady_done)
        expect_at_most("commit of a follower", state->commit_index, engine->log.last_index);
    if (result->steady_done & R2P2_STEADY_SENT) {
        expect("all is sent", engine->steady.last_index, engine->log.last_index);
        expect_at_most("bytes of an Append", state->sent_bytes, 100000);
    }
    if (result->steady_done) expect_at_most("global commit", state->global_commit, engine->applied_index);
}

static void send_big_request(fuzz_port *port, script *input) {
    static uint8_t bytes[R2P2_REQUEST_BYTES_MAX];
    uint32_t length = 1 + take(input, 3) % (uint32_t)sizeof bytes;
    pattern(bytes, length, R2P2_PAYLOAD_BYTES_MAX);
    send_message(port, input, R2P2_TYPE_REQUEST, (uint8_t)below(input, 4), bytes, length);
}

static void send_raw(fuzz_port *port, script *input) {
    uint8_t data[64];
    uint32_t length = below(input, sizeof data + 1);
    for (uint32_t i = 0; i < length; i++) data[i] = (uint8_t)take(input, 1);
    if (length > 0 && below(input, 2)) data[0] = R2P2_MAGIC;
    enqueue_filled(port, data, length, take(input, 4), (uint16_t)below(input, SERVER_PORT), a_port(input));
}

/* ---- what Python does after a poll ---- */

#define LATER_MAX 16u
static uint8_t later[LATER_MAX][R2P2_ASKER_BYTES]; /* requests of this script to be answered later, the latest ones */
static uint32_t later_count;

static void reply_later(r2p2_engine *engine, script *input) {
    static uint8_t slab[R2P2_MESSAGE_BYTES_MAX + 1];
    if (later_count == 0) return;
    uint32_t length = payload_length(input) * (below(input, 8) == 0 ? 255 : 1);
    if (length > sizeof slab) length = sizeof slab;
    if (length > 0) pattern(slab, length, length < R2P2_PAYLOAD_BYTES_MAX ? length : R2P2_PAYLOAD_BYTES_MAX);
    int32_t status = r2p2_reply_later(engine, later[below(input, LATER_MAX) % later_count], slab, length,
                                      (int32_t)below(input, 2));
    if (length <= R2P2_MESSAGE_BYTES_MAX) expect("reply later", (uint64_t)(int64_t)status, R2P2_OK);
}

/* A reply for each request, of lengths of the script's choice. */
static void reply(r2p2_engine *engine, script *input, const r2p2_batch *batch, int applied, int send) {
    static uint8_t slab[2 * R2P2_MESSAGE_BYTES_MAX];
    uint32_t *lengths = malloc((batch->requests_count + 1) * sizeof *lengths);
    uint64_t total = 0, read = 0;
    for (uint64_t i = 0; i < batch->requests_count; i++) {
        if (!applied) expect_pattern("request", batch->slab + read, batch->lengths[i]);
        read += batch->lengths[i];
        lengths[i] = total < sizeof slab / 2 ? payload_length(input) * (below(input, 8) == 0 ? 40 : 1) : 0;
        if (!applied && below(input, 8) == 0) lengths[i] = below(input, 2) ? R2P2_REPLY_DROP : R2P2_REPLY_NONE;
        if (lengths[i] == R2P2_REPLY_NONE)
            memcpy(later[later_count < LATER_MAX ? later_count++ : below(input, LATER_MAX)],
                   batch->askers + i * R2P2_ASKER_BYTES, R2P2_ASKER_BYTES);
        if (lengths[i] >= R2P2_REPLY_NONE) continue;
        pattern(slab + total, lengths[i], R2P2_PAYLOAD_BYTES_MAX);
        total += lengths[i];
    }
    expect("slab of the batch", read, batch->slab_bytes);
    volatile uint8_t touched = 0;
    for (uint64_t i = 0; i < batch->slab_bytes; i += 64) touched = (uint8_t)(touched + batch->slab[i]);
    expect_at_most("replies of the harness", total, sizeof slab);
    int32_t status = applied ? r2p2_apply_reply(engine, slab, total, lengths, batch->requests_count, send)
                             : r2p2_requests_reply(engine, slab, total, lengths, batch->requests_count);
    expect("reply", (uint64_t)(int64_t)status, R2P2_OK);
    free(lengths);
}

static void handle_raft(r2p2_engine *engine, script *input) {
    r2p2_raft_message messages[4];
    uint32_t count;
    while ((count = r2p2_raft_next(engine, messages, 4)) > 0) {
        for (uint32_t i = 0; i < count; i++) {
            uint32_t handle = messages[i].handle;
            if (engine->has_cluster)
                expect("a message of the cluster",
                       r2p2_raft_head_check(engine->raft[handle].data, messages[i].length, engine->cluster_id), R2P2_RAFT_HEAD_OK);
            /* Those of send_entries and of the engine itself come from other ports and are not filled so. */
            if (messages[i].source_port < SERVER_PORT)
                expect_pattern("Raft message", engine->raft[handle].data, messages[i].length);
            if (r2p2_raft_check(engine, handle, RAFT_HEADER_BYTES) < 0) {
                /* Unchecked entries are never touched. */
                expect("append unchecked", r2p2_log_append_message(engine, handle, RAFT_HEADER_BYTES, 0, 0) < 0, 1);
                expect("drop unchecked", r2p2_drop_forwarded(engine, handle, RAFT_HEADER_BYTES) < 0, 1);
                continue;
            }
            uint64_t log_ms = engine->log.time_ms, due = below(input, 3);
            if (below(input, 4) == 0) (void)r2p2_drop_forwarded(engine, handle, RAFT_HEADER_BYTES);
            else if (due == 0) (void)r2p2_log_append_forwarded(engine, handle, RAFT_HEADER_BYTES);
            else (void)r2p2_log_append_message(engine, handle, RAFT_HEADER_BYTES, below(input, 4), below(input, 34));
            expect("the log's time never goes back", engine->log.time_ms >= log_ms, 1);
        }
    }
}

/* What the source of `half` is said to hold is what it holds. */
static void check_source(const r2p2_reassembly *table, const r2p2_half *half) {
    uint64_t count = 0, bytes = 0, granted = 0;
    for (const r2p2_half *other = table->active.oldest; other; other = other->links[R2P2_LINKS_TIME].newer) {
        if (other->source_ip != half->source_ip) continue;
        granted += other->granted_count;
        expect("one account a source", other->source == half->source, 1);
        count++;
        bytes += other->capacity;
    }
    expect("packets granted to a source", half->source->granted_count, granted);
    expect("halves of a source", half->source->count, count);
    expect("half bytes of a source", half->source->bytes, bytes);
    expect_at_most("half bytes of a source", bytes, table->source_bytes_max);
}

/* Who waits for a grant is in its source's queue once, and each such source in the ring; who has one is in the other queue. */
static void check_grants(const r2p2_reassembly *table) {
    uint64_t waiting = 0, queued = 0, given = 0, granted = 0;
    for (const r2p2_half *half = table->active.oldest; half; half = half->links[R2P2_LINKS_TIME].newer) {
        waiting += half->grant == R2P2_GRANT_WAITS;
        given += half->grant == R2P2_GRANT_GIVEN;
        granted += half->granted_count;
        if (half->grant != R2P2_GRANT_GIVEN) expect("packets without a grant", half->granted_count, 0);
    }
    const r2p2_source *source = table->turn;
    if (source) do {
        expect("who has a turn waits", source->waiting.first != NULL, 1);
        for (const r2p2_half *half = source->waiting.first; half; half = half->queue_next, queued++)
            expect("a queued half waits", half->grant == R2P2_GRANT_WAITS && half->source == source, 1);
        source = source->turn_next;
    } while (source != table->turn);
    expect("halves that wait for a grant", queued, waiting);
    expect("halves said to wait for a grant", table->waiting_count, waiting);
    for (const r2p2_half *half = table->granted.first; half; half = half->queue_next, given--)
        expect("a half among those with a grant has one", half->grant, R2P2_GRANT_GIVEN);
    expect("halves with a grant", given, 0);
    expect("packets granted", table->granted_count, granted);
}

/* r2p2_reassembly.h says which halves those are. */
static uint64_t gives_way(const r2p2_half *half) {
    return half->received_count == 1 || !(half->received[0] & 1) || !half->is_vouched;
}

/* The answers to the call that one of them is to; scripts ask fewer servers for one call than there may be. */
static void check_answers(const r2p2_reassembly *table, const r2p2_half *half) {
    uint64_t count = 0;
    for (uint32_t done = 0; done < 2; done++)
        for (const r2p2_half *other = done ? table->done.oldest : table->active.oldest; other;
             other = other->links[R2P2_LINKS_TIME].newer) {
            count += other->type == R2P2_TYPE_RESPONSE && other->rid == half->rid && other->local_port == half->local_port;
        }
    expect_at_most("answers to a call", count, R2P2_ANSWER_HALVES_MAX);
}

/* A table's bounds and books; returns the packets of its half messages. */
static uint64_t check_table(const r2p2_reassembly *table, uint64_t detached_bytes) {
    uint64_t count = 0, bytes = detached_bytes, packets = 0, to_go = 0;
    for (const r2p2_half *half = table->active.oldest; half; half = half->links[R2P2_LINKS_TIME].newer) {
        uint64_t here = 0;
        for (uint32_t i = 0; i < 4; i++) here += (uint64_t)__builtin_popcountll(half->received[i]);
        expect("packets of a half", half->received_count, here);
        expect("no half is whole", half->received_count == half->expected_count, 0);
        expect("no half is empty", half->received_count == 0, 0);
        expect("no half is a memory", half->is_done, 0);
        check_source(table, half);
        if (half->type == R2P2_TYPE_RESPONSE) check_answers(table, half);
        count++;
        bytes += half->capacity;
        packets += here;
        to_go += gives_way(half);
    }
    uint64_t time_ns = 0;
    for (const r2p2_half *half = table->first_to_go.oldest; half; half = half->links[R2P2_LINKS_TO_GO].newer, to_go--) {
        expect("a half among those that may give way may", gives_way(half), 1);
        expect("the oldest gives way first", half->created_ns >= time_ns, 1);
        time_ns = half->created_ns;
    }
    expect("halves that may give way and are not listed", to_go, 0);
    check_grants(table);
    for (const r2p2_half *memory = table->done.oldest; memory; memory = memory->links[R2P2_LINKS_TIME].newer, count++)
        expect("a memory has no bytes", memory->is_done && !memory->is_first_to_go && memory->bytes == NULL && memory->capacity == 0, 1);
    expect("halves and memories", table->count, count);
    expect("half bytes", table->bytes, bytes);
    expect_at_most("halves and memories", count, table->count_max);
    expect_at_most("half bytes", bytes, table->bytes_max);
    return packets;
}

/* The session table's bounds and books. */
static void check_sessions(const r2p2_sessions *table) {
    uint64_t count = 0, places = 0, block_bytes = 0, own;
    uint32_t next_wide[R2P2_SESSIONS_LISTS];
    memcpy(next_wide, table->oldest, sizeof next_wide);
    for (uint32_t i = table->oldest[R2P2_ALL_SESSIONS]; i != R2P2_NO_SESSION; i = table->sessions[i].links[0].newer) {
        const r2p2_session *session = &table->sessions[i];
        uint64_t span = session->end - session->first;
        expect("a session is in the list of its width", session->width,
               span > table->places_share ? 64 - (uint64_t)__builtin_clzll(span) : 0);
        if (session->width) {
            expect("the lists have one order", next_wide[session->width], i);
            next_wide[session->width] = session->links[1].newer;
        }
        expect("a session is found", r2p2_sessions_find(table, session->id), i);
        expect_at_most("places of a session", span, session->capacity);
        expect_at_most("a ring is no larger than four times its span", session->capacity, span * 4 < 8 ? 8 : span * 4);
        own = 0;
        for (uint32_t at = 0; at < session->capacity; at++) {
            const r2p2_kept *kept = &session->ring[at];
            int is_long = kept->state == R2P2_KEPT_REPLY && kept->length > R2P2_KEPT_INLINE_BYTES;
            if (is_long) own += kept->length;
            if (kept->state) expect_at_most("a place in use is in the span", (at - session->first) & (session->capacity - 1), span - 1);
        }
        expect("block bytes of a session", session->block_bytes, own);
        block_bytes += own;
        places += span;
        count++;
    }
    for (uint32_t list = 1; list < R2P2_SESSIONS_LISTS; list++)
        expect("a list of a width ends", next_wide[list], R2P2_NO_SESSION);
    expect("sessions", table->count, count);
    expect("places", table->places, places);
    expect("block bytes", table->block_bytes, block_bytes);
    expect_at_most("sessions", count, table->count_max);
    expect_at_most("places", places, table->places_max);
}

/* All tables; returns the packets of half messages. */
static uint64_t check_tables(const r2p2_engine *engine) {
    uint64_t detached_bytes = 0;
    for (uint32_t i = 0; i < engine->raft_count; i++) detached_bytes += engine->raft[i].detached.bytes;
    expect_at_most("held bytes", engine->held.length - engine->held_offset, engine->config.hold_bytes_max);
    expect_at_most("log bytes", engine->log.tail - engine->log.head, engine->log.bytes_max);
    expect_at_most("log entries", engine->log.last_index + 1 - engine->log.first_index, engine->log.entries_max);
    expect_at_most("applied", engine->applied_index, engine->log.last_index);
    expect_at_most("first", engine->log.first_index, engine->applied_index + 1);
    expect_at_most("calls", engine->clients[0]->waiting_count, CALLS_MAX);
    check_sessions(&engine->sessions);
    return check_table(&engine->client_halves, 0) + check_table(&engine->raft_halves, detached_bytes);
}

static void poll_and_handle(r2p2_engine *engine, script *input) {
    r2p2_poll_result result;
    r2p2_batch batch;
    const r2p2_completion *completions;
    const uint8_t *slab;
    uint64_t slab_bytes, ended = 0, last_before = engine->log.last_index;
    r2p2_engine_poll(engine, &result);
    check_steady(engine, &result, last_before);
    (void)check_tables(engine);
    expect_at_most("packets of a poll", result.packets_count, engine->config.packets_per_poll_max);
    r2p2_requests_batch(engine, &batch);
    expect("requests", batch.requests_count, result.requests_count);
    if (batch.requests_count && below(input, 8)) reply(engine, input, &batch, 0, 1);
    handle_raft(engine, input);
    uint64_t count = r2p2_client_completions(engine, &completions, &slab, &slab_bytes);
    for (uint64_t i = 0; i < count; i++) {
        expect_at_most("completion", completions[i].offset + completions[i].length, slab_bytes);
        if (!replies_changed) expect_pattern("response", slab + completions[i].offset, completions[i].length);
        left(slab + completions[i].offset, completions[i].length);
        ended += completions[i].length;
    }
    expect("completion slab", ended, slab_bytes);
}

static void poll_until_quiet(r2p2_engine *engine, fuzz_port *port, script *input) {
    port->loop_every = 0;
    while (port->queue_count > 0) poll_and_handle(engine, input);
}

/* One datagram alone: it must move a counter, or add to a half message. An ACK that finds its call moves what it sends. */
static void poll_one(r2p2_engine *engine, fuzz_port *port, script *input) {
    poll_until_quiet(engine, port, input);
    send_built(port, input);
    uint64_t packets = check_tables(engine);
    uint8_t type = port->queue[0].length > 2 ? port->queue[0].data[2] >> 4 : 0;
    r2p2_engine_counters before = engine->counters;
    r2p2_poll_result result;
    r2p2_engine_poll(engine, &result);
    if (memcmp(&before, &engine->counters, sizeof before) == 0 && check_tables(engine) == packets && type != R2P2_TYPE_ACK)
        fail("a datagram went uncounted; its type", type, 0);
}

/* Once everything has had its time, nothing is left but the log. */
static void drain(r2p2_engine *engine, fuzz_port *port, script *input) {
    poll_until_quiet(engine, port, input);
    for (int i = 0; i < 3; i++) {
        port->now_ns += UINT64_C(100000000000);
        poll_and_handle(engine, input);
    }
    expect("half packets at the end", check_tables(engine), 0);
    expect("halves at the end", engine->client_halves.count + engine->raft_halves.count, 0);
    expect("half bytes at the end", engine->client_halves.bytes + engine->raft_halves.bytes, 0);
    expect("calls at the end",
           engine->clients[0]->waiting_count + engine->clients[0]->quarantined_count + engine->clients[0]->openings_count, 0);
    for (uint32_t i = 0; i < engine->clients[0]->sessions_count; i++) {
        const r2p2_client_session *session = engine->clients[0]->sessions[i];
        if (!session) continue;
        expect("a session's calls at the end", session->waiting_count, 0);
        expect("all of a session's calls have ended", session->oldest_pending, session->next_sequence);
    }
    expect("held at the end", engine->held_count, 0);
}

static void apply(r2p2_engine *engine, script *input) {
    r2p2_batch batch;
    uint64_t to = engine->applied_index + below(input, 40);
    if (to > engine->log.last_index) to = engine->log.last_index;
    if (to == engine->applied_index) return;
    uint64_t digest = engine->applied_digest, time_ms = engine->applied_time_ms;
    expect("prepare", (uint64_t)(int64_t)r2p2_apply_prepare(engine, to, 1 + below(input, 20), &batch), R2P2_OK);
    reply(engine, input, &batch, 1, (int)below(input, 2));
    expect("applied", engine->applied_index, batch.last_index);
    expect("time goes on", batch.time_ms >= time_ms && engine->applied_time_ms == batch.time_ms, 1);
    expect("applied time", engine->applied_time_ms <= engine->log.time_ms, 1);
    if (digest) expect("digest moves with entries", digest != engine->applied_digest, batch.entries_count != 0);
}

static void change_log(r2p2_engine *engine, script *input) {
    uint64_t first = engine->log.first_index, last = engine->log.last_index;
    switch (below(input, 4)) {
    case 0:
        if (below(input, 2)) r2p2_set_clock(engine, (int64_t)below(input, 5000) * 1000000);
        if (below(input, 2)) (void)r2p2_log_append_time(engine);
        else (void)r2p2_log_append_noop(engine);
        break;
    case 1: {
        uint64_t from = engine->applied_index + below(input, 20);
        /* What is committed stays, as Raft has it; only the step knows how much that is. */
        if (engine->steady.role == R2P2_STEADY_FOLLOWS && from <= engine->steady.state.commit_index) break;
        (void)r2p2_log_truncate_suffix(engine, from);
        break;
    }
    case 2: (void)r2p2_log_drop_prefix(engine, first + below(input, 40) - 1); break;
    default: {
        uint64_t from = first + below(input, 20), bytes_max = take(input, 3);
        uint64_t to = r2p2_log_fit(engine, from, last, bytes_max);
        if (from > last) break;
        uint64_t bytes = r2p2_log_range_bytes(engine, from, to);
        if (to > from) expect_at_most("fit", bytes, bytes_max);
        if (to < last) expect("fit is the most", r2p2_log_range_bytes(engine, from, to + 1) > bytes_max, 1);
    }
    }
}

static void send_raft(r2p2_engine *engine, script *input) {
    uint8_t header[RAFT_HEADER_BYTES];
    r2p2_target targets[3];
    memset(header, 2, sizeof header);
    for (uint32_t i = 0; i < 3; i++) targets[i] = (r2p2_target){i + 1, SERVER_PORT, 0};
    uint64_t from = engine->log.first_index + below(input, 10), to = from + below(input, 20) - 1;
    (void)r2p2_raft_send(engine, (uint8_t)(R2P2_TYPE_RAFT_REQ + below(input, 3)), (uint16_t)below(input, 6), header,
                         1 + below(input, sizeof header), from, to, targets, below(input, 4));
}

/* More on hold than one message takes. */
static void hold_much(r2p2_engine *engine, fuzz_port *port, script *input) {
    static uint8_t bytes[R2P2_REQUEST_BYTES_MAX];
    r2p2_set_role(engine, R2P2_ROLE_FOLLOWER);
    poll_until_quiet(engine, port, input);
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t length = (uint32_t)sizeof bytes / 2 - below(input, 256);
        pattern(bytes, length, R2P2_PAYLOAD_BYTES_MAX);
        send_message(port, input, R2P2_TYPE_REQUEST, R2P2_POLICY_REPLICATED, bytes, length);
        poll_until_quiet(engine, port, input);
    }
}

static void forward(r2p2_engine *engine, const fuzz_port *port) {
    uint8_t header[RAFT_HEADER_BYTES - 8];
    memset(header, 2, sizeof header);
    uint64_t held = engine->held_count;
    r2p2_engine_flush(engine);
    uint64_t told = port->sent + engine->counters.tx_drop_no_buffer;
    int64_t moved = r2p2_forward_held(engine, header, sizeof header, 2, SERVER_PORT);
    expect("forwarded", held - engine->held_count, (uint64_t)moved);
    expect("one fits at least", moved > 0, held > 0);
    r2p2_engine_flush(engine);
    expect("sent or counted", port->sent + engine->counters.tx_drop_no_buffer > told, held > 0);
}

static void call(r2p2_engine *engine, script *input) {
    static uint8_t payload[R2P2_REQUEST_BYTES_MAX + 1];
    uint64_t length = below(input, 4) ? payload_length(input) : take(input, 3) % (sizeof payload + 1);
    pattern(payload, (uint32_t)length, R2P2_FIRST_PAYLOAD_BYTES);
    int32_t rid = r2p2_client_call(engine, CLIENT_PORT, 1 + below(input, 2), a_port(input), (uint8_t)below(input, 5), payload,
                                   length, below(input, 40) * UINT64_C(1000000),
                                   below(input, 2) ? below(input, 10) * UINT64_C(1000000) : 0, take(input, 1));
    if (rid >= 0 && below(input, 4) == 0)
        expect("cancel", (uint64_t)(int64_t)r2p2_client_cancel(engine, CLIENT_PORT, (uint16_t)rid), R2P2_OK);
}

static void session_call(r2p2_engine *engine, script *input) {
    static uint8_t payload[R2P2_REQUEST_BYTES_MAX];
    uint64_t length = below(input, 8) ? payload_length(input) : take(input, 3) % (sizeof payload + 1);
    uint32_t session = below(input, 4);
    r2p2_target targets[2] = {{LOCAL_IP, SERVER_PORT, 0}, {2, SERVER_PORT, 0}};
    r2p2_session_info info;
    if (r2p2_session_read_info(engine, CLIENT_PORT, session, &info) != R2P2_OK) {
        int32_t number = r2p2_session_new(engine, CLIENT_PORT, targets, 1 + below(input, 2), 1 + below(input, 2));
        expect_at_most("a session's number", (uint64_t)(int64_t)number, session);
        return;
    }
    if (below(input, 16) == 0) (void)r2p2_session_close(engine, CLIENT_PORT, session);
    else if (info.state == R2P2_SESSION_EXPIRED && below(input, 2))
        expect("renew", (uint64_t)(int64_t)r2p2_session_renew(engine, CLIENT_PORT, session), R2P2_OK);
    else {
        pattern(payload, (uint32_t)length, R2P2_FIRST_PAYLOAD_BYTES);
        int32_t rid = r2p2_session_call(engine, CLIENT_PORT, session, payload, length, below(input, 200) * UINT64_C(1000000),
                                        below(input, 10) * UINT64_C(1000000), take(input, 1));
        if (rid >= 0 && below(input, 4) == 0)
            expect("cancel", (uint64_t)(int64_t)r2p2_client_cancel(engine, CLIENT_PORT, (uint16_t)rid), R2P2_OK);
    }
}

/* A table taken out and in again is the same; bytes that are not a table change nothing. */
static void export_import(r2p2_engine *engine, script *input) {
    uint64_t length = r2p2_sessions_export(engine, NULL, 0);
    uint8_t *saved = malloc(length), *again = malloc(length);
    expect("export", r2p2_sessions_export(engine, saved, length), length);
    expect("import", (uint64_t)(int64_t)r2p2_sessions_import(engine, engine->applied_index, saved, length), R2P2_OK);
    check_sessions(&engine->sessions);
    expect("export again", r2p2_sessions_export(engine, again, length), length);
    expect("the same bytes", (uint64_t)memcmp(saved, again, length), 0);
    for (uint32_t i = 1 + below(input, 3); i > 0; i--) again[take(input, 4) % length] ^= (uint8_t)(1 + below(input, 255));
    uint64_t shorter = below(input, 4) ? length : take(input, 4) % (length + 1);
    uint8_t *exact = malloc(shorter);
    if (shorter) memcpy(exact, again, shorter);
    if (r2p2_sessions_import(engine, engine->applied_index, exact, shorter) == R2P2_OK) {
        replies_changed = 1;
        check_sessions(&engine->sessions);
        /* What was taken is what the bytes say, and nothing else. */
        expect("export of what was taken", r2p2_sessions_export(engine, again, length), shorter);
        expect("what was taken", (uint64_t)memcmp(exact, again, shorter), 0);
    } else {
        expect("export of what was there", r2p2_sessions_export(engine, again, length), length);
        expect("what was there", (uint64_t)memcmp(saved, again, length), 0);
    }
    free(saved);
    free(again);
    free(exact);
}

static void restrict_senders(r2p2_engine *engine, script *input) {
    r2p2_target senders[2] = {{1, SERVER_PORT, 0}, {2, (uint16_t)below(input, 3), 0}};
    expect("restrict", (uint64_t)(int64_t)r2p2_client_restrict(engine, CLIENT_PORT, senders, below(input, 3)), R2P2_OK);
}

static void capture(r2p2_engine *engine, script *input) {
    const uint8_t *records;
    uint64_t missed;
    (void)r2p2_capture_take(engine, &records, &missed);
    (void)r2p2_capture_set(engine, below(input, 3) * UINT64_C(1000), below(input, 2000));
}

/* Text that is nearly a RESP array, in an allocation of its length; what is whole is not whole without its end. */
static void resp(script *input) {
    static const char *const pieces[] = {"*1\r\n", "*2\r\n", "$3\r\nabc\r\n", "$0\r\n\r\n", "$-1\r\n", "*", "$", "\r\n",
                                         "1", "99999999999999999999", "\r", "*-1\r\n", "*0\r\n", "$3\r\nab"};
    char text[256];
    uint32_t length = 0;
    if (below(input, 2)) length = (uint32_t)sprintf(text, "*2\r\n$3\r\nGET\r\n");
    for (uint32_t i = below(input, 8); i > 0; i--) {
        const char *piece = pieces[below(input, sizeof pieces / sizeof pieces[0])];
        memcpy(text + length, piece, strlen(piece));
        length += (uint32_t)strlen(piece);
    }
    uint8_t *exact = malloc(length);
    if (length) memcpy(exact, text, length);
    if (r2p2_resp_is_whole(exact, length) && length > 0) expect("RESP cut short", r2p2_resp_is_whole(exact, length - 1), 0);
    free(exact);
}

#define CLUSTER 0x01010101u /* what the head of a message says that is filled with 1 */

/* Other members than before, or the first ones. */
static void group(r2p2_engine *engine, script *input) {
    r2p2_target peers[2] = {{2, SERVER_PORT, 0}, {1 + below(input, 2), (uint16_t)below(input, 3), 0}};
    expect("group", (uint64_t)(int64_t)r2p2_set_group(engine, CLUSTER, peers, below(input, 3)), R2P2_OK);
}

static void step(r2p2_engine *engine, fuzz_port *port, script *input) {
    switch (below(input, 32)) {
    case 0: case 1: case 2: case 3: send_built(port, input); break;
    case 4: send_raw(port, input); break;
    case 5: case 6: send_entries(port, input); break;
    case 7: r2p2_set_role(engine, (int32_t)below(input, 4)); break;
    case 8: call(engine, input); break;
    case 9: port->now_ns += below(input, 2) ? below(input, 256) * UINT64_C(100000) : take(input, 4); break;
    case 10: change_log(engine, input); break;
    case 11: apply(engine, input); break;
    case 12: send_raft(engine, input); break;
    case 13:
        if (below(input, 16) == 0) hold_much(engine, port, input);
        forward(engine, port);
        break;
    case 14: port->buffers.tx_budget = below(input, 3) ? R2P2_BURST_MAX : below(input, 8); break;
    case 15:
        port->loop_every = below(input, 4);
        port->loop_copies = 1 + below(input, 2);
        break;
    case 16: capture(engine, input); break;
    case 17: resp(input); break;
    case 18:
        for (uint32_t i = below(input, 16); i > 0; i--) poll_one(engine, port, input);
        break;
    case 19: send_big_request(port, input); break;
    case 20: reply_later(engine, input); break;
    case 21:
        if (below(input, 4) == 0) restrict_senders(engine, input);
        break;
    case 22: case 23: session_call(engine, input); break;
    case 24:
        if (below(input, 4) == 0) export_import(engine, input);
        break;
    case 25: steady(engine, input); break;
    case 26: case 27: send_steady(engine, port, input); break;
    case 28:
        if (engine->has_cluster) group(engine, input);
        break;
    default: poll_and_handle(engine, input);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static fuzz_port port; /* large; emptied at the end of every script */
    script input = {data, size};
    int32_t error;
    port = (fuzz_port){.now_ns = 1, .buffers.tx_budget = R2P2_BURST_MAX, .loop_every = 1, .loop_copies = 1};
    port.buffers.port = (r2p2_port){.abi = R2P2_PORT_ABI,
                                    .struct_size = sizeof(r2p2_port),
                                    .self = &port,
                                    .poll_fd = -1,
                                    .local_ip = LOCAL_IP,
                                    .local_port = SERVER_PORT,
                                    .rx_burst = rx_burst,
                                    .rx_release = rx_release,
                                    .tx_reserve = tx_reserve,
                                    .tx_commit = tx_commit,
                                    .tx_broadcast = tx_broadcast,
                                    .now_ns = now_ns,
                                    .counters = &port.counters};
    r2p2_engine_config config = {.reassembly_bytes_max = 5 * R2P2_MESSAGE_BYTES_MAX,
                                 .reassembly_timeout_ns = 10000000,
                                 .log_bytes_max = 1000000,
                                 .log_entries_max = 200,
                                 .backlog_entries_max = below(&input, 2) ? 100 : 1000,
                                 .hold_bytes_max = 1000000,
                                 .hold_timeout_ns = 20000000,
                                 .sessions_bytes_max = 2 * R2P2_SESSION_WINDOW_MAX * R2P2_SESSION_KEPT_BYTES,
                                 .sessions_count_max = 1 + below(&input, 12),
                                 .router_ip = below(&input, 2) ? 9 : 0,
                                 .router_port = 9000,
                                 .reassembly_count_max = 16,
                                 .packets_per_poll_max = below(&input, 2) ? 100 : 1000};
    later_count = 0;
    replies_changed = 0;
    r2p2_engine *engine = r2p2_engine_new((uintptr_t)&port.buffers.port, &config, &error);
    expect("engine", engine != NULL, 1);
    table_now = &engine->sessions;
    expect("client", (uint64_t)(int64_t)r2p2_client_open(engine, CLIENT_PORT, CALLS_MAX), R2P2_OK);
    if (below(&input, 2)) group(engine, &input);
    while (input.left > 0) step(engine, &port, &input);
    drain(engine, &port, &input);
    r2p2_engine_free(engine);
    expect("received buffers back", port.buffers.out_rx, 0);
    expect("sent buffers back", port.buffers.out_tx, 0);
    for (uint32_t i = 0; i < port.queue_count; i++) free(port.queue[i].data);
    return 0;
}

#ifndef FUZZ_LIBFUZZER
static uint64_t random_state;

static uint64_t random_next(void) {
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return random_state >> 24;
}

static void play(uint64_t number) {
    static uint8_t data[16384];
    script_number = number;
    random_state = script_seed ^ (number * UINT64_C(0x9E3779B97F4A7C15));
    (void)random_next();
    size_t size = 64 + random_next() % (sizeof data - 63);
    for (size_t i = 0; i < size; i++) data[i] = (uint8_t)random_next();
    if (!left_watched) {
        LLVMFuzzerTestOneInput(data, size);
        return;
    }
    /* Whatever memory held before it was ours, the same leaves: no byte that nobody wrote is among it. */
    uint64_t digests[2];
    for (int i = 0; i < 2; i++) {
        if (!mallopt(M_PERTURB, i ? 0xEE : 0x33)) abort();
        left_digest = UINT64_C(0xCBF29CE484222325);
        LLVMFuzzerTestOneInput(data, size);
        digests[i] = left_digest;
    }
    expect("digest of what leaves", digests[1], digests[0]);
}

#if defined(__SANITIZE_ADDRESS__)
void __asan_set_death_callback(void (*callback)(void));
const char *__asan_default_options(void);
/* Freed memory comes back sooner: page faults would take half of the time. */
const char *__asan_default_options(void) { return "quarantine_size_mb=16"; }
static void say_script(void) {
    fprintf(stderr, "replay with: %" PRIu64 " 0 %" PRIu64 "\n", script_seed, script_number);
}
#endif

static uint64_t processor_seconds(void) {
    struct timespec now;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now)) abort();
    return (uint64_t)now.tv_sec;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: fuzz_engine SEED SECONDS [NUMBER] [twice]\n");
        return 2;
    }
    /* Each script twice, over memory filled in two ways. AddressSanitizer's malloc does not do it. */
    left_watched = strcmp(argv[argc - 1], "twice") == 0;
    argc -= left_watched;
#if defined(__SANITIZE_ADDRESS__)
    __asan_set_death_callback(say_script);
#endif
    script_seed = strtoull(argv[1], NULL, 10);
    if (argc > 3) {
        play(strtoull(argv[3], NULL, 10));
        puts("ok: 1 script");
        return 0;
    }
    uint64_t end = strtoull(argv[2], NULL, 10), number = 0, told = PROGRESS_S;
    do {
        play(number++);
        if (processor_seconds() < told) continue;
        told += PROGRESS_S;
        fprintf(stderr, "%" PRIu64 " s: %" PRIu64 " scripts\n", processor_seconds(), number);
    } while (processor_seconds() < end);
    printf("ok: %" PRIu64 " scripts\n", number);
    return 0;
}
#endif
