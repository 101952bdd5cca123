/* The last error as a sentence, and the end of DPDK's log, kept in memory so that an error can quote it. */
#ifndef DPDK_BACKEND_LOG_H
#define DPDK_BACKEND_LOG_H

#include <stdint.h>

/* Keeps the sentence for dpdk_error_text(); returns -code for code > 0, so that callers can `return dpdk_fail(...)`. */
int32_t dpdk_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Leads DPDK's log here. echo != 0: to stderr as well. */
int dpdk_log_open(int echo);

#endif
