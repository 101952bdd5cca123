/*
 * The gate: DPDK's interrupt thread runs only when the polling thread lets it.
 *
 * Why: the memif driver handles its control channel on the EAL's interrupt thread. When a peer dies, that thread unmaps
 * the shared rings while a burst may be reading them: a crash of the survivor, the likelier the fewer cores there are.
 * The driver has no lock for it. So an interrupt source of our own is always ready, and its callback parks the interrupt
 * thread on a semaphore. From time to time the polling thread opens the gate for one round of that thread's loop and
 * waits, outside any burst, until it is parked again. Only public DPDK calls are used.
 *
 * Cost: two thread switches a round. Consequence: links come up and go down only while somebody polls.
 */
#ifndef DPDK_BACKEND_GATE_H
#define DPDK_BACKEND_GATE_H

/* Users are counted; the first makes the gate, the last removes it. 0 or a negative errno with dpdk_fail's text. */
int gate_acquire(void);
void gate_release(void);
/* Lets the interrupt thread run one round; returns when it is parked again. */
void gate_round(void);

#endif
