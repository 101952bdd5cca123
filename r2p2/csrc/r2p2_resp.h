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

/* Reads "<marker><decimal>\r\n" at data[*at]; no sign, no leading zero, at most 9 digits. Returns 0 when it is not that. */
static inline int r2p2_resp_number(const uint8_t *data, size_t length, size_t *at, uint8_t marker, uint32_t *value) {
    size_t i = *at;
    if (i + 4 > length || data[i] != marker) return 0;
    i++;
    uint32_t v = (uint32_t)data[i] - '0';
    if (v > 9) return 0;
    i++;
    if (v == 0) {
        if (data[i] != '\r') return 0;
    } else {
        size_t digits = 1;
        for (; i < length && data[i] != '\r'; i++) {
            uint32_t d = (uint32_t)data[i] - '0';
            if (d > 9 || ++digits > 9) return 0;
            v = v * 10 + d;
        }
    }
    if (i + 2 > length || data[i + 1] != '\n') return 0;
    *at = i + 2;
    *value = v;
    return 1;
}

int r2p2_resp_whole(const uint8_t *data, size_t length);

#endif
