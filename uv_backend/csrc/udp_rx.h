/*
 * Receiving: bursts of recvmmsg over the sockets of one port, and messages cut into the datagrams they are made of (UDP_GRO).
 *
 * A receive buffer has room for the longest message, and holds as many datagrams as were cut from it. It is lent to the kernel
 * inside a burst, waits here until all its datagrams were handed over, and is free again when the engine has released the last
 * of them.
 */
#ifndef UDP_RX_H
#define UDP_RX_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "udp_module.h"
#include "udp_pool.h"
#include "udp_sockets.h"

#define UDP_CONTROL_BYTES 64u /* room for the control messages of SO_RXQ_OVFL and UDP_GRO */

/* A received message that is not yet handed over to its end. */
typedef struct udp_waiting {
    const uint8_t *data; /* the start of its buffer */
    uint32_t offset;     /* handed over so far; <= length */
    uint32_t length;
    uint32_t segment_bytes; /* of every datagram in it but the last; >= 1 */
    uint32_t source_ip;
    uint16_t source_port;
    uint16_t local_port;
} udp_waiting;

typedef struct udp_rx {
    udp_sockets *sockets;         /* the port's */
    r2p2_port_counters *counters; /* the port's */
    udp_pool pool;
    uint32_t out_count;    /* received datagrams with the engine */
    uint32_t waiting_next; /* waiting[waiting_next..waiting_count-1] are to be handed over, in order of arrival */
    uint32_t waiting_count;
    udp_waiting waiting[R2P2_BURST_MAX];
    uint32_t rotation; /* bursts received, wrapping */
    /* Scratch of one burst, kept to be initialised once. */
    struct mmsghdr messages[R2P2_BURST_MAX];
    struct iovec parts[R2P2_BURST_MAX];
    struct sockaddr_in sources[R2P2_BURST_MAX];
    uint8_t control[R2P2_BURST_MAX][UDP_CONTROL_BYTES] __attribute__((aligned(16)));
} udp_rx;

/* 0, or a negative errno; to be closed either way. Zero before. */
int udp_rx_open(udp_rx *self, uint32_t buffers_count, udp_sockets *sockets, r2p2_port_counters *counters);
void udp_rx_close(udp_rx *self);
/* Up to `max` datagrams, each lent until it is released. 0 only when nothing waits. */
uint32_t udp_rx_burst(udp_rx *self, r2p2_rx_packet *packets, uint32_t max);
void udp_rx_release(udp_rx *self, const r2p2_rx_packet *packets, uint32_t count);

#endif
