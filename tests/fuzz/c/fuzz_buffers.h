/*
 * The buffers of a fuzzer's port: each datagram in an allocation of its own, so that sanitizers see what is read or written beyond it,
 * and books of who holds them. A fuzzer's port has these first.
 */
#ifndef FUZZ_BUFFERS_H
#define FUZZ_BUFFERS_H

#include <stdlib.h>

#include "r2p2_port.h"
#include "r2p2_wire.h"

typedef struct fuzz_buffers {
    r2p2_port port;
    uint32_t out_rx, out_tx; /* buffers with the engine */
    uint32_t tx_budget;      /* reserve gives no more than this at once: 0 is a port without buffers */
} fuzz_buffers;

static void rx_release(void *port, r2p2_rx_packet *packets, uint32_t count) {
    ((fuzz_buffers *)port)->out_rx -= count;
    for (uint32_t i = 0; i < count; i++) free(packets[i].owner);
}

static uint32_t tx_reserve(void *port, r2p2_tx_packet *packets, uint32_t count) {
    fuzz_buffers *self = port;
    if (count > self->tx_budget) count = self->tx_budget;
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *data = malloc(R2P2_DATAGRAM_BYTES_MAX);
        packets[i] = (r2p2_tx_packet){.data = data, .owner = data};
    }
    self->out_tx += count;
    return count;
}

#endif
