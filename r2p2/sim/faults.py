"""What goes wrong, and how it ends: partitions of every shape, clogged links, crashes, lost disks, stops, slowness.

Left to others: loss, delay and duplication of single datagrams (world.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from r2p2.sim.options import MS

if TYPE_CHECKING:
    from r2p2.sim.world import Slot, World


class Faults:
    """All of them."""

    def __init__(self, world: World) -> None:
        """They have not begun."""
        self._world = world
        self.healthy: list[Slot] = []  # in the liveness phase

    def begin(self) -> None:
        """From now on something goes wrong every now and then."""
        world = self._world
        if world.options.fault_mean_ns:
            world.after(world.gap(world.options.fault_mean_ns), self._fault)

    def _fault(self) -> None:
        world, options = self._world, self._world.options
        if not world.faulty:
            return
        world.after(world.gap(options.fault_mean_ns), self._fault)
        several = len(world.slots) > 1
        kinds = [self._heal_network]
        if options.partitions and several:
            kinds += [self._partition, self._partition]
        if options.clogs and several:
            kinds += [self._clog]
        if options.crashes:
            kinds += [self._crash, self._crash, self._doom]
        if options.pauses:
            kinds += [self._pause]
        if options.slow_members:
            kinds += [self._slow]
        if options.transfers and several:
            kinds += [world.operators.transfer]
        world.rng.choice(kinds)()

    def _favourite(self) -> int:
        """The leader's slot, more often than chance has it: that is where it hurts."""
        world = self._world
        leaders = [number for number, slot in enumerate(world.slots) if slot in world.leaders()]
        if leaders and world.rng.random() < 0.5:
            return world.rng.choice(leaders)
        return int(world.rng.random() * len(world.slots))

    # -- the network --------------------------------------------------------------------------------------------------

    def _heal_network(self) -> None:
        self._world.blocked.clear()
        self._world.note("heal")

    def _partition(self) -> None:
        """A member alone, two sides, a link, one direction of it, a member that only sends, or only hears."""
        world, rng = self._world, self._world.rng
        members = range(len(world.slots))
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
            world.blocked.clear()
        world.blocked |= rng.choice(shapes)
        world.counts["partitions"] += 1
        world.note("partition", blocked=sorted(world.blocked))

    def _clog(self) -> None:
        """Links deliver nothing for a while, then everything at once."""
        world, rng = self._world, self._world.rng
        members = range(len(world.slots))
        one = self._favourite()
        until = world.now + world.gap(100 * MS)
        world.clogged = {link: end for link, end in world.clogged.items() if end > world.now}
        for other in members:
            if other != one and rng.random() < 0.5:
                world.clogged[(one, other) if rng.random() < 0.5 else (other, one)] = until
        world.counts["clogs"] += 1
        world.note("clog", links=sorted(world.clogged))

    # -- processes ----------------------------------------------------------------------------------------------------

    def kill(self, slot: Slot) -> None:
        """kill -9 and, later, a restart; of the writes under way a part may be durable, the last one torn."""
        world, rng = self._world, self._world.rng
        node = slot.node
        if node is None:
            return
        kept = rng.randint(0, len(node.writes))
        node.crash(writes_kept=kept, torn_ops=rng.choice((0, 0, 1)), torn_entries=rng.choice((0, 1, 3)))
        slot.node = None
        slot.life += 1
        slot.paused_until = slot.slow_ns = 0
        world.counts["crashes"] += 1
        lost = world.options.disk_losses and rng.random() < 0.3 and self._can_lose(slot)
        world.note("crash", member=slot.member, writes_kept=kept, disk="lost" if lost else "kept")
        if lost:
            world.counts["disk_losses"] += 1
            world.replace_disk(slot)
        world.after(world.gap(50 * MS), self._restart, slot, slot.life)

    def _can_lose(self, slot: Slot) -> bool:
        """Whether the cluster survives it: a majority of disks has to, of every configuration that may be in force."""
        operators = self._world.operators
        return all(
            slot.member not in half or operators.bears(half, 1)
            for configuration in operators.possible()
            for half in (configuration.voters, configuration.outgoing)
        )

    def _crash(self) -> None:
        world, rng = self._world, self._world.rng
        how_many = 1 if rng.random() < 0.8 else rng.randint(1, len(world.slots))
        victims = {self._favourite()} | set(rng.sample(range(len(world.slots)), how_many - 1))
        for number in sorted(victims):
            self.kill(world.slots[number])

    def _doom(self) -> None:
        """It will die in the middle of its next work: after a write and before the message, or between two messages."""
        slot = self._world.slots[self._favourite()]
        slot.doomed = slot.node is not None

    def _restart(self, slot: Slot, life: int) -> None:
        world = self._world
        if slot.life == life and slot.node is None and (world.faulty or slot in self.healthy):
            world.start(world.slots.index(slot))

    def _pause(self) -> None:
        world = self._world
        slot = world.slots[self._favourite()]
        if slot.node is not None:
            slot.paused_until = world.now + world.gap(150 * MS)
            world.counts["pauses"] += 1
            world.note("pause", member=slot.member, until_ns=slot.paused_until)

    def _slow(self) -> None:
        """It takes its time for every message, up to a few milliseconds; or is as fast as ever again."""
        world = self._world
        slot = world.slots[self._favourite()]
        slot.slow_ns = 0 if slot.slow_ns else world.gap(1 * MS)
        world.counts["slow"] += 1
        world.note("slow", member=slot.member, message_ns=slot.slow_ns)

    # -- the end ------------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """A majority is well from now on; the rest, if any, is gone. Who is no member of anything has no part in it."""
        world, rng = self._world, self._world.rng
        world.faulty = False
        world.blocked.clear()
        world.clogged.clear()
        possible = world.operators.possible()
        members = {member for configuration in possible for member in configuration.members}
        slots = [slot for slot in world.slots if slot.member in members]
        self.healthy = slots
        if rng.random() < 0.5:
            for slot in rng.sample(slots, len(slots)):
                fewer = [other for other in self.healthy if other is not slot]
                ids = {other.member for other in fewer}
                halves = [half for c in possible for half in (c.voters, c.outgoing) if half]
                if all(len(ids.intersection(half)) > len(half) // 2 for half in halves):
                    self.healthy = fewer
        for number, slot in enumerate(world.slots):
            slot.paused_until = slot.slow_ns = 0
            slot.doomed = False
            if slot not in self.healthy:
                slot.node = None
                slot.life += 1
            elif slot.node is None:
                world.start(number)
        world.note("liveness", healthy=[slot.member for slot in self.healthy])
