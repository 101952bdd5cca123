/* See resolve.h. */
#include "resolve.h"

#include "stack.h"

static void drop_packets(dpdk_stack *stack, resolution *entry) {
    for (uint32_t i = 0; i < entry->packets_count; i++)
        rte_pktmbuf_free(entry->packets[i].mbuf);
    stack->counters.tx_drop_no_route += entry->packets_count;
    entry->packets_count = 0;
}

static void ask(dpdk_stack *stack, resolution *entry) {
    static const uint8_t nobody[NET_MAC_BYTES] = {0};
    stack_device *device = &stack->devices[entry->device];
    struct rte_mbuf *mbuf = rte_pktmbuf_alloc(stack->pool);
    entry->attempts_count++;
    entry->next_ns = stack->now_ns + RESOLVE_RETRY_NS;
    if (mbuf == NULL)
        return; /* asked again in a moment */
    net_write_arp(rte_pktmbuf_mtod(mbuf, uint8_t *), 1, device->mac, stack->port.local_ip, nobody, entry->ip);
    mbuf->data_len = NET_ARP_FRAME_BYTES;
    mbuf->pkt_len = NET_ARP_FRAME_BYTES;
    stack_send_frame(device, mbuf);
}

static resolution *find(struct resolver *table, uint32_t ip) {
    for (uint32_t i = 0; i < RESOLVE_MAX; i++)
        if (table->entries[i].ip == ip)
            return &table->entries[i];
    return NULL;
}

static void forget(dpdk_stack *stack, resolution *entry) {
    drop_packets(stack, entry);
    *entry = (resolution){.ip = 0};
    stack->resolver.count--;
}

/* The place of a stranger, emptied: a dead one's, or that of the one asked for the longest time. NULL: there are none. */
static resolution *take_place(dpdk_stack *stack) {
    resolution *taken = NULL;
    for (uint32_t i = 0; i < RESOLVE_MAX; i++) {
        resolution *entry = &stack->resolver.entries[i];
        if (neighbour_is_kept(&stack->neighbours, entry->ip))
            continue;
        if (taken == NULL || entry->is_dead > taken->is_dead ||
            (entry->is_dead == taken->is_dead && entry->attempts_count > taken->attempts_count))
            taken = entry;
    }
    if (taken != NULL)
        forget(stack, taken);
    return taken;
}

void resolve_wait(dpdk_stack *stack, uint32_t ip, const waiting_packet *packet) {
    int device = net_is_host_ip(ip) && ip != stack->port.local_ip ? route_find(&stack->neighbours, ip) : -1;
    resolution *entry = device < 0 ? NULL : find(&stack->resolver, ip);
    if (device >= 0 && entry == NULL) {
        entry = find(&stack->resolver, 0);
        if (entry == NULL && neighbour_is_kept(&stack->neighbours, ip))
            entry = take_place(stack);
        if (entry != NULL) {
            stack->resolver.count++;
            stack->now_ns = stack_now_ns(stack);
            *entry = (resolution){.ip = ip, .device = (uint8_t)device};
            ask(stack, entry);
        }
    }
    if (entry == NULL || entry->is_dead) {
        stack->counters.tx_drop_no_route++;
        rte_pktmbuf_free(packet->mbuf);
        return;
    }
    if (entry->packets_count == RESOLVE_PACKETS) {
        stack->counters.tx_drop_no_route++;
        rte_pktmbuf_free(entry->packets[0].mbuf);
        for (uint32_t i = 1; i < RESOLVE_PACKETS; i++)
            entry->packets[i - 1] = entry->packets[i];
        entry->packets_count--;
    }
    entry->packets[entry->packets_count++] = *packet;
}

void resolve_done(dpdk_stack *stack, uint32_t ip) {
    resolution *entry = stack->resolver.count == 0 ? NULL : find(&stack->resolver, ip);
    if (entry == NULL)
        return;
    resolution done = *entry;
    entry->packets_count = 0;
    forget(stack, entry);
    stack_send_waiting(stack, ip, done.packets, done.packets_count);
}

void resolve_control(dpdk_stack *stack) {
    if (stack->resolver.count == 0)
        return;
    for (uint32_t i = 0; i < RESOLVE_MAX; i++) {
        resolution *entry = &stack->resolver.entries[i];
        if (entry->ip == 0 || stack->now_ns < entry->next_ns)
            continue;
        if (entry->is_dead) {
            forget(stack, entry);
        } else if (entry->attempts_count < RESOLVE_ATTEMPTS) {
            ask(stack, entry);
        } else {
            drop_packets(stack, entry);
            entry->is_dead = 1;
            entry->next_ns = stack->now_ns + RESOLVE_DEAD_NS;
        }
    }
}

void resolve_free(dpdk_stack *stack) {
    for (uint32_t i = 0; i < RESOLVE_MAX; i++)
        if (stack->resolver.entries[i].ip != 0)
            forget(stack, &stack->resolver.entries[i]);
}
