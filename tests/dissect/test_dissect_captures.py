"""The capture reader against Scapy's, and on files that are torn, foreign or hostile."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import PcapNgReader, PcapReader, RawPcapReader, RawPcapWriter

from r2p2.dissect.captures import CaptureError, Record, records

PCAPS = Path(__file__).resolve().parent.parent.parent / "pcaps"


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A pcapng block."""
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def section(order: str = "<") -> bytes:
    """A section header."""
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(linktype: int = 1, options: bytes = b"", order: str = "<") -> bytes:
    """An interface description."""
    return block(1, struct.pack(order + "HHI", linktype, 0, 0) + options, order)


def packet(data: bytes, ticks: int = 0, index: int = 0, length: int | None = None, order: str = "<") -> bytes:
    """An enhanced packet block."""
    length = len(data) if length is None else length
    head = struct.pack(order + "IIIII", index, ticks >> 32, ticks & 0xFFFFFFFF, len(data), length)
    return block(6, head + data, order)


def read(data: bytes) -> list[Record]:
    """All records of a capture in memory."""
    return list(records(io.BytesIO(data)))


def read_torn(data: bytes) -> tuple[list[Record], str]:
    """The records before the error, and the error."""
    found = []
    with pytest.raises(CaptureError) as error:
        for record in records(io.BytesIO(data)):
            found.append(record)
    return found, str(error.value)


@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("nano", [False, True])
def test_pcap_as_scapy_writes_and_reads_it(tmp_path: Path, endianness: str, nano: bool) -> None:
    path = tmp_path / "a.pcap"
    random = Random(1)
    packets = [random.randbytes(length) for length in (0, 1, 60, 1514)]
    with RawPcapWriter(str(path), linktype=101, endianness=endianness, nano=nano) as writer:
        writer.write_header(None)
        for number, data in enumerate(packets):
            writer.write_packet(data, sec=1000 + number, usec=5 * number)
    found = read(path.read_bytes())
    with RawPcapReader(str(path)) as reader:
        expected = [(data, meta.sec, meta.usec, meta.wirelen) for data, meta in reader]
    unit = 1 if nano else 1000
    assert [(r.data, r.time_ns, r.length) for r in found] == [
        (data, sec * 10**9 + fraction * unit, length) for data, sec, fraction, length in expected
    ]
    assert [record.number for record in found] == [1, 2, 3, 4]
    assert {record.linktype for record in found} == {101}


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_with_two_sections_resolutions_and_other_blocks(order: str, tmp_path: Path) -> None:
    nanoseconds = struct.pack(order + "HHBxxxHH", 9, 1, 9, 0, 0)
    binary = struct.pack(order + "HHBxxxHHqHH", 9, 1, 0x80 | 10, 14, 8, 7, 0, 0)
    data = (
        section(order)
        + interface(1, order=order)
        + interface(101, nanoseconds, order)
        + packet(b"first", 1_500_000, order=order)
        + block(4, b"names to skip", order)
        + packet(b"second", 1_500_000_001, 1, length=100, order=order)
        + block(3, struct.pack(order + "I", 5) + b"plain", order)
        + section("<")
        + interface(113, binary if order == "<" else b"")
        + packet(b"third", 2048 if order == "<" else 2_000_000)
    )
    found = read(data)
    assert [(r.number, r.linktype, r.data, r.length) for r in found] == [
        (1, 1, b"first", 5),
        (2, 101, b"second", 100),
        (3, 1, b"plain", 5),
        (4, 113, b"third", 5),
    ]
    third_ns = 9 * 10**9 if order == "<" else 2 * 10**9
    assert [record.time_ns for record in found] == [1_500_000_000, 1_500_000_001, 0, third_ns]


def test_pcapng_as_scapy_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    data = section() + interface(1) + b"".join(packet(bytes((n,)) * 60, n * 10**6 + 7) for n in range(1, 6))
    path.write_bytes(data)
    with PcapNgReader(str(path)) as reader:
        expected = [(bytes(frame), int(frame.time * 10**6)) for frame in reader]
    assert [(record.data, record.time_ns // 1000) for record in read(data)] == expected
    assert len(expected) == 5


def test_the_golden_captures_as_scapy_reads_them() -> None:
    for path in sorted(PCAPS.glob("*.pcap")):
        with PcapReader(str(path)) as reader:
            expected = [(bytes(frame), int(frame.time * 10**6)) for frame in reader]
        with path.open("rb") as stream:
            assert [(record.data, record.time_ns // 1000) for record in records(stream)] == expected


@pytest.mark.parametrize(
    ("length", "number", "text"),
    [
        (0, 0, "empty"),
        (3, 0, "neither pcap nor pcapng: it starts with the bytes d4 c3 b2"),
        (10, 0, "truncated at byte 10: the pcap file header at byte 4 needs 20 bytes, 6 are there"),
        (24 + 7, 0, "truncated at byte 31: the header of record 1 at byte 24 needs 16 bytes, 7 are there"),
        (24 + 16, 0, "truncated at byte 40: record 1 at byte 40 needs 42 bytes, 0 are there"),
        (24 + 16 + 42 + 16 + 30, 1, "truncated at byte 128: record 2 at byte 98 needs 56 bytes, 30 are there"),
    ],
)
def test_a_torn_pcap_says_where(length: int, number: int, text: str) -> None:
    found, error = read_torn((PCAPS / "echo-in.pcap").read_bytes()[:length])
    assert len(found) == number
    assert error.startswith(text)


def test_a_torn_or_corrupt_pcapng_says_where() -> None:
    head = section() + interface()
    whole = head + packet(b"x" * 10, 1) + packet(b"y" * 10, 2)
    for cut, number in ((2, 1), (20, 1), (42, 1), (46, 0)):
        found, error = read_torn(whole[:-cut])
        assert len(found) == number
        assert error.startswith("truncated at byte")
    assert "the two lengths of the block differ" in read_torn(whole[:-4] + b"\0\0\0\x63")[1]
    assert "no byte-order mark" in read_torn(section()[:8] + bytes(24))[1]
    assert "a block of 11 bytes" in read_torn(head + struct.pack("<II", 6, 11))[1]
    assert "(packet 1)" in read_torn(head + packet(b"x", index=3))[1]
    assert "in a block that holds" in read_torn(head + block(6, struct.pack("<IIIII", 0, 0, 0, 99, 99)))[1]


def test_an_absurd_length_is_refused_before_it_is_read() -> None:
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    assert "record 1 says it has 4294967295 bytes" in read_torn(head + struct.pack("<IIII", 0, 0, 2**32 - 1, 1))[1]
    assert "a block of 4294967292 bytes" in read_torn(section() + struct.pack("<II", 6, 2**32 - 4))[1]


@given(st.data())
def test_any_damage_ends_in_records_or_one_kind_of_error(data: st.DataObject) -> None:
    options = [
        (PCAPS / "forward.pcap").read_bytes()[:600],
        section() + interface(1, struct.pack("<HHBxxxHH", 9, 1, 9, 0, 0)) + packet(b"x" * 50, 5) + packet(b"y", 6),
    ]
    damaged = bytearray(data.draw(st.sampled_from(options)))
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(damaged) - 1), st.integers(0, 255)), max_size=8)
    ):
        damaged[place] = value
    del damaged[data.draw(st.integers(0, len(damaged))) :]
    try:
        found = read(bytes(damaged))
    except CaptureError:
        return
    assert all(len(record.data) <= record.length for record in found)
