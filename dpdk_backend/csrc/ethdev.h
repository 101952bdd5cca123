/* A device without a stack, as ethdev.c and burst.c share it. */
#ifndef DPDK_BACKEND_ETHDEV_H
#define DPDK_BACKEND_ETHDEV_H

#include <rte_mempool.h>

#include "dpdk_module.h"
#include "stack.h"

struct dpdk_pool {
    struct rte_mempool *mempool;
};

struct dpdk_ethdev {
    stack_device device;
    dpdk_pool *pool;
    uint32_t is_pool_own; /* made for this device, so freed with it */
    uint16_t queues_count;
    uint16_t is_paused; /* stopped by who owns it, not by its link */
    uint64_t control_tsc, control_period_tsc;
};

#endif
