"""The gateway's parser: whole or cut anywhere, the same commands; Redis's words for what is wrong."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2p2 import limits
from r2p2.apps.kv import encode_command
from r2p2.apps.kv._plain import commands
from r2p2.gateway.parser import CommandParser, TooLarge
from tests.apps.redis_server import redis_server

words = st.lists(st.binary(max_size=12), min_size=1, max_size=5)
piece = st.one_of(
    words.map(lambda found: (encode_command(*found), found)),
    st.sampled_from([(b"*0\r\n", None), (b"*-1\r\n", None), (b"\r\n", None), (b"  \n", None)]),
    st.sampled_from([(b"PING\r\n", [b"PING"]), (b"SET a 'b c'\n", [b"SET", b"a", b"b c"])]),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(piece, max_size=8), st.lists(st.integers(0, 400), max_size=6))
def test_commands_cut_anywhere_are_the_same(pieces: list[Any], cuts: list[int]) -> None:
    data = b"".join(raw for raw, _ in pieces)
    parser = CommandParser()
    got: list[Any] = []
    at = 0
    for end in [*sorted(cuts), len(data)]:
        got += parser.feed(data[at:end])
        at = max(at, end)
    assert got == [found for _, found in pieces if found is not None]
    assert parser.error == b""


@settings(max_examples=600, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 60))
def test_any_bytes_are_taken_and_cuts_do_not_matter(data: bytes, cut: int) -> None:
    whole, parts = CommandParser(), CommandParser()
    expected = whole.feed(data)
    assert parts.feed(data[:cut]) + parts.feed(data[cut:]) == expected
    assert parts.error == whole.error


@settings(max_examples=1500, deadline=None)
@given(
    st.lists(st.sampled_from([b"*", b"$", b"1", b"2", b"0", b"-", b"\r\n", b"a", b"ab", b"*1\r\n$1\r\n", b"+"])),
    st.data(),
)
def test_bytes_that_are_nearly_commands_are_taken_alike_whole_and_cut(pieces: list[bytes], data: st.DataObject) -> None:
    joined = b"".join(pieces)
    whole, parts = CommandParser(), CommandParser()
    expected = whole.feed(joined)
    cut = data.draw(st.integers(0, len(joined)))
    assert parts.feed(joined[:cut]) + parts.feed(joined[cut:]) == expected
    assert parts.error == whole.error


@pytest.mark.parametrize("kind", [b"*", b"*1\r\n*", b"*1\r\n~", b"*1\r\n%", b"*1\r\n$4\r\nPING\r\n*"])
@pytest.mark.parametrize("count", [2147483647, 999999999, 99999])
def test_announcing_much_costs_nothing(kind: bytes, count: int) -> None:
    """20 bytes had room made for 2,147,483,647 words: 16 GB, and a gateway that stood still for half a minute."""
    tracemalloc.start()
    try:
        parser = CommandParser()
        parser.feed(b"%b%d\r\n$4\r\nPING\r\n" % (kind, count))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_whole_commands_are_all_or_nothing() -> None:
    one, two = encode_command("SET", b"\0\r\n", ""), encode_command("GET", "a" * 300)
    assert commands(one + two) == [[b"SET", b"\0\r\n", b""], [b"GET", b"a" * 300]]
    assert commands(b"") == []
    for data in (
        one[:-1],
        one + two[:5],
        b"*0\r\n",
        one + b"PING\r\n",
        b"*1\r\n+PING\r\n",
        b"*01\r\n$1\r\na\r\n",
        b"*1\r\n$1\r\nabc",
    ):
        assert commands(data) is None
    with pytest.raises(TypeError, match="data is a str, not bytes"):
        commands("a")  # type: ignore[arg-type]


BROKEN = [
    b"*x\r\n",
    b"*2147483648\r\n",
    b"*1\r\nPING\r\n",
    b"*1\r\n\r\n",
    b"*1\r\n$x\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$536870913\r\n",
    b"*1\r\n$04\r\nPING\r\n",
    b"*1\r\n:1\r\n",
    b"*1\r\n+PING\r\n",
    b"*1\r\n*1\r\n$4\r\nPING\r\n",
    b'GET "a\r\n',
    b"GET 'a'b\r\n",
    b'GET a"b\r\n',
    b'GET a"b"c\r\n',
    b"x" * 70_000,
    b"*" + b"1" * 70_000,
    b"*1\r\n$" + b"1" * 70_000,
]


@pytest.mark.needs("redis")
@pytest.mark.parametrize("data", BROKEN, ids=lambda data: repr(data[:24]))
def test_what_is_wrong_is_told_in_the_words_of_redis(data: bytes) -> None:
    parser = CommandParser()
    assert parser.feed(encode_command("PING") + data) == [[b"PING"]]
    with redis_server() as redis:
        assert parser.error == redis.raw(data)
    assert parser.feed(b"PING\r\n") == []


@pytest.mark.needs("redis")
@pytest.mark.parametrize(
    "line",
    [
        b'ECHO "a b"',
        b'ECHO "\\x41\\n\\"\\q"',
        b"ECHO 'it\\'s'",
        b"ECHO 'a\\nb'",
        b"  ECHO   x  ",
        b'ECHO ""',
        b'ECHO a"b c"',
    ],
)
def test_lines_of_words_are_read_as_redis_reads_them(line: bytes) -> None:
    (command,) = CommandParser().feed(line + b"\r\n")
    assert isinstance(command, list)
    with redis_server() as redis:
        assert b"$%d\r\n%b\r\n" % (len(command[1]), command[1]) == redis.raw(line + b"\r\n")


def test_a_command_that_is_too_large_is_skipped_and_not_kept() -> None:
    parser = CommandParser()
    large = encode_command("SET", "k", b"x" * 5_000_000)
    got = []
    for at in range(0, len(large), 60_000):
        got += parser.feed(large[at : at + 60_000])
        assert len(parser._buffer) < limits.REQUEST_BYTES_MAX
    assert len(got) == 1 and isinstance(got[0], TooLarge) and got[0].bytes_count > 5_000_000
    assert parser.feed(encode_command("PING")) == [[b"PING"]]
