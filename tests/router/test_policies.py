"""Which server gets a request: the policies one by one, and JBSQ's bound under any order of events."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2p2.errors import UserError
from r2p2.router import RouterConfig, parse_policy
from tests.router.support import DROP, ROUTER, RouterWorld, check_books

MODES = ["relay", "direct"]


@pytest.mark.parametrize("mode", MODES)
def test_round_robin_takes_turns(mode: str) -> None:
    with RouterWorld(3, policy="round-robin", mode=mode) as world:
        world.calls(9)
        assert world.held() == [3, 3, 3]
        assert [int(request.payload) for request in world.raw(1).held] == [1, 4, 7]


def test_random_is_even_and_replays_from_its_seed() -> None:
    counts = []
    for seed in (1, 1, 2):
        with RouterWorld(4, policy="random", seed=seed) as world:
            world.calls(2000)
            counts.append(world.held())
    assert counts[0] == counts[1] != counts[2]
    # 500 each; 5 standard deviations are 97.
    assert all(400 < count < 600 for count in counts[0] + counts[2])


def test_jsq_fills_the_shortest_queue() -> None:
    with RouterWorld(3, policy="jsq") as world:
        world.calls(30)
        assert world.held() == [10, 10, 10]
        world.raw(2).finish()
        world.run()
        assert world.outstanding() == [10, 10, 0]
        world.calls(9)
        assert world.held() == [10, 10, 9]


@pytest.mark.parametrize("mode", MODES)
def test_jbsq_keeps_the_rest_and_sends_it_in_order(mode: str) -> None:
    with RouterWorld(3, policy="jbsq:2", mode=mode) as world:
        world.calls(10)
        assert world.held() == [2, 2, 2]
        assert world.router.queued_count == 4
        world.raw(1).finish(1)
        world.run()
        assert world.held() == [2, 2, 2]
        assert [int(r.payload) for r in world.raw(1).held][-1] == 6, "who waits longest goes first"
        for _ in range(5):
            for i in range(3):
                world.raw(i).finish()
            world.run()
        assert sum(world.raw(i).seen_count for i in range(3)) == 10
        assert {status for status, _ in world.client.ended.values()} == {0}
        assert len(world.client.ended) == 10
        world.run(2000)
        check_books(world)
        assert world.count("requests_queued") == 4


def test_a_new_request_does_not_overtake_those_that_wait() -> None:
    with RouterWorld(1, policy="jbsq:1") as world:
        world.calls(2)
        world.raw(0).finish()  # the slot comes back in the same burst as the next request
        world.call(b"third")
        world.run()
        assert [request.payload for request in world.raw(0).held] == [b"1"]
        assert world.router.queued_count == 1


def test_jbsq_refuses_beyond_the_queue() -> None:
    with RouterWorld(2, policy="jbsq:1", queue_count_max=3) as world:
        tags = world.calls(8)
        assert world.held() == [1, 1]
        assert world.count("drops_queue_full") == 3
        assert [world.client.ended.get(tag) for tag in tags[5:]] == [(2, b"")] * 3, "DROP"
        assert not set(tags[:5]) & world.client.ended.keys()


def test_jbsq_refuses_who_waits_too_long() -> None:
    with RouterWorld(1, policy="jbsq:1", queue_timeout_ns=50_000_000, timeout_ns=10**9) as world:
        tags = world.calls(3)
        world.run(60)
        assert world.count("drops_queue_timeout") == 2
        assert [world.client.ended[tag] for tag in tags[1:]] == [(2, b"")] * 2
        world.raw(0).finish()
        world.run(2000)
        assert world.client.ended[tags[0]] == (0, b"ok")
        check_books(world)


def test_pending_table_is_bounded() -> None:
    with RouterWorld(2, policy="random", pending_count_max=5) as world:
        tags = world.calls(7)
        assert sum(world.held()) == 5
        assert world.count("drops_pending_full") == 2
        assert [world.client.ended[tag][0] for tag in tags[5:]] == [2, 2]


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(1, 4)),
        st.tuples(st.just("finish"), st.integers(0, 2)),
        st.tuples(st.just("answer only"), st.integers(0, 2)),
        st.tuples(st.just("feedback only"), st.integers(0, 2)),
        st.tuples(st.just("drop"), st.integers(0, 2)),
        st.tuples(st.just("forget"), st.integers(0, 2)),
        st.tuples(st.just("repeat"), st.integers(0, 2)),
        st.tuples(st.just("wait"), st.sampled_from([1, 30, 120])),
    ),
    max_size=60,
)


def do(world: RouterWorld, what: str, value: int) -> None:
    """One operation; those on a server take the oldest request it has."""
    if what == "call":
        world.calls(value)
        return
    if what == "wait":
        world.run(value)
        return
    server = world.raw(value)
    if not server.held:
        return
    # "repeat": what is answered will be answered again, late.
    request = server.held[0] if what == "repeat" else server.held.pop(0)
    if what in ("finish", "answer only", "repeat"):
        server.answer(request)
    if what in ("finish", "feedback only", "drop", "repeat"):
        server.feed_back(request)
    if what == "drop":
        server.answer(request, b"DROP", DROP)
    world.run()


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=60, deadline=None)
@given(operations=OPERATIONS, bound=st.integers(1, 3))
def test_jbsq_never_exceeds_its_bound_and_loses_no_slot(
    mode: str, operations: list[tuple[str, int]], bound: int
) -> None:
    options: dict[str, Any] = {"timeout_ns": 100_000_000, "queue_timeout_ns": 150_000_000, "down_ns": 50_000_000}
    with RouterWorld(3, policy=f"jbsq:{bound}", mode=mode, queue_count_max=8, **options) as world:
        expired = 0
        for what, value in operations:
            do(world, what, value)
            assert max(world.outstanding()) <= bound, (what, value)
            assert world.router.queued_count <= 8
            expired = world.count("requests_expired")
            if not expired and mode == "direct":
                # Until the router gives a request up, the bound holds at the servers themselves.
                gone_on = world.count("requests_answered")
                assert sum(world.raw(i).seen_count for i in range(3)) - gone_on <= 3 * bound
            if world.router.queued_count:
                free = [s for s in world.router.servers() if s.outstanding < bound and not s.is_down]
                assert not free, "nobody waits while a slot is free"
        world.run(2_000)
        check_books(world)


def test_policies_by_name() -> None:
    assert parse_policy("jbsq:7") == ("jbsq", 7)
    assert parse_policy("random")[0] == "random"
    for text in ("jbsq", "jbsq:", "jbsq:0", "jbsq:-1", "jbsq:99999", "jsq:3", "least", ""):
        with pytest.raises(UserError):
            parse_policy(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"servers": ()},
        {"servers": ((1, 1),) * 2},
        {"servers": tuple((1, i) for i in range(1, 66))},
        {"servers": ((1, 0),)},
        {"mode": "tunnel"},
        {"policy": "best"},
        {"pending_count_max": 40_000},
        {"queue_count_max": 0},
        {"timeout_ns": 0},
        {"misses_max": 0},
        {"local_port": 70_000},
    ],
)
def test_a_wrong_config_is_the_users_error(wrong: dict[str, object]) -> None:
    good: dict[str, object] = {"servers": ((1, 1),), "local_port": ROUTER[1]}
    with pytest.raises(UserError):
        RouterConfig(**(good | wrong))  # type: ignore[arg-type]
