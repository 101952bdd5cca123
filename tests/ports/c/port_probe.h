/*
 * A stand-in for the engine, for tests: calls each function of a struct r2p2_port and shows Python what came back.
 * Plain declarations: cffi parses this file. A probe remembers the buffers it holds, as the engine would.
 */
#define PROBE_HELD_MAX 65536

typedef struct probe probe;

/* One datagram; to or from `ip`:`port`, through the local UDP port `local_port`. */
typedef struct probe_datagram {
    uint32_t ip;
    uint16_t port;
    uint16_t local_port;
    uint32_t length;
    uint32_t offset; /* of its bytes in the slab */
} probe_datagram;

/* NULL when the port's ABI or struct size is not ours. */
probe *probe_new(uintptr_t port);
void probe_free(probe *probe);

/* Reserves, fills and commits in one burst; returns how many could be reserved (and so were committed). */
uint32_t probe_send(probe *probe, const probe_datagram *datagrams, const uint8_t *slab, uint32_t count);
/* One datagram sent as somebody else: from source_ip and local_port. Returns how many were reserved. */
uint32_t probe_send_as(probe *probe, uint32_t source_ip, const probe_datagram *datagram, const uint8_t *data);
/* One rx_burst of up to max; copies to the slab what fits; holds the buffers until probe_release. Returns the burst's count. */
uint32_t probe_receive(probe *probe, probe_datagram *datagrams, uint8_t *slab, uint64_t slab_bytes, uint32_t max);
/* Gives back all buffers held, last first when `backwards`. */
void probe_release(probe *probe, int backwards);
/* 1 when the bytes of held buffer `index` are still those of `data`. */
int probe_held_is(probe *probe, uint32_t index, const uint8_t *data, uint32_t length);
/* Reserves and keeps; returns how many. */
uint32_t probe_reserve(probe *probe, uint32_t count);
/* Commits everything kept with length 0. */
void probe_unreserve(probe *probe);
void probe_broadcast(probe *probe, const uint8_t *data, uint32_t length, uint16_t local_port, const probe_datagram *targets,
                     uint32_t count);

uint32_t probe_local_ip(probe *probe);
uint16_t probe_local_port(probe *probe);
int32_t probe_poll_fd(probe *probe);
uint64_t probe_now_ns(probe *probe);
uint32_t probe_counters_count(void);
const char *probe_counter_name(uint32_t index);
void probe_counters(probe *probe, uint64_t *values);
