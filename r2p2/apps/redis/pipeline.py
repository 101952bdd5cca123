"""R2P2.PIPELINE before a Redis: as many of the commands as one response can answer, in order.

Whoever sent it goes on from where the array ends. So a read whose reply does not fit was made in vain, and reads go to
Redis in portions. A write cannot be taken back, and what it answers would be lost: one that answers what it found is
executed behind others only when that was seen to fit. Leaves to others: what becomes of a command
(`machine.py`, `plan.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from r2p2 import limits
from r2p2.apps.kv.resp import TOO_LARGE
from r2p2.apps.redis.commands import WRITES
from r2p2.apps.redis.link import Link, encode

__all__ = ["EXECUTED_TOO_LARGE", "HEADER_BYTES", "REPLY_BYTES_MAX", "cut_to_fit", "run_pipeline"]

REPLY_BYTES_MAX: Final = limits.REPLICATED_REPLY_BYTES_MAX
EXECUTED_TOO_LARGE: Final = (
    b"-ERR the command was executed, but its reply is larger than the %d bytes of a response\r\n" % REPLY_BYTES_MAX
)
HEADER_BYTES: Final = 16
"""Of an array."""

# Reads, and looks, sent to Redis at once: at first, and then twice as many each time up to the latter. There one more
# round trip costs nothing beside them, and 128 replies as large as a response cost a tenth of a second.
_READS_MIN: Final = 16
_READS_MAX: Final = 128

# What a write answers: little, or what it found, whose size can be asked for, or cannot.
_READ, _LITTLE, _SEEN, _UNSEEN = range(4)
_STRINGS: Final = frozenset((b"GETSET", b"GETDEL", b"GETEX"))
# Name -> whether it takes from the end. Without a count they take one.
_LIST_ENDS: Final = {b"LPOP": False, b"RPOP": True}
_SORTED_ENDS: Final = {b"ZPOPMIN": False, b"ZPOPMAX": True}
_MOVES: Final = frozenset((b"LMOVE", b"RPOPLPUSH"))
_SEVERAL: Final = frozenset((b"LMPOP", b"ZMPOP"))
_LISTED: Final = frozenset((b"SORT", b"GEORADIUS", b"GEORADIUSBYMEMBER"))
_STORES: Final = frozenset((b"STORE", b"STOREDIST"))
# A reply's header and line ends, or a score, or an error.
_AROUND_BYTES: Final = 128
# Redis writes a floating-point number out without an exponent.
_FLOAT_BYTES: Final = 5 << 10
_FLOATS: Final = frozenset((b"INCRBYFLOAT", b"HINCRBYFLOAT"))
# Their errors repeat an option they do not know.
_EXPIRES: Final = frozenset((b"EXPIRE", b"PEXPIRE", b"EXPIREAT", b"PEXPIREAT"))
_NOT_SO_LITTLE: Final = _FLOATS | _EXPIRES | {b"BITFIELD"}
_LITTLE_BYTES: Final = 2 * len(EXECUTED_TOO_LARGE)
# What BITFIELD answers for each of its operations, which have three words or more.
_INTEGER_BYTES: Final = len(b":-9223372036854775808\r\n")

_Execute: TypeAlias = Callable[[Sequence[list[bytes] | bytes]], list[bytes]]


def _kind(words: list[bytes]) -> int:
    name = words[0].upper()
    if name not in WRITES:
        return _READ
    if name in _STRINGS or name in _MOVES:
        return _SEEN if len(words) > 1 else _LITTLE
    if name in _LIST_ENDS or name in _SORTED_ENDS:
        return _SEEN if len(words) == 2 else _UNSEEN
    if name == b"SET":
        return _SEEN if any(word.upper() == b"GET" for word in words[3:]) else _LITTLE
    if name in _LISTED:
        return _LITTLE if any(word.upper() in _STORES for word in words[2:]) else _UNSEEN
    return _UNSEEN if name in _SEVERAL else _LITTLE


def _little_bytes(name: bytes, words: list[bytes]) -> int:
    """What one of these answers at most."""
    if name in _FLOATS:
        return _FLOAT_BYTES + _AROUND_BYTES
    if name == b"BITFIELD":
        return len(words) // 3 * _INTEGER_BYTES + _AROUND_BYTES
    return sum(map(len, words[3:])) + _AROUND_BYTES


def _littles_fitting(commands: list[list[bytes]], at: int, end: int, room: int) -> list[int]:
    """What each of those answers at most that stand from ``at`` on, answer little, and are certain to fit together."""
    bounds: list[int] = []
    for words in commands[at:end]:
        name = words[0].upper()
        bounds.append(_little_bytes(name, words) if name in _NOT_SO_LITTLE else _LITTLE_BYTES)
        room -= bounds[-1]
        if room < 0:
            return bounds[:-1]
    return bounds


def cut_to_fit(reply: bytes, room: int) -> bytes:
    """What is answered instead of a reply to a write for which there is no room: an error, which says that nothing was
    done, goes with its first words.
    """
    assert room >= len(EXECUTED_TOO_LARGE)
    return reply[: room - 2] + b"\r\n" if reply[:1] == b"-" else EXECUTED_TOO_LARGE


def _run_end(commands: list[list[bytes]], at: int, kind: int, count_max: int) -> int:
    """Where those that can go to Redis together with the command at ``at`` end."""
    end, last = at + 1, min(len(commands), at + count_max)
    while end < last and _kind(commands[end]) == kind and kind != _UNSEEN:
        if kind == _SEEN and commands[end - 1][0].upper() in _MOVES:
            break  # the next one may find what it has put there
        end += 1
    return end


def _fitting(link: Link, commands: list[list[bytes]], room: int) -> int:
    """How many of these, all of which answer what they find, are certain to fit."""
    asked: list[bytes] = []
    taken: Counter[tuple[bytes, bool]] = Counter()
    for words in commands:
        name, key = words[0].upper(), words[1]
        if name in _STRINGS or name == b"SET":
            asked.append(encode("STRLEN", key))
            continue
        if name in _MOVES:
            at_end = name == b"RPOPLPUSH" or b"".join(words[3:4]).upper() == b"RIGHT"
            asked.append(encode("LINDEX", key, -1 if at_end else 0))
            continue
        at_end = _LIST_ENDS[name] if name in _LIST_ENDS else _SORTED_ENDS[name]
        place = taken[key, at_end]
        taken[key, at_end] += 1
        index = -1 - place if at_end else place
        asked.append(encode("LINDEX", key, index) if name in _LIST_ENDS else encode("ZRANGE", key, index, index))
    written: Counter[bytes] = Counter()  # the longest value that one of these sets
    for count, (words, reply) in enumerate(zip(commands, link.ask(b"".join(asked), len(asked)), strict=True)):
        size = int(reply[1:-2]) if reply[:1] == b":" else len(reply)
        room -= max(size, written[words[1]]) + _AROUND_BYTES
        if room < 0:
            return count
        if len(words) > 2:
            written[words[1]] = max(written[words[1]], len(words[2]))
    return len(commands)


def run_pipeline(
    commands: list[list[bytes]], link: Link, execute: _Execute, wrong: Callable[[list[bytes]], bytes | None]
) -> list[bytes]:
    """The replies, as many as fit; at least one.

    Args:
        commands: each with its name.
        link: where sizes are asked for.
        execute: makes the replies to commands; bytes among them are replies already.
        wrong: the error reply to a command that may not stand in a pipeline.
    """
    replies: list[bytes] = []
    room, at, reads_max = REPLY_BYTES_MAX - HEADER_BYTES, 0, _READS_MIN
    while at < len(commands):
        kind = _kind(commands[at])
        end = _run_end(commands, at, kind, len(commands) if kind == _LITTLE else reads_max)
        if kind != _LITTLE:
            reads_max = min(2 * reads_max, _READS_MAX)
        bounds: list[int] = []
        if kind == _LITTLE:
            bounds = _littles_fitting(commands, at, end, room)
            end = at + (len(bounds) if replies else max(len(bounds), 1))
        elif kind != _READ:
            fitting = _fitting(link, commands[at:end], room) if kind == _SEEN else 0
            end = at + (fitting if replies else max(fitting, 1))
        if end == at:
            break
        part = [wrong(inner) or inner for inner in commands[at:end]]
        # Room that is the others' who are still to answer.
        least = 0 if kind == _READ else len(EXECUTED_TOO_LARGE)
        bounds = bounds or [least] * len(part)
        kept = sum(bounds)
        for bound, reply in zip(bounds, execute(part), strict=True):
            kept -= bound
            if len(reply) > room - kept:
                if kind == _READ and replies:
                    return replies
                reply = TOO_LARGE if kind == _READ else cut_to_fit(reply, room - kept)
            replies.append(reply)
            room -= len(reply)
        at = end
    return replies
