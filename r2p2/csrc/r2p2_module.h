/* What cffi's glue for r2p2._engine includes. */
#ifndef R2P2_MODULE_H
#define R2P2_MODULE_H

#include "r2p2_engine_status.h"
#include "r2p2_install.h"
#include "r2p2_loadgen.h"
#include "r2p2_null.h"
#include "r2p2_router.h"
#include "r2p2_steady.h"
#include "r2p2_time.h"

#endif
