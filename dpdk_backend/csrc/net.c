/* The parts of net.h outside the packet loop: ARP, ICMP echo. */
#include "net.h"

#define ARP_ETHERNET 1u
#define ARP_OP_REQUEST 1u
#define ARP_OP_REPLY 2u
#define ICMP_ECHO_REPLY 0u
#define ICMP_ECHO_REQUEST 8u

enum net_verdict net_parse_icmp(const uint8_t *icmp, size_t length) {
    if (length < NET_ICMP_BYTES)
        return NET_TRUNCATED;
    if (icmp[0] != ICMP_ECHO_REQUEST || icmp[1] != 0)
        return NET_NOT_UDP;
    return net_fold(net_sum(icmp, length, 0)) == 0xffffu ? NET_ICMP_ECHO : NET_BAD_CHECKSUM;
}

enum net_arp_verdict net_parse_arp(const uint8_t *frame, size_t length, uint32_t our_ip, net_arp *arp) {
    if (length < NET_ARP_FRAME_BYTES)
        return NET_ARP_BAD;
    const uint8_t *body = frame + NET_ETHERNET_BYTES;
    if (net_load_u16(body) != ARP_ETHERNET || net_load_u16(body + 2) != NET_TYPE_IPV4 || body[4] != NET_MAC_BYTES ||
        body[5] != 4)
        return NET_ARP_BAD;
    uint16_t operation = net_load_u16(body + 6);
    memcpy(arp->sender_mac, body + 8, NET_MAC_BYTES);
    arp->sender_ip = net_load_u32(body + 14);
    /* The sender is a host with a unicast MAC, the one the frame came from, and it is not us. */
    if (arp->sender_mac[0] & 1u || !net_mac_equal(arp->sender_mac, frame + NET_MAC_BYTES) ||
        net_load_u32(body + 24) != our_ip || arp->sender_ip == our_ip)
        return NET_ARP_BAD;
    if (operation == ARP_OP_REQUEST) /* a probe (RFC 5227) asks from 0.0.0.0 and is answered, not learned */
        return arp->sender_ip == 0 || net_is_host_ip(arp->sender_ip) ? NET_ARP_REQUEST : NET_ARP_BAD;
    if (operation == ARP_OP_REPLY && net_is_host_ip(arp->sender_ip) && !net_mac_is_broadcast(frame))
        return NET_ARP_REPLY;
    return NET_ARP_BAD;
}

void net_write_arp(uint8_t *frame, int is_request, const uint8_t *our_mac, uint32_t our_ip, const uint8_t *target_mac,
                   uint32_t target_ip) {
    static const uint8_t nobody[NET_MAC_BYTES] = {0};
    uint8_t *body = frame + NET_ETHERNET_BYTES;
    if (is_request)
        memset(frame, 0xff, NET_MAC_BYTES);
    else
        memcpy(frame, target_mac, NET_MAC_BYTES);
    memcpy(frame + 6, our_mac, NET_MAC_BYTES);
    net_store_u16(frame + 12, NET_TYPE_ARP);
    net_store_u16(body, ARP_ETHERNET);
    net_store_u16(body + 2, NET_TYPE_IPV4);
    body[4] = NET_MAC_BYTES;
    body[5] = 4;
    net_store_u16(body + 6, is_request ? ARP_OP_REQUEST : ARP_OP_REPLY);
    memcpy(body + 8, our_mac, NET_MAC_BYTES);
    net_store_u32(body + 14, our_ip);
    memcpy(body + 18, is_request ? nobody : target_mac, NET_MAC_BYTES);
    net_store_u32(body + 24, target_ip);
}

size_t net_answer_echo(uint8_t *frame, const uint8_t *our_mac, const net_view *view) {
    uint8_t *ip = frame + NET_ETHERNET_BYTES;
    size_t header_bytes = (size_t)(ip[0] & 15u) * 4u;
    uint8_t *icmp = ip + header_bytes;
    uint16_t checksum = 0;
    memcpy(frame, frame + 6, NET_MAC_BYTES);
    memcpy(frame + 6, our_mac, NET_MAC_BYTES);
    net_store_u32(ip + 12, view->target_ip);
    net_store_u32(ip + 16, view->source_ip);
    ip[8] = NET_TTL;
    memcpy(ip + 10, &checksum, 2);
    checksum = (uint16_t)~net_fold(net_sum(ip, header_bytes, 0));
    memcpy(ip + 10, &checksum, 2);
    icmp[0] = ICMP_ECHO_REPLY;
    checksum = 0;
    memcpy(icmp + 2, &checksum, 2);
    checksum = (uint16_t)~net_fold(net_sum(icmp, view->length, 0));
    memcpy(icmp + 2, &checksum, 2);
    return NET_ETHERNET_BYTES + header_bytes + view->length;
}

void net_mac_of_ip(uint32_t ip, uint8_t *mac) {
    mac[0] = 0x02;
    mac[1] = 0x00;
    net_store_u32(mac + 2, ip);
}
