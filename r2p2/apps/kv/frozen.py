"""The state of the store at one moment, as the bytes of a snapshot, made in pieces while the store goes on.

Taking hold of it costs the same however many keys there are (:class:`~r2p2.apps.kv.table.Table`); their deadlines are
those in force, but for the ones that have changed since, which the store keeps aside. The pieces are columns, in the
order in which :meth:`~r2p2.apps.kv.store.Store.restore` reads them: lengths of keys, lengths of values, places of the
keys that end, when they end, lengths of watched keys, their watches; keys, values, watched keys. Numbers are
big-endian.

Leaves to others: the header; what the state means.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from r2p2.apps.kv.table import Hold

__all__ = ["Frozen", "big_endian_in"]

# Of a piece: less than half a millisecond's work where no cache holds the keys.
ITEMS_A_PIECE: Final = 1024


class Frozen:
    """The state, until the last piece has been had or the pieces are given up.

    Args:
        hold: the keys and values.
        expires: key -> deadline, as it is now and will be.
        kept: key -> deadline, as it was, where it has changed meanwhile; None: it had none.
        watched: keys with the numbers of their watches.
    """

    def __init__(
        self,
        hold: Hold,
        expires: Mapping[bytes, int],
        kept: Mapping[bytes, int | None],
        watched: Sequence[tuple[bytes, int]],
    ) -> None:
        self._hold, self._expires, self._kept, self._watched = hold, expires, kept, watched

    def pieces(self) -> Iterator[bytes]:
        """Everything, once; some are empty."""
        data = self._hold.data
        yield from _lengths(data)
        yield from _lengths(data.values())
        ending, whens = array("I"), array("q")
        if self._expires or self._kept:
            at = 0
            for keys in _parts(data):
                for i, key in enumerate(keys, at):
                    when = self._deadline(key)
                    if when is not None:
                        ending.append(i)
                        whens.append(when)
                at += len(keys)
                yield b""
        for numbers in (ending, whens):
            for at in range(0, len(numbers), ITEMS_A_PIECE):
                yield big_endian_in(numbers[at : at + ITEMS_A_PIECE]).tobytes()
        watched = [key for key, _ in self._watched]
        yield from _lengths(watched)
        yield big_endian_in(array("Q", [number for _, number in self._watched])).tobytes()
        for column in (data, data.values(), watched):
            for part in _parts(column):
                yield b"".join(part)

    def _deadline(self, key: bytes) -> int | None:
        when = self._expires.get(key)  # first, then what was kept: see Store._set_deadline
        return self._kept.get(key, when)


def _parts(column: Iterable[bytes]) -> Iterator[list[bytes]]:
    items = iter(column)
    while part := list(islice(items, ITEMS_A_PIECE)):
        yield part


def _lengths(column: Iterable[bytes]) -> Iterable[bytes]:
    return (big_endian_in(array("I", map(len, part))).tobytes() for part in _parts(column))


def big_endian_in(column: array[int]) -> array[int]:
    """Between this machine's order and big-endian, in place; either way it is the same step."""
    if sys.byteorder == "little":
        column.byteswap()
    return column
