"""Clients: calls over kernel UDP, from asyncio and from plain scripts.

:class:`Client` is for asyncio; :class:`BlockingClient` for scripts and tools. Both run the same engine over one UDP
socket. A call ends with the reply's bytes or one of :class:`~r2p2.errors.CallError`. Calls in a session are executed
exactly once (docs/exactly-once.md).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import select
import socket
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, NoReturn, cast

from r2p2 import limits
from r2p2.address import format_address, format_ip, parse_address
from r2p2.arguments import SECONDS_MAX
from r2p2.engine import (
    DONE_CANCELLED,
    DONE_DROPPED,
    DONE_EXPIRED,
    DONE_OK,
    Completion,
    Engine,
    EngineConfig,
    SessionInfo,
)
from r2p2.errors import (
    CallCancelled,
    CallDropped,
    CallError,
    CallTimeout,
    NoRoute,
    SessionExpiredError,
    TooManyCalls,
)
from r2p2.ports import OpenPort, PortSpec, open_port

__all__ = [
    "FIXED_ROUTE",
    "LB_ROUTE",
    "REPLICATED",
    "REPLICATED_READ",
    "BlockingClient",
    "BlockingSession",
    "Client",
    "PollClient",
    "PollSession",
]

LB_ROUTE: Final = 0
"""Policy: any server may answer."""
FIXED_ROUTE: Final = 1
"""Policy: this server answers, from its own state."""
REPLICATED: Final = 2
"""Policy: executed once it is committed, on every replica in the same order."""
REPLICATED_READ: Final = 3
"""Policy: a linearizable read; any member answers it, and it does not enter the log (docs/reads.md)."""

ROUTES_MAX: Final = 4096
"""Targets remembered as reachable; others are asked about at every call."""
_TIMER_STEP_NS: Final = 1 * limits.MS
# Calls begun in one turn of the loop before answers are looked for. Nobody else looks meanwhile, and answers to some
# ten thousand calls are more than a socket holds.
_BEGUN_MAX: Final = 64
# A read goes to the next server when this one has been silent for so long, then for twice as long: above what a busy
# cluster takes, and half of an election. One that refuses is left for a moment, as a session's call is.
_READ_SILENCE_S: Final = 0.1
_REFUSED_PAUSE_S: Final = 0.001
_REFUSED_PAUSE_MAX_S: Final = 0.032
_FIRST_SEQUENCE_BITS: Final = 62
# Who opens a port that another client has just left gets what comes late for that one. Were the rids the same as well,
# it would be taken for the answer to a call of ours.
_FIRST_RID_BITS: Final = 16
# A client keeps no log and forwards nothing.
_ENGINE: Final = EngineConfig(log_bytes_max=1 << 20, log_entries_max=1024, hold_bytes_max=1 << 19)


_CLOSED: Final = "this client is closed"
_FORKED: Final = "this client belongs to the process that this one was forked from; open one in this process"
_open_clients: Final[weakref.WeakSet[_Calls | PollClient]] = weakref.WeakSet()


def _after_fork() -> None:
    """A forked child has its parent's socket, rids and sessions: each would get answers to the other's calls, and of
    two calls with one number in a session one is executed. So the child's copies end, without a word to anybody.
    """
    for client in list(_open_clients):
        client._engine.abandon()
        client._end(_FORKED)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


def _check(payload: object, timeout_s: float, retry_s: float = 0.0, policy: int = REPLICATED) -> None:
    """Raises TypeError or ValueError: no call can be made with these."""
    if not isinstance(payload, bytes):
        raise TypeError(f"a payload is bytes, not {type(payload).__name__}")
    if not (0 < timeout_s < SECONDS_MAX and 0 <= retry_s < SECONDS_MAX):
        raise ValueError(
            f"timeout_s is {timeout_s}, retry_s is {retry_s}: above 0, and not below it; both below a million seconds"
        )
    if not LB_ROUTE <= policy <= REPLICATED_READ:
        raise ValueError(f"policy is {policy}, not {LB_ROUTE}..{REPLICATED_READ}")


def _outcome(completion: Completion, asked: str | tuple[int, int]) -> bytes | CallError:
    """The reply, or the error that says what happened to a call of ``asked``."""
    if completion.status == DONE_OK:
        return completion.payload
    target = asked if isinstance(asked, str) else format_address(asked)
    after = f"after {completion.latency_ns / limits.MS:.1f} ms"
    if completion.status == DONE_DROPPED:
        return CallDropped(f"{target} refused the request {after} (DROP); it was not executed")
    if completion.status == DONE_EXPIRED:
        return SessionExpiredError(
            f"{target} says {after} that the session has ended; the request was executed once or not at all"
        )
    if completion.status == DONE_CANCELLED:
        return CallCancelled(f"the call to {target} was cancelled {after}")
    return CallTimeout(f"no answer from {target} {after}; is a server running there?")


class _Unusable:
    """In place of an engine that is not to be used any more: whatever is asked of it raises ValueError."""

    def __init__(self, why: str) -> None:
        self._why = why

    def __getattr__(self, name: str) -> NoReturn:
        raise ValueError(self._why)


def _unusable(why: str) -> Engine:
    return cast(Engine, _Unusable(why))


def _senders(trusted: Sequence[str]) -> list[tuple[int, int]]:
    """The servers whose answers are believed. ValueError: too many."""
    if len(trusted) > limits.TARGETS_MAX:
        raise ValueError(f"trusted: {len(trusted)} servers; at most {limits.TARGETS_MAX}")
    return [parse_address(text) for text in trusted]


class _SessionCalls:
    """A client's session: calls that are executed once however often they are sent, on one local port."""

    def __init__(self, engine: Engine, local_port: int, targets: Sequence[str]) -> None:
        if not targets:
            raise ValueError("a session needs a server's address")
        if len(targets) > limits.TARGETS_MAX:
            raise ValueError(f"a session with {len(targets)} servers; at most {limits.TARGETS_MAX}")
        self._engine = engine
        self._local_port = local_port
        self.targets = tuple(targets)
        # Members that have all begun anew give out the same ids again. Were the sequences the same as well, a reply to
        # somebody else's request would be taken for the one to ours.
        first_sequence = 1 + secrets.randbits(_FIRST_SEQUENCE_BITS)
        addresses = [parse_address(target) for target in targets]
        self._number = engine.session_new(local_port, addresses, first_sequence=first_sequence)
        self._is_closed = False

    def begin(self, payload: bytes, timeout_s: float, tag: int) -> int:
        """Sends a request, or keeps it until the session is open; the rid."""
        _check(payload, timeout_s)
        timeout_ns = int(timeout_s * limits.SECOND)
        rid = self._engine.session_call(self._local_port, self._number, payload, timeout_ns=timeout_ns, tag=tag)
        if rid is None:
            raise TooManyCalls(
                f"the session has all the calls it can have, or one of its calls has waited while "
                f"{limits.SESSION_WINDOW_MAX} later ones were made; use several sessions"
            )
        return rid

    def renew(self) -> None:
        """Goes on with a new session after a :class:`~r2p2.errors.SessionExpiredError`; nothing otherwise.

        Raises:
            ValueError: the session, or its client, is closed.
        """
        if self.is_expired:
            self._engine.session_renew(self._local_port, self._number)

    def _info(self) -> SessionInfo:
        if self._engine.handle is None:
            raise ValueError(_CLOSED)
        return self._engine.session_info(self._local_port, self._number)

    @property
    def is_expired(self) -> bool:
        """Whether the servers have ended it: calls fail until :meth:`renew`."""
        return self._info().is_expired

    @property
    def client_id(self) -> int:
        """The id the servers gave it; 0 before the first call was answered."""
        return self._info().client_id

    def close(self) -> None:
        """Forgets the session here; the servers evict it in time. Idempotent.

        Raises:
            EngineError: calls of it wait.
        """
        if self._is_closed:
            return
        if self._engine.handle is not None:  # a client that is closed has forgotten it already
            self._engine.session_close(self._local_port, self._number)
        self._is_closed = True
        # Its number may be another session's from now on.
        self._engine = _unusable("this session is closed")


class PollSession(_SessionCalls):
    """From :meth:`PollClient.session`."""

    def __init__(self, client: PollClient, engine: Engine, local_port: int, targets: Sequence[str]) -> None:
        super().__init__(engine, local_port, targets)
        self._client = client

    def call(self, payload: bytes, callback: Callable[[bytes | CallError], None], *, timeout_s: float = 5.0) -> None:
        """Begins a replicated call; ``callback`` is called once, as in :meth:`PollClient.call`.

        Raises:
            SessionExpiredError: the session had ended before; nothing was sent.
            TooManyCalls, RequestTooLarge: nothing was sent.
        """
        self._client.begin_in(self, payload, callback, timeout_s)


class BlockingSession(_SessionCalls):
    """From :meth:`BlockingClient.session`."""

    def __init__(self, client: BlockingClient, engine: Engine, local_port: int, targets: Sequence[str]) -> None:
        super().__init__(engine, local_port, targets)
        self._client = client

    def call(self, payload: bytes, *, timeout_s: float = 5.0) -> bytes:
        """Sends ``payload`` until it is answered, and waits for the reply; executed once when it returns, and at most
        once in any case.

        Raises:
            CallTimeout: no answer within ``timeout_s``: it may or may not have been executed.
            SessionExpiredError: the session has ended; :meth:`renew`, and decide what to do about the request.
            TooManyCalls, RequestTooLarge: nothing was sent.
        """
        return self._client.call_in(self, payload, timeout_s)


class _Calls:
    """What both clients share: a port, an engine, a number for each call."""

    def __init__(self, bind: str, ports_count: int = 1, trusted: Sequence[str] = ()) -> None:
        ip, port = parse_address(bind, default_port=0)
        senders = _senders(trusted)
        if ports_count < 1:
            raise ValueError(f"ports_count is {ports_count}, not at least 1")
        self._port = open_port(PortSpec("uv", format_ip(ip), port, ports_count=ports_count))
        self._ip = ip  # 0: any
        try:
            self._engine = Engine(self._port.address, _ENGINE, keep=self._port)
            for local_port in self._port.local_ports:
                self._engine.client_open(local_port, first_rid=secrets.randbits(_FIRST_RID_BITS))
                if senders:
                    self._engine.restrict(local_port, senders)
        except BaseException:
            self._port.__exit__(None, None, None)
            raise
        self._current_port = 0
        self._routed: set[tuple[int, int]] = set()
        self._tag = 0
        self._closed = ""
        _open_clients.add(self)

    def begin(
        self, target: tuple[int, int], payload: bytes, policy: int, timeout_s: float, retry_s: float
    ) -> tuple[int, int, int]:
        """Sends a request; its tag, local port and rid."""
        self._check_open()
        _check(payload, timeout_s, retry_s, policy)
        self._check_route(target)
        self._tag += 1
        local_ports = self._port.local_ports
        for _ in local_ports:
            # The next port for the next call: their rids come round together.
            self._current_port = (self._current_port + 1) % len(local_ports)
            local_port = local_ports[self._current_port]
            rid = self._engine.try_call(
                local_port,
                target,
                payload,
                policy=policy,
                timeout_ns=int(timeout_s * limits.SECOND),
                retry_ns=int(retry_s * limits.SECOND),
                tag=self._tag,
            )
            if rid is not None:
                return self._tag, local_port, rid
        raise TooManyCalls(
            f"{len(local_ports)} local ports have all the calls they can; open the client with more (ports_count)"
        )

    def begin_in(self, session: _SessionCalls, payload: bytes, timeout_s: float) -> tuple[int, int, int]:
        """As :meth:`begin`, in a session."""
        self._check_open()
        self._tag += 1
        return self._tag, self._port.local_port, session.begin(payload, timeout_s, self._tag)

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(self._closed)

    def _check_route(self, target: tuple[int, int]) -> None:
        """Asks the kernel once a target whether it knows a way there; connecting a UDP socket sends nothing."""
        if target in self._routed:
            return
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                if self._ip:
                    probe.bind((format_ip(self._ip), 0))
                probe.connect((format_ip(target[0]), target[1] or 1))
            except OSError as error:
                ends = format_address(target) + (f" from {format_ip(self._ip)}" if self._ip else "")
                raise NoRoute(f"no route to {ends}: {error.strerror}; nothing was sent") from error
        if len(self._routed) < ROUTES_MAX:
            self._routed.add(target)

    def close(self) -> None:
        """Frees the engine, then the socket. Idempotent."""
        if not self._closed:
            self._engine.close()
            self._end(_CLOSED)

    def _end(self, why: str) -> None:
        _open_clients.discard(self)
        self._closed = why
        self._engine = _unusable(why)
        self._port.__exit__(None, None, None)

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        """Closes a client that was forgotten: its memory is C's, and the descriptor would stay."""
        if not getattr(self, "_closed", _CLOSED):
            _Calls.close(self)
            _warn(f"unclosed {type(self).__name__}", ResourceWarning, stacklevel=2, source=self)


class PollClient:
    """A client for programs with a loop of their own, over any backend: calls with callbacks, a
    :class:`~r2p2.driver.Pollable`.

    Args:
        port: from :func:`~r2p2.ports.open_port`; it must outlive the client.
        trusted: servers whose answers are believed; by default anybody's.

    Callbacks run inside :meth:`poll_once`, with the reply's bytes or a :class:`~r2p2.errors.CallError`; they may call,
    and close. An exception of one comes out of :meth:`poll_once`; the next :meth:`poll_once` calls the others back.
    """

    def __init__(self, port: OpenPort, *, trusted: Sequence[str] = ()) -> None:
        senders = _senders(trusted)
        self._engine = Engine(port.address, _ENGINE, keep=port)
        self._local_port = port.local_port
        self._engine.client_open(self._local_port, first_rid=secrets.randbits(_FIRST_RID_BITS))
        if senders:
            self._engine.restrict(self._local_port, senders)
        self._tag = 0
        self._waiting: dict[int, tuple[Callable[[bytes | CallError], None], str]] = {}
        self._ended: deque[Completion] = deque()  # and not called back yet
        self._closed = ""
        _open_clients.add(self)

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(self._closed)

    @property
    def waiting_count(self) -> int:
        """Calls without an end yet."""
        return len(self._waiting)

    def call(
        self,
        target: str,
        payload: bytes,
        callback: Callable[[bytes | CallError], None],
        *,
        policy: int = FIXED_ROUTE,
        timeout_s: float = 1.0,
        retry_s: float = 0.0,
    ) -> None:
        """Begins a call; it is sent with the next :meth:`poll_once`, and ``callback`` is called once.

        Raises:
            TooManyCalls: 65,535 calls wait already.
            RequestTooLarge: nothing was sent, and the callback is not called.
            TypeError, ValueError: such a call cannot be made, or the client is closed.
        """
        self._check_open()
        _check(payload, timeout_s, retry_s, policy)
        rid = self._engine.try_call(
            self._local_port,
            parse_address(target),
            payload,
            policy=policy,
            timeout_ns=int(timeout_s * limits.SECOND),
            retry_ns=int(retry_s * limits.SECOND),
            tag=self._tag + 1,
        )
        if rid is None:
            raise TooManyCalls("all 65,535 calls of the local port wait")
        self._tag += 1
        self._waiting[self._tag] = (callback, target)

    def session(self, *targets: str) -> PollSession:
        """A session with the servers ``targets`` (``IP:PORT``, at most 16): exactly-once calls. Opened by its first
        call.
        """
        return PollSession(self, self._engine, self._local_port, targets)

    def begin_in(
        self,
        session: PollSession,
        payload: bytes,
        callback: Callable[[bytes | CallError], None],
        timeout_s: float,
    ) -> None:
        """What :meth:`PollSession.call` does."""
        self._check_open()
        session.begin(payload, timeout_s, self._tag + 1)
        self._tag += 1
        self._waiting[self._tag] = (callback, " ".join(session.targets))

    def poll_once(self) -> int:
        """Sends, receives, calls back. Returns the datagrams received."""
        self._engine.flush()
        received = self._engine.poll()[1]
        self._ended += self._engine.completions()
        while self._ended:
            completion = self._ended.popleft()
            callback, target = self._waiting.pop(completion.tag)
            callback(_outcome(completion, target))
        if received and not self._closed:
            self._engine.flush()  # what was called back calls on
        return received

    def next_deadline_ns(self) -> int | None:
        """A millisecond from now while calls wait: the step of their deadlines."""
        return self.now_ns() + _TIMER_STEP_NS if self._waiting else None

    def now_ns(self) -> int:
        """The port's clock."""
        return self._engine.now_ns()

    def close(self) -> None:
        """Frees the engine; waiting calls end without a callback. Idempotent."""
        if not self._closed:
            self._engine.close()
            self._end(_CLOSED)

    def _end(self, why: str) -> None:
        _open_clients.discard(self)
        self._closed = why
        self._engine = _unusable(why)
        self._waiting.clear()
        self._ended.clear()


class BlockingClient(_Calls):
    """A client for scripts: one call at a time, from one thread. A context manager.

    Args:
        bind: local address, ``IP`` or ``IP:PORT``; by default any.
        trusted: servers (``IP:PORT``, at most 16) whose answers are believed; by default anybody's, as R2P2 wants it.
    """

    def __init__(self, bind: str = "0.0.0.0", *, trusted: Sequence[str] = ()) -> None:
        super().__init__(bind, trusted=trusted)
        self._poll = select.poll()
        self._poll.register(self._port.fileno(), select.POLLIN)

    def call(
        self,
        target: str,
        payload: bytes,
        *,
        policy: int = FIXED_ROUTE,
        timeout_s: float = 1.0,
        retry_s: float = 0.0,
    ) -> bytes:
        """Sends ``payload`` to ``target`` (``IP:PORT``) and waits for the reply.

        ``retry_s``: above 0 says that the request is safe to repeat: it is sent again after that time, then twice that.

        Raises:
            CallTimeout: no answer within ``timeout_s`` seconds.
            CallDropped: the server refused.
            RequestTooLarge: more than 370,406 bytes; nothing was sent.
            NoRoute: this machine knows no way to the target; nothing was sent.
            TypeError, ValueError: such a call cannot be made, or the client is closed.
        """
        tag, _, _ = self.begin(parse_address(target), payload, policy, timeout_s, retry_s)
        return self._wait(tag, target)

    def session(self, *targets: str) -> BlockingSession:
        """A session with the servers ``targets`` (``IP:PORT``, at most 16): exactly-once calls. Opened by its first
        call.
        """
        return BlockingSession(self, self._engine, self._port.local_port, targets)

    def call_in(self, session: BlockingSession, payload: bytes, timeout_s: float) -> bytes:
        """What :meth:`BlockingSession.call` does."""
        tag, _, _ = self.begin_in(session, payload, timeout_s)
        return self._wait(tag, " ".join(session.targets))

    def _wait(self, tag: int, target: str) -> bytes:
        self._engine.flush()
        while True:
            # The engine ends the call at its deadline; its clock has steps of 1 ms.
            self._poll.poll(_TIMER_STEP_NS // limits.MS)
            self._engine.poll()
            for completion in self._engine.completions():
                if completion.tag == tag:
                    outcome = _outcome(completion, target)
                    if isinstance(outcome, CallError):
                        raise outcome
                    return outcome

    def __enter__(self) -> BlockingClient:
        """The client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes."""
        self.close()


class Client(_Calls):
    """A client for asyncio. ``async with Client("127.0.0.1:8000") as client: await client.call(b"...")``.

    Args:
        targets: servers, ``IP:PORT`` each. A call goes to the one that answered the last replicated call, and after a
            failure to the next.
        bind: local address; by default any.
        timeout_s: of a call that names none, seconds.
        ports_count: local UDP ports; each carries 65,535 calls at once.
        trusted: servers whose answers are believed; by default anybody's.
        session: replicated calls are executed exactly once: sent again, to one server after the other, until they are
            answered or over their deadline, and executed once however often they arrive. Other calls are as ever.
        spread_reads: reads (``REPLICATED_READ``) go to one server after the other, since every member answers them with
            what is committed; else where other calls go.
    """

    def __init__(
        self,
        *targets: str,
        bind: str = "0.0.0.0",
        timeout_s: float = 1.0,
        ports_count: int = 1,
        trusted: Sequence[str] = (),
        session: bool = False,
        spread_reads: bool = False,
    ) -> None:
        if not targets:
            raise ValueError("a client needs a server's address")
        self._targets = [parse_address(target) for target in targets]
        self._timeout_s = timeout_s
        self._current = 0
        self._spread_reads = spread_reads
        self._next_reader = 0
        # By tag: the call's future, its target, and whether its end says where the next call should go.
        self._waiting: dict[int, tuple[asyncio.Future[bytes], tuple[int, int], bool]] = {}
        self._is_entered = False
        self._begun_count = 0  # since answers were looked for
        self._timer: asyncio.TimerHandle | None = None
        self._flush: asyncio.Handle | None = None
        super().__init__(bind, ports_count, trusted)
        try:
            self._session = _SessionCalls(self._engine, self._port.local_port, targets) if session else None
        except BaseException:
            self.close()
            raise

    def renew_session(self) -> None:
        """Goes on with a new session after a :class:`~r2p2.errors.SessionExpiredError`; nothing otherwise.

        Raises:
            ValueError: the client was not opened with ``session=True``.
        """
        if self._session is None:
            raise ValueError("the client has no session; open it with session=True")
        self._session.renew()

    async def __aenter__(self) -> Client:
        """Begins to listen in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._is_entered = True
        self._loop.add_reader(self._port.fileno(), self._on_readable)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends waiting calls as cancelled and closes the socket."""
        self.close()

    def close(self) -> None:
        """Ends waiting calls as cancelled and closes the socket. Idempotent."""
        if self._is_entered and not self._closed and not self._loop.is_closed():
            self._loop.remove_reader(self._port.fileno())
            for handle in (self._timer, self._flush):
                if handle is not None:
                    handle.cancel()
            for future, _, _ in self._waiting.values():
                if not future.done():
                    future.set_exception(CallCancelled("the client was closed"))
            self._waiting.clear()
        super().close()

    async def call(
        self,
        payload: bytes,
        *,
        policy: int = REPLICATED,
        timeout_s: float | None = None,
        retry_s: float = 0.0,
        target: str | None = None,
    ) -> bytes:
        """Sends one request and waits for its reply.

        A read (``REPLICATED_READ``) changes nothing: without a ``target`` and a ``retry_s`` it is asked of one server
        after the other until one answers or the time is over. A silent one is passed over after 0.1 s, then after twice
        that; one that refuses at once, after a pause.

        Args:
            payload: at most 370,406 bytes.
            policy: ``REPLICATED`` and the like.
            timeout_s: seconds; by default the client's.
            retry_s: above 0 says that the request is safe to repeat: it is sent again after that time, then twice that.
            target: ``IP:PORT``; by default the server that is likely to be right. A call with a target is outside the
                client's session.

        Raises:
            CallTimeout: no answer in time: the request may or may not have been executed.
            CallDropped: refused: it was not executed.
            SessionExpiredError: the servers have ended the client's session; :meth:`renew_session` to go on.
            RequestTooLarge, NoRoute, TooManyCalls: nothing was sent.
            TypeError, ValueError: such a call cannot be made, or the client is not open (``async with``).
        """
        if not self._is_entered:
            raise ValueError("this client is not open: async with Client(...) as client")
        seconds = self._timeout_s if timeout_s is None else timeout_s
        if policy == REPLICATED_READ and target is None and retry_s == 0.0:
            return await self._read(payload, seconds)
        return await self._call_once(payload, policy, seconds, retry_s, target)

    async def _read(self, payload: bytes, seconds: float) -> bytes:
        """A read, asked of whom it takes; the last one's failure when the time is over."""
        end = self._loop.time() + seconds
        silence_s, pause_s, wait_s = _READ_SILENCE_S, _REFUSED_PAUSE_S, 0.0
        left_s, tries = seconds, 1
        while True:
            try:
                return await self._call_once(payload, REPLICATED_READ, min(left_s, silence_s), 0.0, None)
            except CallTimeout as error:
                failure: CallError = error
                silence_s, wait_s = 2 * silence_s, 0.0
            except CallDropped as error:
                failure, wait_s = error, pause_s
                pause_s = min(2 * pause_s, _REFUSED_PAUSE_MAX_S)
            left_s = end - self._loop.time() - wait_s
            if left_s * limits.SECOND <= _TIMER_STEP_NS:
                if tries == 1:
                    raise failure
                raise type(failure)(f"a read had no answer in {seconds:g} s and {tries} tries; the last: {failure}")
            await asyncio.sleep(wait_s)
            if self._closed:
                raise CallCancelled("the client was closed")
            tries += 1

    async def _call_once(
        self, payload: bytes, policy: int, seconds: float, retry_s: float, target: str | None
    ) -> bytes:
        is_spread = self._spread_reads and policy == REPLICATED_READ and target is None
        if target is not None:
            address = parse_address(target)
        elif is_spread:
            self._next_reader = (self._next_reader + 1) % len(self._targets)
            address = self._targets[self._next_reader]
        else:
            address = self._targets[self._current]
        if self._session is not None and policy == REPLICATED and target is None:
            tag, local_port, rid = self.begin_in(self._session, payload, seconds)
        else:
            tag, local_port, rid = self.begin(address, payload, policy, seconds, retry_s)
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting[tag] = (future, address, not is_spread)
        self._begun_count += 1
        if self._begun_count >= _BEGUN_MAX:
            self._engine.flush()
            self._on_readable()
        if self._flush is None:  # calls made in one turn of the loop leave together
            self._flush = self._loop.call_soon(self._send)
        if self._timer is None:
            self._timer = self._loop.call_later(_TIMER_STEP_NS / limits.SECOND, self._on_timer)
        try:
            return await future
        except asyncio.CancelledError:
            if self._waiting.pop(tag, None) is not None:
                self._engine.cancel(local_port, rid)
            raise

    async def call_many(
        self, payloads: Sequence[bytes], *, policy: int = REPLICATED, timeout_s: float | None = None
    ) -> list[bytes | CallError]:
        """Calls at once; one reply or error each, in order."""
        calls = (self.call(payload, policy=policy, timeout_s=timeout_s) for payload in payloads)
        outcomes: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, CallError):
                raise outcome
        return outcomes

    def _send(self) -> None:
        self._flush = None
        self._engine.flush()

    def _on_timer(self) -> None:
        self._timer = None
        self._on_readable()
        if self._waiting:
            self._timer = self._loop.call_later(_TIMER_STEP_NS / limits.SECOND, self._on_timer)

    def _steer(self, has_failed: bool, asked: tuple[int, int], source: tuple[int, int]) -> None:
        """Where the next call goes: to who answered, and from who did not, to the next."""
        if has_failed:
            if asked == self._targets[self._current]:
                self._current = (self._current + 1) % len(self._targets)
        elif source in self._targets:
            self._current = self._targets.index(source)

    def _on_readable(self) -> None:
        self._begun_count = 0
        self._engine.poll()
        for completion in self._engine.completions():
            waiting = self._waiting.pop(completion.tag, None)
            if waiting is None:
                continue
            future, address, steers = waiting
            outcome = _outcome(completion, address)
            if steers:
                self._steer(isinstance(outcome, CallError), address, (completion.source_ip, completion.source_port))
            if future.done():
                continue
            if isinstance(outcome, CallError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
