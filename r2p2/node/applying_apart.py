"""Applying on a thread of its own: a batch is handed over, and taken back when it is done.

Leaves to others: the thread (:mod:`r2p2.node.apply_thread`), what a batch is (:mod:`r2p2.node.batches`), what else the
application is asked between two of them (:mod:`r2p2.node.node`).
"""

from __future__ import annotations

from collections.abc import Callable

from r2p2 import limits
from r2p2.engine import Engine
from r2p2.node.apply_thread import ApplyThread, Done
from r2p2.node.batches import Batches
from r2p2.node.handler_watch import HandlerWatch
from r2p2.node.log_time import LogTime
from raft import Raft, Role

__all__ = ["ApplyingApart"]


class ApplyingApart:
    """Of one node.

    Args:
        thread: applies.
        batches: what to apply.
        watch: how long that takes.
        time: told when the application has gone on.
        engine: has the clock, and forgets a batch that is abandoned.
    """

    def __init__(
        self, thread: ApplyThread, batches: Batches, watch: HandlerWatch, time: LogTime, engine: Engine
    ) -> None:
        self._thread = thread
        self._batches = batches
        self._watch = watch
        self._time = time
        self._engine = engine
        self._count = 0  # requests of the batch that is out

    @property
    def busy(self) -> bool:
        """Whether a batch is out: nothing else may be called of the application."""
        return self._thread.busy

    @property
    def is_done(self) -> bool:
        """Whether it can be taken back without waiting."""
        return self._thread.is_done

    def busy_ns(self) -> int:
        """How long the batch that is out has been so; 0: none is."""
        return self._thread.busy_ns()

    def wake_with(self, wake: Callable[[], None] | None) -> None:
        """``wake`` is called from the thread when a batch is done."""
        self._thread.wake = wake

    def hand_over(self, raft: Raft) -> None:
        """Gives the thread the next batch that has something for the application. None is out."""
        batches = self._batches
        for _ in range(limits.APPLY_BATCHES_PER_POLL_MAX):
            requests = batches.prepare(raft)
            if requests is None:
                return
            if batches.is_for_app(requests):
                self._count = len(requests)
                self._thread.submit(requests)
                return
            batches.end(raft, [])

    def take_back(self, raft: Raft) -> None:
        """Ends the batch that is done. What the application raised is raised here."""
        busy_ns = self.busy_ns()
        done = self._take()
        self._batches.end(raft, done.replies)
        if self._time.tells_app:
            self._time.look(self._engine.now_ns(), leads=raft.role is Role.LEADER)
        if done.took_ns > self._watch.budget_ns:
            self._watch.over_budget(self._count, done.took_ns)
        if busy_ns > self._watch.stall_ns:
            self._watch.stalled(busy_ns, in_loop=False)

    def abandon(self) -> None:
        """A snapshot is about to replace the application's state: what is out is waited for and forgotten."""
        if self.busy:
            self._take()
            self._engine.apply_abandon()

    def _take(self) -> Done:
        done = self._thread.take()
        if done.error is not None:
            raise done.error
        return done

    def close(self) -> None:
        """A batch that is out ends first, and nobody is answered. Idempotent."""
        self._thread.close()
