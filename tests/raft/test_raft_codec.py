"""The gateway: golden bytes for each kind, round trips, and one kind of error for whatever else comes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft import (
    Append,
    AppendReply,
    Configuration,
    Formed,
    Forward,
    Hello,
    Identity,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    MessageError,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    Reason,
    TimeoutNow,
    Vote,
    VoteReply,
    common_head,
    decode,
    encode,
)

CLUSTER = 0xC0FFEE01
IDENTITY = Identity(CLUSTER, 2, 0x1122334455667788)
TOP = 2**63 - 1

COMMON = "02 c0ffee01 1122334455667788 "  # after version, kind and the high byte of the sender
GOLDEN: list[tuple[Message, str, int]] = [
    (PreVote(2, 0, 8, 17, 7), "01 01 00" + COMMON + "0000000000000008 0000000000000011 0000000000000007", 0),
    (PreVoteReply(2, 0, 8, True), "01 02 00" + COMMON + "0000000000000008 01 00000000000000", 0),
    (Vote(2, 0, 8, 17, 7), "01 03 00" + COMMON + "0000000000000008 0000000000000011 0000000000000007", 0),
    (VoteReply(2, 0, 8, False), "01 04 00" + COMMON + "0000000000000008 00 00000000000000", 0),
    (
        Append(2, 0, 8, 16, 6, 7, 15, 12, 99, 2, 48),
        "01 05 00" + COMMON + "0000000000000008 0000000000000010 0000000000000006 0000000000000007"
        "000000000000000f 000000000000000c 0000000000000063 00000002 00000030",
        48,
    ),
    (
        AppendReply(2, 0, 8, 99, 16, 14, 6, 13, True),
        "01 06 00" + COMMON + "0000000000000008 0000000000000063 0000000000000010 000000000000000e"
        "0000000000000006 000000000000000d 01 00000000000000",
        0,
    ),
    (Forward(2, 0, 8, 3, 72), "01 07 00" + COMMON + "0000000000000008 00000003 00000048", 72),
    (Hello(2, 0, 0, 1, True, 0xABCD), "01 08 00" + COMMON + "0000000000000000 01 01 000000000000 000000000000abcd", 0),
    (
        Formed(2, 0, 0, ((1, 5), (2, 6))),
        "01 09 00" + COMMON + "0000000000000000 0002 000000000000 0001 000000000000 0000000000000005"
        "0002 000000000000 0000000000000006",
        0,
    ),
    (ReadIndex(2, 0, 8, 0x1234), "01 0a 00" + COMMON + "0000000000000008 0000000000001234", 0),
    (
        ReadIndexReply(2, 0, 8, 0x1234, 17, True),
        "01 0b 00" + COMMON + "0000000000000008 0000000000001234 0000000000000011 01 00000000000000",
        0,
    ),
    (TimeoutNow(2, 0, 8), "01 0c 00" + COMMON + "0000000000000008", 0),
    (
        Vote(2, 0, 8, 17, 7, transfer=True),
        "01 0d 00" + COMMON + "0000000000000008 0000000000000011 0000000000000007",
        0,
    ),
    (
        InstallSnapshot(2, 0, 8, 16, 6, 0, 900, 300, Configuration((1, 2), addresses=((1, 0x7F000001, 9000),))),
        "01 0e 00" + COMMON + "0000000000000008 0000000000000010 0000000000000006 0000000000000000 0000000000000384"
        "0000012c 00000030 01 0000000000 0002 0001 2328 7f000001 0000000000000000 01 000000"
        "0002 0000 00000000 0000000000000000 01 000000",
        300,
    ),
    (
        InstallSnapshot(2, 0, 8, 16, 6, 300, 900, 600),
        "01 0e 00" + COMMON + "0000000000000008 0000000000000010 0000000000000006 000000000000012c 0000000000000384"
        "00000258 00000000",
        600,
    ),
    (
        InstallSnapshotReply(2, 0, 8, 16, 900, True, 16),
        "01 0f 00" + COMMON + "0000000000000008 0000000000000010 0000000000000384 01 00000000000000 0000000000000010",
        0,
    ),
]
IDS = [type(message).__name__ for message, _, _ in GOLDEN]


@pytest.mark.parametrize(("message", "golden", "entries_bytes"), GOLDEN, ids=IDS)
def test_golden_bytes(message: Message, golden: str, entries_bytes: int) -> None:
    """The bytes of docs/wire.md, written out by hand."""
    data = encode(message, IDENTITY)
    assert data.hex() == bytes.fromhex(golden).hex()
    assert data[1] == (13 if getattr(message, "transfer", False) else message.KIND)
    assert len(data) == message.HEADER_BYTES or isinstance(message, Formed | InstallSnapshot)
    assert decode(data, len(data) + entries_bytes, cluster_id=CLUSTER) == (message, IDENTITY.incarnation)


index = st.integers(0, TOP)
terms = st.integers(1, TOP)
senders = st.integers(0, 0xFFFE)


@st.composite
def asks(draw: st.DrawFn) -> Message:
    """PreVote or Vote."""
    kind = draw(st.sampled_from([PreVote, Vote]))
    term = draw(terms)
    last_term = draw(st.integers(0, term - 1))
    message: Message = kind(2, 0, term, draw(st.integers(1, TOP)) if last_term else 0, last_term)
    if isinstance(message, Vote):
        message.transfer = draw(st.booleans())
    return message


@st.composite
def appends(draw: st.DrawFn) -> Message:
    """Append, with and without entries."""
    term = draw(terms)
    prev_term = draw(st.integers(0, term))
    prev = draw(st.integers(1, TOP - 2**20)) if prev_term else 0
    count = draw(st.integers(0, 2**20))
    commit = draw(index)
    return Append(
        2,
        0,
        term,
        prev,
        prev_term,
        draw(st.integers(max(1, prev_term), term)) if count else 0,
        commit,
        draw(st.integers(0, commit)),
        draw(st.integers(1, TOP)),
        count,
        16 * count + (8 * draw(st.integers(0, 100)) if count else 0),
    )


@st.composite
def replies(draw: st.DrawFn) -> Message:
    """AppendReply."""
    term = draw(terms)
    return AppendReply(
        2,
        0,
        term,
        draw(st.integers(1, TOP)),
        draw(index),
        draw(index),
        draw(st.integers(0, term)),
        draw(index),
        draw(st.booleans()),
    )


@st.composite
def formed(draw: st.DrawFn) -> Message:
    """Formed of as many as there may be."""
    ids = sorted(draw(st.sets(senders, min_size=1, max_size=16)))
    return Formed(2, 0, draw(index), tuple((i, draw(st.integers(1, 2**64 - 1))) for i in ids))


@st.composite
def snapshots(draw: st.DrawFn) -> Message:
    """A piece of a snapshot, the first one with its members."""
    term = draw(terms)
    offset = draw(st.one_of(st.just(0), st.integers(1, TOP - 2**32)))
    count = draw(st.integers(1, 2**32 - 1))
    voters = tuple(sorted(draw(st.sets(st.integers(0, 0xFFFE), min_size=1, max_size=16))))
    configuration = None if offset else Configuration(voters)
    total = draw(st.integers(offset + count, TOP))
    fields = (draw(st.integers(1, TOP)), draw(st.integers(1, term)), offset, total, count)
    return InstallSnapshot(2, 0, term, *fields, configuration)


messages = st.one_of(
    snapshots(),
    st.builds(InstallSnapshotReply, st.just(2), st.just(0), terms, st.integers(1, TOP), index, st.booleans(), index),
    asks(),
    appends(),
    replies(),
    formed(),
    st.builds(PreVoteReply, st.just(2), st.just(0), terms, st.booleans()),
    st.builds(VoteReply, st.just(2), st.just(0), terms, st.booleans()),
    st.builds(
        lambda term, count, more: Forward(2, 0, term, count, 16 * count + 8 * more),
        index,
        st.integers(1, 999),
        index.map(lambda i: i % 99),
    ),
    st.builds(ReadIndex, st.just(2), st.just(0), terms, st.integers(0, 2**64 - 1)),
    st.builds(
        lambda term, context, i: ReadIndexReply(2, 0, term, context, i, i > 0), terms, st.integers(0, 2**64 - 1), index
    ),
    st.builds(TimeoutNow, st.just(2), st.just(0), terms),
    st.builds(Hello, st.just(2), st.just(0), index, st.integers(0, 1), st.booleans(), st.integers(0, 2**64 - 1)),
)


@given(messages)
def test_round_trip(message: Message) -> None:
    """What is encoded is decoded to the same, and encoded to the same bytes again."""
    data = encode(message, IDENTITY)
    total = len(data) + getattr(message, "bytes_count", 0)
    again, incarnation = decode(data, total, cluster_id=CLUSTER)
    assert (again, incarnation) == (message, IDENTITY.incarnation)
    assert encode(again, IDENTITY) == data


@given(st.binary(max_size=120), st.integers(0, 2**40))
def test_any_bytes_give_a_message_or_a_message_error(data: bytes, total: int) -> None:
    """Whatever a peer sends, nothing else comes out."""
    for total_bytes in (len(data), total):
        try:
            decode(data, total_bytes, cluster_id=CLUSTER)
        except MessageError as error:
            assert isinstance(error.reason, Reason)


@given(messages, st.data())
def test_mutated_messages_decode_to_what_they_say_or_not_at_all(message: Message, data: st.DataObject) -> None:
    """A flipped bit is refused or read as what it says: the result encodes to the mutated bytes, nothing is skipped."""
    raw = bytearray(encode(message, IDENTITY))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    try:
        again, incarnation = decode(bytes(raw), len(raw) + getattr(message, "bytes_count", 0), cluster_id=CLUSTER)
    except MessageError:
        return
    assert encode(again, Identity(CLUSTER, again.sender, incarnation)) == bytes(raw)


@given(messages, st.integers(0, 400))
def test_truncated_and_padded_messages_are_refused(message: Message, total: int) -> None:
    """The whole length is part of what is checked."""
    data = encode(message, IDENTITY)
    right = len(data) + getattr(message, "bytes_count", 0)
    if total != right:
        with pytest.raises(MessageError):
            decode(data[:total], total, cluster_id=CLUSTER)


def patched(message: Message, offset: int, value: bytes) -> bytes:
    """The message with some bytes replaced."""
    data = bytearray(encode(message, IDENTITY))
    data[offset : offset + len(value)] = value
    return bytes(data)


A_VOTE, AN_APPEND, A_REPLY = GOLDEN[2][0], GOLDEN[4][0], GOLDEN[5][0]
A_PIECE, AN_INSTALLED = GOLDEN[13][0], GOLDEN[15][0]
U64 = struct.Struct(">Q")


@pytest.mark.parametrize(
    ("data", "total", "reason"),
    [
        (b"", 0, Reason.SHORT),
        (encode(A_VOTE, IDENTITY)[:39], 39, Reason.SHORT),
        (encode(A_VOTE, IDENTITY)[:30], 40, Reason.SHORT),
        (patched(A_VOTE, 0, b"\x02"), 40, Reason.VERSION),
        (patched(A_VOTE, 1, b"\x00"), 40, Reason.KIND),
        (patched(A_VOTE, 1, b"\x10"), 40, Reason.KIND),
        (patched(A_VOTE, 2, b"\xff\xff"), 40, Reason.SENDER),
        (patched(A_VOTE, 4, b"\x00"), 40, Reason.CLUSTER),
        (patched(A_VOTE, 8, bytes(8)), 40, Reason.INCARNATION),
        (patched(A_VOTE, 16, bytes(8)), 40, Reason.FIELD),
        (patched(A_VOTE, 16, b"\x80"), 40, Reason.FIELD),
        (patched(A_VOTE, 24, b"\x80"), 40, Reason.FIELD),
        (patched(A_VOTE, 24, bytes(8)), 40, Reason.FIELD),
        (patched(A_VOTE, 32, U64.pack(8)), 40, Reason.FIELD),
        (encode(A_VOTE, IDENTITY), 41, Reason.LENGTH),
        (encode(AN_APPEND, IDENTITY), 80, Reason.LENGTH),
        (encode(AN_APPEND, IDENTITY), 129, Reason.LENGTH),
        (patched(AN_APPEND, 40, U64.pack(9)), 128, Reason.FIELD),
        (patched(AN_APPEND, 40, U64.pack(5)), 128, Reason.FIELD),
        (patched(AN_APPEND, 24, U64.pack(TOP - 1)), 128, Reason.FIELD),
        (patched(AN_APPEND, 48, U64.pack(11)), 128, Reason.FIELD),
        (patched(AN_APPEND, 64, U64.pack(0)), 128, Reason.FIELD),
        (patched(AN_APPEND, 72, struct.pack(">I", 0)), 128, Reason.FIELD),
        (patched(AN_APPEND, 72, struct.pack(">I", 4)), 128, Reason.FIELD),
        (patched(AN_APPEND, 76, struct.pack(">I", 49)), 129, Reason.FIELD),
        (encode(A_REPLY, IDENTITY), 73, Reason.LENGTH),
        (patched(A_REPLY, 64, b"\x02"), 72, Reason.FIELD),
        (patched(A_REPLY, 71, b"\x01"), 72, Reason.FIELD),
        (patched(A_REPLY, 48, U64.pack(9)), 72, Reason.FIELD),
        (patched(GOLDEN[7][0], 26, b"\x01"), 40, Reason.FIELD),
        (patched(GOLDEN[7][0], 24, b"\x02"), 40, Reason.FIELD),
        (patched(GOLDEN[10][0], 32, bytes(8)), 48, Reason.FIELD),
        (patched(GOLDEN[10][0], 40, b"\x00"), 48, Reason.FIELD),
        (patched(GOLDEN[11][0], 16, bytes(8)), 24, Reason.FIELD),
        (patched(GOLDEN[8][0], 24, b"\x00\x00"), 64, Reason.FIELD),
        (patched(GOLDEN[8][0], 24, b"\x00\x11"), 64, Reason.FIELD),
        (patched(GOLDEN[8][0], 48, b"\x00\x01"), 64, Reason.FIELD),
        (encode(GOLDEN[8][0], IDENTITY)[:60], 64, Reason.LENGTH),
        (patched(A_PIECE, 24, bytes(8)), 412, Reason.FIELD),
        (patched(A_PIECE, 24, b"\x80"), 412, Reason.FIELD),
        (patched(A_PIECE, 32, bytes(8)), 412, Reason.FIELD),
        (patched(A_PIECE, 32, U64.pack(9)), 412, Reason.FIELD),
        (patched(A_PIECE, 40, U64.pack(1)), 412, Reason.FIELD),
        (patched(A_PIECE, 48, U64.pack(299)), 412, Reason.FIELD),
        (patched(A_PIECE, 48, b"\x80"), 412, Reason.FIELD),
        (patched(A_PIECE, 56, bytes(4)), 112, Reason.FIELD),
        (patched(A_PIECE, 64, b"\x02"), 412, Reason.VERSION),
        (patched(A_PIECE, 88, b"\x00"), 412, Reason.FIELD),
        (encode(A_PIECE, IDENTITY), 411, Reason.LENGTH),
        (encode(A_PIECE, IDENTITY)[:111], 412, Reason.LENGTH),
        (patched(GOLDEN[14][0], 40, bytes(8)), 664, Reason.FIELD),
        (patched(AN_INSTALLED, 24, bytes(8)), 56, Reason.FIELD),
        (patched(AN_INSTALLED, 32, b"\x80"), 56, Reason.FIELD),
        (patched(AN_INSTALLED, 40, b"\x02"), 56, Reason.FIELD),
        (patched(AN_INSTALLED, 47, b"\x01"), 56, Reason.FIELD),
        (patched(AN_INSTALLED, 48, b"\x80"), 56, Reason.FIELD),
        (encode(AN_INSTALLED, IDENTITY), 57, Reason.LENGTH),
    ],
)
def test_each_field_is_checked(data: bytes, total: int, reason: Reason) -> None:
    """One broken field, one reason."""
    with pytest.raises(MessageError) as caught:
        decode(data, total, cluster_id=CLUSTER)
    assert caught.value.reason is reason
    assert reason.value in str(caught.value)


def test_a_prefix_of_104_bytes_holds_every_header_and_a_formed_of_four() -> None:
    """What the engine hands over is enough; for a snapshot's first piece it is not, and the error says how much is."""
    with pytest.raises(MessageError, match="needs 112 bytes, got 104") as caught:
        decode(encode(A_PIECE, IDENTITY)[:104], 412, cluster_id=CLUSTER)
    assert caught.value.reason is Reason.LENGTH
    for message, _, entries_bytes in GOLDEN:
        if message is A_PIECE:
            continue
        data = encode(message, IDENTITY) + bytes(entries_bytes)
        assert decode(data[:104], len(data), cluster_id=CLUSTER)[0] == message
    four = encode(Formed(2, 0, 0, ((0, 1), (1, 1), (2, 1), (3, 1))), IDENTITY)
    assert len(four) <= 104


def test_every_message_begins_with_the_common_head() -> None:
    identity = Identity(7, 3, 0xABCDEF)
    for message in (AppendReply(3, 1, 9, 5, 4, 0, 0, 4, True), Append(3, 1, 9, 4, 2, 9, 4, 4, 6, 1, 64)):
        assert encode(message, identity)[:24] == common_head(message.KIND, 9, identity)
