/*
 * Openings: how many new sessions a member lets in.
 *
 * A new session takes the place of the one that was used last the longest time ago, so whoever opens many pushes out others', and an opening
 * is one small datagram. What is let in is therefore bounded, of each source address and of all: a session that is used now and then
 * stays longer than it takes to fill the table (docs/hostile.md). A member decides for itself what it takes in, before the log: the
 * table stays a function of the log. Each bound is a bucket that holds a burst and is filled at a rate.
 */
#ifndef R2P2_OPENINGS_H
#define R2P2_OPENINGS_H

#include <stdint.h>

#include "r2p2_limits.h"

#define R2P2_OPENINGS_ADDRESSES 1024u /* buckets of addresses; those of one hash share theirs */

/* When each bucket is full again; a time gone by: it is. All zero at the start. */
typedef struct r2p2_openings {
    uint64_t all_ns;
    uint64_t address_ns[R2P2_OPENINGS_ADDRESSES];
} r2p2_openings;

/* Whether an opening from `ip` may come in; it has then been counted. */
int r2p2_openings_take(r2p2_openings *openings, uint32_t ip, uint64_t now_ns);

#endif
