/*
 * The load generator, in C behind the engine so that it is not the bottleneck. Plain declarations: cffi parses this file.
 *
 * Closed loop: `outstanding` calls wait at any time. Open loop: calls begin at times drawn beforehand (exponential gaps, `rate`
 * a second), and latency counts from the drawn time, so queueing is not hidden (coordinated omission).
 * Workloads: ECHO sends `size` bytes and wants them back. SET sends RESP SETs of exactly `size` bytes over `keys_count` keys; a
 * key has at most one call waiting, its values are versions 1, 2, 3..., and a key whose call ended without an answer is never
 * used again, so that afterwards acked[key] <= stored version <= issued[key] must hold, with equality where the key is certain.
 */

enum r2p2_loadgen_workload { R2P2_LOAD_ECHO = 0, R2P2_LOAD_SET = 1 };

typedef struct r2p2_loadgen_config {
    uint64_t seed;
    uint64_t timeout_ns;        /* of one call */
    uint64_t timeline_step_ns;  /* width of a timeline bucket */
    uint64_t keys_count;        /* SET: at least outstanding */
    double rate;                /* calls a second; 0: closed loop */
    uint32_t timeline_count;    /* buckets kept; later completions count in the last one */
    uint32_t workload;          /* enum r2p2_loadgen_workload */
    uint32_t outstanding;       /* closed loop: calls waiting; open loop: at most so many, later ones queue (and their latency grows) */
    uint32_t sessions;          /* calls belong to so many sessions (docs/exactly-once.md), each slot to one; 0: to none */
    uint32_t size;              /* request payload bytes; SET: 48..1464, ECHO: 0..1464 */
    uint16_t local_port;
    uint8_t policy;
    uint8_t reserved;
} r2p2_loadgen_config;

/* All 64 bits wide: read as one array. */
typedef struct r2p2_loadgen_stats {
    uint64_t issued, answered, timeouts, dropped, wrong; /* wrong: an answer that is not what was expected */
    uint64_t waiting;
    uint64_t leader_ip;         /* who answered last */
    uint64_t retargets;         /* times calls were sent to another server after failures */
    uint64_t first_answer_ns, last_answer_ns;
    uint64_t max_gap_ns, max_gap_at_ns; /* the longest time between two answers, and when it ended */
    uint64_t started_ns;
    uint64_t polls, idle_polls;
    uint64_t expired;           /* calls whose session the servers had ended; it is opened anew */
} r2p2_loadgen_stats;

typedef struct r2p2_timeline_bucket {
    uint64_t answered, failed;
    uint64_t latency_sum_ns, latency_max_ns;
} r2p2_timeline_bucket;

typedef struct r2p2_loadgen r2p2_loadgen;

/* The engine must have r2p2_client_open(local_port) done. Takes the engine's completions over until freed. */
r2p2_loadgen *r2p2_loadgen_new(r2p2_engine *engine, const r2p2_loadgen_config *config, const r2p2_target *targets,
                               uint32_t targets_count, int32_t *error);
void r2p2_loadgen_free(r2p2_loadgen *load);
/* Runs the loop for a while (blocks; without the GIL): polls, completes, issues. issue == 0: only lets waiting calls end, and
 * returns as soon as none waits. An idle poll yields the core, or sleeps in poll(2) where the port has a descriptor. */
int32_t r2p2_loadgen_run(r2p2_loadgen *load, uint64_t duration_ns, int32_t issue);
/* Forgets what was measured so far (after a warm-up), not the state of keys and calls. */
void r2p2_loadgen_reset(r2p2_loadgen *load);
void r2p2_loadgen_stats_read(r2p2_loadgen *load, r2p2_loadgen_stats *stats);
/* Latency histogram: counts[i] answers in bucket i; r2p2_loadgen_bucket_ns(i) is the bucket's upper edge (relative width 1/64). */
uint32_t r2p2_loadgen_buckets_count(void);
uint64_t r2p2_loadgen_bucket_ns(uint32_t index);
void r2p2_loadgen_histogram(r2p2_loadgen *load, uint64_t *counts);
void r2p2_loadgen_timeline(r2p2_loadgen *load, r2p2_timeline_bucket *buckets);
/* SET: versions of keys first..first+count-1. certain[i] == 0: a call of that key ended without an answer. */
int32_t r2p2_loadgen_keys(r2p2_loadgen *load, uint64_t first, uint64_t count, uint64_t *acked, uint64_t *issued,
                          uint8_t *certain);
/* The key's name and the value of a version, as the generator writes them. Returns the bytes written to out (room for 1464). */
uint32_t r2p2_loadgen_key(r2p2_loadgen *load, uint64_t key, uint8_t *out);
uint32_t r2p2_loadgen_value(r2p2_loadgen *load, uint64_t key, uint64_t version, uint8_t *out);
