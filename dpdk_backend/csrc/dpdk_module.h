/* What cffi's glue includes: the declarations of dpdk_api.h, for C. */
#ifndef DPDK_BACKEND_MODULE_H
#define DPDK_BACKEND_MODULE_H

#include <stdint.h>

#include "dpdk_api.h"

#endif
