"""The state of the store: keys, values, when they end, who watches them.

Time is `now_ms`, carried by the log; nothing here asks a clock, so a key ends on every replica at the same request.
**When an ended key leaves the memory cannot be seen.** Each read looks at the time; each write removes an ended key
before it does anything else; counting, listing and digest leave ended keys out. So the sweep
(:meth:`Store.turn`) may do a bounded piece of work whenever it is called, and replicas need not sweep alike.

For the same reason order is no part of the state: what lists keys sorts them.

Leaves to others: commands and replies.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import accumulate, chain, pairwise
from typing import Final

from r2p2 import limits
from r2p2.apps.kv.frozen import Frozen, big_endian_in
from r2p2.apps.kv.scan import ScanIndex
from r2p2.apps.kv.table import Table

__all__ = ["Store"]

_MAGIC: Final = b"R2KV"
_VERSION: Final = 1
# Magic, version, now_ms, the last watch's number, counts: keys, keys that end, watched keys.
_HEADER: Final = struct.Struct(">4sIQQQQQ")
# The heap may hold so many stale deadlines beside those in force before it is made anew.
_STALE_MAX: Final = 1024
# Batches without a SCAN after which nobody scans any more.
_SCAN_IDLE_BATCHES: Final = 100_000


class Store:
    """Bytes to bytes, with deadlines.

    Attributes:
        table: key -> value; may still hold keys that have ended.
        expires: key -> when it ends, unix ms: it is gone at any later time. Every key of it is in `table`.
        watched: key -> number of its watch; a key leaves when it is written to. At most ``KV_WATCHED_MAX``; the
            oldest makes room.
        now_ms: the log's time at the request in hand.
        scan_index: while somebody scans; it is told of new keys.
    """

    __slots__ = ("_deadlines", "_kept", "_watch_number", "expires", "now_ms", "scan_index", "table", "watched")

    def __init__(self) -> None:
        self.table = Table()
        self.expires: dict[bytes, int] = {}
        # While a snapshot is made: what `expires` said of keys when it was begun, as far as they have changed.
        self._kept: dict[bytes, int | None] | None = None
        self.watched: dict[bytes, int] = {}
        self.now_ms = 0
        self._watch_number = 0
        # (when, key), smallest first; one that is not in `expires` any more is stale.
        self._deadlines: list[tuple[int, bytes]] = []
        self.scan_index: ScanIndex | None = None

    @property
    def is_plain(self) -> bool:
        """Whether setting a key is an assignment in `table` and nothing else: nothing ends, is watched or scanned."""
        return not self.expires and not self.watched and self.scan_index is None

    # ---- reading: changes nothing ----

    def get(self, key: bytes) -> bytes | None:
        """The value, or None: absent or ended."""
        when = self.expires.get(key)
        return None if when is not None and when < self.now_ms else self.table.get(key)

    def ends_at(self, key: bytes) -> int | None:
        """When a key that is there ends; None: never."""
        return self.expires.get(key)

    def live_keys(self) -> Iterable[bytes]:
        """Every key that is there, in no order."""
        if not self.expires:
            return self.table.all_keys()
        expires, now_ms = self.expires, self.now_ms
        return [key for key in self.table.all_keys() if key not in expires or expires[key] >= now_ms]

    def count(self) -> int:
        """Keys that are there."""
        if not self._has_ended():
            return self.table.count()
        return self.table.count() - sum(when < self.now_ms for when in self.expires.values())

    def scan_after(self, place: int) -> Iterator[tuple[int, bytes]]:
        """Keys that are there beyond a place of the scan, in order, each with its place; the store must rest."""
        index = self.scan_index
        if index is None or len(index) > 2 * self.table.count() + _STALE_MAX:
            index = self.scan_index = ScanIndex(self.table.all_keys())
        index.idle_batches = 0
        return (item for item in index.after(place) if self.get(item[1]) is not None)

    # ---- writing ----

    def get_to_write(self, key: bytes) -> bytes | None:
        """As :meth:`get`, and an ended key is removed, so that what is written next starts afresh."""
        when = self.expires.get(key)
        if when is not None and when < self.now_ms:
            self.remove(key)
            return None
        return self.table.get(key)

    def set(self, key: bytes, value: bytes) -> None:
        """Sets the value; it ends never."""
        if key in self.expires:
            self._set_deadline(key, None)
        self.change(key, value)

    def change(self, key: bytes, value: bytes) -> None:
        """Sets the value and leaves the deadline; the key was looked up with :meth:`get_to_write`."""
        if key in self.watched:
            del self.watched[key]
        if self.scan_index is not None and self.table.get(key) is None:
            self.scan_index.add(key)
        self.table.top[key] = value

    def remove(self, key: bytes) -> None:
        """Removes a key of `table`."""
        self.table.remove(key)
        if key in self.expires:
            self._set_deadline(key, None)
        self.watched.pop(key, None)

    def expire_at(self, key: bytes, when_ms: int) -> None:
        """Has a key that is there end after `when_ms`."""
        self._set_deadline(key, when_ms)
        self.watched.pop(key, None)
        deadlines = self._deadlines
        heappush(deadlines, (when_ms, key))
        if len(deadlines) > 2 * len(self.expires) + _STALE_MAX:
            self._rebuild_deadlines()

    def persist(self, key: bytes) -> None:
        """Has a key with a deadline end never."""
        self._set_deadline(key, None)
        self.watched.pop(key, None)

    def _set_deadline(self, key: bytes, when_ms: int | None) -> None:
        if self._kept is not None:
            # First, then the change: pieces of the snapshot may be made on another thread, which reads the other way.
            self._kept.setdefault(key, self.expires.get(key))
        if when_ms is None:
            del self.expires[key]
        else:
            self.expires[key] = when_ms

    def clear(self) -> None:
        """Removes everything. A watch on a key that is not there stays."""
        for key in [key for key in self.watched if self.table.get(key) is not None]:
            del self.watched[key]
        self.table.clear()
        self.expires, self._kept = {}, None
        self._deadlines.clear()
        self.scan_index = None

    # ---- watching ----

    def watch(self, key: bytes) -> int:
        """The number under which `key` is watched from now until the next write to it."""
        self.get_to_write(key)  # one that has ended already is watched as absent
        number = self.watched.get(key)
        if number is None:
            if len(self.watched) >= limits.KV_WATCHED_MAX:
                self._sweep(len(self._deadlines))  # so that the same watches are counted on every replica
                if len(self.watched) >= limits.KV_WATCHED_MAX:
                    del self.watched[next(iter(self.watched))]
            self._watch_number += 1
            number = self.watched[key] = self._watch_number
        return number

    def unwritten(self, key: bytes, number: int) -> bool:
        """Whether the watch `number` still stands: nobody has written to the key, and it has not ended."""
        self.get_to_write(key)
        return self.watched.get(key) == number

    # ---- ends ----

    def turn(self, requests_count: int) -> None:
        """Called with each batch: takes ended keys out of memory, makes the table one again after a snapshot, gives up
        a scan that is idle or holds mostly what is gone. No reply depends on it.
        """
        if self.table.under is not None and not self.table.is_held:
            self._kept = None
            self.table.settle(limits.KV_SETTLE_MIN + 2 * requests_count)
        if self._has_ended():
            self._sweep(limits.KV_SWEEP_MAX + requests_count)
        if self.scan_index is not None:
            self.scan_index.idle_batches += 1
            # Beyond what the table holds they are keys that have gone.
            known = len(self.table.top) + len(self.table.under or ())
            is_stale = len(self.scan_index) > 2 * known + _STALE_MAX
            if is_stale or self.scan_index.idle_batches > _SCAN_IDLE_BATCHES:
                self.scan_index = None

    def next_end_ms(self) -> int | None:
        """The first time at which a key that is there now may be gone; None: none ends."""
        return self._deadlines[0][0] + 1 if self._deadlines else None

    def _has_ended(self) -> bool:
        deadlines = self._deadlines
        return bool(deadlines) and deadlines[0][0] < self.now_ms

    def _rebuild_deadlines(self) -> None:
        self._deadlines = [(when, key) for key, when in self.expires.items()]
        heapify(self._deadlines)

    def _sweep(self, keys_max: int) -> None:
        """Takes ended keys out of memory, after at most `keys_max` deadlines."""
        deadlines, expires, now_ms = self._deadlines, self.expires, self.now_ms
        while keys_max > 0 and deadlines and deadlines[0][0] < now_ms:
            when, key = heappop(deadlines)
            if expires.get(key) == when:
                self.remove(key)
            keys_max -= 1

    # ---- the whole ----

    def snapshot(self) -> Iterator[bytes]:
        """The state at this moment as bytes, in pieces that are made as they are asked for, whatever changes meanwhile.

        Keys stand in no order, and those that have ended and are still in memory are among them.
        """
        watched = [(key, number) for key, number in self.watched.items() if not self._gone(key)]
        hold, expires = self.table.hold(), self.expires
        kept: dict[bytes, int | None] = {}
        if hold.is_copy:
            expires = expires.copy()
        else:
            self._kept = kept
        counts = len(hold.data), len(expires), len(watched)
        header = _HEADER.pack(_MAGIC, _VERSION, self.now_ms, self._watch_number, *counts)
        return chain((header,), Frozen(hold, expires, kept, watched).pieces())

    def _gone(self, key: bytes) -> bool:
        """Whether a key has ended and is still in memory; its watch ends with it."""
        return self.expires.get(key, self.now_ms) < self.now_ms

    def restore(self, data: bytes) -> None:
        """Becomes the state of a :meth:`snapshot`.

        Raises:
            ValueError: the bytes are not one; nothing has changed.
        """
        if len(data) < _HEADER.size:
            raise ValueError(f"a snapshot of {len(data)} bytes is shorter than its header, {_HEADER.size} bytes")
        magic, version, now_ms, watch_number, keys_count, ending_count, watched_count = _HEADER.unpack_from(data)
        if (magic, version) != (_MAGIC, _VERSION):
            raise ValueError(f"a snapshot begins with {magic!r} and version {version}, not {_MAGIC!r} and {_VERSION}")
        fixed_bytes = _HEADER.size + 8 * keys_count + 12 * ending_count + 12 * watched_count
        if len(data) < fixed_bytes:
            raise ValueError(f"a snapshot of {len(data)} bytes announces {fixed_bytes} bytes of lengths")
        at = _HEADER.size
        columns = []
        for code, count in (
            ("I", keys_count),
            ("I", keys_count),
            ("I", ending_count),
            ("q", ending_count),
            ("I", watched_count),
            ("Q", watched_count),
        ):
            column = array(code)
            end = at + count * column.itemsize
            column.frombytes(data[at:end])
            columns.append(big_endian_in(column))
            at = end
        key_lengths, value_lengths, ending, whens, watched_lengths, numbers = columns
        if len(data) != at + sum(key_lengths) + sum(value_lengths) + sum(watched_lengths):
            raise ValueError(f"a snapshot of {len(data)} bytes is not as long as its lengths say")
        keys, at = _cut(data, at, key_lengths)
        values, at = _cut(data, at, value_lengths)
        watched, _ = _cut(data, at, watched_lengths)
        if any(i >= keys_count for i in ending) or len(set(keys)) != keys_count:
            raise ValueError("a snapshot names a key twice, or a deadline of no key")
        self.table = Table(dict(zip(keys, values, strict=True)))
        self._kept = None
        self.expires = {keys[i]: when for i, when in zip(ending, whens, strict=True)}
        self.watched = dict(zip(watched, numbers, strict=True))
        self.now_ms = now_ms
        self._watch_number = watch_number
        self.scan_index = None
        self._rebuild_deadlines()

    def digest(self) -> str:
        """SHA-256 over the sorted items with their lengths and deadlines, and the watches."""
        digest = hashlib.sha256()
        for key in sorted(self.live_keys()):
            value = self.table.get(key) or b""
            digest.update(b"%d %d %d " % (len(key), len(value), self.expires.get(key, -1)))
            digest.update(key)
            digest.update(value)
        for key, number in self.watched.items():
            if not self._gone(key):
                digest.update(b"%d %d " % (len(key), number))
                digest.update(key)
        return digest.hexdigest()


def _cut(data: bytes, at: int, lengths: array[int]) -> tuple[list[bytes], int]:
    """The pieces of `data` from `at` on that have these lengths, and where they end."""
    ends = list(accumulate(lengths, initial=at))
    return [data[start:end] for start, end in pairwise(ends)], ends[-1]
