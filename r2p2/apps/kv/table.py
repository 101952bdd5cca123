"""Keys and values, which a snapshot can hold on to as they are while the store goes on.

A snapshot takes the dict itself, whatever its size, and what is written from then on goes into another one on top of
it: two layers, of which the upper one counts. When nobody holds the lower one any more, the upper is moved down into
it, some keys with each batch, faster than new ones come. So nothing ever goes through all keys at once
(docs/adr/0024). Leaves to others: deadlines; what is in a snapshot.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Final, TypeAlias, cast

from r2p2 import limits

__all__ = ["Hold", "Table"]

_REMOVED: Final = None
_Upper: TypeAlias = dict[bytes, bytes | None]
_Lower: TypeAlias = dict[bytes, bytes]


class Hold:
    """Keys and values at one moment; nobody changes them while it is there."""

    __slots__ = ("__weakref__", "data", "is_copy")

    def __init__(self, data: _Lower, is_copy: bool) -> None:
        self.data, self.is_copy = data, is_copy


class Table:
    """Bytes to bytes, in one dict or two.

    Attributes:
        top: where keys are set, by an assignment; None for a value: a key of ``under`` is removed.
        under: what ``top`` does not say, or None: ``top`` is everything.
    """

    __slots__ = ("_hold", "top", "under")

    def __init__(self, data: _Lower | None = None) -> None:
        self.top: _Upper = {} if data is None else cast("_Upper", data)
        self.under: _Lower | None = None
        self._hold: weakref.ref[Hold] | None = None

    # ---- reading ----

    def get(self, key: bytes) -> bytes | None:
        """The value; None: it is not there."""
        if self.under is None or key in self.top:
            return self.top.get(key)
        return self.under.get(key)

    def all_keys(self) -> Iterable[bytes]:
        """Every key, in no order; the table must rest."""
        if self.under is None:
            return self.top.keys()
        top, under = self.top, self.under
        lower = (key for key in under if key not in top)
        return [*lower, *(key for key, value in top.items() if value is not _REMOVED)]

    def count(self) -> int:
        """Keys; with two layers it goes through the upper one."""
        if self.under is None:
            return len(self.top)
        under = self.under
        return len(under) + sum((value is not _REMOVED) - (key in under) for key, value in self.top.items())

    def copy(self) -> _Lower:
        """Everything in a dict of its own."""
        merged = dict(self.under or {})
        for key, value in self.top.items():
            if value is _REMOVED:
                del merged[key]
            else:
                merged[key] = value
        return merged

    # ---- writing ----

    def remove(self, key: bytes) -> None:
        """Removes a key that is there."""
        if self.under is not None and key in self.under:
            self.top[key] = _REMOVED
        else:
            del self.top[key]

    def clear(self) -> None:
        """Removes everything; who holds it has it still."""
        self.top, self.under, self._hold = {}, None, None

    # ---- layers ----

    @property
    def is_held(self) -> bool:
        """Whether the lower layer must stay as it is."""
        return self._hold is not None and self._hold() is not None

    def hold(self) -> Hold:
        """What is there now. Another one while the first is held, or not yet moved down behind, is a copy."""
        if self.under is not None and len(self.top) <= limits.KV_SETTLE_MIN:
            self.settle(len(self.top))
        if self.under is not None:
            return Hold(self.copy(), True)
        self.under, self.top = cast("_Lower", self.top), {}  # where nothing is under it, nothing is marked as removed
        hold = Hold(self.under, False)
        self._hold = weakref.ref(hold)
        return hold

    def settle(self, keys_max: int) -> None:
        """Moves at most so many keys down, unless the lower layer is held; with the last the layers are one."""
        top, under = self.top, self.under
        if under is None or self.is_held:
            return
        for _ in range(min(keys_max, len(top))):
            key, value = top.popitem()
            if value is _REMOVED:
                del under[key]
            else:
                under[key] = value
        if not top:
            self.top, self.under, self._hold = cast("_Upper", under), None, None
