"""What an application is to a node: a deterministic state machine over batches of requests.

Replicas stay equal because each applies the same requests in the same order, and because an application's replies and
state depend on nothing else: no clock, no randomness, no hash order, no outside world, and not on where one batch
ends and the next begins. Leaves to others: order and durability (the node), bytes on the wire (the engine).
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, cast

from r2p2 import limits
from r2p2.errors import UserError
from r2p2.logs import Sparing
from r2p2.requests import ReplySequence, Requests, reply_of

__all__ = [
    "ApplicationFailed",
    "Handler",
    "RequestMachine",
    "StateMachine",
    "canonical_name",
    "handler_errors",
    "load_application",
    "load_object",
    "state_machine",
]

errors = Sparing(logging.getLogger("r2p2.app"))

_REPLY_BYTES_MAX: Final = limits.REPLICATED_REPLY_BYTES_MAX

Handler = Callable[[bytes], bytes]
"""One request in, one reply out."""


class ApplicationFailed(UserError):
    """What an application stands on has failed on this replica and not on the others: the member ends with this
    message, from :meth:`StateMachine.apply` and from queries alike, rather than differ from them.
    """


class StateMachine(ABC):
    """A replicated application. Subclass it, or decorate a function with :func:`state_machine`.

    An exception out of :meth:`apply` ends the node, and so do replies that are too few: part of a batch may have been
    applied, and where a batch ends differs between replicas. Answer errors instead; the function form and
    :class:`RequestMachine` do that, request by request. A reply that is not bytes is ``-ERR TypeError``, and one that
    is too large ``-ERR ReplyTooLarge``: everything has been applied by then.
    """

    _handler_errors = 0

    def __init_subclass__(cls, **named: Any) -> None:
        """Coroutines are refused where they are written: nobody would await them."""
        super().__init_subclass__(**named)
        for name in ("apply", "handle", "query", "query_batch", "snapshot", "restore"):
            if inspect.iscoroutinefunction(getattr(cls, name, None)):
                raise TypeError(
                    f"{cls.__name__}.{name} is a coroutine; a replicated application answers when it is called"
                )

    @abstractmethod
    def apply(self, requests: Requests) -> ReplySequence:
        """Executes committed requests in order; one reply each, in order, of at most 371,832 bytes."""

    def query(self, request: bytes) -> bytes:
        """Answers one request from this replica's state, which it must not change. By default it refuses.

        It serves unreplicated requests, for which the state may lag behind, and linearizable reads (policy 3), for
        which the node waits until the state is recent enough (docs/reads.md).
        """
        return b"-ERR this service takes replicated requests only\r\n"

    def snapshot(self) -> bytes | Iterator[bytes] | None:
        """The whole state as bytes, for :meth:`restore`; equal states need not give equal bytes.

        A member that comes back, or is new, is brought up with it when the log does not reach back far enough. It is
        called between two batches and holds up this member as long as it takes: after some tenths of a second without
        a leader the others elect another. So a large state is better given as an iterator over its pieces, a few of
        which are asked for at a time while the member goes on. They tell of the state at the call of this method,
        whatever is applied between two of them (it takes hold of that state first, as a copied dict of bytes does),
        are quick to make, and together are what :meth:`restore` gets; an empty one only gives the loop its turn. With
        an apply thread they are made while a batch is with it.

        By default None: this application has none, so its members cannot come back once their memory is gone.
        """
        return None

    def restore(self, data: bytes) -> None:
        """Makes the state what it was when :meth:`snapshot` was called for ``data``, whatever it is now.

        Raises:
            ValueError: ``data`` is not of that form; the member stops.
        """
        raise NotImplementedError(f"{type(self).__name__} has no snapshots")

    @property
    def has_snapshots(self) -> bool:
        """Whether :meth:`snapshot` and :meth:`restore` are there."""
        return type(self).snapshot is not StateMachine.snapshot

    def next_deadline_ms(self) -> int | None:
        """The time, unix ms, at which this state changes by itself, such as the end of a lease; None: never.

        Overridden, time goes on without requests: once the leader's clock has come there, an entry without a request
        carries the time, and :meth:`apply` gets a batch that may be empty and whose ``time_ms`` is no less. It is
        called after each batch, so it must be quick.
        """
        return None

    @property
    def has_deadlines(self) -> bool:
        """Whether :meth:`next_deadline_ms` is there."""
        return type(self).next_deadline_ms is not StateMachine.next_deadline_ms

    def query_batch(self, requests: Requests) -> ReplySequence:
        """Answers a group of linearizable reads, one reply each, in order; by default by :meth:`query`, one by one.

        An exception of a query is the reply ``-ERR Name`` to that read; one out of an overridden ``query_batch``, to
        all of the group. But :class:`ApplicationFailed` ends the node.
        """
        return _answer_each(self, self.query, requests)

    def query_safely(self, request: bytes) -> bytes:
        """:meth:`query`, an exception of which is the reply ``-ERR Name``."""
        return _answer(self, self.query, request)

    def state_digest(self) -> str:
        """A text that is equal on two replicas exactly when their states are; "" when the application has none.

        Called between two batches when somebody asks for it (``r2p2 status --state``, ``--check-determinism``), and
        holds up this member as long as it takes.
        """
        return ""

    def close(self) -> None:  # noqa: B027 - most applications have nothing to let go
        """Lets go of what is outside the process's memory; called when the node ends. By default there is nothing."""


def _settle(
    machine: StateMachine, handler: Handler, request: bytes, returned: object, error: Exception | None
) -> bytes:
    """The reply where the handler of one request raised, or returned anything but bytes: ``-ERR Name``, the same on
    every replica, since handlers are deterministic. Not so what says something about this machine: that ends the node.
    What is no reply counts as an exception: in a batch it would end every member, at the same entry.
    """
    try:
        if error is not None:
            raise error
        return cast(bytes, reply_of(returned, _REPLY_BYTES_MAX))  # or DROP, as Replies.pack takes it
    except (ApplicationFailed, MemoryError):
        raise
    except Exception as failure:
        machine._handler_errors += 1
        errors.error("handler %r failed on a request of %d bytes", handler, len(request), exc_info=failure)
        return f"-ERR {type(failure).__name__}\r\n".encode()
    finally:
        del error  # its traceback holds this frame


def _answer(machine: StateMachine, handler: Handler, request: bytes) -> bytes:
    """The handler's reply to one request, settled as in a batch."""
    try:
        returned = handler(request)
    except Exception as error:
        return _settle(machine, handler, request, None, error)
    return _settle(machine, handler, request, returned, None)


def _answer_each(
    machine: StateMachine, handler: Callable[..., bytes], requests: Requests, *more: object
) -> list[bytes]:
    """The handler's reply to each, in order."""
    settle = partial(_settle, machine)
    replies = requests.answer_each(handler, *more, bytes_max=_REPLY_BYTES_MAX, settle=settle)
    return cast(list[bytes], replies)


def handler_errors(machine: StateMachine) -> int:
    """How many requests and queries, taken one by one, ended with an exception or without a reply."""
    return machine._handler_errors


class RequestMachine(StateMachine):
    """A replicated application that handles one request at a time; a little slower than :meth:`StateMachine.apply` over
    batches, and safe with exceptions.

    An exception out of :meth:`handle` is the reply ``-ERR Name`` to that request, on every replica, and the log goes
    on; what is not bytes is ``-ERR TypeError``, more than 371,832 bytes ``-ERR ReplyTooLarge``. What the
    handler had changed by then stays changed, on every replica alike. :class:`ApplicationFailed` and MemoryError end
    the node.
    """

    @abstractmethod
    def handle(self, request: bytes, time_ms: int) -> bytes:
        """Executes one committed request at the log's time."""

    def time_passed(self, time_ms: int) -> None:
        """The log's time is ``time_ms`` now: called before the requests at that time, and without any where
        :meth:`next_deadline_ms` is there. More than once for the same time is nothing new.
        """

    def apply(self, requests: Requests) -> ReplySequence:
        """Calls :meth:`handle` for each request."""
        handle, time_ms = self.handle, requests.time_ms
        self.time_passed(time_ms)
        return _answer_each(self, handle, requests, time_ms)


class _FunctionMachine(StateMachine):
    """The one-request form. An exception becomes the same error reply on every replica, and the log goes on."""

    def __init__(
        self, handler: Handler, snapshot: Callable[[], bytes] | None, restore: Callable[[bytes], None] | None
    ) -> None:
        if (snapshot is None) != (restore is None):
            raise UserError("a snapshot without restore, or the reverse", "Give state_machine() both or none.")
        if inspect.iscoroutinefunction(handler):
            raise UserError(
                f"{handler.__name__} is a coroutine; a replicated application answers when it is called",
                "Make it an ordinary function. Without replicas a Service has coroutines.",
            )
        self._handler = handler
        self._snapshot = snapshot
        self._restore = restore

    def apply(self, requests: Requests) -> ReplySequence:
        """Calls the function for each request."""
        return _answer_each(self, self._handler, requests)

    def query(self, request: bytes) -> bytes:
        """Calls the function: right for functions without state."""
        return _answer(self, self._handler, request)

    def query_batch(self, requests: Requests) -> ReplySequence:
        """Calls the function for each."""
        return _answer_each(self, self._handler, requests)

    def snapshot(self) -> bytes | None:
        """The function's own, if it has one."""
        return None if self._snapshot is None else self._snapshot()

    def restore(self, data: bytes) -> None:
        """The function's own."""
        if self._restore is None:
            super().restore(data)
        else:
            self._restore(data)

    @property
    def has_snapshots(self) -> bool:
        """Whether the function came with hooks."""
        return self._snapshot is not None


def state_machine(
    handler: Handler, *, snapshot: Callable[[], bytes] | None = None, restore: Callable[[bytes], None] | None = None
) -> StateMachine:
    """Makes a state machine of a function ``bytes -> bytes``.

    ``snapshot`` and ``restore``: as :meth:`StateMachine.snapshot`; a function without state may give ``bytes`` and
    ``lambda data: None``.
    """
    return _FunctionMachine(handler, snapshot, restore)


BUILT_IN = {
    "echo": "r2p2.apps.echo:Echo",
    "kv": "r2p2.apps.kv:KeyValue",
    "redis": "r2p2.apps.redis:RedisServer",
    "spin": "r2p2.apps.synthetic:Spin",
    "stss": "r2p2.apps.synthetic:Stss",
}


def canonical_name(name: str) -> str:
    """A built-in application's short name, however it was named; others as they are."""
    return next((short for short, long in BUILT_IN.items() if name == long), name)


def load_object(name: str) -> Any:
    """The object called ``name``: a built-in application's class, or what ``MODULE:NAME`` names.

    Raises:
        UserError: there is no such module or name.
    """
    spec = BUILT_IN.get(name, name)
    module_name, colon, attribute = spec.partition(":")
    if not colon or not all(module_name.split(".")) or not attribute:
        raise UserError(f"--app {name!r} is neither one of {', '.join(BUILT_IN)} nor MODULE:NAME")
    # An application next to its user. At the end: a clone that one stands in must not take the place of what is
    # installed.
    with contextlib.suppress(OSError):  # the folder that one stands in has been removed
        if (here := os.getcwd()) not in sys.path:
            sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"--app {name!r}: {error}", "Run where the module can be imported, or set PYTHONPATH."
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise UserError(f"--app {name!r}: module {module_name} has no {attribute}") from None


def load_application(name: str) -> StateMachine:
    """The application called ``name``: ``echo``, ``kv``, ``redis``, ``spin``, ``stss``, or ``MODULE:NAME``.

    ``NAME`` may be a :class:`StateMachine`, a class of one, a function that returns one, or a function ``bytes ->
    bytes``.

    Raises:
        UserError: there is no such module or name, or it is none of these.
    """
    found = load_object(name)
    if isinstance(found, StateMachine):
        return found
    if isinstance(found, type) and issubclass(found, StateMachine):
        if missing := ", ".join(sorted(getattr(found, "__abstractmethods__", ()))):
            raise UserError(f"--app {name!r} has no {missing}", "Name a subclass that has.")
        if not _takes(found):
            raise UserError(f"--app {name!r} is made with arguments", "Name a function without any that makes it.")
        return found()
    if callable(found) and not isinstance(found, type):
        if _takes(found, b""):
            return state_machine(found)
        made = found() if _takes(found) else None
        if isinstance(made, StateMachine):
            return made
        raise UserError(f"--app {name!r} takes no request and returns no StateMachine", "Name one that does either.")
    raise UserError(f"--app {name!r} is {type(found).__name__}", "Name a StateMachine or a function bytes -> bytes.")


def _takes(found: Callable[..., Any], *arguments: object) -> bool:
    """Whether it can be called with these."""
    try:
        inspect.signature(found).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # of some functions in C nobody knows
        return True
    return True
