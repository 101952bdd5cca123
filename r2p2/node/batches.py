"""Committed entries as the application gets them: one batch at a time, prepared, applied by others, and ended with its
replies.

Who applies it, and when, is :mod:`r2p2.node.applying`'s or :mod:`r2p2.node.applying_apart`'s; laying out requests and
sending replies is the engine's.
"""

from __future__ import annotations

from typing import Final

from r2p2 import limits
from r2p2.engine import Engine
from r2p2.node.determinism import Determinism
from r2p2.node.durability import Durability
from r2p2.node.log_time import LogTime
from r2p2.requests import ReplySequence, Requests
from raft import Raft, Role

__all__ = ["Batches"]


class Batches:
    """The batches of one member, of which at most one is out.

    Args:
        engine: lays the requests out, and sends the replies.
        time: whether the application is told of time that goes on without requests.
        disk: what was read back from it is applied and not answered; None: in memory.
        check: compares the replicas' results; None: nobody does.
        counters: the node's.

    Attributes:
        notes: what the replicas are to compare, to be written into the log.
    """

    COUNTERS: Final = ("apply_batches",)

    def __init__(
        self,
        engine: Engine,
        time: LogTime,
        disk: Durability | None,
        check: Determinism | None,
        counters: dict[str, int],
    ) -> None:
        self.notes: list[bytes] = []
        self._engine = engine
        self._time = time
        self._disk = disk
        self._check = check
        self._counters = counters
        # Of the batch that is out: its last index, whether it was read back from the disk, the notes in it.
        self._last_index = 0
        self._is_replay = False
        self._notes_in: list[bytes] = []
        for name in self.COUNTERS:
            counters.setdefault(name, 0)

    def prepare(self, raft: Raft) -> Requests | None:
        """The next batch; None: everything that is committed is applied."""
        applied_index, commit_index = raft.applied_index, raft.commit_index
        if applied_index >= commit_index:
            return None
        # Nobody waits any more for answers to what was read back from the disk; a client may have used the rid again.
        replay_through = 0 if self._disk is None else self._disk.replay_through
        self._is_replay = is_replay = applied_index < replay_through
        check = self._check
        requests, self._last_index = self._engine.apply_prepare(
            min(commit_index, replay_through) if is_replay else commit_index,
            limits.APPLY_BATCH_ENTRIES_MAX if check is None else check.batch_entries(),
        )
        if check is not None:
            self._notes_in = check.notes(self._last_index)
        return requests

    def is_for_app(self, requests: Requests) -> bool:
        """Whether a batch has something for the application: requests, or a later time."""
        return len(requests) > 0 or (self._time.tells_app and requests.time_ms > self._engine.applied_time_ms)

    def end(self, raft: Raft, replies: ReplySequence) -> None:
        """The batch that is out has been applied."""
        self._counters["apply_batches"] += 1
        self._engine.apply_reply(replies, send=raft.role is Role.LEADER and not self._is_replay)
        raft.applied(self._last_index)
        if self._check is not None:
            self.notes += self._check.applied(self._last_index, replies, self._notes_in)

    def take_notes(self) -> list[bytes]:
        """The notes that are to be written, each once."""
        notes, self.notes = self.notes, []
        return notes
