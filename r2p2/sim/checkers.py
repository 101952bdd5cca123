"""Judges of a simulated run. They look at logs, disks and what was said, never into the core's reasoning.

Each checker is told of a member after anything happened to it and raises :class:`Violation`. What they hold, by the
dissertation's names (figure 3.2):

* election safety: at most one leader a term; and one vote a member and term, restarts included;
* log matching: an (index, term) names one entry with one predecessor, everywhere and for ever;
* leader completeness: a new leader's log holds everything committed in earlier terms;
* commit: what a leader commits is on the disks of a majority, and so survives any minority's loss;
* state machine safety: at each index every member applies the same entry;
* monotony: terms, commit, applied and global commit of one process never fall, a term not even over a restart;
* linearizable reads: a read sees at least what anybody had applied when it was asked for;
* forgetting: nobody drops an entry that some member's disk does not hold.

Left to others: making things happen (world.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from r2p2.sim.node import Disk, SimNode
from raft import Message, Role, Vote, VoteReply
from raft.list_log import Entry


class Violation(AssertionError):
    """A property does not hold; ``checker`` names it."""

    def __init__(self, checker: str, detail: str) -> None:
        """What, and the numbers."""
        super().__init__(f"{checker}: {detail}")
        self.checker = checker


@dataclass
class Checkers:
    """All of them over one run. ``disk_of`` gives a member's disk whether it runs or not."""

    members: tuple[int, ...]
    disk_of: Callable[[int], Disk]
    leaders: dict[int, int] = field(default_factory=dict)  # term -> member
    votes: dict[tuple[int, int], int] = field(default_factory=dict)  # (member, term) -> candidate
    names: dict[tuple[int, int], tuple[object, int]] = field(
        default_factory=dict
    )  # (index, term) -> (value, term before)
    committed: dict[int, Entry] = field(default_factory=dict)
    committed_in: dict[int, int] = field(default_factory=dict)  # index -> term of the leader that committed it
    committed_last: int = 0
    applied_last: int = 0  # what some member has applied, so that a client may have been told
    reads: dict[tuple[int, int, int], int] = field(default_factory=dict)  # (member, life, ticket) -> applied_last then
    terms: dict[int, int] = field(default_factory=dict)  # member -> highest term it has told anybody
    _seen: dict[int, tuple[int, int, int, int, int, int]] = field(default_factory=dict)
    _checked_log: dict[int, int] = field(default_factory=dict)

    def started(self, member: int, node: SimNode) -> None:
        """A process starts, the first or a later one of this member."""
        if node.raft.term < self.terms.get(member, 0):
            raise Violation("monotony", f"{member} restarts in term {node.raft.term}, it was in {self.terms[member]}")
        self._seen.pop(member, None)
        self._checked_log[member] = node.log.first_index
        self.after(member, node, ())

    def after(self, member: int, node: SimNode, sent: Sequence[Message]) -> None:
        """Something happened to ``node``, and it sent these."""
        raft = node.raft
        for message in sent:
            self._said(member, message)
        now = (raft.term, raft.commit_index, raft.applied_index, raft.global_commit, raft.first_index, raft.last_index)
        before = self._seen.get(member)
        if before is not None and any(new < old for new, old in zip(now[:5], before[:5], strict=True)):
            raise Violation("monotony", f"{member}: (term, commit, applied, global, first) {before[:5]} -> {now[:5]}")
        self._seen[member] = now
        if not now[3] <= now[2] <= now[1] <= now[5] or now[4] > now[3] + 1:
            raise Violation("monotony", f"{member}: global <= applied <= commit <= last does not hold: {now}")
        if raft.role is Role.LEADER:
            self._leads(member, node)
        self._log_matching(member, node)
        self._commits(member, node)
        for index, entry in node.applied:
            self._agreed(member, "applies", index, entry)
            self.applied_last = max(self.applied_last, index)
        node.applied.clear()
        if before is None or raft.first_index > before[4]:
            self._forgets(member, raft.first_index - 1)

    def read_asked(self, member: int, life: int, ticket: int) -> None:
        """A read starts."""
        self.reads[member, life, ticket] = self.applied_last

    def read_confirmed(self, member: int, life: int, ticket: int, index: int) -> None:
        """It may be answered from a state machine that has applied ``index``."""
        known = self.reads.pop((member, life, ticket), None)
        if known is None:
            raise Violation("linearizable reads", f"{member} confirms ticket {ticket}, which nobody waits for")
        if index < known:
            raise Violation("linearizable reads", f"{member} reads at {index}, {known} was applied when it was asked")

    def _said(self, member: int, message: Message) -> None:
        if message.sender != member:
            raise Violation("election safety", f"{member} speaks as {message.sender}")
        if isinstance(message, VoteReply) and message.granted:
            self._votes_for(member, message.term, message.target)
        elif isinstance(message, Vote):
            self._votes_for(member, message.term, member)
        if message.KIND > 2:  # a pre-vote's term is nobody's yet
            self.terms[member] = max(self.terms.get(member, 0), message.term)

    def _votes_for(self, member: int, term: int, candidate: int) -> None:
        earlier = self.votes.setdefault((member, term), candidate)
        if earlier != candidate:
            raise Violation("election safety", f"{member} votes in term {term} for {earlier} and for {candidate}")

    def _leads(self, member: int, node: SimNode) -> None:
        term = node.raft.term
        if term in self.leaders:
            if self.leaders[term] != member:
                raise Violation("election safety", f"{self.leaders[term]} and {member} lead in term {term}")
            return
        self.leaders[term] = member
        hard_state = self.disk_of(member).hard_state
        if hard_state is not None and hard_state.term == term and hard_state.vote is not None:
            self._votes_for(member, term, hard_state.vote)
        voters = [voter for voter in self.members if self.votes.get((voter, term)) == member]
        if len(voters) <= len(self.members) // 2:
            raise Violation("election safety", f"{member} leads in term {term} by the votes of {voters} only")
        log = node.log
        for index, entry in self.committed.items():
            if index < log.first_index or self.committed_in[index] >= term:
                continue  # a candidate of an older term may still win it, late, and will commit nothing
            if index > log.last_index or log.entry(index) != entry:
                ours = log.entry(index) if index <= log.last_index else "nothing"
                raise Violation("leader completeness", f"{member} in term {term} has {ours} at {index}, not {entry}")

    def _log_matching(self, member: int, node: SimNode) -> None:
        """Entries above the last look; all of the log again where it was cut."""
        log = node.log
        start = max(log.first_index, min(self._checked_log.get(member, 1), log.last_index))
        while start > log.first_index and self._unknown(log.entry(start), start):
            start -= 1  # something below was replaced since
        for index in range(start, log.last_index + 1):
            term, value, _ = log.entry(index)
            before = log.entry(index - 1)[0] if index > log.first_index else node.raft._runs.base_term
            name = self.names.setdefault((index, term), (value, before))
            if name != (value, before):
                raise Violation("log matching", f"{member} at ({index}, {term}): {(value, before)}, elsewhere {name}")
        self._checked_log[member] = log.last_index

    def _unknown(self, entry: Entry, index: int) -> bool:
        return (index, entry[0]) not in self.names

    def _commits(self, member: int, node: SimNode) -> None:
        commit = node.raft.commit_index
        for index in range(max(self.committed_last + 1, node.log.first_index), commit + 1):
            entry = node.log.entry(index)
            holders = [other for other in self.members if self._holds(self.disk_of(other), index, entry)]
            if len(holders) <= len(self.members) // 2:
                raise Violation("commit", f"{member} commits {index} {entry}, which only {holders} have on disk")
            self.committed[index] = entry
            self.committed_in[index] = node.raft.term
            self.committed_last = index
        if commit >= node.log.first_index:
            self._agreed(member, "commits", commit, node.log.entry(commit))

    @staticmethod
    def _holds(disk: Disk, index: int, entry: Entry) -> bool:
        log = disk.log
        return index < log.first_index or (index <= log.last_index and log.entry(index) == entry)

    def _agreed(self, member: int, verb: str, index: int, entry: Entry) -> None:
        agreed = self.committed.get(index)
        if agreed != entry:
            raise Violation("state machine safety", f"{member} {verb} {entry} at {index}, agreed was {agreed}")

    def _forgets(self, member: int, through_index: int) -> None:
        for other in self.members:
            last = self.disk_of(other).log.last_index
            if last < through_index:
                raise Violation("forgetting", f"{member} forgets through {through_index}, {other} holds through {last}")
