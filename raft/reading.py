"""Linearizable reads, as leader and as follower; the book-keeping is in reads.py (dissertation 6.4)."""

from __future__ import annotations

from raft.messages import (
    ReadIndex,
    ReadIndexReply,
)
from raft.quorum import reached_by_majority
from raft.reads import Read
from raft.receiving import Receiving
from raft.state import LEADER


class Reading(Receiving):
    """How a read gets the index it has to wait for."""

    __slots__ = ()

    def _note_read(self, member: int, context: int, request_id: int) -> None:
        index = max(self.commit_index, self._term_first_index)
        self._reads.waiting.append(Read(self._round + 1, index, member, context, request_id))
        self._pending = True

    def _count_confirmations(self) -> None:
        round_ = reached_by_majority([voter.acked_round for voter in self._voters])
        if self._outgoing:
            round_ = min(round_, reached_by_majority([voter.acked_round for voter in self._outgoing]))
        for read in self._reads.confirmed(round_):
            self._answer_read(read, granted=True)
        if self._reads.done:
            self._pending = True

    def _on_read_index(self, message: ReadIndex) -> None:
        if self.role is LEADER:
            self._note_read(message.sender, message.context, message.request_id)
        else:
            self._answer_read(Read(0, 0, message.sender, message.context, message.request_id), granted=False)

    def _on_read_index_reply(self, message: ReadIndexReply) -> None:
        reads = self._reads
        if message.sender != self.leader_id or message.context not in reads.asked:
            self.ignored["old_reply"] += 1
            return
        del reads.asked[message.context]
        if message.granted:
            reads.done.append((message.context, message.index))
        else:
            reads.failed.append(message.context)
        self._pending = True
