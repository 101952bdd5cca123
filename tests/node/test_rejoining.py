"""Members come back without their memory, on the in-memory network: real engines, real Raft, virtual time."""

from __future__ import annotations

from functools import partial

import pytest

from r2p2.apps.kv import encode_command
from r2p2.engine import DONE_OK
from r2p2.node import Node, NodeConfig
from r2p2.node.forming import RemovedError
from tests.node.members import fill, in_sync, member, slots, votes
from tests.node.support import MS, World

# ---- a member comes back without its memory ----


@pytest.mark.parametrize("leads", [False, True], ids=["a follower", "the leader"])
def test_a_killed_member_comes_back_as_another_and_is_in_sync(leads: bool) -> None:
    with World(seed=7) as world:
        leader = world.elect()
        fill(world, leader, 300)
        victim = leader if leads else (leader + 1) % 3
        world.kill(victim)
        world.launch(victim, incarnation=4711)
        world.run_until(lambda: votes(world, victim), 3000)
        world.run_until(lambda: in_sync(world), 1000)
        # It counts: with one more gone there is still a majority, and it may even lead.
        other = next(i for i in world.nodes if i not in (victim, world.leader))
        world.kill(other)
        fill(world, world.elect(), 20, start=1000)
        status = world.nodes[victim].status(with_state=True)
        assert status["incarnation"] == f"{4711:016x}"
        assert status["state_digest"] == world.nodes[world.elect()].status(with_state=True)["state_digest"]


def test_every_member_one_after_the_other_and_then_all_of_them_again() -> None:
    with World(seed=2) as world:
        fill(world, world.elect(), 50)
        for round_ in range(2):
            for victim in range(3):
                world.kill(victim)
                world.launch(victim)
                world.run_until(partial(votes, world, victim), 3000)
                fill(world, world.elect(), 10, start=1000 + 100 * round_ + 10 * victim)
        world.run_until(lambda: in_sync(world), 1000)
        assert len(world.nodes[0].app.data) == 110  # type: ignore[attr-defined]


def test_it_comes_back_under_load_when_the_log_has_gone_on_without_it() -> None:
    with World(seed=3, log_bytes_max=200_000) as world:
        leader = world.elect()
        victim = (leader + 1) % 3
        world.kill(victim)
        fill(world, leader, 1000, size=500)  # two and a half times the log's bound
        assert world.nodes[leader].status()["counters"]["log_compactions"] >= 2
        world.launch(victim)
        done = world.client.ended
        tags: list[int] = []
        for i in range(4000):
            tags.append(world.call(encode_command("SET", f"load{i}", "v" * 200), leader, ms=2000))
            world.run(0.1)
            if i % 500 == 499 and votes(world, victim):
                break
        world.run_until(lambda: votes(world, victim), 3000)
        world.run_until(lambda: all(tag in done for tag in tags), 3000)
        assert sum(done[tag][0] == DONE_OK for tag in tags) == len(tags)
        world.run_until(lambda: in_sync(world), 1000)
        assert world.nodes[victim].status()["counters"]["snapshots_restored"] >= 1
        assert world.leader == leader, "bringing it back cost no leadership"


def test_with_loss_duplication_and_reordering_it_still_comes_back() -> None:
    with World(seed=4) as world:
        leader = world.elect()
        fill(world, leader, 300, size=2000)  # a snapshot of several chunks
        world.network.faults(
            loss_ppm=10_000, duplicate_ppm=10_000, reorder_ppm=20_000, delay_min_ns=5_000, delay_max_ns=100_000
        )
        victim = (leader + 1) % 3
        world.kill(victim)
        world.launch(victim)
        world.run_until(lambda: votes(world, victim), 20_000)
        world.network.faults()
        world.run_until(lambda: in_sync(world), 1000)


def test_killed_again_while_it_catches_up() -> None:
    with World(seed=5) as world:
        leader = world.elect()
        fill(world, leader, 300, size=2000)
        victim = (leader + 1) % 3
        for launch in range(5):
            world.kill(victim)
            world.launch(victim)
            world.run(100 + 1.3 * launch)
        world.run_until(lambda: votes(world, victim), 3000)
        world.run_until(lambda: in_sync(world), 1000)
        members = world.nodes[leader].status()["configuration"]["members"]
        assert len(members) == 3, members


def test_the_leader_dies_while_another_catches_up() -> None:
    with World(size=5, seed=6) as world:
        leader = world.elect()
        fill(world, leader, 300, size=2000)
        victim = (leader + 1) % 5
        world.kill(victim)
        world.launch(victim)
        world.run_until(
            lambda: any(m["learner"] for m in world.nodes[leader].status()["configuration"]["members"]), 3000
        )
        world.kill(leader)
        world.run_until(lambda: votes(world, victim), 5000)
        assert world.elect() != leader
        world.run_until(lambda: in_sync(world), 1000)


def test_what_a_dead_incarnation_still_says_is_dropped_and_counted() -> None:
    with World(seed=8) as world:
        leader = world.elect()
        victim = (leader + 1) % 3
        # The old process is only cut off; the new one runs elsewhere, so both exist.
        ip = world.addresses[victim][0]
        world.cut_off(ip)
        old = world.nodes.pop(victim)
        world.ports.pop(victim)
        world.launch(victim, join=True, ip=0x0A000050)
        assert member(world, leader, "replace", victim, "10.0.0.80:8000")["ok"]
        world.cut_off(ip, blocked=False)
        with pytest.raises(RemovedError, match=f"member {victim} .*was removed"):
            world.network.run([*world.nodes.values(), old], 3000 * MS)
        dropped = sum(node.counters["raft_drop_gone"] for node in world.nodes.values())
        assert dropped > 0
        old.close()
        fill(world, leader, 10)
        assert world.leader == leader
        world.run_until(lambda: in_sync(world), 1000)


def test_a_process_in_the_place_of_a_living_member_is_not_let_in() -> None:
    with World(seed=9) as world:
        leader = world.elect()
        world.network.open(0x0A000060, 8000)
        config = NodeConfig(node_id=(leader + 1) % 3, members=world.addresses, incarnation=77)
        imposter = Node(config, world.network.open(0x0A000061, 8000), world.make_app())
        world.network.run([*world.nodes.values(), imposter], 1000 * MS)
        status = imposter.status()
        assert status["joining"] and not status["formed"]
        knocking = world.nodes[leader].status()["configuration"]["knocking"]
        assert knocking == [{"slot": (leader + 1) % 3, "address": "10.0.0.97:8000"}]
        assert slots(world, leader) == [0, 1, 2]
        imposter.close()


# ---- a majority loses its memory ----


def test_a_majority_lost_at_once_is_said_and_nothing_restarts_empty() -> None:
    with World(seed=10) as world:
        leader = world.elect()
        fill(world, leader, 20)
        survivor = (leader + 1) % 3
        gone = [i for i in range(3) if i != survivor]
        for i in gone:
            world.kill(i)
        for i in gone:
            world.launch(i)
        world.run(5000)
        status = world.nodes[survivor].status()
        assert status["majority_lost"] == gone
        said = [text for _, i, text in world.events if i == survivor and "A MAJORITY HAS LOST ITS MEMORY" in text]
        assert len(said) == 1
        assert f"slots {gone[0]}, {gone[1]}" in said[0]
        assert world.leader is None
        assert status["applied_index"] >= 20
        assert all(world.nodes[i].status()["applied_index"] == 0 for i in gone)
        # Once the survivor is launched anew, too, nobody remembers anything; that is said as well.
        world.kill(survivor)
        world.launch(survivor)
        world.run_until(lambda: world.leader is not None, 10_000)
        assert any("THE CLUSTER THAT THIS WAS TO JOIN IS GONE" in text for _, i, text in world.events if i in gone)
        assert world.ask(encode_command("GET", "k1"), world.elect(), policy=3) == (DONE_OK, b"$-1\r\n")


def test_a_survivor_that_is_cut_off_is_not_forgotten() -> None:
    """Two of three restart and the third cannot be reached for long: no empty cluster."""
    with World(seed=11) as world:
        leader = world.elect()
        fill(world, leader, 20)
        survivor = (leader + 1) % 3
        ip = world.addresses[survivor][0]
        for i in range(3):
            if i != survivor:
                world.kill(i)
                world.launch(i)
        world.run(200)
        world.cut_off(ip)
        world.run(10_000)
        assert world.leader is None
        assert not any(node.status()["formed"] for i, node in world.nodes.items() if i != survivor)
