"""How a memory-only cluster forms: once, when all its members are seen fresh (Hello and Formed of docs/wire.md).

A memory-only member forgets everything when its process ends; if a new process in its slot voted and acknowledged as
the old one, acknowledged writes could be lost (Michael et al., DISC 2017). So a member is (slot, incarnation), the
incarnation a random number of this launch, and a cluster is a fixed set of incarnations.

Every member that is not in a cluster says Hello to all: a cluster that stands answers with its set. One member, the
coordinator (the lowest slot), asks with its Hello; a fresh member answers that launch of the coordinator and
from then on is bound to it: an earlier launch it was bound to is dead for it. When all have answered, the coordinator
has formed the cluster, once, and tells the set with Formed until each has said that it knows. A member adopts a set
only if its own incarnation and that of the coordinator it is bound to are in it, so no two sets that share a live
member can both be adopted by a majority. A process that is told a set with another incarnation in its slot is a later
launch: it stops and says so.

Sans-IO: ``now_ns`` is an argument, messages go out through :meth:`Forming.take_messages`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from r2p2.errors import UserError
from raft.messages import HELLO_FORMED, HELLO_FRESH, Formed, Hello

__all__ = ["Forming", "SupersededError"]

HELLO_INTERVAL_NS: Final = 20_000_000
# How long to be told of another launch in this slot before believing it: a cluster that is just being stopped may
# still speak.
SUPERSEDED_AFTER_NS: Final = 2_000_000_000
# Launches of the coordinator remembered as dead. One launch binds this member in almost every life.
DEAD_MAX: Final = 64


class SupersededError(UserError):
    """A cluster formed with an earlier launch of this slot, and is still there."""


class Forming:
    """The forming of one member.

    Args:
        node_id: this member.
        members: every member's id, this one's too.
        incarnation: this launch's random number, not 0.
        now_ns: the time.

    Attributes:
        incarnations: member -> incarnation once the cluster has formed, else None.
    """

    def __init__(self, node_id: int, members: tuple[int, ...], incarnation: int, now_ns: int) -> None:
        self.incarnations: dict[int, int] | None = None
        self._node_id = node_id
        self._members = members
        self._incarnation = incarnation
        self._coordinator = min(members)
        self._is_coordinator = node_id == self._coordinator
        self._fresh: dict[int, int] = {node_id: incarnation}  # coordinator: who has answered this launch
        self._told: set[int] = {node_id}  # coordinator: who knows the set
        self._bound: int | None = incarnation if self._is_coordinator else None  # the coordinator's launch
        self._dead: dict[int, None] = {}
        self._superseded_since_ns: int | None = None
        self._next_hello_ns = now_ns
        self._out: list[Hello | Formed] = []
        if len(members) == 1:
            self.incarnations = {node_id: incarnation}

    @property
    def waiting_for(self) -> tuple[int, ...]:
        """Members this one has not heard of yet; for logs."""
        if self._is_coordinator:
            return tuple(m for m in self._members if m not in self._fresh)
        return () if self._bound is not None else (self._coordinator,)

    @property
    def deadline_ns(self) -> int | None:
        """When :meth:`tick` is due; None: never again."""
        if self.incarnations is None or (self._is_coordinator and len(self._told) < len(self._members)):
            return self._next_hello_ns
        return None

    def take_messages(self) -> list[Hello | Formed]:
        """Messages to send, each once."""
        out, self._out = self._out, []
        return out

    def tick(self, now_ns: int) -> None:
        """Asks and tells again what has not been answered."""
        if self.deadline_ns is None or now_ns < self._next_hello_ns:
            return
        self._next_hello_ns = now_ns + HELLO_INTERVAL_NS
        for member in self._members:
            if self.incarnations is not None:
                if member not in self._told:
                    self._out.append(self._formed(member, self.incarnations))
            elif member != self._node_id:
                self._out.append(self._hello(member, self._fresh.get(member, 0)))

    def receive(self, message: Hello | Formed, incarnation: int, now_ns: int) -> None:
        """Takes a message in that the gateway has accepted; ``incarnation`` is its sender's.

        Raises:
            SupersededError: a cluster has formed without this launch.
        """
        if message.sender not in self._members or message.sender == self._node_id:
            return
        if isinstance(message, Formed):
            self._receive_formed(message, incarnation, now_ns)
        else:
            self._receive_hello(message, incarnation)

    def _hello(self, target: int, to_incarnation: int) -> Hello:
        state = HELLO_FRESH if self.incarnations is None else HELLO_FORMED
        return Hello(self._node_id, target, 0, state, self._is_coordinator, to_incarnation)

    def _formed(self, target: int, incarnations: Mapping[int, int]) -> Formed:
        return Formed(self._node_id, target, 0, tuple(sorted(incarnations.items())))

    def _receive_hello(self, hello: Hello, incarnation: int) -> None:
        if self.incarnations is not None:
            if self.incarnations[hello.sender] != incarnation:
                # A later launch of a slot: it learns that it is one.
                self._out.append(self._formed(hello.sender, self.incarnations))
            elif self._is_coordinator and hello.to_incarnation == self._incarnation:
                if hello.state == HELLO_FORMED:
                    self._told.add(hello.sender)
            elif not self._is_coordinator and hello.coordinator:
                self._out.append(self._hello(hello.sender, incarnation))
            return
        if self._is_coordinator:
            if hello.to_incarnation == self._incarnation and hello.state == HELLO_FRESH:
                self._fresh[hello.sender] = incarnation
                if len(self._fresh) == len(self._members):
                    self.incarnations = dict(self._fresh)
                    self._next_hello_ns = 0  # tell at once
            return
        if not (hello.coordinator and hello.sender == self._coordinator) or incarnation in self._dead:
            return
        if self._bound is not None and self._bound != incarnation:
            if len(self._dead) == DEAD_MAX:
                return  # too many launches to remember; this member has to be launched anew, too
            self._dead[self._bound] = None
        self._bound = incarnation
        self._out.append(self._hello(hello.sender, incarnation))

    def _receive_formed(self, formed: Formed, incarnation: int, now_ns: int) -> None:
        told = dict(formed.members)
        if set(told) != set(self._members):
            return  # another cluster's set under our cluster id: the incarnation check has the last word elsewhere
        if self.incarnations is not None:
            if formed.sender == self._coordinator and told == self.incarnations:
                self._out.append(self._hello(formed.sender, incarnation))
            return
        if told[self._node_id] == self._incarnation:
            if told[self._coordinator] == self._bound:
                self.incarnations = told
                self._out.append(self._hello(self._coordinator, told[self._coordinator]))
            return
        if self._superseded_since_ns is None:
            self._superseded_since_ns = now_ns
        elif now_ns - self._superseded_since_ns >= SUPERSEDED_AFTER_NS:
            raise SupersededError(
                f"member {self._node_id} was launched before in this cluster, and the cluster is still running",
                "A memory-only member cannot come back: its memory is gone. Stop the other members, then start all.",
            )
