"""What Redis is sent for a command, and what becomes of its answer.

Most commands go as they are. Those that speak of time are put into the log's: a deadline becomes an absolute one, moved
out of Redis's reach (`deadlines.py`), and what shows a deadline is moved back. Whatever is not understood is answered
here with Redis's own error, or goes where Redis is certain to refuse it: no relative time ever gets through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from r2p2 import limits
from r2p2.apps.kv._plain import matching
from r2p2.apps.kv.resp import (
    INT64_MIN,
    NOT_AN_INTEGER,
    PATTERN_TOO_LONG,
    SYNTAX,
    array_of,
    bulk,
    error,
    integer,
    parse_int64,
)
from r2p2.apps.redis.child import parse
from r2p2.apps.redis.deadlines import SHIFT_MS, WHEN_MAX, Deadlines
from r2p2.apps.redis.link import Link, encode

__all__ = ["PLANS", "Alone", "Plan", "Step", "Time"]


class Time:
    """The log's time and what ends by it.

    Attributes:
        now_ms: of the batch in hand, unix ms.
        deadlines: reminders.
    """

    def __init__(self) -> None:
        self.now_ms = 0
        self.deadlines = Deadlines()


@dataclass(frozen=True, slots=True)
class Step:
    """Other bytes than the command's, which stay in the pipeline.

    Attributes:
        payload: what Redis is sent.
        count: replies to it.
        finish: makes the reply of the replies; None: the first is it.
    """

    payload: bytes
    count: int = 1
    finish: Callable[[list[bytes]], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Alone:
    """Needs answers on its way: ``run`` is called when all before it has been answered."""

    run: Callable[[Link], bytes]


Plan: TypeAlias = bytes | Step | Alone | None
"""None: the command as it is; bytes: the reply, and Redis hears nothing of it."""

_Planner: TypeAlias = Callable[[Time, list[bytes]], Plan]
PLANS: Final[dict[bytes, _Planner]] = {}
"""By name in capitals. The count of words is right already."""


def _plan(*names: str) -> Callable[[_Planner], _Planner]:
    def put(planner: _Planner) -> _Planner:
        PLANS.update(dict.fromkeys((name.encode() for name in names), planner))
        return planner

    return put


def _bad_time(words: list[bytes]) -> bytes:
    return error(b"invalid expire time in '%b' command" % words[0].lower())


def _shifted(when_ms: int) -> bytes:
    return b"%d" % (SHIFT_MS + max(when_ms, 0))


def _moved_back(reply: bytes) -> int:
    """PEXPIRETIME's reply as a deadline, unix ms; below 0 as Redis has it: -1 none, -2 no key."""
    value = int(reply[1:-2])
    return value - SHIFT_MS if value >= 0 else value


def _removing(words: list[bytes], key: bytes, when_ms: int) -> Alone:
    """For a deadline that is over: the command is executed, and the key removed if it has got that deadline."""

    def run(link: Link) -> bytes:
        reply = link.one(*words)
        if link.one("PEXPIRETIME", key) == b":%b\r\n" % _shifted(when_ms):
            link.one("UNLINK", key)
        return reply

    return Alone(run)


# ---- setting ----

_UNITS: Final = {b"EX": (1000, True), b"PX": (1, True), b"EXAT": (1000, False), b"PXAT": (1, False)}
"""Option -> (ms in its unit, whether it counts from now)."""


def _timed(time: Time, words: list[bytes], at: int, flags: tuple[bytes, ...], ends: Callable[[int], bool]) -> Plan:
    """SET and GETEX: options from ``at`` on, at most one of them a time; ``ends``: whether that deadline is over."""
    unit, amount, keeps = b"", b"", False
    new = words[:at]
    while at < len(words):
        word = words[at].upper()
        if word in _UNITS:
            if unit not in (b"", word) or at + 1 == len(words):
                return SYNTAX
            unit, amount = word, words[at + 1]  # of one that is there twice the last counts
            at += 2
        elif word in flags:
            keeps |= word in (b"KEEPTTL", b"PERSIST")
            new.append(word)
            at += 1
        else:
            return SYNTAX
    if not unit:
        return None
    if keeps:
        return SYNTAX
    number = parse_int64(amount)
    if number is None or number <= 0:
        return None  # Redis refuses it, with the error that goes first
    factor, from_now = _UNITS[unit]
    when = number * factor + (time.now_ms if from_now else 0)
    if when > WHEN_MAX:
        return _bad_time(words)
    new += (b"PXAT", _shifted(when))
    if ends(when):
        return _removing(new, words[1], when)
    time.deadlines.remind(words[1], when)
    return Step(encode(*new))


@_plan("SET")
def _set(time: Time, words: list[bytes]) -> Plan:
    if len(words) == 3:
        return None
    return _timed(time, words, 3, (b"NX", b"XX", b"GET", b"KEEPTTL"), lambda when: when < time.now_ms)


@_plan("GETEX")
def _getex(time: Time, words: list[bytes]) -> Plan:
    return _timed(time, words, 2, (b"PERSIST",), lambda when: when <= time.now_ms)


@_plan("SETEX", "PSETEX")
def _setex(time: Time, words: list[bytes]) -> Plan:
    number = parse_int64(words[2])
    if number is None:
        return NOT_AN_INTEGER
    when = number * (1000 if len(words[0]) == 5 else 1) + time.now_ms
    if number <= 0 or when > WHEN_MAX:
        return _bad_time(words)
    time.deadlines.remind(words[1], when)
    return Step(encode("SET", words[1], words[3], "PXAT", _shifted(when)))


_EXPIRES: Final = {b"EXPIRE": (1000, True), b"PEXPIRE": (1, True), b"EXPIREAT": (1000, False), b"PEXPIREAT": (1, False)}


@_plan(*(name.decode() for name in _EXPIRES))
def _expire(time: Time, words: list[bytes]) -> Plan:
    number = parse_int64(words[2])
    if number is None:
        return None  # Redis refuses it, with the error that goes first
    factor, from_now = _EXPIRES[words[0].upper()]
    when = number * factor + (time.now_ms if from_now else 0)
    if number * factor < INT64_MIN or when > WHEN_MAX:
        return _bad_time(words)
    new = [b"PEXPIREAT", words[1], _shifted(when), *words[3:]]
    if when <= time.now_ms:
        return _removing(new, words[1], when)
    time.deadlines.remind(words[1], when)
    return Step(encode(*new))


@_plan("RESTORE")
def _restore(time: Time, words: list[bytes]) -> Plan:
    number = parse_int64(words[2])
    if number is None or number <= 0:
        return None  # no deadline, or an error
    is_absolute = any(word.upper() == b"ABSTTL" for word in words[4:])
    when = number + (0 if is_absolute else time.now_ms)
    if when > WHEN_MAX:
        return error(b"Invalid TTL value, must be >= 0")
    new = [*words[:2], _shifted(when), *words[3:], *([] if is_absolute else [b"ABSTTL"])]
    if when <= time.now_ms:
        return _removing(new, words[1], when)
    time.deadlines.remind(words[1], when)
    return Step(encode(*new))


@_plan("RENAME", "RENAMENX", "COPY")
def _move(time: Time, words: list[bytes]) -> Plan:
    """A deadline goes along to the second key, which needs a reminder, too."""
    if any(word.upper() == b"DB" for word in words[3:]):
        return error(b"there is one database")

    def finish(replies: list[bytes]) -> bytes:
        when = _moved_back(replies[1])
        if when >= 0:
            time.deadlines.remind(words[2], when)
        return replies[0]

    return Step(encode(*words) + encode("PEXPIRETIME", words[2]), 2, finish)


# ---- showing ----

_SHOWN: Final[dict[bytes, Callable[[int, int], int]]] = {
    b"TTL": lambda when, now: (when - now + 500) // 1000,
    b"PTTL": lambda when, now: when - now,
    b"EXPIRETIME": lambda when, now: (when + 500) // 1000,
    b"PEXPIRETIME": lambda when, now: when,
}


@_plan(*(name.decode() for name in _SHOWN))
def _show(time: Time, words: list[bytes]) -> Plan:
    shown, now_ms = _SHOWN[words[0].upper()], time.now_ms

    def finish(replies: list[bytes]) -> bytes:
        when = _moved_back(replies[0])
        return integer(max(shown(when, now_ms), 0)) if when >= 0 else replies[0]

    return Step(encode("PEXPIRETIME", words[1]), 1, finish)


# ---- others whose effect or answer would be a replica's own ----


@_plan("XADD")
def _xadd(time: Time, words: list[bytes]) -> Plan:
    """An id that Redis would make of its clock is made of the log's time, wherever among the options it stands."""
    new, at = _trimmed(words)
    if words[at : at + 1] == [b"*"]:
        new.append(b"%d-*" % time.now_ms)
        at += 1
    return Step(encode(*new, *words[at:]))


@_plan("XTRIM")
def _xtrim(time: Time, words: list[bytes]) -> Plan:
    new, at = _trimmed(words)
    return Step(encode(*new, *words[at:]))


def _trimmed(words: list[bytes]) -> tuple[list[bytes], int]:
    """The options of XADD and XTRIM, read as Redis reads them, and where they end.

    About so many becomes exactly so many, which is one way to do it; then nothing is left for LIMIT to bound. Where
    Redis refuses a LIMIT, or anything else about them, the options stay as they are, and Redis says why.
    """
    new = list(words[:2])
    at, is_about, is_right = 2, False, True
    bounds: list[bytes] = []
    while at < len(words):
        word = words[at].upper()
        if word == b"NOMKSTREAM":
            new.append(word)
            at += 1
        elif word in (b"MAXLEN", b"MINID") and at + 1 < len(words):
            new.append(word)
            at += 1
            is_about = words[at] == b"~" and at + 1 < len(words)
            if is_about or (words[at] == b"=" and at + 1 < len(words)):
                at += 1
                new.append(b"=")
            new.append(words[at])
            at += 1
        elif word == b"LIMIT" and at + 1 < len(words):
            bounds.append(words[at + 1])
            at += 2
        else:
            break
    for value in bounds:
        number = parse_int64(value)
        is_right &= number is not None and number >= 0
    if bounds and not (is_about and is_right):
        return words[:at], at
    return new, at


_SORT_WORDS: Final = {b"ASC": 1, b"DESC": 1, b"ALPHA": 1, b"LIMIT": 3, b"STORE": 2, b"BY": 2, b"GET": 2}
_UNORDERED: Final = error(
    b"'sort' of a set by BY and ALPHA with STORE is refused: equal weights would leave each replica an order of its own"
)


@_plan("SORT")
def _sort(time: Time, words: list[bytes]) -> Plan:
    """Of equal weights Redis leaves the order in which it came across the elements: of a set, its hash table's, which
    is drawn at the server's start. Only with ALPHA: numbers that are equal it orders by the elements.
    """
    found: dict[bytes, bytes] = {}
    at = 2
    while at < len(words):
        name = words[at].upper()
        length = _SORT_WORDS.get(name, 0)
        if not length or at + length > len(words):
            return None  # Redis says what is wrong
        found[name] = words[at + length - 1]
        at += length
    if b"ALPHA" not in found or b"STORE" not in found or b"*" not in found.get(b"BY", b""):
        return None

    def run(link: Link) -> bytes:
        has_order = link.one("TYPE", words[1]) not in (b"+set\r\n", b"+zset\r\n")
        return link.one(*words) if has_order else _UNORDERED

    return Alone(run)


@_plan("XREAD")
def _xread(time: Time, words: list[bytes]) -> Plan:
    for word in words[1:]:
        if word.upper() == b"STREAMS":
            return None
        if word.upper() == b"BLOCK":
            return error(b"'xread' with BLOCK is refused: it waits, and the log cannot")
    return None


@_plan("HSCAN", "SSCAN", "ZSCAN")
def _scan_inside(time: Time, words: list[bytes]) -> Plan:
    """Everything at once: a cursor would be a place in one server's table, and any member may be asked next."""
    if words[2] != b"0":
        return error(b"invalid cursor")
    pattern: bytes | None = None
    at = 3
    while at < len(words):
        if words[at].upper() not in (b"MATCH", b"COUNT") or at + 1 == len(words):
            return None  # Redis says what is wrong
        if words[at].upper() == b"MATCH":
            pattern = words[at + 1]
        elif (count := parse_int64(words[at + 1])) is None or count < 1:
            return None
        at += 2
    if pattern is not None and len(pattern) > limits.KV_PATTERN_BYTES_MAX:
        return PATTERN_TOO_LONG
    if pattern is None or len(pattern) <= _SHORT_PATTERN_BYTES:
        options = [] if pattern is None else [b"MATCH", pattern]
        return Step(encode(*words[:3], *options, "COUNT", 1 << 30))
    is_set = words[0].upper() == b"SSCAN"

    def finish(replies: list[bytes]) -> bytes:
        if replies[0].startswith(b"-"):
            return replies[0]
        found = parse(replies[0])[1]
        if is_set:
            kept = matching(pattern, found)
        else:
            names = set(matching(pattern, found[::2]))
            kept = [word for pair in zip(found[::2], found[1::2], strict=True) if pair[0] in names for word in pair]
        inner = array_of(map(bulk, kept), len(kept))
        return inner if inner.startswith(b"-") else array_of([bulk(b"0"), inner], 2)

    return Step(encode(*words[:3], "COUNT", 1 << 30), 1, finish)


# ---- others that could keep a server at work for minutes ----

# Redis takes the product of both lengths to match a pattern: 60 ms for one of these and a key of 370 KB.
_SHORT_PATTERN_BYTES: Final = 64


@_plan("KEYS")
def _keys(time: Time, words: list[bytes]) -> Plan:
    """A long pattern is matched here, in time linear in the keys."""
    pattern = words[1]
    if len(pattern) > limits.KV_PATTERN_BYTES_MAX:
        return PATTERN_TOO_LONG
    if len(pattern) <= _SHORT_PATTERN_BYTES:
        return None

    def finish(replies: list[bytes]) -> bytes:
        found = matching(pattern, parse(replies[0]))
        return array_of(map(bulk, found), len(found))

    return Step(encode("KEYS", "*"), 1, finish)


@_plan("MGET", "HMGET")
def _several(time: Time, words: list[bytes]) -> Plan:
    """Redis is asked once for what is named many times: thousands of times a long value would not fit in memory."""
    head = 1 if len(words[0]) == len(b"MGET") else 2
    names = words[head:]
    unique = list(dict.fromkeys(names))
    if len(unique) == len(names):
        return None

    def finish(replies: list[bytes]) -> bytes:
        if replies[0].startswith(b"-"):
            return replies[0]
        values = dict(zip(unique, _items(replies[0]), strict=True))
        return array_of((values[name] for name in names), len(names))

    return Step(encode(*words[:head], *unique), 1, finish)


def _items(reply: bytes) -> Iterator[bytes]:
    """What an array of bulk strings and nils holds, as the bytes it came as."""
    at = reply.index(b"\r\n") + 2
    while at < len(reply):
        end = reply.index(b"\r\n", at) + 2
        if reply[at] == b"$"[0] and (length := int(reply[at + 1 : end - 2])) >= 0:
            end += length + 2
        yield reply[at:end]
        at = end
