/*
 * Fuzzes net.c: frames of strangers, random or a valid one damaged, each on an allocation of exactly its size, under
 * AddressSanitizer and UndefinedBehaviorSanitizer. Beyond not crashing, it holds the functions to what they promise.
 *
 * fuzz_net SEED SECONDS: prints how many frames had which verdict; exit code 0, or an abort that names the seed and frame.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fuzz_random.h"
#include "net.h"

#define FRAME_BYTES_MAX 2048u
#define OUR_IP 0x0a000001u
#define PEER_IP 0x0a000009u

static const uint8_t our_mac[6] = {2, 0, 10, 0, 0, 1}, peer_mac[6] = {2, 0, 10, 0, 0, 9};
static uint64_t frame_number, verdicts[NET_VERDICTS_COUNT], arp_verdicts[3];

#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "frame %llu: not so: %s\n", (unsigned long long)frame_number, #condition);                 \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* RFC 1071 word by word: slow, and too simple to share a mistake with net_sum. */
static uint16_t plain_sum(const uint8_t *data, size_t length, uint32_t sum) {
    for (size_t i = 0; i < length; i += 2)
        sum += (uint32_t)data[i] << 8 | (i + 1 < length ? data[i + 1] : 0u);
    while (sum >> 16)
        sum = (sum & 0xffffu) + (sum >> 16);
    return (uint16_t)sum;
}

static size_t make_udp(uint8_t *frame) {
    uint8_t ethernet[NET_ETHERNET_BYTES];
    uint32_t length = below(1473);
    memcpy(ethernet, our_mac, 6);
    memcpy(ethernet + 6, peer_mac, 6);
    net_store_u16(ethernet + 12, NET_TYPE_IPV4);
    for (uint32_t i = 0; i < length; i++)
        frame[NET_UDP_HEADERS_BYTES + i] = (uint8_t)next_random();
    int has_checksum = below(8) != 0;
    uint16_t source_port = (uint16_t)next_random(), target_port = (uint16_t)next_random();
    net_write_udp(frame, ethernet, PEER_IP, OUR_IP, source_port, target_port, length,
                  has_checksum ? NET_UDP_CHECKSUM_FULL : NET_UDP_CHECKSUM_NONE);
    /* What we write, we take; and the sums are right by the plain way too. */
    net_view view;
    REQUIRE(net_parse(frame, NET_UDP_HEADERS_BYTES + length, our_mac, OUR_IP, 0, &view) == NET_UDP);
    REQUIRE(view.length == length && view.payload == frame + NET_UDP_HEADERS_BYTES);
    REQUIRE(view.source_ip == PEER_IP && view.target_ip == OUR_IP);
    REQUIRE(view.source_port == source_port && view.target_port == target_port);
    REQUIRE(plain_sum(frame + 14, 20, 0) == 0xffffu);
    uint32_t pseudo = (PEER_IP >> 16) + (PEER_IP & 0xffffu) + (OUR_IP >> 16) + (OUR_IP & 0xffffu) + 17u + length + 8u;
    REQUIRE(!has_checksum || plain_sum(frame + 34, length + 8, pseudo) == 0xffffu);
    return NET_UDP_HEADERS_BYTES + length;
}

static size_t make_echo(uint8_t *frame) {
    size_t length = make_udp(frame), icmp_bytes = length - 34;
    uint16_t sum;
    frame[23] = NET_PROTOCOL_ICMP;
    memset(frame + 24, 0, 2);
    sum = (uint16_t)~plain_sum(frame + 14, 20, 0);
    net_store_u16(frame + 24, sum);
    memset(frame + 34, 0, 4);
    frame[34] = 8;
    sum = (uint16_t)~plain_sum(frame + 34, icmp_bytes, 0);
    net_store_u16(frame + 36, sum);
    return length;
}

static size_t make_arp(uint8_t *frame) {
    net_write_arp(frame, (int)below(2), peer_mac, PEER_IP, our_mac, OUR_IP);
    return NET_ARP_FRAME_BYTES + (below(2) ? 18u : 0u); /* with and without Ethernet padding */
}

static size_t damage(uint8_t *frame, size_t length) {
    for (uint32_t times = below(4); times > 0 && length > 0; times--)
        frame[below((uint32_t)length)] = (uint8_t)next_random();
    if (below(4) == 0)
        frame[14] = (uint8_t)(0x40u | below(16)); /* the header length: rarely hit by chance */
    if (below(8) == 0)
        net_store_u16(frame + 16, (uint16_t)below(2100));
    if (below(8) == 0)
        net_store_u16(frame + 38, (uint16_t)below(2100));
    if (below(2) == 0 && length >= 34) { /* so that more than the IPv4 checksum is reached */
        size_t header_bytes = (size_t)(frame[14] & 15u) * 4u;
        if (header_bytes >= 20 && 14 + header_bytes <= length) {
            memset(frame + 24, 0, 2);
            net_store_u16(frame + 24, (uint16_t)~plain_sum(frame + 14, header_bytes, 0));
        }
    }
    return below(4) ? length : below((uint32_t)length + 1);
}

static void examine(uint8_t *frame, size_t length) {
    net_view view;
    unsigned known = below(8);
    enum net_verdict verdict = net_parse(frame, length, our_mac, OUR_IP, known, &view);
    REQUIRE((unsigned)verdict < NET_VERDICTS_COUNT);
    verdicts[verdict]++;
    if (verdict == NET_UDP || verdict == NET_ICMP_ECHO) {
        REQUIRE(view.payload >= frame + 34 && view.payload + view.length <= frame + length);
        REQUIRE(view.target_ip == OUR_IP && view.source_ip != OUR_IP);
    }
    if (verdict == NET_ICMP_ECHO) {
        uint8_t target[6];
        memcpy(target, frame + 6, 6);
        size_t reply_bytes = net_answer_echo(frame, our_mac, &view);
        REQUIRE(reply_bytes <= length);
        REQUIRE(memcmp(frame, target, 6) == 0 && memcmp(frame + 6, our_mac, 6) == 0);
        REQUIRE(plain_sum(frame + 14, (frame[14] & 15u) * 4u, 0) == 0xffffu);
        REQUIRE(plain_sum(view.payload, view.length, 0) == 0xffffu);
    }
    if (verdict == NET_ARP || below(64) == 0) {
        net_arp arp;
        enum net_arp_verdict arp_verdict = net_parse_arp(frame, length, OUR_IP, &arp);
        arp_verdicts[arp_verdict]++;
        REQUIRE(arp_verdict == NET_ARP_BAD || (arp.sender_ip != OUR_IP && !(arp.sender_mac[0] & 1u)));
    }
}

int main(int argc, char **argv) {
    static uint8_t scratch[FRAME_BYTES_MAX];
    if (argc != 3)
        return 2;
    fuzz_state = strtoull(argv[1], NULL, 10);
    time_t end = time(NULL) + atoi(argv[2]);
    while (frame_number % 4096 != 0 || time(NULL) < end) {
        size_t length;
        frame_number++;
        switch (below(8)) {
        case 0: /* noise */
            length = below(128);
            for (size_t i = 0; i < length; i++)
                scratch[i] = (uint8_t)next_random();
            break;
        case 1:
            length = damage(scratch, make_arp(scratch));
            break;
        case 2:
            length = damage(scratch, make_echo(scratch));
            break;
        default:
            length = damage(scratch, make_udp(scratch));
        }
        uint8_t *frame = malloc(length ? length : 1);
        uint8_t *exact = length ? frame : frame + 1; /* a length of 0 must not be read at all */
        memcpy(exact, scratch, length);
        examine(exact, length);
        free(frame);
    }
    printf("frames %llu\n", (unsigned long long)frame_number);
    for (int i = 0; i < NET_VERDICTS_COUNT; i++)
        printf("verdict_%d %llu\n", i, (unsigned long long)verdicts[i]);
    for (int i = 0; i < 3; i++)
        printf("arp_%d %llu\n", i, (unsigned long long)arp_verdicts[i]);
    return 0;
}
