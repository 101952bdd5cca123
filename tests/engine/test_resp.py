"""The framing check against hiredis: whole means that hiredis finds exactly one command and nothing behind it."""

from __future__ import annotations

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2p2.engine import resp_first_broken
from r2p2.requests import Requests

commands = st.lists(st.binary(max_size=30), min_size=1, max_size=5)


def packed(words: list[bytes]) -> bytes:
    return bytes(hiredis.pack_command(tuple(words)))  # type: ignore[arg-type]  # the stub asks for one word only


def is_whole(data: bytes) -> bool:
    return resp_first_broken(Requests.of([data])) == 1


def hiredis_finds_one_command(data: bytes) -> bool:
    reader = hiredis.Reader()
    reader.feed(data)
    try:
        first = reader.gets()
        if not isinstance(first, list) or not first or not all(isinstance(word, bytes) for word in first):
            return False
        reader.feed(b"+END\r\n")
        return reader.gets() == b"END" and reader.gets() is False
    except hiredis.ProtocolError:
        return False


@given(commands)
def test_packed_commands_are_whole(words: list[bytes]) -> None:
    data = packed(words)
    assert is_whole(data)
    assert not is_whole(data[:-1])
    assert not is_whole(data + b"x")
    assert not is_whole(data + data)


@given(commands, st.data())
def test_mutations_agree_with_hiredis(words: list[bytes], data: st.DataObject) -> None:
    changed = bytearray(packed(words))
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.sampled_from(list(b"*$\r\n0123456789-+x")))
    # Stricter than hiredis is allowed (a number like 05), laxer never.
    if is_whole(bytes(changed)):
        assert hiredis_finds_one_command(bytes(changed))


@pytest.mark.parametrize(
    "data",
    [b"", b"*", b"*1", b"*1\r\n", b"*0\r\n", b"*-1\r\n", b"*1\r\n$-1\r\n", b"*1\r\n$01\r\nx\r\n",
     b"*1\r\n$9999999999\r\n", b"*1\r\n$1\r\nx\r", b"*1\r\n:1\r\n", b"PING\r\n", b"*1\r\n$1\r\nxx\n",
     b"*2\r\n$1\r\nx\r\n"],
)  # fmt: skip
def test_what_is_not_whole(data: bytes) -> None:
    assert not is_whole(data)


@given(st.lists(commands, min_size=1, max_size=5), st.binary(max_size=9))
def test_the_first_broken_request_is_named(batch: list[list[bytes]], junk: bytes) -> None:
    requests = [packed(words) for words in batch]
    assert resp_first_broken(Requests.of(requests)) == len(requests)
    assert resp_first_broken(Requests.of([*requests, junk])) == len(requests)
