/*
 * What Python sees of the calls for configurations and snapshots: bytes of received messages that Python itself reads, entries
 * that are the leader's own, a log that begins anew behind a snapshot. Plain declarations: cffi parses this file.
 */

/* The length of a whole received message; 0 for a handle that names none. */
uint32_t r2p2_raft_length(r2p2_engine *engine, uint32_t handle);
/* Copies `length` bytes at `offset` of a received message out. R2P2_ERROR_RANGE beyond its end. */
int32_t r2p2_raft_copy(r2p2_engine *engine, uint32_t handle, uint32_t offset, uint8_t *out, uint32_t length);
/* Of a message that r2p2_raft_check accepted: the length of the configuration that is its only entry, else 0. */
uint32_t r2p2_raft_configuration(r2p2_engine *engine, uint32_t handle, uint32_t header_bytes);
/* Appends a configuration. R2P2_ERROR_FULL: nothing was appended. */
int32_t r2p2_log_append_configuration(r2p2_engine *engine, const uint8_t *body, uint32_t length);
/* Forgets every entry and what was applied: the log begins behind `index`, which counts as applied with `digest` and the log's time
 * `time_ms`. */
int32_t r2p2_log_reset(r2p2_engine *engine, uint64_t index, uint64_t digest, uint64_t time_ms);
/* Forgets the prepared batch: a restored snapshot replaces what it would have done, and the session table, which it has changed already. */
void r2p2_apply_abandon(r2p2_engine *engine);
/* Appends a no-op with a body, which means nothing to the engine. R2P2_ERROR_FULL: nothing was appended. */
int32_t r2p2_log_append_note(r2p2_engine *engine, const uint8_t *body, uint32_t length);
