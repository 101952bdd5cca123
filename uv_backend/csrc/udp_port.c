/*
 * The kernel UDP port: struct r2p2_port over non-blocking IPv4 sockets, in bursts of recvmmsg and sendmmsg. Linux.
 *
 * What: one port with one socket for each of its UDP ports, buffers allocated once at open.
 * Why here: a burst costs one system call and no Python.
 * Leaves to others: what the datagrams mean (the engine), when to poll (uv_backend/driver.py), errors in words
 * (uv_backend/port.py).
 *
 * Buffers: two pools, one for receiving and one for sending, so that a peer's flood cannot take the room to answer. A buffer is
 * free, or with the engine (from rx_burst to rx_release, from tx_reserve to tx_commit); a receive buffer is lent to the
 * kernel only inside rx_burst.
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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define UDP_BUFFERS_MIN 64u   /* one burst */
#define UDP_TX_RETRIES_MAX 3u /* tries of one datagram when the socket buffer is full, then it is dropped */
#define UDP_RX_ERRORS_MAX 8u  /* pending socket errors taken in one burst */
#define UDP_CONTROL_BYTES 64u /* room for SO_RXQ_OVFL's control message */

_Static_assert(CMSG_SPACE(sizeof(uint32_t)) <= UDP_CONTROL_BYTES, "a drop count fits the control buffer");

/* A stack of equal buffers. free_count entries of `free` are valid; is_out[i] is 1 exactly while buffer i is with the engine. */
typedef struct udp_pool {
    uint8_t *bytes; /* count * R2P2_DATAGRAM_BYTES_MAX */
    uint32_t *free;
    uint8_t *is_out;
    uint32_t count;
    uint32_t free_count;
} udp_pool;

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
    int epoll_fd;           /* -1 while there is one socket */
    uint32_t rotation;      /* bursts received, wrapping */
    uint32_t sockets_count; /* 1..R2P2_UDP_SOCKETS_MAX once open */
    udp_socket sockets[R2P2_UDP_SOCKETS_MAX];
    /* Scratch of one burst, kept to be initialised once. */
    struct mmsghdr rx_messages[R2P2_BURST_MAX];
    struct iovec rx_parts[R2P2_BURST_MAX];
    struct sockaddr_in rx_sources[R2P2_BURST_MAX];
    uint8_t rx_control[R2P2_BURST_MAX][UDP_CONTROL_BYTES] __attribute__((aligned(16)));
    struct mmsghdr tx_messages[R2P2_BURST_MAX];
    struct iovec tx_parts[R2P2_BURST_MAX];
    struct sockaddr_in tx_targets[R2P2_BURST_MAX];
} udp_port;

/* ---- buffers ---- */

static int udp_pool_open(udp_pool *pool, uint32_t count) {
    pool->bytes = aligned_alloc(64, (size_t)count * R2P2_DATAGRAM_BYTES_MAX);
    pool->free = malloc(count * sizeof *pool->free);
    pool->is_out = calloc(count, 1);
    if (pool->bytes == NULL || pool->free == NULL || pool->is_out == NULL)
        return -ENOMEM;
    pool->count = count;
    for (uint32_t i = 0; i < count; i++)
        pool->free[i] = count - 1u - i;
    pool->free_count = count;
    return 0;
}
_Static_assert(R2P2_DATAGRAM_BYTES_MAX % 64 == 0, "every buffer starts on a cache line");

static void udp_pool_close(udp_pool *pool) {
    free(pool->bytes);
    free(pool->free);
    free(pool->is_out);
}

static uint8_t *udp_pool_at(const udp_pool *pool, uint32_t index) {
    return pool->bytes + (size_t)index * R2P2_DATAGRAM_BYTES_MAX;
}

/* The caller has checked that one is free. */
static uint8_t *udp_pool_take(udp_pool *pool) {
    uint32_t index = pool->free[--pool->free_count];
    pool->is_out[index] = 1;
    return udp_pool_at(pool, index);
}

/* Our own mistakes stop the program and say both values; nothing a peer sends gets here. */
static void udp_pool_give_back(udp_pool *pool, const uint8_t *data, const char *where) {
    size_t index = (size_t)(data - pool->bytes) / R2P2_DATAGRAM_BYTES_MAX;
    if (data < pool->bytes || index >= pool->count || !pool->is_out[index]) {
        fprintf(stderr, "udp_port: %s of buffer %zu of %u, which the engine does not hold\n", where, index, pool->count);
        abort();
    }
    pool->is_out[index] = 0;
    pool->free[pool->free_count++] = (uint32_t)index;
}

/* ---- receiving ---- */

static void udp_note_kernel_drops(udp_port *self, udp_socket *socket_of, uint32_t kernel_drops) {
    uint32_t more = kernel_drops - socket_of->kernel_drops; /* wraps as the kernel's does */
    if (more == 0 || more > UINT32_MAX / 2u)                /* a control message older than our last look */
        return;
    self->counters.rx_drop_kernel += more;
    socket_of->kernel_drops = kernel_drops;
}

static void udp_read_control(udp_port *self, udp_socket *socket_of, struct msghdr *header) {
    for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part != NULL; part = CMSG_NXTHDR(header, part)) {
        if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SO_RXQ_OVFL) {
            uint32_t kernel_drops;
            memcpy(&kernel_drops, CMSG_DATA(part), sizeof kernel_drops);
            udp_note_kernel_drops(self, socket_of, kernel_drops);
        }
    }
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

/* Up to `max` datagrams of one socket; max <= R2P2_BURST_MAX. */
static uint32_t udp_rx_socket(udp_port *self, udp_socket *socket_of, r2p2_rx_packet *packets, uint32_t max) {
    uint32_t accepted = 0;
    if (max > self->rx.free_count)
        max = self->rx.free_count;
    int count = max > 0 ? udp_receive(self, socket_of, max) : 0;
    if (count <= 0)
        return 0;
    /* Message i lies in the buffer i below the top of the stack. Take them all, then give back what is refused. */
    for (int i = 0; i < count; i++) {
        struct mmsghdr *message = &self->rx_messages[i];
        const struct sockaddr_in *source = &self->rx_sources[i];
        uint8_t *data = udp_pool_take(&self->rx);
        if (message->msg_hdr.msg_controllen > 0)
            udp_read_control(self, socket_of, &message->msg_hdr);
        packets[accepted] = (r2p2_rx_packet){.data = data,
                                             .length = message->msg_len,
                                             .source_ip = ntohl(source->sin_addr.s_addr),
                                             .source_port = ntohs(source->sin_port),
                                             .local_port = socket_of->local_port,
                                             .owner = data};
        if (message->msg_hdr.msg_flags & MSG_TRUNC) {
            packets[accepted].length = UINT32_MAX; /* marks it for the pass below */
            self->counters.rx_drop_truncated++;
        }
        accepted++;
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < accepted; i++) {
        if (packets[i].length == UINT32_MAX) {
            udp_pool_give_back(&self->rx, packets[i].owner, "refusal");
            continue;
        }
        self->counters.rx_bytes += packets[i].length;
        packets[kept++] = packets[i];
    }
    self->counters.rx_packets += kept;
    return kept;
}

static uint32_t udp_rx_burst(void *port_self, r2p2_rx_packet *packets, uint32_t max) {
    udp_port *self = port_self;
    struct epoll_event ready[R2P2_UDP_SOCKETS_MAX];
    uint32_t received = 0;
    if (max > R2P2_BURST_MAX)
        max = R2P2_BURST_MAX;
    if (self->sockets_count == 1)
        return udp_rx_socket(self, &self->sockets[0], packets, max);
    int ready_count = epoll_wait(self->epoll_fd, ready, (int)self->sockets_count, 0);
    /* Another one goes first each time, since a busy one can fill the burst alone: the kernel reports them in a fixed order. */
    self->rotation++;
    for (int i = 0; i < ready_count && received < max; i++) {
        uint32_t index = ready[(self->rotation + (uint32_t)i) % (uint32_t)ready_count].data.u32;
        received += udp_rx_socket(self, &self->sockets[index], packets + received, max - received);
    }
    return received;
}

static void udp_rx_release(void *port_self, r2p2_rx_packet *packets, uint32_t count) {
    udp_port *self = port_self;
    for (uint32_t i = 0; i < count; i++)
        udp_pool_give_back(&self->rx, packets[i].owner, "rx_release");
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

/* Fills in place `slot` of the burst about to be sent. */
static void udp_tx_fill(udp_port *self, uint32_t slot, const uint8_t *data, uint32_t length, uint32_t ip, uint16_t port) {
    self->tx_parts[slot] = (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = length};
    self->tx_targets[slot].sin_addr.s_addr = htonl(ip);
    self->tx_targets[slot].sin_port = htons(port);
}

/* Sends slots 0..count-1 through one socket. sendmmsg stops at the first datagram that fails and says why only when asked again
 * from there. */
static void udp_tx_send(udp_port *self, const udp_socket *socket_of, uint32_t count) {
    uint32_t next = 0;
    uint32_t retries = 0; /* of datagram `next` */
    while (next < count) {
        int sent = sendmmsg(socket_of->fd, self->tx_messages + next, count - next, MSG_DONTWAIT);
        if (sent > 0) {
            for (uint32_t i = next; i < next + (uint32_t)sent; i++)
                self->counters.tx_bytes += self->tx_parts[i].iov_len;
            self->counters.tx_packets += (uint32_t)sent;
            next += (uint32_t)sent;
            retries = 0;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN || errno == ENOBUFS) {
            if (++retries < UDP_TX_RETRIES_MAX)
                continue;
            self->counters.tx_drop_full += count - next; /* the rest would meet the same full buffer */
            return;
        }
        if (errno == ENETUNREACH || errno == EHOSTUNREACH || errno == ENETDOWN)
            self->counters.tx_drop_no_route++;
        else
            self->counters.tx_drop_error++;
        next++;
        retries = 0;
    }
}

/* The packets of one commit, in runs that leave through the same socket and fit the scratch. */
static void udp_tx_commit(void *port_self, r2p2_tx_packet *packets, uint32_t count) {
    udp_port *self = port_self;
    udp_socket *run_socket = NULL;
    uint32_t run = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (packets[i].length == 0)
            continue;
        udp_socket *socket_of = udp_find_socket(self, packets[i].local_port);
        /* The kernel sends with our address only. */
        if (socket_of == NULL || packets[i].source_ip != 0 || packets[i].length > R2P2_DATAGRAM_BYTES_MAX) {
            self->counters.tx_drop_error++;
            continue;
        }
        if (run == R2P2_BURST_MAX || (run > 0 && socket_of != run_socket)) {
            udp_tx_send(self, run_socket, run);
            run = 0;
        }
        run_socket = socket_of;
        udp_tx_fill(self, run++, packets[i].data, packets[i].length, packets[i].target_ip, packets[i].target_port);
    }
    if (run > 0)
        udp_tx_send(self, run_socket, run);
    for (uint32_t i = 0; i < count; i++)
        udp_pool_give_back(&self->tx, packets[i].owner, "tx_commit");
}

static void udp_tx_broadcast(void *port_self, const uint8_t *data, uint32_t length, uint16_t local_port,
                             const r2p2_port_target *targets, uint32_t count) {
    udp_port *self = port_self;
    const udp_socket *socket_of = udp_find_socket(self, local_port);
    if (socket_of == NULL || length > R2P2_DATAGRAM_BYTES_MAX) {
        self->counters.tx_drop_error += count;
        return;
    }
    for (uint32_t done = 0; done < count;) {
        uint32_t run = count - done < R2P2_BURST_MAX ? count - done : R2P2_BURST_MAX;
        for (uint32_t i = 0; i < run; i++)
            udp_tx_fill(self, i, data, length, targets[done + i].ip, targets[done + i].port);
        udp_tx_send(self, socket_of, run);
        done += run;
    }
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
        self->rx_parts[i].iov_len = R2P2_DATAGRAM_BYTES_MAX;
        self->rx_messages[i].msg_hdr = (struct msghdr){.msg_name = &self->rx_sources[i],
                                                       .msg_iov = &self->rx_parts[i],
                                                       .msg_iovlen = 1,
                                                       .msg_control = self->rx_control[i]};
        self->tx_targets[i].sin_family = AF_INET;
        self->tx_messages[i].msg_hdr = (struct msghdr){.msg_name = &self->tx_targets[i],
                                                       .msg_namelen = sizeof self->tx_targets[i],
                                                       .msg_iov = &self->tx_parts[i],
                                                       .msg_iovlen = 1};
    }
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
    *error = udp_pool_open(&self->rx, options->rx_buffers_count);
    if (*error == 0)
        *error = udp_pool_open(&self->tx, options->tx_buffers_count);
    if (*error == 0)
        *error = udp_socket_open(self, ip, port, &self->sockets[0]);
    if (*error != 0) {
        udp_free(self);
        return 0;
    }
    self->sockets_count = 1;
    udp_prepare_scratch(self);
    self->port = (r2p2_port){.abi = R2P2_PORT_ABI,
                             .struct_size = sizeof(r2p2_port),
                             .self = self,
                             .poll_fd = self->sockets[0].fd,
                             .local_ip = ip,
                             .local_port = self->sockets[0].local_port,
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
    uint32_t held_count = self->rx.count - self->rx.free_count + self->tx.count - self->tx.free_count;
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
