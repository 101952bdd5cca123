"""Breaks the processes of a cluster, one at a time, and lets them come back.

Never more than a minority is broken at once (but by ``all``, which durable nodes alone live through), and the next
fault waits until the cluster is whole again: every node answers, knows the same leader and has applied what had been
committed. So a violation found afterwards is the cluster's fault and not the test's.

Leaves to others: starting processes (command.py), load (client.py), judging (checker.py).
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from r2p2.processes import ProcessFailed

__all__ = ["ALL", "FAULTS", "Fault", "Nemesis", "Victims", "is_whole"]

FAULTS: Final = ("kill", "stop", "term")
"""kill: SIGKILL, then started anew. stop: SIGSTOP, after a while SIGCONT. term: SIGTERM, then started anew."""

ALL: Final = "all"
"""SIGKILL to every node at once, then all are started anew: only durable ones live through it."""

STOP_SECONDS: Final = (0.05, 1.5)
DOWN_SECONDS: Final = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done to whom, when (time.monotonic), and how long it took the cluster to be whole again."""

    kind: str
    victim: str
    leader: bool
    at: float
    whole_after_s: float


class Victims(Protocol):
    """The cluster as the nemesis needs it."""

    @property
    def names(self) -> list[str]:
        """Of the nodes."""

    def status(self) -> Mapping[str, dict[str, Any]]:
        """What each node that answers says of itself, by name; asked after the call began."""

    def send(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to a node's process."""

    def end(self, name: str, number: signal.Signals) -> None:
        """Sends it and waits until the process has ended."""

    def start(self, name: str) -> None:
        """Starts it anew."""

    def check(self) -> None:
        """ProcessFailed when a process has ended that should not have."""

    def pause(self, seconds: float) -> None:
        """Lets time pass while the load goes on."""


def is_whole(names: list[str], status: Mapping[str, dict[str, Any]]) -> bool:
    """Whether every node answers, follows or is the one leader, and has applied what that one had committed."""
    if set(names) - set(status):
        return False
    leaders = [node for node in status.values() if node.get("role") == "leader"]
    if len(leaders) != 1:
        return False
    leader = leaders[0]
    for node in status.values():
        if node.get("leader") != leader["node_id"] or node.get("term") != leader["term"]:
            return False
        if node["applied_index"] < leader["global_commit"] or not node.get("voter", True):
            return False
    return True


class Nemesis:
    """Draws faults from a seed and does them."""

    def __init__(
        self,
        victims: Victims,
        *,
        seed: int,
        kinds: tuple[str, ...] = FAULTS,
        leader_share: float = 0.5,
        every_s: float = 3.0,
        whole_s: float = 30.0,
        say: Callable[[str], None],
    ) -> None:
        """``leader_share``: of the faults that hit the leader, at least; half by default, since of the others a
        cluster of five hardly takes notice. ``every_s``: at most between faults, once the cluster is whole;
        ``whole_s``: how long that may take.
        """
        self._victims = victims
        self._rng = random.Random(seed)
        self._kinds = kinds
        self._leader_share = leader_share
        self._every_s = every_s
        self._whole_s = whole_s
        self._say = say
        self.faults: list[Fault] = []

    def run(self, seconds: float, rounds: int | None = None) -> None:
        """Faults for so long, or so many of them. ProcessFailed when the cluster does not come back."""
        end = time.monotonic() + seconds
        while len(self.faults) < rounds if rounds is not None else time.monotonic() < end:
            self.one_fault()
            self._victims.pause(self._rng.uniform(0.3, 1.0) * self._every_s)

    def one_fault(self) -> Fault:
        """Does one, and waits until the cluster is whole again."""
        victims, rng = self._victims, self._rng
        status = victims.status()
        leaders = [name for name, node in status.items() if node.get("role") == "leader"]
        name = leaders[0] if leaders and rng.random() < self._leader_share else rng.choice(victims.names)
        kind = rng.choice(self._kinds)
        at = time.monotonic()
        if kind == ALL:
            for each in rng.sample(victims.names, len(victims.names)):
                victims.end(each, signal.SIGKILL)
            for each in victims.names:
                victims.start(each)
        elif kind == "stop":
            victims.send(name, signal.SIGSTOP)
            try:
                victims.pause(rng.uniform(*STOP_SECONDS))
            finally:
                victims.send(name, signal.SIGCONT)
        else:
            victims.end(name, signal.SIGKILL if kind == "kill" else signal.SIGTERM)
            victims.pause(rng.uniform(*DOWN_SECONDS))
            victims.start(name)
        self.wait_whole()
        fault = Fault(kind, name, kind == ALL or name in leaders, at, time.monotonic() - at)
        self.faults.append(fault)
        whom = "every node" if kind == ALL else f"{name}, {'the leader' if fault.leader else 'a follower'}"
        verb = "kill" if kind == ALL else kind
        self._say(f"{len(self.faults)}: {verb} {whom}; whole again after {fault.whole_after_s:.2f} s")
        return fault

    def wait_whole(self) -> None:
        """Waits until the cluster is whole. ProcessFailed when it is not in time, with what the nodes say."""
        victims = self._victims
        end = time.monotonic() + self._whole_s
        while True:
            victims.check()
            status = victims.status()
            if is_whole(victims.names, status):
                return
            if time.monotonic() > end:
                keys = ("role", "term", "leader", "applied_index", "global_commit", "voter", "waiting_for")
                shown = {name: {key: node.get(key) for key in keys} for name, node in status.items()}
                raise ProcessFailed(f"the cluster is not whole after {self._whole_s:g} s; the nodes say {shown}")
