/*
 * A client's side of a session: its number, which of its requests are still waited for, and which server to ask.
 *
 * NEW until the first call, OPENING until a server has given it an id (calls made meanwhile are parked), OPEN, and EXPIRED once a
 * server has said that the session is gone; then only r2p2_client_session_renew makes it NEW again, since a call that was under way may or
 * may not have been executed, and that is for the caller to know.
 * Leaves to others: packets, timers and the calls themselves (r2p2_client.c); the servers' side (r2p2_sessions.h).
 */
#ifndef R2P2_CLIENT_SESSION_H
#define R2P2_CLIENT_SESSION_H

#include "r2p2_engine_status.h"
#include "r2p2_wire.h"

/* Who did not answer is not asked next; but calls that fail together move on together, once. */
#define R2P2_ROTATE_NS 1000000u
/* How long answers take is what they took in this window and the one before. */
#define R2P2_ANSWERS_WINDOW_NS 250000000u

typedef struct r2p2_client_session {
    uint64_t client_id; /* 0 until OPEN */
    uint64_t next_sequence, oldest_pending;
    uint64_t *ended;       /* bit sequence % window: that call has ended, though an older one has not */
    uint32_t window;       /* bits of `ended`: 0 or a power of two from 64 on, at least next_sequence - oldest_pending */
    uint32_t waiting_count;
    uint32_t parked_first, parked_last; /* rids of calls that wait for the id, or R2P2_NO_RID */
    uint64_t rotated_ns;
    uint64_t heard_ns;  /* when `current` last answered a request; 0: it has not yet */
    uint64_t window_ns; /* when the window below began */
    uint64_t answer_ns, answer_before_ns; /* the longest that an answer took, from its request's last sending on, in this window and in the one
                                             before */
    uint32_t targets_count, current; /* current: who is asked next */
    uint8_t state;                   /* enum r2p2_session_state */
    r2p2_target targets[R2P2_TARGETS_MAX];
} r2p2_client_session;

r2p2_client_session *r2p2_client_session_new(const r2p2_target *targets, uint32_t targets_count, uint64_t first_sequence);
void r2p2_client_session_free(r2p2_client_session *session);
/* The next request's number, or 0: the window is full, or no memory. */
uint64_t r2p2_client_session_take(r2p2_client_session *session);
/* The call of `sequence` has ended, however it did. */
void r2p2_client_session_ended(r2p2_client_session *session, uint64_t sequence);
/* EXPIRED to NEW. */
int32_t r2p2_client_session_renew(r2p2_client_session *session);
/* Whom to ask instead of `asked`, who is silent or has refused: himself, when he has answered since `since_ns`. */
const r2p2_target *r2p2_client_session_rotate(r2p2_client_session *session, uint32_t asked_ip, uint16_t asked_port,
                                              uint64_t since_ns, uint64_t now_ns);
/* Who answered a request that was sent at sent_ns is asked next. */
void r2p2_client_session_learn(r2p2_client_session *session, uint32_t ip, uint16_t port, uint64_t sent_ns, uint64_t now_ns);
/* How long to wait for an answer before the request is sent again: `retry_ns`, or longer where answers take long. */
static inline uint64_t r2p2_client_session_patience(const r2p2_client_session *session, uint64_t retry_ns) {
    uint64_t slow = session->answer_ns > session->answer_before_ns ? session->answer_ns : session->answer_before_ns;
    slow *= R2P2_SESSION_RETRY_ANSWERS;
    if (slow > R2P2_SESSION_RETRY_SLOW_MAX_NS) slow = R2P2_SESSION_RETRY_SLOW_MAX_NS;
    return retry_ns > slow ? retry_ns : slow;
}

#endif
