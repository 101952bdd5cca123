/* One ethdev: configure, start, stop, close. The rest of device.c is in dpdk_api.h. */
#ifndef DPDK_BACKEND_DEVICE_H
#define DPDK_BACKEND_DEVICE_H

#include <rte_ethdev.h>
#include <rte_mempool.h>
#include <stdint.h>

typedef struct device_setup {
    struct rte_mempool *pool;
    uint16_t queues_count; /* rx queues, and as many tx queues */
    uint16_t rx_ring_count;
    uint16_t tx_ring_count;
    int use_offloads;     /* the checksums the device can compute, too */
    uint64_t rx_offloads; /* in: demanded; out: switched on */
    uint64_t tx_offloads;
} device_setup;

/* Whether the driver is called so, like "net_tap". */
int device_has_driver(uint16_t port_id, const char *driver);
/* Configures its queues; the device is stopped afterwards. 0 or a negative errno. */
int device_configure(uint16_t port_id, device_setup *setup);
int device_start(uint16_t port_id);
/* The link as the driver knows it now, without waiting. */
int device_is_link_up(uint16_t port_id);
/* Frees what a ring device still holds: it is the only one that keeps mbufs of others. Before it is stopped. */
void device_drain(uint16_t port_id);
/* A device's name for messages; never NULL. */
const char *device_name(uint16_t port_id);

#endif
