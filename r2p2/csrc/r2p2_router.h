/* The router's interface with a guard around the plain file that cffi parses. */
#ifndef R2P2_ROUTER_H
#define R2P2_ROUTER_H

#include "r2p2_engine_status.h"

#include "r2p2_router_api.h"

#endif
