/*
 * The load generator's histogram of latencies: for each power of two so many linear steps, as HdrHistogram lays it out, that a bucket's
 * width is at most 1/1024 of its values: three significant digits. Up to 2^40 ns (18 minutes); what is longer counts in the last bucket.
 */
#ifndef R2P2_HISTOGRAM_H
#define R2P2_HISTOGRAM_H

#include <stdint.h>

#define R2P2_HISTOGRAM_SUB_BITS 10u
#define R2P2_HISTOGRAM_SUB_COUNT (1u << R2P2_HISTOGRAM_SUB_BITS)
#define R2P2_HISTOGRAM_VALUE_BITS 40u
#define R2P2_HISTOGRAM_BUCKETS ((R2P2_HISTOGRAM_VALUE_BITS - R2P2_HISTOGRAM_SUB_BITS + 1) * R2P2_HISTOGRAM_SUB_COUNT)

static inline uint32_t r2p2_histogram_bucket(uint64_t ns) {
    if (ns < R2P2_HISTOGRAM_SUB_COUNT) return (uint32_t)ns;
    if (ns >> R2P2_HISTOGRAM_VALUE_BITS) return R2P2_HISTOGRAM_BUCKETS - 1;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(ns) - R2P2_HISTOGRAM_SUB_BITS;
    return (shift + 1) * R2P2_HISTOGRAM_SUB_COUNT + (uint32_t)((ns >> shift) & (R2P2_HISTOGRAM_SUB_COUNT - 1));
}
/* The largest value of a bucket. */
static inline uint64_t r2p2_histogram_edge(uint32_t index) {
    if (index < R2P2_HISTOGRAM_SUB_COUNT) return index;
    uint32_t shift = index / R2P2_HISTOGRAM_SUB_COUNT - 1;
    return (((uint64_t)R2P2_HISTOGRAM_SUB_COUNT + index % R2P2_HISTOGRAM_SUB_COUNT + 1) << shift) - 1;
}

#endif
