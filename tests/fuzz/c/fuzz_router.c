/*
 * Hostile input for the router: datagrams of clients, servers and strangers, raw or built so that they pass the first checks.
 *
 * The router's file is part of this one, so that its books can be looked at. Datagrams lie in allocations of exactly their length.
 * Checked: sanitizers find nothing; what is sent parses, and requests go to servers; every slot taken is one entry's, and never
 * more than the bound; the queue and the table of who is in it agree; once everything has expired nothing is on its way, no slot is
 * taken, and every buffer is back.
 *
 * `fuzz_router SEED SECONDS` plays random scripts for so many seconds of its own processor time; `fuzz_router SEED 0 NUMBER` plays one again.
 */
#include "r2p2_router.c"
#include "fuzz_buffers.h"
#include "fuzz_random.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#define QUEUE_MAX 256u
#define STEPS 400u
#define ROUTER_IP 1u
#define ROUTER_PORT 8000u
#define CONTROL_PORT 9000u
#define SERVER_IP 100u
#define CLIENT_IP 200u

static uint64_t script_seed, script_number;

static void expect(const char *what, uint64_t got, uint64_t wanted) {
    if (got == wanted) return;
    fprintf(stderr, "%s: %" PRIu64 ", expected %" PRIu64 "; replay with: %" PRIu64 " 0 %" PRIu64 "\n", what, got, wanted, script_seed,
            script_number);
    abort();
}

/* ---- the port ---- */

typedef struct fuzz_port {
    fuzz_buffers buffers;
    r2p2_port_counters counters;
    uint64_t now_ns;
    r2p2_rx_packet queue[QUEUE_MAX];
    uint32_t queue_count;
    uint32_t kept_count; /* servers it was told to keep */
    int is_direct;
} fuzz_port;

static void enqueue(fuzz_port *self, const uint8_t *data, uint32_t length, uint32_t ip, uint16_t port, uint16_t local_port) {
    if (self->queue_count == QUEUE_MAX) return;
    uint8_t *copy = malloc(length); /* malloc(0) too has no readable byte */
    if (length) memcpy(copy, data, length);
    self->queue[self->queue_count++] = (r2p2_rx_packet){copy, length, ip, port, local_port, copy};
}

static uint32_t rx_burst(void *port, r2p2_rx_packet *packets, uint32_t max) {
    fuzz_port *self = port;
    uint32_t count = self->queue_count < max ? self->queue_count : max;
    memcpy(packets, self->queue, count * sizeof *packets);
    memmove(self->queue, self->queue + count, (self->queue_count - count) * sizeof *packets);
    self->queue_count -= count;
    self->buffers.out_rx += count;
    return count;
}

static int is_server(uint32_t ip) { return ip >= SERVER_IP && ip < SERVER_IP + R2P2_ROUTER_SERVERS_MAX; }

static uint64_t sent_count; /* of all scripts */

static void tx_commit(void *port, r2p2_tx_packet *packets, uint32_t count) {
    fuzz_port *self = port;
    self->buffers.out_tx -= count;
    for (uint32_t i = 0; i < count; i++) {
        const r2p2_tx_packet *packet = &packets[i];
        r2p2_header header;
        if (packet->length) {
            expect("sent length", packet->length <= R2P2_DATAGRAM_BYTES_MAX, 1);
            expect("sent datagram parses", r2p2_header_parse(packet->data, packet->length, &header), R2P2_HEADER_OK);
            if (header.type == R2P2_TYPE_REQUEST) expect("requests go to servers", is_server(packet->target_ip), 1);
            expect("requests go as their client", packet->source_ip != 0, self->is_direct && header.type == R2P2_TYPE_REQUEST);
            sent_count++;
            /* A server that answers, now and then, to what the router knows it by. */
            if (header.type == R2P2_TYPE_REQUEST && below(3) == 0 && !self->is_direct) {
                uint8_t answer[R2P2_DATAGRAM_BYTES_MAX];
                uint32_t packets_count = 1 + below(4), index = below(packets_count);
                static const uint8_t types[] = {R2P2_TYPE_RESPONSE, R2P2_TYPE_RESPONSE, R2P2_TYPE_ACK, R2P2_TYPE_DROP};
                r2p2_header_write(answer, types[below(4)], 1, index == 0, index + 1 == packets_count, header.rid,
                                  (uint16_t)(index ? index : packets_count));
                memset(answer + R2P2_HEADER_BYTES, 7, 16);
                enqueue(self, answer, R2P2_HEADER_BYTES + below(17), packet->target_ip, packet->target_port, ROUTER_PORT);
            }
        }
        free(packet->owner);
    }
}

static void tx_broadcast(void *port, const uint8_t *data, uint32_t length, uint16_t local_port, const r2p2_port_target *targets,
                         uint32_t count) {
    (void)port, (void)data, (void)length, (void)local_port, (void)targets;
    expect("a router does not broadcast", count, 0);
}

static void keep_peers(void *port, const r2p2_port_target *peers, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) expect("a server is kept", is_server(peers[i].ip), 1);
    ((fuzz_port *)port)->kept_count = count;
}

static uint64_t now_ns(void *port) { return ((fuzz_port *)port)->now_ns; }

/* ---- datagrams ---- */

static void send_feedback(fuzz_port *port, uint32_t servers_count) {
    uint8_t data[FEEDBACK_BYTES];
    r2p2_header_write(data, R2P2_TYPE_FEEDBACK, 1, 1, 1, 0, 1);
    r2p2_store_u16(data + 8, (uint16_t)below(8));
    r2p2_store_u16(data + 10, (uint16_t)(below(2) ? ROUTER_PORT : below(4)));
    r2p2_store_u16(data + 12, 0);
    r2p2_store_u16(data + 14, (uint16_t)(below(2) ? ROUTER_IP : CLIENT_IP + below(3)));
    if (below(4) == 0) data[below(FEEDBACK_BYTES)] = (uint8_t)next_random();
    enqueue(port, data, below(8) ? FEEDBACK_BYTES : below(FEEDBACK_BYTES), SERVER_IP + below(servers_count + 1), (uint16_t)below(3),
            CONTROL_PORT);
}

/* Few clients, rids and sources, so that they meet; a quarter has a byte of its header changed. */
static void send_built(fuzz_port *port, uint32_t servers_count) {
    uint8_t data[2000];
    uint32_t count = below(4) ? 1 : 1 + below(R2P2_PACKETS_MAX), index = below(count), bytes = below(8) ? below(30) : below(1990);
    int is_of_server = below(2) == 0;
    uint8_t type = (uint8_t)(below(8) == 0 ? below(8) : is_of_server ? 1 + below(4) : R2P2_TYPE_REQUEST);
    r2p2_header_write(data, type, (uint8_t)below(4), index == 0, index + 1 == count, (uint16_t)below(8), (uint16_t)(index ? index : count));
    if (below(4) == 0) data[below(R2P2_HEADER_BYTES)] = (uint8_t)next_random();
    memset(data + R2P2_HEADER_BYTES, 1, bytes);
    enqueue(port, data, R2P2_HEADER_BYTES + bytes, is_of_server ? SERVER_IP + below(servers_count + 1) : CLIENT_IP + below(3),
            (uint16_t)below(4), (uint16_t)(below(16) ? ROUTER_PORT : below(65536)));
}

static void send_raw(fuzz_port *port) {
    uint8_t data[40];
    uint32_t length = below(sizeof data + 1);
    for (uint32_t i = 0; i < length; i++) data[i] = (uint8_t)next_random();
    if (length > 0 && below(2)) data[0] = R2P2_MAGIC;
    enqueue(port, data, length, (uint32_t)next_random(), (uint16_t)below(4), (uint16_t)(below(2) ? ROUTER_PORT : CONTROL_PORT));
}

/* ---- the books ---- */

static void check(r2p2_router *router) {
    uint64_t slots[R2P2_ROUTER_SERVERS_MAX] = {0}, probes[R2P2_ROUTER_SERVERS_MAX] = {0}, waiting = 0;
    const r2p2_pending_table *pending = &router->pending;
    uint64_t since_ns = 0;
    for (uint32_t i = pending->waiting.oldest; i != R2P2_PENDING_NONE; i = pending->entries[i].newer, waiting++) {
        const r2p2_pending *entry = &pending->entries[i];
        expect("an entry waits", entry->state, R2P2_PENDING_WAITING);
        expect("an entry is found", r2p2_pending_find(pending, entry->client_ip, entry->client_port, entry->client_rid), i);
        expect("the oldest comes first", entry->since_ns >= since_ns, 1);
        since_ns = entry->since_ns;
        if (entry->holds_slot && !is_replicated(entry->policy)) slots[entry->server]++;
        probes[entry->server] += entry->is_probe;
    }
    expect("entries", pending->waiting.count, waiting);
    expect("entries within their bound", waiting <= router->config.pending_max, 1);
    for (uint32_t i = 0; i < router->servers.count; i++) {
        const r2p2_server *server = &router->servers.list[i];
        expect("slots taken", server->outstanding, slots[i]);
        expect("probes", server->is_probed, probes[i]);
        if (router->config.choice == R2P2_ROUTER_JBSQ) expect("slots within the bound", server->outstanding <= router->config.bound, 1);
    }
    expect("a leader there is", router->servers.leader < router->servers.count, 1);
    expect("the queue within its bound", router->queue.count <= router->config.queue_max, 1);
    for (uint32_t i = 0; i < router->queue.count; i++) {
        const r2p2_router_waiting *one = &router->queue.ring[(router->queue.head + i) % router->queue.size];
        expect("who waits has a name",
               r2p2_pending_find(&router->queue.names, one->client_ip, one->client_port, one->client_rid), one->name);
    }
    if (router->config.choice == R2P2_ROUTER_JBSQ) expect("names in the queue", router->queue.names.waiting.count, router->queue.count);
}

static void play(uint64_t number) {
    static fuzz_port port;
    static r2p2_target servers[R2P2_ROUTER_SERVERS_MAX];
    r2p2_router_result result;
    int32_t error;
    script_number = number;
    fuzz_state = script_seed ^ (number * UINT64_C(0x9E3779B97F4A7C15));
    uint32_t servers_count = below(8) ? 1 + below(4) : 1 + below(R2P2_ROUTER_SERVERS_MAX);
    for (uint32_t i = 0; i < servers_count; i++) servers[i] = (r2p2_target){SERVER_IP + i, (uint16_t)(1 + below(2)), 0};
    r2p2_router_config config = {.seed = next_random(),
                                 .timeout_ns = 1000000,
                                 .queue_timeout_ns = 500000,
                                 .down_ns = 3000000,
                                 .misses_max = 1 + below(3),
                                 .bound = 1 + below(4),
                                 .queue_max = 1 + below(20),
                                 .pending_max = 1 + below(30),
                                 .packets_per_poll_max = 1 + below(100),
                                 .mode = below(2),
                                 .choice = below(4),
                                 .local_port = ROUTER_PORT,
                                 .control_port = (uint16_t)(below(4) ? CONTROL_PORT : ROUTER_PORT)};
    port = (fuzz_port){.now_ns = 1 + below(2) * UINT64_C(5000000000), .buffers.tx_budget = R2P2_BURST_MAX, .is_direct = config.mode == R2P2_ROUTER_DIRECT};
    port.buffers.port = (r2p2_port){.abi = R2P2_PORT_ABI,
                                    .struct_size = sizeof(r2p2_port),
                                    .self = &port,
                                    .poll_fd = -1,
                                    .local_ip = ROUTER_IP,
                                    .local_port = ROUTER_PORT,
                                    .rx_burst = rx_burst,
                                    .rx_release = rx_release,
                                    .tx_reserve = tx_reserve,
                                    .tx_commit = tx_commit,
                                    .tx_broadcast = tx_broadcast,
                                    .keep_peers = keep_peers,
                                    .now_ns = now_ns,
                                    .counters = &port.counters};
    r2p2_router *router = r2p2_router_new((uintptr_t)&port.buffers.port, &config, servers, servers_count, &error);
    expect("router", router != NULL, 1);
    expect("servers kept", port.kept_count, servers_count);
    for (uint32_t i = below(STEPS); i > 0; i--) {
        switch (below(16)) {
        case 0: send_raw(&port); break;
        case 1: case 2: send_feedback(&port, servers_count); break;
        case 3: port.now_ns += below(2) ? below(400000) : below(4000000); break;
        case 4: port.buffers.tx_budget = below(3) ? R2P2_BURST_MAX : below(6); break;
        case 5: case 6: case 7:
            r2p2_router_poll(router, &result);
            check(router);
            expect("packets of a poll", result.packets_count <= config.packets_per_poll_max, 1);
            expect("a deadline ahead", result.deadline_ns > port.now_ns, 1);
            break;
        default: send_built(&port, servers_count);
        }
    }
    port.buffers.tx_budget = R2P2_BURST_MAX;
    for (uint32_t i = 0; i < 300 && (i < 4 || port.queue_count > 0); i++) {
        port.now_ns += 2000000;
        r2p2_router_poll(router, &result);
        check(router);
    }
    port.now_ns += 2 * (uint64_t)QUARANTINE_NS;
    r2p2_router_poll(router, &result);
    if (port.queue_count == 0) expect("requests in the end", result.pending_count + result.queued_count, 0);
    r2p2_router_free(router);
    expect("received buffers back", port.buffers.out_rx, 0);
    expect("sent buffers back", port.buffers.out_tx, 0);
    for (uint32_t i = 0; i < port.queue_count; i++) free(port.queue[i].owner);
}

static uint64_t processor_seconds(void) {
    struct timespec now;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now)) abort();
    return (uint64_t)now.tv_sec;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    script_seed = strtoull(argv[1], NULL, 10);
    uint64_t end = strtoull(argv[2], NULL, 10), number = 0;
    if (argc > 3) {
        play(strtoull(argv[3], NULL, 10));
        puts("ok: 1 script");
        return 0;
    }
    do play(number++);
    while (processor_seconds() < end);
    printf("ok: %" PRIu64 " scripts, %" PRIu64 " datagrams sent\n", number, sent_count);
    return sent_count ? 0 : 1;
}
