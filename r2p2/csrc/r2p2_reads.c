/*
 * Linearizable reads below Raft: requests of policy 3 are gathered until the node takes them as one group, and answered by this
 * member when the node says so. They never enter the log and are never forwarded (docs/reads.md).
 *
 * What is bounded here is everything that was taken in and not answered yet: those still gathered, and those in groups that
 * Python holds. Leaves to others: when a group may be answered (raft/reads.py, r2p2/node/reads.py), what the answer is (the application).
 */
#include "r2p2_engine.h"

static void refuse(r2p2_engine *engine, const r2p2_asker *asker, uint64_t *counter) {
    r2p2_tx_address to = {asker->ip, asker->port, asker->local_port};
    (*counter)++;
    r2p2_drop_send(engine, to, asker->rid);
}

void r2p2_read_request(r2p2_engine *engine, const r2p2_asker *asker, const uint8_t *payload, uint32_t bytes) {
    r2p2_reads *reads = &engine->reads;
    engine->counters.rx_requests_read++;
    if (engine->role == R2P2_ROLE_NONE) {
        refuse(engine, asker, &engine->counters.drops_no_service);
        return;
    }
    if (reads->open_count >= R2P2_READS_COUNT_MAX || reads->open_bytes + bytes > R2P2_READS_BYTES_MAX ||
        r2p2_requests_add(&reads->gathered, asker, payload, bytes)) {
        refuse(engine, asker, &engine->counters.drops_reads_full);
        return;
    }
    if (reads->gathered.count == 1) reads->since_ns = engine->now_ns;
    reads->open_count++;
    reads->open_bytes += bytes;
}

static void closed(r2p2_reads *reads, uint64_t count, uint64_t bytes) {
    reads->open_count -= count < reads->open_count ? count : reads->open_count;
    reads->open_bytes -= bytes < reads->open_bytes ? bytes : reads->open_bytes;
}

/* Gathered reads that the node did not take in time: no leader was known, or none confirmed those before them. */
void r2p2_reads_expire(r2p2_engine *engine) {
    r2p2_reads *reads = &engine->reads;
    if (reads->gathered.count == 0 || engine->now_ns - reads->since_ns <= engine->config.hold_timeout_ns) return;
    for (uint32_t i = 0; i < reads->gathered.count; i++)
        refuse(engine, &reads->gathered.askers[i], &engine->counters.drops_reads_unconfirmed);
    closed(reads, reads->gathered.count, reads->gathered.slab.length);
    r2p2_requests_clear(&reads->gathered);
}

void r2p2_reads_take(r2p2_engine *engine, r2p2_batch *batch) {
    r2p2_requests *gathered = &engine->reads.gathered;
    *batch = (r2p2_batch){
        .slab = gathered->slab.data,
        .lengths = gathered->lengths,
        .policies = gathered->policies,
        .askers = (const uint8_t *)gathered->askers,
        .slab_bytes = gathered->slab.length,
        .requests_count = gathered->count,
    };
    r2p2_requests_clear(gathered); /* the bytes stay where they are until the next one is gathered */
}

/* The group's askers, where they are aligned; NULL without memory. */
static r2p2_asker *askers_of(r2p2_engine *engine, const uint8_t *askers, uint64_t count) {
    engine->scratch.length = 0;
    if (r2p2_buffer_reserve(&engine->scratch, count * sizeof(r2p2_asker))) return NULL;
    memcpy(engine->scratch.data, askers, count * sizeof(r2p2_asker));
    return (r2p2_asker *)(void *)engine->scratch.data;
}

int32_t r2p2_reads_reply(r2p2_engine *engine, const uint8_t *askers, uint64_t requests_count, uint64_t requests_bytes,
                         const uint8_t *slab, uint64_t slab_bytes, const uint32_t *lengths, uint64_t count) {
    if (requests_count > R2P2_READS_COUNT_MAX) return R2P2_ERROR_ARGUMENT;
    r2p2_requests group = {.askers = askers_of(engine, askers, requests_count), .count = (uint32_t)requests_count};
    if (!group.askers) return R2P2_ERROR_NO_MEMORY;
    int32_t status = r2p2_replies_send(engine, &group, slab, slab_bytes, lengths, count);
    if (status) return status;
    closed(&engine->reads, requests_count, requests_bytes);
    engine->counters.reads_answered += requests_count;
    return R2P2_OK;
}

int32_t r2p2_reads_drop(r2p2_engine *engine, const uint8_t *askers, uint64_t requests_count, uint64_t requests_bytes) {
    if (requests_count > R2P2_READS_COUNT_MAX) return R2P2_ERROR_ARGUMENT;
    const r2p2_asker *group = askers_of(engine, askers, requests_count);
    if (!group) return R2P2_ERROR_NO_MEMORY;
    for (uint64_t i = 0; i < requests_count; i++) refuse(engine, &group[i], &engine->counters.drops_reads_unconfirmed);
    closed(&engine->reads, requests_count, requests_bytes);
    return R2P2_OK;
}
