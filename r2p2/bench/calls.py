"""Calls made from Python, some at once, each until it is answered: for reading back and for asking nodes, not for load.

A call that times out or is refused is made again, to the next server. Only calls that may be executed twice belong
here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence

from r2p2 import limits
from r2p2.engine import DONE_OK, Engine

__all__ = ["READS_AT_ONCE_MAX", "Caller"]

READS_AT_ONCE_MAX = 64
ATTEMPT_TIMEOUT_NS = 300 * limits.MS
IDLE_SECONDS = 50e-6  # between polls that found nothing


class Caller:
    """Makes calls through an engine's client on `local_port`, open for calls; takes the engine's completions.

    Whatever still waits when a method returns is cancelled, so that its end is not taken for a later user's call.
    """

    def __init__(self, engine: Engine, local_port: int) -> None:
        """Nobody else takes completions from the engine meanwhile."""
        self._engine = engine
        self._local_port = local_port
        self._tag = 0
        self._waiting: dict[int, int] = {}  # tag -> rid

    def call_all(
        self, targets: Sequence[tuple[int, int]], requests: Mapping[int, bytes], policy: int, timeout_seconds: float
    ) -> dict[int, bytes]:
        """The reply to each request, by its key; what was not answered in time is left out.

        All go to one target until it does not answer, then to the next.
        """
        todo = deque(requests)
        replies: dict[int, bytes] = {}
        asked: dict[int, tuple[int, int]] = {}  # tag -> (key, index of the target)
        target = 0
        end_ns = self._engine.now_ns() + int(timeout_seconds * 1e9)
        while (todo or asked) and self._engine.now_ns() < end_ns:
            while todo and len(asked) < READS_AT_ONCE_MAX:
                key = todo.popleft()
                asked[self._start(targets[target], requests[key], policy)] = (key, target)
            for tag, status, payload in self._step():
                key, asked_target = asked.pop(tag)
                if status == DONE_OK:
                    replies[key] = payload
                else:
                    todo.append(key)
                    if asked_target == target:
                        target = (target + 1) % len(targets)
        self._cancel_rest()
        return replies

    def call_each(
        self, targets: Sequence[tuple[int, int]], request: bytes, policy: int, timeout_seconds: float
    ) -> dict[tuple[int, int], bytes]:
        """The reply of each target to the same request; who did not answer in time is left out."""
        asked = {self._start(target, request, policy): target for target in targets}
        replies: dict[tuple[int, int], bytes] = {}
        end_ns = self._engine.now_ns() + int(timeout_seconds * 1e9)
        while asked and self._engine.now_ns() < end_ns:
            for tag, status, payload in self._step():
                target = asked.pop(tag)
                if status == DONE_OK:
                    replies[target] = payload
                else:
                    asked[self._start(target, request, policy)] = target
        self._cancel_rest()
        return replies

    def _start(self, target: tuple[int, int], request: bytes, policy: int) -> int:
        self._tag += 1
        self._waiting[self._tag] = self._engine.call(
            self._local_port, target, request, policy=policy, timeout_ns=ATTEMPT_TIMEOUT_NS, tag=self._tag
        )
        return self._tag

    def _step(self) -> list[tuple[int, int, bytes]]:
        """(tag, status, payload) of the calls that have ended."""
        self._engine.flush()
        if not self._engine.poll()[1]:
            time.sleep(IDLE_SECONDS)
        return self._ended()

    def _ended(self) -> list[tuple[int, int, bytes]]:
        # A call that somebody else began is not ours to look at.
        ended = [done for done in self._engine.completions() if self._waiting.pop(done.tag, None) is not None]
        return [(done.tag, done.status, done.payload) for done in ended]

    def _cancel_rest(self) -> None:
        for rid in list(self._waiting.values()):
            self._engine.cancel(self._local_port, rid)
        self._ended()
        assert not self._waiting, f"{len(self._waiting)} cancelled calls have not ended"
