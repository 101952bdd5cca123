"""The quick readings of dissect against the Scapy layers: same datagrams, same verdicts, same fields."""

from __future__ import annotations

import struct
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, CookedLinux, CookedLinuxV2, Dot1Q, Ether
from scapy.packet import Packet, Raw

from r2p2.dissect.captures import Record
from r2p2.dissect.datagrams import Datagram, Other, datagram
from r2p2.dissect.messages import HALF_MESSAGES_MAX, Assembler, Message
from r2p2.dissect.wire import Header, Raft, entries, header, raft
from scapy_layers import (
    R2P2,
    RaftAppend,
    RaftEntry,
    RaftForward,
    RaftMessage,
    packets,
)
from scapy_layers.raft import MESSAGES, R2P2_TYPES

PLAIN = IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=30000, dport=8000) / Raw(b"hello")


def parse(linktype: int, data: bytes, length: int | None = None) -> Datagram | Other:
    """A datagram from a packet of this link type."""
    return datagram(Record(1, 5, linktype, data, len(data) if length is None else length))


@pytest.mark.parametrize(
    ("linktype", "packet"),
    [
        (1, Ether() / PLAIN),
        (1, Ether() / Dot1Q(vlan=3) / PLAIN),
        (1, Ether(type=0x88A8) / Dot1Q(vlan=3) / Dot1Q(vlan=4) / PLAIN),
        (1, Ether() / PLAIN / Raw(b"")),
        (101, PLAIN),
        (228, PLAIN),
        (113, CookedLinux(proto=0x0800) / PLAIN),
        (276, CookedLinuxV2(proto=0x0800) / PLAIN),
        (0, Raw(b"\2\0\0\0") / PLAIN),
        (101, IP(src="10.0.0.2", dst="10.0.0.1", options=b"\1\1\1\1") / PLAIN.payload),
    ],
)
def test_the_datagram_in_every_link_type(linktype: int, packet: Packet) -> None:
    found = parse(linktype, bytes(packet))
    assert found == Datagram(1, 5, 0x0A000002, 30000, 0x0A000001, 8000, b"hello", ())


def test_ethernet_padding_is_dropped() -> None:
    found = parse(1, bytes(Ether() / PLAIN) + b"\xee" * 20)
    assert isinstance(found, Datagram)
    assert found.payload == b"hello"


@pytest.mark.parametrize(
    ("packet", "kind", "malformed"),
    [
        (Ether() / ARP(), "arp", False),
        (Ether() / IP() / ICMP(), "icmp", False),
        (Ether() / IP() / TCP(), "tcp", False),
        (Ether() / IP(proto=99), "ip protocol 99", False),
        (Ether(type=0x88CC), "ethertype 0x88cc", False),
        (Ether() / IP(flags="MF") / UDP(), "fragment", False),
        (Ether() / IP(frag=1) / UDP(), "fragment", False),
        (Ether() / IP(version=5) / UDP(), "ip header", True),
        (Ether() / IP(ihl=4) / UDP(), "ip header", True),
        (Ether() / IP(ihl=15) / UDP(), "ip header", True),
        (Ether() / IP(chksum=1) / UDP(), "ip checksum", True),
        (Ether() / IP(len=500) / UDP(), "ip length", True),
        (Ether() / IP(ttl=0) / UDP(), "ip ttl", True),
        (Ether() / IP() / UDP(len=7), "udp length", True),
        (Ether() / IP() / UDP(len=9), "udp length", True),
        (Ether() / IP(proto=17), "short", True),
        (Ether() / Raw(b"\x45"), "ethertype 0x9000", False),
    ],
)
def test_what_is_no_datagram(packet: Packet, kind: str, malformed: bool) -> None:
    assert parse(1, bytes(packet)) == Other(1, 5, kind, malformed)


def test_an_unknown_link_type_is_named() -> None:
    assert parse(147, b"x") == Other(1, 5, "link type 147", False)


def test_udp_checksums_wrong_missing_and_left_to_the_device() -> None:
    data = bytearray(bytes(PLAIN))

    def notes(checksum: int) -> tuple[str, ...]:
        data[26:28] = checksum.to_bytes(2, "big")
        found = parse(101, bytes(data))
        assert isinstance(found, Datagram)
        return found.notes

    right = int.from_bytes(data[26:28], "big")
    assert notes(right) == ()
    assert notes(right ^ 0x10) == ("wrong UDP checksum",)
    assert notes(0) == ()
    # What Linux leaves in a packet on the loopback device: the sum of the pseudo header, not inverted.
    pseudo = sum(struct.unpack(">4H", bytes(data[12:20]))) + 17 + 13
    assert notes((pseudo & 0xFFFF) + (pseudo >> 16)) == ()


def test_a_packet_the_capture_cut_is_filled_up() -> None:
    whole = bytes(IP() / UDP(sport=1, dport=8000) / Raw(b"a" * 100))
    found = parse(101, whole[:60], len(whole))
    assert isinstance(found, Datagram)
    assert found.payload == b"a" * 32 + bytes(68)
    assert found.notes == ("cut to 32 of 100 bytes by the capture",)


@given(st.sampled_from((0, 1, 101, 113, 276, 5)), st.binary(max_size=80))
def test_any_bytes_give_a_datagram_or_a_word(linktype: int, data: bytes) -> None:
    assert isinstance(parse(linktype, data), Datagram | Other)


@given(st.data())
def test_damaged_frames_are_read_as_scapy_reads_them(data: st.DataObject) -> None:
    frame = bytearray(bytes(Ether() / IP(id=0) / UDP(sport=3, dport=4) / Raw(b"payload")))
    place = data.draw(st.integers(14, len(frame) - 1))
    frame[place] ^= 1 << data.draw(st.integers(0, 7))
    found = parse(1, bytes(frame))
    seen = Ether(bytes(frame))
    if isinstance(found, Datagram):
        assert (found.source_port, found.target_port) == (seen[UDP].sport, seen[UDP].dport)
        assert found.payload == bytes(frame)[42 : 34 + seen[UDP].len]
        # One flipped bit below R2P2 always breaks a checksum; only that of UDP is a note.
        assert found.notes or found.payload == b"payload"


@given(
    st.sampled_from((0xCC, 0xCC, 0xCC, 0xCD)),
    st.sampled_from((0, 7, 8, 8, 8, 8, 10, 32, 255)),
    st.integers(0, 255),
    st.sampled_from((0, 0x40, 0x80, 0xC0, 0xC0, 0xE0, 0xC1)),
    st.integers(0, 65535),
    st.sampled_from((0, 1, 1, 1, 2, 253, 254, 255, 256, 65535)),
    st.one_of(
        st.binary(max_size=30),
        st.sampled_from((b"ACK", b"DROP", bytes(14), bytes(1440), bytes(1441), bytes(1464), bytes(1465))),
    ),
)
@example(0xCC, 8, 0x31, 0xC0, 1, 1, b"ACK")
@example(0xCC, 32, 0x41, 0xC0, 1, 1, bytes(24) + b"SESSION_EXPIRED")
@example(0xCC, 32, 0x41, 0xC0, 1, 1, bytes(24))
@example(0xCC, 32, 0x02, 0xC0, 1, 1, bytes(24 + 1441))
def test_headers_get_the_verdict_of_the_layers(
    magic: int, size: int, type_policy: int, flags: int, rid: int, p_order: int, rest: bytes
) -> None:
    wire = struct.pack(">BBBBHH", magic, size, type_policy, flags, rid, p_order) + rest
    layer, found = R2P2(wire), header(wire)
    problem = layer.problem()
    if problem is None:
        assert isinstance(found, Header)
        if layer.type != 2:
            expected = (layer.header_size, layer.type, layer.policy, int(layer.flags), layer.rid, layer.p_order)
            assert found == Header(*expected)
    else:
        assert found == problem


@given(st.binary(max_size=7))
def test_short_headers(data: bytes) -> None:
    assert header(data) == "short"


def raft_bytes(kind: int, random: Random) -> bytes:
    """A valid message of a kind with random numbers."""
    fields: dict[str, Any] = {
        "sender": 3,
        "cluster_id": random.getrandbits(32),
        "incarnation": 1 + random.getrandbits(63),
    }
    fields["term"] = random.getrandbits(64)
    layer = MESSAGES[kind]
    for field in layer.fields_desc:
        if field.name in ("last_index", "last_term", "prev_index", "commit", "round", "match_index", "hint_term"):
            fields[field.name] = random.getrandbits(64)
        elif field.name in ("granted", "accepted", "state"):
            fields[field.name] = random.getrandbits(1)
    made = layer(**fields)
    if layer in (RaftAppend, RaftForward):
        made.entries = [
            RaftEntry(client_ip="10.0.0.9", client_port=30000, rid=number, body=random.randbytes(random.randrange(20)))
            for number in range(random.randrange(4))
        ]
        if layer is RaftAppend:
            made.entries_term = 1 + random.getrandbits(60) if made.entries else 0
    return bytes(made)


@given(st.sampled_from(sorted(MESSAGES)), st.integers(0, 2**32), st.data())
def test_raft_messages_get_the_verdict_and_fields_of_the_layers(kind: int, seed: int, data: st.DataObject) -> None:
    body = bytearray(raft_bytes(kind, Random(seed)))
    for place in data.draw(st.lists(st.integers(0, len(body) - 1), max_size=2)):
        body[place] ^= 1 << data.draw(st.integers(0, 7))
    if data.draw(st.booleans()):
        del body[data.draw(st.integers(24, len(body))) :]
    r2p2_type = R2P2_TYPES[kind]
    whole = R2P2(bytes(R2P2(type=r2p2_type) / Raw(bytes(body)))).payload
    found = raft(bytes(body), r2p2_type)
    if not isinstance(whole, RaftMessage):
        # Too short for the fields of its kind: Scapy gives up on the layer.
        assert found in ("length", "version", "type", "kind", "incarnation")
        return
    problem = whole.problem()
    if problem is not None:
        assert isinstance(found, str)
        # Several things may be wrong at once, and then each may name another of the last three.
        assert found == problem or {found, problem} <= {"length", "field", "entry"}
        return
    assert isinstance(found, Raft)
    for name in ("sender", "cluster_id", "incarnation", "term"):
        assert getattr(found, name) == whole.getfieldval(name)
    for name, value in found.fields.items():
        assert value == whole.getfieldval(name)
    if isinstance(whole, RaftAppend | RaftForward):
        assert [(entry.client_port, entry.rid, entry.kind, entry.policy, entry.body) for entry in entries(found)] == [
            (entry.client_port, entry.rid, entry.kind, entry.policy, entry.body) for entry in whole.entries
        ]


@given(st.binary(max_size=120), st.sampled_from((5, 6, 7)))
def test_any_bytes_as_a_raft_message_give_a_message_or_a_word(data: bytes, r2p2_type: int) -> None:
    assert isinstance(raft(data, r2p2_type), Raft | str)


def on_the_wire(part: Packet, time_ns: int = 0, port: int = 30000) -> Datagram:
    """A datagram that carries an R2P2 packet to the server."""
    return Datagram(1, time_ns, 0x0A000002, port, 0x0A000001, 8000, bytes(part), ())


def assembled(assembler: Assembler, parts: list[Datagram]) -> list[Message]:
    """Everything the assembler gives for these datagrams."""
    return [message for part in parts for message in assembler.add(part)]


@given(st.randoms(use_true_random=False), st.integers(1, 6))
def test_messages_come_together_from_any_order(random: Random, count: int) -> None:
    body = random.randbytes(14 + 1464 * (count - 1) + 1) if count > 1 else random.randbytes(9)
    parts = [on_the_wire(part) for part in packets(R2P2(rid=4) / Raw(body))]
    parts += random.choices(parts[1:], k=2) if count > 2 else []
    random.shuffle(parts)
    assembler = Assembler()
    found = assembled(assembler, parts)
    assert [message.body for message in found] == [body]
    assert found[0].packets_count == len(packets(R2P2(rid=4) / Raw(body)))
    assert list(assembler.close()) == []


def test_a_new_first_packet_replaces_the_stale_half() -> None:
    old, new = ([on_the_wire(p) for p in packets(R2P2(rid=4) / Raw(bytes((fill,)) * 1470))] for fill in (1, 2))
    found = assembled(Assembler(), [old[0], new[0], new[1], old[1]])
    assert [message.problem for message in found] == ["incomplete: 1 of 2 packets", None]
    assert found[1].body == b"\2" * 1470


def test_half_messages_expire_are_bounded_and_told_at_the_end() -> None:
    assembler = Assembler()
    first = packets(R2P2(rid=4) / Raw(bytes(1470)))[0]
    assert assembled(assembler, [on_the_wire(first)]) == []
    late = assembled(assembler, [on_the_wire(R2P2(rid=5) / Raw(b"x"), 11 * 10**9)])
    assert [(message.rid, message.problem) for message in late] == [(4, "incomplete: 1 of 2 packets"), (5, None)]
    many = [on_the_wire(first, 11 * 10**9, port) for port in range(1, HALF_MESSAGES_MAX + 3)]
    assert len(assembled(assembler, many)) == 2
    assert len(list(assembler.close())) == HALF_MESSAGES_MAX


def test_other_datagrams_are_ignored_unless_they_begin_like_ours() -> None:
    assembler = Assembler()
    foreign = Datagram(1, 0, 1, 53, 2, 5353, b"dns", ())
    assert assembled(assembler, [foreign]) == []
    assert assembler.ignored_count == 1
    assert [message.problem for message in assembled(assembler, [foreign._replace(target_port=8000)])] == ["short"]
    ours = foreign._replace(payload=bytes(R2P2(rid=3) / Raw(b"x")))
    assert [message.rid for message in assembled(assembler, [ours])] == [3]


@given(st.randoms(use_true_random=False), st.integers(0, 200), st.integers(2, 40))
def test_what_the_kernel_did_not_cut_is_taken_apart(random: Random, length: int, count: int) -> None:
    answers = [R2P2(type="RESPONSE", rid=rid) / Raw(random.randbytes(length)) for rid in range(1, count)]
    answers.append(R2P2(type="RESPONSE", rid=count) / Raw(random.randbytes(random.randrange(length + 1))))
    whole = Datagram(1, 5, 1, 8000, 2, 30000, b"".join(map(bytes, answers)), ())
    found = assembled(Assembler(), [whole])
    assert [(message.rid, message.body, message.problem) for message in found] == [
        (answer.rid, answer.load, None) for answer in answers
    ]


def test_a_message_the_kernel_did_not_cut_is_taken_apart() -> None:
    body = Random(1).randbytes(30_000)
    parts = [bytes(part) for part in packets(R2P2(type="RESPONSE", rid=7) / Raw(body))]
    whole = Datagram(1, 5, 1, 8000, 2, 30000, b"".join(parts), ())
    [message] = assembled(Assembler(), [whole])
    assert (message.problem, message.body, message.packets_count) == (None, body, len(parts))
    # One packet that is too long stays what it is, and so does one that only looks alike inside.
    long = bytes(R2P2(type="RESPONSE", rid=7) / Raw(body[:3000]))
    assert [message.problem for message in assembled(Assembler(), [whole._replace(payload=long)])] == ["oversize"]
    again = bytes(R2P2(type="RESPONSE", rid=7) / Raw(b"x" * 8))
    nested = bytes(R2P2(rid=9) / Raw(b"x" * 8 + again))
    [message] = assembled(Assembler(), [whole._replace(payload=nested)])
    assert (message.rid, len(message.body)) == (9, 24)


def test_a_cut_append_still_shows_its_header() -> None:
    append = R2P2(rid=1) / RaftAppend(term=3, entries_term=3, entries=[RaftEntry(body=bytes(200))])
    cut = bytes(append)[:96] + bytes(len(append) - 96)
    note = ("cut to 96 of 312 bytes by the capture",)
    [message] = assembled(Assembler(), [Datagram(1, 0, 1, 8000, 2, 8000, cut, note)])
    assert message.raft is not None
    assert message.raft.fields["count"] == 1
    assert message.raft.entries == b""
