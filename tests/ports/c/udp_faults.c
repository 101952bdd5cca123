/*
 * The kernel UDP port against a kernel that misbehaves on cue: sendmmsg and recvmmsg are wrapped by the linker (--wrap) and a
 * script says what the next calls do. Loopback hardly ever fails, so this is the only way to see these paths taken.
 *
 * Run under AddressSanitizer and UBSan by tests/ports/test_sanitized.py; prints the first wrong expectation and exits 1.
 */
#define _GNU_SOURCE
#include "udp_module.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define SCRIPT_MAX 64

/* What a scripted call does: n > 0 passes at most n messages on, n < 0 fails with errno -n. Beyond the script calls pass as they are. */
static int script[SCRIPT_MAX];
static int script_length;
static int script_next;
static int calls;
static unsigned int messages_offered; /* by the last call */

int __real_sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags);
int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags);
int __real_recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags, struct timespec *timeout);
int __wrap_recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags, struct timespec *timeout);

/* The number of messages to pass on, or -1 with errno set. */
static int scripted(unsigned int count) {
    calls++;
    messages_offered = count;
    if (script_next == script_length)
        return (int)count;
    int what = script[script_next++];
    if (what < 0) {
        errno = -what;
        return -1;
    }
    return what < (int)count ? what : (int)count;
}

int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags) {
    int pass = scripted(count);
    return pass < 0 ? -1 : __real_sendmmsg(fd, messages, (unsigned int)pass, flags);
}

int __wrap_recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags, struct timespec *timeout) {
    int pass = scripted(count);
    return pass < 0 ? -1 : __real_recvmmsg(fd, messages, (unsigned int)pass, flags, timeout);
}

static void play(const int *steps, int count) {
    memcpy(script, steps, (size_t)count * sizeof *steps);
    script_length = count;
    script_next = 0;
    calls = 0;
}
#define PLAY(...) play((int[]){__VA_ARGS__}, (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)))

static void expect(const char *what, uint64_t got, uint64_t wanted) {
    if (got != wanted) {
        fprintf(stderr, "%s: %" PRIu64 ", expected %" PRIu64 "\n", what, got, wanted);
        exit(1);
    }
}

static r2p2_port *a;
static r2p2_port *b;

/* Sends `count` datagrams 0, 1, 2... of these sizes from a to b in one commit. */
static void send_sized(uint32_t count, const uint32_t *sizes) {
    r2p2_tx_packet packets[R2P2_BURST_MAX];
    expect("reserved", a->tx_reserve(a->self, packets, count), count);
    for (uint32_t i = 0; i < count; i++) {
        packets[i].data[0] = (uint8_t)i;
        packets[i].length = sizes[i];
        packets[i].target_ip = b->local_ip;
        packets[i].target_port = b->local_port;
    }
    a->tx_commit(a->self, packets, count);
}

/* One byte each. */
static void send_numbers(uint32_t count) {
    uint32_t sizes[R2P2_BURST_MAX];
    for (uint32_t i = 0; i < count; i++)
        sizes[i] = 1;
    send_sized(count, sizes);
}

/* Everything b receives, as bits: bit i for datagram i. */
static uint64_t receive_bits(void) {
    r2p2_rx_packet packets[R2P2_BURST_MAX];
    struct pollfd waiting = {.fd = b->poll_fd, .events = POLLIN};
    uint64_t bits = 0;
    script_next = script_length;
    while (poll(&waiting, 1, 20) > 0) {
        uint32_t count = b->rx_burst(b->self, packets, R2P2_BURST_MAX);
        for (uint32_t i = 0; i < count; i++)
            bits |= UINT64_C(1) << packets[i].data[0];
        b->rx_release(b->self, packets, count);
    }
    return bits;
}

static void test_partial_send_goes_on(void) {
    PLAY(3, 1, 2);
    send_numbers(10);
    expect("partial: calls", (uint64_t)calls, 4);
    expect("partial: received", receive_bits(), 0x3FF);
}

static void test_error_costs_its_datagram(void) {
    uint64_t before = a->counters->tx_drop_error;
    PLAY(2, -ECONNREFUSED, 1, -EPERM);
    send_numbers(8);
    expect("error: received", receive_bits(), 0xFF & ~(1u << 2 | 1u << 4));
    expect("error: counted", a->counters->tx_drop_error - before, 2);
}

static void test_unreachable_is_no_route(void) {
    PLAY(-ENETUNREACH, -EHOSTUNREACH);
    send_numbers(3);
    expect("no route: received", receive_bits(), 4);
    expect("no route: counted", a->counters->tx_drop_no_route, 2);
}

static void test_full_buffer_is_retried_then_dropped(void) {
    PLAY(-EAGAIN, -ENOBUFS, 1, -EAGAIN, -EAGAIN);
    send_numbers(3);
    expect("full, then room: received", receive_bits(), 7);
    expect("full, then room: dropped", a->counters->tx_drop_full, 0);
    PLAY(2, -EAGAIN, -EAGAIN, -EAGAIN, -EAGAIN, -EAGAIN);
    send_numbers(10);
    expect("full: calls are bounded", (uint64_t)calls, 4);
    expect("full: received", receive_bits(), 3);
    expect("full: dropped", a->counters->tx_drop_full, 8);
}

static void test_interruption_is_nothing(void) {
    uint64_t errors = a->counters->tx_drop_error;
    PLAY(-EINTR, 1, -EINTR);
    send_numbers(2);
    expect("interrupted send: received", receive_bits(), 3);
    send_numbers(1);
    PLAY(-EINTR, -EINTR);
    r2p2_rx_packet packets[4];
    struct pollfd waiting = {.fd = b->poll_fd, .events = POLLIN};
    expect("waits", (uint64_t)poll(&waiting, 1, 2000), 1);
    uint32_t count = b->rx_burst(b->self, packets, 4);
    expect("interrupted receive", count, 1);
    b->rx_release(b->self, packets, count);
    expect("interruptions are not errors", a->counters->tx_drop_error + b->counters->tx_drop_error, errors);
}

static void test_receive_error_is_counted_and_repeated(void) {
    send_numbers(1);
    struct pollfd waiting = {.fd = b->poll_fd, .events = POLLIN};
    expect("waits", (uint64_t)poll(&waiting, 1, 2000), 1);
    PLAY(-ECONNREFUSED, -EHOSTUNREACH);
    r2p2_rx_packet packets[4];
    uint32_t count = b->rx_burst(b->self, packets, 4);
    expect("receive after errors", count, 1);
    b->rx_release(b->self, packets, count);
    expect("receive errors counted", b->counters->tx_drop_error, 2);
    int stuck[SCRIPT_MAX];
    for (int i = 0; i < SCRIPT_MAX; i++)
        stuck[i] = -EIO;
    play(stuck, SCRIPT_MAX);
    expect("a socket that only fails", b->rx_burst(b->self, packets, 4), 0);
    expect("is not asked for ever", (uint64_t)(calls < 16), 1);
}

static void test_broadcast_takes_the_same_care(void) {
    uint64_t before = a->counters->tx_drop_error;
    r2p2_port_target targets[3];
    uint8_t byte = 5;
    for (int i = 0; i < 3; i++)
        targets[i] = (r2p2_port_target){.ip = b->local_ip, .port = b->local_port};
    PLAY(1, -EPERM);
    a->tx_broadcast(a->self, &byte, 1, 0, targets, 3);
    expect("broadcast: received", receive_bits(), 1u << 5);
    expect("broadcast: counted", a->counters->tx_drop_error - before, 1);
}

static void test_a_whole_burst_is_one_message(void) {
    PLAY(64);
    send_numbers(64);
    expect("segmented: calls", (uint64_t)calls, 1);
    expect("segmented: received", receive_bits(), UINT64_MAX);
    expect("segmented: counted", a->counters->tx_packets, 64);
    expect("segmented: bytes", a->counters->tx_bytes, 64);
}

static void test_runs_become_messages(void) {
    static const uint32_t sizes[] = {2, 2, 1, 2, 2, 3, 3, 3, 1, 1};
    PLAY(64);
    send_sized(10, sizes); /* 2 2 1 | 2 2 | 3 3 3 1 | 1 */
    expect("runs: calls", (uint64_t)calls, 1);
    expect("runs: messages", messages_offered, 4);
    expect("runs: received", receive_bits(), 0x3FF);
    uint32_t longest[R2P2_BURST_MAX];
    for (uint32_t i = 0; i < R2P2_BURST_MAX; i++)
        longest[i] = R2P2_DATAGRAM_BYTES_MAX;
    PLAY(64);
    send_sized(R2P2_BURST_MAX, longest);
    expect("longest: calls", (uint64_t)calls, 1);
    expect("longest: messages", messages_offered, 2);
    expect("longest: received", receive_bits(), UINT64_MAX);
}

static void test_an_error_of_the_whole_costs_only_the_datagrams_that_fail(void) {
    PLAY(-EPERM, 1, 1, -EPERM);
    send_numbers(8);
    expect("whole refused: received", receive_bits(), 0xFF & ~4u);
    expect("whole refused: counted", a->counters->tx_drop_error, 1);
    PLAY(-EPERM);
    send_numbers(8);
    expect("whole refused once: received", receive_bits(), 0xFF);
    PLAY(1);
    send_numbers(8);
    expect("still segmenting: calls", (uint64_t)calls, 1);
    expect("still segmenting: received", receive_bits(), 0xFF);
}

static void test_a_full_buffer_drops_whole_messages(void) {
    PLAY(-EAGAIN, -EAGAIN, -EAGAIN);
    send_numbers(10);
    expect("full: calls", (uint64_t)calls, 3);
    expect("full: received", receive_bits(), 0);
    expect("full: dropped", a->counters->tx_drop_full, 10);
    PLAY(-EPERM, 1, -EAGAIN, -EAGAIN, -EAGAIN, 1);
    send_numbers(3);
    expect("full for one: received", receive_bits(), 5);
    expect("full for one: dropped", a->counters->tx_drop_full, 11);
}

static void test_segmentation_is_given_up_when_it_cannot_be(void) {
    PLAY(-EINVAL);
    send_numbers(8);
    expect("cannot cut: received", receive_bits(), 0xFF);
    PLAY(8);
    send_numbers(8);
    expect("given up: received", receive_bits(), 0xFF);
    PLAY(3);
    send_numbers(8);
    expect("given up: calls", (uint64_t)calls, 2);
    expect("given up: received", receive_bits(), 0xFF);
}

static uintptr_t open_port(uint32_t use_segmentation) {
    r2p2_udp_options options = {
        .rx_buffers_count = 64, .tx_buffers_count = 64, .use_segmentation = use_segmentation};
    int32_t error;
    uintptr_t opened = r2p2_udp_port_open(INADDR_LOOPBACK, 0, &options, &error);
    expect("opened", opened != 0, 1);
    return opened;
}

static void open_both(uint32_t use_segmentation) {
    a = (r2p2_port *)open_port(use_segmentation);
    b = (r2p2_port *)open_port(use_segmentation);
}

static void close_both(void) {
    expect("a's buffers are back", (uint64_t)r2p2_udp_port_close((uintptr_t)a), 0);
    expect("b's buffers are back", (uint64_t)r2p2_udp_port_close((uintptr_t)b), 0);
}

int main(void) {
    open_both(0);
    test_partial_send_goes_on();
    test_error_costs_its_datagram();
    test_unreachable_is_no_route();
    test_full_buffer_is_retried_then_dropped();
    test_interruption_is_nothing();
    test_receive_error_is_counted_and_repeated();
    test_broadcast_takes_the_same_care();
    close_both();
    open_both(1);
    test_a_whole_burst_is_one_message();
    test_runs_become_messages();
    test_an_error_of_the_whole_costs_only_the_datagrams_that_fail();
    test_a_full_buffer_drops_whole_messages();
    test_segmentation_is_given_up_when_it_cannot_be();
    close_both();
    puts("ok");
    return 0;
}
