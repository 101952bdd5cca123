/*
 * The kernel UDP port: struct r2p2_port over non-blocking IPv4 sockets, in bursts of recvmmsg and sendmmsg. Linux.
 *
 * What: one port with one socket for each of its UDP ports, buffers allocated once at open.
 * Why here: a burst costs one system call and no Python.
 * Leaves to others: receiving (udp_rx.c), sending (udp_tx.c), the sockets (udp_sockets.c), what the datagrams mean (the engine), when
 * to poll (uv_backend/driver.py), errors in words (uv_backend/port.py).
 *
 * Buffers: two pools, one for receiving and one for sending, so that a peer's flood cannot take the room to answer.
 *
 * Segmentation: what leaves in a row for one address with one size leaves as one message that the kernel cuts (UDP_SEGMENT), and
 * what reaches us uncut is cut here (UDP_GRO): a burst costs the kernel little more than a datagram.
 *
 * Errors of a system call are the network's, not ours: each costs at most the datagram it is about, is counted, and the rest of
 * the burst goes on.
 */
#define _GNU_SOURCE /* struct mmsghdr */
#include "udp_module.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "udp_rx.h"
#include "udp_sockets.h"
#include "udp_tx.h"

#define UDP_BUFFERS_MIN 64u /* one burst */

typedef struct udp_port {
    r2p2_port port; /* first: the port's address is ours */
    r2p2_port_counters counters;
    r2p2_udp_options options;
    udp_sockets sockets;
    udp_rx rx;
    udp_tx tx;
} udp_port;

/* ---- what the engine calls ---- */

static uint32_t udp_port_rx_burst(void *self, r2p2_rx_packet *packets, uint32_t max) {
    return udp_rx_burst(&((udp_port *)self)->rx, packets, max);
}

static void udp_port_rx_release(void *self, r2p2_rx_packet *packets, uint32_t count) {
    udp_rx_release(&((udp_port *)self)->rx, packets, count);
}

static uint32_t udp_port_tx_reserve(void *self, r2p2_tx_packet *packets, uint32_t count) {
    return udp_tx_reserve(&((udp_port *)self)->tx, packets, count);
}

static void udp_port_tx_commit(void *self, r2p2_tx_packet *packets, uint32_t count) {
    udp_tx_commit(&((udp_port *)self)->tx, packets, count);
}

static void udp_port_tx_broadcast(void *self, const uint8_t *data, uint32_t length, uint16_t local_port,
                                  const r2p2_port_target *targets, uint32_t count) {
    udp_tx_broadcast(&((udp_port *)self)->tx, data, length, local_port, targets, count);
}

static uint64_t udp_port_now_ns(void *self) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- open and close ---- */

static void udp_free(udp_port *self) {
    udp_sockets_close(&self->sockets);
    udp_rx_close(&self->rx);
    udp_tx_close(&self->tx);
    free(self);
}

static int udp_is_count(uint32_t count) { return count >= UDP_BUFFERS_MIN && count <= R2P2_UDP_BUFFERS_MAX; }

uintptr_t r2p2_udp_port_open(uint32_t ip, uint16_t port, const r2p2_udp_options *options, int32_t *error) {
    *error = -EINVAL;
    if (!udp_is_count(options->rx_buffers_count) || !udp_is_count(options->tx_buffers_count))
        return 0;
    udp_port *self = calloc(1, sizeof *self);
    *error = -ENOMEM;
    if (self == NULL)
        return 0;
    self->options = *options;
    self->sockets.epoll_fd = -1;
    *error = udp_rx_open(&self->rx, options->rx_buffers_count, &self->sockets, &self->counters);
    if (*error == 0)
        *error = udp_tx_open(&self->tx, options->tx_buffers_count, &self->sockets, &self->counters);
    if (*error == 0)
        *error = udp_sockets_add(&self->sockets, ip, port, options);
    if (*error != 0) {
        udp_free(self);
        return 0;
    }
    const udp_socket *first = &self->sockets.list[0];
    self->tx.can_segment = options->use_segmentation && udp_socket_can_segment(first);
    self->port = (r2p2_port){.abi = R2P2_PORT_ABI,
                             .struct_size = sizeof(r2p2_port),
                             .self = self,
                             .poll_fd = first->fd,
                             .local_ip = ip,
                             .local_port = first->local_port,
                             .rx_room_count = udp_socket_room(first),
                             .rx_burst = udp_port_rx_burst,
                             .rx_release = udp_port_rx_release,
                             .tx_reserve = udp_port_tx_reserve,
                             .tx_commit = udp_port_tx_commit,
                             .tx_broadcast = udp_port_tx_broadcast,
                             .now_ns = udp_port_now_ns,
                             .counters = &self->counters};
    return (uintptr_t)&self->port;
}

int32_t r2p2_udp_port_add(uintptr_t port, uint16_t local_port) {
    udp_port *self = (udp_port *)port;
    int error = udp_sockets_add(&self->sockets, self->port.local_ip, local_port, &self->options);
    if (error != 0)
        return error;
    self->port.poll_fd = udp_sockets_fd(&self->sockets);
    return self->sockets.list[self->sockets.count - 1u].local_port;
}

int32_t r2p2_udp_port_close(uintptr_t port) {
    udp_port *self = (udp_port *)port;
    uint32_t held_count = self->rx.out_count + self->tx.pool.count - self->tx.pool.free_count;
    udp_free(self);
    return (int32_t)held_count;
}

/* ---- looking at it ---- */

int32_t r2p2_udp_port_fd(uintptr_t port) { return ((udp_port *)port)->port.poll_fd; }

uint32_t r2p2_udp_port_ip(uintptr_t port) { return ((udp_port *)port)->port.local_ip; }

uint32_t r2p2_udp_port_locals(uintptr_t port, uint16_t *local_ports, uint32_t max) {
    const udp_sockets *sockets = &((udp_port *)port)->sockets;
    for (uint32_t i = 0; i < sockets->count && i < max; i++)
        local_ports[i] = sockets->list[i].local_port;
    return sockets->count;
}

uint32_t r2p2_udp_port_rcvbuf_bytes(uintptr_t port) { return udp_socket_rcvbuf_bytes(&((udp_port *)port)->sockets.list[0]); }

static const char *const udp_counter_names[] = {
#define R2P2_PORT_FIELD(name, help) #name,
    R2P2_PORT_COUNTERS(R2P2_PORT_FIELD)
#undef R2P2_PORT_FIELD
};
static const char *const udp_counter_helps[] = {
#define R2P2_PORT_FIELD(name, help) help,
    R2P2_PORT_COUNTERS(R2P2_PORT_FIELD)
#undef R2P2_PORT_FIELD
};
#define UDP_COUNTERS_COUNT (sizeof udp_counter_names / sizeof udp_counter_names[0])
_Static_assert(sizeof(r2p2_port_counters) == UDP_COUNTERS_COUNT * sizeof(uint64_t), "counters are one array of u64");

uint32_t r2p2_udp_counters_count(void) { return UDP_COUNTERS_COUNT; }

const char *r2p2_udp_counter_name(uint32_t index) { return index < UDP_COUNTERS_COUNT ? udp_counter_names[index] : NULL; }

const char *r2p2_udp_counter_help(uint32_t index) { return index < UDP_COUNTERS_COUNT ? udp_counter_helps[index] : NULL; }

void r2p2_udp_counters_read(uintptr_t port, uint64_t *values) {
    udp_port *self = (udp_port *)port;
    for (uint32_t i = 0; i < self->sockets.count; i++) {
        udp_socket *socket_of = &self->sockets.list[i];
        self->counters.rx_drop_kernel += udp_socket_more_drops(socket_of, udp_socket_kernel_drops(socket_of));
    }
    memcpy(values, &self->counters, sizeof self->counters);
}
