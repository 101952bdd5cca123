"""When keys end: by the log's time, the same on every replica, whatever their machines' clocks say.

Redis keeps the deadlines itself, as it keeps them for anybody: through RENAME, COPY, SET KEEPTTL, into its dump and out
of it. But what it is given is the deadline moved by `SHIFT_MS` into a far future, which no clock reaches. So it never
ends a key, and :meth:`Deadlines.due` says which keys the log's time has passed; the adapter then removes them.

The table here holds for each key a time at or before its deadline, as a reminder to look; Redis knows the truth. A
reminder too many costs a look. One too few cannot be: each command that sets a deadline leaves one.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final

from r2p2.apps.kv.resp import INT64_MAX

__all__ = ["SHIFT_MS", "WHEN_MAX", "Deadlines"]

SHIFT_MS: Final = 1 << 50
"""35,000 years."""
WHEN_MAX: Final = INT64_MAX - SHIFT_MS
"""The latest deadline, unix ms."""
# The heap may hold so many outdated entries beside those in force before it is made anew.
_STALE_MAX: Final = 1024


class Deadlines:
    """Key -> a time, unix ms, at which to look whether it has ended."""

    def __init__(self) -> None:
        self._looks: dict[bytes, int] = {}
        self._heap: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._looks)

    def keys(self) -> list[bytes]:
        """The keys that have a reminder, sorted."""
        return sorted(self._looks)

    def remind(self, key: bytes, when_ms: int) -> None:
        """The key may have been given a deadline."""
        known = self._looks.get(key)
        if known is None or when_ms < known:
            self._looks[key] = when_ms
            heappush(self._heap, (when_ms, key))
            if len(self._heap) > 2 * len(self._looks) + _STALE_MAX:
                self._heap = [(when, each) for each, when in self._looks.items()]
                heapify(self._heap)

    @property
    def next_ms(self) -> int | None:
        """The first time at which a key may have ended; None: none will."""
        return self._heap[0][0] + 1 if self._heap else None

    def due(self, now_ms: int) -> list[bytes]:
        """Keys to look at: their reminders are before ``now_ms`` and are forgotten."""
        keys = []
        heap, looks = self._heap, self._looks
        while heap and heap[0][0] < now_ms:
            when, key = heappop(heap)
            if looks.get(key) == when:
                del looks[key]
                keys.append(key)
        return keys

    def replace(self, whens: dict[bytes, int]) -> None:
        """Has these reminders and no others."""
        self._looks = whens
        self._heap = [(when, key) for key, when in whens.items()]
        heapify(self._heap)
