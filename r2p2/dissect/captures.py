"""Reads pcap and pcapng files one packet at a time, from a file or a pipe, whatever their size.

What: :func:`records` yields :class:`Record` values and raises :class:`CaptureError`, with the position, where the bytes
stop making sense; what came before has been yielded by then. Why not a library's reader: those end silently at a torn
record, and a capture cut by a full disk or a kill must say so. What a packet contains is left to
:mod:`r2p2.dissect.datagrams`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple

# No link carries packets this large; a length beyond it is garbage, not a reason to allocate.
RECORD_BYTES_MAX: Final = 1 << 24
INTERFACES_MAX: Final = 4096

_NANOSECONDS: Final = 1_000_000_000
_PCAP_MAGICS: Final = {
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\x3c\x4d": (">", 1),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
}
_SECTION: Final = 0x0A0D0D0A
_INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _ENHANCED_PACKET = 1, 2, 3, 6
_OPTION_RESOLUTION, _OPTION_OFFSET = 9, 14


class CaptureError(Exception):
    """The bytes are not a capture, or stop being one; the message says at which byte."""


class Record(NamedTuple):
    """One captured packet."""

    number: int  # 1 for the first of the file
    time_ns: int  # since the Unix epoch; 0 where the file has no time for it
    linktype: int
    data: bytes
    length: int  # on the wire; more than len(data) when the capture cut it


@dataclass(slots=True)
class _Input:
    """A stream and how far it was read."""

    stream: BinaryIO
    offset: int = 0

    def take(self, length: int, what: str) -> bytes:
        """Exactly ``length`` bytes; CaptureError when the stream ends inside them."""
        data = self.stream.read(length)
        if len(data) < length:
            raise CaptureError(
                f"truncated at byte {self.offset + len(data)}: {what} at byte {self.offset} needs {length} bytes, "
                f"{len(data)} are there"
            )
        self.offset += length
        return data

    def at_end(self, head: bytes) -> bool:
        """True when ``head``, just read where a record may begin, is empty."""
        self.offset += len(head)
        return not head


def records(stream: BinaryIO) -> Iterator[Record]:
    """Every packet of a pcap or pcapng stream, in order. CaptureError as the module says."""
    source = _Input(stream)
    magic = stream.read(4)
    if not magic:
        raise CaptureError("empty: not even a file header")
    source.offset = len(magic)
    if magic in _PCAP_MAGICS:
        return _pcap(source, *_PCAP_MAGICS[magic])
    if magic == _SECTION.to_bytes(4, "big"):
        return _pcapng(source)
    raise CaptureError(f"neither pcap nor pcapng: it starts with the bytes {magic.hex(' ')}")


def _pcap(source: _Input, order: str, unit_ns: int) -> Iterator[Record]:
    head = source.take(20, "the pcap file header")
    linktype = struct.unpack(order + "HHiIII", head)[5] & 0xFFFF
    record = struct.Struct(order + "IIII")
    read, take = source.stream.read, source.take
    number = 0
    while head := read(16):
        number += 1
        if len(head) < 16:
            raise CaptureError(
                f"truncated at byte {source.offset + len(head)}: the header of record {number} at byte "
                f"{source.offset} needs 16 bytes, {len(head)} are there"
            )
        seconds, fraction, kept, length = record.unpack(head)
        if kept > RECORD_BYTES_MAX:
            raise CaptureError(f"corrupt at byte {source.offset}: record {number} says it has {kept} bytes")
        source.offset += 16
        data = take(kept, f"record {number}")
        yield Record(number, seconds * _NANOSECONDS + fraction * unit_ns, linktype, data, max(length, kept))


@dataclass(slots=True)
class _Interface:
    """What an interface block says about its packets."""

    linktype: int
    ticks_per_second: int
    offset_ns: int

    def time_ns(self, high: int, low: int) -> int:
        """A block's two timestamp words."""
        return (high << 32 | low) * _NANOSECONDS // self.ticks_per_second + self.offset_ns


def _pcapng(source: _Input) -> Iterator[Record]:
    order = _section(source)
    interfaces: list[_Interface] = []
    number = 0
    while not source.at_end(head := source.stream.read(4)):
        if len(head) < 4:
            raise CaptureError(f"truncated at byte {source.offset}: a block header needs 8 bytes")
        if head == _SECTION.to_bytes(4, "big"):
            order, interfaces = _section(source), []
            continue
        kind = int(struct.unpack(order + "I", head)[0])
        body = _block(source, order)
        try:
            if kind == _INTERFACE:
                interfaces.append(_interface(body, order))
                if len(interfaces) > INTERFACES_MAX:
                    raise CaptureError(f"more than {INTERFACES_MAX} interfaces in one section")
            elif kind in (_ENHANCED_PACKET, _OLD_PACKET, _SIMPLE_PACKET):
                number += 1
                yield _packet(number, kind, body, order, interfaces)
        except (struct.error, IndexError) as error:
            raise CaptureError(
                f"corrupt block of type {kind} that ends at byte {source.offset} (packet {number}): {error}"
            ) from error


def _section(source: _Input) -> str:
    """Reads a section header after its type; the byte order it announces."""
    head = source.take(8, "a section header")
    order = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}.get(head[4:])
    if order is None:
        raise CaptureError(f"corrupt at byte {source.offset - 4}: no byte-order mark in the section header")
    length = int(struct.unpack(order + "I", head[:4])[0])
    if not 28 <= length <= RECORD_BYTES_MAX or length % 4:
        raise CaptureError(f"corrupt at byte {source.offset - 8}: a section header of {length} bytes")
    source.take(length - 12, "a section header")
    return order


def _block(source: _Input, order: str) -> bytes:
    """The body of a block after its type, without the two lengths."""
    start = source.offset - 4
    length = int(struct.unpack(order + "I", source.take(4, "a block header"))[0])
    if not 12 <= length <= RECORD_BYTES_MAX or length % 4:
        raise CaptureError(f"corrupt at byte {start}: a block of {length} bytes")
    data = source.take(length - 8, f"the block at byte {start}")
    if int(struct.unpack(order + "I", data[-4:])[0]) != length:
        raise CaptureError(f"corrupt at byte {start}: the two lengths of the block differ")
    return data[:-4]


def _interface(body: bytes, order: str) -> _Interface:
    linktype = int(struct.unpack_from(order + "H", body)[0])
    ticks, offset_ns = 1_000_000, 0
    at = 8
    while at + 4 <= len(body):
        code, length = struct.unpack_from(order + "HH", body, at)
        value = body[at + 4 : at + 4 + length]
        if code == 0:
            break
        if code == _OPTION_RESOLUTION:
            exponent = value[0]
            ticks = 1 << (exponent & 0x7F) if exponent & 0x80 else 10 ** (exponent & 0x7F)
        elif code == _OPTION_OFFSET:
            offset_ns = int(struct.unpack(order + "q", value)[0]) * _NANOSECONDS
        at += 4 + length + (-length % 4)
    return _Interface(linktype, ticks, offset_ns)


def _packet(number: int, kind: int, body: bytes, order: str, interfaces: list[_Interface]) -> Record:
    if kind == _SIMPLE_PACKET:
        (length,) = struct.unpack_from(order + "I", body)
        return Record(number, 0, interfaces[0].linktype, body[4 : 4 + length], length)
    layout = order + ("IIIII" if kind == _ENHANCED_PACKET else "HxxIIII")
    index, high, low, kept, length = struct.unpack_from(layout, body)
    if kept > len(body) - 20:
        raise struct.error(f"{kept} bytes of packet in a block that holds {len(body) - 20}")
    interface = interfaces[index]
    return Record(number, interface.time_ns(high, low), interface.linktype, body[20 : 20 + kept], max(length, kept))
