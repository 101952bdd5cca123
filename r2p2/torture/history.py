"""What clients saw: each operation with the times between which it took effect.

A key holds a list; a client adds an element that nobody else ever adds, or reads the whole list. That makes a history
cheap to judge: every answer says exactly where in the key's one true order it belongs (:mod:`r2p2.torture.checker`).

In the store an element is ``ELEMENT_BYTES`` of text, added with APPEND, whose reply is the length that it made.
Leaves to others: sending (client.py), judging (checker.py).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

__all__ = ["ELEMENT_BYTES", "Operation", "element", "elements", "read_history", "write_history"]

ELEMENT_BYTES: Final = 12
ELEMENTS_MAX: Final = 10 ** (ELEMENT_BYTES - 1)


@dataclass(frozen=True, slots=True)
class Operation:
    """One call.

    Attributes:
        client: who called, for messages.
        key: what it was about.
        invoked_ns: before the request was sent, on a clock that all clients of the history share.
        returned_ns: after its answer came; None: it has none, so whether and when it took effect is unknown.
        element: what was added; None: a read.
        values: the list that a read saw; None: no answer, or no read.
        length: how long an addition made the list; None: no answer, or no addition.
    """

    client: int
    key: str
    invoked_ns: int
    returned_ns: int | None
    element: str | None
    values: tuple[str, ...] | None = None
    length: int | None = None

    @property
    def text(self) -> str:
        """In a few words, for a violation's message."""
        took = "no answer" if self.returned_ns is None else f"{(self.returned_ns - self.invoked_ns) / 1e6:.1f} ms"
        if self.element is None:
            saw = "" if self.values is None else f" -> {len(self.values)} elements"
            return f"client {self.client} at {self.invoked_ns / 1e9:.6f} s: read {self.key}{saw} ({took})"
        made = "" if self.length is None else f" -> {self.length} elements"
        return f"client {self.client} at {self.invoked_ns / 1e9:.6f} s: add {self.element} to {self.key}{made} ({took})"


def element(number: int) -> str:
    """The text of an element. ValueError beyond ``ELEMENTS_MAX``, since a longer text would shift all behind it."""
    if not 0 <= number < ELEMENTS_MAX:
        raise ValueError(f"element {number} is not in 0..{ELEMENTS_MAX - 1}")
    return f"{number:0{ELEMENT_BYTES - 1}d};"


def elements(value: bytes) -> tuple[str, ...]:
    """The elements of a stored value. ValueError when it is not whole elements: a torn or mixed write."""
    text = value.decode("ascii")
    if len(text) % ELEMENT_BYTES:
        raise ValueError(f"a value of {len(text)} bytes is not whole elements of {ELEMENT_BYTES}")
    # Interned: one list is read a hundred times, and its elements are kept once.
    found = tuple(sys.intern(text[i : i + ELEMENT_BYTES]) for i in range(0, len(text), ELEMENT_BYTES))
    for one in found:
        if one[-1] != ";" or not one[:-1].isdigit():
            raise ValueError(f"{one!r} is not an element")
    return found


def write_history(path: Path, operations: Iterable[Operation]) -> None:
    """One JSON object a line."""
    with path.open("w") as file:
        for operation in operations:
            file.write(json.dumps(asdict(operation), separators=(",", ":")) + "\n")


def read_history(path: Path) -> Iterator[Operation]:
    """What :func:`write_history` wrote."""
    with path.open() as file:
        for line in file:
            fields = json.loads(line)
            if fields["values"] is not None:
                fields["values"] = tuple(map(sys.intern, fields["values"]))
            yield Operation(**fields)
