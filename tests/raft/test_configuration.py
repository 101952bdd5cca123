"""Configurations: their rules, the ways between them, their history in a log, their bytes (dissertation 4.1, 4.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft import (
    Configuration,
    MessageError,
    Reason,
    decode_configuration,
    encode_configuration,
    incarnation_of,
    member_id,
    slot_of,
)
from raft.configuration import LEARNERS_MAX, MEMBER_ID_MAX, VOTERS_MAX, History

A, B, C, D = (member_id(slot, incarnation) for slot, incarnation in ((0, 5), (2, 5), (1, 7), (2, 9)))
IP = 0x7F000001

# member 2 of launch 5 leaves, member 2 of launch 9 comes, member 1 learns; written out from docs/wire.md.
JOINT = Configuration((A, D), (A, B), (C,), ((A, IP, 9000), (C, IP, 9001), (D, IP + 1, 9002)))
GOLDEN = (
    "01 0000000000 0004"
    "0000 2328 7f000001 0000000000000005 03 000000"
    "0002 0000 00000000 0000000000000005 02 000000"
    "0001 2329 7f000001 0000000000000007 04 000000"
    "0002 232a 7f000002 0000000000000009 01 000000"
)


def test_an_identity_is_a_slot_and_a_launch() -> None:
    """80 bits; the slot below, so that one incarnation orders by slot."""
    top = member_id(65534, 2**64 - 1)
    assert (slot_of(top), incarnation_of(top)) == (65534, 2**64 - 1)
    assert top == MEMBER_ID_MAX - 1
    assert member_id(3, 0) == 3
    assert A < B < C < D


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (((),), "voters: none"),
        (((2, 1),), "voters"),
        (((1, 1),), "voters"),
        (((-1,),), "do not ascend"),
        (((0xFFFF,),), "no member's identity"),
        (((MEMBER_ID_MAX + 1,),), "no member's identity"),
        ((tuple(range(VOTERS_MAX + 1)),), "voters: 17"),
        (((1,), tuple(range(VOTERS_MAX + 1))), "outgoing: 17"),
        (((1,), (), tuple(range(2, LEARNERS_MAX + 3))), "learners: 17"),
        (((1,), (2, 2)), "outgoing"),
        (((1,), (), (1,)), "are voters, too"),
        (((1,), (2,), (2,)), "are voters, too"),
        (((1,), (), (), ((2, IP, 1),)), "are not members"),
        (((1, 2), (), (), ((2, IP, 1), (1, IP, 1))), "addresses"),
    ],
)
def test_what_is_no_configuration(fields: tuple[tuple[int, ...], ...], named: str) -> None:
    """The error names the field."""
    with pytest.raises(ValueError, match=named):
        Configuration(*fields)  # type: ignore[arg-type]


def test_changes_and_the_way_to_them() -> None:
    """4.3: voters change through both halves; learners come and go at once."""
    start = Configuration((A, B), (), (), ((A, IP, 1), (B, IP, 2)))
    learner = start.with_learner(C, IP, 3)
    assert learner == Configuration((A, B), (), (C,), ((A, IP, 1), (B, IP, 2), (C, IP, 3)))
    assert start.towards(learner) is learner
    assert learner.with_learner(A, IP, 9).voters == (A, B)  # a voter stays one; its address changes
    assert learner.with_learner(A, IP, 9).addresses[0] == (A, IP, 9)
    target = learner.with_voter(C, instead_of=B)
    assert target == Configuration((A, C), (), (), ((A, IP, 1), (C, IP, 3)))
    joint = learner.towards(target)
    assert joint == Configuration((A, C), (A, B), (), ((A, IP, 1), (B, IP, 2), (C, IP, 3)))
    assert (joint.joint, target.joint) == (True, False)
    assert joint.members == (A, B, C)
    assert [joint.is_voter(member) for member in (A, B, C, D)] == [True, True, True, False]
    assert joint.settled() == target
    assert learner.with_voter(C).voters == (A, B, C)
    assert learner.without(C) == start
    assert start.without(D) == start
    with pytest.raises(ValueError, match="voters: none"):
        start.without(A).without(B)
    with pytest.raises(ValueError, match="removed first"):
        start.towards(Configuration((A,), (), (B,)))
    with_learners = Configuration((A, B), (), (D,)).towards(Configuration((A, D), (), (C,)))
    assert with_learners == Configuration((A, D), (A, B), (C,))


def test_the_history_of_a_log() -> None:
    """4.1: the newest counts, a truncated one does not, the one at the log's start is kept."""
    first, second, third = Configuration((1,)), Configuration((1, 2)), Configuration((1, 2, 3))
    history = History([(0, first), (4, second)])
    history.add(9, third)
    assert (history.index, history.current) == (9, third)
    assert [history.at(index) for index in (0, 3, 4, 8, 9, 99)] == [first, first, second, second, third, third]
    assert [history.first_from(index) for index in (1, 4, 5, 10)] == [4, 4, 9, 0]
    assert (history.configuration(4), history.configuration(5)) == (second, None)
    assert not history.truncate(10)
    assert history.truncate(5)
    assert history.entries() == [(0, first), (4, second)]
    history.add(7, third)
    history.drop(6)
    assert history.entries() == [(4, second), (7, third)]
    assert history.truncate(6)
    assert history.entries() == [(4, second)]
    history.restart(20, third)
    assert history.entries() == [(20, third)]
    for wrong in ([], [(3, first), (3, second)]):
        with pytest.raises(ValueError, match="ascending"):
            History(wrong)


def test_golden_bytes_of_a_configuration() -> None:
    """docs/wire.md, written out by hand."""
    assert encode_configuration(JOINT).hex() == bytes.fromhex(GOLDEN).hex()
    assert decode_configuration(bytes.fromhex(GOLDEN)) == JOINT


ids = st.builds(member_id, st.integers(0, 0xFFFE), st.integers(0, 2**64 - 1))


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    """Any legal one; addresses for some members."""
    voters = draw(st.sets(ids, min_size=1, max_size=VOTERS_MAX))
    outgoing = draw(st.sets(st.one_of(ids, st.sampled_from(sorted(voters))), max_size=VOTERS_MAX))
    learners = draw(st.sets(ids, max_size=LEARNERS_MAX)) - voters - outgoing
    known = draw(st.sets(st.sampled_from(sorted(voters | outgoing | learners))))
    addresses = tuple(
        (member, draw(st.integers(1, 2**32 - 1)), draw(st.integers(0, 65535))) for member in sorted(known)
    )
    return Configuration(tuple(sorted(voters)), tuple(sorted(outgoing)), tuple(sorted(learners)), addresses)


@given(configurations())
def test_round_trip(configuration: Configuration) -> None:
    """Equal again, from bytes of the documented length."""
    data = encode_configuration(configuration)
    assert len(data) == 8 + 20 * len(configuration.members)
    assert decode_configuration(data) == configuration


@given(configurations(), st.data())
def test_a_flipped_bit_is_refused_or_read(configuration: Configuration, data: st.DataObject) -> None:
    """One kind of error, and never a crash."""
    raw = bytearray(encode_configuration(configuration))
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    try:
        again = decode_configuration(bytes(raw))
    except MessageError as error:
        assert isinstance(error.reason, Reason)
    else:
        assert again != configuration


@given(st.binary(max_size=200))
def test_any_bytes_give_a_configuration_or_a_message_error(data: bytes) -> None:
    """Whatever a peer sends, nothing else comes out."""
    for raw in (data, b"\x01" + bytes(5) + (len(data) // 20).to_bytes(2, "big") + data[: len(data) // 20 * 20]):
        try:
            decode_configuration(raw)
        except MessageError as error:
            assert error.reason in Reason


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (0, b"\x02", Reason.VERSION),
        (3, b"\x01", Reason.FIELD),
        (6, b"\x00\x03", Reason.LENGTH),
        (8, b"\xff\xff", Reason.FIELD),
        (24, b"\x00", Reason.FIELD),
        (24, b"\x08", Reason.FIELD),
        (24, b"\x05", Reason.FIELD),
        (27, b"\x01", Reason.FIELD),
    ],
)
def test_each_field_is_checked(offset: int, value: bytes, reason: Reason) -> None:
    """One broken field, one reason."""
    data = bytearray.fromhex(GOLDEN)
    data[offset : offset + len(value)] = value
    with pytest.raises(MessageError) as caught:
        decode_configuration(bytes(data))
    assert caught.value.reason is reason
    for cut in (0, 7, 8, 27, len(data) - 1):
        with pytest.raises(MessageError):
            decode_configuration(bytes(data[:cut]))
