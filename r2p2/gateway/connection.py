"""One client: its commands in their order, one request to the cluster at a time, transactions, back-pressure.

Commands wait in a queue while a request is on its way; then as many as fit go together. Reading from the client stops
while the queue is over its bound, and no new request is made while the client does not take its replies. Leaves to
others: bytes (`parser.py`), requests (`upstream.py`), commands of the gateway's own (`local.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, cast

from r2p2 import limits
from r2p2.apps.kv.resp import OK, error, wrong_number
from r2p2.gateway.dialect import Dialect
from r2p2.gateway.local import ClientState, run_local
from r2p2.gateway.parser import CommandParser, Item, TooLarge
from r2p2.gateway.resp3 import to_resp3
from r2p2.gateway.upstream import Upstream, encoded_bytes, too_large

__all__ = ["Connection"]

log = logging.getLogger("r2p2.gateway")

_QUEUED: Final = b"+QUEUED\r\n"
_EXECABORT: Final = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
_ARITY: Final = {
    b"RESET": (1, 1),
    b"MULTI": (1, 1),
    b"EXEC": (1, 1),
    b"DISCARD": (1, 1),
    b"UNWATCH": (1, 1),
    b"WATCH": (2, 1 << 30),
}
# A web page that was made to send a form here, with commands among its lines: cut off, as by Redis.
_HTTP: Final = (b"POST", b"HOST:")
# What a watched key adds to a request: IFUNWRITTEN, the key, its number.
_WATCH_BYTES: Final = 64
_TOO_MANY_WATCHES: Final = (
    b"-ERR the keys that are watched fit in a request of %d bytes\r\n" % limits.SESSION_REQUEST_BYTES_MAX
)
_WATCHES_FAILED: Final = b"-ERR the cluster's answer to R2P2.WATCH was not understood\r\n"


class _Transaction:
    """Between MULTI and EXEC."""

    def __init__(self) -> None:
        self.commands: list[list[bytes]] = []
        self.bytes_count = 0
        self.is_broken = False


class Connection(asyncio.Protocol):
    """One TCP connection.

    Args:
        upstream: the cluster.
        dialect: the application's.
        state: what the client may ask about itself.
        counters: counted into.
        on_end: called once when the connection has ended.
    """

    def __init__(
        self,
        upstream: Upstream,
        dialect: Dialect,
        state: ClientState,
        counters: Counter[str],
        on_end: Callable[[Connection], None],
    ) -> None:
        self._upstream = upstream
        self._dialect = dialect
        self._state = state
        self._counters = counters
        self._on_end = on_end
        self._parser = CommandParser()
        self._queue: deque[tuple[Item, int]] = deque()  # with the bytes that it adds to a request
        self._queue_bytes = 0
        self._is_reading = True
        self._is_closing = False  # nothing more is taken from the client; what waits is answered
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._task: asyncio.Task[None] | None = None
        self._transaction: _Transaction | None = None
        self._watches: dict[bytes, bytes] = {}
        self._transport: asyncio.Transport | None = None

    # ---- asyncio's side ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remembers where to write."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        peer = transport.get_extra_info("peername")
        self._state.address = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else str(peer)

    def data_received(self, data: bytes) -> None:
        """Queues the commands."""
        if self._is_closing:
            return
        for item in self._parser.feed(data):
            bytes_count = _bytes_of(item)
            self._queue.append((item, bytes_count))
            self._queue_bytes += bytes_count
        if self._parser.error:
            self._counters["errors_protocol"] += 1
            self._is_closing = True
        if self._queue_bytes > limits.GATEWAY_QUEUE_BYTES_MAX:
            self._pause()
        self._wake()

    def eof_received(self) -> bool:
        """The client sends no more; what it has sent is answered, then the connection is closed."""
        self._is_closing = True
        self._wake()
        return True

    def pause_writing(self) -> None:
        """The client does not take its replies."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """It does again."""
        self._may_write.set()

    def connection_lost(self, error: Exception | None) -> None:
        """Forgets everything; a request that is on its way is given up."""
        self._is_closing = True
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()
        self._on_end(self)

    def finish(self) -> None:
        """Takes no more commands, answers those it has, closes."""
        self._is_closing = True
        self._wake()

    def abort(self) -> None:
        """Closes at once."""
        if self._transport is not None:
            self._transport.abort()

    def _pause(self) -> None:
        if self._is_reading and self._transport is not None:
            self._is_reading = False
            self._counters["paused"] += 1
            self._transport.pause_reading()

    def _resume(self) -> None:
        if not self._is_reading and not self._is_closing and self._transport is not None:
            self._is_reading = True
            self._transport.resume_reading()

    # ---- the work ----

    def _wake(self) -> None:
        if self._task is None and (self._queue or self._is_closing):
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        """Answers until nothing waits."""
        assert self._transport is not None
        try:
            while self._queue:
                await self._send(await self._answer())
                if self._queue_bytes <= limits.GATEWAY_QUEUE_BYTES_MAX // 2:
                    self._resume()
        except Exception:
            # A mistake of ours: this client is cut off rather than left waiting, the others go on.
            log.exception("a connection from %s failed", self._state.address)
            self._counters["errors_internal"] += 1
            self._transport.abort()
        finally:
            self._task = None
        if self._is_closing:
            if self._parser.error:
                self._transport.write(self._parser.error)
            self._transport.close()

    async def _send(self, replies: bytes) -> None:
        """Writes, and waits while the client does not take what was written."""
        assert self._transport is not None
        self._transport.write(replies if self._state.protocol == 2 else to_resp3(replies))
        await self._may_write.wait()

    def _take(self) -> tuple[Item, int]:
        item, bytes_count = self._queue.popleft()
        self._queue_bytes -= bytes_count
        return item, bytes_count

    async def _answer(self) -> bytes:
        """The reply to the first command of the queue; as many as go together with it are answered on the way."""
        item, bytes_count = self._take()
        self._counters["commands"] += 1
        if isinstance(item, TooLarge):
            self._counters["errors_too_large"] += 1
            self._break()
            return too_large(item.bytes_count)
        name = item[0].upper()
        if name in _ARITY:
            least, most = _ARITY[name]
            if not least <= len(item) <= most:
                return self._wrong_number(name)
        if name in _HTTP:
            self._counters["errors_protocol"] += 1
            self._end()
            return b""
        if name in (b"QUIT", b"RESET"):
            return self._leave(name)
        if name in _ARITY:
            return await self._transact(name, item)
        if self._transaction is not None:
            return self._enqueue(self._transaction, item)
        reply = None if name in self._dialect.passed else run_local(self._state, item)
        if reply is None:
            reply = self._dialect.refused(item)
        if reply is not None:
            return reply
        goes_together = self._dialect.goes_together
        if not goes_together(item):
            return await self._upstream.one(item, self._state.protocol)
        together, sizes = [item], [bytes_count]
        while (
            self._queue
            and len(together) < limits.KV_BATCH_COMMANDS_MAX
            and isinstance(following := self._queue[0][0], list)
            and goes_together(following)
        ):
            sizes.append(self._take()[1])
            together.append(following)
        self._counters["commands"] += len(together) - 1
        if len(together) == 1:
            return await self._upstream.one(item, self._state.protocol)
        async for replies in self._upstream.many(together, sizes, self._state.protocol):
            await self._send(replies)
        return b""

    def _leave(self, name: bytes) -> bytes:
        self._transaction = None
        self._watches.clear()
        self._state.protocol = 2
        if name == b"RESET":
            self._state.name = b""
            return b"+RESET\r\n"
        self._end()
        return OK

    def _end(self) -> None:
        """Nothing more is answered."""
        self._is_closing = True
        self._queue.clear()

    # ---- transactions ----

    def _break(self) -> None:
        """A wrong command between MULTI and EXEC."""
        if self._transaction is not None:
            self._transaction.is_broken = True

    def _wrong_number(self, name: bytes) -> bytes:
        reply = wrong_number(name)
        self._break()
        if name == b"EXEC" and self._transaction is not None:
            self._transaction = None
            self._watches.clear()
            return b"-EXECABORT Transaction discarded because of: %b" % reply.removeprefix(b"-ERR ")
        return reply

    def _enqueue(self, transaction: _Transaction, words: list[bytes]) -> bytes:
        reply = self._dialect.queue_error(words)
        if reply is None:
            transaction.bytes_count += encoded_bytes(words)
            if (
                transaction.bytes_count <= limits.SESSION_REQUEST_BYTES_MAX
                and len(transaction.commands) < limits.KV_BATCH_COMMANDS_MAX
            ):
                transaction.commands.append(words)
                return _QUEUED
            reply = error(b"a transaction holds at most %d commands and fits in a request of %d bytes" % (
                limits.KV_BATCH_COMMANDS_MAX, limits.SESSION_REQUEST_BYTES_MAX))  # fmt: skip
        transaction.is_broken = True
        return reply

    async def _transact(self, name: bytes, words: list[bytes]) -> bytes:
        transaction = self._transaction
        if name == b"MULTI":
            if transaction is not None:
                return error(b"MULTI calls can not be nested")
            self._transaction = _Transaction()
            return OK
        if name == b"WATCH":
            if transaction is not None:
                return error(b"WATCH inside MULTI is not allowed")
            return await self._watch(words[1:])
        if name == b"UNWATCH":
            if transaction is not None:
                transaction.is_broken = True
                return error(b"UNWATCH is not allowed between MULTI and EXEC")
            self._watches.clear()
            return OK
        if transaction is None:
            return error(b"%b without MULTI" % name)
        watches, self._watches, self._transaction = self._watches, {}, None
        if name == b"DISCARD":
            return OK
        if transaction.is_broken:
            return _EXECABORT
        return await self._execute(transaction, watches)

    async def _execute(self, transaction: _Transaction, watches: dict[bytes, bytes]) -> bytes:
        if not transaction.commands and not watches:
            return b"*0\r\n"
        self._counters["transactions"] += 1
        batch: list[bytes] = []
        for key, number in watches.items():
            batch += (b"IFUNWRITTEN", key, number)
        batch.append(b"DO")
        for words in transaction.commands:
            batch.append(b"%d" % len(words))
            batch += words
        return await self._upstream.batch(batch, self._state.protocol)

    async def _watch(self, keys: list[bytes]) -> bytes:
        watched = self._watches.keys() | set(keys)
        if sum(map(len, watched)) + _WATCH_BYTES * len(watched) > limits.SESSION_REQUEST_BYTES_MAX:
            return _TOO_MANY_WATCHES
        reply = await self._upstream.one([b"R2P2.WATCH", *keys])
        if reply[:1] == b"-":
            return reply
        numbers = reply.split(b"\r\n")[1:-1]
        if len(numbers) != len(keys):
            return _WATCHES_FAILED
        for key, number in zip(keys, numbers, strict=True):
            # Watched already: a write since then must not be forgotten.
            self._watches.setdefault(key, number[1:])
        return OK


def _bytes_of(item: Item) -> int:
    return 64 if isinstance(item, TooLarge) else encoded_bytes(item)
