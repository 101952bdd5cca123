/*
 * The engine's insides, for the C files of this package. Python's view is r2p2_engine_api.h.
 */
#ifndef R2P2_ENGINE_H
#define R2P2_ENGINE_H

#include "r2p2_capture.h"
#include "r2p2_client.h"
#include "r2p2_counters.h"
#include "r2p2_engine_status.h"
#include "r2p2_grants.h"
#include "r2p2_log.h"
#include "r2p2_openings.h"
#include "r2p2_reassembly.h"
#include "r2p2_sessions.h"
#include "r2p2_steady.h"
#include "r2p2_time.h"
#include "r2p2_tx.h"

#define R2P2_CLIENTS_MAX 64u
#define R2P2_RAFT_MESSAGES_MAX 256u
#define R2P2_RAFT_ARENA_BYTES (512u * 1024)

/* Bytes that grow to what is needed and are reused. */
typedef struct r2p2_buffer {
    uint8_t *data;
    uint64_t length, capacity;
} r2p2_buffer;

/* Who waits for a reply. */
typedef struct r2p2_asker {
    uint32_t ip;
    uint16_t port;
    uint16_t local_port;
    uint16_t rid;
    uint8_t policy;
    uint8_t reserved;
} r2p2_asker;

/* Requests given to the application together: payloads end to end, and who asked. */
typedef struct r2p2_requests {
    r2p2_buffer slab;
    r2p2_asker *askers;
    uint32_t *lengths;
    uint8_t *policies;
    uint32_t count, capacity;
} r2p2_requests;

/* Linearizable reads (r2p2_reads.c). open_*: all that was taken in and not answered, the gathered ones included. */
typedef struct r2p2_reads {
    r2p2_requests gathered;
    uint64_t since_ns; /* when the first of them came */
    uint64_t open_count, open_bytes;
} r2p2_reads;
/* What an applied entry's client is answered, in log order. */
enum r2p2_answer_kind {
    R2P2_ANSWER_PLAIN = 0, /* the application's next reply, to a request without a session */
    R2P2_ANSWER_SESSION,   /* the application's next reply, which is kept */
    R2P2_ANSWER_KEPT,      /* what is kept by then: a duplicate's */
    R2P2_ANSWER_OPENED,    /* the new session's id */
    R2P2_ANSWER_EXPIRED    /* there is no such session */
};
typedef struct r2p2_answer {
    uint64_t id, sequence; /* of the request's session; OPENED: the new id */
    r2p2_asker asker;
    uint32_t session; /* index in the table, with id */
    uint8_t kind;
} r2p2_answer;

/* A whole Raft message, kept until the next poll. */
typedef struct r2p2_raft_slot {
    const uint8_t *data;
    uint32_t length;
    uint32_t source_ip;
    uint16_t source_port;
    uint16_t rid;
    uint8_t type;
    uint32_t checked_bytes; /* header_bytes for which r2p2_raft_check found the entries whole; 0: not checked */
    r2p2_detached detached; /* base NULL: the bytes lie in the arena */
} r2p2_raft_slot;

struct r2p2_engine {
    r2p2_port *port;
    r2p2_engine_config config;
    r2p2_engine_counters counters;
    r2p2_tx tx;
    uint64_t now_ns;
    r2p2_capture capture; /* records NULL: off */

    /* Client requests and Raft messages have tables of their own: a flood of one cannot fill the other. */
    r2p2_reassembly client_halves, raft_halves;
    r2p2_requests requests; /* unreplicated, since the last poll */

    int32_t role;
    r2p2_log log;
    uint64_t appended_count;
    uint64_t applied_index, applied_digest, applied_time_ms;
    r2p2_stamps stamps;
    r2p2_requests applying; /* the prepared batch: what the application gets */
    r2p2_answer *answers;   /* of the prepared batch, in order */
    uint32_t answers_count, answers_capacity;
    uint32_t answers_sessions; /* of these, not PLAIN */
    r2p2_sessions sessions;
    r2p2_openings openings;
    uint64_t applying_last; /* its last index; 0: none is prepared */
    uint64_t applying_digest, applying_time_ms;
    r2p2_buffer scratch; /* an entry's body that crosses a page */

    r2p2_buffer held; /* entries waiting to be forwarded, from held_offset on */
    uint64_t held_offset, held_count, held_since_ns;
    r2p2_reads reads;
    int32_t has_storage;
    uint64_t storage_head; /* where the log on disk begins: a position as the log's own, perhaps before its head, and modulo 2^64 */

    uint32_t cluster_id;
    int32_t has_cluster; /* else Raft messages of any are taken */
    r2p2_target peers[R2P2_PEERS_MAX]; /* where members are; none: not known */
    uint32_t peers_count;
    r2p2_raft_slot raft[R2P2_RAFT_MESSAGES_MAX];
    uint32_t raft_count, raft_taken;
    uint8_t *raft_arena;
    uint32_t raft_arena_used;
    r2p2_steady steady;

    r2p2_client *clients[R2P2_CLIENTS_MAX];
    uint32_t clients_count;
    r2p2_completion_sink sink;
    void *sink_context;
    r2p2_completion *completions;
    uint64_t completions_count, completions_capacity;
    r2p2_buffer completion_slab;
};

/* Completions go to Python again. */
void r2p2_engine_default_sink(r2p2_engine *engine);
int r2p2_buffer_reserve(r2p2_buffer *buffer, uint64_t more);
r2p2_client *r2p2_engine_client(r2p2_engine *engine, uint16_t local_port);

/* r2p2_gateway.c: what was received, checked and sorted; the packet is valid as long as the call. */
void r2p2_packets_in(r2p2_engine *engine, const r2p2_rx_packet *packets, uint32_t count);
/* Has the next of the longer requests come, as far as there is room for them. */
void r2p2_grants_give(r2p2_engine *engine);

int r2p2_requests_add(r2p2_requests *requests, const r2p2_asker *asker, const uint8_t *payload, uint32_t bytes);
void r2p2_requests_clear(r2p2_requests *requests);
void r2p2_requests_destroy(r2p2_requests *requests);
/* Do the lengths, which may hold R2P2_REPLY_DROP and R2P2_REPLY_NONE, fit the requests, the slab and a bound each? */
int32_t r2p2_replies_check(const r2p2_requests *requests, uint64_t slab_bytes, const uint32_t *lengths, uint64_t count,
                           uint32_t bytes_max);
/* Sends one reply an asker, checked first. */
int32_t r2p2_replies_send(r2p2_engine *engine, const r2p2_requests *requests, const uint8_t *slab, uint64_t slab_bytes,
                          const uint32_t *lengths, uint64_t count);
/* One of them; its length is checked. */
void r2p2_reply_send(r2p2_engine *engine, const r2p2_asker *asker, const uint8_t *reply, uint32_t length);
/* RESPONSE or DROP to a request of a session: carries back which request it was. */
void r2p2_session_answer(r2p2_engine *engine, const r2p2_asker *asker, const r2p2_session_extension *extension,
                         uint8_t type, const uint8_t *payload, uint32_t bytes);
void r2p2_drop_send(r2p2_engine *engine, r2p2_tx_address to, uint16_t rid);

/* r2p2_replicated.c: the first packet of a longer request with a replicated policy: 1 when it has been answered or refused for that alone,
 * and the rest need not come. */
int r2p2_replicated_announced(r2p2_engine *engine, const r2p2_asker *asker, const r2p2_header *header, const uint8_t *payload,
                              uint32_t bytes);
/* A whole one. */
void r2p2_replicated_request(r2p2_engine *engine, const r2p2_asker *asker, const uint8_t *payload, uint32_t bytes,
                             int has_session);
void r2p2_held_expire(r2p2_engine *engine);

/* r2p2_reads.c: a whole request of policy 3. */
void r2p2_read_request(r2p2_engine *engine, const r2p2_asker *asker, const uint8_t *payload, uint32_t bytes);
void r2p2_reads_expire(r2p2_engine *engine);

#endif
