"""Who is in the cluster: the configuration in the log, and its history (dissertation chapter 4).

A change of voters goes through a joint configuration, in which every decision takes a majority of the old voters and
one of the new (4.3). A member uses the newest configuration of its log, committed or not, and goes back to the one
before when that entry is truncated.

A member is one launch of one slot: ``member_id(slot, incarnation)``. So a process that comes back without its memory is
somebody else, and the old and the new one can stand in one configuration.

Left to others: when to change it (the node), how a change is replicated (core.py).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

VOTERS_MAX = 16
LEARNERS_MAX = 16
SLOT_BITS = 16
SLOT_MAX = 0xFFFE
MEMBER_ID_MAX = (1 << 64 + SLOT_BITS) - 1


def member_id(slot: int, incarnation: int) -> int:
    """The identity of one launch: slot 0..65534, incarnation 0..2**64 - 1."""
    return incarnation << SLOT_BITS | slot


def slot_of(member: int) -> int:
    """The slot of an identity."""
    return member & (1 << SLOT_BITS) - 1


def incarnation_of(member: int) -> int:
    """The launch of an identity."""
    return member >> SLOT_BITS


def is_member_id(member: int) -> bool:
    """Whether it can be an identity: 0..2**80 - 1, and a slot that is not 65535."""
    return 0 <= member <= MEMBER_ID_MAX and slot_of(member) <= SLOT_MAX


def _check_ids(name: str, members: tuple[int, ...], count_max: int) -> None:
    if len(members) > count_max:
        raise ValueError(f"{name}: {len(members)} of them, at most {count_max} are possible")
    before = -1
    for member in members:
        if member <= before:
            raise ValueError(f"{name}: {members} do not ascend")
        if not is_member_id(member):
            raise ValueError(f"{name}: {member} is no member's identity")
        before = member


@dataclass(frozen=True, slots=True)
class Configuration:
    """Members by what they may do; identities ascend. ValueError names the field that is wrong.

    voters      vote and count; in a joint configuration the new ones.
    outgoing    the old voters of a joint configuration; empty otherwise.
    learners    get the log, and count for nothing.
    addresses   (identity, IPv4 address, UDP port) of members, for who embeds the core; nothing here reads them.
    """

    voters: tuple[int, ...]
    outgoing: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    addresses: tuple[tuple[int, int, int], ...] = ()

    def __post_init__(self) -> None:
        """Holds the relations between the fields."""
        _check_ids("voters", self.voters, VOTERS_MAX)
        _check_ids("outgoing", self.outgoing, VOTERS_MAX)
        _check_ids("learners", self.learners, LEARNERS_MAX)
        if not self.voters:
            raise ValueError("voters: none, and nobody could ever add one")
        if both := set(self.learners) & {*self.voters, *self.outgoing}:
            raise ValueError(f"learners: {sorted(both)} are voters, too")
        known = tuple(address[0] for address in self.addresses)
        _check_ids("addresses", known, 2 * VOTERS_MAX + LEARNERS_MAX)
        if not all(0 < ip << 16 | port < 1 << 48 and 0 <= port < 1 << 16 for _, ip, port in self.addresses):
            raise ValueError(f"addresses: {self.addresses} are not all an IPv4 address and a port")
        if strangers := set(known) - set(self.members):
            raise ValueError(f"addresses: {sorted(strangers)} are not members")

    @property
    def joint(self) -> bool:
        """Whether it is a step on the way from one configuration to another."""
        return bool(self.outgoing)

    @property
    def members(self) -> tuple[int, ...]:
        """Everybody, ascending."""
        return tuple(sorted({*self.voters, *self.outgoing, *self.learners}))

    def is_voter(self, member: int) -> bool:
        """Whether its vote counts, in either half."""
        return member in self.voters or member in self.outgoing

    def towards(self, target: Configuration) -> Configuration:
        """The first step to ``target``: a joint configuration, or ``target`` itself where the voters stay."""
        if target.voters == self.voters:
            return target
        if both := set(target.learners) & set(self.voters):
            raise ValueError(f"learners: {sorted(both)} are voters, and would have to be removed first")
        addresses = {entry[0]: entry for entry in (*self.addresses, *target.addresses)}
        members = {*target.voters, *self.voters, *target.learners}
        return Configuration(
            target.voters,
            self.voters,
            tuple(member for member in target.learners if member not in self.voters),
            tuple(addresses[member] for member in sorted(members) if member in addresses),
        )

    def settled(self) -> Configuration:
        """What a joint configuration leads to: its new voters alone."""
        members = {*self.voters, *self.learners}
        return Configuration(
            self.voters, (), self.learners, tuple(entry for entry in self.addresses if entry[0] in members)
        )

    # What operators ask for. Each gives the target; :meth:`towards` finds the way.

    def with_learner(self, member: int, ip: int = 0, port: int = 0) -> Configuration:
        """A new member that gets the log and does not count; address 0, port 0: none is known."""
        address = (member, ip, port) if ip or port else None
        return self._changed(learners={*self.learners, member} - set(self.voters), address=address)

    def with_voter(self, member: int, *, instead_of: int | None = None) -> Configuration:
        """A learner promoted, at once in another's place where one is named."""
        gone = set() if instead_of is None else {instead_of}
        return self._changed(voters={*self.voters, member} - gone, learners=set(self.learners) - {member} - gone)

    def without(self, member: int) -> Configuration:
        """A voter or learner removed."""
        return self._changed(voters=set(self.voters) - {member}, learners=set(self.learners) - {member})

    def _changed(
        self,
        *,
        voters: set[int] | None = None,
        learners: set[int] | None = None,
        address: tuple[int, int, int] | None = None,
    ) -> Configuration:
        new_voters = set(self.voters) if voters is None else voters
        new_learners = set(self.learners) if learners is None else learners
        addresses = {entry[0]: entry for entry in self.addresses}
        if address is not None:
            addresses[address[0]] = address
        members = sorted(new_voters | new_learners)
        return Configuration(
            tuple(sorted(new_voters)),
            (),
            tuple(sorted(new_learners)),
            tuple(addresses[member] for member in members if member in addresses),
        )


class History:
    """The configurations of a log, oldest first: (index of the entry, configuration).

    The first may stand before the log (index 0: how the cluster began); the last is in force.
    """

    __slots__ = ("_entries", "current", "index")

    def __init__(self, entries: list[tuple[int, Configuration]]) -> None:
        """At least one, ascending by index."""
        if not entries or any(a[0] >= b[0] for a, b in itertools.pairwise(entries)):
            raise ValueError(f"configurations: {[index for index, _ in entries]} are not ascending indices")
        self._entries = list(entries)
        self.index, self.current = self._entries[-1]

    def entries(self) -> list[tuple[int, Configuration]]:
        """A copy, oldest first."""
        return list(self._entries)

    def add(self, index: int, configuration: Configuration) -> None:
        """An entry of the log."""
        self._entries.append((index, configuration))
        self.index, self.current = index, configuration

    def truncate(self, from_index: int) -> bool:
        """The log lost ``from_index`` and all behind it; whether another configuration is in force now."""
        if self.index < from_index:
            return False
        while len(self._entries) > 1 and self._entries[-1][0] >= from_index:
            self._entries.pop()
        self.index, self.current = self._entries[-1]
        return True

    def restart(self, index: int, configuration: Configuration) -> None:
        """A snapshot has taken the log's place."""
        self._entries = [(index, configuration)]
        self.index, self.current = index, configuration

    def drop(self, through_index: int) -> None:
        """The log's prefix is gone; what was in force at its end is kept."""
        while len(self._entries) > 1 and self._entries[1][0] <= through_index:
            del self._entries[0]

    def at(self, index: int) -> Configuration:
        """What was in force at ``index``."""
        found = self._entries[0][1]
        for first, configuration in self._entries:
            if first > index:
                break
            found = configuration
        return found

    def first_from(self, index: int) -> int:
        """The first configuration entry at ``index`` or behind it; 0: none."""
        return next((entry for entry, _ in self._entries if entry >= index), 0)

    def configuration(self, index: int) -> Configuration | None:
        """The one whose entry stands at ``index``."""
        return next((configuration for entry, configuration in self._entries if entry == index), None)
