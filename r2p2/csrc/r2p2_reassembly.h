/*
 * Half messages: packets of multi-packet messages on their way to being whole.
 *
 * Packets may come in any order and more than once. A message is known by (source ip, source port, local port, rid, type). A
 * FIRST packet that differs from the one already held means that the rid is in use anew: the stale half is replaced.
 * Memory follows what was received, not what a FIRST packet announces: packets lie in the order of their arrival and are put in
 * order when the message is whole (in order already, unless the network reordered them). Count and bytes are bounded, and each
 * source address has a quota of both. When the table or its bytes are full, halves give way, the oldest first: those of which only one packet
 * came (a flood of first packets pushes out its own, while an honest sender's second packet follows within a round trip); those whose
 * FIRST packet has not come, since that alone tells what a message is part of; and those for whose sender nobody vouches. Of one call there
 * are R2P2_ANSWER_HALVES_MAX half answers or memories of them; the oldest for whose sender nobody vouches makes room for another.
 * Halves expire in the order in which they began. A message that became whole is remembered for a
 * short while without its bytes, so that late duplicates of its packets do not make it twice; memories give way to new halves. Not so
 * a request with a session extension: its FIRST packet coming again is its client's retry, and the session table knows duplicates.
 * The extension counts as the first bytes of its packet's payload.
 * Leaves to others: single-packet messages (they never come here), what a whole message means.
 */
#ifndef R2P2_REASSEMBLY_H
#define R2P2_REASSEMBLY_H

#include "r2p2_port.h"
#include "r2p2_wire.h"

enum r2p2_grant { R2P2_GRANT_NONE = 0, R2P2_GRANT_WAITS, R2P2_GRANT_GIVEN }; /* r2p2_grants.h */
enum { R2P2_LINKS_TIME = 0, R2P2_LINKS_TO_GO, R2P2_LINKS_COUNT }; /* which list a half's links are of */

typedef struct r2p2_half {
    struct r2p2_half *hash_next;
    struct r2p2_half *queue_next, *queue_previous; /* by grant: among its source's that wait, or among all that were given one */
    uint64_t granted_ns;
    struct r2p2_half_links {
        struct r2p2_half *older, *newer;
    } links[R2P2_LINKS_COUNT]; /* in its list by time, and in that of those that may give way */
    uint64_t created_ns;             /* of a memory: when it became whole */
    uint32_t source_ip;
    uint16_t source_port, local_port;
    uint16_t rid;
    uint8_t type, policy;
    uint8_t is_done; /* a memory: whole, and its bytes are gone */
    uint8_t is_first_to_go; /* in the list of those that may give way */
    uint8_t is_vouched;  /* its sender is known: it gives way no more once two packets are here */
    uint8_t has_session; /* packet 0 begins with the session extension, and so does the message */
    uint64_t first_digest; /* of the FIRST packet's payload */
    uint16_t expected_count; /* packets; 0 until the FIRST packet came */
    uint16_t received_count;
    uint16_t granted_count; /* packets granted that have not come */
    uint8_t grant;          /* enum r2p2_grant */
    uint8_t was_granted;    /* its time has begun anew, which it does once: else announcing it again would keep it for ever */
    uint16_t last_index;  /* of the packet that came with LAST; 0: it has not come */
    uint32_t capacity;    /* of `bytes` */
    uint64_t received[4]; /* bit i: packet i is here */
    uint8_t *bytes;       /* the k-th packet that came at k * R2P2_PAYLOAD_BYTES_MAX; packet 0 at the end of its slot */
    struct r2p2_source *source;
    uint16_t lengths[R2P2_PACKETS_MAX]; /* by packet */
    uint8_t slot_of[R2P2_PACKETS_MAX];  /* by packet: its slot */
} r2p2_half;

/* In the order in which they came to it. */
typedef struct r2p2_half_queue {
    r2p2_half *first, *last;
} r2p2_half_queue;

/* What one source address holds. Lives as long as it holds something. */
typedef struct r2p2_source {
    struct r2p2_source *hash_next;
    uint32_t ip;
    uint32_t count;
    uint64_t bytes;
    r2p2_half_queue waiting; /* for a grant */
    struct r2p2_source *turn_next, *turn_previous; /* while some wait */
    uint32_t granted_count;
} r2p2_source;

typedef struct r2p2_reassembly {
    r2p2_half *halves;   /* count_max of them */
    r2p2_half **buckets; /* count_max, a power of two */
    r2p2_half *unused;
    r2p2_source *sources; /* count_max of them */
    r2p2_source **source_buckets;
    r2p2_source *unused_source;
    struct r2p2_half_list {
        r2p2_half *oldest, *newest;
    } active, done;
    struct r2p2_half_list first_to_go; /* of the active: those that may give way */
    uint32_t count, count_max;
    uint64_t bytes, bytes_max;
    uint64_t timeout_ns, now_ns;
    uint32_t source_count_max; /* halves of one source */
    uint64_t source_bytes_max;
    r2p2_source *turn; /* whose next grant is due; NULL: nobody waits */
    uint32_t waiting_count; /* halves without a grant that ask for one */
    r2p2_half_queue granted;
    uint32_t granted_count, granted_max; /* packets */
    struct r2p2_granted_packets {
        uint32_t came, missing;
    } lately, before; /* since window_ns, and in the window before it */
    uint64_t window_ns;
    uint64_t waited_count; /* grants that were not given at once, since the caller last looked */
    uint64_t evicted_count; /* halves that gave way since the caller last looked */
} r2p2_reassembly;

enum r2p2_reassembly_result {
    R2P2_HALF_STORED = 0,
    R2P2_HALF_COMPLETE,  /* *message is whole and the caller's: end with r2p2_reassembly_finish */
    R2P2_HALF_DUPLICATE, /* nothing new in it; of these three message->half is what it belongs to */
    R2P2_HALF_REPLACED,  /* stored; a stale half gave way */
    R2P2_HALF_BAD_ORDER, /* index beyond the message, or LAST on the wrong packet: dropped */
    R2P2_HALF_BAD_LENGTH,
    R2P2_HALF_FULL,  /* table or bytes at their bound: dropped */
    R2P2_HALF_QUOTA  /* the source's quota of them: dropped */
};

typedef struct r2p2_whole {
    r2p2_half *half;
    const uint8_t *data;
    uint32_t length;
} r2p2_whole;

/* share: one source may hold 1 / share of count_max and bytes_max; 1: no quota. */
int r2p2_reassembly_init(r2p2_reassembly *table, uint32_t count_max, uint64_t bytes_max, uint64_t timeout_ns,
                         uint32_t share);
void r2p2_reassembly_destroy(r2p2_reassembly *table);
enum r2p2_reassembly_result r2p2_reassembly_add(r2p2_reassembly *table, const r2p2_header *header, const uint8_t *payload,
                                                uint32_t length, uint32_t source_ip, uint16_t source_port,
                                                uint16_t local_port, int is_vouched, uint64_t now_ns, r2p2_whole *whole);
/* Whether this FIRST packet has been here: it would be R2P2_HALF_DUPLICATE. */
int r2p2_reassembly_is_repeat(const r2p2_reassembly *table, const r2p2_header *header, const uint8_t *payload,
                              uint32_t length, uint32_t source_ip, uint16_t source_port, uint16_t local_port);
/* Frees a message that was handed out whole, and remembers it. */
void r2p2_reassembly_finish(r2p2_reassembly *table, r2p2_half *half);
/* Detaches the bytes of a whole message from its half, which becomes a memory: the caller frees `base` and takes `bytes` off the bound with
 * r2p2_reassembly_return. */
typedef struct r2p2_detached {
    uint8_t *base;
    uint64_t bytes;
} r2p2_detached;
r2p2_detached r2p2_reassembly_detach(r2p2_reassembly *table, r2p2_half *half);
void r2p2_reassembly_return(r2p2_reassembly *table, r2p2_detached detached);
/* The half's time begins anew. */
void r2p2_reassembly_renew(r2p2_reassembly *table, r2p2_half *half, uint64_t now_ns);
/* Drops halves older than the timeout; returns how many. */
uint32_t r2p2_reassembly_expire(r2p2_reassembly *table, uint64_t now_ns);

#endif
