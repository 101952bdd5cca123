"""A cluster, its network, its clients and its bad luck on one virtual clock, all from one seed.

Everything that happens is an event in a heap; chance comes from generators seeded with the run's seed, so a seed is a
run. First the safety phase, with every fault the seed's options allow; then the liveness phase: a random majority is
healed for good (everybody, half of the time) and has to elect a leader and commit.

Left to others: what is right (checkers.py), the command line (command.py).
"""

from __future__ import annotations

import heapq
import json
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from r2p2.sim.checkers import Checkers, Violation
from r2p2.sim.node import Disk, SimNode
from raft import Append, Config, Identity, Message, MessageError, NotLeader, Role, decode, encode

MS = 1_000_000
CLUSTER_ID = 0x5EED
TRACE_EVENTS = 200


@dataclass(frozen=True)
class Options:
    """What a seed draws. Probabilities per message or per client request, times in nanoseconds of the world's clock."""

    members_count: int = 3
    loss: float = 0.0
    duplicate: float = 0.0
    straggler: float = 0.0  # delayed by a multiple of the usual: overtaken by what was sent later
    delay_min_ns: int = 50_000
    delay_max_ns: int = 500_000
    straggler_max_ns: int = 80 * MS
    sync_max_ns: int = 0  # 0: durable at once
    fault_mean_ns: int = 150 * MS  # between faults; 0: none
    partitions: bool = True
    crashes: bool = True
    pauses: bool = True
    clock_drift: float = 0.0  # each member's clock runs up to this much faster or slower
    request_mean_ns: int = 3 * MS
    read_mean_ns: int = 10 * MS
    transfers: bool = True
    batch_max: int = 4
    backlog_max: int = 100  # entries of a leader not yet committed, over which clients hold back
    inflight_max: int = 64
    append_bytes_max: int = 256 << 10
    pre_vote: bool = True
    check_quorum: bool = True

    @staticmethod
    def draw(rng: random.Random) -> Options:
        """Somewhere between a good day and a very bad one."""
        bad = rng.random()
        return Options(
            members_count=rng.choice((1, 2, 3, 3, 3, 3, 4, 5, 5)),
            loss=rng.choice((0.0, 0.01, 0.1, 0.3)) * bad,
            duplicate=rng.choice((0.0, 0.05, 0.3)) * bad,
            straggler=rng.choice((0.0, 0.05, 0.3)) * bad,
            delay_max_ns=rng.choice((100_000, 500_000, 5 * MS)),
            straggler_max_ns=rng.choice((20 * MS, 80 * MS, 400 * MS)),
            sync_max_ns=rng.choice((0, 1 * MS, 20 * MS)),
            fault_mean_ns=rng.choice((0, 60 * MS, 150 * MS, 400 * MS)),
            partitions=rng.random() < 0.8,
            crashes=rng.random() < 0.8,
            pauses=rng.random() < 0.5,
            clock_drift=rng.choice((0.0, 0.0, 0.05, 0.2)),
            request_mean_ns=rng.choice((1 * MS, 3 * MS, 20 * MS)),
            read_mean_ns=rng.choice((1 * MS, 10 * MS)),
            transfers=rng.random() < 0.5,
            backlog_max=rng.choice((10, 100, 1_000)),
            batch_max=rng.choice((1, 4, 40)),
            inflight_max=rng.choice((1, 2, 64)),
            append_bytes_max=rng.choice((64, 300, 256 << 10)),
            pre_vote=rng.random() < 0.9,
            check_quorum=rng.random() < 0.9,
        )


class World:
    """One run. ``run(events)`` goes through both phases and raises Violation, with the seed in it."""

    def __init__(self, seed: int, options: Options | None = None) -> None:
        """Nothing has happened yet."""
        self.seed = seed
        self.rng = random.Random(seed)
        self.options = options or Options.draw(self.rng)
        self.members = tuple(range(self.options.members_count))
        self.now = 0
        self.events_count = 0
        self.trace: deque[dict[str, object]] = deque(maxlen=TRACE_EVENTS)
        self.counts = dict.fromkeys(
            ("delivered", "lost", "crashes", "partitions", "pauses", "transfers", "proposals", "reads"), 0
        )
        self.faults = True
        self._heap: list[tuple[int, int, Callable[..., None], tuple[object, ...]]] = []
        self._sequence = 0
        self._lives = [0] * len(self.members)  # counts processes, so that old events find their process gone
        self._blocked: set[tuple[int, int]] = set()
        self._paused_until = [0] * len(self.members)
        self._tick_at: list[int | None] = [None] * len(self.members)
        self._sync_at = [False] * len(self.members)
        self._disks = [Disk() for _ in self.members]
        self._value = 0
        drift = self.options.clock_drift
        self._rate = [1 + self.rng.uniform(-drift, drift) for _ in self.members]
        self._offset = [self.rng.randrange(10**12) for _ in self.members]
        self.nodes: list[SimNode | None] = [None] * len(self.members)
        self.checkers = Checkers(self.members, lambda i: self._disks[i])
        for i in self.members:
            self._start(i)
        self._after(self._request_gap(), self._client)
        self._after(self._gap(self.options.read_mean_ns), self._reader)
        if self.options.fault_mean_ns:
            self._after(self._gap(self.options.fault_mean_ns), self._fault)

    # -- running ------------------------------------------------------------------------------------------------------

    def run(self, events: int = 2_000) -> None:
        """``events`` of the safety phase, then as many as liveness takes (bounded by virtual time)."""
        try:
            while self.events_count < events:
                self._next()
            self._heal()
            self._until_live()
        except (Violation, AssertionError, ValueError, LookupError, RuntimeError, MessageError) as error:
            checker = error.checker if isinstance(error, Violation) else type(error).__name__
            place = f"seed {self.seed}, event {self.events_count}, {self.now / MS:.3f} ms"
            raise Violation(
                checker,
                f"{error}\n  at {place}\n  {self.options}\n"
                f"  replay: r2p2 sim --seeds {self.seed}:{self.seed + 1} --events {events} --trace FILE",
            ) from error

    def write_trace(self, path: str) -> None:
        """The last events as NDJSON: one object a line; t_ns, event, and what belongs to it."""
        with open(path, "w") as file:
            for line in self.trace:
                file.write(json.dumps(line, default=repr) + "\n")

    def _next(self) -> None:
        self.now, _, action, arguments = heapq.heappop(self._heap)
        self.events_count += 1
        action(*arguments)

    def _after(self, delay_ns: int, action: Callable[..., None], *arguments: object) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (self.now + delay_ns, self._sequence, action, arguments))

    def _gap(self, mean_ns: int) -> int:
        return int(self.rng.expovariate(1 / mean_ns)) + 1

    def _request_gap(self) -> int:
        return self._gap(self.options.request_mean_ns)

    def _note(self, event: str, **more: object) -> None:
        self.trace.append({"t_ns": self.now, "event": event, **more})

    # -- members ------------------------------------------------------------------------------------------------------

    def _clock(self, i: int) -> int:
        return self._offset[i] + int(self.now * self._rate[i])

    def _start(self, i: int) -> None:
        self._lives[i] += 1
        self._tick_at[i] = None
        self._sync_at[i] = False
        config = Config(
            i,
            self.members,
            inflight_max=self.options.inflight_max,
            append_bytes_max=self.options.append_bytes_max,
            pre_vote=self.options.pre_vote,
            check_quorum=self.options.check_quorum,
        )
        rng = random.Random(self.seed << 20 | i << 10 | self._lives[i] & 1023)
        at_once = not self.options.sync_max_ns
        node = SimNode(config, rng=rng, now_ns=self._clock(i), disk=self._disks[i], sync_at_once=at_once)
        self.nodes[i] = node
        self._note("start", member=i, term=node.raft.term, last=node.raft.last_index)
        self.checkers.started(i, node)
        self._touched(i, node)

    def _touched(self, i: int, node: SimNode) -> None:
        """Work to do, messages to send, timers to set, checkers to ask."""
        role, term = node.raft.role, node.raft.term
        sent = node.work()
        if (node.raft.role, node.raft.term) != (role, term):
            self._note("role", member=i, role=node.raft.role.value, term=node.raft.term)
        self._send_all(i, node, sent)
        if node.writes and not self._sync_at[i]:
            self._sync_at[i] = True
            self._after(self.rng.randrange(self.options.sync_max_ns) + 1, self._sync, i, self._lives[i])
        self._set_timer(i, node)

    def _send_all(self, i: int, node: SimNode, sent: list[Message]) -> None:
        self.checkers.after(i, node, sent)
        for ready in node.readies:
            for ticket, index in ready.reads:
                self.counts["reads"] += 1
                self.checkers.read_confirmed(i, self._lives[i], ticket, index)
        node.readies.clear()
        for message in sent:
            self._send(message)

    def _set_timer(self, i: int, node: SimNode) -> None:
        due = int((node.raft.deadline_ns - self._offset[i]) / self._rate[i]) + 1
        pending = self._tick_at[i]
        if pending is None or due < pending:
            self._tick_at[i] = due
            self._after(max(0, due - self.now), self._tick, i, self._lives[i], due)

    def _tick(self, i: int, life: int, due: int) -> None:
        node = self._living(i, life, self._tick, i, life, due)
        if node is None or self._tick_at[i] != due:
            return
        self._tick_at[i] = None
        before = node.raft.role
        node.raft.tick(self._clock(i))
        if node.raft.role is not before:
            self._note("role", member=i, role=node.raft.role.value, term=node.raft.term)
        self._touched(i, node)

    def _sync(self, i: int, life: int) -> None:
        """Some of the writes under way get durable, in order."""
        node = self._living(i, life, self._sync, i, life)
        if node is None:
            return
        self._sync_at[i] = False
        sent = node.sync(self.rng.randint(1, len(node.writes)))
        self._send_all(i, node, sent)
        self._touched(i, node)

    def _living(self, i: int, life: int, action: Callable[..., None], *arguments: object) -> SimNode | None:
        """The process, unless it is gone; while it is paused its events wait."""
        if self._lives[i] != life:
            return None
        if self._paused_until[i] > self.now:
            self._after(self._paused_until[i] - self.now, action, *arguments)
            return None
        return self.nodes[i]

    # -- the network --------------------------------------------------------------------------------------------------

    def _send(self, message: Message) -> None:
        rng, options = self.rng, self.options
        entries_bytes = message.bytes_count if isinstance(message, Append) else 0
        data = encode(message, Identity(CLUSTER_ID, message.sender, 1))
        copies = 1
        if self.faults and options.duplicate and rng.random() < options.duplicate:
            copies += rng.randint(1, 3)
        for _ in range(copies):
            if self.faults and options.loss and rng.random() < options.loss:
                self.counts["lost"] += 1
                continue
            delay_ns = rng.randint(options.delay_min_ns, options.delay_max_ns)
            if self.faults and options.straggler and rng.random() < options.straggler:
                delay_ns += rng.randrange(options.straggler_max_ns)
            arguments = (message.sender, message.target, data, len(data) + entries_bytes, message.payload)
            self._after(delay_ns, self._deliver, *arguments)

    def _deliver(self, sender: int, target: int, data: bytes, total_bytes: int, payload: object) -> None:
        if (sender, target) in self._blocked:
            self.counts["lost"] += 1
            return
        node = self._living(target, self._lives[target], self._deliver, sender, target, data, total_bytes, payload)
        if node is None:
            return
        message = replace(decode(data, total_bytes, cluster_id=CLUSTER_ID)[0], target=target, payload=payload)
        self.counts["delivered"] += 1
        self._note("deliver", kind=type(message).__name__, message=message)
        node.raft.step(message, self._clock(target))
        self._touched(target, node)

    # -- clients ------------------------------------------------------------------------------------------------------

    def _client(self) -> None:
        """A batch of new values, to whoever thinks it leads; to a random member when several or none do."""
        self._after(self._request_gap(), self._client)
        leaders = [i for i in self.members if (node := self.nodes[i]) and node.raft.role is Role.LEADER]
        i = self.rng.choice(leaders or list(self.members))
        node = self.nodes[i]
        if node is None or self._paused_until[i] > self.now:
            return
        if node.raft.last_index - node.raft.commit_index > self.options.backlog_max:
            return
        values = range(self._value, self._value + self.rng.randint(1, self.options.batch_max))
        self._value = values.stop
        try:
            first = node.propose(values, self._clock(i), bytes_count=16 + 8 * self.rng.randrange(10))
        except NotLeader:
            return
        self.counts["proposals"] += len(values)
        self._note("propose", member=i, first=first, count=len(values))
        self._touched(i, node)

    def _reader(self) -> None:
        """A linearizable read, at any member."""
        self._after(self._gap(self.options.read_mean_ns), self._reader)
        i = self.rng.choice(self.members)
        node = self.nodes[i]
        if node is None or self._paused_until[i] > self.now:
            return
        try:
            ticket = node.raft.read_index(self._clock(i))
        except NotLeader:
            return
        self.checkers.read_asked(i, self._lives[i], ticket)
        self._touched(i, node)

    # -- faults -------------------------------------------------------------------------------------------------------

    def _fault(self) -> None:
        if not self.faults:
            return
        self._after(self._gap(self.options.fault_mean_ns), self._fault)
        kinds = [self._heal_network]
        if self.options.partitions and len(self.members) > 1:
            kinds += [self._partition, self._partition]
        if self.options.crashes:
            kinds += [self._crash, self._crash]
        if self.options.pauses:
            kinds += [self._pause]
        if self.options.transfers and len(self.members) > 1:
            kinds += [self._transfer]
        self.rng.choice(kinds)()

    def _heal_network(self) -> None:
        self._blocked.clear()
        self._note("heal")

    def _partition(self) -> None:
        """A member alone, two sides, a link, one direction of it, a member that only sends, or only hears."""
        rng, members = self.rng, self.members
        one = self._favourite()
        others = [i for i in members if i != one]
        side = set(rng.sample(members, rng.randint(1, len(members) - 1)))
        other = rng.choice(others)
        shapes: tuple[set[tuple[int, int]], ...] = (
            {(one, i) for i in others} | {(i, one) for i in others},
            {(a, b) for a in members for b in members if (a in side) != (b in side)},
            {(one, other), (other, one)},
            {(one, other)},
            {(i, one) for i in others},
            {(one, i) for i in others},
        )
        if rng.random() < 0.7:
            self._blocked.clear()
        self._blocked |= rng.choice(shapes)
        self.counts["partitions"] += 1
        self._note("partition", blocked=sorted(self._blocked))

    def _favourite(self) -> int:
        """The leader, more often than chance has it: that is where it hurts."""
        leaders = [i for i in self.members if (node := self.nodes[i]) and node.raft.role is Role.LEADER]
        return self.rng.choice(leaders if leaders and self.rng.random() < 0.5 else self.members)

    def _crash(self) -> None:
        """kill -9 and, later, a restart; of the writes under way a part may be durable."""
        how_many = 1 if self.rng.random() < 0.8 else self.rng.randint(1, len(self.members))
        victims = {self._favourite()} | set(self.rng.sample(self.members, how_many - 1))
        for i in sorted(victims):
            node = self.nodes[i]
            if node is None:
                continue
            kept = self.rng.randint(0, len(node.writes))
            node.crash(writes_kept=kept, torn_ops=self.rng.choice((0, 0, 1)))
            self.nodes[i] = None
            self._lives[i] += 1
            self._paused_until[i] = 0
            self.counts["crashes"] += 1
            self._note("crash", member=i, writes_kept=kept)
            self._after(self._gap(50 * MS), self._restart, i)

    def _restart(self, i: int) -> None:
        if self.nodes[i] is None:
            self._start(i)

    def _pause(self) -> None:
        i = self._favourite()
        if self.nodes[i] is not None:
            self._paused_until[i] = self.now + self._gap(150 * MS)
            self.counts["pauses"] += 1
            self._note("pause", member=i, until_ns=self._paused_until[i])

    def _transfer(self) -> None:
        for i in self.members:
            node = self.nodes[i]
            if node is not None and node.raft.role is Role.LEADER and self._paused_until[i] <= self.now:
                target = self.rng.choice([other for other in self.members if other != i])
                node.raft.transfer(target, self._clock(i))
                self.counts["transfers"] += 1
                self._note("transfer", member=i, target=target)
                self._touched(i, node)

    # -- liveness -----------------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        """A majority is well from now on; the rest, if any, is gone."""
        self.faults = False
        self._blocked.clear()
        count = len(self.members)
        survivors = self.rng.choice((count, count // 2 + 1))
        self.healthy = sorted(self.rng.sample(self.members, survivors))
        for i in self.members:
            self._paused_until[i] = 0
            if i not in self.healthy:
                self.nodes[i] = None
                self._lives[i] += 1
            elif self.nodes[i] is None:
                self._start(i)
        self._note("liveness", healthy=self.healthy)

    def _restart_forbidden(self, i: int) -> bool:
        return not self.faults and i not in self.healthy

    def _until_live(self) -> None:
        """One leader commits in its own term, further than before, and every healthy member applies it, in seconds."""
        options = self.options
        slowest_ns = 10 * MS + options.sync_max_ns + 4 * options.delay_max_ns  # an Append of one entry, and its answer
        backlog_ns = slowest_ns * (options.backlog_max + options.batch_max) if options.append_bytes_max < 1_000 else 0
        deadline = self.now + 5_000 * MS + 4 * options.straggler_max_ns + backlog_ns
        before = self.checkers.committed_last
        goal = 0
        while self.now < deadline:
            self._next()
            for i in self.members:
                if self.nodes[i] is not None and self._restart_forbidden(i):
                    self.nodes[i] = None  # a restart that was already under way
                    self._lives[i] += 1
            nodes = [node for i in self.healthy if (node := self.nodes[i]) is not None]
            if not goal:
                leaders = [node for node in nodes if node.raft.role is Role.LEADER]
                if len(leaders) == 1:
                    commit = leaders[0].raft.commit_index
                    in_its_term = commit > before and leaders[0].log.entry(commit)[0] == leaders[0].raft.term
                    goal = commit if in_its_term else 0
            elif len(nodes) == len(self.healthy) and all(node.raft.applied_index >= goal for node in nodes):
                if len({(node.digests.get(goal)) for node in nodes if goal in node.digests}) > 1:
                    raise Violation("state machine safety", f"digests differ at {goal}")
                return
        statuses = [node.raft.status() if node else None for node in self.nodes]
        raise Violation("liveness", f"healthy {self.healthy}, goal {goal}, after {deadline / MS:.0f} ms: {statuses}")


def run_seed(seed: int, events: int = 2_000, options: Options | None = None) -> World:
    """Runs one seed; the world afterwards, for its counts. Raises Violation."""
    world = World(seed, options)
    world.run(events)
    return world


__all__ = ["Options", "Violation", "World", "run_seed"]
