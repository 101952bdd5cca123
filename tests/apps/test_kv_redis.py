"""The store answers as a real redis-server does: random sequences of commands, to the byte.

Time is made to agree: a deadline is many seconds away or in the past, and when the log's time moves on,
the server's deadlines are moved back by as much. Where a reply shows a time, a minute of difference is allowed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import hiredis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r2p2.apps.kv import KeyValue, encode_command
from r2p2.requests import Replies, Requests
from tests.apps.redis_server import ERRORS_AS_TEXT, RedisConnection, redis_server

pytestmark = pytest.mark.needs("redis")

SLACK_S = 60
SHOWS_MS = {b"PTTL", b"PEXPIRETIME"}
SHOWS_S = {b"TTL", b"EXPIRETIME"}
INT64 = 1 << 63


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisConnection]:
    with redis_server() as connection:
        yield connection


@dataclass(frozen=True)
class Later:
    """A word that is a time: hundreds of seconds from now, and a second more for each command before it, so that no
    two deadlines are less than a second apart, nor a deadline and the passing of time.
    """

    hundreds: int
    unit_ms: int
    is_absolute: bool = False

    def value(self, twins: Twins, shift_ms: int = 0) -> int:
        """In its unit."""
        ms = (self.hundreds * 100 + 10 + twins.commands_count) * 1000
        return (ms + (twins.now_ms + shift_ms if self.is_absolute else 0)) // self.unit_ms


class Twins:
    """The store and the server, given the same commands."""

    def __init__(self, redis: RedisConnection) -> None:
        self.redis = redis
        self.kv = KeyValue()
        self.commands_count = 0
        self.now_ms = int(time.time() * 1000)
        redis.raw(encode_command("FLUSHALL"))

    def pass_time(self, ms: int) -> None:
        """The log's time goes on; the server's deadlines come nearer."""
        self.now_ms += ms
        for key in parsed(self.redis.raw(encode_command("KEYS", "*"))):
            when = parsed(self.redis.raw(encode_command("PEXPIRETIME", key)))
            if when > 0:
                self.redis.raw(encode_command("PEXPIREAT", key, max(when - ms, 1)))

    def both(self, words: list[Any]) -> None:
        """Executes a command on both and compares."""
        offset = self.now_ms - int(time.time() * 1000)
        ours = [word.value(self) if isinstance(word, Later) else word for word in words]
        theirs = [word.value(self, -offset) if isinstance(word, Later) else word for word in words]
        self.commands_count += 1
        name = words[0].upper()
        if name == b"DBSIZE":  # the server counts ended keys until somebody looks at them
            self.redis.raw(encode_command("EXISTS", *KEYS))
        got = apply(self.kv, encode_command(*ours), self.now_ms)
        expected = self.redis.raw(encode_command(*theirs))
        if name == b"KEYS":
            assert sorted(parsed(got)) == sorted(parsed(expected)), words
        elif name in SHOWS_MS | SHOWS_S and expected[:1] == b":" and parsed(expected) > 0:
            shift = offset if name.endswith(b"TIME") else 0
            unit = 1 if name in SHOWS_MS else 1000
            assert abs(parsed(got) - parsed(expected) - shift // unit) * unit < SLACK_S * 1000, words
        else:
            assert got == expected, words

    def finish(self) -> None:
        """The whole content is the same."""
        self.both([b"PING"])
        keys = sorted(parsed(self.redis.raw(encode_command("KEYS", "*"))))
        assert keys == sorted(self.kv.store.live_keys())
        for key in keys:
            self.both([b"GET", key])
            self.both([b"PTTL", key])
        data = self.kv.data
        assert all(key in data for key in self.kv.store.expires)


def parsed(reply: bytes) -> Any:
    reader = hiredis.Reader(replyError=ERRORS_AS_TEXT)
    reader.feed(reply)
    return reader.gets()


def apply(kv: KeyValue, request: bytes, time_ms: int) -> bytes:
    replies = kv.apply(Requests.of([request], time_ms=time_ms))
    return replies.slab if isinstance(replies, Replies) else Replies.pack(replies).slab


KEYS = [b"a", b"b", b"c", b"key:1", b"key:2", b"", b"\xff\r\n*"]
key = st.sampled_from(KEYS)
number = st.one_of(
    st.integers(-12, 12),
    st.sampled_from([INT64 - 1, -INT64, INT64, INT64 - 2, -INT64 + 1]),
    st.sampled_from([b"007", b"+1", b" 1", b"1 ", b"-0", b"1.5", b"", b"x", b"1\0", b"9" * 21]),
)
value = st.one_of(st.integers(-1000, 1000).map(lambda n: b"%d" % n), st.binary(max_size=8), number)
far = st.integers(10, 900)
near_or_far = st.one_of(far, st.integers(-900, -10))
far_s = far.map(lambda n: Later(n, 1000))
far_ms = far.map(lambda n: Later(n, 1))
at_s = near_or_far.map(lambda n: Later(n, 1000, True))
at_ms = near_or_far.map(lambda n: Later(n, 1, True))
bad_amount = st.sampled_from([0, -1, -5, INT64 - 1, -INT64, INT64, INT64 // 1000, b"x", b"1.0", b""])
condition = st.sampled_from([b"NX", b"xx", b"GT", b"lt"])
set_option = st.one_of(
    st.sampled_from([[b"NX"], [b"xx"], [b"GET"], [b"KEEPTTL"], [b"PERSIST"], [b"EX"], [b"bad"]]),
    st.tuples(st.sampled_from([b"EX", b"ex"]), st.one_of(far_s, bad_amount)).map(list),
    st.tuples(st.just(b"PX"), st.one_of(far_ms, bad_amount)).map(list),
    at_s.map(lambda at: [b"EXAT", at]),
    at_ms.map(lambda at: [b"PXAT", at]),
)
options = st.lists(set_option, max_size=3).map(lambda found: [word for option in found for word in option])
pattern = st.one_of(
    st.sampled_from(
        [b"*", b"key:*", b"?", b"[a-b]", b"[^a]", b"key:[12", b"[", b"\\a", b"*:*", b"", b"[b-a]", b"[]a]", b"**"]
    ),
    st.lists(st.sampled_from(list(b"*?[]^-\\abky:1")), max_size=8).map(bytes),
)
one_key = st.sampled_from(
    [
        b"GET",
        b"STRLEN",
        b"GETDEL",
        b"TTL",
        b"PTTL",
        b"PERSIST",
        b"TYPE",
        b"EXPIRETIME",
        b"PEXPIRETIME",
        b"INCR",
        b"DECR",
        b"get",
    ]
)
many_keys = st.sampled_from([b"DEL", b"EXISTS", b"MGET", b"UNLINK", b"TOUCH"])


def words(*parts: Any) -> st.SearchStrategy[list[Any]]:
    return st.tuples(*(part if isinstance(part, st.SearchStrategy) else st.just(part) for part in parts)).map(list)


def joined(*parts: Any) -> st.SearchStrategy[list[Any]]:
    """As :func:`words`, and the last part is a list of more words."""
    return words(*parts).map(lambda found: [*found[:-1], *found[-1]])


command = st.one_of(
    words(b"SET", key, value),
    joined(b"SET", key, value, options),
    joined(b"GETEX", key, options),
    words(one_key, key),
    joined(many_keys, st.lists(key, min_size=1, max_size=4)),
    words(st.sampled_from([b"APPEND", b"GETSET", b"SETNX"]), key, value),
    words(st.sampled_from([b"INCRBY", b"DECRBY"]), key, number),
    joined(st.sampled_from([b"MSET", b"MSETNX"]), st.lists(st.one_of(key, value), max_size=7)),
    joined(
        b"EXPIRE",
        key,
        st.one_of(near_or_far.map(lambda n: Later(n, 1000)), bad_amount),
        st.lists(condition, max_size=2),
    ),
    joined(b"PEXPIRE", key, st.one_of(far_ms, bad_amount), st.lists(condition, max_size=2)),
    joined(b"EXPIREAT", key, at_s, st.lists(condition, max_size=2)),
    joined(b"PEXPIREAT", key, at_ms, st.lists(condition, max_size=2)),
    words(b"EXPIRE", key, far_s, value),
    words(b"SETEX", key, st.one_of(far_s, bad_amount), value),
    words(b"PSETEX", key, st.one_of(far_ms, bad_amount), value),
    words(b"GETRANGE", key, number, number),
    words(b"SETRANGE", key, st.one_of(st.integers(-2, 20), st.sampled_from([b"x", INT64])), st.binary(max_size=5)),
    words(b"KEYS", pattern),
    words(st.sampled_from([b"DBSIZE", b"PING", b"EXISTS", b"dbsize"])),
    words(st.sampled_from([b"ECHO", b"PING"]), value),
    words(b"SCAN", st.sampled_from([b"x", b"0x", b" 0", b"1 ", b"99999999999999999999999"])),
    joined(b"SCAN", b"0", st.lists(st.sampled_from([b"COUNT", b"0", b"x", b"MATCH", b"bad"]), min_size=1, max_size=1)),
    words(b"SCAN", b"0", b"COUNT", st.sampled_from([b"0", b"x", b"-1"])),
    words(st.sampled_from([b"FLUSHALL", b"FLUSHDB"]), st.sampled_from([b"sync", b"ASYNC", b"now"])),
    # Any command with any count of words, and what is no command.
    joined(
        st.one_of(
            one_key,
            many_keys,
            st.sampled_from(
                [
                    b"SET",
                    b"MSET",
                    b"INCRBY",
                    b"EXPIRE",
                    b"APPEND",
                    b"ECHO",
                    b"KEYS",
                    b"SETEX",
                    b"DBSIZE",
                    b"GETRANGE",
                    b"SETRANGE",
                ]
            ),
        ),
        st.lists(st.sampled_from([b"a", b"2000"]), max_size=5),
    ),
    joined(
        st.sampled_from([b"FLY", b"fly\r\nhigh", b"nul\0", b"x" * 200]),
        st.lists(st.one_of(key, st.just(b"y" * 90), st.just(b"n\0m")), max_size=4),
    ),
)
step = st.one_of(
    command, command, command, command, command, command, command, st.integers(1, 1000).map(lambda n: n * 100_000)
)


# 2,500 sequences of up to 50 commands.
@pytest.mark.slow
@settings(max_examples=2500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(step, min_size=1, max_size=50))
def test_answers_agree_with_redis(redis: RedisConnection, steps: list[Any]) -> None:
    twins = Twins(redis)
    for now in steps:
        if isinstance(now, int):
            twins.pass_time(now)
        else:
            twins.both(now)
    twins.finish()
