"""One simulated member: the Raft core, a list log, a hash chain as state machine, a disk that loses unsynced writes.

It does the work of a Ready in the documented order and nothing else: the smallest example of embedding the core, and
what the unit tests drive by hand.

Left to others: time, the network, faults (world.py), and judging the outcome (checkers.py).
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from raft import (
    Append,
    AppendEntries,
    Chance,
    Config,
    Configuration,
    HardState,
    InstallSnapshot,
    LogOp,
    Message,
    Raft,
    Ready,
    RestoreSnapshot,
    SnapshotChunk,
    TermRuns,
)
from raft.list_log import Entry, ListLog

SNAPSHOT_BYTES = 300  # more than one chunk, where a test wants that


def snapshot_data(digest: int) -> bytes:
    """The state machine in bytes, larger than it need be."""
    return digest.to_bytes(4, "big") * (SNAPSHOT_BYTES // 4)


def chain(digest: int, entry: Entry) -> int:
    """The state after ``entry``: equal digests mean equal histories."""
    return zlib.crc32(repr(entry[:2]).encode(), digest)


@dataclass
class Disk:
    """What is durable: term and vote, the log, and the state machine as it was at the log's start."""

    hard_state: HardState | None = None
    log: ListLog = field(default_factory=ListLog)
    base_term: int = 0
    base_digest: int = 0
    base_configuration: Configuration | None = None

    def configurations(self) -> list[tuple[int, Configuration]]:
        """Those of the log, and what was in force at its start."""
        base = [] if self.base_configuration is None else [(self.log.first_index - 1, self.base_configuration)]
        entries = enumerate(self.log.entries, self.log.first_index)
        return base + [(index, entry[1]) for index, entry in entries if isinstance(entry[1], Configuration)]

    def term_runs(self) -> TermRuns:
        """The terms of the durable log."""
        runs: list[tuple[int, int]] = []
        for index, entry in enumerate(self.log.entries, self.log.first_index):
            if not runs or runs[-1][1] != entry[0]:
                runs.append((index, entry[0]))
        return TermRuns(runs, self.log.last_index, base_index=self.log.first_index - 1, base_term=self.base_term)


@dataclass
class Write:
    """What one Ready wants on disk. The entries of its operations are copies: the log in memory moves on."""

    number: int
    hard_state: HardState | None
    ops: list[LogOp]
    digest: int = 0  # of the snapshot that one of the operations restores


class SimNode:
    """A member on a :class:`Disk`. ``sync_at_once``: writes are durable as soon as they are asked for (memory mode)."""

    def __init__(
        self, config: Config, *, rng: Chance, now_ns: int, disk: Disk | None = None, sync_at_once: bool = True
    ) -> None:
        """Starts, or restarts from what ``disk`` holds."""
        self.config = config
        self.disk = disk or Disk()
        self.sync_at_once = sync_at_once
        self.log = ListLog(self.disk.log.entries, first_index=self.disk.log.first_index)
        self.raft = Raft(
            config,
            self.log,
            rng=rng,
            now_ns=now_ns,
            hard_state=self.disk.hard_state,
            term_runs=self.disk.term_runs(),
            configurations=self._known_configurations(),
        )
        self.digests = {self.log.first_index - 1: self.disk.base_digest}  # after each applied index still in the log
        self.applied: list[tuple[int, Entry]] = []  # since the last look; a checker takes them
        self.writes: deque[Write] = deque()
        self.readies: list[Ready] = []  # since the last look, for tests
        self._proposed_first = 0
        self._snapshot = b""  # what the core may send
        self._incoming = bytearray()

    def _known_configurations(self) -> list[tuple[int, Configuration]]:
        known = self.disk.configurations()
        if known and known[0][0] >= self.log.first_index:  # what the cluster began with is not in the log
            known.insert(0, (0, Configuration(tuple(sorted(self.config.members)))))
        return known

    def take_snapshot(self) -> None:
        """Of the state as it is; the log before it may go."""
        index = self.raft.applied_index
        self._snapshot = snapshot_data(self.digest)
        self.raft.snapshot_taken(index, len(self._snapshot))
        self.raft.compact(index)

    @property
    def digest(self) -> int:
        """The state machine's state."""
        return self.digests[self.raft.applied_index]

    def propose(self, values: Sequence[object], now_ns: int, *, bytes_count: int = 64) -> int:
        """Appends ``values`` at the leader; their first index. Raises NotLeader and leaves the log as it was."""
        last = self.log.last_index
        for value in values:
            self.log.append(self.raft.term, value, bytes_count)
        try:
            first = self.raft.propose(len(values), now_ns)
        except Exception:
            if values:
                self.log.truncate(last + 1)
            raise
        if not self._proposed_first:
            self._proposed_first = first
        return first

    def work(self) -> list[Message]:
        """Does what the core has ready, in order; returns what goes to the network."""
        out: list[Message] = []
        raft = self.raft
        while raft.has_ready():
            ready = raft.ready()
            self.readies.append(ready)
            write = Write(ready.number, ready.hard_state, self._proposed_ops())
            for op in ready.log_ops:
                self.log.execute(op)
                write.ops.append(self._durable_op(op))
                if isinstance(op, SnapshotChunk):
                    assert isinstance(op.payload, bytes)
                    self._incoming[op.offset :] = op.payload
                elif isinstance(op, RestoreSnapshot):
                    write.digest = int.from_bytes(self._incoming[:4], "big")
                    assert bytes(self._incoming) == snapshot_data(write.digest)
                    self.digests = {op.index: write.digest}
                    self._incoming.clear()
            out += self._with_entries(ready.messages)
            self.writes.append(write)
            if self.sync_at_once:
                out += self.sync()
            if ready.commit_index > raft.applied_index:
                self._apply(ready.commit_index)
            if ready.forget_index:
                self._forget(ready.forget_index)
        return out

    def sync(self, count: int | None = None) -> list[Message]:
        """The ``count`` oldest writes (None: all) reach the disk; returns the messages that waited for them."""
        number = 0
        for _ in range(len(self.writes) if count is None else min(count, len(self.writes))):
            write = self.writes.popleft()
            self._store(write)
            number = write.number
        return self._with_entries(self.raft.persisted(number)) if number else []

    def crash(self, *, writes_kept: int = 0, torn_ops: int = 0) -> Disk:
        """The disk after a crash: ``writes_kept`` writes made it, and ``torn_ops`` operations of the next."""
        for _ in range(min(writes_kept, len(self.writes))):
            self._store(self.writes.popleft())
        if torn_ops and self.writes:
            write = self.writes.popleft()
            # Term and vote are one record in front of the entries, so operations survive only behind them.
            self._store(Write(write.number, write.hard_state, write.ops[:torn_ops]))
        self.writes.clear()
        return self.disk

    def _proposed_ops(self) -> list[LogOp]:
        """Entries proposed since the last Ready: they stand in the log already, the disk has yet to hear of them."""
        first, self._proposed_first = self._proposed_first, 0
        if not first:
            return []
        entries = self.log.slice(first, self.log.last_index)
        return [AppendEntries(first, 0, len(entries), entries[0][0], tuple(entries))]

    def _durable_op(self, op: LogOp) -> LogOp:
        if isinstance(op, AppendEntries):
            entries = tuple(self.log.slice(op.first_index, op.first_index + op.count - 1))
            return AppendEntries(op.first_index, 0, op.count, op.term, entries)
        return op

    def _store(self, write: Write) -> None:
        if write.hard_state is not None:
            self.disk.hard_state = write.hard_state
        for op in write.ops:
            self.disk.log.execute(op)
            if isinstance(op, RestoreSnapshot):
                self.disk.base_term, self.disk.base_digest = op.term, write.digest
                self.disk.base_configuration = op.configuration

    def _with_entries(self, messages: list[Message]) -> list[Message]:
        for message in messages:
            if isinstance(message, Append) and message.count:
                message.payload = tuple(self.log.slice(message.prev_index + 1, message.prev_index + message.count))
            elif isinstance(message, InstallSnapshot):
                message.payload = self._snapshot[message.offset : message.offset + message.bytes_count]
        return messages

    def _apply(self, commit_index: int) -> None:
        first = self.raft.applied_index + 1
        digest = self.digests[first - 1]
        for index, entry in enumerate(self.log.slice(first, commit_index), first):
            digest = self.digests[index] = chain(digest, entry)
            self.applied.append((index, entry))
        self.raft.applied(commit_index)

    def _forget(self, through_index: int) -> None:
        """Drops the prefix in memory and on disk, with the state machine's state in its place."""
        for index in range(self.log.first_index, through_index + 1):
            del self.digests[index - 1]
        self.log.drop_prefix(through_index)
        disk = self.disk
        if through_index > disk.log.last_index:
            raise AssertionError(f"forget through {through_index}, durable through {disk.log.last_index}")
        for index, configuration in disk.configurations():
            if index <= through_index:
                disk.base_configuration = configuration
        disk.base_term = disk.log.entry(through_index)[0]
        disk.base_digest = self.digests[through_index]
        disk.log.drop_prefix(through_index)
