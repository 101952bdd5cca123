/* RESP framing check: a pure function over bytes. See r2p2_resp.h. */
#include "r2p2_resp.h"

/* Reads "<marker><decimal>\r\n" at data[*at]; no sign, no leading zero, at most 9 digits. Returns 0 when it is not that. */
static inline int number(const uint8_t *data, size_t length, size_t *at, uint8_t marker, uint32_t *value) {
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

int r2p2_resp_whole(const uint8_t *data, size_t length) {
    size_t at = 0;
    uint32_t count, bytes;
    if (!number(data, length, &at, '*', &count) || count == 0) return 0;
    for (uint32_t i = 0; i < count; i++) {
        if (!number(data, length, &at, '$', &bytes)) return 0;
        if (length - at < (size_t)bytes + 2) return 0;
        at += bytes;
        if (data[at] != '\r' || data[at + 1] != '\n') return 0;
        at += 2;
    }
    return at == length;
}
