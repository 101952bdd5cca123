/*
 * Random traffic over the in-memory port and the kernel UDP port through the vtable alone, for the sanitizers: buffers are
 * reserved, sent, received, held and released in any order, full pools and oversize datagrams included. Every payload says who
 * it is for, so a buffer handed out twice shows as a wrong byte.
 *
 * Run under AddressSanitizer and UBSan by tests/ports/test_sanitized.py: churn SEED STEPS.
 */
#include "udp_module.h"

#include "r2p2_engine_api.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORTS 3
#define HELD_MAX 96

typedef struct node {
    r2p2_port *port;
    uint32_t rx_count;
    uint32_t tx_count;
    r2p2_rx_packet rx[HELD_MAX];
    r2p2_tx_packet tx[HELD_MAX];
} node;

static uint32_t random_state;

static uint32_t random_below(uint32_t bound) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state % bound;
}

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void fill(r2p2_tx_packet *packet, node *nodes) {
    uint32_t target = random_below(PORTS);
    static const uint32_t sizes[] = {0, 64, 64, 64, 200, R2P2_DATAGRAM_BYTES_MAX};
    packet->length = random_below(4) ? sizes[random_below(6)] : 1u + random_below(R2P2_DATAGRAM_BYTES_MAX);
    packet->target_ip = nodes[target].port->local_ip;
    packet->target_port = nodes[target].port->local_port;
    memset(packet->data, (int)(target + 1u), packet->length);
}

static void check(const r2p2_rx_packet *packet, uint32_t receiver) {
    for (uint32_t i = 0; i < packet->length; i++)
        if (packet->data[i] != receiver + 1u)
            fail("a received datagram has another's bytes");
}

static void step(node *nodes, uint32_t self) {
    node *one = &nodes[self];
    r2p2_port *port = one->port;
    switch (random_below(5)) {
    case 0:
        one->tx_count += port->tx_reserve(port->self, one->tx + one->tx_count, random_below(HELD_MAX - one->tx_count + 1u));
        break;
    case 1:
        for (uint32_t i = 0; i < one->tx_count; i++)
            fill(&one->tx[i], nodes);
        port->tx_commit(port->self, one->tx, one->tx_count);
        one->tx_count = 0;
        break;
    case 2: {
        uint32_t count = port->rx_burst(port->self, one->rx + one->rx_count, random_below(HELD_MAX - one->rx_count + 1u));
        for (uint32_t i = 0; i < count; i++)
            check(&one->rx[one->rx_count + i], self);
        one->rx_count += count;
        break;
    }
    case 3:
        while (one->rx_count > 0 && random_below(20) != 0) {
            uint32_t which = random_below(one->rx_count);
            check(&one->rx[which], self);
            port->rx_release(port->self, &one->rx[which], 1);
            one->rx[which] = one->rx[--one->rx_count];
        }
        break;
    default: {
        uint8_t data[R2P2_DATAGRAM_BYTES_MAX];
        uint32_t target = random_below(PORTS);
        r2p2_port_target targets[2];
        targets[0] = (r2p2_port_target){.ip = nodes[target].port->local_ip, .port = nodes[target].port->local_port};
        targets[1] = targets[0];
        memset(data, (int)(target + 1u), sizeof data);
        port->tx_broadcast(port->self, data, 1u + random_below(sizeof data), 0, targets, random_below(3));
    }
    }
}

static void finish(node *nodes) {
    for (uint32_t i = 0; i < PORTS; i++) {
        r2p2_port *port = nodes[i].port;
        for (uint32_t k = 0; k < nodes[i].tx_count; k++)
            nodes[i].tx[k].length = 0;
        port->tx_commit(port->self, nodes[i].tx, nodes[i].tx_count);
        port->rx_release(port->self, nodes[i].rx, nodes[i].rx_count);
        if (port->counters->rx_packets == 0 || port->counters->tx_packets == 0)
            fail("no traffic: the churn proves nothing");
    }
}

static void churn_mem(uint32_t steps) {
    static node nodes[PORTS];
    r2p2_mem_switch *mem = r2p2_mem_switch_new(random_state, 200);
    if (mem == NULL || r2p2_mem_switch_faults(mem, 50000, 100000, 100000, 0, 5000) != 0)
        fail("no switch");
    for (uint32_t i = 0; i < PORTS; i++)
        nodes[i].port = (r2p2_port *)r2p2_mem_port_open(mem, 10u + i, 9000);
    for (uint32_t i = 0; i < steps; i++) {
        uint8_t big[3000];
        uint32_t target = random_below(PORTS);
        memset(big, (int)(target + 1u), sizeof big);
        if (i % 10 == 0)
            (void)r2p2_mem_switch_inject(mem, 1, 1, 10u + target, 9000, big, random_below(sizeof big));
        r2p2_mem_switch_advance(mem, random_below(1000));
        step(nodes, random_below(PORTS));
    }
    finish(nodes);
    for (uint32_t i = 0; i < PORTS; i++)
        if (r2p2_mem_port_close(mem, (uintptr_t)nodes[i].port) != 0)
            fail("mem: a buffer was not given back");
    r2p2_mem_switch_advance(mem, 1000000);
    if (r2p2_mem_switch_in_flight(mem) != 0)
        fail("mem: a buffer is lost");
    r2p2_mem_switch_free(mem);
}

static void churn_udp(uint32_t steps, uint32_t use_segmentation) {
    static node nodes[PORTS];
    r2p2_udp_options options = {.rx_buffers_count = 80, .tx_buffers_count = 70, .use_segmentation = use_segmentation};
    int32_t error;
    for (uint32_t i = 0; i < PORTS; i++) {
        nodes[i].port = (r2p2_port *)r2p2_udp_port_open(INADDR_LOOPBACK, 0, &options, &error);
        if (nodes[i].port == NULL)
            fail("udp: cannot open");
        if (i == 0 && r2p2_udp_port_add((uintptr_t)nodes[i].port, 0) < 0)
            fail("udp: cannot add");
    }
    for (uint32_t i = 0; i < steps; i++)
        step(nodes, random_below(PORTS));
    finish(nodes);
    for (uint32_t i = 0; i < PORTS; i++) /* for the next churn */
        nodes[i].rx_count = nodes[i].tx_count = 0;
    for (uint32_t i = 0; i < PORTS; i++)
        if (r2p2_udp_port_close((uintptr_t)nodes[i].port) != 0)
            fail("udp: a buffer was not given back");
}

int main(int argc, char **argv) {
    if (argc != 3)
        fail("usage: churn SEED STEPS");
    random_state = (uint32_t)strtoul(argv[1], NULL, 10) | 1u;
    uint32_t steps = (uint32_t)strtoul(argv[2], NULL, 10);
    churn_mem(steps);
    churn_udp(steps, 0);
    churn_udp(steps, 1);
    puts("ok");
    return 0;
}
