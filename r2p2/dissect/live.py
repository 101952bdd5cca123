"""Packets as they pass an interface, for ``r2p2 dissect --live``.

What: :class:`Live`, an iterator of the same records a file gives, from a Linux packet socket, stamped by the kernel. It
needs root (or CAP_NET_RAW). It ends when :meth:`Live.stop` is called, which a signal handler may do. What the kernel
had no room for is counted.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final

from r2p2.dissect.captures import Record
from r2p2.errors import UserError

BUFFER_BYTES: Final = 8 << 20
PACKET_BYTES_MAX: Final = 1 << 16

# Of linux/if_ether.h, if_packet.h, if_arp.h and asm-generic/socket.h; the socket module lacks them.
_ETH_P_ALL: Final = 3
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_PACKET_OUTGOING: Final = 4
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_SO_TIMESTAMPNS: Final = 35
_LINKTYPE_ETHERNET, _LINKTYPE_RAW = 1, 101
_NEVER_NS: Final = 1 << 63
_TIMESPEC: Final = struct.Struct("@qq")


class Live:
    """What passes ``interface`` from now on."""

    def __init__(self, interface: str) -> None:
        """Opens the interface. UserError, with what to do, where that is not possible or not allowed."""
        if sys.platform != "linux":
            raise UserError("--live reads Linux packet sockets", f"{sys.platform}: tcpdump -w - udp | r2p2 dissect -")
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        except PermissionError as error:
            remedy = "Run it as root, or: sudo tcpdump -i IFACE -w - udp | r2p2 dissect -"
            raise UserError(f"--live {interface}: packet sockets are for root", remedy) from error
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._socket.bind((interface, 0))
        except OSError as error:
            self._socket.close()
            there = ", ".join(name for _, name in socket.if_nameindex())
            raise UserError(f"--live {interface}: {error.strerror}", f"There are {there}.") from error
        self._wake_read, self._wake_write = os.pipe()
        self.dropped_count = 0

    def stop(self) -> None:
        """Ends the iteration; may be called from a signal handler, more than once."""
        os.write(self._wake_write, b"x")

    def records(self, on_idle: Callable[[], None]) -> Iterator[Record]:
        """Packets that came before :meth:`stop`. ``on_idle`` is called whenever nothing more waits to be read."""
        number, end_ns = 0, _NEVER_NS
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        waiting.register(self._wake_read, select.POLLIN)
        while True:
            ready = {fd for fd, _ in waiting.poll(0)}
            if not ready and end_ns < _NEVER_NS:
                return
            if not ready:
                on_idle()
                ready = {fd for fd, _ in waiting.poll()}
            if self._wake_read in ready:
                # What is waiting already came before; under load there would be no end to what comes after.
                waiting.unregister(self._wake_read)
                end_ns = time.time_ns()
            if self._socket.fileno() not in ready:
                continue
            data, ancillary, _, address = self._socket.recvmsg(PACKET_BYTES_MAX, 64)
            _, _, direction, hardware, *_ = address
            if hardware == _ARPHRD_LOOPBACK and direction == _PACKET_OUTGOING:
                continue  # the loopback interface shows each packet as it goes and as it comes
            time_ns = _time_ns(ancillary)
            if time_ns > end_ns:
                return
            number += 1
            ethernet = hardware in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK)
            linktype = _LINKTYPE_ETHERNET if ethernet else _LINKTYPE_RAW
            yield Record(number, time_ns, linktype, data, len(data))

    def close(self) -> None:
        """Closes the socket and notes how many packets the kernel dropped for want of room."""
        if self._socket.fileno() < 0:
            return
        _, self.dropped_count = struct.unpack("@II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        self._socket.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def __enter__(self) -> Live:
        """The open socket."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()


def _time_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The kernel's time of a packet; ours where it gave none."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()
