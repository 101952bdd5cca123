"""The asyncio driver: polls a node when its socket is readable or its deadline has come.

What: :class:`AsyncDriver` ties one :class:`r2p2.driver.Pollable` and one file descriptor to the running event loop;
several of them share a loop. :func:`run` starts a loop, uvloop's where it is installed.
Leaves to others: everything a poll does.

One timer handle a driver. Deadlines are absolute, so lateness of one does not move the next. A deadline that moves
later leaves the timer as it is: it fires early once, sees that nothing is due, and is armed anew. That spares a
cancellation for every packet that pushes an election timeout further away.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, TypeVar

from r2p2.driver import Pollable

__all__ = ["AsyncDriver", "run"]

POLLS_MAX: Final = 16
"""Polls in a row before other tasks of the loop get their turn."""

NS_PER_MS: Final = 1_000_000
"""What event loops resolve: epoll's timeout and libuv's timers count milliseconds."""

_Result = TypeVar("_Result")


class AsyncDriver:
    """Drives one pollable in the event loop that runs when :meth:`start` is called.

    Args:
        pollable: what to poll.
        fd: readable when datagrams wait (``UdpPort.fileno()``); it stays open until the driver has stopped.
        polls_max: polls in a row before the loop gets its turn, at least 1.

    ``async with AsyncDriver(node, port.fileno()) as driver:`` starts and stops it, and raises what :meth:`wait_closed`
    raises.
    """

    def __init__(self, pollable: Pollable, fd: int, *, polls_max: int = POLLS_MAX) -> None:
        if polls_max < 1:
            raise ValueError(f"polls_max is {polls_max}, not at least 1")
        self._pollable = pollable
        self._fd = fd
        self._polls_max = polls_max
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed: asyncio.Future[None] | None = None  # set exactly once started; done exactly when stopped
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns: int | None = None  # deadline the timer is armed for; None exactly when _timer is
        self._wakeup: asyncio.Handle | None = None  # a poll already on its way

    @property
    def running(self) -> bool:
        """True between :meth:`start` and the stop, asked for or by an exception."""
        return self._closed is not None and not self._closed.done()

    def start(self) -> None:
        """Begin to poll in the running loop; the first poll comes in its next turn.

        Raises:
            RuntimeError: no loop is running, or the driver has been started before.
        """
        if self._closed is not None:
            raise RuntimeError("an AsyncDriver starts once")
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()
        self._loop.add_reader(self._fd, self._poll)
        self.wake()

    def wake(self) -> None:
        """Poll in the loop's next turn: call it after giving the node work from outside (a client's call).

        Many calls in one turn are one poll. From another thread: ``loop.call_soon_threadsafe(driver.wake)``.
        """
        if self._loop is not None and self.running and self._wakeup is None:
            self._wakeup = self._loop.call_soon(self._woken)

    def stop(self) -> None:
        """Poll no more; idempotent. :meth:`wait_closed` returns."""
        self._finish(None)

    async def wait_closed(self) -> None:
        """Wait until the driver has stopped.

        Raises:
            Exception: what a poll raised; it stopped the driver.
            RuntimeError: the driver was never started.
        """
        if self._closed is None:
            raise RuntimeError("the AsyncDriver has not been started")
        await asyncio.shield(self._closed)

    def _woken(self) -> None:
        self._wakeup = None
        self._poll()

    def _timed_out(self) -> None:
        self._timer = None
        self._timer_ns = None
        self._poll()

    def _poll(self) -> None:
        """The one place that polls: a bounded number of times, then arms what comes next."""
        if not self.running:
            return
        try:
            for _ in range(self._polls_max):
                if self._pollable.poll_once() == 0 or not self.running:
                    break
            else:
                self.wake()
            self._arm()
        except Exception as error:
            self._finish(error)

    def _arm(self) -> None:
        """Make sure the timer fires no later than the deadline."""
        if self._loop is None or not self.running:  # stopped inside the poll
            return
        deadline_ns = self._pollable.next_deadline_ns()
        if deadline_ns is None:
            self._disarm()
            return
        if self._timer_ns is not None:
            if self._timer_ns <= deadline_ns:
                return
            self._disarm()
        # Rounded up: late once, not early and then again.
        wait_ms = max(0, -((self._pollable.now_ns() - deadline_ns) // NS_PER_MS))
        self._timer_ns = deadline_ns
        self._timer = self._loop.call_later(wait_ms / 1e3, self._timed_out)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._timer_ns = None

    def _finish(self, error: Exception | None) -> None:
        if self._loop is None or self._closed is None or self._closed.done():
            return
        self._loop.remove_reader(self._fd)
        self._disarm()
        if self._wakeup is not None:
            self._wakeup.cancel()
            self._wakeup = None
        if error is None:
            self._closed.set_result(None)
        else:
            self._closed.set_exception(error)

    async def __aenter__(self) -> AsyncDriver:
        """Start."""
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop; raise what a poll raised, unless the block raised already."""
        self.stop()
        if error is None:
            await self.wait_closed()
        elif self._closed is not None and self._closed.done() and not self._closed.cancelled():
            self._closed.exception()  # seen: the block's own exception goes first


def run(main: Coroutine[Any, Any, _Result], *, use_uvloop: bool | None = None) -> _Result:
    """``asyncio.run(main)`` on uvloop where it is installed.

    Args:
        main: the coroutine to run to its end.
        use_uvloop: True requires uvloop, False avoids it, None takes it where it is installed.

    Raises:
        ImportError: uvloop is required and missing.
    """
    if use_uvloop is not False:
        try:
            import uvloop
        except ImportError:
            if use_uvloop:
                main.close()
                raise
        else:
            if sys.version_info >= (3, 12):
                return asyncio.run(main, loop_factory=uvloop.new_event_loop)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(main)
    return asyncio.run(main)
