/*
 * Replay: a stack whose clock is told, and which receives as many frames as it is told.
 *
 * A capture says when each frame came. dpdk_stack_replay moves the clock there and lets that many frames in, so that what the node does
 * depends on the capture alone: its timers, its batches, and the stack's own (ARP's questions, forgotten neighbours).
 * The two functions here stand in front of the packet loop's in the vtable; a stack that is not replaying never meets them.
 * Leaves to others: reading captures and their times (r2p2/replay.py), the loop (port.c).
 */
#include <errno.h>

#include "log.h"
#include "stack.h"

static uint64_t replay_now_ns(void *self) { return ((const dpdk_stack *)self)->now_ns; }

static uint32_t replay_rx_burst(void *self, r2p2_rx_packet *packets, uint32_t max) {
    dpdk_stack *stack = self;
    uint32_t filled = 0;
    /* What we sent to ourselves is no frame: it comes first and is not counted. */
    while (filled < max && stack->loop_tail != stack->loop_head)
        filled += stack->replayed_rx_burst(self, packets + filled, 1);
    /* One device, room for one datagram: the loop takes exactly one frame, whatever becomes of it. */
    for (; filled < max && stack->replay_frames > 0; stack->replay_frames--)
        filled += stack->replayed_rx_burst(self, packets + filled, 1);
    return filled;
}

int32_t dpdk_stack_replay(dpdk_stack *stack, uint64_t now_ns, uint32_t frames_count) {
    if (stack->devices_count != 1)
        return dpdk_fail(EINVAL, "dpdk_stack_replay: the port has %u devices, a replay has one", stack->devices_count);
    if (stack->replayed_rx_burst == NULL) {
        stack->replayed_rx_burst = stack->port.rx_burst;
        stack->port.rx_burst = replay_rx_burst;
        stack->port.now_ns = replay_now_ns;
        stack->now_ns = stack->link_checked_ns = stack->neighbours_checked_ns = now_ns;
    }
    if (now_ns < stack->now_ns)
        return dpdk_fail(EINVAL, "dpdk_stack_replay: the clock goes back");
    stack->now_ns = now_ns;
    stack->replay_frames += frames_count;
    stack_control(stack);
    return 0;
}

uint32_t dpdk_stack_replay_left(dpdk_stack *stack) { return stack->replay_frames; }
