"""SCAN: its options, its steps, and the order in which it goes through the keys: by a hash of theirs, kept sorted while
somebody scans.

The order is a function of the keys alone, so an index may be dropped and made anew at any time and no reply shows it.
It is made by the first SCAN and dropped when none has come for a while (:attr:`ScanIndex.idle_batches`). Leaves to
others: which keys are there (:class:`r2p2.apps.kv.store.Store`, or Redis), since the index may hold some that are not;
how a cursor is spelled; and what to do with a step that a response cannot carry.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Final

from r2p2 import limits
from r2p2.apps.kv._plain import matching, places
from r2p2.apps.kv.resp import NOT_AN_INTEGER, PATTERN_TOO_LONG, SYNTAX, parse_int64

__all__ = ["PLACE_MAX", "ScanIndex", "ScanOptions", "scan_options", "scan_step"]

PLACE_MAX: Final = (1 << 64) - 1
# Beyond so many, and a quarter of all, new places are sorted in.
_ADDED_MAX: Final = 1024
_COUNT: Final = 10
# A step of SCAN holds up the node for a few milliseconds at most.
_COUNT_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """What is asked for: how many keys a step, matching which glob, of which type (in lower case). None: any."""

    count: int = _COUNT
    pattern: bytes | None = None
    type_name: bytes | None = None

    def matching(self, keys: list[bytes]) -> list[bytes]:
        """The keys that the pattern admits; their type is not looked at."""
        return keys if self.pattern is None else matching(self.pattern, keys)


def scan_options(words: list[bytes]) -> ScanOptions | bytes:
    """From ``[MATCH pattern] [COUNT n] [TYPE type]``, the last of each; or the error that is the reply."""
    count, pattern, type_name = _COUNT, None, None
    for at in range(0, len(words), 2):
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
            if len(value) > limits.KV_PATTERN_BYTES_MAX:
                return PATTERN_TOO_LONG
            pattern = value
        else:
            type_name = value.lower()
    return ScanOptions(count, pattern, type_name)


def scan_step(ahead: Iterator[tuple[int, bytes]], count: int) -> tuple[list[bytes], int]:
    """The next `count` keys of what lies ahead, or a few more, and the cursor to go on from; 0: those were the last. Of
    long keys they are fewer.
    """
    step: list[tuple[int, bytes]] = []
    bytes_left, following = limits.KV_SCAN_BYTES_MAX, 0
    for item in islice(ahead, count):
        step.append(item)
        bytes_left -= len(item[1])
        if bytes_left < 0:
            break
    if step and (len(step) == count or bytes_left < 0):
        # Keys with one hash are not parted: those that share the last one's come along.
        for item in ahead:
            if item[0] != step[-1][0]:
                following = step[-1][0]
                break
            step.append(item)
    return [key for _, key in step], following


def _place(key: bytes) -> int:
    """A key's place: 1..2^64-1, the same on every machine."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big") or 1


class ScanIndex:
    """Keys by place.

    Attributes:
        idle_batches: batches applied since the last SCAN; its owner counts.
    """

    def __init__(self, keys: Iterable[bytes]) -> None:
        self.idle_batches = 0
        self._sort(keys)

    def _sort(self, keys: Iterable[bytes]) -> None:
        packed, self._keys = places(keys)
        self._places = array("Q", packed)
        self._added: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._keys) + len(self._added)

    def add(self, key: bytes) -> None:
        """Takes a key that has come; one that was here before does no harm."""
        self._added.append((_place(key), key))
        if len(self._added) > _ADDED_MAX + len(self._keys) // 4:
            self._sort([*self._keys, *(key for _, key in self._added)])

    def after(self, place: int) -> Iterator[tuple[int, bytes]]:
        """Places above ``place`` with their keys, in order."""
        self._added.sort()
        previous = None
        added, all_places, keys = self._added, self._places, self._keys
        first, first_added = bisect_right(all_places, place), bisect_right(added, place, key=lambda item: item[0])
        for item in heapq.merge(
            ((all_places[i], keys[i]) for i in range(first, len(keys))),
            (added[i] for i in range(first_added, len(added))),
        ):
            if item != previous:
                previous = item
                yield item
