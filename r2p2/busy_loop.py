"""The busy loop over a port that must be polled, and what it does when nothing comes.

Idle policies, by name:

* ``spin``: polls on. One core a process, the lowest latency.
* ``yield`` (default): offers the core to others between idle polls. Processes may outnumber cores.
* ``sleep``: yields for a while, then sleeps, longer and longer up to 1 ms, never past the next deadline. For nodes at
  rest.

Leaves to others: what a poll does (the node), ports with a descriptor (the asyncio driver).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final

from r2p2.driver import Pollable
from r2p2.errors import UserError

__all__ = ["IDLE_POLICIES", "run_busy"]

IDLE_POLICIES: Final = ("spin", "yield", "sleep")
# sleep: idle polls before the first sleep, the first sleep, and the longest, in ns. A sleep costs the latency of
# whatever comes.
YIELDS_BEFORE_SLEEP: Final = 1_000
SLEEP_MIN_NS: Final = 20_000
SLEEP_MAX_NS: Final = 1_000_000


def run_busy(pollable: Pollable, stop: threading.Event, idle: str = "yield") -> None:
    """Polls until ``stop`` is set.

    Raises:
        UserError: no such idle policy.
        Exception: what a poll raised.
    """
    if idle not in IDLE_POLICIES:
        raise UserError(f"idle: {idle!r} is none of {', '.join(IDLE_POLICIES)}")
    poll_once, stopped = pollable.poll_once, stop.is_set
    if idle == "sleep":
        _run_sleepy(pollable, stopped)
        return
    give_way: Callable[[], object] = os.sched_yield if idle == "yield" else _nothing
    while not stopped():
        if not poll_once():
            give_way()


def _nothing() -> None:
    """Spins."""


def _run_sleepy(pollable: Pollable, stopped: Callable[[], bool]) -> None:
    idle_polls, sleep_ns = 0, SLEEP_MIN_NS
    while not stopped():
        if pollable.poll_once():
            idle_polls, sleep_ns = 0, SLEEP_MIN_NS
            continue
        idle_polls += 1
        if idle_polls < YIELDS_BEFORE_SLEEP:
            os.sched_yield()
            continue
        deadline_ns = pollable.next_deadline_ns()
        bound_ns = sleep_ns if deadline_ns is None else min(sleep_ns, deadline_ns - pollable.now_ns())
        if bound_ns > 0:
            time.sleep(bound_ns / 1e9)
        sleep_ns = min(2 * sleep_ns, SLEEP_MAX_NS)
