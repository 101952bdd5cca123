"""The Raft state machine of one node: messages, time and proposals in, Ready values out.

It follows Ongaro's dissertation (chapters 3, 6, 9 and 10), with these differences:

* Terms and index ranges only. Entries live with the caller; the log here is its runs of equal terms.
* All entries of an Append have one term, so a follower compares terms run by run, never entry by entry.
* Heartbeats are Appends without entries. To a member whose log is known they start at its match point, so they are
  never refused for overtaking Appends that are still on their way; to one that is being probed they repeat the probe.
* UDP loses, duplicates and reorders. Nothing here relies on order: match, commit, applied and global commit only
  rise, refusals count only for the current attempt (rounds), a lost tail is found by silence, a lost middle by the
  refusal of what came behind it.
* A node's own vote counts, and anything that claims durability leaves, only after ``persisted()``.
* The log's prefix goes away when every member has applied it (global commit), or a snapshot holds it and the node
  says so. A member that misses what is gone gets the snapshot.
* Members change by joint consensus; a launch without its memory is another member (configuration.py).
* Requests of a leader or a candidate are heard whoever sends them: the sender may be in a configuration that this
  member has not heard of. Answers count only from members.

Left to others: entry bytes, clocks, sockets, clients. The order of work is in :class:`raft.ready.Ready`.
"""

from __future__ import annotations

from raft.config import ChangeRefused, HardState, NotLeader
from raft.configuration import Configuration
from raft.messages import (
    NO_ROUND,
    Append,
    AppendReply,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    TimeoutNow,
    Vote,
    VoteReply,
)
from raft.progress import SNAPSHOT
from raft.reads import ASKED_MAX, LOCAL
from raft.ready import Ready
from raft.state import CANDIDATE, LEADER, Unpersisted
from raft.steady import Steady


class Raft(Steady):
    """One member. Attributes to read, none to write:

    role, term, vote, leader_id (None: unknown), last_index, commit_index, applied_index, global_commit, first_index
    (of the log as kept), deadline_ns (when to call tick() next), ignored (messages ignored, by reason), configuration
    (in force), removed (a committed change has left this member out).

    Always: global_commit <= applied_index <= commit_index <= last_index and first_index <= applied_index + 1.
    """

    __slots__ = ()

    def step(self, message: Message, now_ns: int) -> None:
        """Takes one message in. It has passed the codec; its sender may still be anybody."""
        self._now_ns = now_ns
        term = message.term
        if isinstance(message, AppendReply):
            if term == self.term:
                if self.role is LEADER:
                    self._on_append_reply(message, now_ns)
                else:
                    self.ignored["old_reply"] += 1
                return
        elif isinstance(message, Append) and term == self.term:
            self._on_append(message, now_ns)
            return
        if isinstance(message, PreVote):
            self._on_pre_vote(message, now_ns)
        elif isinstance(message, Vote):
            self._on_vote(message, now_ns)
        elif isinstance(message, InstallSnapshot):
            if term > self.term:
                self._become_follower(term, now_ns)
            if term == self.term:
                self._on_install_snapshot(message, now_ns)
            else:
                self._answer_snapshot(message, 0)
        elif isinstance(message, TimeoutNow):
            if self._newer_or_same(message, now_ns):
                self._on_timeout_now(message, now_ns)
        elif isinstance(message, Append) and term > self.term:
            self._become_follower(term, now_ns)
            self._on_append(message, now_ns)
        elif isinstance(message, Append):
            # A deposed leader, or a live one while we are ahead of it by a lost election: our term makes it step down.
            # Without a round: who sent this may lead our term by now and take the number for one of its own.
            self._answer_append(
                message, accepted=False, match=message.prev_index, hint=self.last_index, round_=NO_ROUND
            )
        elif message.sender not in self._peers:
            self.ignored["not_member"] += 1
        elif isinstance(message, PreVoteReply):
            self._on_pre_vote_reply(message, now_ns)
        elif isinstance(message, VoteReply):
            if self._newer_or_same(message, now_ns):
                self._on_vote_reply(message, now_ns)
        elif isinstance(message, AppendReply):
            if self._newer_or_same(message, now_ns):  # of a newer term, so it is not for us any more
                self.ignored["old_reply"] += 1
        elif isinstance(message, InstallSnapshotReply):
            if self._newer_or_same(message, now_ns):
                if self.role is LEADER:
                    self._on_install_snapshot_reply(message, now_ns)
                else:
                    self.ignored["old_reply"] += 1
        elif isinstance(message, ReadIndex):
            if self._newer_or_same(message, now_ns):
                self._on_read_index(message)
        elif isinstance(message, ReadIndexReply):
            if self._newer_or_same(message, now_ns):
                self._on_read_index_reply(message)
        else:
            self.ignored["other_kind"] += 1

    def tick(self, now_ns: int) -> None:
        """Does what is due; nothing before ``deadline_ns``."""
        if now_ns < self.deadline_ns:
            return
        self._now_ns = now_ns
        if self.role is LEADER:
            if now_ns < self._heartbeat_due_ns:  # commits are to be told
                self.deadline_ns = self._heartbeat_due_ns
                self._pending = True
                return
            late_ns = now_ns - self._heartbeat_due_ns
            if late_ns > self._config.heartbeat_ns:
                # We did not run ourselves, and so asked nobody: that time is not held against the others.
                for peer in self._peers_list:
                    peer.heard_ns = min(now_ns, peer.heard_ns + late_ns)
            if self._config.check_quorum and not self._hears_majority(now_ns):
                self._become_follower(self.term, now_ns)
                return
            self._heartbeat(now_ns)
        elif now_ns >= self._election_deadline_ns:
            self._campaign(now_ns)
        else:
            self._ask_for_votes(now_ns)

    def propose(self, count: int, now_ns: int) -> int:
        """``count`` entries stand in the storage at last_index + 1 and on: replicate them. Returns the first one's
        index.

        Raises NotLeader; then whatever the storage holds behind ``last_index`` is not part of the log: remove it
        before the next Ready's operations are executed. Propose what the storage holds before stepping messages, so
        that both agree on where the log ends.
        """
        if self.role is not LEADER:
            raise NotLeader(self.leader_id)
        if count < 1:
            raise ValueError(f"propose: {count} entries")
        if self._log_ops:
            raise RuntimeError("propose: the log operations of the last Ready are still to be taken and executed")
        self._now_ns = now_ns
        first = self.last_index + 1
        self.last_index += count
        self._runs.extend(self.last_index, self.term)
        self._log_unstable = True
        self._pending = True
        return first

    def propose_configuration(self, target: Configuration, now_ns: int) -> int:
        """Changes the members to ``target``: directly where the voters stay, else through a joint configuration, which
        the core leaves by itself. Returns the index of the first step's entry; the change is done when
        ``configuration`` is ``target`` and ``configuration_committed``.

        Voters that are added should have caught up as learners (``caught_up``). Raises NotLeader; ChangeRefused while
        another change is under way or this term has committed nothing; ValueError for what is no change.
        """
        if self.role is not LEADER:
            raise NotLeader(self.leader_id)
        if self._log_ops:
            raise RuntimeError("propose_configuration: the last Ready's log operations are still to be executed")
        current = self._history.current
        if target.joint or target == current:
            raise ValueError(f"propose_configuration: {target} is {'joint' if target.joint else 'in force already'}")
        if self.commit_index < self._term_first_index:
            # Ongaro's bug of 2015: what an older leader began may still come into force.
            raise ChangeRefused("no entry of this leader's term is committed yet")
        if current.joint or not self.configuration_committed:
            raise ChangeRefused(f"the change at index {self._history.index} is still under way")
        self._now_ns = now_ns
        return self._append_configuration(current.towards(target))

    def read_index(self, now_ns: int) -> int:
        """Asks for a linearizable read, or a batch of them; returns a ticket that a later Ready's reads or
        reads_failed names.

        At the leader it costs no message where Appends flow anyway. A follower asks its leader; datagrams get lost,
        so a ticket that is not heard of again has to be given up after a while. Raises NotLeader when no leader is
        known.
        """
        self._now_ns = now_ns
        reads = self._reads
        if self.role is LEADER:
            ticket = reads.ticket()
            self._note_read(LOCAL, ticket, 0)
            return ticket
        if self.leader_id is None:
            raise NotLeader(None)
        ticket = reads.ticket()
        if len(reads.asked) >= ASKED_MAX:
            oldest = next(iter(reads.asked))
            del reads.asked[oldest]
            reads.failed.append(oldest)
        reads.asked[ticket] = None
        self._out.append(ReadIndex(self._node_id, self.leader_id, self.term, ticket))
        self._pending = True
        return ticket

    def transfer(self, target: int, now_ns: int) -> None:
        """The leader hands its role to ``target``, as soon as that has been sent everything; tried for an election
        timeout.

        Proposals are still taken meanwhile: a target that cannot keep up delays itself, and then the transfer is
        given up. ``transfer_target`` says whom it is under way to. Raises NotLeader; ValueError for a target that is
        no other member.
        """
        if self.role is not LEADER:
            raise NotLeader(self.leader_id)
        if target not in self._peers or target not in self._history.current.voters:
            raise ValueError(f"transfer: {target} is not another member that votes")
        self.transfer_target = target
        self._transfer_deadline_ns = now_ns + self._config.election_min_ns
        self._transfer_urged = False
        self._pending = True

    def has_ready(self) -> bool:
        """Whether ready() has anything to say."""
        return self._pending

    def ready(self) -> Ready:
        """The work since the last call; see :class:`raft.ready.Ready` for its order."""
        self._number = number = self._number + 1
        log_ops = self._log_ops
        self._pending = False
        if self.role is LEADER:
            if log_ops:
                self._pending = True  # the storage does not hold these yet: their Appends come in the next Ready
            else:
                self._update_global_commit()
                self._replicate()
                if self._reads.waiting:
                    self._confirm_reads()
                if self.transfer_target is not None:
                    self._urge_target()
                if self._is_outsider and self.commit_index >= max(self._history.index, self._term_first_index):
                    self._leave_office(self._now_ns)
        if self._membership_open and self._history.index <= self.commit_index:
            self._settle_membership()
        messages = self._out
        withheld = self._after
        hard_state = HardState(self.term, self.vote) if self._hard_changed else None
        if log_ops or hard_state is not None or self._log_unstable:
            vote_term = self.term if self._own_vote_pending else 0
            self._unpersisted.append(Unpersisted(number, self.last_index, vote_term, withheld))
            self._hard_changed = self._own_vote_pending = self._log_unstable = False
        elif withheld:
            if self._unpersisted:
                self._unpersisted[-1].messages.extend(withheld)
            else:
                messages.extend(withheld)
        # New lists even for empty ones: these belong to the Ready and to what it withholds.
        self._log_ops, self._out, self._after = [], [], []
        forget = min(max(self.global_commit, self._compact_index), self.applied_index, self._durable_index)
        if forget >= self.first_index:
            self._forget(forget)
        else:
            forget = 0
        reads = self._reads
        if not reads.done and not reads.failed and not self._configuration_changed:
            return Ready(number, hard_state, log_ops, messages, self.commit_index, forget)
        done, failed = tuple(reads.done), tuple(reads.failed)
        reads.done, reads.failed = [], []
        configuration = self._history.current if self._configuration_changed else None
        self._configuration_changed = False
        return Ready(number, hard_state, log_ops, messages, self.commit_index, forget, done, failed, configuration)

    def _forget(self, through_index: int) -> None:
        """The log's prefix goes; members that miss it need a snapshot."""
        self._runs.drop(through_index)
        self._history.drop(through_index)
        self.first_index = through_index + 1
        if self.role is LEADER and (through_index > self.global_commit or self._departing):
            for peer in self._peers_list:
                if peer.next_index <= through_index and peer.state != SNAPSHOT:
                    peer.behind_log = True
                    if not self._begin_snapshot(peer):
                        peer.probe(self.first_index, epoch_round=self._round + 1)
            self._pending = True

    def persisted(self, number: int) -> list[Message]:
        """Says that Readies through ``number`` are durable. Returns the messages that waited for it; may commit."""
        unpersisted = self._unpersisted
        released: list[Message] = []
        while unpersisted and unpersisted[0].number <= number:
            done = unpersisted.popleft()
            released = released + done.messages if released else done.messages
            self._durable_index = done.last_index
            if done.vote_term and done.vote_term == self.term and self.role is CANDIDATE:
                self._votes.add(self._node_id)
                self._count_votes(self._now_ns)
        if self.role is LEADER and self._durable_index > self._me.match_index:
            self._me.match_index = self._durable_index
            self._advance_commit()
        return released

    def applied(self, index: int) -> None:
        """The state machine has executed entries through ``index``, at most ``commit_index``."""
        if not self.applied_index <= index <= self.commit_index:
            raise ValueError(f"applied: {index} is not in {self.applied_index}..{self.commit_index}")
        self.applied_index = index

    def status(self) -> dict[str, object]:
        """Where this node stands, for people; indices, and times in nanoseconds."""
        status: dict[str, object] = {
            "node_id": self._node_id,
            "role": self.role.value,
            "term": self.term,
            "vote": self.vote,
            "leader_id": self.leader_id,
            "first_index": self.first_index,
            "last_index": self.last_index,
            "commit_index": self.commit_index,
            "applied_index": self.applied_index,
            "durable_index": self._durable_index,
            "global_commit": self.global_commit,
            "deadline_ns": self.deadline_ns,
            "voters": list(self._history.current.voters),
            "outgoing": list(self._history.current.outgoing),
            "learners": list(self._history.current.learners),
            "configuration_index": self._history.index,
            "configuration_committed": self.configuration_committed,
            "snapshot_index": self.snapshot_index,
            "removed": self.removed,
            "ignored": dict(self.ignored),
        }
        if self.role is LEADER:
            status["members"] = {peer.member: peer.status() for peer in self._peers_list}
            holder = min([self._me, *self._peers_list], key=lambda progress: progress.applied_index)
            status["log_held_by"] = holder.member if holder.applied_index < self.commit_index else None
        return status
