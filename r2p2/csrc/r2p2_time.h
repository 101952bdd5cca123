/*
 * The log's time: the leader gives it to the first entry that it appends in a millisecond, so at most once a poll.
 *
 * Why the first of a poll: commits end where polls ended, so that a new time hardly ever cuts a batch in two.
 * Leaves to others: what a time in an entry looks like (r2p2_log.c), applying it (r2p2_replicated.c), where the clock is read (Python).
 */
#ifndef R2P2_TIME_H
#define R2P2_TIME_H

#include "r2p2_engine_status.h"
#include "r2p2_log.h"

#include "r2p2_time_api.h"

typedef struct r2p2_stamps {
    int64_t offset_ns; /* unix time minus the port's clock */
    uint64_t due_ns;   /* before it no entry needs a time; UINT64_MAX: there is no clock */
    uint64_t seen_ms;  /* the log's time when it was last looked at, and when it was first found to be that */
    uint64_t seen_ns;
    int is_old; /* it came from a disk or in a snapshot: how long it has been so is not known */
} r2p2_stamps;

/* Takes notice of times that came with entries of others; is_old: from a disk or a snapshot. */
void r2p2_time_look(r2p2_engine *engine, int is_old);
/* r2p2_log_append and r2p2_log_append_wire of entries without times; the first gets one if that is due. The same results. */
int r2p2_append_stamped(r2p2_engine *engine, r2p2_entry entry, const uint8_t *body);
int r2p2_append_wire_at_time(r2p2_engine *engine, const uint8_t *entries, uint64_t length, uint64_t count);

#endif
