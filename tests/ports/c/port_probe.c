/* See port_probe.h. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "r2p2_limits.h"
#include "r2p2_port.h"

#include "port_probe.h"

struct probe {
    r2p2_port *port;
    uint32_t received_count;
    uint32_t reserved_count;
    r2p2_rx_packet received[PROBE_HELD_MAX];
    r2p2_tx_packet reserved[PROBE_HELD_MAX];
};

probe *probe_new(uintptr_t port_address) {
    r2p2_port *port = (r2p2_port *)port_address;
    if (port->abi != R2P2_PORT_ABI || port->struct_size != sizeof *port)
        return NULL;
    probe *self = calloc(1, sizeof *self);
    if (self != NULL)
        self->port = port;
    return self;
}

void probe_free(probe *self) { free(self); }

uint32_t probe_send(probe *self, const probe_datagram *datagrams, const uint8_t *slab, uint32_t count) {
    r2p2_tx_packet packets[R2P2_BURST_MAX];
    if (count > R2P2_BURST_MAX)
        count = R2P2_BURST_MAX;
    uint32_t reserved = self->port->tx_reserve(self->port->self, packets, count);
    for (uint32_t i = 0; i < reserved; i++) {
        uint32_t bytes = datagrams[i].length < R2P2_DATAGRAM_BYTES_MAX ? datagrams[i].length : R2P2_DATAGRAM_BYTES_MAX;
        memcpy(packets[i].data, slab + datagrams[i].offset, bytes);
        packets[i].length = datagrams[i].length;
        packets[i].target_ip = datagrams[i].ip;
        packets[i].target_port = datagrams[i].port;
        packets[i].local_port = datagrams[i].local_port;
    }
    self->port->tx_commit(self->port->self, packets, reserved);
    return reserved;
}

uint32_t probe_send_as(probe *self, uint32_t source_ip, const probe_datagram *datagram, const uint8_t *data) {
    r2p2_tx_packet packet;
    uint32_t reserved = self->port->tx_reserve(self->port->self, &packet, 1);
    if (reserved == 1) {
        memcpy(packet.data, data, datagram->length);
        packet.length = datagram->length;
        packet.target_ip = datagram->ip;
        packet.target_port = datagram->port;
        packet.local_port = datagram->local_port;
        packet.source_ip = source_ip;
        self->port->tx_commit(self->port->self, &packet, 1);
    }
    return reserved;
}

uint32_t probe_receive(probe *self, probe_datagram *datagrams, uint8_t *slab, uint64_t slab_bytes, uint32_t max) {
    uint64_t offset = 0;
    if (max > PROBE_HELD_MAX - self->received_count)
        max = PROBE_HELD_MAX - self->received_count;
    r2p2_rx_packet *packets = self->received + self->received_count;
    uint32_t count = self->port->rx_burst(self->port->self, packets, max);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bytes = packets[i].length <= slab_bytes - offset ? packets[i].length : 0;
        memcpy(slab + offset, packets[i].data, bytes);
        datagrams[i] = (probe_datagram){.ip = packets[i].source_ip,
                                        .port = packets[i].source_port,
                                        .local_port = packets[i].local_port,
                                        .length = packets[i].length,
                                        .offset = (uint32_t)offset};
        offset += bytes;
    }
    self->received_count += count;
    return count;
}

void probe_release(probe *self, int backwards) {
    if (backwards) {
        for (uint32_t i = self->received_count; i-- > 0;)
            self->port->rx_release(self->port->self, &self->received[i], 1);
    } else {
        self->port->rx_release(self->port->self, self->received, self->received_count);
    }
    self->received_count = 0;
}

int probe_held_is(probe *self, uint32_t index, const uint8_t *data, uint32_t length) {
    return index < self->received_count && self->received[index].length == length &&
           memcmp(self->received[index].data, data, length) == 0;
}

uint32_t probe_reserve(probe *self, uint32_t count) {
    if (count > PROBE_HELD_MAX - self->reserved_count)
        count = PROBE_HELD_MAX - self->reserved_count;
    uint32_t reserved = self->port->tx_reserve(self->port->self, self->reserved + self->reserved_count, count);
    self->reserved_count += reserved;
    return reserved;
}

void probe_unreserve(probe *self) {
    for (uint32_t i = 0; i < self->reserved_count; i++)
        self->reserved[i].length = 0;
    self->port->tx_commit(self->port->self, self->reserved, self->reserved_count);
    self->reserved_count = 0;
}

void probe_broadcast(probe *self, const uint8_t *data, uint32_t length, uint16_t local_port, const probe_datagram *datagrams,
                     uint32_t count) {
    r2p2_port_target targets[R2P2_BURST_MAX];
    if (count > R2P2_BURST_MAX)
        count = R2P2_BURST_MAX;
    for (uint32_t i = 0; i < count; i++)
        targets[i] = (r2p2_port_target){.ip = datagrams[i].ip, .port = datagrams[i].port};
    self->port->tx_broadcast(self->port->self, data, length, local_port, targets, count);
}

uint32_t probe_local_ip(probe *self) { return self->port->local_ip; }
uint16_t probe_local_port(probe *self) { return self->port->local_port; }
int32_t probe_poll_fd(probe *self) { return self->port->poll_fd; }
uint64_t probe_now_ns(probe *self) { return self->port->now_ns(self->port->self); }

static const char *const probe_names[] = {
#define R2P2_PORT_FIELD(name, help) #name,
    R2P2_PORT_COUNTERS(R2P2_PORT_FIELD)
#undef R2P2_PORT_FIELD
};

uint32_t probe_counters_count(void) { return sizeof(r2p2_port_counters) / sizeof(uint64_t); }
const char *probe_counter_name(uint32_t index) { return probe_names[index]; }
void probe_counters(probe *self, uint64_t *values) { memcpy(values, self->port->counters, sizeof(r2p2_port_counters)); }
