/* RESP requests. See r2p2_load_frame.h. */
#include "r2p2_load_frame.h"

#include <stdio.h>
#include <string.h>

#define KEY_ZEROS "000000000000"
#define HEAD_BYTES_MAX 96u

void r2p2_load_digits(uint8_t *out, uint32_t width, uint64_t value) {
    for (uint32_t i = width; i > 0; i--) {
        out[i - 1] = (uint8_t)('0' + value % 10);
        value /= 10;
    }
}

void r2p2_load_key(uint8_t *out, uint64_t key) {
    out[0] = 'k';
    r2p2_load_digits(out + 1, R2P2_LOAD_KEY_BYTES - 1, key);
}

static uint32_t digits_count(uint32_t value) {
    uint32_t count = 1;
    while (value >= 10) {
        value /= 10;
        count++;
    }
    return count;
}

void r2p2_load_frame_set(r2p2_load_frame *frame, uint32_t size) {
    if (size == frame->wanted_size) return;
    frame->wanted_size = size;
    char head[HEAD_BYTES_MAX];
    uint32_t fixed = (uint32_t)snprintf(head, sizeof head, "*3\r\n$3\r\nSET\r\n$%u\r\n" KEY_ZEROS "\r\n$", R2P2_LOAD_KEY_BYTES) + 4;
    /* The value's length is written in digits that count themselves. */
    uint32_t value_bytes = size - fixed - 1;
    while (fixed + digits_count(value_bytes) + value_bytes > size) value_bytes--;
    uint32_t n = (uint32_t)snprintf(head, sizeof head, "*3\r\n$3\r\nSET\r\n$%u\r\n" KEY_ZEROS "\r\n$%u\r\n", R2P2_LOAD_KEY_BYTES, value_bytes);
    memcpy(frame->bytes, head, n);
    memset(frame->bytes + n, '0', value_bytes);
    memcpy(frame->bytes + n + value_bytes, "\r\n", 2);
    frame->key_at = (uint32_t)(strstr(head, KEY_ZEROS) - head);
    frame->value_at = n;
    frame->value_bytes = value_bytes;
    frame->size = n + value_bytes + 2;
}

void r2p2_load_frame_get(r2p2_load_frame *frame) {
    char text[HEAD_BYTES_MAX];
    frame->size = (uint32_t)snprintf(text, sizeof text, "*2\r\n$3\r\nGET\r\n$%u\r\n" KEY_ZEROS "\r\n", R2P2_LOAD_KEY_BYTES);
    memcpy(frame->bytes, text, frame->size);
    frame->key_at = (uint32_t)(strstr(text, KEY_ZEROS) - text);
}

void r2p2_load_frame_fill(r2p2_load_frame *frame, uint64_t key, uint64_t version) {
    uint32_t width = frame->value_bytes < R2P2_LOAD_VERSION_DIGITS ? frame->value_bytes : R2P2_LOAD_VERSION_DIGITS;
    r2p2_load_key(frame->bytes + frame->key_at, key);
    r2p2_load_digits(frame->bytes + frame->value_at + frame->value_bytes - width, width, version);
}
