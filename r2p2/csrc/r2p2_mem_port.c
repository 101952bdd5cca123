/*
 * The in-memory port: a switch of endpoints on a virtual clock, with seeded loss, duplication, reordering and delay.
 *
 * What: r2p2_mem_* of r2p2_engine_api.h, each endpoint filling a struct r2p2_port. For tests, ours and those of users.
 * Why: the engine runs on it unchanged, and the same seed and the same calls give the same arrivals to the nanosecond.
 * Leaves to others: when the clock moves (the caller's r2p2_mem_switch_advance), what the datagrams mean (the engine).
 *
 * A buffer is in exactly one state at any time:
 *
 *     FREE --tx_reserve--> RESERVED --tx_commit--> TRAVELLING --its time has come--> QUEUED --rx_burst--> HELD --rx_release--> FREE
 *
 * with a step to FREE wherever a datagram is lost. RESERVED and HELD buffers belong to one endpoint, which gives them back at
 * its close at the latest. Travelling datagrams lie in a binary heap ordered by (arrival, sequence); `sequence` counts
 * departures, so equal arrivals keep the order they left in. Without faults a link from one endpoint to another is first in,
 * first out, also when delays differ.
 *
 * Every datagram draws the same number of random values whatever the settings: a test that raises the loss does not move the
 * delays of what still arrives.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "r2p2_limits.h"
#include "r2p2_port.h"

#include "r2p2_engine_api.h"

#define MEM_ENDPOINTS_MAX 128u   /* links are a square of it: 128 KiB of arrival times */
#define MEM_BLOCKS_MAX 1024u     /* one-way cuts in force at once */
#define MEM_PACKETS_MAX 4194304u /* 6 GiB of buffers: more is a mistake of the caller */
#define MEM_QUEUE_MIN 64u        /* an endpoint may always keep this many datagrams unread */
#define MEM_PPM 1000000u
#define MEM_REORDER_NS 1000u /* least range of the extra delay, so that reordering works without delays too */

enum mem_state { MEM_FREE, MEM_RESERVED, MEM_TRAVELLING, MEM_QUEUED, MEM_HELD };

typedef struct mem_packet {
    uint64_t arrival_ns;
    uint64_t sequence;
    struct mem_packet *next; /* in the free list, or in the queue of an endpoint */
    struct mem_endpoint *holder; /* while RESERVED or HELD */
    uint32_t source_ip;
    uint32_t target_ip;
    uint16_t source_port;
    uint16_t target_port;
    uint32_t length; /* as sent; beyond R2P2_DATAGRAM_BYTES_MAX the data is cut and the datagram dropped on arrival */
    enum mem_state state;
    uint8_t data[R2P2_DATAGRAM_BYTES_MAX] __attribute__((aligned(64)));
} mem_packet;

typedef struct mem_endpoint {
    r2p2_port port; /* first: the port's address is the endpoint's */
    r2p2_port_counters counters;
    struct r2p2_mem_switch *mem;
    mem_packet *queue_head; /* arrived, unread, in order of arrival */
    mem_packet *queue_tail; /* NULL when and only when head is */
    uint32_t queue_count;   /* <= mem->queue_max */
    uint32_t index;         /* in mem->endpoints */
} mem_endpoint;

typedef struct mem_block {
    uint32_t source_ip; /* 0: any */
    uint32_t target_ip;
} mem_block;

struct r2p2_mem_switch {
    uint64_t now_ns;
    uint64_t random_state;
    uint64_t sequence; /* of the next departure */
    uint64_t delay_min_ns;
    uint64_t delay_max_ns; /* >= delay_min_ns */
    uint32_t loss_ppm;
    uint32_t duplicate_ppm;
    uint32_t reorder_ppm;
    uint32_t packets_max;
    uint32_t queue_max;
    uint32_t free_count; /* packets_max - free_count buffers are out */
    uint32_t heap_count; /* <= packets_max: every travelling packet is in the heap once */
    uint32_t blocks_count;
    r2p2_mem_counts counts;
    mem_packet *free_list;
    mem_packet *packets; /* packets_max of them */
    mem_packet **heap;   /* room for packets_max */
    mem_endpoint *endpoints[MEM_ENDPOINTS_MAX];
    mem_block blocks[MEM_BLOCKS_MAX];
    uint64_t link_arrival_ns[MEM_ENDPOINTS_MAX][MEM_ENDPOINTS_MAX]; /* latest in-order arrival, by source and target */
};

/* Our own mistakes stop the program and say both values; nothing a peer sends gets here. */
static void mem_expect_state(const mem_packet *packet, enum mem_state expected, const char *where) {
    if (packet->state != expected) {
        fprintf(stderr, "r2p2_mem_port: %s of a buffer in state %d, expected %d\n", where, (int)packet->state, (int)expected);
        abort();
    }
}

/* ---- chance ---- */

/* SplitMix64: a Weyl sequence through a 64-bit mixer. */
static uint64_t mem_random(r2p2_mem_switch *mem) {
    mem->random_state += UINT64_C(0x9E3779B97F4A7C15);
    uint64_t mixed = mem->random_state;
    mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94D049BB133111EB);
    return mixed ^ (mixed >> 31);
}

/* Uniform in 0..span, by multiplication: the bias is below 2^-64 * span. */
static uint64_t mem_random_upto(r2p2_mem_switch *mem, uint64_t span) {
    uint64_t draw = mem_random(mem);
    if (span == UINT64_MAX)
        return draw;
    return (uint64_t)(((unsigned __int128)draw * (span + 1u)) >> 64);
}

static int mem_random_hit(r2p2_mem_switch *mem, uint32_t ppm) { return mem_random_upto(mem, MEM_PPM - 1u) < ppm; }

static uint64_t mem_add_saturating(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }

/* ---- buffers ---- */

static mem_packet *mem_take(r2p2_mem_switch *mem, mem_endpoint *holder) {
    mem_packet *packet = mem->free_list;
    if (packet == NULL)
        return NULL;
    mem_expect_state(packet, MEM_FREE, "taking");
    mem->free_list = packet->next;
    mem->free_count--;
    packet->next = NULL;
    packet->holder = holder;
    packet->state = MEM_RESERVED;
    return packet;
}

static void mem_give_back(r2p2_mem_switch *mem, mem_packet *packet) {
    packet->state = MEM_FREE;
    packet->holder = NULL;
    packet->next = mem->free_list;
    mem->free_list = packet;
    mem->free_count++;
}

/* ---- the heap of travelling packets ---- */

static int mem_before(const mem_packet *a, const mem_packet *b) {
    return a->arrival_ns != b->arrival_ns ? a->arrival_ns < b->arrival_ns : a->sequence < b->sequence;
}

static void mem_heap_push(r2p2_mem_switch *mem, mem_packet *packet) {
    uint32_t child = mem->heap_count++;
    while (child > 0) {
        uint32_t parent = (child - 1u) / 2u;
        if (!mem_before(packet, mem->heap[parent]))
            break;
        mem->heap[child] = mem->heap[parent];
        child = parent;
    }
    mem->heap[child] = packet;
}

static mem_packet *mem_heap_pop(r2p2_mem_switch *mem) {
    mem_packet *first = mem->heap[0];
    mem_packet *last = mem->heap[--mem->heap_count];
    uint32_t hole = 0;
    for (;;) {
        uint32_t child = 2u * hole + 1u;
        if (child >= mem->heap_count)
            break;
        if (child + 1u < mem->heap_count && mem_before(mem->heap[child + 1u], mem->heap[child]))
            child++;
        if (!mem_before(mem->heap[child], last))
            break;
        mem->heap[hole] = mem->heap[child];
        hole = child;
    }
    mem->heap[hole] = last; /* when the heap is empty now, this is slot 0 and harmless */
    return first;
}

/* ---- the switch ---- */

static mem_endpoint *mem_find_endpoint(r2p2_mem_switch *mem, uint32_t ip) {
    for (uint32_t i = 0; i < MEM_ENDPOINTS_MAX; i++)
        if (mem->endpoints[i] != NULL && mem->endpoints[i]->port.local_ip == ip)
            return mem->endpoints[i];
    return NULL;
}

static int mem_is_blocked(const r2p2_mem_switch *mem, uint32_t source_ip, uint32_t target_ip) {
    for (uint32_t i = 0; i < mem->blocks_count; i++) {
        const mem_block *block = &mem->blocks[i];
        if ((block->source_ip == 0 || block->source_ip == source_ip) &&
            (block->target_ip == 0 || block->target_ip == target_ip))
            return 1;
    }
    return 0;
}

/* Takes over `packet` (RESERVED, addresses and length set): loses it, or sends it, maybe twice. `sender` is NULL for an
 * injected datagram, which has no link and so no order to keep. */
static void mem_depart(r2p2_mem_switch *mem, mem_packet *packet, const mem_endpoint *sender, const mem_endpoint *receiver) {
    uint64_t delay_span = mem->delay_max_ns - mem->delay_min_ns;
    uint64_t extra_span = mem->delay_max_ns > MEM_REORDER_NS ? mem->delay_max_ns : MEM_REORDER_NS;
    int lost = mem_random_hit(mem, mem->loss_ppm);
    int duplicated = mem_random_hit(mem, mem->duplicate_ppm);
    int reordered = mem_random_hit(mem, mem->reorder_ppm);
    uint64_t delay_ns = mem->delay_min_ns + mem_random_upto(mem, delay_span);
    uint64_t extra_ns = 1u + mem_random_upto(mem, extra_span - 1u);
    uint64_t duplicate_ns = mem->delay_min_ns + mem_random_upto(mem, delay_span);

    mem->counts.sent++;
    if (mem_is_blocked(mem, packet->source_ip, packet->target_ip)) {
        mem->counts.blocked++;
        mem_give_back(mem, packet);
        return;
    }
    if (lost) {
        mem->counts.lost++;
        mem_give_back(mem, packet);
        return;
    }
    packet->arrival_ns = mem_add_saturating(mem->now_ns, delay_ns);
    packet->sequence = mem->sequence++;
    if (reordered) {
        mem->counts.reordered++;
        packet->arrival_ns = mem_add_saturating(packet->arrival_ns, extra_ns);
    } else if (sender != NULL) {
        uint64_t *latest_ns = &mem->link_arrival_ns[sender->index][receiver->index];
        if (packet->arrival_ns < *latest_ns)
            packet->arrival_ns = *latest_ns;
        *latest_ns = packet->arrival_ns;
    }
    packet->holder = NULL;
    packet->state = MEM_TRAVELLING;
    mem_heap_push(mem, packet);

    mem_packet *copy = duplicated ? mem_take(mem, NULL) : NULL;
    if (copy == NULL)
        return;
    uint32_t kept_bytes = packet->length < R2P2_DATAGRAM_BYTES_MAX ? packet->length : R2P2_DATAGRAM_BYTES_MAX;
    mem->counts.duplicated++;
    copy->source_ip = packet->source_ip;
    copy->target_ip = packet->target_ip;
    copy->source_port = packet->source_port;
    copy->target_port = packet->target_port;
    copy->length = packet->length;
    memcpy(copy->data, packet->data, kept_bytes);
    copy->arrival_ns = mem_add_saturating(mem->now_ns, duplicate_ns);
    copy->sequence = mem->sequence++;
    copy->state = MEM_TRAVELLING;
    mem_heap_push(mem, copy);
}

/* One datagram has arrived: into its endpoint's queue, or dropped and counted. */
static void mem_arrive(r2p2_mem_switch *mem, mem_packet *packet) {
    mem_endpoint *endpoint = mem_find_endpoint(mem, packet->target_ip);
    if (endpoint == NULL) {
        mem->counts.gone++;
        mem_give_back(mem, packet);
    } else if (packet->length > R2P2_DATAGRAM_BYTES_MAX) {
        mem->counts.refused++;
        endpoint->counters.rx_drop_truncated++;
        mem_give_back(mem, packet);
    } else if (endpoint->queue_count >= mem->queue_max) {
        mem->counts.refused++;
        endpoint->counters.rx_drop_kernel++;
        mem_give_back(mem, packet);
    } else {
        packet->state = MEM_QUEUED;
        packet->next = NULL;
        if (endpoint->queue_tail == NULL)
            endpoint->queue_head = packet;
        else
            endpoint->queue_tail->next = packet;
        endpoint->queue_tail = packet;
        endpoint->queue_count++;
    }
}

static void mem_deliver_due(r2p2_mem_switch *mem) {
    while (mem->heap_count > 0 && mem->heap[0]->arrival_ns <= mem->now_ns)
        mem_arrive(mem, mem_heap_pop(mem));
}

/* ---- struct r2p2_port ---- */

static uint32_t mem_rx_burst(void *self, r2p2_rx_packet *packets, uint32_t max) {
    mem_endpoint *endpoint = self;
    uint32_t count = 0;
    mem_deliver_due(endpoint->mem);
    while (count < max && endpoint->queue_head != NULL) {
        mem_packet *packet = endpoint->queue_head;
        mem_expect_state(packet, MEM_QUEUED, "reading");
        endpoint->queue_head = packet->next;
        if (endpoint->queue_head == NULL)
            endpoint->queue_tail = NULL;
        endpoint->queue_count--;
        packet->next = NULL;
        packet->holder = endpoint;
        packet->state = MEM_HELD;
        packets[count++] = (r2p2_rx_packet){.data = packet->data,
                                            .length = packet->length,
                                            .source_ip = packet->source_ip,
                                            .source_port = packet->source_port,
                                            .local_port = packet->target_port,
                                            .owner = packet};
        endpoint->counters.rx_bytes += packet->length;
    }
    endpoint->counters.rx_packets += count;
    endpoint->mem->counts.delivered += count;
    return count;
}

static void mem_rx_release(void *self, r2p2_rx_packet *packets, uint32_t count) {
    mem_endpoint *endpoint = self;
    for (uint32_t i = 0; i < count; i++) {
        mem_packet *packet = packets[i].owner;
        mem_expect_state(packet, MEM_HELD, "rx_release");
        mem_give_back(endpoint->mem, packet);
    }
}

static uint32_t mem_tx_reserve(void *self, r2p2_tx_packet *packets, uint32_t count) {
    mem_endpoint *endpoint = self;
    uint32_t reserved = 0;
    while (reserved < count) {
        mem_packet *packet = mem_take(endpoint->mem, endpoint);
        if (packet == NULL)
            break;
        packets[reserved++] = (r2p2_tx_packet){.data = packet->data, .owner = packet};
    }
    if (reserved < count)
        endpoint->counters.tx_reserve_failed++;
    return reserved;
}

/* Takes over `packet` (RESERVED, data filled in): addressed and sent off, or dropped and counted. */
static void mem_send(mem_endpoint *endpoint, mem_packet *packet, uint32_t length, uint32_t source_ip, uint16_t local_port,
                     uint32_t target_ip, uint16_t target_port) {
    mem_endpoint *receiver = mem_find_endpoint(endpoint->mem, target_ip);
    if (length > R2P2_DATAGRAM_BYTES_MAX || receiver == NULL) {
        if (receiver == NULL)
            endpoint->counters.tx_drop_no_route++;
        else
            endpoint->counters.tx_drop_error++;
        mem_give_back(endpoint->mem, packet);
        return;
    }
    packet->length = length;
    packet->source_ip = source_ip != 0 ? source_ip : endpoint->port.local_ip;
    packet->source_port = local_port != 0 ? local_port : endpoint->port.local_port;
    packet->target_ip = target_ip;
    packet->target_port = target_port;
    endpoint->counters.tx_packets++;
    endpoint->counters.tx_bytes += length;
    mem_depart(endpoint->mem, packet, endpoint, receiver);
}

static void mem_tx_commit(void *self, r2p2_tx_packet *packets, uint32_t count) {
    mem_endpoint *endpoint = self;
    for (uint32_t i = 0; i < count; i++) {
        mem_packet *packet = packets[i].owner;
        mem_expect_state(packet, MEM_RESERVED, "tx_commit");
        if (packets[i].length == 0)
            mem_give_back(endpoint->mem, packet);
        else
            mem_send(endpoint, packet, packets[i].length, packets[i].source_ip, packets[i].local_port, packets[i].target_ip,
                     packets[i].target_port);
    }
}

static void mem_tx_broadcast(void *self, const uint8_t *data, uint32_t length, uint16_t local_port,
                             const r2p2_port_target *targets, uint32_t count) {
    mem_endpoint *endpoint = self;
    for (uint32_t i = 0; i < count; i++) {
        mem_packet *packet = mem_take(endpoint->mem, endpoint);
        if (packet == NULL) {
            endpoint->counters.tx_drop_full++;
            continue;
        }
        if (length <= R2P2_DATAGRAM_BYTES_MAX)
            memcpy(packet->data, data, length);
        mem_send(endpoint, packet, length, 0, local_port, targets[i].ip, targets[i].port);
    }
}

static uint64_t mem_now_ns(void *self) { return ((mem_endpoint *)self)->mem->now_ns; }

/* ---- what Python sees ---- */

r2p2_mem_switch *r2p2_mem_switch_new(uint64_t seed, uint32_t packets_max) {
    if (packets_max == 0 || packets_max > MEM_PACKETS_MAX)
        return NULL;
    r2p2_mem_switch *mem = calloc(1, sizeof *mem);
    if (mem == NULL)
        return NULL;
    mem->packets = aligned_alloc(64, (size_t)packets_max * sizeof *mem->packets);
    mem->heap = malloc((size_t)packets_max * sizeof(mem_packet *));
    if (mem->packets == NULL || mem->heap == NULL) {
        r2p2_mem_switch_free(mem);
        return NULL;
    }
    mem->random_state = seed;
    mem->packets_max = packets_max;
    mem->queue_max = packets_max / 2u > MEM_QUEUE_MIN ? packets_max / 2u : MEM_QUEUE_MIN;
    for (uint32_t i = packets_max; i-- > 0;)
        mem_give_back(mem, &mem->packets[i]);
    return mem;
}

void r2p2_mem_switch_free(r2p2_mem_switch *mem) {
    if (mem == NULL)
        return;
    for (uint32_t i = 0; i < MEM_ENDPOINTS_MAX; i++)
        free(mem->endpoints[i]);
    free(mem->packets);
    free(mem->heap);
    free(mem);
}

void r2p2_mem_switch_advance(r2p2_mem_switch *mem, uint64_t ns) {
    mem->now_ns = mem_add_saturating(mem->now_ns, ns);
    mem_deliver_due(mem);
}

uint64_t r2p2_mem_switch_now_ns(r2p2_mem_switch *mem) { return mem->now_ns; }

uint64_t r2p2_mem_switch_next_ns(r2p2_mem_switch *mem) {
    return mem->heap_count > 0 ? mem->heap[0]->arrival_ns : UINT64_MAX;
}

int32_t r2p2_mem_switch_faults(r2p2_mem_switch *mem, uint32_t loss_ppm, uint32_t duplicate_ppm, uint32_t reorder_ppm,
                               uint64_t delay_min_ns, uint64_t delay_max_ns) {
    if (loss_ppm > MEM_PPM || duplicate_ppm > MEM_PPM || reorder_ppm > MEM_PPM || delay_min_ns > delay_max_ns)
        return R2P2_ERROR_ARGUMENT;
    mem->loss_ppm = loss_ppm;
    mem->duplicate_ppm = duplicate_ppm;
    mem->reorder_ppm = reorder_ppm;
    mem->delay_min_ns = delay_min_ns;
    mem->delay_max_ns = delay_max_ns;
    return R2P2_OK;
}

int32_t r2p2_mem_switch_block(r2p2_mem_switch *mem, uint32_t source_ip, uint32_t target_ip, int32_t blocked) {
    for (uint32_t i = 0; i < mem->blocks_count; i++) {
        if (mem->blocks[i].source_ip != source_ip || mem->blocks[i].target_ip != target_ip)
            continue;
        if (!blocked)
            mem->blocks[i] = mem->blocks[--mem->blocks_count];
        return R2P2_OK;
    }
    if (!blocked)
        return R2P2_OK;
    if (mem->blocks_count == MEM_BLOCKS_MAX)
        return R2P2_ERROR_FULL;
    mem->blocks[mem->blocks_count++] = (mem_block){.source_ip = source_ip, .target_ip = target_ip};
    return R2P2_OK;
}

uint64_t r2p2_mem_switch_in_flight(r2p2_mem_switch *mem) { return mem->packets_max - mem->free_count; }

void r2p2_mem_switch_counts(r2p2_mem_switch *mem, r2p2_mem_counts *counts) {
    *counts = mem->counts;
    counts->travelling = mem->heap_count;
    counts->queued = 0;
    for (uint32_t i = 0; i < MEM_ENDPOINTS_MAX; i++)
        if (mem->endpoints[i] != NULL)
            counts->queued += mem->endpoints[i]->queue_count;
}

uintptr_t r2p2_mem_port_open(r2p2_mem_switch *mem, uint32_t ip, uint16_t port) {
    uint32_t index = 0;
    if (ip == 0 || port == 0 || mem_find_endpoint(mem, ip) != NULL)
        return 0;
    while (index < MEM_ENDPOINTS_MAX && mem->endpoints[index] != NULL)
        index++;
    if (index == MEM_ENDPOINTS_MAX)
        return 0;
    mem_endpoint *endpoint = calloc(1, sizeof *endpoint);
    if (endpoint == NULL)
        return 0;
    endpoint->mem = mem;
    endpoint->index = index;
    endpoint->port = (r2p2_port){.abi = R2P2_PORT_ABI,
                                 .struct_size = sizeof(r2p2_port),
                                 .self = endpoint,
                                 .poll_fd = -1,
                                 .local_ip = ip,
                                 .local_port = port,
                                 .rx_burst = mem_rx_burst,
                                 .rx_release = mem_rx_release,
                                 .tx_reserve = mem_tx_reserve,
                                 .tx_commit = mem_tx_commit,
                                 .tx_broadcast = mem_tx_broadcast,
                                 .now_ns = mem_now_ns,
                                 .counters = &endpoint->counters};
    mem->endpoints[index] = endpoint;
    for (uint32_t i = 0; i < MEM_ENDPOINTS_MAX; i++) {
        mem->link_arrival_ns[index][i] = 0;
        mem->link_arrival_ns[i][index] = 0;
    }
    return (uintptr_t)&endpoint->port;
}

int32_t r2p2_mem_port_close(r2p2_mem_switch *mem, uintptr_t port) {
    mem_endpoint *endpoint = NULL;
    int32_t held_count = 0;
    for (uint32_t i = 0; i < MEM_ENDPOINTS_MAX; i++)
        if (mem->endpoints[i] != NULL && (uintptr_t)&mem->endpoints[i]->port == port)
            endpoint = mem->endpoints[i];
    if (endpoint == NULL)
        return R2P2_ERROR_ARGUMENT;
    while (endpoint->queue_head != NULL) {
        mem_packet *packet = endpoint->queue_head;
        endpoint->queue_head = packet->next;
        mem->counts.gone++;
        mem_give_back(mem, packet);
    }
    for (uint32_t i = 0; i < mem->packets_max; i++) {
        if (mem->packets[i].holder == endpoint) {
            held_count++;
            mem_give_back(mem, &mem->packets[i]);
        }
    }
    mem->endpoints[endpoint->index] = NULL;
    free(endpoint);
    return held_count;
}

int32_t r2p2_mem_switch_inject(r2p2_mem_switch *mem, uint32_t source_ip, uint16_t source_port, uint32_t target_ip,
                               uint16_t target_port, const uint8_t *data, uint64_t length) {
    if (length > UINT16_MAX || (data == NULL && length > 0))
        return R2P2_ERROR_ARGUMENT;
    const mem_endpoint *receiver = mem_find_endpoint(mem, target_ip);
    if (receiver == NULL)
        return R2P2_ERROR_ARGUMENT;
    mem_packet *packet = mem_take(mem, NULL);
    if (packet == NULL)
        return R2P2_ERROR_FULL;
    packet->length = (uint32_t)length;
    packet->source_ip = source_ip;
    packet->source_port = source_port;
    packet->target_ip = target_ip;
    packet->target_port = target_port;
    if (length > 0)
        memcpy(packet->data, data, length < R2P2_DATAGRAM_BYTES_MAX ? length : R2P2_DATAGRAM_BYTES_MAX);
    mem_depart(mem, packet, NULL, receiver);
    return R2P2_OK;
}
