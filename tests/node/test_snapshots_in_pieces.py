"""Snapshots that an application gives in pieces: the member goes on meanwhile, and what comes out is of one moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from r2p2 import limits
from r2p2.app import ApplicationFailed
from r2p2.apps.kv import KeyValue, encode_command
from r2p2.engine import DONE_OK
from tests.node.members import fill, in_sync, member, votes
from tests.node.support import World, replica_of

PIECE_BYTES = 16


class InPieces(KeyValue):
    """Its snapshots take hundreds of polls; held, one that has begun does not go on."""

    def __init__(self) -> None:
        super().__init__()
        self.held = False
        self.asked = 0

    def snapshot(self) -> Iterator[bytes]:
        return self._small(b"".join(super().snapshot()))

    def _small(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), PIECE_BYTES):
            while self.held:
                yield b""
            self.asked += 1
            yield data[at : at + PIECE_BYTES]


def app(world: World, slot: int) -> InPieces:
    machine = world.nodes[slot].app
    assert isinstance(machine, InPieces)
    return machine


def hold(world: World, slot: int) -> None:
    """Its next snapshot begins and does not go on. Polls that only wait for it do not keep the network's clock."""
    node = world.nodes[slot]
    app(world, slot).held = True
    poll_once = node.poll_once
    node.poll_once = lambda: 0 * poll_once()  # type: ignore[method-assign]
    node.next_deadline_ns = lambda: None  # type: ignore[method-assign]


def let_go(world: World, slot: int) -> None:
    node = world.nodes[slot]
    app(world, slot).held = False
    del node.poll_once, node.next_deadline_ns


def is_taking(world: World, slot: int) -> bool:
    return replica_of(world.nodes[slot]).is_taking_snapshot


def test_a_leader_answers_while_it_takes_one_for_a_member_that_comes_back() -> None:
    with World(seed=7, make_app=InPieces) as world:
        leader = world.elect()
        victim = (leader + 1) % 3
        fill(world, leader, 300, size=1000)
        hold(world, leader)
        world.kill(victim)
        world.launch(victim)
        world.run_until(lambda: is_taking(world, leader), 3000)
        term = world.nodes[leader].status()["term"]
        fill(world, leader, 100, start=300)
        assert is_taking(world, leader)
        let_go(world, leader)
        world.run_until(lambda: votes(world, victim), 3000)
        world.run_until(lambda: in_sync(world), 1000)
        status = world.nodes[leader].status()
        assert (status["role"], status["term"]) == ("leader", term), "it never fell silent"
        assert app(world, leader).asked > 10 * limits.SNAPSHOT_TURN_PIECES_MAX, "over many polls"
        assert len(app(world, victim).data) == 400


def test_the_log_gives_way_to_one_that_took_long() -> None:
    """Every member compacts; a snapshot of an earlier state than the log's end is enough for that."""
    with World(seed=8, make_app=InPieces, log_bytes_max=200_000) as world:
        leader = world.elect()
        victim = (leader + 1) % 3
        world.kill(victim)
        fill(world, leader, 1000, size=500)
        status = world.nodes[leader].status()
        assert status["counters"]["log_compactions"] >= 2
        assert status["log_bytes"] <= 200_000
        world.launch(victim)
        world.run_until(lambda: votes(world, victim), 3000)
        world.run_until(lambda: in_sync(world), 1000)
        assert len(app(world, victim).data) == 1000


def compacting(world: World) -> tuple[int, int]:
    """A member is down, and the leader has begun a snapshot for the log's sake that is held: the leader, the other."""
    leader = world.elect()
    victim = (leader + 1) % 3
    world.kill(victim)
    hold(world, leader)
    for i in range(1000):
        fill(world, leader, 1, size=500, start=i)
        if is_taking(world, leader):
            return leader, victim
    raise AssertionError("no snapshot was taken")


def test_the_log_gives_way_to_what_went_on_meanwhile_no_further_than_the_snapshot() -> None:
    with World(seed=8, make_app=InPieces, log_bytes_max=200_000) as world:
        leader, _ = compacting(world)
        fill(world, leader, 40, start=5000)
        let_go(world, leader)
        world.run_until(lambda: not is_taking(world, leader))
        world.run(20)
        counters = world.nodes[leader].status()["counters"]
        assert (counters["snapshots_taken"], counters["log_compactions"]) == (1, 1)


def test_one_that_the_log_has_gone_beyond_is_of_no_use() -> None:
    """The member that held the log back is removed while the snapshot is on its way: all of the log may go."""
    with World(seed=8, make_app=InPieces, log_bytes_max=200_000) as world:
        leader, victim = compacting(world)
        upkeep = replica_of(world.nodes[leader]).upkeep
        assert upkeep._taking is not None
        index = upkeep._taking.index
        assert member(world, leader, "remove", victim)["ok"]
        fill(world, leader, 40, start=5000)
        world.run(50)
        let_go(world, leader)
        world.run_until(lambda: not is_taking(world, leader))
        fill(world, leader, 40, start=6000)
        status = world.nodes[leader].status()
        assert status["counters"]["snapshots_unused"] == 1
        assert status["snapshot_index"] != index < status["log_first_index"] - 1


def test_none_for_the_log_takes_the_place_of_one_that_a_member_is_being_sent() -> None:
    """It would have to begin again."""
    with World(seed=8, make_app=InPieces, log_bytes_max=600_000) as world:
        leader, victim = compacting(world)
        let_go(world, leader)
        world.run_until(lambda: not is_taking(world, leader))
        held_index = world.nodes[leader].status()["snapshot_index"]
        assert held_index > 0
        hold(world, leader)
        for i in range(2000):
            fill(world, leader, 1, size=500, start=10_000 + i)
            if is_taking(world, leader):
                break
        world.network.faults(delay_min_ns=500_000, delay_max_ns=600_000)
        world.launch(victim)
        world.run_until(lambda: world.nodes[victim].status().get("snapshot_incoming_bytes", 0) > 0, 3000)
        let_go(world, leader)
        world.run_until(lambda: not is_taking(world, leader))
        status = world.nodes[leader].status()
        assert (status["snapshot_index"], status["counters"]["snapshots_unused"]) == (held_index, 1)
        world.run_until(lambda: votes(world, victim), 5000)
        world.run_until(lambda: in_sync(world), 1000)


def test_half_of_one_goes_with_the_leader_that_sent_it() -> None:
    """Whoever leads next sends its own; meanwhile the member does not keep what it cannot use."""
    with World(5, seed=8) as world:
        leader = world.elect()
        victim = (leader + 1) % 5
        fill(world, leader, 400, size=1000)
        world.kill(victim)
        world.network.faults(delay_min_ns=500_000, delay_max_ns=600_000)
        world.launch(victim)

        def incoming_bytes() -> int:
            return int(world.nodes[victim].status().get("snapshot_incoming_bytes", 0))

        world.run_until(lambda: incoming_bytes() > 0, 3000)
        world.kill(leader)
        world.part(victim)
        term = world.nodes[victim].status()["term"]
        world.run_until(lambda: world.leader is not None, 3000)
        assert (world.nodes[victim].status()["term"], incoming_bytes() > 0) == (term, True)
        world.part(victim, blocked=False)
        world.run_until(lambda: incoming_bytes() == 0, 3000)
        assert world.nodes[victim].status()["counters"]["snapshots_abandoned"] == 1
        world.run_until(lambda: votes(world, victim), 5000)
        world.run_until(lambda: in_sync(world), 1000)


class OfOneState(InPieces):
    """It cannot go on with a snapshot once it has become another state; a Redis whose child is gone cannot, either."""

    def __init__(self) -> None:
        super().__init__()
        self.restores_count = 0

    def _small(self, data: bytes) -> Iterator[bytes]:
        before = self.restores_count
        for piece in super()._small(data):
            if self.restores_count != before:
                raise ApplicationFailed("of a state that is no more")
            yield piece

    def restore(self, data: bytes) -> None:
        super().restore(data)
        self.restores_count += 1


def test_one_for_the_logs_sake_ends_when_one_from_the_leader_comes() -> None:
    """It was gone on with, of a state that was no more; in memory as on the disk."""
    with World(5, seed=8, make_app=OfOneState, log_bytes_max=200_000) as world:
        leader = world.elect()
        down, other = (leader + 1) % 5, (leader + 2) % 5
        world.kill(down)
        hold(world, other)
        for i in range(1000):
            fill(world, leader, 1, size=500, start=i)
            if is_taking(world, other):
                break
        world.cut_off(world.addresses[other][0])
        for i in range(800):
            fill(world, leader, 1, size=500, start=10_000 + i)
        world.cut_off(world.addresses[other][0], blocked=False)
        counters = world.nodes[other].counters
        world.run_until(lambda: counters["snapshots_restored"] == 1, 3000)
        assert not is_taking(world, other)
        let_go(world, other)
        world.run_until(lambda: in_sync(world), 3000)
        assert (counters["snapshots_taken"], counters["snapshots_unused"]) == (0, 1)


def durable(path: Path) -> World:
    return World(seed=9, make_app=InPieces, storage=path, log_bytes_max=64_000)


def write_until(world: World, leader: int, slot: int) -> int:
    """SETs until that member takes a snapshot for its disk; how many there were."""
    for i in range(1000):
        assert world.ask(encode_command("SET", f"k{i}", "v" * 400), leader)[0] == DONE_OK
        if is_taking(world, slot):
            return i + 1
    raise AssertionError("no snapshot was taken")


@pytest.mark.parametrize("goes_on", [True, False], ids=["written", "cut short by the end of the process"])
def test_a_disk_gets_one_of_the_moment_it_began(tmp_path: Path, goes_on: bool) -> None:
    with durable(tmp_path) as world:
        leader = world.elect()
        other = (leader + 1) % 3
        hold(world, other)
        written = write_until(world, leader, other)
        fill(world, leader, 20, start=10_000)
        assert is_taking(world, other)
        if goes_on:
            let_go(world, other)
            world.run_until(lambda: not is_taking(world, other))
            assert world.nodes[other].status()["storage"]["snapshot_index"] > 0
        world.kill(other)
        world.launch(other)
        world.run_until(lambda: len(world.digests()) == 1, 3000)
        assert len(app(world, other).data) == written + 20


def test_what_a_member_missed_goes_in_pieces_that_its_log_has_room_for(tmp_path: Path) -> None:
    """All of it in one Append was more than there was room for, and nothing made room: it was refused for ever."""
    with World(seed=9, storage=tmp_path, truncation="block", log_bytes_max=40_000) as world:
        leader = world.elect()
        other = (leader + 1) % 3
        fill(world, leader, 115)
        disk = world.nodes[other].status()["storage"]
        assert 10_000 < disk["log_bytes"] < 20_000 and disk["snapshot_index"] == 0
        world.cut_off(world.addresses[other][0])
        fill(world, leader, 215, start=1000)
        assert world.nodes[leader].status()["log_bytes"] + disk["log_bytes"] > 50_000
        world.cut_off(world.addresses[other][0], blocked=False)
        world.run_until(lambda: len(world.digests()) == 1, 3000)


def test_the_disk_is_said_to_be_full_only_while_it_is(tmp_path: Path) -> None:
    with durable(tmp_path) as world:
        leader = world.elect()
        hold(world, leader)
        written = write_until(world, leader, leader)
        while world.ask(encode_command("SET", f"k{written}", "v" * 400), leader)[0] == DONE_OK:
            written += 1
        assert world.nodes[leader].status()["counters"]["storage_full"] == 1
        let_go(world, leader)
        world.run_until(lambda: not is_taking(world, leader))
        world.run(20)
        assert world.ask(encode_command("SET", "k", "v"), leader)[0] == DONE_OK
        assert "storage_full" not in world.nodes[leader].status()["counters"]


def test_one_from_the_leader_overtakes_the_members_own(tmp_path: Path) -> None:
    with durable(tmp_path) as world:
        leader = world.elect()
        other = (leader + 1) % 3
        hold(world, other)
        written = write_until(world, leader, other)
        world.cut_off(world.addresses[other][0])
        for i in range(400):  # one by one: none finds the log full
            fill(world, leader, 1, size=500, start=20_000 + i)
        world.cut_off(world.addresses[other][0], blocked=False)
        world.run_until(lambda: world.nodes[other].status()["counters"].get("snapshots_restored", 0) > 0, 3000)
        assert not is_taking(world, other), "of a state that is no more"
        world.run_until(lambda: len(world.digests()) == 1, 3000)
        let_go(world, other)
        world.kill(other)
        world.launch(other)
        world.run_until(lambda: len(world.digests()) == 1, 3000)
        assert len(app(world, other).data) == written + 400
