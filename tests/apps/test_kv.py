"""The key-value application: commands, errors, and that batch borders never matter."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2p2.apps.kv import KeyValue, encode_command
from r2p2.requests import Replies, Requests


def apply(kv: KeyValue, *requests: bytes) -> list[bytes]:
    replies = kv.apply(Requests.of(requests))
    packed = replies if isinstance(replies, Replies) else Replies.pack(replies)
    ends = list(accumulate(packed.lengths))
    assert ends[-1:] == ([len(packed.slab)] if requests else [])
    return [packed.slab[end - length : end] for end, length in zip(ends, packed.lengths, strict=True)]


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (("SET", "k", "v"), b"+OK\r\n"),
        (("set", "k", "v"), b"+OK\r\n"),
        (("GET", "there"), b"$1\r\n1\r\n"),
        (("GET", "absent"), b"$-1\r\n"),
        (("DEL", "there", "there", "absent"), b":1\r\n"),
        (("PING",), b"+PONG\r\n"),
        (("ping", "x"), b"$1\r\nx\r\n"),
        (("SET", "k"), b"-ERR wrong number of arguments for 'set' command\r\n"),
        (("GET",), b"-ERR wrong number of arguments for 'get' command\r\n"),
        (("GET", "a", "b"), b"-ERR wrong number of arguments for 'get' command\r\n"),
        (("DEL",), b"-ERR wrong number of arguments for 'del' command\r\n"),
        (("PING", "a", "b"), b"-ERR wrong number of arguments for 'ping' command\r\n"),
        (("SET", "k", "v", "XY"), b"-ERR syntax error\r\n"),
        (("FLY",), b"-ERR unknown command 'FLY', with args beginning with: \r\n"),
    ],
)
def test_commands(command: tuple[str, ...], reply: bytes) -> None:
    kv = KeyValue()
    kv.store.set(b"there", b"1")
    assert apply(kv, encode_command(*command)) == [reply]


def test_values_are_bytes() -> None:
    kv = KeyValue()
    value = bytes(range(256)) + b"\r\n*1\r\n$4\r\nPING\r\n"
    assert apply(kv, encode_command("SET", b"\r\n", value), encode_command("GET", b"\r\n")) == [
        b"+OK\r\n",
        b"$%d\r\n%b\r\n" % (len(value), value),
    ]


def test_inline_commands() -> None:
    assert apply(KeyValue(), b"PING\r\n", b"SET a 1\r\n", b"GET a\n") == [b"+PONG\r\n", b"+OK\r\n", b"$1\r\n1\r\n"]


@pytest.mark.parametrize("bad", [b"", b"\x00", b"*1\r\n$4\r\nPI", b"*3\r\n$3\r\nSET\r\n", b"\r\n", b"*0\r\n"])
def test_a_bad_request_gets_an_error_and_its_neighbours_their_answers(bad: bytes) -> None:
    assert apply(KeyValue(), encode_command("SET", "a", "1"), bad, encode_command("GET", "a")) == [
        b"+OK\r\n",
        b"-ERR Protocol error: not one RESP command\r\n",
        b"$1\r\n1\r\n",
    ]


def test_two_halves_of_a_command_are_two_errors_in_one_batch_as_in_two() -> None:
    """Fed as one stream, these two would be one command; on a replica with another batch border they would not."""
    whole = encode_command("SET", "stolen", "x")
    halves = (whole[:10], whole[10:])
    error = b"-ERR Protocol error: not one RESP command\r\n"
    together, apart = KeyValue(), KeyValue()
    assert apply(together, *halves) == [error, error]
    assert apply(apart, halves[0]) + apply(apart, halves[1]) == [error, error]
    assert together.data == apart.data == {}


keys = st.sampled_from([b"a", b"b", b"c"])
requests = st.one_of(
    st.builds(lambda k, v: encode_command("SET", k, v), keys, st.binary(max_size=5)),
    st.builds(lambda k: encode_command("GET", k), keys),
    st.builds(lambda k: encode_command("DEL", k), keys),
    st.just(encode_command("PING")),
    st.binary(max_size=12),
    st.builds(lambda k, n: encode_command("SET", k, b"vvvv")[:n], keys, st.integers(0, 30)),
)


@settings(max_examples=300)
@given(st.lists(requests, max_size=20), st.data())
def test_batch_borders_never_matter(log: list[bytes], data: st.DataObject) -> None:
    one_by_one, batched = KeyValue(), KeyValue()
    expected = [reply for request in log for reply in apply(one_by_one, request)]
    got: list[bytes] = []
    at = 0
    while at < len(log):
        n = data.draw(st.integers(1, len(log) - at))
        got += apply(batched, *log[at : at + n])
        at += n
    assert got == expected
    assert batched.state_digest() == one_by_one.state_digest()


def test_query_reads_and_refuses_to_write() -> None:
    kv = KeyValue()
    kv.store.set(b"k", b"v")
    assert kv.query(encode_command("GET", "k")) == b"$1\r\nv\r\n"
    assert kv.query(encode_command("SET", "k", "w")).startswith(b"-READONLY")
    assert kv.query(b"junk").startswith(b"-ERR Protocol")
    assert kv.data == {b"k": b"v"}


@pytest.mark.parametrize("data", ["", "0000000000000001", "0000000000000000ff", "ffffffffffffffff"])
def test_what_is_no_snapshot_is_refused(data: str) -> None:
    with pytest.raises(ValueError, match="a snapshot of"):
        KeyValue().restore(bytes.fromhex(data))
