/* Openings. See r2p2_openings.h. */
#include "r2p2_openings.h"

#define SECOND_NS 1000000000u
#define ALL_NS (SECOND_NS / R2P2_OPENINGS_PER_SECOND)
#define ADDRESS_NS (SECOND_NS / R2P2_OPENINGS_ADDRESS_PER_SECOND)

/* When the bucket is full again, if one more is taken from it. */
static uint64_t full_at(uint64_t full_ns, uint64_t now_ns, uint64_t each_ns) {
    return (full_ns > now_ns ? full_ns : now_ns) + each_ns;
}

int r2p2_openings_take(r2p2_openings *openings, uint32_t ip, uint64_t now_ns) {
    uint64_t *address = &openings->address_ns[(uint32_t)(ip * 0x9e3779b1u) >> 22];
    uint64_t address_ns = full_at(*address, now_ns, ADDRESS_NS), all_ns = full_at(openings->all_ns, now_ns, ALL_NS);
    if (address_ns - now_ns > (uint64_t)ADDRESS_NS * R2P2_OPENINGS_ADDRESS_BURST) return 0;
    if (all_ns - now_ns > (uint64_t)ALL_NS * R2P2_OPENINGS_BURST) return 0;
    *address = address_ns;
    openings->all_ns = all_ns;
    return 1;
}
