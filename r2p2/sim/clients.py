"""Simulated clients: operations in sessions, retried until they are answered; requests without one; reads.

A client asks any member, more often the one that answered last. A follower passes a change on to its leader, once. What
is not answered is asked again, of somebody else perhaps, with the same sequence number and growing patience. A client
whose session was evicted does not know what became of its operations, and opens a new one.

Left to others: executing (machine.py), judging (histories.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from r2p2.sim import histories
from r2p2.sim.histories import Call
from r2p2.sim.machine import EXPIRED, OPEN, READ, SWAP, Reply, Request
from r2p2.sim.node import SimNode
from r2p2.sim.options import MS
from raft import NotLeader, Role, slot_of

if TYPE_CHECKING:
    from r2p2.sim.world import Slot, World

PATIENCE_NS: Final = 30 * MS
DOUBLINGS_MAX: Final = 4
REQUEST_BYTES: Final = 48
REUSE: Final = 0.7  # of attempts go to the member that answered last


class _Pending:
    """An operation on its way; ``call`` None: opening a session."""

    __slots__ = ("attempts", "call", "key", "kind", "sequence", "value")

    def __init__(self, call: Call | None, kind: int, sequence: int, key: int, value: int) -> None:
        self.call = call
        self.kind = kind
        self.sequence = sequence
        self.key = key
        self.value = value
        self.attempts = 0


class _Client:
    __slots__ = ("favourite", "number", "pending", "sequence", "session")

    def __init__(self, number: int) -> None:
        self.number = number
        self.session = 0
        self.sequence = 0
        self.favourite = 0
        self.pending: dict[int, _Pending] = {}

    def oldest_pending(self) -> int:
        """Replies to what came before this sequence are needed no more."""
        return min((p.sequence for p in self.pending.values() if p.kind == SWAP), default=self.sequence + 1)


class Clients:
    """All of them."""

    def __init__(self, world: World) -> None:
        """Nobody has asked for anything."""
        self._world = world
        self._clients = [_Client(number) for number in range(world.options.clients_count)]
        self._number = 0  # of calls
        self._value = 0
        self.calls: list[Call] = []
        self.answered_since = 0  # new_answers counts operations that began after this time
        self.new_answers = 0
        # By (member, life): reads that a leader confirms; reads that wait for their index to be applied.
        self._tickets: dict[tuple[int, int, int], Request] = {}
        self._waiting: dict[tuple[int, int], list[tuple[int, Request]]] = {}

    def begin(self) -> None:
        """From now on they ask."""
        world, options = self._world, self._world.options
        for client in self._clients:
            world.after(world.gap(options.client_mean_ns), self._think, client)
        world.after(world.gap(options.request_mean_ns), self._feed)
        world.after(world.gap(options.read_mean_ns), self._look)

    def judge(self) -> None:
        """Whether what everybody saw, and what is there at the end, can have been one register a key."""
        world = self._world
        calls = list(self.calls)
        for slot in world.slots:
            if slot.node is not None:
                for key, (version, value) in slot.node.machine.registers.items():
                    last = Call(-1, READ, key, value, 0)
                    last.version, last.returned = version, world.now + 1
                    calls.append(last)
        histories.check(calls)

    # -- asking -------------------------------------------------------------------------------------------------------

    def _think(self, client: _Client) -> None:
        """The next operation, when there is room for one."""
        world, options = self._world, self._world.options
        world.after(world.gap(options.client_mean_ns), self._think, client)
        if len(client.pending) >= options.pending_max:
            return
        key = int(world.rng.random() * options.registers_count)
        if world.rng.random() < 0.4:
            call = Call(client.number, READ, key, 0, world.now)
            self._begin(client, _Pending(call, READ, 0, key, 0))
        elif client.session == 0:
            if not any(pending.kind == OPEN for pending in client.pending.values()):
                self._begin(client, _Pending(None, OPEN, 0, 0, 0))
        else:
            client.sequence += 1
            self._value += 1
            call = Call(client.number, SWAP, key, self._value, world.now)
            self._begin(client, _Pending(call, SWAP, client.sequence, key, self._value))

    def _begin(self, client: _Client, pending: _Pending) -> None:
        self._number += 1
        client.pending[self._number] = pending
        if pending.call is not None:
            self.calls.append(pending.call)
            self._world.counts["calls"] += 1
        self._attempt(client, self._number)

    def _attempt(self, client: _Client, number: int) -> None:
        """Sends it, and looks again when patience is over."""
        pending = client.pending.get(number)
        if pending is None:
            return
        world, rng = self._world, self._world.rng
        if pending.attempts:
            world.counts["retries"] += 1
        target = client.favourite
        if pending.attempts or rng.random() > REUSE:
            target = int(rng.random() * len(world.slots))
        session = 0 if pending.kind == OPEN else client.session
        oldest = client.oldest_pending()
        request = Request(
            client.number, number, pending.kind, session, pending.sequence, oldest, pending.key, pending.value
        )
        for _ in range(world.copies()):
            delay_ns = world.delay()
            if delay_ns >= 0:
                world.after(delay_ns, self._arrive, world.slots[target], request, -1)
        patience_ns = PATIENCE_NS << min(pending.attempts, DOUBLINGS_MAX)
        pending.attempts += 1
        world.after(patience_ns + world.gap(PATIENCE_NS), self._attempt, client, number)

    def _arrive(self, slot: Slot, request: Request, via: int) -> None:
        """At a member; ``via``: the slot that passed it on, -1: straight from the client."""
        world = self._world
        if via >= 0 and (via, slot_of(slot.member)) in world.blocked:
            return
        node = world.awake(slot)
        if node is None:
            return
        raft = node.raft
        if request.kind == READ:
            self._read(slot, node, request)
        elif raft.role is Role.LEADER:
            if raft.last_index - raft.commit_index <= world.options.backlog_max + 2 * world.options.batch_max:
                node.propose([request], world.clock(slot), bytes_count=REQUEST_BYTES)
                world.touched(slot)
        elif raft.leader_id is not None and via < 0:  # one hop: what was passed on is not passed on again
            delay_ns = world.delay()
            if delay_ns >= 0:
                world.counts["forwards"] += 1
                leader = world.slots[slot_of(raft.leader_id)]
                world.after(delay_ns, self._arrive, leader, request, slot_of(slot.member))

    def _read(self, slot: Slot, node: SimNode, request: Request) -> None:
        try:
            ticket = node.raft.read_index(self._world.clock(slot))
        except NotLeader:
            return
        self._world.checkers.read_asked(slot.member, slot.life, ticket)
        self._tickets[slot.member, slot.life, ticket] = request
        self._world.touched(slot)

    # -- answers ------------------------------------------------------------------------------------------------------

    def read_confirmed(self, slot: Slot, ticket: int, index: int) -> None:
        """A read may be answered once ``index`` is applied there."""
        request = self._tickets.pop((slot.member, slot.life, ticket), None)
        if request is not None:
            self._waiting.setdefault((slot.member, slot.life), []).append((index, request))

    def applied(self, slot: Slot, node: SimNode) -> None:
        """A member has done some work: what it owes to clients leaves."""
        if node.answers:
            answers, node.answers = node.answers, []
            for request, reply in answers:
                self._answer(slot, request, reply)
        if self._waiting:
            waiting = self._waiting.get((slot.member, slot.life))
            if waiting:
                applied_index = node.raft.applied_index
                for index, request in waiting:
                    if index <= applied_index:
                        self._answer(slot, request, node.machine.read(request.key))
                waiting[:] = [pair for pair in waiting if pair[0] > applied_index]

    def _answer(self, slot: Slot, request: Request, reply: Reply) -> None:
        world = self._world
        for _ in range(world.copies()):
            delay_ns = world.delay()
            if delay_ns >= 0:
                world.after(delay_ns, self._hear, slot, request, reply)

    def _hear(self, slot: Slot, request: Request, reply: Reply) -> None:
        world, client = self._world, self._clients[request.client]
        pending = client.pending.pop(request.call, None)
        if pending is None:
            return  # answered before, or given up
        world.counts["answers"] += 1
        client.favourite = slot_of(slot.member)
        call = pending.call
        world.note("answer", member=slot.member, to=repr(request), reply=reply)
        if call is None:
            client.session = reply.version
            client.sequence = 0
        elif reply.status == EXPIRED:
            world.counts["expired"] += 1
            client.session = 0
            client.pending = {number: p for number, p in client.pending.items() if p.kind != SWAP}
        else:
            call.returned = world.now
            call.version = reply.version
            if pending.kind == READ:
                call.value = reply.value
            else:
                call.before = reply.value
            if call.invoked >= self.answered_since:
                self.new_answers += 1

    # -- requests without a session, and reads of nobody's -------------------------------------------------------------

    def _feed(self) -> None:
        """A batch, to whoever thinks it leads; to a random member when several or none do."""
        world, options = self._world, self._world.options
        world.after(world.gap(options.request_mean_ns), self._feed)
        slot = world.rng.choice(world.leaders() or world.slots)
        node = world.awake(slot)
        backlog_max = options.backlog_max if world.faulty else min(options.backlog_max, options.batch_max)
        if node is None or node.raft.last_index - node.raft.commit_index > backlog_max:
            return
        self._value += 1
        count = 1 + int(world.rng.random() * options.batch_max)
        values = [-(self._value << 8) - at for at in range(count)]
        try:
            first = node.propose(values, world.clock(slot), bytes_count=16 + 8 * int(world.rng.random() * 10))
        except NotLeader:
            return
        world.counts["proposals"] += count
        world.note("propose", member=slot.member, first=first, count=count)
        world.touched(slot)

    def _look(self) -> None:
        """A linearizable read that only the checkers look at, at any member."""
        world = self._world
        world.after(world.gap(world.options.read_mean_ns), self._look)
        slot = world.rng.choice(world.slots)
        node = world.awake(slot)
        if node is None:
            return
        try:
            ticket = node.raft.read_index(world.clock(slot))
        except NotLeader:
            return
        world.checkers.read_asked(slot.member, slot.life, ticket)
        world.touched(slot)
