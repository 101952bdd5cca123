/* Requests on their way. See r2p2_pending.h. */
#include "r2p2_pending.h"

#include <stdlib.h>
#include <string.h>

int r2p2_pending_init(r2p2_pending_table *table, uint64_t seed) {
    /* Address space; touched as rids are used. */
    table->entries = calloc(R2P2_PENDING_SLOTS, sizeof *table->entries);
    table->buckets = calloc(R2P2_PENDING_SLOTS, sizeof *table->buckets);
    if (!table->entries || !table->buckets) return -1;
    table->seed = seed;
    /* A router that is started anew has the port of the one before, to which late answers come: with the same rids they would go to
     * whoever asks now. */
    table->next = (uint32_t)((seed * UINT64_C(0x9E3779B97F4A7C15)) >> 48);
    table->waiting = (r2p2_pending_list){R2P2_PENDING_NONE, R2P2_PENDING_NONE, 0};
    table->quarantined = table->waiting;
    return 0;
}

void r2p2_pending_destroy(r2p2_pending_table *table) {
    free(table->entries);
    free(table->buckets);
}

/* ---- lists by age ---- */

static void list_add(r2p2_pending_table *table, r2p2_pending_list *list, uint32_t index) {
    r2p2_pending *entry = &table->entries[index];
    entry->newer = R2P2_PENDING_NONE;
    entry->older = list->newest;
    if (list->newest != R2P2_PENDING_NONE) table->entries[list->newest].newer = index;
    else list->oldest = index;
    list->newest = index;
    list->count++;
}

static void list_remove(r2p2_pending_table *table, r2p2_pending_list *list, uint32_t index) {
    const r2p2_pending *entry = &table->entries[index];
    if (entry->older != R2P2_PENDING_NONE) table->entries[entry->older].newer = entry->newer;
    else list->oldest = entry->newer;
    if (entry->newer != R2P2_PENDING_NONE) table->entries[entry->newer].older = entry->older;
    else list->newest = entry->older;
    list->count--;
}

/* ---- the hash by client ---- */

/* Seeded, so that clients cannot choose addresses that meet in one bucket. */
static uint32_t *bucket_of(const r2p2_pending_table *table, uint32_t ip, uint16_t port, uint16_t rid) {
    uint64_t mixed = ((uint64_t)ip << 32 | (uint32_t)port << 16 | rid) ^ table->seed;
    mixed = (mixed ^ (mixed >> 33)) * UINT64_C(0xff51afd7ed558ccd);
    mixed = (mixed ^ (mixed >> 33)) * UINT64_C(0xc4ceb9fe1a85ec53);
    return &table->buckets[(mixed >> 40) % R2P2_PENDING_SLOTS];
}

static int is_of(const r2p2_pending *entry, uint32_t ip, uint16_t port, uint16_t rid) {
    return entry->client_ip == ip && entry->client_port == port && entry->client_rid == rid;
}

uint32_t r2p2_pending_find(const r2p2_pending_table *table, uint32_t client_ip, uint16_t client_port, uint16_t client_rid) {
    uint32_t at = *bucket_of(table, client_ip, client_port, client_rid);
    while (at != 0 && !is_of(&table->entries[at - 1], client_ip, client_port, client_rid))
        at = table->entries[at - 1].hash_next;
    return at == 0 ? R2P2_PENDING_NONE : at - 1;
}

static void hash_remove(r2p2_pending_table *table, uint32_t index) {
    const r2p2_pending *entry = &table->entries[index];
    uint32_t *at = bucket_of(table, entry->client_ip, entry->client_port, entry->client_rid);
    while (*at != index + 1) at = &table->entries[*at - 1].hash_next;
    *at = entry->hash_next;
}

/* ---- entries ---- */

uint32_t r2p2_pending_add(r2p2_pending_table *table, uint32_t client_ip, uint16_t client_port, uint16_t client_rid,
                          uint64_t now_ns) {
    if (table->waiting.count + table->quarantined.count == R2P2_PENDING_SLOTS) return R2P2_PENDING_NONE;
    uint32_t index = table->next;
    while (table->entries[index].state != R2P2_PENDING_FREE) index = (index + 1) % R2P2_PENDING_SLOTS;
    table->next = (index + 1) % R2P2_PENDING_SLOTS;
    r2p2_pending *entry = &table->entries[index];
    uint32_t *bucket = bucket_of(table, client_ip, client_port, client_rid);
    memset(entry, 0, sizeof *entry);
    entry->since_ns = now_ns;
    entry->client_ip = client_ip;
    entry->client_port = client_port;
    entry->client_rid = client_rid;
    entry->state = R2P2_PENDING_WAITING;
    entry->hash_next = *bucket;
    *bucket = index + 1;
    list_add(table, &table->waiting, index);
    return index;
}

void r2p2_pending_touch(r2p2_pending_table *table, uint32_t index, uint64_t now_ns) {
    list_remove(table, &table->waiting, index);
    list_add(table, &table->waiting, index);
    table->entries[index].since_ns = now_ns;
}

void r2p2_pending_end(r2p2_pending_table *table, uint32_t index, int quarantine, uint64_t now_ns) {
    r2p2_pending *entry = &table->entries[index];
    hash_remove(table, index);
    list_remove(table, &table->waiting, index);
    entry->state = quarantine ? R2P2_PENDING_QUARANTINED : R2P2_PENDING_FREE;
    entry->since_ns = now_ns;
    if (quarantine) list_add(table, &table->quarantined, index);
}

void r2p2_pending_release(r2p2_pending_table *table, uint64_t until_ns) {
    while (table->quarantined.count > 0 && table->entries[table->quarantined.oldest].since_ns <= until_ns) {
        uint32_t index = table->quarantined.oldest;
        list_remove(table, &table->quarantined, index);
        table->entries[index].state = R2P2_PENDING_FREE;
    }
}
