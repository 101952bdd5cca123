/*
 * The EAL: DPDK's process-wide environment. It starts once a process, ever; this file remembers in which state it is.
 * Leaves to others: which arguments to pass and what a failure means to a user (eal.py).
 */
#include <errno.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_version.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dpdk_module.h"
#include "log.h"

#define ARGUMENTS_MAX 128

_Static_assert(RTE_VERSION >= RTE_VERSION_NUM(22, 11, 0, 0), "DPDK 22.11 or newer: its names of flags and offloads");

static int32_t eal_state = DPDK_EAL_NOT_STARTED;

const char *dpdk_version_text(void) { return rte_version(); }
int32_t dpdk_eal_state(void) { return eal_state; }
int32_t dpdk_eal_has_hugepages(void) { return rte_eal_has_hugepages(); }
uint64_t dpdk_tsc(void) { return rte_rdtsc(); }
uint64_t dpdk_tsc_hz(void) { return eal_state == DPDK_EAL_RUNNING ? rte_get_tsc_hz() : 0; }

int32_t dpdk_eal_start(int32_t argc, char **argv, int32_t echo_log) {
    /* DPDK keeps pointers into argv and reorders it: it gets a copy of its own that is never freed. */
    static char *arguments[ARGUMENTS_MAX + 1];
    if (eal_state != DPDK_EAL_NOT_STARTED)
        return dpdk_fail(EALREADY, "rte_eal_init: the EAL starts once a process, and it was started before");
    if (argc < 1 || argc > ARGUMENTS_MAX)
        return dpdk_fail(E2BIG, "rte_eal_init: %d arguments, at most %d", argc, ARGUMENTS_MAX);
    for (int32_t i = 0; i < argc; i++) {
        arguments[i] = strdup(argv[i]);
        if (arguments[i] == NULL)
            return dpdk_fail(ENOMEM, "rte_eal_init: no memory for its arguments");
    }
    int32_t status = dpdk_log_open(echo_log);
    if (status < 0)
        return status;
    rte_errno = 0;
    if (rte_eal_init(argc, arguments) < 0) {
        eal_state = DPDK_EAL_FAILED;
        return dpdk_fail(rte_errno ? rte_errno : EINVAL, "rte_eal_init: %s",
                         rte_errno ? rte_strerror(rte_errno) : "refused its arguments");
    }
    eal_state = DPDK_EAL_RUNNING;
    return 0;
}

int32_t dpdk_eal_stop(void) {
    if (eal_state != DPDK_EAL_RUNNING)
        return dpdk_fail(EINVAL, "rte_eal_cleanup: the EAL is not running");
    eal_state = DPDK_EAL_STOPPED;
    int status = rte_eal_cleanup();
    return status < 0 ? dpdk_fail(-status, "rte_eal_cleanup: %s", rte_strerror(-status)) : 0;
}
