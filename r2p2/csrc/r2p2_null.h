/* The null responder's interface with a guard around the plain file that cffi parses. */
#ifndef R2P2_NULL_H
#define R2P2_NULL_H

#include <stdint.h>

#include "r2p2_null_api.h"

#endif
