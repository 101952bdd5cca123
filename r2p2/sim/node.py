"""One simulated member: the core, a list log, a state machine under a hash chain, a disk that loses unsynced writes.

It does the work of a Ready in the documented order and nothing else: the smallest example of embedding the core, and
what the unit tests drive by hand.

Left to others: time, the network, faults (world.py), and judging the outcome (checkers.py).
"""

from __future__ import annotations

import marshal
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from r2p2.sim.machine import Machine, Reply, Request
from raft import (
    AbandonSnapshot,
    Append,
    AppendConfiguration,
    AppendEntries,
    AppendNoop,
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
    Role,
    SnapshotChunk,
    TermRuns,
    Truncate,
)
from raft.list_log import Entry, ListLog

SNAPSHOT_BYTES_MIN = 300  # more than one chunk, where a test wants that


def chain(digest: int, entry: Entry) -> int:
    """The state after ``entry``: equal digests mean equal histories. Of this process only: values hash as they do."""
    return hash((digest, entry[0], entry[1]))


def snapshot_data(digest: int, machine: Machine) -> bytes:
    """The state in bytes, never very few."""
    data = marshal.dumps((digest, machine.export()))
    return data + bytes(max(0, SNAPSHOT_BYTES_MIN - len(data)))


@dataclass
class Disk:
    """What is durable: term and vote, the log, and what was so at the log's start: the entry before it, the state
    machine, the configuration in force (None: the first).
    """

    hard_state: HardState | None = None
    log: ListLog = field(default_factory=ListLog)
    base_term: int = 0
    base_digest: int = 0
    base_machine: Machine = field(default_factory=Machine)
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
    restored: bytes = b""  # the snapshot that one of the operations restores


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
        self.machine = self.disk.base_machine.copy()
        # Since the last look of whoever takes them: what was applied; what came of requests, where this member led;
        # the lowest index whose entry was written or removed (0: none); configurations that were written.
        self.applied: list[tuple[int, Entry]] = []
        self.answers: list[tuple[Request, Reply]] = []
        self.touched_from = 0
        self.configurations: list[tuple[int, Configuration]] = []
        self.writes: deque[Write] = deque()
        self.readies: list[Ready] = []  # since the last look, for tests
        self.out: list[Message] = []  # what was said without a Ready
        self.restores_count = 0
        self._proposed_first = 0
        self._snapshot = b""  # what the core may send, of snapshot_index
        self.snapshot_index = 0
        self.incoming = bytearray()  # what has come of a snapshot

    def _known_configurations(self) -> list[tuple[int, Configuration]]:
        known = self.disk.configurations()
        if known and known[0][0] >= self.log.first_index:  # what the cluster began with is not in the log
            known.insert(0, (0, Configuration(tuple(sorted(self.config.members)))))
        return known

    def take_snapshot(self, *, compact: bool = True) -> None:
        """Of the state as it is; ``compact``: the log before it may go."""
        index = self.raft.applied_index
        if index > self.raft.snapshot_index:  # else there is one of it: no member gets halves of two
            self._snapshot = snapshot_data(self.digest, self.machine)
            self.snapshot_index = index
            self.raft.snapshot_taken(index, len(self._snapshot))
        if compact:
            self.raft.compact(index)

    @property
    def digest(self) -> int:
        """The state machine's state."""
        return self.digests[self.raft.applied_index]

    def step(self, message: Message, now_ns: int) -> None:
        """Takes one message in."""
        self.raft.step(message, now_ns)

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
        if not self.touched_from:
            self.touched_from = first
        return first

    def work(self) -> list[Message]:
        """Does what the core has ready, in order; returns what goes to the network."""
        out, self.out = self.out, []
        raft = self.raft
        while raft.has_ready():
            ready = raft.ready()
            self.readies.append(ready)
            write = Write(ready.number, ready.hard_state, self._proposed_ops())
            for op in ready.log_ops:
                self.log.execute(op)
                write.ops.append(self._durable_op(op))
                if isinstance(op, SnapshotChunk):
                    self._take_chunk(op)
                elif isinstance(op, AbandonSnapshot):
                    self.incoming.clear()
                elif isinstance(op, RestoreSnapshot):
                    self._restore(op, write)
                else:
                    self._note_touched(op)
            out += self._with_entries(ready.messages)
            self.writes.append(write)
            if self.sync_at_once:
                out += self.sync()
            if ready.commit_index > raft.applied_index:
                self._apply(ready.commit_index)
            if ready.forget_index:
                self._forget(ready.forget_index)
        if raft.commit_index > raft.applied_index:
            self._apply(raft.commit_index)  # what was committed without a Ready
        return out

    def sync(self, count: int | None = None) -> list[Message]:
        """The ``count`` oldest writes (None: all) reach the disk; returns the messages that waited for them."""
        number = 0
        for _ in range(len(self.writes) if count is None else min(count, len(self.writes))):
            write = self.writes.popleft()
            self._store(write)
            number = write.number
        return self._with_entries(self.raft.persisted(number)) if number else []

    def crash(self, *, writes_kept: int = 0, torn_ops: int = 0, torn_entries: int = 0) -> Disk:
        """The disk after a crash: ``writes_kept`` writes made it, ``torn_ops`` operations of the next, and of the
        operation behind those ``torn_entries`` entries.
        """
        for _ in range(min(writes_kept, len(self.writes))):
            self._store(self.writes.popleft())
        if (torn_ops or torn_entries) and self.writes:
            write = self.writes.popleft()
            # Term and vote are one record in front of the entries, so operations survive only behind them.
            ops = write.ops[:torn_ops]
            torn = write.ops[torn_ops] if torn_ops < len(write.ops) else None
            if torn_entries and isinstance(torn, AppendEntries):
                count = min(torn_entries, torn.count)
                ops.append(AppendEntries(torn.first_index, torn.skip, count, torn.term, torn.payload))
            self._store(Write(write.number, write.hard_state, ops, write.restored))
        self.writes.clear()
        return self.disk

    def _note_touched(self, op: Truncate | AppendEntries | AppendNoop | AppendConfiguration) -> None:
        if isinstance(op, Truncate):
            first = op.from_index
        elif isinstance(op, AppendEntries):
            first = op.first_index
            value = self.log.entries[-1][1]
            if isinstance(value, Configuration):  # it travels alone
                self.configurations.append((first, value))
        else:
            first = op.index
            if isinstance(op, AppendConfiguration):
                self.configurations.append((first, op.configuration))
        if not self.touched_from or first < self.touched_from:
            self.touched_from = first

    def _take_chunk(self, op: SnapshotChunk) -> None:
        assert isinstance(op.payload, bytes) and len(op.payload) == op.bytes_count
        if op.offset == 0:
            self.incoming.clear()
        if op.offset != len(self.incoming):
            raise AssertionError(f"{op.offset} of a snapshot, behind {len(self.incoming)} bytes")
        self.incoming += op.payload

    def _restore(self, op: RestoreSnapshot, write: Write) -> None:
        write.restored = bytes(self.incoming)
        self.incoming.clear()
        digest, exported = marshal.loads(write.restored)
        self.digests = {op.index: digest}
        self.machine = Machine.of(exported)
        self.restores_count += 1
        self.touched_from = 0  # nothing of the log is left
        self.configurations.clear()
        self.applied.clear()

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
            if isinstance(op, SnapshotChunk | AbandonSnapshot):
                continue
            self.disk.log.execute(op)
            if isinstance(op, RestoreSnapshot):
                digest, exported = marshal.loads(write.restored)
                self.disk.base_term, self.disk.base_digest = op.term, digest
                self.disk.base_machine = Machine.of(exported)
                self.disk.base_configuration = op.configuration

    def _with_entries(self, messages: list[Message]) -> list[Message]:
        for message in messages:
            if isinstance(message, Append) and message.count:
                message.payload = tuple(self.log.slice(message.prev_index + 1, message.prev_index + message.count))
            elif isinstance(message, InstallSnapshot):
                assert message.index == self.snapshot_index, "the core sends a snapshot that was replaced"
                message.payload = self._snapshot[message.offset : message.offset + message.bytes_count]
        return messages

    def _apply(self, commit_index: int) -> None:
        raft, machine, applied, digests = self.raft, self.machine, self.applied, self.digests
        first = raft.applied_index + 1
        leads = raft.role is Role.LEADER
        digest = digests[first - 1]
        base = self.log.first_index
        entries = self.log.entries
        for index in range(first, commit_index + 1):
            entry = entries[index - base]
            digest = digests[index] = chain(digest, entry)
            request = entry[1]
            if isinstance(request, Request):
                reply = machine.apply(index, request)
                if leads and reply is not None:
                    self.answers.append((request, reply))
            applied.append((index, entry))
        raft.applied(commit_index)

    def _forget(self, through_index: int) -> None:
        """Drops the prefix in memory and on disk, with the state machine's state in its place."""
        digests = self.digests
        for index in range(self.log.first_index - 1, through_index):
            del digests[index]
        self.log.drop_prefix(through_index)
        disk = self.disk
        log = disk.log
        if through_index > log.last_index:
            raise AssertionError(f"forget through {through_index}, durable through {log.last_index}")
        first = log.first_index
        for index in range(first, through_index + 1):
            value = log.entries[index - first][1]
            if isinstance(value, Request):
                disk.base_machine.apply(index, value)
            elif isinstance(value, Configuration):
                disk.base_configuration = value
        disk.base_term = log.entry(through_index)[0]
        disk.base_digest = digests[through_index]
        log.drop_prefix(through_index)
