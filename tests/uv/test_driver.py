"""The asyncio driver over a scripted pollable and a socket pair, on asyncio's loop and on uvloop's."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from itertools import pairwise
from typing import Any

import pytest

from r2p2.driver import Pollable
from uv_backend.driver import AsyncDriver, run

Runner = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", pytest.param("uvloop", marks=pytest.mark.needs("uvloop"))])
def runner(request: pytest.FixtureRequest) -> Runner:
    """Runs a coroutine on each loop; five seconds at most."""
    return lambda main: run(asyncio.wait_for(main, 5), use_uvloop=request.param == "uvloop")


class Node:
    """Counts polls; finds `work` and reads one byte of its socket a poll; can set a deadline and fail."""

    def __init__(self) -> None:
        self.inside, self.outside = socket.socketpair()
        self.inside.setblocking(False)
        self.polls = 0
        self.polled_at: list[int] = []
        self.work: deque[int] = deque()
        self.deadline_ns: int | None = None
        self.on_poll: Callable[[], None] | None = None
        self.failure: Exception | None = None
        self.polled = asyncio.Event()

    def poll_once(self) -> int:
        self.polls += 1
        self.polled_at.append(self.now_ns())
        self.polled.set()
        if self.on_poll is not None:
            self.on_poll()
        if self.failure is not None:
            raise self.failure
        received = 0
        try:
            received = len(self.inside.recv(1))
        except BlockingIOError:
            received = 0
        return received + (self.work.popleft() if self.work else 0)

    def next_deadline_ns(self) -> int | None:
        return self.deadline_ns

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def fileno(self) -> int:
        return self.inside.fileno()

    async def next_poll(self) -> None:
        """Until it has been polled once more."""
        self.polled.clear()
        await self.polled.wait()

    async def settle(self) -> None:
        """Some turns of the loop, so that whatever is ready has run."""
        for _ in range(20):
            await asyncio.sleep(0)

    def close(self) -> None:
        self.inside.close()
        self.outside.close()


@pytest.fixture
def node() -> Iterator[Node]:
    """One node."""
    made = Node()
    yield made
    made.close()


def test_a_node_is_pollable(node: Node) -> None:
    assert isinstance(node, Pollable)


def test_it_polls_at_the_start_and_then_rests(node: Node, runner: Runner) -> None:
    async def main() -> None:
        async with AsyncDriver(node, node.fileno()):
            await node.next_poll()
            await node.settle()
            assert node.polls == 1

    runner(main())


def test_it_polls_when_the_descriptor_is_readable_until_nothing_is_left(node: Node, runner: Runner) -> None:
    async def main() -> None:
        async with AsyncDriver(node, node.fileno()):
            await node.next_poll()
            node.outside.send(b"abc")
            await node.next_poll()
            await node.settle()
            assert node.polls == 1 + 3 + 1, "three bytes and the poll that finds none"

    runner(main())


def test_others_get_their_turn_between_runs_of_polls(node: Node, runner: Runner) -> None:
    async def main() -> None:
        node.work.extend([1] * 1000)
        turns: list[int] = []
        async with AsyncDriver(node, node.fileno(), polls_max=10):
            while node.work:
                await asyncio.sleep(0)
                turns.append(node.polls)
        steps = [later - earlier for earlier, later in pairwise(turns)]
        assert max(steps) <= 10
        assert sum(steps) > 900, "the turns cover nearly all polls"

    runner(main())


def test_a_deadline_is_met_and_met_again_without_drift(node: Node, runner: Runner) -> None:
    period_ns = 5_000_000

    async def main() -> None:
        start_ns = node.now_ns()

        def advance() -> None:
            while node.deadline_ns is None or node.deadline_ns <= node.now_ns():
                node.deadline_ns = (node.deadline_ns or start_ns) + period_ns

        node.on_poll = advance
        async with AsyncDriver(node, node.fileno()):
            while node.polls < 21:
                await node.next_poll()
        # Every poll after the first came by the timer. Libuv can fire a fraction of a millisecond early, and then once
        # more; but not several times a period.
        elapsed_ns = node.polled_at[20] - start_ns
        assert elapsed_ns >= 10 * period_ns
        assert node.deadline_ns is not None
        assert (node.deadline_ns - start_ns) % period_ns == 0

    runner(main())


def test_a_deadline_in_the_past_is_polled_at_once_and_others_still_run(node: Node, runner: Runner) -> None:
    async def main() -> None:
        node.deadline_ns = 1
        async with AsyncDriver(node, node.fileno()):
            await node.next_poll()
            await asyncio.sleep(0.01)
            assert node.polls > 2
            node.deadline_ns = None

    runner(main())


def test_a_deadline_that_comes_nearer_is_met_in_time(node: Node, runner: Runner) -> None:
    async def main() -> None:
        node.deadline_ns = node.now_ns() + 60_000_000_000
        async with AsyncDriver(node, node.fileno()) as driver:
            await node.next_poll()
            near_ns = node.now_ns() + 20_000_000
            node.deadline_ns = near_ns
            driver.wake()
            await node.next_poll()
            assert node.now_ns() < near_ns
            await node.next_poll()
            assert node.now_ns() >= near_ns - 2_000_000
            node.deadline_ns = None

    runner(main())


def test_a_deadline_that_goes_away_is_not_polled(node: Node, runner: Runner) -> None:
    async def main() -> None:
        node.deadline_ns = node.now_ns() + 10_000_000
        async with AsyncDriver(node, node.fileno()) as driver:
            await node.next_poll()
            node.deadline_ns = None
            driver.wake()
            await node.next_poll()
            before = node.polls
            await asyncio.sleep(0.03)
            assert node.polls == before

    runner(main())


def test_many_wakes_in_one_turn_are_one_poll(node: Node, runner: Runner) -> None:
    async def main() -> None:
        async with AsyncDriver(node, node.fileno()) as driver:
            await node.next_poll()
            for _ in range(100):
                driver.wake()
            await node.settle()
            assert node.polls == 2

    runner(main())


def test_stop_ends_polling_and_releases_the_descriptor(node: Node, runner: Runner) -> None:
    async def main() -> None:
        driver = AsyncDriver(node, node.fileno())
        driver.start()
        await node.next_poll()
        node.deadline_ns = node.now_ns() + 1_000_000
        driver.wake()
        await node.next_poll()
        driver.stop()
        driver.stop()
        assert not driver.running
        before = node.polls
        node.outside.send(b"x")
        driver.wake()
        await asyncio.sleep(0.01)
        assert node.polls == before
        await driver.wait_closed()
        with pytest.raises(RuntimeError, match="once"):
            driver.start()

    runner(main())


def test_stop_from_inside_a_poll(node: Node, runner: Runner) -> None:
    async def main() -> None:
        driver = AsyncDriver(node, node.fileno())
        node.on_poll = driver.stop
        node.deadline_ns = 1
        node.work.extend([1] * 100)
        driver.start()
        await driver.wait_closed()
        before = node.polls
        await node.settle()
        assert node.polls == before == 1

    runner(main())


def test_an_exception_of_a_poll_stops_the_driver_and_reaches_who_waits(node: Node, runner: Runner) -> None:
    async def main() -> None:
        driver = AsyncDriver(node, node.fileno())
        driver.start()
        await node.next_poll()
        node.failure = ZeroDivisionError("broken")
        node.outside.send(b"x")
        with pytest.raises(ZeroDivisionError, match="broken"):
            await driver.wait_closed()
        assert not driver.running
        before = node.polls
        await node.settle()
        assert node.polls == before
        with pytest.raises(ZeroDivisionError):
            await driver.wait_closed()

    runner(main())


def test_the_block_raises_what_the_poll_raised(node: Node, runner: Runner) -> None:
    async def main() -> None:
        node.failure = ZeroDivisionError("broken")
        with pytest.raises(ZeroDivisionError, match="broken"):
            async with AsyncDriver(node, node.fileno()):
                await node.next_poll()

    runner(main())


def test_the_blocks_own_exception_goes_first(node: Node, runner: Runner) -> None:
    async def main() -> None:
        node.failure = ZeroDivisionError("broken")
        with pytest.raises(KeyError):
            async with AsyncDriver(node, node.fileno()):
                await node.next_poll()
                raise KeyError

    runner(main())


def test_giving_up_waiting_does_not_stop_the_driver(node: Node, runner: Runner) -> None:
    async def main() -> None:
        async with AsyncDriver(node, node.fileno()) as driver:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(driver.wait_closed(), 0.01)
            assert driver.running

    runner(main())


def test_several_nodes_share_a_loop_and_fail_apart(runner: Runner) -> None:
    async def main() -> None:
        nodes = [Node() for _ in range(3)]
        drivers = [AsyncDriver(one, one.fileno()) for one in nodes]
        for driver in drivers:
            driver.start()
        await nodes[2].next_poll()
        nodes[0].failure = ZeroDivisionError()
        nodes[0].outside.send(b"x")
        with pytest.raises(ZeroDivisionError):
            await drivers[0].wait_closed()
        before = [one.polls for one in nodes]
        nodes[1].outside.send(b"y")
        await nodes[1].next_poll()
        await nodes[1].settle()
        assert [one.polls for one in nodes] == [before[0], before[1] + 2, before[2]]
        for driver, one in zip(drivers, nodes, strict=True):
            driver.stop()
            one.close()

    runner(main())


def test_misuse_is_refused(node: Node) -> None:
    with pytest.raises(ValueError, match="0"):
        AsyncDriver(node, node.fileno(), polls_max=0)
    with pytest.raises(RuntimeError, match="loop"):
        AsyncDriver(node, node.fileno()).start()
    with pytest.raises(RuntimeError, match="started"):
        asyncio.run(AsyncDriver(node, node.fileno()).wait_closed())


def test_run_returns_the_result_on_the_loop_asked_for() -> None:
    async def loop_module() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert not run(loop_module(), use_uvloop=False).startswith("uvloop")


@pytest.mark.needs("uvloop")
def test_run_takes_uvloop_where_it_is_installed() -> None:
    async def loop_module() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert run(loop_module()).startswith("uvloop")
    assert run(loop_module(), use_uvloop=True).startswith("uvloop")
