/* RESP framing check: a pure function over bytes. See r2p2_resp.h. */
#include "r2p2_resp.h"

int r2p2_resp_whole(const uint8_t *data, size_t length) {
    size_t at = 0;
    uint32_t count, bytes;
    if (!r2p2_resp_number(data, length, &at, '*', &count) || count == 0) return 0;
    for (uint32_t i = 0; i < count; i++) {
        if (!r2p2_resp_number(data, length, &at, '$', &bytes)) return 0;
        if (length - at < (size_t)bytes + 2) return 0;
        at += bytes;
        if (data[at] != '\r' || data[at + 1] != '\n') return 0;
        at += 2;
    }
    return at == length;
}
