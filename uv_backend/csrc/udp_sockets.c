/* The bound sockets of one port: see udp_sockets.h. */
#include "udp_sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* What the kernel takes off a socket's buffer for a datagram of full size: its memory, a power of two, and its descriptor. */
#define UDP_DATAGRAM_ACCOUNTED_BYTES 2304u

/* FORCE goes beyond the system's limit and needs CAP_NET_ADMIN; the plain option is cut at the limit without an error. */
static void udp_size_buffer(int fd, int forced_option, int option, uint32_t bytes) {
    int value = bytes > INT32_MAX / 2 ? INT32_MAX / 2 : (int)bytes;
    if (bytes > 0 && setsockopt(fd, SOL_SOCKET, forced_option, &value, sizeof value) != 0)
        (void)setsockopt(fd, SOL_SOCKET, option, &value, sizeof value); /* what was granted can be read back */
}

/* A bound socket in `opened`, or a negative errno and nothing left open. */
static int udp_socket_open(udp_socket *opened, uint32_t ip, uint16_t local_port, const r2p2_udp_options *options) {
    int one = 1;
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons(local_port), .sin_addr.s_addr = htonl(ip)};
    socklen_t local_bytes = sizeof local;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
    if (fd < 0)
        return -errno;
    udp_size_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, options->rcvbuf_bytes);
    udp_size_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, options->sndbuf_bytes);
    if (options->use_segmentation) /* a kernel that does not know it hands over what it always did */
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

static int udp_watch(int epoll_fd, const udp_sockets *sockets, uint32_t index) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, sockets->list[index].fd, &event) == 0 ? 0 : -errno;
}

/* One epoll instance over all sockets; made when the second one comes. */
static int udp_watch_all(udp_sockets *sockets) {
    if (sockets->epoll_fd < 0) {
        int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        if (epoll_fd < 0)
            return -errno;
        int error = udp_watch(epoll_fd, sockets, 0);
        if (error != 0) {
            close(epoll_fd);
            return error;
        }
        sockets->epoll_fd = epoll_fd;
    }
    return udp_watch(sockets->epoll_fd, sockets, sockets->count);
}

int udp_sockets_add(udp_sockets *sockets, uint32_t ip, uint16_t local_port, const r2p2_udp_options *options) {
    if (sockets->count == R2P2_UDP_SOCKETS_MAX)
        return -ENOSPC;
    udp_socket *added = &sockets->list[sockets->count];
    int error = udp_socket_open(added, ip, local_port, options);
    if (error != 0)
        return error;
    if (sockets->count > 0)
        error = udp_watch_all(sockets);
    if (error != 0) {
        close(added->fd);
        return error;
    }
    sockets->count++;
    return 0;
}

void udp_sockets_close(udp_sockets *sockets) {
    for (uint32_t i = 0; i < sockets->count; i++)
        close(sockets->list[i].fd);
    if (sockets->epoll_fd >= 0)
        close(sockets->epoll_fd);
}

udp_socket *udp_sockets_find(udp_sockets *sockets, uint16_t local_port) {
    if (local_port == 0)
        return &sockets->list[0];
    for (uint32_t i = 0; i < sockets->count; i++)
        if (sockets->list[i].local_port == local_port)
            return &sockets->list[i];
    return NULL;
}

int udp_sockets_fd(const udp_sockets *sockets) { return sockets->epoll_fd >= 0 ? sockets->epoll_fd : sockets->list[0].fd; }

uint32_t udp_socket_more_drops(udp_socket *self, uint32_t kernel_drops) {
    uint32_t more = kernel_drops - self->kernel_drops; /* wraps as the kernel's does */
    if (more > UINT32_MAX / 2u)                        /* a control message older than our last look */
        return 0;
    self->kernel_drops = kernel_drops;
    return more;
}

uint32_t udp_socket_kernel_drops(const udp_socket *self) {
    uint32_t memory[SK_MEMINFO_VARS] = {0};
    socklen_t size = sizeof memory;
    if (getsockopt(self->fd, SOL_SOCKET, SO_MEMINFO, memory, &size) != 0 || size <= SK_MEMINFO_DROPS * sizeof memory[0])
        return self->kernel_drops;
    return memory[SK_MEMINFO_DROPS];
}

uint32_t udp_socket_rcvbuf_bytes(const udp_socket *self) {
    int bytes = 0;
    socklen_t size = sizeof bytes;
    return getsockopt(self->fd, SOL_SOCKET, SO_RCVBUF, &bytes, &size) == 0 ? (uint32_t)bytes : 0;
}

uint16_t udp_socket_room(const udp_socket *self) {
    uint32_t count = udp_socket_rcvbuf_bytes(self) / UDP_DATAGRAM_ACCOUNTED_BYTES;
    return count < UINT16_MAX ? (uint16_t)count : UINT16_MAX;
}

int udp_socket_can_segment(const udp_socket *self) {
    int segment_bytes;
    socklen_t size = sizeof segment_bytes;
    return getsockopt(self->fd, SOL_UDP, UDP_SEGMENT, &segment_bytes, &size) == 0;
}
