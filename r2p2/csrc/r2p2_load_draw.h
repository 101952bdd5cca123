/*
 * What the load generator draws by chance: gaps, sizes, service times, keys. Seeded: the same seed gives the same load.
 * What is made of the numbers: r2p2_loadgen.c.
 */
#ifndef R2P2_LOAD_DRAW_H
#define R2P2_LOAD_DRAW_H

#include "r2p2_loadgen.h"

/* Zipf over 0..count-1 (Gray et al., "Quickly generating billion-record synthetic databases"): constants of one (count, skew). */
typedef struct r2p2_zipf {
    double skew, zeta, alpha, eta, second;
    uint64_t count;
} r2p2_zipf;

static inline uint64_t r2p2_draw(uint64_t *state) { /* splitmix64 */
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
/* Uniform in the open interval 0..1. */
static inline double r2p2_draw_unit(uint64_t *state) {
    return ((double)(r2p2_draw(state) >> 11) + 0.5) / 9007199254740992.0;
}
/* Exponential with that mean: the gaps of a Poisson process. */
double r2p2_draw_exponential(uint64_t *state, double mean);
/* Never negative. */
double r2p2_draw_from(uint64_t *state, const r2p2_distribution *distribution);
/* Whether its numbers make sense. */
int r2p2_distribution_valid(const r2p2_distribution *distribution);
/* Takes time in the order of count once. skew 0..1, below 1; count at least 1. */
r2p2_zipf r2p2_zipf_new(uint64_t count, double skew);
/* 0 is the most frequent. */
uint64_t r2p2_zipf_draw(const r2p2_zipf *zipf, uint64_t *state);

#endif
