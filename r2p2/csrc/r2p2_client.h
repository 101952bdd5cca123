/*
 * The client's pair table: calls waiting for their answers, one table for each local UDP port, indexed by rid.
 *
 * A call's slot is in one of three states: FREE, WAITING, or QUARANTINED: a rid whose call ended without an answer, or after copies
 * that may all be answered, is not used again for a while, so that a late answer cannot be taken for the answer of another call.
 * A request that its caller marks as safe to repeat is sent again, at twice the interval each time, until an answer or the deadline.
 * From then on a refusal ends it no more, since another copy of it may have been taken: it is sent again after a pause.
 * So is every request of a session (r2p2_client_session.h), to one server after the other, and after a refusal, too: the servers
 * execute it once. Its answers carry back which request they are to.
 * Answers are matched by (own port, rid) alone, whoever sends them, unless the client has named the servers it trusts.
 * Deadlines lie in a wheel of 1 ms slots; a call is touched when it is made, when it ends, and once a turn of the wheel.
 * Copies of single-packet requests lie in buffers that are reused, the last one first.
 */
#ifndef R2P2_CLIENT_H
#define R2P2_CLIENT_H

#include "r2p2_client_session.h"
#include "r2p2_engine_status.h"
#include "r2p2_tx.h"

#define R2P2_RIDS_COUNT 65536u
#define R2P2_WHEEL_SLOTS 1024u
#define R2P2_WHEEL_TICK_NS 1000000u
#define R2P2_QUARANTINE_NS 1000000000u
#define R2P2_NO_RID 0xffffffffu

enum r2p2_pair_state { R2P2_PAIR_FREE = 0, R2P2_PAIR_WAITING, R2P2_PAIR_QUARANTINED };

enum r2p2_pair_kind {
    R2P2_CALL_PLAIN = 0,
    R2P2_CALL_SESSION,
    R2P2_CALL_PARKED, /* a session's, not sent yet: its session is being opened */
    R2P2_CALL_OPENING /* opens a session; not a caller's */
};

typedef struct r2p2_pair {
    uint64_t tag;
    uint64_t start_ns;
    uint64_t deadline_ns; /* when the call ends without an answer */
    uint64_t due_ns;      /* its place in the wheel: the deadline, or the next retransmission before it */
    uint64_t retry_ns;    /* 0: the request may not be repeated; else the time to the next retransmission */
    r2p2_tx_address target;
    uint8_t *payload; /* a copy, of a multi-packet request until it was sent whole, of one that may be repeated always; of a
                         session the extension, then the request */
    uint32_t payload_bytes; /* of the request */
    uint32_t wheel_next, wheel_previous;   /* rids, or R2P2_NO_RID */
    union {
        struct {
            uint32_t parked_next, parked_previous; /* PARKED: rids in its session's list, or R2P2_NO_RID */
        };
        uint64_t sent_ns; /* else of a session: when last */
    };
    uint16_t session; /* its session's index + 1; 0: none */
    uint8_t state;
    uint8_t policy;
    uint8_t kind;           /* enum r2p2_pair_kind */
    uint8_t refusals_count; /* up to a bound */
    uint8_t awaits_ack : 1;  /* REQ0 was sent, and no ACK has come since */
    uint8_t is_repeated : 1; /* sent more than once */
    uint8_t is_refused : 1;  /* since it was last sent */
} r2p2_pair;

/* Called for each call that ends, during poll. payload is valid during the call only. */
typedef void (*r2p2_completion_sink)(void *context, const r2p2_completion *completion, const uint8_t *payload);

typedef struct r2p2_client {
    uint16_t local_port;
    uint32_t calls_max, waiting_count, quarantined_count; /* waiting: callers' calls */
    uint32_t openings_count;
    uint32_t next_rid;
    uint64_t wheel_ns; /* the wheel is done up to here */
    uint32_t wheel[R2P2_WHEEL_SLOTS];
    r2p2_target senders[R2P2_TARGETS_MAX]; /* who may answer; none: anybody */
    uint32_t senders_count;
    r2p2_tx *tx;
    r2p2_client_session **sessions; /* NULL where one was closed */
    uint32_t sessions_count, sessions_capacity;
    void *spare_payloads; /* buffers for single-packet requests */
    r2p2_pair pairs[R2P2_RIDS_COUNT];
} r2p2_client;

r2p2_client *r2p2_client_new(uint16_t local_port, uint32_t calls_max, r2p2_tx *tx, uint64_t now_ns);
void r2p2_client_free(r2p2_client *client);

typedef struct r2p2_call {
    r2p2_tx_address to; /* not of a session's: it knows whom to ask */
    const uint8_t *payload;
    uint64_t bytes;
    uint64_t timeout_ns;
    uint64_t retry_ns; /* 0: not safe to repeat, or a session's default */
    uint64_t tag;
    uint16_t session; /* index + 1, or 0 */
    uint8_t policy;
} r2p2_call;
int32_t r2p2_client_start(r2p2_client *client, const r2p2_call *call, uint64_t now_ns);
/* Whether an answer from there may be believed. */
static inline int r2p2_client_trusts(const r2p2_client *client, uint32_t ip, uint16_t port) {
    for (uint32_t i = 0; i < client->senders_count; i++)
        if (client->senders[i].ip == ip && client->senders[i].port == port) return 1;
    return client->senders_count == 0;
}
/* The call waiting under rid, or NULL. */
static inline r2p2_pair *r2p2_client_waiting(r2p2_client *client, uint16_t rid) {
    r2p2_pair *pair = &client->pairs[rid];
    return pair->state == R2P2_PAIR_WAITING ? pair : NULL;
}
/* Whether the request that waits under rid went there when it was last sent. */
static inline int r2p2_client_asked(const r2p2_client *client, uint16_t rid, uint32_t ip, uint16_t port) {
    return client->pairs[rid].target.ip == ip && client->pairs[rid].target.port == port;
}
/* Whether an answer with this session extension (NULL: none) is to the request that waits under rid. */
static inline int r2p2_client_is_asked(const r2p2_client *client, uint16_t rid, const uint8_t *extension) {
    const r2p2_pair *pair = &client->pairs[rid];
    if (!pair->session || !extension) return !pair->session && !extension;
    return memcmp(pair->payload, extension, 16) == 0; /* client_id and sequence */
}
/* An ACK came: sends the rest of the request to `to`, once for each time that REQ0 was sent. */
void r2p2_client_acked(r2p2_client *client, uint16_t rid, r2p2_tx_address to);
/* Whether a refusal says that the call was not executed: only one copy of the request has ever been sent. */
static inline int r2p2_client_refusal_ends(const r2p2_pair *pair) { return !pair->session && !pair->is_repeated; }
/* A refusal of another one came: it is sent again after a pause, a session's to another server, unless this one has just answered others. */
void r2p2_client_refused(r2p2_client *client, uint16_t rid, uint64_t now_ns);
/* Ends a waiting call: frees the slot, or quarantines the rid when no answer came. Reports to the sink. */
void r2p2_client_end(r2p2_client *client, uint16_t rid, uint32_t status, uint64_t now_ns, const uint8_t *payload,
                     uint32_t bytes, uint32_t source_ip, uint16_t source_port, r2p2_completion_sink sink, void *context);
/* Ends calls over their deadline and repeats requests that are due; returns how many calls it ended. */
uint32_t r2p2_client_expire(r2p2_client *client, uint64_t now_ns, r2p2_completion_sink sink, void *context);

/* A new session of this client, asking these servers; its index, or a negative status. */
int32_t r2p2_client_session_add(r2p2_client *client, const r2p2_target *targets, uint32_t targets_count,
                                uint64_t first_sequence);
/* The session, or NULL. */
static inline r2p2_client_session *r2p2_client_session_at(const r2p2_client *client, uint32_t index) {
    return index < client->sessions_count ? client->sessions[index] : NULL;
}

#endif
