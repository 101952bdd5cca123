/*
 * Equal buffers in one block, taken and given back; a buffer may have several users, and the last one frees it.
 * Here in the header, since this is done for every datagram.
 */
#ifndef UDP_POOL_H
#define UDP_POOL_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* A stack of equal buffers. free_count entries of `free` are valid; users[i] is 0 exactly while buffer i is free. */
typedef struct udp_pool {
    uint8_t *bytes; /* count * stride */
    uint32_t *free;
    uint16_t *users; /* datagrams of buffer i with the engine, and 1 more while it waits to be cut */
    uint32_t stride;
    uint32_t count;
    uint32_t free_count;
} udp_pool;

/* 0, or a negative errno; closed either way in the end. `stride` is a multiple of 64: every buffer starts on a cache line. */
static inline int udp_pool_open(udp_pool *pool, uint32_t count, uint32_t stride) {
    pool->bytes = aligned_alloc(64, (size_t)count * stride);
    pool->free = malloc(count * sizeof *pool->free);
    pool->users = calloc(count, sizeof *pool->users);
    if (pool->bytes == NULL || pool->free == NULL || pool->users == NULL)
        return -ENOMEM;
    pool->count = count;
    pool->stride = stride;
    for (uint32_t i = 0; i < count; i++)
        pool->free[i] = count - 1u - i;
    pool->free_count = count;
    return 0;
}

static inline void udp_pool_close(udp_pool *pool) {
    free(pool->bytes);
    free(pool->free);
    free(pool->users);
}

static inline uint8_t *udp_pool_at(const udp_pool *pool, uint32_t index) { return pool->bytes + (size_t)index * pool->stride; }

/* The caller has checked that one is free. It has one user. */
static inline uint8_t *udp_pool_take(udp_pool *pool) {
    uint32_t index = pool->free[--pool->free_count];
    pool->users[index] = 1;
    return udp_pool_at(pool, index);
}

/* The index of the buffer that `data` lies in. Our own mistakes stop the program and say both values; nothing a peer sends
 * gets here. */
static inline uint32_t udp_pool_index(const udp_pool *pool, const uint8_t *data, const char *where) {
    size_t index = (size_t)(data - pool->bytes) / pool->stride;
    if (data < pool->bytes || index >= pool->count || pool->users[index] == 0) {
        fprintf(stderr, "udp_port: %s of buffer %zu of %u, which nobody holds\n", where, index, pool->count);
        abort();
    }
    return (uint32_t)index;
}

/* One user less; the last one frees. */
static inline void udp_pool_give_back(udp_pool *pool, const uint8_t *data, const char *where) {
    uint32_t index = udp_pool_index(pool, data, where);
    if (--pool->users[index] == 0)
        pool->free[pool->free_count++] = index;
}

#endif
