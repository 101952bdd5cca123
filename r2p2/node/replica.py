"""A member of a group at work: Raft, and what it decides carried out.

Raft decides over index ranges; the engine moves the bytes. Here one is told of the other: of new entries in the log,
and, in the order :class:`raft.Ready` documents, of what is to be done. In memory nothing is written: what Raft wants
persisted is persisted at once. Between two steps the engine's log, the disk's and Raft's are the same.

Leaves to others: when anything is done (:mod:`r2p2.node.node`), applying (:mod:`r2p2.node.batches`), members, snapshots
and the log's bound (:mod:`r2p2.node.upkeep`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from r2p2.engine import Engine
from r2p2.errors import UserError
from r2p2.node.config import NodeConfig
from r2p2.node.disk_upkeep import DiskUpkeep
from r2p2.node.durability import Durability
from r2p2.node.leadership import Leadership
from r2p2.node.log_time import LogTime
from r2p2.node.peers import Peers
from r2p2.node.reads import ReadGroups
from r2p2.node.room import Room
from r2p2.node.steady import SteadyStep
from r2p2.node.upkeep import Upkeep
from raft import (
    Append,
    AppendEntries,
    AppendNoop,
    Configuration,
    Forward,
    LogOp,
    Raft,
    RestoreSnapshot,
    Role,
    Truncate,
    slot_of,
)

__all__ = ["Replica"]

_FORWARD_HEADER_BYTES: Final = Forward.HEADER_BYTES


class Replica:
    """One member, from when it knows its group.

    Args:
        config: the node's.
        raft: the core.
        upkeep: carries out what is not about entries, and is told of configurations.
        steady: the engine's leave to take the usual step without asking; None: it never does.
        engine: has the log.
        disk: has it, too; None: in memory.
        peers: send what Raft says.
        leadership: is told of roles.
        reads: are told which may be answered.
        counters: the node's.
        app_is_busy: whether the application may not be called now.
        on_restore: told of the index when a snapshot is about to replace the application's state.

    Attributes:
        raft, upkeep, steady: as above; the loop steps and asks them.
        room: in the log.
    """

    COUNTERS: Final = ("raft_drop_log_full", "forwards_refused")

    def __init__(
        self,
        config: NodeConfig,
        raft: Raft,
        upkeep: Upkeep,
        steady: SteadyStep | None,
        engine: Engine,
        disk: Durability | None,
        peers: Peers,
        leadership: Leadership,
        reads: ReadGroups,
        counters: dict[str, int],
        *,
        app_has_snapshots: bool,
        app_is_busy: Callable[[], bool],
        on_restore: Callable[[int], None],
    ) -> None:
        self.raft: Final = raft
        self.upkeep: Final = upkeep
        self.steady = steady
        self.room = Room(
            engine, raft, disk, config.engine, config.timers.heartbeat_ns, make_logs_agree=self.make_logs_agree
        )
        self._slot = config.node_id
        self._log_bytes_max = config.engine.log_bytes_max
        self._engine = engine
        self._disk = disk
        self._disk_upkeep: DiskUpkeep | None = None
        if disk is not None:
            self._disk_upkeep = DiskUpkeep(disk, engine, app_has_snapshots=app_has_snapshots, app_is_busy=app_is_busy)
        self._peers = peers
        self._leadership = leadership
        self._reads = reads
        self._counters = counters
        self._app_is_busy = app_is_busy
        self._on_restore = on_restore
        for name in self.COUNTERS:
            counters.setdefault(name, 0)
        peers.chunk = upkeep.chunk
        self._configured(raft.configuration)

    def _configured(self, configuration: Configuration) -> None:
        self._peers.configured(configuration)
        self.upkeep.configuration_changed(configuration)
        self._leadership.moved()

    @property
    def is_disk_full(self) -> bool:
        """Whether new requests are refused because the disk's share is used up."""
        return self._disk_upkeep is not None and self._disk_upkeep.is_full

    @property
    def is_taking_snapshot(self) -> bool:
        """Whether one is being taken, for others or for the disk, so that the next poll has something to do."""
        return self.upkeep.is_taking or (self._disk_upkeep is not None and self._disk_upkeep.is_saving)

    # ---- what comes to the log ----

    def propose(self, count: int, now_ns: int) -> None:
        """The engine's log has ``count`` new entries behind Raft's."""
        raft = self.raft
        first_index = raft.propose(count, now_ns)
        if self._disk is not None:
            self._disk.append(self._engine, first_index, raft.last_index, raft.term)

    def make_logs_agree(self, now_ns: int) -> None:
        """Between two messages of a poll: the engine's log and Raft's are the same."""
        self.carry_out()
        # Whoever has just taken office has put what it held into the log. The next message may end the office: by then
        # Raft has to know of these entries, as of all others that are to be truncated.
        held = self._engine.log_last_index - self.raft.last_index
        if held:
            self.propose(held, now_ns)

    def receive_append(self, message: Append, now_ns: int) -> None:
        """A leader's entries, or its heartbeat."""
        self._leadership.heard_ns = now_ns
        if message.count == 0 or self.room.takes(message, now_ns):
            self.raft.step(message, now_ns)
        else:
            self._counters["raft_drop_log_full"] += 1

    def receive_forward(self, message: Forward, now_ns: int) -> None:
        """Requests that a follower has passed on."""
        # The log's tail must be Raft's before entries are added to it.
        self.make_logs_agree(now_ns)
        handle = message.payload
        assert isinstance(handle, int)
        if (
            self.raft.role is Role.LEADER
            and not self.is_disk_full
            and self.room.takes_forward(message)
            and self._engine.append_forwarded(handle, _FORWARD_HEADER_BYTES)
        ):
            self.propose(message.count, now_ns)
            return
        # One hop only: what is not ours to take is refused, never sent on.
        self._counters["forwards_refused"] += 1
        self._engine.drop_forwarded(handle, _FORWARD_HEADER_BYTES)

    def add_notes(self, notes: list[bytes], now_ns: int) -> None:
        """What the replicas are to compare goes into the log, if this member leads and there is room."""
        engine = self._engine
        if self.raft.role is not Role.LEADER or self.raft.last_index != engine.log_last_index:
            return
        if engine.log_bytes < self._log_bytes_max:
            written = sum(engine.append_note(note) for note in notes)
            if written:
                self.propose(written, now_ns)
            self.carry_out()

    def move_time(self, time: LogTime, now_ns: int) -> None:
        """The application may wait for a time that has come: the log is told, and through it every replica."""
        raft = self.raft
        if raft.role is not Role.LEADER or self._app_is_busy():  # a batch that comes back has it looked at again
            time.due_ns = None
        elif not self.is_disk_full and raft.last_index == self._engine.log_last_index and time.add(now_ns):
            self.propose(1, now_ns)
            self.carry_out()

    # ---- Raft's decisions ----

    def carry_out(self) -> None:
        """Everything that Raft has ready."""
        while self.raft.has_ready():
            self._carry_out_one()

    def _carry_out_one(self) -> None:
        """One Ready, in the order it documents. In memory, durable means done."""
        raft, engine, disk, peers = self.raft, self._engine, self._disk, self._peers
        ready = raft.ready()
        for op in ready.log_ops:
            restored = self._execute(op)
            if disk is not None:
                disk.executed(engine, op, restored)
        if ready.configuration is not None:
            self._configured(ready.configuration)
        if ready.messages:
            peers.send_all(ready.messages)
        if disk is None or disk.submit(ready.number, ready.hard_state):
            if released := raft.persisted(ready.number):
                peers.send_all(released)
        elif durable := disk.done():
            peers.send_all(raft.persisted(durable))
        if ready.reads or ready.reads_failed:
            self._reads.confirmed(ready.reads, ready.reads_failed)
        self._leadership.follow(raft)
        if ready.forget_index and ready.forget_index >= engine.log_first_index:
            engine.drop_prefix(ready.forget_index)

    def _execute(self, op: LogOp) -> bytes:
        """A log operation; the bytes of a snapshot that was restored."""
        engine = self._engine
        if isinstance(op, AppendEntries):
            handle = op.payload
            assert isinstance(handle, int)
            if not engine.append_message(handle, Append.HEADER_BYTES, op.skip, op.count):
                raise UserError(
                    f"the log of member {self._slot} is full at {engine.log_bytes} bytes",
                    "Give every member the same log bounds.",
                )
        elif isinstance(op, Truncate):
            if self._disk is not None:
                self._disk.truncate(engine, op.from_index)
            engine.truncate_suffix(op.from_index)
        elif isinstance(op, AppendNoop):
            engine.append_noop()
        else:
            if isinstance(op, RestoreSnapshot):
                self._on_restore(op.index)
                if self._disk_upkeep is not None:
                    self._disk_upkeep.forget()
            return self.upkeep.execute(op)
        return b""

    def look_at_disk(self) -> None:
        """Once a poll of a durable member: what has become durable, and room on the disk."""
        assert self._disk is not None and self._disk_upkeep is not None
        if durable := self._disk.done():
            self._peers.send_all(self.raft.persisted(durable))
        self._disk_upkeep.look(self.raft, self.upkeep.snapshots)

    # ---- for people ----

    def status(self) -> dict[str, Any]:
        """Raft's part of it, as JSON can say it."""
        raft = self.raft
        leader = None if raft.leader_id is None else slot_of(raft.leader_id)
        return {
            "role": raft.role.value,
            "term": raft.term,
            "leader": self._slot if raft.role is Role.LEADER else leader,
            "voter": raft.is_voter and raft.configuration_committed and not raft.configuration.joint,
            "commit_index": raft.commit_index,
            "global_commit": raft.global_commit,
        }
