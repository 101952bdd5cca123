"""Those who run the cluster: they change its members, take snapshots, and move the leader.

Changes are asked of whoever thinks it leads, at any time, also while another is under way: the core has to refuse what
cannot be. A member that lost its disk is replaced by the process that came in its place. What nobody sane would ask
for is left out: a new majority of which too many have lost their disks.

Left to others: crashes (faults.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft import ChangeRefused, Configuration, Role, slot_of

if TYPE_CHECKING:
    from r2p2.sim.world import Slot, World


class Operators:
    """All of them."""

    def __init__(self, world: World) -> None:
        """They have not begun."""
        self._world = world

    def begin(self) -> None:
        """From now on they do."""
        world, options = self._world, self._world.options
        if options.change_mean_ns:
            world.after(world.gap(options.change_mean_ns), self._change)
        if options.snapshot_mean_ns:
            world.after(world.gap(options.snapshot_mean_ns), self._snapshot)

    def is_gone(self, member: int) -> bool:
        """Whether it lost its disk."""
        slot = self._world.slots[slot_of(member)]
        return slot.member != member

    def bears(self, voters: tuple[int, ...], further: int = 0) -> bool:
        """Whether a majority of them is, or can be, alive, after ``further`` losses."""
        gone = sum(map(self.is_gone, voters)) + further
        return not voters or gone <= (len(voters) - 1) // 2

    def possible(self) -> list[Configuration]:
        """Every configuration that is in force somewhere, or could be after an election."""
        checkers = self._world.checkers
        found = [checkers.configuration]
        for slot in self._world.slots:
            logs = [slot.disk.log] if slot.node is None else [slot.disk.log, slot.node.log]
            for log in logs:
                first = max(checkers.configurations[-1][0] + 1 - log.first_index, 0)
                found += [entry[1] for entry in log.entries[first:] if isinstance(entry[1], Configuration)]
        return found

    def _change(self) -> None:
        world = self._world
        if not world.faulty:
            return
        world.after(world.gap(world.options.change_mean_ns), self._change)
        leaders = [slot for slot in world.leaders() if world.awake(slot) is not None]
        if not leaders:
            return
        slot = world.rng.choice(leaders)
        node = slot.node
        assert node is not None
        target = self._target(slot, node.raft.configuration)
        if target is None or not self.bears(target.voters):
            return
        try:
            node.raft.propose_configuration(target, world.clock(slot))
        except ChangeRefused:
            return
        world.counts["changes"] += 1
        world.note("change", member=slot.member, to=target)
        world.touched(slot)

    def _target(self, slot: Slot, current: Configuration) -> Configuration | None:
        """Another configuration, one step away."""
        world, rng = self._world, self._world.rng
        node = slot.node
        assert node is not None
        voters, learners = current.voters, current.learners
        strangers = [s.member for s in world.slots if s.node is not None and s.member not in current.members]
        ready = [member for member in learners if node.raft.caught_up(member) or rng.random() < 0.1]
        roll = rng.random()
        if ready and roll < 0.5:
            member = rng.choice(ready)
            before = [voter for voter in voters if slot_of(voter) == slot_of(member)]
            gone = before or [voter for voter in voters if self.is_gone(voter)]
            if not gone and rng.random() < 0.3:
                gone = [rng.choice(voters)]
            return current.with_voter(member, instead_of=gone[0] if gone else None)
        if strangers and roll < 0.8:
            return current.with_learner(rng.choice(strangers))
        others = [member for member in current.members if self.is_gone(member)] or list(current.members)
        member = rng.choice(others)
        if member in voters and len(voters) == 1:
            return None
        return current.without(member)

    def _snapshot(self) -> None:
        """One member's; most of the time its log's prefix goes with it."""
        world = self._world
        if not world.faulty:
            return
        world.after(world.gap(world.options.snapshot_mean_ns), self._snapshot)
        slot = world.rng.choice(world.slots)
        node = world.awake(slot)
        if node is None or node.raft.applied_index <= node.raft.snapshot_index or not node.raft.applied_index:
            return
        if node.raft.snapshot_in_use and world.rng.random() < 0.7:
            return
        node.take_snapshot(compact=world.rng.random() < 0.8)
        world.counts["snapshots"] += 1
        world.note("snapshot", member=slot.member, index=node.snapshot_index)
        world.touched(slot)

    def transfer(self) -> None:
        """The leader is asked to hand over to another voter."""
        world = self._world
        for slot in world.leaders():
            node = world.awake(slot)
            if node is None or node.raft.role is not Role.LEADER:
                continue
            others = [voter for voter in node.raft.configuration.voters if voter != slot.member]
            if not others:
                continue
            target = world.rng.choice(others)
            node.raft.transfer(target, world.clock(slot))
            world.counts["transfers"] += 1
            world.note("transfer", member=slot.member, other=target)
            world.touched(slot)
