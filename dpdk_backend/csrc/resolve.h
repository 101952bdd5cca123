/*
 * Datagrams to a neighbour whose MAC is not known yet: asked for by ARP, kept for a moment.
 *
 * Bounds: RESOLVE_MAX addresses at once, RESOLVE_PACKETS datagrams each (the oldest gives way), RESOLVE_ATTEMPTS questions, then the
 * datagrams are dropped and counted as tx_drop_no_route; the address then counts as dead for RESOLVE_DEAD_NS, so that a
 * sender to a dead host causes no storm of questions. Where all places are taken, one that the port is to keep (neighbour_keep) takes
 * that of another: answers to strangers who are not there must not keep members from being found.
 * Ownership: a datagram that waits belongs here, until it is queued again or freed.
 */
#ifndef DPDK_BACKEND_RESOLVE_H
#define DPDK_BACKEND_RESOLVE_H

#include <rte_mbuf.h>
#include <stdint.h>

#define RESOLVE_MAX 64u
#define RESOLVE_PACKETS 4u
#define RESOLVE_ATTEMPTS 4u
#define RESOLVE_RETRY_NS 250000000u
#define RESOLVE_DEAD_NS 1000000000u

struct dpdk_stack;

typedef struct waiting_packet {
    struct rte_mbuf *mbuf;
    uint32_t length; /* of the payload */
    uint32_t source_ip; /* 0: ours */
    uint16_t port, local_port;
} waiting_packet;

typedef struct resolution {
    uint64_t next_ns; /* when to ask again; when attempts are used up, when to give up or to forget */
    uint32_t ip;      /* 0: free */
    uint8_t device;
    uint8_t attempts_count;
    uint8_t is_dead;
    uint8_t packets_count;
    waiting_packet packets[RESOLVE_PACKETS];
} resolution;

typedef struct resolver {
    resolution entries[RESOLVE_MAX];
    uint32_t count; /* entries with an ip */
} resolver;

/* Takes the packet over. Routes it, asks for the neighbour, keeps it; or drops it, counted. */
void resolve_wait(struct dpdk_stack *stack, uint32_t ip, const waiting_packet *packet);
/* The neighbour table has learned of ip: what waits for it is sent. */
void resolve_done(struct dpdk_stack *stack, uint32_t ip);
/* Asks again, gives up, forgets. */
void resolve_control(struct dpdk_stack *stack);
/* Frees everything that waits. */
void resolve_free(struct dpdk_stack *stack);

#endif
