/*
 * Sending: bursts of sendmmsg; what leaves in a row for one address with one size leaves as one message that the kernel cuts
 * (UDP_SEGMENT), until it turns out that it cannot.
 *
 * A buffer is free, or with the engine from reserve to commit.
 */
#ifndef UDP_TX_H
#define UDP_TX_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "udp_module.h"
#include "udp_pool.h"
#include "udp_sockets.h"

typedef struct udp_tx {
    udp_sockets *sockets;         /* the port's */
    r2p2_port_counters *counters; /* the port's */
    udp_pool pool;
    int can_segment; /* the kernel cuts messages for us */
    /* Scratch of one burst, kept to be initialised once. */
    struct mmsghdr messages[R2P2_BURST_MAX]; /* message i: a run of parts to targets[i] */
    struct iovec parts[R2P2_BURST_MAX];      /* one a datagram */
    struct sockaddr_in targets[R2P2_BURST_MAX];
    uint8_t control[R2P2_BURST_MAX][CMSG_SPACE(sizeof(uint16_t))] __attribute__((aligned(16)));
} udp_tx;

/* 0, or a negative errno; to be closed either way. Zero before. */
int udp_tx_open(udp_tx *self, uint32_t buffers_count, udp_sockets *sockets, r2p2_port_counters *counters);
void udp_tx_close(udp_tx *self);
/* The r2p2_port's functions of these names. */
uint32_t udp_tx_reserve(udp_tx *self, r2p2_tx_packet *packets, uint32_t count);
void udp_tx_commit(udp_tx *self, const r2p2_tx_packet *packets, uint32_t count);
void udp_tx_broadcast(udp_tx *self, const uint8_t *data, uint32_t length, uint16_t local_port, const r2p2_port_target *targets,
                      uint32_t count);

#endif
