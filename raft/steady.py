"""The steady step: the one that a leader and its followers take nearly always, in a form that may be taken elsewhere.

One term, a leader that all members hear, Appends that go on where each log ends, answers that accept. What the core
would decide is then known before the message comes, so the caller may do it without asking, next to the entries, and
tell the core afterwards: ``followed``, ``answered``, ``sent``. They leave the core as step(), propose(), ready() and
persisted() would have, for members in memory, where durable means done.

``follows_steadily`` and ``leads_steadily`` say when that is allowed. A caller looks again after every other call, and
hands to step() whatever is not the usual, and all that came behind it.

Left to others: taking the step (the engine, in C), messages.
"""

from __future__ import annotations

from collections.abc import Iterable

from raft.leading import Leading
from raft.progress import REPLICATE
from raft.state import FOLLOWER, LEADER

# The log's prefix goes in pieces of so many entries, or with whatever else there is to do.
FORGET_ENTRIES = 1_024


class Steady(Leading):
    """What was done outside, taken over."""

    __slots__ = ()

    def _is_quiet(self) -> bool:
        """Whether nothing waits to be said, written or settled, and the log ends in this term, committed in part."""
        return not (
            self._pending
            or self._unpersisted
            or self._membership_open
            or self._hard_changed
            or self._durable_index != self.last_index
            or self._runs.last_term != self.term
            or self._runs.last_index != self.last_index
        )

    @property
    def follows_steadily(self) -> bool:
        """Whether Appends of ``leader_id``, with entries of this term right behind ``last_index`` and without a
        configuration, may be taken outside.
        """
        return (
            self.role is FOLLOWER
            and self.leader_id is not None
            and self._incoming is None
            and not self.removed
            and self._is_quiet()
        )

    @property
    def leads_steadily(self) -> bool:
        """Whether answers that accept may be counted outside, and entries behind ``last_index`` be sent to all."""
        return (
            self.role is LEADER
            and self.commit_index >= self._term_first_index
            and self.transfer_target is None
            and not self._outgoing
            and not self._departing
            and not self._is_outsider
            and not self._history.current.learners
            and bool(self._peers_list)
            and self._is_quiet()
            and all(peer.state == REPLICATE and peer.next_index > self.last_index for peer in self._peers_list)
        )

    @property
    def round(self) -> int:
        """Of the last Append."""
        return self._round

    def steady_peers(self) -> list[tuple[int, int, int]]:
        """(member, match_index, applied_index) of each that is led."""
        return [(peer.member, peer.match_index, peer.applied_index) for peer in self._peers_list]

    def appends_room(self) -> int:
        """How many Appends may go to every member before any answers."""
        bytes_max = self._append_bytes_max
        return max(
            0,
            min(
                min(
                    self._inflight_max - len(peer.inflight),
                    (self._inflight_bytes_max - peer.inflight_bytes) // bytes_max,
                )
                for peer in self._peers_list
            ),
        )

    def followed(self, last_index: int, commit_index: int, global_commit: int, now_ns: int) -> None:
        """Appends were taken, durably and answered: the log ends at ``last_index`` now. ``global_commit``: at most
        ``applied_index``.
        """
        self._now_ns = self._heard_ns = now_ns
        self._election_deadline_ns = self.deadline_ns = now_ns + self._election_timeout_ns
        self._runs.extend(last_index, self.term)
        self.last_index = self._durable_index = last_index
        self.commit_index = commit_index
        self.global_commit = global_commit
        if global_commit >= self.first_index + FORGET_ENTRIES:
            self._pending = True

    def answered(self, answers: Iterable[tuple[int, int, int, int]], now_ns: int, *, sent_next: bool) -> None:
        """Members have accepted Appends: (member, round, match_index, applied_index) of each, the highest of all its
        answers. ``sent_next``: entries went out behind them, with the commit that follows from them; ``sent`` is next.
        """
        self._now_ns = now_ns
        tells = False
        for member, round_, match, applied in answers:
            peer = self._peers[member]
            self._take_answer(peer, round_, match, applied, now_ns)
            tells = tells or (peer.sent_commit < self.commit_index and not peer.inflight)
        if self._reads.done or self._out:
            return  # pending, whatever else there is
        tells = tells or self._pending
        self._pending = False
        if sent_next or not tells:
            return
        # Of all that a Ready could say, commits are left: the next Append tells them, or one that is made for it.
        commit_index, due_ns = self.commit_index, self._commit_due_ns
        for peer in self._peers_list:
            if peer.sent_commit < commit_index and not peer.inflight:
                if due_ns is None or now_ns >= due_ns:
                    self._pending = True
                else:
                    self.deadline_ns = min(self._heartbeat_due_ns, due_ns)
                return
        self._commit_due_ns = None
        self.deadline_ns = self._heartbeat_due_ns

    def sent(self, last_index: int, bytes_count: int, global_commit: int, now_ns: int) -> None:
        """Entries through ``last_index``, of ``bytes_count`` bytes, are in the log, and one Append with them has gone
        to every member, of the next round and with the commit index as it is.
        """
        self._now_ns = now_ns
        self._round = round_ = self._round + 1
        self._runs.extend(last_index, self.term)
        self.last_index = self._durable_index = self._me.match_index = last_index
        commit_index = self.commit_index
        for peer in self._peers_list:
            if not peer.inflight:
                peer.progress_ns = now_ns
            peer.inflight.append((last_index, bytes_count))
            peer.inflight_bytes += bytes_count
            peer.next_index = last_index + 1
            peer.sent_commit = commit_index
            peer.sent_round = round_
        self.global_commit = global_commit
        self._commit_due_ns = None
        self.deadline_ns = self._heartbeat_due_ns
        if global_commit >= self.first_index + FORGET_ENTRIES:
            self._pending = True
