/*
 * Configurations and snapshots below Raft: Python decodes both, so their bytes go through here whole, and a restored snapshot
 * sets the log and the applied index anew. Leaves to others: what the bytes mean (raft/, r2p2/node/snapshots.py).
 */
#include "r2p2_engine.h"
#include "r2p2_install.h"

static const r2p2_raft_slot *slot_of(const r2p2_engine *engine, uint32_t handle) {
    return handle < engine->raft_count ? &engine->raft[handle] : NULL;
}

uint32_t r2p2_raft_length(r2p2_engine *engine, uint32_t handle) {
    const r2p2_raft_slot *slot = slot_of(engine, handle);
    return slot ? slot->length : 0;
}

int32_t r2p2_raft_copy(r2p2_engine *engine, uint32_t handle, uint32_t offset, uint8_t *out, uint32_t length) {
    const r2p2_raft_slot *slot = slot_of(engine, handle);
    if (!slot) return R2P2_ERROR_ARGUMENT;
    if (offset > slot->length || length > slot->length - offset) return R2P2_ERROR_RANGE;
    if (length) memcpy(out, slot->data + offset, length);
    return R2P2_OK;
}

uint32_t r2p2_raft_configuration(r2p2_engine *engine, uint32_t handle, uint32_t header_bytes) {
    const r2p2_raft_slot *slot = slot_of(engine, handle);
    if (!slot || slot->checked_bytes != header_bytes || slot->length - header_bytes < R2P2_ENTRY_HEADER_BYTES) return 0;
    r2p2_entry entry;
    r2p2_entry_decode(slot->data + header_bytes, &entry);
    return entry.kind == R2P2_ENTRY_CONFIGURATION ? entry.body_length : 0;
}

int32_t r2p2_log_append_configuration(r2p2_engine *engine, const uint8_t *body, uint32_t length) {
    if (length == 0 || length > R2P2_CONFIGURATION_BYTES_MAX) return R2P2_ERROR_ARGUMENT;
    r2p2_entry entry = {.kind = R2P2_ENTRY_CONFIGURATION, .body_length = length};
    int status = r2p2_log_append(&engine->log, &entry, body);
    if (!status) engine->counters.log_appended++;
    return status;
}

int32_t r2p2_log_reset(r2p2_engine *engine, uint64_t index, uint64_t digest, uint64_t time_ms) {
    if (engine->applying_last) return R2P2_ERROR_STATE; /* a batch is with the application */
    if (index < engine->applied_index) return R2P2_ERROR_RANGE;
    if (time_ms > R2P2_TIME_MS_MAX) return R2P2_ERROR_ARGUMENT;
    r2p2_log_begin_behind(&engine->log, index);
    engine->applied_index = index;
    engine->applied_digest = digest;
    engine->applied_time_ms = time_ms;
    if (time_ms > engine->log.time_ms) engine->log.time_ms = time_ms;
    r2p2_time_look(engine, 1);
    return R2P2_OK;
}

void r2p2_apply_abandon(r2p2_engine *engine) {
    engine->applying_last = 0;
    r2p2_requests_clear(&engine->applying);
}

int32_t r2p2_log_append_note(r2p2_engine *engine, const uint8_t *body, uint32_t length) {
    if (length == 0 || length > R2P2_CONFIGURATION_BYTES_MAX) return R2P2_ERROR_ARGUMENT;
    r2p2_entry entry = {.kind = R2P2_ENTRY_NOOP, .body_length = length};
    int status = r2p2_log_append(&engine->log, &entry, body);
    if (!status) engine->counters.log_appended++;
    return status;
}
