"""What membership asks of Raft, and the core that answers: so few things that a test may play it."""

from __future__ import annotations

from typing import Protocol

from raft import Configuration, Raft, Role

__all__ = ["MembershipCore", "RaftCore"]


class MembershipCore(Protocol):
    """What is asked of Raft."""

    @property
    def configuration(self) -> Configuration:
        """In force."""
        ...

    @property
    def configuration_index(self) -> int:
        """Of its entry."""
        ...

    @property
    def configuration_committed(self) -> bool:
        """Whether it can no longer be taken back."""
        ...

    @property
    def has_been_member(self) -> bool:
        """Whether this member is in any configuration that its log still tells apart."""
        ...

    @property
    def leads(self) -> bool:
        """Whether this member leads."""
        ...

    @property
    def leader_id(self) -> int | None:
        """Who leads, as far as known."""
        ...

    @property
    def transfer_target(self) -> int | None:
        """To whom the role is being handed over."""
        ...

    def propose_configuration(self, target: Configuration, now_ns: int) -> int:
        """Begins the change to ``target``."""
        ...

    def caught_up(self, member: int) -> bool:
        """Whether a learner keeps up."""
        ...

    def heard_ns(self, member: int) -> int:
        """When the leader last heard it; the leader itself: now."""
        ...

    def transfer(self, target: int, now_ns: int) -> None:
        """Begins to hand the role over."""
        ...


class RaftCore:
    """Raft, as a :class:`MembershipCore`.

    Args:
        raft: the core.
        member: this member.

    Attributes:
        now_ns: the time, to be set before it is asked.
    """

    def __init__(self, raft: Raft, member: int) -> None:
        self._raft = raft
        self._member = member
        self._heard: dict[int, int] = {}
        self.now_ns = 0

    @property
    def configuration(self) -> Configuration:
        return self._raft.configuration

    @property
    def configuration_index(self) -> int:
        return self._raft.configuration_index

    @property
    def configuration_committed(self) -> bool:
        return self._raft.configuration_committed

    @property
    def has_been_member(self) -> bool:
        return any(self._member in configuration.members for _, configuration in self._raft.configurations())

    @property
    def leads(self) -> bool:
        return self._raft.role is Role.LEADER

    @property
    def leader_id(self) -> int | None:
        return self._member if self.leads else self._raft.leader_id

    @property
    def transfer_target(self) -> int | None:
        return self._raft.transfer_target

    def propose_configuration(self, target: Configuration, now_ns: int) -> int:
        return self._raft.propose_configuration(target, now_ns)

    def caught_up(self, member: int) -> bool:
        return self._raft.caught_up(member)

    def heard_ns(self, member: int) -> int:
        if member == self._member:
            return self.now_ns
        peer = self._raft.peer(member)
        return peer.heard_ns if peer is not None else 0

    def transfer(self, target: int, now_ns: int) -> None:
        if target != self._member:
            self._raft.transfer(target, now_ns)
