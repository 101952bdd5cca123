/* The null responder. See r2p2_null_api.h. */
#include "r2p2_null.h"

#include <poll.h>
#include <sched.h>

#include "r2p2_engine_status.h"
#include "r2p2_port.h"
#include "r2p2_wire.h"

#define IDLE_POLL_MS 1
#define SESSION_ID 1u
#define STATUS_WORD "\0r2p2-status"
#define STATUS_BYTES (sizeof STATUS_WORD - 1)

/* Writes the answer to a request; its length, 0 for what is none. */
static uint32_t answer(const r2p2_rx_packet *packet, uint8_t *out) {
    r2p2_header header;
    if (r2p2_header_parse(packet->data, packet->length, &header) != R2P2_HEADER_OK) return 0;
    if (header.type != R2P2_TYPE_REQUEST || !header.is_first || !header.is_last) return 0;
    const uint8_t *payload = packet->data + header.header_size;
    uint32_t bytes = packet->length - header.header_size, at = R2P2_HEADER_BYTES;
    r2p2_header_write(out, R2P2_TYPE_RESPONSE, R2P2_POLICY_FIXED_ROUTE, 1, 1, header.rid, 1);
    if (header.has_session) {
        r2p2_session_extension extension = r2p2_session_read(packet->data + R2P2_HEADER_BYTES);
        extension.oldest_pending = 0;
        out[1] = R2P2_SESSION_HEADER_BYTES;
        r2p2_session_write(out + at, &extension);
        at = R2P2_SESSION_HEADER_BYTES;
        if (extension.client_id == 0) {
            r2p2_store_u64(out + at, SESSION_ID);
            return at + 8;
        }
    }
    if (bytes >= 2 && payload[0] == '*' && (payload[1] == '3' || payload[1] == '2')) {
        memcpy(out + at, payload[1] == '3' ? "+OK\r\n" : "$-1\r\n", 5);
        return at + 5;
    }
    if (bytes == STATUS_BYTES && memcmp(payload, STATUS_WORD, STATUS_BYTES) == 0) {
        memcpy(out + at, "{}", 2);
        return at + 2;
    }
    memcpy(out + at, payload, bytes);
    return at + bytes;
}

static uint32_t answer_burst(r2p2_port *port, r2p2_null_counts *counts) {
    r2p2_rx_packet rx[R2P2_BURST_MAX];
    r2p2_tx_packet tx[R2P2_BURST_MAX];
    uint32_t received = port->rx_burst(port->self, rx, R2P2_BURST_MAX);
    if (received == 0) return 0;
    uint32_t reserved = port->tx_reserve(port->self, tx, received), used = 0;
    for (uint32_t i = 0; i < received && used < reserved; i++) {
        uint32_t length = answer(&rx[i], tx[used].data);
        if (length == 0) continue;
        tx[used].length = length;
        tx[used].target_ip = rx[i].source_ip;
        tx[used].target_port = rx[i].source_port;
        tx[used].local_port = rx[i].local_port;
        used++;
    }
    for (uint32_t i = used; i < reserved; i++) tx[i].length = 0;
    port->tx_commit(port->self, tx, reserved);
    port->rx_release(port->self, rx, received);
    counts->answered += used;
    counts->ignored += received - used;
    counts->bursts++;
    return received;
}

int32_t r2p2_null_run(uintptr_t port_address, uint64_t duration_ns, r2p2_null_counts *counts) {
    r2p2_port *port = (r2p2_port *)port_address;
    if (port->abi != R2P2_PORT_ABI || port->struct_size != sizeof *port) return R2P2_ERROR_ARGUMENT;
    uint64_t end_ns = port->now_ns(port->self) + duration_ns;
    do {
        if (answer_burst(port, counts)) continue;
        if (port->poll_fd < 0) {
            sched_yield();
            continue;
        }
        struct pollfd wait = {.fd = port->poll_fd, .events = POLLIN};
        poll(&wait, 1, IDLE_POLL_MS);
    } while (port->now_ns(port->self) < end_ns);
    return R2P2_OK;
}
