/*
 * A tap on the engine: copies of what is received and sent, for a capture file. Off it costs one comparison a packet.
 *
 * Under load only so many packets a second are taken (a token bucket), elections and forming always; what is left out is
 * counted. A message is taken whole: who took its FIRST packet takes the others.
 * Python empties the buffer once a poll and writes the file.
 */
#ifndef R2P2_CAPTURE_H
#define R2P2_CAPTURE_H

#include "r2p2_engine_status.h"

#define R2P2_CAPTURE_BYTES (1u << 20)
#define R2P2_CAPTURE_MESSAGES 64u /* multi-packet messages being taken at a time; a power of two */

typedef struct r2p2_capture {
    uint8_t *records;
    uint64_t used;
    uint64_t missed; /* packets left out */
    uint64_t rate, tokens_ns, refilled_ns;
    uint32_t snap_bytes;
    uint64_t taking[R2P2_CAPTURE_MESSAGES]; /* keys of messages whose FIRST packet was taken; 0: none */
} r2p2_capture;

int r2p2_capture_start(r2p2_capture *capture, uint64_t rate, uint32_t snap_bytes, uint64_t now_ns);
void r2p2_capture_stop(r2p2_capture *capture);
void r2p2_capture_add(r2p2_capture *capture, uint64_t now_ns, uint32_t source_ip, uint16_t source_port, uint32_t target_ip,
                      uint16_t target_port, const uint8_t *data, uint32_t length);

#endif
