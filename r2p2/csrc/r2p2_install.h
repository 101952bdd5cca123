/* Calls for configurations and snapshots, with a guard around the plain file that cffi parses. */
#ifndef R2P2_INSTALL_H
#define R2P2_INSTALL_H

#include "r2p2_engine_status.h"

#include "r2p2_install_api.h"

#endif
