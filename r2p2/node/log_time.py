"""The log's time, as a node sees to it: the clock is read here and nowhere else.

The engine gives entries their time, by the port's clock and an offset to unix time; this file measures the offset
again and again, since a wall clock may be set. It also sees to it that time goes on without requests where the
application waits for a time (:meth:`r2p2.app.StateMachine.next_deadline_ms`): the leader then adds an entry that
carries the time and nothing else. What the time means and what wrong clocks do: docs/log-time.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from r2p2 import limits
from r2p2.app import StateMachine
from r2p2.engine import Engine

__all__ = ["LogTime", "ShiftedClock", "UnixClock", "system_clock_ns"]

UnixClock = Callable[[], int]
"""Unix time, ns."""

system_clock_ns: Final[UnixClock] = time.time_ns

# Two readings of two clocks are never at one instant. An offset that differs by less is the same one, measured worse:
# a capture has one offset, and the replay of a leader gives entries the same time only as long as that holds.
CLOCK_SLACK_NS: Final = limits.MS // 2


class ShiftedClock:
    """The system's clock, as if it were wrong by ``offset_s``: for tests of what wrong clocks do.

    Attributes:
        port_offset_ns: what it is ahead of the port's clock, as the log's time takes it; None: no node has it.
    """

    def __init__(self, offset_s: float = 0.0) -> None:
        self._shift_ns = int(offset_s * limits.SECOND)
        self.port_offset_ns: int | None = None

    def __call__(self) -> int:
        """Unix time, ns."""
        return time.time_ns() + self._shift_ns


class LogTime:
    """One node's part in the log's time.

    Args:
        engine: whose entries get it.
        app: asked for its next deadline, if it has any.
        clock: unix time; None: the port's clock is unix time.

    Attributes:
        due_ns: when, on the port's clock, the application's next deadline may have come; None: it waits for none, or
            this member does not lead.
    """

    def __init__(self, engine: Engine, app: StateMachine, clock: UnixClock | None) -> None:
        self._engine = engine
        self._app = app
        self._clock = clock
        self._offset_ns = 0 if clock is None else clock() - engine.now_ns()
        self._own_ms = 0
        self.tells_app = app.has_deadlines
        self.due_ns: int | None = None
        self._tell()

    def sync(self) -> None:
        """Measures the offset anew, against the port's clock as it is now: a poll's time may be long ago."""
        if self._clock is not None:
            offset_ns = self._clock() - self._engine.now_ns()
            if abs(offset_ns - self._offset_ns) >= CLOCK_SLACK_NS:
                self._offset_ns = offset_ns
        self._tell()

    def _tell(self) -> None:
        self._engine.set_clock(self._offset_ns)
        if isinstance(self._clock, ShiftedClock):
            self._clock.port_offset_ns = self._offset_ns

    def own_ms(self) -> int:
        """A time for what no log orders: this member's clock, which never goes back."""
        self._own_ms = max(self._own_ms, self._clock_ms(self._engine.now_ns()))
        return self._own_ms

    def _clock_ms(self, now_ns: int) -> int:
        return max(0, now_ns + self._offset_ns) // limits.MS

    def look(self, now_ns: int, *, leads: bool) -> None:
        """The application has gone on, or the role has changed: when it waits for a time next."""
        deadline_ms = self._app.next_deadline_ms() if leads else None
        if deadline_ms is None:
            self.due_ns = None
            return
        wait_ms = max(0, min(deadline_ms, limits.TIME_MS_MAX) - self._engine.stamp_ms)
        # A deadline far away is looked at again and again, since clocks are set.
        self.due_ns = now_ns + min(wait_ms * limits.MS, limits.LOG_TIME_LOOK_NS)

    def add(self, now_ns: int) -> bool:
        """At `due_ns`: adds an entry that carries the time, if the deadline has come. Raft is to be told when True."""
        deadline_ms = self._app.next_deadline_ms()
        engine = self._engine
        if deadline_ms is None or engine.stamp_ms < deadline_ms:
            self.look(now_ns, leads=True)
            return False
        # Until this one is applied nothing is looked at; if that never happens, it is tried again.
        self.due_ns = now_ns + limits.LOG_TIME_LOOK_NS
        return engine.log_time_ms < deadline_ms and engine.append_time()

    def status(self, now_ns: int) -> dict[str, Any]:
        """As JSON can say it: the log's time at the applied index, and how far this member's clock is behind the log's
        time.
        """
        return {
            "log_time_ms": self._engine.applied_time_ms,
            "log_time_behind_ms": max(0, self._engine.log_time_ms - self._clock_ms(now_ns)),
        }
