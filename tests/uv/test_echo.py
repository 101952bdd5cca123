"""Driver, port and engine together: two nodes in one event loop talk over loopback, on each port and each loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from r2p2 import limits
from r2p2.engine import DONE_OK, DONE_TIMEOUT, Completion, Engine
from tests.engine.support import EchoServer
from uv_backend import AsyncDriver, PortablePort, UdpPort, run

LOOPBACK = 0x7F000001
Port = UdpPort | PortablePort


def echo_server(port: Port) -> EchoServer:
    """Over a port that it keeps alive."""
    return EchoServer(Engine(port.address, keep=port))


class Caller:
    """Makes calls; each is a future."""

    def __init__(self, port: Port, server: Port) -> None:
        self.engine = Engine(port.address, keep=port)
        self.local_port = port.local_address[1]
        self.engine.client_open(self.local_port)
        self.target = (LOOPBACK, server.local_address[1])
        self.waiting: dict[int, asyncio.Future[Completion]] = {}
        self.calls = 0
        self.deadline_ns: int | None = None
        self.driver = AsyncDriver(self, port.fileno())

    def call(self, payload: bytes, timeout_ns: int = 5 * limits.SECOND) -> asyncio.Future[Completion]:
        """Begin one; the driver sends it in the loop's next turn."""
        self.calls += 1
        self.engine.call(self.local_port, self.target, payload, policy=1, timeout_ns=timeout_ns, tag=self.calls)
        ends_ns = self.engine.now_ns() + timeout_ns
        self.deadline_ns = min(self.deadline_ns or ends_ns, ends_ns)
        self.waiting[self.calls] = asyncio.get_running_loop().create_future()
        self.driver.wake()
        return self.waiting[self.calls]

    def poll_once(self) -> int:
        packets = self.engine.poll()[1]
        for ended in self.engine.completions():
            self.waiting.pop(ended.tag).set_result(ended)
        if not self.waiting:
            self.deadline_ns = None
        elif self.deadline_ns is not None and self.deadline_ns <= self.engine.now_ns():
            self.deadline_ns = self.engine.now_ns() + limits.MS  # the engine looks at deadlines about so often
        return packets

    def next_deadline_ns(self) -> int | None:
        return self.deadline_ns

    def now_ns(self) -> int:
        return self.engine.now_ns()


@pytest.fixture(params=["asyncio", pytest.param("uvloop", marks=pytest.mark.needs("uvloop"))])
def use_uvloop(request: pytest.FixtureRequest) -> bool:
    """Which loop."""
    return bool(request.param == "uvloop")


@pytest.fixture(params=[UdpPort, PortablePort])
def ports(request: pytest.FixtureRequest) -> Iterator[list[Port]]:
    """Two ports of each kind; nothing may be left with the engines at the end."""
    made: list[Port] = [request.param("127.0.0.1") for _ in range(2)]
    yield made
    assert [port.close() for port in made] == [0, 0]


def test_calls_of_all_sizes_come_back(ports: list[Port], use_uvloop: bool) -> None:
    server, caller = echo_server(ports[0]), Caller(ports[1], ports[0])
    payloads = [bytes([i % 251]) * size for i, size in enumerate([0, 64, 1464, 1465, 20_000, 100_000] * 20)]

    async def main() -> list[Completion]:
        async with AsyncDriver(server, ports[0].fileno()), caller.driver:
            return [await caller.call(payload) for payload in payloads]

    ended = run(asyncio.wait_for(main(), 20), use_uvloop=use_uvloop)
    assert [one.payload for one in ended] == payloads
    server.engine.close()
    caller.engine.close()


def test_many_calls_at_once_come_back(ports: list[Port], use_uvloop: bool) -> None:
    server, caller = echo_server(ports[0]), Caller(ports[1], ports[0])

    async def main() -> list[Completion]:
        async with AsyncDriver(server, ports[0].fileno()), caller.driver:
            return await asyncio.gather(*(caller.call(i.to_bytes(4, "big")) for i in range(1000)))

    ended = run(asyncio.wait_for(main(), 20), use_uvloop=use_uvloop)
    assert [int.from_bytes(one.payload, "big") for one in ended] == list(range(1000))
    server.engine.close()
    caller.engine.close()


def test_a_timeout_needs_no_datagram_to_be_noticed(ports: list[Port], use_uvloop: bool) -> None:
    caller = Caller(ports[1], ports[0])  # nobody polls the other port

    async def main() -> tuple[Completion, float]:
        async with caller.driver:
            began = asyncio.get_running_loop().time()
            ended = await caller.call(b"?", timeout_ns=30 * limits.MS)
            return ended, asyncio.get_running_loop().time() - began

    ended, took_s = run(asyncio.wait_for(main(), 5), use_uvloop=use_uvloop)
    assert ended.status == DONE_TIMEOUT
    assert ended.status != DONE_OK
    assert 0.025 < took_s < 1
    caller.engine.close()
