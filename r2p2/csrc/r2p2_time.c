/* The log's time. See r2p2_time.h and docs/log-time.md. */
#include "r2p2_engine.h"

#define NS_PER_MS 1000000u

void r2p2_time_look(r2p2_engine *engine, int is_old) {
    r2p2_stamps *stamps = &engine->stamps;
    if (stamps->seen_ms == engine->log.time_ms) return;
    stamps->seen_ms = engine->log.time_ms;
    stamps->seen_ns = engine->now_ns;
    stamps->is_old = is_old;
}

/* This member's clock; 0 before 1970. */
static uint64_t clock_ms(const r2p2_engine *engine) {
    int64_t unix_ns = (int64_t)engine->now_ns + engine->stamps.offset_ns;
    if (unix_ns < 0) return 0;
    uint64_t unix_ms = (uint64_t)unix_ns / NS_PER_MS;
    return unix_ms < R2P2_TIME_MS_MAX ? unix_ms : R2P2_TIME_MS_MAX;
}

/* Behind the log's time, a clock does not hold it still: it goes on at half speed until the clock has caught up. */
static uint64_t stamp_ms(const r2p2_engine *engine) {
    uint64_t now_ms = clock_ms(engine), log_ms = engine->log.time_ms;
    if (now_ms > log_ms) return now_ms;
    uint64_t slow_ms = log_ms + (engine->now_ns - engine->stamps.seen_ns) / (2 * NS_PER_MS);
    return slow_ms < R2P2_TIME_MS_MAX ? slow_ms : R2P2_TIME_MS_MAX;
}

/* Counts a stamp that was written at log time `before_ms`, and when the next is due. */
static void stamped(r2p2_engine *engine, uint64_t before_ms) {
    r2p2_stamps *stamps = &engine->stamps;
    uint64_t passed_ms = (engine->now_ns - stamps->seen_ns) / NS_PER_MS, time_ms = engine->log.time_ms;
    engine->counters.log_time_stamps++;
    if (time_ms > clock_ms(engine)) engine->counters.log_time_slow++;
    if (before_ms && !stamps->is_old && time_ms > before_ms + passed_ms + R2P2_TIME_JUMP_MS)
        engine->counters.log_time_jumps++;
    r2p2_time_look(engine, 0);
}

/* Whether an entry that is appended now is to carry a time: then it is put in. */
static int stamp(r2p2_engine *engine, r2p2_entry *entry) {
    r2p2_stamps *stamps = &engine->stamps;
    if (engine->now_ns < stamps->due_ns) return 0;
    r2p2_time_look(engine, 0);
    int64_t unix_ns = (int64_t)engine->now_ns + stamps->offset_ns;
    /* The next millisecond of the clock. */
    stamps->due_ns = engine->now_ns + NS_PER_MS - (unix_ns > 0 ? (uint64_t)unix_ns % NS_PER_MS : 0);
    uint64_t time_ms = stamp_ms(engine);
    if (time_ms <= engine->log.time_ms) return 0;
    entry->flags = R2P2_ENTRY_TIMED;
    entry->time_ms = time_ms;
    entry->body_length += R2P2_TIME_BYTES;
    return 1;
}

int r2p2_append_stamped(r2p2_engine *engine, r2p2_entry entry, const uint8_t *body) {
    uint64_t before_ms = engine->log.time_ms;
    int is_stamped = stamp(engine, &entry), status = r2p2_log_append(&engine->log, &entry, body);
    if (is_stamped && !status) stamped(engine, before_ms);
    return status;
}

int r2p2_append_wire_at_time(r2p2_engine *engine, const uint8_t *entries, uint64_t length, uint64_t count) {
    if (count == 0 || engine->now_ns < engine->stamps.due_ns)
        return r2p2_log_append_wire(&engine->log, entries, length, count);
    r2p2_entry first;
    r2p2_entry_decode(entries, &first);
    if (first.flags) return R2P2_ERROR_MALFORMED; /* it has a time already, which only a leader gives */
    uint64_t bytes = r2p2_entry_bytes(first.body_length), index = engine->log.last_index + 1;
    int status = r2p2_append_stamped(engine, first, entries + R2P2_ENTRY_HEADER_BYTES);
    if (status) return status;
    status = r2p2_log_append_wire(&engine->log, entries + bytes, length - bytes, count - 1);
    if (status) r2p2_log_truncate(&engine->log, index); /* all or none */
    return status;
}

void r2p2_set_clock(r2p2_engine *engine, int64_t offset_ns) {
    engine->stamps.offset_ns = offset_ns;
    engine->stamps.due_ns = 0;
}

uint64_t r2p2_stamp_ms(r2p2_engine *engine) {
    r2p2_time_look(engine, 0);
    return stamp_ms(engine);
}

uint64_t r2p2_log_time_ms(r2p2_engine *engine) { return engine->log.time_ms; }
uint64_t r2p2_applied_time_ms(r2p2_engine *engine) { return engine->applied_time_ms; }
