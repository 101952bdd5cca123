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
* The log's prefix goes away when every member has applied it (global commit).

Left to others: entry bytes, clocks, sockets, clients. The order of work is in :class:`raft.ready.Ready`.
"""

from __future__ import annotations

from collections import deque

from raft.config import Chance, Config, HardState, Log, NotLeader, Role
from raft.messages import Append, AppendReply, Message, PreVote, PreVoteReply, Vote, VoteReply
from raft.progress import PROBE, REPLICATE, Progress
from raft.quorum import has_majority, majority, reached_by_majority
from raft.ready import AppendEntries, AppendNoop, LogOp, Ready, Truncate
from raft.term_runs import TermRuns

# Why a message was ignored; the keys of Raft.ignored.
IGNORED = ("not_member", "old_term", "old_reply", "leader_alive", "impossible", "other_kind")

FOLLOWER = Role.FOLLOWER
PRE_CANDIDATE = Role.PRE_CANDIDATE
CANDIDATE = Role.CANDIDATE
LEADER = Role.LEADER


class _Unpersisted:
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


class Raft:
    """One member. Attributes to read, none to write:

    role, term, vote, leader_id (None: unknown), last_index, commit_index, applied_index, global_commit, first_index
    (of the log as kept), deadline_ns (when to call tick() next), ignored (messages ignored, by reason).

    Always: global_commit <= applied_index <= commit_index <= last_index and first_index <= global_commit + 1.
    """

    __slots__ = (
        "_after",
        "_append_bytes_max",
        "_config",
        "_durable_index",
        "_election_deadline_ns",
        "_election_timeout_ns",
        "_hard_changed",
        "_heard_ns",
        "_inflight_bytes_max",
        "_inflight_max",
        "_log",
        "_log_ops",
        "_log_unstable",
        "_me",
        "_node_id",
        "_now_ns",
        "_number",
        "_out",
        "_own_vote_pending",
        "_peers",
        "_peers_list",
        "_pending",
        "_resend_ns",
        "_rng",
        "_round",
        "_runs",
        "_term_first_index",
        "_unpersisted",
        "_voters",
        "_votes",
        "applied_index",
        "commit_index",
        "deadline_ns",
        "first_index",
        "global_commit",
        "ignored",
        "last_index",
        "leader_id",
        "role",
        "term",
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
    ) -> None:
        """A fresh member, or one that restarts from what it had made durable: ``hard_state`` and the ``term_runs``
        of its log.

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
        self._unpersisted: deque[_Unpersisted] = deque()
        self._durable_index = self.last_index

        # Elections.
        self._votes: set[int] = set()
        self._heard_ns = now_ns  # a follower: the last Append of its leader
        self._resend_ns = 0
        self._election_timeout_ns = 0
        self._election_deadline_ns = 0

        # Leading.
        self._round = 0
        self._term_first_index = 0  # index of the no-op that opened this leader's term
        self._me = Progress(config.node_id)
        self._peers = {member: Progress(member) for member in config.members if member != config.node_id}
        self._peers_list = list(self._peers.values())
        self._voters = [self._me, *self._peers_list]

        self.deadline_ns = 0
        self._draw_election_timeout(now_ns)

    # -- the verbs ----------------------------------------------------------------------------------------------------

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
            if message.sender in self._peers:
                self._on_append(message, now_ns)
            else:
                self.ignored["not_member"] += 1
            return
        if message.sender not in self._peers:
            self.ignored["not_member"] += 1
        elif isinstance(message, PreVote):
            self._on_pre_vote(message, now_ns)
        elif isinstance(message, Vote):
            self._on_vote(message, now_ns)
        elif isinstance(message, PreVoteReply):
            self._on_pre_vote_reply(message, now_ns)
        elif isinstance(message, VoteReply):
            if self._newer_or_same(message, now_ns):
                self._on_vote_reply(message, now_ns)
        elif isinstance(message, AppendReply):
            if self._newer_or_same(message, now_ns):  # of a newer term, so it is not for us any more
                self.ignored["old_reply"] += 1
        elif isinstance(message, Append):
            if term > self.term:
                self._become_follower(term, now_ns)
                self._on_append(message, now_ns)
            else:
                # A deposed leader, or a live one while we are ahead of it by a lost election: our term makes it step
                # down.
                self._answer_append(message, accepted=False, match=message.prev_index, hint=self.last_index)
        else:
            self.ignored["other_kind"] += 1

    def tick(self, now_ns: int) -> None:
        """Does what is due; nothing before ``deadline_ns``."""
        if now_ns < self.deadline_ns:
            return
        self._now_ns = now_ns
        if self.role is LEADER:
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
        first = self.last_index + 1
        self.last_index += count
        self._runs.extend(self.last_index, self.term)
        self._log_unstable = True
        self._pending = True
        return first

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
        messages = self._out
        withheld = self._after
        hard_state = HardState(self.term, self.vote) if self._hard_changed else None
        if log_ops or hard_state is not None or self._log_unstable:
            vote_term = self.term if self._own_vote_pending else 0
            self._unpersisted.append(_Unpersisted(number, self.last_index, vote_term, withheld))
            self._hard_changed = self._own_vote_pending = self._log_unstable = False
        elif withheld:
            if self._unpersisted:
                self._unpersisted[-1].messages.extend(withheld)
            else:
                messages.extend(withheld)
        # New lists even for empty ones: these belong to the Ready and to what it withholds.
        self._log_ops, self._out, self._after = [], [], []
        forget = min(self.global_commit, self.applied_index)
        if forget >= self.first_index:
            self._runs.drop(forget)
            self.first_index = forget + 1
        else:
            forget = 0
        return Ready(number, hard_state, log_ops, messages, self.commit_index, forget)

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
            "ignored": dict(self.ignored),
        }
        if self.role is LEADER:
            status["members"] = {peer.member: peer.status() for peer in self._peers_list}
            holder = min(self._voters, key=lambda progress: progress.applied_index)
            status["log_held_by"] = holder.member if holder.applied_index < self.commit_index else None
        return status

    # -- terms and roles ----------------------------------------------------------------------------------------------

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
            self.term = term
            self.vote = None
            self._hard_changed = True
            self._pending = True
        if self.role is not FOLLOWER:
            self.role = FOLLOWER
            self._pending = True
            self._draw_election_timeout(now_ns)
        self.leader_id = None
        self._own_vote_pending = False
        self._votes.clear()

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

    def _log_is_current(self, message: PreVote | Vote) -> bool:
        """Whether the asker's log is at least as up to date as ours (dissertation 3.6.1)."""
        last_term = self._runs.last_term
        if message.last_term != last_term:
            return message.last_term > last_term
        return message.last_index >= self.last_index

    # -- elections ----------------------------------------------------------------------------------------------------

    def _campaign(self, now_ns: int) -> None:
        self.leader_id = None
        if not self._config.pre_vote:
            self._become_candidate(now_ns)
            return
        self.role = PRE_CANDIDATE
        self._pending = True
        self._draw_election_timeout(now_ns)
        self._votes = {self._node_id}
        if self._has_votes():
            self._become_candidate(now_ns)
        else:
            self._ask_for_votes(now_ns)

    def _become_candidate(self, now_ns: int) -> None:
        self.role = CANDIDATE
        self.term += 1
        self.vote = self._node_id
        self._hard_changed = True
        self._own_vote_pending = True
        self._votes = set()  # our own counts when it is durable
        self._pending = True
        self._draw_election_timeout(now_ns)
        self._ask_for_votes(now_ns)

    def _ask_for_votes(self, now_ns: int) -> None:
        """Asks those who have not said yes; again at every heartbeat's time, since datagrams get lost."""
        me, last_index, last_term = self._node_id, self.last_index, self._runs.last_term
        for peer in self._peers:
            if peer in self._votes:
                continue
            if self.role is PRE_CANDIDATE:
                self._out.append(PreVote(me, peer, self.term + 1, last_index, last_term))
            else:
                # Withheld: the term, our vote and the log we boast of have to be durable first.
                self._after.append(Vote(me, peer, self.term, last_index, last_term))
        self._pending = True
        self._resend_ns = now_ns + self._config.heartbeat_ns
        self.deadline_ns = min(self._resend_ns, self._election_deadline_ns)

    def _has_votes(self) -> bool:
        return has_majority(self._config.members, self._votes)

    def _count_votes(self, now_ns: int) -> None:
        if self._has_votes():
            if self.role is PRE_CANDIDATE:
                self._become_candidate(now_ns)
            else:
                self._become_leader(now_ns)

    def _on_pre_vote(self, message: PreVote, now_ns: int) -> None:
        """Changes nothing here: neither term, nor vote, nor timer."""
        if message.term > self.term and self._leader_alive(now_ns):
            self.ignored["leader_alive"] += 1
            return
        granted = message.term > self.term and self._log_is_current(message)
        term = message.term if granted else self.term  # never 0: an empty log of term 0 refuses nobody
        self._out.append(PreVoteReply(self._node_id, message.sender, term, granted, message.request_id))
        self._pending = True

    def _on_pre_vote_reply(self, message: PreVoteReply, now_ns: int) -> None:
        if not message.granted:
            self._newer_or_same(message, now_ns)
        elif self.role is PRE_CANDIDATE and message.term == self.term + 1:
            self._votes.add(message.sender)
            self._count_votes(now_ns)
        else:
            self.ignored["old_reply"] += 1

    def _on_vote(self, message: Vote, now_ns: int) -> None:
        if message.term > self.term:
            if self._config.check_quorum and self._leader_alive(now_ns):
                self.ignored["leader_alive"] += 1
                return
            self._become_follower(message.term, now_ns)
        granted = (
            message.term == self.term
            and (self.vote == message.sender or (self.vote is None and self.leader_id is None))
            and self._log_is_current(message)
        )
        if granted:
            if self.vote is None:
                self.vote = message.sender
                self._hard_changed = True
            self.role = FOLLOWER  # it may have been asking for pre-votes
            self._draw_election_timeout(now_ns)
        self._after.append(VoteReply(self._node_id, message.sender, self.term, granted, message.request_id))
        self._pending = True

    def _on_vote_reply(self, message: VoteReply, now_ns: int) -> None:
        if self.role is CANDIDATE and message.granted:
            self._votes.add(message.sender)
            self._count_votes(now_ns)
        elif self.role is not CANDIDATE:
            self.ignored["old_reply"] += 1

    def _become_leader(self, now_ns: int) -> None:
        """Opens the term with a no-op: only an entry of this term commits what older terms left (thesis 3.6.2)."""
        self.role = LEADER
        self.leader_id = self._node_id
        self._votes.clear()
        self._round = 0
        self._term_first_index = first = self.last_index + 1
        for peer in self._peers_list:
            peer.reset(next_index=first, now_ns=now_ns)
        self._me.match_index = self._durable_index
        self._log_ops.append(AppendNoop(first, self.term))
        self.last_index = first
        self._runs.extend(first, self.term)
        self._pending = True
        self.deadline_ns = now_ns + self._config.heartbeat_ns

    # -- following ----------------------------------------------------------------------------------------------------

    def _on_append(self, message: Append, now_ns: int) -> None:
        """An Append of the current term, from a member."""
        if self.role is not FOLLOWER:
            if self.role is LEADER:  # two leaders of one term cannot be; whoever says so is not a Raft
                self.ignored["impossible"] += 1
                return
            self._become_follower(self.term, now_ns)
        self.leader_id = message.sender
        self._heard_ns = now_ns
        self._election_deadline_ns = self.deadline_ns = now_ns + self._election_timeout_ns

        prev = message.prev_index
        last = prev + message.count
        if prev > self.last_index:
            self._answer_append(message, accepted=False, match=prev, hint=self.last_index)
            return
        # What is committed here is the same everywhere, so only what lies behind it is compared.
        if prev > self.commit_index and (local_term := self._runs.term_at(prev)) != message.prev_term:
            hint = max(self._runs.run_first(prev), self.commit_index + 1)
            self._answer_append(message, accepted=False, match=prev, hint=hint, hint_term=local_term)
            return
        if message.count:
            self._take_entries(message, last)
        if message.commit > self.commit_index:
            self.commit_index = max(self.commit_index, min(message.commit, last))
        if message.global_commit > self.global_commit:
            self.global_commit = max(self.global_commit, min(message.global_commit, self.applied_index))
        self._answer_append(message, accepted=True, match=last)

    def _take_entries(self, message: Append, last: int) -> None:
        """Adds what is missing of prev_index + 1 .. last; removes only what contradicts it."""
        runs = self._runs
        term = message.entries_term
        if message.prev_index == self.last_index:
            first = self.last_index + 1
        else:
            # The part that is here already and equal: committed, or of the same term.
            first = max(message.prev_index, self.commit_index) + 1
            if first <= self.last_index and runs.term_at(first) == term:
                first = runs.run_last(first) + 1
            if first > last:
                return
            if first <= self.last_index:
                self._truncate(first)
        skip = first - message.prev_index - 1
        self._log_ops.append(AppendEntries(first, skip, last - first + 1, term, message.payload))
        runs.extend(last, term)
        self.last_index = last

    def _truncate(self, from_index: int) -> None:
        self._log_ops.append(Truncate(from_index))
        self._runs.truncate(from_index)
        self.last_index = from_index - 1
        # Whatever is durable, or will be when its write returns, is so only through here: the same indices will hold
        # other entries.
        self._durable_index = min(self._durable_index, self.last_index)
        for waiting in self._unpersisted:
            waiting.last_index = min(waiting.last_index, self.last_index)

    def _answer_append(self, message: Append, *, accepted: bool, match: int, hint: int = 0, hint_term: int = 0) -> None:
        # This leaves when everything up to here is durable, so all we report as applied is: others may forget it.
        self._after.append(
            AppendReply(
                self._node_id,
                message.sender,
                self.term,
                message.round,
                match,
                hint,
                hint_term,
                self.applied_index,
                accepted,
                message.request_id,
            )
        )
        self._pending = True

    # -- leading ------------------------------------------------------------------------------------------------------

    def _on_append_reply(self, message: AppendReply, now_ns: int) -> None:
        """An answer to an Append of this term, at its leader. O(members), whatever the Append held."""
        peer = self._peers.get(message.sender)
        match = message.match_index
        if peer is None:
            self.ignored["not_member"] += 1
            return
        if match > self.last_index or message.round > self._round or message.applied_index > self.last_index:
            self.ignored["impossible"] += 1
            return
        peer.heard_ns = now_ns
        if message.round > peer.acked_round:
            peer.acked_round = message.round
        # What it has applied was committed, hence is in our log too: it matches, whatever this Append was about.
        reached = message.applied_index
        if reached > peer.applied_index:
            peer.applied_index = reached
        if message.accepted and match > reached:
            reached = match
        if reached > peer.match_index:
            peer.match_index = reached
            peer.progress_ns = now_ns
            inflight = peer.inflight
            while inflight and inflight[0][0] <= reached:
                peer.inflight_bytes -= inflight.popleft()[1]
            if peer.next_index <= reached:
                peer.next_index = reached + 1
            if reached > self.commit_index:
                self._advance_commit()
        if not message.accepted:
            self._on_refusal(peer, message)
            return
        if peer.state == PROBE and message.round >= peer.epoch_round:
            peer.state = REPLICATE
            peer.behind_log = False
            peer.next_index = peer.match_index + 1
        if peer.next_index <= self.last_index or (peer.sent_commit < self.commit_index and not peer.inflight):
            self._pending = True

    def _on_refusal(self, peer: Progress, message: AppendReply) -> None:
        """The member's log does not hold the entry in front of an Append: look for the match point further down.

        Stale refusals are dropped: of an earlier attempt, or about an entry that is known to match by now.
        """
        prev = message.match_index
        if message.round < peer.epoch_round or prev <= peer.match_index or prev >= peer.next_index:
            self.ignored["old_reply"] += 1
            return
        if message.hint_term == 0:
            next_index = message.hint_index + 1
        else:
            # Its entry has a term we may have too: then go on behind our last entry of that term, else before its
            # run of it.
            ours = self._runs.last_of_term(message.hint_term)
            next_index = ours + 1 if 0 < ours < prev else message.hint_index
        lowest = max(peer.match_index + 1, self.first_index)
        next_index = max(min(next_index, prev), lowest)
        peer.behind_log = prev < self.first_index
        if peer.state == REPLICATE and message.hint_term == 0:
            peer.go_back(next_index, epoch_round=self._round + 1)  # a gap: an Append was lost or overtaken
        else:
            peer.probe(next_index, epoch_round=self._round + 1)
        self._pending = True

    def _advance_commit(self) -> None:
        """Commits what a majority holds, as far as it is of this term (dissertation 3.6.2)."""
        index = reached_by_majority([voter.match_index for voter in self._voters])
        if index > self.commit_index and index >= self._term_first_index:
            self.commit_index = index
            self._pending = True

    def _update_global_commit(self) -> None:
        me = self._me
        me.applied_index = min(self.applied_index, self._durable_index)
        index = min([voter.applied_index for voter in self._voters])
        if index > self.global_commit:
            self.global_commit = index

    def _hears_majority(self, now_ns: int) -> bool:
        """Whether a majority has answered within the shortest election timeout; we hear ourselves."""
        since_ns = now_ns - self._config.election_min_ns
        heard = sum(peer.heard_ns >= since_ns for peer in self._peers_list)
        return heard + 1 >= majority(len(self._voters))

    def _heartbeat(self, now_ns: int) -> None:
        """An Append without entries to everybody, whatever is in flight; a silent member goes back to PROBE."""
        self._update_global_commit()
        self.deadline_ns = now_ns + self._config.heartbeat_ns
        self._pending = True
        silent_ns = now_ns - self._config.heartbeat_ns
        shared: Append | None = None
        for peer in self._peers_list:
            if peer.state == REPLICATE:
                prev = max(peer.match_index, self.first_index - 1)
                if peer.inflight and peer.progress_ns <= silent_ns:
                    peer.probe(peer.match_index + 1, epoch_round=self._round + 1)
            else:
                prev = peer.next_index - 1
            shared = self._send_append(peer, prev, prev, shared)

    def _replicate(self) -> None:
        """Makes the Appends that the windows allow, and tells new commits where no Append will.

        Appends with the same entries to several members share one round: but for the target they are equal.
        """
        last_index = self.last_index
        commit_index = self.commit_index
        shared: Append | None = None
        for peer in self._peers_list:
            if peer.state == REPLICATE:
                while peer.next_index <= last_index:
                    inflight = peer.inflight
                    if len(inflight) >= self._inflight_max:
                        break
                    prev = peer.next_index - 1
                    if shared is None or shared.prev_index != prev or shared.count == 0:
                        last = self._fit(prev + 1)
                        size = self._log.range_bytes(prev + 1, last)
                    else:
                        last = prev + shared.count
                        size = shared.bytes_count
                    if inflight:
                        if peer.inflight_bytes + size > self._inflight_bytes_max:
                            break
                    else:
                        peer.progress_ns = self._now_ns
                    shared = self._send_append(peer, prev, last, shared, size)
                    inflight.append((last, size))
                    peer.inflight_bytes += size
                    peer.next_index = last + 1
                if peer.sent_commit < commit_index and not peer.inflight:
                    shared = self._send_append(peer, peer.next_index - 1, peer.next_index - 1, shared)
            elif not peer.probe_sent:
                peer.probe_sent = True
                prev = peer.next_index - 1
                if prev < last_index:
                    last = self._fit(prev + 1)
                    shared = self._send_append(peer, prev, last, shared, self._log.range_bytes(prev + 1, last))
                else:
                    shared = self._send_append(peer, prev, prev, shared)

    def _fit(self, first: int) -> int:
        """The last index of an Append that starts at ``first``: one term, and within append_bytes_max."""
        last = self.last_index if first >= self._term_first_index else self._runs.run_last(first)
        return self._log.fit(first, last, self._append_bytes_max)

    def _send_append(self, peer: Progress, prev: int, last: int, shared: Append | None, size: int = 0) -> Append:
        """Sends entries prev + 1 .. last (none when equal); an equal previous Append of this pass lends its round."""
        count = last - prev
        if last >= self.commit_index:
            peer.sent_commit = self.commit_index  # a follower takes a commit only as far as the Append proves its log
        if shared is not None and shared.prev_index == prev and shared.count == count:
            append = Append(
                shared.sender,
                peer.member,
                shared.term,
                prev,
                shared.prev_term,
                shared.entries_term,
                shared.commit,
                shared.global_commit,
                shared.round,
                count,
                size,
            )
        else:
            self._round += 1
            append = Append(
                self._node_id,
                peer.member,
                self.term,
                prev,
                self._runs.term_at(prev),
                self._runs.term_at(last) if count else 0,
                self.commit_index,
                self.global_commit,
                self._round,
                count,
                size,
            )
        self._out.append(append)
        return append
