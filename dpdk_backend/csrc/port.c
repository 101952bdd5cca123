/*
 * The packet loop: struct r2p2_port over DPDK devices.
 *
 * rx_burst asks the devices in turn, checks every frame (net.h), hands up valid datagrams to our address and counts the rest
 * by reason. tx_commit writes headers in place, gathers per device and sends one burst each. No function pointer, no allocation and
 * no lock in the loop beyond the driver's own.
 * Leaves to others: ARP, ICMP, links (control.c, resolve.c), which UDP ports are open (the engine).
 */
#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_prefetch.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include "stack.h"

_Static_assert(STACK_BURST >= R2P2_BURST_MAX, "an engine's burst fits");

uint64_t stack_clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t port_now_ns(void *self) { return stack_clock_ns(); }

static void count_drop(r2p2_port_counters *counters, enum net_verdict verdict) {
    switch (verdict) {
    case NET_TRUNCATED:
        counters->rx_drop_truncated++;
        break;
    case NET_NOT_IPV4:
        counters->rx_drop_not_ipv4++;
        break;
    case NET_BAD_IP:
        counters->rx_drop_bad_ip++;
        break;
    case NET_FRAGMENT:
        counters->rx_drop_fragment++;
        break;
    case NET_NOT_UDP:
        counters->rx_drop_not_udp++;
        break;
    case NET_BAD_UDP:
        counters->rx_drop_bad_udp++;
        break;
    case NET_BAD_CHECKSUM:
        counters->rx_drop_bad_checksum++;
        break;
    case NET_FOREIGN:
        counters->rx_drop_foreign_address++;
        break;
    case NET_UDP:
    case NET_ARP:
    case NET_ICMP_ECHO:
    case NET_VERDICTS_COUNT:
        break;
    }
}

/* What the device says about the checksums. A bad one is looked at again in software, which then counts it. */
static inline unsigned known_checksums(const struct rte_mbuf *mbuf) {
    unsigned known = 0;
    if ((mbuf->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_GOOD)
        known |= NET_IP_CHECKSUM_GOOD;
    if ((mbuf->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_GOOD)
        known |= NET_L4_CHECKSUM_GOOD;
    return known;
}

/* Frames that are no datagram for the engine: answered, learned from, or counted and freed. */
static __attribute__((noinline)) void take_other(dpdk_stack *stack, uint32_t device, struct rte_mbuf *mbuf,
                                                 enum net_verdict verdict, const net_view *view) {
    if (verdict == NET_ARP) {
        stack_handle_arp(stack, device, mbuf);
    } else if (verdict == NET_ICMP_ECHO) {
        stack_handle_echo(stack, device, mbuf, view);
    } else {
        count_drop(&stack->counters, verdict);
        rte_pktmbuf_free(mbuf);
    }
}

/* The source of a valid datagram is worth knowing: its answer goes back the same way, without ARP. */
static inline void learn_source(dpdk_stack *stack, uint32_t device, const uint8_t *frame, uint32_t ip) {
    const neighbour *known = neighbour_find(&stack->neighbours, ip);
    if (__builtin_expect(known == NULL || known->device != device ||
                             !net_mac_equal(known->ethernet, frame + NET_MAC_BYTES) ||
                             stack->now_ns - known->confirmed_ns > 1000000000u,
                         0) &&
        !(frame[NET_MAC_BYTES] & 1u))
        stack_learn(stack, ip, frame + NET_MAC_BYTES, device);
}

static inline int is_open(const dpdk_stack *stack, uint16_t port) {
    return (uint16_t)(port - stack->config.local_port) < stack->config.local_ports_count;
}

/* What we sent to ourselves never meets a device. */
static uint32_t take_loop(dpdk_stack *stack, r2p2_rx_packet *packets, uint32_t max) {
    uint32_t filled = 0;
    while (filled < max && stack->loop_tail != stack->loop_head) {
        packets[filled] = stack->loop[stack->loop_tail++ % STACK_LOOP];
        stack->counters.rx_packets++;
        stack->counters.rx_bytes += packets[filled++].length;
    }
    return filled;
}

static uint32_t port_rx_burst(void *self, r2p2_rx_packet *packets, uint32_t max) {
    dpdk_stack *stack = self;
    uint32_t filled = 0, devices_count = stack->devices_count, first = stack->next_device;
    if (__builtin_expect(rte_rdtsc() >= stack->control_tsc, 0))
        stack_control(stack);
    if (__builtin_expect(stack->loop_tail != stack->loop_head, 0))
        filled = take_loop(stack, packets, max);
    stack->next_device = first + 1 < devices_count ? first + 1 : 0;
    for (uint32_t i = 0; i < devices_count && filled < max; i++) {
        uint32_t index = first + i < devices_count ? first + i : first + i - devices_count;
        stack_device *device = &stack->devices[index];
        struct rte_mbuf *mbufs[STACK_BURST];
        if (!device->is_usable)
            continue;
        uint32_t room = max - filled < STACK_BURST ? max - filled : STACK_BURST;
        uint32_t count = rte_eth_rx_burst(device->port_id, 0, mbufs, (uint16_t)room);
        if (count == 0) {
            device->rx_idle_polls_count++;
            continue;
        }
        device->rx_idle_polls_count = 0;
        for (uint32_t j = 0; j < count && j < 4; j++)
            rte_prefetch0(rte_pktmbuf_mtod(mbufs[j], void *));
        for (uint32_t j = 0; j < count; j++) {
            struct rte_mbuf *mbuf = mbufs[j];
            net_view view;
            if (j + 4 < count)
                rte_prefetch0(rte_pktmbuf_mtod(mbufs[j + 4], void *));
            if (__builtin_expect(mbuf->nb_segs > 1, 0) && rte_pktmbuf_linearize(mbuf) != 0) {
                stack->counters.rx_drop_truncated++;
                rte_pktmbuf_free(mbuf);
                continue;
            }
            const uint8_t *frame = rte_pktmbuf_mtod(mbuf, const uint8_t *);
            enum net_verdict verdict = net_parse(frame, rte_pktmbuf_data_len(mbuf), device->mac, stack->port.local_ip,
                                                 known_checksums(mbuf) | device->known_checksums, &view);
            if (__builtin_expect(verdict != NET_UDP, 0)) {
                take_other(stack, index, mbuf, verdict, &view);
                continue;
            }
            if (__builtin_expect(view.length > R2P2_DATAGRAM_BYTES_MAX, 0)) { /* longer than any R2P2 packet */
                stack->counters.rx_drop_truncated++;
                rte_pktmbuf_free(mbuf);
                continue;
            }
            if (__builtin_expect(!is_open(stack, view.target_port), 0)) {
                stack->counters.rx_drop_no_listener++;
                rte_pktmbuf_free(mbuf);
                continue;
            }
            learn_source(stack, index, frame, view.source_ip);
            stack->counters.rx_packets++;
            stack->counters.rx_bytes += view.length;
            packets[filled++] = (r2p2_rx_packet){
                .data = view.payload,
                .length = view.length,
                .source_ip = view.source_ip,
                .source_port = view.source_port,
                .local_port = view.target_port,
                .owner = mbuf,
            };
        }
    }
    return filled;
}

static void port_rx_release(void *self, r2p2_rx_packet *packets, uint32_t count) {
    while (count > 0) {
        struct rte_mbuf *mbufs[STACK_BURST];
        uint32_t n = count < STACK_BURST ? count : STACK_BURST;
        for (uint32_t i = 0; i < n; i++)
            mbufs[i] = packets[i].owner;
        rte_pktmbuf_free_bulk(mbufs, n);
        packets += n;
        count -= n;
    }
}

/* Called when tx_ready is empty: a fill of it, or the last ones of the pool, one by one. */
static __attribute__((noinline)) void refill_ready(dpdk_stack *stack) {
    if (rte_pktmbuf_alloc_bulk(stack->pool, stack->tx_ready, stack->tx_ready_fill) == 0) {
        stack->tx_ready_count = stack->tx_ready_fill;
        return;
    }
    struct rte_mbuf *mbuf;
    while (stack->tx_ready_count < stack->tx_ready_fill && (mbuf = rte_pktmbuf_alloc(stack->pool)) != NULL)
        stack->tx_ready[stack->tx_ready_count++] = mbuf;
}

static inline struct rte_mbuf *take_ready(dpdk_stack *stack) {
    if (__builtin_expect(stack->tx_ready_count == 0, 0)) {
        refill_ready(stack);
        if (stack->tx_ready_count == 0)
            return NULL;
    }
    return stack->tx_ready[--stack->tx_ready_count];
}

static uint32_t port_tx_reserve(void *self, r2p2_tx_packet *packets, uint32_t count) {
    dpdk_stack *stack = self;
    uint32_t filled = 0;
    for (; filled < count; filled++) {
        struct rte_mbuf *mbuf = take_ready(stack);
        if (__builtin_expect(mbuf == NULL, 0)) {
            stack->counters.tx_reserve_failed++;
            break;
        }
        packets[filled] = (r2p2_tx_packet){
            .data = rte_pktmbuf_mtod_offset(mbuf, uint8_t *, NET_UDP_HEADERS_BYTES),
            .owner = mbuf,
        };
    }
    return filled;
}

static void give_back(dpdk_stack *stack, struct rte_mbuf *mbuf) {
    if (stack->tx_ready_count < stack->tx_ready_max)
        stack->tx_ready[stack->tx_ready_count++] = mbuf; /* untouched: as fresh as from the pool */
    else
        rte_pktmbuf_free(mbuf);
}

int stack_send_frame(stack_device *device, struct rte_mbuf *mbuf) {
    if (device->is_usable && rte_eth_tx_burst(device->port_id, 0, &mbuf, 1) == 1)
        return 1;
    rte_pktmbuf_free(mbuf);
    return 0;
}

/* One burst; what the device does not take within the retries is freed and counted. */
static void flush_device(dpdk_stack *stack, stack_device *device) {
    uint32_t count = device->tx_count, sent = 0;
    uint64_t bytes = 0;
    device->tx_count = 0;
    for (uint32_t i = 0; i < count; i++)
        bytes += rte_pktmbuf_data_len(device->tx[i]) - NET_UDP_HEADERS_BYTES;
    if (device->is_usable) {
        sent = rte_eth_tx_burst(device->port_id, 0, device->tx, (uint16_t)count);
        for (uint32_t retry = 0; __builtin_expect(sent < count, 0) && retry < stack->tx_retry_max; retry++) {
            rte_pause();
            sent += rte_eth_tx_burst(device->port_id, 0, device->tx + sent, (uint16_t)(count - sent));
        }
    }
    if (__builtin_expect(sent < count, 0)) {
        for (uint32_t i = sent; i < count; i++)
            bytes -= rte_pktmbuf_data_len(device->tx[i]) - NET_UDP_HEADERS_BYTES;
        stack->counters.tx_drop_full += count - sent;
        rte_pktmbuf_free_bulk(device->tx + sent, count - sent);
    }
    stack->counters.tx_packets += sent;
    stack->counters.tx_bytes += bytes;
}

/* Takes the mbuf over. It is ours, or its neighbour is not known, or it has no route. */
static __attribute__((noinline)) void send_elsewhere(dpdk_stack *stack, uint32_t ip, const waiting_packet *packet) {
    if (ip != stack->port.local_ip) {
        resolve_wait(stack, ip, packet);
        return;
    }
    if (stack->loop_head - stack->loop_tail == STACK_LOOP) {
        stack->counters.tx_drop_full++;
        rte_pktmbuf_free(packet->mbuf);
        return;
    }
    stack->counters.tx_packets++;
    stack->counters.tx_bytes += packet->length;
    if (!is_open(stack, packet->port)) {
        stack->counters.rx_drop_no_listener++;
        rte_pktmbuf_free(packet->mbuf);
        return;
    }
    stack->loop[stack->loop_head++ % STACK_LOOP] = (r2p2_rx_packet){
        .data = rte_pktmbuf_mtod_offset(packet->mbuf, uint8_t *, NET_UDP_HEADERS_BYTES),
        .length = packet->length,
        .source_ip = packet->source_ip ? packet->source_ip : ip,
        .source_port = packet->local_port ? packet->local_port : stack->port.local_port,
        .local_port = packet->port,
        .owner = packet->mbuf,
    };
}

/* Headers in front of the payload, into the array of its device. Takes the mbuf over. */
static inline void queue_datagram(dpdk_stack *stack, struct rte_mbuf *mbuf, uint32_t length, uint32_t ip, uint16_t port,
                                  uint32_t source_ip, uint16_t local_port) {
    const neighbour *target = stack->last;
    if (__builtin_expect(target->ip != ip || ip == 0, 0)) { /* a free entry has address 0 */
        target = neighbour_find(&stack->neighbours, ip);
        if (__builtin_expect(target == NULL, 0)) {
            waiting_packet packet = {
                .mbuf = mbuf, .length = length, .source_ip = source_ip, .port = port, .local_port = local_port};
            send_elsewhere(stack, ip, &packet);
            return;
        }
        stack->last = target;
    }
    stack_device *device = &stack->devices[target->device];
    net_write_udp(rte_pktmbuf_mtod(mbuf, uint8_t *), target->ethernet,
                  source_ip ? source_ip : stack->port.local_ip, ip,
                  local_port ? local_port : stack->port.local_port, port, length,
                  (enum net_udp_checksum)device->udp_checksum);
    mbuf->data_len = (uint16_t)(length + NET_UDP_HEADERS_BYTES);
    mbuf->pkt_len = mbuf->data_len;
    if (device->tx_mbuf_flags != 0) {
        mbuf->ol_flags |= device->tx_mbuf_flags;
        mbuf->l2_len = NET_ETHERNET_BYTES;
        mbuf->l3_len = NET_IPV4_BYTES;
        mbuf->l4_len = NET_UDP_BYTES;
    }
    device->tx[device->tx_count++] = mbuf;
    if (device->tx_count == STACK_BURST)
        flush_device(stack, device);
}

static void flush_all(dpdk_stack *stack) {
    for (uint32_t i = 0; i < stack->devices_count; i++)
        if (stack->devices[i].tx_count > 0)
            flush_device(stack, &stack->devices[i]);
}

void stack_send_waiting(dpdk_stack *stack, uint32_t ip, const waiting_packet *packets, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        queue_datagram(stack, packets[i].mbuf, packets[i].length, ip, packets[i].port, packets[i].source_ip,
                       packets[i].local_port);
    flush_all(stack);
}

static void port_tx_commit(void *self, r2p2_tx_packet *packets, uint32_t count) {
    dpdk_stack *stack = self;
    for (uint32_t i = 0; i < count; i++) {
        const r2p2_tx_packet *packet = &packets[i];
        if (packet->length == 0) {
            give_back(stack, packet->owner);
        } else if (__builtin_expect(packet->length > R2P2_DATAGRAM_BYTES_MAX, 0)) {
            stack->counters.tx_drop_error++;
            rte_pktmbuf_free(packet->owner);
        } else {
            queue_datagram(stack, packet->owner, packet->length, packet->target_ip, packet->target_port,
                           packet->source_ip, packet->local_port);
        }
    }
    flush_all(stack);
}

static void port_tx_broadcast(void *self, const uint8_t *data, uint32_t length, uint16_t local_port,
                              const r2p2_port_target *targets, uint32_t count) {
    dpdk_stack *stack = self;
    for (uint32_t i = 0; i < count; i++) {
        if (length == 0 || length > R2P2_DATAGRAM_BYTES_MAX) {
            stack->counters.tx_drop_error++;
            continue;
        }
        struct rte_mbuf *mbuf = take_ready(stack);
        if (mbuf == NULL) {
            stack->counters.tx_reserve_failed++;
            continue;
        }
        memcpy(rte_pktmbuf_mtod_offset(mbuf, uint8_t *, NET_UDP_HEADERS_BYTES), data, length);
        queue_datagram(stack, mbuf, length, targets[i].ip, targets[i].port, 0, local_port);
    }
    flush_all(stack);
}

static void port_keep_peers(void *self, const r2p2_port_target *peers, uint32_t count) {
    dpdk_stack *stack = self;
    uint32_t ips[DPDK_NEIGHBOURS_KEPT_MAX];
    if (count > DPDK_NEIGHBOURS_KEPT_MAX)
        count = DPDK_NEIGHBOURS_KEPT_MAX;
    for (uint32_t i = 0; i < count; i++)
        ips[i] = peers[i].ip;
    neighbour_keep(&stack->neighbours, ips, count);
}

void stack_fill_port(dpdk_stack *stack) {
    stack->port = (r2p2_port){
        .abi = R2P2_PORT_ABI,
        .struct_size = sizeof(r2p2_port),
        .self = stack,
        .poll_fd = -1,
        .local_ip = stack->config.local_ip,
        .local_port = stack->config.local_port,
        .rx_burst = port_rx_burst,
        .rx_release = port_rx_release,
        .tx_reserve = port_tx_reserve,
        .tx_commit = port_tx_commit,
        .tx_broadcast = port_tx_broadcast,
        .keep_peers = port_keep_peers,
        .now_ns = port_now_ns,
        .counters = &stack->counters,
    };
}
