/*
 * The last error as a sentence, and the end of DPDK's log.
 *
 * DPDK says most of its reasons only in its log, often from its own threads; the last few kilobytes are kept here, so that a
 * Python exception can quote them. Leaves to others: what an error means to a user (eal.py).
 */
#define _GNU_SOURCE
#include "log.h"

#include <errno.h>
#include <pthread.h>
#include <rte_log.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "dpdk_module.h"

#define LOG_BYTES 8192u

static __thread char error_text[512];

static struct {
    pthread_mutex_t lock;
    char bytes[LOG_BYTES]; /* a ring: byte i of the log lies at i % LOG_BYTES */
    uint64_t written;
    int echo;
} log_ring = {.lock = PTHREAD_MUTEX_INITIALIZER};

int32_t dpdk_fail(int code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error_text, sizeof error_text, format, arguments);
    va_end(arguments);
    return code > 0 ? -code : -EIO;
}

const char *dpdk_error_text(void) { return error_text; }

static ssize_t log_write(void *cookie, const char *text, size_t size) {
    (void)cookie;
    pthread_mutex_lock(&log_ring.lock);
    for (size_t i = 0; i < size; i++)
        log_ring.bytes[log_ring.written++ % LOG_BYTES] = text[i];
    /* rte_panic says why it aborts here, and nobody could read it afterwards. */
    int echo = log_ring.echo || rte_log_cur_msg_loglevel() <= (int)RTE_LOG_CRIT;
    pthread_mutex_unlock(&log_ring.lock);
    if (echo && write(STDERR_FILENO, text, size) < 0)
        return (ssize_t)size; /* a closed stderr is no reason to lose the log */
    return (ssize_t)size;
}

int dpdk_log_open(int echo) {
    cookie_io_functions_t functions = {.write = log_write};
    log_ring.echo = echo;
    FILE *stream = fopencookie(NULL, "w", functions);
    if (stream == NULL)
        return dpdk_fail(errno, "fopencookie: %s", strerror(errno));
    setvbuf(stream, NULL, _IOLBF, 0);
    if (rte_openlog_stream(stream) != 0)
        return dpdk_fail(EIO, "rte_openlog_stream failed");
    return 0;
}

uint64_t dpdk_log_tail(char *out, uint64_t size) {
    if (size == 0)
        return 0;
    pthread_mutex_lock(&log_ring.lock);
    uint64_t kept = log_ring.written < LOG_BYTES ? log_ring.written : LOG_BYTES;
    if (kept > size - 1)
        kept = size - 1;
    for (uint64_t i = 0; i < kept; i++)
        out[i] = log_ring.bytes[(log_ring.written - kept + i) % LOG_BYTES];
    pthread_mutex_unlock(&log_ring.lock);
    out[kept] = 0;
    return kept;
}
