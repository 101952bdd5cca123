"""Every run of a tiny cluster: breadth-first search over the states of the real core, within bounds.

The network is a set that only grows: any message in it may be delivered at any time and any number of times, or
never. That is loss, duplication and every order at once. Time is left out: a timeout, a heartbeat, a proposal, a
restart, a change of members may happen whenever the bounds allow. What is the same but for clocks and counters is one
state.

What is checked in each state: one leader a term; a leader holds everything committed in earlier terms; committed
entries agree everywhere and for ever; equal (index, term) means equal logs up to there.

States are cheap because members are few and alike: the core runs once for each (state of one member, action) and that
is remembered, so a state of the cluster is a few small numbers: one a member, a bit set of messages, one for what has
been led and committed. Of a state that was seen 8 bytes are kept, and where it came from; two different states taken
for one are as likely as the square of their number in 2**65.

Left to others: the states of one member (locals.py); what needs time (pre-votes, stickiness, check quorum: the seeded
simulator) and slow disks.
"""

from __future__ import annotations

import gc
from array import array
from collections.abc import Generator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeAlias

from r2p2.sim.locals import CHANGE, HEARTBEAT, PROPOSE, RESTART, TIMEOUT, Locals
from r2p2.sim.violation import Violation
from raft import Raft
from raft.list_log import Entry

_DIGEST_BYTES = 8
_SLOTS = 16  # members of a cluster at most, and so the radix of a recorded step

# What a cluster is: states of members, bit set of messages, aux, proposals, restarts, changes; and where it was found.
_State: TypeAlias = tuple[tuple[int, ...], int, int, int, int, int, int]
# What has been: (term, leader) pairs; committed entries with the term of the leader that committed them.
_Past: TypeAlias = tuple[frozenset[tuple[int, int]], tuple[tuple[int, Entry], ...]]


@dataclass(frozen=True)
class Bounds:
    """What keeps the search finite: members, terms, rounds of a term; proposals, restarts and changes of members of a
    run; states.
    """

    members_count: int = 3
    term_max: int = 2
    round_max: int = 3
    proposals_max: int = 1
    restarts_max: int = 0
    changes_max: int = 0
    states_max: int = 20_000


@dataclass
class Explored:
    """How far a search went. ``complete``: nothing within the bounds is left; ``widths``: new states by depth."""

    states: int
    transitions: int
    depth: int
    complete: bool
    locals_count: int = 0
    messages_count: int = 0
    widths: list[int] = field(default_factory=list)


class Search:
    """Breadth first, so that the path to a violation is a shortest one. ``raft_class``: the core, or a mutant of it."""

    def __init__(self, bounds: Bounds, raft_class: type[Raft] = Raft) -> None:
        """Nothing is explored yet."""
        self.bounds = bounds
        self.locals = Locals(bounds.members_count, raft_class)
        self._pasts: dict[_Past, int] = {}
        self._past_of: list[_Past] = []
        self._judged: dict[tuple[int, int, int], int] = {}  # (past, member, its state) -> past
        self._matching: set[tuple[int, int]] = set()  # pairs of states whose logs match
        self._parents = array("I")
        self._steps = array("q")

    def run(self) -> Explored:
        """Explores; raises Violation with the steps that lead to it."""
        enabled = gc.isenabled()
        gc.disable()  # millions of tuples without a cycle among them
        try:
            return self._run()
        finally:
            if enabled:
                gc.enable()

    def _run(self) -> Explored:
        bounds = self.bounds
        members = tuple(self.locals.fresh(i) for i in range(bounds.members_count))
        start: _State = (members, 0, self._past((frozenset(), ())), 0, 0, 0, 0)
        self._parents.append(0)
        self._steps.append(0)
        seen = {self._digest(start)}
        level = [start]
        widths: list[int] = []
        transitions = 0
        complete = True
        while level and complete:
            widths.append(len(level))
            following: list[_State] = []
            for state in level:
                for successor, step in self._successors(state):
                    transitions += 1
                    digest = self._digest(successor)
                    if digest in seen:
                        continue
                    seen.add(digest)
                    following.append((*successor[:6], len(self._parents)))
                    self._parents.append(state[6])
                    self._steps.append(step)
                if len(seen) >= bounds.states_max:
                    complete = False
                    break
            level = following
        if level:
            widths.append(len(level))
        return Explored(
            len(seen),
            transitions,
            len(widths) - 1,
            complete,
            self.locals.count,
            self.locals.messages_count,
            widths,
        )

    @staticmethod
    def _digest(state: _State) -> int:
        members, messages, past, proposals, restarts, changes, _ = state
        numbers = (*members, past, proposals << 16 | restarts << 8 | changes)
        head = b"".join([number.to_bytes(4, "big") for number in numbers])
        data = head + messages.to_bytes((messages.bit_length() + 7) >> 3, "big")
        return int.from_bytes(blake2b(data, digest_size=_DIGEST_BYTES).digest(), "big")

    def _past(self, past: _Past) -> int:
        number = self._pasts.get(past)
        if number is None:
            number = self._pasts[past] = len(self._past_of)
            self._past_of.append(past)
        return number

    def _successors(self, state: _State) -> Generator[tuple[_State, int], None, None]:
        bounds, known = self.bounds, self.locals
        members, messages, past, proposals, restarts, changes, number = state
        for i, local in enumerate(members):
            facts = known.facts[local]
            actions: list[int] = []
            if facts.round <= bounds.round_max:
                candidates = messages & known.for_target[i] & ~facts.inert
                while candidates:
                    low = candidates & -candidates
                    candidates ^= low
                    actions.append(low.bit_length() - 1)
                if facts.leads:
                    if facts.round < bounds.round_max:
                        actions.append(HEARTBEAT)
                    if proposals < bounds.proposals_max:
                        actions.append(PROPOSE - proposals)
                    if changes < bounds.changes_max:
                        actions += [CHANGE - j for j in range(bounds.members_count)]
                elif facts.term < bounds.term_max:
                    actions.append(TIMEOUT)
            if restarts < bounds.restarts_max and facts.restartable:
                actions.append(RESTART)
            for action in actions:
                result = facts.results.get(action)
                if result is None:
                    try:
                        result = known.act(i, local, action)
                    except (ValueError, LookupError, RuntimeError, AssertionError) as error:
                        raise self._violation("exception", repr(error), number, i, action) from error
                after, sent = result
                if after == local and not sent & ~messages:
                    continue
                others = (*members[:i], after, *members[i + 1 :])
                new_past = past
                if after != local:
                    judged = self._judged.get((past, i, after))
                    if judged is None:
                        judged = self._judged[past, i, after] = self._judge(past, i, after, number, action)
                    new_past = judged
                    for j, other in enumerate(others):
                        if j != i and (after, other) not in self._matching:
                            self._log_matching(i, after, j, other, number, action)
                yield (
                    (
                        others,
                        messages | sent,
                        new_past,
                        proposals + (CHANGE < action <= PROPOSE),
                        restarts + (action == RESTART),
                        changes + (action <= CHANGE),
                        0,
                    ),
                    action * _SLOTS + i,
                )

    def _judge(self, past: int, i: int, local: int, number: int, action: int) -> int:
        """What has been, with this member in this state; raises Violation where it must not be so."""
        leaders, committed = self._past_of[past]
        facts = self.locals.facts[local]
        term, first, entries = facts.term, facts.first_index, facts.entries
        if facts.leads and (term, i) not in leaders:
            if any(led == term for led, _ in leaders):
                raise self._violation("election safety", f"two leaders in term {term}", number, i, action)
            leaders = leaders | {(term, i)}
            for index, (of_term, entry) in enumerate(committed, 1):
                if first <= index and of_term < term:
                    ours = entries[index - first] if index < first + len(entries) else None
                    if ours != entry:
                        raise self._violation("leader completeness", f"{i} has {ours}, not {entry}", number, i, action)
        commit = facts.commit_index
        if commit >= first:
            mine = entries[: commit + 1 - first]
            agreed = tuple(entry for _, entry in committed[first - 1 : commit])
            if agreed != mine[: len(agreed)]:
                raise self._violation("state machine safety", f"{i} commits {mine}, not {agreed}", number, i, action)
            if commit > len(committed):
                committed += tuple((term, entry) for entry in mine[len(agreed) :])
        return self._past((leaders, committed))

    def _log_matching(self, i: int, mine: int, j: int, other: int, number: int, action: int) -> None:
        ours, theirs = self.locals.facts[mine], self.locals.facts[other]
        low = max(ours.first_index, theirs.first_index)
        high = min(ours.first_index + len(ours.entries), theirs.first_index + len(theirs.entries)) - 1
        same = False
        for index in range(high, low - 1, -1):
            a, b = ours.entries[index - ours.first_index], theirs.entries[index - theirs.first_index]
            same = same or a[0] == b[0]
            if same and a != b:
                raise self._violation("log matching", f"{i} at {index}: {a}, {j}: {b}", number, i, action)
        self._matching.add((mine, other))
        self._matching.add((other, mine))

    def _violation(self, checker: str, detail: str, number: int, i: int, action: int) -> Violation:
        steps = [self.locals.describe(i, action)]
        while number:
            action, i = divmod(self._steps[number], _SLOTS)
            steps.append(self.locals.describe(i, action))
            number = self._parents[number]
        path = "\n  ".join(["start", *steps[::-1]])
        return Violation(checker, f"{detail}, {self.bounds}\n  {path}")
