/* The router's counters: one name each, the same on every port. Every datagram that ends here ends in one of them. */
#ifndef R2P2_ROUTER_COUNTERS_H
#define R2P2_ROUTER_COUNTERS_H

#include <stdint.h>

#define R2P2_ROUTER_COUNTERS(X)                                                                                        \
    X(rx_bad_short, "datagrams shorter than an R2P2 header")                                                           \
    X(rx_bad_magic, "datagrams whose first byte is not 0xCC")                                                          \
    X(rx_bad_header_size, "header_size below 8 or beyond the datagram")                                                \
    X(rx_bad_type, "unknown message types")                                                                            \
    X(rx_bad_policy, "unknown policies")                                                                               \
    X(rx_bad_flags, "flags that contradict p_order, unknown flags, or ACKs and DROPs of several packets")              \
    X(rx_bad_order, "p_order of 0, beyond 254, or beyond the message")                                                 \
    X(rx_bad_length, "packets with more payload than a packet holds")                                                  \
    X(rx_bad_source, "requests from UDP port 0, which nobody can answer")                                              \
    X(rx_unexpected, "messages of a type that does not come here (Raft; in direct mode answers)")                      \
    X(rx_wrong_port, "datagrams to a UDP port that is neither the router's nor its control port")                      \
    X(rx_unmatched, "answers and later packets of requests that are not on their way")                                 \
    X(rx_stranger, "answers from an address that is no server's")                                                      \
    X(feedback, "FEEDBACK that ended a request or gave its slot back")                                                 \
    X(feedback_malformed, "FEEDBACK that is too short, or something else sent to the control port")                    \
    X(feedback_stranger, "FEEDBACK from an address that is no server's")                                               \
    X(feedback_unmatched, "FEEDBACK about a request that has ended; in relay mode normal: its answer came first")      \
    X(requests, "requests received from clients, counted by their first packets")                                      \
    X(requests_replicated, "of these, with a replicated policy")                                                       \
    X(requests_sent, "requests sent on to a server")                                                                   \
    X(requests_repeated, "first packets of requests already on their way (sent to the same server again) or queued")   \
    X(requests_queued, "requests that had to wait for a slot")                                                         \
    X(requests_answered, "requests whose answer was passed on whole, or that FEEDBACK ended")                          \
    X(requests_dropped, "requests that a server refused with DROP")                                                    \
    X(requests_expired, "requests given up without an answer in time")                                                 \
    X(packets_passed, "packets passed on for messages already begun: later packets, ACKs, answers")                    \
    X(drops_no_server, "requests refused: no server is up")                                                            \
    X(drops_queue_full, "requests refused: too many wait for a slot")                                                  \
    X(drops_queue_timeout, "requests refused: waited too long for a slot")                                             \
    X(drops_pending_full, "requests refused: too many are on their way")                                               \
    X(servers_out, "times a server was put out")                                                                       \
    X(servers_back, "times a server came back")                                                                        \
    X(leader_changes, "times replicated requests were turned to another server")                                       \
    X(tx_drop_no_buffer, "packets not sent because the port had no buffer")

typedef struct r2p2_router_counters {
#define R2P2_ROUTER_FIELD(name, help) uint64_t name;
    R2P2_ROUTER_COUNTERS(R2P2_ROUTER_FIELD)
#undef R2P2_ROUTER_FIELD
} r2p2_router_counters;

#endif
