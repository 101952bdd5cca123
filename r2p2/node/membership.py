"""Who is in the cluster and who comes in: what a member does about Hellos, operators' requests and lost memories.

The core changes a configuration when it is told to (``raft/``); here is decided when, and in
:mod:`r2p2.node.changes` to which. At the leader:

* a process that says Hello from a member's address in its slot, with another incarnation, has taken the place of one
  whose memory is gone: it becomes a learner, catches up, and then one joint change puts it in the old one's place;
* an operator's request (``r2p2 member``) is carried out step by step, and answered when its change is committed;
* a learner that nobody hears of any more is taken out;
* a process that is waited for may ask others alone: at its address it is told of the cluster, and asks here, too.

Every step looks at the committed configuration alone, so a new leader goes on where the old one ended as soon as it is
asked again. At every member: a process that is not in the configuration is told so (Formed), and when as many members
have lost their memories that no majority is left, that is said, once.

Leaves to others: requests until they are carried out (:mod:`r2p2.node.member_requests`), who knocks and what it is told
(:mod:`r2p2.node.outsiders`). Sans-IO: time is an argument; messages, answers and events are taken by the node.
docs/membership.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from r2p2 import limits
from r2p2.address import format_address
from r2p2.errors import UserError
from r2p2.node.changes import Changes
from r2p2.node.configurations import addresses_of, in_slot, lost_members, majority_is_lost
from r2p2.node.member_requests import Operation, Operations, parse_operation, refusal
from r2p2.node.membership_core import MembershipCore
from r2p2.node.outsiders import CANDIDATE_NS, FORMED_MEMBERS_MAX, Outsiders
from raft import ChangeRefused, Configuration, Formed, NotLeader, incarnation_of, member_id, slot_of

__all__ = ["Membership"]

# How often a leader tells those it waits for where it is; well within what a candidate is remembered.
SEEK_INTERVAL_NS: Final = 100 * limits.MS
assert 2 * SEEK_INTERVAL_NS < CANDIDATE_NS


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
        self._on_event = on_event
        self._operations = Operations()
        self._outsiders = Outsiders(member)
        self._sought_ns = -SEEK_INTERVAL_NS
        self._changes = Changes(self._operations, self._outsiders, silent_ns, on_event, takes_in=takes_in)
        self._led = False
        self.committed: tuple[int, Configuration] | None = None
        self.lost: tuple[int, ...] = ()
        self.removed = False

    # ---- what comes in ----

    def configuration_changed(self, configuration: Configuration) -> None:
        """Another configuration is in force; who has left it is remembered as gone."""
        self._outsiders.configuration_changed(configuration)

    def is_gone(self, member: int) -> bool:
        """Whether it has left: what it sends is a dead member's."""
        return self._outsiders.is_gone(member)

    def hello(self, sender: int, address: tuple[int, int], now_ns: int) -> None:
        """A Hello of a process that is no voter of the committed configuration."""
        if self.committed is None:
            return
        index, configuration = self.committed
        if configuration.is_voter(sender):
            return
        self._outsiders.tell(index, configuration, sender, address)
        self._outsiders.hello(sender, address, now_ns)

    def stranger(self, sender: int, address: tuple[int, int], now_ns: int) -> None:
        """A Raft message of somebody who is no member: it is told, unless it was just now."""
        if self.committed is not None and sender not in self.committed[1].members:
            self._outsiders.tell_stranger(*self.committed, sender, address, now_ns)

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
            operation = parse_operation(payload, asker, now_ns)
        except UserError as error:
            return refusal("bad_request", str(error))
        if core is None or self.committed is None:
            return refusal("not_formed", "this member is not in a cluster yet")
        if operation.kind == "list":
            return json.dumps({"ok": True, "leads": core.leads, **self.describe(core, now_ns)}).encode()
        if not core.leads:
            return self._not_leader(core)
        return self._operations.take(operation, now_ns)

    def evict(self, member: int) -> None:
        """Remove ``member``, which is down and holds the log: the truncation policy says so."""
        self._changes.evict(member)

    @property
    def committed_configuration(self) -> Configuration:
        """The newest known to be committed, or else in force at the start."""
        return self.committed[1] if self.committed is not None else self._first

    @property
    def evicted(self) -> Mapping[int, int]:
        """Slots that this leader removed because they held the log, and when (ns)."""
        return self._changes.evicted

    # ---- what goes out ----

    def take_answers(self) -> list[tuple[bytes, bytes]]:
        """(asker, answer) of requests that have ended, each once."""
        return self._operations.take_answers()

    def take_formed(self) -> list[tuple[Formed, tuple[int, int]]]:
        """(message, address) to send, each once."""
        return self._outsiders.take_formed()

    @property
    def busy(self) -> bool:
        """Whether :meth:`drive` may have something to do."""
        return bool(self._operations or self._outsiders or self._changes.busy or self.lost)

    # ---- the decisions ----

    def drive(self, core: MembershipCore, now_ns: int) -> None:
        """Does what is due; call it after every poll that may have changed something, and at every heartbeat."""
        configuration = core.configuration
        # Who waits to be let in has only been told of a configuration, and must not tell on.
        remembers = core.configuration_index > 0 or self._member in configuration.members
        if core.configuration_committed and remembers:
            self.committed = (core.configuration_index, configuration)
        settled = core.configuration_committed and not configuration.joint
        self._outsiders.forget(None if self.committed is None else self.committed[1], now_ns)
        self._look_for_a_lost_majority(core)
        if settled:
            self._end_what_is_done(core, configuration, now_ns)
        if not core.leads:
            self._led = False
            self._changes.forget()
            self._hand_over(core)
            return
        if not self._led:
            self._led = True
            self._changes.evicted.clear()
        self._operations.expire(now_ns)
        self._seek(core, now_ns)
        if not settled:
            return
        try:
            target = self._changes.next_target(core, configuration, now_ns)
            if target is not None:
                core.propose_configuration(target, now_ns)
                self._changes.begun(target, now_ns)
        except (ChangeRefused, NotLeader):
            return  # not yet: a leader's own first entry has to be committed before; the next drive asks again

    def _look_for_a_lost_majority(self, core: MembershipCore) -> None:
        lost: tuple[int, ...] = ()
        if self.committed is not None and self._outsiders and core.leader_id is None:
            lost = lost_members(core.configuration, [(c.member, c.address) for c in self._outsiders])
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
            self._operations.answer(operation, answer)

    def _done(self, operation: Operation, configuration: Configuration, core: MembershipCore) -> str:
        """What to say of an operation that a committed configuration shows to be done; empty: it is not."""
        slot, where = operation.slot, addresses_of(configuration)
        there = in_slot(configuration.voters, slot)
        if operation.kind == "remove" and in_slot(configuration.members, slot) is None:
            return f"slot {slot} is not a member" + (" any more" if operation.begun else "")
        if operation.brings and there is not None and there != operation.old and where.get(there) == operation.address:
            return f"slot {slot} at {format_address(where[there])} is a member"
        if operation.kind == "transfer" and core.leader_id is not None and slot_of(core.leader_id) == slot:
            return f"slot {slot} leads"
        return ""

    def _hand_over(self, core: MembershipCore) -> None:
        """This member does not lead, so it carries nothing out; a transfer waits until it knows who does."""
        for operation in self._operations:
            if operation.kind != "transfer" or core.leader_id is not None:
                self._operations.end(operation, self._not_leader(core))

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
            if self._outsiders.at(*place) is None:
                self._outsiders.tell(index, configuration, member, place[1])

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
            "knocking": [{"slot": slot_of(c.member), "address": format_address(c.address)} for c in self._outsiders],
        }

    def _not_leader(self, core: MembershipCore) -> bytes:
        leader = core.leader_id
        where = addresses_of(core.configuration)
        known = format_address(where[leader]) if leader is not None and leader in where else None
        return json.dumps(
            {"ok": False, "error": "not_leader", "text": "this member does not lead", "leader": known}
        ).encode()
