"""Replicated requests go to the current leader: with servers by hand, and with a real cluster whose leader dies."""

from __future__ import annotations

import pytest

from r2p2.router import Router, RouterConfig
from tests.node.support import World
from tests.router.support import CONTROL, DROP, MS, ROUTER, RouterWorld, server_address

MODES = ["relay", "direct"]
WRITE, READ = 2, 3


@pytest.mark.parametrize("mode", MODES)
def test_the_leader_is_who_answers(mode: str) -> None:
    with RouterWorld(3, mode=mode, policy="jbsq:1") as world:
        world.calls(4, WRITE)
        assert world.held() == [4, 0, 0], "no bound: the leader batches"
        assert world.outstanding() == [0, 0, 0], "replicated requests take no slots"
        request = world.raw(0).held.pop()
        leader = world.raw(2)  # the follower forwarded it
        leader.answer(request)
        leader.feed_back(request)
        world.run()
        assert world.router.leader == server_address(2)
        world.calls(2, WRITE)
        world.calls(1, READ)
        assert world.held() == [3, 0, 3]
        read = next(request for request in leader.held if request.policy == READ)
        world.raw(1).answer(read)
        world.raw(1).feed_back(read)
        world.run()
        assert world.router.leader == server_address(2), "anyone may answer a read"
        assert world.count("requests_replicated") == 7


@pytest.mark.parametrize("mode", MODES)
def test_a_leader_that_does_not_answer_is_left(mode: str) -> None:
    with RouterWorld(3, mode=mode, timeout_ns=100 * MS) as world:
        world.silent = {0}
        world.calls(3, WRITE)
        world.run(110)
        assert world.router.leader == server_address(1), "one step, though three expired"
        assert world.count("leader_changes") == 1
        assert not world.router.servers()[0].is_down, "a cluster without a majority says nothing about one server"
        world.calls(1, WRITE)
        assert world.held() == [0, 1, 0]


def test_what_expires_elsewhere_does_not_move_the_leader() -> None:
    with RouterWorld(3, timeout_ns=100 * MS) as world:
        world.calls(3, WRITE)
        world.raw(2).answer(world.raw(0).held.pop())
        world.run(110)
        assert world.count("requests_expired") == 2
        assert world.router.leader == server_address(2)


def test_a_member_that_refuses_is_left() -> None:
    with RouterWorld(2) as world:
        (tag,) = world.calls(1, WRITE)
        world.raw(0).answer(world.raw(0).held.pop(), b"DROP", DROP)
        world.run()
        assert world.client.ended[tag] == (2, b"")
        assert world.router.leader == server_address(1)


def test_a_leader_put_out_by_balanced_requests_gets_no_replicated_ones() -> None:
    with RouterWorld(2, policy="round-robin", misses_max=1, timeout_ns=100 * MS) as world:
        world.silent = {0}
        world.calls(1)
        world.run(110)
        world.calls(1, WRITE)
        assert world.held() == [0, 1]


class RoutedWorld(World):
    """A cluster behind a router."""

    def __init__(self, mode: str, seed: int = 1) -> None:
        super().__init__(3, seed, router_ip=CONTROL[0], router_port=CONTROL[1])
        config = RouterConfig(tuple(self.addresses.values()), ROUTER[1], mode=mode, timeout_ns=100 * MS, seed=seed)
        self.router = Router(config, self.network.open(*ROUTER))

    def run(self, ms: float) -> None:
        self.network.run([*self.nodes.values(), self.client, self.router], int(ms * MS))

    def ask_router(self, payload: bytes, policy: int, ms: int = 400) -> tuple[int, bytes]:
        self.tag += 1
        tag = self.tag
        self.client.call(tag, payload, ROUTER, policy, ms)
        self.run_until(lambda: tag in self.client.ended, ms + 50)
        return self.client.ended[tag]

    def __enter__(self) -> RoutedWorld:
        return self

    def __exit__(self, *exception: object) -> None:
        self.router.close()
        super().__exit__(None, None, None)


def resp(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_cluster_behind_a_router_survives_its_leader(mode: str, seed: int) -> None:
    with RoutedWorld(mode, seed) as world:
        first = world.elect()
        assert world.ask_router(resp(b"SET", b"k", b"1"), WRITE) == (0, b"+OK\r\n")
        world.run(1)
        assert world.router.leader == world.addresses[first]
        sent = [server.sent for server in world.router.servers()]
        for i in range(20):
            assert world.ask_router(resp(b"SET", b"k", b"%d" % i), WRITE)[0] == 0
        after = [server.sent for server in world.router.servers()]
        assert [b - a for a, b in zip(sent, after, strict=True)] == [20 if i == first else 0 for i in range(3)]
        assert world.ask_router(resp(b"GET", b"k"), READ) == (0, b"$2\r\n19\r\n")
        world.kill(first)
        outcomes = [world.ask_router(resp(b"SET", b"k", b"new"), WRITE)[0] for _ in range(8)]
        assert outcomes[-3:] == [0, 0, 0], outcomes
        second = world.leader
        assert second is not None
        assert second != first
        world.run(1)
        assert world.router.leader == world.addresses[second]
        assert world.ask_router(resp(b"GET", b"k"), READ) == (0, b"$3\r\nnew\r\n")
        world.run(300)
        assert world.router.pending_count == 0
