"""Processes that are not in the cluster, as a member sees them: those that say Hello, those that still speak as members
that have left, and what each is told (Formed).

Leaves to others: who is let in (:mod:`r2p2.node.membership`).

Sans-IO: time is an argument; messages are taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from r2p2 import limits
from raft import Configuration, Formed, incarnation_of, slot_of

__all__ = ["CANDIDATE_NS", "FORMED_MEMBERS_MAX", "Candidate", "Outsiders"]

# A process that waits to be let in says so ten times a second.
CANDIDATES_MAX: Final = 64
CANDIDATE_NS: Final = 1 * limits.SECOND
# Members that have left, remembered to drop what they still send.
GONE_MAX: Final = 256
TELL_INTERVAL_NS: Final = 20 * limits.MS
FORMED_MEMBERS_MAX: Final = 16


@dataclass(slots=True)
class Candidate:
    """A process that says Hello and is no voter; last at ``heard_ns``."""

    member: int
    address: tuple[int, int]
    heard_ns: int


class Outsiders:
    """Those that one member knows of. Iterating goes over the candidates.

    Args:
        member: this member.
    """

    def __init__(self, member: int) -> None:
        self._slot = slot_of(member)
        self._candidates: dict[tuple[int, tuple[int, int]], Candidate] = {}  # by slot and address
        self._members: frozenset[int] = frozenset()
        self._gone: dict[int, None] = {}
        self._told_ns: dict[int, int] = {}
        self._formed: list[tuple[Formed, tuple[int, int]]] = []

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._candidates.values())

    def __bool__(self) -> bool:
        return bool(self._candidates)

    def configuration_changed(self, configuration: Configuration) -> None:
        """Another configuration is in force; who has left it is remembered as gone."""
        members = frozenset(configuration.members)
        for member in self._members - members:
            self._gone[member] = None
            if len(self._gone) > GONE_MAX:
                del self._gone[next(iter(self._gone))]
        for member in members:
            self._gone.pop(member, None)
        self._members = members

    def is_gone(self, member: int) -> bool:
        """Whether it has left: what it sends is a dead member's."""
        return member in self._gone

    # ---- who says Hello ----

    def hello(self, sender: int, address: tuple[int, int], now_ns: int) -> None:
        """A Hello of a process that is no voter."""
        place = (slot_of(sender), address)
        known = self._candidates.get(place)
        if known is not None and known.member == sender:
            known.heard_ns = now_ns
        elif known is not None or len(self._candidates) < CANDIDATES_MAX:
            self._candidates[place] = Candidate(sender, address, now_ns)

    def at(self, slot: int, address: tuple[int, int]) -> Candidate | None:
        """Who says Hello from there as that slot."""
        return self._candidates.get((slot, address))

    def forget(self, committed: Configuration | None, now_ns: int) -> None:
        """Drops candidates of whom nothing is heard any more, and those that vote in ``committed``."""
        for place, candidate in list(self._candidates.items()):
            votes = committed is not None and committed.is_voter(candidate.member)
            if votes or now_ns - candidate.heard_ns > CANDIDATE_NS:
                del self._candidates[place]

    # ---- what they are told ----

    def tell(self, index: int, configuration: Configuration, target: int, address: tuple[int, int]) -> None:
        """``target`` is to hear of the configuration of ``index``."""
        # One member a slot: the target itself where it is one, so that it never reads that it is not.
        told = {slot_of(member): incarnation_of(member) for member in configuration.members}
        if target in configuration.members:
            told[slot_of(target)] = incarnation_of(target)
        pairs = sorted(told.items())
        if len(pairs) > FORMED_MEMBERS_MAX:
            pairs = sorted(sorted(pairs, key=lambda pair: pair[0] != slot_of(target))[:FORMED_MEMBERS_MAX])
        self._formed.append((Formed(self._slot, slot_of(target), index, tuple(pairs)), address))

    def tell_stranger(
        self, index: int, configuration: Configuration, target: int, address: tuple[int, int], now_ns: int
    ) -> None:
        """The same for a sender of Raft messages who is no member, unless it was told just now."""
        if now_ns - self._told_ns.get(target, -TELL_INTERVAL_NS) < TELL_INTERVAL_NS:
            return
        if len(self._told_ns) >= CANDIDATES_MAX:
            self._told_ns.clear()
        self._told_ns[target] = now_ns
        self.tell(index, configuration, target, address)

    def take_formed(self) -> list[tuple[Formed, tuple[int, int]]]:
        """(message, address) to send, each once."""
        formed, self._formed = self._formed, []
        return formed
