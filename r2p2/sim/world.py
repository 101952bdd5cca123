"""A cluster, its network, its clients and its bad luck on one virtual clock, all from one seed.

Everything that happens is an event in a heap; chance comes from generators seeded with the run's seed, so a seed is a
run. First the safety phase, with every fault the seed's options allow; then the liveness phase: a random majority is
healed for good (everybody, half of the time) and has to elect a leader, commit, and answer its clients. At last the
clients' histories are judged.

A slot is a place for processes; a process that restarts with its disk is the same member, one that lost its disk comes
back as another incarnation, which is no member until it is made one.

Left to others: what goes wrong (faults.py), clients (clients.py), changes of members and snapshots (operators.py),
what is right (checkers.py, histories.py), the command line (command.py).
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

from r2p2.sim import histories
from r2p2.sim.checkers import Checkers, Violation
from r2p2.sim.clients import Clients
from r2p2.sim.faults import Faults
from r2p2.sim.machine import Machine
from r2p2.sim.node import Disk, SimNode
from r2p2.sim.operators import Operators
from r2p2.sim.options import MS, Options, draw
from r2p2.sim.steady import SteadyNode
from r2p2.sim.trace import Trace
from raft import (
    Append,
    Config,
    Configuration,
    Identity,
    InstallSnapshot,
    Message,
    MessageError,
    Role,
    decode,
    decode_configuration,
    encode,
    encode_configuration,
    incarnation_of,
    slot_of,
)

CLUSTER_ID = 0x5EED
COUNTS = (
    "delivered",
    "lost",
    "crashes",
    "disk_losses",
    "partitions",
    "clogs",
    "pauses",
    "slow",
    "transfers",
    "proposals",
    "reads",
    "forwards",
    "calls",
    "answers",
    "retries",
    "expired",
    "changes",
    "snapshots",
    "restores",
)


class Slot:
    """A place where one process runs at a time."""

    __slots__ = (
        "busy_until",
        "disk",
        "doomed",
        "joining",
        "life",
        "member",
        "node",
        "offset",
        "paused_until",
        "rate",
        "slow_ns",
        "sync_at",
        "tick_at",
    )

    def __init__(self, member: int, rate: float, offset: int, disk: Disk, joining: bool) -> None:
        self.member = member
        self.joining = joining  # it was none of those the cluster began with
        self.rate = rate  # its clock's seconds a second
        self.offset = offset
        self.disk = disk
        self.node: SimNode | None = None
        self.life = 0  # counts processes, so that old events find their process gone
        self.paused_until = 0
        self.slow_ns = 0  # what each of its messages takes it
        self.busy_until = 0
        self.tick_at = -1
        self.sync_at = False
        self.doomed = False  # its next work will be its last, and only a part of it gets done


class World:
    """One run. ``run(events)`` goes through both phases and raises Violation, with the seed in it."""

    def __init__(self, seed: int, options: Options | None = None) -> None:
        """Nothing has happened yet."""
        self.seed = seed
        self.rng = random.Random(seed)
        self.options = options or draw(self.rng)
        options = self.options
        self.first_members = tuple(range(options.members_count))
        self.now = 0
        self.events_count = 0
        self.trace = Trace()
        self.counts = dict.fromkeys(COUNTS, 0)
        self.faulty = True  # the safety phase
        self._heap: list[tuple[int, int, Callable[..., None], tuple[object, ...]]] = []
        self._sequence = 0
        self.blocked: set[tuple[int, int]] = set()  # (sender, target) slots: nothing gets through
        self.clogged: dict[tuple[int, int], int] = {}  # nothing gets through before that time, then all of it
        drift = options.clock_drift
        self._disks: dict[int, Disk] = {}  # by member, those that are gone for ever, too
        self.slots: list[Slot] = []
        for slot in range(options.members_count + options.spares_count):
            rate, offset = 1 + self.rng.uniform(-drift, drift), self.rng.randrange(10**12)
            disk = self._disks[slot] = self.new_disk()
            self.slots.append(Slot(slot, rate, offset, disk, slot >= options.members_count))
        self.checkers = Checkers(self.first_members, self._disks.__getitem__)
        self.clients = Clients(self)
        self.operators = Operators(self)
        self.faults = Faults(self)
        for slot in range(options.members_count):
            self.start(slot)
        self.clients.begin()
        self.operators.begin()
        self.faults.begin()

    # -- running ------------------------------------------------------------------------------------------------------

    def run(self, events: int = 2_000) -> None:
        """``events`` of the safety phase, then as many as liveness takes (bounded by virtual time)."""
        try:
            while self.events_count < events:
                self.step()
            self.faults.heal()
            self._until_live()
            self.clients.judge()
        except (Violation, AssertionError, ValueError, LookupError, RuntimeError, MessageError) as error:
            checker = error.checker if isinstance(error, Violation) else type(error).__name__
            self.note("FAILED", checker=checker, what=str(error).removeprefix(checker + ": "))
            place = f"seed {self.seed}, event {self.events_count}, {self.now / MS:.3f} ms"
            raise Violation(
                checker,
                f"{str(error).removeprefix(checker + ': ')}\n  at {place}\n  {self.options}\n"
                f"  replay: r2p2 sim --seeds {self.seed}:{self.seed + 1} --events {events} --trace FILE",
            ) from error

    def step(self) -> None:
        """The next event."""
        self.now, _, action, arguments = heapq.heappop(self._heap)
        self.events_count += 1
        action(*arguments)

    def after(self, delay_ns: int, action: Callable[..., None], *arguments: object) -> None:
        """``action(*arguments)`` is an event, that much later."""
        self._sequence += 1
        heapq.heappush(self._heap, (self.now + delay_ns, self._sequence, action, arguments))

    def gap(self, mean_ns: int) -> int:
        """A random time until something that happens so often on average."""
        return int(self.rng.expovariate(1 / mean_ns)) + 1

    def note(self, event: str, **more: object) -> None:
        """For the trace."""
        self.trace.note(self.now, event, more)

    # -- members ------------------------------------------------------------------------------------------------------

    def new_disk(self) -> Disk:
        """An empty one."""
        return Disk(base_machine=Machine(self.options.sessions_max))

    def clock(self, slot: Slot) -> int:
        """What the time is there."""
        return slot.offset + int(self.now * slot.rate)

    def awake(self, slot: Slot) -> SimNode | None:
        """Its process, when there is one and it is not paused."""
        return slot.node if slot.paused_until <= self.now else None

    def leaders(self) -> list[Slot]:
        """Whoever thinks so."""
        return [slot for slot in self.slots if slot.node is not None and slot.node.raft.role is Role.LEADER]

    def start(self, number: int) -> None:
        """A process for that slot, with the disk that is there."""
        slot, options = self.slots[number], self.options
        slot.life += 1
        slot.tick_at = -1
        slot.sync_at = slot.doomed = False
        config = Config(
            slot.member,
            self.first_members,
            inflight_max=options.inflight_max,
            append_bytes_max=options.append_bytes_max,
            pre_vote=options.pre_vote,
            check_quorum=options.check_quorum,
            joining=slot.joining,
            commit_delay_ns=options.commit_delay_ns,
        )
        rng = random.Random(self.seed << 20 | number << 10 | slot.life & 1023)
        at_once = not options.sync_max_ns
        kind = SteadyNode if at_once and options.steady else SimNode
        node = kind(config, rng=rng, now_ns=self.clock(slot), disk=slot.disk, sync_at_once=at_once)
        slot.node = node
        self.note("start", member=slot.member, term=node.raft.term, last=node.raft.last_index)
        self.checkers.started(slot.member, node)
        self.touched(slot)

    def replace_disk(self, slot: Slot) -> None:
        """The process is gone, and all it knew: whoever comes next is somebody else."""
        slot.member += 1 << 16
        slot.joining = True
        slot.disk = self._disks[slot.member] = self.new_disk()

    def touched(self, slot: Slot) -> None:
        """Something was done to its core: there is work to do, messages to send, a timer to set, checkers to ask."""
        node = slot.node
        assert node is not None
        raft = node.raft
        role, term = raft.role, raft.term
        sent = node.work()
        if raft.snapshot_wanted:
            node.take_snapshot(compact=False)
            self.counts["snapshots"] += 1
            sent += node.work()
        if raft.role is not role or raft.term != term:
            self.note("role", member=slot.member, role=raft.role.value, term=raft.term)
        self._say(slot, node, sent)
        if slot.doomed:
            return
        if node.writes and not slot.sync_at:
            slot.sync_at = True
            self.after(int(self.rng.random() * self.options.sync_max_ns) + 1, self._sync, slot, slot.life)
        due = int((raft.deadline_ns - slot.offset) / slot.rate) + 1
        if slot.tick_at < 0 or due < slot.tick_at:
            slot.tick_at = due
            self.after(max(0, due - self.now), self._tick, slot, slot.life, due)

    def _say(self, slot: Slot, node: SimNode, sent: list[Message]) -> None:
        self.counts["restores"] += node.restores_count
        self.checkers.after(slot.member, node, sent)
        if node.readies:
            for ready in node.readies:
                for ticket, index in ready.reads:
                    self.counts["reads"] += 1
                    self.checkers.read_confirmed(slot.member, slot.life, ticket, index)
                    self.clients.read_confirmed(slot, ticket, index)
                if ready.configuration is not None:
                    self.note("configuration", member=slot.member, now=ready.configuration)
            node.readies.clear()
        self.clients.applied(slot, node)
        if slot.doomed:
            # It dies in the middle: what is on disk is on disk, of the messages only the first ones left.
            sent = sent[: self.rng.randint(0, len(sent))]
        for message in sent:
            self._send(message)
        if slot.doomed:
            self.faults.kill(slot)

    def _tick(self, slot: Slot, life: int, due: int) -> None:
        node = self._living(slot, life, self._tick, slot, life, due)
        if node is None or slot.tick_at != due:
            return
        slot.tick_at = -1
        before = node.raft.role
        node.raft.tick(self.clock(slot))
        if node.raft.role is not before:
            self.note("role", member=slot.member, role=node.raft.role.value, term=node.raft.term)
        self.touched(slot)

    def _sync(self, slot: Slot, life: int) -> None:
        """Some of the writes under way get durable, in order."""
        node = self._living(slot, life, self._sync, slot, life)
        if node is None:
            return
        slot.sync_at = False
        sent = node.sync(self.rng.randint(1, len(node.writes)))
        self._say(slot, node, sent)
        if not slot.doomed:
            self.touched(slot)

    def _living(self, slot: Slot, life: int, action: Callable[..., None], *arguments: object) -> SimNode | None:
        """The process, unless it is gone; while it is paused its events wait."""
        if slot.life != life:
            return None
        if slot.paused_until > self.now:
            self.after(slot.paused_until - self.now, action, *arguments)
            return None
        return slot.node

    # -- the network --------------------------------------------------------------------------------------------------

    def delay(self) -> int:
        """How long a datagram takes; -1: for ever."""
        rng, options = self.rng, self.options
        if self.faulty and options.loss and rng.random() < options.loss:
            self.counts["lost"] += 1
            return -1
        delay_ns = options.delay_min_ns + int(rng.random() * (options.delay_max_ns - options.delay_min_ns))
        if self.faulty and options.straggler and rng.random() < options.straggler:
            delay_ns += int(rng.random() * options.straggler_max_ns)
        return delay_ns

    def copies(self) -> int:
        """How often it arrives, if it does."""
        if self.faulty and self.options.duplicate and self.rng.random() < self.options.duplicate:
            return 1 + self.rng.randint(1, 3)
        return 1

    def _send(self, message: Message) -> None:
        sender = message.sender
        data = encode(message, Identity(CLUSTER_ID, slot_of(sender), incarnation_of(sender) + 1))
        total_bytes = len(data)
        configuration = b""
        if isinstance(message, Append):
            total_bytes += message.bytes_count
            if message.configuration is not None:
                configuration = encode_configuration(message.configuration)
        elif isinstance(message, InstallSnapshot):
            total_bytes += message.bytes_count
        link = (slot_of(sender), slot_of(message.target))
        for _ in range(self.copies()):
            delay_ns = self.delay()
            if delay_ns < 0:
                self.note("lost", message=message)
                continue
            if self.clogged:
                delay_ns += max(0, self.clogged.get(link, 0) - self.now)
            self.after(delay_ns, self._deliver, message, data, total_bytes, configuration)

    def _deliver(self, sent: Message, data: bytes, total_bytes: int, configuration: bytes) -> None:
        slot = self.slots[slot_of(sent.target)]
        if (slot_of(sent.sender), slot_of(sent.target)) in self.blocked or slot.member != sent.target:
            self.counts["lost"] += 1
            self.note("lost", message=sent)
            return
        node = self._living(slot, slot.life, self._deliver, sent, data, total_bytes, configuration)
        if node is None:
            return
        if slot.slow_ns:
            if slot.busy_until > self.now:
                self.after(slot.busy_until - self.now, self._deliver, sent, data, total_bytes, configuration)
                return
            slot.busy_until = self.now + slot.slow_ns
        message, _ = decode(data, total_bytes, cluster_id=CLUSTER_ID)
        message.sender = sent.sender
        message.target = sent.target
        message.payload = sent.payload
        if configuration:
            assert isinstance(message, Append)
            message.configuration = decode_configuration(configuration)
        self.counts["delivered"] += 1
        self.note("deliver", message=sent)
        node.step(message, self.clock(slot))
        self.touched(slot)

    # -- liveness -----------------------------------------------------------------------------------------------------

    def _until_live(self) -> None:
        """One leader commits in its own term, further than before, every healthy voter applies it, and an operation
        that began after the healing is answered, in seconds.
        """
        options, checkers = self.options, self.checkers
        slowest_ns = 10 * MS + options.sync_max_ns + 4 * options.delay_max_ns  # an Append of one entry, and its answer
        backlog_ns = slowest_ns * (options.backlog_max + options.batch_max) if options.append_bytes_max < 1_000 else 0
        chunks_ns = 0
        if options.append_bytes_max < 1_000:  # a snapshot goes piece by piece
            chunks_ns = slowest_ns * (20_000 // options.append_bytes_max)
        deadline = self.now + 8_000 * MS + 4 * options.straggler_max_ns + backlog_ns + chunks_ns
        before = checkers.committed_last
        goal = 0
        self.clients.answered_since = self.now
        while self.now < deadline:
            self.step()
            healthy = self.faults.healthy
            nodes = [slot.node for slot in healthy if slot.node is not None]
            if not goal:
                leaders = [node for node in nodes if node.raft.role is Role.LEADER]
                if len(leaders) == 1:
                    raft = leaders[0].raft
                    commit = raft.commit_index
                    if commit > before and checkers.committed_in[commit] == raft.term:
                        goal = commit
            elif self.clients.new_answers and self._caught_up(healthy, goal):
                self._same_machines(nodes)
                return
        statuses = [slot.node.raft.status() if slot.node else None for slot in self.slots]
        raise Violation(
            "liveness",
            f"healthy {[slot.member for slot in self.faults.healthy]}, goal {goal}, "
            f"{self.clients.new_answers} answers, after {deadline / MS:.0f} ms: {statuses}",
        )

    def _caught_up(self, healthy: list[Slot], goal: int) -> bool:
        """Whether every healthy member of the configuration that counts now has applied that."""
        configuration: Configuration = self.checkers.configuration
        voters = {*configuration.voters, *configuration.outgoing}
        for slot in healthy:
            if slot.member in voters and (slot.node is None or slot.node.raft.applied_index < goal):
                return False
        return True

    @staticmethod
    def _same_machines(nodes: list[SimNode]) -> None:
        machines: dict[int, object] = {}
        for node in nodes:
            exported = node.machine.export()
            if machines.setdefault(node.raft.applied_index, exported) != exported:
                raise Violation("state machine safety", f"machines differ at {node.raft.applied_index}")


def run_seed(seed: int, events: int = 2_000, options: Options | None = None) -> World:
    """Runs one seed; the world afterwards, for its counts. Raises Violation."""
    world = World(seed, options)
    world.run(events)
    return world


__all__ = ["MS", "Options", "Slot", "Violation", "World", "histories", "run_seed"]
