"""Sending a snapshot, piece by piece, beside everything else a leader does (dissertation chapter 5).

One piece is on its way to a member at a time; heartbeats repeat a lost one. Appends to others do not wait.

Left to others: the bytes of the pieces; when a snapshot is taken.
"""

from __future__ import annotations

from raft.messages import InstallSnapshot, InstallSnapshotReply
from raft.progress import SNAPSHOT, Progress
from raft.reading import Reading
from raft.snapshots import Snapshot
from raft.state import LEADER


class Sending(Reading):
    """How a leader brings back a member whose next entries are gone."""

    __slots__ = ()

    @property
    def snapshot_index(self) -> int:
        """Of the snapshot that can be sent; 0: none."""
        return self._snapshot.index if self._snapshot is not None else 0

    @property
    def snapshot_in_use(self) -> bool:
        """Whether a member is being sent the snapshot: a newer one would make it begin again."""
        return self.role is LEADER and any(peer.state == SNAPSHOT for peer in self._peers_list)

    @property
    def snapshot_wanted(self) -> bool:
        """Whether a member needs a snapshot, and there is none that ends where the log begins."""
        return self.role is LEADER and any(peer.behind_log and peer.state != SNAPSHOT for peer in self._peers_list)

    def snapshot_taken(self, index: int, total_bytes: int) -> None:
        """The node keeps the state machine as it was after ``index``, in ``total_bytes``, until it says so of a newer
        one. ValueError for an index that is not applied, or not behind the last one's: members that have half of it
        would get the other half from other bytes.
        """
        first = max(self.snapshot_index + 1, self._runs.base_index)
        if not first <= index <= self.applied_index:
            raise ValueError(f"snapshot_taken: {index} is not in {first}..{self.applied_index}")
        if total_bytes < 1:
            raise ValueError(f"snapshot_taken: {total_bytes} bytes")
        self._snapshot = Snapshot(index, self._runs.term_at(index), total_bytes, self._history.at(index))
        if self.role is LEADER:
            for peer in self._peers_list:
                if (peer.state == SNAPSHOT or peer.behind_log) and not self._begin_snapshot(peer):
                    # It has that much by now, as its answers to heartbeats said: the log goes on from there.
                    peer.behind_log = False
                    peer.probe(max(peer.match_index + 1, self.first_index), epoch_round=self._round + 1)

    def compact(self, through_index: int) -> None:
        """Lets the log's prefix through ``through_index`` go though not every member has applied it: Ready's
        forget_index says when. ValueError for what no snapshot holds.
        """
        if through_index > self.snapshot_index:
            raise ValueError(f"compact: {through_index} is behind the snapshot of {self.snapshot_index}")
        if through_index > self._compact_index:
            self._compact_index = through_index
            self._pending = True

    def _begin_snapshot(self, peer: Progress) -> bool:
        """Sends it the snapshot; False when there is none that the log goes on from."""
        snapshot = self._snapshot
        if snapshot is None or snapshot.index < self.first_index - 1 or snapshot.index <= peer.match_index:
            return False
        peer.send_snapshot(snapshot.index, epoch_round=self._round + 1)
        self._pending = True
        return True

    def _send_chunk(self, peer: Progress) -> None:
        snapshot = self._snapshot
        assert snapshot is not None and snapshot.index == peer.snapshot_index
        peer.probe_sent = True
        peer.progress_ns = self._now_ns
        offset = peer.snapshot_offset
        self._out.append(
            InstallSnapshot(
                self._node_id,
                peer.member,
                self.term,
                snapshot.index,
                snapshot.term,
                offset,
                snapshot.total_bytes,
                min(self._append_bytes_max, snapshot.total_bytes - offset),
                None if offset else snapshot.configuration,
            )
        )

    def _on_install_snapshot_reply(self, message: InstallSnapshotReply, now_ns: int) -> None:
        """An answer of this term, at its leader."""
        peer = self._peers[message.sender]  # step() lets nobody else's answers through
        if message.index > self.snapshot_index or message.applied_index > self.last_index:
            self.ignored["impossible"] += 1
            return
        peer.heard_ns = now_ns
        peer.applied_index = max(peer.applied_index, message.applied_index)
        if peer.state != SNAPSHOT or message.index != peer.snapshot_index:
            self.ignored["old_reply"] += 1
            return
        assert self._snapshot is not None
        if message.installed:
            # What a member holds of a committed prefix is what everybody holds.
            peer.match_index = max(peer.match_index, message.index)
            peer.behind_log = False
            peer.probe(max(peer.match_index + 1, self.first_index), epoch_round=self._round + 1)
        elif message.offset == peer.snapshot_offset:
            # That piece is on its way already: an answer that came twice, or to a piece that was sent twice. To send on
            # it would never let the copies die out.
            self.ignored["old_reply"] += 1
            return
        elif message.offset < self._snapshot.total_bytes:
            peer.snapshot_offset = message.offset
            peer.probe_sent = False
        self._pending = True
