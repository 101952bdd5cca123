/*
 * Sending: see udp_tx.h. Errors of a system call are the network's, not ours: each costs at most the datagram it is about, is
 * counted, and the rest of the burst goes on.
 */
#define _GNU_SOURCE /* sendmmsg */
#include "udp_tx.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#define UDP_TX_RETRIES_MAX 3u /* tries of one datagram when the socket buffer is full, then it is dropped */
#define UDP_SEGMENTS_MAX 64u  /* of one message: the least that kernels with UDP_SEGMENT take */

_Static_assert(R2P2_DATAGRAM_BYTES_MAX % 64 == 0, "every buffer starts on a cache line");

int udp_tx_open(udp_tx *self, uint32_t buffers_count, udp_sockets *sockets, r2p2_port_counters *counters) {
    self->sockets = sockets;
    self->counters = counters;
    for (uint32_t i = 0; i < R2P2_BURST_MAX; i++) {
        self->targets[i].sin_family = AF_INET;
        self->messages[i].msg_hdr = (struct msghdr){.msg_name = &self->targets[i], .msg_namelen = sizeof self->targets[i]};
    }
    return udp_pool_open(&self->pool, buffers_count, R2P2_DATAGRAM_BYTES_MAX);
}

void udp_tx_close(udp_tx *self) { udp_pool_close(&self->pool); }

uint32_t udp_tx_reserve(udp_tx *self, r2p2_tx_packet *packets, uint32_t count) {
    uint32_t reserved = count < self->pool.free_count ? count : self->pool.free_count;
    for (uint32_t i = 0; i < reserved; i++) {
        uint8_t *data = udp_pool_take(&self->pool);
        packets[i] = (r2p2_tx_packet){.data = data, .owner = data};
    }
    if (reserved < count)
        self->counters->tx_reserve_failed++;
    return reserved;
}

/* A burst being put together in the scratch: messages_count messages over parts_count datagrams. */
typedef struct udp_burst {
    udp_socket *socket_of;
    uint32_t messages_count;
    uint32_t parts_count;
    uint32_t message_bytes; /* of the last message */
    int is_closed;          /* the last message takes no further datagram */
} udp_burst;

/* Whether the datagram can be cut from the end of the last message: same target, same size, or less for the last of all. */
static int udp_tx_joins(const udp_tx *self, const udp_burst *burst, uint32_t length, uint32_t ip, uint16_t port) {
    if (!self->can_segment || burst->messages_count == 0 || burst->is_closed)
        return 0;
    const struct msghdr *last = &self->messages[burst->messages_count - 1u].msg_hdr;
    const struct sockaddr_in *target = &self->targets[burst->messages_count - 1u];
    return target->sin_addr.s_addr == htonl(ip) && target->sin_port == htons(port) &&
           length <= last->msg_iov[0].iov_len && last->msg_iovlen < UDP_SEGMENTS_MAX &&
           burst->message_bytes + length <= UDP_MESSAGE_BYTES_MAX;
}

static void udp_tx_add(udp_tx *self, udp_burst *burst, const uint8_t *data, uint32_t length, uint32_t ip, uint16_t port) {
    struct iovec *part = &self->parts[burst->parts_count++];
    *part = (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = length};
    if (udp_tx_joins(self, burst, length, ip, port)) {
        struct msghdr *last = &self->messages[burst->messages_count - 1u].msg_hdr;
        last->msg_iovlen++;
        burst->message_bytes += length;
        burst->is_closed = length < last->msg_iov[0].iov_len;
        return;
    }
    uint32_t index = burst->messages_count++;
    struct msghdr *header = &self->messages[index].msg_hdr;
    self->targets[index].sin_addr.s_addr = htonl(ip);
    self->targets[index].sin_port = htons(port);
    header->msg_iov = part;
    header->msg_iovlen = 1;
    burst->message_bytes = length;
    burst->is_closed = 0;
}

static uint32_t udp_parts(const struct mmsghdr *message) { return (uint32_t)message->msg_hdr.msg_iovlen; }

/* Says to the kernel where to cut messages of several datagrams. */
static void udp_tx_mark(udp_tx *self, uint32_t messages_count) {
    for (uint32_t i = 0; i < messages_count; i++) {
        struct msghdr *header = &self->messages[i].msg_hdr;
        header->msg_controllen = 0;
        header->msg_control = NULL;
        if (header->msg_iovlen == 1)
            continue;
        uint16_t segment_bytes = (uint16_t)header->msg_iov[0].iov_len;
        header->msg_control = self->control[i];
        header->msg_controllen = sizeof self->control[i];
        struct cmsghdr *control = CMSG_FIRSTHDR(header);
        control->cmsg_level = SOL_UDP;
        control->cmsg_type = UDP_SEGMENT;
        control->cmsg_len = CMSG_LEN(sizeof segment_bytes);
        memcpy(CMSG_DATA(control), &segment_bytes, sizeof segment_bytes);
    }
}

static void udp_tx_count_sent(udp_tx *self, const struct msghdr *header) {
    for (size_t i = 0; i < header->msg_iovlen; i++)
        self->counters->tx_bytes += header->msg_iov[i].iov_len;
    self->counters->tx_packets += header->msg_iovlen;
}

static void udp_tx_count_error(udp_tx *self, int error) {
    if (error == ENETUNREACH || error == EHOSTUNREACH || error == ENETDOWN)
        self->counters->tx_drop_no_route++;
    else
        self->counters->tx_drop_error++;
}

static int udp_is_full(int error) { return error == EAGAIN || error == ENOBUFS; }

/* One datagram, tried, sent or counted. */
static void udp_tx_single(udp_tx *self, const udp_socket *socket_of, struct mmsghdr *one) {
    for (uint32_t tries = 0; tries < UDP_TX_RETRIES_MAX;) {
        if (sendmmsg(socket_of->fd, one, 1, MSG_DONTWAIT) == 1) {
            udp_tx_count_sent(self, &one->msg_hdr);
            return;
        }
        if (udp_is_full(errno)) {
            tries++;
        } else if (errno != EINTR) {
            udp_tx_count_error(self, errno);
            return;
        }
    }
    self->counters->tx_drop_full++;
}

/* A message of several datagrams failed with `error`: send them one by one. When that works and the error is one of cutting (the
 * path's MTU is smaller, the device cannot), cutting is given up for good. */
static void udp_tx_one_by_one(udp_tx *self, const udp_socket *socket_of, const struct msghdr *whole, int error) {
    struct mmsghdr one = {.msg_hdr = *whole};
    uint64_t sent_before = self->counters->tx_packets;
    one.msg_hdr.msg_control = NULL;
    one.msg_hdr.msg_controllen = 0;
    one.msg_hdr.msg_iovlen = 1;
    for (size_t i = 0; i < whole->msg_iovlen; i++) {
        one.msg_hdr.msg_iov = &whole->msg_iov[i];
        udp_tx_single(self, socket_of, &one);
    }
    int is_of_cutting = error == EINVAL || error == EIO || error == EMSGSIZE || error == EOPNOTSUPP;
    if (is_of_cutting && self->counters->tx_packets - sent_before == whole->msg_iovlen)
        self->can_segment = 0;
}

/* Sends the burst through its socket and empties it. sendmmsg stops at the first message that fails and says why only when asked
 * again from there. */
static void udp_tx_send(udp_tx *self, udp_burst *burst) {
    uint32_t count = burst->messages_count, next = 0;
    uint32_t tries = 0; /* of message `next` */
    udp_tx_mark(self, count);
    while (next < count) {
        int sent = sendmmsg(burst->socket_of->fd, self->messages + next, count - next, MSG_DONTWAIT);
        if (sent > 0) {
            for (uint32_t end = next + (uint32_t)sent; next < end; next++)
                udp_tx_count_sent(self, &self->messages[next].msg_hdr);
            tries = 0;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (udp_is_full(errno)) {
            if (++tries < UDP_TX_RETRIES_MAX)
                continue;
            for (; next < count; next++) /* the rest would meet the same full buffer */
                self->counters->tx_drop_full += udp_parts(&self->messages[next]);
            break;
        }
        if (udp_parts(&self->messages[next]) > 1)
            udp_tx_one_by_one(self, burst->socket_of, &self->messages[next].msg_hdr, errno);
        else
            udp_tx_count_error(self, errno);
        next++;
        tries = 0;
    }
    *burst = (udp_burst){.socket_of = burst->socket_of};
}

/* The packets of one commit, in bursts that leave through the same socket and fit the scratch. */
void udp_tx_commit(udp_tx *self, const r2p2_tx_packet *packets, uint32_t count) {
    udp_burst burst = {0};
    for (uint32_t i = 0; i < count; i++) {
        if (packets[i].length == 0)
            continue;
        udp_socket *socket_of = udp_sockets_find(self->sockets, packets[i].local_port);
        /* The kernel sends with our address only. */
        if (socket_of == NULL || packets[i].source_ip != 0 || packets[i].length > R2P2_DATAGRAM_BYTES_MAX) {
            self->counters->tx_drop_error++;
            continue;
        }
        if (burst.parts_count == R2P2_BURST_MAX || (burst.parts_count > 0 && socket_of != burst.socket_of))
            udp_tx_send(self, &burst);
        burst.socket_of = socket_of;
        udp_tx_add(self, &burst, packets[i].data, packets[i].length, packets[i].target_ip, packets[i].target_port);
    }
    udp_tx_send(self, &burst);
    for (uint32_t i = 0; i < count; i++)
        udp_pool_give_back(&self->pool, packets[i].owner, "tx_commit");
}

void udp_tx_broadcast(udp_tx *self, const uint8_t *data, uint32_t length, uint16_t local_port, const r2p2_port_target *targets,
                      uint32_t count) {
    udp_burst burst = {.socket_of = udp_sockets_find(self->sockets, local_port)};
    if (burst.socket_of == NULL || length > R2P2_DATAGRAM_BYTES_MAX) {
        self->counters->tx_drop_error += count;
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (burst.parts_count == R2P2_BURST_MAX)
            udp_tx_send(self, &burst);
        udp_tx_add(self, &burst, data, length, targets[i].ip, targets[i].port);
    }
    udp_tx_send(self, &burst);
}
