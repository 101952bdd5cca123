/*
 * Grants: whose request of several packets may come, and when.
 *
 * A request's first packet announces how many follow, and the rest comes when it has been acknowledged (Kogias et al., R2P2,
 * section 4.1). Were all acknowledged at once, two hundred clients with 64 KiB each would send more than a ring or a socket's buffer
 * holds: most of it would be dropped, and sent again. So an ACK is a grant, and the packets granted and not arrived yet are bounded, for
 * all and for each source address; who does not fit waits. Addresses take turns, each one's requests in the order in which they were
 * announced. What is granted and has not come in time counts no more (it may still come): its sender may be gone.
 * A message beyond the bound is granted alone. Once half of the table waits, the bound is void: a flood of announcements must not
 * keep honest ones waiting until they are pushed out. So it is while more of what was granted lately did not come than the ring holds, and
 * less came than that: a smaller flood would use up the bound with packets that nobody sends.
 * Leaves to others: halves and their memory (r2p2_reassembly.h), sending ACKs (r2p2_gateway.c).
 */
#ifndef R2P2_GRANTS_H
#define R2P2_GRANTS_H

#include "r2p2_reassembly.h"

/* The half's first packet is here, once or again: it waits for a grant, unless it has one. */
void r2p2_grants_ask(r2p2_reassembly *table, r2p2_half *half);
/* Another packet of the half is here. */
void r2p2_grants_arrived(r2p2_reassembly *table, r2p2_half *half);
/* The half ends. */
void r2p2_grants_end(r2p2_reassembly *table, r2p2_half *half);
/* The next one whose packets may come, which the caller must tell; NULL: nobody waits, or nobody fits. */
r2p2_half *r2p2_grants_next(r2p2_reassembly *table, uint64_t now_ns);

#endif
