/*
 * Who is where: IPv4 address -> MAC and device.
 *
 * Static entries come from the configuration, are never learned over and never expire: a hash with linear probing, twice as
 * many slots as entries. Learned ones (from ARP and from valid datagrams to us) live in 256 sets of 4; a full set gives up the
 * entry not confirmed for the longest time, so a flood of addresses costs bounded memory and no static entry; and none of those that are
 * kept, unless its set is full of them. Which addresses share a set nobody outside can tell: the hash is drawn anew for each table.
 * Routes say which device leads to a prefix; the longest wins. Neither time nor chance is asked for here: `now_ns` and `random` come in.
 * Leaves to others: asking by ARP (resolve.c).
 */
#ifndef DPDK_BACKEND_NEIGHBOUR_H
#define DPDK_BACKEND_NEIGHBOUR_H

#include <stdint.h>

#include "dpdk_module.h"
#include "net.h"

#define NEIGHBOUR_SETS 256u
#define NEIGHBOUR_WAYS (DPDK_NEIGHBOURS_LEARNED_MAX / NEIGHBOUR_SETS)
#define NEIGHBOUR_STATIC_SLOTS (2u * DPDK_NEIGHBOURS_STATIC_MAX)

typedef struct neighbour {
    uint64_t confirmed_ns; /* learned: when it was last heard of */
    uint32_t ip;           /* 0: the slot is free */
    uint8_t device;
    uint8_t is_kept;
    uint8_t ethernet[NET_ETHERNET_BYTES]; /* the header towards it: its MAC, ours, IPv4 */
} neighbour;

typedef struct route {
    uint32_t ip, mask;
    uint8_t device;
} route;

typedef struct neighbour_table {
    neighbour fixed[NEIGHBOUR_STATIC_SLOTS];
    neighbour learned[NEIGHBOUR_SETS][NEIGHBOUR_WAYS];
    route routes[DPDK_ROUTES_MAX]; /* longest mask first */
    uint64_t hash_multiplier, hash_addend;
    uint32_t kept[DPDK_NEIGHBOURS_KEPT_MAX];
    uint32_t kept_count;
    uint32_t fixed_count;
    uint32_t routes_count;
} neighbour_table;

/* Of an empty table, before anything is added. */
void neighbour_init(neighbour_table *table, const uint64_t random[2]);

/* 16 bits of which any are as good: multiply-shift with random numbers (Dietzfelbinger 1996), in which two addresses meet by chance alone. */
static inline uint32_t neighbour_hash(const neighbour_table *table, uint32_t ip) {
    return (uint32_t)((ip * table->hash_multiplier + table->hash_addend) >> 48);
}

/* NULL when the address is unknown. */
static inline neighbour *neighbour_find(neighbour_table *table, uint32_t ip) {
    uint32_t hash = neighbour_hash(table, ip);
    for (uint32_t i = hash % NEIGHBOUR_STATIC_SLOTS; table->fixed[i].ip != 0; i = (i + 1) % NEIGHBOUR_STATIC_SLOTS)
        if (table->fixed[i].ip == ip)
            return &table->fixed[i];
    neighbour *set = table->learned[hash % NEIGHBOUR_SETS];
    for (uint32_t way = 0; way < NEIGHBOUR_WAYS; way++)
        if (set[way].ip == ip && ip != 0)
            return &set[way];
    return NULL;
}

/* 0, or -ENOSPC. Replaces what was there. */
int neighbour_add_static(neighbour_table *table, uint32_t ip, const uint8_t *mac, const uint8_t *our_mac, uint8_t device);
/* Notes that ip was heard from mac on device. Static entries stay as they are. */
void neighbour_learn(neighbour_table *table, uint32_t ip, const uint8_t *mac, const uint8_t *our_mac, uint8_t device,
                     uint64_t now_ns);
/* What is learned of these gives way to no stranger from now on; of others it does. At most DPDK_NEIGHBOURS_KEPT_MAX: further ones are not kept. */
void neighbour_keep(neighbour_table *table, const uint32_t *ips, uint32_t count);
int neighbour_is_kept(const neighbour_table *table, uint32_t ip);
/* Forgets a learned entry. */
void neighbour_forget(neighbour_table *table, uint32_t ip);

/* Forgets learned entries not confirmed for ttl_ns. */
void neighbour_expire(neighbour_table *table, uint64_t now_ns, uint64_t ttl_ns);

/* 0, or -ENOSPC. */
int route_add(neighbour_table *table, uint32_t ip, uint32_t prefix_bits, uint8_t device);
/* The device towards ip, or -1. */
int route_find(const neighbour_table *table, uint32_t ip);

#endif
