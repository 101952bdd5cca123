/*
 * The stack: one local IPv4 address over several devices. Shared by port.c (the packet loop), control.c (everything that is
 * not a datagram) and stack.c (making and freeing it).
 *
 * Ownership of mbufs: from rx_burst to rx_release the engine; from tx_reserve to tx_commit the engine; in tx_ready the stack
 * (kept to be reserved); in a device's tx array the stack, until rte_eth_tx_burst takes it; what it does not take is freed.
 */
#ifndef DPDK_BACKEND_STACK_H
#define DPDK_BACKEND_STACK_H

#include <rte_mbuf.h>
#include <stdint.h>

#include "dpdk_module.h"
#include "neighbour.h"
#include "net.h"
#include "r2p2_limits.h"
#include "r2p2_port.h"
#include "resolve.h"

#define STACK_BURST 64u
#define STACK_TX_READY 256u /* mbufs kept for tx_reserve */
#define STACK_LOOP 256u     /* datagrams to ourselves on their way; a power of two */

typedef struct stack_device {
    struct rte_mbuf *tx[STACK_BURST]; /* filled by one tx_commit, empty at its end */
    uint32_t tx_count;
    uint16_t port_id;
    uint8_t mac[NET_MAC_BYTES];
    uint8_t is_usable; /* started, and for memif connected: bursts may go to it */
    uint8_t is_started;
    uint8_t is_link_up;
    uint8_t is_memif;
    uint8_t is_reconnecting;
    uint8_t known_checksums; /* of every frame: NET_L4_CHECKSUM_UNFINISHED or 0 */
    uint8_t udp_checksum; /* enum net_udp_checksum */
    uint64_t tx_mbuf_flags;
    uint64_t started_ns; /* when it was last started, or tried to */
    uint64_t link_changes_count;
    uint64_t rx_idle_polls_count;
} stack_device;

struct dpdk_stack {
    r2p2_port port;
    r2p2_port_counters counters;
    struct rte_mempool *pool;
    struct rte_mbuf *tx_ready[STACK_TX_READY];
    uint32_t tx_ready_count;
    uint32_t tx_ready_max;  /* a small part of the pool: what is kept here cannot be received into */
    uint32_t tx_ready_fill; /* taken from the pool at once */
    uint32_t devices_count;
    uint32_t next_device;   /* the first one the next rx_burst asks */
    uint32_t tx_retry_max;
    uint32_t memif_count;
    uint32_t is_gated;
    uint32_t is_sharing_pool; /* a driver (AF_XDP) lends buffers to the kernel and does not collect them at close */
    uint64_t control_tsc;   /* when stack_control is due */
    uint64_t control_period_tsc;
    uint64_t link_checked_ns;
    uint64_t neighbours_checked_ns;
    uint64_t now_ns;        /* of the last stack_control: good enough to date what is learned */
    const neighbour *last;  /* the entry the last datagram left by */
    stack_device devices[DPDK_STACK_DEVICES_MAX];
    neighbour_table neighbours;
    resolver resolver;
    r2p2_rx_packet loop[STACK_LOOP]; /* what we sent to ourselves: loop_head - loop_tail of them */
    uint32_t loop_head, loop_tail;
    uint32_t (*replayed_rx_burst)(void *self, r2p2_rx_packet *packets, uint32_t max); /* NULL: not replaying */
    uint32_t replay_frames; /* what replay.c may still take */
    dpdk_stack_config config;
};

/* The time of the machine. */
uint64_t stack_clock_ns(void);
/* The stack's: the machine's, or the one a replay has set. */
static inline uint64_t stack_now_ns(const dpdk_stack *stack) {
    return __builtin_expect(stack->replayed_rx_burst == NULL, 1) ? stack_clock_ns() : stack->now_ns;
}

/* port.c: fills the vtable. */
void stack_fill_port(dpdk_stack *stack);
/* Sends a frame that is no datagram of the engine; takes the mbuf over. Returns whether the device took it. */
int stack_send_frame(stack_device *device, struct rte_mbuf *mbuf);

/* Sends datagrams that waited for their neighbour; takes the mbufs over. */
void stack_send_waiting(dpdk_stack *stack, uint32_t ip, const waiting_packet *packets, uint32_t count);

/* control.c. ip was heard from mac on a device: remembered, and what waits for it is sent. */
void stack_learn(dpdk_stack *stack, uint32_t ip, const uint8_t *mac, uint32_t device);
/* Both take the mbuf over. `view` is net_parse's. */
void stack_handle_arp(dpdk_stack *stack, uint32_t device, struct rte_mbuf *mbuf);
void stack_handle_echo(dpdk_stack *stack, uint32_t device, struct rte_mbuf *mbuf, const net_view *view);
/* Lets links change, reconnects memif clients. Called outside bursts, every control_period_tsc. */
void stack_control(dpdk_stack *stack);
/* The same for one device. is_slow_check_due: the link may be asked for though that be a system call. */
void device_control(stack_device *device, uint64_t now_ns, int is_slow_check_due);
/* Starts a configured device for the first time: 0 or a negative errno. A memif client is left to device_control. */
int device_begin(stack_device *device);

#endif
