"""What the core is told and what it asks for: configuration, durable state, roles, the log's sizes, chance.

Left to others: the state machine itself (core.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from raft.configuration import VOTERS_MAX, is_member_id


class Role(Enum):
    """Who a node is in its term."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre_candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class ChangeRefused(Exception):
    """The leader cannot begin a change of members now; the message says why."""


class NotLeader(Exception):
    """Asked of a node that does not lead; ``leader_id`` is who does, as far as known."""

    def __init__(self, leader_id: int | None) -> None:
        """``leader_id``: None when unknown."""
        super().__init__(f"not the leader; the leader is {'unknown' if leader_id is None else leader_id}")
        self.leader_id = leader_id


@dataclass(frozen=True, slots=True)
class HardState:
    """What must survive a restart, written as one: a term without its vote, or the reverse, elects two leaders."""

    term: int
    vote: int | None


class Chance(Protocol):
    """Where chance comes from; a seeded random.Random fits."""

    def random(self) -> float:
        """Uniform in [0, 1)."""
        ...


class Log(Protocol):
    """The entry storage, as far as the core asks: sizes only, of entries that Readies and proposals put there."""

    def fit(self, first_index: int, last_index: int, bytes_max: int) -> int:
        """The last index i <= last_index with first_index..i in at most bytes_max bytes; at least first_index."""
        ...

    def range_bytes(self, first_index: int, last_index: int) -> int:
        """Bytes of entries first_index..last_index as they travel."""
        ...


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one node. Times in nanoseconds. ValueError names the field that is wrong.

    ``members`` are the voters a cluster begins with; its later ones are in the log. ``joining``: this node is none of
    them, and waits to be added. ``commit_delay_ns``: how long a leader with nothing else to send waits for something
    that tells its followers of a commit before it sends them an Append for that alone.
    """

    node_id: int
    members: tuple[int, ...]
    heartbeat_ns: int = 10_000_000
    election_min_ns: int = 100_000_000
    election_max_ns: int = 200_000_000
    inflight_max: int = 64
    inflight_bytes_max: int = 4 << 20
    append_bytes_max: int = 256 << 10
    pre_vote: bool = True
    check_quorum: bool = True
    joining: bool = False
    commit_delay_ns: int = 0

    def __post_init__(self) -> None:
        """Holds every relation between the settings."""
        if not is_member_id(self.node_id):
            raise ValueError(f"node_id: {self.node_id} is no member's identity")
        if not 1 <= len(self.members) <= VOTERS_MAX:
            raise ValueError(f"members: {len(self.members)} of them, 1..{VOTERS_MAX} are possible")
        if len(set(self.members)) != len(self.members):
            raise ValueError(f"members: {self.members} names one twice")
        if not all(map(is_member_id, self.members)):
            raise ValueError(f"members: {self.members} are not all identities")
        if (self.node_id in self.members) == self.joining:
            raise ValueError(
                f"members: {self.members} {'include' if self.joining else 'do not include'} node_id {self.node_id}"
                f"{', which is joining' if self.joining else ''}"
            )
        if self.heartbeat_ns <= 0:
            raise ValueError(f"heartbeat_ns: {self.heartbeat_ns} is not positive")
        if not 0 <= self.commit_delay_ns < self.heartbeat_ns:
            raise ValueError(
                f"commit_delay_ns: {self.commit_delay_ns} is not within 0..heartbeat_ns, which is {self.heartbeat_ns}"
            )
        if self.election_min_ns < 2 * self.heartbeat_ns:
            raise ValueError(
                f"election_min_ns: {self.election_min_ns} is under two heartbeats of {self.heartbeat_ns} ns; "
                "one lost heartbeat would start an election"
            )
        if self.election_max_ns <= self.election_min_ns:
            raise ValueError(
                f"election_max_ns: {self.election_max_ns} is not above election_min_ns {self.election_min_ns}; "
                "equal timeouts split votes for ever"
            )
        if self.inflight_max < 1:
            raise ValueError(f"inflight_max: {self.inflight_max} is under 1")
        if self.append_bytes_max < 1:
            raise ValueError(f"append_bytes_max: {self.append_bytes_max} is under 1")
        if self.inflight_bytes_max < self.append_bytes_max:
            raise ValueError(
                f"inflight_bytes_max: {self.inflight_bytes_max} is under append_bytes_max {self.append_bytes_max}"
            )
