"""How long the application takes: an operator is told, and it is counted.

Two bounds: processor time for a batch (its budget), and time by the clock (an election timeout), since a handler that
waits for something uses no processor and yet nothing goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from r2p2 import limits

__all__ = ["HandlerWatch"]

log = logging.getLogger("r2p2.node")

# So many batches behind a long one have their processor time taken.
SUSPECTED_BATCHES: Final = 1_000


class HandlerWatch:
    """Of one node's application.

    Args:
        counters: the node's.
        budget_ns: processor time a batch may take.
        stall_ns: by the clock.

    Attributes:
        suspected_batches: still to be timed closely.
    """

    COUNTERS: Final = ("handler_over_budget", "handler_stalls")

    def __init__(self, counters: dict[str, int], *, budget_ns: int, stall_ns: int) -> None:
        self.suspected_batches = 0
        self.budget_ns: Final = budget_ns
        self.stall_ns: Final = stall_ns
        self._slow_logged = False
        self._counters = counters
        for name in self.COUNTERS:
            counters.setdefault(name, 0)

    def clock(self) -> Callable[[], int]:
        """What to time the next batch by. Asking for processor time is slow, so it is asked only of an application that
        has taken long by the clock: a core shared with other processes must not be taken for a slow application.
        """
        return time.thread_time_ns if self.suspected_batches else time.perf_counter_ns

    def judge(self, count: int, took_ns: int) -> None:
        """A batch of ``count`` requests that was long by :meth:`clock`, or comes behind one. The first makes the
        application suspect; the next ones are counted if they take much processor time.
        """
        if not self.suspected_batches:
            self.suspected_batches = SUSPECTED_BATCHES
            return
        self.suspected_batches -= 1
        if took_ns > self.budget_ns:
            self.suspected_batches = SUSPECTED_BATCHES
            self.over_budget(count, took_ns)

    def over_budget(self, count: int, took_ns: int) -> None:
        """A batch has taken more processor time than its budget."""
        self._counters["handler_over_budget"] += 1
        if not self._slow_logged:
            self._slow_logged = True
            log.warning(
                "the application took %.1f ms for %d requests (budget %.1f ms): it holds up this node's loop; "
                "further cases are counted in handler_over_budget",
                took_ns / limits.MS,
                count,
                self.budget_ns / limits.MS,
            )

    def stalled(self, took_ns: int, *, in_loop: bool) -> None:
        """A batch has taken longer than :attr:`stall_ns`, by the clock."""
        self._counters["handler_stalls"] += 1
        if self._counters["handler_stalls"] == 1:
            log.warning(
                "the application took %.1f ms for a batch, longer than an election timeout (%.1f ms)%s; further cases "
                "are counted in handler_stalls",
                took_ns / limits.MS,
                self.stall_ns / limits.MS,
                ": apply_thread keeps this from costing elections" if in_loop else "",
            )
