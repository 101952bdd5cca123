"""SCAN over a Redis that any replica can go on with.

A cursor of Redis is a place in one server's hash table, whose order is drawn at that server's start; a client's next
SCAN may reach another member. So the order here is the keys' own hash (:class:`r2p2.apps.kv.scan.ScanIndex`), the same
everywhere, and a cursor is a place in it. The index is made of KEYS by the first SCAN, told of each key that is written
to, and dropped when nobody has scanned for a while. It may hold keys that are gone: each answer asks Redis.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from r2p2.apps.kv.glob import compiled
from r2p2.apps.kv.resp import NOT_AN_INTEGER, SYNTAX, array_of, bulk, error, parse_int64
from r2p2.apps.kv.scan import PLACE_MAX, ScanIndex
from r2p2.apps.redis.link import Link, encode

__all__ = ["Scanner"]

_COUNT: Final = 10
# A step of SCAN holds up the node for a few milliseconds at most.
_COUNT_MAX: Final = 4096
# Batches without a SCAN after which nobody scans any more.
_IDLE_BATCHES: Final = 100_000
_NONE: Final = b"+none\r\n"


class Scanner:
    """The index, while there is one."""

    def __init__(self) -> None:
        self._index: ScanIndex | None = None

    @property
    def is_active(self) -> bool:
        """Whether it wants to know of keys."""
        return self._index is not None

    def add(self, key: bytes) -> None:
        """A key that was written to."""
        if self._index is not None:
            self._index.add(key)

    def forget(self) -> None:
        """Keys may have come that it was not told of."""
        self._index = None

    def turn(self) -> None:
        """Called with each batch."""
        if self._index is not None:
            self._index.idle_batches += 1
            if self._index.idle_batches > _IDLE_BATCHES:
                self._index = None

    def scan(self, link: Link, words: list[bytes], keys: list[bytes] | None) -> bytes:
        """The reply. ``keys``: all that are there, when it was not active."""
        cursor = int(words[1]) if words[1].isdigit() and len(words[1]) <= 20 else -1
        if not 0 <= cursor <= PLACE_MAX:
            return error(b"invalid cursor")
        count, pattern, wanted = _COUNT, None, b""
        at = 2
        while at < len(words):
            name = words[at].upper()
            if at + 1 == len(words) or name not in (b"MATCH", b"COUNT", b"TYPE"):
                return SYNTAX
            value = words[at + 1]
            if name == b"COUNT":
                number = parse_int64(value)
                if number is None or number < 1:
                    return NOT_AN_INTEGER if number is None else SYNTAX
                count = min(number, _COUNT_MAX)
            elif name == b"MATCH":
                pattern = value
            else:
                wanted = value.lower()
            at += 2
        if self._index is None:
            self._index = ScanIndex(keys or [])
        self._index.idle_batches = 0
        return self._step(link, self._index, cursor, count, pattern, wanted)

    def _step(
        self, link: Link, index: ScanIndex, cursor: int, count: int, pattern: bytes | None, wanted: bytes
    ) -> bytes:
        ahead = index.after(cursor)
        step = list(islice(ahead, count))
        following = 0
        if len(step) == count:
            # Keys with one hash are not parted: those that share the last one's come along.
            for item in ahead:
                if item[0] != step[-1][0]:
                    following = step[-1][0]
                    break
                step.append(item)
        matching = [key for _, key in step if pattern is None or compiled(pattern).fullmatch(key)]
        types = link.ask(b"".join(encode("TYPE", key) for key in matching), len(matching)) if matching else []
        accepted = b"+%b\r\n" % wanted
        found = [
            key for key, kind in zip(matching, types, strict=True) if kind != _NONE and (not wanted or kind == accepted)
        ]
        inner = array_of(map(bulk, found), len(found))
        if inner.startswith(b"-") and count > 1:
            # Long keys: what a response cannot carry is left for the next step.
            return self._step(link, index, cursor, count // 2, pattern, wanted)
        return inner if inner.startswith(b"-") else array_of([bulk(b"%d" % following), inner], 2)
