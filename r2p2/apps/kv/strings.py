"""Commands on one string or several: GET, SET and their relatives. Their answers and errors are Redis 7's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from r2p2 import limits
from r2p2.apps.kv.registry import command
from r2p2.apps.kv.resp import (
    EMPTY,
    INT64_MAX,
    NIL,
    NOT_AN_INTEGER,
    OK,
    ONE,
    SYNTAX,
    VALUE_TOO_LARGE,
    ZERO,
    array_of,
    bulk,
    error,
    integer,
    parse_int64,
    wrong_number,
)
from r2p2.apps.kv.store import Store

_ENDS: Final = {b"EX": (1000, True), b"PX": (1, True), b"EXAT": (1000, False), b"PXAT": (1, False)}
"""Option -> (ms in its unit, whether it counts from now)."""


def bad_expire_time(words: list[bytes]) -> bytes:
    """The error for a deadline that is not after 1970 or that does not fit."""
    return error(b"invalid expire time in '%b' command" % words[0].lower())


@dataclass(slots=True)
class _Options:
    """What follows the fixed words of SET and GETEX."""

    condition: bytes = b""  # NX or XX
    get: bool = False
    keep: bool = False  # KEEPTTL
    persist: bool = False
    unit: bytes = b""  # EX, PX, EXAT, PXAT
    amount: bytes = b""


def _options(words: list[bytes], is_set: bool) -> _Options | None:
    """The options, or None: a syntax error. Which exclude each other is Redis's rule."""
    options = _Options()
    at = 3 if is_set else 2
    while at < len(words):
        word = words[at].upper()
        at += 1
        if is_set and word in (b"NX", b"XX") and options.condition in (b"", word):
            options.condition = word
        elif is_set and word == b"GET":
            options.get = True
        elif is_set and word == b"KEEPTTL" and not options.unit:
            options.keep = True
        elif not is_set and word == b"PERSIST" and not options.unit:
            options.persist = True
        elif (
            word in _ENDS
            and options.unit in (b"", word)
            and not options.keep
            and not options.persist
            and at < len(words)
        ):
            options.unit, options.amount = word, words[at]
            at += 1
        else:
            return None
    return options


def deadline(store: Store, words: list[bytes], unit: bytes, amount: bytes) -> int | bytes:
    """When a key ends that is set with ``unit amount``, or the error reply."""
    number = parse_int64(amount)
    if number is None:
        return NOT_AN_INTEGER
    factor, from_now = _ENDS[unit]
    when = number * factor
    if number <= 0 or when > INT64_MAX:
        return bad_expire_time(words)
    when += store.now_ms if from_now else 0
    return when if when <= INT64_MAX else bad_expire_time(words)


@command("GET", 2, 2, keys=(1, 1, 1))
def get(store: Store, words: list[bytes]) -> bytes:
    """GET key."""
    value = store.get(words[1])
    return NIL if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


@command("SET", 3, writes=True, keys=(1, 1, 1), replies_value=True)
def set_(store: Store, words: list[bytes]) -> bytes:
    """SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]."""
    key, value = words[1], words[2]
    if len(words) == 3:
        store.set(key, value)
        return OK
    options = _options(words, is_set=True)
    if options is None:
        return SYNTAX
    when = deadline(store, words, options.unit, options.amount) if options.unit else None
    if isinstance(when, bytes):
        return when
    before = store.get_to_write(key)
    if options.condition and (options.condition == b"XX") != (before is not None):
        return bulk(before) if options.get else NIL
    if options.keep:
        store.change(key, value)
    else:
        store.set(key, value)
    if when is not None:
        store.expire_at(key, when)
    return bulk(before) if options.get else OK


@command("GETEX", 2, writes=True, keys=(1, 1, 1), replies_value=True)
def getex(store: Store, words: list[bytes]) -> bytes:
    """GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]."""
    options = _options(words, is_set=False)
    if options is None:
        return SYNTAX
    key = words[1]
    value = store.get_to_write(key)
    if value is None:
        return NIL
    if options.unit:
        when = deadline(store, words, options.unit, options.amount)
        if isinstance(when, bytes):
            return when
        if when <= store.now_ms:
            store.remove(key)
        else:
            store.expire_at(key, when)
    elif options.persist and store.ends_at(key) is not None:
        store.persist(key)
    return bulk(value)


@command("SETNX", 3, 3, writes=True, keys=(1, 1, 1))
def setnx(store: Store, words: list[bytes]) -> bytes:
    """SETNX key value."""
    if store.get_to_write(words[1]) is not None:
        return ZERO
    store.set(words[1], words[2])
    return ONE


def _set_ending(store: Store, words: list[bytes], unit: bytes) -> bytes:
    when = deadline(store, words, unit, words[2])
    if isinstance(when, bytes):
        return when
    store.set(words[1], words[3])
    store.expire_at(words[1], when)
    return OK


@command("SETEX", 4, 4, writes=True, keys=(1, 1, 1))
def setex(store: Store, words: list[bytes]) -> bytes:
    """SETEX key seconds value."""
    return _set_ending(store, words, b"EX")


@command("PSETEX", 4, 4, writes=True, keys=(1, 1, 1))
def psetex(store: Store, words: list[bytes]) -> bytes:
    """PSETEX key milliseconds value."""
    return _set_ending(store, words, b"PX")


@command("GETSET", 3, 3, writes=True, keys=(1, 1, 1), replies_value=True)
def getset(store: Store, words: list[bytes]) -> bytes:
    """GETSET key value."""
    before = store.get_to_write(words[1])
    store.set(words[1], words[2])
    return bulk(before)


@command("GETDEL", 2, 2, writes=True, keys=(1, 1, 1), replies_value=True)
def getdel(store: Store, words: list[bytes]) -> bytes:
    """GETDEL key."""
    before = store.get_to_write(words[1])
    if before is not None:
        store.remove(words[1])
    return bulk(before)


@command("MGET", 2, keys=(1, -1, 1))
def mget(store: Store, words: list[bytes]) -> bytes:
    """MGET key ...; an error when a response cannot carry all values."""
    return array_of((bulk(store.get(key)) for key in words[1:]), len(words) - 1)


@command("MSET", 3, writes=True, keys=(1, -1, 2))
def mset(store: Store, words: list[bytes]) -> bytes:
    """MSET key value ..."""
    if len(words) % 2 == 0:
        return wrong_number(words[0])
    for key, value in zip(words[1::2], words[2::2], strict=True):
        store.set(key, value)
    return OK


@command("MSETNX", 3, writes=True, keys=(1, -1, 2))
def msetnx(store: Store, words: list[bytes]) -> bytes:
    """MSETNX key value ...: all or none."""
    if len(words) % 2 == 0:
        return wrong_number(words[0])
    if any(store.get_to_write(key) is not None for key in words[1::2]):
        return ZERO
    for key, value in zip(words[1::2], words[2::2], strict=True):
        store.set(key, value)
    return ONE


@command("STRLEN", 2, 2, keys=(1, 1, 1))
def strlen(store: Store, words: list[bytes]) -> bytes:
    """STRLEN key."""
    return integer(len(store.get(words[1]) or b""))


@command("APPEND", 3, 3, writes=True, keys=(1, 1, 1))
def append(store: Store, words: list[bytes]) -> bytes:
    """APPEND key value."""
    key = words[1]
    value = (store.get_to_write(key) or b"") + words[2]
    if len(value) > limits.KV_VALUE_BYTES_MAX:
        return VALUE_TOO_LARGE
    store.change(key, value)
    return integer(len(value))


@command("GETRANGE", 4, 4, keys=(1, 1, 1))
def getrange(store: Store, words: list[bytes]) -> bytes:
    """GETRANGE key first last; below 0 they count from the end."""
    first, last = parse_int64(words[2]), parse_int64(words[3])
    if first is None or last is None:
        return NOT_AN_INTEGER
    value = store.get(words[1]) or b""
    if first < 0 and last < 0 and first > last:
        return EMPTY
    first = max(first + len(value), 0) if first < 0 else first
    last = max(last + len(value), 0) if last < 0 else last
    return bulk(value[first : last + 1])


@command("SETRANGE", 4, 4, writes=True, keys=(1, 1, 1))
def setrange(store: Store, words: list[bytes]) -> bytes:
    """SETRANGE key offset value; what lies before it is filled with zero bytes."""
    key, piece = words[1], words[3]
    offset = parse_int64(words[2])
    if offset is None:
        return NOT_AN_INTEGER
    if offset < 0:
        return error(b"offset is out of range")
    value = store.get_to_write(key)
    before = value or b""
    if not piece:
        return integer(len(before))
    if offset + len(piece) > limits.KV_VALUE_BYTES_MAX:
        return VALUE_TOO_LARGE
    store.change(key, before[:offset].ljust(offset, b"\0") + piece + before[offset + len(piece) :])
    return integer(max(len(before), offset + len(piece)))
