/* The one header of uv_backend._udp: everything its C files share, and what cffi's glue includes. */
#ifndef UDP_MODULE_H
#define UDP_MODULE_H

#include <stdint.h>

#include "r2p2_limits.h"
#include "r2p2_port.h"

#include "udp_api.h"

#define UDP_MESSAGE_BYTES_MAX 65507u

#endif
