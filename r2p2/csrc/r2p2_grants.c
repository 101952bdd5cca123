/* Grants. See r2p2_grants.h. */
#include "r2p2_grants.h"

static void queue_append(r2p2_half_queue *queue, r2p2_half *half) {
    half->queue_next = NULL;
    half->queue_previous = queue->last;
    if (queue->last) queue->last->queue_next = half;
    else queue->first = half;
    queue->last = half;
}

static void queue_remove(r2p2_half_queue *queue, r2p2_half *half) {
    if (half->queue_previous) half->queue_previous->queue_next = half->queue_next;
    else queue->first = half->queue_next;
    if (half->queue_next) half->queue_next->queue_previous = half->queue_previous;
    else queue->last = half->queue_previous;
}

/* ---- turns: a ring of the sources of which some half waits ---- */

static void turn_enter(r2p2_reassembly *table, r2p2_source *source) {
    r2p2_source *next = table->turn;
    if (!next) {
        table->turn = source->turn_next = source->turn_previous = source;
        return;
    }
    source->turn_next = next; /* the last one to get its turn */
    source->turn_previous = next->turn_previous;
    next->turn_previous->turn_next = source;
    next->turn_previous = source;
}

static void turn_leave(r2p2_reassembly *table, r2p2_source *source) {
    if (source->turn_next == source) {
        table->turn = NULL;
        return;
    }
    source->turn_previous->turn_next = source->turn_next;
    source->turn_next->turn_previous = source->turn_previous;
    if (table->turn == source) table->turn = source->turn_next;
}

/* ---- grants ---- */

static void count(r2p2_reassembly *table, r2p2_half *half, uint32_t packets) {
    half->granted_count += (uint16_t)packets;
    half->source->granted_count += packets;
    table->granted_count += packets;
}

static void uncount(r2p2_reassembly *table, r2p2_half *half, uint32_t packets) {
    half->granted_count -= (uint16_t)packets;
    half->source->granted_count -= packets;
    table->granted_count -= packets;
}

void r2p2_grants_ask(r2p2_reassembly *table, r2p2_half *half) {
    if (half->grant != R2P2_GRANT_NONE) return;
    half->grant = R2P2_GRANT_WAITS;
    if (!half->source->waiting.first) turn_enter(table, half->source);
    queue_append(&half->source->waiting, half);
    table->waiting_count++;
}

void r2p2_grants_arrived(r2p2_reassembly *table, r2p2_half *half) {
    table->lately.came += half->was_granted; /* also what is late */
    if (half->granted_count) uncount(table, half, 1);
}

void r2p2_grants_end(r2p2_reassembly *table, r2p2_half *half) {
    if (half->grant == R2P2_GRANT_WAITS) {
        queue_remove(&half->source->waiting, half);
        table->waiting_count--;
        if (!half->source->waiting.first) turn_leave(table, half->source);
    } else if (half->grant == R2P2_GRANT_GIVEN) {
        uncount(table, half, half->granted_count);
        queue_remove(&table->granted, half);
    }
    half->grant = R2P2_GRANT_NONE;
}

/* ---- forged announcements ---- */

static void window_turn(r2p2_reassembly *table, uint64_t now_ns) {
    uint64_t passed = now_ns - table->window_ns;
    if (passed <= R2P2_GRANT_WINDOW_NS) return;
    table->before = passed <= 2 * R2P2_GRANT_WINDOW_NS ? table->lately : (struct r2p2_granted_packets){0, 0};
    table->lately = (struct r2p2_granted_packets){0, 0};
    table->window_ns = now_ns;
}

/*
 * Much was granted and did not come, and what did come could not have filled the ring, so that it is not the ring that lost it: it was
 * announced by somebody who does not send it.
 */
static int are_forged(const r2p2_reassembly *table) {
    uint32_t room = 2 * table->granted_max;
    return table->lately.missing + table->before.missing > room && table->lately.came + table->before.came < room;
}

static int fits(uint32_t granted, uint32_t packets, uint32_t max) { return granted == 0 || granted + packets <= max; }

static r2p2_half *grant(r2p2_reassembly *table, r2p2_half *half, uint32_t packets, uint64_t now_ns) {
    table->turn = half->source->turn_next;
    r2p2_grants_end(table, half);
    half->grant = R2P2_GRANT_GIVEN;
    half->granted_ns = now_ns;
    table->waited_count += half->created_ns != now_ns;
    if (!half->was_granted) r2p2_reassembly_renew(table, half, now_ns);
    half->was_granted = 1;
    queue_append(&table->granted, half);
    count(table, half, packets);
    return half;
}

r2p2_half *r2p2_grants_next(r2p2_reassembly *table, uint64_t now_ns) {
    window_turn(table, now_ns);
    if (!table->turn) return NULL;
    for (r2p2_half *half; (half = table->granted.first) && now_ns - half->granted_ns > R2P2_GRANT_OVERDUE_NS;) {
        table->lately.missing += half->granted_count;
        r2p2_grants_end(table, half);
    }
    int is_bound = table->waiting_count <= table->count_max / 2 && !are_forged(table);
    r2p2_source *first = table->turn, *source = first;
    do {
        r2p2_half *half = source->waiting.first;
        uint32_t packets = half->expected_count - half->received_count;
        if (!is_bound) return grant(table, half, packets, now_ns);
        if (!fits(table->granted_count, packets, table->granted_max)) return NULL; /* and nobody smaller overtakes it */
        if (fits(source->granted_count, packets, table->granted_max / 2)) return grant(table, half, packets, now_ns);
        source = source->turn_next;
    } while (source != first);
    return NULL;
}
