"""Judges of a simulated run. They look at logs, disks and what was said, never into the core's reasoning.

Each is told of a member after anything happened to it and raises :class:`Violation`. What they hold, by the
dissertation's names (figure 3.2):

* election safety: at most one leader a term, by the votes of a majority; one vote a member and term, restarts included;
* log matching: an (index, term) names one entry with one predecessor, everywhere and for ever;
* leader completeness: a new leader's log holds everything committed in earlier terms;
* commit: what a leader commits is on the disks of a majority, of both halves of a joint configuration, and so survives
  any minority's loss; nobody commits what no leader has;
* membership: no leader begins a change before the last one, and an entry of its own term, is committed;
* state machine safety: at each index every member applies the same entry, and is then in the same state, whether it got
  there by the log or by a snapshot;
* monotony: terms, commit, applied and global commit of one process never fall, a term not even over a restart;
* linearizable reads: a read sees at least what anybody had applied when it was asked for;
* snapshots: nobody keeps pieces of one whose rest will not come, or is not needed;
* forgetting: nobody drops an entry that neither every member's disk nor a snapshot of its own holds.

Which configuration is in force they read from the logs themselves. Left to others: making things happen (world.py),
what clients saw (histories.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from r2p2.sim.node import Disk, SimNode
from r2p2.sim.violation import Violation
from raft import (
    Append,
    AppendReply,
    Configuration,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    Role,
    Vote,
    VoteReply,
)
from raft.list_log import Entry

__all__ = ["Checkers", "Violation"]

# Whoever sends one of these has made its term durable. A pre-vote's term is nobody's yet, and asking for a read, or
# refusing one, promises nothing.
_BINDING = (Vote, VoteReply, Append, AppendReply, InstallSnapshot, InstallSnapshotReply)


class _Seen:
    """One process, as of the last look."""

    __slots__ = ("applied", "commit", "configuration", "configuration_index", "first", "global_commit", "led", "term")

    def __init__(self) -> None:
        self.term = self.commit = self.applied = self.global_commit = self.first = 0
        self.led = 0  # the term in which it was last seen to lead
        self.configuration_index = 0
        self.configuration = Configuration((0,))


class Checkers:
    """All of them over one run. ``disk_of`` gives a member's disk whether it runs or not, or is gone for ever."""

    def __init__(self, members: tuple[int, ...], disk_of: Callable[[int], Disk]) -> None:
        """``members``: whom the cluster begins with."""
        self.first_configuration = Configuration(tuple(sorted(members)))
        self.disk_of = disk_of
        self.leaders: dict[int, int] = {}  # term -> member
        self.votes: dict[tuple[int, int], int] = {}  # (member, term) -> candidate
        self.names: dict[tuple[int, int], tuple[object, int]] = {}  # (index, term) -> (value, term before)
        self.committed: dict[int, Entry] = {}
        self.committed_in: dict[int, int] = {}  # index -> term of the leader that committed it
        self.committed_last = 0
        self.committing: set[int] = set()  # terms whose leader has committed something
        self.configurations: list[tuple[int, Configuration]] = [(0, self.first_configuration)]  # committed ones
        self.digests: dict[int, int] = {}  # applied index -> state
        self.applied_last = 0  # what some member has applied, so that a client may have been told
        self.forgettable = 0  # every member's disk has held the log through here
        # Snapshots have let the log through here go somewhere. A member that restarts behind one takes that for the
        # global commit, and tells it as a leader: whoever misses entries then gets a snapshot.
        self.compacted = 0
        self.reads: dict[tuple[int, int, int], int] = {}  # (member, life, ticket) -> applied_last then
        self.terms: dict[int, int] = {}  # member -> highest term it has told anybody
        self._seen: dict[int, _Seen] = {}

    @property
    def configuration(self) -> Configuration:
        """The newest one that is committed."""
        return self.configurations[-1][1]

    def started(self, member: int, node: SimNode) -> None:
        """A process starts, the first or a later one of this member."""
        if node.raft.term < self.terms.get(member, 0):
            raise Violation("monotony", f"{member} restarts in term {node.raft.term}, it was in {self.terms[member]}")
        self._seen.pop(member, None)
        node.touched_from = node.log.first_index if node.log.entries else 0
        self.after(member, node, ())

    def after(self, member: int, node: SimNode, sent: Sequence[Message]) -> None:
        """Something happened to ``node``, and it sent these."""
        raft = node.raft
        for message in sent:
            self._said(member, message)
        seen = self._seen.get(member)
        if seen is None:
            seen = self._seen[member] = _Seen()
            seen.configuration_index, seen.configuration = self._in_force(node)
        term, commit, applied = raft.term, raft.commit_index, raft.applied_index
        global_commit, first = raft.global_commit, raft.first_index
        if (
            term < seen.term
            or commit < seen.commit
            or applied < seen.applied
            or global_commit < seen.global_commit
            or first < seen.first
        ):
            before = (seen.term, seen.commit, seen.applied, seen.global_commit, seen.first)
            now = (term, commit, applied, global_commit, first)
            raise Violation("monotony", f"{member}: (term, commit, applied, global, first) {before} -> {now}")
        if not global_commit <= applied <= commit <= raft.last_index or first > applied + 1:
            raise Violation(
                "monotony",
                f"{member}: global <= applied <= commit <= last does not hold: "
                f"{(global_commit, applied, commit, raft.last_index)}, first {first}",
            )
        if node.incoming:
            self._still_comes(member, node)
        if node.touched_from:
            self._log_matching(member, node)
        before_index, before_configuration = seen.configuration_index, seen.configuration
        restored = node.restores_count > 0
        if restored or 0 < node.touched_from <= before_index:
            seen.configuration_index, seen.configuration = self._in_force(node)
            node.restores_count = 0
        for index, configuration in node.configurations:
            seen.configuration_index, seen.configuration = index, configuration
        node.configurations.clear()
        node.touched_from = 0
        if raft.role is Role.LEADER:
            if seen.led != term:
                seen.led = term
                self._leads(member, node, seen.configuration)
            elif seen.configuration_index > before_index and not before_configuration.outgoing:
                self._changes(member, node, before_index)
        if commit > self.committed_last:
            if seen.led != term:  # led: it may have left office with that very commit, which left it out
                raise Violation("commit", f"{member} commits {commit}, leaders {self.committed_last}")
            self._commits(member, node, seen, before_index, before_configuration)
        if seen.led == term and global_commit > max(self.forgettable, self.compacted):
            self._all_hold(member, global_commit, seen.configuration)
        if commit != seen.commit and commit >= node.log.first_index:
            self._agreed(member, "commits", commit, node.log.entry(commit))
        for index, entry in node.applied:
            self._agreed(member, "applies", index, entry)
        node.applied.clear()
        if applied != seen.applied:
            self.applied_last = max(self.applied_last, applied)
            digest = node.digests[applied]
            if applied and self.digests.setdefault(applied, digest) != digest:
                raise Violation("state machine safety", f"{member} is in another state at {applied}")
        if first > seen.first and seen.first:
            if restored or first - 1 <= node.snapshot_index:
                self.compacted = max(self.compacted, first - 1)
            elif first - 1 > max(self.forgettable, self.compacted):
                raise Violation(
                    "forgetting",
                    f"{member} forgets through {first - 1}, all disks hold through {self.forgettable}, "
                    f"snapshots were taken through {self.compacted}, its own is of {node.snapshot_index}",
                )
        seen.term, seen.commit, seen.applied = term, commit, applied
        seen.global_commit, seen.first = global_commit, first

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

    def _still_comes(self, member: int, node: SimNode) -> None:
        """It keeps pieces of a snapshot: so many as it says, and the rest is of use to it."""
        incoming = node.raft._incoming
        if incoming is None or incoming.index <= node.raft.commit_index or incoming.offset != len(node.incoming):
            kept, commit = len(node.incoming), node.raft.commit_index
            raise Violation("snapshots", f"{member} keeps {kept} bytes of {incoming}, commit {commit}")

    def _in_force(self, node: SimNode) -> tuple[int, Configuration]:
        """The newest configuration of its log; else the newest committed one before the log (index, configuration)."""
        log = node.log
        for at in range(len(log.entries) - 1, -1, -1):
            value = log.entries[at][1]
            if isinstance(value, Configuration):
                return log.first_index + at, value
        for index, configuration in reversed(self.configurations):
            if index < log.first_index:
                return index, configuration
        raise AssertionError("there is always the first")

    def _said(self, member: int, message: Message) -> None:
        if message.sender != member:
            raise Violation("election safety", f"{member} speaks as {message.sender}")
        if isinstance(message, _BINDING):
            if message.term > self.terms.get(member, 0):
                self.terms[member] = message.term
            if isinstance(message, VoteReply):
                if message.granted:
                    self._votes_for(member, message.term, message.target)
            elif isinstance(message, Vote):
                self._votes_for(member, message.term, member)

    def _votes_for(self, member: int, term: int, candidate: int) -> None:
        earlier = self.votes.setdefault((member, term), candidate)
        if earlier != candidate:
            raise Violation("election safety", f"{member} votes in term {term} for {earlier} and for {candidate}")

    def _leads(self, member: int, node: SimNode, configuration: Configuration) -> None:
        term = node.raft.term
        if self.leaders.setdefault(term, member) != member:
            raise Violation("election safety", f"{self.leaders[term]} and {member} lead in term {term}")
        hard_state = self.disk_of(member).hard_state
        if hard_state is not None and hard_state.term == term and hard_state.vote is not None:
            self._votes_for(member, term, hard_state.vote)
        for half in (configuration.voters, configuration.outgoing):
            voters = [voter for voter in half if self.votes.get((voter, term)) == member]
            if half and len(voters) <= len(half) // 2:
                raise Violation(
                    "election safety", f"{member} leads in term {term} by the votes of {voters} only of {half}"
                )
        log = node.log
        for index in range(log.first_index, self.committed_last + 1):
            entry = self.committed[index]
            if self.committed_in[index] >= term:
                continue  # a candidate of an older term may still win it, late, and will commit nothing
            if index > log.last_index or log.entry(index) != entry:
                ours = log.entry(index) if index <= log.last_index else "nothing"
                raise Violation("leader completeness", f"{member} in term {term} has {ours} at {index}, not {entry}")
        if log.last_index < self.committed_last and self.committed_in[self.committed_last] < term:
            raise Violation("leader completeness", f"{member} in term {term} ends at {log.last_index}")

    def _changes(self, member: int, node: SimNode, before_index: int) -> None:
        """It has begun a change. What a leader does as the second half of one is not begun by anybody."""
        term = node.raft.term
        # By its own lights: it may have been deposed without knowing, and others have committed since.
        if before_index > self.committed_last or term not in self.committing:
            raise Violation(
                "membership",
                f"{member} begins a change in term {term}; the last one is at {before_index}, "
                f"committed is {self.committed_last}, terms that committed {sorted(self.committing)}",
            )

    def _log_matching(self, member: int, node: SimNode) -> None:
        """What was written since the last look."""
        log, names = node.log, self.names
        entries, first = log.entries, log.first_index
        start = max(node.touched_from, first)
        before = entries[start - 1 - first][0] if start > first else node.raft._runs.base_term
        for at in range(start - first, len(entries)):
            term, value, _ = entries[at]
            name = names.setdefault((first + at, term), (value, before))
            if (name[0] is not value or name[1] != before) and name != (value, before):
                raise Violation(
                    "log matching", f"{member} at ({first + at}, {term}): {(value, before)}, elsewhere {name}"
                )
            before = term

    def _commits(self, member: int, node: SimNode, seen: _Seen, before_index: int, before: Configuration) -> None:
        """A leader goes first: each entry has to be on a majority's disks, by the configuration that counted it.

        That is the one in force, or the one before where this very event changed it; but what stands behind a joint
        configuration may have had to wait for its end, and the new voters alone.
        """
        self.committing.add(node.raft.term)
        log = node.log
        gone = {index: entry for index, entry in node.applied if index < log.first_index}  # applied, and let go already
        for index in range(self.committed_last + 1, node.raft.commit_index + 1):
            entry = gone[index] if index < log.first_index else log.entry(index)
            now = index >= seen.configuration_index or (bool(before.outgoing) and index > before_index)
            configuration = seen.configuration if now else before
            for half in (configuration.voters, configuration.outgoing):
                holders = [voter for voter in half if self._holds(voter, index, entry)]
                if half and len(holders) <= len(half) // 2:
                    raise Violation(
                        "commit", f"{member} commits {index} {entry}, which only {holders} of {half} have on disk"
                    )
            self.committed[index] = entry
            self.committed_in[index] = node.raft.term
            self.committed_last = index
            if isinstance(entry[1], Configuration):
                self.configurations.append((index, entry[1]))

    def _holds(self, member: int, index: int, entry: Entry) -> bool:
        log = self.disk_of(member).log
        at = index - log.first_index
        return at < 0 or (at < len(log.entries) and log.entries[at] == entry)

    def _agreed(self, member: int, verb: str, index: int, entry: Entry) -> None:
        agreed = self.committed.get(index)
        if agreed is not entry and agreed != entry:
            raise Violation("state machine safety", f"{member} {verb} {entry} at {index}, agreed was {agreed}")

    def _all_hold(self, member: int, through_index: int, configuration: Configuration) -> None:
        for other in configuration.members:
            last = self.disk_of(other).log.last_index
            if last < through_index:
                raise Violation(
                    "forgetting", f"{member} lets the log through {through_index} go, {other} holds through {last}"
                )
        self.forgettable = through_index
