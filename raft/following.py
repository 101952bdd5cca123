"""Following: what a node does with a leader's Appends (dissertation 3.5).

Left to others: the bytes of the entries, and when what is written is durable.
"""

from __future__ import annotations

from raft.elections import Elections
from raft.messages import (
    Append,
    AppendReply,
)
from raft.ready import AppendEntries, Truncate
from raft.state import FOLLOWER, LEADER


class Following(Elections):
    """How a node makes its log equal to its leader's."""

    __slots__ = ()

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
        if message.count and not self._take_entries(message, last, now_ns):
            self.ignored["impossible"] += 1
            return
        if message.commit > self.commit_index:
            self.commit_index = max(self.commit_index, min(message.commit, last))
            if self._incoming is not None and self._incoming.index <= self.commit_index:
                self._abandon_snapshot()
        if message.global_commit > self.global_commit:
            self.global_commit = max(self.global_commit, min(message.global_commit, self.applied_index))
        self._answer_append(message, accepted=True, match=last)

    def _take_entries(self, message: Append, last: int, now_ns: int) -> bool:
        """Adds what is missing of prev_index + 1 .. last; removes only what contradicts it.

        False, and nothing is changed, for entries older than the one before them, or a configuration in company: no
        leader's log has the one, and none sends the other.
        """
        configuration = message.configuration
        if configuration is not None and message.count != 1:
            return False
        runs = self._runs
        term = message.entries_term
        if message.prev_index == self.last_index:
            first = self.last_index + 1
        else:
            first = self._first_missing(message)
            if first > last:
                return True
        if term < runs.term_at(first - 1):
            return False
        if first <= self.last_index:
            self._truncate(first, now_ns)
        skip = first - message.prev_index - 1
        self._log_ops.append(AppendEntries(first, skip, last - first + 1, term, message.payload))
        runs.extend(last, term)
        self.last_index = last
        if configuration is not None:
            self._history.add(last, configuration)
            self._derive_members(now_ns)
        return True

    def _first_missing(self, message: Append) -> int:
        """Behind the part that is here already and equal: committed, or of the same term."""
        first = max(message.prev_index, self.commit_index) + 1
        if first <= self.last_index and self._runs.term_at(first) == message.entries_term:
            first = self._runs.run_last(first) + 1
        return first

    def changes_from(self, message: Append) -> int:
        """The first index at which an Append with entries would change the log, if it came now: what is there goes. 0:
        it would change nothing, since they are here already or do not fit what is.
        """
        prev = message.prev_index
        if message.term < self.term or prev > self.last_index:
            return 0
        if prev > self.commit_index and self._runs.term_at(prev) != message.prev_term:
            return 0
        first = self._first_missing(message)
        return first if first <= prev + message.count else 0

    def _truncate(self, from_index: int, now_ns: int) -> None:
        self._log_ops.append(Truncate(from_index))
        self._runs.truncate(from_index)
        self.last_index = from_index - 1
        # Whatever is durable, or will be when its write returns, is so only through here: the same indices will hold
        # other entries.
        self._durable_index = min(self._durable_index, self.last_index)
        for waiting in self._unpersisted:
            waiting.last_index = min(waiting.last_index, self.last_index)
        if self._history.truncate(from_index):
            self._derive_members(now_ns)

    def _answer_append(
        self, message: Append, *, accepted: bool, match: int, hint: int = 0, hint_term: int = 0, round_: int = 0
    ) -> None:
        # This leaves when everything up to here is durable, so all we report as applied is: others may forget it.
        self._after.append(
            AppendReply(
                self._node_id,
                message.sender,
                self.term,
                round_ or message.round,
                match,
                hint,
                hint_term,
                self.applied_index,
                accepted,
                message.request_id,
            )
        )
        self._pending = True
