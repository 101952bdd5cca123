"""What a node knows, in one place, and how it changes its term and role.

The state machine is a chain of classes over this state, a file for each job: elections.py, following.py, reading.py,
leading.py, steady.py, and core.py with the verbs. None but core.py is meant to be used by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from raft.config import Chance, Config, HardState, Log, Role
from raft.configuration import Configuration, History
from raft.messages import (
    Message,
    ReadIndexReply,
)
from raft.progress import Progress
from raft.reads import Read, Reads
from raft.ready import AbandonSnapshot, LogOp
from raft.roles import TRANSITIONS
from raft.snapshots import Incoming, Snapshot
from raft.term_runs import TermRuns

# Why a message was ignored; the keys of Raft.ignored.
IGNORED = ("not_member", "old_term", "old_reply", "leader_alive", "impossible", "other_kind")

FOLLOWER = Role.FOLLOWER
PRE_CANDIDATE = Role.PRE_CANDIDATE
CANDIDATE = Role.CANDIDATE
LEADER = Role.LEADER


class Unpersisted:
    """A Ready whose durability is awaited.

    ``last_index``: the log is durable through it once the Ready is; lowered when a later truncation takes part of it
    back. ``vote_term``: the term in which it holds a candidate's own vote, else 0.
    """

    __slots__ = ("last_index", "messages", "number", "vote_term")

    def __init__(self, number: int, last_index: int, vote_term: int, messages: list[Message]) -> None:
        self.number = number
        self.last_index = last_index
        self.vote_term = vote_term
        self.messages = messages


class State:
    """Everything a node knows."""

    __slots__ = (
        "_after",
        "_append_bytes_max",
        "_commit_due_ns",
        "_compact_index",
        "_config",
        "_configuration_changed",
        "_departing",
        "_durable_index",
        "_election_deadline_ns",
        "_election_timeout_ns",
        "_hard_changed",
        "_heard_ns",
        "_heartbeat_due_ns",
        "_history",
        "_incoming",
        "_inflight_bytes_max",
        "_inflight_max",
        "_is_outsider",
        "_log",
        "_log_ops",
        "_log_unstable",
        "_me",
        "_membership_open",
        "_needed_term",
        "_node_id",
        "_now_ns",
        "_number",
        "_out",
        "_outgoing",
        "_own_vote_pending",
        "_peers",
        "_peers_list",
        "_pending",
        "_reads",
        "_resend_ns",
        "_rng",
        "_round",
        "_runs",
        "_snapshot",
        "_taking_over",
        "_term_first_index",
        "_transfer_deadline_ns",
        "_transfer_urged",
        "_unpersisted",
        "_voters",
        "_votes",
        "_was_member",
        "applied_index",
        "commit_index",
        "deadline_ns",
        "first_index",
        "global_commit",
        "ignored",
        "last_index",
        "leader_id",
        "removed",
        "role",
        "term",
        "transfer_target",
        "vote",
    )

    def __init__(
        self,
        config: Config,
        log_sizes: Log,
        *,
        rng: Chance,
        now_ns: int,
        hard_state: HardState | None = None,
        term_runs: TermRuns | None = None,
        configurations: Sequence[tuple[int, Configuration]] = (),
    ) -> None:
        """A fresh member, or one that restarts from what it had made durable: ``hard_state``, the ``term_runs`` of its
        log, and the ``configurations`` of its snapshot and its log (index of the entry, configuration), if any.

        A restarted member has applied nothing but the dropped prefix; the caller restores that much of the state
        machine.
        """
        self._config = config
        self._inflight_max = config.inflight_max
        self._inflight_bytes_max = config.inflight_bytes_max
        self._append_bytes_max = config.append_bytes_max
        self._node_id = config.node_id
        self._log = log_sizes
        self._rng = rng
        self._now_ns = now_ns
        self._runs = term_runs.copy() if term_runs is not None else TermRuns()

        self.role = FOLLOWER
        self.term = hard_state.term if hard_state else 0
        self.vote: int | None = hard_state.vote if hard_state else None
        if self._runs.last_term > self.term:
            raise ValueError(f"term_runs: the log has term {self._runs.last_term}, the hard state {self.term}")
        self.leader_id: int | None = None
        self.last_index = self._runs.last_index
        self.first_index = self._runs.base_index + 1
        self.commit_index = self.applied_index = self.global_commit = self._runs.base_index
        self.ignored: dict[str, int] = dict.fromkeys(IGNORED, 0)

        # Output of the next Ready. _pending: there is any, or there may be Appends to make.
        self._pending = False
        self._number = 0
        self._hard_changed = False
        self._own_vote_pending = False
        self._log_unstable = False
        self._log_ops: list[LogOp] = []
        self._out: list[Message] = []
        self._after: list[Message] = []  # to be withheld until what they claim is durable
        self._unpersisted: deque[Unpersisted] = deque()
        self._durable_index = self.last_index

        # Elections.
        self._votes: set[int] = set()
        self._heard_ns = now_ns  # a follower: the last Append of its leader
        self._resend_ns = 0
        self._election_timeout_ns = 0
        self._election_deadline_ns = 0
        self._taking_over = False  # a candidate: the leader asked for it

        # Leading.
        self._round = 0
        self._heartbeat_due_ns = 0
        self._commit_due_ns: int | None = None  # when members are told of commits they do not know; None: they all do
        self._term_first_index = 0  # index of the no-op that opened this leader's term
        self._reads = Reads(rng.random())
        self.transfer_target: int | None = None
        self._transfer_deadline_ns = 0
        self._transfer_urged = False  # asked since the last heartbeat
        self._me = Progress(config.node_id)
        # Whom there is; members.py derives all of it from the configuration in force.
        known = list(configurations)
        if not known or known[0][0] > self._runs.base_index:  # its entry may be taken back: to what was before it
            known.insert(0, (0, Configuration(tuple(sorted(config.members)))))
        self._history = History(known)
        self._membership_open = True  # a configuration in force that is not known to be committed
        self._is_outsider = False  # no voter of the configuration in force
        self._was_member = False
        self._needed_term = -1  # in which somebody counts on our vote, and our log is ahead of its
        self.removed = False  # a committed change has left this member out: it has nothing to do any more
        self._peers: dict[int, Progress] = {}
        self._peers_list: list[Progress] = []
        self._voters: list[Progress] = []  # with ourselves, where we are one
        self._outgoing: list[Progress] = []  # the old voters of a joint configuration
        self._departing: dict[int, int] = {}  # removed members that are still told so, until a time in ns

        # Snapshots: what we can send, how far the log may go, what we are being sent.
        self._snapshot: Snapshot | None = None
        self._compact_index = 0
        self._incoming: Incoming | None = None

        self._derive_members(now_ns)
        self._configuration_changed = self._pending = False  # to be told in the next Ready; this one is known
        self.deadline_ns = 0
        self._draw_election_timeout(now_ns)

    def _derive_members(self, now_ns: int) -> None:
        """Everything that follows from the configuration in force (members.py)."""
        raise NotImplementedError

    @property
    def configuration(self) -> Configuration:
        """In force: the newest in the log, committed or not."""
        return self._history.current

    def configuration_at(self, index: int) -> Configuration:
        """What was in force at ``index``, first_index - 1 or later."""
        return self._history.at(index)

    def _change_role(self, role: Role) -> None:
        if role is not self.role or role is PRE_CANDIDATE or role is CANDIDATE:
            assert (self.role, role) in TRANSITIONS, f"no member goes from {self.role} to {role}"
        self.role = role

    def _newer_or_same(self, message: Message, now_ns: int) -> bool:
        """Steps down to a newer term; False (and counted) for an older one."""
        if message.term > self.term:
            self._become_follower(message.term, now_ns)
        elif message.term < self.term:
            self.ignored["old_term"] += 1
            return False
        return True

    def _become_follower(self, term: int, now_ns: int) -> None:
        """Follows in ``term``, of a leader not yet known. The vote is forgotten only with its term.

        A follower's election timer runs on: only a leader's Append or a vote given to somebody restarts it, so a
        node that cannot win does not keep those quiet who can.
        """
        if term != self.term:
            self._abandon_snapshot()
            self.term = term
            self.vote = None
            self._hard_changed = True
            self._pending = True
        if self.role is not FOLLOWER:
            self._change_role(FOLLOWER)
            self._pending = True
            self._draw_election_timeout(now_ns)
        self._forget_leader()
        self._taking_over = False
        self.transfer_target = None
        self._own_vote_pending = False
        self._votes.clear()

    def _forget_leader(self) -> None:
        """Nobody is known to lead, so nobody will confirm the reads that wait."""
        self.leader_id = None
        reads = self._reads
        if reads.waiting or reads.asked:
            for read in reads.fail():
                self._answer_read(read, granted=False)
            self._pending = True

    def _abandon_snapshot(self) -> None:
        """What has come of a snapshot is of no use any more: its leader's term is over, or the log has passed it."""
        if self._incoming is not None:
            self._incoming = None
            self._log_ops.append(AbandonSnapshot())
            self._pending = True

    def _answer_read(self, read: Read, *, granted: bool) -> None:
        index = read.index if granted else 0
        reply = ReadIndexReply(self._node_id, read.member, self.term, read.context, index, granted, read.request_id)
        self._out.append(reply)
        self._pending = True

    def _draw_election_timeout(self, now_ns: int) -> None:
        config = self._config
        span_ns = config.election_max_ns - config.election_min_ns
        self._election_timeout_ns = config.election_min_ns + int(self._rng.random() * span_ns)
        self._election_deadline_ns = self.deadline_ns = now_ns + self._election_timeout_ns

    def _leader_alive(self, now_ns: int) -> bool:
        """Whether this node leads, or has heard its leader within the shortest election timeout."""
        if self.role is LEADER:
            return True
        return self.leader_id is not None and now_ns - self._heard_ns < self._config.election_min_ns
