"""Whether there is room in the log for what others send: a follower's for its leader's entries, a leader's for
forwarded requests.

Leaves to others: room for a client's own requests (the engine), making room (:mod:`r2p2.node.upkeep`).
"""

from __future__ import annotations

from collections.abc import Callable

from r2p2.engine import Engine, EngineConfig
from r2p2.node.durability import Durability
from raft import Append, Forward, Raft

__all__ = ["Room"]


class Room:
    """The room in one member's log.

    Args:
        engine, raft: the member's.
        disk: its share of the disk is a bound, too; None: in memory.
        bounds: the engine's.
        heartbeat_ns: for so long nothing is refused behind an Append that found no room.
        make_logs_agree: has everything that Raft has taken executed, so that it is in the engine's log.
    """

    def __init__(
        self,
        engine: Engine,
        raft: Raft,
        disk: Durability | None,
        bounds: EngineConfig,
        heartbeat_ns: int,
        make_logs_agree: Callable[[int], None],
    ) -> None:
        self._engine = engine
        self._raft = raft
        self._disk = disk
        self._bounds = bounds
        self._heartbeat_ns = heartbeat_ns
        self._make_logs_agree = make_logs_agree
        self._taken_bytes = 0  # of Appends of this poll: the engine's log may not hold them yet
        self._none_until_ns = 0  # what comes behind an Append that was not taken is not refused before

    def begin_poll(self) -> None:
        """The engine's log and Raft's agree."""
        self._taken_bytes = 0

    def takes(self, message: Append, now_ns: int) -> bool:
        """A full log takes no entries; the leader's Append goes unanswered and comes again when the prefix has been
        dropped. So does what comes behind it for a while: a refusal would have the leader send all of it again at once.
        """
        if message.prev_index > self._raft.last_index and now_ns < self._none_until_ns:
            return False
        bound = self._bounds.log_bytes_max
        self._taken_bytes += message.bytes_count
        if self._log_bytes() + self._taken_bytes <= bound + bound // 4:
            return True
        # Some that were taken may have been here already: their bytes are counted once they are in the log.
        self._make_logs_agree(now_ns)
        self._taken_bytes = 0
        first = self._raft.changes_from(message)
        if not first:
            return True
        # A log may be full of just what the leader's entries take the place of.
        removed_bytes = self._engine.range_bytes(first, self._raft.last_index)
        if self._log_bytes() - removed_bytes + message.bytes_count > bound + bound // 4:
            return self.refuse(now_ns)
        self._taken_bytes = message.bytes_count
        return True

    def refuse(self, now_ns: int) -> bool:
        """An Append is not taken, nor for a while what comes behind it. False."""
        self._none_until_ns = now_ns + self._heartbeat_ns
        return False

    def takes_forward(self, message: Forward) -> bool:
        """Whether forwarded requests have room. The engine's log and Raft's agree."""
        raft, bounds = self._raft, self._bounds
        return (
            raft.last_index - raft.applied_index < bounds.backlog_entries_max
            and self._log_bytes() + message.bytes_count <= bounds.log_bytes_max
        )

    def _log_bytes(self) -> int:
        return self._engine.log_bytes if self._disk is None else max(self._engine.log_bytes, self._disk.log_bytes)
