"""A cluster in one event loop: a member is stopped and comes back without its memory."""

from __future__ import annotations

import asyncio

from examples.counter import Counter
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
