"""Servers of unreplicated requests: handlers by policy, replies now or later, refusals, a drain at the end.

A :class:`Service` is the handlers; a :class:`Server` runs one over a port. Handlers come in four forms: one request,
a batch, a coroutine (asyncio backends), and one that is given a :class:`Deferred` to answer whenever it likes.
Replies that come later are bounded: beyond ``deferred_max`` new requests are refused with DROP, which a client sees
at once. Leaves to others: replicated requests (:mod:`r2p2.node`); here they are refused.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from r2p2 import limits
from r2p2.engine import Engine, EngineConfig
from r2p2.errors import R2P2Error, ReplyCountError, UserError
from r2p2.logs import Sparing
from r2p2.node import STATUS_REQUEST
from r2p2.requests import DROP, LATER, Replies, ReplySequence, Requests, SpecialReply, reply_of

__all__ = ["Deferred", "Server", "ServerConfig", "Service"]

errors = Sparing(logging.getLogger("r2p2.server"))

UNREPLICATED: Final = (0, 1)
"""The policies a server can have handlers for: LB_ROUTE and FIXED_ROUTE."""

One = Callable[[bytes], bytes | SpecialReply]
Batch = Callable[[Requests], ReplySequence]
Async = Callable[[bytes], Awaitable[bytes | SpecialReply]]
Later = Callable[[bytes, "Deferred"], None]
_Function = TypeVar("_Function", bound=Callable[..., Any])


class AnsweredTwiceError(R2P2Error):
    """A deferred request was answered a second time, or after its server was closed."""


class Deferred:
    """A request whose answer comes later. Answer it exactly once, in the server's thread; a server that closes refuses
    what is not answered.
    """

    __slots__ = ("_asker", "_server")

    def __init__(self, server: Server, asker: bytes) -> None:
        self._server: Server | None = server
        self._asker = asker

    @property
    def is_answered(self) -> bool:
        """Whether it was answered or refused, or can be no more."""
        return self._server is None or self._server.engine.handle is None

    def reply(self, payload: bytes) -> None:
        """Answers.

        Raises:
            AnsweredTwiceError: it was answered before.
            TypeError: the payload is not bytes; the request is still open.
            EngineError: the payload is over 371,856 bytes; the request is still open.
        """
        if not isinstance(payload, bytes):
            raise TypeError(f"a reply is bytes, not {type(payload).__name__}")
        self._take()._answer(self, self._asker, payload)
        self._server = None

    def drop(self) -> None:
        """Refuses: the client gets DROP.

        Raises:
            AnsweredTwiceError: it was answered before.
        """
        self._take()._answer(self, self._asker, None)
        self._server = None

    def _take(self) -> Server:
        server = self._server
        if server is None or server.engine.handle is None:
            raise AnsweredTwiceError("this request was answered or refused before")
        return server


def _only(replies: ReplySequence) -> bytes | SpecialReply:
    """The reply of a batch of one."""
    each = replies.apart() if isinstance(replies, Replies) else list(replies)
    if len(each) != 1:
        raise ReplyCountError.of(len(each), 1)
    return each[0]


class Service:
    """Handlers, by policy. Decorate functions with :meth:`handler` and the like; the last one for a policy wins."""

    def __init__(self) -> None:
        self.handlers: dict[int, tuple[str, Callable[..., Any]]] = {}

    def _register(self, kind: str, policies: tuple[int, ...]) -> Callable[[_Function], _Function]:
        self._check(policies)

        def register(function: _Function) -> _Function:
            for policy in policies or UNREPLICATED:
                self.handlers[policy] = (kind, function)
            return function

        return register

    @staticmethod
    def _check(policies: tuple[int, ...]) -> None:
        for policy in policies:
            if callable(policy):
                name = getattr(policy, "__name__", policy)
                raise UserError(f"a handler's decorator got the function {name} itself", "Write it with ().")
            if policy not in UNREPLICATED:
                raise UserError(
                    f"a service has no handlers for policy {policy}",
                    "Replicated requests go to a StateMachine (r2p2 serve --members ...).",
                )

    def handler(self, *policies: int) -> Callable[[_Function], _Function]:
        """For ``bytes -> bytes`` and for ``async def`` of the same form; for these policies, by default for both.

        An exception becomes the reply ``-ERR Name``, and so does what is not bytes (``TypeError``) or more than 371,856
        of them (``ReplyTooLarge``); returning :data:`~r2p2.requests.DROP` refuses.
        """

        self._check(policies)

        def register(function: _Function) -> _Function:
            kind = "async" if inspect.iscoroutinefunction(function) else "one"
            return self._register(kind, policies)(function)

        return register

    def batch_handler(self, *policies: int) -> Callable[[_Function], _Function]:
        """For ``Requests -> replies``, one reply a request in order. An exception ends the server."""
        return self._register("batch", policies)

    def deferred_handler(self, *policies: int) -> Callable[[_Function], _Function]:
        """For ``(bytes, Deferred) -> None``: it keeps the Deferred and answers later. An exception becomes the reply
        ``-ERR Name``, unless it has answered.
        """
        return self._register("later", policies)

    @property
    def needs_asyncio(self) -> bool:
        """Whether a handler is a coroutine."""
        return any(kind == "async" for kind, _ in self.handlers.values())


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """``deferred_max``: replies that may be outstanding at once; ``engine``: bounds of the engine."""

    deferred_max: int = limits.DEFERRED_MAX
    engine: EngineConfig = field(default_factory=EngineConfig)


class Server:
    """Runs a service over one port; a :class:`~r2p2.driver.Pollable`.

    Args:
        service: the handlers.
        port_address: of the port's C struct.
        config: bounds.
        keep: held on to as long as the server lives, normally the port.
        wake: called when there is something to send outside a poll (the asyncio driver's ``wake``).
    """

    def __init__(
        self,
        service: Service,
        port_address: int,
        config: ServerConfig | None = None,
        *,
        keep: object = None,
        wake: Callable[[], None] | None = None,
    ) -> None:
        if not service.handlers:
            raise UserError("the service has no handlers", "Decorate a function with service.handler().")
        self.config = config or ServerConfig()
        self.engine = Engine(port_address, self.config.engine, keep=keep)
        self.wake = wake
        self.deferred_count = 0
        self.counters = {"drops_deferred_full": 0, "drops_draining": 0, "drops_no_handler": 0, "handler_errors": 0}
        self._service = service
        self._draining = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_work: set[Deferred] = set()
        kinds = set(service.handlers.values())
        # One handler for everything: batches go to it as they are.
        self._only = kinds.pop() if len(kinds) == 1 and len(service.handlers) == len(UNREPLICATED) else None

    # ---- the loop ----

    def poll_once(self) -> int:
        """Receives, answers, sends. Returns the datagrams handled."""
        result = self.engine.poll()
        if result[2]:
            self.engine.reply(self._replies(self.engine.requests()))
            self.engine.flush()
        return result[1]

    def next_deadline_ns(self) -> int | None:
        """Half messages expire in whatever poll comes: nothing is due by itself."""
        return None

    def now_ns(self) -> int:
        """The port's clock."""
        return self.engine.now_ns()

    def drain(self) -> None:
        """From now on new requests are refused; those at work go on. Idempotent."""
        self._draining = True

    @property
    def drained(self) -> bool:
        """Whether nothing is at work."""
        return self.deferred_count == 0

    def close(self) -> None:
        """Refuses what is still at work and frees the engine. Idempotent."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        if self.engine.handle is not None:  # else the port was closed first
            for deferred in list(self._at_work):
                deferred.drop()
            self.engine.flush()  # nobody polls any more
        self.engine.close()

    def all_counters(self) -> dict[str, int]:
        """Every counter, of the engine and its port as well, by name."""
        counters = self.engine.counters() | self.counters
        counters["handler_errors"] += self.engine.replies_refused
        return counters

    def status(self) -> dict[str, Any]:
        """Counters and what is at work."""
        counters = {name: n for name, n in self.all_counters().items() if n}
        return {
            "replicated": False,
            "draining": self._draining,
            "deferred_count": self.deferred_count,
            "counters": counters,
        }

    # ---- requests ----

    def _replies(self, requests: Requests) -> ReplySequence:
        count = len(requests)
        if self._draining:
            self.counters["drops_draining"] += count
            return [DROP] * count
        if STATUS_REQUEST in requests.slab:
            return self._by_one(requests)
        handlers, policies = self._service.handlers, requests.policies
        found = self._only or (handlers.get(policies[0]) if policies.count(policies[0]) == count else None)
        if found is not None:
            kind, handler = found
            if kind == "batch":
                replies: ReplySequence = handler(requests)
                return replies
            if kind == "one":
                return requests.answer_each(handler, bytes_max=limits.MESSAGE_BYTES_MAX, settle=self._settle)
        return self._by_one(requests)

    def _by_one(self, requests: Requests) -> list[bytes | SpecialReply]:
        """The general way: a handler by policy, deferred ones among them."""
        askers = self.engine.askers(len(requests))
        replies: list[bytes | SpecialReply] = []
        for i, request in enumerate(requests):
            if request == STATUS_REQUEST:
                replies.append(json.dumps(self.status()).encode())
                continue
            kind, handler = self._service.handlers.get(requests.policies[i], ("none", None))
            if handler is None:
                self.counters["drops_no_handler"] += 1
                replies.append(DROP)
            elif kind == "one":
                replies.append(self._call(handler, request))
            elif kind == "batch":
                replies.append(_only(handler(Requests.of([request], requests.policies[i]))))
            elif self.deferred_count >= self.config.deferred_max:
                self.counters["drops_deferred_full"] += 1
                replies.append(DROP)
            else:
                at = i * limits.ASKER_BYTES
                self._defer(kind, handler, request, askers[at : at + limits.ASKER_BYTES])
                replies.append(LATER)
        return replies

    def _error(self, handler: Callable[..., Any], error: Exception) -> bytes:
        self.counters["handler_errors"] += 1
        errors.error("handler %s failed", getattr(handler, "__name__", handler), exc_info=error)
        return f"-ERR {type(error).__name__}\r\n".encode()

    def _call(self, handler: One, request: bytes) -> bytes | SpecialReply:
        try:
            returned = handler(request)
        except Exception as error:
            return self._settle(handler, request, None, error)
        return self._settle(handler, request, returned, None)

    def _settle(
        self, handler: Callable[..., Any], request: bytes, returned: object, error: Exception | None
    ) -> bytes | SpecialReply:
        """The reply where a handler of one request raised, or returned anything but bytes."""
        try:
            if error is not None:
                raise error
            return reply_of(returned, limits.MESSAGE_BYTES_MAX)
        except Exception as failure:
            return self._error(handler, failure)
        finally:
            del error  # its traceback holds this frame

    # ---- replies that come later ----

    def _defer(self, kind: str, handler: Callable[..., Any], request: bytes, asker: bytes) -> None:
        self.deferred_count += 1
        deferred = Deferred(self, asker)
        self._at_work.add(deferred)
        if kind == "async":
            task = asyncio.get_running_loop().create_task(self._await(handler, request, deferred))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        try:
            handler(request, deferred)
        except Exception as error:
            text = self._error(handler, error)
            if not deferred.is_answered:
                deferred.reply(text)

    async def _await(
        self, handler: Callable[[bytes], Coroutine[Any, Any, object]], request: bytes, d: Deferred
    ) -> None:
        try:
            reply = reply_of(await handler(request), limits.MESSAGE_BYTES_MAX)
        except asyncio.CancelledError:
            if not d.is_answered:  # by a server that closes
                d.drop()
            raise
        except Exception as error:
            reply = self._error(handler, error)
        if d.is_answered:  # by a server that closed, and the handler went on all the same
            return
        if isinstance(reply, SpecialReply):
            d.drop()
        else:
            d.reply(reply)

    def _answer(self, deferred: Deferred, asker: bytes, payload: bytes | None) -> None:
        self.engine.reply_later(asker, payload)
        self._at_work.discard(deferred)
        self.deferred_count -= 1
        if self.wake is not None:
            self.wake()
        else:
            self.engine.flush()
