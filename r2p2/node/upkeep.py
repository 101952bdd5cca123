"""What keeps a group in good health beside replication: members come and go, snapshots are taken and sent, the log
stays within its bound.

The node calls it at four places: for the log operations and chunks that are not about entries, for Hellos and Formeds,
for operators' requests, and once a poll. The decisions are :mod:`r2p2.node.membership`'s and
:mod:`r2p2.node.truncation`'s, the bytes :mod:`r2p2.node.snapshots`'s; here they meet Raft and the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from r2p2.address import format_address
from r2p2.app import StateMachine
from r2p2.engine import Engine, EngineConfig
from r2p2.node.configurations import addresses_of
from r2p2.node.forming import RemovedError
from r2p2.node.membership import Membership
from r2p2.node.membership_core import RaftCore
from r2p2.node.snapshots import Snapshots, Taking
from r2p2.node.truncation import Act, Situation, compact_through, decide, is_near
from raft import (
    AbandonSnapshot,
    AppendConfiguration,
    Configuration,
    Formed,
    InstallSnapshot,
    LogOp,
    Raft,
    RestoreSnapshot,
    Role,
    SnapshotChunk,
    encode_configuration,
    incarnation_of,
    slot_of,
)

__all__ = ["Upkeep"]

# A peer that takes a snapshot is waited for as long as it answers at all: this many heartbeats.
SILENT_HEARTBEATS: Final = 10


class Upkeep:
    """The upkeep of one member of a group.

    Args:
        member: its identity.
        engine, app: the node's.
        counters: the node's.
        bounds: the engine's.
        policy: one of :data:`r2p2.node.truncation.POLICIES`.
        heartbeat_ns, silent_ns: how often to look, and how long without a word makes a member be down.
        handler_budget_ns: processor time a snapshot may take at once unnoticed.
        app_is_busy: whether the application may not be called now; then what needs it waits.
        on_event: told what an operator wants to know.

    Attributes:
        due_ns: when :meth:`manage` is to be called, whatever happens.
    """

    COUNTERS: Final = ("raft_drop_gone", "log_compactions", "members_evicted", "snapshots_unused")

    def __init__(
        self,
        raft: Raft,
        member: int,
        engine: Engine,
        app: StateMachine,
        counters: dict[str, int],
        *,
        bounds: EngineConfig,
        policy: str,
        heartbeat_ns: int,
        silent_ns: int,
        handler_budget_ns: int,
        app_is_busy: Callable[[], bool],
        on_event: Callable[[str], None],
    ) -> None:
        self.policy = policy
        self.membership = Membership(member, raft.configuration, silent_ns, on_event, takes_in=app.has_snapshots)
        self.snapshots = Snapshots(app, engine, counters, handler_budget_ns)
        self._raft = raft
        self._core = RaftCore(raft, member)
        self._member = member
        self._engine = engine
        self._bounds = bounds
        self._counters = counters
        self._app_is_busy = app_is_busy
        self._heartbeat_ns = heartbeat_ns
        self._silent_ns = silent_ns
        self._on_event = on_event
        self.due_ns = 0
        self._looked_index = 0
        self._taking: Taking | None = None
        self._taken_ns = 0
        self._has_snapshots = app.has_snapshots
        for name in self.COUNTERS:
            counters.setdefault(name, 0)

    # ---- Raft's decisions ----

    def execute(self, op: LogOp) -> bytes:
        """A log operation about a configuration or a snapshot; the bytes of one that was restored.

        Raises:
            SnapshotDamaged: what came in is none, so this member cannot go on.
        """
        if isinstance(op, AppendConfiguration):
            self._engine.append_configuration(encode_configuration(op.configuration))
        elif isinstance(op, SnapshotChunk):
            handle = op.payload
            assert isinstance(handle, int)
            self.snapshots.receive(op.offset, self._engine.message_tail(handle, op.bytes_count))
        elif isinstance(op, AbandonSnapshot):
            self.snapshots.abandon()
        elif isinstance(op, RestoreSnapshot):
            if self._taking is not None:  # of a state that is about to go
                self._taking = None
                self._counters["snapshots_unused"] += 1
            data = self.snapshots.install(op.index)
            self._on_event(f"restored a snapshot of the first {op.index} entries")
            return data
        return b""

    def chunk(self, message: InstallSnapshot) -> bytes | None:
        """The bytes of an outgoing piece; None: that snapshot is not held any more."""
        return self.snapshots.chunk(message.index, message.offset, message.bytes_count)

    def configuration_changed(self, configuration: Configuration) -> None:
        """Another configuration is in force."""
        self.membership.configuration_changed(configuration)
        self.due_ns = 0
        if not self._raft.configuration_index:
            return  # how the cluster began, which is said elsewhere
        learners = configuration.learners
        names = [
            f"{slot_of(m)}{' (learner)' if m in learners else ''}" for m in sorted(configuration.members, key=slot_of)
        ]
        joint = " (joint)" if configuration.joint else ""
        self._on_event(f"configuration {self._raft.configuration_index}: members {', '.join(names)}{joint}")

    # ---- Hellos, strangers, operators ----

    def is_gone(self, member: int) -> bool:
        """Whether a sender has left the cluster: what it says is dropped, and it is counted."""
        if not self.membership.is_gone(member):
            return False
        self._counters["raft_drop_gone"] += 1
        return True

    def stranger(self, sender: int, address: tuple[int, int], now_ns: int) -> None:
        """A Raft message of somebody who is no member: it is told so."""
        self.membership.stranger(sender, address, now_ns)

    def hello(self, sender: int, address: tuple[int, int], now_ns: int) -> None:
        """A process outside says Hello."""
        self._core.now_ns = now_ns
        self.membership.hello(sender, address, now_ns)
        self.due_ns = 0

    def formed(self, formed: Formed) -> None:
        """Somebody tells who is in the cluster.

        Raises:
            RemovedError: not this member, any more.
        """
        if self.membership.told(formed, self._core):
            self._raise_removed()

    def request(self, payload: bytes, asker: bytes, now_ns: int) -> bytes | None:
        """An operator's request: its answer, or None when that comes later."""
        self._core.now_ns = now_ns
        self.due_ns = 0
        return self.membership.request(payload, asker, self._core, now_ns)

    # ---- once a poll ----

    def due(self, now_ns: int) -> bool:
        """Whether :meth:`manage` has something to look at: something happened, it is time, a snapshot is on its way, or
        the log has grown near its bound.
        """
        if now_ns >= self.due_ns or self._taking is not None:
            return True
        if self._raft.last_index == self._looked_index:
            return False
        self._looked_index = self._raft.last_index
        return is_near(self._engine.log_bytes, self._bounds.log_bytes_max)

    def manage(self, now_ns: int, last_log_index: int) -> None:
        """Looks at everything: at every heartbeat, and when something has happened.

        Args:
            now_ns: the time.
            last_log_index: the engine's; a change of members waits while it is ahead of Raft's.

        Raises:
            RemovedError: a committed change has left this member out.
        """
        raft, membership = self._raft, self.membership
        self.due_ns = now_ns + self._heartbeat_ns
        self._core.now_ns = now_ns
        if last_log_index == raft.last_index and not raft.has_ready():
            membership.drive(self._core, now_ns)
        self._keep_snapshots(now_ns)
        self._truncate(now_ns)

    def check_removed(self) -> None:
        """To be called once answers are out.

        Raises:
            RemovedError: a committed change has left this member out.
        """
        if self._raft.removed:
            self._raise_removed()

    def _raise_removed(self) -> None:
        slot = slot_of(self._member)
        raise RemovedError(
            f"member {slot} (incarnation {incarnation_of(self._member):016x}) was removed from the cluster",
            f"To take it in again: `r2p2 member add {slot} IP:PORT`, and start it with --join.",
        )

    @property
    def is_taking(self) -> bool:
        """Whether a snapshot is being taken: :meth:`manage` goes on with it."""
        return self._taking is not None

    def _keep_snapshots(self, now_ns: int) -> None:
        raft, snapshots = self._raft, self.snapshots
        self._go_on(now_ns)
        if snapshots.index and raft.first_index > snapshots.index + 1 and not raft.snapshot_in_use:
            snapshots.release()  # the log does not go on from it: nobody will be sent it
        if raft.snapshot_wanted and self._has_snapshots:
            self._take(now_ns)

    def _take(self, now_ns: int) -> None:
        """Begins one at the applied index, unless one is on its way, or there: no member gets halves of two."""
        if self._taking is not None or self._raft.applied_index == self._raft.snapshot_index:
            return
        if self._app_is_busy():
            self.due_ns = 0
            return
        # Followers wait for what is filled in, and for a sign of life, less long than a large snapshot may take.
        self._engine.flush()
        self._taking = self.snapshots.begin()
        self._go_on(now_ns)

    def _go_on(self, now_ns: int) -> None:
        if self._taking is not None and self.snapshots.go_on(self._taking):
            taking, self._taking = self._taking, None
            self._taken(taking, now_ns)

    def _taken(self, taking: Taking, now_ns: int) -> None:
        """One is complete: the members that need it get it, and the log may give way."""
        raft = self._raft
        # The log may not go on from it any more, where every member has applied more meanwhile; and nobody who is being
        # sent the one before is to begin again for the log's sake.
        is_behind = taking.index < max(raft.snapshot_index + 1, raft.first_index - 1)
        if is_behind or (not raft.snapshot_wanted and self._snapshot_is_taken_in(now_ns)):
            self._counters["snapshots_unused"] += 1
            return
        self._taken_ns = now_ns
        raft.snapshot_taken(taking.index, self.snapshots.hold(taking))

    def _truncate(self, now_ns: int) -> None:
        raft, engine, config = self._raft, self._engine, self._bounds
        first_index, last_index = engine.log_first_index, engine.log_last_index
        holder = self.holder() if self.policy == "evict" else None
        situation = Situation(
            engine.log_bytes,
            config.log_bytes_max,
            last_index + 1 - first_index,
            config.log_entries_max,
            raft.role is Role.LEADER,
            raft.configuration.joint or not raft.configuration_committed,
            None if holder is None else max(0, now_ns - self._core.heard_ns(holder)),
            self._silent_ns,
        )
        act = decide(self.policy, situation)
        if act is Act.EVICT and holder is not None:
            self._counters["members_evicted"] += 1
            self.membership.evict(holder)
            self.due_ns = 0
        elif act is Act.COMPACT and not self._snapshot_is_taken_in(now_ns):
            through = compact_through(
                engine, first_index, raft.applied_index, config.log_bytes_max, config.log_entries_max
            )
            # One that took long still holds what is to go: what came meanwhile is at most the quarter that stays.
            if through > raft.snapshot_index:
                self._take(now_ns)
            if 0 < through <= raft.snapshot_index:
                raft.compact(through)
                self._counters["log_compactions"] += 1

    def _snapshot_is_taken_in(self, now_ns: int) -> bool:
        """Whether a member that answers is being sent the snapshot: a newer one would make it begin again."""
        raft = self._raft
        if not raft.snapshot_in_use:
            return False
        silent_ns = SILENT_HEARTBEATS * self._heartbeat_ns
        peers = [peer for member in raft.configuration.members if (peer := raft.peer(member)) is not None]
        # Only an answer since it was taken says that somebody is there.
        since_ns = max(self._taken_ns + 1, now_ns - silent_ns)
        return any(peer.takes_snapshot and peer.heard_ns >= since_ns for peer in peers)

    # ---- for people ----

    def holder(self) -> int | None:
        """The member that holds the leader's log; None: nobody, or this one does not lead."""
        raft = self._raft
        if raft.role is not Role.LEADER:
            return None
        peers = [peer for member in raft.configuration.members if (peer := raft.peer(member)) is not None]
        holder = min(peers, key=lambda peer: peer.applied_index, default=None)
        return holder.member if holder is not None and holder.applied_index < raft.applied_index else None

    def status(self, now_ns: int) -> dict[str, Any]:
        """Configuration, who holds the log and how much of it, snapshots; as JSON can say it."""
        raft, membership, snapshots = self._raft, self.membership, self.snapshots
        self._core.now_ns = now_ns
        holder = self.holder()
        held: dict[str, Any] | None = None
        if holder is not None and self._engine.log_bytes:
            where = addresses_of(raft.configuration).get(holder)
            held = {
                "slot": slot_of(holder),
                "incarnation": f"{incarnation_of(holder):016x}",
                "address": format_address(where) if where else "",
                "bytes": self._engine.log_bytes,
                "silent_ms": round(max(0, now_ns - self._core.heard_ns(holder)) / 1e6, 1),
            }
        return {
            "configuration": membership.describe(self._core, now_ns),
            "log_held_by": held,
            "truncation": self.policy,
            "evicted": sorted(membership.evicted),
            "majority_lost": [slot_of(member) for member in membership.lost],
            "snapshot_index": snapshots.index,
            "snapshot_bytes": snapshots.held_bytes,
            "snapshot_incoming_bytes": snapshots.incoming_bytes,
        }
