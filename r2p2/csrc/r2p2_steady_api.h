/*
 * What Python sees of the steady step (docs/adr/0021). Plain declarations: cffi parses this file.
 *
 * Raft decides in Python (raft/). While nothing but the usual happens - one term, one leader, Appends that go on where the log ends, answers
 * that accept - its decision is known beforehand, and the engine takes that one step by itself within a poll: a follower appends and
 * answers, a leader counts answers and sends what came in. Python says when it may and with what, and is told what was done before anything else.
 */

#define R2P2_STEADY_FOLLOWED 1 /* a follower: entries appended and acknowledged */
#define R2P2_STEADY_ANSWERED 2 /* a leader: members have answered, see peers */
#define R2P2_STEADY_SENT 4     /* a leader: what came in has gone out in one Append */

/* The common head of every Raft message: version, kind, slot, cluster, incarnation, term. */
#define R2P2_STEADY_HEAD_BYTES 24

/* Of one other member. A leader's Python reads what it has answered since the last poll: maxima. */
typedef struct r2p2_steady_answer {
    uint64_t round, match_index, applied_index;
} r2p2_steady_answer;

/* What the engine goes by, and what became of it. All fields 64 bits wide: read as one array. */
typedef struct r2p2_steady_state {
    uint64_t commit_index, global_commit;
    uint64_t round;         /* a leader: of the last Append */
    uint64_t appends_room;  /* a leader: Appends that may still be sent before Python says so anew */
    uint64_t sent_bytes;    /* SENT: of its entries */
    uint64_t answered_mask; /* ANSWERED: bit i: peer i */
    r2p2_steady_answer answers[R2P2_TARGETS_MAX];
} r2p2_steady_state;

/* Python decides everything. */
void r2p2_steady_off(r2p2_engine *engine);
/* Appends that begin with leader_head and go on where the log ends are taken and answered to `leader`; the log's last entry is of that
 * term, and durable. own_head begins the answers. */
int32_t r2p2_steady_follow(r2p2_engine *engine, const uint8_t *leader_head, const uint8_t *own_head, const r2p2_target *leader,
                           uint64_t commit_index, uint64_t global_commit);
/* All peers vote and have been sent everything. peer_heads: of their answers, one behind the other; own_head begins the Appends; matches:
 * (match_index, applied_index) a peer; rid: of the last message. */
int32_t r2p2_steady_lead(r2p2_engine *engine, const uint8_t *own_head, const uint8_t *peer_heads, const r2p2_target *peers,
                         const uint64_t *matches, uint32_t peers_count, uint64_t commit_index, uint64_t global_commit,
                         uint64_t round, uint16_t rid, uint64_t appends_room, uint64_t append_bytes_max);
/* A leader's window has opened again. */
void r2p2_steady_room(r2p2_engine *engine, uint64_t appends_room);
/* Read after each poll whose result says that there was a steady step. */
const r2p2_steady_state *r2p2_steady_read(r2p2_engine *engine);
