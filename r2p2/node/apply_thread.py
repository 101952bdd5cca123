"""Ordered apply on a thread of its own: heartbeats, elections and replication go on while a handler works.

One batch at a time is with the thread, so the hand-over is bounded and the order is the log's; what is committed
meanwhile waits in the log, under the log's own bounds. Everything else of an application (reads, snapshots, restoring,
its digest) is called by the loop, and only while the thread has nothing: so a state machine is never in two calls at
once and needs no locks. Pieces of a snapshot are asked for at any time; they are of a state that was taken hold of.
docs/applications.md.

Leaves to others: which batch, what becomes of the replies (:mod:`r2p2.node`).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from r2p2.requests import ReplySequence, Requests

__all__ = ["ApplyThread", "Done"]

log = logging.getLogger("r2p2.apply_thread")

# A handler that does not return is not waited for longer than this when the node closes.
CLOSE_SECONDS: Final = 5.0


class Done(NamedTuple):
    """What became of a batch: its replies or the exception, and the processor time it took."""

    replies: ReplySequence
    error: BaseException | None
    took_ns: int


class ApplyThread:
    """The thread, and the batch that is with it.

    Args:
        apply: the application's.

    Attributes:
        wake: called from the thread when a batch is done.
    """

    def __init__(self, apply: Callable[[Requests], ReplySequence]) -> None:
        self._apply = apply
        self.wake: Callable[[], None] | None = None
        self._batches: queue.SimpleQueue[Requests | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Done] = queue.SimpleQueue()
        self._out = False
        self._since_ns = 0
        # A daemon: a handler that never returns must not keep the process.
        self._thread = threading.Thread(target=self._run, name="r2p2-apply", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a batch is out: with the thread, or done and not taken back."""
        return self._out

    @property
    def is_done(self) -> bool:
        """Whether :meth:`take` has something."""
        return not self._done.empty()

    def busy_ns(self) -> int:
        """How long the batch that is out has been so; 0: none is."""
        return time.monotonic_ns() - self._since_ns if self._out else 0

    def submit(self, requests: Requests) -> None:
        """Hands a batch over. None may be out."""
        assert not self._out, "one batch at a time"
        self._out, self._since_ns = True, time.monotonic_ns()
        self._batches.put(requests)

    def take(self) -> Done:
        """What became of the batch that was out; waits for it."""
        assert self._out, "no batch is out"
        done = self._done.get()
        self._out = False
        return done

    def close(self) -> None:
        """Ends the thread once its batch is done. Idempotent."""
        self._batches.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            log.warning(
                "the application has been at a batch for %.1f s and is not waited for any longer", self.busy_ns() / 1e9
            )

    def _run(self) -> None:
        while (requests := self._batches.get()) is not None:
            before_ns = time.thread_time_ns()
            try:
                done = Done(self._apply(requests), None, time.thread_time_ns() - before_ns)
            except BaseException as error:
                done = Done((), error, time.thread_time_ns() - before_ns)
            self._done.put(done)
            if self.wake is not None:
                self.wake()
