/*
 * What Python sees of the router: requests in from clients, out to one of several servers. Plain declarations: cffi parses
 * this file, and r2p2_router.h includes it.
 *
 * RELAY: the router is the servers' client; answers come back to it and it passes them on. DIRECT: a request leaves with the
 * client's own source, so the server answers the client, and FEEDBACK tells the router that it is done.
 * Addresses: IPv4 and UDP port, host byte order. Times: nanoseconds of the port's clock.
 */

#define R2P2_ROUTER_SERVERS_MAX 64
#define R2P2_ROUTER_PENDING_MAX 32768
#define R2P2_ROUTER_QUEUE_MAX 65536

enum r2p2_router_mode { R2P2_ROUTER_RELAY = 0, R2P2_ROUTER_DIRECT = 1 };

enum r2p2_router_choice {
    R2P2_ROUTER_RANDOM = 0,
    R2P2_ROUTER_ROUND_ROBIN = 1,
    R2P2_ROUTER_JSQ = 2, /* the server with the fewest requests; chance among equals */
    R2P2_ROUTER_JBSQ = 3 /* the same, at most `bound` at a server; the others wait here */
};

typedef struct r2p2_router_config {
    uint64_t seed;             /* of chance, and of the hash of clients */
    uint64_t timeout_ns;       /* a request without an answer is given up after it; its slot comes back */
    uint64_t queue_timeout_ns; /* JBSQ: one that waited so long here is refused */
    uint64_t down_ns;          /* how long a server is left out before it is tried again */
    uint32_t misses_max;       /* requests in a row without an answer that put a server out */
    uint32_t bound;            /* JBSQ: 1 or more */
    uint32_t queue_max;        /* JBSQ: requests that wait here; 1..R2P2_ROUTER_QUEUE_MAX */
    uint32_t pending_max;      /* requests on their way; 1..R2P2_ROUTER_PENDING_MAX */
    uint32_t packets_per_poll_max;
    uint32_t mode;             /* enum r2p2_router_mode */
    uint32_t choice;           /* enum r2p2_router_choice */
    uint16_t local_port;       /* where clients send, and in RELAY what servers answer to */
    uint16_t control_port;     /* where servers send FEEDBACK; may be local_port */
} r2p2_router_config;

/* All fields 64 bits wide: read as one array. */
typedef struct r2p2_router_result {
    uint64_t now_ns;
    uint64_t packets_count; /* datagrams received by this poll */
    uint64_t pending_count; /* now */
    uint64_t queued_count;  /* now */
    uint64_t deadline_ns;   /* when poll must run though nothing came; UINT64_MAX: never */
} r2p2_router_result;

/* All fields 64 bits wide: read as one array. */
typedef struct r2p2_router_server {
    uint64_t ip, port;
    uint64_t is_down;
    uint64_t outstanding; /* slots taken: balanced requests sent and not answered; JBSQ: <= bound */
    uint64_t misses;      /* in a row */
    uint64_t sent, answered, expired, dropped; /* since the start; a repeated request counts once */
} r2p2_router_server;

typedef struct r2p2_router r2p2_router;

/* port_address: of a struct r2p2_port, which must outlive the router; servers: of ip and port, the index is the server's
 * number. NULL and *error set on failure. */
r2p2_router *r2p2_router_new(uintptr_t port_address, const r2p2_router_config *config, const r2p2_target *servers,
                             uint32_t servers_count, int32_t *error);
void r2p2_router_free(r2p2_router *router);
uint64_t r2p2_router_now_ns(r2p2_router *router);
/* One step: receive bursts, handle every packet, expire what is old, send what can go. */
void r2p2_router_poll(r2p2_router *router, r2p2_router_result *result);
void r2p2_router_servers(r2p2_router *router, r2p2_router_server *servers);
/* The server that replicated requests are sent to. */
uint32_t r2p2_router_leader(r2p2_router *router);

/* Counters: names are static. Indices 0..count-1, the port's after the router's. */
uint32_t r2p2_router_counters_count(void);
const char *r2p2_router_counter_name(uint32_t index);
const char *r2p2_router_counter_help(uint32_t index);
void r2p2_router_counters_read(r2p2_router *router, uint64_t *values);

/* Pure, for tests: 0 and fields = {rid, client port, client ip >> 16, client ip & 0xffff}, or a negative status. */
int32_t r2p2_feedback_check(const uint8_t *data, uint64_t length, uint16_t fields[4]);
