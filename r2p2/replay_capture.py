"""The files of a replay: a capture as the frames that one server was sent, and what it sends as a capture again.

What: :func:`split` reads a pcap or pcapng of Ethernet or raw IPv4, writes what is not from the server itself as
Ethernet frames into a pcap that DPDK's device takes, and gives the times; :func:`own_datagrams` and
:func:`sent_datagrams` give what the server sends in a capture and in a replay; :func:`stamp` puts the replay's times
into what DPDK has written, since the device writes those of the clock on the wall.
Leaves to others: running the server (:mod:`r2p2.replay`), reading formats (:mod:`r2p2.dissect.captures`).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from r2p2.dissect.captures import CaptureError, Record, records
from r2p2.dissect.datagrams import ETHERNET, IPV4, RAW_IP, Datagram, datagram
from r2p2.errors import UserError

# Hosts the server need not ask for; the port takes 1,024. Others have to be heard, or to answer ARP in the capture.
NEIGHBOURS_MAX: Final = 1_000
_RECORD: Final = struct.Struct("<IIII")
_NANOSECOND_PCAP: Final = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65_535, ETHERNET)
_SECOND_NS: Final = 1_000_000_000
_ETHERTYPE_IPV4: Final = b"\x08\x00"
_UDP: Final = b"\x11"


@dataclass(slots=True)
class Split:
    """A capture divided.

    Attributes:
        times_ns: when each frame for the server came, in the order of the file; never falling.
        own_times_ns: when the server itself sent something; never falling.
        peer_macs: of the peers asked for the MAC their first frame came from, and of all whom the server sent to the
            MAC it used; at most :data:`NEIGHBOURS_MAX` of these.
    """

    times_ns: array[int] = field(default_factory=lambda: array("Q"))
    own_times_ns: array[int] = field(default_factory=lambda: array("Q"))
    peer_macs: dict[int, bytes] = field(default_factory=dict)


def mac_of(ip: int) -> bytes:
    """02:00 and the four bytes of an IPv4 address: the MAC of a host of which nothing else is known."""
    return b"\x02\x00" + ip.to_bytes(4, "big")


def _records(path: Path) -> Iterator[Record]:
    try:
        with path.open("rb") as stream:
            yield from records(stream)
    except CaptureError as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error


def _frame(path: Path, record: Record) -> bytes:
    """The packet as an Ethernet frame."""
    if record.linktype == ETHERNET:
        return record.data
    if record.linktype not in (RAW_IP, IPV4):
        raise UserError(
            f"{path}: packet {record.number} has link type {record.linktype}",
            "Replay takes captures of Ethernet (1) and of raw IPv4 (101, what r2p2 serve --pcap writes).",
        )
    source, target = (int.from_bytes(record.data[at : at + 4], "big") for at in (12, 16))
    return mac_of(target) + mac_of(source) + _ETHERTYPE_IPV4 + record.data


@dataclass(frozen=True, slots=True)
class Server:
    """Who is replayed: its MAC in a capture of Ethernet, its address and UDP port in one of raw IPv4."""

    mac: bytes
    ip: int
    port: int

    def sent(self, record: Record, frame: bytes) -> bool:
        """Whether a packet is its own."""
        if record.linktype == ETHERNET:
            return frame[6:12] == self.mac
        data = record.data
        ports_at = (data[0] & 15) * 4 if data else 0
        source = data[12:16], data[9:10], data[ports_at : ports_at + 2]
        return source == (self.ip.to_bytes(4, "big"), _UDP, self.port.to_bytes(2, "big"))


def split(path: Path, server: Server, peers: Collection[int], rx: BinaryIO) -> Split:
    """Writes the frames that do not come from the server to ``rx``, as a pcap.

    A time before an earlier packet's counts as that one's. ``peers``: IPv4 addresses whose MACs are wanted.

    Raises:
        UserError: not a capture, torn, or of another link type.
    """
    found = Split()
    rx.write(_NANOSECOND_PCAP)
    now_ns = 0
    for record in _records(path):
        now_ns = max(now_ns, record.time_ns)
        frame = _frame(path, record)
        is_ipv4 = frame[12:14] == _ETHERTYPE_IPV4
        if server.sent(record, frame):
            found.own_times_ns.append(now_ns)
            if is_ipv4 and len(found.peer_macs) < NEIGHBOURS_MAX:
                found.peer_macs.setdefault(int.from_bytes(frame[30:34], "big"), frame[0:6])
            continue
        found.times_ns.append(now_ns)
        if is_ipv4 and (ip := int.from_bytes(frame[26:30], "big")) in peers:
            found.peer_macs.setdefault(ip, frame[6:12])
        rx.write(_RECORD.pack(*divmod(now_ns, _SECOND_NS), len(frame), len(frame)) + frame)
    return found


def own_datagrams(path: Path, server: Server) -> Iterator[Datagram]:
    """The UDP datagrams in a capture that the server sent."""
    for record in _records(path):
        if server.sent(record, _frame(path, record)):
            found = datagram(record)
            if isinstance(found, Datagram):
                yield found


def sent_datagrams(path: Path) -> Iterator[Datagram]:
    """The UDP datagrams of a replay's output."""
    for record in _records(path):
        found = datagram(record)
        if isinstance(found, Datagram):
            yield found


def stamp(written: Path, times_ns: Sequence[int], target: Path) -> None:
    """Copies DPDK's output with the times of the replay, one for each frame in order.

    Raises:
        UserError: ``target`` cannot be written.
        RuntimeError: the file holds another number of frames.
    """
    count = 0
    try:
        with target.open("wb") as out:
            out.write(_NANOSECOND_PCAP)
            for record in _records(written):
                if count < len(times_ns):
                    head = _RECORD.pack(*divmod(times_ns[count], _SECOND_NS), len(record.data), record.length)
                    out.write(head + record.data)
                count += 1
    except OSError as error:
        raise UserError(f"--tx {target}: {error.strerror}") from error
    if count != len(times_ns):
        raise RuntimeError(f"the device wrote {count} frames and counted {len(times_ns)}")
