/*
 * What Python sees of the engine. Plain declarations only: cffi parses this file, and r2p2_engine.h includes it.
 *
 * Addresses: IPv4 and UDP port, host byte order. Times: nanoseconds of the port's clock. Log indices start at 1.
 * Functions that can fail return a negative enum r2p2_status.
 */

enum r2p2_status {
    R2P2_OK = 0,
    R2P2_ERROR_NO_MEMORY = -1,
    R2P2_ERROR_ARGUMENT = -2,
    R2P2_ERROR_TOO_LARGE = -3,  /* message over 254 packets */
    R2P2_ERROR_FULL = -4,       /* log, table or batch at its bound */
    R2P2_ERROR_RANGE = -5,      /* index outside the log */
    R2P2_ERROR_MALFORMED = -6,  /* entries of a message do not parse */
    R2P2_ERROR_STATE = -7       /* call not legal now */
};

enum r2p2_role {
    R2P2_ROLE_NONE = 0,     /* not replicated: policy 2 and 3 get DROP; with any other role policy 3 is gathered */
    R2P2_ROLE_LEADER = 1,   /* replicated requests go to the log */
    R2P2_ROLE_FOLLOWER = 2, /* replicated requests are held for forwarding */
    R2P2_ROLE_HOLD = 3      /* no leader known: held within a bound, then DROP */
};

enum r2p2_completion_status {
    R2P2_DONE_OK = 0,
    R2P2_DONE_TIMEOUT = 1,
    R2P2_DONE_DROPPED = 2,
    R2P2_DONE_CANCELLED = 3,
    R2P2_DONE_EXPIRED = 4 /* its session has ended: executed at most once, and the reply is gone */
};

/* A reply length with a meaning of its own. */
#define R2P2_REPLY_DROP 4294967295
#define R2P2_REPLY_NONE 4294967294

typedef struct r2p2_engine_config {
    uint64_t reassembly_bytes_max;  /* all half messages together */
    uint64_t reassembly_timeout_ns; /* a half message older than this is dropped */
    uint64_t log_bytes_max;         /* entries kept in the log, with their headers */
    uint64_t log_entries_max;
    uint64_t backlog_entries_max;   /* appended but not applied: beyond it the leader answers DROP */
    uint64_t hold_bytes_max;        /* replicated requests a follower holds */
    uint64_t hold_timeout_ns;       /* how long it holds them without a leader */
    uint64_t sessions_bytes_max;    /* kept replies and their places; the same on every member */
    uint32_t sessions_count_max;    /* the same on every member */
    uint32_t reassembly_count_max;  /* half messages; a power of two */
    uint32_t packets_per_poll_max;  /* received datagrams one poll handles */
    uint32_t router_ip;             /* who gets FEEDBACK after each response and DROP; 0: nobody */
    uint32_t router_port;
} r2p2_engine_config;

/* Counted since the last poll unless it says otherwise. All fields 64 bits wide: read as one array. */
typedef struct r2p2_poll_result {
    uint64_t now_ns;
    uint64_t packets_count;     /* datagrams received */
    uint64_t requests_count;    /* unreplicated requests ready in the request batch */
    uint64_t appended_count;    /* replicated requests appended to the log (leader) */
    uint64_t held_count;        /* replicated requests held now (follower) */
    uint64_t raft_count;        /* Raft messages ready */
    uint64_t completions_count; /* client completions ready */
    uint64_t log_last_index;    /* now */
    uint64_t reads_count;       /* linearizable reads gathered now */
    uint64_t steady_done;       /* R2P2_STEADY_*: steps taken without Python; of what was SENT, appended_count does not tell */
} r2p2_poll_result;

/* One complete Raft message. Its bytes stay with the engine until the next poll. */
typedef struct r2p2_raft_message {
    uint32_t handle;      /* names the message in r2p2_log_append_message and r2p2_drop_forwarded */
    uint32_t length;      /* bytes of the whole message */
    uint32_t source_ip;
    uint16_t source_port;
    uint16_t rid;
    uint8_t type;         /* R2P2 type: 5, 6 or 7 */
    uint8_t reserved;
    uint16_t prefix_bytes; /* min(length, sizeof prefix) */
    uint32_t reserved2;
    uint8_t prefix[296];   /* the first bytes: headers without entries */
} r2p2_raft_message;

/* Requests laid end to end. request i is slab[sum(lengths[:i])..][:lengths[i]]. Valid until the next call that refills it. */
typedef struct r2p2_batch {
    const uint8_t *slab;
    const uint32_t *lengths;
    const uint8_t *policies;
    const uint8_t *askers; /* R2P2_ASKER_BYTES a request: who asked, for r2p2_reply_later */
    uint64_t slab_bytes;
    uint64_t requests_count;
    uint64_t entries_count; /* log entries covered, no-ops included; 0 for unreplicated */
    uint64_t last_index;    /* last log entry covered; 0 for unreplicated */
    uint64_t time_ms;       /* the log's, the same for all of a batch; 0 for unreplicated and where the log has none yet */
} r2p2_batch;

typedef struct r2p2_completion {
    uint64_t tag;        /* the caller's */
    uint64_t latency_ns; /* from call to completion */
    uint64_t offset;     /* of the payload in the completion slab */
    uint32_t length;
    uint32_t status;     /* enum r2p2_completion_status */
    uint32_t source_ip;  /* who answered */
    uint16_t source_port;
    uint16_t rid;
} r2p2_completion;

typedef struct r2p2_target {
    uint32_t ip;
    uint16_t port;
    uint16_t reserved;
} r2p2_target;

typedef struct r2p2_engine r2p2_engine;

/* port_address: of a struct r2p2_port, which must outlive the engine. NULL and *error set on failure. */
r2p2_engine *r2p2_engine_new(uintptr_t port_address, const r2p2_engine_config *config, int32_t *error);
void r2p2_engine_free(r2p2_engine *engine);
uint64_t r2p2_engine_now_ns(r2p2_engine *engine);

/* The one loop step in C: receive bursts, handle every packet, expire what is old, send what is ready. */
void r2p2_engine_poll(r2p2_engine *engine, r2p2_poll_result *result);
/* Sends everything filled in so far. poll does so at its end; call it after replies and Raft sends. */
void r2p2_engine_flush(r2p2_engine *engine);

/* Counters: names are static, values live. Indices 0..r2p2_counters_count()-1, the port's after the engine's. */
uint32_t r2p2_counters_count(void);
const char *r2p2_counter_name(uint32_t index);
const char *r2p2_counter_help(uint32_t index);
void r2p2_counters_read(r2p2_engine *engine, uint64_t *values);

/* Server, unreplicated. One reply a request of the batch, in order, laid end to end in `slab`. */
void r2p2_requests_batch(r2p2_engine *engine, r2p2_batch *batch);
int32_t r2p2_requests_reply(r2p2_engine *engine, const uint8_t *slab, uint64_t slab_bytes, const uint32_t *lengths,
                            uint64_t count);

/* Answers a request whose reply in its batch was R2P2_REPLY_NONE; `asker` is its R2P2_ASKER_BYTES of the batch, copied out. drop != 0
 * refuses it instead. Once each: the engine does not remember them. */
int32_t r2p2_reply_later(r2p2_engine *engine, const uint8_t *asker, const uint8_t *payload, uint64_t length, int32_t drop);

/* Server, replicated. The group: Raft messages of another cluster are dropped from now on, before they take any room. peers: where its members
 * are, as far as it is known; anybody else who speaks as one is served as long as that leaves room for them. */
int32_t r2p2_set_group(r2p2_engine *engine, uint32_t cluster_id, const r2p2_target *peers, uint32_t peers_count);
void r2p2_set_role(r2p2_engine *engine, int32_t role);
/* Sends what is held to the leader: header (a Raft FORWARD header without counts, completed by the engine with
 * u32 entries count and u32 entries bytes) and the entries. At most one message a call; call until held_count is 0. */
int64_t r2p2_forward_held(r2p2_engine *engine, const uint8_t *header, uint32_t header_bytes, uint32_t ip, uint16_t port);
/* Answers DROP to every client whose request the message forwards (r2p2_raft_check first). */
int64_t r2p2_drop_forwarded(r2p2_engine *engine, uint32_t handle, uint32_t header_bytes);

/* The log: entries of contiguous indices; bytes live in pages owned by the engine. */
uint64_t r2p2_log_first_index(r2p2_engine *engine); /* of the oldest entry kept; last + 1 when none is */
uint64_t r2p2_log_last_index(r2p2_engine *engine);
uint64_t r2p2_log_bytes(r2p2_engine *engine);
int32_t r2p2_log_append_noop(r2p2_engine *engine);
/* Appends entries skip..skip+count-1 (r2p2_raft_check first) that follow header_bytes in the message. Returns the entries appended. */
int64_t r2p2_log_append_message(r2p2_engine *engine, uint32_t handle, uint32_t header_bytes, uint32_t skip,
                                uint32_t count);
int32_t r2p2_log_truncate_suffix(r2p2_engine *engine, uint64_t from_index);
int32_t r2p2_log_drop_prefix(r2p2_engine *engine, uint64_t through_index);
/* The last index i <= last_index with first_index..i within bytes_max; at least first_index. */
uint64_t r2p2_log_fit(r2p2_engine *engine, uint64_t first_index, uint64_t last_index, uint64_t bytes_max);
/* Wire bytes of entries first..last. */
uint64_t r2p2_log_range_bytes(r2p2_engine *engine, uint64_t first_index, uint64_t last_index);

/* Durable mode. copy: the wire bytes of entries first..last; returns their number. append_raw: entries in their wire form from the
 * disk, checked as a peer's; they follow the last one. set_storage: the disk holds so many bytes of log now, through its end; from
 * log_bytes_max on the leader refuses new requests. */
int64_t r2p2_log_copy(r2p2_engine *engine, uint64_t first_index, uint64_t last_index, uint8_t *out, uint64_t room);
int32_t r2p2_log_append_raw(r2p2_engine *engine, const uint8_t *entries, uint64_t length, uint64_t count);
void r2p2_set_storage(r2p2_engine *engine, uint64_t log_bytes);

/* Apply, in order. prepare lays out the requests of the next entries (at most entries_max, none beyond last_index); reply answers them
 * (send != 0: the leader) or only keeps what sessions want kept. Requests that a session has had executed are left out and answered
 * by the engine. A batch must be ended before the next is prepared. `digest` chains over every applied entry in order: equal index and digest
 * mean equal history. */
int32_t r2p2_apply_prepare(r2p2_engine *engine, uint64_t last_index, uint32_t entries_max, r2p2_batch *batch);
int32_t r2p2_apply_reply(r2p2_engine *engine, const uint8_t *slab, uint64_t slab_bytes, const uint32_t *lengths,
                         uint64_t count, int32_t send);
uint64_t r2p2_applied_index(r2p2_engine *engine);
uint64_t r2p2_applied_digest(r2p2_engine *engine);

/* Linearizable reads. take hands over all that are gathered, as one group (valid until the next poll); each group is then ended
 * once, by reply or by drop, with its askers and its request bytes. */
void r2p2_reads_take(r2p2_engine *engine, r2p2_batch *batch);
int32_t r2p2_reads_reply(r2p2_engine *engine, const uint8_t *askers, uint64_t requests_count, uint64_t requests_bytes,
                         const uint8_t *slab, uint64_t slab_bytes, const uint32_t *lengths, uint64_t count);
int32_t r2p2_reads_drop(r2p2_engine *engine, const uint8_t *askers, uint64_t requests_count, uint64_t requests_bytes);
/* The session table, as of the applied index: for snapshots. Equal tables give equal bytes. `export` returns the bytes needed and writes them
 * when there is room; 0 while a batch is prepared. `import` replaces the table, or leaves it and says what is wrong;
 * `through_index`: of the snapshot it is from, so that no session in it has a later id. */
uint64_t r2p2_sessions_export(r2p2_engine *engine, uint8_t *out, uint64_t room);
int32_t r2p2_sessions_import(r2p2_engine *engine, uint64_t through_index, const uint8_t *data, uint64_t length);
/* Sessions there are; *bytes: what counts towards sessions_bytes_max. */
uint64_t r2p2_sessions_size(r2p2_engine *engine, uint64_t *bytes);

/* Raft messages. `next` copies up to max descriptors out; returns their number. */
uint32_t r2p2_raft_next(r2p2_engine *engine, r2p2_raft_message *messages, uint32_t max);
/* The gateway for entries: do those that follow header_bytes (its last 8 bytes: count, bytes) fill the message exactly? 1: they do, and
 * some carry a time, which only a leader gives them. */
int32_t r2p2_raft_check(r2p2_engine *engine, uint32_t handle, uint32_t header_bytes);
/* One message of header bytes and entries first..last (none when last < first) to each target, same rid. */
int32_t r2p2_raft_send(r2p2_engine *engine, uint8_t type, uint16_t rid, const uint8_t *header, uint32_t header_bytes,
                       uint64_t first_index, uint64_t last_index, const r2p2_target *targets, uint32_t targets_count);

/* Client. local_port: a UDP port of the port; each carries up to 65,535 calls at once, and up to calls_max of them. */
int32_t r2p2_client_open(r2p2_engine *engine, uint16_t local_port, uint32_t calls_max);
/* The next call's rid, where it is free; without this it is 1. */
int32_t r2p2_client_number_from(r2p2_engine *engine, uint16_t local_port, uint16_t rid);
/* retry_ns: 0, or the time after which a request that is safe to repeat is sent again (then twice that, and so on).
 * Returns the rid (1..65535, 0 is used too after a wrap) or a negative status. */
int32_t r2p2_client_call(r2p2_engine *engine, uint16_t local_port, uint32_t ip, uint16_t port, uint8_t policy,
                         const uint8_t *payload, uint64_t length, uint64_t timeout_ns, uint64_t retry_ns, uint64_t tag);
/* Only these may answer calls of local_port from now on; none: anybody. Others' answers are counted and dropped. */
int32_t r2p2_client_restrict(r2p2_engine *engine, uint16_t local_port, const r2p2_target *senders, uint32_t count);
int32_t r2p2_client_cancel(r2p2_engine *engine, uint16_t local_port, uint16_t rid);

/* A client's session with the servers `targets`, asked in turn: its requests are executed at most once however often they are sent, and sent
 * until an answer or their deadline. Calls leave from local_port. Nothing is sent before the first call, which opens it. */
enum r2p2_session_state {
    R2P2_SESSION_NEW = 0,
    R2P2_SESSION_OPENING = 1,
    R2P2_SESSION_OPEN = 2,
    R2P2_SESSION_EXPIRED = 3 /* the servers have ended it: no more calls until it is renewed */
};
typedef struct r2p2_session_info {
    uint64_t client_id;      /* 0: it has none yet */
    uint64_t next_sequence;  /* of the next call */
    uint64_t oldest_pending; /* all calls before it have ended */
    uint32_t waiting_count;
    uint32_t state;          /* enum r2p2_session_state */
    uint32_t target_ip;      /* who is asked next */
    uint16_t target_port;
    uint16_t reserved;
} r2p2_session_info;
/* Returns the session's number. The sequences of its calls begin at first_sequence, 1..2^63 - 1, and go on from where they are when it is
 * renewed. At random, they tell it from a session that has the same id in another life of the cluster: where all members have begun anew,
 * without a memory, ids are given out again. */
int32_t r2p2_session_new(r2p2_engine *engine, uint16_t local_port, const r2p2_target *targets, uint32_t count,
                         uint64_t first_sequence);
/* A replicated request. retry_ns: 0 for the default. Returns the rid; R2P2_ERROR_STATE: the session has expired; R2P2_ERROR_FULL: too many
 * calls wait, or one has waited while R2P2_SESSION_WINDOW_MAX later ones were made. */
int32_t r2p2_session_call(r2p2_engine *engine, uint16_t local_port, uint32_t session, const uint8_t *payload,
                          uint64_t length, uint64_t timeout_ns, uint64_t retry_ns, uint64_t tag);
/* Lets an expired session be opened anew, by its next call. */
int32_t r2p2_session_renew(r2p2_engine *engine, uint16_t local_port, uint32_t session);
/* Forgets a session of which no call waits; its number is used again. */
int32_t r2p2_session_close(r2p2_engine *engine, uint16_t local_port, uint32_t session);
int32_t r2p2_session_read_info(r2p2_engine *engine, uint16_t local_port, uint32_t session, r2p2_session_info *info);

/* Completions since the last call: descriptors and the slab of their payloads, valid until the next poll. */
uint64_t r2p2_client_completions(r2p2_engine *engine, const r2p2_completion **completions, const uint8_t **slab,
                                 uint64_t *slab_bytes);

/* A copy of a received or sent datagram: this header, then `captured` bytes, then zeros up to record_bytes. */
typedef struct r2p2_capture_record {
    uint64_t time_ns;
    uint32_t source_ip, target_ip;
    uint16_t source_port, target_port;
    uint32_t length;   /* of the datagram */
    uint32_t captured; /* min(length, snap_bytes) */
    uint32_t record_bytes;
} r2p2_capture_record;

/* Copies datagrams from now on: at most `rate` a second under load (elections always), snap_bytes of each. rate 0 stops. */
int32_t r2p2_capture_set(r2p2_engine *engine, uint64_t rate, uint32_t snap_bytes);
/* The records since the last call, valid until the next poll; their bytes. missed: datagrams left out since the start. */
uint64_t r2p2_capture_take(r2p2_engine *engine, const uint8_t **records, uint64_t *missed);

/* Pure functions, for tests and oracles. */
int32_t r2p2_header_check(const uint8_t *data, uint64_t length, uint16_t fields[8]);
/* 1 when `length` bytes are exactly one RESP array of bulk strings, framed to the last byte. */
int32_t r2p2_resp_is_whole(const uint8_t *data, uint64_t length);
/* The index of the first request of the batch that is not; count when all are. */
uint64_t r2p2_resp_first_broken(const uint8_t *slab, const uint32_t *lengths, uint64_t count);

/* The in-memory port: a switch of endpoints on a virtual clock, scripted and seeded (r2p2_mem_port.c). */
typedef struct r2p2_mem_switch r2p2_mem_switch;
r2p2_mem_switch *r2p2_mem_switch_new(uint64_t seed, uint32_t packets_max);
void r2p2_mem_switch_free(r2p2_mem_switch *mem);
void r2p2_mem_switch_advance(r2p2_mem_switch *mem, uint64_t ns);
uint64_t r2p2_mem_switch_now_ns(r2p2_mem_switch *mem);
/* When the next datagram in flight arrives; UINT64_MAX when none is. */
uint64_t r2p2_mem_switch_next_ns(r2p2_mem_switch *mem);
/* Per million: lost, duplicated, and given an extra delay (so that it arrives out of order). Delays: uniform in min..max. */
int32_t r2p2_mem_switch_faults(r2p2_mem_switch *mem, uint32_t loss_ppm, uint32_t duplicate_ppm, uint32_t reorder_ppm,
                               uint64_t delay_min_ns, uint64_t delay_max_ns);
/* One-way cut between two addresses: blocked != 0 drops, 0 heals. ip 0 is any address. */
int32_t r2p2_mem_switch_block(r2p2_mem_switch *mem, uint32_t source_ip, uint32_t target_ip, int32_t blocked);
/* Buffers that are not free: travelling, arrived and unread, or with an engine. 0 when all are back. */
uint64_t r2p2_mem_switch_in_flight(r2p2_mem_switch *mem);
/* Since the start, of the whole switch. sent + duplicated == delivered + lost + blocked + refused + gone + travelling + queued.
 * All fields 64 bits wide: read as one array. */
typedef struct r2p2_mem_counts {
    uint64_t sent;       /* datagrams put on the switch, injected ones too */
    uint64_t duplicated; /* copies made (none is while no buffer is free) */
    uint64_t reordered;  /* given the extra delay */
    uint64_t lost;       /* by chance */
    uint64_t blocked;    /* by a cut */
    uint64_t delivered;  /* handed to an engine */
    uint64_t refused;    /* too long, or the receiver's queue full: in its rx_drop_* counters */
    uint64_t gone;       /* the receiver closed before it read them */
    uint64_t travelling; /* now */
    uint64_t queued;     /* now: arrived and unread */
} r2p2_mem_counts;
void r2p2_mem_switch_counts(r2p2_mem_switch *mem, r2p2_mem_counts *counts);
/* A new endpoint at ip:port; returns the address of its struct r2p2_port, or 0. It owns the whole ip: datagrams to any UDP port
 * of it arrive, with that port as local_port. */
uintptr_t r2p2_mem_port_open(r2p2_mem_switch *mem, uint32_t ip, uint16_t port);
/* Returns the number of buffers the engine had not given back (0 is right); they are taken back. */
int32_t r2p2_mem_port_close(r2p2_mem_switch *mem, uintptr_t port);
/* Puts a datagram on the switch as if source had sent it: for hostile tests. */
int32_t r2p2_mem_switch_inject(r2p2_mem_switch *mem, uint32_t source_ip, uint16_t source_port, uint32_t target_ip,
                               uint16_t target_port, const uint8_t *data, uint64_t length);
