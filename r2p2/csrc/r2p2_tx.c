/* Sending. See r2p2_tx.h. */
#include "r2p2_tx.h"

void r2p2_tx_flush(r2p2_tx *tx) {
    uint32_t filled = tx->filled_count, left = tx->reserved_count - filled;
    if (filled == 0) return;
    if (tx->capture)
        for (uint32_t i = 0; i < filled; i++) {
            const r2p2_tx_packet *p = &tx->packets[i];
            r2p2_capture_add(tx->capture, *tx->now_ns, p->source_ip ? p->source_ip : tx->port->local_ip,
                             p->local_port ? p->local_port : tx->port->local_port, p->target_ip, p->target_port, p->data, p->length);
        }
    tx->port->tx_commit(tx->port->self, tx->packets, filled);
    if (left) memmove(tx->packets, tx->packets + filled, left * sizeof tx->packets[0]);
    tx->reserved_count = left;
    tx->filled_count = 0;
}

void r2p2_tx_close(r2p2_tx *tx) {
    r2p2_tx_flush(tx);
    for (uint32_t i = 0; i < tx->reserved_count; i++) tx->packets[i].length = 0;
    if (tx->reserved_count) tx->port->tx_commit(tx->port->self, tx->packets, tx->reserved_count);
    tx->reserved_count = 0;
}

r2p2_tx_packet *r2p2_tx_next(r2p2_tx *tx) {
    if (tx->filled_count == tx->reserved_count) {
        if (tx->filled_count == R2P2_BURST_MAX) r2p2_tx_flush(tx);
        uint32_t want = R2P2_BURST_MAX - tx->reserved_count;
        uint32_t got = tx->port->tx_reserve(tx->port->self, tx->packets + tx->reserved_count, want);
        if (got == 0 && tx->filled_count > 0) { /* what we hold may be all there is: let it go and ask again */
            r2p2_tx_flush(tx);
            got = tx->port->tx_reserve(tx->port->self, tx->packets + tx->reserved_count,
                                       R2P2_BURST_MAX - tx->reserved_count);
        }
        tx->reserved_count += got;
        if (got == 0) {
            tx->counters->tx_drop_no_buffer++;
            return NULL;
        }
    }
    return &tx->packets[tx->filled_count++];
}

uint32_t r2p2_tx_packets_count(uint64_t bytes, int is_request) {
    if (bytes <= R2P2_PAYLOAD_BYTES_MAX) return 1;
    if (bytes > (is_request ? R2P2_REQUEST_BYTES_MAX : R2P2_MESSAGE_BYTES_MAX)) return 0;
    if (is_request) return 1 + (uint32_t)((bytes - R2P2_FIRST_PAYLOAD_BYTES + R2P2_PAYLOAD_BYTES_MAX - 1) / R2P2_PAYLOAD_BYTES_MAX);
    return (uint32_t)((bytes + R2P2_PAYLOAD_BYTES_MAX - 1) / R2P2_PAYLOAD_BYTES_MAX);
}

/* Fills one packet of a multi-packet message. */
static void packet_fill(r2p2_tx *tx, r2p2_tx_packet *packet, uint8_t type, uint8_t policy, uint16_t rid, r2p2_tx_address to,
                        uint32_t index, uint32_t count, const r2p2_tx_source *source, uint64_t offset, uint32_t bytes) {
    uint8_t *out = packet->data;
    r2p2_header_write(out, type, policy, index == 0, index + 1 == count, rid, (uint16_t)(index == 0 ? count : index));
    out += R2P2_HEADER_BYTES;
    packet->length = R2P2_HEADER_BYTES + bytes;
    if (index == 0 && source->extension) {
        packet->data[1] = R2P2_SESSION_HEADER_BYTES;
        memcpy(out, source->extension, R2P2_SESSION_BYTES);
        out += R2P2_SESSION_BYTES;
        packet->length += R2P2_SESSION_BYTES;
    }
    packet->target_ip = to.ip;
    packet->target_port = to.port;
    packet->local_port = to.local_port;
    if (offset < source->head_bytes) {
        uint64_t n = source->head_bytes - offset;
        if (n > bytes) n = bytes;
        memcpy(out, source->head + offset, n);
        out += n;
        offset += n;
        bytes -= (uint32_t)n;
    }
    if (bytes) r2p2_log_read(source->log, source->log_position + (offset - source->head_bytes), out, bytes);
}

void r2p2_tx_message(r2p2_tx *tx, uint8_t type, uint8_t policy, uint16_t rid, r2p2_tx_address to,
                     const r2p2_tx_source *source) {
    uint64_t bytes = source->head_bytes + source->log_bytes, extension = source->extension ? R2P2_SESSION_BYTES : 0;
    uint32_t count = r2p2_tx_packets_count(bytes + extension, 0);
    for (uint32_t i = 0; i < count; i++) {
        r2p2_tx_packet *packet = r2p2_tx_next(tx);
        if (!packet) return; /* counted; the message is lost as a whole, like any other datagram */
        uint64_t offset = i ? i * (uint64_t)R2P2_PAYLOAD_BYTES_MAX - extension : 0, left = bytes - offset;
        uint64_t room = R2P2_PAYLOAD_BYTES_MAX - (i ? 0 : extension);
        packet_fill(tx, packet, type, policy, rid, to, i, count, source, offset, (uint32_t)(left < room ? left : room));
    }
    tx->counters->tx_messages++;
}

void r2p2_tx_request_packets(r2p2_tx *tx, uint8_t policy, uint16_t rid, r2p2_tx_address to, const uint8_t *extension,
                             const uint8_t *payload, uint64_t bytes, uint32_t first, uint32_t last) {
    uint32_t count = r2p2_tx_request_packets_count(bytes, extension != NULL);
    r2p2_tx_source source = {.extension = extension, .head = payload, .head_bytes = bytes};
    for (uint32_t i = first; i <= last && i < count; i++) {
        r2p2_tx_packet *packet = r2p2_tx_next(tx);
        if (!packet) return;
        uint64_t offset = i == 0 ? 0 : R2P2_FIRST_PAYLOAD_BYTES + (uint64_t)(i - 1) * R2P2_PAYLOAD_BYTES_MAX;
        uint64_t left = bytes - offset, n = i == 0 ? R2P2_FIRST_PAYLOAD_BYTES : R2P2_PAYLOAD_BYTES_MAX;
        packet_fill(tx, packet, R2P2_TYPE_REQUEST, policy, rid, to, i, count, &source, offset,
                    (uint32_t)(left < n ? left : n));
    }
    if (first == 0) tx->counters->tx_messages++;
}
