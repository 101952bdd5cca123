"""What a durable member's disk needs beside writing: snapshots of the application, so that its log may be cut, and
refused requests while it is full.

Leaves to others: what is written, and the bounds (:mod:`r2p2.node.durability`), taking snapshots
(:mod:`r2p2.node.snapshots`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from r2p2.engine import Engine
from r2p2.node.config import NodeConfig
from r2p2.node.durability import Durability, PlannedSnapshot
from r2p2.node.snapshots import Snapshots, Taking
from r2p2.storage_directory import MemberRecord
from raft import Raft, encode_configuration

__all__ = ["DiskUpkeep", "open_disk"]


def open_disk(config: NodeConfig, path: Path) -> Durability:
    """The storage of a durable member. Raises UserError, StorageError."""
    incarnation = config.incarnation or secrets.randbits(64) or 1
    return Durability(
        path,
        MemberRecord(config.cluster_id, config.node_id, incarnation, application=config.application),
        log_bytes_max=config.engine.log_bytes_max,
        files=config.storage_files,
        threaded=config.storage_threaded,
    )


class DiskUpkeep:
    """Of one durable member.

    Args:
        disk: its storage.
        engine: is told how much log the disk holds. Its log is the disk's.
        app_has_snapshots: else nothing makes room.
        app_is_busy: whether the application may not be called now.

    Attributes:
        is_full: new requests are refused.
    """

    def __init__(
        self, disk: Durability, engine: Engine, *, app_has_snapshots: bool, app_is_busy: Callable[[], bool]
    ) -> None:
        self.is_full = False
        self._disk = disk
        self._engine = engine
        self._app_has_snapshots = app_has_snapshots
        self._app_is_busy = app_is_busy
        self._saving: tuple[PlannedSnapshot, Taking] | None = None
        self._begins = disk.begins
        engine.set_storage(disk.log_bytes)

    @property
    def is_saving(self) -> bool:
        """Whether a snapshot is being taken for the disk: :meth:`look` goes on with it."""
        return self._saving is not None

    def forget(self) -> None:
        """The state is about to be another: what is being taken of it is of no use."""
        self._saving = None

    def look(self, raft: Raft, snapshots: Snapshots) -> None:
        """Once a poll: goes on with a snapshot, and says whether there is room."""
        if self._app_has_snapshots:
            self._save(raft, snapshots)
        disk = self._disk
        if disk.begins != self._begins:
            self._begins = disk.begins
            self._engine.set_storage(disk.log_bytes)
        self.is_full = disk.is_full(has_snapshots=self._app_has_snapshots)

    def _save(self, raft: Raft, snapshots: Snapshots) -> None:
        """Begins one when the disk wants it, and goes on with it."""
        disk, index = self._disk, self._engine.applied_index
        if self._saving is None:
            if not disk.wants_snapshot or index <= disk.snapshot_index or self._app_is_busy():
                return
            self._engine.flush()
            planned = disk.plan_snapshot(self._engine, index, encode_configuration(raft.configuration_at(index)))
            self._saving = planned, snapshots.begin(planned.front)
        planned, taking = self._saving
        if snapshots.go_on(taking):
            self._saving = None
            disk.save_snapshot(planned, taking.data)
