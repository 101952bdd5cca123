/*
 * The kernel UDP port: struct r2p2_port over non-blocking IPv4 sockets, in bursts of recvmmsg and sendmmsg. Linux.
 *
 * What: one port with one socket for each of its UDP ports, buffers allocated once at open.
 * Why here: a burst costs one system call and no Python.
 * Leaves to others: what the datagrams mean (the engine), when to poll (uv_backend/driver.py), errors in words
 * (uv_backend/port.py).
 *
 * Buffers: two pools, one for receiving and one for sending, so that a peer's flood cannot take the room to answer. A send
 * buffer is free, or with the engine from tx_reserve to tx_commit.
 *
 * Segmentation: what leaves in a row for one address with one size leaves as one message that the kernel cuts (UDP_SEGMENT), and
 * what reaches us uncut is cut here (UDP_GRO): a burst costs the kernel little more than a datagram. So a receive buffer has
 * room for the longest message, and holds as many datagrams as were cut from it. It is lent to the kernel inside rx_burst,
 * waits here until all its datagrams were handed over, and is free again when the engine has released the last of them.
 *
 * Errors of a system call are the network's, not ours: each costs at most the datagram it is about, is counted, and the rest of
 * the burst goes on.
 */
#define _GNU_SOURCE /* recvmmsg, sendmmsg */
#include "udp_module.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define UDP_BUFFERS_MIN 64u   /* one burst */
/* What the kernel takes off a socket's buffer for a datagram of full size: its memory, a power of two, and its descriptor. */
#define UDP_DATAGRAM_ACCOUNTED_BYTES 2304u
#define UDP_TX_RETRIES_MAX 3u /* tries of one datagram when the socket buffer is full, then it is dropped */
#define UDP_RX_ERRORS_MAX 8u  /* pending socket errors taken in one burst */
#define UDP_RX_TRIES_MAX 8u   /* fetches of one burst, when all that came was refused */
#define UDP_CONTROL_BYTES 64u /* room for the control messages of SO_RXQ_OVFL and UDP_GRO */
#define UDP_SEGMENTS_MAX 64u  /* of one message: the least that kernels with UDP_SEGMENT take */
#define UDP_MESSAGE_BYTES_MAX 65507u
/* Not a power of two: equal places in all buffers would share few cache sets. */
#define UDP_RX_BUFFER_BYTES (65536u + 512u)
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

_Static_assert(2 * CMSG_SPACE(sizeof(uint32_t)) <= UDP_CONTROL_BYTES, "both control messages fit");

/* A stack of equal buffers. free_count entries of `free` are valid; users[i] is 0 exactly while buffer i is free. */
typedef struct udp_pool {
    uint8_t *bytes; /* count * stride */
    uint32_t *free;
    uint16_t *users; /* datagrams of buffer i with the engine, and 1 more while it waits to be cut */
    uint32_t stride;
    uint32_t count;
    uint32_t free_count;
} udp_pool;

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

typedef struct udp_socket {
    int fd;
    uint16_t local_port;
    uint32_t kernel_drops; /* the kernel's count at our last look, wrapping */
} udp_socket;

typedef struct udp_port {
    r2p2_port port; /* first: the port's address is ours */
    r2p2_port_counters counters;
    r2p2_udp_options options;
    udp_pool rx;
    udp_pool tx;
    uint32_t rx_out_count; /* received datagrams with the engine */
    int can_segment;       /* the kernel cuts messages for us */
    uint32_t waiting_next; /* waiting[waiting_next..waiting_count-1] are to be handed over, in order of arrival */
    uint32_t waiting_count;
    udp_waiting waiting[R2P2_BURST_MAX];
    int epoll_fd;           /* -1 while there is one socket */
    uint32_t rotation;      /* bursts received, wrapping */
    uint32_t sockets_count; /* 1..R2P2_UDP_SOCKETS_MAX once open */
    udp_socket sockets[R2P2_UDP_SOCKETS_MAX];
    /* Scratch of one burst, kept to be initialised once. */
    struct mmsghdr rx_messages[R2P2_BURST_MAX];
    struct iovec rx_parts[R2P2_BURST_MAX];
    struct sockaddr_in rx_sources[R2P2_BURST_MAX];
    uint8_t rx_control[R2P2_BURST_MAX][UDP_CONTROL_BYTES] __attribute__((aligned(16)));
    struct mmsghdr tx_messages[R2P2_BURST_MAX]; /* message i: a run of tx_parts to tx_targets[i] */
    struct iovec tx_parts[R2P2_BURST_MAX];      /* one a datagram */
    struct sockaddr_in tx_targets[R2P2_BURST_MAX];
    uint8_t tx_control[R2P2_BURST_MAX][CMSG_SPACE(sizeof(uint16_t))] __attribute__((aligned(16)));
} udp_port;

/* ---- buffers ---- */

static int udp_pool_open(udp_pool *pool, uint32_t count, uint32_t stride) {
    pool->bytes = aligned_alloc(64, (size_t)count * stride);
    pool->free = malloc(count * sizeof *pool->free);
    pool->users = calloc(count, sizeof *pool->users);
    if (pool->bytes == NULL || pool->free == NULL || pool->users == NULL)
        return -ENOMEM;
    pool->count = count;
    pool->stride = stride;
    for (uint32_t i = 0; i < count; i++)
        pool->free[i] = count - 1u - i;
    pool->free_count = count;
    return 0;
}
_Static_assert(R2P2_DATAGRAM_BYTES_MAX % 64 == 0 && UDP_RX_BUFFER_BYTES % 64 == 0, "every buffer starts on a cache line");

static void udp_pool_close(udp_pool *pool) {
    free(pool->bytes);
    free(pool->free);
    free(pool->users);
}

static uint8_t *udp_pool_at(const udp_pool *pool, uint32_t index) { return pool->bytes + (size_t)index * pool->stride; }

/* The caller has checked that one is free. It has one user. */
static uint8_t *udp_pool_take(udp_pool *pool) {
    uint32_t index = pool->free[--pool->free_count];
    pool->users[index] = 1;
    return udp_pool_at(pool, index);
}

/* The index of the buffer that `data` lies in. Our own mistakes stop the program and say both values; nothing a peer sends
 * gets here. */
static uint32_t udp_pool_index(const udp_pool *pool, const uint8_t *data, const char *where) {
    size_t index = (size_t)(data - pool->bytes) / pool->stride;
    if (data < pool->bytes || index >= pool->count || pool->users[index] == 0) {
        fprintf(stderr, "udp_port: %s of buffer %zu of %u, which nobody holds\n", where, index, pool->count);
        abort();
    }
    return (uint32_t)index;
}

/* One user less; the last one frees. */
static void udp_pool_give_back(udp_pool *pool, const uint8_t *data, const char *where) {
    uint32_t index = udp_pool_index(pool, data, where);
    if (--pool->users[index] == 0)
        pool->free[pool->free_count++] = index;
}

/* ---- receiving ---- */

static void udp_note_kernel_drops(udp_port *self, udp_socket *socket_of, uint32_t kernel_drops) {
    uint32_t more = kernel_drops - socket_of->kernel_drops; /* wraps as the kernel's does */
    if (more == 0 || more > UINT32_MAX / 2u)                /* a control message older than our last look */
        return;
    self->counters.rx_drop_kernel += more;
    socket_of->kernel_drops = kernel_drops;
}

/* Returns the size of the datagrams in the message, or 0 when it is one. */
static uint32_t udp_read_control(udp_port *self, udp_socket *socket_of, struct msghdr *header) {
    uint32_t segment_bytes = 0;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part != NULL; part = CMSG_NXTHDR(header, part)) {
        uint32_t value;
        memcpy(&value, CMSG_DATA(part), sizeof value); /* both kinds carry 32 bits */
        if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SO_RXQ_OVFL)
            udp_note_kernel_drops(self, socket_of, value);
        else if (part->cmsg_level == SOL_UDP && part->cmsg_type == UDP_GRO)
            segment_bytes = value;
    }
    return segment_bytes;
}

/* One recvmmsg of one socket into free buffers; -1 when it failed, with errno. A pending error is the fate of an earlier
 * datagram of ours: counted, and the call repeated. */
static int udp_receive(udp_port *self, const udp_socket *socket_of, uint32_t max) {
    for (uint32_t i = 0; i < max; i++) {
        self->rx_parts[i].iov_base = udp_pool_at(&self->rx, self->rx.free[self->rx.free_count - 1u - i]);
        self->rx_messages[i].msg_hdr.msg_namelen = sizeof self->rx_sources[i];
        self->rx_messages[i].msg_hdr.msg_controllen = UDP_CONTROL_BYTES;
    }
    for (uint32_t errors = 0; errors <= UDP_RX_ERRORS_MAX; errors++) {
        int count = recvmmsg(socket_of->fd, self->rx_messages, max, MSG_DONTWAIT, NULL);
        if (count >= 0)
            return count;
        if (errno == EAGAIN)
            return -1;
        if (errno != EINTR)
            self->counters.tx_drop_error++;
    }
    return -1;
}

/* What waits at one socket becomes what waits here, at most `max` messages. Called when nothing waits here. */
static uint32_t udp_rx_socket(udp_port *self, udp_socket *socket_of, uint32_t max) {
    uint32_t room = R2P2_BURST_MAX - self->waiting_count;
    if (max > room)
        max = room;
    if (max > self->rx.free_count)
        max = self->rx.free_count;
    int count = max > 0 ? udp_receive(self, socket_of, max) : 0;
    /* Message i lies in the buffer i below the top of the stack. */
    for (int i = 0; i < count; i++) {
        struct mmsghdr *message = &self->rx_messages[i];
        uint32_t segment_bytes = 0;
        if (message->msg_hdr.msg_controllen > 0)
            segment_bytes = udp_read_control(self, socket_of, &message->msg_hdr);
        self->waiting[self->waiting_count++] = (udp_waiting){
            .data = udp_pool_take(&self->rx),
            .length = message->msg_len,
            .segment_bytes = segment_bytes > 0 ? segment_bytes : UDP_RX_BUFFER_BYTES,
            .source_ip = ntohl(self->rx_sources[i].sin_addr.s_addr),
            .source_port = ntohs(self->rx_sources[i].sin_port),
            .local_port = socket_of->local_port,
        };
    }
    return count > 0 ? (uint32_t)count : 0;
}

/* Cuts datagrams off what waits, until `max` are handed over or none waits. */
static uint32_t udp_hand_over(udp_port *self, r2p2_rx_packet *packets, uint32_t max) {
    uint32_t count = 0;
    while (self->waiting_next < self->waiting_count && count < max) {
        udp_waiting *message = &self->waiting[self->waiting_next];
        uint32_t left = message->length - message->offset;
        uint32_t length = left < message->segment_bytes ? left : message->segment_bytes;
        const uint8_t *data = message->data + message->offset;
        if (length > R2P2_DATAGRAM_BYTES_MAX) {
            self->counters.rx_drop_truncated++;
        } else {
            packets[count++] = (r2p2_rx_packet){.data = data,
                                                .length = length,
                                                .source_ip = message->source_ip,
                                                .source_port = message->source_port,
                                                .local_port = message->local_port,
                                                .owner = (void *)(uintptr_t)message->data};
            self->rx.users[udp_pool_index(&self->rx, message->data, "cutting")]++;
            self->counters.rx_bytes += length;
        }
        message->offset += length;
        if (message->offset == message->length) {
            udp_pool_give_back(&self->rx, message->data, "cutting");
            self->waiting_next++;
        }
    }
    if (self->waiting_next == self->waiting_count)
        self->waiting_next = self->waiting_count = 0;
    self->rx_out_count += count;
    self->counters.rx_packets += count;
    return count;
}

/* Fetches what the sockets have, up to `max` messages. */
static void udp_fetch(udp_port *self, uint32_t max) {
    struct epoll_event ready[R2P2_UDP_SOCKETS_MAX];
    uint32_t fetched = 0;
    if (self->sockets_count == 1) {
        (void)udp_rx_socket(self, &self->sockets[0], max);
        return;
    }
    int ready_count = epoll_wait(self->epoll_fd, ready, (int)self->sockets_count, 0);
    /* Another one goes first each time, since a busy one can fill the burst alone: the kernel reports them in a fixed order. */
    self->rotation++;
    for (int i = 0; i < ready_count && fetched < max; i++) {
        uint32_t index = ready[(self->rotation + (uint32_t)i) % (uint32_t)ready_count].data.u32;
        fetched += udp_rx_socket(self, &self->sockets[index], max - fetched);
    }
}

/* 0 only when nothing waits: a burst whose every datagram was refused goes on to the next one, a bounded number of times. */
static uint32_t udp_rx_burst(void *port_self, r2p2_rx_packet *packets, uint32_t max) {
    udp_port *self = port_self;
    uint32_t count = udp_hand_over(self, packets, max);
    for (uint32_t tries = 0; count == 0 && tries < UDP_RX_TRIES_MAX; tries++) {
        udp_fetch(self, max < R2P2_BURST_MAX ? max : R2P2_BURST_MAX);
        if (self->waiting_count == 0)
            break;
        count = udp_hand_over(self, packets, max);
    }
    return count;
}

static void udp_rx_release(void *port_self, r2p2_rx_packet *packets, uint32_t count) {
    udp_port *self = port_self;
    for (uint32_t i = 0; i < count; i++)
        udp_pool_give_back(&self->rx, packets[i].owner, "rx_release");
    self->rx_out_count -= count;
}

/* ---- sending ---- */

static uint32_t udp_tx_reserve(void *port_self, r2p2_tx_packet *packets, uint32_t count) {
    udp_port *self = port_self;
    uint32_t reserved = count < self->tx.free_count ? count : self->tx.free_count;
    for (uint32_t i = 0; i < reserved; i++) {
        uint8_t *data = udp_pool_take(&self->tx);
        packets[i] = (r2p2_tx_packet){.data = data, .owner = data};
    }
    if (reserved < count)
        self->counters.tx_reserve_failed++;
    return reserved;
}

static udp_socket *udp_find_socket(udp_port *self, uint16_t local_port) {
    if (local_port == 0)
        return &self->sockets[0];
    for (uint32_t i = 0; i < self->sockets_count; i++)
        if (self->sockets[i].local_port == local_port)
            return &self->sockets[i];
    return NULL;
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
static int udp_tx_joins(const udp_port *self, const udp_burst *burst, uint32_t length, uint32_t ip, uint16_t port) {
    if (!self->can_segment || burst->messages_count == 0 || burst->is_closed)
        return 0;
    const struct msghdr *last = &self->tx_messages[burst->messages_count - 1u].msg_hdr;
    const struct sockaddr_in *target = &self->tx_targets[burst->messages_count - 1u];
    return target->sin_addr.s_addr == htonl(ip) && target->sin_port == htons(port) &&
           length <= last->msg_iov[0].iov_len && last->msg_iovlen < UDP_SEGMENTS_MAX &&
           burst->message_bytes + length <= UDP_MESSAGE_BYTES_MAX;
}

static void udp_tx_add(udp_port *self, udp_burst *burst, const uint8_t *data, uint32_t length, uint32_t ip, uint16_t port) {
    struct iovec *part = &self->tx_parts[burst->parts_count++];
    *part = (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = length};
    if (udp_tx_joins(self, burst, length, ip, port)) {
        struct msghdr *last = &self->tx_messages[burst->messages_count - 1u].msg_hdr;
        last->msg_iovlen++;
        burst->message_bytes += length;
        burst->is_closed = length < last->msg_iov[0].iov_len;
        return;
    }
    uint32_t index = burst->messages_count++;
    struct msghdr *header = &self->tx_messages[index].msg_hdr;
    self->tx_targets[index].sin_addr.s_addr = htonl(ip);
    self->tx_targets[index].sin_port = htons(port);
    header->msg_iov = part;
    header->msg_iovlen = 1;
    burst->message_bytes = length;
    burst->is_closed = 0;
}

static uint32_t udp_parts(const struct mmsghdr *message) { return (uint32_t)message->msg_hdr.msg_iovlen; }

/* Says to the kernel where to cut messages of several datagrams. */
static void udp_tx_mark(udp_port *self, uint32_t messages_count) {
    for (uint32_t i = 0; i < messages_count; i++) {
        struct msghdr *header = &self->tx_messages[i].msg_hdr;
        header->msg_controllen = 0;
        header->msg_control = NULL;
        if (header->msg_iovlen == 1)
            continue;
        uint16_t segment_bytes = (uint16_t)header->msg_iov[0].iov_len;
        header->msg_control = self->tx_control[i];
        header->msg_controllen = sizeof self->tx_control[i];
        struct cmsghdr *control = CMSG_FIRSTHDR(header);
        control->cmsg_level = SOL_UDP;
        control->cmsg_type = UDP_SEGMENT;
        control->cmsg_len = CMSG_LEN(sizeof segment_bytes);
        memcpy(CMSG_DATA(control), &segment_bytes, sizeof segment_bytes);
    }
}

static void udp_tx_count_sent(udp_port *self, const struct msghdr *header) {
    for (size_t i = 0; i < header->msg_iovlen; i++)
        self->counters.tx_bytes += header->msg_iov[i].iov_len;
    self->counters.tx_packets += header->msg_iovlen;
}

static void udp_tx_count_error(udp_port *self, int error) {
    if (error == ENETUNREACH || error == EHOSTUNREACH || error == ENETDOWN)
        self->counters.tx_drop_no_route++;
    else
        self->counters.tx_drop_error++;
}

static int udp_is_full(int error) { return error == EAGAIN || error == ENOBUFS; }

/* One datagram, tried, sent or counted. */
static void udp_tx_single(udp_port *self, const udp_socket *socket_of, struct mmsghdr *one) {
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
    self->counters.tx_drop_full++;
}

/* A message of several datagrams failed with `error`: send them one by one. When that works and the error is one of cutting (the
 * path's MTU is smaller, the device cannot), cutting is given up for good. */
static void udp_tx_one_by_one(udp_port *self, const udp_socket *socket_of, const struct msghdr *whole, int error) {
    struct mmsghdr one = {.msg_hdr = *whole};
    uint64_t sent_before = self->counters.tx_packets;
    one.msg_hdr.msg_control = NULL;
    one.msg_hdr.msg_controllen = 0;
    one.msg_hdr.msg_iovlen = 1;
    for (size_t i = 0; i < whole->msg_iovlen; i++) {
        one.msg_hdr.msg_iov = &whole->msg_iov[i];
        udp_tx_single(self, socket_of, &one);
    }
    int is_of_cutting = error == EINVAL || error == EIO || error == EMSGSIZE || error == EOPNOTSUPP;
    if (is_of_cutting && self->counters.tx_packets - sent_before == whole->msg_iovlen)
        self->can_segment = 0;
}

/* Sends the burst through its socket and empties it. sendmmsg stops at the first message that fails and says why only when asked
 * again from there. */
static void udp_tx_send(udp_port *self, udp_burst *burst) {
    uint32_t count = burst->messages_count, next = 0;
    uint32_t tries = 0; /* of message `next` */
    udp_tx_mark(self, count);
    while (next < count) {
        int sent = sendmmsg(burst->socket_of->fd, self->tx_messages + next, count - next, MSG_DONTWAIT);
        if (sent > 0) {
            for (uint32_t end = next + (uint32_t)sent; next < end; next++)
                udp_tx_count_sent(self, &self->tx_messages[next].msg_hdr);
            tries = 0;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (udp_is_full(errno)) {
            if (++tries < UDP_TX_RETRIES_MAX)
                continue;
            for (; next < count; next++) /* the rest would meet the same full buffer */
                self->counters.tx_drop_full += udp_parts(&self->tx_messages[next]);
            break;
        }
        if (udp_parts(&self->tx_messages[next]) > 1)
            udp_tx_one_by_one(self, burst->socket_of, &self->tx_messages[next].msg_hdr, errno);
        else
            udp_tx_count_error(self, errno);
        next++;
        tries = 0;
    }
    *burst = (udp_burst){.socket_of = burst->socket_of};
}

/* The packets of one commit, in bursts that leave through the same socket and fit the scratch. */
static void udp_tx_commit(void *port_self, r2p2_tx_packet *packets, uint32_t count) {
    udp_port *self = port_self;
    udp_burst burst = {0};
    for (uint32_t i = 0; i < count; i++) {
        if (packets[i].length == 0)
            continue;
        udp_socket *socket_of = udp_find_socket(self, packets[i].local_port);
        /* The kernel sends with our address only. */
        if (socket_of == NULL || packets[i].source_ip != 0 || packets[i].length > R2P2_DATAGRAM_BYTES_MAX) {
            self->counters.tx_drop_error++;
            continue;
        }
        if (burst.parts_count == R2P2_BURST_MAX || (burst.parts_count > 0 && socket_of != burst.socket_of))
            udp_tx_send(self, &burst);
        burst.socket_of = socket_of;
        udp_tx_add(self, &burst, packets[i].data, packets[i].length, packets[i].target_ip, packets[i].target_port);
    }
    udp_tx_send(self, &burst);
    for (uint32_t i = 0; i < count; i++)
        udp_pool_give_back(&self->tx, packets[i].owner, "tx_commit");
}

static void udp_tx_broadcast(void *port_self, const uint8_t *data, uint32_t length, uint16_t local_port,
                             const r2p2_port_target *targets, uint32_t count) {
    udp_port *self = port_self;
    udp_burst burst = {.socket_of = udp_find_socket(self, local_port)};
    if (burst.socket_of == NULL || length > R2P2_DATAGRAM_BYTES_MAX) {
        self->counters.tx_drop_error += count;
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (burst.parts_count == R2P2_BURST_MAX)
            udp_tx_send(self, &burst);
        udp_tx_add(self, &burst, data, length, targets[i].ip, targets[i].port);
    }
    udp_tx_send(self, &burst);
}

static uint64_t udp_now_ns(void *port_self) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- open and close ---- */

/* FORCE goes beyond the system's limit and needs CAP_NET_ADMIN; the plain option is cut at the limit without an error. */
static void udp_size_buffer(int fd, int forced_option, int option, uint32_t bytes) {
    int value = bytes > INT32_MAX / 2 ? INT32_MAX / 2 : (int)bytes;
    if (bytes > 0 && setsockopt(fd, SOL_SOCKET, forced_option, &value, sizeof value) != 0)
        (void)setsockopt(fd, SOL_SOCKET, option, &value, sizeof value); /* what was granted can be read back */
}

/* A bound socket in `opened`, or a negative errno and nothing left open. */
static int udp_socket_open(const udp_port *self, uint32_t ip, uint16_t local_port, udp_socket *opened) {
    int one = 1;
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons(local_port), .sin_addr.s_addr = htonl(ip)};
    socklen_t local_bytes = sizeof local;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
    if (fd < 0)
        return -errno;
    udp_size_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, self->options.rcvbuf_bytes);
    udp_size_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, self->options.sndbuf_bytes);
    if (self->options.use_segmentation) /* a kernel that does not know it hands over what it always did */
        (void)setsockopt(fd, SOL_UDP, UDP_GRO, &one, sizeof one);
    if (setsockopt(fd, SOL_SOCKET, SO_RXQ_OVFL, &one, sizeof one) != 0 ||
        bind(fd, (struct sockaddr *)&local, sizeof local) != 0 ||
        getsockname(fd, (struct sockaddr *)&local, &local_bytes) != 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    *opened = (udp_socket){.fd = fd, .local_port = ntohs(local.sin_port)};
    return 0;
}

/* Datagrams of full size that the socket holds unread. */
static uint16_t udp_room(int fd) {
    int bytes = 0;
    socklen_t size = sizeof bytes;
    if (getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, &size) != 0)
        return 0;
    uint32_t count = (uint32_t)bytes / UDP_DATAGRAM_ACCOUNTED_BYTES;
    return count < UINT16_MAX ? (uint16_t)count : UINT16_MAX;
}

static int udp_watch(int epoll_fd, const udp_port *self, uint32_t index) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, self->sockets[index].fd, &event) == 0 ? 0 : -errno;
}

static void udp_free(udp_port *self) {
    for (uint32_t i = 0; i < self->sockets_count; i++)
        close(self->sockets[i].fd);
    if (self->epoll_fd >= 0)
        close(self->epoll_fd);
    udp_pool_close(&self->rx);
    udp_pool_close(&self->tx);
    free(self);
}

static void udp_prepare_scratch(udp_port *self) {
    for (uint32_t i = 0; i < R2P2_BURST_MAX; i++) {
        self->rx_parts[i].iov_len = UDP_MESSAGE_BYTES_MAX;
        self->rx_messages[i].msg_hdr = (struct msghdr){.msg_name = &self->rx_sources[i],
                                                       .msg_iov = &self->rx_parts[i],
                                                       .msg_iovlen = 1,
                                                       .msg_control = self->rx_control[i]};
        self->tx_targets[i].sin_family = AF_INET;
        self->tx_messages[i].msg_hdr =
            (struct msghdr){.msg_name = &self->tx_targets[i], .msg_namelen = sizeof self->tx_targets[i]};
    }
}

static int udp_kernel_segments(int fd) {
    int segment_bytes;
    socklen_t size = sizeof segment_bytes;
    return getsockopt(fd, SOL_UDP, UDP_SEGMENT, &segment_bytes, &size) == 0;
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
    self->epoll_fd = -1;
    *error = udp_pool_open(&self->rx, options->rx_buffers_count, UDP_RX_BUFFER_BYTES);
    if (*error == 0)
        *error = udp_pool_open(&self->tx, options->tx_buffers_count, R2P2_DATAGRAM_BYTES_MAX);
    if (*error == 0)
        *error = udp_socket_open(self, ip, port, &self->sockets[0]);
    if (*error != 0) {
        udp_free(self);
        return 0;
    }
    self->sockets_count = 1;
    self->can_segment = options->use_segmentation && udp_kernel_segments(self->sockets[0].fd);
    udp_prepare_scratch(self);
    self->port = (r2p2_port){.abi = R2P2_PORT_ABI,
                             .struct_size = sizeof(r2p2_port),
                             .self = self,
                             .poll_fd = self->sockets[0].fd,
                             .local_ip = ip,
                             .local_port = self->sockets[0].local_port,
                             .rx_room_count = udp_room(self->sockets[0].fd),
                             .rx_burst = udp_rx_burst,
                             .rx_release = udp_rx_release,
                             .tx_reserve = udp_tx_reserve,
                             .tx_commit = udp_tx_commit,
                             .tx_broadcast = udp_tx_broadcast,
                             .now_ns = udp_now_ns,
                             .counters = &self->counters};
    return (uintptr_t)&self->port;
}

/* One epoll instance over all sockets; made when the second one comes. */
static int udp_watch_all(udp_port *self) {
    if (self->epoll_fd < 0) {
        int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        if (epoll_fd < 0)
            return -errno;
        int error = udp_watch(epoll_fd, self, 0);
        if (error != 0) {
            close(epoll_fd);
            return error;
        }
        self->epoll_fd = epoll_fd;
    }
    return udp_watch(self->epoll_fd, self, self->sockets_count);
}

int32_t r2p2_udp_port_add(uintptr_t port, uint16_t local_port) {
    udp_port *self = (udp_port *)port;
    if (self->sockets_count == R2P2_UDP_SOCKETS_MAX)
        return -ENOSPC;
    udp_socket *added = &self->sockets[self->sockets_count];
    int error = udp_socket_open(self, self->port.local_ip, local_port, added);
    if (error != 0)
        return error;
    error = udp_watch_all(self);
    if (error != 0) {
        close(added->fd);
        return error;
    }
    self->sockets_count++;
    self->port.poll_fd = self->epoll_fd;
    return added->local_port;
}

int32_t r2p2_udp_port_close(uintptr_t port) {
    udp_port *self = (udp_port *)port;
    uint32_t held_count = self->rx_out_count + self->tx.count - self->tx.free_count;
    udp_free(self);
    return (int32_t)held_count;
}

/* ---- looking at it ---- */

int32_t r2p2_udp_port_fd(uintptr_t port) { return ((udp_port *)port)->port.poll_fd; }

uint32_t r2p2_udp_port_ip(uintptr_t port) { return ((udp_port *)port)->port.local_ip; }

uint32_t r2p2_udp_port_locals(uintptr_t port, uint16_t *local_ports, uint32_t max) {
    const udp_port *self = (udp_port *)port;
    for (uint32_t i = 0; i < self->sockets_count && i < max; i++)
        local_ports[i] = self->sockets[i].local_port;
    return self->sockets_count;
}

uint32_t r2p2_udp_port_rcvbuf_bytes(uintptr_t port) {
    int bytes = 0;
    socklen_t size = sizeof bytes;
    if (getsockopt(((udp_port *)port)->sockets[0].fd, SOL_SOCKET, SO_RCVBUF, &bytes, &size) != 0)
        return 0;
    return (uint32_t)bytes;
}

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
    for (uint32_t i = 0; i < self->sockets_count; i++) {
        uint32_t memory[SK_MEMINFO_VARS] = {0};
        socklen_t size = sizeof memory;
        if (getsockopt(self->sockets[i].fd, SOL_SOCKET, SO_MEMINFO, memory, &size) == 0 && size > SK_MEMINFO_DROPS * sizeof memory[0])
            udp_note_kernel_drops(self, &self->sockets[i], memory[SK_MEMINFO_DROPS]);
    }
    memcpy(values, &self->counters, sizeof self->counters);
}
