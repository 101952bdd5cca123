"""One node: the engine, Raft and an application, tied together in one visible loop step.

:meth:`Node.poll_once` is the whole of it: receive -> propose -> Raft -> apply -> reply -> send -> timers. Whoever
drives it (a busy loop over DPDK, asyncio over kernel UDP, a test on a virtual clock) calls it when datagrams may wait
or :meth:`Node.next_deadline_ns` has come.

Here is what is done when; how each thing is done is the parts' (:mod:`r2p2.node`). A node is one of three things: a
server without a group; a process whose group has not formed (:class:`~r2p2.node.group.Group`); a member of one, or soon
to be (:class:`~r2p2.node.replica.Replica`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from r2p2 import limits
from r2p2.address import format_address
from r2p2.app import StateMachine, handler_errors
from r2p2.engine import STEADY_SENT, Engine
from r2p2.errors import UserError
from r2p2.node.apply_thread import ApplyThread
from r2p2.node.applying import Applying
from r2p2.node.applying_apart import ApplyingApart
from r2p2.node.batches import Batches
from r2p2.node.config import NodeConfig
from r2p2.node.configurations import addresses_of
from r2p2.node.determinism import Determinism
from r2p2.node.disk_upkeep import open_disk
from r2p2.node.durability import Durability
from r2p2.node.group import Group
from r2p2.node.handler_watch import HandlerWatch
from r2p2.node.log_time import LogTime
from r2p2.node.reads import ReadGroups
from r2p2.node.replica import Replica
from r2p2.node.state_digest import StateDigest
from r2p2.node.unreplicated import Unreplicated
from raft import Raft, Role, slot_of

__all__ = ["Node"]

log = logging.getLogger("r2p2.node")

# A leader with so few entries to apply answers before it does anything else; with more it feeds its followers first.
REPLY_FIRST_ENTRIES: Final = 16
NEVER_NS: Final = 1 << 63


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
        self.engine = engine = Engine(port_address, config.engine, keep=keep)
        # Beside the parts' own: polls that found something, and polls in which the engine took the usual step of
        # replication without asking.
        self.counters: dict[str, int] = {"polls_busy": 0, "steady_steps": 0}
        self._on_event = on_event or log.info
        self._is_armed = False  # the engine knows what Raft knows
        self._rest_until_ns = 0  # polls that receive nothing have nothing to do before
        self._wake: Callable[[], None] | None = None
        self._time = LogTime(engine, app, config.unix_clock_ns)
        timers = config.timers
        self._reads = ReadGroups(
            engine, app, heartbeat_ns=timers.heartbeat_ns, hold_timeout_ns=config.engine.hold_timeout_ns
        )
        self._disk: Durability | None = None
        self._apart: ApplyingApart | None = None
        self._check: Determinism | None = None
        self._group: Group | None = None
        is_replicated = bool(config.members or config.join)
        if config.check_determinism < 0:
            raise UserError(f"check_determinism is {config.check_determinism}, not at least 0")
        if config.apply_thread and not is_replicated:
            raise UserError("apply_thread without a Raft group", "Name the members, or leave the thread out.")
        if config.storage is not None and not is_replicated:
            raise UserError("storage without a Raft group", "Name the members, or leave the storage out.")
        if is_replicated:
            if config.storage is not None:
                self._disk = open_disk(config, config.storage)
            try:
                self._group = Group(
                    config,
                    engine,
                    app,
                    self._disk,
                    self._time,
                    self._reads,
                    self.counters,
                    app_is_busy=self._app_is_busy,
                    on_restore=self._restoring,
                    on_event=self._on_event,
                )
            except BaseException:
                if self._disk is not None:
                    self._disk.close()  # its lock would outlive this object
                raise
            if config.check_determinism:
                self._check = Determinism(
                    config.check_determinism, config.node_id, app, engine, self.counters, self._on_event
                )
        self._batches = Batches(engine, self._time, self._disk, self._check, self.counters)
        self._watch = HandlerWatch(self.counters, budget_ns=config.handler_budget_ns, stall_ns=timers.election_min_ns)
        self._applying = Applying(app, self._batches, self._watch, self._time, engine, tick=self._tick)
        if config.apply_thread:
            self._apply_apart(ApplyThread(app.apply))
        self._digest = StateDigest(app, engine, replicated=is_replicated, app_is_busy=self._app_is_busy)
        self._unreplicated = Unreplicated(
            engine,
            app,
            self._time,
            self.counters,
            status=lambda with_state: self.status(with_state=with_state),
            member_request=None if self._group is None else self._group.request,
            app_is_busy=self._app_is_busy,
        )

    def _apply_apart(self, thread: ApplyThread) -> None:
        self._apart = ApplyingApart(thread, self._batches, self._watch, self._time, self.engine)

    # ---- the loop ----

    def poll_once(self) -> int:
        """One step of everything. Returns the datagrams handled: more than 0 means that another step is likely to
        find more.

        Raises:
            SupersededError: this launch cannot be part of its cluster (:mod:`r2p2.node.forming`).
            RemovedError: this member was removed from its cluster.
        """
        engine = self.engine
        now_ns, packets, requests, appended, held, raft_count, _, last_index, reads_gathered, steady = engine.poll()
        group, reads, apart = self._group, self._reads, self._apart
        if not packets and not appended and now_ns < self._rest_until_ns:
            return 0
        if group is not None and (replica := group.replica) is not None:
            raft = replica.raft
            if steady:
                assert replica.steady is not None
                if replica.steady.take(raft, steady, last_index, now_ns):
                    group.leadership.heard_ns = now_ns
                elif steady & STEADY_SENT:
                    appended = 0
                    group.peers.next_rid()
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
                    replica.propose(appended, now_ns)
            if apart is not None and apart.is_done:
                apart.take_back(raft)
            if self._disk is not None:
                replica.look_at_disk()
            if raft_count:
                group.receive(replica, now_ns)
            if now_ns >= raft.deadline_ns:
                raft.tick(now_ns)
            if reads_gathered or reads.waiting:
                reads.ask(raft, now_ns, reads_gathered)
            if (
                0 < raft.commit_index - raft.applied_index <= REPLY_FIRST_ENTRIES
                and not appended
                and raft.role is Role.LEADER
                and apart is None
            ):
                self._applying.apply(raft)
                engine.flush()
            if raft_count or raft.has_ready():
                self._is_armed = False
                replica.carry_out()
            if held:
                group.leadership.forward(now_ns)
            is_due = replica.upkeep.due(now_ns) or raft.removed
            if is_due or not group.settled:
                self._is_armed = False
                if is_due:
                    self._time.sync()
                group.look_after(replica, now_ns, is_due)
            if self._time.due_ns is not None and now_ns >= self._time.due_ns:
                self._is_armed = False
                replica.move_time(self._time, now_ns)
            if self._batches.notes:
                self._is_armed = False
                replica.add_notes(self._batches.take_notes(), now_ns)
            if apart is not None:
                self._use_thread(raft, apart, now_ns)
            elif raft.applied_index < raft.commit_index:
                self._applying.apply(raft)
                if raft.applied_index < raft.commit_index:
                    packets += 1  # not a datagram, but more to do at once
            if reads.waiting and apart is None:
                reads.serve(engine.applied_index, now_ns)
        elif group is not None:
            group.form(now_ns, raft_count)
        if requests:
            self._is_armed = False
            self._unreplicated.serve()
        engine.flush()
        if not self._is_armed and group is not None:
            self._arm(group)
        if packets:
            self.counters["polls_busy"] += 1
        self._rest_until_ns = self._idle_until_ns()
        return packets

    def _arm(self, group: Group) -> None:
        """The engine is told with what it may take the usual step from now on."""
        replica = group.replica
        if replica is not None and replica.steady is not None:
            replica.steady.arm(replica.raft, group.peers.addresses, group.peers.rid)
            self._is_armed = True

    def _idle_until_ns(self) -> int:
        """Until when a poll that receives nothing has nothing to do: 0: there is something already."""
        group = self._group
        if group is None:
            return NEVER_NS
        replica = group.replica
        if replica is None:
            return 0
        raft, upkeep = replica.raft, replica.upkeep
        if (
            self._disk is not None
            or self._apart is not None
            or self._batches.notes
            or self._reads.waiting
            or not group.settled
            or upkeep.is_taking
            or raft.has_ready()
            or raft.applied_index < raft.commit_index
        ):
            return 0
        due_ns = min(raft.deadline_ns, upkeep.due_ns)
        return due_ns if self._time.due_ns is None else min(due_ns, self._time.due_ns)

    def next_deadline_ns(self) -> int | None:
        """When :meth:`poll_once` must be called even without datagrams; None: never."""
        group = self._group
        if group is None:
            return None
        hello_ns, replica = group.hello_ns, group.replica
        if replica is None:
            return hello_ns
        if replica.is_taking_snapshot:
            return 0
        if self.engine.applied_index < replica.raft.commit_index and not self._app_is_busy():
            return 0
        reads_ns = self._reads.deadline_ns if self._reads.waiting else None
        return min(ns for ns in (replica.raft.deadline_ns, hello_ns, reads_ns, self._time.due_ns) if ns is not None)

    def _tick(self, now_ns: int) -> None:
        """One of Raft's timers has fired between two batches."""
        replica = self._replica
        assert replica is not None
        self._is_armed = False
        replica.raft.tick(now_ns)
        replica.carry_out()
        self.engine.flush()

    def _use_thread(self, raft: Raft, apart: ApplyingApart, now_ns: int) -> None:
        """Between two batches what else there is for the application, then the next batch."""
        reads = self._reads
        if apart.busy:
            if reads.waiting:
                reads.serve(-1, now_ns)  # only refuses those that have waited too long
            return
        if reads.waiting:
            reads.serve(self.engine.applied_index, now_ns)
        self._unreplicated.serve_waiting()
        apart.hand_over(raft)
        if reads.waiting and not apart.busy:
            reads.serve(self.engine.applied_index, now_ns)

    def _app_is_busy(self) -> bool:
        """Whether a batch is with the application's thread, so that nothing else may be called of it."""
        return self._apart is not None and self._apart.busy

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
        if self._apart is not None:
            self._apart.wake_with(wake)

    @property
    def incarnation(self) -> int:
        """This launch's random number; 0 without a group."""
        return 0 if self._group is None else self._group.incarnation

    @property
    def is_leader(self) -> bool:
        """Whether this member leads its group, as far as it knows."""
        replica = self._replica
        return replica is not None and replica.raft.role is Role.LEADER

    @property
    def _replica(self) -> Replica | None:
        """What takes part in the group; None: there is no group, or it has not formed."""
        return None if self._group is None else self._group.replica

    def now_ns(self) -> int:
        """The port's clock."""
        return self.engine.now_ns()

    def close(self) -> None:
        """Sends what is filled in, frees the engine, lets the storage go and closes the application. Idempotent.

        A batch that is with the application's thread ends first, and nobody is answered: its clients ask the others.
        """
        if self._apart is not None:
            self._apart.close()
        self.engine.close()
        if self._disk is not None:
            self._disk.close()
        self.app.close()

    def _restoring(self, index: int) -> None:
        """A snapshot is about to replace the application's state."""
        if self._apart is not None:
            self._apart.abandon()
        if self._check is not None:
            self._check.restored(index)

    # ---- for people ----

    def all_counters(self) -> dict[str, int]:
        """Every counter, of the engine and its port as well, by name."""
        errors = self.engine.replies_refused + handler_errors(self.app)
        counters = self.engine.counters() | self.counters | self._reads.counters | {"handler_errors": errors}
        return counters if self._disk is None else counters | self._disk.counters

    def status(self, *, with_state: bool = False) -> dict[str, Any]:
        """What this node knows of itself: role, indices, counters. Everything JSON can say.

        Args:
            with_state: also ``state_digest``, the application's; it may take long (:data:`r2p2.node.STATE_REQUEST`).
        """
        engine, group, replica, disk = self.engine, self._group, self._replica, self._disk
        counters = self.all_counters()
        status: dict[str, Any] = {
            "node_id": self.config.node_id,
            "replicated": group is not None,
            "log_first_index": engine.log_first_index,
            "log_last_index": engine.log_last_index,
            "log_bytes": engine.log_bytes,
            "applied_index": engine.applied_index,
            "applied_digest": f"{engine.applied_digest:016x}",
            "counters": {name: n for name, n in counters.items() if n},
        }
        if with_state:
            status["state_digest"] = self._digest.get()
        if group is not None:
            status |= group.status()
        if replica is not None:
            status |= self._time.status(engine.now_ns())
            if self._apart is not None:
                status["apply_busy_ms"] = self._apart.busy_ns() // limits.MS
            if self._check is not None:
                status["determinism"] = self._check.status()
            status |= replica.status()
        if disk is not None:
            status["storage"] = disk.status()
        if replica is not None:
            status |= replica.upkeep.status(engine.now_ns())
            where = addresses_of(replica.upkeep.membership.committed_configuration)
            status["members"] = {str(slot_of(m)): format_address(a) for m, a in where.items()} or status["members"]
        return status
