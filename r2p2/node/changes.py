"""The next configuration of a cluster, as its leader decides it: one step of what operators ask for, of a member that
comes back without its memory, of one that is down and holds the log, of a learner that never came up.

Every step looks at the committed configuration alone, so a new leader goes on where the old one ended. Leaves to
others: doing it (Raft), when, and what has been done (:mod:`r2p2.node.membership`). Sans-IO: time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from r2p2 import limits
from r2p2.address import format_address
from r2p2.node.configurations import addresses_of, in_slot
from r2p2.node.member_requests import Operation, Operations
from r2p2.node.membership_core import MembershipCore
from r2p2.node.outsiders import Candidate, Outsiders
from raft import Configuration, slot_of

__all__ = ["Changes"]

# A learner that says nothing for so long is not coming up any more; it would hold the log back.
LEARNER_GONE_NS: Final = 10 * limits.SECOND


class Refused(Exception):
    """An operation cannot be done; the message says why, for the operator."""


class Changes:
    """The changes of one leader.

    Args:
        operations: what operators ask for; those that cannot be done are refused.
        outsiders: who asks to be let in.
        silent_ns: how long without a word makes a member be down.
        on_event: told what an operator wants to know.
        takes_in: whether a process without memory could be brought up: the application has snapshots.

    Attributes:
        evicted: slots that this leader removed because they held the log, and when (ns).
    """

    def __init__(
        self,
        operations: Operations,
        outsiders: Outsiders,
        silent_ns: int,
        on_event: Callable[[str], None],
        *,
        takes_in: bool,
    ) -> None:
        self._operations = operations
        self._outsiders = outsiders
        self._silent_ns = silent_ns
        self._on_event = on_event
        self._takes_in = takes_in
        self._learners_ns: dict[int, int] = {}
        self._evict: int | None = None
        self._announce = ""  # what to say of the target once it is under way
        self.evicted: dict[int, int] = {}

    @property
    def busy(self) -> bool:
        """Whether there is somebody to take out."""
        return bool(self._learners_ns) or self._evict is not None

    def evict(self, member: int) -> None:
        """Remove ``member``, which is down and holds the log: the truncation policy says so."""
        self._evict = member

    def forget(self) -> None:
        """This member does not lead: others decide."""
        self._learners_ns.clear()
        self._evict = None

    def begun(self, target: Configuration, now_ns: int) -> None:
        """The last target is under way."""
        self._learners_ns |= dict.fromkeys(set(target.learners) - self._learners_ns.keys(), now_ns)
        if self._announce:
            self._on_event(self._announce)

    def next_target(self, core: MembershipCore, configuration: Configuration, now_ns: int) -> Configuration | None:
        """The next configuration to go to: operators first, then lost members, then what is left over."""
        self._announce = ""
        for operation in self._operations:
            try:
                target = self._step(operation, configuration, core, now_ns)
            except Refused as refused:
                self._operations.refuse(operation, "refused", str(refused))
                continue
            except ValueError as error:  # of a Configuration: bounds, or no voters left
                self._operations.refuse(operation, "refused", str(error))
                continue
            if target is not None:
                return target
        if self._evict is not None:
            member, self._evict = self._evict, None
            if member in configuration.voters and self._keeps_majority(configuration.without(member), core, now_ns):
                self.evicted[slot_of(member)] = now_ns
                self._announce = f"evicts slot {slot_of(member)}, which is down and holds the log"
                return configuration.without(member)
        for candidate in self._outsiders:
            target = self._rejoin(candidate, configuration, core, now_ns)
            if target is not None:
                return target
        return self._without_a_gone_learner(configuration, core, now_ns)

    # ---- operators' requests ----

    def _step(
        self, operation: Operation, configuration: Configuration, core: MembershipCore, now_ns: int
    ) -> Configuration | None:
        """The next configuration for an operation; None: it waits. Raises Refused, ValueError."""
        slot = operation.slot
        if operation.kind == "transfer":
            self._step_transfer(operation, configuration, core, now_ns)
            return None
        if operation.kind == "remove":
            member = in_slot((*configuration.learners, *configuration.voters), slot)
            assert member is not None  # else it were done
            target = configuration.without(member)
            self._require_majority(target, core, now_ns)
            operation.begun = True
            return target
        address = operation.address
        assert address is not None
        if not self._takes_in:
            raise Refused("the application has no snapshots, so no new member can be brought up")
        there = in_slot(configuration.voters, slot)
        where = addresses_of(configuration)
        if operation.kind == "add" and there is not None:
            raise Refused(
                f"slot {slot} is a member at {format_address(where[there])} already; replace moves it elsewhere"
            )
        if operation.kind == "replace":
            if there is None:
                raise Refused(f"slot {slot} is not a member; add makes it one")
            operation.old = there
        taken = [m for m in configuration.voters if m != there and where.get(m) == address]
        if taken:
            raise Refused(f"{format_address(address)} is the address of slot {slot_of(taken[0])}")
        candidate = self._outsiders.at(slot, address)
        if candidate is None:
            operation.note = (
                f"nobody at {format_address(address)} asks to be let in as slot {slot}: start `r2p2 serve --join ... "
                f"--node-id {slot} --bind {format_address(address)}` there"
            )
            return None
        return self._let_in(candidate, operation, configuration, core, now_ns, instead_of=there)

    def _step_transfer(
        self, operation: Operation, configuration: Configuration, core: MembershipCore, now_ns: int
    ) -> None:
        member = in_slot(configuration.voters, operation.slot)
        if member is None:
            raise Refused(f"slot {operation.slot} is not a voter")
        if not operation.begun:
            operation.begun = True
            core.transfer(member, now_ns)
        elif core.transfer_target is None:
            raise Refused(f"slot {operation.slot} has not taken over within an election timeout: it lags, or is down")

    def _let_in(
        self,
        candidate: Candidate,
        operation: Operation | None,
        configuration: Configuration,
        core: MembershipCore,
        now_ns: int,
        *,
        instead_of: int | None,
    ) -> Configuration | None:
        """A candidate's way in: learner, caught up, voter. Raises Refused, ValueError."""
        member, slot = candidate.member, slot_of(candidate.member)
        if member not in configuration.learners:
            stale = in_slot(configuration.learners, slot)
            if stale is not None:  # an earlier launch that did not come this far
                return configuration.without(stale)
            self._announce = f"takes in a new launch of slot {slot} at {format_address(candidate.address)}"
            return configuration.with_learner(member, *candidate.address)
        if not core.caught_up(member):
            if operation is not None:
                operation.note = f"slot {slot} at {format_address(candidate.address)} is catching up"
            return None
        target = configuration.with_voter(member, instead_of=instead_of)
        self._require_majority(target, core, now_ns)
        self._announce = f"slot {slot} has caught up: it becomes a voter"
        return target

    def _keeps_majority(self, target: Configuration, core: MembershipCore, now_ns: int) -> bool:
        heard = sum(now_ns - core.heard_ns(voter) < self._silent_ns for voter in target.voters)
        return heard >= len(target.voters) // 2 + 1

    def _require_majority(self, target: Configuration, core: MembershipCore, now_ns: int) -> None:
        if not self._keeps_majority(target, core, now_ns):
            down = [slot_of(v) for v in target.voters if now_ns - core.heard_ns(v) >= self._silent_ns]
            raise Refused(f"of the {len(target.voters)} voters there would be, too many are down: slots {down}")

    # ---- what nobody asked for ----

    def _rejoin(
        self, candidate: Candidate, configuration: Configuration, core: MembershipCore, now_ns: int
    ) -> Configuration | None:
        """A process in the place of a member whose memory is gone, or a learner left over from an earlier leader."""
        slot = slot_of(candidate.member)
        if any(operation.slot == slot for operation in self._operations):
            return None
        old = in_slot(configuration.voters, slot)
        same_place = self._takes_in and old is not None and addresses_of(configuration).get(old) == candidate.address
        down = old is not None and now_ns - core.heard_ns(old) >= self._silent_ns
        left_over = candidate.member in configuration.learners
        if not ((same_place and down) or left_over):
            return None
        try:
            return self._let_in(candidate, None, configuration, core, now_ns, instead_of=old)
        except (Refused, ValueError):
            return None  # too many are down; it is tried again

    def _without_a_gone_learner(
        self, configuration: Configuration, core: MembershipCore, now_ns: int
    ) -> Configuration | None:
        learners = self._learners_ns
        for member in [m for m in learners if m not in configuration.learners]:
            del learners[member]
        for member in configuration.learners:
            since_ns = learners[member] = max(learners.get(member, now_ns), core.heard_ns(member))
            if now_ns - since_ns > LEARNER_GONE_NS:
                self._announce = f"takes out the learner of slot {slot_of(member)}, of which nothing is heard any more"
                return configuration.without(member)
        return None
