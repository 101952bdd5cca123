"""SCAN over a Redis that any replica can go on with.

A cursor of Redis is a place in one server's hash table, whose order is drawn at that server's start; a client's next
SCAN may reach another member. So the order here is the keys' own hash (:class:`r2p2.apps.kv.scan.ScanIndex`), the same
everywhere, and a cursor is a place in it. The index is made of KEYS by the first SCAN, told of each key that is written
to, and dropped when nobody has scanned for a while, or when it has grown much. It may hold keys that are gone: each
answer asks Redis.
"""

from __future__ import annotations

from typing import Final

from r2p2.apps.kv.resp import array_of, bulk, error
from r2p2.apps.kv.scan import PLACE_MAX, ScanIndex, ScanOptions, scan_options, scan_step
from r2p2.apps.redis.link import Link, encode

__all__ = ["Scanner"]

# Batches without a SCAN after which nobody scans any more.
_IDLE_BATCHES: Final = 100_000
# Keys written to since an index was made, beyond as many as it began with, after which it is made anew.
_ADDED_MAX: Final = 65_536
_NONE: Final = b"+none\r\n"


class Scanner:
    """The index, while there is one."""

    def __init__(self) -> None:
        self._index: ScanIndex | None = None
        self._keys_max = 0  # with more, an index may hold mostly keys that are gone

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
            if self._index.idle_batches > _IDLE_BATCHES or len(self._index) > self._keys_max:
                self._index = None

    def scan(self, link: Link, words: list[bytes], keys: list[bytes] | None) -> bytes:
        """The reply. ``keys``: all that are there, when it was not active."""
        # Only as it is given out, where the store of r2p2.apps.kv takes all that strtoull does.
        cursor = int(words[1]) if words[1].isdigit() and len(words[1]) <= 20 else -1
        if not 0 <= cursor <= PLACE_MAX:
            return error(b"invalid cursor")
        options = scan_options(words[2:])
        if isinstance(options, bytes):
            return options
        if self._index is None:
            self._index = ScanIndex(keys or [])
            self._keys_max = 2 * len(self._index) + _ADDED_MAX
        self._index.idle_batches = 0
        return self._step(link, self._index, cursor, options, options.count)

    def _step(self, link: Link, index: ScanIndex, cursor: int, options: ScanOptions, count: int) -> bytes:
        step, following = scan_step(index.after(cursor), count)
        matching = options.matching(step)
        types = link.ask(b"".join(encode("TYPE", key) for key in matching), len(matching)) if matching else []
        accepted = b"+%b\r\n" % options.type_name if options.type_name else None
        found = [key for key, kind in zip(matching, types, strict=True) if kind != _NONE and accepted in (None, kind)]
        inner = array_of(map(bulk, found), len(found))
        if inner.startswith(b"-") and count > 1:
            # Long keys: what a response cannot carry is left for the next step.
            return self._step(link, index, cursor, options, count // 2)
        return inner if inner.startswith(b"-") else array_of([bulk(b"%d" % following), inner], 2)
