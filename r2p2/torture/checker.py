"""Whether a history of additions and reads is linearizable, with every addition done at most once.

Every element is added by one call only, so a key's longest read is its one order, and each answer has a place in it:
an addition that made the list n long is the n-th, a read of n elements comes after the n-th addition and before the
next. What is left to check is that these places agree with time (Herlihy and Wing, "Linearizability", 1990: an order
that is legal and in which nothing comes before what had ended before it began). That takes a sort a key, where the
general problem is NP-complete.

Leaves to others: how the history came about.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from r2p2.torture.history import Operation

__all__ = ["Verdict", "check"]

EXAMPLES_MAX: Final = 10
_ADDITION, _READ = 0, 1  # within one place of the order: the addition that made it, then the reads that saw it


@dataclass(slots=True)
class Verdict:
    """Counts of a history, and what is wrong with it.

    Attributes:
        acknowledged: additions with an answer.
        unanswered: calls without one.
        reads: reads with an answer.
        keys: lists.
        violations: sentences; at most 10 of each kind. Empty: the history is linearizable.
        counts: violations by kind: lost, repeated, invented, disordered, stale.
    """

    acknowledged: int = 0
    unanswered: int = 0
    reads: int = 0
    keys: int = 0
    violations: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("lost", "repeated", "invented", "disordered", "stale"), 0)
    )

    @property
    def holds(self) -> bool:
        """Nothing is wrong."""
        return not any(self.counts.values())

    def add(self, kind: str, text: str) -> None:
        """Notes a violation."""
        self.counts[kind] += 1
        if self.counts[kind] <= EXAMPLES_MAX:
            self.violations.append(f"{kind}: {text}")


def check(operations: Iterable[Operation]) -> Verdict:
    """Judges a history. What no read saw is only held against the answers' own places: end with a read of every key."""
    verdict = Verdict()
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        by_key[operation.key].append(operation)
    verdict.keys = len(by_key)
    for key in sorted(by_key):
        _check_key(key, by_key[key], verdict)
    return verdict


def _check_key(key: str, operations: list[Operation], verdict: Verdict) -> None:
    additions = {operation.element: operation for operation in operations if operation.element is not None}
    order: tuple[str, ...] = ()
    for operation in operations:
        if operation.returned_ns is None:
            verdict.unanswered += 1
        elif operation.element is not None:
            verdict.acknowledged += 1
        else:
            verdict.reads += 1
        if operation.values is not None and len(operation.values) > len(order):
            order = operation.values
    place = {one: n for n, one in enumerate(order, 1)}
    if len(place) < len(order):
        seen: set[str] = set()
        for one in order:
            if one in seen:
                verdict.add("repeated", f"{one} stands twice in {key}")
            seen.add(one)
        return  # no places to compare
    for one in order:
        if one not in additions:
            verdict.add("invented", f"{one} stands in {key}, and nobody added it")
    taken: dict[int, Operation] = {}
    ranked: list[tuple[tuple[int, int], Operation]] = []
    for operation in operations:
        if operation.element is None:
            if operation.values is None:
                continue  # a read without an answer says nothing
            if operation.values != order[: len(operation.values)]:
                verdict.add("disordered", f"{operation.text}: not the beginning of what a later read saw")
                continue
            ranked.append(((len(operation.values), _READ), operation))
            continue
        found = place.get(operation.element)
        if operation.length is None:
            if found is not None:
                ranked.append(((found, _ADDITION), operation))
            continue  # else it never took effect, as far as anybody saw
        if operation.length <= len(order):
            if found is None:
                verdict.add("lost", f"{operation.text}, and a read of {len(order)} elements has not got it")
                continue
            if found != operation.length:
                verdict.add("disordered", f"{operation.text}, and reads have it as number {found}")
                continue
        other = taken.setdefault(operation.length, operation)
        if other is not operation:
            verdict.add("lost", f"{operation.text}, and so was told: {other.text}")
            continue
        ranked.append(((operation.length, _ADDITION), operation))
    _check_times(ranked, verdict)


def _check_times(ranked: list[tuple[tuple[int, int], Operation]], verdict: Verdict) -> None:
    """Nothing has a place before what had returned when it was invoked."""
    returned = sorted(
        ((operation.returned_ns, rank, operation) for rank, operation in ranked if operation.returned_ns is not None),
        key=lambda row: row[0],
    )
    highest: tuple[tuple[int, int], Operation] | None = None
    at = 0
    for rank, operation in sorted(ranked, key=lambda row: row[1].invoked_ns):
        while at < len(returned) and returned[at][0] < operation.invoked_ns:
            if highest is None or returned[at][1] > highest[0]:
                highest = (returned[at][1], returned[at][2])
            at += 1
        if highest is not None and highest[0] > rank:
            verdict.add("stale", f"{operation.text}, though before it began had returned: {highest[1].text}")
