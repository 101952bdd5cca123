"""One node: the engine, Raft and an application, tied together in one visible loop step.

:meth:`Node.poll_once` is the whole of it: receive -> propose -> Raft -> apply -> reply -> send -> timers. Whoever
drives it (a busy loop over DPDK, asyncio over kernel UDP, a test on a virtual clock) calls it when datagrams may wait
or :meth:`Node.next_deadline_ns` has come.

Raft (``raft/``) decides over index ranges; the engine moves the bytes; this file only carries decisions out, in the
order :class:`raft.Ready` documents. In memory nothing is written: what Raft wants persisted is persisted at once, and a
member's identity ends with its process (:mod:`r2p2.forming`).
"""

from __future__ import annotations

import json
import logging
import random
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from r2p2 import limits
from r2p2.address import format_address
from r2p2.app import StateMachine
from r2p2.apply_thread import ApplyThread
from r2p2.determinism import Determinism
from r2p2.durability import Durability, PlannedSnapshot
from r2p2.engine import (
    ROLE_FOLLOWER,
    ROLE_HOLD,
    ROLE_LEADER,
    ROLE_NONE,
    STEADY_SENT,
    Engine,
    EngineConfig,
    RaftMessage,
)
from r2p2.errors import UserError
from r2p2.files import Files
from r2p2.forming import ELSEWHERE, Forming
from r2p2.log_time import LogTime, UnixClock, system_clock_ns
from r2p2.membership import MEMBER_REQUEST, addresses_of
from r2p2.node_counters import ENGINE_REASONS
from r2p2.reads import ReadGroups
from r2p2.requests import DROP, LATER, Replies, ReplySequence, Requests
from r2p2.snapshots import Taking
from r2p2.steady import SteadyStep
from r2p2.storage_directory import MemberRecord
from r2p2.truncation import choose_policy
from r2p2.upkeep import Upkeep
from raft import (
    Append,
    AppendEntries,
    AppendNoop,
    AppendReply,
    Config,
    Configuration,
    Formed,
    Forward,
    Hello,
    Identity,
    InstallSnapshot,
    Message,
    MessageError,
    PreVote,
    Raft,
    Reason,
    RestoreSnapshot,
    Role,
    Truncate,
    decode,
    decode_configuration,
    encode,
    encode_configuration,
    incarnation_of,
    member_id,
    slot_of,
)

__all__ = ["STATE_REQUEST", "STATUS_REQUEST", "Node", "NodeConfig", "Timers"]

log = logging.getLogger("r2p2.node")

STATUS_REQUEST: Final = b"\x00r2p2-status"
"""An unreplicated request with this payload is answered by the node itself, with a JSON object
(:meth:`Node.status`).
"""

STATE_REQUEST: Final = STATUS_REQUEST + b"-state"
"""The same with ``state_digest``, for which the application may go through all of its state. It does nothing else
meanwhile, and neither does the node: three seconds for a key-value store of a million keys.
"""

# R2P2 type by kind of Raft message (docs/wire.md): requests 5, replies 6, one-way messages 7.
_R2P2_TYPE: Final = {1: 5, 2: 6, 3: 5, 4: 6, 5: 5, 6: 6, 7: 7, 8: 7, 9: 7, 10: 5, 11: 6, 12: 7, 14: 5, 15: 6}
_FORWARD_HEADER_BYTES: Final = Forward.HEADER_BYTES
_COUNTS_BYTES: Final = 8
_INSTALL_SNAPSHOT: Final = bytes([InstallSnapshot.KIND])
_WITH_ENTRIES: Final = (Append, Forward)
_OF_FORMING: Final = (Hello, Formed)
NOT_FORMED: Final = b'{"ok": false, "error": "not_formed", "text": "this member is not in a cluster yet"}'
# Addresses of members that have left are kept for their last messages, so many in all.
ADDRESSES_MAX: Final = 128
# A leader that has not been heard for so many heartbeats is probably gone: what is sent to it would be lost with it.
SILENT_HEARTBEATS: Final = 3
# A leader with so few entries to apply answers before it does anything else; with more it feeds its followers first.
REPLY_FIRST_ENTRIES: Final = 16
# Batches are applied until this part of the shortest election timeout is over; then the port is looked at again. Timers
# that fire while what others have sent waits there take the living for dead.
APPLY_PARTS_PER_ELECTION: Final = 4
# So many batches behind a long one have their processor time taken.
SUSPECTED_BATCHES: Final = 1_000
NEVER_NS: Final = 1 << 63
# With nothing else to send, followers are told of a commit after this part of a heartbeat; where more requests
# follow, the next Append tells them, which spares every member a turn (docs/adr/0019).
COMMIT_DELAYS_PER_HEARTBEAT: Final = 20


@dataclass(frozen=True, slots=True)
class Timers:
    """Raft's timers, ns. ``DEFAULT`` suits shared machines, ``DATACENTER`` one core a node."""

    heartbeat_ns: int = 10 * limits.MS
    election_min_ns: int = 100 * limits.MS
    election_max_ns: int = 200 * limits.MS

    @classmethod
    def profile(cls, name: str) -> Timers:
        """``default`` or ``datacenter`` (1 ms heartbeats, elections after 10-20 ms)."""
        if name == "default":
            return cls()
        if name == "datacenter":
            return cls(1 * limits.MS, 10 * limits.MS, 20 * limits.MS)
        raise UserError(f"timers: {name!r} is neither default nor datacenter")


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One node.

    Attributes:
        node_id: this member's slot.
        members: slot -> (ip, port) of every member of the Raft group, this one's too; empty: an unreplicated server.
        join: (ip, port) of some members of a group that runs already, instead of ``members``: this one asks them to be
            let in (``r2p2 member add``).
        truncation: ``snapshot``, ``evict`` or ``block``: what gives way when a member that is down holds the log;
            by default ``snapshot`` where the application has them, else ``block``.
        cluster_id: tells groups apart that can reach each other.
        timers: Raft's.
        engine: bounds of the engine.
        incarnation: this launch's random number; drawn when 0.
        seed: of election timeouts; drawn when None.
        storage: the directory of a durable member (docs/durability.md); None: in memory. An incarnation that it holds
            goes before ``incarnation``.
        storage_files: the calls that write there, and whether in threads of their own: for tests.
        storage_threaded: see there.
        unix_clock_ns: where the log's time comes from while this member leads (docs/log-time.md), and the time of an
            unreplicated server's requests; None: the port's clock is unix time.
        apply_thread: the application's ``apply`` runs on a thread of its own, in order; heartbeats, elections and
            replication go on while it works (docs/applications.md).
        steady_step: whether the engine takes the usual step of replication without asking (docs/adr/0021). Durable
            members never do.
        check_determinism: a debug mode: replicas compare replies and states every so many entries
            (:mod:`r2p2.determinism`); 0: not.
        handler_budget_ns: a batch that takes the application more processor time than this is counted, and logged once;
            from the second one on, since processor time is taken only of an application that was slow by the clock.
    """

    node_id: int = 0
    members: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    cluster_id: int = 1
    timers: Timers = field(default_factory=Timers)
    engine: EngineConfig = field(default_factory=EngineConfig)
    incarnation: int = 0
    seed: int | None = None
    handler_budget_ns: int = 5 * limits.MS
    join: tuple[tuple[int, int], ...] = ()
    truncation: str | None = None
    storage: Path | None = None
    storage_files: Files | None = None
    storage_threaded: bool = True
    unix_clock_ns: UnixClock | None = system_clock_ns
    apply_thread: bool = False
    check_determinism: int = 0
    steady_step: bool = True


class Node:
    """A server over one port, with a Raft group or without.

    Args:
        config: what it is.
        port_address: of the port's C struct, from a backend (``keep`` holds the port alive).
        app: the application.
        on_event: called with a line of text when something happens that an operator wants to know (role, leader,
            forming).
    """

    def __init__(
        self,
        config: NodeConfig,
        port_address: int,
        app: StateMachine,
        *,
        keep: object = None,
        on_event: Callable[[str], None] | None = None,
    ) -> None:
        self.config = config
        self.app = app
        self.engine = Engine(port_address, config.engine, keep=keep)
        reasons = [reason for reason in Reason if reason not in ENGINE_REASONS]
        self.counters: dict[str, int] = {f"raft_bad_{reason.value}": 0 for reason in reasons}
        self.counters |= {
            "raft_bad_entries": 0,
            "raft_drop_forming": 0,
            "raft_drop_stranger": 0,
            "raft_drop_snapshot_too_large": 0,
            "raft_drop_log_full": 0,
            "forwards_refused": 0,
            "handler_over_budget": 0,
            "handler_stalls": 0,
            "queries_refused": 0,
            # How large batches are, for `r2p2 bench`: polls that found something, batches given to the application,
            # messages that carried entries to followers, and those entries (each message counted once for all targets).
            "polls_busy": 0,
            "apply_batches": 0,
            "appends_sent": 0,
            "append_entries": 0,
            # Polls in which the engine took the usual step of replication without asking.
            "steady_steps": 0,
        }
        self._on_event = on_event or log.info
        self._raft: Raft | None = None
        self._forming: Forming | None = None
        self._upkeep: Upkeep | None = None
        self._rid = 0
        self._role = ROLE_NONE
        self._leader_address: tuple[int, int] | None = None
        self._leader_heard_ns = 0
        self._told: tuple[Role, int, int | None] | None = None
        self._moved = False  # the members may be at other addresses than when the role was last told
        self._reads = ReadGroups(
            self.engine, app, heartbeat_ns=config.timers.heartbeat_ns, hold_timeout_ns=config.engine.hold_timeout_ns
        )
        self._taken_bytes = 0  # of Appends of this poll: the engine's log may not hold them yet
        self._no_room_until_ns = 0  # what comes behind an Append that was not taken is not refused before
        self._steady: SteadyStep | None = None
        self._is_armed = False  # the engine knows what Raft knows
        self._slow_logged = False
        self._suspected_batches = 0  # still to be timed closely
        self._rest_until_ns = 0  # polls that receive nothing have nothing to do before
        self._settled = False  # nobody waits to be let in or to be told who is in the cluster
        self._time = LogTime(self.engine, app, config.unix_clock_ns)
        self._disk: Durability | None = None
        self._disk_full = False
        self._saving: tuple[PlannedSnapshot, Taking] | None = None  # a snapshot being taken for the disk
        self._wake: Callable[[], None] | None = None
        self._check: Determinism | None = None
        self._notes: list[bytes] = []  # of the batch at hand
        self._to_write: list[bytes] = []  # notes for the log
        if config.check_determinism < 0:
            raise UserError(f"check_determinism is {config.check_determinism}, not at least 0")
        self._worker: ApplyThread | None = None
        # Of the batch that is with it: its last index, whether it was read back from the disk, its requests.
        self._handed = (0, False, 0)
        # Queries that came while a batch was out: who asked, and what.
        self._queries: list[tuple[bytes, bytes]] = []
        self._digest, self._digest_at = "", -1  # the last that was asked for, and the applied index then
        if config.apply_thread and not config.members and not config.join:
            raise UserError("apply_thread without a Raft group", "Name the members, or leave the thread out.")
        if config.members or config.join:
            if config.storage is not None:
                self._disk = self._open_storage(config, config.storage)
            self._join(config, config.incarnation if self._disk is None else self._disk.record.incarnation)
            if self._disk is not None and self._disk.record.members:
                self._resume(self._disk)
            if config.check_determinism:
                self._check = Determinism(
                    config.check_determinism, config.node_id, app, self.engine, self.counters, self._on_event
                )
        elif config.storage is not None:
            raise UserError("storage without a Raft group", "Name the members, or leave the storage out.")
        if config.apply_thread:
            self._worker = ApplyThread(app.apply)

    def _open_storage(self, config: NodeConfig, path: Path) -> Durability:
        """Raises UserError, StorageError."""
        incarnation = config.incarnation or secrets.randbits(64) or 1
        return Durability(
            path,
            MemberRecord(config.cluster_id, config.node_id, incarnation),
            log_bytes_max=config.engine.log_bytes_max,
            files=config.storage_files,
            threaded=config.storage_threaded,
        )

    def _resume(self, disk: Durability) -> None:
        """A durable member comes back as who it was, wherever the others are."""
        record, forming = disk.record, self._forming
        assert forming is not None
        forming.resume({slot_of(m): incarnation_of(m) for m in record.members}, joining=record.joining)
        where = {} if record.joining else self.config.members
        members = {member: where.get(slot_of(member), (0, 0)) for member in record.members}
        self._start_raft(members, self.engine.now_ns(), joining=record.joining)
        self._on_event(
            f"comes back from {self.config.storage}: slot {record.slot}, incarnation {record.incarnation:016x}, "
            f"{disk.replay_through} entries"
        )

    def _join(self, config: NodeConfig, incarnation: int) -> None:
        if config.join and not self.app.has_snapshots:
            raise UserError(
                f"{type(self.app).__name__} has no snapshots, so no new member can be brought up",
                "Give the application snapshot() and restore().",
            )
        if not config.join and config.node_id not in config.members:
            raise UserError(f"node_id {config.node_id} is not one of the members {sorted(config.members)}")
        self._policy = choose_policy(config.truncation, has_snapshots=self.app.has_snapshots)
        self.incarnation = incarnation or secrets.randbits(64) or 1
        self._member = member_id(config.node_id, self.incarnation)
        self._identity = Identity(config.cluster_id, config.node_id, self.incarnation)
        # Whom to say Hello: by slot, or, where the slots are not known yet, by number.
        self._hello_addresses = dict(enumerate(config.join)) if config.join else dict(config.members)
        self._elsewhere: dict[tuple[int, int], None] = {}  # and who has told of the cluster unasked
        self._addresses: dict[int, tuple[tuple[int, int], ...]] = {}
        self._forward_header = b""
        self._forming = Forming(
            config.node_id,
            tuple(sorted(self._hello_addresses)),
            self.incarnation,
            self.engine.now_ns(),
            join=bool(config.join),
            can_join=self.app.has_snapshots,
        )
        self._tell_group(())
        # Until the cluster has formed, requests wait within the bounds of a follower without a leader.
        self._set_role(ROLE_HOLD)

    def _tell_group(self, members: Iterable[tuple[int, int]]) -> None:
        """The engine's part of the gateway: whose messages are taken in, and for whom there is room in any case."""
        known = dict.fromkeys((*members, *self._hello_addresses.values()))
        self.engine.set_group(self.config.cluster_id, list(known)[: limits.PEERS_MAX])

    # ---- the loop ----

    def poll_once(self) -> int:
        """One step of everything. Returns the datagrams handled: more than 0 means that another step is likely to
        find more.

        Raises:
            SupersededError: this launch cannot be part of its cluster (:mod:`r2p2.forming`).
            RemovedError: this member was removed from its cluster.
        """
        engine = self.engine
        now_ns, packets, requests, appended, held, raft_count, _, last_index, reads_gathered, steady = engine.poll()
        raft, reads, worker = self._raft, self._reads, self._worker
        if not packets and not appended and now_ns < self._rest_until_ns:
            return 0
        if raft is not None:
            if steady:
                assert self._steady is not None
                if self._steady.take(raft, steady, last_index, now_ns):
                    self._leader_heard_ns = now_ns
                elif steady & STEADY_SENT:
                    appended = 0
                    self._rid = (self._rid + 1) & 0xFFFF
                if (
                    raft.commit_index == raft.applied_index
                    and now_ns < self._rest_until_ns
                    and not (appended or raft_count or requests or held or reads_gathered or raft.has_ready())
                ):
                    # Nothing else came, and nothing else is due.
                    self.counters["polls_busy"] += 1
                    if raft.deadline_ns < self._rest_until_ns:
                        self._rest_until_ns = raft.deadline_ns
                    return packets
            if appended:
                appended = last_index - raft.last_index  # the last poll may have proposed those that were held
                if appended:
                    self._propose(raft, appended, now_ns)
            if worker is not None and worker.is_done:
                self._take_back(raft, worker)
            if self._disk is not None:
                self._look_at_disk(raft, self._disk)
            if raft_count:
                self._receive(now_ns)
            if now_ns >= raft.deadline_ns:
                raft.tick(now_ns)
            if reads_gathered or reads.waiting:
                reads.ask(raft, now_ns, reads_gathered)
            if (
                0 < raft.commit_index - raft.applied_index <= REPLY_FIRST_ENTRIES
                and not appended
                and raft.role is Role.LEADER
                and worker is None
            ):
                self._apply(raft)
                engine.flush()
            if raft_count or raft.has_ready():
                self._is_armed = False
                while raft.has_ready():
                    self._carry_out(raft)
            if held:
                self._forward(now_ns)
            assert self._upkeep is not None
            is_due = self._upkeep.due(now_ns) or raft.removed
            if is_due or not self._settled:
                self._is_armed = False
                self._look_after(raft, now_ns, is_due)
            if self._time.due_ns is not None and now_ns >= self._time.due_ns:
                self._move_time(raft, now_ns)
            if self._to_write:
                self._write_notes(raft, now_ns)
            if worker is not None:
                self._apply_elsewhere(raft, worker, now_ns)
            elif raft.applied_index < raft.commit_index:
                self._apply(raft)
                if raft.applied_index < raft.commit_index:
                    packets += 1  # not a datagram, but more to do at once
            if reads.waiting and worker is None:
                reads.serve(engine.applied_index, now_ns)
        elif self._forming is not None:
            self._form(now_ns, raft_count)
        if requests:
            self._is_armed = False
            self._serve()
        engine.flush()
        if not self._is_armed and self._steady is not None and self._raft is not None:
            self._steady.arm(self._raft, self._addresses, self._rid)
            self._is_armed = True
        if packets:
            self.counters["polls_busy"] += 1
        self._rest_until_ns = self._idle_until_ns()
        return packets

    def _idle_until_ns(self) -> int:
        """Until when a poll that receives nothing has nothing to do: 0: there is something already."""
        raft, upkeep = self._raft, self._upkeep
        if raft is None or upkeep is None:
            return NEVER_NS if self._forming is None else 0
        if (
            self._disk is not None
            or self._worker is not None
            or self._to_write
            or self._reads.waiting
            or not self._settled
            or upkeep.is_taking
            or raft.has_ready()
            or raft.applied_index < raft.commit_index
        ):
            return 0
        due_ns = min(raft.deadline_ns, upkeep.due_ns)
        return due_ns if self._time.due_ns is None else min(due_ns, self._time.due_ns)

    def _is_taking_snapshot(self) -> bool:
        return self._saving is not None or (self._upkeep is not None and self._upkeep.is_taking)

    def next_deadline_ns(self) -> int | None:
        """When :meth:`poll_once` must be called even without datagrams; None: never."""
        if self._raft is not None:
            if self._is_taking_snapshot():
                return 0
            if self.engine.applied_index < self._raft.commit_index and not self._app_is_busy():
                return 0
            hello_ns = self._forming.deadline_ns if self._forming is not None else None
            reads_ns = self._reads.deadline_ns if self._reads.waiting else None
            return min(ns for ns in (self._raft.deadline_ns, hello_ns, reads_ns, self._time.due_ns) if ns is not None)
        return self._forming.deadline_ns if self._forming is not None else None

    @property
    def wake_from_thread(self) -> Callable[[], None] | None:
        """What the disk's and the application's threads call when :meth:`poll_once` has something to do; a driver that
        sleeps sets it.
        """
        return self._wake

    @wake_from_thread.setter
    def wake_from_thread(self, wake: Callable[[], None] | None) -> None:
        self._wake = wake
        if self._disk is not None:
            self._disk.wake = wake
        if self._worker is not None:
            self._worker.wake = wake

    @property
    def is_leader(self) -> bool:
        """Whether this member leads its group, as far as it knows."""
        return self._raft is not None and self._raft.role is Role.LEADER

    def now_ns(self) -> int:
        """The port's clock."""
        return self.engine.now_ns()

    def close(self) -> None:
        """Sends what is filled in, frees the engine, lets the storage go and closes the application. Idempotent.

        A batch that is with the application's thread ends first, and nobody is answered: its clients ask the others.
        """
        if self._worker is not None:
            self._worker.close()
        self.engine.close()
        if self._disk is not None:
            self._disk.close()
        self.app.close()

    # ---- Raft messages in ----

    def _decode(self, raw: RaftMessage) -> tuple[Message, int] | None:
        """The gateway: a good message and its sender's incarnation, or None and a counter."""
        prefix = raw.prefix
        if prefix[1:2] == _INSTALL_SNAPSHOT and raw.length > len(prefix):  # a configuration may stand in front
            length = min(raw.length, InstallSnapshot.HEADER_BYTES + limits.CONFIGURATION_BYTES_MAX)
            prefix = self.engine.message_bytes(raw.handle, 0, length)
        try:
            message, incarnation = decode(prefix, raw.length, cluster_id=self.config.cluster_id)
            message.sender = member_id(message.sender, incarnation)
            if isinstance(message, InstallSnapshot) and message.total_bytes > limits.SNAPSHOT_BYTES_MAX:
                self.counters["raft_drop_snapshot_too_large"] += 1
                return None
        except MessageError as error:
            # The head's version is the engine's to look at: here it is that of a configuration behind it.
            reason = Reason.FIELD if error.reason in ENGINE_REASONS else error.reason
            self.counters[f"raft_bad_{reason.value}"] += 1
            return None
        kind = message.KIND
        if raw.type != _R2P2_TYPE[kind]:
            self.counters["raft_bad_kind"] += 1
            return None
        if isinstance(message, _WITH_ENTRIES) and message.count and not self._entries_are_good(raw.handle, message):
            self.counters["raft_bad_entries"] += 1
            return None
        message.request_id = raw.rid
        message.payload = raw.handle
        return message, incarnation

    def _entries_are_good(self, handle: int, message: Append | Forward) -> bool:
        """Looks at the entries of a message, and reads a configuration out of them: the leader's to append."""
        if not self.engine.check_entries(handle, message.HEADER_BYTES, timed=isinstance(message, Append)):
            return False
        if message.count != 1:
            return True
        body = self.engine.configuration_bytes(handle, message.HEADER_BYTES)
        if not body:
            return True
        if isinstance(message, Forward):
            return False
        try:
            message.configuration = decode_configuration(body)
        except MessageError:
            return False
        return True

    def _receive(self, now_ns: int) -> None:
        raft, forming, upkeep = self._raft, self._forming, self._upkeep
        assert raft is not None and forming is not None and upkeep is not None
        self._taken_bytes = 0
        for raw in self.engine.raft_messages():
            decoded = self._decode(raw)
            if decoded is None:
                continue
            message, incarnation = decoded
            sender, address = message.sender, (raw.source_ip, raw.source_port)
            if (
                isinstance(message, AppendReply)
                and sender in self._addresses
                and sender != self._member
                and not upkeep.is_gone(sender)
            ):
                raft.step(message, now_ns)  # nearly all that a leader hears
            elif isinstance(message, _OF_FORMING):
                self._settled = False
                self._receive_forming(forming, message, incarnation, address, now_ns)
                if isinstance(message, Formed):
                    upkeep.formed(message)
                else:
                    upkeep.hello(sender, address, now_ns)
                self._send_forming(forming, now_ns)
            elif sender == self._member:
                self.counters["raft_drop_stranger"] += 1
            elif upkeep.is_gone(sender) or not self._can_answer(sender, address):
                upkeep.stranger(sender, address, now_ns)
            elif isinstance(message, Forward):
                self._receive_forward(raft, message, now_ns)
            elif isinstance(message, Append):
                self._leader_heard_ns = now_ns
                if message.count == 0 or self._has_room(raft, message, now_ns):
                    raft.step(message, now_ns)
                else:
                    self.counters["raft_drop_log_full"] += 1
            else:
                if isinstance(message, PreVote):  # it may have left, and nobody here remember
                    upkeep.stranger(sender, address, now_ns)
                raft.step(message, now_ns)

    def _can_answer(self, sender: int, address: tuple[int, int]) -> bool:
        """Where a sender is to be answered: members are where the configuration says. Others may be in one that has
        not come here yet, as the leader of a process that waits to be let in.
        """
        if sender not in self._addresses:
            if len(self._addresses) >= ADDRESSES_MAX:
                self.counters["raft_drop_stranger"] += 1
                return False
            self._addresses[sender] = (address,)
        return True

    def _has_room(self, raft: Raft, message: Append, now_ns: int) -> bool:
        """A full log takes no entries; the leader's Append goes unanswered and comes again when the prefix has been
        dropped. So does what comes behind it for a while: a refusal would have the leader send all of it again at once.
        """
        if message.prev_index > raft.last_index and now_ns < self._no_room_until_ns:
            return False
        bound = self.config.engine.log_bytes_max
        self._taken_bytes += message.bytes_count
        if self._log_bytes() + self._taken_bytes <= bound + bound // 4:
            return True
        # Some that were taken may have been here already: their bytes are counted once they are in the log.
        self._make_logs_agree(raft, now_ns)
        self._taken_bytes = 0
        first = raft.changes_from(message)
        if not first:
            return True
        # A log may be full of just what the leader's entries take the place of.
        removed_bytes = self.engine.range_bytes(first, raft.last_index)
        if self._log_bytes() - removed_bytes + message.bytes_count > bound + bound // 4:
            return self._without_room(now_ns)
        self._taken_bytes = message.bytes_count
        return True

    def _without_room(self, now_ns: int) -> bool:
        self._no_room_until_ns = now_ns + self.config.timers.heartbeat_ns
        return False

    def _log_bytes(self) -> int:
        return self.engine.log_bytes if self._disk is None else max(self.engine.log_bytes, self._disk.log_bytes)

    def _receive_forward(self, raft: Raft, message: Forward, now_ns: int) -> None:
        # The log's tail must be Raft's before entries are added to it.
        self._make_logs_agree(raft, now_ns)
        handle = message.payload
        assert isinstance(handle, int)
        backlog = raft.last_index - raft.applied_index
        if (
            raft.role is Role.LEADER
            and not self._disk_full
            and backlog < self.config.engine.backlog_entries_max
            and self.engine.log_bytes + message.bytes_count <= self.config.engine.log_bytes_max
            and self.engine.append_forwarded(handle, _FORWARD_HEADER_BYTES)
        ):
            self._propose(raft, message.count, now_ns)
            return
        # One hop only: what is not ours to take is refused, never sent on.
        self.counters["forwards_refused"] += 1
        self.engine.drop_forwarded(handle, _FORWARD_HEADER_BYTES)

    def _propose(self, raft: Raft, count: int, now_ns: int) -> None:
        """The engine's log has ``count`` new entries behind Raft's."""
        first_index = raft.propose(count, now_ns)
        if self._disk is not None:
            self._disk.append(self.engine, first_index, raft.last_index, raft.term)

    def _make_logs_agree(self, raft: Raft, now_ns: int) -> None:
        """Between two messages of a poll: the engine's log and Raft's are the same."""
        while raft.has_ready():
            self._carry_out(raft)
        # Whoever has just taken office has put what it held into the log. The next message may end the office: by then
        # Raft has to know of these entries, as of all others that are to be truncated.
        held = self.engine.log_last_index - raft.last_index
        if held:
            self._propose(raft, held, now_ns)

    # ---- forming ----

    def _form(self, now_ns: int, raft_count: int) -> None:
        forming = self._forming
        assert forming is not None
        if raft_count:
            for raw in self.engine.raft_messages():
                decoded = self._decode(raw)
                if decoded is None:
                    continue
                message, incarnation = decoded
                if isinstance(message, Hello | Formed):
                    self._receive_forming(forming, message, incarnation, (raw.source_ip, raw.source_port), now_ns)
                else:
                    self.counters["raft_drop_forming"] += 1
        self._send_forming(forming, now_ns)
        if forming.incarnations is not None:
            members = forming.incarnations
            addresses = {member_id(slot, members[slot]): address for slot, address in self.config.members.items()}
            self._start_raft(addresses, now_ns, joining=False)
            self._on_event(f"cluster formed: members {sorted(members)}, this is {self.config.node_id}")
        elif forming.joining is not None:
            told = {member_id(slot, incarnation): (0, 0) for slot, incarnation in forming.joining}
            self._start_raft(told, now_ns, joining=True)
            self._on_event(
                f"a cluster of slots {[slot for slot, _ in forming.joining]} runs already: slot {self.config.node_id} "
                f"asks to be let in as incarnation {self.incarnation:016x}"
            )

    def _receive_forming(
        self, forming: Forming, message: Hello | Formed, incarnation: int, address: tuple[int, int], now_ns: int
    ) -> None:
        if (
            isinstance(message, Formed)
            and forming.incarnations is None
            and address not in self._elsewhere
            and address not in self._hello_addresses.values()
        ):
            if not forming.knows(message):
                self.counters["raft_drop_forming"] += 1
                return
            if len(self._elsewhere) == limits.TARGETS_MAX:  # who leads now tells again, so the oldest may go
                del self._elsewhere[next(iter(self._elsewhere))]
            self._elsewhere[address] = None
        forming.receive(message, slot_of(message.sender), incarnation, now_ns)

    def _send_forming(self, forming: Forming, now_ns: int) -> None:
        forming.tick(now_ns)
        for message in forming.take_messages():
            if message.target == ELSEWHERE:
                targets = tuple(self._elsewhere)
            else:
                address = self._hello_addresses.get(message.target)
                targets = () if address is None else (address,)
            if targets:
                self._send(message, targets)

    def _start_raft(self, members: Mapping[int, tuple[int, int]], now_ns: int, *, joining: bool) -> None:
        config = self.config
        timers = config.timers
        ids = tuple(sorted(members))
        first = Configuration(ids, addresses=tuple((m, *members[m]) for m in ids if members[m] != (0, 0)))
        hard_state, term_runs, configurations, node_snapshot = None, None, [(0, first)], None
        if self._disk is not None:
            recovered, encoded, node_snapshot = self._disk.take_recovered()
            hard_state, term_runs = recovered.hard_state, recovered.term_runs()
            if node_snapshot is not None:
                configurations.clear()
            configurations += [(index, decode_configuration(body)) for index, body in encoded]
            if not self._disk.record.members:
                self._disk.started(ids, joining)
        self._raft = Raft(
            Config(
                node_id=self._member,
                members=ids,
                heartbeat_ns=timers.heartbeat_ns,
                election_min_ns=timers.election_min_ns,
                election_max_ns=timers.election_max_ns,
                append_bytes_max=config.engine.append_bytes_max,
                joining=joining,
                commit_delay_ns=timers.heartbeat_ns // COMMIT_DELAYS_PER_HEARTBEAT,
            ),
            self.engine,
            rng=random.Random(config.seed if config.seed is not None else secrets.randbits(64)),
            now_ns=now_ns,
            hard_state=hard_state,
            term_runs=term_runs,
            configurations=configurations,
        )
        self._upkeep = Upkeep(
            self._raft,
            self._member,
            self.engine,
            self.app,
            self.counters,
            bounds=config.engine,
            policy=self._policy,
            heartbeat_ns=timers.heartbeat_ns,
            silent_ns=timers.election_min_ns,
            handler_budget_ns=config.handler_budget_ns,
            app_is_busy=self._app_is_busy,
            on_event=self._on_event,
        )
        if self._disk is not None:
            if node_snapshot is not None:
                self._upkeep.snapshots.restore(self._raft.first_index - 1, node_snapshot)
            self._disk.load(self.engine, recovered)
        if config.steady_step and self._disk is None:
            self._steady = SteadyStep(self.engine, self._identity, self.counters)
        self._configured(self._raft.configuration)

    def _configured(self, configuration: Configuration) -> None:
        """Another configuration is in force: where its members are."""
        assert self._upkeep is not None
        where = addresses_of(configuration)
        # One address has one living member, the newest: what is meant for its dead predecessor is not sent.
        living: dict[tuple[int, int], int] = {}
        for member in (*configuration.outgoing, *configuration.voters, *configuration.learners):
            if member in where:
                living[where[member]] = member
        self._addresses |= {m: (where[m],) if living[where[m]] == m else () for m in where}
        members = set(configuration.members)
        if len(self._addresses) >= ADDRESSES_MAX:
            self._addresses = {m: address for m, address in self._addresses.items() if m in members}
        self._upkeep.configuration_changed(configuration)
        self._tell_group(where.values())
        self._moved = True  # the leader may be somewhere else now

    def _look_after(self, raft: Raft, now_ns: int, is_due: bool) -> None:
        """Members, snapshots, the log's bound; and Hellos of a process that waits to be let in."""
        upkeep, forming = self._upkeep, self._forming
        assert upkeep is not None and forming is not None
        if is_due:
            self._time.sync(now_ns)
            upkeep.manage(now_ns, self.engine.log_last_index)
            while raft.has_ready():
                self._carry_out(raft)
            for formed, address in upkeep.membership.take_formed():
                self._send(formed, (address,))
            for asker, answer in upkeep.membership.take_answers():
                self.engine.reply_later(asker, answer)
        if forming.deadline_ns is not None:
            self._send_forming(forming, now_ns)  # a coordinator tells on until everybody has heard it
        if forming.incarnations is None:
            if raft.is_voter and raft.configuration_committed:
                forming.let_in()
                self._on_event(f"slot {self.config.node_id} has been let in: it is a member that votes")
            elif forming.abandoned:
                self._begin_again(raft)
        if raft.removed:
            self.engine.flush()
            upkeep.check_removed()
        self._settled = forming.deadline_ns is None and forming.incarnations is not None

    def _begin_again(self, raft: Raft) -> None:
        """The cluster that was to be joined is gone. With nothing of it here, a new one may form, as a new launch."""
        forming = self._forming
        assert forming is not None
        if raft.last_index or raft.configuration_index or self._disk is not None:
            forming.keep_asking(self.engine.now_ns())
            return
        self._on_event(
            "THE CLUSTER THAT THIS WAS TO JOIN IS GONE: nobody who remembers it answers; when every member has been "
            "launched anew, a new, EMPTY cluster forms"
        )
        self._raft = None
        self._upkeep = None
        self._steady = None
        self.engine.steady_off()
        self._settled = False
        self._join(self.config, 0)

    # ---- Raft's decisions out ----

    def _carry_out(self, raft: Raft) -> None:
        """One Ready, in the order it documents. In memory, durable means done."""
        ready = raft.ready()
        engine, disk = self.engine, self._disk
        if ready.log_ops:
            for op in ready.log_ops:
                restored = b""
                if isinstance(op, AppendEntries):
                    handle = op.payload
                    assert isinstance(handle, int)
                    if not engine.append_message(handle, Append.HEADER_BYTES, op.skip, op.count):
                        raise UserError(
                            f"the log of member {self.config.node_id} is full at {engine.log_bytes} bytes",
                            "Give every member the same log bounds.",
                        )
                elif isinstance(op, Truncate):
                    if disk is not None:
                        disk.truncate(engine, op.from_index)
                    engine.truncate_suffix(op.from_index)
                elif isinstance(op, AppendNoop):
                    engine.append_noop()
                else:
                    assert self._upkeep is not None
                    if isinstance(op, RestoreSnapshot):
                        self._abandon_batch()
                        self._saving = None
                    restored = self._upkeep.execute(op)
                    if isinstance(op, RestoreSnapshot) and self._check is not None:
                        self._check.restored(op.index)
                if disk is not None:
                    disk.executed(engine, op, restored)
        if ready.configuration is not None:
            self._configured(ready.configuration)
        if ready.messages:
            self._send_all(ready.messages)
        if disk is None or disk.submit(ready.number, ready.hard_state):
            if released := raft.persisted(ready.number):
                self._send_all(released)
        elif durable := disk.done():
            self._send_all(raft.persisted(durable))
        if ready.reads or ready.reads_failed:
            self._reads.confirmed(ready.reads, ready.reads_failed)
        self._follow_role(raft)
        if ready.forget_index and ready.forget_index >= engine.log_first_index:
            engine.drop_prefix(ready.forget_index)

    def _look_at_disk(self, raft: Raft, disk: Durability) -> None:
        """What has become durable, and room on the disk."""
        if durable := disk.done():
            self._send_all(raft.persisted(durable))
        has_snapshots = self.app.has_snapshots
        if has_snapshots:
            self._save_snapshot(raft, disk)
        full = disk.is_full(has_snapshots=has_snapshots)
        if full != self._disk_full:
            self._disk_full = full
            self.engine.set_storage_full(full)

    def _save_snapshot(self, raft: Raft, disk: Durability) -> None:
        """Begins one when the disk wants it, and goes on with it."""
        assert self._upkeep is not None
        snapshots, index = self._upkeep.snapshots, self.engine.applied_index
        if self._saving is None:
            if not disk.wants_snapshot or index <= disk.snapshot_index or self._app_is_busy():
                return
            self.engine.flush()
            planned = disk.plan_snapshot(self.engine, index, encode_configuration(raft.configuration_at(index)))
            self._saving = planned, snapshots.begin(planned.front)
        planned, taking = self._saving
        if snapshots.go_on(taking):
            self._saving = None
            disk.save_snapshot(planned, taking.data)

    def _follow_role(self, raft: Raft) -> None:
        """Tells the engine what to do with replicated requests, and the operator what has changed."""
        told = (raft.role, raft.term, raft.leader_id)
        if told == self._told and not self._moved:
            return
        on_event: Callable[[str], None] = self._on_event if told != self._told else lambda text: None
        self._told = told
        self._moved = False
        if self._time.tells_app and not self._app_is_busy():
            self._time.look(self.engine.now_ns(), leads=raft.role is Role.LEADER)
        if raft.role is Role.LEADER:
            self._set_role(ROLE_LEADER)
            on_event(f"leader of term {raft.term}")
        elif raft.leader_id is not None:
            # A process that waits to be let in may not know yet where its leader is.
            address = next(iter(self._addresses.get(raft.leader_id, ())), None)
            self._leader_address = address
            forward = Forward(self.config.node_id, raft.leader_id, raft.term, 0, 0)
            self._forward_header = encode(forward, self._identity)[:-_COUNTS_BYTES]
            self._set_role(ROLE_FOLLOWER if address is not None else ROLE_HOLD)
            on_event(f"follows member {slot_of(raft.leader_id)} in term {raft.term}")
        else:
            self._set_role(ROLE_HOLD)
            on_event(f"knows no leader in term {raft.term} ({raft.role.value})")

    def _set_role(self, role: int) -> None:
        self._role = role
        self.engine.set_role(role)

    def _write_notes(self, raft: Raft, now_ns: int) -> None:
        """What the replicas are to compare goes into the log, if this member leads and there is room."""
        self._is_armed = False
        notes, self._to_write = self._to_write, []
        if raft.role is not Role.LEADER or raft.last_index != self.engine.log_last_index:
            return
        if self.engine.log_bytes < self.config.engine.log_bytes_max:
            written = sum(self.engine.append_note(note) for note in notes)
            if written:
                self._propose(raft, written, now_ns)
            while raft.has_ready():
                self._carry_out(raft)

    def _move_time(self, raft: Raft, now_ns: int) -> None:
        """The application may wait for a time that has come: the log is told, and through it every replica."""
        self._is_armed = False
        if raft.role is not Role.LEADER or self._app_is_busy():  # a batch that comes back has it looked at again
            self._time.due_ns = None
        elif not self._disk_full and raft.last_index == self.engine.log_last_index and self._time.add(now_ns):
            self._propose(raft, 1, now_ns)
            while raft.has_ready():
                self._carry_out(raft)

    def _apply(self, raft: Raft) -> None:
        """Applies committed entries, a bounded number of batches in a bounded time; heartbeats that fall due go out in
        between.
        """
        engine, apply, budget_ns = self.engine, self.app.apply, self.config.handler_budget_ns
        # Nobody waits any more for answers to what was read back from the disk; a client may have used the rid again.
        replay_through = 0 if self._disk is None else self._disk.replay_through
        # What was filled in must not wait for the application: followers work while the leader applies, and the
        # reverse.
        engine.flush()
        tells_time, time_ms, check = self._time.tells_app, engine.applied_time_ms, self._check
        began_ns = engine.now_ns()
        until_ns = began_ns + self.config.timers.election_min_ns // APPLY_PARTS_PER_ELECTION
        for _ in range(limits.APPLY_BATCHES_PER_POLL_MAX):
            commit_index = raft.commit_index
            if raft.applied_index >= commit_index:
                return
            is_replay = raft.applied_index < replay_through
            requests, last_index = engine.apply_prepare(
                min(commit_index, replay_through) if is_replay else commit_index,
                limits.APPLY_BATCH_ENTRIES_MAX if check is None else check.batch_entries(),
            )
            if check is not None:
                self._notes = check.notes(last_index)
            # Asking for processor time is slow, so it is asked only of an application that has taken long by the clock:
            # a core shared with other processes must not be taken for a slow application.
            clock = time.thread_time_ns if self._suspected_batches else time.perf_counter_ns
            start_ns = clock()
            replies = apply(requests) if len(requests) or (tells_time and requests.time_ms > time_ms) else []
            took_ns = clock() - start_ns
            self.counters["apply_batches"] += 1
            engine.apply_reply(replies, send=raft.role is Role.LEADER and not is_replay)
            raft.applied(last_index)
            if check is not None:
                self._to_write += check.applied(last_index, replies, self._notes)
            if tells_time:
                time_ms = requests.time_ms
                if raft.role is Role.LEADER:
                    self._time.look(engine.now_ns(), leads=True)
            if took_ns > budget_ns or self._suspected_batches:
                self._judge_handler(len(requests), took_ns)
            now_ns = engine.now_ns()
            if now_ns - began_ns > self.config.timers.election_min_ns:
                self._stalled(now_ns - began_ns)
            if last_index >= raft.commit_index or now_ns >= until_ns:
                return
            began_ns = now_ns
            if now_ns >= raft.deadline_ns:
                self._is_armed = False
                raft.tick(now_ns)
                while raft.has_ready():
                    self._carry_out(raft)
                engine.flush()

    def _judge_handler(self, count: int, took_ns: int) -> None:
        """The first long batch makes the application suspect; the next ones are counted if they take much processor
        time.
        """
        if not self._suspected_batches:
            self._suspected_batches = SUSPECTED_BATCHES
            return
        self._suspected_batches -= 1
        if took_ns <= self.config.handler_budget_ns:
            return
        self._suspected_batches = SUSPECTED_BATCHES
        self._over_budget(count, took_ns)

    # ---- the application on a thread of its own ----

    def _app_is_busy(self) -> bool:
        """Whether a batch is with the application's thread, so that nothing else may be called of it."""
        return self._worker is not None and self._worker.busy

    def _apply_elsewhere(self, raft: Raft, worker: ApplyThread, now_ns: int) -> None:
        """Between two batches what else there is for the application, then the next batch."""
        reads = self._reads
        if worker.busy:
            if reads.waiting:
                reads.serve(-1, now_ns)  # only refuses those that have waited too long
            return
        if reads.waiting:
            reads.serve(self.engine.applied_index, now_ns)
        for asker, query in self._queries:
            self.engine.reply_later(asker, self.app.query_safely(query))
        self._queries.clear()
        self._hand_over(raft, worker)
        if reads.waiting and not worker.busy:
            reads.serve(self.engine.applied_index, now_ns)

    def _hand_over(self, raft: Raft, worker: ApplyThread) -> None:
        """Gives the thread the next batch that has something for the application."""
        engine = self.engine
        replay_through = 0 if self._disk is None else self._disk.replay_through
        for _ in range(limits.APPLY_BATCHES_PER_POLL_MAX):
            commit_index = raft.commit_index
            if engine.applied_index >= commit_index:
                return
            is_replay = engine.applied_index < replay_through
            requests, last_index = engine.apply_prepare(
                min(commit_index, replay_through) if is_replay else commit_index,
                limits.APPLY_BATCH_ENTRIES_MAX if self._check is None else self._check.batch_entries(),
            )
            if self._check is not None:
                self._notes = self._check.notes(last_index)
            self._handed = (last_index, is_replay, len(requests))
            if len(requests) or (self._time.tells_app and requests.time_ms > engine.applied_time_ms):
                worker.submit(requests)
                return
            self._end_batch(raft, [])

    def _take_back(self, raft: Raft, worker: ApplyThread) -> None:
        busy_ns = worker.busy_ns()
        done = worker.take()
        if done.error is not None:
            raise done.error
        self._end_batch(raft, done.replies)
        if self._time.tells_app:
            self._time.look(self.engine.now_ns(), leads=raft.role is Role.LEADER)
        if done.took_ns > self.config.handler_budget_ns:
            self._over_budget(self._handed[2], done.took_ns)
        if busy_ns > self.config.timers.election_min_ns:
            self._stalled(busy_ns)

    def _end_batch(self, raft: Raft, replies: ReplySequence) -> None:
        last_index, is_replay, _ = self._handed
        self.counters["apply_batches"] += 1
        self.engine.apply_reply(replies, send=raft.role is Role.LEADER and not is_replay)
        raft.applied(last_index)
        if self._check is not None:
            self._to_write += self._check.applied(last_index, replies, self._notes)

    def _abandon_batch(self) -> None:
        """A snapshot is about to replace the application's state: what is out is waited for and forgotten."""
        worker = self._worker
        if worker is not None and worker.busy:
            done = worker.take()
            if done.error is not None:
                raise done.error
            self.engine.apply_abandon()

    def _stalled(self, took_ns: int) -> None:
        """By the clock: a handler that waits for something uses no processor, and yet nothing goes on."""
        self.counters["handler_stalls"] += 1
        if self.counters["handler_stalls"] == 1:
            log.warning(
                "the application took %.1f ms for a batch, longer than an election timeout (%.1f ms)%s; further cases "
                "are counted in handler_stalls",
                took_ns / limits.MS,
                self.config.timers.election_min_ns / limits.MS,
                "" if self._worker is not None else ": apply_thread keeps this from costing elections",
            )

    def _over_budget(self, count: int, took_ns: int) -> None:
        self.counters["handler_over_budget"] += 1
        if not self._slow_logged:
            self._slow_logged = True
            log.warning(
                "the application took %.1f ms for %d requests (budget %.1f ms): it holds up this node's loop; "
                "further cases are counted in handler_over_budget",
                took_ns / limits.MS,
                count,
                self.config.handler_budget_ns / limits.MS,
            )

    def _forward(self, now_ns: int) -> None:
        """Sends held requests to the leader; not to one that has been silent: they keep until the next is known."""
        silent_ns = now_ns - self._leader_heard_ns
        if self._role != ROLE_FOLLOWER or silent_ns > SILENT_HEARTBEATS * self.config.timers.heartbeat_ns:
            return
        assert self._leader_address is not None
        while self.engine.forward_held(self._forward_header, self._leader_address):
            pass

    # ---- sending ----

    def _send_all(self, messages: list[Message]) -> None:
        """Sends messages; Appends that differ in their target alone (same round) go out as one."""
        count = len(messages)
        i = 0
        while i < count:
            message = messages[i]
            i += 1
            targets = self._addresses.get(message.target, ())
            if isinstance(message, Append):
                while i < count:
                    other = messages[i]
                    if not isinstance(other, Append) or other.round != message.round:
                        break
                    targets += self._addresses.get(other.target, ())
                    i += 1
            if targets:
                self._send(message, targets)

    def _send(self, message: Message, targets: tuple[tuple[int, int], ...]) -> None:
        kind = message.KIND
        header = encode(message, self._identity)
        r2p2_type = _R2P2_TYPE[kind]
        if r2p2_type == 6:
            rid = message.request_id
        else:
            rid = self._rid = (self._rid + 1) & 0xFFFF
        if isinstance(message, InstallSnapshot):
            assert self._upkeep is not None
            chunk = self._upkeep.chunk(message)
            if chunk is not None:
                self.engine.raft_send(r2p2_type, rid, header + chunk, targets)
        elif isinstance(message, Append) and message.count:
            self.counters["appends_sent"] += 1
            self.counters["append_entries"] += message.count
            first = message.prev_index + 1
            self.engine.raft_send(r2p2_type, rid, header, targets, first, message.prev_index + message.count)
        else:
            self.engine.raft_send(r2p2_type, rid, header, targets)

    # ---- unreplicated requests ----

    def _serve(self) -> None:
        requests = self.engine.requests()
        if self._forming is None:
            requests.time_ms = self._time.own_ms()
        if MEMBER_REQUEST in requests.slab and self._forming is not None:
            self._serve_members(requests)
            return
        if self._forming is None:
            if STATUS_REQUEST not in requests.slab:
                self.engine.reply(self.app.apply(requests))
                return
            self.engine.reply([self._status_reply(r) or self._apply_one(r) for r in requests])
            return
        askers = self.engine.askers(len(requests)) if self._app_is_busy() else b""
        self.engine.reply([self._query(request, askers, i) for i, request in enumerate(requests)])

    def _query(self, request: bytes, askers: bytes, place: int) -> Any:
        """The reply to an unreplicated request to a member; LATER while the application is busy."""
        if reply := self._status_reply(request):
            return reply
        if not self._app_is_busy():
            return self.app.query_safely(request)
        if len(self._queries) >= limits.DEFERRED_MAX:
            self.counters["queries_refused"] += 1
            return DROP
        self._queries.append((askers[place * limits.ASKER_BYTES : (place + 1) * limits.ASKER_BYTES], request))
        return LATER

    def _serve_members(self, requests: Requests) -> None:
        """A batch with operators' requests in it."""
        now_ns = self.engine.now_ns()
        replies: list[Any] = []
        askers = self.engine.askers(len(requests))
        for i, request in enumerate(requests):
            if not request.startswith(MEMBER_REQUEST):
                replies.append(self._query(request, askers, i))
                continue
            asker = askers[i * limits.ASKER_BYTES : (i + 1) * limits.ASKER_BYTES]
            answer = NOT_FORMED if self._upkeep is None else self._upkeep.request(request, asker, now_ns)
            replies.append(LATER if answer is None else answer)
        self.engine.reply(replies)

    def _apply_one(self, request: bytes) -> bytes:
        replies = self.app.apply(Requests.of([request], 1, time_ms=self._time.own_ms()))
        return replies.slab if isinstance(replies, Replies) else Replies.pack(replies).slab

    def _status_reply(self, request: bytes) -> bytes:
        """The answer to a question for the status; empty: the request is none."""
        if request not in (STATUS_REQUEST, STATE_REQUEST):
            return b""
        return json.dumps(self.status(with_state=request == STATE_REQUEST)).encode()

    def _state_digest(self) -> str:
        """The application's, "" while it is busy. A member makes one for an applied index and keeps it: the question
        is repeated when the answer is late, which it is where there is much state.
        """
        if self._app_is_busy():
            return ""
        index = self.engine.applied_index
        if self._forming is None or self._digest_at != index:  # without a group no index tells what has been applied
            self._digest, self._digest_at = self.app.state_digest(), index
        return self._digest

    def status(self, *, with_state: bool = False) -> dict[str, Any]:
        """What this node knows of itself: role, indices, counters. Everything JSON can say.

        Args:
            with_state: also ``state_digest``, the application's; it may take long (:data:`STATE_REQUEST`).
        """
        engine = self.engine
        status: dict[str, Any] = {
            "node_id": self.config.node_id,
            "replicated": self._forming is not None,
            "log_first_index": engine.log_first_index,
            "log_last_index": engine.log_last_index,
            "log_bytes": engine.log_bytes,
            "applied_index": engine.applied_index,
            "applied_digest": f"{engine.applied_digest:016x}",
            "counters": {
                name: n for name, n in (engine.counters() | self.counters | self._reads.counters).items() if n
            },
        }
        if with_state:
            status["state_digest"] = self._state_digest()
        if self._forming is not None:
            status["incarnation"] = f"{self.incarnation:016x}"
            status["members"] = {str(m): format_address(a) for m, a in self.config.members.items()}
            status["formed"] = self._forming.incarnations is not None
            status["joining"] = self._forming.incarnations is None and self._forming.joining is not None
            status["waiting_for"] = list(self._forming.waiting_for)
        if self._raft is not None:
            raft = self._raft
            status |= self._time.status(engine.now_ns())
            if self._worker is not None:
                status["apply_busy_ms"] = self._worker.busy_ns() // limits.MS
            if self._check is not None:
                status["determinism"] = self._check.status()
            status |= {
                "role": raft.role.value,
                "term": raft.term,
                "leader": self._leader_slot(raft),
                "voter": raft.is_voter and raft.configuration_committed and not raft.configuration.joint,
                "commit_index": raft.commit_index,
                "global_commit": raft.global_commit,
            }
        if self._disk is not None:
            status["storage"] = self._disk.status()
            status["counters"] |= {name: n for name, n in self._disk.counters.items() if n}
        if self._upkeep is not None:
            status |= self._upkeep.status(engine.now_ns())
            where = addresses_of(self._upkeep.membership.committed_configuration)
            status["members"] = {str(slot_of(m)): format_address(a) for m, a in where.items()} or status["members"]
        return status

    def _leader_slot(self, raft: Raft) -> int | None:
        if raft.role is Role.LEADER:
            return self.config.node_id
        return None if raft.leader_id is None else slot_of(raft.leader_id)
