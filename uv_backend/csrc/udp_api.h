/*
 * What Python sees of the kernel UDP port. Plain declarations only: cffi parses this file, and udp_module.h includes it.
 *
 * Addresses: IPv4 and UDP port, host byte order. Functions that can fail return a negative errno.
 */

#define R2P2_UDP_SOCKETS_MAX 64
#define R2P2_UDP_BUFFERS_MAX 65536

typedef struct r2p2_udp_options {
    uint32_t rx_buffers_count; /* datagrams the engine can hold at least; 64..R2P2_UDP_BUFFERS_MAX, 66 kB of address space each */
    uint32_t tx_buffers_count; /* datagrams it can have reserved at once; the same range */
    uint32_t rcvbuf_bytes;     /* of each socket, before the kernel doubles it; 0: the system's default */
    uint32_t sndbuf_bytes;
    uint32_t use_segmentation; /* 0: every datagram is a message of its own to the kernel */
} r2p2_udp_options;

/* Binds ip:port (port 0: the kernel chooses). Returns the address of a struct r2p2_port, or 0 and *error = a negative errno. */
uintptr_t r2p2_udp_port_open(uint32_t ip, uint16_t port, const r2p2_udp_options *options, int32_t *error);
/* Binds one more UDP port of the same ip (0: the kernel chooses) and returns it. From the second socket on the port's poll_fd
 * is another one (an epoll instance), so add ports before a driver watches it. */
int32_t r2p2_udp_port_add(uintptr_t port, uint16_t local_port);
/* Closes the sockets. Returns the number of buffers the engine had not given back (0 is right). */
int32_t r2p2_udp_port_close(uintptr_t port);

int32_t r2p2_udp_port_fd(uintptr_t port);
uint32_t r2p2_udp_port_ip(uintptr_t port);
/* Copies the local UDP ports in order of binding, at most max; returns how many there are. */
uint32_t r2p2_udp_port_locals(uintptr_t port, uint16_t *local_ports, uint32_t max);
/* What the kernel granted for the first socket, as it counts it (twice the payload). */
uint32_t r2p2_udp_port_rcvbuf_bytes(uintptr_t port);

/* The port's counters by index 0..count-1, with the kernel's drops up to this moment. */
uint32_t r2p2_udp_counters_count(void);
const char *r2p2_udp_counter_name(uint32_t index);
const char *r2p2_udp_counter_help(uint32_t index);
void r2p2_udp_counters_read(uintptr_t port, uint64_t *values);
