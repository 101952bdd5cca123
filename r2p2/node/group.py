"""A node's part in a group: from a launch that asks around to a member, and its upkeep.

A process says Hello (:mod:`r2p2.node.hellos`) until a group has formed with it or it is told of one that stands; then
it has a :class:`~r2p2.node.replica.Replica`, which waits to be let in or is a member at once. Messages of others are
given out here: to the one or to the other, and only from those who may speak.

Leaves to others: when anything is done (:mod:`r2p2.node.node`), how (the parts).
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from r2p2.address import format_address
from r2p2.app import StateMachine
from r2p2.engine import Engine
from r2p2.errors import UserError
from r2p2.node.config import NodeConfig
from r2p2.node.durability import Durability
from r2p2.node.hellos import Hellos
from r2p2.node.incoming import Incoming
from r2p2.node.leadership import Leadership
from r2p2.node.log_time import LogTime
from r2p2.node.peers import Peers
from r2p2.node.reads import ReadGroups
from r2p2.node.replica import Replica
from r2p2.node.steady import SteadyStep
from r2p2.node.truncation import choose_policy
from r2p2.node.upkeep import Upkeep
from raft import (
    Append,
    AppendReply,
    Configuration,
    Formed,
    Forward,
    Hello,
    Identity,
    PreVote,
    Raft,
    decode_configuration,
    incarnation_of,
    member_id,
    slot_of,
)
from raft.configuration import VOTERS_MAX

__all__ = ["Group"]

_OF_FORMING: Final = (Hello, Formed)
NOT_FORMED: Final = b'{"ok": false, "error": "not_formed", "text": "this member is not in a cluster yet"}'


class Group:
    """The group of one node, as far as the node knows it.

    Args:
        config: the node's.
        engine, app: the node's.
        disk: of a durable member, who comes back as who it was; None: in memory.
        time: told of roles.
        reads: told which may be answered.
        counters: the node's.
        app_is_busy: whether the application may not be called now.
        on_restore: told of the index when a snapshot is about to replace the application's state.
        on_event: told what an operator wants to know.

    Attributes:
        incarnation: this launch's random number.
        member: this launch as a member.
        peers: where the others are.
        leadership: whom replicated requests are for.
        replica: from when the group is known; None before.
        settled: nobody waits to be let in or to be told who is in the group.
    """

    def __init__(
        self,
        config: NodeConfig,
        engine: Engine,
        app: StateMachine,
        disk: Durability | None,
        time: LogTime,
        reads: ReadGroups,
        counters: dict[str, int],
        *,
        app_is_busy: Callable[[], bool],
        on_restore: Callable[[int], None],
        on_event: Callable[[str], None],
    ) -> None:
        self._config = config
        self._engine = engine
        self._app = app
        self._disk = disk
        self._reads = reads
        self._counters = counters
        self._app_is_busy = app_is_busy
        self._on_restore = on_restore
        self._on_event = on_event
        self._incoming = Incoming(engine, config.cluster_id, counters)
        self.peers = Peers(engine, config.cluster_id, counters)
        self.leadership = Leadership(
            config.node_id,
            engine,
            self.peers,
            time,
            heartbeat_ns=config.timers.heartbeat_ns,
            app_is_busy=app_is_busy,
            on_event=on_event,
        )
        self.replica: Replica | None = None
        self.settled = False
        self._begin(config.incarnation if disk is None else disk.record.incarnation)
        if disk is not None and disk.record.members:
            self._resume(disk)

    @property
    def hello_ns(self) -> int | None:
        """When a Hello or a Formed is due; None: never again."""
        return self._hellos.forming.deadline_ns

    # ---- from a launch to a replica ----

    def _begin(self, incarnation: int) -> None:
        """A launch: who this is, and whom it asks."""
        config, has_snapshots = self._config, self._app.has_snapshots
        if config.join and not has_snapshots:
            raise UserError(
                f"{type(self._app).__name__} has no snapshots, so no new member can be brought up",
                "Give the application snapshot() and restore().",
            )
        if len(config.members) > VOTERS_MAX:
            raise UserError(f"{len(config.members)} members, and a group has at most {VOTERS_MAX}", "Name fewer.")
        if not config.join and config.node_id not in config.members:
            raise UserError(f"node_id {config.node_id} is not one of the members {sorted(config.members)}")
        self._policy = choose_policy(config.truncation, has_snapshots=has_snapshots)
        self.incarnation = incarnation or secrets.randbits(64) or 1
        self.member = member_id(config.node_id, self.incarnation)
        self._hellos = Hellos(
            config, self.incarnation, self.peers, self._counters, self._engine.now_ns(), can_join=has_snapshots
        )
        self.peers.begin(Identity(config.cluster_id, config.node_id, self.incarnation), self._hellos.asked)
        self.leadership.hold()

    def _resume(self, disk: Durability) -> None:
        """A durable member comes back as who it was, wherever the others are."""
        record = disk.record
        self._hellos.forming.resume({slot_of(m): incarnation_of(m) for m in record.members}, joining=record.joining)
        where = {} if record.joining else self._config.members
        members = {member: where.get(slot_of(member), (0, 0)) for member in record.members}
        self._start_raft(members, self._engine.now_ns(), joining=record.joining)
        self._on_event(
            f"comes back from {self._config.storage}: slot {record.slot}, incarnation {record.incarnation:016x}, "
            f"{disk.replay_through} entries"
        )

    def form(self, now_ns: int, raft_count: int) -> None:
        """Once a poll, as long as there is no replica; ``raft_count`` messages have come.

        Raises:
            SupersededError: a cluster stands without this launch, and cannot take it in.
        """
        hellos = self._hellos
        if raft_count:
            for message, incarnation, address in self._incoming.messages():
                if isinstance(message, _OF_FORMING):
                    hellos.receive(message, incarnation, address, now_ns)
                else:
                    self._counters["raft_drop_forming"] += 1
        hellos.send(now_ns)
        forming = hellos.forming
        if forming.incarnations is not None:
            members = forming.incarnations
            addresses = {member_id(slot, members[slot]): address for slot, address in self._config.members.items()}
            self._start_raft(addresses, now_ns, joining=False)
            self._on_event(f"cluster formed: members {sorted(members)}, this is {self._config.node_id}")
        elif forming.joining is not None:
            told = {member_id(slot, incarnation): (0, 0) for slot, incarnation in forming.joining}
            self._start_raft(told, now_ns, joining=True)
            self._on_event(
                f"a cluster of slots {[slot for slot, _ in forming.joining]} runs already: slot {self._config.node_id} "
                f"asks to be let in as incarnation {self.incarnation:016x}"
            )

    def _start_raft(self, members: Mapping[int, tuple[int, int]], now_ns: int, *, joining: bool) -> None:
        config, disk = self._config, self._disk
        ids = tuple(sorted(members))
        first = Configuration(ids, addresses=tuple((m, *members[m]) for m in ids if members[m] != (0, 0)))
        hard_state, term_runs, configurations, node_snapshot = None, None, [(0, first)], None
        if disk is not None:
            recovered, encoded, node_snapshot = disk.take_recovered()
            hard_state, term_runs = recovered.hard_state, recovered.term_runs()
            if node_snapshot is not None:
                configurations.clear()
            configurations += [(index, decode_configuration(body)) for index, body in encoded]
            if not disk.record.members:
                disk.started(ids, joining)
        raft = Raft(
            config.for_raft(self.member, ids, joining=joining),
            self._engine,
            rng=random.Random(config.seed if config.seed is not None else secrets.randbits(64)),
            now_ns=now_ns,
            hard_state=hard_state,
            term_runs=term_runs,
            configurations=configurations,
        )
        upkeep = Upkeep(
            raft,
            self.member,
            self._engine,
            self._app,
            self._counters,
            bounds=config.engine,
            policy=self._policy,
            heartbeat_ns=config.timers.heartbeat_ns,
            silent_ns=config.timers.election_min_ns,
            handler_budget_ns=config.handler_budget_ns,
            app_is_busy=self._app_is_busy,
            on_event=self._on_event,
        )
        if disk is not None:
            if node_snapshot is not None:
                upkeep.snapshots.restore(raft.first_index - 1, node_snapshot)
            disk.load(self._engine, recovered)
        steady = None
        if config.steady_step and disk is None:
            steady = SteadyStep(self._engine, self.peers.identity, self._counters)
        self.replica = Replica(
            config,
            raft,
            upkeep,
            steady,
            self._engine,
            disk,
            self.peers,
            self.leadership,
            self._reads,
            self._counters,
            app_has_snapshots=self._app.has_snapshots,
            app_is_busy=self._app_is_busy,
            on_restore=self._on_restore,
        )

    # ---- once there is one ----

    def receive(self, replica: Replica, now_ns: int) -> None:
        """Raft messages have come to the replica.

        Raises:
            RemovedError: this member was removed from its cluster.
        """
        hellos, raft, upkeep, peers = self._hellos, replica.raft, replica.upkeep, self.peers
        replica.room.begin_poll()
        for message, incarnation, address in self._incoming.messages():
            sender = message.sender
            if (
                isinstance(message, AppendReply)
                and sender in peers.addresses
                and sender != self.member
                and not upkeep.is_gone(sender)
            ):
                raft.step(message, now_ns)  # nearly all that a leader hears
            elif isinstance(message, _OF_FORMING):
                self.settled = False
                hellos.receive(message, incarnation, address, now_ns)
                if isinstance(message, Formed):
                    upkeep.formed(message)
                else:
                    upkeep.hello(sender, address, now_ns)
                hellos.send(now_ns)
            elif sender == self.member:
                self._counters["raft_drop_stranger"] += 1
            elif upkeep.is_gone(sender) or not peers.can_answer(sender, address):
                upkeep.stranger(sender, address, now_ns)
            elif isinstance(message, Forward):
                replica.receive_forward(message, now_ns)
            elif isinstance(message, Append):
                replica.receive_append(message, now_ns)
            else:
                if isinstance(message, PreVote):  # it may have left, and nobody here remember
                    upkeep.stranger(sender, address, now_ns)
                raft.step(message, now_ns)

    def look_after(self, replica: Replica, now_ns: int, is_due: bool) -> None:
        """Hellos of a process that waits to be let in; and, when that is due, members, snapshots, the log's bound.

        Raises:
            RemovedError: a committed change has left this member out.
        """
        raft, upkeep, hellos = replica.raft, replica.upkeep, self._hellos
        forming = hellos.forming
        if is_due:
            upkeep.manage(now_ns, self._engine.log_last_index)
            replica.carry_out()
            for formed, address in upkeep.membership.take_formed():
                self.peers.send(formed, (address,))
            for asker, answer in upkeep.membership.take_answers():
                self._engine.reply_later(asker, answer)
        if forming.deadline_ns is not None:
            hellos.send(now_ns)  # a coordinator tells on until everybody has heard it
        if forming.incarnations is None:
            if raft.is_voter and raft.configuration_committed:
                forming.let_in()
                self._on_event(f"slot {self._config.node_id} has been let in: it is a member that votes")
            elif forming.abandoned:
                self._begin_again(raft)
        if raft.removed:
            self._engine.flush()
            upkeep.check_removed()
        self.settled = forming.deadline_ns is None and forming.incarnations is not None

    def _begin_again(self, raft: Raft) -> None:
        """The cluster that was to be joined is gone. With nothing of it here, a new one may form, as a new launch."""
        if raft.last_index or raft.configuration_index or self._disk is not None:
            self._hellos.forming.keep_asking(self._engine.now_ns())
            return
        self._on_event(
            "THE CLUSTER THAT THIS WAS TO JOIN IS GONE: nobody who remembers it answers; when every member has been "
            "launched anew, a new, EMPTY cluster forms"
        )
        self.replica = None
        self._engine.steady_off()
        self.settled = False
        self._begin(0)

    def request(self, request: bytes, asker: bytes) -> bytes | None:
        """An operator's request: its answer, or None when that comes later."""
        if self.replica is None:
            return NOT_FORMED
        return self.replica.upkeep.request(request, asker, self._engine.now_ns())

    def status(self) -> dict[str, Any]:
        """Who this is and how far the forming is, as JSON can say it; of a replica more: :meth:`Replica.status`."""
        return {
            "incarnation": f"{self.incarnation:016x}",
            "members": {str(slot): format_address(where) for slot, where in self._config.members.items()},
        } | self._hellos.status()
