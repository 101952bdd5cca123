/* See gate.h. */
#define _GNU_SOURCE
#define ALLOW_EXPERIMENTAL_API
#include "gate.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <rte_errno.h>
#include <rte_interrupts.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

/* Far beyond any scheduling delay: after it the interrupt thread is taken to be stuck in a driver, and bursts go on. */
#define PARK_TIMEOUT_SECONDS 2
/* The first time there is nothing to go on with: where many processes share a core a new thread may wait for its turn. */
#define FIRST_PARK_TIMEOUT_SECONDS 20
#define CHANNELS_MAX 64
#define ROUNDS_MAX 4

static struct {
    struct rte_intr_handle *handle;
    sem_t go, parked;
    atomic_int is_closing;
    int fd;
    int users_count;
    int is_parked; /* as the polling thread knows it */
    struct pollfd channels[CHANNELS_MAX];
    nfds_t channels_count;
    int channels_overflow; /* more than are watched: every look is a round */
} gate;

static void wait_uninterrupted(sem_t *semaphore) {
    while (sem_wait(semaphore) != 0 && errno == EINTR) {
    }
}

/* On the interrupt thread, at the end of each of its rounds, since the event is never consumed. */
static void park(void *argument) {
    (void)argument;
    if (atomic_load(&gate.is_closing)) {
        uint64_t value;
        if (read(gate.fd, &value, sizeof value) < 0)
            return; /* consumed already */
        return;
    }
    sem_post(&gate.parked);
    wait_uninterrupted(&gate.go);
}

static int await_parked(int timeout_seconds) {
    struct timespec deadline;
    int status;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += timeout_seconds;
    do
        status = sem_clockwait(&gate.parked, CLOCK_MONOTONIC, &deadline);
    while (status != 0 && errno == EINTR);
    return status == 0;
}

int gate_acquire(void) {
    if (gate.users_count++ > 0)
        return 0;
    uint64_t one = 1;
    int status;
    gate.is_closing = 0;
    gate.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    gate.handle = rte_intr_instance_alloc(RTE_INTR_INSTANCE_F_PRIVATE);
    if (gate.fd < 0 || gate.handle == NULL || sem_init(&gate.go, 0, 0) != 0 || sem_init(&gate.parked, 0, 0) != 0 ||
        rte_intr_fd_set(gate.handle, gate.fd) != 0 || rte_intr_type_set(gate.handle, RTE_INTR_HANDLE_EXT) != 0) {
        status = dpdk_fail(ENOMEM, "the interrupt gate: no eventfd or no memory");
        goto failed;
    }
    status = rte_intr_callback_register(gate.handle, park, NULL);
    if (status < 0) {
        status = dpdk_fail(-status, "rte_intr_callback_register: %s", rte_strerror(-status));
        goto failed;
    }
    if (write(gate.fd, &one, sizeof one) != sizeof one ||
        !await_parked(FIRST_PARK_TIMEOUT_SECONDS)) {
        rte_intr_callback_unregister(gate.handle, park, NULL);
        status = dpdk_fail(ETIMEDOUT, "the interrupt gate: DPDK's interrupt thread does not answer");
        goto failed;
    }
    gate.is_parked = 1;
    return 0;
failed:
    gate.users_count = 0;
    if (gate.handle != NULL)
        rte_intr_instance_free(gate.handle);
    if (gate.fd >= 0)
        close(gate.fd);
    return status;
}

void gate_release(void) {
    if (gate.users_count == 0 || --gate.users_count > 0)
        return;
    atomic_store(&gate.is_closing, 1);
    sem_post(&gate.go);
    rte_intr_callback_unregister_sync(gate.handle, park, NULL);
    rte_intr_instance_free(gate.handle);
    close(gate.fd);
    sem_destroy(&gate.go);
    sem_destroy(&gate.parked);
}

void gate_watch(void) {
    gate.channels_count = 0;
    gate.channels_overflow = 0;
    DIR *directory = opendir("/proc/self/fd");
    if (directory == NULL) {
        gate.channels_overflow = 1;
        return;
    }
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        int fd = atoi(entry->d_name), value = 0;
        socklen_t length = sizeof value;
        if (entry->d_name[0] == '.' || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &length) != 0 || value != AF_UNIX)
            continue;
        length = sizeof value;
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &length) != 0 || value != SOCK_SEQPACKET)
            continue;
        if (gate.channels_count == CHANNELS_MAX) {
            gate.channels_overflow = 1;
            break;
        }
        gate.channels[gate.channels_count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    closedir(directory);
}

static int is_channel_waiting(void) {
    return gate.channels_overflow || poll(gate.channels, gate.channels_count, 0) != 0;
}

void gate_poll(void) {
    if (gate.users_count == 0)
        return;
    /* The interrupt thread may have parked with a list of events older than the channel's, so one round may not be enough. */
    for (int round = 0; round < ROUNDS_MAX && is_channel_waiting(); round++) {
        if (gate.is_parked) {
            sem_post(&gate.go);
            gate.is_parked = await_parked(PARK_TIMEOUT_SECONDS);
        } else { /* it was stuck: no second wait, only a look whether it has come back */
            gate.is_parked = sem_trywait(&gate.parked) == 0;
        }
        gate_watch();
    }
}
