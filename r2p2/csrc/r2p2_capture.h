/*
 * A tap on the engine: copies of what is received and sent, for a capture file. Off it costs one comparison a packet.
 *
 * Under load only so many packets a second are taken (a token bucket; the emptier, the fewer), and of elections and forming as many again: all of them, unless
 * somebody forges them. What is left out is counted. A message is taken whole: who took its FIRST packet takes the others, once each,
 * on credit.
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
    uint64_t rate, refilled_ns;
    int64_t tokens_ns;      /* at most a second; below 0 while the rest of messages is paid off */
    int64_t rare_tokens_ns; /* 0..a second: for elections and forming once tokens_ns is used up */
    uint32_t snap_bytes;
    uint32_t draw; /* of the numbers that say who is taken */
    struct r2p2_capture_message {
        uint64_t key; /* 0: none */
        uint32_t packets_left;
    } taking[R2P2_CAPTURE_MESSAGES]; /* whose FIRST packet was taken */
} r2p2_capture;

int r2p2_capture_start(r2p2_capture *capture, uint64_t rate, uint32_t snap_bytes, uint64_t now_ns);
void r2p2_capture_stop(r2p2_capture *capture);
void r2p2_capture_add(r2p2_capture *capture, uint64_t now_ns, uint32_t source_ip, uint16_t source_port, uint32_t target_ip,
                      uint16_t target_port, const uint8_t *data, uint32_t length);

#endif
