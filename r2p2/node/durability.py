"""Durable mode of one node: what Raft wants durable goes to disk in groups, beside the loop (docs/durability.md).

The loop hands over what each Ready wants written, in order, and goes on; a thread writes all that has been handed over
meanwhile, makes it durable with one sync, and wakes the loop, which then tells Raft (``persisted``). So the disk's
latency is shared by as many requests as arrive during it, and a leader's own write runs while its followers'
do. Snapshots of the application are written by a thread of their own, for they are large, and let the log's older
files go.

An error of the disk is final (:mod:`r2p2.storage`): it comes out of :meth:`Durability.done` and ends the process.

How far the log on disk reaches back behind the last snapshot is bounded by what the engine's log takes at a restart;
over the bound new requests are refused until a snapshot makes room.

``threaded=False`` does each write at once, in the caller's thread: for tests on a virtual clock.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from struct import Struct
from typing import Any, Final

from r2p2 import limits
from r2p2.engine import Engine
from r2p2.errors import UserError
from r2p2.files import Files
from r2p2.storage import ANEW, SEGMENT_BYTES, Recovered, Snapshot, Storage, StorageError, holds_log
from r2p2.storage_directory import MemberRecord, StorageDirectory
from raft import (
    AppendConfiguration,
    AppendEntries,
    AppendNoop,
    HardState,
    LogOp,
    RestoreSnapshot,
    encode_configuration,
)

__all__ = ["Durability", "PlannedSnapshot"]

log = logging.getLogger("r2p2.durability")

# A snapshot on disk: bytes of the configuration, the configuration, the node's snapshot.
_CONFIGURATION_BYTES: Final = Struct(">I")
_CONFIGURATION_KIND: Final = 3
_KIND_OFFSET: Final = 12
# So many members begin their snapshots apart, by slot: each after one of so many parts of the log's bound more.
SNAPSHOT_TURNS: Final = 8
SNAPSHOT_TURN_PARTS: Final = 64

_Work = Callable[[], None]


@dataclass(frozen=True, slots=True)
class PlannedSnapshot:
    """One that the node takes for the disk: of ``index``, whose entry has ``term``; ``front`` comes before it there."""

    index: int
    term: int
    front: bytes


class Durability:
    """The disk of one member.

    Args:
        path: its directory (:mod:`r2p2.storage_directory`).
        record: who it is; a directory that is not fresh keeps its own incarnation and members.
        log_bytes_max: of log behind the last snapshot.
        files: the calls that write.
        threaded: whether writes have threads of their own.

    Attributes:
        record: what the directory says.
        begins: changes whenever the log on disk begins elsewhere: a snapshot covers more of it, or has taken its place.
        replay_through: last index that was read back and is still as it was; nobody waits for answers to entries up to
            here.
        wake: called from another thread when :meth:`done` has something new to say.
        counters: storage_syncs, storage_entries, storage_bytes, storage_snapshots.

    Raises:
        UserError: the directory is in use, or another member's.
        StorageError: what it holds is damaged.
    """

    def __init__(
        self,
        path: Path,
        record: MemberRecord,
        *,
        log_bytes_max: int,
        files: Files | None = None,
        threaded: bool = True,
    ) -> None:
        files = files or Files()
        self._directory = StorageDirectory(path, record, files)
        try:
            if self._directory.record.members and not holds_log(path):
                raise StorageError(
                    f"{path}: the log is gone, though this member has been part of a cluster",
                    ANEW,
                )
            segment_bytes = min(SEGMENT_BYTES, max(log_bytes_max // 8, 1 << 16))
            self._storage = Storage(path, segment_bytes=segment_bytes, files=files)
        except OSError as error:
            self._directory.close()
            raise StorageError(f"{path}: {error}") from error
        except BaseException:
            self._directory.close()
            raise
        self.wake: Callable[[], None] | None = None
        self.counters = dict.fromkeys(
            ("storage_syncs", "storage_entries", "storage_bytes", "storage_snapshots", "storage_full"), 0
        )
        recovered = self._storage.take_recovered()
        self._recovered: Recovered | None = recovered
        self.replay_through = recovered.last_index
        self._runs = recovered.term_runs()
        self._log_bytes_max = log_bytes_max
        # Members take theirs one after the other: while one is held up by it, the others answer.
        self._snapshot_bytes = log_bytes_max // 2 + record.slot % SNAPSHOT_TURNS * (
            log_bytes_max // SNAPSHOT_TURN_PARTS
        )
        # Bytes of entries: all that were written (less what was truncated), and how many of them a snapshot covers.
        self._written_bytes = sum(len(piece.data) for piece in recovered.entries)
        self._covered_bytes = 0
        self._snapshot_covers: int | None = None  # the same, of the one being written
        self._restores = False  # the Ready at hand has a snapshot from the leader
        self._restores_number = 0  # of the last Ready that had one
        self._told_full = False
        self.begins = 0

        self._work: list[_Work] = []  # of the Ready at hand
        self._number = 0  # of the last Ready that wrote something
        self._trailing = 0  # a later one that wrote nothing
        self._told = 0  # by done()
        self._threaded = threaded
        self._changed = threading.Condition()
        self._jobs: deque[tuple[int, list[_Work]]] = deque()  # guarded by _changed, as are the next four
        self._durable = 0
        self._error: BaseException | None = None
        self._closing = False
        self._snapshot_adopted = False
        self._snapshot_thread: threading.Thread | None = None
        self._thread: threading.Thread | None = None
        if threaded:
            self._thread = threading.Thread(target=self._run, name="r2p2 disk", daemon=True)
            self._thread.start()

    # ---- at the start ----

    @property
    def record(self) -> MemberRecord:
        """Who this member is, for ever."""
        return self._directory.record

    def started(self, members: Sequence[int], joining: bool) -> None:
        """Raft is about to start with these identities: durable on return, since a restart has to know them."""
        try:
            self._directory.save(replace(self.record, members=tuple(members), joining=joining))
        except OSError as error:
            raise StorageError(f"{self._directory.path}: {error}") from error

    def take_recovered(self) -> tuple[Recovered, list[tuple[int, bytes]], bytes | None]:
        """What the directory held, once: the log, the encoded configurations in it and in its snapshot (index,
        bytes), and the node's snapshot.
        """
        recovered, self._recovered = self._recovered, None
        assert recovered is not None, "taken before"
        configurations: list[tuple[int, bytes]] = []
        node_snapshot: bytes | None = None
        if recovered.snapshot is not None:
            configuration, node_snapshot = _split(bytes(recovered.snapshot.data))
            recovered.snapshot.data = b""  # it may be large, and is here once more
            configurations.append((recovered.snapshot.index, configuration))
        for piece in recovered.entries:
            if piece.count == 1 and piece.data[_KIND_OFFSET] == _CONFIGURATION_KIND:  # it travels alone
                length = int.from_bytes(piece.data[:4], "big")
                body = piece.data[limits.ENTRY_HEADER_BYTES : limits.ENTRY_HEADER_BYTES + length]
                configurations.append((piece.first_index, bytes(body)))
        return recovered, configurations, node_snapshot

    def load(self, engine: Engine, recovered: Recovered) -> None:
        """The recovered entries into the engine's log, which ends where they begin.

        Raises:
            UserError: they do not fit its bounds.
        """
        for piece in recovered.entries:
            if not engine.append_raw(piece.data, piece.count):
                raise UserError(
                    f"the log in {self._directory.path} ({self._written_bytes} bytes) does not fit the log's bounds",
                    "Start with bounds at least as large as before (--log-mib).",
                )

    # ---- what a Ready wants written, in order ----

    def executed(self, engine: Engine, op: LogOp, restored: bytes) -> None:
        """A Ready's operation that the engine's log has just executed; truncations are told before
        (:meth:`truncate`), proposals with :meth:`append`. ``restored``: the node's snapshot, where ``op`` is one.
        """
        if isinstance(op, AppendEntries):
            self.append(engine, op.first_index, op.first_index + op.count - 1, op.term)
        elif isinstance(op, AppendNoop | AppendConfiguration):
            self.append(engine, op.index, op.index, op.term)
        elif isinstance(op, RestoreSnapshot):
            self.restore(op.index, op.term, encode_configuration(op.configuration), restored)

    def append(self, engine: Engine, first_index: int, last_index: int, term: int) -> None:
        """Entries that the engine's log has just taken."""
        data = engine.log_copy(first_index, last_index)
        count = last_index + 1 - first_index
        self._runs.extend(last_index, term)
        self._written_bytes += len(data)
        self.counters["storage_entries"] += count
        self.counters["storage_bytes"] += len(data)
        self._work.append(lambda: self._storage.append(first_index, term, count, data))

    def truncate(self, engine: Engine, from_index: int) -> None:
        """Before the engine's log removes ``from_index`` and all behind it."""
        self._written_bytes -= engine.range_bytes(from_index, engine.log_last_index)
        self.replay_through = min(self.replay_through, from_index - 1)  # what comes instead is new
        self._runs.truncate(from_index)
        last_term = self._runs.last_term
        self._work.append(lambda: self._storage.truncate(from_index, last_term))

    def restore(self, index: int, term: int, configuration: bytes, node_snapshot: bytes) -> None:
        """A snapshot from the leader takes the place of the log."""
        snapshot = Snapshot(index, term, _front(configuration) + node_snapshot)
        self.replay_through = min(self.replay_through, index)
        self._runs = type(self._runs)(base_index=index, base_term=term)
        self._written_bytes = self._covered_bytes = 0
        self.begins += 1
        self._snapshot_covers = None
        self._restores = True
        self._work.append(lambda: self._install(snapshot))

    def submit(self, number: int, hard_state: HardState | None) -> bool:
        """Hands over all of Ready ``number``. True: it needs nothing that is not durable already."""
        if hard_state is not None:
            # In front: a crash may keep the first writes alone, and a log must not be of a later term than this.
            self._work.insert(0, lambda: self._storage.save(hard_state))
        if not self._work:
            self._trailing = number
            return self._told == self._number
        work, self._work = self._work, []
        self._number = number
        if self._restores:
            self._restores, self._restores_number = False, number
        self._hand_over(number, work)
        return False

    def done(self) -> int:
        """The last Ready through which everything is durable, when that is new; else 0.

        Raises:
            StorageError: the disk has failed: nothing more will be durable, and the process has to end.
        """
        durable = self._durable  # first: a snapshot adopted before it is seen below
        if self._error is not None:
            raise self._failure(self._error)
        if self._snapshot_adopted:
            self._snapshot_adopted = False
            if self._snapshot_covers is not None:
                self._covered_bytes, self._snapshot_covers = self._snapshot_covers, None
                self.begins += 1
            self.counters["storage_snapshots"] += 1
        if durable == self._told:
            return 0
        self._told = durable
        return max(durable, self._trailing) if durable == self._number else durable

    # ---- room ----

    @property
    def log_bytes(self) -> int:
        """Bytes of entries behind the last snapshot."""
        return self._written_bytes - self._covered_bytes

    @property
    def snapshot_index(self) -> int:
        """Of the last durable snapshot."""
        return self._storage.snapshot_index

    @property
    def wants_snapshot(self) -> bool:
        """Whether the log is long enough that a snapshot is worth its time, and none is on its way to the disk, where
        all have one name before they are in force.
        """
        is_free = self._snapshot_covers is None and not self._restores and self._told >= self._restores_number
        return is_free and self.log_bytes > self._snapshot_bytes

    def is_full(self, *, has_snapshots: bool) -> bool:
        """Whether new requests have to be refused; said once in the log where nothing will make room."""
        full = self.log_bytes >= self._log_bytes_max
        self.counters["storage_full"] = int(full)
        if not full:
            return False
        if not has_snapshots and not self._told_full:
            self._told_full = True
            log.warning(
                "%s holds %d bytes of log, its bound, and the application has no snapshot() to make room: new "
                "requests are refused (drops_storage_full); start with a larger --log-mib",
                self._directory.path,
                self.log_bytes,
            )
        return True

    def plan_snapshot(self, engine: Engine, index: int, configuration: bytes) -> PlannedSnapshot:
        """The node begins to take one at its applied ``index``, for :meth:`save_snapshot`; none is wanted meanwhile."""
        self._snapshot_covers = self._written_bytes - engine.range_bytes(index + 1, engine.log_last_index)
        return PlannedSnapshot(index, self._runs.term_at(index), _front(configuration))

    def save_snapshot(self, planned: PlannedSnapshot, data: bytes | bytearray) -> None:
        """``data``: the planned front and the node's snapshot. Files that it makes needless go once it is durable."""
        snapshot = Snapshot(planned.index, planned.term, data)
        if not self._threaded:
            self._write_snapshot(snapshot)
            return
        self._snapshot_thread = threading.Thread(
            target=self._write_snapshot, args=(snapshot,), name="r2p2 snapshot", daemon=True
        )
        self._snapshot_thread.start()

    def _install(self, snapshot: Snapshot) -> None:
        # One of our own may still be on its way to the same file name.
        thread = self._snapshot_thread
        if thread is not None:
            thread.join()
        self._storage.install_snapshot(snapshot)

    def _write_snapshot(self, snapshot: Snapshot) -> None:
        try:
            self._storage.write_snapshot(snapshot)
        except BaseException as error:
            self._fail(error)
            return
        self._hand_over(0, [lambda: self._adopt(snapshot)])

    def _adopt(self, snapshot: Snapshot) -> None:
        if snapshot.index < self._storage.snapshot_index:
            return  # one from the leader has overtaken it
        self._storage.adopt_snapshot(snapshot)
        self._storage.drop_prefix(snapshot.index)
        with self._changed:
            self._snapshot_adopted = True

    # ---- the disk's thread ----

    def _hand_over(self, number: int, work: list[_Work]) -> None:
        if not self._threaded:
            self._do([(number, work)])
            return
        with self._changed:
            self._jobs.append((number, work))
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
                jobs = list(self._jobs)
                self._jobs.clear()
            try:
                self._do(jobs)
            except BaseException as error:
                self._fail(error)
                return
            if self.wake is not None:
                self.wake()

    def _do(self, jobs: list[tuple[int, list[_Work]]]) -> None:
        for _, work in jobs:
            for write in work:
                write()
        self._storage.sync()
        self.counters["storage_syncs"] += 1
        number = max(number for number, _ in jobs)
        if number:
            self._durable = number

    def _fail(self, error: BaseException) -> None:
        if not self._threaded:
            raise error
        self._error = error
        if self.wake is not None:
            self.wake()

    def _failure(self, error: BaseException) -> BaseException:
        if isinstance(error, StorageError):
            remedy = "Mend the disk, then start this member again: nothing that was acknowledged is lost."
            return StorageError(error.message, error.remedy or remedy)
        return error

    def status(self) -> dict[str, Any]:
        """For people, as JSON can say it."""
        syncs = self.counters["storage_syncs"]
        return {
            "directory": str(self._directory.path),
            "log_bytes": self.log_bytes,
            "log_bytes_max": self._log_bytes_max,
            "snapshot_index": self._storage.snapshot_index,
            "entries_per_sync": round(self.counters["storage_entries"] / syncs, 1) if syncs else 0.0,
        }

    def close(self) -> None:
        """Ends the threads and lets the directory go. What is not durable yet was not promised. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        for thread in (self._snapshot_thread, self._thread):
            if thread is not None:
                thread.join()
        self._storage.close()
        self._directory.close()


def _front(configuration: bytes) -> bytes:
    """What stands before a node's snapshot on disk."""
    return _CONFIGURATION_BYTES.pack(len(configuration)) + configuration


def _split(data: bytes) -> tuple[bytes, bytes]:
    (length,) = _CONFIGURATION_BYTES.unpack_from(data)
    start = _CONFIGURATION_BYTES.size
    if start + length > len(data):
        raise StorageError(f"a snapshot whose configuration has {length} bytes, of {len(data)} in all")
    return data[start : start + length], data[start + length :]
