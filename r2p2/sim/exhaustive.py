"""Every run of a tiny cluster: breadth-first search over the states of the real core, within bounds.

The network is a set that only grows: any message in it may be delivered at any time and any number of times, or
never. That is loss, duplication and every order at once. Time is left out: a timeout, a heartbeat, a proposal, a
restart may happen whenever the bounds allow. What is the same but for clocks and counters is one state.

What is checked in each state: one leader a term; a leader holds everything committed in earlier terms; committed
entries agree everywhere and for ever; equal (index, term) means equal logs up to there.

Left to others: what needs time (pre-votes, stickiness, check quorum: the seeded simulator) and slow disks.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import TypeAlias

from r2p2.sim.checkers import Violation
from r2p2.sim.node import Disk
from raft import Append, Config, HardState, Message, Raft, Role
from raft.list_log import Entry, ListLog
from raft.progress import Progress

HEARTBEAT_NS = 1_000

Key: TypeAlias = tuple[object, ...]
Step: TypeAlias = tuple[object, ...]  # who does what, with which message


@dataclass(frozen=True)
class Bounds:
    """What keeps the search finite: members, terms, rounds of a term, proposals and restarts of a run, states."""

    members_count: int = 3
    term_max: int = 2
    round_max: int = 3
    proposals_max: int = 1
    restarts_max: int = 0
    states_max: int = 20_000


class _Middle:
    """Chance without any: all election timeouts are equal, and none is waited for."""

    def random(self) -> float:
        """Always the same."""
        return 0.5


_CHANCE = _Middle()
_LISTS = {"_out", "_after", "_log_ops"}  # empty between actions
_COPIED = {"_runs", "_peers", "_peers_list", "_voters", "_me", "_votes", "_unpersisted", "_log"} | _LISTS


class _Node:
    """A member between actions: never changed once it is part of a state; ``copy`` is what an action works on."""

    __slots__ = ("hard_state", "key", "log", "raft")

    def __init__(self, raft: Raft, log: ListLog, hard_state: HardState | None) -> None:
        self.raft = raft
        self.log = log
        self.hard_state = hard_state  # as its Readies wanted it written
        self.key: Key = ()

    def copy(self) -> _Node:
        old, raft = self.raft, Raft.__new__(type(self.raft))
        for name in _slots(type(old)):
            if name not in _COPIED:
                setattr(raft, name, getattr(old, name))
        log = ListLog(self.log.entries, first_index=self.log.first_index)
        raft._log = log
        raft._runs = old._runs.copy()
        raft._me = _copy_progress(old._me)
        raft._peers = {member: _copy_progress(peer) for member, peer in old._peers.items()}
        raft._peers_list = list(raft._peers.values())
        raft._voters = [raft._me, *raft._peers_list]
        raft._votes = set(old._votes)
        raft._unpersisted = deque()
        raft._out, raft._after, raft._log_ops = [], [], []
        return _Node(raft, log, self.hard_state)

    def finish(self) -> list[Message]:
        """Does the work that is ready, all durable at once; what goes to the network. Fixes the key."""
        raft, log = self.raft, self.log
        out: list[Message] = []
        while raft.has_ready():
            ready = raft.ready()
            self.hard_state = ready.hard_state or self.hard_state
            for op in ready.log_ops:
                log.execute(op)
            for message in (*ready.messages, *raft.persisted(ready.number)):
                if isinstance(message, Append) and message.count:
                    first = message.prev_index + 1
                    message.payload = tuple(log.slice(first, message.prev_index + message.count))
                out.append(message)
            if ready.commit_index > raft.applied_index:
                raft.applied(ready.commit_index)
            if ready.forget_index:
                log.drop_prefix(ready.forget_index)
        peers = tuple(_progress_key(peer) for peer in raft._peers_list) if raft.role is Role.LEADER else ()
        self.key = (
            self.hard_state,
            raft.role,
            raft.term,
            raft.vote,
            raft.leader_id,
            log.first_index,
            tuple(log.entries),
            raft.commit_index,
            raft.applied_index,
            raft.global_commit,
            frozenset(raft._votes),
            raft._round if raft.role is Role.LEADER else 0,
            peers,
        )
        return out


def _slots(cls: type) -> tuple[str, ...]:
    names = _SLOTS.get(cls)
    if names is None:
        slots = [getattr(base, "__slots__", ()) for base in cls.__mro__]
        names = _SLOTS[cls] = tuple(itertools.chain.from_iterable(slots))
    return names


_SLOTS: dict[type, tuple[str, ...]] = {}


def _copy_progress(old: Progress) -> Progress:
    new = Progress.__new__(type(old))
    for name in _slots(type(old)):
        setattr(new, name, getattr(old, name))
    new.inflight = deque(old.inflight)
    return new


def _progress_key(peer: Progress) -> Key:
    return (
        peer.state,
        peer.match_index,
        peer.next_index,
        peer.applied_index,
        peer.epoch_round,
        peer.sent_commit,
        peer.probe_sent,
        tuple(peer.inflight),
    )


def _message_key(message: Message) -> Key:
    return (message.KIND, *(astuple(message)))


class _State:
    """Members, everything ever sent, and what is needed to judge: leaders by term, the longest committed log."""

    __slots__ = ("committed", "leaders", "messages", "nodes", "parent", "proposals", "restarts", "what")

    def __init__(
        self,
        nodes: tuple[_Node, ...],
        messages: dict[Key, Message],
        leaders: frozenset[tuple[int, int]],
        committed: tuple[tuple[int, Entry], ...],  # (term of the leader that committed it, entry)
        proposals: int,
        restarts: int,
    ) -> None:
        self.nodes = nodes
        self.messages = messages
        self.leaders = leaders
        self.committed = committed
        self.proposals = proposals
        self.restarts = restarts
        self.parent: _State | None = None
        self.what: Step = ("start",)

    def key(self) -> Key:
        nodes = tuple(node.key for node in self.nodes)
        return (nodes, frozenset(self.messages), self.leaders, self.committed, self.proposals, self.restarts)

    def path(self) -> list[str]:
        """What led here, first to last."""
        steps: list[str] = []
        state: _State | None = self
        while state is not None:
            steps.append(" ".join(map(str, state.what)))
            state = state.parent
        return steps[::-1]


@dataclass
class Explored:
    """How far a search went. ``complete``: nothing within the bounds is left."""

    states: int
    transitions: int
    depth: int
    complete: bool


class Search:
    """Breadth first, so that the path to a violation is a shortest one. ``raft_class``: the core, or a mutant of it."""

    def __init__(self, bounds: Bounds, raft_class: type[Raft] = Raft) -> None:
        """Nothing is explored yet."""
        self.bounds = bounds
        self.raft_class = raft_class
        self.members = tuple(range(bounds.members_count))

    def run(self) -> Explored:
        """Explores; raises Violation with the steps that lead to it."""
        start = _State(tuple(self._fresh(i, None, ListLog()) for i in self.members), {}, frozenset(), (), 0, 0)
        seen = {hash(start.key())}
        level = [start]
        transitions = depth = 0
        while level:
            following: list[_State] = []
            for state in level:
                for successor in self._successors(state):
                    transitions += 1
                    key = hash(successor.key())
                    if key in seen:
                        continue
                    seen.add(key)
                    following.append(successor)
                    if len(seen) >= self.bounds.states_max:
                        return Explored(len(seen), transitions, depth + 1, False)
                state.nodes, state.messages = (), {}  # only the path to here is still needed
            level = following
            depth += bool(level)
        return Explored(len(seen), transitions, depth, True)

    def _fresh(self, i: int, hard_state: HardState | None, log: ListLog) -> _Node:
        config = Config(
            i,
            self.members,
            heartbeat_ns=HEARTBEAT_NS,
            election_min_ns=10 * HEARTBEAT_NS,
            election_max_ns=20 * HEARTBEAT_NS,
            inflight_max=2,
            pre_vote=False,
            check_quorum=False,
        )
        terms = Disk(hard_state, log).term_runs()
        raft = self.raft_class(config, log, rng=_CHANCE, now_ns=0, hard_state=hard_state, term_runs=terms)
        node = _Node(raft, log, hard_state)
        node.finish()
        return node

    def _successors(self, state: _State) -> Iterator[_State]:
        bounds = self.bounds
        for message in state.messages.values():
            target = message.target
            yield from self._act(state, target, (target, "gets", message), partial(_deliver, message))
        for i, node in enumerate(state.nodes):
            raft = node.raft
            if raft.role is Role.LEADER:
                if raft._round < bounds.round_max:
                    yield from self._act(state, i, (i, "heartbeat"), lambda node: node.raft._heartbeat(HEARTBEAT_NS))
                if state.proposals < bounds.proposals_max:
                    for successor in self._act(state, i, (i, "propose"), partial(_propose, state.proposals)):
                        successor.proposals += 1
                        yield successor
            elif raft.term < bounds.term_max:
                yield from self._act(state, i, (i, "timeout"), lambda node: node.raft._campaign(0))
            if state.restarts < bounds.restarts_max and node.log.first_index == 1:
                again = self._fresh(i, node.hard_state, ListLog(node.log.entries))
                yield self._next(state, i, again, [], (i, "restart"), restarts=1)

    def _act(self, state: _State, i: int, what: Step, action: Callable[[_Node], None]) -> Iterator[_State]:
        old = state.nodes[i]
        if old.raft._round > self.bounds.round_max:
            return
        node = old.copy()
        try:
            action(node)
            sent = node.finish()
        except (ValueError, LookupError, RuntimeError) as error:
            raise self._violation("exception", repr(error), state, what) from error
        if node.key == old.key and all(_message_key(message) in state.messages for message in sent):
            return
        yield self._next(state, i, node, sent, what)

    def _next(
        self, state: _State, i: int, node: _Node, sent: list[Message], what: Step, *, restarts: int = 0
    ) -> _State:
        nodes = (*state.nodes[:i], node, *state.nodes[i + 1 :])
        messages = state.messages
        if sent:
            messages = messages | {_message_key(message): message for message in sent}
        raft, leaders, committed = node.raft, state.leaders, state.committed
        if raft.role is Role.LEADER and (raft.term, i) not in leaders:
            if any(term == raft.term for term, _ in leaders):
                raise self._violation("election safety", f"two leaders in term {raft.term}", state, what)
            leaders = leaders | {(raft.term, i)}
            for index, (term, entry) in enumerate(committed, 1):
                if node.log.first_index <= index and term < raft.term:
                    ours = node.log.entry(index) if index <= node.log.last_index else None
                    if ours != entry:
                        raise self._violation("leader completeness", f"{i} has {ours}, not {entry}", state, what)
        if raft.commit_index >= node.log.first_index:
            mine = node.log.slice(node.log.first_index, raft.commit_index)
            known = [entry for _, entry in committed[node.log.first_index - 1 : raft.commit_index]]
            if known != mine[: len(known)]:
                raise self._violation("state machine safety", f"{i} commits {mine}, agreed was {known}", state, what)
            if raft.commit_index > len(committed):
                new = mine[len(known) :]
                committed += tuple((raft.term, entry) for entry in new)
        self._log_matching(nodes, i, state, what)
        successor = _State(nodes, messages, leaders, committed, state.proposals, state.restarts + restarts)
        successor.parent, successor.what = state, what
        return successor

    def _log_matching(self, nodes: tuple[_Node, ...], i: int, state: _State, what: Step) -> None:
        mine = nodes[i].log
        for other in (node.log for j, node in enumerate(nodes) if j != i):
            low = max(mine.first_index, other.first_index)
            high = min(mine.last_index, other.last_index)
            same = False
            for index in range(high, low - 1, -1):
                ours, theirs = mine.entry(index), other.entry(index)
                same = same or ours[0] == theirs[0]
                if same and ours != theirs:
                    raise self._violation("log matching", f"{i} at {index}: {ours}, elsewhere {theirs}", state, what)

    def _violation(self, checker: str, detail: str, state: _State, what: Step) -> Violation:
        steps = "\n  ".join([*state.path(), " ".join(map(str, what))])
        return Violation(checker, f"{detail}, {self.bounds}\n  {steps}")


def _deliver(message: Message, node: _Node) -> None:
    node.raft.step(replace(message), 0)


def _propose(value: int, node: _Node) -> None:
    node.log.append(node.raft.term, value, 16)
    node.raft.propose(1, 0)
