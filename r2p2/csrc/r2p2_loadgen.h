/* The load generator's interface with a guard around the plain file that cffi parses. */
#ifndef R2P2_LOADGEN_H
#define R2P2_LOADGEN_H

#include "r2p2_engine_status.h"

#include "r2p2_loadgen_api.h"

#endif
