"""Runs of plain SETs and GETs in C answer and change the same as the handlers do, wherever the run ends."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2p2.apps.kv import KeyValue, encode_command
from r2p2.apps.kv._plain import run
from r2p2.requests import Replies, ReplySequence, Requests

SET = encode_command("SET", "k", "v")
GET = encode_command("GET", "k")
word = st.one_of(st.sampled_from([b"", b"a", b"b", b"$1\r\n", b"a" * 300]), st.binary(max_size=12))
plain = st.one_of(
    st.builds(encode_command, st.sampled_from(["SET", "set"]), word, word),
    st.builds(encode_command, st.sampled_from(["GET", "get"]), word),
)
other = st.one_of(
    st.builds(encode_command, st.sampled_from(["Set", "GET", "APPEND", "STRLEN", "NO"]), word, word),
    st.builds(encode_command, st.just("SET"), word, word, st.sampled_from(["NX", "GET", "WRONG"])),
    st.just(encode_command("INCR", "n")),
    st.just(encode_command("FLUSHALL")),
    st.just(b"PING\r\n"),
)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A plain command with a byte changed, left out or added."""
    whole = draw(plain)
    at = draw(st.integers(0, len(whole) - 1))
    return draw(
        st.sampled_from(
            [whole[:at] + whole[at + 1 :], whole[:at] + b"0" + whole[at + 1 :], whole[:at] + b"\r" + whole[at:]]
        )
    )


def unpacked(replies: ReplySequence) -> list[bytes]:
    packed = replies if isinstance(replies, Replies) else Replies.pack(replies)
    return list(Requests(packed.slab, memoryview(packed.lengths), bytes(len(packed.lengths))))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(plain, plain, plain, other, broken()), min_size=1, max_size=12))
def test_as_the_handlers_one_by_one(requests: list[bytes]) -> None:
    batched, single = KeyValue(), KeyValue()
    expected = [reply for request in requests for reply in single._apply_any(Requests.of([request]))]
    assert unpacked(batched.apply(Requests.of(requests))) == expected
    assert batched.data == single.data
    reads = [single.query(request) for request in requests]
    assert unpacked(batched.query_batch(Requests.of(requests, policy=3))) == reads
    assert batched.data == single.data


def test_where_something_ends_is_watched_or_scanned_the_handlers_do_it() -> None:
    kv = KeyValue()
    kv.apply(Requests.of([encode_command("SET", "k", "v", "PX", 5)], time_ms=1000))
    assert unpacked(kv.apply(Requests.of([GET, SET, GET], time_ms=1006))) == [b"$-1\r\n", b"+OK\r\n", b"$1\r\nv\r\n"]
    assert kv.store.is_plain  # SET took the deadline away
    number = unpacked(kv.apply(Requests.of([encode_command("R2P2.WATCH", "k")])))[0]
    assert number == b"*1\r\n:1\r\n"
    kv.apply(Requests.of([SET]))
    unwritten = encode_command("R2P2.BATCH", "IFUNWRITTEN", "k", 1, "DO", 1, "PING")
    assert unpacked(kv.apply(Requests.of([unwritten]))) == [b"*-1\r\n"]


def test_it_stops_at_the_first_other_request() -> None:
    data: dict[bytes, bytes | None] = {}
    batch = Requests.of([SET, GET, encode_command("DEL", "k"), GET])
    assert run(data, None, batch.slab, batch.lengths, True) == (2, b"+OK\r\n$1\r\nv\r\n", array("I", [5, 7]).tobytes())
    assert run(data, None, batch.slab, batch.lengths, False) == (0, b"", b"")
    assert data == {b"k": b"v"}


def test_long_values_come_back_whole() -> None:
    value = bytes(range(256)) * 1400
    requests = [encode_command("SET", "k", value), *[GET] * 5]
    kv = KeyValue()
    assert unpacked(kv.apply(Requests.of(requests)))[1:] == [b"$%d\r\n%b\r\n" % (len(value), value)] * 5


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="beyond the slab"):
        run({}, None, SET, array("I", [len(SET), 1]), True)
    with pytest.raises(TypeError):
        run({b"k": "text"}, None, GET, array("I", [len(GET)]), True)  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        run([], None, GET, array("I", [len(GET)]), True)  # type: ignore[arg-type]
