/*
 * The router's table of requests on their way: who asked, which server has it, since when.
 *
 * An entry's index is the rid the router uses towards servers (RELAY); entries are given out in turn, so that a rid rests as long as
 * the table allows. An entry is FREE, PENDING (in the hash by client, in the list by age), or QUARANTINED: its request ended
 * without an answer, and a late one must not be taken for the answer to another request.
 * Count and time are bounded by the router, which expires from the old end of the two lists. A second table of its knows by client
 * which requests wait for a slot; that has nothing of servers, and nothing in it is quarantined.
 */
#ifndef R2P2_PENDING_H
#define R2P2_PENDING_H

#include <stdint.h>

#define R2P2_PENDING_SLOTS 65536u /* one a rid */
#define R2P2_PENDING_NONE 0xffffffffu

enum r2p2_pending_state { R2P2_PENDING_FREE = 0, R2P2_PENDING_WAITING, R2P2_PENDING_QUARANTINED };

typedef struct r2p2_pending {
    uint64_t since_ns; /* WAITING: the last sign of the server, or when it was sent; QUARANTINED: since when */
    uint32_t client_ip;
    uint16_t client_port;
    uint16_t client_rid;
    uint32_t hash_next;    /* WAITING only */
    uint32_t older, newer; /* in the list of its state */
    uint8_t state;         /* enum r2p2_pending_state */
    uint8_t policy;        /* enum r2p2_policy, of the request */
    uint8_t server;
    uint8_t holds_slot; /* 1 until an answer or FEEDBACK came */
    uint8_t is_probe;   /* 1: it tries a server that is out */
    uint8_t is_client_due; /* 1: the server has answered so far, or may have, and now the client may be the one that is silent */
    uint16_t answer_count; /* packets of the answer that passed */
    uint16_t answer_size;  /* packets it has; 0: not known yet */
    uint64_t answer_passed[4]; /* bit i: packet i has passed; of an answer of several packets */
} r2p2_pending;

typedef struct r2p2_pending_list {
    uint32_t oldest, newest;
    uint32_t count;
} r2p2_pending_list;

typedef struct r2p2_pending_table {
    r2p2_pending *entries; /* R2P2_PENDING_SLOTS */
    uint32_t *buckets;     /* R2P2_PENDING_SLOTS: index + 1 of the first entry, 0: none */
    uint64_t seed;
    uint32_t next;
    r2p2_pending_list waiting, quarantined;
} r2p2_pending_table;

int r2p2_pending_init(r2p2_pending_table *table, uint64_t seed);
void r2p2_pending_destroy(r2p2_pending_table *table);
/* The waiting entry of a client's request, or R2P2_PENDING_NONE. */
uint32_t r2p2_pending_find(const r2p2_pending_table *table, uint32_t client_ip, uint16_t client_port, uint16_t client_rid);
/* A new waiting entry, zero but for client and time; the client's request must not be there. R2P2_PENDING_NONE: no rid is free. */
uint32_t r2p2_pending_add(r2p2_pending_table *table, uint32_t client_ip, uint16_t client_port, uint16_t client_rid,
                          uint64_t now_ns);
/* Makes a waiting entry the youngest. */
void r2p2_pending_touch(r2p2_pending_table *table, uint32_t index, uint64_t now_ns);
/* Ends a waiting entry: free, or quarantined from now on. */
void r2p2_pending_end(r2p2_pending_table *table, uint32_t index, int quarantine, uint64_t now_ns);
/* Frees what has been quarantined since `until_ns` or longer. */
void r2p2_pending_release(r2p2_pending_table *table, uint64_t until_ns);

#endif
