"""Elections: timeouts, pre-votes, votes, and the start of a term (dissertation 3.4, 3.6, 9.6, 4.2.3, 3.10)."""

from __future__ import annotations

from raft.members import Members
from raft.messages import (
    PreVote,
    PreVoteReply,
    TimeoutNow,
    Vote,
    VoteReply,
)
from raft.quorum import has_majority
from raft.reads import EVERY_ROUND
from raft.ready import AppendNoop
from raft.state import CANDIDATE, FOLLOWER, LEADER, PRE_CANDIDATE


class Elections(Members):
    """How a node asks for votes, gives its own, and takes office."""

    __slots__ = ()

    def _campaign(self, now_ns: int) -> None:
        self._forget_leader()
        self._taking_over = False
        if not self._may_stand():
            if self.role is not FOLLOWER:
                self._become_follower(self.term, now_ns)
            self._draw_election_timeout(now_ns)
            return
        if not self._config.pre_vote:
            self._become_candidate(now_ns)
            return
        self._change_role(PRE_CANDIDATE)
        self._pending = True
        self._draw_election_timeout(now_ns)
        self._votes = {self._node_id}
        if self._has_votes():
            self._become_candidate(now_ns)
        else:
            self._ask_for_votes(now_ns)

    def _become_candidate(self, now_ns: int) -> None:
        self._change_role(CANDIDATE)
        self._abandon_snapshot()
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
            if peer in self._votes or not self._history.current.is_voter(peer):
                continue
            if self.role is PRE_CANDIDATE:
                self._out.append(PreVote(me, peer, self.term + 1, last_index, last_term))
            else:
                # Withheld: the term, our vote and the log we boast of have to be durable first.
                vote = Vote(me, peer, self.term, last_index, last_term, transfer=self._taking_over)
                self._after.append(vote)
        self._pending = True
        self._resend_ns = now_ns + self._config.heartbeat_ns
        self.deadline_ns = min(self._resend_ns, self._election_deadline_ns)

    def _has_votes(self) -> bool:
        configuration = self._history.current
        return has_majority(configuration.voters, self._votes) and (
            not configuration.outgoing or has_majority(configuration.outgoing, self._votes)
        )

    def _count_votes(self, now_ns: int) -> None:
        if self._has_votes():
            if self.role is PRE_CANDIDATE:
                self._become_candidate(now_ns)
            else:
                self._become_leader(now_ns)

    def _log_is_current(self, message: PreVote | Vote) -> bool:
        """Whether the asker's log is at least as up to date as ours (dissertation 3.6.1)."""
        last_term = self._runs.last_term
        if message.last_term != last_term:
            return message.last_term > last_term
        return message.last_index >= self.last_index

    def _on_pre_vote(self, message: PreVote, now_ns: int) -> None:
        """Changes nothing here: neither term, nor vote, nor timer."""
        if message.term > self.term and self._leader_alive(now_ns):
            self.ignored["leader_alive"] += 1
            return
        is_current = self._log_is_current(message)
        if not is_current:
            self._needed_term = self.term
        granted = message.term > self.term and is_current
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
            if self._config.check_quorum and not message.transfer and self._leader_alive(now_ns):
                self.ignored["leader_alive"] += 1
                return
            self._become_follower(message.term, now_ns)
        is_current = self._log_is_current(message)
        if not is_current:
            self._needed_term = self.term
        granted = (
            message.term == self.term
            and (self.vote == message.sender or (self.vote is None and self.leader_id is None))
            and is_current
        )
        if granted:
            if self.vote is None:
                self.vote = message.sender
                self._hard_changed = True
            self._change_role(FOLLOWER)  # it may have been asking for pre-votes
            self._draw_election_timeout(now_ns)
        self._after.append(VoteReply(self._node_id, message.sender, self.term, granted, message.request_id))
        self._pending = True

    def _on_vote_reply(self, message: VoteReply, now_ns: int) -> None:
        if self.role is CANDIDATE and message.granted:
            self._votes.add(message.sender)
            self._count_votes(now_ns)
        elif self.role is not CANDIDATE:
            self.ignored["old_reply"] += 1

    def _on_timeout_now(self, message: TimeoutNow, now_ns: int) -> None:
        """Only of the leader that is followed; no pre-vote, since that leader would not be deposed by one."""
        if self.role is not FOLLOWER or message.sender != self.leader_id or not self._may_stand():
            self.ignored["old_reply"] += 1
            return
        self._forget_leader()
        self._taking_over = True
        self._become_candidate(now_ns)

    def _become_leader(self, now_ns: int) -> None:
        """Opens the term with a no-op: only an entry of this term commits what older terms left (thesis 3.6.2)."""
        self._change_role(LEADER)
        self.leader_id = self._node_id
        self._votes.clear()
        self._round = 0
        self._term_first_index = first = self.last_index + 1
        self._departing.clear()
        self._derive_members(now_ns)
        for peer in self._peers_list:
            peer.reset(next_index=first, now_ns=now_ns)
        self._me.match_index = self._durable_index
        self._me.acked_round = EVERY_ROUND
        self._taking_over = False
        self._log_ops.append(AppendNoop(first, self.term))
        self.last_index = first
        self._runs.extend(first, self.term)
        self._pending = True
        self._heartbeat_due_ns = self.deadline_ns = now_ns + self._config.heartbeat_ns
        self._commit_due_ns = None
