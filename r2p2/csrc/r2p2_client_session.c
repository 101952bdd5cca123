/* A client's side of a session. See r2p2_client_session.h. */
#include "r2p2_client_session.h"

#include <stdlib.h>

#include "r2p2_client.h"

#define WINDOW_FIRST 64u

r2p2_client_session *r2p2_client_session_new(const r2p2_target *targets, uint32_t targets_count, uint64_t first_sequence) {
    r2p2_client_session *session = calloc(1, sizeof *session);
    if (!session) return NULL;
    session->state = R2P2_SESSION_NEW;
    session->next_sequence = session->oldest_pending = first_sequence;
    session->parked_first = session->parked_last = R2P2_NO_RID;
    session->targets_count = targets_count;
    memcpy(session->targets, targets, targets_count * sizeof *targets);
    return session;
}

void r2p2_client_session_free(r2p2_client_session *session) {
    if (!session) return;
    free(session->ended);
    free(session);
}

static uint64_t bit_of(const r2p2_client_session *session, uint64_t sequence, uint64_t **word) {
    *word = &session->ended[(sequence & (session->window - 1)) >> 6];
    return (uint64_t)1 << (sequence & 63);
}

static int window_grow(r2p2_client_session *session) {
    uint32_t window = session->window ? session->window * 2 : WINDOW_FIRST;
    if (window > R2P2_SESSION_WINDOW_MAX) return R2P2_ERROR_FULL;
    uint64_t *ended = calloc(window / 64, sizeof *ended), *word;
    if (!ended) return R2P2_ERROR_NO_MEMORY;
    for (uint64_t sequence = session->oldest_pending; sequence < session->next_sequence; sequence++)
        if (bit_of(session, sequence, &word) & *word)
            ended[(sequence & (window - 1)) >> 6] |= (uint64_t)1 << (sequence & 63);
    free(session->ended);
    session->ended = ended;
    session->window = window;
    return 0;
}

uint64_t r2p2_client_session_take(r2p2_client_session *session) {
    if (session->next_sequence - session->oldest_pending == session->window && window_grow(session)) return 0;
    session->waiting_count++;
    return session->next_sequence++;
}

void r2p2_client_session_ended(r2p2_client_session *session, uint64_t sequence) {
    uint64_t *word, bit = bit_of(session, sequence, &word);
    *word |= bit;
    while (session->oldest_pending < session->next_sequence) {
        bit = bit_of(session, session->oldest_pending, &word);
        if (!(*word & bit)) return;
        *word &= ~bit;
        session->oldest_pending++;
    }
}

int32_t r2p2_client_session_renew(r2p2_client_session *session) {
    if (session->state != R2P2_SESSION_EXPIRED) return R2P2_ERROR_STATE;
    session->state = R2P2_SESSION_NEW;
    session->client_id = 0;
    session->oldest_pending = session->next_sequence; /* not from the first again: see r2p2_session_new */
    if (session->window) memset(session->ended, 0, session->window / 8);
    return R2P2_OK;
}

const r2p2_target *r2p2_client_session_rotate(r2p2_client_session *session, uint32_t asked_ip, uint16_t asked_port,
                                              uint64_t since_ns, uint64_t now_ns) {
    const r2p2_target *current = &session->targets[session->current];
    if (current->ip == asked_ip && current->port == asked_port && session->heard_ns <= since_ns &&
        now_ns - session->rotated_ns >= R2P2_ROTATE_NS) {
        session->heard_ns = 0;
        session->current = (session->current + 1) % session->targets_count;
        session->rotated_ns = now_ns;
    }
    return &session->targets[session->current];
}

void r2p2_client_session_learn(r2p2_client_session *session, uint32_t ip, uint16_t port, uint64_t sent_ns, uint64_t now_ns) {
    const r2p2_target *current = &session->targets[session->current];
    uint64_t window_ns = now_ns - session->window_ns, took_ns = now_ns - sent_ns;
    if (window_ns >= R2P2_ANSWERS_WINDOW_NS) {
        session->answer_before_ns = window_ns < 2 * R2P2_ANSWERS_WINDOW_NS ? session->answer_ns : 0;
        session->answer_ns = 0;
        session->window_ns = now_ns;
    }
    if (took_ns > session->answer_ns) session->answer_ns = took_ns;
    session->heard_ns = now_ns;
    if (current->ip == ip && current->port == port) return;
    for (uint32_t i = 0; i < session->targets_count; i++)
        if (session->targets[i].ip == ip && session->targets[i].port == port) session->current = i;
}
