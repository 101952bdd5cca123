/*
 * Random numbers that a seed repeats, for fuzzers: splitmix64 (Steele, Lea and Flood 2014). Set fuzz_state first.
 */
#ifndef FUZZ_RANDOM_H
#define FUZZ_RANDOM_H

#include <stdint.h>

static uint64_t fuzz_state;

static inline uint64_t next_random(void) {
    uint64_t z = (fuzz_state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static inline uint32_t below(uint32_t bound) { return (uint32_t)(next_random() % bound); }

#endif
