/* The client's pair table. See r2p2_client.h. */
#include "r2p2_client.h"

#include <stdlib.h>

r2p2_client *r2p2_client_new(uint16_t local_port, uint32_t calls_max, uint64_t now_ns) {
    r2p2_client *client = calloc(1, sizeof *client); /* 4 MiB of address space; touched as rids are used */
    if (!client) return NULL;
    client->local_port = local_port;
    client->calls_max = calls_max < R2P2_RIDS_COUNT - 1 ? calls_max : R2P2_RIDS_COUNT - 1;
    client->next_rid = 1;
    client->wheel_ns = now_ns - now_ns % R2P2_WHEEL_TICK_NS;
    for (uint32_t i = 0; i < R2P2_WHEEL_SLOTS; i++) client->wheel[i] = R2P2_NO_RID;
    return client;
}

void r2p2_client_free(r2p2_client *client) {
    if (!client) return;
    for (uint32_t i = 0; i < R2P2_WHEEL_SLOTS; i++)
        for (uint32_t rid = client->wheel[i]; rid != R2P2_NO_RID; rid = client->pairs[rid].wheel_next)
            free(client->pairs[rid].payload);
    free(client);
}

static uint32_t *wheel_slot(r2p2_client *client, uint64_t due_ns) {
    return &client->wheel[(due_ns / R2P2_WHEEL_TICK_NS) % R2P2_WHEEL_SLOTS];
}

static void wheel_insert(r2p2_client *client, uint32_t rid, uint64_t due_ns) {
    r2p2_pair *pair = &client->pairs[rid];
    /* What is already behind the wheel goes to the slot that is done next. */
    pair->due_ns = due_ns > client->wheel_ns ? due_ns : client->wheel_ns;
    uint32_t *slot = wheel_slot(client, pair->due_ns);
    pair->wheel_previous = R2P2_NO_RID;
    pair->wheel_next = *slot;
    if (*slot != R2P2_NO_RID) client->pairs[*slot].wheel_previous = rid;
    *slot = rid;
}

static void wheel_remove(r2p2_client *client, uint32_t rid) {
    r2p2_pair *pair = &client->pairs[rid];
    if (pair->wheel_previous != R2P2_NO_RID) client->pairs[pair->wheel_previous].wheel_next = pair->wheel_next;
    else *wheel_slot(client, pair->due_ns) = pair->wheel_next;
    if (pair->wheel_next != R2P2_NO_RID) client->pairs[pair->wheel_next].wheel_previous = pair->wheel_previous;
}

static uint64_t next_due(const r2p2_pair *pair, uint64_t now_ns) {
    if (pair->retry_ns == 0 || pair->deadline_ns - now_ns <= pair->retry_ns) return pair->deadline_ns;
    return now_ns + pair->retry_ns;
}

int32_t r2p2_client_start(r2p2_client *client, r2p2_tx *tx, const r2p2_call *call, uint64_t now_ns) {
    uint32_t packets = r2p2_tx_packets_count(call->bytes, 1);
    if (packets == 0) return R2P2_ERROR_TOO_LARGE;
    if (call->policy > R2P2_POLICY_REPLICATED_NO_SE) return R2P2_ERROR_ARGUMENT;
    if (client->waiting_count >= client->calls_max ||
        client->waiting_count + client->quarantined_count >= R2P2_RIDS_COUNT)
        return R2P2_ERROR_FULL;
    uint8_t *copy = NULL;
    if (packets > 1 || (call->retry_ns && call->bytes)) {
        copy = malloc(call->bytes);
        if (!copy) return R2P2_ERROR_NO_MEMORY;
        memcpy(copy, call->payload, call->bytes);
    }
    uint32_t rid = client->next_rid;
    while (client->pairs[rid].state != R2P2_PAIR_FREE) rid = (rid + 1) % R2P2_RIDS_COUNT;
    client->next_rid = (rid + 1) % R2P2_RIDS_COUNT;
    r2p2_pair *pair = &client->pairs[rid];
    pair->tag = call->tag;
    pair->start_ns = now_ns;
    pair->deadline_ns = now_ns + call->timeout_ns;
    pair->retry_ns = call->retry_ns;
    pair->target = call->to;
    pair->payload = copy;
    pair->payload_bytes = (uint32_t)call->bytes;
    pair->policy = call->policy;
    pair->state = R2P2_PAIR_WAITING;
    client->waiting_count++;
    wheel_insert(client, rid, next_due(pair, now_ns));
    tx->counters->client_calls++;
    if (packets == 1)
        r2p2_tx_single(tx, R2P2_TYPE_REQUEST, call->policy, (uint16_t)rid, call->to, call->payload, (uint32_t)call->bytes);
    else
        r2p2_tx_request_packets(tx, call->policy, (uint16_t)rid, call->to, call->payload, call->bytes, 0, 0);
    return (int32_t)rid;
}

/* Sends a request again: one packet, or REQ0, whose ACK brings the rest. */
static void repeat(r2p2_tx *tx, const r2p2_pair *pair, uint16_t rid) {
    tx->counters->client_retries++;
    if (r2p2_tx_packets_count(pair->payload_bytes, 1) == 1)
        r2p2_tx_single(tx, R2P2_TYPE_REQUEST, pair->policy, rid, pair->target, pair->payload, pair->payload_bytes);
    else
        r2p2_tx_request_packets(tx, pair->policy, rid, pair->target, pair->payload, pair->payload_bytes, 0, 0);
}

void r2p2_client_acked(r2p2_client *client, r2p2_tx *tx, uint16_t rid, r2p2_tx_address to) {
    r2p2_pair *pair = &client->pairs[rid];
    /* An ACK of a request of one packet, or a second one of a request that was sent whole. */
    if (!pair->payload || r2p2_tx_packets_count(pair->payload_bytes, 1) == 1) return;
    r2p2_tx_request_packets(tx, pair->policy, rid, to, pair->payload, pair->payload_bytes, 1, R2P2_PACKETS_MAX);
    if (pair->retry_ns) return; /* it may be needed again */
    free(pair->payload);
    pair->payload = NULL;
}

void r2p2_client_end(r2p2_client *client, uint16_t rid, uint32_t status, uint64_t now_ns, const uint8_t *payload,
                     uint32_t bytes, uint32_t source_ip, uint16_t source_port, r2p2_completion_sink sink, void *context) {
    r2p2_pair *pair = &client->pairs[rid];
    r2p2_completion completion = {
        .tag = pair->tag,
        .latency_ns = now_ns - pair->start_ns,
        .length = bytes,
        .status = status,
        .source_ip = source_ip,
        .source_port = source_port,
        .rid = rid,
    };
    wheel_remove(client, rid);
    free(pair->payload);
    pair->payload = NULL;
    client->waiting_count--;
    if (status == R2P2_DONE_TIMEOUT || status == R2P2_DONE_CANCELLED) {
        pair->state = R2P2_PAIR_QUARANTINED;
        client->quarantined_count++;
        wheel_insert(client, rid, now_ns + R2P2_QUARANTINE_NS);
    } else {
        pair->state = R2P2_PAIR_FREE;
    }
    sink(context, &completion, payload);
}

uint32_t r2p2_client_expire(r2p2_client *client, r2p2_tx *tx, uint64_t now_ns, r2p2_completion_sink sink, void *context) {
    uint32_t timeouts = 0;
    if (now_ns < client->wheel_ns + R2P2_WHEEL_TICK_NS) return 0;
    uint64_t ticks = (now_ns - client->wheel_ns) / R2P2_WHEEL_TICK_NS;
    uint64_t first = client->wheel_ns / R2P2_WHEEL_TICK_NS, turns = ticks < R2P2_WHEEL_SLOTS ? ticks : R2P2_WHEEL_SLOTS;
    /* Deadlines set from here on, by calls made in the sink too, lie at or after the new position. */
    client->wheel_ns += ticks * R2P2_WHEEL_TICK_NS;
    for (uint64_t i = 0; i < turns; i++) {
        uint32_t rid = client->wheel[(first + i) % R2P2_WHEEL_SLOTS];
        while (rid != R2P2_NO_RID) {
            r2p2_pair *pair = &client->pairs[rid];
            uint32_t next = pair->wheel_next;
            if (pair->due_ns < client->wheel_ns) {
                if (pair->state == R2P2_PAIR_WAITING && pair->deadline_ns > now_ns) {
                    wheel_remove(client, rid);
                    repeat(tx, pair, (uint16_t)rid);
                    pair->retry_ns *= 2;
                    wheel_insert(client, rid, next_due(pair, now_ns));
                } else if (pair->state == R2P2_PAIR_WAITING) {
                    timeouts++;
                    r2p2_client_end(client, (uint16_t)rid, R2P2_DONE_TIMEOUT, now_ns, NULL, 0, 0, 0, sink, context);
                } else {
                    wheel_remove(client, rid);
                    pair->state = R2P2_PAIR_FREE;
                    client->quarantined_count--;
                }
            }
            rid = next;
        }
    }
    return timeouts;
}
