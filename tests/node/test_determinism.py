"""The debug mode that compares replicas: it finds what an application does differently, and where."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from r2p2.app import StateMachine
from r2p2.apps.kv import KeyValue, encode_command
from r2p2.engine import DONE_OK
from r2p2.requests import Requests
from tests.node.session_world import Journal
from tests.node.support import World

_launched = itertools.count()


class Counting(StateMachine):
    """Correct: adds up what it is sent."""

    def __init__(self) -> None:
        self.total = 0
        self.member = next(_launched)

    def apply(self, requests: Requests) -> list[bytes]:
        return [self.one(request) for request in requests]

    def one(self, request: bytes) -> bytes:
        self.total += len(request)
        return b"%d" % self.total

    def state_digest(self) -> str:
        return str(self.total)


class RepliesDiffer(Counting):
    """Wrong: what it answers depends on which replica it is."""

    def one(self, request: bytes) -> bytes:
        reply = super().one(request)
        return reply + b" by %d" % self.member if request == b"who" else reply


class StatesDiffer(Counting):
    """Wrong: what it keeps depends on where a batch ends."""

    def apply(self, requests: Requests) -> list[bytes]:
        replies = super().apply(requests)
        if b"seed" in list(requests):
            self.total += self.member
        return [b"ok"] * len(replies)


def compare(make_app: Callable[[], StateMachine], requests: list[bytes], interval: int = 4) -> World:
    world = World(make_app=make_app, check_determinism=interval)
    leader = world.elect()
    for request in requests:
        status, _ = world.ask(request, leader)
        assert status == DONE_OK
    world.run(100)
    return world


def differences(world: World) -> list[dict[str, object]]:
    found = [node.status()["determinism"]["differs"] for node in world.nodes.values()]
    return [differs for differs in found if differs is not None]


@pytest.mark.parametrize("interval", [1, 3, 64])
def test_nothing_is_found_where_there_is_nothing(interval: int) -> None:
    requests = [encode_command("SET", f"k{i}", str(i), "PX", "50") for i in range(150)]
    with compare(KeyValue, requests, interval) as world:
        leader = world.leader
        assert not differences(world)
        for slot, node in world.nodes.items():
            checks = node.status()["determinism"]["checks"]
            assert checks >= (0 if slot == leader else 150 // interval - 2)
        index = world.nodes[0].engine.log_last_index
        world.run(500)
        assert world.nodes[0].engine.log_last_index <= index + 60, "notes do not beget notes"
        world.run(500)
        assert len(world.digests()) == 1


def test_replies_that_differ_are_named() -> None:
    with compare(RepliesDiffer, [b"a", b"b", b"who"] + [b"c"] * 20) as world:
        leader = world.leader
        found = differences(world)
        assert {differs["member"] for differs in found} == set(world.nodes) - {leader}
        for differs in found:
            assert differs["what"] == ["replies"]
            assert differs["other"] == leader
            assert differs["index"] in (4, 8)
        said = [text for _, _, text in world.events if "NOT DETERMINISTIC" in text]
        assert len(said) == 2, "once a member"
        assert f"member {leader} differ" in said[0] and "at index" in said[0]
        counted = [node.counters["determinism_differences"] for node in world.nodes.values()]
        assert sorted(counted) == [0, 1, 1]


def test_states_that_differ_are_named() -> None:
    with compare(StatesDiffer, [b"a", b"seed"] + [b"c"] * 20) as world:
        found = differences(world)
        assert len(found) == 2
        assert all(differs["what"] == ["state"] for differs in found)
        # From there on every place differs.
        assert all(node.counters["determinism_differences"] != 1 for node in world.nodes.values())


def test_a_member_that_comes_back_compares_on() -> None:
    with compare(Journal, [b"%d" % i for i in range(30)]) as world:
        leader = world.leader
        assert leader is not None
        other = (leader + 1) % 3
        world.kill(other)
        world.ask(b"x", leader)
        world.launch(other)
        world.run(500)
        for i in range(40):
            world.ask(b"y%d" % i, leader)
        world.run(100)
        assert not differences(world)
        assert world.nodes[other].status()["determinism"]["checks"] > 0
        assert len(world.digests()) == 1


def test_over_a_change_of_leaders() -> None:
    with compare(Counting, [b"1"] * 30) as world:
        leader = world.leader
        assert leader is not None
        world.kill(leader)
        after = world.elect()
        for _ in range(30):
            world.ask(b"2", after)
        world.run(100)
        assert not differences(world)
