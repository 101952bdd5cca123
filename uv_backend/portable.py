"""A UDP port in plain Python, for systems without the compiled one (macOS, Windows).

What: :class:`PortablePort` fills a ``struct r2p2_port`` (``r2p2/csrc/r2p2_port.h``) with callbacks over one
non-blocking ``socket``. The engine calls it as it calls every port, a burst at a time.
Why: everything above the port stays the same code, and the same conformance suite runs over it.
Leaves to others: when to poll (``uv_backend.driver``; on Windows with a selector event loop, which has ``add_reader``).

The callbacks are cffi's of ABI mode, so nothing is compiled. The layout below repeats the header; the engine compares
version and size when it takes the port, and a test compares the text.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import time
from types import TracebackType
from typing import Any, Final

from cffi import FFI

from uv_backend.errors import open_error

__all__ = ["PortablePort"]

PORT_ABI: Final = 3
DATAGRAM_BYTES_MAX: Final = 1472
BURST_MAX: Final = 64
BUFFERS_COUNT: Final = 1024
BUFFERS_COUNT_MAX: Final = 65_536
SOCKET_BUFFER_BYTES: Final = 4 * 1024 * 1024
# What Linux takes off a socket's buffer for a datagram of full size.
DATAGRAM_ACCOUNTED_BYTES: Final = 2304
TX_TRIES_MAX: Final = 3
"""Tries of one datagram when the socket's buffer is full; then the burst's rest is dropped."""
RX_ERRORS_MAX: Final = 8
"""Pending socket errors taken in one burst."""

_SLOT_BYTES: Final = 1536
"""Room of one buffer: more than the longest datagram, so that a longer one is seen to be."""

COUNTER_NAMES: Final = (
    "rx_packets",
    "rx_bytes",
    "tx_packets",
    "tx_bytes",
    "tx_drop_full",
    "tx_drop_no_route",
    "tx_drop_error",
    "tx_reserve_failed",
    "rx_drop_truncated",
    "rx_drop_not_ipv4",
    "rx_drop_bad_ip",
    "rx_drop_fragment",
    "rx_drop_not_udp",
    "rx_drop_bad_udp",
    "rx_drop_bad_checksum",
    "rx_drop_foreign_address",
    "rx_drop_no_listener",
    "rx_drop_kernel",
    "arp_requests",
    "arp_replies",
    "rx_drop_bad_arp",
    "icmp_echoes",
    "links_abandoned",
)

STRUCTS: Final = """
typedef struct r2p2_rx_packet {
    const uint8_t *data; uint32_t length; uint32_t source_ip; uint16_t source_port; uint16_t local_port; void *owner;
} r2p2_rx_packet;
typedef struct r2p2_tx_packet {
    uint8_t *data; uint32_t length; uint32_t target_ip; uint16_t target_port; uint16_t local_port; uint32_t source_ip;
    void *owner;
} r2p2_tx_packet;
typedef struct r2p2_port_target { uint32_t ip; uint16_t port; uint16_t reserved; } r2p2_port_target;
typedef struct r2p2_port {
    uint32_t abi; uint32_t struct_size; void *self; int32_t poll_fd; uint32_t local_ip; uint16_t local_port;
    uint16_t rx_room_count; uint16_t reserved[2];
    uint32_t (*rx_burst)(void *self, r2p2_rx_packet *packets, uint32_t max);
    void (*rx_release)(void *self, r2p2_rx_packet *packets, uint32_t count);
    uint32_t (*tx_reserve)(void *self, r2p2_tx_packet *packets, uint32_t count);
    void (*tx_commit)(void *self, r2p2_tx_packet *packets, uint32_t count);
    void (*tx_broadcast)(void *self, const uint8_t *data, uint32_t length, uint16_t local_port,
                         const r2p2_port_target *targets, uint32_t count);
    void (*keep_peers)(void *self, const r2p2_port_target *peers, uint32_t count);
    uint64_t (*now_ns)(void *self);
    r2p2_port_counters *counters;
} r2p2_port;
"""

_ffi: Any = FFI()
_ffi.cdef(
    "typedef struct r2p2_port_counters { "
    + "".join(f"uint64_t {name}; " for name in COUNTER_NAMES)
    + "} r2p2_port_counters;"
)
_ffi.cdef(STRUCTS)

_NO_ROUTE: Final = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}
_TOO_LONG: Final = {errno.EMSGSIZE, 10040}
"""What receiving says of a datagram that was cut, where it says so by an error (Windows: WSAEMSGSIZE)."""


class _Pool:
    """Buffers of one direction. ``free`` holds the indices that nobody has."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.free = list(range(count - 1, -1, -1))
        self.slab = _ffi.new("uint8_t[]", count * _SLOT_BYTES)
        self.views = [memoryview(_ffi.buffer(self.slab + i * _SLOT_BYTES, _SLOT_BYTES)) for i in range(count)]
        self.addresses = [self.slab + i * _SLOT_BYTES for i in range(count)]
        self.handles = [_ffi.cast("void *", i + 1) for i in range(count)]

    def give_back(self, owner: Any) -> None:
        """The buffer with this handle is free again."""
        self.free.append(int(_ffi.cast("uintptr_t", owner)) - 1)


class PortablePort:
    """One port over one kernel UDP socket, without compiled code; a context manager like ``UdpPort``.

    Args:
        ip: local IPv4 address in dotted form; ``0.0.0.0`` receives on all (and then reports address 0).
        port: UDP port, 0..65535; 0 lets the kernel choose.
        buffers_count: datagrams the engine may hold, and may have reserved, at once; 64..65536.

    Raises:
        OSError: the address is in use, is not ours, or is not permitted; the message says which and what to do.
        ValueError: an argument is out of range or not IPv4.
    """

    def __init__(self, ip: str = "127.0.0.1", port: int = 0, *, buffers_count: int = BUFFERS_COUNT) -> None:
        self._socket: socket.socket | None = None
        local_ip = int(ipaddress.IPv4Address(ip))
        if not 0 <= port <= 65535:
            raise ValueError(f"UDP port is {port}, not in 0..65535")
        if not BURST_MAX <= buffers_count <= BUFFERS_COUNT_MAX:
            raise ValueError(f"buffers_count is {buffers_count}, not in {BURST_MAX}..{BUFFERS_COUNT_MAX}")
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                bound.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
            bound.setblocking(False)
            bound.bind((ip, port))
        except OSError as error:
            bound.close()
            raise open_error(error.errno or errno.EIO, ip, port) from error
        self._socket = bound
        self._local: tuple[str, int] = bound.getsockname()
        self._rx, self._tx = _Pool(buffers_count), _Pool(buffers_count)
        self._counters: Any = _ffi.new("r2p2_port_counters *")
        self._names: dict[int, str] = {}  # dotted forms of the addresses sent to; bounded in _dotted
        # The struct keeps no reference to the callbacks; this tuple does.
        self._callbacks = tuple(
            _ffi.callback(signature, function)
            for signature, function in (
                ("uint32_t(void *, r2p2_rx_packet *, uint32_t)", self._rx_burst),
                ("void(void *, r2p2_rx_packet *, uint32_t)", self._rx_release),
                ("uint32_t(void *, r2p2_tx_packet *, uint32_t)", self._tx_reserve),
                ("void(void *, r2p2_tx_packet *, uint32_t)", self._tx_commit),
                (
                    "void(void *, const uint8_t *, uint32_t, uint16_t, const r2p2_port_target *, uint32_t)",
                    self._tx_broadcast,
                ),
                ("uint64_t(void *)", lambda _self: time.monotonic_ns()),
            )
        )
        self._port: Any = _ffi.new("r2p2_port *")
        self._port.abi = PORT_ABI
        self._port.struct_size = _ffi.sizeof("r2p2_port")
        self._port.poll_fd = bound.fileno()
        self._port.local_ip = local_ip
        self._port.local_port = self._local[1]
        room = bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // DATAGRAM_ACCOUNTED_BYTES
        self._port.rx_room_count = min(room, 65535)
        names = ("rx_burst", "rx_release", "tx_reserve", "tx_commit", "tx_broadcast", "now_ns")
        for name, callback in zip(names, self._callbacks, strict=True):
            setattr(self._port, name, callback)
        self._port.counters = self._counters

    # ---- what the engine calls ----

    def _rx_burst(self, _self: Any, packets: Any, maximum: int) -> int:
        if self._socket is None:
            return 0
        free, counters, count, errors = self._rx.free, self._counters, 0, 0
        local_port = self._local[1]
        while count < maximum and free:
            index = free[-1]
            try:
                length, (ip, port) = self._socket.recvfrom_into(self._rx.views[index], _SLOT_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                # A pending error is the fate of an earlier datagram of ours, or this datagram was cut.
                if error.errno in _TOO_LONG:
                    counters.rx_drop_truncated += 1
                else:
                    counters.tx_drop_error += 1
                errors += 1
                if errors > RX_ERRORS_MAX:
                    break
                continue
            if length > DATAGRAM_BYTES_MAX:
                counters.rx_drop_truncated += 1
                continue
            free.pop()
            packet = packets[count]
            packet.data = self._rx.addresses[index]
            packet.length = length
            packet.source_ip = int.from_bytes(socket.inet_aton(ip), "big")
            packet.source_port = port
            packet.local_port = local_port
            packet.owner = self._rx.handles[index]
            counters.rx_bytes += length
            count += 1
        counters.rx_packets += count
        return count

    def _rx_release(self, _self: Any, packets: Any, count: int) -> None:
        for i in range(count):
            self._rx.give_back(packets[i].owner)

    def _tx_reserve(self, _self: Any, packets: Any, count: int) -> int:
        reserved = min(count, len(self._tx.free))
        for i in range(reserved):
            index = self._tx.free.pop()
            packets[i].data = self._tx.addresses[index]
            packets[i].length = 0
            packets[i].local_port = 0
            packets[i].source_ip = 0
            packets[i].owner = self._tx.handles[index]
        if reserved < count:
            self._counters.tx_reserve_failed += 1
        return reserved

    def _tx_commit(self, _self: Any, packets: Any, count: int) -> None:
        full = False
        for i in range(count):
            packet = packets[i]
            if packet.length and packet.source_ip not in (0, self._port.local_ip):
                self._counters.tx_drop_error += 1  # a socket sends as nobody else
            elif packet.length:
                full = self._send(
                    packet.data, packet.length, packet.local_port, packet.target_ip, packet.target_port, full
                )
            self._tx.give_back(packet.owner)

    def _tx_broadcast(self, _self: Any, data: Any, length: int, local_port: int, targets: Any, count: int) -> None:
        full = False
        for i in range(count):
            full = self._send(data, length, local_port, targets[i].ip, targets[i].port, full)

    def _send(self, data: Any, length: int, local_port: int, ip: int, port: int, full: bool) -> bool:
        """Sends one datagram or counts why not; returns whether the socket's buffer is full, as `full` says already."""
        counters = self._counters
        if self._socket is None or length > DATAGRAM_BYTES_MAX or local_port not in (0, self._local[1]):
            counters.tx_drop_error += 1
            return full
        for _ in range(0 if full else TX_TRIES_MAX):
            try:
                self._socket.sendto(_ffi.buffer(data, length), (self._dotted(ip), port))
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno in _NO_ROUTE:
                    counters.tx_drop_no_route += 1
                else:
                    counters.tx_drop_error += 1
                return False
            counters.tx_packets += 1
            counters.tx_bytes += length
            return False
        counters.tx_drop_full += 1
        return True

    def _dotted(self, ip: int) -> str:
        known = self._names.get(ip)
        if known is None:
            if len(self._names) >= BUFFERS_COUNT_MAX:
                self._names.clear()
            known = self._names[ip] = socket.inet_ntoa(ip.to_bytes(4, "big"))
        return known

    # ---- what Python sees: as UdpPort ----

    @property
    def address(self) -> int:
        """Address of the ``struct r2p2_port``, for the engine; valid until :meth:`close`."""
        self._open_socket()
        return int(_ffi.cast("uintptr_t", self._port))

    def _open_socket(self) -> socket.socket:
        if self._socket is None:
            raise ValueError("this PortablePort is closed")
        return self._socket

    @property
    def closed(self) -> bool:
        """True after :meth:`close`."""
        return self._socket is None

    def fileno(self) -> int:
        """The file descriptor that is readable when datagrams wait."""
        return self._open_socket().fileno()

    @property
    def local_ports(self) -> tuple[int, ...]:
        """The one UDP port."""
        self._open_socket()
        return (self._local[1],)

    @property
    def local_address(self) -> tuple[str, int]:
        """(IPv4 in dotted form, UDP port)."""
        self._open_socket()
        return self._local

    def counters(self) -> dict[str, int]:
        """Every counter of ``struct r2p2_port_counters`` by name. What the kernel dropped is not known here: 0."""
        self._open_socket()
        return {name: int(getattr(self._counters, name)) for name in COUNTER_NAMES}

    def close(self) -> int:
        """Close the socket; returns how many buffers the engine still held (0 is right).

        Free the engine first: it must not touch the port afterwards. A second call does nothing and returns 0.
        """
        if self._socket is None:
            return 0
        self._socket.close()
        self._socket = None
        return sum(pool.count - len(pool.free) for pool in (self._rx, self._tx))

    def __enter__(self) -> PortablePort:
        """The port itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """``PortablePort(127.0.0.1:9000)`` or ``PortablePort(closed)``."""
        return f"PortablePort({'closed' if self.closed else '{}:{}'.format(*self._local)})"
