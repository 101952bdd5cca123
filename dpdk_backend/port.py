"""The DPDK port: one local IPv4 address over one or several devices, for the engine.

:attr:`DpdkPort.address` is the address of a ``struct r2p2_port`` (r2p2/csrc/r2p2_port.h); the engine drives it in C.
One thread drives all ports of a process. What it leaves to others: Ethernet to UDP in C (csrc/port.c), the protocol
(the engine).
"""

from __future__ import annotations

import ipaddress
import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random, SystemRandom
from types import TracebackType
from typing import Any, NamedTuple

from dpdk_backend._attach import Attached, DeviceStats, attach, device_error
from dpdk_backend._native import Native, check, load
from dpdk_backend.devices import Device
from dpdk_backend.eal import EalConfig, eal_state, start_eal
from dpdk_backend.errors import DeviceError, DpdkError

_log = logging.getLogger(__name__)
_pool_numbers = itertools.count()

BURST_MAX = 64
_BUFFER_BYTES = 2_176
_SMALL_BUFFER_BYTES = 1_792
_MBUF_HEADERS_BYTES = 256  # the mbuf, the mempool's header, and cache lines to spread them
_PAYLOAD_BYTES_MAX = 65_507


class Datagram(NamedTuple):
    """One UDP datagram, received or to be sent; ``ip`` and ``port`` are the other side's."""

    payload: bytes
    ip: str
    port: int
    local_port: int = 0


@dataclass(frozen=True)
class PortConfig:
    """A port.

    Attributes:
        local_ip: our IPv4 address.
        devices: what it sends and receives through, at least one.
        local_port: the first UDP port: datagrams leave from it when they name none.
        local_ports_count: how many UDP ports are open, from ``local_port`` on; what comes for others is dropped.
        neighbours: IPv4 address -> MAC, fixed; further ones are learned from ARP and from valid datagrams to us.
        neighbour_ttl_s: a learned neighbour not heard of for so long is asked for again, by ARP.
        neighbour_seed: decides which learned neighbours share a place when there are many; None: drawn, so that nobody
            outside can tell. Named where two runs have to do the same.
        mbufs_count: packet buffers, 2 or 4 kB each; a power of two minus one is the best use of memory.
        mbuf_data_bytes: room of one buffer with DPDK's headroom of 128 bytes; None: what suits the devices, see
            :attr:`buffer_data_bytes`.
        tx_retry_max: further attempts for what a device does not take at once; then it is dropped and counted.
        udp_checksum: write UDP checksums; False is for links between own processes on one machine.
        offloads: let a device that can compute and verify checksums.
    """

    local_ip: str
    devices: tuple[Device, ...]
    local_port: int = 9000
    local_ports_count: int = 1
    neighbours: Mapping[str, str] = field(default_factory=dict)
    neighbour_ttl_s: float = 60.0
    neighbour_seed: int | None = None
    mbufs_count: int = 16_383
    mbuf_data_bytes: int | None = None
    tx_retry_max: int = 8
    udp_checksum: bool = True
    offloads: bool = True

    def __post_init__(self) -> None:
        """Checks what can be checked without DPDK."""
        ipaddress.IPv4Address(self.local_ip)
        if not self.devices:
            raise ValueError("devices is empty: a port needs one")
        names = [device.name for device in self.devices]
        if len(set(names)) != len(names):
            raise ValueError(f"two devices have one name: {', '.join(names)}")
        if not 0 < self.local_port < 65_536:
            raise ValueError(f"local_port is {self.local_port}: 1..65535")
        if not 1 <= self.local_ports_count <= 65_536 - self.local_port:
            raise ValueError(f"local_ports_count is {self.local_ports_count}: 1..{65_536 - self.local_port}")
        if self.neighbour_ttl_s <= 0:
            raise ValueError(f"neighbour_ttl_s is {self.neighbour_ttl_s}: more than 0")
        for device in self.devices:
            for route in device.routes:
                ipaddress.IPv4Network(route)
        for ip, mac in self.neighbours.items():
            ipaddress.IPv4Address(ip)
            parse_mac(mac)

    @property
    def buffer_data_bytes(self) -> int:
        """Room of one buffer in bytes.

        2,176 is what NICs and most drivers want. memif takes any that holds a frame, and two buffers of 1,792 with
        their headers share a page of 4 kB: half the memory, and a tenth more packets a second.
        """
        if self.mbuf_data_bytes is not None:
            return self.mbuf_data_bytes
        return _SMALL_BUFFER_BYTES if all(device.is_memif for device in self.devices) else _BUFFER_BYTES


def parse_mac(text: str) -> bytes:
    """The 6 bytes of a unicast MAC like ``02:00:0a:00:00:01``.

    Raises:
        ValueError: it is none.
    """
    parts = text.split(":")
    if len(parts) != 6 or any(len(part) != 2 for part in parts):
        raise ValueError(f"{text!r} is no MAC: six hex bytes with colons")
    mac = bytes(int(part, 16) for part in parts)
    if mac[0] & 1 or mac == bytes(6):
        raise ValueError(f"{text!r} is no MAC of one host")
    return mac


def mac_of_ip(ip: str) -> bytes:
    """The MAC a host has when nothing else is said: 02:00 and its IPv4 address."""
    return b"\x02\x00" + ipaddress.IPv4Address(ip).packed


def format_mac(mac: bytes) -> str:
    """``02:00:0a:00:00:01``."""
    return mac.hex(":")


def _ip_number(ip: str) -> int:
    return int(ipaddress.IPv4Address(ip))


class DpdkPort:
    """A port over DPDK devices. A context manager; leaving it closes.

    Raises:
        DpdkMissingError: the backend is not built.
        EalError: the EAL did not start.
        DeviceError: a device could not be made; the message names the call and DPDK's text.
    """

    def __init__(self, config: PortConfig, eal: EalConfig | None = None) -> None:
        """Starts the EAL when it is not running, with ``eal`` or sized to this port, then makes and starts the devices.

        ``eal`` is refused on a running EAL, since it would change nothing.
        """
        self._native: Native = load()
        self.config = config
        self.leaked_mbufs: int = 0
        """Buffers that did not come back at close; anything but 0 is a bug."""
        self._attached: list[Attached] = []
        self._stack: Any = None
        if eal is not None or eal_state() != "running":
            start_eal(eal if eal is not None else EalConfig(memory_mb=memory_mb_for(config)))
        try:
            self._open()
        except BaseException:
            self._release()
            raise

    def _open(self) -> None:
        ffi, lib = self._native.ffi, self._native.lib
        config = self.config
        random = SystemRandom() if config.neighbour_seed is None else Random(config.neighbour_seed)
        c_config = ffi.new(
            "dpdk_stack_config *",
            {
                "neighbour_random": [random.getrandbits(64), random.getrandbits(64)],
                "neighbour_ttl_ns": int(config.neighbour_ttl_s * 1e9),
                "local_ip": _ip_number(config.local_ip),
                "local_port": config.local_port,
                "local_ports_count": config.local_ports_count,
                "mbuf_data_bytes": config.buffer_data_bytes,
                "mbufs_count": config.mbufs_count,
                "tx_retry_max": config.tx_retry_max,
                "udp_checksum": int(config.udp_checksum),
                "use_offloads": int(config.offloads),
            },
        )
        stack = lib.dpdk_stack_new(f"r2p2_{next(_pool_numbers)}".encode(), c_config)
        if stack == ffi.NULL:
            raise DeviceError(
                self._native.error_text(),
                remedy="fewer PortConfig.mbufs_count, or more EalConfig.memory_mb",
            )
        self._stack = stack
        for index, device in enumerate(config.devices):
            self._add_device(index, device)
        for index, device in enumerate(config.devices):
            for route in device.routes:
                network = ipaddress.IPv4Network(route)
                check(
                    lib.dpdk_stack_add_route(stack, int(network.network_address), network.prefixlen, index), DeviceError
                )
        neighbours = {
            str(network.network_address): mac_of_ip(str(network.network_address))
            for device in config.devices
            if device.neighbours_derived
            for network in map(ipaddress.IPv4Network, device.routes)
            if network.prefixlen == 32
        }
        neighbours.update((ip, parse_mac(mac)) for ip, mac in config.neighbours.items())
        for ip, mac in neighbours.items():
            check(lib.dpdk_stack_add_neighbour(stack, _ip_number(ip), mac), DeviceError)

    def _add_device(self, index: int, device: Device) -> None:
        attached = attach(device)
        self._attached.append(attached)
        if device.mac is not None:
            mac = parse_mac(device.mac)
        elif device.args is None:
            mac = attached.mac
        else:
            mac = mac_of_ip(self.config.local_ip)
        c_config = self._native.ffi.new(
            "dpdk_stack_device_config *",
            {
                "mac": mac,
                "rx_ring_count": device.rx_ring_count,
                "rx_room_count": device.rx_room_count,
                "tx_ring_count": device.tx_ring_count,
                "is_memif": int(attached.is_memif),
                "is_reconnecting": int(device.is_reconnecting),
            },
        )
        if self._native.lib.dpdk_stack_add_device(self._stack, attached.port_id, c_config) != index:
            raise device_error()

    # ---- for the engine ----

    @property
    def address(self) -> int:
        """The address of the ``struct r2p2_port``; it lives until :meth:`close`."""
        return self._native.lib.dpdk_stack_port(self._live())

    def _live(self) -> Any:
        if self._stack is None:
            raise DpdkError("the port is closed")
        return self._stack

    # ---- what it is like ----

    def counters(self) -> dict[str, int]:
        """Every counter of the port, by name (r2p2/csrc/r2p2_port.h)."""
        ffi, lib = self._native.ffi, self._native.lib
        count = lib.dpdk_counters_count()
        values = ffi.new("uint64_t[]", count)
        lib.dpdk_counters_read(self._live(), values)
        return {self._native.text(lib.dpdk_counter_name(i)): int(values[i]) for i in range(count)}

    def link_up(self, device: int = 0) -> bool:
        """Whether a device has a link; memif: whether the peer is there. As of the last control round."""
        return bool(self._state(device).is_link_up)

    def link_changes(self, device: int = 0) -> int:
        """How often the link went up or down."""
        return int(self._state(device).link_changes_count)

    def exhausted(self, device: int = 0, polls: int = 3) -> bool:
        """Whether the last ``polls`` receive calls found nothing: a pcap device has read its capture to the end."""
        return int(self._state(device).rx_idle_polls_count) >= polls

    def _state(self, device: int) -> Any:
        state = self._native.ffi.new("dpdk_device_state *")
        check(self._native.lib.dpdk_stack_device_state(self._live(), device, state), DeviceError)
        return state

    def neighbour(self, ip: str) -> str | None:
        """The MAC of an address, configured or learned; None when it is unknown."""
        mac = self._native.ffi.new("uint8_t[6]")
        if self._native.lib.dpdk_stack_find_neighbour(self._live(), _ip_number(ip), mac) == 0:
            return None
        return format_mac(bytes(mac))

    def pool_in_use(self) -> int:
        """Buffers held by the engine, the devices and the packets on their way; at rest what it was at the start."""
        return self._native.lib.dpdk_stack_pool_in_use(self._live())

    def stats(self, device: int = 0) -> DeviceStats:
        """The device's own counters."""
        self._live()
        return self._attached[device].stats()

    def xstats(self, device: int = 0) -> dict[str, int]:
        """The device's extended statistics, by DPDK's names."""
        self._live()
        return self._attached[device].xstats()

    # ---- by hand: tests, tools ----

    def control(self) -> None:
        """One control round: links may change, memif clients call. Receiving does this every few ms by itself."""
        self._native.lib.dpdk_stack_control(self._live())

    def replay(self, now_ns: int, frames_count: int) -> None:
        """Sets the port's clock, from the first call on its only one, and lets so many more frames in.

        Everything above then happens at the times of a capture. One device only; the clock never goes back.
        """
        check(self._native.lib.dpdk_stack_replay(self._live(), now_ns, frames_count), DeviceError)

    def replay_left(self) -> int:
        """Frames that :meth:`replay` has let in and nobody has received yet."""
        return int(self._native.lib.dpdk_stack_replay_left(self._live()))

    def receive(self, count_max: int = BURST_MAX) -> list[Datagram]:
        """One receive burst, copied out; at most 64 datagrams."""
        ffi = self._native.ffi
        count_max = min(count_max, BURST_MAX)
        slab_bytes = min(count_max * 2048, BURST_MAX * 2048) + _PAYLOAD_BYTES_MAX
        slab = ffi.new("uint8_t[]", slab_bytes)
        descriptors = ffi.new("dpdk_datagram[]", count_max)
        count = self._native.lib.dpdk_port_receive(self.address, slab, slab_bytes, descriptors, count_max)
        if count < 0:
            raise DeviceError(f"dpdk_port_receive: a burst of more than {slab_bytes} bytes", code=-count)
        view = ffi.buffer(slab)
        return [
            Datagram(
                view[d.offset : d.offset + d.length],
                str(ipaddress.IPv4Address(int(d.ip))),
                int(d.port),
                int(d.local_port),
            )
            for d in (descriptors[i] for i in range(count))
        ]

    def send(self, datagrams: Sequence[Datagram]) -> int:
        """Sends datagrams in order; returns how many found a buffer. What a device does not take is counted."""
        slab, descriptors = self._descriptors(datagrams)
        return self._native.lib.dpdk_port_send(self.address, slab, descriptors, len(datagrams))

    def broadcast(self, payload: bytes, targets: Sequence[tuple[str, int]], local_port: int = 0) -> None:
        """The same payload to each (ip, port); at most 16 targets."""
        slab, descriptors = self._descriptors([Datagram(payload, ip, port, local_port) for ip, port in targets])
        if self._native.lib.dpdk_port_broadcast(self.address, slab, descriptors, len(targets)) < 0:
            raise ValueError(f"{len(targets)} targets: 1..16")

    def _descriptors(self, datagrams: Sequence[Datagram]) -> tuple[Any, Any]:
        ffi = self._native.ffi
        slab = ffi.from_buffer("uint8_t[]", b"".join(d.payload for d in datagrams))
        descriptors = ffi.new("dpdk_datagram[]", len(datagrams))
        offset = 0
        for i, d in enumerate(datagrams):
            fields = (offset, len(d.payload), _ip_number(d.ip), d.port, d.local_port)
            c = descriptors[i]
            c.offset, c.length, c.ip, c.port, c.local_port = fields
            offset += len(d.payload)
        return slab, descriptors

    def echo(self, duration_s: float, idle_polls_max: int = 0) -> int:
        """Sends back what comes, in C, for a time or until so many polls in a row were empty. Returns the datagrams."""
        return self._native.lib.dpdk_port_echo(self.address, int(duration_s * 1e9), idle_polls_max)

    def generate(
        self, ip: str, port: int, *, payload_bytes: int, outstanding: int, duration_s: float
    ) -> tuple[int, int, float, float]:
        """Keeps datagrams in flight to ip:port, in C. Returns (sent, received, seconds, CPU seconds of this thread)."""
        result = self._native.ffi.new("dpdk_generator_result *")
        self._native.lib.dpdk_port_generate(
            self.address, _ip_number(ip), port, payload_bytes, outstanding, int(duration_s * 1e9), result
        )
        return (
            int(result.sent_count),
            int(result.received_count),
            int(result.duration_ns) / 1e9,
            int(result.cpu_ns) / 1e9,
        )

    # ---- the end ----

    def close(self) -> None:
        """Stop, remove the devices, free the pool; a second call does nothing. The engine must be gone before."""
        self._release()
        if self.leaked_mbufs:
            _log.error("%d packet buffers did not come back to the pool: a bug", self.leaked_mbufs)

    def _release(self) -> None:
        lib = self._native.lib
        if self._stack is not None:
            stack, self._stack = self._stack, None
            self.leaked_mbufs = lib.dpdk_stack_free(stack)
        while self._attached:
            self._attached.pop().detach()

    def __enter__(self) -> DpdkPort:
        """The port itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes."""
        self.close()


def memory_mb_for(config: PortConfig) -> int:
    """Megabytes of EAL memory a port needs: its buffers, their bookkeeping, and 24 for drivers.

    With ordinary pages DPDK lets no buffer cross a page of 4 kB (lib/mempool), so a buffer takes whole pages or a part.
    """
    object_bytes = config.buffer_data_bytes + _MBUF_HEADERS_BYTES
    buffer_bytes = 4096 // (4096 // object_bytes) if object_bytes <= 4096 else -(-object_bytes // 4096) * 4096
    return 24 + (config.mbufs_count * buffer_bytes + 999_999) // 1_000_000 + 8 * len(config.devices)
