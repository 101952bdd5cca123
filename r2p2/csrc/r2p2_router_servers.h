/*
 * The router's servers: which one the next request goes to, which live, who leads.
 *
 * A balanced request takes a slot at its server when it is sent (`outstanding`), and whoever counts a request out or in does it there.
 * A server that answers nothing is put out, and tried with one request at a time after a while.
 * Leaves to others: requests (r2p2_router.c), which says what a server did.
 */
#ifndef R2P2_ROUTER_SERVERS_H
#define R2P2_ROUTER_SERVERS_H

#include <stdint.h>

#include "r2p2_router.h"

#include "r2p2_router_counters.h"

#define R2P2_NO_SERVER (-1)
_Static_assert(R2P2_ROUTER_SERVERS_MAX <= 256, "a server's number is a byte in an entry");

typedef struct r2p2_server {
    r2p2_target address;
    uint32_t outstanding; /* JBSQ: 0 <= outstanding <= bound */
    uint32_t misses;      /* expired in a row; misses_max when it is put out */
    uint8_t is_down;
    uint8_t is_probed;  /* one request is trying it, or was when it was down: it has not ended */
    uint64_t retry_ns;  /* down: when it may be tried */
    uint64_t sent, answered, expired, dropped;
} r2p2_server;

typedef struct r2p2_servers {
    const r2p2_router_config *config; /* the router's: choice, bound, misses_max, down_ns */
    r2p2_router_counters *counters;   /* the router's */
    uint64_t random_state;
    uint32_t count;
    uint32_t next; /* round robin */
    uint32_t leader;
    r2p2_server list[R2P2_ROUTER_SERVERS_MAX];
} r2p2_servers;

void r2p2_servers_init(r2p2_servers *servers, const r2p2_router_config *config, r2p2_router_counters *counters,
                       const r2p2_target *addresses, uint32_t count);
/* The server of the next balanced request, or R2P2_NO_SERVER. */
int r2p2_servers_choose(r2p2_servers *servers, uint64_t now_ns);
/* Whose address this is; `likely` wins where several share an ip and the port is nobody's. R2P2_NO_SERVER: a stranger's. */
int r2p2_servers_find(const r2p2_servers *servers, uint32_t ip, uint16_t port, uint32_t likely);
int r2p2_servers_any_is_up(const r2p2_servers *servers);
/* It has sent something. */
void r2p2_servers_answers(r2p2_servers *servers, uint32_t index);
/* A request expired there. */
void r2p2_servers_missed(r2p2_servers *servers, uint32_t index, int is_probe, uint64_t now_ns);
/* Replicated requests go to `index`. */
void r2p2_servers_lead(r2p2_servers *servers, uint32_t index);
/* Replicated requests sent to `index` come to nothing: the next one that is up, if they still go there. */
void r2p2_servers_lead_elsewhere(r2p2_servers *servers, uint32_t index);
/* When the first of those that are out and not tried may be tried; UINT64_MAX: none is to come. */
uint64_t r2p2_servers_retry_ns(const r2p2_servers *servers, uint64_t now_ns);

#endif
