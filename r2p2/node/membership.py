"""Who is in the cluster and who comes in: what a member does about Hellos, operators' requests and lost memories.

The core changes a configuration when it is told to (``raft/``); here is decided when. At the leader:

* a process that says Hello from a member's address in its slot, with another incarnation, has taken the place of one
  whose memory is gone: it becomes a learner, catches up, and then one joint change puts it in the old one's place;
* an operator's request (``r2p2 member``) is carried out step by step, and answered when its change is committed;
* a learner that nobody hears of any more is taken out;
* a process that is waited for may ask others alone: at its address it is told of the cluster, and asks here, too.

Every step looks at the committed configuration alone, so a new leader goes on where the old one ended as soon as it is
asked again. At every member: a process that is not in the configuration is told so (Formed), and when as many members
have lost their memories that no majority is left, that is said, once.

Sans-IO: time is an argument; messages, answers and events are taken by the node. docs/membership.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from r2p2 import limits
from r2p2.address import format_address, parse_address
from r2p2.errors import UserError
from raft import ChangeRefused, Configuration, Formed, NotLeader, incarnation_of, member_id, slot_of
from raft.configuration import SLOT_MAX

__all__ = ["MEMBER_REQUEST", "Membership", "MembershipCore", "lost_members"]

MEMBER_REQUEST: Final = b"\x00r2p2-member "
"""An unreplicated request with this prefix, and a JSON object behind it, is for :class:`Membership`; its answer is a
JSON object, too.
"""

OPERATIONS: Final = ("add", "remove", "replace", "transfer", "list")
REQUEST_BYTES_MAX: Final = 1024
# Operators' requests at once. One change is under way at a time; the rest waits.
OPERATIONS_MAX: Final = 16
OPERATION_NS: Final = 60 * limits.SECOND
ASKERS_MAX: Final = 4  # of one request, sent again by a client that heard nothing
ASKER_PLACE_BYTES: Final = 8  # of who asked: address and ports, the same for a command's whole life
OVERRULED_MAX: Final = OPERATIONS_MAX * ASKERS_MAX
BRINGING: Final = ("add", "replace")  # requests that wait for a process
# A process that waits to be let in says so ten times a second.
CANDIDATES_MAX: Final = 64
CANDIDATE_NS: Final = 1 * limits.SECOND
# How often a leader tells those it waits for where it is; well within what a candidate is remembered.
SEEK_INTERVAL_NS: Final = 100 * limits.MS
assert 2 * SEEK_INTERVAL_NS < CANDIDATE_NS
# A learner that says nothing for so long is not coming up any more; it would hold the log back.
LEARNER_GONE_NS: Final = 10 * limits.SECOND
# Members that have left, remembered to drop what they still send.
GONE_MAX: Final = 256
TELL_INTERVAL_NS: Final = 20 * limits.MS
FORMED_MEMBERS_MAX: Final = 16


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


@dataclass(slots=True)
class Candidate:
    """A process that says Hello and is no voter; last at ``heard_ns``."""

    member: int
    address: tuple[int, int]
    heard_ns: int


Key: TypeAlias = tuple[str, int, tuple[int, int] | None]


@dataclass(slots=True)
class Operation:
    """An operator's request under way; ``note`` is what it waits for."""

    kind: str
    slot: int
    address: tuple[int, int] | None
    until_ns: int
    asked_ns: int  # last
    askers: list[bytes]
    note: str = ""
    begun: bool = False
    old: int | None = field(default=None)  # replace: who is to go

    @property
    def key(self) -> Key:
        """Equal for a request and its repetition."""
        return self.kind, self.slot, self.address


class Refused(Exception):
    """An operation cannot be done; the message says why, for the operator."""


def addresses_of(configuration: Configuration) -> dict[int, tuple[int, int]]:
    """Member id -> (ip, port)."""
    return {member: (ip, port) for member, ip, port in configuration.addresses}


def in_slot(members: Iterable[int], slot: int) -> int | None:
    """The newest known member of a slot, or None."""
    return next((member for member in members if slot_of(member) == slot), None)


def lost_members(configuration: Configuration, candidates: Iterable[Candidate]) -> tuple[int, ...]:
    """Voters whose memory is gone: another process says Hello from their address, in their slot."""
    known = addresses_of(configuration)
    newer = {(slot_of(c.member), c.address): c.member for c in candidates}
    voters = {*configuration.voters, *configuration.outgoing}
    return tuple(v for v in sorted(voters) if newer.get((slot_of(v), known.get(v, (0, 0))), v) != v)


def majority_is_lost(configuration: Configuration, lost: Iterable[int]) -> bool:
    """Whether, without ``lost``, no majority of the voters (of either half) is left."""
    gone = set(lost)
    halves = [half for half in (configuration.voters, configuration.outgoing) if half]
    return any(sum(voter not in gone for voter in half) < len(half) // 2 + 1 for half in halves)


class Membership:
    """The membership of one node.

    Args:
        member: this node's identity.
        first: the configuration that this node began with.
        silent_ns: how long without a word makes a member be down.
        on_event: told what an operator wants to know.
        takes_in: whether a process without memory could be brought up: the application has snapshots.

    Attributes:
        committed: (index, configuration) of the newest that is known to be committed; None: not known.
        lost: the members whose memory is gone, when no majority is left without them; else empty.
        removed: this member was in the configuration and is not any more.
        evicted: slots that this leader removed because they held the log, and when (ns).
    """

    def __init__(
        self,
        member: int,
        first: Configuration,
        silent_ns: int,
        on_event: Callable[[str], None],
        *,
        takes_in: bool = True,
    ) -> None:
        self._member = member
        self._first = first
        self._silent_ns = silent_ns
        self._takes_in = takes_in
        self._on_event = on_event
        self._candidates: dict[tuple[int, tuple[int, int]], Candidate] = {}  # by slot and address
        self._operations: list[Operation] = []
        # Requests that a later one has ended, by who asked: until when they are refused again, and why.
        self._overruled: dict[tuple[Key, bytes], tuple[int, str]] = {}
        self._gone: dict[int, None] = {}
        self._told_ns: dict[int, int] = {}
        self._sought_ns = -SEEK_INTERVAL_NS
        self._members: frozenset[int] = frozenset()
        self._learners_ns: dict[int, int] = {}
        self._led = False
        self._evict: int | None = None
        self._announce = ""
        self._answers: list[tuple[bytes, bytes]] = []
        self._formed: list[tuple[Formed, tuple[int, int]]] = []
        self.committed: tuple[int, Configuration] | None = None
        self.lost: tuple[int, ...] = ()
        self.removed = False
        self.evicted: dict[int, int] = {}

    # ---- what comes in ----

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

    def hello(self, sender: int, address: tuple[int, int], now_ns: int) -> None:
        """A Hello of a process that is no voter of the committed configuration."""
        if self.committed is None:
            return
        index, configuration = self.committed
        if configuration.is_voter(sender):
            return
        self._tell(index, configuration, sender, address)
        place = (slot_of(sender), address)
        known = self._candidates.get(place)
        if known is not None and known.member == sender:
            known.heard_ns = now_ns
        elif known is not None or len(self._candidates) < CANDIDATES_MAX:
            self._candidates[place] = Candidate(sender, address, now_ns)

    def stranger(self, sender: int, address: tuple[int, int], now_ns: int) -> None:
        """A Raft message of somebody who is no member: it is told, unless it was just now."""
        if self.committed is None or sender in self.committed[1].members:
            return
        if now_ns - self._told_ns.get(sender, -TELL_INTERVAL_NS) < TELL_INTERVAL_NS:
            return
        if len(self._told_ns) >= CANDIDATES_MAX:
            self._told_ns.clear()
        self._told_ns[sender] = now_ns
        self._tell(*self.committed, sender, address)

    def _tell(self, index: int, configuration: Configuration, target: int, address: tuple[int, int]) -> None:
        # One member a slot: the target itself where it is one, so that it never reads that it is not.
        told = {slot_of(member): incarnation_of(member) for member in configuration.members}
        if target in configuration.members:
            told[slot_of(target)] = incarnation_of(target)
        pairs = sorted(told.items())
        if len(pairs) > FORMED_MEMBERS_MAX:
            pairs = sorted(sorted(pairs, key=lambda pair: pair[0] != slot_of(target))[:FORMED_MEMBERS_MAX])
        self._formed.append((Formed(slot_of(self._member), slot_of(target), index, tuple(pairs)), address))

    def told(self, formed: Formed, core: MembershipCore) -> bool:
        """A Formed for a running member: True when it says that this one has been removed.

        A sender tells committed configurations only, so one of a higher index without this member is its end; so is one
        of the same index where the one in this member's log leaves it out, committed as far as it knows or not. It has
        to name somebody whom this member knows: incarnations are random numbers, so that is a sign of this cluster,
        which another one with the same cluster id, or a stray datagram, cannot give.
        """
        mine = (slot_of(self._member), incarnation_of(self._member))
        members = core.configuration.members
        # Who waits to be let in has been in none, and only been told of one.
        since_index = core.configuration_index + (self._member in members)
        return (
            core.has_been_member
            and formed.term >= since_index
            and mine not in formed.members
            and len(formed.members) < FORMED_MEMBERS_MAX
            and any(member_id(slot, incarnation) in members for slot, incarnation in formed.members)
        )

    def request(self, payload: bytes, asker: bytes, core: MembershipCore | None, now_ns: int) -> bytes | None:
        """An operator's request: its answer, or None when that comes later (:meth:`take_answers`)."""
        try:
            operation = self._parse(payload, asker, now_ns)
        except UserError as error:
            return _refusal("bad_request", str(error))
        if core is None or self.committed is None:
            return _refusal("not_formed", "this member is not in a cluster yet")
        if operation.kind == "list":
            return json.dumps({"ok": True, "leads": core.leads, **self.describe(core, now_ns)}).encode()
        if not core.leads:
            return self._not_leader(core)
        for known in self._operations:
            if known.key == operation.key:
                known.asked_ns = now_ns
                if asker not in known.askers:
                    known.askers = [*known.askers, asker][-ASKERS_MAX:]
                return None
        return self._take(operation, now_ns)

    def _take(self, operation: Operation, now_ns: int) -> bytes | None:
        """A request that does not wait yet. Those that wait to bring somebody to its slot end: carried out beside it,
        each would undo what the other does.
        """
        until_ns, text = self._overruled.get((operation.key, operation.askers[0][:ASKER_PLACE_BYTES]), (0, ""))
        if now_ns < until_ns:  # a command that has not heard that it is over repeats its request
            return _refusal("refused", text)
        ends: list[Operation] = []
        if operation.kind != "transfer":
            ends = [o for o in self._operations if o.slot == operation.slot and o.kind in BRINGING]
        if len(self._operations) - len(ends) >= OPERATIONS_MAX:
            return _refusal("busy", f"{OPERATIONS_MAX} changes are waiting already")
        for known in ends:
            text = f"{operation.kind} {operation.slot} was asked for later and takes its place"
            for asker in known.askers:
                if len(self._overruled) >= OVERRULED_MAX:
                    del self._overruled[next(iter(self._overruled))]
                self._overruled[known.key, asker[:ASKER_PLACE_BYTES]] = now_ns + limits.MEMBER_REPEAT_NS, text
            self._refuse(known, "refused", text)
        self._operations.append(operation)
        return None

    def _parse(self, payload: bytes, asker: bytes, now_ns: int) -> Operation:
        if len(payload) > REQUEST_BYTES_MAX:
            raise UserError(f"a member request of {len(payload)} bytes, over {REQUEST_BYTES_MAX}")
        try:
            asked = json.loads(payload[len(MEMBER_REQUEST) :])
        except (ValueError, RecursionError):
            raise UserError("a member request that is not JSON") from None
        if not isinstance(asked, dict) or asked.get("op") not in OPERATIONS:
            raise UserError(f"a member request without op, one of {', '.join(OPERATIONS)}")
        kind, slot, text = asked["op"], asked.get("slot", 0), asked.get("address")
        if not isinstance(slot, int) or isinstance(slot, bool) or not 0 <= slot <= SLOT_MAX:
            raise UserError(f"slot {slot!r} is not a number in 0..{SLOT_MAX}")
        if text is not None and not isinstance(text, str):
            raise UserError("address is not a text")
        address = parse_address(text) if text else None
        if kind in ("add", "replace") and address is None:
            raise UserError(f"{kind} needs the address of the new member")
        return Operation(kind, slot, address, now_ns + OPERATION_NS, now_ns, [asker])

    def evict(self, member: int) -> None:
        """Remove ``member``, which is down and holds the log: the truncation policy says so."""
        self._evict = member

    @property
    def committed_configuration(self) -> Configuration:
        """The newest known to be committed, or else in force at the start."""
        return self.committed[1] if self.committed is not None else self._first

    # ---- what goes out ----

    def take_answers(self) -> list[tuple[bytes, bytes]]:
        """(asker, answer) of requests that have ended, each once."""
        answers, self._answers = self._answers, []
        return answers

    def take_formed(self) -> list[tuple[Formed, tuple[int, int]]]:
        """(message, address) to send, each once."""
        formed, self._formed = self._formed, []
        return formed

    @property
    def busy(self) -> bool:
        """Whether :meth:`drive` may have something to do."""
        return bool(self._operations or self._candidates or self._learners_ns or self._evict is not None or self.lost)

    # ---- the decisions ----

    def drive(self, core: MembershipCore, now_ns: int) -> None:
        """Does what is due; call it after every poll that may have changed something, and at every heartbeat."""
        configuration = core.configuration
        # Who waits to be let in has only been told of a configuration, and must not tell on.
        remembers = core.configuration_index > 0 or self._member in configuration.members
        if core.configuration_committed and remembers:
            self.committed = (core.configuration_index, configuration)
        settled = core.configuration_committed and not configuration.joint
        for place in [place for place, candidate in self._candidates.items() if self._is_over(candidate, now_ns)]:
            del self._candidates[place]
        self._look_for_a_lost_majority(core)
        if settled:
            self._end_what_is_done(core, configuration, now_ns)
        if not core.leads:
            self._led = False
            self._learners_ns.clear()
            self._evict = None
            self._hand_over(core)
            return
        if not self._led:
            self._led = True
            self.evicted.clear()
        self._expire(now_ns)
        self._seek(core, now_ns)
        if not settled:
            return
        self._announce = ""
        try:
            target = self._next_target(core, configuration, now_ns)
            if target is not None:
                core.propose_configuration(target, now_ns)
                self._learners_ns |= dict.fromkeys(set(target.learners) - self._learners_ns.keys(), now_ns)
                if self._announce:
                    self._on_event(self._announce)
        except (ChangeRefused, NotLeader):
            return  # not yet: a leader's own first entry has to be committed before; the next drive asks again

    def _is_over(self, candidate: Candidate, now_ns: int) -> bool:
        assert self.committed is not None
        return now_ns - candidate.heard_ns > CANDIDATE_NS or self.committed[1].is_voter(candidate.member)

    def _look_for_a_lost_majority(self, core: MembershipCore) -> None:
        lost: tuple[int, ...] = ()
        if self.committed is not None and self._candidates and core.leader_id is None:
            lost = lost_members(core.configuration, self._candidates.values())
            if not majority_is_lost(core.configuration, lost):
                lost = ()
        if lost and lost != self.lost:
            slots = ", ".join(str(slot_of(member)) for member in lost)
            self._on_event(
                f"A MAJORITY HAS LOST ITS MEMORY: the members of slots {slots} were launched anew at once. Nothing "
                "can be committed any more. What this member has applied is still here, and ends with its process; to "
                "begin anew, empty, stop every member, then start all"
            )
        self.lost = lost

    def _end_what_is_done(self, core: MembershipCore, configuration: Configuration, now_ns: int) -> None:
        done = [(o, text) for o in self._operations if (text := self._done(o, configuration, core))]
        for operation, _ in done:  # before any is answered: an answer says what still waits
            self._operations.remove(operation)
        for operation, text in done:
            answer = json.dumps({"ok": True, "text": text, **self.describe(core, now_ns)}).encode()
            self._answers.extend((asker, answer) for asker in operation.askers)

    def _done(self, operation: Operation, configuration: Configuration, core: MembershipCore) -> str:
        """What to say of an operation that a committed configuration shows to be done; empty: it is not."""
        slot, where = operation.slot, addresses_of(configuration)
        there = in_slot(configuration.voters, slot)
        if operation.kind == "remove" and in_slot(configuration.members, slot) is None:
            return f"slot {slot} is not a member" + (" any more" if operation.begun else "")
        comes = operation.kind in ("add", "replace")
        if comes and there is not None and there != operation.old and where.get(there) == operation.address:
            return f"slot {slot} at {format_address(where[there])} is a member"
        if operation.kind == "transfer" and core.leader_id is not None and slot_of(core.leader_id) == slot:
            return f"slot {slot} leads"
        return ""

    def _hand_over(self, core: MembershipCore) -> None:
        """This member does not lead, so it carries nothing out; a transfer waits until it knows who does."""
        for operation in list(self._operations):
            if operation.kind != "transfer" or core.leader_id is not None:
                self._end(operation, self._not_leader(core))

    def _expire(self, now_ns: int) -> None:
        for operation in list(self._operations):
            if now_ns >= operation.until_ns:
                self._refuse(operation, "timeout", operation.note or "it was not done in time")
            elif not operation.begun and now_ns - operation.asked_ns >= limits.MEMBER_REPEAT_NS:
                self._refuse(operation, "timeout", "nobody asks for it any more")

    def _seek(self, core: MembershipCore, now_ns: int) -> None:
        """Tells who is waited for and does not ask here: whom requests name, learners, who replaces the silent."""
        if self.committed is None or now_ns - self._sought_ns < SEEK_INTERVAL_NS:
            return
        self._sought_ns = now_ns
        index, configuration = self.committed
        sought = {
            (slot_of(member), address): member
            for member, address in addresses_of(configuration).items()
            if member in configuration.learners or now_ns - core.heard_ns(member) >= self._silent_ns
        }
        for operation in self._operations:
            if operation.address is not None:
                sought.setdefault((operation.slot, operation.address), member_id(operation.slot, 0))
        for place, member in sought.items():
            if place not in self._candidates:
                self._tell(index, configuration, member, place[1])

    def _next_target(self, core: MembershipCore, configuration: Configuration, now_ns: int) -> Configuration | None:
        """The next configuration to go to: operators first, then lost members, then what is left over."""
        for operation in list(self._operations):
            try:
                target = self._step(operation, configuration, core, now_ns)
            except Refused as refused:
                self._refuse(operation, "refused", str(refused))
                continue
            except ValueError as error:  # of a Configuration: bounds, or no voters left
                self._refuse(operation, "refused", str(error))
                continue
            if target is not None:
                return target
        if self._evict is not None:
            member, self._evict = self._evict, None
            if member in configuration.voters and self._keeps_majority(configuration.without(member), core, now_ns):
                self.evicted[slot_of(member)] = now_ns
                self._announce = f"evicts slot {slot_of(member)}, which is down and holds the log"
                return configuration.without(member)
        for candidate in self._candidates.values():
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
        candidate = self._candidates.get((slot, address))
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

    # ---- answers ----

    def describe(self, core: MembershipCore, now_ns: int) -> dict[str, Any]:
        """The configuration for people, and what is under way."""
        configuration = core.configuration
        where = addresses_of(configuration)
        rows = []
        for member in sorted(configuration.members, key=slot_of):
            row: dict[str, Any] = {
                "slot": slot_of(member),
                "incarnation": f"{incarnation_of(member):016x}",
                "address": format_address(where[member]) if member in where else "",
                "voter": member in configuration.voters,
                "outgoing": member in configuration.outgoing,
                "learner": member in configuration.learners,
                "leader": member == core.leader_id,
            }
            if core.leads:
                row["silent_ms"] = round(max(0, now_ns - core.heard_ns(member)) / limits.MS, 1)
            rows.append(row)
        return {
            "configuration_index": core.configuration_index,
            "committed": core.configuration_committed,
            "members": rows,
            "waiting": [{"op": o.kind, "slot": o.slot, "note": o.note} for o in self._operations if core.leads],
            "knocking": [
                {"slot": slot_of(c.member), "address": format_address(c.address)} for c in self._candidates.values()
            ],
        }

    def _not_leader(self, core: MembershipCore) -> bytes:
        leader = core.leader_id
        where = addresses_of(core.configuration)
        known = format_address(where[leader]) if leader is not None and leader in where else None
        return json.dumps(
            {"ok": False, "error": "not_leader", "text": "this member does not lead", "leader": known}
        ).encode()

    def _end(self, operation: Operation, answer: bytes) -> None:
        self._operations.remove(operation)
        self._answers.extend((asker, answer) for asker in operation.askers)

    def _refuse(self, operation: Operation, error: str, text: str) -> None:
        self._end(operation, _refusal(error, text))


def _refusal(error: str, text: str) -> bytes:
    return json.dumps({"ok": False, "error": error, "text": text}).encode()
