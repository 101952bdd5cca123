"""Entry storage in a plain list: the reference that other storages are held against, and what simulations use.

An entry is (term, value, bytes on the wire). Left to others: durability.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from raft.ready import (
    AbandonSnapshot,
    AppendConfiguration,
    AppendEntries,
    AppendNoop,
    LogOp,
    RestoreSnapshot,
    SnapshotChunk,
    Truncate,
)

Entry: TypeAlias = tuple[int, object, int]
NOOP_BYTES = 16
CONFIGURATION_BYTES = 128


class ListLog:
    """Entries first_index..last_index; satisfies :class:`raft.config.Log`."""

    def __init__(self, entries: Sequence[Entry] = (), *, first_index: int = 1) -> None:
        """``entries`` stand from ``first_index`` on."""
        self.entries: list[Entry] = list(entries)
        self.first_index = first_index

    @property
    def last_index(self) -> int:
        """Of the newest entry; first_index - 1 when there is none."""
        return self.first_index + len(self.entries) - 1

    def entry(self, index: int) -> Entry:
        """The entry at ``index``; IndexError outside the log."""
        if not self.first_index <= index <= self.last_index:
            raise IndexError(f"entry {index} is outside {self.first_index}..{self.last_index}")
        return self.entries[index - self.first_index]

    def slice(self, first_index: int, last_index: int) -> list[Entry]:
        """Entries first_index..last_index; IndexError where the log does not hold them."""
        if first_index > last_index:
            return []
        self.entry(first_index)
        self.entry(last_index)
        return self.entries[first_index - self.first_index : last_index - self.first_index + 1]

    def append(self, term: int, value: object, bytes_count: int) -> int:
        """Adds one entry; returns its index."""
        self.entries.append((term, value, bytes_count))
        return self.last_index

    def execute(self, op: LogOp) -> None:
        """Does one operation of a Ready; ValueError where it does not fit. Payloads are sequences of entries."""
        if isinstance(op, Truncate):
            self.truncate(op.from_index)
            return
        if isinstance(op, SnapshotChunk | AbandonSnapshot):
            return  # not the log's
        if isinstance(op, RestoreSnapshot):
            self.entries.clear()
            self.first_index = op.index + 1
            return
        if isinstance(op, AppendConfiguration):
            if op.index != self.last_index + 1:
                raise ValueError(f"{op}: the log ends at {self.last_index}")
            self.append(op.term, op.configuration, CONFIGURATION_BYTES)
            return
        first = op.index if isinstance(op, AppendNoop) else op.first_index
        if first != self.last_index + 1:
            raise ValueError(f"{op}: the log ends at {self.last_index}")
        if isinstance(op, AppendNoop):
            self.append(op.term, None, NOOP_BYTES)
            return
        self._append_entries(op)

    def _append_entries(self, op: AppendEntries) -> None:
        payload = op.payload
        if not isinstance(payload, Sequence) or len(payload) < op.skip + op.count:
            raise ValueError(f"{op}: the payload does not hold the entries")
        for term, value, bytes_count in payload[op.skip : op.skip + op.count]:
            if term != op.term:
                raise ValueError(f"{op}: an entry has term {term}")
            self.append(term, value, bytes_count)

    def truncate(self, from_index: int) -> None:
        """Removes ``from_index`` and all behind it."""
        if not self.first_index <= from_index <= self.last_index:
            raise ValueError(f"truncate from {from_index}: the log has {self.first_index}..{self.last_index}")
        del self.entries[from_index - self.first_index :]

    def drop_prefix(self, through_index: int) -> None:
        """Removes everything through ``through_index``."""
        if not self.first_index - 1 <= through_index <= self.last_index:
            raise ValueError(f"drop through {through_index}: the log has {self.first_index}..{self.last_index}")
        del self.entries[: through_index + 1 - self.first_index]
        self.first_index = through_index + 1

    def fit(self, first_index: int, last_index: int, bytes_max: int) -> int:
        """As :class:`raft.config.Log` says."""
        total_bytes = 0
        fitting = first_index
        for index, entry in enumerate(self.slice(first_index, last_index), first_index):
            total_bytes += entry[2]
            if total_bytes > bytes_max:
                break
            fitting = index
        return fitting

    def range_bytes(self, first_index: int, last_index: int) -> int:
        """As :class:`raft.config.Log` says."""
        return sum(entry[2] for entry in self.slice(first_index, last_index))
