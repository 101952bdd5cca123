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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from r2p2 import limits
from r2p2.address import format_address
from r2p2.app import StateMachine
from r2p2.engine import ROLE_FOLLOWER, ROLE_HOLD, ROLE_LEADER, ROLE_NONE, Engine, EngineConfig, RaftMessage
from r2p2.errors import UserError
from r2p2.forming import Forming
from r2p2.reads import ReadGroups
from r2p2.requests import Replies, Requests
from raft import (
    Append,
    AppendEntries,
    AppendNoop,
    Config,
    Formed,
    Forward,
    Hello,
    Identity,
    Message,
    MessageError,
    Raft,
    Reason,
    Role,
    Truncate,
    decode,
    encode,
)

__all__ = ["STATUS_REQUEST", "Node", "NodeConfig", "Timers"]

log = logging.getLogger("r2p2.node")

STATUS_REQUEST: Final = b"\x00r2p2-status"
"""An unreplicated request with this payload is answered by the node itself, with a JSON object
(:meth:`Node.status`).
"""

# R2P2 type by kind of Raft message (docs/wire.md): requests 5, replies 6, one-way messages 7.
_R2P2_TYPE: Final = {1: 5, 2: 6, 3: 5, 4: 6, 5: 5, 6: 6, 7: 7, 8: 7, 9: 7, 10: 5, 11: 6, 12: 7}
_FORWARD_HEADER_BYTES: Final = Forward.HEADER_BYTES
_COUNTS_BYTES: Final = 8
# A leader that has not been heard for so many heartbeats is probably gone: what is sent to it would be lost with it.
SILENT_HEARTBEATS: Final = 3


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
        cluster_id: tells groups apart that can reach each other.
        timers: Raft's.
        engine: bounds of the engine.
        incarnation: this launch's random number; drawn when 0.
        seed: of election timeouts; drawn when None.
        handler_budget_ns: a batch that takes the application more processor time than this is counted, and logged once.
    """

    node_id: int = 0
    members: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    cluster_id: int = 1
    timers: Timers = field(default_factory=Timers)
    engine: EngineConfig = field(default_factory=EngineConfig)
    incarnation: int = 0
    seed: int | None = None
    handler_budget_ns: int = 5 * limits.MS


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
        self.counters: dict[str, int] = {f"raft_bad_{reason.value}": 0 for reason in Reason}
        self.counters |= {
            "raft_bad_entries": 0,
            "raft_drop_forming": 0,
            "raft_drop_stranger": 0,
            "raft_drop_log_full": 0,
            "forwards_refused": 0,
            "handler_over_budget": 0,
        }
        self._on_event = on_event or log.info
        self._raft: Raft | None = None
        self._forming: Forming | None = None
        self._rid = 0
        self._role = ROLE_NONE
        self._leader_address: tuple[int, int] | None = None
        self._leader_heard_ns = 0
        self._told: tuple[Role, int, int | None] | None = None
        self._reads = ReadGroups(
            self.engine, app, heartbeat_ns=config.timers.heartbeat_ns, hold_timeout_ns=config.engine.hold_timeout_ns
        )
        self._slow_logged = False
        if config.members:
            self._join(config)

    def _join(self, config: NodeConfig) -> None:
        if config.node_id not in config.members:
            raise UserError(f"node_id {config.node_id} is not one of the members {sorted(config.members)}")
        self.incarnation = config.incarnation or secrets.randbits(64) or 1
        self._identity = Identity(config.cluster_id, config.node_id, self.incarnation)
        self._addresses: dict[int, tuple[tuple[int, int], ...]] = {
            member: (address,) for member, address in config.members.items()
        }
        self._forward_header = b""
        self._forming = Forming(config.node_id, tuple(sorted(config.members)), self.incarnation, self.engine.now_ns())
        # Until the cluster has formed, requests wait within the bounds of a follower without a leader.
        self._set_role(ROLE_HOLD)

    # ---- the loop ----

    def poll_once(self) -> int:
        """One step of everything. Returns the datagrams handled: more than 0 means that another step is likely to
        find more.

        Raises:
            SupersededError: this launch cannot be part of its cluster (:mod:`r2p2.forming`).
        """
        engine = self.engine
        now_ns, packets, requests, appended, held, raft_count, _, _, reads_gathered = engine.poll()
        raft, reads = self._raft, self._reads
        if raft is not None:
            if appended:
                raft.propose(appended, now_ns)
            if raft_count:
                self._receive(now_ns)
            if now_ns >= raft.deadline_ns:
                raft.tick(now_ns)
            if reads_gathered or reads.waiting:
                reads.ask(raft, now_ns, reads_gathered)
            while raft.has_ready():
                self._carry_out(raft)
            if held:
                self._forward(now_ns)
            if self.engine.applied_index < raft.commit_index:
                self._apply(raft)
                if self.engine.applied_index < raft.commit_index:
                    packets += 1  # not a datagram, but more to do at once
            if reads.waiting:
                reads.serve(engine.applied_index, now_ns)
        elif self._forming is not None:
            self._form(now_ns, raft_count)
        if requests:
            self._serve()
        engine.flush()
        return packets

    def next_deadline_ns(self) -> int | None:
        """When :meth:`poll_once` must be called even without datagrams; None: never."""
        if self._raft is not None:
            if self.engine.applied_index < self._raft.commit_index:
                return 0
            reads_ns = self._reads.deadline_ns if self._reads.waiting else None
            return self._raft.deadline_ns if reads_ns is None else min(self._raft.deadline_ns, reads_ns)
        return self._forming.deadline_ns if self._forming is not None else None

    @property
    def is_leader(self) -> bool:
        """Whether this member leads its group, as far as it knows."""
        return self._raft is not None and self._raft.role is Role.LEADER

    def now_ns(self) -> int:
        """The port's clock."""
        return self.engine.now_ns()

    def close(self) -> None:
        """Sends what is filled in and frees the engine. Idempotent."""
        self.engine.close()

    # ---- Raft messages in ----

    def _decode(self, raw: RaftMessage) -> tuple[Message, int] | None:
        """The gateway: a good message and its sender's incarnation, or None and a counter."""
        try:
            message, incarnation = decode(raw.prefix, raw.length, cluster_id=self.config.cluster_id)
        except MessageError as error:
            self.counters[f"raft_bad_{error.reason.value}"] += 1
            return None
        kind = message.KIND
        if raw.type != _R2P2_TYPE[kind]:
            self.counters["raft_bad_kind"] += 1
            return None
        if kind in (Append.KIND, Forward.KIND) and not self.engine.check_entries(raw.handle, message.HEADER_BYTES):
            self.counters["raft_bad_entries"] += 1
            return None
        message.request_id = raw.rid
        message.payload = raw.handle
        return message, incarnation

    def _receive(self, now_ns: int) -> None:
        raft, forming = self._raft, self._forming
        assert raft is not None and forming is not None and forming.incarnations is not None
        for raw in self.engine.raft_messages():
            decoded = self._decode(raw)
            if decoded is None:
                continue
            message, incarnation = decoded
            if isinstance(message, Hello | Formed):
                forming.receive(message, incarnation, now_ns)
                self._send_forming(forming, now_ns)
            elif forming.incarnations.get(message.sender) != incarnation or message.sender == self.config.node_id:
                self.counters["raft_drop_stranger"] += 1
            elif isinstance(message, Forward):
                self._receive_forward(raft, message, now_ns)
            elif isinstance(message, Append):
                self._leader_heard_ns = now_ns
                if self._has_room(message):
                    raft.step(message, now_ns)
                else:
                    self.counters["raft_drop_log_full"] += 1
            else:
                raft.step(message, now_ns)

    def _has_room(self, message: Append) -> bool:
        """A full log takes no entries; the leader's Append goes unanswered and comes again when the prefix has been
        dropped.
        """
        bound = self.config.engine.log_bytes_max
        return message.count == 0 or self.engine.log_bytes + message.bytes_count <= bound + bound // 4

    def _receive_forward(self, raft: Raft, message: Forward, now_ns: int) -> None:
        # The log's tail must be Raft's before entries are added to it.
        while raft.has_ready():
            self._carry_out(raft)
        handle = message.payload
        assert isinstance(handle, int)
        backlog = raft.last_index - raft.applied_index
        if (
            raft.role is Role.LEADER
            and backlog < self.config.engine.backlog_entries_max
            and self.engine.log_bytes + message.bytes_count <= self.config.engine.log_bytes_max
            and self.engine.append_message(handle, _FORWARD_HEADER_BYTES, 0, message.count)
        ):
            raft.propose(message.count, now_ns)
            return
        # One hop only: what is not ours to take is refused, never sent on.
        self.counters["forwards_refused"] += 1
        self.engine.drop_forwarded(handle, _FORWARD_HEADER_BYTES)

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
                    forming.receive(message, incarnation, now_ns)
                else:
                    self.counters["raft_drop_forming"] += 1
        self._send_forming(forming, now_ns)
        if forming.incarnations is not None:
            self._start_raft(now_ns)

    def _send_forming(self, forming: Forming, now_ns: int) -> None:
        forming.tick(now_ns)
        for message in forming.take_messages():
            self._send(message, self._addresses[message.target])

    def _start_raft(self, now_ns: int) -> None:
        config = self.config
        timers = config.timers
        self._raft = Raft(
            Config(
                node_id=config.node_id,
                members=tuple(sorted(config.members)),
                heartbeat_ns=timers.heartbeat_ns,
                election_min_ns=timers.election_min_ns,
                election_max_ns=timers.election_max_ns,
                append_bytes_max=limits.APPEND_BYTES_MAX,
            ),
            self.engine,
            rng=random.Random(config.seed if config.seed is not None else secrets.randbits(64)),
            now_ns=now_ns,
        )
        self._on_event(f"cluster formed: members {sorted(config.members)}, this is {config.node_id}")

    # ---- Raft's decisions out ----

    def _carry_out(self, raft: Raft) -> None:
        """One Ready, in the order it documents. In memory, durable means done."""
        ready = raft.ready()
        engine = self.engine
        if ready.log_ops:
            for op in ready.log_ops:
                if isinstance(op, AppendEntries):
                    handle = op.payload
                    assert isinstance(handle, int)
                    if not engine.append_message(handle, Append.HEADER_BYTES, op.skip, op.count):
                        raise UserError(
                            f"the log of member {self.config.node_id} is full at {engine.log_bytes} bytes",
                            "Give every member the same log bounds.",
                        )
                elif isinstance(op, Truncate):
                    engine.truncate_suffix(op.from_index)
                elif isinstance(op, AppendNoop):
                    engine.append_noop()
        self._send_all(ready.messages)
        self._send_all(raft.persisted(ready.number))
        if ready.reads or ready.reads_failed:
            self._reads.confirmed(ready.reads, ready.reads_failed)
        self._follow_role(raft)
        if ready.forget_index >= engine.log_first_index:
            engine.drop_prefix(ready.forget_index)

    def _follow_role(self, raft: Raft) -> None:
        """Tells the engine what to do with replicated requests, and the operator what has changed."""
        told = (raft.role, raft.term, raft.leader_id)
        if told == self._told:
            return
        self._told = told
        if raft.role is Role.LEADER:
            self._set_role(ROLE_LEADER)
            self._on_event(f"leader of term {raft.term}")
        elif raft.leader_id is not None:
            self._leader_address = self.config.members[raft.leader_id]
            forward = Forward(self.config.node_id, raft.leader_id, raft.term, 0, 0)
            self._forward_header = encode(forward, self._identity)[:-_COUNTS_BYTES]
            self._set_role(ROLE_FOLLOWER)
            self._on_event(f"follows member {raft.leader_id} in term {raft.term}")
        else:
            self._set_role(ROLE_HOLD)
            self._on_event(f"knows no leader in term {raft.term} ({raft.role.value})")

    def _set_role(self, role: int) -> None:
        self._role = role
        self.engine.set_role(role)

    def _apply(self, raft: Raft) -> None:
        """Applies committed entries, a bounded number of batches; heartbeats that fall due go out in between."""
        engine, apply, budget_ns = self.engine, self.app.apply, self.config.handler_budget_ns
        # What was filled in must not wait for the application: followers work while the leader applies, and the
        # reverse.
        engine.flush()
        used_ns = time.thread_time_ns()
        for _ in range(limits.APPLY_BATCHES_PER_POLL_MAX):
            commit_index = raft.commit_index
            if engine.applied_index >= commit_index:
                return
            requests, last_index = engine.apply_prepare(commit_index)
            replies = apply(requests) if len(requests) else []
            engine.apply_reply(replies, send=raft.role is Role.LEADER)
            raft.applied(last_index)
            # Processor time: a core shared with other processes must not be taken for a slow application.
            before_ns, used_ns = used_ns, time.thread_time_ns()
            if used_ns - before_ns > budget_ns:
                self._over_budget(len(requests), used_ns - before_ns)
            now_ns = engine.now_ns()
            if now_ns >= raft.deadline_ns:
                raft.tick(now_ns)
                while raft.has_ready():
                    self._carry_out(raft)
                engine.flush()

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
            targets = self._addresses[message.target]
            if isinstance(message, Append):
                while i < count:
                    other = messages[i]
                    if not isinstance(other, Append) or other.round != message.round:
                        break
                    targets += self._addresses[other.target]
                    i += 1
            self._send(message, targets)

    def _send(self, message: Message, targets: tuple[tuple[int, int], ...]) -> None:
        kind = message.KIND
        header = encode(message, self._identity)
        r2p2_type = _R2P2_TYPE[kind]
        if r2p2_type == 6:
            rid = message.request_id
        else:
            rid = self._rid = (self._rid + 1) & 0xFFFF
        if isinstance(message, Append) and message.count:
            first = message.prev_index + 1
            self.engine.raft_send(r2p2_type, rid, header, targets, first, message.prev_index + message.count)
        else:
            self.engine.raft_send(r2p2_type, rid, header, targets)

    # ---- unreplicated requests ----

    def _serve(self) -> None:
        requests = self.engine.requests()
        if self._forming is None:
            if STATUS_REQUEST not in requests.slab:
                self.engine.reply(self.app.apply(requests))
                return
            answer: Callable[[bytes], Any] = self._apply_one
        else:
            answer = self.app.query
        self.engine.reply([self._status_reply() if r == STATUS_REQUEST else answer(r) for r in requests])

    def _apply_one(self, request: bytes) -> bytes:
        replies = self.app.apply(Requests.of([request], 1))
        return replies.slab if isinstance(replies, Replies) else Replies.pack(replies).slab

    def _status_reply(self) -> bytes:
        return json.dumps(self.status()).encode()

    def status(self) -> dict[str, Any]:
        """What this node knows of itself: role, indices, digests, counters. Everything JSON can say."""
        engine = self.engine
        status: dict[str, Any] = {
            "node_id": self.config.node_id,
            "replicated": self._forming is not None,
            "log_first_index": engine.log_first_index,
            "log_last_index": engine.log_last_index,
            "log_bytes": engine.log_bytes,
            "applied_index": engine.applied_index,
            "applied_digest": f"{engine.applied_digest:016x}",
            "state_digest": self.app.state_digest(),
            "counters": {
                name: n for name, n in (engine.counters() | self.counters | self._reads.counters).items() if n
            },
        }
        if self._forming is not None:
            status["incarnation"] = f"{self.incarnation:016x}"
            status["members"] = {str(m): format_address(a) for m, a in self.config.members.items()}
            status["formed"] = self._forming.incarnations is not None
            status["waiting_for"] = list(self._forming.waiting_for)
        if self._raft is not None:
            raft = self._raft
            status |= {
                "role": raft.role.value,
                "term": raft.term,
                "leader": raft.leader_id,
                "commit_index": raft.commit_index,
                "global_commit": raft.global_commit,
            }
        return status
