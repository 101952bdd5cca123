/*
 * Bursts: Ethernet frames in DPDK's buffers, handed on from call to call, so that Python may move packets without touching one.
 *
 * Ownership: who has the burst has its mbufs; a call that sends or frees leaves the burst empty.
 * Leaves to others: devices (ethdev.c), where buffers come from (pool.c).
 */
#include <rte_mbuf.h>
#include <string.h>

#include "ethdev.h"
#include "net.h"

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

void dpdk_burst_answer_pings(dpdk_ethdev *ethdev, dpdk_burst *burst) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < burst->count; i++) {
        struct rte_mbuf *mbuf = burst->mbufs[i];
        uint32_t length = 0;
        if (mbuf->nb_segs == 1)
            length = answer_ping(ethdev->device.mac, rte_pktmbuf_mtod(mbuf, uint8_t *), rte_pktmbuf_data_len(mbuf));
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

static struct rte_mbuf *make_frame(dpdk_ethdev *ethdev, const uint8_t *frame, uint32_t length) {
    struct rte_mbuf *head = rte_pktmbuf_alloc(ethdev->pool->mempool), *tail = head;
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
        tail = rte_pktmbuf_alloc(ethdev->pool->mempool);
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

uint32_t dpdk_burst_write(dpdk_ethdev *ethdev, dpdk_burst *burst, const uint8_t *slab, const uint32_t *lengths, uint32_t count) {
    uint32_t made = 0;
    for (; made < count && burst->count < DPDK_BURST_MAX; made++) {
        struct rte_mbuf *mbuf = make_frame(ethdev, slab, lengths[made]);
        if (mbuf == NULL)
            break;
        burst->mbufs[burst->count++] = mbuf;
        slab += lengths[made];
    }
    return made;
}

uint32_t dpdk_burst_repeat(dpdk_ethdev *ethdev, dpdk_burst *burst, const uint8_t *frame, uint32_t length, uint32_t count) {
    uint32_t room = DPDK_BURST_MAX - burst->count;
    if (count > room)
        count = room;
    struct rte_mbuf **mbufs = (struct rte_mbuf **)burst->mbufs + burst->count;
    if (length + RTE_PKTMBUF_HEADROOM > rte_pktmbuf_data_room_size(ethdev->pool->mempool) ||
        rte_pktmbuf_alloc_bulk(ethdev->pool->mempool, mbufs, count) != 0)
        return 0;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(rte_pktmbuf_mtod(mbufs[i], void *), frame, length);
        mbufs[i]->data_len = (uint16_t)length;
        mbufs[i]->pkt_len = length;
    }
    burst->count += count;
    return count;
}
