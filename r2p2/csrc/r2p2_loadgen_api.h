/*
 * The load generator, in C behind the engine so that it is not the bottleneck. Plain declarations: cffi parses this file.
 *
 * Closed loop: `outstanding` calls wait at any time. Open loop: calls begin at times drawn beforehand (a Poisson process, `rate` a
 * second), and latency counts from the drawn time whenever the call was sent, so queueing is not hidden (coordinated omission). A call
 * that timed out counts with the time it has waited. What was due and not even sent is in `behind_ns`.
 * Workloads: ECHO sends requests and wants them back. SET sends RESP SETs over `keys_count` keys; a key has at most one call waiting,
 * its values are versions 1, 2, 3..., and a key whose call ended without an answer is never used again. After SETs acked[key] <= stored
 * version <= issued[key] must hold, with equality where the key is certain. A part of the calls (`reads`) may be GETs among them.
 * GET reads keys drawn by chance, as RESP, of whatever size that has. SPIN and STSS ask the services of r2p2/apps/synthetic.py to be
 * busy for a time drawn from `service_ns`.
 */

enum r2p2_loadgen_workload {
    R2P2_LOAD_ECHO = 0,
    R2P2_LOAD_SET = 1,
    R2P2_LOAD_GET = 2,
    R2P2_LOAD_SPIN = 3,
    R2P2_LOAD_STSS = 4
};

enum r2p2_shape {
    R2P2_SHAPE_FIXED = 0,       /* a */
    R2P2_SHAPE_UNIFORM = 1,     /* a..b */
    R2P2_SHAPE_EXPONENTIAL = 2, /* of mean a */
    R2P2_SHAPE_BIMODAL = 3      /* b in `share` of the cases, else a */
};
typedef struct r2p2_distribution {
    double a, b, share;
    uint32_t shape; /* enum r2p2_shape */
    uint32_t reserved;
} r2p2_distribution;

typedef struct r2p2_loadgen_config {
    uint64_t seed;
    uint64_t timeout_ns;        /* of one call */
    uint64_t timeline_step_ns;  /* width of a timeline bucket */
    uint64_t keys_count;        /* SET: at least outstanding */
    double rate;                /* calls a second; 0: closed loop */
    double reads;               /* SET: this part of the calls are linearizable GETs (policy 3), outside of sessions */
    double zipf;                /* skew of the keys, 0 (all alike; SET: in turn) up to below 1. SET: each slot draws from its own keys */
    r2p2_distribution sizes;    /* of requests, bytes; SET: the largest SET that is not larger, at least 48; not of GET and SPIN */
    r2p2_distribution service_ns; /* SPIN, STSS */
    uint32_t timeline_count;    /* buckets kept; later completions count in the last one */
    uint32_t workload;          /* enum r2p2_loadgen_workload */
    uint32_t outstanding;       /* closed loop: calls waiting; open loop: at most so many, later ones queue (and their latency grows) */
    uint32_t sessions;          /* calls belong in turn to so many sessions (docs/exactly-once.md); 0: to none */
    uint32_t reply_bytes;       /* STSS */
    uint16_t local_port;
    uint8_t policy;
    uint8_t spread; /* GETs: call i goes to target i modulo their number; else to who answered last */
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
    uint64_t reads_answered;    /* of `answered`: GETs among SETs */
    uint64_t bytes_sent;        /* of requests, without headers */
    uint64_t late_sum_ns, late_max_ns; /* open loop: how long after it was due a call was sent, in sum and at most */
    uint64_t behind_ns;         /* open loop: for how long the oldest call has been due that is not sent yet */
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
/* Open loop at another rate from now on. */
int32_t r2p2_loadgen_set_rate(r2p2_loadgen *load, double rate);
/* Latency histogram: counts[i] calls in bucket i; r2p2_loadgen_bucket_ns(i) is the bucket's upper edge (relative width 1/1024). */
uint32_t r2p2_loadgen_buckets_count(void);
uint64_t r2p2_loadgen_bucket_ns(uint32_t index);
void r2p2_loadgen_histogram(r2p2_loadgen *load, uint64_t *counts);
/* values[i]: the upper edge of the bucket that holds the call at fractions[i] (0..1, ascending) of all; 0 without any. */
void r2p2_loadgen_percentiles_ns(r2p2_loadgen *load, const double *fractions, uint32_t count, uint64_t *values);
void r2p2_loadgen_timeline(r2p2_loadgen *load, r2p2_timeline_bucket *buckets);
/* SET: versions of keys first..first+count-1. certain[i] == 0: a call of that key ended without an answer. */
int32_t r2p2_loadgen_keys(r2p2_loadgen *load, uint64_t first, uint64_t count, uint64_t *acked, uint64_t *issued,
                          uint8_t *certain);
/* The key's name, as the generator writes it. Returns the bytes written to out (room for 12). */
uint32_t r2p2_loadgen_key(r2p2_loadgen *load, uint64_t key, uint8_t *out);
/* One draw, for tests: of a distribution, and of a key by its skew. */
double r2p2_load_draw(uint64_t *state, const r2p2_distribution *distribution);
void r2p2_load_draw_keys(uint64_t seed, uint64_t keys_count, double skew, uint64_t *keys, uint32_t count);
