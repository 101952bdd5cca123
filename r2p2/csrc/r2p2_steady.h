/*
 * The steady step of replication, taken within a poll (r2p2_steady_api.h).
 *
 * Leaves to others: when it is allowed (raft/steady.py), everything that is not the usual: such a message goes to Python, and so does every
 * later one of that poll, so that no order is changed.
 */
#ifndef R2P2_STEADY_H
#define R2P2_STEADY_H

#include "r2p2_engine_status.h"

#include "r2p2_steady_api.h"

enum r2p2_steady_role { R2P2_STEADY_OFF = 0, R2P2_STEADY_FOLLOWS, R2P2_STEADY_LEADS };

typedef struct r2p2_steady {
    int32_t role;
    uint64_t done; /* R2P2_STEADY_*: since the last poll */
    uint64_t term;
    uint8_t own_head[R2P2_STEADY_HEAD_BYTES];
    uint8_t heads[R2P2_TARGETS_MAX][R2P2_STEADY_HEAD_BYTES]; /* of what peers send; a follower: its leader's in heads[0] */
    r2p2_target peers[R2P2_TARGETS_MAX]; /* a follower: its leader */
    uint64_t matches[R2P2_TARGETS_MAX], applied[R2P2_TARGETS_MAX];
    uint64_t last_index; /* a leader: of what has been sent */
    uint64_t append_bytes_max;
    uint32_t peers_count;
    uint16_t rid;
    r2p2_steady_state state;
} r2p2_steady;

/* A whole Raft message: 1 when the step was taken, 0 when it is Python's. */
int r2p2_steady_take(r2p2_engine *engine, uint8_t type, uint16_t rid, const uint8_t *payload, uint32_t bytes);
/* At the end of a poll: a leader sends what has come in. */
void r2p2_steady_send(r2p2_engine *engine);

#endif
