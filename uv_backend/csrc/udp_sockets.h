/*
 * The bound sockets of one port, one for each of its UDP ports: opened, found, watched.
 * Leaves to others: what comes and goes through them (udp_rx.c, udp_tx.c).
 */
#ifndef UDP_SOCKETS_H
#define UDP_SOCKETS_H

#include <netinet/udp.h>

#include "udp_module.h"

/* Where the headers are older than the kernel. */
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

typedef struct udp_socket {
    int fd;
    uint16_t local_port;
    uint32_t kernel_drops; /* the kernel's count at our last look, wrapping */
} udp_socket;

typedef struct udp_sockets {
    int epoll_fd;   /* -1 while there is one socket */
    uint32_t count; /* 1..R2P2_UDP_SOCKETS_MAX once open */
    udp_socket list[R2P2_UDP_SOCKETS_MAX];
} udp_sockets;

/* Binds one more, list[count-1] from then on; 0, or a negative errno and nothing has changed. */
int udp_sockets_add(udp_sockets *sockets, uint32_t ip, uint16_t local_port, const r2p2_udp_options *options);
void udp_sockets_close(udp_sockets *sockets);
/* That of a local port, the first for port 0; NULL: there is none. */
udp_socket *udp_sockets_find(udp_sockets *sockets, uint16_t local_port);
/* What to wait on for all of them. */
int udp_sockets_fd(const udp_sockets *sockets);

/* How many more the kernel has dropped than at our last look. */
uint32_t udp_socket_more_drops(udp_socket *self, uint32_t kernel_drops);
/* The kernel's count now; the one of our last look where it does not say. */
uint32_t udp_socket_kernel_drops(const udp_socket *self);
/* Datagrams of full size that the socket holds unread. */
uint16_t udp_socket_room(const udp_socket *self);
/* Bytes of its receive buffer as the kernel counts them; 0 where it does not say. */
uint32_t udp_socket_rcvbuf_bytes(const udp_socket *self);
/* Whether the kernel cuts messages for us. */
int udp_socket_can_segment(const udp_socket *self);

#endif
