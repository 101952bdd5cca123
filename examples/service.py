"""A service without replicas in one file: every form of handler, and a client that meets every kind of failure.

Run it: ``python examples/service.py``. ``r2p2 serve --app examples.service:service`` serves the same handlers as a
process, and ``r2p2 call 127.0.0.1:8000 hello`` asks it.
"""

import asyncio

import r2p2

service = r2p2.Service()


@service.handler(r2p2.FIXED_ROUTE)
async def slow_upper(request: bytes) -> bytes:
    """A coroutine: others are served while it waits."""
    await asyncio.sleep(0.01)
    return request.upper()


@service.batch_handler(r2p2.LB_ROUTE)
def lengths(requests: r2p2.Requests) -> list[bytes]:
    """A batch: all requests of one poll, one reply each."""
    return [b"%d" % len(request) for request in requests]


async def main() -> None:
    """Serves and calls in one event loop."""
    async with r2p2.LocalServer(service) as server, r2p2.Client(server.address, timeout_s=0.2) as client:
        print(await client.call(b"hello", policy=r2p2.FIXED_ROUTE))
        print(await client.call_many([b"a", b"bb", b"c" * 5000], policy=r2p2.LB_ROUTE))
        for target, payload in ((server.address, bytes(400_000)), ("127.0.0.1:1", b"anybody there?")):
            try:
                await client.call(payload, policy=r2p2.FIXED_ROUTE, target=target)
            except r2p2.CallError as error:
                print(type(error).__name__, "-", error)
        try:
            await client.call(b"write", policy=r2p2.REPLICATED)
        except r2p2.CallDropped:
            print("CallDropped - this service has no replicas")


if __name__ == "__main__":
    asyncio.run(main())
