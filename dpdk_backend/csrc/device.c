/*
 * Devices: finding, adding and removing virtual ones, configuring, statistics.
 *
 * As many rx as tx queues, all with buffers of one pool; a stack takes one of each, and the checksum offloads its driver has.
 * Leaves to others: packets (port.c), the wording of vdev arguments (devices.py).
 */
#include "device.h"

#include <errno.h>
#include <rte_bus_vdev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_string_fns.h>
#include <string.h>

#include "dpdk_module.h"
#include "log.h"

_Static_assert(sizeof(((dpdk_xstat *)0)->name) == RTE_ETH_XSTATS_NAME_SIZE, "an xstat's name fits");

#define WANTED_RX_OFFLOADS (RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM)
#define WANTED_TX_OFFLOADS (RTE_ETH_TX_OFFLOAD_UDP_CKSUM)
/* Without TX_IPV4_CKSUM the IPv4 checksum is ours, which it always is: it costs 10 additions. */

const char *device_name(uint16_t port_id) {
    static __thread char name[RTE_ETH_NAME_MAX_LEN];
    if (rte_eth_dev_get_name_by_port(port_id, name) != 0)
        snprintf(name, sizeof name, "port %u", port_id);
    return name;
}

static int fail(uint16_t port_id, const char *call, int status) {
    return dpdk_fail(-status, "%s(%s): %s", call, device_name(port_id), rte_strerror(-status));
}

/* Not rte_eal_hotplug_add: it tells secondary processes, and since 24.11 it refuses arguments over 127 bytes for that. */
int32_t dpdk_vdev_add(const char *name, const char *args) {
    if (dpdk_eal_state() != DPDK_EAL_RUNNING)
        return dpdk_fail(EINVAL, "rte_vdev_init(%s): the EAL is not running", name);
    int status = rte_vdev_init(name, args);
    if (status > 0)
        return dpdk_fail(ENODEV, "rte_vdev_init(%s,%s): no driver is called so", name, args);
    if (status == -1) /* what drivers say of anything; as an errno it would be EPERM */
        return dpdk_fail(ENODEV, "rte_vdev_init(%s,%s): the driver refused", name, args);
    return status < 0 ? dpdk_fail(-status, "rte_vdev_init(%s,%s): %s", name, args, rte_strerror(-status)) : 0;
}

int32_t dpdk_vdev_remove(const char *name) {
    int status = rte_vdev_uninit(name);
    return status < 0 ? dpdk_fail(-status, "rte_vdev_uninit(%s): %s", name, rte_strerror(-status)) : 0;
}

int32_t dpdk_device_find(const char *name) {
    uint16_t port_id;
    if (dpdk_eal_state() != DPDK_EAL_RUNNING || rte_eth_dev_get_port_by_name(name, &port_id) != 0)
        return dpdk_fail(ENODEV, "no DPDK device is called %s", name);
    return port_id;
}

int32_t dpdk_devices_count(void) { return dpdk_eal_state() == DPDK_EAL_RUNNING ? rte_eth_dev_count_avail() : 0; }

int32_t dpdk_device_name(uint32_t position, char *name) {
    uint16_t port_id;
    uint32_t i = 0;
    RTE_ETH_FOREACH_DEV(port_id) {
        if (i++ == position)
            return rte_eth_dev_get_name_by_port(port_id, name) == 0 ? port_id : -ENODEV;
    }
    return dpdk_fail(ENODEV, "there is no device number %u", position);
}

int32_t dpdk_device_info_get(uint16_t port_id, dpdk_device_info *info) {
    struct rte_eth_dev_info device;
    struct rte_ether_addr mac;
    struct rte_eth_link link;
    memset(info, 0, sizeof *info);
    int status = rte_eth_dev_info_get(port_id, &device);
    if (status < 0)
        return fail(port_id, "rte_eth_dev_info_get", status);
    info->port_id = port_id;
    rte_strscpy(info->driver, device.driver_name ? device.driver_name : "?", sizeof info->driver);
    info->rx_offloads = device.rx_offload_capa;
    info->tx_offloads = device.tx_offload_capa;
    if (rte_eth_macaddr_get(port_id, &mac) == 0)
        memcpy(info->mac, mac.addr_bytes, sizeof info->mac);
    if (rte_eth_dev_get_mtu(port_id, &info->mtu) != 0)
        info->mtu = 0;
    info->queues_max = device.max_rx_queues < device.max_tx_queues ? device.max_rx_queues : device.max_tx_queues;
    if (rte_eth_link_get_nowait(port_id, &link) == 0) {
        info->is_full_duplex = link.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
        info->speed_mbps = link.link_speed;
        info->is_link_up = link.link_status == RTE_ETH_LINK_UP;
    }
    return 0;
}

const char *dpdk_rx_offload_name(uint64_t offload) { return rte_eth_dev_rx_offload_name(offload); }
const char *dpdk_tx_offload_name(uint64_t offload) { return rte_eth_dev_tx_offload_name(offload); }

int32_t dpdk_device_set_mtu(uint16_t port_id, uint16_t mtu) {
    int status = rte_eth_dev_set_mtu(port_id, mtu);
    return status < 0 ? fail(port_id, "rte_eth_dev_set_mtu", status) : 0;
}

int32_t dpdk_device_set_promiscuous(uint16_t port_id, int32_t is_promiscuous) {
    int status = is_promiscuous ? rte_eth_promiscuous_enable(port_id) : rte_eth_promiscuous_disable(port_id);
    return status < 0 ? fail(port_id, is_promiscuous ? "rte_eth_promiscuous_enable" : "rte_eth_promiscuous_disable", status) : 0;
}

int32_t dpdk_device_set_link(uint16_t port_id, int32_t is_up) {
    int status = is_up ? rte_eth_dev_set_link_up(port_id) : rte_eth_dev_set_link_down(port_id);
    return status < 0 ? fail(port_id, is_up ? "rte_eth_dev_set_link_up" : "rte_eth_dev_set_link_down", status) : 0;
}

int32_t dpdk_device_stats_get(uint16_t port_id, dpdk_device_stats *stats) {
    struct rte_eth_stats device;
    int status = rte_eth_stats_get(port_id, &device);
    if (status < 0)
        return fail(port_id, "rte_eth_stats_get", status);
    *stats = (dpdk_device_stats){
        .rx_packets = device.ipackets,
        .rx_bytes = device.ibytes,
        .tx_packets = device.opackets,
        .tx_bytes = device.obytes,
        .rx_missed = device.imissed,
        .rx_errors = device.ierrors,
        .rx_no_mbuf = device.rx_nombuf,
        .tx_errors = device.oerrors,
    };
    return 0;
}

int32_t dpdk_device_xstats(uint16_t port_id, dpdk_xstat *xstats, uint32_t max) {
    enum { XSTATS_MAX = 512 };
    struct rte_eth_xstat_name names[XSTATS_MAX];
    struct rte_eth_xstat values[XSTATS_MAX];
    if (max > XSTATS_MAX)
        max = XSTATS_MAX;
    int count = rte_eth_xstats_get_names(port_id, names, XSTATS_MAX);
    int values_count = rte_eth_xstats_get(port_id, values, XSTATS_MAX);
    if (count < 0 || values_count < 0)
        return fail(port_id, "rte_eth_xstats_get", count < 0 ? count : values_count);
    if (count > XSTATS_MAX || values_count != count)
        return dpdk_fail(ENOSPC, "rte_eth_xstats_get(%s): %d xstats, at most %d", device_name(port_id), count, XSTATS_MAX);
    for (int i = 0; i < count && (uint32_t)i < max; i++) {
        uint64_t id = values[i].id;
        memcpy(xstats[i].name, names[id < (uint64_t)count ? id : 0].name, sizeof xstats[i].name);
        xstats[i].value = values[i].value;
    }
    return count;
}

int device_has_driver(uint16_t port_id, const char *driver) {
    struct rte_eth_dev_info info;
    return rte_eth_dev_info_get(port_id, &info) == 0 && info.driver_name != NULL && strcmp(info.driver_name, driver) == 0;
}

/* Several rx queues share the traffic by addresses and ports, where the device can tell them. */
static void spread_over_queues(struct rte_eth_conf *conf, const struct rte_eth_dev_info *info) {
    uint64_t by = info->flow_type_rss_offloads & (RTE_ETH_RSS_IP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_TCP);
    if (by != 0) {
        conf->rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
        conf->rx_adv_conf.rss_conf.rss_hf = by;
    }
}

static int setup_queue(uint16_t port_id, uint16_t queue, const device_setup *setup, const struct rte_eth_dev_info *info) {
    int socket = rte_eth_dev_socket_id(port_id);
    unsigned on = socket < 0 ? 0 : (unsigned)socket;
    struct rte_eth_rxconf rx = info->default_rxconf;
    rx.offloads = setup->rx_offloads;
    int status = rte_eth_rx_queue_setup(port_id, queue, setup->rx_ring_count, on, &rx, setup->pool);
    if (status < 0)
        return fail(port_id, "rte_eth_rx_queue_setup", status);
    struct rte_eth_txconf tx = info->default_txconf;
    tx.offloads = setup->tx_offloads;
    status = rte_eth_tx_queue_setup(port_id, queue, setup->tx_ring_count, on, &tx);
    return status < 0 ? fail(port_id, "rte_eth_tx_queue_setup", status) : 0;
}

int device_configure(uint16_t port_id, device_setup *setup) {
    struct rte_eth_dev_info info;
    struct rte_eth_conf conf;
    memset(&conf, 0, sizeof conf);
    int status = rte_eth_dev_info_get(port_id, &info);
    if (status < 0)
        return fail(port_id, "rte_eth_dev_info_get", status);
    if (setup->use_offloads) {
        /* Both rx checksums or none: half of them saves nothing. */
        if ((info.rx_offload_capa & WANTED_RX_OFFLOADS) == WANTED_RX_OFFLOADS)
            setup->rx_offloads |= WANTED_RX_OFFLOADS;
        setup->tx_offloads |= info.tx_offload_capa & WANTED_TX_OFFLOADS;
    }
    conf.rxmode.offloads = setup->rx_offloads;
    conf.txmode.offloads = setup->tx_offloads;
    if (setup->queues_count > 1)
        spread_over_queues(&conf, &info);
    status = rte_eth_dev_configure(port_id, setup->queues_count, setup->queues_count, &conf);
    if (status < 0)
        return fail(port_id, "rte_eth_dev_configure", status);
    status = rte_eth_dev_adjust_nb_rx_tx_desc(port_id, &setup->rx_ring_count, &setup->tx_ring_count);
    if (status < 0)
        return fail(port_id, "rte_eth_dev_adjust_nb_rx_tx_desc", status);
    for (uint16_t queue = 0; queue < setup->queues_count && status == 0; queue++)
        status = setup_queue(port_id, queue, setup, &info);
    return status;
}

int device_start(uint16_t port_id) {
    int status = rte_eth_dev_start(port_id);
    return status < 0 ? fail(port_id, "rte_eth_dev_start", status) : 0;
}

int device_is_link_up(uint16_t port_id) {
    struct rte_eth_link link;
    return rte_eth_link_get_nowait(port_id, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

void device_drain(uint16_t port_id) {
    struct rte_eth_dev_info info;
    struct rte_mbuf *mbufs[64];
    uint16_t count;
    if (!device_has_driver(port_id, "net_ring") || rte_eth_dev_info_get(port_id, &info) < 0)
        return;
    for (uint16_t queue = 0; queue < info.nb_rx_queues; queue++) {
        while ((count = rte_eth_rx_burst(port_id, queue, mbufs, 64)) > 0)
            rte_pktmbuf_free_bulk(mbufs, count);
    }
}
