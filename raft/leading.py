"""Leading: Appends out, answers in, commits, heartbeats, the hand-over (dissertation 3.5, 3.6, 6.2, 10.2.1, 3.10)."""

from __future__ import annotations

from raft.configuration import Configuration
from raft.messages import (
    NO_ROUND,
    Append,
    AppendReply,
    TimeoutNow,
)
from raft.progress import REPLICATE, SNAPSHOT, Progress
from raft.quorum import reached_by_majority
from raft.ready import AppendConfiguration
from raft.sending import Sending
from raft.state import LEADER


class Leading(Sending):
    """How a leader makes the others' logs equal to its own, and knows that they are."""

    __slots__ = ()

    def _on_append_reply(self, message: AppendReply, now_ns: int) -> None:
        """An answer to an Append of this term, at its leader. O(members), whatever the Append held."""
        peer = self._peers.get(message.sender)
        match = message.match_index
        if peer is None:
            self.ignored["not_member"] += 1
            return
        if message.round == NO_ROUND:
            self.ignored["old_reply"] += 1
            return
        if match > self.last_index or message.round > self._round or message.applied_index > self.last_index:
            self.ignored["impossible"] += 1
            return
        self._take_answer(peer, message.round, match if message.accepted else 0, message.applied_index, now_ns)
        if not message.accepted:
            self._on_refusal(peer, message)
            return
        if peer.state != REPLICATE and message.round >= peer.epoch_round and peer.match_index + 1 >= self.first_index:
            peer.state = REPLICATE
            peer.behind_log = False
            peer.next_index = max(peer.match_index + 1, self.first_index)
        if peer.member not in self._departing and not self._history.current.is_voter(peer.member):
            self._measure_catching_up(peer, now_ns)
        if peer.next_index <= self.last_index or (peer.sent_commit < self.commit_index and not peer.inflight):
            self._pending = True
        elif self.transfer_target is not None:
            self._pending = True  # perhaps the target has everything now

    def _take_answer(self, peer: Progress, round_: int, match: int, applied: int, now_ns: int) -> None:
        """What a member has said of itself: it has heard us in ``round_``, and its log matches through ``match`` (0: it
        did not say) and is applied through ``applied``.
        """
        peer.heard_ns = now_ns
        if round_ > peer.acked_round:
            peer.acked_round = round_
        # What it has applied was committed, hence is in our log too: it matches, whatever this Append was about.
        reached = applied
        if reached > peer.applied_index:
            peer.applied_index = reached
        if match > reached:
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
        if self._reads.waiting and round_ >= self._reads.waiting[0].round:
            self._count_confirmations()

    def _on_refusal(self, peer: Progress, message: AppendReply) -> None:
        """The member's log does not hold the entry in front of an Append: look for the match point further down.

        Stale refusals are dropped: of an earlier attempt, or about an entry that is known to match by now.
        """
        prev = message.match_index
        if peer.state == SNAPSHOT:
            return  # it is being helped
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
        next_index = max(min(next_index, prev), peer.match_index + 1)
        # The entry in front of its next one has a term we know as long as it is not older than the log's base.
        peer.behind_log = next_index < self.first_index
        if peer.behind_log:
            if self._begin_snapshot(peer):
                return
            # Nothing helps until there is a snapshot: heartbeats alone keep asking.
            peer.probe(self.first_index, epoch_round=self._round + 1)
            peer.probe_sent = True
            return
        if peer.state == REPLICATE and message.hint_term == 0:
            peer.go_back(next_index, epoch_round=self._round + 1)  # a gap: an Append was lost or overtaken
        else:
            peer.probe(next_index, epoch_round=self._round + 1)
        self._pending = True

    def _advance_commit(self) -> None:
        """Commits what a majority holds, as far as it is of this term (dissertation 3.6.2)."""
        index = reached_by_majority([voter.match_index for voter in self._voters])
        if self._outgoing:
            index = min(index, reached_by_majority([voter.match_index for voter in self._outgoing]))
        if index > self.commit_index and index >= self._term_first_index:
            self.commit_index = index
            self._pending = True
            if self._commit_due_ns is None:
                self._commit_due_ns = self._now_ns + self._config.commit_delay_ns
            if self._outgoing and self._history.index <= index:
                self._append_configuration(self._history.current.settled())

    def _update_global_commit(self) -> None:
        me = self._me
        me.applied_index = min(self.applied_index, self._durable_index)
        index = me.applied_index
        for peer in self._peers_list:
            if peer.applied_index < index and peer.member not in self._departing:
                index = peer.applied_index
        if index > self.global_commit:
            self.global_commit = index

    def _append_configuration(self, configuration: Configuration) -> int:
        """An entry of our own that changes the members, from now on (4.3); the storage gets it with the next Ready."""
        index = self.last_index + 1
        self._log_ops.append(AppendConfiguration(index, self.term, configuration))
        self.last_index = index
        self._runs.extend(index, self.term)
        self._history.add(index, configuration)
        self._derive_members(self._now_ns)
        return index

    def _measure_catching_up(self, peer: Progress, now_ns: int) -> None:
        """Rounds of catching up (4.2.1): one ends when the learner has what the leader had at its beginning."""
        if peer.match_index >= peer.catch_index:
            peer.caught_up = peer.state == REPLICATE and now_ns - peer.catch_ns <= self._config.election_min_ns
            peer.catch_index = self.last_index
            peer.catch_ns = now_ns

    def caught_up(self, member: int) -> bool:
        """Whether a learner keeps up with the log well enough to be made a voter without a pause of the service."""
        peer = self._peers.get(member)
        return self.role is LEADER and peer is not None and peer.caught_up

    def _leave_office(self, now_ns: int) -> None:
        """A committed configuration has left us out: whoever has the most is asked to go on, and we follow (4.2.2)."""
        best = max(self._voters, key=lambda voter: voter.match_index)
        self._out.append(TimeoutNow(self._node_id, best.member, self.term))
        self._become_follower(self.term, now_ns)

    def _heartbeat(self, now_ns: int) -> None:
        """An Append without entries to everybody, whatever is in flight; a silent member goes back to PROBE."""
        self._update_global_commit()
        self._transfer_urged = False
        if self.transfer_target is not None and now_ns >= self._transfer_deadline_ns:
            self.transfer_target = None
        self._heartbeat_due_ns = self.deadline_ns = now_ns + self._config.heartbeat_ns
        self._pending = True
        if self._departing:
            self._forget_departed(now_ns)
        silent_ns = now_ns - self._config.heartbeat_ns
        shared: Append | None = None
        for peer in self._peers_list:
            known = peer.match_index if peer.state == REPLICATE else peer.next_index - 1
            prev = max(known, self.first_index - 1)
            shared = self._send_append(peer, prev, prev, shared)
            if peer.state == SNAPSHOT:
                if peer.progress_ns <= silent_ns:
                    peer.probe_sent = False
            elif peer.inflight and peer.progress_ns <= silent_ns:
                # Behind the heartbeat, so that its answer is not taken for one to the probe.
                if peer.match_index + 1 < self.first_index:
                    peer.behind_log = True
                    if self._begin_snapshot(peer):
                        continue
                peer.probe(max(peer.match_index + 1, self.first_index), epoch_round=self._round + 1)

    def _replicate(self) -> None:
        """Makes the Appends that the windows allow, and tells new commits where no Append will, once they are due.

        Appends with the same entries to several members share one round: but for the target they are equal.
        """
        last_index = self.last_index
        commit_index = self.commit_index
        commit_due_ns = self._commit_due_ns
        owed_ns: int | None = None
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
                    if commit_due_ns is not None and self._now_ns < commit_due_ns:
                        owed_ns = commit_due_ns
                        continue
                    shared = self._send_append(peer, peer.next_index - 1, peer.next_index - 1, shared)
            elif peer.probe_sent:
                continue
            elif peer.state == SNAPSHOT:
                self._send_chunk(peer)
            else:
                peer.probe_sent = True
                prev = peer.next_index - 1
                if prev < last_index:
                    last = self._fit(prev + 1)
                    shared = self._send_append(peer, prev, last, shared, self._log.range_bytes(prev + 1, last))
                else:
                    shared = self._send_append(peer, prev, prev, shared)
        self._commit_due_ns = owed_ns
        self.deadline_ns = self._heartbeat_due_ns if owed_ns is None else min(self._heartbeat_due_ns, owed_ns)

    def _fit(self, first: int) -> int:
        """The last index of an Append that starts at ``first``: one term, and within append_bytes_max."""
        last = self.last_index if first >= self._term_first_index else self._runs.run_last(first)
        if first <= self._history.index:  # a configuration travels alone
            alone = self._history.first_from(first)
            if alone == first:
                return first
            last = min(last, alone - 1)
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
        if count == 1 and last <= self._history.index:
            append.configuration = self._history.configuration(last)
        peer.sent_round = append.round
        self._out.append(append)
        return append

    def _confirm_reads(self) -> None:
        """Everybody gets an Append of a round later than the newest read: what goes out anyway, else an empty one."""
        newest = self._reads.waiting[-1].round
        shared: Append | None = None
        for peer in self._peers_list:
            if peer.sent_round < newest:
                known = peer.match_index if peer.state == REPLICATE else peer.next_index - 1
                prev = max(known, self.first_index - 1)
                shared = self._send_append(peer, prev, prev, shared)
        self._count_confirmations()  # a cluster of one has nobody to wait for

    def _urge_target(self) -> None:
        """Tells the target to stand for election once everything has been sent to it; again at each heartbeat."""
        target = self.transfer_target
        if target is None or self._transfer_urged:
            return
        peer = self._peers[target]
        if peer.state == REPLICATE and peer.next_index > self.last_index and peer.match_index >= self.commit_index:
            self._transfer_urged = True
            self._out.append(TimeoutNow(self._node_id, target, self.term))
