"""Messages of several packets: cut as docs/wire.md says, and put together from any order."""

from __future__ import annotations

import itertools
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.packet import Packet, Raw
from scapy.sendrecv import sniff
from scapy.utils import wrpcap

from scapy_layers import (
    R2P2,
    R2P2MessageSession,
    R2P2SessionExtension,
    RaftAppend,
    RaftEntry,
    Reassembler,
    packets,
)


def on_the_wire(part: Packet, source: str = "10.0.0.2", target: str = "10.0.0.1", time: float = 1.0) -> Packet:
    """The packet as a capture would give it."""
    whole = IP(bytes(IP(src=source, dst=target) / UDP(sport=30000, dport=8000) / part))
    whole.time = time
    return whole


def body_of(message: Packet) -> bytes:
    """The bytes above the R2P2 header."""
    return bytes(message[R2P2].payload)


@pytest.mark.parametrize(
    ("length", "lengths"),
    [
        (0, [0]),
        (1464, [1464]),
        (1465, [14, 1451]),
        (1478, [14, 1464]),
        (1479, [14, 1464, 1]),
        (370_406, [14] + [1464] * 253),
    ],
)
def test_a_request_is_cut_after_14_bytes(length: int, lengths: list[int]) -> None:
    body = Random(length).randbytes(length)
    parts = packets(R2P2(rid=3, policy=2) / Raw(body))
    assert [len(part.payload) for part in parts] == lengths
    assert b"".join(bytes(part.payload) for part in parts) == body
    assert [part.p_order for part in parts] == [len(lengths), *range(1, len(lengths))]
    flags = [int(part.flags) for part in parts]
    assert flags[0] & 0x80 and flags[-1] & 0x40 and all(flag == 0 for flag in flags[1:-1])
    assert all(R2P2(bytes(part)).problem() is None for part in parts)


def test_a_response_has_full_packets() -> None:
    assert [len(part.payload) for part in packets(R2P2(type="RESPONSE") / Raw(bytes(3000)))] == [1464, 1464, 72]


def test_too_large_is_an_error() -> None:
    with pytest.raises(ValueError, match="255 packets"):
        packets(R2P2() / Raw(bytes(370_407)))
    assert len(packets(R2P2(type="RESPONSE") / Raw(bytes(371_856)))) == 254


def test_the_extension_is_in_the_first_packet_only() -> None:
    parts = packets(R2P2(policy=2, extension=R2P2SessionExtension(sequence=9)) / Raw(bytes(3000)))
    assert [R2P2(bytes(part)).header_size for part in parts] == [32, 8, 8, 8]


def test_every_order_and_every_duplicate_gives_the_message_once() -> None:
    body = Random(1).randbytes(14 + 1464 + 1464 + 7)
    parts = [on_the_wire(part) for part in packets(R2P2(rid=5) / Raw(body))]
    for order in itertools.permutations(range(len(parts))):
        for repeated in order:
            reassembler = Reassembler()
            given = [parts[index] for index in order]
            given.insert(order.index(repeated), parts[repeated])
            whole = [message for part in given if (message := reassembler.add(part)) is not None]
            assert [body_of(message) for message in whole] == [body]


@given(st.data())
def test_lost_packets_give_nothing_and_two_messages_do_not_mix(data: st.DataObject) -> None:
    bodies = [Random(seed).randbytes(4000) for seed in (1, 2)]
    parts = [
        (which, on_the_wire(part)) for which in (0, 1) for part in packets(R2P2(rid=10 + which) / Raw(bodies[which]))
    ]
    lost = data.draw(st.sets(st.integers(0, len(parts) - 1), max_size=2))
    shuffled = data.draw(st.permutations([part for index, part in enumerate(parts) if index not in lost]))
    reassembler = Reassembler()
    whole = [message for _, part in shuffled if (message := reassembler.add(part)) is not None]
    expected = {10 + which for which in (0, 1)} - {10 + parts[index][0] for index in lost}
    assert {message[R2P2].rid for message in whole} == expected
    assert all(body_of(message) == bodies[message[R2P2].rid - 10] for message in whole)
    assert len(reassembler) == 2 - len(whole)


def test_the_rest_of_a_request_may_go_to_another_server() -> None:
    first, second = packets(R2P2(rid=5) / Raw(bytes(1465)))
    reassembler = Reassembler()
    assert reassembler.add(on_the_wire(first, target="10.0.0.9")) is None
    assert reassembler.add(on_the_wire(second, target="10.0.0.1")) is not None


def test_a_broadcast_is_one_message_a_target() -> None:
    reassembler = Reassembler()
    parts = packets(R2P2(type="RAFT_REQ", rid=5) / Raw(bytes(2000)))
    for part in parts[:1]:
        assert reassembler.add(on_the_wire(part, target="10.0.0.9")) is None
    assert reassembler.add(on_the_wire(parts[1], target="10.0.0.1")) is None
    assert reassembler.add(on_the_wire(parts[1], target="10.0.0.9")) is not None


def test_a_raft_message_of_many_packets_becomes_its_layer() -> None:
    append = RaftAppend(entries_term=1, entries=[RaftEntry(rid=index, body=bytes(100)) for index in range(60)])
    reassembler = Reassembler()
    *rest, last = [on_the_wire(part) for part in packets(R2P2(rid=1) / append)]
    assert len(rest) > 2
    assert all(reassembler.add(part) is None for part in rest)
    whole = reassembler.add(last)
    assert whole is not None
    assert [entry.rid for entry in whole[RaftAppend].entries] == list(range(60))
    assert whole[RaftAppend].problem() is None


def test_half_messages_are_bounded_and_expire() -> None:
    reassembler = Reassembler(messages_max=3, timeout=10)
    for rid in range(5):
        first = packets(R2P2(rid=rid) / Raw(bytes(2000)))[0]
        assert reassembler.add(on_the_wire(first, time=float(rid))) is None
    assert (len(reassembler), reassembler.given_up) == (3, 2)
    reassembler.add(on_the_wire(packets(R2P2(rid=9) / Raw(bytes(2000)))[0], time=13.5))
    assert (len(reassembler), reassembler.given_up) == (2, 4)


def test_what_is_not_ours_passes_through() -> None:
    reassembler = Reassembler()
    other = IP() / UDP(sport=53, dport=53) / Raw(b"x")
    broken = on_the_wire(R2P2(magic=0xCD))
    assert reassembler.add(other) is other
    assert reassembler.add(broken) is broken
    assert len(reassembler) == 0


def test_a_session_reads_messages_from_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "a.pcap")
    body = Random(4).randbytes(5000)
    wrpcap(path, [on_the_wire(part) for part in packets(R2P2(rid=5) / Raw(body))] + [on_the_wire(R2P2(rid=6))])
    found = sniff(offline=path, session=R2P2MessageSession)
    assert [(message[R2P2].rid, body_of(message)) for message in found] == [(5, body), (6, b"")]
