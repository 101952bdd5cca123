"""The table of commands: name, how many words, whether it writes, and the function that executes it.

A handler gets the store and the whole command, its name included, with a count of words that is already right. It
returns the encoded reply and changes the store only through the store's methods. The families fill the table when
they are imported (`machine.py` imports them all); the gateway reads it to tell reads from writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from r2p2.apps.kv.resp import unknown_command, wrong_number
from r2p2.apps.kv.store import Store

__all__ = ["COMMANDS", "Command", "Handler", "check", "command", "find"]

Handler: TypeAlias = Callable[[Store, list[bytes]], bytes]
WORDS_MAX: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        name: in capitals.
        least, most: words, the name included.
        writes: whether it may change the store; what does not may be a read (policy 3).
        keys: where keys are among the words, as Redis's COMMAND has it: first, last (below 0: from the end), step.
        replies_value: a write whose reply holds the value of its first key, which may be large.
        sweeping: whether it may go through many keys that it does not name; a request may hold ``KV_SWEEPING_MAX``.
        batched: whether it may stand in a batch.
        run: the handler.
    """

    name: bytes
    least: int
    most: int
    writes: bool
    keys: tuple[int, int, int]
    replies_value: bool
    sweeping: bool
    batched: bool
    run: Handler


COMMANDS: Final[dict[bytes, Command]] = {}
"""By name, in capitals and in small letters; other spellings through :func:`find`."""


def command(
    name: str,
    least: int,
    most: int = WORDS_MAX,
    *,
    writes: bool = False,
    keys: tuple[int, int, int] = (0, 0, 0),
    replies_value: bool = False,
    sweeping: bool = False,
    batched: bool = True,
) -> Callable[[Handler], Handler]:
    """Puts the decorated handler into the table. `least` and `most` count words, the name included."""

    def put(handler: Handler) -> Handler:
        capitals = name.encode()
        entry = Command(capitals, least, most, writes, keys, replies_value, sweeping, batched, handler)
        COMMANDS[capitals] = COMMANDS[capitals.lower()] = entry
        return handler

    return put


def find(name: bytes) -> Command | None:
    """The command called `name`, in capitals or not."""
    return COMMANDS.get(name) or COMMANDS.get(name.upper())


def check(words: list[bytes]) -> Command | bytes:
    """The command of `words`, or the error reply that says why there is none to execute."""
    found = COMMANDS.get(words[0]) or COMMANDS.get(words[0].upper())
    if found is None:
        return unknown_command(words)
    if not found.least <= len(words) <= found.most:
        return wrong_number(found.name)
    return found
