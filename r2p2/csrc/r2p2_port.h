/*
 * The port: the one interface between the engine and whatever carries datagrams.
 *
 * A backend fills a struct r2p2_port in its own C and hands its address to the engine as an integer; bursts never pass
 * through Python. Addresses are IPv4 in host byte order, UDP ports are in host byte order, times are nanoseconds.
 *
 * Ownership: an rx packet belongs to the engine from rx_burst until rx_release; a tx packet belongs to the engine from
 * tx_reserve until tx_commit. `owner` is the port's own handle (an mbuf, a slot); the engine only carries it.
 * A port never blocks and never calls back.
 */
#ifndef R2P2_PORT_H
#define R2P2_PORT_H

#include <stdint.h>

#define R2P2_PORT_ABI 3u

typedef struct r2p2_rx_packet {
    const uint8_t *data; /* the UDP payload: one R2P2 packet */
    uint32_t length;     /* its bytes, 0..65507; the engine validates */
    uint32_t source_ip;
    uint16_t source_port;
    uint16_t local_port; /* the UDP port it was sent to */
    void *owner;
} r2p2_rx_packet;

typedef struct r2p2_tx_packet {
    uint8_t *data;   /* room for R2P2_DATAGRAM_BYTES_MAX bytes, filled by the engine */
    uint32_t length; /* bytes filled in; 0 at tx_commit hands the packet back unsent */
    uint32_t target_ip;
    uint16_t target_port;
    uint16_t local_port; /* the UDP port it leaves from; 0: the port's first one */
    uint32_t source_ip;  /* 0 (as reserved): the port's own; else somebody's, and local_port is theirs: for a router. A port
                            that cannot send as somebody else drops it and counts tx_drop_error. */
    void *owner;
} r2p2_tx_packet;

typedef struct r2p2_port_target {
    uint32_t ip;
    uint16_t port;
    uint16_t reserved; /* 0 */
} r2p2_port_target;

/* One counter, one name, the same on every backend; a backend leaves at 0 what cannot happen to it.
 * rx_drop_* are datagrams (or frames) the port itself refused, by reason. */
#define R2P2_PORT_COUNTERS(X)                                                                                          \
    X(rx_packets, "datagrams handed to the engine")                                                                    \
    X(rx_bytes, "their UDP payload bytes")                                                                             \
    X(tx_packets, "datagrams taken by the device or the kernel")                                                       \
    X(tx_bytes, "their UDP payload bytes")                                                                             \
    X(tx_drop_full, "datagrams the device or the kernel did not take")                                                 \
    X(tx_drop_no_route, "datagrams to an address without a route or a neighbour")                                      \
    X(tx_drop_error, "datagrams refused by the device or the kernel with an error")                                    \
    X(tx_reserve_failed, "times no transmit buffer was free")                                                          \
    X(rx_drop_truncated, "frames or datagrams shorter than their headers say, or cut by the buffer")                   \
    X(rx_drop_not_ipv4, "frames that are neither IPv4 nor ARP")                                                        \
    X(rx_drop_bad_ip, "IPv4 headers with a bad version, length, checksum or TTL")                                      \
    X(rx_drop_fragment, "IPv4 fragments")                                                                              \
    X(rx_drop_not_udp, "IPv4 packets that are neither UDP nor ICMP echo")                                              \
    X(rx_drop_bad_udp, "UDP headers with a bad length")                                                                \
    X(rx_drop_bad_checksum, "UDP datagrams with a wrong checksum")                                                     \
    X(rx_drop_foreign_address, "packets to an address that is not ours")                                               \
    X(rx_drop_no_listener, "datagrams to a UDP port nobody opened")                                                    \
    X(rx_drop_kernel, "datagrams the kernel dropped before we read them")                                              \
    X(arp_requests, "ARP requests answered")                                                                           \
    X(arp_replies, "ARP replies learned from")                                                                         \
    X(rx_drop_bad_arp, "ARP packets that are malformed or not for us")                                                 \
    X(icmp_echoes, "ICMP echo requests answered")                                                                      \
    X(links_abandoned, "memif clients that were gone before their call was taken")

typedef struct r2p2_port_counters {
#define R2P2_PORT_FIELD(name, help) uint64_t name;
    R2P2_PORT_COUNTERS(R2P2_PORT_FIELD)
#undef R2P2_PORT_FIELD
} r2p2_port_counters;

typedef struct r2p2_port {
    uint32_t abi;         /* R2P2_PORT_ABI */
    uint32_t struct_size; /* sizeof(r2p2_port) of the backend, compared by the engine */
    void *self;
    int32_t poll_fd; /* readable when datagrams wait; -1: the port must be polled */
    uint32_t local_ip;
    uint16_t local_port; /* the first UDP port, where a server listens */
    /* Datagrams of full size that may wait to be received (of one peer, where each has a ring of its own) without one being dropped;
     * 0: not known. */
    uint16_t rx_room_count;
    uint16_t reserved[2];

    /* Up to `max` received datagrams, in order of arrival; 0 when there are none. */
    uint32_t (*rx_burst)(void *self, r2p2_rx_packet *packets, uint32_t max);
    void (*rx_release)(void *self, r2p2_rx_packet *packets, uint32_t count);
    /* Room for up to `count` datagrams: the number reserved, maybe 0 (counted in tx_reserve_failed). */
    uint32_t (*tx_reserve)(void *self, r2p2_tx_packet *packets, uint32_t count);
    /* Sends what has length > 0, in order; what cannot be sent is dropped and counted: never blocks, never fails. */
    void (*tx_commit)(void *self, r2p2_tx_packet *packets, uint32_t count);
    /* The same `length` bytes to each target; dropped and counted per target like tx_commit. */
    void (*tx_broadcast)(void *self, const uint8_t *data, uint32_t length, uint16_t local_port,
                         const r2p2_port_target *targets, uint32_t count);
    /* With whom the engine talks in any case, as far as it knows: what the port has learned of them it keeps, however many others send to
     * it. NULL: it learns nothing. */
    void (*keep_peers)(void *self, const r2p2_port_target *peers, uint32_t count);
    /* A monotonic clock; for the in-memory port a virtual one. */
    uint64_t (*now_ns)(void *self);
    r2p2_port_counters *counters; /* lives as long as the port; read by anyone, written by the port */
} r2p2_port;

#endif
