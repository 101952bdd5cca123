/* enum r2p2_status and the structs Python sees, with a guard around the plain file that cffi parses. */
#ifndef R2P2_ENGINE_STATUS_H
#define R2P2_ENGINE_STATUS_H

#include <stddef.h>
#include <stdint.h>

#include "r2p2_limits.h"

#include "r2p2_engine_api.h"

#endif
