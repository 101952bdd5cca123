"""A simulated member that takes the steady step outside the core, as the engine does in C: the same conditions, in the
same order, in Python. What the simulator's checkers find of it they find of ``raft/steady.py``.

Left to others: whether the C does the same (tests/node/test_steady.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from r2p2.sim.node import SimNode, Write
from raft import Append, AppendEntries, AppendReply, Message

__all__ = ["SteadyNode"]


class SteadyNode(SimNode):
    """In memory: what is written is durable at once."""

    steps_count = 0  # taken outside the core

    def step(self, message: Message, now_ns: int) -> None:
        """Takes the message in, without the core where it is the usual."""
        if isinstance(message, Append) and self._is_usual(message):
            self._follow(message, now_ns)
        elif isinstance(message, AppendReply) and self._is_answer(message):
            answer = (message.sender, message.round, message.match_index, message.applied_index)
            self.raft.answered([answer], now_ns, sent_next=False)
        else:
            super().step(message, now_ns)
            return
        self.steps_count += 1

    def _is_usual(self, message: Append) -> bool:
        raft = self.raft
        return (
            raft.follows_steadily
            and message.sender == raft.leader_id
            and message.term == message.prev_term == message.entries_term == raft.term
            and message.prev_index == raft.last_index
            and message.count > 0
            and message.configuration is None
        )

    def _follow(self, message: Append, now_ns: int) -> None:
        raft = self.raft
        last = message.prev_index + message.count
        self._write(AppendEntries(message.prev_index + 1, 0, message.count, message.term, message.payload))
        commit_index = max(raft.commit_index, min(message.commit, last))
        global_commit = max(raft.global_commit, min(message.global_commit, raft.applied_index))
        applied_index = raft.applied_index
        raft.followed(last, commit_index, global_commit, now_ns)
        self.out.append(
            AppendReply(
                message.target,
                message.sender,
                raft.term,
                message.round,
                last,
                0,
                0,
                applied_index,
                True,
                message.request_id,
            )
        )

    def _is_answer(self, message: AppendReply) -> bool:
        raft = self.raft
        return (
            raft.leads_steadily
            and message.term == raft.term
            and message.accepted
            and any(message.sender == member for member, _, _ in raft.steady_peers())
            and message.round <= raft.round
            and max(message.match_index, message.applied_index) <= raft.last_index
        )

    def propose(self, values: Sequence[object], now_ns: int, *, bytes_count: int = 64) -> int:
        """Appends ``values`` and sends them, without the core where all members have everything before them."""
        raft = self.raft
        size = len(values) * bytes_count
        is_usual = raft.leads_steadily and values and raft.appends_room() and size <= self.config.append_bytes_max
        if not is_usual:
            return super().propose(values, now_ns, bytes_count=bytes_count)
        before = raft.last_index
        for value in values:
            self.log.append(raft.term, value, bytes_count)
        entries = tuple(self.log.slice(before + 1, self.log.last_index))
        self._store(Write(0, None, [AppendEntries(before + 1, 0, len(entries), raft.term, entries)]))
        if not self.touched_from:
            self.touched_from = before + 1
        peers = raft.steady_peers()
        everywhere = min(raft.applied_index, before, *(applied for _, _, applied in peers))
        raft.sent(self.log.last_index, size, max(raft.global_commit, everywhere), now_ns)
        for member, _, _ in peers:
            append = Append(
                self.config.node_id,
                member,
                raft.term,
                before,
                raft.term,
                raft.term,
                raft.commit_index,
                raft.global_commit,
                raft.round,
                len(values),
                size,
            )
            append.payload = entries
            self.out.append(append)
        self.steps_count += 1
        return before + 1

    def _write(self, op: AppendEntries) -> None:
        self.log.execute(op)
        self._store(Write(0, None, [self._durable_op(op)]))
        self._note_touched(op)
