/*
 * The router: what becomes of every datagram that comes to it.
 *
 * One poll: receive bursts; sort each packet: a client's request to a server (now, or when a slot is free), an answer back to its
 * client, FEEDBACK into the books; expire what is old; send. Payloads are never looked at, messages never put together: a packet
 * comes in and goes out, with another rid in RELAY mode.
 * Leaves to others: which server, and which live (r2p2_router_servers.c), the table of requests on their way (r2p2_pending.c), those
 * that wait for a slot (r2p2_router_queue.c), sending (r2p2_tx.c), I/O (the port).
 *
 * Slots: a balanced request takes one at its server when it is sent (`outstanding`), and gives it back exactly once: at the first
 * of its answer's last packet, DROP, FEEDBACK, or its expiry. Replicated requests go to the leader and take none.
 */
#include "r2p2_router.h"

#include <stdlib.h>

#include "r2p2_pending.h"
#include "r2p2_port.h"
#include "r2p2_router_counters.h"
#include "r2p2_router_queue.h"
#include "r2p2_router_servers.h"
#include "r2p2_tx.h"

#define QUARANTINE_NS 1000000000u
#define FEEDBACK_BYTES 16u
_Static_assert(R2P2_ROUTER_PENDING_MAX < R2P2_PENDING_SLOTS, "a rid can rest while all others are in use");

struct r2p2_router {
    r2p2_port *port;
    r2p2_router_config config;
    r2p2_router_counters counters;
    r2p2_engine_counters tx_counters; /* of r2p2_tx; tx_drop_no_buffer is shown as ours */
    r2p2_tx tx;
    uint64_t now_ns;
    r2p2_servers servers;
    r2p2_pending_table pending;
    r2p2_router_queue queue; /* JBSQ only; else empty */
};

/* ---- counters ---- */

#define NAME_OF(name, help) #name,
#define HELP_OF(name, help) help,
static const char *const counter_names[] = {R2P2_ROUTER_COUNTERS(NAME_OF) R2P2_PORT_COUNTERS(NAME_OF)};
static const char *const counter_helps[] = {R2P2_ROUTER_COUNTERS(HELP_OF) R2P2_PORT_COUNTERS(HELP_OF)};
#define COUNTERS_COUNT (sizeof counter_names / sizeof counter_names[0])
_Static_assert(COUNTERS_COUNT * 8 == sizeof(r2p2_router_counters) + sizeof(r2p2_port_counters), "one name a counter");

uint32_t r2p2_router_counters_count(void) { return COUNTERS_COUNT; }
const char *r2p2_router_counter_name(uint32_t index) { return index < COUNTERS_COUNT ? counter_names[index] : NULL; }
const char *r2p2_router_counter_help(uint32_t index) { return index < COUNTERS_COUNT ? counter_helps[index] : NULL; }
void r2p2_router_counters_read(r2p2_router *router, uint64_t *values) {
    router->counters.tx_drop_no_buffer = router->tx_counters.tx_drop_no_buffer;
    memcpy(values, &router->counters, sizeof router->counters);
    memcpy(values + sizeof router->counters / 8, router->port->counters, sizeof *router->port->counters);
}

/* ---- life ---- */

static int config_is_good(const r2p2_router_config *config, uint32_t servers_count) {
    return servers_count >= 1 && servers_count <= R2P2_ROUTER_SERVERS_MAX && config->mode <= R2P2_ROUTER_DIRECT &&
           config->choice <= R2P2_ROUTER_JBSQ && config->bound >= 1 && config->misses_max >= 1 && config->queue_max >= 1 &&
           config->queue_max <= R2P2_ROUTER_QUEUE_MAX && config->pending_max >= 1 &&
           config->pending_max <= R2P2_ROUTER_PENDING_MAX && config->packets_per_poll_max >= 1 && config->local_port != 0 &&
           config->control_port != 0 && config->timeout_ns > 0 && config->queue_timeout_ns > 0;
}

r2p2_router *r2p2_router_new(uintptr_t port_address, const r2p2_router_config *config, const r2p2_target *servers,
                             uint32_t servers_count, int32_t *error) {
    r2p2_port *port = (r2p2_port *)port_address;
    *error = R2P2_ERROR_ARGUMENT;
    if (!port || port->abi != R2P2_PORT_ABI || port->struct_size != sizeof(r2p2_port)) return NULL;
    if (!config_is_good(config, servers_count)) return NULL;
    *error = R2P2_ERROR_NO_MEMORY;
    r2p2_router *router = calloc(1, sizeof *router);
    if (!router) return NULL;
    router->port = port;
    router->config = *config;
    router->tx.port = port;
    router->tx.counters = &router->tx_counters;
    router->tx.now_ns = &router->now_ns;
    router->now_ns = port->now_ns(port->self);
    r2p2_servers_init(&router->servers, &router->config, &router->counters, servers, servers_count);
    int failed = r2p2_pending_init(&router->pending, config->seed);
    if (config->choice == R2P2_ROUTER_JBSQ) failed |= r2p2_router_queue_init(&router->queue, config->queue_max, config->seed);
    if (failed) {
        r2p2_router_free(router);
        return NULL;
    }
    if (port->keep_peers) {
        r2p2_port_target targets[R2P2_ROUTER_SERVERS_MAX];
        for (uint32_t i = 0; i < servers_count; i++) targets[i] = (r2p2_port_target){servers[i].ip, servers[i].port, 0};
        port->keep_peers(port->self, targets, servers_count);
    }
    *error = R2P2_OK;
    return router;
}

void r2p2_router_free(r2p2_router *router) {
    if (!router) return;
    r2p2_tx_close(&router->tx);
    r2p2_pending_destroy(&router->pending);
    r2p2_router_queue_destroy(&router->queue);
    free(router);
}

uint64_t r2p2_router_now_ns(r2p2_router *router) { return router->port->now_ns(router->port->self); }
uint32_t r2p2_router_leader(r2p2_router *router) { return router->servers.leader; }

void r2p2_router_servers(r2p2_router *router, r2p2_router_server *servers) {
    for (uint32_t i = 0; i < router->servers.count; i++) {
        const r2p2_server *server = &router->servers.list[i];
        servers[i] = (r2p2_router_server){
            .ip = server->address.ip,
            .port = server->address.port,
            .is_down = server->is_down,
            .outstanding = server->outstanding,
            .misses = server->misses,
            .sent = server->sent,
            .answered = server->answered,
            .expired = server->expired,
            .dropped = server->dropped,
        };
    }
}

/* ---- entries ---- */

static inline int is_replicated(uint8_t policy) { return policy >= R2P2_POLICY_REPLICATED; }

static void slot_give_back(r2p2_router *router, r2p2_pending *entry) {
    if (entry->holds_slot && !is_replicated(entry->policy)) router->servers.list[entry->server].outstanding--;
    entry->holds_slot = 0;
}

static void entry_end(r2p2_router *router, uint32_t index, int was_answered) {
    r2p2_pending *entry = &router->pending.entries[index];
    slot_give_back(router, entry);
    if (entry->is_probe) router->servers.list[entry->server].is_probed = 0;
    /* In direct mode no answer comes here that could be taken for another's. */
    r2p2_pending_end(&router->pending, index, !was_answered && router->config.mode == R2P2_ROUTER_RELAY, router->now_ns);
}

/* The request came to nothing at its server. */
static void entry_give_up(r2p2_router *router, uint32_t index) {
    r2p2_pending *entry = &router->pending.entries[index];
    router->counters.requests_expired++;
    router->servers.list[entry->server].expired++;
    /* A replicated request may wait for a majority: that says nothing about this server, only that another is worth a try. */
    if (is_replicated(entry->policy)) r2p2_servers_lead_elsewhere(&router->servers, entry->server);
    else if (entry->holds_slot && !entry->is_client_due)
        r2p2_servers_missed(&router->servers, entry->server, entry->is_probe, router->now_ns);
    entry_end(router, index, 0);
}

/* ---- requests ---- */

static void refuse(r2p2_router *router, const r2p2_router_request *request, uint64_t *counter) {
    r2p2_tx_address to = {request->client_ip, request->client_port, router->config.local_port};
    (*counter)++;
    r2p2_tx_single(&router->tx, R2P2_TYPE_DROP, R2P2_POLICY_FIXED_ROUTE, request->client_rid, to, (const uint8_t *)"DROP", 4);
}

/* A client's packet to the server of its entry, in a transmit buffer that the caller has. */
static void packet_to_server(r2p2_router *router, r2p2_tx_packet *out, uint32_t index, const uint8_t *data, uint32_t length) {
    const r2p2_pending *entry = &router->pending.entries[index];
    const r2p2_target *target = &router->servers.list[entry->server].address;
    memcpy(out->data, data, length);
    out->length = length;
    out->target_ip = target->ip;
    out->target_port = target->port;
    if (router->config.mode == R2P2_ROUTER_RELAY) {
        r2p2_store_u16(out->data + 4, (uint16_t)index);
        out->local_port = router->config.local_port;
    } else {
        out->source_ip = entry->client_ip;
        out->local_port = entry->client_port;
    }
}

enum sending { SENT, SEND_FULL /* too many are on their way */, SEND_NO_BUFFER /* counted */ };

/* Sends a request that has no entry yet; unless SENT, nothing has changed. */
static enum sending request_send(r2p2_router *router, const r2p2_router_request *request, uint32_t server_index) {
    if (router->pending.waiting.count >= router->config.pending_max) return SEND_FULL;
    r2p2_tx_packet *out = r2p2_tx_next(&router->tx);
    if (!out) return SEND_NO_BUFFER;
    uint32_t index = r2p2_pending_add(&router->pending, request->client_ip, request->client_port, request->client_rid,
                                      router->now_ns);
    if (index == R2P2_PENDING_NONE) {
        out->length = 0; /* goes back to the port unsent */
        return SEND_FULL;
    }
    r2p2_pending *entry = &router->pending.entries[index];
    r2p2_server *server = &router->servers.list[server_index];
    entry->policy = request->policy;
    entry->server = (uint8_t)server_index;
    entry->holds_slot = 1;
    /* In direct mode the ACK passes us by. */
    entry->is_client_due = request->has_more && router->config.mode == R2P2_ROUTER_DIRECT;
    if (!is_replicated(request->policy)) {
        server->outstanding++;
        entry->is_probe = server->is_down;
        server->is_probed |= server->is_down; /* one that tried it before it came back may still be on its way */
    }
    server->sent++;
    router->counters.requests_sent++;
    packet_to_server(router, out, index, request->data, request->length);
    return SENT;
}

/* The first packet of a request that is on its way already: its client, or the network, repeats it. 1 when that is all. */
static int request_repeat(r2p2_router *router, const r2p2_router_request *request) {
    uint32_t index = r2p2_pending_find(&router->pending, request->client_ip, request->client_port, request->client_rid);
    if (index == R2P2_PENDING_NONE) return 0;
    r2p2_pending *entry = &router->pending.entries[index];
    if (is_replicated(entry->policy)) {
        entry->server = (uint8_t)router->servers.leader;
    } else if (router->servers.list[entry->server].is_down && !entry->is_probe) {
        entry_give_up(router, index); /* and it may go to another one */
        return 0;
    }
    r2p2_tx_packet *out = r2p2_tx_next(&router->tx);
    if (out) {
        router->counters.requests_repeated++;
        packet_to_server(router, out, index, request->data, request->length);
    }
    return 1;
}

/* Sends what waits, in order, as far as there are slots. */
static void queue_drain(r2p2_router *router) {
    while (router->queue.count > 0) {
        r2p2_router_request request = r2p2_router_request_of(r2p2_router_queue_first(&router->queue));
        if (!request_repeat(router, &request)) {
            int server = r2p2_servers_choose(&router->servers, router->now_ns);
            if (server == R2P2_NO_SERVER || request_send(router, &request, (uint32_t)server) != SENT) return;
        }
        r2p2_router_queue_remove_first(&router->queue, router->now_ns);
    }
}

/* No server may take it now. */
static void request_wait(r2p2_router *router, const r2p2_router_request *request) {
    r2p2_router_counters *counters = &router->counters;
    if (r2p2_router_queue_has(&router->queue, request)) counters->requests_repeated++; /* it has its place, whoever is up */
    else if (router->config.choice != R2P2_ROUTER_JBSQ || !r2p2_servers_any_is_up(&router->servers))
        refuse(router, request, &counters->drops_no_server);
    else if (r2p2_router_queue_add(&router->queue, request, router->now_ns)) counters->requests_queued++;
    else refuse(router, request, &counters->drops_queue_full);
}

/* The first packet of a request, and no entry of it yet. */
static void request_begin(r2p2_router *router, const r2p2_router_request *request) {
    int server = (int)router->servers.leader;
    if (!is_replicated(request->policy)) {
        /* Who came first goes first. */
        server = router->queue.count > 0 ? R2P2_NO_SERVER : r2p2_servers_choose(&router->servers, router->now_ns);
        if (server == R2P2_NO_SERVER) {
            request_wait(router, request);
            return;
        }
    }
    if (request_send(router, request, (uint32_t)server) == SEND_FULL) refuse(router, request, &router->counters.drops_pending_full);
}

static void request_in(r2p2_router *router, const r2p2_rx_packet *packet, const r2p2_header *header) {
    if (packet->source_port == 0) {
        router->counters.rx_bad_source++;
        return;
    }
    if (header->is_first) {
        r2p2_router_request request = {packet->data, packet->length, packet->source_ip, packet->source_port,
                                  header->rid,  header->policy, !header->is_last};
        router->counters.requests++;
        router->counters.requests_replicated += is_replicated(header->policy);
        if (!request_repeat(router, &request)) request_begin(router, &request);
        return;
    }
    uint32_t index = r2p2_pending_find(&router->pending, packet->source_ip, packet->source_port, header->rid);
    if (index == R2P2_PENDING_NONE) {
        router->counters.rx_unmatched++;
        return;
    }
    r2p2_tx_packet *out = r2p2_tx_next(&router->tx);
    if (!out) return;
    router->counters.packets_passed++;
    packet_to_server(router, out, index, packet->data, packet->length);
}

/* ---- answers ---- */

static void packet_to_client(r2p2_router *router, const r2p2_pending *entry, const r2p2_rx_packet *packet) {
    r2p2_tx_packet *out = r2p2_tx_next(&router->tx);
    if (!out) return;
    memcpy(out->data, packet->data, packet->length);
    r2p2_store_u16(out->data + 4, entry->client_rid);
    out->length = packet->length;
    out->target_ip = entry->client_ip;
    out->target_port = entry->client_port;
    out->local_port = router->config.local_port;
    router->counters.packets_passed++;
}

/* One packet of a longer answer: -1 when it contradicts the others, 1 when it is the last one missing. */
static int answer_note(r2p2_pending *entry, const r2p2_header *header) {
    uint32_t packet = header->is_first ? 0 : header->p_order;
    uint32_t size = header->is_first ? header->p_order : header->is_last ? packet + 1u : entry->answer_size;
    if (entry->answer_size != 0 && (size != entry->answer_size || packet >= size)) return -1;
    entry->answer_size = (uint16_t)size;
    uint64_t bit = UINT64_C(1) << (packet % 64);
    if (!(entry->answer_passed[packet / 64] & bit)) {
        entry->answer_passed[packet / 64] |= bit;
        entry->answer_count++;
    }
    return entry->answer_count == entry->answer_size;
}

/* RESPONSE, ACK and DROP of a server; relay mode. */
static void answer_in(r2p2_router *router, const r2p2_rx_packet *packet, const r2p2_header *header) {
    r2p2_pending *entry = &router->pending.entries[header->rid];
    int server = r2p2_servers_find(&router->servers, packet->source_ip, packet->source_port, entry->server);
    if (server == R2P2_NO_SERVER) {
        router->counters.rx_stranger++;
        return;
    }
    if (entry->state != R2P2_PENDING_WAITING || (!is_replicated(entry->policy) && server != entry->server)) {
        router->counters.rx_unmatched++;
        return;
    }
    int is_whole = header->is_first && header->is_last;
    if (!is_whole) {
        int noted = answer_note(entry, header);
        if (noted < 0) {
            router->counters.rx_bad_order++;
            return;
        }
        is_whole = noted;
    }
    r2p2_servers_answers(&router->servers, (uint32_t)server);
    packet_to_client(router, entry, packet);
    if (header->type == R2P2_TYPE_DROP) {
        router->counters.requests_dropped++;
        router->servers.list[server].dropped++;
        /* Of a member that knows no leader, maybe for long: another may know one. */
        if (is_replicated(entry->policy)) r2p2_servers_lead_elsewhere(&router->servers, (uint32_t)server);
        entry_end(router, header->rid, 1);
        return;
    }
    /* Whoever answers a write leads; a read anyone may answer. */
    if (header->type == R2P2_TYPE_RESPONSE && entry->policy == R2P2_POLICY_REPLICATED)
        r2p2_servers_lead(&router->servers, (uint32_t)server);
    if (header->type == R2P2_TYPE_ACK || !is_whole) {
        entry->is_client_due = 1;
        r2p2_pending_touch(&router->pending, header->rid, router->now_ns);
        return;
    }
    router->counters.requests_answered++;
    router->servers.list[server].answered++;
    entry_end(router, header->rid, 1);
}

/* ---- FEEDBACK ---- */

typedef struct router_feedback {
    uint32_t client_ip;
    uint16_t client_port;
    uint16_t rid;
} router_feedback;

/* Bytes 0, 2 and 8..15 only: deployed senders leave the others as they were. */
static int feedback_parse(const uint8_t *data, uint64_t length, router_feedback *feedback) {
    if (length < FEEDBACK_BYTES || data[0] != R2P2_MAGIC || data[2] >> 4 != R2P2_TYPE_FEEDBACK) return -1;
    feedback->rid = r2p2_load_u16(data + 8);
    feedback->client_port = r2p2_load_u16(data + 10);
    feedback->client_ip = (uint32_t)r2p2_load_u16(data + 12) << 16 | r2p2_load_u16(data + 14);
    return 0;
}

int32_t r2p2_feedback_check(const uint8_t *data, uint64_t length, uint16_t fields[4]) {
    router_feedback feedback;
    if (feedback_parse(data, length, &feedback)) return R2P2_ERROR_MALFORMED;
    fields[0] = feedback.rid;
    fields[1] = feedback.client_port;
    fields[2] = (uint16_t)(feedback.client_ip >> 16);
    fields[3] = (uint16_t)feedback.client_ip;
    return R2P2_OK;
}

/* The entry it is about. In relay mode the client the server saw is the router, and the rid an entry's index. */
static uint32_t feedback_entry(const r2p2_router *router, const router_feedback *feedback) {
    if (router->config.mode == R2P2_ROUTER_DIRECT)
        return r2p2_pending_find(&router->pending, feedback->client_ip, feedback->client_port, feedback->rid);
    int is_ours = feedback->client_port == router->config.local_port &&
                  router->pending.entries[feedback->rid].state == R2P2_PENDING_WAITING;
    return is_ours ? feedback->rid : R2P2_PENDING_NONE;
}

static void feedback_in(r2p2_router *router, const r2p2_rx_packet *packet) {
    router_feedback feedback;
    if (feedback_parse(packet->data, packet->length, &feedback)) {
        router->counters.feedback_malformed++;
        return;
    }
    uint32_t index = feedback_entry(router, &feedback);
    r2p2_pending *entry = index == R2P2_PENDING_NONE ? NULL : &router->pending.entries[index];
    int server = r2p2_servers_find(&router->servers, packet->source_ip, packet->source_port, entry ? entry->server : 0);
    if (server == R2P2_NO_SERVER) {
        router->counters.feedback_stranger++;
        return;
    }
    if (!entry || !entry->holds_slot || (!is_replicated(entry->policy) && server != entry->server)) {
        router->counters.feedback_unmatched++;
        return;
    }
    router->counters.feedback++;
    r2p2_servers_answers(&router->servers, (uint32_t)server);
    if (entry->policy == R2P2_POLICY_REPLICATED) r2p2_servers_lead(&router->servers, (uint32_t)server);
    slot_give_back(router, entry);
    if (router->config.mode == R2P2_ROUTER_RELAY) return; /* its answer is still to come through here */
    router->counters.requests_answered++;
    router->servers.list[server].answered++;
    entry_end(router, index, 1);
}

/* ---- packets ---- */

static void header_refused(r2p2_router_counters *counters, enum r2p2_header_error error) {
    switch (error) {
    case R2P2_HEADER_SHORT: counters->rx_bad_short++; break;
    case R2P2_HEADER_MAGIC: counters->rx_bad_magic++; break;
    case R2P2_HEADER_SIZE: counters->rx_bad_header_size++; break;
    case R2P2_HEADER_TYPE: counters->rx_bad_type++; break;
    case R2P2_HEADER_POLICY: counters->rx_bad_policy++; break;
    case R2P2_HEADER_FLAGS: counters->rx_bad_flags++; break;
    case R2P2_HEADER_ORDER: counters->rx_bad_order++; break;
    case R2P2_HEADER_OK: break;
    }
}

/* Where FEEDBACK goes; when that is the router's only UDP port, the type tells. */
static inline int is_for_control(const r2p2_router *router, const r2p2_rx_packet *packet) {
    if (packet->local_port != router->config.control_port) return 0;
    return router->config.control_port != router->config.local_port ||
           (packet->length > 2 && packet->data[2] >> 4 == R2P2_TYPE_FEEDBACK);
}

static void packet_in(r2p2_router *router, const r2p2_rx_packet *packet) {
    r2p2_header header;
    if (is_for_control(router, packet)) {
        feedback_in(router, packet);
        return;
    }
    if (packet->local_port != router->config.local_port) {
        router->counters.rx_wrong_port++;
        return;
    }
    enum r2p2_header_error error = r2p2_header_parse(packet->data, packet->length, &header);
    if (error) {
        header_refused(&router->counters, error);
        return;
    }
    if (packet->length > R2P2_DATAGRAM_BYTES_MAX) {
        router->counters.rx_bad_length++;
        return;
    }
    int is_control_type = header.type == R2P2_TYPE_ACK || header.type == R2P2_TYPE_DROP;
    if (is_control_type && !(header.is_first && header.is_last)) {
        router->counters.rx_bad_flags++;
    } else if (header.type == R2P2_TYPE_REQUEST) {
        request_in(router, packet, &header);
    } else if (router->config.mode == R2P2_ROUTER_RELAY && (header.type == R2P2_TYPE_RESPONSE || is_control_type)) {
        answer_in(router, packet, &header);
    } else {
        router->counters.rx_unexpected++;
    }
}

/* ---- time ---- */

static void expire(r2p2_router *router) {
    r2p2_pending_table *pending = &router->pending;
    uint64_t now_ns = router->now_ns;
    while (pending->waiting.count > 0 &&
           now_ns - pending->entries[pending->waiting.oldest].since_ns >= router->config.timeout_ns)
        entry_give_up(router, pending->waiting.oldest);
    if (now_ns >= QUARANTINE_NS) r2p2_pending_release(pending, now_ns - QUARANTINE_NS);
    while (router->queue.count > 0) {
        const r2p2_router_waiting *waiting = r2p2_router_queue_first(&router->queue);
        if (now_ns - waiting->since_ns < router->config.queue_timeout_ns) break;
        r2p2_router_request request = r2p2_router_request_of(waiting);
        refuse(router, &request, &router->counters.drops_queue_timeout);
        r2p2_router_queue_remove_first(&router->queue, now_ns);
    }
}

static uint64_t earlier(uint64_t a, uint64_t b) { return a < b ? a : b; }

static uint64_t next_deadline(const r2p2_router *router) {
    const r2p2_pending_table *pending = &router->pending;
    uint64_t deadline_ns = UINT64_MAX;
    if (pending->waiting.count > 0)
        deadline_ns = pending->entries[pending->waiting.oldest].since_ns + router->config.timeout_ns;
    if (router->queue.count == 0) return deadline_ns;
    deadline_ns = earlier(deadline_ns, r2p2_router_queue_first(&router->queue)->since_ns + router->config.queue_timeout_ns);
    /* One that may be tried already has no slot, or the queue would be shorter. */
    return earlier(deadline_ns, r2p2_servers_retry_ns(&router->servers, router->now_ns));
}

void r2p2_router_poll(r2p2_router *router, r2p2_router_result *result) {
    r2p2_rx_packet packets[R2P2_BURST_MAX];
    uint64_t received = 0;
    router->now_ns = router->port->now_ns(router->port->self);
    while (received < router->config.packets_per_poll_max) {
        uint64_t room = router->config.packets_per_poll_max - received;
        uint32_t n = router->port->rx_burst(router->port->self, packets,
                                            room < R2P2_BURST_MAX ? (uint32_t)room : R2P2_BURST_MAX);
        if (n == 0) break;
        for (uint32_t i = 0; i < n; i++) packet_in(router, &packets[i]);
        router->port->rx_release(router->port->self, packets, n);
        queue_drain(router);
        received += n;
    }
    expire(router);
    queue_drain(router);
    r2p2_tx_flush(&router->tx);
    result->now_ns = router->now_ns;
    result->packets_count = received;
    result->pending_count = router->pending.waiting.count;
    result->queued_count = router->queue.count;
    result->deadline_ns = next_deadline(router);
}
