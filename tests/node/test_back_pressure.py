"""Floods and full bounds: clients are refused in time, and what members say to each other goes on."""

from __future__ import annotations

import random

import pytest

from r2p2.apps.kv import KeyValue, encode_command
from r2p2.engine import DONE_DROPPED, DONE_OK
from r2p2.requests import ReplySequence, Requests
from raft import Append
from tests.node.support import MS, World, replica_of
from tests.node.test_apply_thread import hold_threads

OK = b"+OK\r\n"


def ended(world: World, tags: list[int]) -> tuple[int, int]:
    """How many were answered with OK and how many refused."""
    outcomes = [world.client.ended.get(tag) for tag in tags]
    return outcomes.count((DONE_OK, OK)), sum(o is not None and o[0] == DONE_DROPPED for o in outcomes)


def test_a_backlog_over_its_bound_is_refused_and_stays_bounded() -> None:
    """The application does nothing for a while: what is committed and not applied is held to the bound."""
    with World(backlog_entries_max=100) as world:
        threads = hold_threads(world)
        leader = world.elect()
        for thread in threads.values():
            thread.held = True
        tags = []
        for i in range(400):
            tags.append(world.call(encode_command("SET", f"k{i}", "v"), leader, ms=5000))
            world.run(0.5)
        answered, refused = ended(world, tags)
        assert answered == 0 and refused == 300
        node = world.nodes[leader]
        assert node.engine.log_last_index - node.engine.applied_index == 100
        assert node.status()["counters"]["drops_backlog"] == 300
        term = node.status()["term"]
        for thread in threads.values():
            thread.held = False
        world.run(200)
        assert ended(world, tags) == (100, 300)
        assert world.ask(encode_command("SET", "after", "v"), leader) == (DONE_OK, OK)
        world.run(50)
        assert world.nodes[leader].status()["term"] == term
        assert len(world.digests()) == 1


def test_a_follower_without_a_leader_holds_so_much_and_no_more() -> None:
    with World(hold_bytes_max=4096) as world:
        leader = world.elect()
        alone = (leader + 1) % 3
        for other in set(world.nodes) - {alone}:
            world.kill(other)
        world.run(500)
        tags = [world.call(encode_command("SET", f"k{i}", "v"), alone, ms=5000) for i in range(200)]
        world.run(5)
        _, refused = ended(world, tags)
        counters = world.nodes[alone].status()["counters"]
        assert 0 < refused == counters["drops_hold_full"] < 200, "those beyond the bound at once"
        world.run(1000)
        assert ended(world, tags) == (0, 200), "the others when the time is over"
        assert world.nodes[alone].status()["counters"]["drops_no_leader"] == 200 - refused


def test_a_flood_of_halves_and_strangers_costs_no_commit_and_no_election() -> None:
    """A thousand first packets a millisecond from all over, and garbage: Appends of several packets get through."""
    with World() as world:
        leader = world.elect()
        term = world.nodes[leader].status()["term"]
        chance = random.Random(5)
        tags = []
        for round_ in range(60):
            for i in range(300):
                source = (0x0B000000 + chance.randrange(1 << 16), 1024 + i)
                target = world.addresses[chance.randrange(3)]
                first = bytes.fromhex("cc080280") + chance.randbytes(2) + bytes((0, 1 + chance.randrange(254)))
                world.network.inject(source, target, first + bytes(14))
                if i % 10 == 0:
                    world.network.inject(source, target, chance.randbytes(chance.randrange(60)))
            tags += [world.call(encode_command("SET", f"{round_}-{i}", "v" * 40), leader) for i in range(50)]
            world.run(5)
        world.run(500)
        assert ended(world, tags) == (len(tags), 0)
        status = world.nodes[leader].status()
        assert (status["role"], status["term"]) == ("leader", term)
        assert status["counters"]["rx_evicted_halves"] > 0, "it was a flood"
        world.run(50)
        assert len(world.digests()) == 1


@pytest.mark.parametrize("leads", [True, False])
def test_a_backlog_that_takes_longer_than_an_election_timeout_costs_no_election(leads: bool) -> None:
    """Each batch takes the application a fraction of it: whoever sends meanwhile is heard between two of them."""
    worlds: list[World] = []  # while this holds one, a batch takes time

    class Slow(KeyValue):
        def apply(self, requests: Requests) -> ReplySequence:
            for world in worlds:
                if self is world.nodes[slow].app and len(requests) > 500:
                    world.network.advance((18 if leads else 28) * MS)
            return super().apply(requests)

    with World(make_app=Slow) as world:
        leader = world.elect()
        slow = leader if leads else (leader + 1) % 3
        node = world.nodes[slow]
        raft, apply = replica_of(node).raft, node._applying.apply
        term = raft.term
        node._applying.apply = lambda raft: None  # type: ignore[method-assign]
        tags = [world.call(encode_command("SET", f"k{i % 50}", "v"), leader, ms=5000) for i in range(9000)]
        while raft.commit_index - raft.applied_index < 8192:
            for member in world.nodes.values():
                member.poll_once()
            world.client.poll_once()
            world.network.advance(20_000)
        node._applying.apply = apply  # type: ignore[method-assign]
        worlds.append(world)
        node.poll_once()
        assert raft.role.value == ("leader" if leads else "follower")
        world.run(1000)
        assert (world.leader, raft.term) == (leader, term)
        assert ended(world, tags)[0] >= 8192
        worlds.clear()
        world.run(50)
        assert len(world.digests()) == 1


def test_what_comes_behind_an_append_without_room_is_not_asked_for_again_at_once() -> None:
    """Its refusal had the leader send everything again, as fast as the network goes, as long as there was no room."""
    with World(3, seed=3) as world:
        leader = world.elect()
        node = world.nodes[(leader + 1) % 3]
        assert world.ask(encode_command("SET", "a", "1"), leader)[0] == DONE_OK
        world.run(30)
        before = world.nodes[leader].counters["appends_sent"]
        taken = node.engine.log_last_index
        node.engine.steady_off()
        replica = replica_of(node)
        replica.steady, room = None, replica.room
        takes = room.takes

        def no_room_for_the_next(message: Append, now_ns: int) -> bool:
            return room.refuse(now_ns) if message.prev_index == taken else takes(message, now_ns)

        room.takes = no_room_for_the_next  # type: ignore[method-assign]
        tags = [world.call(encode_command("SET", f"k{i}", "v" * 60_000), leader, ms=3000) for i in range(40)]
        world.run(30)
        assert node.counters["raft_drop_log_full"] > 0
        assert world.nodes[leader].counters["appends_sent"] - before < 300
        del room.takes
        world.run_until(lambda: all(tag in world.client.ended for tag in tags), 3000)
        world.run_until(lambda: len(world.digests()) == 1, 1000)


def test_what_was_held_for_a_leader_is_taken_within_the_logs_bound() -> None:
    """All of it went into the log, many times its bound: more than the followers' logs take."""
    with World(seed=5, log_bytes_max=64_000) as world:
        tags = [world.call(encode_command("SET", f"k{i}.{to}", "v" * 5000), to) for i in range(30) for to in range(3)]
        leader = world.elect()
        status = world.nodes[leader].status()
        assert status["log_last_index"] > 5
        assert status["counters"].get("drops_log_full", 0) > 5
        appended = status["counters"]["log_appended"]
        assert appended * 5000 < 2 * 64_000
        world.run_until(lambda: all(tag in world.client.ended for tag in tags), 3000)
        assert {world.client.ended[tag][0] for tag in tags} == {DONE_OK, DONE_DROPPED}
