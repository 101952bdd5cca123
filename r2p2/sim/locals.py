"""The states of single members, and what each action makes of them: run once by the real core, then remembered.

A member is its core, log and durable term and vote, all writes durable at once. Its key is everything the core holds
but clocks, counters, and what only a leader's role gives a meaning to; so a field that the core gets tomorrow is part
of the key without anybody's doing. Cores are kept pickled, which copies them, too.

Left to others: which actions, in what order (exhaustive.py).
"""

from __future__ import annotations

import itertools
import pickle
from collections import deque
from collections.abc import Hashable
from dataclasses import astuple, replace
from enum import Enum
from typing import Final

from r2p2.sim.node import Disk
from raft import Append, ChangeRefused, Config, Configuration, HardState, Message, Raft, Role
from raft.list_log import Entry, ListLog

TIMEOUT: Final = -1
HEARTBEAT: Final = -2
RESTART: Final = -3
PROPOSE: Final = -4  # and below: the value
CHANGE: Final = -64  # and below: the member that comes or goes
HEARTBEAT_NS: Final = 1_000

# Clocks, counters, settings, and copies of what is in the key under another name.
_NOT_IN_KEY: Final = frozenset(
    (
        "_config",
        "_log",
        "_rng",
        "_reads",
        "_number",
        "_now_ns",
        "_heard_ns",
        "_resend_ns",
        "_election_deadline_ns",
        "_election_timeout_ns",
        "deadline_ns",
        "ignored",
        "_append_bytes_max",
        "_inflight_max",
        "_inflight_bytes_max",
        "_peers",
        "_voters",
        "_outgoing",
        "_unpersisted",
        "_durable_index",
        "_departing",
        "heard_ns",
        "progress_ns",
        "acked_round",
        "sent_round",
        "catch_ns",
        "catch_index",
        "caught_up",
    )
)
# Left over from leading, or for it: set anew when a term begins.
_LEADERS_ONLY: Final = frozenset(
    ("_round", "_term_first_index", "_peers_list", "_me", "transfer_target", "_transfer_urged")
)


class _Middle:
    """Chance without any: all election timeouts are equal, and none is waited for."""

    def random(self) -> float:
        """Always the same."""
        return 0.5


class Facts:
    """What the search asks about a state of a member. ``results``: by action, the state after it and the bit set of
    messages it sends; ``inert``: the bit set of messages that change nothing and are answered by nothing.
    """

    __slots__ = (
        "commit_index",
        "entries",
        "first_index",
        "inert",
        "leads",
        "pickled",
        "restartable",
        "results",
        "round",
        "term",
    )

    def __init__(self, raft: Raft, log: ListLog, pickled: bytes) -> None:
        self.pickled = pickled
        self.leads = raft.role is Role.LEADER
        self.round = raft._round if self.leads else 0
        self.term = raft.term
        self.commit_index = raft.commit_index
        self.first_index = log.first_index
        self.entries: tuple[Entry, ...] = tuple(log.entries)
        self.restartable = log.first_index == 1
        self.results: dict[int, tuple[int, int]] = {}
        self.inert = 0


class Locals:
    """All of them, numbered as they are met."""

    def __init__(self, members_count: int, raft_class: type[Raft]) -> None:
        """None yet."""
        self.members = tuple(range(members_count))
        self.raft_class = raft_class
        self.facts: list[Facts] = []
        self.for_target = [0] * members_count  # bit sets of messages
        self._numbers: dict[Hashable, int] = {}
        self._messages: list[Message] = []
        self._message_numbers: dict[Hashable, int] = {}

    @property
    def count(self) -> int:
        """Of states of members."""
        return len(self.facts)

    @property
    def messages_count(self) -> int:
        """Of different messages."""
        return len(self._messages)

    def fresh(self, i: int) -> int:
        """A member that has never run."""
        return self._finish(self._start(i, None, ListLog()), None)[0]

    def act(self, i: int, local: int, action: int) -> tuple[int, int]:
        """The state after it and the bit set of messages it sends."""
        facts = self.facts[local]
        raft, hard_state = pickle.loads(facts.pickled)
        if action >= 0:
            raft.step(replace(self._messages[action]), 0)
        elif action == TIMEOUT:
            raft._campaign(0)
        elif action == HEARTBEAT:
            raft._heartbeat(HEARTBEAT_NS)
        elif action == RESTART:
            raft = self._start(i, hard_state, ListLog(facts.entries))
        elif action > CHANGE:
            raft._log.append(raft.term, PROPOSE - action, 16)
            raft.propose(1, 0)
        else:
            self._change(raft, CHANGE - action)
        result = self._finish(raft, hard_state)
        if action >= 0 and result == (local, 0):
            facts.inert |= 1 << action
        facts.results[action] = result
        return result

    def describe(self, i: int, action: int) -> str:
        """For a path."""
        if action >= 0:
            return f"{i} gets {self._messages[action]}"
        if action > CHANGE:
            return f"{i} " + ({TIMEOUT: "timeout", HEARTBEAT: "heartbeat", RESTART: "restart"}.get(action, "propose"))
        return f"{i} adds or removes {CHANGE - action}"

    @staticmethod
    def _change(raft: Raft, other: int) -> None:
        current = raft.configuration
        if current.voters == (other,):
            return
        target = current.without(other) if other in current.voters else current.with_voter(other)
        try:
            raft.propose_configuration(target, 0)
        except ChangeRefused:
            return

    def _start(self, i: int, hard_state: HardState | None, log: ListLog) -> Raft:
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
        disk = Disk(hard_state, log)
        known = disk.configurations()
        return self.raft_class(
            config,
            log,
            rng=_Middle(),
            now_ns=0,
            hard_state=hard_state,
            term_runs=disk.term_runs(),
            configurations=[(0, Configuration(self.members)), *known] if known else [],
        )

    def _finish(self, raft: Raft, hard_state: HardState | None) -> tuple[int, int]:
        """Does the work that is ready, all durable at once."""
        log = raft._log
        assert isinstance(log, ListLog)
        sent = 0
        while raft.has_ready():
            ready = raft.ready()
            hard_state = ready.hard_state or hard_state
            for op in ready.log_ops:
                log.execute(op)
            for message in (*ready.messages, *raft.persisted(ready.number)):
                if isinstance(message, Append) and message.count:
                    first = message.prev_index + 1
                    message.payload = tuple(log.slice(first, message.prev_index + message.count))
                sent |= 1 << self._message(message)
            if ready.commit_index > raft.applied_index:
                raft.applied(ready.commit_index)
            if ready.forget_index:
                log.drop_prefix(ready.forget_index)
        key = (raft._node_id, hard_state, log.first_index, tuple(log.entries), _key(raft))
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.facts)
            self.facts.append(Facts(raft, log, pickle.dumps((raft, hard_state), pickle.HIGHEST_PROTOCOL)))
        return number, sent

    def _message(self, message: Message) -> int:
        key = (message.KIND, *(_plain(value) for value in astuple(message)))
        number = self._message_numbers.get(key)
        if number is None:
            number = self._message_numbers[key] = len(self._messages)
            self._messages.append(message)
            self.for_target[message.target] |= 1 << number
        return number


def _slots(cls: type) -> tuple[str, ...]:
    names = _SLOTS.get(cls)
    if names is None:
        slots = [getattr(base, "__slots__", ()) for base in cls.__mro__]
        names = _SLOTS[cls] = tuple(sorted(set(itertools.chain.from_iterable(slots)) - _NOT_IN_KEY))
    return names


_SLOTS: dict[type, tuple[str, ...]] = {}


def _key(raft: Raft) -> Hashable:
    names = _slots(type(raft))
    if raft.role is not Role.LEADER:
        names = tuple(name for name in names if name not in _LEADERS_ONLY)
    return tuple(_plain(getattr(raft, name)) for name in names)


def _plain(value: object) -> Hashable:
    """A value that is equal for equal contents, whatever it is made of."""
    if value is None or isinstance(value, int | str | bytes | Enum | Configuration | HardState):
        return value
    if isinstance(value, list | tuple | deque):
        return tuple(map(_plain, value))
    if isinstance(value, set | frozenset):
        return frozenset(map(_plain, value))
    if isinstance(value, dict):
        return frozenset((_plain(name), _plain(item)) for name, item in value.items())
    names = _slots(type(value))
    if not names:
        raise TypeError(f"no key for {value!r}")
    return (type(value).__name__, *(_plain(getattr(value, name)) for name in names))
