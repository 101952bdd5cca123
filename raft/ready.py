"""What the core wants done: a value, and the order in which to do it.

Left to others: doing it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from raft.config import HardState
from raft.configuration import Configuration
from raft.messages import Message


@dataclass(frozen=True, slots=True)
class Truncate:
    """Remove the entry at ``from_index`` and all behind it."""

    from_index: int


@dataclass(frozen=True, slots=True)
class AppendNoop:
    """Append one entry without a request at ``index``, of ``term``."""

    index: int
    term: int


@dataclass(frozen=True, slots=True)
class AppendEntries:
    """Append ``count`` entries of the message behind ``payload``, without its first ``skip``, at ``first_index``."""

    first_index: int
    skip: int
    count: int
    term: int
    payload: object


@dataclass(frozen=True, slots=True)
class AppendConfiguration:
    """Append one entry that holds ``configuration`` at ``index``, of ``term``: this leader changes the members."""

    index: int
    term: int
    configuration: Configuration


@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    """Keep the bytes behind ``payload``, which belong at ``offset`` of a snapshot of ``total_bytes``; offset 0 begins
    a new one in place of whatever was kept.
    """

    offset: int
    bytes_count: int
    total_bytes: int
    payload: object


@dataclass(frozen=True, slots=True)
class AbandonSnapshot:
    """No further chunk of the snapshot that was on its way will come: let go what was kept of it."""


@dataclass(frozen=True, slots=True)
class RestoreSnapshot:
    """All chunks are here: make them the state machine's state, empty the log, let it begin behind ``index``.

    To be durable with the Ready, where anything is.
    """

    index: int
    term: int
    configuration: Configuration


LogOp: TypeAlias = (
    Truncate | AppendNoop | AppendEntries | AppendConfiguration | SnapshotChunk | AbandonSnapshot | RestoreSnapshot
)


class Ready:
    """One batch of work. Do it in this order:

    1. execute ``log_ops`` in order, on the entry storage;
    2. ``messages`` may go out at any time from here on, before anything is durable;
    3. make ``hard_state`` (if any), the log operations and the entries proposed since the last Ready durable,
       Readies in the order of their numbers; in memory mode that is at once. Then call ``Raft.persisted(number)``
       and send the messages it returns;
    4. apply entries through ``commit_index``, then call ``Raft.applied``. Committed entries are safe to apply before
       step 3;
    5. drop the log's prefix through ``forget_index`` (0: nothing new). It never passes what was applied here.

    ``reads``: (ticket, index) of reads that may be answered once the state machine has applied ``index``, which may
    be further than it is now. ``reads_failed``: tickets of reads that nobody can confirm any more: ask again.

    ``configuration``: in force from now on, when that has changed; it may not be committed yet.

    Ask ``Raft.has_ready()`` again afterwards: persisted() may have committed something, and Appends for entries that
    step 1 wrote come in the next Ready.
    """

    __slots__ = (
        "commit_index",
        "configuration",
        "forget_index",
        "hard_state",
        "log_ops",
        "messages",
        "number",
        "reads",
        "reads_failed",
    )

    def __init__(
        self,
        number: int,
        hard_state: HardState | None,
        log_ops: list[LogOp],
        messages: list[Message],
        commit_index: int,
        forget_index: int,
        reads: tuple[tuple[int, int], ...] = (),
        reads_failed: tuple[int, ...] = (),
        configuration: Configuration | None = None,
    ) -> None:
        """Fields as the class documents them."""
        self.number = number
        self.hard_state = hard_state
        self.log_ops = log_ops
        self.messages = messages
        self.commit_index = commit_index
        self.forget_index = forget_index
        self.reads = reads
        self.reads_failed = reads_failed
        self.configuration = configuration

    def __repr__(self) -> str:
        """Every field."""
        return (
            f"Ready(number={self.number}, hard_state={self.hard_state}, log_ops={self.log_ops}, "
            f"messages={self.messages}, commit_index={self.commit_index}, forget_index={self.forget_index}, "
            f"reads={self.reads}, reads_failed={self.reads_failed}, configuration={self.configuration})"
        )
