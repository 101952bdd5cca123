/*
 * A device without a stack: its queues, its settings, and bursts in and out, for tools and for programs with a protocol of
 * their own.
 *
 * Leaves to others: what is in a burst (burst.c), buffers (pool.c), links that come and go (control.c), the protocol (port.c, or
 * the caller).
 */
#include "ethdev.h"

#include <errno.h>
#include <rte_cycles.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "gate.h"
#include "log.h"

#define CONTROL_PERIODS_PER_SECOND 250u

_Static_assert(DPDK_BURST_MAX == STACK_BURST, "one size of bursts");

static void control(dpdk_ethdev *ethdev) {
    if (ethdev->device.is_memif)
        gate_poll();
    if (!ethdev->is_paused) /* it would call a memif server again */
        device_control(&ethdev->device, stack_clock_ns(), 1);
    ethdev->control_tsc = rte_rdtsc() + ethdev->control_period_tsc;
}

static int fail(const dpdk_ethdev *ethdev, const char *call, int status) {
    return dpdk_fail(-status, "%s(%s): %s", call, device_name(ethdev->device.port_id), rte_strerror(-status));
}

static void read_mac(dpdk_ethdev *ethdev) {
    struct rte_ether_addr mac;
    if (rte_eth_macaddr_get(ethdev->device.port_id, &mac) == 0)
        memcpy(ethdev->device.mac, mac.addr_bytes, NET_MAC_BYTES);
}

int32_t dpdk_ethdev_set_mac(dpdk_ethdev *ethdev, const uint8_t *mac) {
    struct rte_ether_addr address;
    memcpy(address.addr_bytes, mac, sizeof address.addr_bytes);
    int status = rte_eth_dev_default_mac_addr_set(ethdev->device.port_id, &address);
    if (status < 0)
        return fail(ethdev, "rte_eth_dev_default_mac_addr_set", status);
    read_mac(ethdev);
    return 0;
}

dpdk_ethdev *dpdk_ethdev_open(const char *pool_name, dpdk_pool *pool, uint16_t port_id, const dpdk_ethdev_config *config) {
    dpdk_ethdev *ethdev = calloc(1, sizeof *ethdev);
    if (ethdev == NULL) {
        dpdk_fail(ENOMEM, "no memory for a device");
        return NULL;
    }
    ethdev->is_pool_own = pool == NULL;
    ethdev->pool = pool != NULL ? pool : dpdk_pool_new(pool_name, config->mbufs_count, config->mbuf_data_bytes);
    if (ethdev->pool == NULL) {
        free(ethdev);
        return NULL;
    }
    device_setup setup = {
        .pool = ethdev->pool->mempool,
        .queues_count = config->queues_count,
        .rx_ring_count = config->rx_ring_count,
        .tx_ring_count = config->tx_ring_count,
        .rx_offloads = config->rx_offloads,
        .tx_offloads = config->tx_offloads,
    };
    ethdev->queues_count = config->queues_count;
    ethdev->device.port_id = port_id;
    ethdev->device.is_memif = config->is_memif != 0;
    ethdev->device.is_reconnecting = config->is_reconnecting != 0;
    ethdev->control_period_tsc = rte_get_tsc_hz() / CONTROL_PERIODS_PER_SECOND;
    if (device_configure(port_id, &setup) < 0 || (config->mtu != 0 && dpdk_device_set_mtu(port_id, config->mtu) < 0))
        goto failed;
    read_mac(ethdev);
    if (ethdev->device.is_memif && gate_acquire() < 0)
        goto failed;
    if (device_begin(&ethdev->device) < 0) {
        if (ethdev->device.is_memif)
            gate_release();
        goto failed;
    }
    if (config->is_promiscuous)
        (void)rte_eth_promiscuous_enable(port_id); /* virtual devices see every frame anyway */
    return ethdev;
failed:
    (void)rte_eth_dev_close(port_id);
    if (ethdev->is_pool_own)
        (void)dpdk_pool_free(ethdev->pool);
    free(ethdev);
    return NULL;
}

int32_t dpdk_ethdev_stop(dpdk_ethdev *ethdev) {
    stack_device *device = &ethdev->device;
    ethdev->is_paused = 1;
    if (!device->is_started)
        return 0;
    device_drain(device->port_id);
    int status = rte_eth_dev_stop(device->port_id);
    if (status < 0)
        return fail(ethdev, "rte_eth_dev_stop", status);
    device->is_started = device->is_usable = device->is_link_up = 0;
    return 0;
}

int32_t dpdk_ethdev_start(dpdk_ethdev *ethdev) {
    ethdev->is_paused = 0;
    return ethdev->device.is_started ? 0 : device_begin(&ethdev->device);
}

int64_t dpdk_ethdev_close(dpdk_ethdev *ethdev) {
    (void)dpdk_ethdev_stop(ethdev);
    (void)rte_eth_dev_close(ethdev->device.port_id);
    if (ethdev->device.is_memif)
        gate_release();
    int64_t missing = ethdev->is_pool_own ? dpdk_pool_free(ethdev->pool) : 0;
    free(ethdev);
    return missing;
}

int32_t dpdk_ethdev_is_link_up(const dpdk_ethdev *ethdev) { return ethdev->device.is_link_up; }
int64_t dpdk_ethdev_pool_in_use(const dpdk_ethdev *ethdev) { return dpdk_pool_in_use(ethdev->pool); }
void dpdk_ethdev_control(dpdk_ethdev *ethdev) { control(ethdev); }

uint32_t dpdk_ethdev_receive(dpdk_ethdev *ethdev, uint16_t queue, dpdk_burst *burst, uint32_t max) {
    if (__builtin_expect(rte_rdtsc() >= ethdev->control_tsc, 0))
        control(ethdev);
    uint32_t room = DPDK_BURST_MAX - burst->count;
    if (!ethdev->device.is_usable || room == 0 || queue >= ethdev->queues_count)
        return 0;
    struct rte_mbuf **mbufs = (struct rte_mbuf **)burst->mbufs + burst->count;
    uint32_t count = rte_eth_rx_burst(ethdev->device.port_id, queue, mbufs, (uint16_t)(max < room ? max : room));
    burst->count += count;
    return count;
}

uint32_t dpdk_ethdev_send(dpdk_ethdev *ethdev, uint16_t queue, dpdk_burst *burst, uint32_t retry_max) {
    struct rte_mbuf **mbufs = (struct rte_mbuf **)burst->mbufs;
    uint16_t port_id = ethdev->device.port_id;
    uint32_t sent = 0;
    if (ethdev->device.is_usable && burst->count > 0 && queue < ethdev->queues_count) {
        sent = rte_eth_tx_burst(port_id, queue, mbufs, (uint16_t)burst->count);
        for (uint32_t retry = 0; sent < burst->count && retry < retry_max; retry++) {
            rte_pause();
            sent += rte_eth_tx_burst(port_id, queue, mbufs + sent, (uint16_t)(burst->count - sent));
        }
    }
    if (sent < burst->count)
        rte_pktmbuf_free_bulk(mbufs + sent, burst->count - sent);
    burst->count = 0;
    return sent;
}
