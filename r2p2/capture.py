"""Writes what a node sends and receives as a pcap file, without root and without a capture library.

What: :class:`PcapWriter`, fed with R2P2 datagrams and their addresses, and :class:`RotatingPcapWriter`, which goes on
in a new file when one is full. Each datagram becomes a raw-IPv4 packet (link type 101) with the IPv4 and UDP headers
our own stack would send: no options, TTL 64, "do not fragment", correct checksums. Times keep their nanoseconds.

Why by hand: a node captures on its hot path, so this is a struct pack and one modulo a datagram; Scapy is 100 times
slower. The tests hold its files against Scapy's reader. Reading and printing captures is left to :mod:`r2p2.dissect`.
"""

from __future__ import annotations

import struct
from pathlib import Path
from types import TracebackType
from typing import Final

LINKTYPE_RAW: Final = 101
SNAPLEN_DEFAULT_BYTES: Final = 65_535
# A capture left running fills 1 GiB and stops; at 100 bytes a packet that is some ten million packets.
MAX_DEFAULT_BYTES: Final = 1 << 30
FILE_HEADER_BYTES: Final = 24
RECORD_HEADER_BYTES: Final = 16
HEADERS_BYTES: Final = 28  # IPv4 20, UDP 8
PAYLOAD_BYTES_MAX: Final = 65_535 - HEADERS_BYTES

_MAGIC_NANOSECONDS: Final = 0xA1B23C4D
_FILE_HEADER: Final = struct.Struct("<IHHiIII")
# Record header (the writer's byte order: little-endian), then IPv4 and UDP (big-endian) packed apart.
_RECORD: Final = struct.Struct("<IIII")
_HEADERS: Final = struct.Struct(">BBHHHBBHIIHHHH")
_DONT_FRAGMENT: Final = 0x4000
_TTL: Final = 64
_UDP: Final = 17


def ones_complement_sum(data: bytes) -> int:
    """The Internet checksum's sum of ``data`` (RFC 1071), 0..65534, where 0 also stands for 65535.

    An odd end is padded with a zero byte.
    2**16 is 1 modulo 65535, so the folded sum of the 16-bit words is the whole number modulo 65535: one call instead of
    a loop.
    """
    value = int.from_bytes(data, "big")
    return (value << 8 if len(data) & 1 else value) % 0xFFFF


def udp_packet(source_ip: int, source_port: int, target_ip: int, target_port: int, payload: bytes) -> bytes:
    """An IPv4/UDP packet around ``payload``. Addresses are host-order integers.

    Raises ValueError when the payload has more than 65,507 bytes and struct.error when an address or a port is out of
    range.
    """
    length = len(payload)
    if length > PAYLOAD_BYTES_MAX:
        raise ValueError(f"payload of {length} bytes; a UDP datagram over IPv4 holds {PAYLOAD_BYTES_MAX}")
    total, udp_length = length + HEADERS_BYTES, length + 8
    addresses = (source_ip >> 16) + (source_ip & 0xFFFF) + (target_ip >> 16) + (target_ip & 0xFFFF)
    ip_sum = 0x4500 + total + _DONT_FRAGMENT + (_TTL << 8 | _UDP) + addresses
    # The UDP length counts twice: in the pseudo header and in the header.
    udp_sum = addresses + _UDP + 2 * udp_length + source_port + target_port + ones_complement_sum(payload)
    return (
        _HEADERS.pack(
            0x45,
            0,
            total,
            0,
            _DONT_FRAGMENT,
            _TTL,
            _UDP,
            -ip_sum % 0xFFFF,  # 0 and 0xFFFF mean the same to a receiver; a sender writes 0 (RFC 1071)
            source_ip,
            target_ip,
            source_port,
            target_port,
            udp_length,
            0xFFFF - udp_sum % 0xFFFF,  # never 0, which would mean "no checksum"
        )
        + payload
    )


class PcapWriter:
    """A capture file of at most ``max_bytes`` bytes; what no longer fits is left out and counted, never an error.

    ``packets_count`` and ``file_bytes`` say what was written, ``left_out_count`` and ``left_out_bytes`` (UDP payload)
    what was not. Once one packet did not fit nothing more is written, so a capture has no holes: it is everything up to
    its end. The writer belongs to one thread. Errors of the file system (OSError) pass through to the caller.
    """

    def __init__(
        self, path: str | Path, *, snaplen: int = SNAPLEN_DEFAULT_BYTES, max_bytes: int = MAX_DEFAULT_BYTES
    ) -> None:
        """Creates or replaces ``path``. ``snaplen`` cuts each packet, its IPv4 header included (at least 28 bytes)."""
        if snaplen < HEADERS_BYTES:
            raise ValueError(f"snaplen {snaplen} is below the {HEADERS_BYTES} bytes of the IPv4 and UDP headers")
        if max_bytes < FILE_HEADER_BYTES:
            raise ValueError(f"max_bytes {max_bytes} is below the {FILE_HEADER_BYTES} bytes of the file header")
        self.path = Path(path)
        self.snaplen = snaplen
        self.max_bytes = max_bytes
        self.packets_count = 0
        self.left_out_count = 0
        self.left_out_bytes = 0
        self._file = self.path.open("wb", buffering=1 << 18)
        self._file.write(_FILE_HEADER.pack(_MAGIC_NANOSECONDS, 2, 4, 0, 0, snaplen, LINKTYPE_RAW))
        self.file_bytes = FILE_HEADER_BYTES

    def write(
        self, time_ns: int, source_ip: int, source_port: int, target_ip: int, target_port: int, payload: bytes
    ) -> bool:
        """Adds one datagram; ``time_ns`` is since the Unix epoch. False when it was left out because the file is full.

        Raises ValueError as :func:`udp_packet` does, and after :meth:`close`.
        """
        if self.left_out_count:
            self._leave_out(payload)
            return False
        packet = udp_packet(source_ip, source_port, target_ip, target_port, payload)
        kept = packet[: self.snaplen]
        if self.file_bytes + RECORD_HEADER_BYTES + len(kept) > self.max_bytes:
            self._leave_out(payload)
            return False
        seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
        self._file.write(_RECORD.pack(seconds, nanoseconds, len(kept), len(packet)) + kept)
        self.file_bytes += RECORD_HEADER_BYTES + len(kept)
        self.packets_count += 1
        return True

    @property
    def is_full(self) -> bool:
        """True once a packet was left out: everything after it is left out too."""
        return self.left_out_count > 0

    def flush(self) -> None:
        """Hands what is buffered to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Flushes and closes; a second call does nothing."""
        self._file.close()

    def _leave_out(self, payload: bytes) -> None:
        self.left_out_count += 1
        self.left_out_bytes += len(payload)

    def __enter__(self) -> PcapWriter:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file, whatever happened."""
        self.close()


class RotatingPcapWriter:
    """A capture in at most ``files_count`` files of at most ``max_bytes`` bytes each.

    ``path`` is the file being written. When a datagram does not fit, it becomes ``path.1``, ``path.1`` becomes
    ``path.2`` and so on, the oldest is removed, and ``path`` begins anew with that datagram: the files together have no
    hole. With one file nothing is removed; it ends when it is full, as :class:`PcapWriter` says.
    ``packets_count`` is what was written since the start, ``removed_count`` how many files were removed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        files_count: int = 1,
        snaplen: int = SNAPLEN_DEFAULT_BYTES,
        max_bytes: int = MAX_DEFAULT_BYTES,
    ) -> None:
        """Creates or replaces ``path``, and removes what an earlier run left under the other names.

        Raises ValueError for no file at all, or for files that could not hold a packet of ``snaplen`` bytes.
        """
        if files_count < 1:
            raise ValueError(f"files_count {files_count} is not at least 1")
        least_bytes = FILE_HEADER_BYTES + RECORD_HEADER_BYTES + snaplen
        if files_count > 1 and max_bytes < least_bytes:
            raise ValueError(f"max_bytes {max_bytes} is below {least_bytes}: a packet of {snaplen} bytes must fit")
        self.path = Path(path)
        self.files_count = files_count
        self.removed_count = 0
        self._snaplen = snaplen
        self._max_bytes = max_bytes
        self._packets_before = 0
        self._writer = PcapWriter(self.path, snaplen=snaplen, max_bytes=max_bytes)
        for number in range(1, files_count):
            self._numbered(number).unlink(missing_ok=True)

    @property
    def packets_count(self) -> int:
        """Datagrams written, those in removed files too."""
        return self._packets_before + self._writer.packets_count

    @property
    def left_out_count(self) -> int:
        """Datagrams that were not written; 0 with more than one file."""
        return self._writer.left_out_count

    def write(
        self, time_ns: int, source_ip: int, source_port: int, target_ip: int, target_port: int, payload: bytes
    ) -> bool:
        """Adds one datagram as :meth:`PcapWriter.write` does; False only with one file, when that is full."""
        datagram = (time_ns, source_ip, source_port, target_ip, target_port, payload)
        if self._writer.write(*datagram):
            return True
        if self.files_count == 1:
            return False
        self._rotate()
        return self._writer.write(*datagram)

    def close(self) -> None:
        """Flushes and closes; a second call does nothing."""
        self._writer.close()

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _rotate(self) -> None:
        self._writer.close()
        self._packets_before += self._writer.packets_count
        oldest = self._numbered(self.files_count - 1)
        self.removed_count += oldest.exists()
        for number in range(self.files_count - 1, 1, -1):
            younger = self._numbered(number - 1)
            if younger.exists():
                younger.replace(self._numbered(number))
        self.path.replace(self._numbered(1))
        self._writer = PcapWriter(self.path, snaplen=self._snaplen, max_bytes=self._max_bytes)
