/*
 * Committed entries: out of the log, through the session table, which answers what has been executed already, to the application; its replies
 * back to who asked. The digest of all that was applied.
 */
#include <stdlib.h>

#include "r2p2_engine.h"

/* ---- apply ---- */

static inline uint64_t mix(uint64_t h, uint64_t word) {
    h = (h ^ word) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 32;
}

/* Chains an entry's wire bytes: a multiple of 8. Not cryptographic: it finds replicas that differ, not forgers. An entry's own digest
 * does not wait for that of the one before, and is two chains side by side, so that a processor works on several multiplications at once. */
static uint64_t digest_bytes(uint64_t h, const uint8_t *data, uint64_t length) {
    uint64_t even = 0x243f6a8885a308d3u, odd = 0x13198a2e03707344u, i = 0, words[2];
    for (; i + sizeof words <= length; i += sizeof words) {
        memcpy(words, data + i, sizeof words);
        even = mix(even, words[0]);
        odd = mix(odd, words[1]);
    }
    if (i < length) {
        memcpy(words, data + i, sizeof words[0]);
        even = mix(even, words[0]);
    }
    return mix(h, mix(even, odd));
}

/* The next answer to fill in, or NULL: no memory. */
static r2p2_answer *answer_next(r2p2_engine *engine) {
    if (engine->answers_count == engine->answers_capacity) {
        uint32_t capacity = engine->answers_capacity ? engine->answers_capacity * 2 : R2P2_APPLY_BATCH_ENTRIES_MAX;
        r2p2_answer *grown = realloc(engine->answers, capacity * sizeof *grown);
        if (!grown) return NULL;
        engine->answers = grown;
        engine->answers_capacity = capacity;
    }
    return &engine->answers[engine->answers_count++];
}

/* A committed request of a session: whether the application gets it, and what its client is answered. 1: it gets it. */
static int session_entry(r2p2_engine *engine, uint64_t index, const r2p2_session_extension *extension,
                         r2p2_answer *answer) {
    r2p2_engine_counters *counters = &engine->counters;
    engine->answers_sessions++;
    answer->id = extension->client_id;
    answer->sequence = extension->sequence;
    if (extension->client_id == 0) {
        if (r2p2_sessions_open(&engine->sessions, index)) return R2P2_ERROR_NO_MEMORY;
        answer->kind = R2P2_ANSWER_OPENED;
        answer->id = index;
        return 0;
    }
    switch (r2p2_sessions_begin(&engine->sessions, extension, &answer->session)) {
    case R2P2_BEGIN_RUN:
        counters->sessions_executed++;
        answer->kind = R2P2_ANSWER_SESSION;
        return 1;
    case R2P2_BEGIN_DUPLICATE:
        counters->sessions_duplicates++;
        answer->kind = R2P2_ANSWER_KEPT;
        return 0;
    case R2P2_BEGIN_STALE:
        /* Who waits for it all the same is not whose session this is, but one that was given the same id by members that have since
         * begun anew. The other, which does not wait, takes no notice. */
        counters->sessions_stale++;
        answer->kind = R2P2_ANSWER_EXPIRED;
        return 0;
    case R2P2_BEGIN_EXPIRED:
        counters->sessions_expired++;
        answer->kind = R2P2_ANSWER_EXPIRED;
        return 0;
    default:
        return R2P2_ERROR_NO_MEMORY;
    }
}

int32_t r2p2_apply_prepare(r2p2_engine *engine, uint64_t last_index, uint32_t entries_max, r2p2_batch *batch) {
    if (last_index > engine->log.last_index) return R2P2_ERROR_RANGE;
    if (engine->applying_last) return R2P2_ERROR_STATE;
    r2p2_requests_clear(&engine->applying);
    engine->answers_count = engine->answers_sessions = 0;
    uint64_t index = engine->applied_index, digest = engine->applied_digest, end = last_index;
    uint64_t time_ms = engine->applied_time_ms;
    if (last_index > index && last_index - index > entries_max) end = index + entries_max;
    /* Not beyond the index at which every replica holds its kept replies to their bound. */
    uint64_t cut = index - index % R2P2_APPLY_BATCH_ENTRIES_MAX + R2P2_APPLY_BATCH_ENTRIES_MAX;
    if (end > cut) end = cut;
    while (index < end) {
        uint64_t position = r2p2_log_position(&engine->log, index + 1);
        uint64_t bytes = r2p2_log_position(&engine->log, index + 2) - position;
        const uint8_t *wire = r2p2_log_view(&engine->log, position, bytes);
        if (!wire) {
            engine->scratch.length = 0;
            if (r2p2_buffer_reserve(&engine->scratch, bytes)) return R2P2_ERROR_NO_MEMORY;
            r2p2_log_read(&engine->log, position, engine->scratch.data, bytes);
            wire = engine->scratch.data;
        }
        r2p2_entry entry;
        r2p2_entry_decode(wire, &entry);
        const uint8_t *body = wire + R2P2_ENTRY_HEADER_BYTES;
        if (entry.flags & R2P2_ENTRY_TIMED) {
            /* A batch has one time. It goes on as the maximum, whatever a leader wrote. */
            if (r2p2_entry_time(wire) > time_ms) {
                if (engine->applying.count > 0) break;
                time_ms = r2p2_entry_time(wire);
            }
            body += R2P2_TIME_BYTES;
            entry.body_length -= R2P2_TIME_BYTES;
        }
        digest = digest_bytes(digest, wire, bytes);
        index++;
        if (entry.kind != R2P2_ENTRY_REQUEST && entry.kind != R2P2_ENTRY_SESSION) continue;
        r2p2_answer *answer = answer_next(engine);
        if (!answer) return R2P2_ERROR_NO_MEMORY;
        *answer = (r2p2_answer){
            .asker = {.ip = entry.client_ip, .port = entry.client_port, .rid = entry.rid, .policy = entry.policy}};
        if (entry.kind == R2P2_ENTRY_SESSION) {
            r2p2_session_extension extension = r2p2_session_read(body);
            int runs = session_entry(engine, index, &extension, answer);
            if (runs < 0) return runs;
            if (!runs) continue;
            body += R2P2_SESSION_BYTES;
            entry.body_length -= R2P2_SESSION_BYTES;
        }
        if (r2p2_requests_add(&engine->applying, &answer->asker, body, entry.body_length)) return R2P2_ERROR_NO_MEMORY;
    }
    engine->applying_last = index > engine->applied_index ? index : 0;
    engine->applying_digest = digest;
    engine->applying_time_ms = time_ms;
    batch->slab = engine->applying.slab.data;
    batch->lengths = engine->applying.lengths;
    batch->policies = engine->applying.policies;
    batch->askers = (const uint8_t *)engine->applying.askers;
    batch->slab_bytes = engine->applying.slab.length;
    batch->requests_count = engine->applying.count;
    batch->entries_count = index - engine->applied_index;
    batch->last_index = index;
    batch->time_ms = time_ms;
    return R2P2_OK;
}

#define EXPIRED_WORD "SESSION_EXPIRED"

static void session_send(r2p2_engine *engine, const r2p2_answer *answer) {
    r2p2_session_extension extension = {answer->id, answer->sequence, 0};
    if (answer->kind == R2P2_ANSWER_EXPIRED) {
        r2p2_session_answer(engine, &answer->asker, &extension, R2P2_TYPE_DROP, (const uint8_t *)EXPIRED_WORD,
                            sizeof EXPIRED_WORD - 1);
    } else if (answer->kind == R2P2_ANSWER_OPENED) {
        uint8_t id[8];
        r2p2_store_u64(id, answer->id);
        extension = (r2p2_session_extension){0, 0, 0};
        r2p2_session_answer(engine, &answer->asker, &extension, R2P2_TYPE_RESPONSE, id, sizeof id);
    } else {
        const uint8_t *reply;
        const r2p2_kept *kept =
            r2p2_sessions_kept(&engine->sessions, answer->session, answer->id, answer->sequence, &reply);
        if (!kept) return; /* the client has passed it within this batch */
        r2p2_session_answer(engine, &answer->asker, &extension,
                            kept->state == R2P2_KEPT_REFUSAL ? R2P2_TYPE_DROP : R2P2_TYPE_RESPONSE, reply, kept->length);
    }
}

/* Keeps the replies to requests of sessions and, on the leader, answers everybody, in log order. */
static int32_t answers_give(r2p2_engine *engine, const uint8_t *slab, const uint32_t *lengths, int32_t send) {
    uint64_t taken = 0;
    for (uint32_t i = 0; i < engine->answers_count; i++) {
        const r2p2_answer *answer = &engine->answers[i];
        if (answer->kind > R2P2_ANSWER_SESSION) {
            if (send) session_send(engine, answer);
            continue;
        }
        uint32_t length = lengths[taken++], is_refused = length >= R2P2_REPLY_NONE;
        const uint8_t *reply = slab;
        if (!is_refused) slab += length;
        if (answer->kind == R2P2_ANSWER_PLAIN) {
            if (send) r2p2_reply_send(engine, &answer->asker, reply, length);
            continue;
        }
        /* Evicted or passed since, its reply is not kept; whoever asked gets it all the same. */
        int32_t status = r2p2_sessions_end(&engine->sessions, answer->session, answer->id, answer->sequence, reply,
                                           is_refused ? 0 : length, (int)is_refused);
        if (status) return status;
        if (!send) continue;
        r2p2_session_extension extension = {answer->id, answer->sequence, 0};
        r2p2_session_answer(engine, &answer->asker, &extension, is_refused ? R2P2_TYPE_DROP : R2P2_TYPE_RESPONSE, reply,
                            is_refused ? 0 : length);
    }
    return R2P2_OK;
}

int32_t r2p2_apply_reply(r2p2_engine *engine, const uint8_t *slab, uint64_t slab_bytes, const uint32_t *lengths,
                         uint64_t count, int32_t send) {
    if (engine->applying_last == 0) return R2P2_ERROR_STATE;
    int32_t status = r2p2_replies_check(&engine->applying, slab_bytes, lengths, count, R2P2_REPLICATED_REPLY_BYTES_MAX);
    if (status) return status;
    if (send || engine->answers_sessions) status = answers_give(engine, slab, lengths, send);
    if (status) return status;
    if (engine->applying_last % R2P2_APPLY_BATCH_ENTRIES_MAX == 0) r2p2_sessions_bound(&engine->sessions);
    engine->counters.sessions_opened = engine->sessions.opened;
    engine->counters.sessions_evicted = engine->sessions.evicted;
    engine->counters.log_applied += engine->applying_last - engine->applied_index;
    engine->applied_index = engine->applying_last;
    engine->applied_digest = engine->applying_digest;
    engine->applied_time_ms = engine->applying_time_ms;
    engine->applying_last = 0;
    r2p2_requests_clear(&engine->applying);
    return R2P2_OK;
}

/* ---- the session table ---- */

uint64_t r2p2_sessions_export(r2p2_engine *engine, uint8_t *out, uint64_t room) {
    if (engine->applying_last) return 0; /* replies are not known */
    return r2p2_sessions_save(&engine->sessions, out, room);
}

int32_t r2p2_sessions_import(r2p2_engine *engine, uint64_t through_index, const uint8_t *data, uint64_t length) {
    if (engine->applying_last) return R2P2_ERROR_STATE;
    return r2p2_sessions_load(&engine->sessions, through_index, data, length);
}

uint64_t r2p2_sessions_size(r2p2_engine *engine, uint64_t *bytes) {
    *bytes = r2p2_sessions_bytes(&engine->sessions);
    return engine->sessions.count;
}

uint64_t r2p2_applied_index(r2p2_engine *engine) { return engine->applied_index; }
uint64_t r2p2_applied_digest(r2p2_engine *engine) { return engine->applied_digest; }
