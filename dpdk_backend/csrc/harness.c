/*
 * Driving a struct r2p2_port by hand, through its vtable as the engine does: tests and benchmarks without an engine.
 * It works on any port; nothing here knows DPDK.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#include "dpdk_module.h"
#include "r2p2_limits.h"
#include "r2p2_port.h"

#define YIELD_AFTER_IDLE_POLLS 16u

static uint64_t thread_cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int32_t dpdk_port_receive(uintptr_t address, uint8_t *slab, uint64_t slab_bytes, dpdk_datagram *datagrams, uint32_t max) {
    r2p2_port *port = (r2p2_port *)address;
    r2p2_rx_packet packets[R2P2_BURST_MAX];
    uint32_t count = port->rx_burst(port->self, packets, max < R2P2_BURST_MAX ? max : R2P2_BURST_MAX);
    uint64_t used = 0;
    int32_t status = (int32_t)count;
    for (uint32_t i = 0; i < count; i++) {
        if (packets[i].length > slab_bytes - used) {
            status = -ENOSPC;
            break;
        }
        memcpy(slab + used, packets[i].data, packets[i].length);
        datagrams[i] = (dpdk_datagram){
            .offset = (uint32_t)used,
            .length = packets[i].length,
            .ip = packets[i].source_ip,
            .port = packets[i].source_port,
            .local_port = packets[i].local_port,
        };
        used += packets[i].length;
    }
    port->rx_release(port->self, packets, count);
    return status;
}

int32_t dpdk_port_send(uintptr_t address, const uint8_t *slab, const dpdk_datagram *datagrams, uint32_t count) {
    r2p2_port *port = (r2p2_port *)address;
    r2p2_tx_packet packets[R2P2_BURST_MAX];
    uint32_t done = 0;
    while (done < count) {
        uint32_t wanted = count - done < R2P2_BURST_MAX ? count - done : R2P2_BURST_MAX;
        uint32_t got = port->tx_reserve(port->self, packets, wanted);
        for (uint32_t i = 0; i < got; i++) {
            const dpdk_datagram *datagram = &datagrams[done + i];
            packets[i].length = datagram->length;
            packets[i].target_ip = datagram->ip;
            packets[i].target_port = datagram->port;
            packets[i].local_port = datagram->local_port;
            if (datagram->length <= R2P2_DATAGRAM_BYTES_MAX)
                memcpy(packets[i].data, slab + datagram->offset, datagram->length);
        }
        port->tx_commit(port->self, packets, got);
        done += got;
        if (got < wanted)
            break;
    }
    return (int32_t)done;
}

int32_t dpdk_port_broadcast(uintptr_t address, const uint8_t *slab, const dpdk_datagram *datagrams, uint32_t count) {
    r2p2_port *port = (r2p2_port *)address;
    r2p2_port_target targets[R2P2_TARGETS_MAX];
    if (count == 0 || count > R2P2_TARGETS_MAX)
        return -EINVAL;
    for (uint32_t i = 0; i < count; i++)
        targets[i] = (r2p2_port_target){.ip = datagrams[i].ip, .port = datagrams[i].port};
    port->tx_broadcast(port->self, slab + datagrams[0].offset, datagrams[0].length, datagrams[0].local_port, targets, count);
    return 0;
}

uint64_t dpdk_port_echo(uintptr_t address, uint64_t duration_ns, uint64_t idle_polls_max) {
    r2p2_port *port = (r2p2_port *)address;
    r2p2_rx_packet in[R2P2_BURST_MAX];
    r2p2_tx_packet out[R2P2_BURST_MAX];
    uint64_t echoed = 0, idle = 0, end_ns = port->now_ns(port->self) + duration_ns;
    while (port->now_ns(port->self) < end_ns && (idle_polls_max == 0 || idle < idle_polls_max)) {
        uint32_t count = port->rx_burst(port->self, in, R2P2_BURST_MAX);
        if (count == 0) {
            if (++idle % YIELD_AFTER_IDLE_POLLS == 0)
                sched_yield();
            continue;
        }
        idle = 0;
        uint32_t room = port->tx_reserve(port->self, out, count);
        for (uint32_t i = 0; i < room; i++) {
            out[i].length = in[i].length <= R2P2_DATAGRAM_BYTES_MAX ? in[i].length : 0;
            out[i].target_ip = in[i].source_ip;
            out[i].target_port = in[i].source_port;
            out[i].local_port = in[i].local_port;
            memcpy(out[i].data, in[i].data, out[i].length);
        }
        port->rx_release(port->self, in, count);
        port->tx_commit(port->self, out, room);
        echoed += room;
    }
    return echoed;
}

void dpdk_port_generate(uintptr_t address, uint32_t ip, uint16_t udp_port, uint32_t payload_bytes, uint32_t outstanding,
                        uint64_t duration_ns, dpdk_generator_result *result) {
    enum { LOST_AFTER_NS = 20000000 };
    r2p2_port *port = (r2p2_port *)address;
    r2p2_rx_packet in[R2P2_BURST_MAX];
    r2p2_tx_packet out[R2P2_BURST_MAX];
    uint64_t start_ns = port->now_ns(port->self), now_ns = start_ns, heard_ns = start_ns, cpu_ns = thread_cpu_ns();
    uint64_t sent = 0, received = 0, in_flight = 0;
    uint32_t idle = 0;
    if (payload_bytes > R2P2_DATAGRAM_BYTES_MAX)
        payload_bytes = R2P2_DATAGRAM_BYTES_MAX;
    while ((now_ns = port->now_ns(port->self)) - start_ns < duration_ns) {
        uint32_t count = port->rx_burst(port->self, in, R2P2_BURST_MAX);
        port->rx_release(port->self, in, count);
        received += count;
        in_flight -= count < in_flight ? count : in_flight;
        if (count > 0)
            heard_ns = now_ns;
        else if (now_ns - heard_ns > LOST_AFTER_NS) /* silence: what is out is lost */
            in_flight = 0, heard_ns = now_ns;
        uint32_t wanted = outstanding - (uint32_t)in_flight < R2P2_BURST_MAX ? outstanding - (uint32_t)in_flight : R2P2_BURST_MAX;
        if (wanted > 0) {
            uint32_t room = port->tx_reserve(port->self, out, wanted);
            for (uint32_t i = 0; i < room; i++) {
                out[i].length = payload_bytes;
                out[i].target_ip = ip;
                out[i].target_port = udp_port;
                memset(out[i].data, (int)(sent + i), payload_bytes);
            }
            port->tx_commit(port->self, out, room);
            sent += room;
            in_flight += room;
        }
        if (count > 0 || wanted > 0)
            idle = 0;
        else if (++idle % YIELD_AFTER_IDLE_POLLS == 0)
            sched_yield();
    }
    *result = (dpdk_generator_result){
        .sent_count = sent,
        .received_count = received,
        .duration_ns = now_ns - start_ns,
        .cpu_ns = thread_cpu_ns() - cpu_ns,
    };
}
