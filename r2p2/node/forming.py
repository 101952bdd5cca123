"""How a memory-only cluster forms, once, and how a later launch finds out that it has to join (Hello and Formed of
docs/wire.md).

A memory-only member forgets everything when its process ends; if a new process in its slot voted and acknowledged as
the old one, acknowledged writes could be lost (Michael et al., DISC 2017). So a member is (slot, incarnation), the
incarnation a random number of this launch, and a cluster begins as a fixed set of incarnations.

Every member that is not in a cluster says Hello to all: a cluster that stands answers with its set. One member, the
coordinator (the lowest slot), asks with its Hello; a fresh member answers that launch of the coordinator and
from then on is bound to it: an earlier launch it was bound to is dead for it. When all have answered, the coordinator
has formed the cluster, once, and tells the set with Formed until each has said that it knows. A member adopts a set
only if its own incarnation and that of the coordinator it is bound to are in it, so no two sets that share a live
member can both be adopted by a majority.

A process that is told of a cluster without its own incarnation is a later launch, or new: it is *joining*. It never
forms anything from then on; it says so with every Hello (to_incarnation 0, no coordinator), which sets free who was
bound to it, and goes on saying Hello until it has been let in (:mod:`r2p2.node.membership`). When nobody who remembers
the cluster answers any more and nothing of it has arrived here, the launch is over: :attr:`Forming.abandoned`.

The leader may be none of those that it asks. It tells of the cluster unasked, and is asked from then on. That is
believed only of a set with somebody in it of whom this process was told by those it has asked: another cluster may look
for a member at this address.

Sans-IO: ``now_ns`` is an argument, messages go out through :meth:`Forming.take_messages`. Targets of messages are
slots. Members are pairs (slot, incarnation) here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from r2p2.errors import UserError
from raft.messages import HELLO_FORMED, HELLO_FRESH, Formed, Hello

__all__ = ["ELSEWHERE", "Forming", "RemovedError", "SupersededError"]

HELLO_INTERVAL_NS: Final = 20_000_000
# A process that waits to be let in asks on; its catching up may take long, so it asks less often.
JOIN_INTERVAL_NS: Final = 100_000_000
# How long to be told of a cluster before believing that this launch cannot be in it, and to hear nothing of it before
# believing that it is gone: a cluster that is just being stopped may still speak.
BELIEVE_AFTER_NS: Final = 2_000_000_000
# The target of a Hello to whoever has told of the cluster unasked; no slot.
ELSEWHERE: Final = 0xFFFF
# Launches of the coordinator remembered as dead. One launch binds this member in almost every life.
DEAD_MAX: Final = 64


class SupersededError(UserError):
    """A cluster formed with an earlier launch of this slot, and this one cannot take its place."""


class RemovedError(UserError):
    """This member was removed from its cluster: it has nothing to do any more, and starting it again is no remedy."""

    exit_code = 3


class Forming:
    """The forming of one member.

    Args:
        slot: this member's.
        slots: of every member the cluster begins with, this one's too; for a process that joins a cluster, the slots
            to ask there.
        incarnation: this launch's random number, not 0.
        now_ns: the time.
        join: the cluster stands already: never form one.
        can_join: whether this process could be brought up by a cluster that stands.

    Attributes:
        incarnations: slot -> incarnation once the cluster has formed with this member, else None.
        joining: the (slot, incarnation) pairs that this process was told of, once it has to join; else None.
        abandoned: nobody remembers the cluster that was to be joined.
    """

    def __init__(
        self,
        slot: int,
        slots: tuple[int, ...],
        incarnation: int,
        now_ns: int,
        *,
        join: bool = False,
        can_join: bool = True,
    ) -> None:
        self.incarnations: dict[int, int] | None = None
        self.joining: tuple[tuple[int, int], ...] | None = None
        self.abandoned = False
        self._slot = slot
        self._slots = slots
        self._incarnation = incarnation
        self._join = join
        self._can_join = can_join
        self._coordinator = min(slots)
        self._is_coordinator = slot == self._coordinator and not join
        self._fresh: dict[int, int] = {slot: incarnation}  # coordinator: who has answered this launch
        self._told: set[int] = {slot}  # coordinator: who knows the set
        self._bound: int | None = incarnation if self._is_coordinator else None  # the coordinator's launch
        self._dead: dict[int, None] = {}
        self._told_since_ns: int | None = None
        self._told_ns = now_ns
        self._next_hello_ns = now_ns
        self._out: list[Hello | Formed] = []
        if slots == (slot,) and not join:
            self.incarnations = {slot: incarnation}

    @property
    def waiting_for(self) -> tuple[int, ...]:
        """Slots of members this one has not heard of yet; for logs."""
        if self.joining is not None or self._join:
            return ()
        if self._is_coordinator:
            return tuple(m for m in self._slots if m not in self._fresh)
        return () if self._bound is not None else (self._coordinator,)

    @property
    def deadline_ns(self) -> int | None:
        """When :meth:`tick` is due; None: never again."""
        if self.incarnations is None or (self._is_coordinator and len(self._told) < len(self._slots)):
            return self._next_hello_ns
        return None

    def take_messages(self) -> list[Hello | Formed]:
        """Messages to send, each once."""
        out, self._out = self._out, []
        return out

    def keep_asking(self, now_ns: int) -> None:
        """Something of the cluster is here: its end is not believed."""
        self.abandoned = False
        self._told_ns = now_ns

    def knows(self, formed: Formed) -> bool:
        """Whether it is of the cluster that is to be joined: it names somebody of it, by incarnation."""
        return self.joining is not None and not set(self.joining).isdisjoint(formed.members)

    def resume(self, members: Mapping[int, int], *, joining: bool) -> None:
        """A durable member comes back as who it was: ``members`` (slot -> incarnation) is the set it began with, or,
        ``joining``, the one it was told of. Nobody need be told: who does not know the set asks.
        """
        self._coordinator = min(members)
        self._is_coordinator = False
        if joining:
            self.joining = tuple(sorted(members.items()))
        else:
            self.incarnations = dict(members)
            self._bound = members[self._coordinator]

    def let_in(self) -> None:
        """This process has become a member: no Hello any more."""
        assert self.joining is not None
        self.incarnations = {self._slot: self._incarnation}
        self._is_coordinator = False

    def tick(self, now_ns: int) -> None:
        """Asks and tells again what has not been answered."""
        if self.deadline_ns is None or now_ns < self._next_hello_ns:
            return
        self._next_hello_ns = now_ns + (HELLO_INTERVAL_NS if self.joining is None else JOIN_INTERVAL_NS)
        if self.joining is not None and not self._join and now_ns - self._told_ns >= BELIEVE_AFTER_NS:
            self.abandoned = True
        for slot in self._slots:
            if self.incarnations is not None:
                if slot not in self._told:
                    self._out.append(self._formed(slot, self.incarnations))
            elif slot != self._slot or self._join:
                self._out.append(self._hello(slot, self._fresh.get(slot, 0)))
        if self.incarnations is None and self.joining is not None:
            self._out.append(self._hello(ELSEWHERE, 0))

    def receive(self, message: Hello | Formed, slot: int, incarnation: int, now_ns: int) -> None:
        """Takes a message in that the gateway has accepted; ``slot`` and ``incarnation`` are its sender's.

        Raises:
            SupersededError: a cluster stands without this launch, and cannot take it in.
        """
        if isinstance(message, Formed):
            self._receive_formed(message, slot, incarnation, now_ns)
        elif slot in self._slots and slot != self._slot:
            self._receive_hello(message, slot, incarnation)

    def _hello(self, target: int, to_incarnation: int) -> Hello:
        if self.joining is not None or self._join:
            return Hello(self._slot, target, 0, HELLO_FRESH, False, 0)
        state = HELLO_FRESH if self.incarnations is None else HELLO_FORMED
        return Hello(self._slot, target, 0, state, self._is_coordinator, to_incarnation)

    def _formed(self, target: int, incarnations: Mapping[int, int]) -> Formed:
        return Formed(self._slot, target, 0, tuple(sorted(incarnations.items())))

    def _receive_hello(self, hello: Hello, slot: int, incarnation: int) -> None:
        if self.joining is not None or self._join:
            return
        if self.incarnations is not None:
            if self.incarnations.get(slot) != incarnation:
                return  # a later launch: who is in the cluster now is for the configuration to say
            if self._is_coordinator and hello.to_incarnation == self._incarnation:
                if hello.state == HELLO_FORMED:
                    self._told.add(slot)
            elif hello.state == HELLO_FRESH:
                # It has not been told, and the coordinator may be gone by now.
                self._out.append(self._formed(slot, self.incarnations))
            elif not self._is_coordinator and hello.coordinator:
                self._out.append(self._hello(slot, incarnation))
            return
        if self._is_coordinator:
            if hello.to_incarnation == self._incarnation and hello.state == HELLO_FRESH:
                self._fresh[slot] = incarnation
                if len(self._fresh) == len(self._slots):
                    self.incarnations = dict(self._fresh)
                    self._next_hello_ns = 0  # tell at once
            return
        if slot != self._coordinator or incarnation in self._dead:
            return
        if not hello.coordinator:
            if self._bound == incarnation:
                self._bound = None  # that launch is joining: it will form nothing
            return
        if self._bound is not None and self._bound != incarnation:
            if len(self._dead) == DEAD_MAX:
                return  # too many launches to remember; this member has to be launched anew, too
            self._dead[self._bound] = None
        self._bound = incarnation
        self._out.append(self._hello(slot, incarnation))

    def _receive_formed(self, formed: Formed, slot: int, incarnation: int, now_ns: int) -> None:
        told = dict(formed.members)
        if self.incarnations is not None:
            if slot == self._coordinator and told == self.incarnations:
                self._out.append(Hello(self._slot, slot, 0, HELLO_FORMED, False, incarnation))
            return
        self._told_ns = now_ns
        if formed.term == 0 and told.get(self._slot) == self._incarnation:
            # Only the set that the cluster began with makes a member; later ones come with the log.
            first = set(told) == set(self._slots)
            if first and self.joining is None and self._bound in (None, told[self._coordinator]):
                self.incarnations = told
                self._out.append(self._hello(self._coordinator, told[self._coordinator]))
            return
        others = tuple(pair for pair in formed.members if pair != (self._slot, self._incarnation))
        if not others:
            return
        if self._can_join:
            if self.joining is None:
                self._next_hello_ns = 0
            self.joining = others
            self._is_coordinator = False
        elif self._told_since_ns is None:
            self._told_since_ns = now_ns
        elif now_ns - self._told_since_ns >= BELIEVE_AFTER_NS:
            raise SupersededError(
                f"member {self._slot} was launched before in this cluster, and the cluster is still running; its "
                "application has no snapshots, so this launch cannot be brought up",
                "Give the application snapshot() and restore(), or stop the other members, then start all.",
            )
