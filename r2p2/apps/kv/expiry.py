"""Commands on deadlines. Now is the log's time, `store.now_ms`: equal on every replica, whatever their clocks say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from r2p2.apps.kv.registry import Handler, command
from r2p2.apps.kv.resp import (
    INT64_MAX,
    INT64_MIN,
    MINUS_ONE,
    MINUS_TWO,
    NOT_AN_INTEGER,
    ONE,
    ZERO,
    error,
    integer,
    parse_int64,
)
from r2p2.apps.kv.store import Store
from r2p2.apps.kv.strings import bad_expire_time

_CONDITIONS: Final = (b"NX", b"XX", b"GT", b"LT")


def _conditions(words: list[bytes]) -> set[bytes] | bytes:
    """The conditions after the amount, or the error reply."""
    conditions = set()
    for word in words[3:]:
        if word.upper() not in _CONDITIONS:
            return error(b"Unsupported option %b" % word)
        conditions.add(word.upper())
    if b"NX" in conditions and len(conditions) > 1:
        return error(b"NX and XX, GT or LT options at the same time are not compatible")
    if {b"GT", b"LT"} <= conditions:
        return error(b"GT and LT options at the same time are not compatible")
    return conditions


def _expire(store: Store, words: list[bytes], factor: int, from_ms: int) -> bytes:
    conditions = _conditions(words)
    if isinstance(conditions, bytes):
        return conditions
    number = parse_int64(words[2])
    if number is None:
        return NOT_AN_INTEGER
    when = number * factor
    if not INT64_MIN <= when <= INT64_MAX - from_ms:
        return bad_expire_time(words)
    when += from_ms
    key = words[1]
    if store.get_to_write(key) is None:
        return ZERO
    # A key without a deadline ends later than any that has one.
    current = store.ends_at(key)
    if (
        (b"NX" in conditions and current is not None)
        or (b"XX" in conditions and current is None)
        or (b"GT" in conditions and (current is None or when <= current))
        or (b"LT" in conditions and current is not None and when >= current)
    ):
        return ZERO
    if when <= store.now_ms:
        store.remove(key)
    else:
        store.expire_at(key, when)
    return ONE


@command("EXPIRE", 3, writes=True, keys=(1, 1, 1))
def expire(store: Store, words: list[bytes]) -> bytes:
    """EXPIRE key seconds [NX | XX | GT | LT]."""
    return _expire(store, words, 1000, store.now_ms)


@command("PEXPIRE", 3, writes=True, keys=(1, 1, 1))
def pexpire(store: Store, words: list[bytes]) -> bytes:
    """PEXPIRE key milliseconds [NX | XX | GT | LT]."""
    return _expire(store, words, 1, store.now_ms)


@command("EXPIREAT", 3, writes=True, keys=(1, 1, 1))
def expireat(store: Store, words: list[bytes]) -> bytes:
    """EXPIREAT key unix-seconds [NX | XX | GT | LT]."""
    return _expire(store, words, 1000, 0)


@command("PEXPIREAT", 3, writes=True, keys=(1, 1, 1))
def pexpireat(store: Store, words: list[bytes]) -> bytes:
    """PEXPIREAT key unix-milliseconds [NX | XX | GT | LT]."""
    return _expire(store, words, 1, 0)


@command("PERSIST", 2, 2, writes=True, keys=(1, 1, 1))
def persist(store: Store, words: list[bytes]) -> bytes:
    """PERSIST key."""
    if store.get_to_write(words[1]) is None or store.ends_at(words[1]) is None:
        return ZERO
    store.persist(words[1])
    return ONE


def _seconds(ms: int) -> int:
    return (ms + 500) // 1000


def _when(name: str, shown: Callable[[Store, int], int]) -> Handler:
    """Registers a command that shows a key's deadline: -2 for no key, -1 for none."""

    @command(name, 2, 2, keys=(1, 1, 1))
    def show(store: Store, words: list[bytes]) -> bytes:
        if store.get(words[1]) is None:
            return MINUS_TWO
        when = store.ends_at(words[1])
        return MINUS_ONE if when is None else integer(shown(store, when))

    return show


ttl: Final = _when("TTL", lambda store, when: _seconds(when - store.now_ms))
pttl: Final = _when("PTTL", lambda store, when: when - store.now_ms)
expiretime: Final = _when("EXPIRETIME", lambda store, when: _seconds(when))
pexpiretime: Final = _when("PEXPIRETIME", lambda store, when: when)
