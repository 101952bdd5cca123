/* See gate.h. */
#define _GNU_SOURCE
#define ALLOW_EXPERIMENTAL_API
#include "gate.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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
/* Of file descriptors that are looked at; a new one takes the lowest number that is free. */
#define DESCRIPTORS_MAX 1024

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
    /* Listening sockets, by our own descriptor of each; what the driver has under its number is `never` but for a moment. */
    struct pollfd listeners[CHANNELS_MAX];
    int driver_fds[CHANNELS_MAX];
    nfds_t listeners_count;
    uint8_t is_open[DESCRIPTORS_MAX]; /* as of the last gate_watch */
    int descriptors_count;            /* one past the highest that was open then */
    int never;                        /* an event that never comes */
    struct rte_intr_handle *probe;
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
    gate.listeners_count = 0;
    gate.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    gate.never = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    gate.handle = rte_intr_instance_alloc(RTE_INTR_INSTANCE_F_PRIVATE);
    gate.probe = rte_intr_instance_alloc(RTE_INTR_INSTANCE_F_PRIVATE);
    if (gate.fd < 0 || gate.never < 0 || gate.handle == NULL || gate.probe == NULL || rte_intr_type_set(gate.probe, RTE_INTR_HANDLE_EXT) != 0 || sem_init(&gate.go, 0, 0) != 0 || sem_init(&gate.parked, 0, 0) != 0 ||
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
        /* It may be about to park: let it pass, or its list would hold what is closed below. */
        atomic_store(&gate.is_closing, 1);
        sem_post(&gate.go);
        rte_intr_callback_unregister_sync(gate.handle, park, NULL);
        status = dpdk_fail(ETIMEDOUT, "the interrupt gate: DPDK's interrupt thread does not answer");
        goto failed;
    }
    gate.is_parked = 1;
    return 0;
failed:
    gate.users_count = 0;
    rte_intr_instance_free(gate.handle); /* NULL is fine */
    rte_intr_instance_free(gate.probe);
    if (gate.fd >= 0)
        close(gate.fd);
    if (gate.never >= 0)
        close(gate.never);
    return status;
}

static void forget_listeners(void) {
    for (nfds_t i = 0; i < gate.listeners_count; i++)
        close(gate.listeners[i].fd);
    gate.listeners_count = 0;
}

void gate_release(void) {
    if (gate.users_count == 0 || --gate.users_count > 0)
        return;
    atomic_store(&gate.is_closing, 1);
    sem_post(&gate.go);
    rte_intr_callback_unregister_sync(gate.handle, park, NULL);
    rte_intr_instance_free(gate.handle);
    rte_intr_instance_free(gate.probe);
    forget_listeners(); /* nobody can call any more; the driver's numbers stay taken, for it never closes them */
    close(gate.never);
    close(gate.fd);
    sem_destroy(&gate.go);
    sem_destroy(&gate.parked);
}

static int socket_option(int fd, int option) {
    int value = -1;
    socklen_t length = sizeof value;
    return getsockopt(fd, SOL_SOCKET, option, &value, &length) == 0 ? value : -1;
}

static int is_known_listener(int fd) {
    for (nfds_t i = 0; i < gate.listeners_count; i++)
        if (gate.listeners[i].fd == fd || gate.driver_fds[i] == fd)
            return 1;
    return 0;
}

/* Puts something that never has an event where the driver has its listening sockets, or the sockets back. */
static void set_listening(int is_listening) {
    for (nfds_t i = 0; i < gate.listeners_count; i++)
        (void)dup3(is_listening ? gate.listeners[i].fd : gate.never, gate.driver_fds[i], O_CLOEXEC);
}

static void take_listener(int fd) {
    if (gate.listeners_count == CHANNELS_MAX)
        return; /* the driver keeps it to itself */
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0)
        return;
    gate.listeners[gate.listeners_count] = (struct pollfd){.fd = own, .events = POLLIN};
    gate.driver_fds[gate.listeners_count++] = fd;
    (void)dup3(gate.never, fd, O_CLOEXEC);
}

void gate_watch(void) {
    int listeners[CHANNELS_MAX], listeners_count = 0;
    gate.channels_count = 0;
    gate.channels_overflow = 0;
    gate.descriptors_count = 0;
    memset(gate.is_open, 0, sizeof gate.is_open);
    DIR *directory = gate.users_count > 0 ? opendir("/proc/self/fd") : NULL;
    if (directory == NULL) {
        gate.channels_overflow = 1;
        return;
    }
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || fd == dirfd(directory))
            continue;
        if (fd < DESCRIPTORS_MAX) {
            gate.is_open[fd] = 1;
            gate.descriptors_count = fd >= gate.descriptors_count ? fd + 1 : gate.descriptors_count;
        }
        if (socket_option(fd, SO_DOMAIN) != AF_UNIX || socket_option(fd, SO_TYPE) != SOCK_SEQPACKET)
            continue;
        if (socket_option(fd, SO_ACCEPTCONN) == 1) {
            if (listeners_count < CHANNELS_MAX && !is_known_listener(fd))
                listeners[listeners_count++] = fd;
        } else if (gate.channels_count == CHANNELS_MAX) {
            gate.channels_overflow = 1;
        } else {
            gate.channels[gate.channels_count++] = (struct pollfd){.fd = fd, .events = POLLIN};
        }
    }
    closedir(directory);
    for (int i = 0; i < listeners_count; i++)
        take_listener(listeners[i]);
}

static int is_channel_waiting(void) {
    return gate.channels_overflow || poll(gate.channels, gate.channels_count, 0) != 0;
}

static int is_caller_waiting(void) { return poll(gate.listeners, gate.listeners_count, 0) > 0; }

/* Lets the interrupt thread go on until it parks again. 0: it did not in time. */
static int let_round(void) {
    if (gate.is_parked) {
        sem_post(&gate.go);
        gate.is_parked = await_parked(PARK_TIMEOUT_SECONDS);
    } else { /* it was stuck: no second wait, only a look whether it has come back */
        gate.is_parked = sem_trywait(&gate.parked) == 0;
    }
    return gate.is_parked;
}

static void no_such_callback(void *argument) { (void)argument; }

/* Whether the interrupt thread has this descriptor on its list: taking away a callback that was never added tells. */
static int is_on_list(int fd) {
    if (rte_intr_fd_set(gate.probe, fd) != 0)
        return 0;
    int status = rte_intr_callback_unregister(gate.probe, no_such_callback, NULL);
    return status == 0 || status == -EAGAIN;
}

/* Tells the interrupt thread to go through its list anew: any such call does, but for the callback in which it is parked. */
static void ask_list_anew(void) { (void)is_on_list(gate.driver_fds[0]); }

static int let_list_anew(void) {
    ask_list_anew();
    return let_round() && let_round();
}

/*
 * A client that was gone again before its call was taken (killed, say): the driver closes the socket and forgets it, but leaves it on
 * the interrupt thread's list, and when that thread next goes through the list it panics and ends the process. So a descriptor that is
 * on the list and closed gets something to stand for it. It stays: the function that would have to be named to take it off the list is
 * the driver's own. Returns how many there were.
 */
static uint32_t plug_closed_descriptors(void) {
    uint32_t count = 0;
    int end = gate.descriptors_count + 1 < DESCRIPTORS_MAX ? gate.descriptors_count + 1 : DESCRIPTORS_MAX;
    for (int fd = 0; fd < end; fd++) {
        if (gate.is_open[fd] || !is_on_list(fd))
            continue;
        int placed = fcntl(gate.never, F_DUPFD_CLOEXEC, fd);
        if (placed >= 0 && placed != fd)
            close(placed); /* another thread has opened something there meanwhile */
        count++;
    }
    return count;
}

/*
 * Lets the driver take calls, of one client a listener at most, so that a socket which it leaves behind closed can be plugged before the
 * interrupt thread goes through its list again. That thread is parked between the two when, and only when, it has not been told to do so
 * before it takes the call: every batch of its events has our own in it, before the one that tells it to. Hence a fresh list first, and
 * no call while a control channel has something to say, for that may change the list.
 */
static uint32_t take_calls(void) {
    uint32_t abandoned = 0;
    nfds_t before;
    if (!let_list_anew())
        return 0;
    set_listening(1);
    ask_list_anew();
    gate_watch();
    before = gate.channels_count;
    for (int round = 0; round < ROUNDS_MAX && !is_channel_waiting() && is_caller_waiting(); round++) {
        if (!let_round())
            break;
        gate_watch();
        abandoned = plug_closed_descriptors();
        if (abandoned > 0 || gate.channels_count != before)
            break;
    }
    set_listening(0);
    (void)let_list_anew();
    gate_watch();
    return abandoned;
}

uint32_t gate_poll(void) {
    uint32_t abandoned = 0;
    if (gate.users_count == 0)
        return 0;
    /* The interrupt thread may have parked with a list of events older than the channel's, so one round may not be enough. */
    for (int round = 0; round < ROUNDS_MAX && is_channel_waiting(); round++) {
        (void)let_round();
        gate_watch();
    }
    if (gate.listeners_count > 0 && is_caller_waiting())
        abandoned = take_calls();
    return abandoned;
}
