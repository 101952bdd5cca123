/*
 * Ethernet, ARP, IPv4, UDP and ICMP as pure functions over (pointer, length).
 *
 * Why here and without DPDK: the receive path runs these on bytes of strangers, so they are fuzzed on their own, on
 * exact-size allocations under sanitizers. Nothing reads or writes outside the length it is given.
 * The two functions of the packet loop, net_parse and net_write_udp, are inline; the rest is in net.c.
 * Leaves to others: who owns a buffer, what is answered (port.c, control.c), which MAC a target has (neighbour.c).
 *
 * Addresses and ports: host byte order. Checksums are kept as they lie in memory.
 */
#ifndef DPDK_BACKEND_NET_H
#define DPDK_BACKEND_NET_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define NET_MAC_BYTES 6u
#define NET_ETHERNET_BYTES 14u
#define NET_IPV4_BYTES 20u
#define NET_UDP_BYTES 8u
#define NET_ARP_BYTES 28u
#define NET_ICMP_BYTES 8u
#define NET_UDP_HEADERS_BYTES (NET_ETHERNET_BYTES + NET_IPV4_BYTES + NET_UDP_BYTES)
#define NET_ARP_FRAME_BYTES (NET_ETHERNET_BYTES + NET_ARP_BYTES)

#define NET_TYPE_IPV4 0x0800u
#define NET_TYPE_ARP 0x0806u
#define NET_PROTOCOL_ICMP 1u
#define NET_PROTOCOL_UDP 17u
#define NET_TTL 64u

/* What a frame is. Everything after NET_ICMP_ECHO is a reason to drop it, and a counter of r2p2_port_counters. */
enum net_verdict {
    NET_UDP = 0,       /* a valid datagram to us: view is filled in */
    NET_ARP,           /* an ARP frame to us or to everyone; its body is not looked at */
    NET_ICMP_ECHO,     /* an ICMP echo request to us with a good checksum */
    NET_TRUNCATED,     /* shorter than its headers say */
    NET_NOT_IPV4,
    NET_BAD_IP,
    NET_FRAGMENT,
    NET_NOT_UDP,
    NET_BAD_UDP,
    NET_BAD_CHECKSUM,
    NET_FOREIGN,       /* another's MAC or IP */
    NET_VERDICTS_COUNT
};

/* What the device has verified already. */
#define NET_IP_CHECKSUM_GOOD 1u
#define NET_L4_CHECKSUM_GOOD 2u
/* The frame may come from this machine's own kernel, which leaves the UDP checksum at the pseudo header's sum for a device to
 * finish that is not there (veth). Such a sum is taken too. */
#define NET_L4_CHECKSUM_UNFINISHED 4u

typedef struct net_view {
    const uint8_t *payload; /* of UDP; for ICMP the ICMP header */
    uint32_t length;        /* its bytes: within the frame */
    uint32_t source_ip;
    uint32_t target_ip;
    uint16_t source_port;
    uint16_t target_port;
} net_view;

enum net_arp_verdict {
    NET_ARP_BAD = 0,  /* malformed, or not for us */
    NET_ARP_REQUEST,  /* asks for our address */
    NET_ARP_REPLY,    /* answers us */
};

typedef struct net_arp {
    uint32_t sender_ip;
    uint8_t sender_mac[NET_MAC_BYTES];
} net_arp;

static inline uint16_t net_load_u16(const uint8_t *p) { return (uint16_t)((p[0] << 8) | p[1]); }
static inline uint32_t net_load_u32(const uint8_t *p) {
    return ((uint32_t)p[0] << 24) | ((uint32_t)p[1] << 16) | ((uint32_t)p[2] << 8) | p[3];
}
static inline void net_store_u16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static inline void net_store_u32(uint8_t *p, uint32_t v) {
    net_store_u16(p, (uint16_t)(v >> 16));
    net_store_u16(p + 2, (uint16_t)v);
}

/* 16-bit words of memory, added in memory order: the ones' complement sum does not depend on byte order (RFC 1071). */
static inline uint64_t net_sum(const uint8_t *data, size_t length, uint64_t sum) {
    uint32_t word;
    uint16_t half;
    while (length >= 16) {
        uint32_t w[4];
        memcpy(w, data, 16);
        sum += (uint64_t)w[0] + w[1] + w[2] + w[3];
        data += 16;
        length -= 16;
    }
    while (length >= 4) {
        memcpy(&word, data, 4);
        sum += word;
        data += 4;
        length -= 4;
    }
    if (length >= 2) {
        memcpy(&half, data, 2);
        sum += half;
        data += 2;
        length -= 2;
    }
    if (length) {
        half = 0;
        memcpy(&half, data, 1); /* the missing byte is 0, on either byte order */
        sum += half;
    }
    return sum;
}

static inline uint16_t net_fold(uint64_t sum) {
    sum = (sum & 0xffffffffu) + (sum >> 32);
    sum = (sum & 0xffffffffu) + (sum >> 32);
    sum = (sum & 0xffffu) + (sum >> 16);
    sum = (sum & 0xffffu) + (sum >> 16);
    return (uint16_t)sum;
}

static inline uint16_t net_swap_u16(uint16_t v) { return __builtin_bswap16(v); }
static inline uint16_t net_to_memory_u16(uint16_t v) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return net_swap_u16(v);
#else
    return v;
#endif
}

/* The UDP pseudo header, with the two addresses as they lie at `addresses` (source, then target). */
static inline uint64_t net_pseudo_sum(const uint8_t *addresses, uint16_t udp_length) {
    return net_sum(addresses, 8, 0) + net_to_memory_u16(NET_PROTOCOL_UDP) + net_to_memory_u16(udp_length);
}

static inline int net_mac_equal(const uint8_t *a, const uint8_t *b) { return memcmp(a, b, NET_MAC_BYTES) == 0; }
static inline int net_mac_is_broadcast(const uint8_t *mac) {
    return (mac[0] & mac[1] & mac[2] & mac[3] & mac[4] & mac[5]) == 0xff;
}

/* An address a host may send from: not 0/8's "this host", not loopback, not multicast, not broadcast. */
static inline int net_is_host_ip(uint32_t ip) { return ip >> 24 != 0 && ip >> 24 != 127 && ip < 0xe0000000u; }

enum net_verdict net_parse_icmp(const uint8_t *icmp, size_t length);

/*
 * Classifies one frame. `known` are NET_*_CHECKSUM_* flags. A UDP checksum of 0 means the sender wrote none.
 * Ethernet padding after the IPv4 total length is ignored.
 */
static inline enum net_verdict net_parse(const uint8_t *frame, size_t length, const uint8_t *our_mac, uint32_t our_ip,
                                         unsigned known, net_view *view) {
    if (__builtin_expect(length < NET_ETHERNET_BYTES, 0))
        return NET_TRUNCATED;
    if (__builtin_expect(!net_mac_equal(frame, our_mac), 0) && !net_mac_is_broadcast(frame))
        return NET_FOREIGN;
    uint16_t type = net_load_u16(frame + 12);
    if (__builtin_expect(type != NET_TYPE_IPV4, 0))
        return type == NET_TYPE_ARP ? NET_ARP : NET_NOT_IPV4;

    const uint8_t *ip = frame + NET_ETHERNET_BYTES;
    size_t left = length - NET_ETHERNET_BYTES;
    if (__builtin_expect(left < NET_IPV4_BYTES, 0))
        return NET_TRUNCATED;
    size_t header_bytes = (size_t)(ip[0] & 15u) * 4u;
    if (__builtin_expect(ip[0] >> 4 != 4 || header_bytes < NET_IPV4_BYTES, 0))
        return NET_BAD_IP;
    size_t total_bytes = net_load_u16(ip + 2);
    if (__builtin_expect(total_bytes < header_bytes, 0))
        return NET_BAD_IP;
    if (__builtin_expect(total_bytes > left, 0))
        return NET_TRUNCATED;
    if (!(known & NET_IP_CHECKSUM_GOOD) && __builtin_expect(net_fold(net_sum(ip, header_bytes, 0)) != 0xffffu, 0))
        return NET_BAD_IP;
    if (__builtin_expect(ip[8] == 0, 0))
        return NET_BAD_IP; /* TTL */
    if (__builtin_expect((net_load_u16(ip + 6) & 0x3fffu) != 0, 0))
        return NET_FRAGMENT; /* more fragments, or an offset */
    view->source_ip = net_load_u32(ip + 12);
    view->target_ip = net_load_u32(ip + 16);
    if (__builtin_expect(view->target_ip != our_ip, 0))
        return NET_FOREIGN;
    if (__builtin_expect(!net_is_host_ip(view->source_ip) || view->source_ip == our_ip, 0))
        return NET_BAD_IP;

    const uint8_t *body = ip + header_bytes;
    size_t body_bytes = total_bytes - header_bytes;
    if (__builtin_expect(ip[9] != NET_PROTOCOL_UDP, 0)) {
        view->payload = body;
        view->length = (uint32_t)body_bytes;
        return ip[9] == NET_PROTOCOL_ICMP ? net_parse_icmp(body, body_bytes) : NET_NOT_UDP;
    }
    if (__builtin_expect(body_bytes < NET_UDP_BYTES, 0))
        return NET_TRUNCATED;
    size_t udp_bytes = net_load_u16(body + 4);
    if (__builtin_expect(udp_bytes < NET_UDP_BYTES || udp_bytes > body_bytes, 0))
        return NET_BAD_UDP;
    uint16_t checksum;
    memcpy(&checksum, body + 6, 2);
    if (!(known & NET_L4_CHECKSUM_GOOD) && checksum != 0) {
        uint64_t pseudo = net_pseudo_sum(ip + 12, (uint16_t)udp_bytes), sum = net_sum(body, udp_bytes, pseudo);
        if (__builtin_expect(net_fold(sum) != 0xffffu, 0) &&
            !(known & NET_L4_CHECKSUM_UNFINISHED && checksum == net_fold(pseudo)))
            return NET_BAD_CHECKSUM;
    }
    view->source_port = net_load_u16(body);
    view->target_port = net_load_u16(body + 2);
    view->payload = body + NET_UDP_BYTES;
    view->length = (uint32_t)(udp_bytes - NET_UDP_BYTES);
    return NET_UDP;
}

/* How net_write_udp treats the UDP checksum. */
enum net_udp_checksum {
    NET_UDP_CHECKSUM_NONE = 0, /* 0 on the wire: links between own processes */
    NET_UDP_CHECKSUM_FULL,     /* computed here */
    NET_UDP_CHECKSUM_PSEUDO,   /* the pseudo header's sum: the device adds the rest */
};

/* Writes the 42 bytes of headers in front of `length` payload bytes, which lie at frame + 42 already. */
static inline void net_write_udp(uint8_t *frame, const uint8_t *ethernet, uint32_t source_ip, uint32_t target_ip,
                                 uint16_t source_port, uint16_t target_port, uint32_t length,
                                 enum net_udp_checksum checksum_mode) {
    static const uint8_t fixed[12] = {0x45, 0, 0, 0, 0, 0, 0x40, 0, NET_TTL, NET_PROTOCOL_UDP, 0, 0};
    uint8_t *ip = frame + NET_ETHERNET_BYTES, *udp = ip + NET_IPV4_BYTES;
    uint16_t udp_bytes = (uint16_t)(length + NET_UDP_BYTES), checksum;
    memcpy(frame, ethernet, NET_ETHERNET_BYTES);
    memcpy(ip, fixed, sizeof fixed); /* don't fragment, so the identification may be 0 (RFC 6864) */
    net_store_u16(ip + 2, (uint16_t)(udp_bytes + NET_IPV4_BYTES));
    net_store_u32(ip + 12, source_ip);
    net_store_u32(ip + 16, target_ip);
    checksum = (uint16_t)~net_fold(net_sum(ip, NET_IPV4_BYTES, 0));
    memcpy(ip + 10, &checksum, 2);
    net_store_u16(udp, source_port);
    net_store_u16(udp + 2, target_port);
    net_store_u16(udp + 4, udp_bytes);
    checksum = 0;
    memcpy(udp + 6, &checksum, 2);
    if (checksum_mode == NET_UDP_CHECKSUM_FULL) {
        checksum = (uint16_t)~net_fold(net_sum(udp, udp_bytes, net_pseudo_sum(ip + 12, udp_bytes)));
        if (checksum == 0)
            checksum = 0xffffu; /* 0 would mean: none */
    } else if (checksum_mode == NET_UDP_CHECKSUM_PSEUDO) {
        checksum = net_fold(net_pseudo_sum(ip + 12, udp_bytes));
    }
    memcpy(udp + 6, &checksum, 2);
}

/* Reads an ARP frame that net_parse called NET_ARP. */
enum net_arp_verdict net_parse_arp(const uint8_t *frame, size_t length, uint32_t our_ip, net_arp *arp);

/* Writes the 42 bytes of an ARP frame. request: to everyone, who has target_ip; else a reply to target_mac. */
void net_write_arp(uint8_t *frame, int is_request, const uint8_t *our_mac, uint32_t our_ip, const uint8_t *target_mac,
                   uint32_t target_ip);

/* Turns an ICMP echo request (NET_ICMP_ECHO) into its reply, in place. Returns the reply's frame bytes. */
size_t net_answer_echo(uint8_t *frame, const uint8_t *our_mac, const net_view *view);

/* The MAC a host has when nothing else is said: 02:00 and the IPv4 address. Locally administered, unicast. */
void net_mac_of_ip(uint32_t ip, uint8_t *mac);

#endif
