"""The store as a replicated application: batches of RESP requests in, replies out.

Plain SETs and GETs at the front of a batch are executed in one C call (`csrc/kv_plain.c`, docs/adr/0016), as long as
nothing in the store ends, is watched or scanned. The rest is hiredis's to parse: it is fed to it as one stream. That is
sound only when every request is exactly one command, so C checks the framing of each first (docs/adr/0004); a batch
with a request that is not goes request by request, and that request alone gets an error.
Leaves to others: what the commands do (`registry.py` and the families), TCP clients (:mod:`r2p2.gateway`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any, Final

import hiredis

from r2p2.app import StateMachine

# The families fill the table of commands.
from r2p2.apps.kv import batches, connection, counters, expiry, keyspace, strings  # noqa: F401
from r2p2.apps.kv._plain import run
from r2p2.apps.kv.batches import is_read
from r2p2.apps.kv.registry import COMMANDS, Command, check
from r2p2.apps.kv.store import Store
from r2p2.engine import resp_first_broken
from r2p2.requests import Replies, ReplySequence, Requests

__all__ = ["KeyValue"]

_BROKEN: Final = b"-ERR Protocol error: not one RESP command\r\n"


class KeyValue(StateMachine):
    """The store behind :class:`~r2p2.app.StateMachine`."""

    def __init__(self) -> None:
        self.store = Store()
        self._reader = hiredis.Reader()

    @property
    def data(self) -> dict[bytes, bytes]:
        """A copy of the keys and values, ended ones perhaps among them."""
        return self.store.table.copy()

    # ---- batches ----

    def apply(self, requests: Requests) -> ReplySequence:
        """Executes a batch at the time it carries."""
        store, count = self.store, len(requests)
        if requests.time_ms > store.now_ms:
            store.now_ms = requests.time_ms
        if count == 0:
            store.turn(0)  # time alone has gone on
            return []
        if not store.is_plain:
            replies = self._apply_any(requests)
            store.turn(count)
            return replies
        # Under load nearly everything is a plain SET or GET, and nothing ends, is watched or scanned.
        table = store.table
        done, slab, lengths = run(table.top, table.under, requests.slab, requests.lengths, True)
        if done == count:
            if table.under is not None:
                store.turn(count)
            return Replies(slab, array("I", lengths))
        rest = Replies.pack(self._apply_any(requests.behind(done)))
        store.turn(count)
        return Replies(slab + rest.slab, array("I", lengths + rest.lengths.tobytes()))

    def _apply_any(self, requests: Requests) -> list[bytes]:
        """Executes requests of any kind."""
        count = len(requests)
        if resp_first_broken(requests) != count:
            return [self._apply_one(request) for request in requests]
        self._reader.feed(requests.slab)
        gets, store = self._reader.gets, self.store
        replies: list[bytes] = []
        find, say = COMMANDS.get, replies.append
        for _ in range(count):
            words = gets()
            command = find(words[0])
            if command is not None and command.least <= len(words) <= command.most:
                say(command.run(store, words))
            else:
                say(self._execute(words))
        return replies

    def _execute(self, words: list[bytes]) -> bytes:
        command = check(words)
        return command.run(self.store, words) if isinstance(command, Command) else command

    def _apply_one(self, request: bytes) -> bytes:
        """One request by itself, whatever its bytes."""
        words = self._parse(request)
        return self._execute(words) if words is not None else _BROKEN

    def _parse(self, request: bytes) -> list[bytes] | None:
        """The command, or None: a request that is not one array of bulk strings. Inline commands are words up to a
        line end.
        """
        if resp_first_broken(Requests.of([request])) == 1:
            reader = hiredis.Reader()
            reader.feed(request)
            command: Any = reader.gets()
            return list(command)
        if request.endswith(b"\n") and request[:1].isalpha() and request.count(b"\n") == 1:
            return request.split()
        return None

    def next_deadline_ms(self) -> int | None:
        """When the next key ends."""
        return self.store.next_end_ms()

    # ---- reads ----

    def query(self, request: bytes) -> bytes:
        """A command that does not write, from this replica's own state and at the time of the last batch applied;
        what writes is refused, since only replicated requests may.
        """
        words = self._parse(request)
        return _BROKEN if words is None else self._query(words)

    def query_batch(self, requests: Requests) -> ReplySequence:
        """Answers a group of linearizable reads."""
        if not self.store.is_plain:
            return self._query_any(requests)
        table = self.store.table
        done, slab, lengths = run(table.top, table.under, requests.slab, requests.lengths, False)
        if done == len(requests):
            return Replies(slab, array("I", lengths))
        rest = Replies.pack(self._query_any(requests.behind(done)))
        return Replies(slab + rest.slab, array("I", lengths + rest.lengths.tobytes()))

    def _query_any(self, requests: Requests) -> list[bytes]:
        """Reads of any kind, parsed as one stream where every request is one command."""
        if resp_first_broken(requests) != len(requests):
            return [self.query_safely(request) for request in requests]
        self._reader.feed(requests.slab)
        gets, query = self._reader.gets, self._query
        return [query(words) for words in [gets() for _ in range(len(requests))]]

    def _query(self, words: list[bytes]) -> bytes:
        command = check(words)
        if not isinstance(command, Command):
            return command
        if command.writes and (command.batched or command.name == b"R2P2.WATCH" or not is_read(words)):
            return b"-READONLY send writes with the replicated policy\r\n"
        return command.run(self.store, words)

    # ---- the whole ----

    def snapshot(self) -> Iterator[bytes]:
        """The state at this moment as bytes, in pieces made as they are asked for."""
        return self.store.snapshot()

    def restore(self, data: bytes) -> None:
        """Becomes the state of a :meth:`snapshot`.

        Raises:
            ValueError: the bytes are not one; nothing has changed.
        """
        self.store.restore(data)

    def state_digest(self) -> str:
        """SHA-256 over the sorted items with their lengths and deadlines, and the watches."""
        return self.store.digest()
