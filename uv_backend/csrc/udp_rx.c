/* Receiving: see udp_rx.h. */
#define _GNU_SOURCE /* recvmmsg */
#include "udp_rx.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#define UDP_RX_ERRORS_MAX 8u /* pending socket errors taken in one burst */
#define UDP_RX_TRIES_MAX 8u  /* fetches of one burst, when all that came was refused */
/* Not a power of two: equal places in all buffers would share few cache sets. */
#define UDP_RX_BUFFER_BYTES (65536u + 512u)

_Static_assert(2 * CMSG_SPACE(sizeof(uint32_t)) <= UDP_CONTROL_BYTES, "both control messages fit");
_Static_assert(UDP_RX_BUFFER_BYTES % 64 == 0, "every buffer starts on a cache line");

int udp_rx_open(udp_rx *self, uint32_t buffers_count, udp_sockets *sockets, r2p2_port_counters *counters) {
    self->sockets = sockets;
    self->counters = counters;
    for (uint32_t i = 0; i < R2P2_BURST_MAX; i++) {
        self->parts[i].iov_len = UDP_MESSAGE_BYTES_MAX;
        self->messages[i].msg_hdr = (struct msghdr){.msg_name = &self->sources[i],
                                                    .msg_iov = &self->parts[i],
                                                    .msg_iovlen = 1,
                                                    .msg_control = self->control[i]};
    }
    return udp_pool_open(&self->pool, buffers_count, UDP_RX_BUFFER_BYTES);
}

void udp_rx_close(udp_rx *self) { udp_pool_close(&self->pool); }

/* Returns the size of the datagrams in the message, or 0 when it is one. */
static uint32_t udp_read_control(udp_rx *self, udp_socket *socket_of, struct msghdr *header) {
    uint32_t segment_bytes = 0;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part != NULL; part = CMSG_NXTHDR(header, part)) {
        uint32_t value;
        memcpy(&value, CMSG_DATA(part), sizeof value); /* both kinds carry 32 bits */
        if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SO_RXQ_OVFL)
            self->counters->rx_drop_kernel += udp_socket_more_drops(socket_of, value);
        else if (part->cmsg_level == SOL_UDP && part->cmsg_type == UDP_GRO)
            segment_bytes = value;
    }
    return segment_bytes;
}

/* One recvmmsg of one socket into free buffers; -1 when it failed, with errno. A pending error is the fate of an earlier
 * datagram of ours: counted, and the call repeated. */
static int udp_receive(udp_rx *self, const udp_socket *socket_of, uint32_t max) {
    for (uint32_t i = 0; i < max; i++) {
        self->parts[i].iov_base = udp_pool_at(&self->pool, self->pool.free[self->pool.free_count - 1u - i]);
        self->messages[i].msg_hdr.msg_namelen = sizeof self->sources[i];
        self->messages[i].msg_hdr.msg_controllen = UDP_CONTROL_BYTES;
    }
    for (uint32_t errors = 0; errors <= UDP_RX_ERRORS_MAX; errors++) {
        int count = recvmmsg(socket_of->fd, self->messages, max, MSG_DONTWAIT, NULL);
        if (count >= 0)
            return count;
        if (errno == EAGAIN)
            return -1;
        if (errno != EINTR)
            self->counters->tx_drop_error++;
    }
    return -1;
}

/* What waits at one socket becomes what waits here, at most `max` messages. Called when nothing waits here. */
static uint32_t udp_rx_socket(udp_rx *self, udp_socket *socket_of, uint32_t max) {
    uint32_t room = R2P2_BURST_MAX - self->waiting_count;
    if (max > room)
        max = room;
    if (max > self->pool.free_count)
        max = self->pool.free_count;
    int count = max > 0 ? udp_receive(self, socket_of, max) : 0;
    /* Message i lies in the buffer i below the top of the stack. */
    for (int i = 0; i < count; i++) {
        struct mmsghdr *message = &self->messages[i];
        uint32_t segment_bytes = 0;
        if (message->msg_hdr.msg_controllen > 0)
            segment_bytes = udp_read_control(self, socket_of, &message->msg_hdr);
        self->waiting[self->waiting_count++] = (udp_waiting){
            .data = udp_pool_take(&self->pool),
            .length = message->msg_len,
            .segment_bytes = segment_bytes > 0 ? segment_bytes : UDP_RX_BUFFER_BYTES,
            .source_ip = ntohl(self->sources[i].sin_addr.s_addr),
            .source_port = ntohs(self->sources[i].sin_port),
            .local_port = socket_of->local_port,
        };
    }
    return count > 0 ? (uint32_t)count : 0;
}

/* Cuts datagrams off what waits, until `max` are handed over or none waits. */
static uint32_t udp_hand_over(udp_rx *self, r2p2_rx_packet *packets, uint32_t max) {
    uint32_t count = 0;
    while (self->waiting_next < self->waiting_count && count < max) {
        udp_waiting *message = &self->waiting[self->waiting_next];
        uint32_t left = message->length - message->offset;
        uint32_t length = left < message->segment_bytes ? left : message->segment_bytes;
        const uint8_t *data = message->data + message->offset;
        if (length > R2P2_DATAGRAM_BYTES_MAX) {
            self->counters->rx_drop_truncated++;
        } else {
            packets[count++] = (r2p2_rx_packet){.data = data,
                                                .length = length,
                                                .source_ip = message->source_ip,
                                                .source_port = message->source_port,
                                                .local_port = message->local_port,
                                                .owner = (void *)(uintptr_t)message->data};
            self->pool.users[udp_pool_index(&self->pool, message->data, "cutting")]++;
            self->counters->rx_bytes += length;
        }
        message->offset += length;
        if (message->offset == message->length) {
            udp_pool_give_back(&self->pool, message->data, "cutting");
            self->waiting_next++;
        }
    }
    if (self->waiting_next == self->waiting_count)
        self->waiting_next = self->waiting_count = 0;
    self->out_count += count;
    self->counters->rx_packets += count;
    return count;
}

/* Fetches what the sockets have, up to `max` messages. */
static void udp_fetch(udp_rx *self, uint32_t max) {
    struct epoll_event ready[R2P2_UDP_SOCKETS_MAX];
    uint32_t fetched = 0;
    if (self->sockets->count == 1) {
        (void)udp_rx_socket(self, &self->sockets->list[0], max);
        return;
    }
    int ready_count = epoll_wait(self->sockets->epoll_fd, ready, (int)self->sockets->count, 0);
    /* Another one goes first each time, since a busy one can fill the burst alone: the kernel reports them in a fixed order. */
    self->rotation++;
    for (int i = 0; i < ready_count && fetched < max; i++) {
        uint32_t index = ready[(self->rotation + (uint32_t)i) % (uint32_t)ready_count].data.u32;
        fetched += udp_rx_socket(self, &self->sockets->list[index], max - fetched);
    }
}

/* A burst whose every datagram was refused goes on to the next one, a bounded number of times. */
uint32_t udp_rx_burst(udp_rx *self, r2p2_rx_packet *packets, uint32_t max) {
    uint32_t count = udp_hand_over(self, packets, max);
    for (uint32_t tries = 0; count == 0 && tries < UDP_RX_TRIES_MAX; tries++) {
        udp_fetch(self, max < R2P2_BURST_MAX ? max : R2P2_BURST_MAX);
        if (self->waiting_count == 0)
            break;
        count = udp_hand_over(self, packets, max);
    }
    return count;
}

void udp_rx_release(udp_rx *self, const r2p2_rx_packet *packets, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        udp_pool_give_back(&self->pool, packets[i].owner, "rx_release");
    self->out_count -= count;
}
