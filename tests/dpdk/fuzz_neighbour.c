/*
 * Fuzzes neighbour.c against a plain list, under AddressSanitizer and UndefinedBehaviorSanitizer: learned, static, kept and forgotten
 * addresses in any order, few enough that they meet in the sets.
 *
 * Held: what is found is what was last learned; static entries stay, and so do those that are kept, as long as no set can be full of
 * them; no more are learned than may be.
 *
 * fuzz_neighbour SEED SECONDS: prints how often each thing happened; exit code 0, or an abort that names what was not so.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fuzz_random.h"
#include "neighbour.h"

#define ADDRESSES 6000u
#define KEPT_MAX NEIGHBOUR_WAYS /* as many fit in one set */
#define TTL_NS 1000000u

typedef struct model {
    uint64_t learned_ns; /* 0: not */
    uint8_t mac;         /* its last byte; static entries have 0 */
    uint8_t is_static;
} model;

static uint64_t step, learned_count, pushed_count, kept_count, expired_count;
static model addresses[ADDRESSES];
static const uint8_t our_mac[NET_MAC_BYTES] = {2, 0, 10, 0, 0, 1};

#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "step %llu: not so: %s\n", (unsigned long long)step, #condition);                          \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static uint32_t ip_of(uint32_t number) { return 0x0a000000u + number * 0x01000001u; }

static int is_kept(const uint32_t *kept, uint32_t count, uint32_t ip) {
    for (uint32_t i = 0; i < count; i++)
        if (kept[i] == ip)
            return 1;
    return 0;
}

static void examine(neighbour_table *table, const uint32_t *kept, uint32_t count) {
    uint32_t learned = 0;
    for (uint32_t i = 0; i < ADDRESSES; i++) {
        model *known = &addresses[i];
        const neighbour *found = neighbour_find(table, ip_of(i));
        if (known->is_static)
            REQUIRE(found != NULL && found->ethernet[5] == 0);
        else if (known->learned_ns == 0)
            REQUIRE(found == NULL);
        else if (found == NULL) {
            REQUIRE(!is_kept(kept, count, ip_of(i)));
            known->learned_ns = 0;
            pushed_count++;
        } else {
            REQUIRE(found->ip == ip_of(i) && found->ethernet[5] == known->mac && found->confirmed_ns == known->learned_ns);
            REQUIRE(found->is_kept == is_kept(kept, count, ip_of(i)));
            kept_count += found->is_kept;
            learned++;
        }
    }
    REQUIRE(learned <= DPDK_NEIGHBOURS_LEARNED_MAX);
}

int main(int argc, char **argv) {
    static neighbour_table table;
    if (argc != 3)
        return 2;
    fuzz_state = strtoull(argv[1], NULL, 10);
    time_t end = time(NULL) + atoi(argv[2]);
    do {
        const uint64_t random[2] = {next_random(), next_random()};
        uint32_t kept[KEPT_MAX], count = 0, room = 1 + below(ADDRESSES);
        uint64_t now_ns = 1;
        memset(addresses, 0, sizeof addresses);
        neighbour_init(&table, random);
        for (uint32_t round = 0; round < 20; round++) {
            for (uint32_t i = below(600); i > 0; i--, step++) {
                uint32_t number = below(room), ip = ip_of(number);
                uint8_t mac[NET_MAC_BYTES] = {2, 0, 0, 0, 0, (uint8_t)(1 + below(255))};
                model *known = &addresses[number];
                if (below(200) == 0) {
                    memset(mac, 0, sizeof mac);
                    if (neighbour_add_static(&table, ip, mac, our_mac, 0) == 0)
                        *known = (model){.is_static = 1};
                } else if (below(100) == 0) {
                    neighbour_forget(&table, ip);
                    known->learned_ns = 0;
                } else {
                    neighbour_learn(&table, ip, mac, our_mac, 0, ++now_ns);
                    REQUIRE(neighbour_find(&table, ip) != NULL);
                    if (!known->is_static)
                        *known = (model){.learned_ns = now_ns, .mac = mac[5]};
                    learned_count++;
                }
            }
            examine(&table, kept, count);
            if (below(4) == 0) {
                count = below(KEPT_MAX + 1);
                for (uint32_t i = 0; i < count; i++)
                    kept[i] = ip_of(below(room));
                neighbour_keep(&table, kept, count);
                examine(&table, kept, count);
            }
            if (below(8) == 0) {
                now_ns += below(TTL_NS);
                neighbour_expire(&table, now_ns, TTL_NS / 2);
                for (uint32_t i = 0; i < ADDRESSES; i++)
                    if (addresses[i].learned_ns != 0 && now_ns - addresses[i].learned_ns > TTL_NS / 2) {
                        addresses[i].learned_ns = 0;
                        expired_count++;
                    }
            }
        }
    } while (time(NULL) < end);
    printf("learned %llu\npushed_out %llu\nkept %llu\nexpired %llu\n", (unsigned long long)learned_count,
           (unsigned long long)pushed_count, (unsigned long long)kept_count, (unsigned long long)expired_count);
    return 0;
}
