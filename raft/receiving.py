"""Taking a snapshot in: a member so far behind that nobody keeps what it misses (dissertation chapter 5).

Left to others: the bytes, and making them the state machine's state.
"""

from __future__ import annotations

from raft.following import Following
from raft.messages import InstallSnapshot, InstallSnapshotReply
from raft.ready import RestoreSnapshot, SnapshotChunk
from raft.snapshots import Incoming
from raft.state import FOLLOWER, LEADER


class Receiving(Following):
    """What a node does with a leader's snapshot."""

    __slots__ = ()

    def _on_install_snapshot(self, message: InstallSnapshot, now_ns: int) -> None:
        """A piece, of this term's leader. Pieces are taken in order; any other tells the leader where to go on."""
        if self.role is not FOLLOWER:
            if self.role is LEADER:
                self.ignored["impossible"] += 1
                return
            self._become_follower(self.term, now_ns)
        self.leader_id = message.sender
        self._heard_ns = now_ns
        self._election_deadline_ns = self.deadline_ns = now_ns + self._election_timeout_ns

        index = message.index
        if index <= self.commit_index:  # all of it is in the log or applied
            self._answer_snapshot(message, message.total_bytes, installed=True)
            return
        runs = self._runs
        if index <= self.last_index and runs.term_at(index) == message.index_term:
            # The log holds the entry, hence everything before it (Log Matching): it is committed, and nothing is lost.
            self.commit_index = index
            if self._incoming is not None and self._incoming.index <= index:
                self._abandon_snapshot()
            self._answer_snapshot(message, message.total_bytes, installed=True)
            return
        incoming = self._incoming
        if incoming is not None and index < incoming.index:
            self.ignored["old_reply"] += 1
            return
        if incoming is None or (index, message.total_bytes) != (incoming.index, incoming.total_bytes):
            if message.offset or message.configuration is None:
                self._abandon_snapshot()
                self._answer_snapshot(message, 0)
                return
            incoming = self._incoming = Incoming(index, message.total_bytes, message.configuration)
        if message.offset != incoming.offset:
            self._answer_snapshot(message, incoming.offset)
            return
        self._log_ops.append(SnapshotChunk(message.offset, message.bytes_count, message.total_bytes, message.payload))
        incoming.offset += message.bytes_count
        done = incoming.offset == incoming.total_bytes
        if done:
            self._restore(message, incoming, now_ns)
        self._answer_snapshot(message, incoming.offset, installed=done)

    def _restore(self, message: InstallSnapshot, incoming: Incoming, now_ns: int) -> None:
        """The log gives way to the snapshot: nothing of it beyond the commit is known to be right."""
        index = incoming.index
        self._incoming = None
        self._log_ops.append(RestoreSnapshot(index, message.index_term, incoming.configuration))
        # What was committed is durable as before; the rest of the log on disk will be gone with this write.
        before = self.commit_index
        self._durable_index = min(self._durable_index, before)
        for waiting in self._unpersisted:
            waiting.last_index = min(waiting.last_index, before)
        self._runs.restart(index, message.index_term)
        self.first_index = index + 1
        self.last_index = self.commit_index = self.applied_index = index
        self._snapshot = None
        self._compact_index = 0
        self._history.restart(index, incoming.configuration)
        self._derive_members(now_ns)

    def _answer_snapshot(self, message: InstallSnapshot, offset: int, *, installed: bool = False) -> None:
        # Withheld until durable, as an AppendReply is: the leader takes "installed" for a match.
        self._after.append(
            InstallSnapshotReply(
                self._node_id,
                message.sender,
                self.term,
                message.index,
                offset,
                installed,
                self.applied_index,
                message.request_id,
            )
        )
        self._pending = True
