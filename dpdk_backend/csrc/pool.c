/*
 * Pools of packet buffers, for devices without a stack: one of a device's own, or one that several share.
 *
 * A pool that still has buffers outside is not freed: somebody would write into memory that is gone.
 */
#include <rte_errno.h>
#include <rte_mbuf.h>
#include <stdlib.h>

#include "ethdev.h"
#include "log.h"

#define POOL_CACHE_COUNT 256u

dpdk_pool *dpdk_pool_new(const char *name, uint32_t mbufs_count, uint16_t mbuf_data_bytes) {
    uint32_t cache = mbufs_count < 2 * POOL_CACHE_COUNT ? 0 : POOL_CACHE_COUNT;
    if (dpdk_eal_state() != DPDK_EAL_RUNNING) {
        dpdk_fail(EINVAL, "rte_pktmbuf_pool_create(%s): the EAL is not running", name);
        return NULL;
    }
    dpdk_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) {
        dpdk_fail(ENOMEM, "no memory for a pool");
        return NULL;
    }
    pool->mempool = rte_pktmbuf_pool_create(name, mbufs_count, cache, 0, mbuf_data_bytes, SOCKET_ID_ANY);
    if (pool->mempool == NULL) {
        dpdk_fail(rte_errno, "rte_pktmbuf_pool_create(%s, %u mbufs of %u bytes): %s", name, mbufs_count, mbuf_data_bytes,
                  rte_strerror(rte_errno));
        free(pool);
        return NULL;
    }
    return pool;
}

int64_t dpdk_pool_in_use(const dpdk_pool *pool) { return rte_mempool_in_use_count(pool->mempool); }

int64_t dpdk_pool_free(dpdk_pool *pool) {
    int64_t missing = dpdk_pool_in_use(pool);
    if (missing == 0)
        rte_mempool_free(pool->mempool);
    free(pool);
    return missing;
}
