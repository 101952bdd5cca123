/*
 * A device without a stack: Ethernet frames as bursts, for tools and for programs with a protocol of their own.
 *
 * A burst is handed on from call to call, so that Python may move packets without touching one: it costs a call a burst.
 * Ownership: who has the burst has its mbufs; a call that sends or frees leaves the burst empty.
 * Leaves to others: links that come and go (control.c), the protocol (port.c, or the caller).
 */
#include <errno.h>
#include <rte_cycles.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "gate.h"
#include "log.h"
#include "stack.h"

#define POOL_CACHE_COUNT 256u
#define CONTROL_PERIODS_PER_SECOND 250u

_Static_assert(DPDK_BURST_MAX == STACK_BURST, "one size of bursts");

struct dpdk_queue {
    stack_device device;
    struct rte_mempool *pool;
    uint64_t control_tsc, control_period_tsc;
};

static void control(dpdk_queue *queue) {
    if (queue->device.is_memif)
        gate_poll();
    device_control(&queue->device, stack_clock_ns(), 1);
    queue->control_tsc = rte_rdtsc() + queue->control_period_tsc;
}

dpdk_queue *dpdk_queue_open(const char *pool_name, uint16_t port_id, const dpdk_queue_config *config) {
    dpdk_queue *queue = calloc(1, sizeof *queue);
    struct rte_ether_addr mac;
    uint32_t cache = config->mbufs_count < 2 * POOL_CACHE_COUNT ? 0 : POOL_CACHE_COUNT;
    if (queue == NULL) {
        dpdk_fail(ENOMEM, "no memory for a queue");
        return NULL;
    }
    queue->pool =
        rte_pktmbuf_pool_create(pool_name, config->mbufs_count, cache, 0, config->mbuf_data_bytes, SOCKET_ID_ANY);
    if (queue->pool == NULL) {
        dpdk_fail(rte_errno, "rte_pktmbuf_pool_create(%s, %u mbufs of %u bytes): %s", pool_name, config->mbufs_count,
                  config->mbuf_data_bytes, rte_strerror(rte_errno));
        free(queue);
        return NULL;
    }
    device_setup setup = {
        .pool = queue->pool,
        .rx_ring_count = config->rx_ring_count,
        .tx_ring_count = config->tx_ring_count,
    };
    queue->device.port_id = port_id;
    queue->device.is_memif = config->is_memif != 0;
    queue->device.is_reconnecting = config->is_reconnecting != 0;
    queue->control_period_tsc = rte_get_tsc_hz() / CONTROL_PERIODS_PER_SECOND;
    if (rte_eth_macaddr_get(port_id, &mac) == 0)
        memcpy(queue->device.mac, mac.addr_bytes, NET_MAC_BYTES);
    if (device_configure(port_id, &setup) < 0)
        goto failed;
    if (queue->device.is_memif && gate_acquire() < 0)
        goto failed;
    if (device_begin(&queue->device) < 0) {
        if (queue->device.is_memif)
            gate_release();
        goto failed;
    }
    if (config->is_promiscuous)
        (void)rte_eth_promiscuous_enable(port_id); /* virtual devices see every frame anyway */
    return queue;
failed:
    (void)rte_eth_dev_close(port_id);
    rte_mempool_free(queue->pool);
    free(queue);
    return NULL;
}

int64_t dpdk_queue_close(dpdk_queue *queue) {
    if (queue->device.is_started) {
        device_drain(queue->device.port_id);
        (void)rte_eth_dev_stop(queue->device.port_id);
    }
    (void)rte_eth_dev_close(queue->device.port_id);
    if (queue->device.is_memif)
        gate_release();
    int64_t missing = rte_mempool_in_use_count(queue->pool);
    if (missing == 0) /* memory that somebody still points into is not given back */
        rte_mempool_free(queue->pool);
    free(queue);
    return missing;
}

int32_t dpdk_queue_is_link_up(dpdk_queue *queue) { return queue->device.is_link_up; }
int64_t dpdk_queue_pool_in_use(dpdk_queue *queue) { return rte_mempool_in_use_count(queue->pool); }
void dpdk_queue_control(dpdk_queue *queue) { control(queue); }

uint32_t dpdk_queue_receive(dpdk_queue *queue, dpdk_burst *burst, uint32_t max) {
    if (__builtin_expect(rte_rdtsc() >= queue->control_tsc, 0))
        control(queue);
    uint32_t room = DPDK_BURST_MAX - burst->count;
    if (!queue->device.is_usable || room == 0)
        return 0;
    struct rte_mbuf **mbufs = (struct rte_mbuf **)burst->mbufs + burst->count;
    uint32_t count = rte_eth_rx_burst(queue->device.port_id, 0, mbufs, (uint16_t)(max < room ? max : room));
    burst->count += count;
    return count;
}

uint32_t dpdk_queue_send(dpdk_queue *queue, dpdk_burst *burst, uint32_t retry_max) {
    struct rte_mbuf **mbufs = (struct rte_mbuf **)burst->mbufs;
    uint32_t sent = 0;
    if (queue->device.is_usable && burst->count > 0) {
        sent = rte_eth_tx_burst(queue->device.port_id, 0, mbufs, (uint16_t)burst->count);
        for (uint32_t retry = 0; sent < burst->count && retry < retry_max; retry++) {
            rte_pause();
            sent += rte_eth_tx_burst(queue->device.port_id, 0, mbufs + sent, (uint16_t)(burst->count - sent));
        }
    }
    if (sent < burst->count)
        rte_pktmbuf_free_bulk(mbufs + sent, burst->count - sent);
    burst->count = 0;
    return sent;
}

void dpdk_burst_free(dpdk_burst *burst) {
    rte_pktmbuf_free_bulk((struct rte_mbuf **)burst->mbufs, burst->count);
    burst->count = 0;
}

void dpdk_burst_swap_macs(dpdk_burst *burst) {
    for (uint32_t i = 0; i < burst->count; i++) {
        struct rte_mbuf *mbuf = burst->mbufs[i];
        uint8_t *frame = rte_pktmbuf_mtod(mbuf, uint8_t *), mac[NET_MAC_BYTES];
        if (i + 4 < burst->count)
            rte_prefetch0(rte_pktmbuf_mtod((struct rte_mbuf *)burst->mbufs[i + 4], void *));
        if (rte_pktmbuf_data_len(mbuf) < NET_ETHERNET_BYTES)
            continue;
        memcpy(mac, frame, NET_MAC_BYTES);
        memcpy(frame, frame + NET_MAC_BYTES, NET_MAC_BYTES);
        memcpy(frame + NET_MAC_BYTES, mac, NET_MAC_BYTES);
    }
}

/* The frame's new length, or 0: it is neither. The address asked for is ours, whichever it is: a tool, not a host. */
static uint32_t answer_ping(const uint8_t *our_mac, uint8_t *frame, uint32_t length) {
    net_view view;
    net_arp arp;
    if (length < NET_ARP_FRAME_BYTES || (frame[0] & 1u && !net_mac_is_broadcast(frame)))
        return 0;
    if (net_load_u16(frame + 12) == NET_TYPE_ARP) {
        uint32_t asked_ip = net_load_u32(frame + NET_ETHERNET_BYTES + 24);
        if (net_parse_arp(frame, length, asked_ip, &arp) != NET_ARP_REQUEST)
            return 0;
        net_write_arp(frame, 0, our_mac, asked_ip, arp.sender_mac, arp.sender_ip);
        return NET_ARP_FRAME_BYTES;
    }
    uint8_t target_mac[NET_MAC_BYTES];
    memcpy(target_mac, net_mac_is_broadcast(frame) ? our_mac : frame, NET_MAC_BYTES);
    uint32_t asked_ip = net_load_u32(frame + NET_ETHERNET_BYTES + 16);
    if (net_parse(frame, length, target_mac, asked_ip, 0, &view) != NET_ICMP_ECHO)
        return 0;
    return (uint32_t)net_answer_echo(frame, target_mac, &view);
}

void dpdk_burst_answer_pings(dpdk_queue *queue, dpdk_burst *burst) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < burst->count; i++) {
        struct rte_mbuf *mbuf = burst->mbufs[i];
        uint32_t length = 0;
        if (mbuf->nb_segs == 1)
            length = answer_ping(queue->device.mac, rte_pktmbuf_mtod(mbuf, uint8_t *), rte_pktmbuf_data_len(mbuf));
        if (length == 0) {
            rte_pktmbuf_free(mbuf);
            continue;
        }
        mbuf->ol_flags = 0;
        mbuf->data_len = (uint16_t)length;
        mbuf->pkt_len = length;
        burst->mbufs[kept++] = mbuf;
    }
    burst->count = kept;
}

uint32_t dpdk_burst_read(const dpdk_burst *burst, uint8_t *slab, uint64_t slab_bytes, uint32_t *lengths) {
    uint64_t used = 0;
    for (uint32_t i = 0; i < burst->count; i++) {
        const struct rte_mbuf *mbuf = burst->mbufs[i];
        if (mbuf->pkt_len > slab_bytes - used)
            return i;
        lengths[i] = mbuf->pkt_len;
        for (; mbuf != NULL; mbuf = mbuf->next) {
            memcpy(slab + used, rte_pktmbuf_mtod(mbuf, const void *), mbuf->data_len);
            used += mbuf->data_len;
        }
    }
    return burst->count;
}

static struct rte_mbuf *make_frame(dpdk_queue *queue, const uint8_t *frame, uint32_t length) {
    struct rte_mbuf *head = rte_pktmbuf_alloc(queue->pool), *tail = head;
    while (tail != NULL) {
        uint32_t room = rte_pktmbuf_tailroom(tail), part = length < room ? length : room;
        memcpy(rte_pktmbuf_mtod(tail, void *), frame, part);
        tail->data_len = (uint16_t)part;
        if (tail == head)
            head->pkt_len = part;
        frame += part;
        length -= part;
        if (length == 0)
            return head;
        tail = rte_pktmbuf_alloc(queue->pool);
        if (tail != NULL) {
            if (rte_pktmbuf_chain(head, tail) != 0) {
                rte_pktmbuf_free(tail);
                break;
            }
            head->pkt_len += length < rte_pktmbuf_tailroom(tail) ? length : rte_pktmbuf_tailroom(tail);
        }
    }
    rte_pktmbuf_free(head);
    return NULL;
}

uint32_t dpdk_burst_write(dpdk_queue *queue, dpdk_burst *burst, const uint8_t *slab, const uint32_t *lengths, uint32_t count) {
    uint32_t made = 0;
    for (; made < count && burst->count < DPDK_BURST_MAX; made++) {
        struct rte_mbuf *mbuf = make_frame(queue, slab, lengths[made]);
        if (mbuf == NULL)
            break;
        burst->mbufs[burst->count++] = mbuf;
        slab += lengths[made];
    }
    return made;
}

uint32_t dpdk_burst_repeat(dpdk_queue *queue, dpdk_burst *burst, const uint8_t *frame, uint32_t length, uint32_t count) {
    uint32_t room = DPDK_BURST_MAX - burst->count;
    if (count > room)
        count = room;
    struct rte_mbuf **mbufs = (struct rte_mbuf **)burst->mbufs + burst->count;
    if (length + RTE_PKTMBUF_HEADROOM > rte_pktmbuf_data_room_size(queue->pool) ||
        rte_pktmbuf_alloc_bulk(queue->pool, mbufs, count) != 0)
        return 0;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(rte_pktmbuf_mtod(mbufs[i], void *), frame, length);
        mbufs[i]->data_len = (uint16_t)length;
        mbufs[i]->pkt_len = length;
    }
    burst->count += count;
    return count;
}
