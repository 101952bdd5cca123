"""Applying in the loop: batches one after the other, in a bounded time, with what falls due done in between.

Leaves to others: what a batch is (:mod:`r2p2.node.batches`), doing it on a thread (:mod:`r2p2.node.applying_apart`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from r2p2 import limits
from r2p2.app import StateMachine
from r2p2.engine import Engine
from r2p2.node.batches import Batches
from r2p2.node.handler_watch import HandlerWatch
from r2p2.node.log_time import LogTime
from raft import Raft, Role

__all__ = ["Applying"]

# Batches are applied until this part of the shortest election timeout is over; then the port is looked at again. Timers
# that fire while what others have sent waits there take the living for dead.
APPLY_PARTS_PER_ELECTION: Final = 4


class Applying:
    """Of one node.

    Args:
        app: applies.
        batches: what to apply.
        watch: how long that takes; its ``stall_ns`` is the shortest election timeout.
        time: told when the application has gone on.
        engine: sends what is filled in, and has the clock.
        tick: called between two batches when one of Raft's timers has fired.
    """

    def __init__(
        self,
        app: StateMachine,
        batches: Batches,
        watch: HandlerWatch,
        time: LogTime,
        engine: Engine,
        tick: Callable[[int], None],
    ) -> None:
        self._app = app
        self._batches = batches
        self._watch = watch
        self._time = time
        self._engine = engine
        self._tick = tick

    def apply(self, raft: Raft) -> None:
        """Applies committed entries, a bounded number of batches in a bounded time; heartbeats that fall due go out in
        between.
        """
        engine, batches, watch, apply = self._engine, self._batches, self._watch, self._app.apply
        # What was filled in must not wait for the application: followers work while the leader applies, and the
        # reverse.
        engine.flush()
        began_ns = engine.now_ns()
        until_ns = began_ns + watch.stall_ns // APPLY_PARTS_PER_ELECTION
        for _ in range(limits.APPLY_BATCHES_PER_POLL_MAX):
            requests = batches.prepare(raft)
            if requests is None:
                return
            clock = watch.clock()
            start_ns = clock()
            replies = apply(requests) if batches.is_for_app(requests) else []
            took_ns = clock() - start_ns
            batches.end(raft, replies)
            if self._time.tells_app and raft.role is Role.LEADER:
                self._time.look(engine.now_ns(), leads=True)
            if took_ns > watch.budget_ns or watch.suspected_batches:
                watch.judge(len(requests), took_ns)
            now_ns = engine.now_ns()
            if now_ns - began_ns > watch.stall_ns:
                watch.stalled(now_ns - began_ns, in_loop=True)
            if raft.applied_index >= raft.commit_index or now_ns >= until_ns:
                return
            began_ns = now_ns
            if now_ns >= raft.deadline_ns:
                self._tick(now_ns)
