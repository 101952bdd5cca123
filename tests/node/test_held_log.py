"""A member that holds the log back: evicted, or waited for."""

from __future__ import annotations

from r2p2.apps.kv import encode_command
from r2p2.engine import DONE_DROPPED
from tests.node.members import fill, in_sync, member, slots, votes
from tests.node.support import World, replica_of


def test_a_member_that_is_down_is_evicted_and_taken_in_again() -> None:
    with World(seed=30, log_bytes_max=100_000, truncation="evict") as world:
        leader = world.elect()
        victim = (leader + 1) % 3
        world.kill(victim)
        world.run(300)
        fill(world, leader, 400, size=500)
        status = world.nodes[leader].status()
        assert status["evicted"] == [victim]
        assert status["counters"]["members_evicted"] == 1
        assert sorted(slots(world, leader)) == sorted(world.nodes)
        assert any(f"evicts slot {victim}" in text for _, i, text in world.events if i == leader)
        world.launch(victim)
        world.run(1000)
        assert not votes(world, victim), "who was evicted is not let in unasked"
        assert member(world, leader, "add", victim, f"10.0.0.{victim + 1}:8000")["ok"]
        world.run_until(lambda: votes(world, victim) and in_sync(world), 2000)


def test_a_member_that_only_lags_is_not_evicted() -> None:
    """It answers, and its answers say that it has applied little: it is slow, not down."""
    with World(seed=31, log_bytes_max=100_000, truncation="evict") as world:
        leader = world.elect()
        slow = world.nodes[(leader + 1) % 3]
        raft = replica_of(slow).raft
        slow._applying.apply = lambda raft: None  # type: ignore[method-assign]
        # Nor does it say that there is more to do at once.
        poll_once = slow.poll_once
        slow.poll_once = lambda: poll_once() and 0  # type: ignore[method-assign]
        slow.next_deadline_ns = lambda: raft.deadline_ns  # type: ignore[method-assign]
        tags = [world.call(encode_command("SET", f"k{i}", "v" * 500), leader) for i in range(300)]
        world.run(1000)
        assert all(tag in world.client.ended for tag in tags)
        status = world.nodes[leader].status()
        assert status["evicted"] == []
        assert slots(world, leader) == [0, 1, 2]
        assert status["log_held_by"]["slot"] == (leader + 1) % 3
        assert status["counters"]["drops_log_full"] > 0


def test_requests_are_refused_until_the_member_is_back() -> None:
    with World(seed=32, log_bytes_max=100_000, truncation="block") as world:
        leader = world.elect()
        victim = (leader + 1) % 3
        world.kill(victim)
        statuses = [world.ask(encode_command("SET", f"k{i}", "v" * 1000), leader)[0] for i in range(120)]
        assert statuses[-1] == DONE_DROPPED
        status = world.nodes[leader].status()
        assert status["log_bytes"] <= 102_000
        assert status["log_held_by"] | {"silent_ms": 0, "incarnation": ""} == {
            "slot": victim,
            "incarnation": "",
            "address": f"10.0.0.{victim + 1}:8000",
            "bytes": status["log_bytes"],
            "silent_ms": 0,
        }
        world.launch(victim)
        world.run_until(lambda: votes(world, victim), 3000)
        fill(world, leader, 20, start=1000)
        world.run_until(lambda: in_sync(world), 1000)
        world.run_until(lambda: world.nodes[leader].status()["log_held_by"] is None, 100)
