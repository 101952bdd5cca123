/*
 * Everything of a stack that is not a datagram: ARP, ICMP echo, links that come and go.
 *
 * stack_control runs from rx_burst, outside any driver burst, every few milliseconds: it lets DPDK's interrupt thread do a round
 * when a link changes (gate.h), looks at the links, and restarts memif clients whose server went away, since that driver never calls again by itself.
 */
#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_log.h>
#include <rte_mbuf.h>

#include "device.h"
#include "gate.h"
#include "stack.h"

#define MILLISECOND_NS 1000000u
#define LINK_CHECK_NS (100u * MILLISECOND_NS) /* of devices other than memif: it may be a system call */
#define NEIGHBOURS_CHECK_NS (100u * MILLISECOND_NS)
#define RECONNECT_NS (20u * MILLISECOND_NS)   /* between two attempts to call a memif server */
#define HANDSHAKE_NS (500u * MILLISECOND_NS)  /* an attempt that connected gets this long until the link is up */

void stack_learn(dpdk_stack *stack, uint32_t ip, const uint8_t *mac, uint32_t device) {
    neighbour_learn(&stack->neighbours, ip, mac, stack->devices[device].mac, (uint8_t)device, stack->now_ns);
    resolve_done(stack, ip);
}

void stack_handle_arp(dpdk_stack *stack, uint32_t index, struct rte_mbuf *mbuf) {
    stack_device *device = &stack->devices[index];
    uint8_t *frame = rte_pktmbuf_mtod(mbuf, uint8_t *);
    net_arp arp;
    enum net_arp_verdict verdict = net_parse_arp(frame, rte_pktmbuf_data_len(mbuf), stack->port.local_ip, &arp);
    if (verdict == NET_ARP_BAD) {
        stack->counters.rx_drop_bad_arp++;
        rte_pktmbuf_free(mbuf);
        return;
    }
    if (arp.sender_ip != 0)
        stack_learn(stack, arp.sender_ip, arp.sender_mac, index);
    if (verdict == NET_ARP_REPLY) {
        stack->counters.arp_replies++;
        rte_pktmbuf_free(mbuf);
        return;
    }
    stack->counters.arp_requests++;
    net_write_arp(frame, 0, device->mac, stack->port.local_ip, arp.sender_mac, arp.sender_ip);
    mbuf->ol_flags = 0;
    mbuf->data_len = NET_ARP_FRAME_BYTES;
    mbuf->pkt_len = NET_ARP_FRAME_BYTES;
    stack_send_frame(device, mbuf);
}

void stack_handle_echo(dpdk_stack *stack, uint32_t index, struct rte_mbuf *mbuf, const net_view *view) {
    stack_device *device = &stack->devices[index];
    uint16_t bytes = (uint16_t)net_answer_echo(rte_pktmbuf_mtod(mbuf, uint8_t *), device->mac, view);
    stack->counters.icmp_echoes++;
    mbuf->ol_flags = 0;
    mbuf->data_len = bytes;
    mbuf->pkt_len = bytes;
    stack_send_frame(device, mbuf);
}

static void set_link(stack_device *device, int is_up) {
    if (device->is_link_up != is_up)
        device->link_changes_count++;
    device->is_link_up = (uint8_t)is_up;
    device->is_usable = device->is_started && (is_up || !device->is_memif);
}

/* Calls the server again. A refused call is no error here: it is not there yet. */
static void reconnect(stack_device *device, uint64_t now_ns) {
    uint64_t waited_ns = now_ns - device->started_ns;
    if (waited_ns < (device->is_started ? HANDSHAKE_NS : RECONNECT_NS))
        return;
    device->is_usable = 0;
    device->started_ns = now_ns;
    if (device->is_started && rte_eth_dev_stop(device->port_id) != 0)
        return;
    uint32_t level = rte_log_get_global_level();
    rte_log_set_global_level(RTE_LOG_EMERG); /* the driver calls each refusal an error */
    device->is_started = rte_eth_dev_start(device->port_id) == 0;
    rte_log_set_global_level(level);
    gate_watch();
}

int device_begin(stack_device *device) {
    if (!device->is_reconnecting) { /* a client's first call is like every later one */
        int status = device_start(device->port_id);
        if (status < 0)
            return status;
        device->is_started = 1;
        device->is_link_up = (uint8_t)device_is_link_up(device->port_id);
        device->is_usable = !device->is_memif || device->is_link_up;
    }
    if (device->is_memif)
        gate_watch();
    return 0;
}

void device_control(stack_device *device, uint64_t now_ns, int is_slow_check_due) {
    if (device->is_memif ? device->is_started : is_slow_check_due)
        set_link(device, device_is_link_up(device->port_id));
    if (device->is_reconnecting && !device->is_link_up)
        reconnect(device, now_ns);
}

void stack_control(dpdk_stack *stack) {
    uint64_t now_ns = stack_now_ns(stack);
    int is_slow_check_due = now_ns - stack->link_checked_ns >= LINK_CHECK_NS;
    stack->now_ns = now_ns;
    if (is_slow_check_due)
        stack->link_checked_ns = now_ns;
    if (stack->is_gated)
        stack->counters.links_abandoned += gate_poll();
    for (uint32_t i = 0; i < stack->devices_count; i++)
        device_control(&stack->devices[i], now_ns, is_slow_check_due);
    resolve_control(stack);
    if (now_ns - stack->neighbours_checked_ns >= NEIGHBOURS_CHECK_NS) {
        stack->neighbours_checked_ns = now_ns;
        neighbour_expire(&stack->neighbours, now_ns, stack->config.neighbour_ttl_ns);
    }
    /* A replay calls whenever it moves the clock, and nobody else does. */
    stack->control_tsc = stack->replayed_rx_burst == NULL ? rte_rdtsc() + stack->control_period_tsc : UINT64_MAX;
}
