"""The layers against docs/wire.md: golden bytes, round trips, what they call malformed, and Scapy's own pairing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from scapy_layers import (
    R2P2,
    R2P2Ack,
    R2P2Drop,
    R2P2Feedback,
    R2P2SessionExtension,
    RaftAppend,
    RaftAppendReply,
    RaftConfiguration,
    RaftConfigured,
    RaftEntry,
    RaftFormed,
    RaftForward,
    RaftHello,
    RaftInstallSnapshot,
    RaftInstallSnapshotReply,
    RaftMember,
    RaftMessage,
    RaftPreVote,
    RaftPreVoteReply,
    RaftReadIndex,
    RaftReadIndexReply,
    RaftTimeoutNow,
    RaftVote,
    RaftVoteReply,
    RaftVoteTransfer,
    body,
)

u8, u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
flag = st.integers(0, 1)
addresses = u32.map(lambda value: ".".join(str(byte) for byte in value.to_bytes(4, "big")))
common: dict[str, Any] = {"sender": u16, "cluster_id": u32, "incarnation": st.integers(1, 2**64 - 1), "term": u64}
entries = st.lists(
    st.builds(
        RaftEntry,
        client_ip=addresses,
        client_port=u16,
        rid=u16,
        kind=st.just(1),
        policy=st.integers(0, 3),
        body=st.binary(max_size=40),
    ),
    max_size=4,
)


@st.composite
def appends(draw: st.DrawFn) -> Packet:
    """An APPEND whose entries_term is 0 exactly when it has no entries."""
    made = draw(entries)
    names = ("prev_index", "prev_term", "commit", "global_commit", "round")
    numbers: dict[str, Any] = {name: draw(u64) for name in names} | {
        name: draw(values) for name, values in common.items()
    }
    return RaftAppend(entries_term=draw(st.integers(1, 2**64 - 1)) if made else 0, entries=made, **numbers)


messages = st.one_of(
    st.builds(RaftPreVote, last_index=u64, last_term=u64, **common),
    st.builds(RaftPreVoteReply, granted=flag, **common),
    st.builds(RaftVote, last_index=u64, last_term=u64, **common),
    st.builds(RaftVoteReply, granted=flag, **common),
    appends(),
    st.builds(
        RaftAppendReply,
        round=u64,
        match_index=u64,
        hint_index=u64,
        hint_term=u64,
        applied_index=u64,
        accepted=flag,
        **common,
    ),
    st.builds(RaftForward, entries=entries, **common),
    st.builds(RaftHello, state=flag, coordinator=flag, to_incarnation=u64, **common),
    st.builds(
        RaftFormed,
        members=st.lists(st.builds(RaftMember, member=u16, incarnation=st.integers(1, 2**64 - 1)), max_size=4),
        **common,
    ),
    st.builds(RaftReadIndex, context=u64, **common),
    st.builds(RaftReadIndexReply, context=u64, index=st.integers(1, 2**64 - 1), granted=st.just(1), **common),
    st.builds(RaftReadIndexReply, context=u64, index=st.just(0), granted=st.just(0), **common),
    st.builds(RaftTimeoutNow, **common),
    st.builds(RaftVoteTransfer, last_index=u64, last_term=u64, **common),
    st.builds(
        RaftInstallSnapshot,
        index=u64,
        index_term=u64,
        offset=st.integers(1, 2**40),
        total_bytes=st.integers(2**41, 2**60),
        chunk=st.binary(min_size=1, max_size=40),
        **common,
    ),
    st.builds(RaftInstallSnapshotReply, index=u64, offset=u64, installed=flag, applied_index=u64, **common),
)


def golden(kind: int, rest: str) -> bytes:
    """A message of version 1 with the fields of COMMON_FIELDS."""
    return bytes.fromhex(f"01{kind:02x}0304 0a0b0c0d 1112131415161718 0000000000000007 {rest}")


COMMON_FIELDS: dict[str, Any] = {
    "sender": 0x0304,
    "cluster_id": 0x0A0B0C0D,
    "incarnation": 0x1112131415161718,
    "term": 7,
}
ENTRY = "00000003 0a000002 7530 0009 01 02 0000 616263 0000000000"
GOLDEN = [
    (RaftPreVote(last_index=5, last_term=6, **COMMON_FIELDS), 5, golden(1, "0000000000000005 0000000000000006")),
    (RaftPreVoteReply(granted=1, **COMMON_FIELDS), 6, golden(2, "01 00000000000000")),
    (RaftVote(last_index=5, last_term=6, **COMMON_FIELDS), 5, golden(3, "0000000000000005 0000000000000006")),
    (RaftVoteReply(granted=0, **COMMON_FIELDS), 6, golden(4, "00 00000000000000")),
    (
        RaftAppend(
            prev_index=1,
            prev_term=2,
            entries_term=3,
            commit=4,
            global_commit=5,
            round=6,
            entries=[RaftEntry(client_ip="10.0.0.2", client_port=30000, rid=9, policy=2, body=b"abc")],
            **COMMON_FIELDS,
        ),
        5,
        golden(5, "".join(f"{value:016x}" for value in (1, 2, 3, 4, 5, 6)) + f"00000001 00000018 {ENTRY}"),
    ),
    (
        RaftAppendReply(
            round=1, match_index=2, hint_index=3, hint_term=4, applied_index=5, accepted=1, **COMMON_FIELDS
        ),
        6,
        golden(6, "".join(f"{value:016x}" for value in (1, 2, 3, 4, 5)) + "01 00000000000000"),
    ),
    (
        RaftForward(
            entries=[
                RaftEntry(client_ip="10.0.0.2", client_port=30000, rid=9, policy=2, body=b"abc"),
                RaftEntry(kind=0, policy=0),
            ],
            **COMMON_FIELDS,
        ),
        7,
        golden(7, f"00000002 00000028 {ENTRY} 00000000 00000000 0000 0000 00 00 0000"),
    ),
    (
        RaftHello(state=1, coordinator=1, to_incarnation=0xFF, **COMMON_FIELDS),
        7,
        golden(8, "01 01 000000000000 00000000000000ff"),
    ),
    (
        RaftFormed(members=[RaftMember(member=2, incarnation=3)], **COMMON_FIELDS),
        7,
        golden(9, "0001 000000000000 0002 000000000000 0000000000000003"),
    ),
    (RaftReadIndex(context=0xAB, **COMMON_FIELDS), 5, golden(10, "00000000000000ab")),
    (
        RaftReadIndexReply(context=0xAB, index=9, granted=1, **COMMON_FIELDS),
        6,
        golden(11, "00000000000000ab 0000000000000009 01 00000000000000"),
    ),
    (RaftTimeoutNow(**COMMON_FIELDS), 7, golden(12, "")),
    (RaftVoteTransfer(last_index=5, last_term=6, **COMMON_FIELDS), 5, golden(13, "0000000000000005 0000000000000006")),
    (
        RaftInstallSnapshot(
            index=9,
            index_term=6,
            total_bytes=5,
            configuration=bytes(RaftConfiguration(members=[RaftConfigured(slot=2, port=8000, ip="10.0.0.2")])),
            chunk=b"abc",
            **COMMON_FIELDS,
        ),
        5,
        golden(
            14,
            "0000000000000009 0000000000000006 0000000000000000 0000000000000005 00000003 0000001c"
            "01 0000000000 0001 0002 1f40 0a000002 0000000000000000 01 000000 616263",
        ),
    ),
    (
        RaftInstallSnapshotReply(index=9, offset=5, installed=1, applied_index=9, **COMMON_FIELDS),
        6,
        golden(15, "0000000000000009 0000000000000005 01 00000000000000 0000000000000009"),
    ),
]


def test_the_documented_request_and_answer() -> None:
    assert bytes(R2P2(rid=1) / Raw(b"1234")).hex() == "cc0800c00001000131323334"
    assert bytes(R2P2(type="RESPONSE", rid=1) / Raw(b"1234")).hex() == "cc0811c00001000131323334"


@pytest.mark.parametrize(("message", "r2p2_type", "expected"), GOLDEN, ids=lambda value: type(value).__name__)
def test_raft_messages_byte_by_byte(message: Packet, r2p2_type: int, expected: bytes) -> None:
    assert bytes(message) == expected
    packet = bytes(R2P2(rid=0x102) / message)
    assert packet == bytes.fromhex(f"cc08 {r2p2_type << 4 | 1:02x} c0 0102 0001") + expected
    read = R2P2(packet)
    assert type(read.payload) is type(message)
    assert read.problem() is None
    assert read.payload.problem() is None


@given(messages, u16)
def test_raft_messages_round_trip(message: Packet, rid: int) -> None:
    wire = bytes(R2P2(rid=rid) / message)
    read = R2P2(wire)
    assert type(read.payload) is type(message)
    assert (read.problem(), read.payload.problem()) == (None, None)
    given_fields = message.fields
    for name, value in given_fields.items():
        found = read.payload.getfieldval(name)
        if isinstance(value, list):
            assert [bytes(item) for item in found] == [bytes(item) for item in value]
        else:
            assert found == value, name
    # Rebuilt from the fields alone, not from the bytes Scapy remembers.
    read.payload.clear_cache()
    read.clear_cache()
    assert bytes(read) == wire


@given(st.binary(max_size=120), st.sampled_from((5, 6, 7)))
def test_any_bytes_as_a_raft_message_do_not_raise(body: bytes, r2p2_type: int) -> None:
    read = R2P2(bytes(R2P2(type=r2p2_type) / Raw(body)))
    found = read.payload
    if len(body) < 24:
        assert not isinstance(found, RaftMessage)
    elif isinstance(found, RaftMessage):
        assert isinstance(found.problem(), str | None)


@given(u8, u8, u8, u16, u16, st.binary(max_size=40))
def test_any_header_round_trips(size: int, type_policy: int, flags: int, rid: int, order: int, rest: bytes) -> None:
    wire = bytes((0xCC, size, type_policy, flags)) + rid.to_bytes(2, "big") + order.to_bytes(2, "big") + rest
    read = R2P2(wire)
    assert bytes(read) == wire
    fields = (read.header_size, read.type << 4 | read.policy, int(read.flags), read.rid, read.p_order)
    assert fields == (size, type_policy, flags, rid, order)


@pytest.mark.parametrize(
    ("wire", "problem"),
    [
        ("cd0800c00001000131", "magic"),
        ("cc0700c00001000131", "size"),
        ("cc0000c00001000131", "size"),
        ("cc0a00c00001000131", "size"),
        ("cc0900c00001000131", None),
        ("cc0890c00001000131", "type"),
        ("cc0880c00001000131", "type"),
        ("cc0804c00001000131", "policy"),
        ("cc0801c10001000131", "flags"),
        ("cc080140000100fe31", "order"),
        ("cc0811c00001000231", "flags"),
        ("cc0811800001000131", "flags"),
        ("cc08118000010000", "order"),
        ("cc081180000100ff", "order"),
        ("cc081180000100fe31", None),
        ("cc0801000001000031", "order"),
        ("cc080100000100fd31", None),
        ("cc0800800001000231", "payload"),
        ("cc080080000100023132333435363738393031323334", None),
        ("cc0831c00001000141434b", None),
        ("cc0831c0000100014143", "payload"),
        ("cc0841c00001000144524f50", None),
        ("cc0841c000010001", "payload"),
        ("cc99210000000000 0001 7530 0a000002", None),
        ("cc99210000000000 0001 7530 0a0000", "payload"),
    ],
)
def test_what_is_malformed(wire: str, problem: str | None) -> None:
    assert R2P2(bytes.fromhex(wire)).problem() == problem


def test_more_than_a_packet_holds_is_oversize() -> None:
    assert R2P2(bytes(R2P2() / Raw(bytes(1464)))).problem() is None
    assert R2P2(bytes(R2P2() / Raw(bytes(1465)))).problem() == "oversize"


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (golden(1, "0000000000000005 0000000000000006").replace(b"\x01", b"\x02", 1), "version"),
        (golden(99, "00"), "kind"),
        (golden(1, "0000000000000005 000000000000000600"), "length"),
        (golden(4, "02 00000000000000"), "field"),
        (golden(4, "01 00000000000001"), "field"),
        (golden(7, f"00000002 00000018 {ENTRY}"), "entry"),
        (golden(7, f"00000001 00000010 {ENTRY}"), "length"),
        (golden(7, f"00000001 00000020 {ENTRY}"), "length"),
        (golden(7, f"00000001 00000018 {ENTRY[:-2]}01"), "entry"),
        (golden(7, f"00000001 00000018 {ENTRY.replace('01 02', '09 02')}"), "entry"),
        (golden(8, "02 00 000000000000 0000000000000000"), "field"),
        (golden(9, "0002 000000000000 0002 000000000000 0000000000000003"), "length"),
        (golden(11, "00000000000000ab 0000000000000009 00 00000000000000"), "field"),
        (golden(11, "00000000000000ab 0000000000000000 01 00000000000000"), "field"),
        (golden(12, "00"), "length"),
    ],
)
def test_what_is_malformed_in_raft(changed: bytes, problem: str) -> None:
    kinds = {1: 5, 4: 6, 11: 6}
    message = R2P2(bytes(R2P2(type=kinds.get(changed[1], 7)) / Raw(changed))).payload
    assert isinstance(message, RaftMessage)
    assert message.problem() == problem


def test_a_kind_in_the_wrong_type_is_malformed() -> None:
    message = R2P2(bytes(R2P2(type="RAFT_REP") / RaftVote())).payload
    assert message.problem() == "type"


def test_extension_is_skipped_and_kept() -> None:
    session = R2P2SessionExtension(client_id=1, sequence=2, oldest_pending=3)
    wire = bytes(R2P2(policy=2, extension=session) / Raw(b"set"))
    assert wire.hex() == "cc2002c000010001" + "0000000000000001" + "0000000000000002" + "0000000000000003" + "736574"
    read = R2P2(wire)
    assert (read.extension.client_id, read.extension.sequence, read.extension.oldest_pending) == (1, 2, 3)
    assert bytes(read.payload) == b"set"
    unknown = R2P2(bytes.fromhex("cc0a00c000010001 aabb 31"))
    assert bytes(unknown.extension) == b"\xaa\xbb"
    assert bytes(unknown.payload) == b"1"
    assert unknown.problem() is None


def test_a_part_of_a_message_is_raw() -> None:
    part = R2P2(bytes(R2P2(type="RAFT_REQ", flags="FIRST", p_order=2) / Raw(bytes(RaftVote()))))
    assert type(part.payload) is Raw


def test_types_and_the_port_are_filled_in_when_building() -> None:
    packet = IP() / UDP(sport=30000) / R2P2() / R2P2Drop()
    assert (packet[UDP].dport, packet[R2P2].type) == (8000, 4)
    assert (R2P2() / R2P2Ack()).type == 3
    assert (R2P2() / R2P2Feedback()).type == 2
    assert (R2P2() / RaftHello()).type == 7
    read = IP(bytes(packet))
    assert read[R2P2Drop].word == b"DROP"
    assert IP(bytes(IP() / UDP(sport=8000, dport=1) / R2P2(rid=5)))[R2P2].rid == 5


def test_answers_are_paired_by_rid_and_type() -> None:
    request = IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=30000, dport=8000) / R2P2(rid=7) / Raw(b"x")

    def reply(**fields: Any) -> Packet:
        made = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=8000, dport=30000) / R2P2(**fields) / Raw(b"y")
        return IP(bytes(made))

    answer = reply(type="RESPONSE", rid=7)
    assert answer.answers(request)
    assert answer[R2P2].hashret() == request[R2P2].hashret()
    assert reply(type="DROP", rid=7).answers(request)
    assert not reply(type="RESPONSE", rid=8).answers(request)
    assert not reply(type="REQUEST", rid=7).answers(request)
    vote = R2P2(bytes(R2P2(rid=3) / RaftVote()))
    assert R2P2(bytes(R2P2(rid=3) / RaftVoteReply())).answers(vote)
    assert not R2P2(bytes(R2P2(rid=3) / RaftAppendReply())).answers(vote)
    assert R2P2(bytes(R2P2(rid=3) / RaftVoteReply())).answers(R2P2(bytes(R2P2(rid=3) / RaftVoteTransfer())))


def test_summaries_name_what_matters() -> None:
    packet = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=8000) / R2P2(rid=7)
    append = packet / RaftAppend(sender=1, term=3, prev_index=4, entries_term=3, entries=[RaftEntry(), RaftEntry()])
    assert append.summary() == "IP / UDP / R2P2 / Raft APPEND member 1 term 3 4..6 commit 0"
    assert IP(bytes(packet / Raw(b"x")))[R2P2].mysummary() == "R2P2 REQUEST rid 7 LB_ROUTE"


def test_ethernet_padding_is_not_payload() -> None:
    for message in (R2P2() / R2P2Ack(), R2P2() / Raw(b"x"), R2P2() / RaftVote()):
        padded = Ether(bytes(Ether() / IP() / UDP(sport=8000) / message) + b"\xee" * 9)
        assert padded[R2P2].problem() is None
        assert body(padded[R2P2]) == bytes(message)[8:]
    assert Ether(bytes(Ether() / IP() / UDP() / R2P2() / RaftVote()) + b"\xee")[RaftMessage].problem() is None
