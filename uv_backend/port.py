"""The kernel UDP port as a Python object: open, look at, close.

What: owns one ``struct r2p2_port`` of ``uv_backend/csrc/udp_port.c`` and says in words why one could not be opened.
Leaves to others: datagrams (the engine takes :attr:`UdpPort.address` and calls the C functions behind it), when to poll
(``uv_backend.driver``).
"""

from __future__ import annotations

import ipaddress
from types import TracebackType
from typing import Final

from uv_backend._udp import ffi, lib
from uv_backend.errors import open_error

__all__ = ["UdpPort"]

BUFFERS_COUNT: Final = 1024
"""Datagrams the engine may hold or reserve at once, each way: 16 bursts of 64, 1.5 MB."""

SOCKET_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""Asked of the kernel for each socket and direction: ~5,000 small datagrams as the kernel counts them."""


class UdpPort:
    """One port over kernel UDP sockets; a context manager.

    Args:
        ip: local IPv4 address in dotted form; ``0.0.0.0`` receives on all (and then reports address 0).
        port: UDP port, 0..65535; 0 lets the kernel choose, see :attr:`local_address`.
        extra_ports: further UDP ports of the same address, as a client with many calls needs. Each is 0 or a number.
        buffers_count: datagrams the engine may hold, and may have reserved, at once; 64..65536.
        rcvbuf_bytes: receive buffer of each socket; more than ``net.core.rmem_max`` needs CAP_NET_ADMIN, else cut.
        sndbuf_bytes: send buffer of each socket, likewise.
        segmentation: hand datagrams of one size for one address to the kernel as one message, where it can cut it, and
            take such messages uncut. On the wire nothing differs; a capture on the sending machine may show them uncut.

    Raises:
        OSError: the address is in use, is not ours, or is not permitted; the message says which and what to do.
        ValueError: an argument is out of range or not IPv4.
    """

    def __init__(
        self,
        ip: str = "127.0.0.1",
        port: int = 0,
        *,
        extra_ports: tuple[int, ...] = (),
        buffers_count: int = BUFFERS_COUNT,
        rcvbuf_bytes: int = SOCKET_BUFFER_BYTES,
        sndbuf_bytes: int = SOCKET_BUFFER_BYTES,
        segmentation: bool = True,
    ) -> None:
        self._handle = 0
        self._ip = str(ipaddress.IPv4Address(ip))
        if not 64 <= buffers_count <= lib.R2P2_UDP_BUFFERS_MAX:
            raise ValueError(f"buffers_count is {buffers_count}, not in 64..{lib.R2P2_UDP_BUFFERS_MAX}")
        for name, value in (("rcvbuf_bytes", rcvbuf_bytes), ("sndbuf_bytes", sndbuf_bytes)):
            if not 0 <= value < 2**32:
                raise ValueError(f"{name} is {value}, not in 0..4294967295")
        options = ffi.new(
            "r2p2_udp_options *",
            {
                "rx_buffers_count": buffers_count,
                "tx_buffers_count": buffers_count,
                "rcvbuf_bytes": rcvbuf_bytes,
                "sndbuf_bytes": sndbuf_bytes,
                "use_segmentation": int(segmentation),
            },
        )
        failure = ffi.new("int32_t *")
        self._handle = lib.r2p2_udp_port_open(int(ipaddress.IPv4Address(ip)), _checked(port), options, failure)
        if self._handle == 0:
            raise open_error(-failure[0], self._ip, port)
        try:
            for extra in extra_ports:
                self.add_port(extra)
        except BaseException:
            self.close()
            raise

    def add_port(self, port: int = 0) -> int:
        """Bind one more UDP port of the same address; returns its number.

        Call it before a driver runs: :meth:`fileno` may change.
        """
        bound = lib.r2p2_udp_port_add(self.address, _checked(port))
        if bound < 0:
            raise open_error(-bound, self._ip, port)
        return bound

    @property
    def address(self) -> int:
        """Address of the ``struct r2p2_port``, for the engine; valid until :meth:`close`."""
        if self._handle == 0:
            raise ValueError("this UdpPort is closed")
        return self._handle

    @property
    def closed(self) -> bool:
        """True after :meth:`close`."""
        return self._handle == 0

    def fileno(self) -> int:
        """The file descriptor that is readable when datagrams wait."""
        return lib.r2p2_udp_port_fd(self.address)

    @property
    def local_ports(self) -> tuple[int, ...]:
        """All UDP ports, the first one first."""
        count = lib.R2P2_UDP_SOCKETS_MAX
        numbers = ffi.new("uint16_t[]", count)
        bound_count = lib.r2p2_udp_port_locals(self.address, numbers, count)
        return tuple(numbers[index] for index in range(bound_count))

    @property
    def local_address(self) -> tuple[str, int]:
        """(IPv4 in dotted form, first UDP port)."""
        return self._ip, self.local_ports[0]

    @property
    def rcvbuf_bytes(self) -> int:
        """Receive buffer the kernel granted, as it counts it (twice the number asked for, overhead included)."""
        return lib.r2p2_udp_port_rcvbuf_bytes(self.address)

    def counters(self) -> dict[str, int]:
        """Every counter of ``struct r2p2_port_counters`` by name, the kernel's drops up to now included."""
        count = lib.r2p2_udp_counters_count()
        values = ffi.new("uint64_t[]", count)
        lib.r2p2_udp_counters_read(self.address, values)
        return {_counter_name(index): int(values[index]) for index in range(count)}

    def close(self) -> int:
        """Close the sockets and free the buffers; returns how many buffers the engine still held (0 is right).

        Free the engine first: it must not touch the port afterwards. A second call does nothing and returns 0.
        """
        if self._handle == 0:
            return 0
        handle, self._handle = self._handle, 0
        return lib.r2p2_udp_port_close(handle)

    def __enter__(self) -> UdpPort:
        """The port itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """``UdpPort(127.0.0.1:9000)`` or ``UdpPort(closed)``."""
        if self.closed:
            return "UdpPort(closed)"
        ip, port = self.local_address
        return f"UdpPort({ip}:{port})"


def _checked(port: int) -> int:
    if not 0 <= port <= 65535:
        raise ValueError(f"UDP port is {port}, not in 0..65535")
    return port


def _counter_name(index: int) -> str:
    return ffi.string(lib.r2p2_udp_counter_name(index)).decode()
