"""What the gateway must know of the application behind it: which commands only read, and which may stand together.

Two are there: the key-value store of this package, and a redis-server of each member (docs/redis.md). Of a command that
is in no table the gateway says nothing: it goes to the cluster as a write, and the application answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from r2p2.apps.kv import registry
from r2p2.apps.kv.batches import is_read
from r2p2.apps.kv.registry import Command
from r2p2.apps.kv.resp import error
from r2p2.apps.redis.commands import READS, REFUSED, WRITES, refusal, words_error
from r2p2.errors import UserError
from r2p2.gateway.local import LOCAL

__all__ = ["DIALECTS", "Dialect", "dialect_of"]


class Dialect(ABC):
    """An application's commands, as far as a gateway needs them.

    Attributes:
        has_resp3: the application answers in RESP3's form when it is asked to (R2P2.RESP3).
        passed: commands in capitals that the gateway would answer itself and that the cluster answers better.
    """

    has_resp3 = False
    passed: frozenset[bytes] = frozenset()

    @abstractmethod
    def reads_only(self, words: list[bytes]) -> bool:
        """Whether a command may go as a read (policy 3)."""

    @abstractmethod
    def goes_together(self, words: list[bytes]) -> bool:
        """Whether the cluster executes it in a pipeline with others."""

    @abstractmethod
    def refused(self, words: list[bytes]) -> bytes | None:
        """The error reply to a command that need not be sent; None: send it."""

    @abstractmethod
    def queue_error(self, words: list[bytes]) -> bytes | None:
        """The error reply to a command that may not stand between MULTI and EXEC; None: it may."""


# What they answer goes on with the log's time, which goes on with requests in the log: as reads they would stand still.
_OF_TIME: Final = frozenset((b"TTL", b"PTTL"))


class _Store(Dialect):
    """``kv``: the gateway has the store's own table."""

    def reads_only(self, words: list[bytes]) -> bool:
        found = registry.check(words)
        if not isinstance(found, Command):
            return True
        if not found.writes:
            return found.name not in _OF_TIME
        return not found.batched and found.name != b"R2P2.WATCH" and is_read(words)

    def goes_together(self, words: list[bytes]) -> bool:
        found = registry.check(words)
        return not isinstance(found, bytes) and found.batched and found.name not in (b"PING", b"ECHO")

    def refused(self, words: list[bytes]) -> bytes | None:
        return None

    def queue_error(self, words: list[bytes]) -> bytes | None:
        name = words[0].upper()
        if registry.find(name) is None and name in LOCAL:
            return _not_inside(name)
        found = registry.check(words)
        if isinstance(found, bytes):
            return found
        return None if found.batched else _not_inside(found.name)


class _Redis(Dialect):
    """``redis``: whatever the members' servers know and replicas may do."""

    has_resp3 = True
    passed = frozenset((b"COMMAND",))

    def reads_only(self, words: list[bytes]) -> bool:
        return (name := words[0].upper()) in READS and name not in _OF_TIME

    def goes_together(self, words: list[bytes]) -> bool:
        name = words[0].upper()
        return (name in WRITES or name in READS) and not name.startswith(b"R2P2.") and name != b"COMMAND"

    def refused(self, words: list[bytes]) -> bytes | None:
        return refusal(words) if words[0].upper() in REFUSED else None

    def queue_error(self, words: list[bytes]) -> bytes | None:
        name = words[0].upper()
        if name.startswith(b"R2P2."):
            return _not_inside(words[0])
        return words_error(words) if name in WRITES or name in READS else refusal(words)


def _not_inside(name: bytes) -> bytes:
    return error(b"%b is not allowed between MULTI and EXEC" % name)


DIALECTS: Final[dict[str, Dialect]] = {"kv": _Store(), "redis": _Redis()}


def dialect_of(app: str) -> Dialect:
    """By the name of the application.

    Raises:
        UserError: a gateway cannot stand before it.
    """
    if app not in DIALECTS:
        raise UserError(f"app is {app!r}, none of {', '.join(DIALECTS)}", "A gateway speaks for one of these.")
    return DIALECTS[app]
