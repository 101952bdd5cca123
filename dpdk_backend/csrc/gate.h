/*
 * The gate: DPDK's interrupt thread runs only when the polling thread lets it.
 *
 * Why: the memif driver handles its control channel on the EAL's interrupt thread. When a peer dies, that thread unmaps
 * the shared rings, without a lock, while a burst may be reading them: a crash of the survivor. So an interrupt source of our own
 * is always ready, and its callback parks the interrupt thread on a semaphore. When a control channel has something to say, the
 * polling thread opens the gate for one round of that thread's loop and waits, outside any burst, until it is parked again.
 * Only public DPDK calls are used.
 *
 * The control channels are found without the driver's help: memif's are the process's AF_UNIX SOCK_SEQPACKET sockets. Another
 * such socket costs rounds, not correctness.
 *
 * The driver's listening sockets are its own only while it is to take a call: see take_calls in gate.c.
 *
 * Cost: one poll() a look, two thread switches a round; rounds happen when links come or go. Consequence: links come up and go
 * down only while somebody polls.
 */
#ifndef DPDK_BACKEND_GATE_H
#define DPDK_BACKEND_GATE_H

#include <stdint.h>

/* Users are counted; the first makes the gate, the last removes it. 0 or a negative errno with dpdk_fail's text. */
int gate_acquire(void);
void gate_release(void);
/* Looks again which control channels there are: after a device was made or started. */
void gate_watch(void);
/* When a control channel waits for the interrupt thread: lets it run one round, and returns when it is parked again. Returns how
 * many clients were gone before their call was taken; each would have ended the process. */
uint32_t gate_poll(void);

#endif
