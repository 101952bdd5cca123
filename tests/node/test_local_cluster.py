"""A cluster in one event loop: a member is stopped and comes back without its memory."""

from __future__ import annotations

import asyncio

from examples.counter import Counter
from r2p2.client import REPLICATED_READ
from r2p2.errors import CallError
from r2p2.local import LocalCluster


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
