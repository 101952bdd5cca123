/*
 * RESP framing, not RESP: is a request exactly one array of bulk strings, to the last byte?
 *
 * A batch of requests is parsed as one stream by a library. That is only sound when every request ends where its own
 * command ends; otherwise the bytes of one request would run into the next, and since batch borders differ between
 * replicas, so would their states (docs/adr/0004). What the commands mean stays with the library and the application.
 */
#ifndef R2P2_RESP_H
#define R2P2_RESP_H

#include <stddef.h>
#include <stdint.h>

int r2p2_resp_whole(const uint8_t *data, size_t length);

#endif
