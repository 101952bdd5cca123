"""A cluster in one event loop: a member is stopped and comes back without its memory."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from examples.counter import Counter
from r2p2.client import REPLICATED_READ, Client
from r2p2.errors import CallDropped, CallError, CallTimeout
from r2p2.local import LocalCluster, LocalServer
from r2p2.requests import Requests
from r2p2.server import Service


async def add(client: object, number: int) -> int:
    while True:
        try:
            return int(await client.call(b"%d" % number))  # type: ignore[attr-defined]
        except CallError:
            continue  # an election is on; a request that was executed after all would show in the sum


def test_a_stopped_member_comes_back_and_knows_the_sum() -> None:
    async def run() -> None:
        async with LocalCluster(Counter) as cluster, cluster.client(timeout_s=2.0) as client:
            assert await add(client, 5) == 5
            slot = next(i for i in range(3) if i != cluster.leader)
            cluster.stop_member(slot)
            assert await add(client, 6) == 11
            cluster.start_member(slot)
            async with asyncio.timeout(20):
                while not cluster.nodes[slot].status()["formed"]:
                    await asyncio.sleep(0.005)
                assert await add(client, 7) == 18
                app = cluster.nodes[slot].app
                while not isinstance(app, Counter) or app.total != 18:
                    await asyncio.sleep(0.005)

    asyncio.run(run())


class Reading(Counter):
    """Answers reads with the sum."""

    def query(self, request: bytes) -> bytes:
        return b"%d" % self.total


def test_spread_reads_are_answered_by_every_member_with_what_was_written_before() -> None:
    async def run() -> None:
        async with LocalCluster(Reading) as cluster, cluster.client(timeout_s=2.0, spread_reads=True) as client:
            total = 0
            for number in range(1, 7):
                total = await add(client, number)
                leader = cluster.leader
                assert await client.call(b"sum", policy=REPLICATED_READ) == b"%d" % total
                assert cluster.leader == leader
            answered = [node.status()["counters"].get("reads_answered", 0) for node in cluster.nodes]
            assert sum(answered) == 6
            assert all(answered)
            forwarded = [node.status()["counters"].get("forwarded_requests", 0) for node in cluster.nodes]
            assert sum(forwarded) <= 1  # answers to reads do not make a follower the one that writes go to

    asyncio.run(run())


@contextmanager
def mute() -> Iterator[str]:
    """The address of a socket that takes everything and answers nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize("spread_reads", [False, True])
def test_reads_go_on_when_any_member_stops(spread_reads: bool) -> None:
    async def run() -> None:
        for stopped in range(3):
            async with (
                LocalCluster(Reading) as cluster,
                cluster.client(timeout_s=5.0, spread_reads=spread_reads) as client,
            ):
                total = await add(client, 5)
                cluster.stop_member(stopped)
                for _ in range(6):
                    assert await client.call(b"sum", policy=REPLICATED_READ) == b"%d" % total

    asyncio.run(run())


def test_a_read_passes_over_who_is_silent() -> None:
    async def run() -> None:
        with mute() as nobody, mute() as neither:
            async with LocalCluster(Reading) as cluster:
                addresses = cluster.addresses
                async with Client(nobody, neither, *addresses, timeout_s=5.0) as client:
                    began = time.monotonic()
                    assert await client.call(b"sum", policy=REPLICATED_READ) == b"0"
                    assert time.monotonic() - began >= 0.3, "0.1 and 0.2 s for the two"
                    assert await client.call(b"sum", policy=REPLICATED_READ, timeout_s=0.1) == b"0", (
                        "it is left out now"
                    )

    asyncio.run(run())


def test_a_read_that_nobody_answers_ends_in_time_and_says_how_often_it_was_tried() -> None:
    async def run() -> None:
        with mute() as nobody:
            async with Client(nobody) as client:
                with pytest.raises(CallTimeout, match=r"no answer in 0\.5 s and 3 tries; the last: no answer from"):
                    await client.call(b"sum", policy=REPLICATED_READ, timeout_s=0.5)
                with pytest.raises(CallTimeout, match=r"^no answer from .* after \d+\.\d ms"):
                    await client.call(b"sum", policy=REPLICATED_READ, timeout_s=0.05)
                with pytest.raises(CallTimeout, match=r"^no answer from .* after \d{3,}\.\d ms"):
                    await client.call(b"sum", policy=REPLICATED_READ, timeout_s=0.2, target=nobody)

    asyncio.run(run())


def test_a_read_that_everybody_refuses_ends_in_time() -> None:
    async def run() -> None:
        async with LocalCluster(Reading) as cluster, cluster.client() as client:
            await add(client, 1)
            for slot in (0, 1):
                cluster.stop_member(slot)
            async with Client(cluster.addresses[2], timeout_s=2.0) as lonely:
                with pytest.raises((CallDropped, CallTimeout), match="a read had no answer in 2 s and"):
                    await lonely.call(b"sum", policy=REPLICATED_READ)

    asyncio.run(run())


class Broken(Counter):
    """Ends every member that applies anything."""

    def apply(self, requests: Requests) -> list[bytes]:
        raise RuntimeError("broken")


def test_a_member_that_ends_by_itself_says_so_at_once_and_leads_no_more(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with LocalCluster(Broken) as cluster, cluster.client(timeout_s=0.2) as client:
            leader = cluster.leader
            with pytest.raises(CallTimeout):
                await client.call(b"1")
            assert f"member {leader} has ended: RuntimeError('broken')" in caplog.messages
            assert cluster.leader != leader

    asyncio.run(run())


def test_a_local_server_that_ends_by_itself_says_so_at_once(caplog: pytest.LogCaptureFixture) -> None:
    service = Service()

    @service.batch_handler()
    def broken(requests: Requests) -> list[bytes]:
        raise RuntimeError("broken")

    async def run() -> None:
        async with LocalServer(service) as server, Client(server.address, timeout_s=0.2) as client:
            with pytest.raises(CallTimeout):
                await client.call(b"x", policy=1)
            assert caplog.messages == [f"the server at {server.address} has ended: RuntimeError('broken')"]

    asyncio.run(run())
