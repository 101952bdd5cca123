"""The order in which SCAN goes through the keys: by a hash of theirs, kept sorted while somebody scans.

The order is a function of the keys alone, so an index may be dropped and made anew at any time and no reply shows it.
It is made by the first SCAN and dropped when none has come for a while (:attr:`ScanIndex.idle_batches`). Leaves to
others: which keys are there (:class:`r2p2.apps.kv.store.Store`); the index may hold some that are not.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Final

__all__ = ["PLACE_MAX", "ScanIndex"]

PLACE_MAX: Final = (1 << 64) - 1
# Beyond so many, and a quarter of all, new places are sorted in.
_ADDED_MAX: Final = 1024


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
        self._main = sorted((_place(key), key) for key in keys)
        self._added: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._main) + len(self._added)

    def add(self, key: bytes) -> None:
        """Takes a key that has come; one that was here before does no harm."""
        self._added.append((_place(key), key))
        if len(self._added) > _ADDED_MAX + len(self._main) // 4:
            self._main = list(self.after(0))
            self._added = []

    def after(self, place: int) -> Iterator[tuple[int, bytes]]:
        """Places above ``place`` with their keys, in order."""
        self._added.sort()
        previous = None
        for item in heapq.merge(_from(self._main, place), _from(self._added, place)):
            if item != previous:
                previous = item
                yield item


def _from(items: list[tuple[int, bytes]], place: int) -> Iterator[tuple[int, bytes]]:
    for i in range(bisect_right(items, place, key=lambda item: item[0]), len(items)):
        yield items[i]
