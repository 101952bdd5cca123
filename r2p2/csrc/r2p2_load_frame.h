/*
 * RESP requests of the load generator: SET and GET of keys "k00000000042", values that are versions in digits. A frame is written once and
 * then only its key and version; another size writes it anew.
 */
#ifndef R2P2_LOAD_FRAME_H
#define R2P2_LOAD_FRAME_H

#include <stdint.h>

#define R2P2_LOAD_KEY_BYTES 12u
#define R2P2_LOAD_SET_BYTES_MIN 48u
#define R2P2_LOAD_VERSION_DIGITS 19u

typedef struct r2p2_load_frame {
    uint8_t *bytes;
    uint32_t size; /* of the whole request */
    uint32_t wanted_size;
    uint32_t key_at, value_at, value_bytes;
} r2p2_load_frame;

/* The largest SET of at most `size` bytes (48 or more; a few sizes do not exist, such as 48 itself). `bytes` has room for it. */
void r2p2_load_frame_set(r2p2_load_frame *frame, uint32_t size);
void r2p2_load_frame_get(r2p2_load_frame *frame);
/* Writes a number as so many decimal digits. */
void r2p2_load_digits(uint8_t *out, uint32_t width, uint64_t value);
/* Writes the 12 bytes of a key. */
void r2p2_load_key(uint8_t *out, uint64_t key);
/* Puts key and version into a SET. */
void r2p2_load_frame_fill(r2p2_load_frame *frame, uint64_t key, uint64_t version);

#endif
