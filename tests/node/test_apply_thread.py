"""Ordered apply on a thread: a handler that blocks costs no election; order, reads, snapshots and ends are right."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from r2p2.app import StateMachine
from r2p2.apps.kv import KeyValue, encode_command
from r2p2.engine import DONE_OK
from r2p2.errors import UserError
from r2p2.local import LocalCluster
from r2p2.memory import MemoryNetwork
from r2p2.node import Node, NodeConfig
from r2p2.node.apply_thread import ApplyThread, Done
from r2p2.requests import ReplySequence, Requests
from tests.node.session_world import Journal, SessionWorld
from tests.node.support import World

OK = b"+OK\r\n"
READ = 3
FIXED = 1


class HeldThread(ApplyThread):
    """The thread, without one: a batch is done when the test says so, or at the next look while nothing is held."""

    def __init__(self, apply: Callable[[Requests], ReplySequence]) -> None:
        self._apply_now = apply
        self.wake = None
        self.held = False
        self.batch: Requests | None = None

    @property
    def busy(self) -> bool:
        return self.batch is not None

    @property
    def is_done(self) -> bool:
        return self.batch is not None and not self.held

    def busy_ns(self) -> int:
        return 1 if self.busy else 0

    def submit(self, requests: Requests) -> None:
        assert self.batch is None
        self.batch = requests

    def take(self) -> Done:
        assert self.batch is not None
        requests, self.batch = self.batch, None
        try:
            return Done(self._apply_now(requests), None, 0)
        except Exception as error:
            return Done((), error, 0)

    def close(self) -> None:
        """Nothing to end."""


def hold_threads(world: World) -> dict[int, HeldThread]:
    """Gives every node a thread that the test holds."""
    threads = {}
    for slot, node in world.nodes.items():
        threads[slot] = HeldThread(node.app.apply)
        node._apply_apart(threads[slot])
    return threads


def test_a_busy_application_keeps_its_member_in_office() -> None:
    with World() as world:
        threads = hold_threads(world)
        leader = world.elect()
        assert world.ask(encode_command("SET", "a", "1"), leader) == (DONE_OK, OK)
        term = world.nodes[leader].status()["term"]
        threads[leader].held = True
        first = world.call(encode_command("SET", "a", "2"), leader, ms=5000)
        world.run(50)
        assert threads[leader].busy
        others = [world.call(encode_command("APPEND", "a", str(i)), leader, ms=5000) for i in range(50)]
        world.run(1500)  # seven election timeouts
        assert world.leader == leader and world.nodes[leader].status()["term"] == term
        status = world.nodes[leader].status(with_state=True)
        assert (status["apply_busy_ms"], status["state_digest"]) == (0, "")
        assert status["commit_index"] > status["applied_index"], "replication goes on"
        followers = [node.engine.applied_index for slot, node in world.nodes.items() if slot != leader]
        assert min(followers) == status["commit_index"], "those that are not busy apply"
        threads[leader].held = False
        world.run_until(lambda: others[-1] in world.client.ended, 2000)
        assert world.client.ended[first] == (DONE_OK, OK)
        replies = [world.client.ended[tag][1] for tag in others]
        assert len(set(replies)) == 50, "each a length of its own"
        assert b":91\r\n" in replies, "the last has all of them before it"
        world.run(50)
        assert len(world.digests()) == 1


def test_reads_and_queries_wait_for_the_batch_that_is_out() -> None:
    with World() as world:
        threads = hold_threads(world)
        leader = world.elect()
        world.ask(encode_command("SET", "a", "1"), leader)
        threads[leader].held = True
        write = world.call(encode_command("SET", "a", "2"), leader, ms=5000)
        world.run(20)
        read = world.call(encode_command("GET", "a"), leader, READ, ms=5000)
        query = world.call(encode_command("GET", "a"), leader, FIXED, ms=5000)
        world.run(100)
        assert not {write, read, query} & set(world.client.ended)
        threads[leader].held = False
        world.run(20)
        assert world.client.ended[write] == (DONE_OK, OK)
        for tag in (read, query):
            assert world.client.ended[tag] == (DONE_OK, b"$1\r\n2\r\n")
        assert world.ask(encode_command("GET", "a"), leader, FIXED) == (DONE_OK, b"$1\r\n2\r\n")


def test_a_snapshot_waits_and_comes_under_load() -> None:
    with World(log_bytes_max=40_000) as world:
        threads = hold_threads(world)
        leader = world.elect()
        other = (leader + 1) % 3
        world.kill(other)
        for i in range(600):
            world.call(encode_command("SET", f"k{i}", "v" * 50), leader)
            world.run(0.2)
            threads[leader].held = i % 7 == 3
        threads[leader].held = False
        world.run(50)
        assert world.nodes[leader].counters["snapshots_taken"] > 0
        world.launch(other)
        world.nodes[other]._apply_apart(HeldThread(world.nodes[other].app.apply))
        world.run(1000)
        assert world.nodes[other].counters["snapshots_restored"] > 0
        assert len(world.digests()) == 1


def test_a_snapshot_that_comes_while_a_batch_is_out_takes_its_place() -> None:
    """The member that is busy falls so far behind that the leader has only a snapshot for it."""
    with World(log_bytes_max=40_000) as world:
        threads = hold_threads(world)
        leader = world.elect()
        slow = (leader + 1) % 3
        threads[slow].held = True
        for i in range(700):
            world.call(encode_command("SET", f"k{i}", "v" * 50), leader)
            world.run(0.3)
        assert threads[slow].busy or world.nodes[slow].counters["snapshots_restored"] > 0
        threads[slow].held = False
        world.run(1000)
        assert len(world.digests()) == 1


def test_sessions_are_exactly_once_with_threads_and_lost_leaders() -> None:
    with SessionWorld(clients=2, seed=5) as world:
        threads = hold_threads(world)
        world.network.faults(loss_ppm=20_000, delay_min_ns=5_000, delay_max_ns=60_000)
        leader = world.elect()
        for i in range(60):
            for number, caller in enumerate(world.callers):
                caller.call(b"%d-%d" % (number, i), ms=20_000)
            threads[leader].held = i % 5 == 0
            world.run(3)
            if i == 30:
                world.kill(leader)
                leader = world.elect()
        threads[leader].held = False
        world.settle(20_000)
        world.check()


def test_time_goes_on_behind_a_busy_application() -> None:
    with World() as world:
        threads = hold_threads(world)
        leader = world.elect()
        world.ask(encode_command("SET", "a", "1", "PX", "100"), leader)
        threads[leader].held = True
        world.call(encode_command("SET", "b", "1"), leader, ms=5000)
        world.run(300)
        threads[leader].held = False
        world.run(50)
        assert world.ask(encode_command("GET", "a"), leader, READ) == (DONE_OK, b"$-1\r\n")


def test_an_exception_ends_the_member_as_it_does_without_a_thread() -> None:
    class Breaks(KeyValue):
        def apply(self, requests: Requests) -> ReplySequence:
            raise ZeroDivisionError

    with World(size=1, make_app=Breaks) as world:
        hold_threads(world)
        world.elect()
        world.call(b"x", 0)
        with pytest.raises(ZeroDivisionError):
            world.run(50)


def test_a_thread_needs_a_group() -> None:
    with MemoryNetwork() as network, pytest.raises(UserError, match="apply_thread without a Raft group"):
        Node(NodeConfig(apply_thread=True), network.open(0x0A000001, 8000), KeyValue())


class Blocking(Journal):
    """Blocks on the request "wait" until it is let go, on the member that is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = False
        self.entered, self.let_go = threading.Event(), threading.Event()
        self.threads: set[int] = set()

    def apply(self, requests: Requests) -> ReplySequence:
        self.threads.add(threading.get_ident())
        if self.blocks and b"wait" in list(requests):
            self.entered.set()
            assert self.let_go.wait(30)
        return super().apply(requests)


def test_a_handler_that_blocks_costs_no_election() -> None:
    """Real threads, real time: the handler of the leader is held for four election timeouts."""

    async def main() -> None:
        async with (
            LocalCluster(Blocking, size=3, apply_thread=True) as cluster,
            cluster.client(timeout_s=20, session=True) as client,
        ):
            assert await client.call(b"first") == b"1 first"
            leader = cluster.leader
            assert leader is not None
            term = cluster.nodes[leader].status()["term"]
            app = cluster.nodes[leader].app
            assert isinstance(app, Blocking)
            app.blocks = True
            waiting = asyncio.create_task(client.call(b"wait"))
            await asyncio.to_thread(app.entered.wait, 20)
            behind = [asyncio.create_task(client.call(b"behind %d" % i)) for i in range(20)]
            # Event to wait for there is none: what matters is that nothing happens for so long.
            await asyncio.sleep(0.8)
            status = cluster.nodes[leader].status()
            assert (status["role"], status["term"]) == ("leader", term)
            assert status["apply_busy_ms"] >= 700
            assert not waiting.done()
            app.let_go.set()
            assert await waiting == b"2 wait"
            assert sorted([int((await task).split()[0]) for task in behind]) == list(range(3, 23))
            status = cluster.nodes[leader].status()
            assert (status["role"], status["term"]) == ("leader", term)
            assert status["counters"]["handler_stalls"] >= 1  # a machine with other work may hold up another batch
            assert len(app.seen) == len(set(app.seen)) == 22
            assert app.threads == {app.threads.copy().pop()} and threading.get_ident() not in app.threads

    asyncio.run(main())


def test_a_stalled_handler_without_a_thread_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    worlds: list[World] = []  # while this holds one, a slow request takes time

    class Late(StateMachine):
        """Lets the network's clock go on while it works."""

        def apply(self, requests: Requests) -> list[bytes]:
            for world in worlds:
                if b"slow" in list(requests) and self is world.nodes[leader].app:
                    world.network.advance(150_000_000)
            return [b"ok"] * len(requests)

    with World(make_app=Late) as world:
        leader = world.elect()
        worlds.append(world)
        assert world.ask(b"quick", leader) == (DONE_OK, b"ok")
        assert world.nodes[leader].counters["handler_stalls"] == 0
        world.call(b"slow", leader)
        world.run(50)
        assert world.nodes[leader].counters["handler_stalls"] == 1
        assert "longer than an election timeout" in caplog.text
