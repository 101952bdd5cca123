/* The engine's counters: one name each, the same on every port. rx_bad_* and *_drop_* are reasons for a drop. */
#ifndef R2P2_COUNTERS_H
#define R2P2_COUNTERS_H

#include <stdint.h>

#define R2P2_ENGINE_COUNTERS(X)                                                                                        \
    X(rx_bad_short, "datagrams shorter than an R2P2 header")                                                           \
    X(rx_bad_magic, "datagrams whose first byte is not 0xCC")                                                          \
    X(rx_bad_header_size, "header_size below 8 or beyond the datagram")                                                \
    X(rx_bad_type, "unknown message types")                                                                            \
    X(rx_bad_policy, "unknown policies")                                                                               \
    X(rx_bad_flags, "flags that contradict p_order, or unknown flags")                                                 \
    X(rx_bad_order, "p_order of 0, beyond 254, or beyond the message")                                                 \
    X(rx_bad_length, "packets of a multi-packet message without payload or with too much")                             \
    X(rx_bad_session, "requests whose session extension contradicts itself or leaves its window")                      \
    X(rx_bad_raft, "Raft messages that are empty or shorter than the head of all of them")                             \
    X(raft_bad_version, "Raft messages, or first packets of them, dropped: of another version")                        \
    X(raft_bad_cluster, "Raft messages, or first packets of them, dropped: of another cluster")                        \
    X(rx_unexpected, "messages of a type that this side does not take (FEEDBACK, Raft without a group)")               \
    X(rx_duplicate_packets, "packets of a half message that were there already")                                       \
    X(rx_replaced_halves, "half messages replaced by a new one with the same key")                                     \
    X(rx_expired_halves, "half messages that did not become whole in time")                                            \
    X(rx_evicted_halves, "half messages of one packet, of no first one or of strangers that gave way for want of room")\
    X(rx_drop_source_quota, "packets refused because their source had its quota of half messages")                     \
    X(rx_drop_reassembly_full, "packets refused because half messages were at their bound")                            \
    X(rx_drop_raft_full, "Raft messages refused because a poll's lane was full")                                       \
    X(rx_requests_waited, "requests of several packets that waited for their ACK: enough was on its way")              \
    X(rx_requests, "whole requests received")                                                                          \
    X(rx_requests_replicated, "of these, with the replicated policy")                                                  \
    X(rx_requests_read, "of these, linearizable reads (policy 3)")                                                     \
    X(rx_raft_messages, "whole Raft messages received")                                                                \
    X(rx_responses, "whole responses that matched a call")                                                             \
    X(rx_unmatched, "responses, ACKs and DROPs without a call waiting for them; ACKs that come again")                 \
    X(tx_messages, "messages sent, of any type")                                                                       \
    X(tx_drop_no_buffer, "packets not sent because the port had no buffer")                                            \
    X(requests_unanswered, "requests that the application was given and did not answer before the next batch")         \
    X(drops_no_service, "requests refused: replicated policy without a Raft group")                                    \
    X(drops_no_leader, "requests refused: no leader known in time")                                                    \
    X(drops_backlog, "requests refused: too many entries not applied yet")                                             \
    X(drops_log_full, "requests refused: the log is at its bound")                                                     \
    X(drops_storage_full, "requests refused: the disk's share is used up (no snapshot makes room)")                    \
    X(drops_openings, "openings of sessions refused: too many, of all or of one address; they are sent again")          \
    X(drops_hold_full, "requests refused: too many held for forwarding")                                               \
    X(drops_reads_full, "reads refused: too many wait already")                                                       \
    X(drops_reads_unconfirmed, "reads refused: no leader confirmed them in time")                                      \
    X(drops_forwarded, "forwarded requests refused because this member is not the leader")                             \
    X(drops_application, "requests the application refused")                                                           \
    X(reads_answered, "reads answered by this member")                                                                 \
    X(sessions_opened, "sessions opened")                                                                              \
    X(sessions_evicted, "sessions ended to keep the bounds on their number and bytes")                                 \
    X(sessions_executed, "requests of sessions given to the application")                                              \
    X(sessions_duplicates, "requests of sessions that had been executed: answered from the kept reply")                \
    X(sessions_answered_early, "of the leader's, before they reached the log; not in sessions_duplicates")            \
    X(sessions_stale, "requests of sessions below oldest_pending: nobody of that session waits for them")              \
    X(sessions_expired, "requests of sessions that are not there any more: refused for good")                          \
    X(log_appended, "entries appended to the log")                                                                     \
    X(log_recovered, "entries read back from the disk at the start")                                                   \
    X(log_time_stamps, "entries that this member, leading, gave a time")                                               \
    X(log_time_slow, "of these, at half speed: this member's clock is behind the log's time")                          \
    X(log_time_jumps, "of these, more than a second beyond the time that had passed: some clock was wrong")            \
    X(log_applied, "entries applied")                                                                                  \
    X(forwarded_requests, "requests sent on to the leader")                                                            \
    X(client_calls, "calls made")                                                                                      \
    X(client_retries, "requests sent again because no answer came")                                                    \
    X(client_expired, "calls of sessions that the servers have ended")                                                 \
    X(client_refusals, "refusals of calls of sessions, or sent more than once: sent again")                            \
    X(rx_stale_answers, "answers to another request than the one that waits under their number")                      \
    X(rx_bad_sender, "answers from somebody whom the client does not trust")                                           \
    X(feedbacks, "FEEDBACK messages sent to the router")                                                               \
    X(client_timeouts, "calls without an answer in time")                                                              \
    X(client_dropped, "calls refused by a server")

typedef struct r2p2_engine_counters {
#define R2P2_ENGINE_FIELD(name, help) uint64_t name;
    R2P2_ENGINE_COUNTERS(R2P2_ENGINE_FIELD)
#undef R2P2_ENGINE_FIELD
} r2p2_engine_counters;

#endif
