/*
 * What durable mode needs of the engine: the bytes of entries for the disk, entries from the disk back into the log, and new
 * requests refused while the disk's share is used up. When to do which is Python's (r2p2/node/durability.py).
 */
#include "r2p2_engine.h"

int64_t r2p2_log_copy(r2p2_engine *engine, uint64_t first_index, uint64_t last_index, uint8_t *out, uint64_t room) {
    const r2p2_log *log = &engine->log;
    if (first_index < log->first_index || last_index > log->last_index || first_index > last_index) return R2P2_ERROR_RANGE;
    uint64_t position = r2p2_log_position(log, first_index);
    uint64_t length = r2p2_log_position(log, last_index + 1) - position;
    if (length > room) return R2P2_ERROR_TOO_LARGE;
    r2p2_log_read(log, position, out, length);
    return (int64_t)length;
}

int32_t r2p2_log_append_raw(r2p2_engine *engine, const uint8_t *entries, uint64_t length, uint64_t count) {
    if (!r2p2_entries_check(entries, length, count)) return R2P2_ERROR_MALFORMED;
    int32_t status = r2p2_log_append_wire(&engine->log, entries, length, count);
    if (status == R2P2_OK) engine->counters.log_recovered += count;
    r2p2_time_look(engine, 1);
    return status;
}

void r2p2_set_storage(r2p2_engine *engine, uint64_t log_bytes) {
    engine->has_storage = 1;
    engine->storage_head = engine->log.tail - log_bytes;
}
