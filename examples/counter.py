"""A replicated counter in one file: three members, one client, and the leader stopped half way.

Run it: ``python examples/counter.py``. It needs no set-up beyond ``pip install .``: the members are in this process and
talk over UDP on loopback. ``r2p2 serve --app examples.counter:Counter --members ...`` runs the same class as processes.
"""

import asyncio

import r2p2


class Counter(r2p2.StateMachine):
    """Requests are numbers to add; the reply is the sum so far."""

    def __init__(self) -> None:
        self.total = 0

    def apply(self, requests: r2p2.Requests) -> list[bytes]:
        """Called with committed requests only, in the same order on every member."""
        replies = []
        for request in requests:
            try:
                self.total += int(request)
            except ValueError:
                replies.append(b"not a number")
            else:
                replies.append(b"%d" % self.total)
        return replies

    def snapshot(self) -> bytes:
        """The whole state, for a member that comes back or is new."""
        return b"%d" % self.total

    def restore(self, data: bytes) -> None:
        """The state as it was then."""
        self.total = int(data)


async def main() -> None:
    """Adds up, loses the leader, goes on."""
    async with r2p2.LocalCluster(Counter, size=3) as cluster, cluster.client(session=True, timeout_s=5.0) as client:
        for number in (1, 2, 3):
            print("+", number, "=", (await client.call(b"%d" % number)).decode())

        leader = cluster.leader
        assert leader is not None
        print("member", leader, "leads; it is stopped now")
        cluster.stop_member(leader)

        # In a session: sent again until the others have elected one of them, and yet added once.
        print("+ 4 =", (await client.call(b"4")).decode())


if __name__ == "__main__":
    asyncio.run(main())
