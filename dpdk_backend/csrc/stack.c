/*
 * Making and freeing a stack: the pool, the devices, routes, neighbours, and reading its state.
 * Leaves to others: packets (port.c), links (control.c).
 */
#include <errno.h>
#include <rte_cycles.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "gate.h"
#include "log.h"
#include "stack.h"

#define POOL_CACHE_COUNT 256u
#define CONTROL_PERIODS_PER_SECOND 250u

static const neighbour NOBODY = {.ip = 0};

static const char *const counter_names[] = {
#define NAME(name, help) #name,
    R2P2_PORT_COUNTERS(NAME)
#undef NAME
};

static const char *const counter_helps[] = {
#define HELP(name, help) help,
    R2P2_PORT_COUNTERS(HELP)
#undef HELP
};

#define COUNTERS_COUNT (sizeof counter_names / sizeof *counter_names)
_Static_assert(sizeof(r2p2_port_counters) == COUNTERS_COUNT * sizeof(uint64_t), "every counter has a name");

uint32_t dpdk_counters_count(void) { return COUNTERS_COUNT; }
const char *dpdk_counter_name(uint32_t index) { return index < COUNTERS_COUNT ? counter_names[index] : ""; }
const char *dpdk_counter_help(uint32_t index) { return index < COUNTERS_COUNT ? counter_helps[index] : ""; }
void dpdk_counters_read(dpdk_stack *stack, uint64_t *values) { memcpy(values, &stack->counters, sizeof stack->counters); }

dpdk_stack *dpdk_stack_new(const char *name, const dpdk_stack_config *config) {
    if (dpdk_eal_state() != DPDK_EAL_RUNNING) {
        dpdk_fail(EINVAL, "a DPDK port needs a running EAL");
        return NULL;
    }
    if (config->mbuf_data_bytes < RTE_PKTMBUF_HEADROOM + NET_UDP_HEADERS_BYTES + R2P2_DATAGRAM_BYTES_MAX) {
        dpdk_fail(EINVAL, "an mbuf of %u bytes has no room for a datagram", config->mbuf_data_bytes);
        return NULL;
    }
    dpdk_stack *stack = calloc(1, sizeof *stack);
    if (stack == NULL) {
        dpdk_fail(ENOMEM, "no memory for a stack");
        return NULL;
    }
    neighbour_init(&stack->neighbours, config->neighbour_random);
    stack->config = *config;
    stack->tx_retry_max = config->tx_retry_max;
    stack->last = &NOBODY;
    stack->tx_ready_max = RTE_MIN(STACK_TX_READY, RTE_MAX(config->mbufs_count / 16, 4u));
    stack->tx_ready_fill = RTE_MIN(STACK_BURST, stack->tx_ready_max / 2);
    stack->control_period_tsc = rte_get_tsc_hz() / CONTROL_PERIODS_PER_SECOND;
    stack->now_ns = stack_clock_ns();
    uint32_t cache = POOL_CACHE_COUNT;
    while (cache > 0 && cache * 3 > config->mbufs_count * 2) /* DPDK wants 1.5 caches in a pool */
        cache /= 2;
    stack->pool = rte_pktmbuf_pool_create(name, config->mbufs_count, cache, 0, config->mbuf_data_bytes, SOCKET_ID_ANY);
    if (stack->pool == NULL) {
        dpdk_fail(rte_errno, "rte_pktmbuf_pool_create(%s, %u mbufs of %u bytes): %s", name, config->mbufs_count,
                  config->mbuf_data_bytes, rte_strerror(rte_errno));
        free(stack);
        return NULL;
    }
    stack_fill_port(stack);
    return stack;
}

int32_t dpdk_stack_add_device(dpdk_stack *stack, uint16_t port_id, const dpdk_stack_device_config *config) {
    if (stack->devices_count == DPDK_STACK_DEVICES_MAX)
        return dpdk_fail(ENOSPC, "a port takes at most %d devices", DPDK_STACK_DEVICES_MAX);
    stack_device *device = &stack->devices[stack->devices_count];
    device_setup setup = {
        .pool = stack->pool,
        .queues_count = 1,
        .rx_ring_count = config->rx_ring_count,
        .tx_ring_count = config->tx_ring_count,
        .use_offloads = stack->config.use_offloads,
    };
    memset(device, 0, sizeof *device);
    int32_t status = device_configure(port_id, &setup);
    if (status < 0)
        goto failed;
    device->port_id = port_id;
    memcpy(device->mac, config->mac, NET_MAC_BYTES);
    device->is_memif = config->is_memif != 0;
    device->is_reconnecting = config->is_reconnecting != 0;
    device->udp_checksum = stack->config.udp_checksum ? NET_UDP_CHECKSUM_FULL : NET_UDP_CHECKSUM_NONE;
    if (stack->config.udp_checksum && setup.tx_offloads & RTE_ETH_TX_OFFLOAD_UDP_CKSUM) {
        device->udp_checksum = NET_UDP_CHECKSUM_PSEUDO;
        device->tx_mbuf_flags = RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_UDP_CKSUM;
    }
    if (device->is_memif && !stack->is_gated) {
        status = gate_acquire();
        if (status < 0)
            goto failed;
        stack->is_gated = 1;
    }
    status = device_begin(device);
    if (status < 0)
        goto failed;
    if (device_has_driver(port_id, "net_af_packet") || device_has_driver(port_id, "net_af_xdp"))
        device->known_checksums = NET_L4_CHECKSUM_UNFINISHED;
    if (device_has_driver(port_id, "net_af_xdp"))
        stack->is_sharing_pool = 1;
    struct rte_ether_addr mac;
    if (rte_eth_macaddr_get(port_id, &mac) != 0 || !net_mac_equal(mac.addr_bytes, device->mac)) {
        memcpy(mac.addr_bytes, device->mac, NET_MAC_BYTES);
        /* A driver that cannot be told its MAC must show us frames to another one. To tell the tap driver would give the
         * kernel's end of it our MAC. */
        if (device_has_driver(port_id, "net_tap") || rte_eth_dev_default_mac_addr_set(port_id, &mac) != 0)
            (void)rte_eth_promiscuous_enable(port_id);
    }
    uint16_t room = config->rx_room_count ? config->rx_room_count : setup.rx_ring_count;
    if (stack->devices_count == 0 || room < stack->port.rx_room_count)
        stack->port.rx_room_count = room;
    return (int32_t)stack->devices_count++;
failed:
    (void)rte_eth_dev_close(port_id); /* its queues point into the pool */
    return status;
}

int32_t dpdk_stack_add_route(dpdk_stack *stack, uint32_t ip, uint32_t prefix_bits, uint32_t device) {
    if (device >= stack->devices_count || prefix_bits > 32)
        return dpdk_fail(EINVAL, "a route to device %u of %u, prefix of %u bits", device, stack->devices_count, prefix_bits);
    if (route_add(&stack->neighbours, ip, prefix_bits, (uint8_t)device) != 0)
        return dpdk_fail(ENOSPC, "at most %d routes", DPDK_ROUTES_MAX);
    return 0;
}

int32_t dpdk_stack_add_neighbour(dpdk_stack *stack, uint32_t ip, const uint8_t *mac) {
    int device = route_find(&stack->neighbours, ip);
    if (ip == 0 || device < 0)
        return dpdk_fail(EHOSTUNREACH, "no device leads to the neighbour %u.%u.%u.%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255,
                         ip & 255);
    stack->last = &NOBODY;
    if (neighbour_add_static(&stack->neighbours, ip, mac, stack->devices[device].mac, (uint8_t)device) != 0)
        return dpdk_fail(ENOSPC, "at most %d static neighbours", DPDK_NEIGHBOURS_STATIC_MAX);
    return 0;
}

int32_t dpdk_stack_find_neighbour(dpdk_stack *stack, uint32_t ip, uint8_t *mac) {
    const neighbour *entry = neighbour_find(&stack->neighbours, ip);
    if (entry == NULL)
        return 0;
    memcpy(mac, entry->ethernet, NET_MAC_BYTES);
    return 1;
}

uintptr_t dpdk_stack_port(dpdk_stack *stack) { return (uintptr_t)&stack->port; }

int32_t dpdk_stack_device_state(dpdk_stack *stack, uint32_t index, dpdk_device_state *state) {
    if (index >= stack->devices_count)
        return dpdk_fail(ENODEV, "the port has %u devices, not one at %u", stack->devices_count, index);
    const stack_device *device = &stack->devices[index];
    struct rte_eth_stats stats;
    *state = (dpdk_device_state){
        .link_changes_count = device->link_changes_count,
        .rx_idle_polls_count = device->rx_idle_polls_count,
        .rx_no_mbuf_count = rte_eth_stats_get(device->port_id, &stats) == 0 ? stats.rx_nombuf : 0,
        .is_started = device->is_started,
        .is_link_up = device->is_link_up,
    };
    return 0;
}

int64_t dpdk_stack_pool_in_use(dpdk_stack *stack) {
    return (int64_t)rte_mempool_in_use_count(stack->pool) - (int64_t)stack->tx_ready_count;
}

void dpdk_stack_control(dpdk_stack *stack) { stack_control(stack); }

int64_t dpdk_stack_free(dpdk_stack *stack) {
    for (uint32_t i = 0; i < stack->devices_count; i++) {
        stack_device *device = &stack->devices[i];
        device->is_usable = 0;
        if (device->is_started) {
            device_drain(device->port_id);
            (void)rte_eth_dev_stop(device->port_id);
        }
        (void)rte_eth_dev_close(device->port_id);
    }
    if (stack->is_gated)
        gate_release();
    resolve_free(stack);
    while (stack->loop_tail != stack->loop_head)
        rte_pktmbuf_free(stack->loop[stack->loop_tail++ % STACK_LOOP].owner);
    rte_pktmbuf_free_bulk(stack->tx_ready, stack->tx_ready_count);
    stack->tx_ready_count = 0;
    int64_t missing = rte_mempool_in_use_count(stack->pool);
    if (missing == 0) /* memory that somebody still points into is not given back */
        rte_mempool_free(stack->pool);
    if (stack->is_sharing_pool)
        missing = 0; /* cannot be told */
    free(stack);
    return missing;
}
