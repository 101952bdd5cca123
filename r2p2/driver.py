"""What a driver needs of the thing it drives.

What: one protocol, :class:`Pollable`, that a node, a client and a router fulfil.
Why: the busy loop over DPDK and the asyncio loop over kernel UDP call the same three methods, so a node does not know
its driver.
Leaves to others: how to wait (``dpdk_backend``, ``uv_backend.driver``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

__all__ = ["Pollable", "WakeableFromThread"]


@runtime_checkable
class WakeableFromThread(Protocol):
    """A pollable with threads of its own. A driver that sleeps sets the callable; they call it when a poll is due."""

    wake_from_thread: Callable[[], None] | None


@runtime_checkable
class Pollable(Protocol):
    """One step at a time, and the time of the next one.

    A driver calls from one thread, never re-entrantly, and calls :meth:`poll_once` when datagrams wait or the deadline
    has come; a call too many is harmless.
    """

    def poll_once(self) -> int:
        """Do one bounded step and send what came of it.

        Returns:
            Work done, in packets handled; not 0 means that another call may find more at once. Timers alone are 0.

        Raises:
            Exception: the thing is broken; the driver stops and hands the exception to who waits for it.
        """
        ...

    def next_deadline_ns(self) -> int | None:
        """When :meth:`poll_once` must run though nothing arrived, on :meth:`now_ns`'s clock; None: only on arrival."""
        ...

    def now_ns(self) -> int:
        """The port's monotonic clock, in nanoseconds."""
        ...
