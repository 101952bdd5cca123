"""What clients saw, and whether one register per key, executing each operation once, can have answered so.

Every answer names the register's version, so the order of operations is known and need not be searched for: the
history is linearizable if, and only if, no version has two values and no value two versions, each swap saw the value
before its own, no answer is older than one that had arrived before it was asked for, and the versions nobody saw can
be those of operations nobody heard back from. One sort per key, whatever the number of clients.

Left to others: asking (clients.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from r2p2.sim.machine import SWAP
from r2p2.sim.violation import Violation

NEVER: Final = 1 << 62


class Call:
    """One operation as its client saw it. ``returned`` NEVER and ``version`` -1 while it is not answered."""

    __slots__ = ("before", "client", "invoked", "key", "kind", "returned", "value", "version")

    def __init__(self, client: int, kind: int, key: int, value: int, invoked: int) -> None:
        """``value``: what a swap writes, different for every swap of a run and never 0; of a read what it returned."""
        self.client = client
        self.kind = kind
        self.key = key
        self.value = value
        self.invoked = invoked
        self.returned = NEVER
        self.version = -1
        self.before = -1

    def __repr__(self) -> str:
        """For people."""
        what = f"r{self.key} := {self.value}" if self.kind == SWAP else f"read r{self.key} = {self.value}"
        end = "unanswered" if self.returned == NEVER else f"{self.returned} ns, version {self.version}"
        return f"client {self.client}: {what} ({self.invoked} .. {end})"


def check(calls: Iterable[Call]) -> int:
    """Raises Violation where no order of the operations explains the answers; how many answers were looked at."""
    by_key: dict[int, list[Call]] = {}
    for call in calls:
        by_key.setdefault(call.key, []).append(call)
    return sum(_check_register(key, of_key) for key, of_key in sorted(by_key.items()))


def _check_register(key: int, calls: list[Call]) -> int:
    value_of: dict[int, int] = {0: 0}  # by version
    version_of: dict[int, int] = {0: 0}  # by value
    invoked = {call.value for call in calls if call.kind == SWAP}
    answered = 0
    for call in calls:
        if call.returned == NEVER:
            continue
        answered += 1
        _is(key, call.version, call.value, value_of, version_of, call)
        if call.kind == SWAP:
            _is(key, call.version - 1, call.before, value_of, version_of, call)
    for value, version in version_of.items():
        if version and value not in invoked:
            raise Violation("linearizability", f"r{key} had the value {value}, which nobody wrote")
    # In the order of time: what had been seen when an operation was asked for is a bound for its own version.
    points = [(call.invoked, 1, call) for call in calls]
    points += [(call.returned, 0, call) for call in calls if call.returned != NEVER]
    points.sort(key=_when)
    seen_version, seen_by = 0, "the beginning"
    free: list[int] = []  # of each operation that nobody saw: versions above this one may be its own
    for _, is_invocation, call in points:
        if not is_invocation:
            if call.version > seen_version:
                seen_version, seen_by = call.version, repr(call)
            continue
        version = version_of.get(call.value, -1) if call.kind == SWAP else call.version
        if call.kind == SWAP and version < 0:
            free.append(seen_version)
        elif version >= 0 and (version <= seen_version if call.kind == SWAP else version < seen_version):
            raise Violation("linearizability", f"{call!r} is of version {version}, but before it came {seen_by}")
    used = 0
    for version in range(1, max(value_of) + 1):
        if version not in value_of:
            used += 1
            if sum(bound < version for bound in free) < used:
                raise Violation("linearizability", f"r{key}: nobody can have made version {version}")
    return answered


def _is(key: int, version: int, value: int, value_of: dict[int, int], version_of: dict[int, int], call: Call) -> None:
    """``call`` saw that version with that value."""
    known = value_of.setdefault(version, value)
    if known != value:
        raise Violation("linearizability", f"r{key} at version {version}: {known}, and {value} as of {call!r}")
    if version_of.setdefault(value, version) != version:
        raise Violation(
            "exactly once", f"r{key} := {value} made version {version_of[value]} and version {version}, {call!r}"
        )


def _when(point: tuple[int, int, Call]) -> tuple[int, int]:
    return point[0], point[1]
