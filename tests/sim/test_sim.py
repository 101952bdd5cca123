"""Seeds through the simulator, and proof that its checkers see."""

from __future__ import annotations

import json

import pytest

from r2p2.sim.checkers import Checkers, Violation
from r2p2.sim.node import Disk
from r2p2.sim.options import MS, Options
from r2p2.sim.world import World
from raft import VoteReply
from raft.list_log import ListLog

EVENTS = 1_000
SEEDS_A_TEST = 50


@pytest.mark.parametrize("first", range(10_000, 10_400, SEEDS_A_TEST))
def test_no_seed_breaks_a_property(first: int) -> None:
    """Whatever the seed draws: safe throughout, live after healing."""
    for seed in range(first, first + SEEDS_A_TEST):
        World(seed).run(EVENTS)


def test_a_seed_is_a_run() -> None:
    """The same events, down to the last: a failure can be replayed."""
    runs = [World(17) for _ in range(2)]
    for world in runs:
        world.run(EVENTS)
    assert runs[0].counts == runs[1].counts
    assert runs[0].trace.ndjson() == runs[1].trace.ndjson()
    assert runs[0].counts["delivered"] > 100


def test_what_the_options_promise_happens() -> None:
    """A simulator that injects nothing proves nothing."""
    totals: dict[str, int] = {}
    for seed in range(4):
        options = Options(
            loss=0.1,
            duplicate=0.1,
            straggler=0.1,
            sync_max_ns=5 * MS,
            fault_mean_ns=40 * MS,
            disk_losses=True,
            slow_members=True,
            spares_count=2,
            sessions_max=2,
            change_mean_ns=20 * MS,
            snapshot_mean_ns=20 * MS,
        )
        world = World(seed, options)
        world.run(20_000)
        assert len(world.checkers.leaders) > 3
        assert world.checkers.committed_last > 100
        assert len(world.checkers.configurations) > 3
        for what, count in world.counts.items():
            totals[what] = totals.get(what, 0) + count
    assert all(count > 1 for count in totals.values()), {what: n for what, n in totals.items() if n <= 1}


def test_an_undisturbed_cluster_keeps_its_leader() -> None:
    """No faults: one election, everything proposed is committed, every operation answered at once."""
    world = World(5, Options(fault_mean_ns=0))
    world.run(10_000)
    assert len(world.checkers.leaders) == 1
    assert world.counts["proposals"] <= world.checkers.committed_last
    assert world.counts["calls"] - 10 <= world.counts["answers"] <= world.counts["calls"] + 3
    assert world.checkers.committed_last > 500


def test_a_failure_says_how_to_replay_it_and_leaves_a_trace() -> None:
    """A canary: somebody else is said to have led in term 1 already."""
    world = World(8, Options(fault_mean_ns=0))
    world.checkers.leaders[1] = 99
    with pytest.raises(Violation, match=r"99 and \d lead in term 1(.|\n)*replay: r2p2 sim --seeds 8:9 --events 500 "):
        world.run(500)
    lines = [json.loads(line) for line in world.trace.ndjson().splitlines()]
    assert {"t_ns", "event"} <= set(lines[-1])


def test_two_votes_in_one_term_are_seen() -> None:
    """Even of different processes of one member."""
    checkers = Checkers((0, 1, 2), lambda i: Disk())
    checkers._said(0, VoteReply(0, 1, 4, True))
    checkers._said(0, VoteReply(0, 1, 4, True))
    with pytest.raises(Violation, match="election safety"):
        checkers._said(0, VoteReply(0, 2, 4, True))
    with pytest.raises(Violation, match="speaks as"):
        checkers._said(0, VoteReply(1, 2, 4, False))


def test_forgetting_what_another_disk_lacks_is_seen() -> None:
    """The prefix belongs to everybody."""
    disks = {0: Disk(log=ListLog([(1, "a", 16)] * 5)), 1: Disk(log=ListLog([(1, "a", 16)] * 3))}
    checkers = Checkers((0, 1), lambda i: disks[i])
    checkers._all_hold(0, 3, checkers.configuration)
    assert checkers.forgettable == 3
    with pytest.raises(Violation, match="forgetting"):
        checkers._all_hold(0, 4, checkers.configuration)
