/*
 * What Python sees of the log's time (docs/log-time.md). Unix milliseconds. Plain declarations: cffi parses this file.
 */

/* Unix time minus the port's clock, ns, from now on. Before the first call entries get no time. */
void r2p2_set_clock(r2p2_engine *engine, int64_t offset_ns);
/* The time that an entry appended now would carry: never less than the log's. */
uint64_t r2p2_stamp_ms(r2p2_engine *engine);
/* The largest time that any entry of this member's log has carried, and that of the applied index; 0: none. */
uint64_t r2p2_log_time_ms(r2p2_engine *engine);
uint64_t r2p2_applied_time_ms(r2p2_engine *engine);
/* Appends a no-op that carries the time. R2P2_ERROR_STATE: the time has not moved on, nothing was appended. */
int32_t r2p2_log_append_time(r2p2_engine *engine);
/* Appends all entries of a forwarded message (r2p2_raft_check first: none carries a time), with the time where that has moved on. Returns
 * how many. */
int64_t r2p2_log_append_forwarded(r2p2_engine *engine, uint32_t handle, uint32_t header_bytes);
