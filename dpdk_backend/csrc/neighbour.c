/* See neighbour.h. */
#include "neighbour.h"

#include <errno.h>
#include <string.h>

void neighbour_init(neighbour_table *table, const uint64_t random[2]) {
    memset(table, 0, sizeof *table);
    table->hash_multiplier = random[0];
    table->hash_addend = random[1];
}

static int is_static(const neighbour_table *table, const neighbour *entry) {
    return entry >= table->fixed && entry < table->fixed + NEIGHBOUR_STATIC_SLOTS;
}

static void fill(neighbour *entry, uint32_t ip, const uint8_t *mac, const uint8_t *our_mac, uint8_t device, uint64_t now_ns) {
    entry->ip = ip;
    entry->device = device;
    entry->confirmed_ns = now_ns;
    memcpy(entry->ethernet, mac, NET_MAC_BYTES);
    memcpy(entry->ethernet + NET_MAC_BYTES, our_mac, NET_MAC_BYTES);
    net_store_u16(entry->ethernet + 2 * NET_MAC_BYTES, NET_TYPE_IPV4);
}

int neighbour_add_static(neighbour_table *table, uint32_t ip, const uint8_t *mac, const uint8_t *our_mac, uint8_t device) {
    neighbour_forget(table, ip);
    uint32_t i = neighbour_hash(table, ip) % NEIGHBOUR_STATIC_SLOTS;
    while (table->fixed[i].ip != 0 && table->fixed[i].ip != ip)
        i = (i + 1) % NEIGHBOUR_STATIC_SLOTS;
    if (table->fixed[i].ip == 0) {
        if (table->fixed_count == DPDK_NEIGHBOURS_STATIC_MAX)
            return -ENOSPC;
        table->fixed_count++;
    }
    fill(&table->fixed[i], ip, mac, our_mac, device, 0);
    return 0;
}

int neighbour_is_kept(const neighbour_table *table, uint32_t ip) {
    for (uint32_t i = 0; i < table->kept_count; i++)
        if (table->kept[i] == ip)
            return 1;
    return 0;
}

/* The smallest goes first: a free place, a stranger's by age, one that is kept by age. */
static uint64_t worth(const neighbour *entry) {
    return entry->ip == 0 ? 0 : (uint64_t)entry->is_kept << 63 | entry->confirmed_ns;
}

void neighbour_learn(neighbour_table *table, uint32_t ip, const uint8_t *mac, const uint8_t *our_mac, uint8_t device,
                     uint64_t now_ns) {
    neighbour *entry = neighbour_find(table, ip);
    if (entry != NULL && is_static(table, entry))
        return;
    if (entry == NULL) {
        neighbour *set = table->learned[neighbour_hash(table, ip) % NEIGHBOUR_SETS];
        entry = &set[0];
        for (uint32_t way = 1; way < NEIGHBOUR_WAYS; way++)
            if (worth(&set[way]) < worth(entry))
                entry = &set[way];
        entry->is_kept = (uint8_t)neighbour_is_kept(table, ip);
    }
    fill(entry, ip, mac, our_mac, device, now_ns);
}

void neighbour_keep(neighbour_table *table, const uint32_t *ips, uint32_t count) {
    table->kept_count = count < DPDK_NEIGHBOURS_KEPT_MAX ? count : DPDK_NEIGHBOURS_KEPT_MAX;
    memcpy(table->kept, ips, table->kept_count * sizeof *ips);
    neighbour *entries = &table->learned[0][0];
    for (uint32_t i = 0; i < DPDK_NEIGHBOURS_LEARNED_MAX; i++)
        entries[i].is_kept = (uint8_t)(entries[i].ip != 0 && neighbour_is_kept(table, entries[i].ip));
}

void neighbour_forget(neighbour_table *table, uint32_t ip) {
    neighbour *set = table->learned[neighbour_hash(table, ip) % NEIGHBOUR_SETS];
    for (uint32_t way = 0; way < NEIGHBOUR_WAYS; way++)
        if (set[way].ip == ip)
            memset(&set[way], 0, sizeof set[way]);
}

void neighbour_expire(neighbour_table *table, uint64_t now_ns, uint64_t ttl_ns) {
    neighbour *entries = &table->learned[0][0];
    for (uint32_t i = 0; i < DPDK_NEIGHBOURS_LEARNED_MAX; i++)
        if (entries[i].ip != 0 && now_ns - entries[i].confirmed_ns > ttl_ns)
            memset(&entries[i], 0, sizeof entries[i]);
}

int route_add(neighbour_table *table, uint32_t ip, uint32_t prefix_bits, uint8_t device) {
    if (table->routes_count == DPDK_ROUTES_MAX)
        return -ENOSPC;
    uint32_t mask = prefix_bits == 0 ? 0 : 0xffffffffu << (32 - prefix_bits);
    uint32_t i = table->routes_count++;
    for (; i > 0 && table->routes[i - 1].mask < mask; i--)
        table->routes[i] = table->routes[i - 1];
    table->routes[i] = (route){.ip = ip & mask, .mask = mask, .device = device};
    return 0;
}

int route_find(const neighbour_table *table, uint32_t ip) {
    for (uint32_t i = 0; i < table->routes_count; i++)
        if ((ip & table->routes[i].mask) == table->routes[i].ip)
            return table->routes[i].device;
    return -1;
}
