"""Commands on numbers: a value is a number when it is a signed 64-bit integer in decimal."""

from __future__ import annotations

from r2p2.apps.kv.registry import command
from r2p2.apps.kv.resp import INT64_MAX, INT64_MIN, NOT_AN_INTEGER, error, integer, parse_int64
from r2p2.apps.kv.store import Store


def _add(store: Store, key: bytes, amount: int) -> bytes:
    value = store.get_to_write(key)
    number = 0 if value is None else parse_int64(value)
    if number is None:
        return NOT_AN_INTEGER
    number += amount
    if not INT64_MIN <= number <= INT64_MAX:
        return error(b"increment or decrement would overflow")
    store.change(key, b"%d" % number)
    return integer(number)


@command("INCR", 2, 2, writes=True, keys=(1, 1, 1))
def incr(store: Store, words: list[bytes]) -> bytes:
    """INCR key."""
    return _add(store, words[1], 1)


@command("DECR", 2, 2, writes=True, keys=(1, 1, 1))
def decr(store: Store, words: list[bytes]) -> bytes:
    """DECR key."""
    return _add(store, words[1], -1)


@command("INCRBY", 3, 3, writes=True, keys=(1, 1, 1))
def incrby(store: Store, words: list[bytes]) -> bytes:
    """INCRBY key amount."""
    amount = parse_int64(words[2])
    return NOT_AN_INTEGER if amount is None else _add(store, words[1], amount)


@command("DECRBY", 3, 3, writes=True, keys=(1, 1, 1))
def decrby(store: Store, words: list[bytes]) -> bytes:
    """DECRBY key amount."""
    amount = parse_int64(words[2])
    if amount is None:
        return NOT_AN_INTEGER
    return error(b"decrement would overflow") if amount == INT64_MIN else _add(store, words[1], -amount)
