"""What the router's tests share: a router, servers that do what they are told, and clients, on an in-memory network."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from r2p2.engine import ROLE_HOLD, Engine, EngineConfig
from r2p2.memory import MemoryNetwork
from r2p2.router import Router, RouterConfig
from tests.engine.support import Caller, Server, packet

MS = 1_000_000
ROUTER = (0x0A0000FE, 8000)
CONTROL = (ROUTER[0], 9000)
CLIENT_IP = 0x0A000100
REQUEST, RESPONSE, FEEDBACK, ACK, DROP = range(5)


def server_address(i: int) -> tuple[int, int]:
    return (0x0A000001 + i, 7000 + i)


def feedback(rid: int, client: tuple[int, int], rest: int = 0) -> bytes:
    """FEEDBACK with `rest` in the bytes that nobody may look at."""
    return struct.pack(">BBBBIHHI", 0xCC, rest, 2 << 4 | rest & 15, rest, rest * 0x01010101, rid, client[1], client[0])


class Request(NamedTuple):
    """One packet of type REQUEST as a server saw it."""

    rid: int
    source: tuple[int, int]
    payload: bytes
    policy: int


class RawServer:
    """Keeps the packets it gets; answers when the test says so, with hand-made datagrams.

    The engine below only receives: its capture is read, what it makes of the requests is ignored.
    """

    def __init__(self, network: MemoryNetwork, address: tuple[int, int]) -> None:
        self.network, self.address = network, address
        config = EngineConfig(reassembly_count_max=256, hold_timeout_ns=10**12)
        self.engine = Engine(network.open(*address), config)
        self.engine.set_role(ROLE_HOLD)  # so that it does not refuse replicated requests on its own
        self.engine.capture_start(10**9, 1472)
        self.held: list[Request] = []
        self.seen_count = 0

    def poll_once(self) -> int:
        count = self.engine.poll()[1]
        taken, missed = self.engine.capture_take()
        assert missed == 0
        for one in taken:
            if one.target_ip == self.address[0] and one.payload[2] >> 4 == REQUEST:
                (rid,) = struct.unpack_from(">H", one.payload, 4)
                source = (one.source_ip, one.source_port)
                self.held.append(Request(rid, source, one.payload[8:], one.payload[2] & 15))
                self.seen_count += 1
        return count

    def next_deadline_ns(self) -> int | None:
        return None

    def now_ns(self) -> int:
        return self.network.now_ns

    def answer(self, request: Request, payload: bytes = b"ok", kind: int = RESPONSE) -> None:
        self.network.inject(self.address, request.source, packet(kind, 1, request.rid, payload))

    def feed_back(self, request: Request) -> None:
        self.network.inject(self.address, CONTROL, feedback(request.rid, request.source, 0xA5))

    def finish(self, count: int | None = None) -> int:
        """Answers the oldest requests, with FEEDBACK; returns how many."""
        done, self.held = self.held[:count], self.held[len(self.held) if count is None else count :]
        for request in done:
            self.answer(request)
            self.feed_back(request)
        return len(done)


class FeedingServer(Server):
    """A real engine that echoes and sends FEEDBACK."""

    def __init__(self, network: MemoryNetwork, address: tuple[int, int]) -> None:
        super().__init__(network, address, reassembly_count_max=256, router_ip=CONTROL[0], router_port=CONTROL[1])


class RouterWorld:
    """A router, `count` servers and one client, which is `clients` UDP ports wide."""

    def __init__(
        self, count: int = 3, *, real: bool = False, seed: int = 1, packets_max: int = 8192, **config: object
    ) -> None:
        self.network = MemoryNetwork(seed, packets_max=packets_max)
        make = FeedingServer if real else RawServer
        self.servers: Sequence[RawServer | FeedingServer] = [
            make(self.network, server_address(i)) for i in range(count)
        ]
        addresses = tuple(server_address(i) for i in range(count))
        options: dict[str, object] = {"seed": seed, "policy": "jbsq:3"} | config
        self.port = self.network.open(*ROUTER)
        self.router = Router(RouterConfig(addresses, ROUTER[1], **options), self.port)  # type: ignore[arg-type]
        self.client = Caller(self.network, (CLIENT_IP, 5000))
        self.silent: set[int] = set()
        """Servers that are not there: nobody polls them."""
        self.tag = 0

    def restart_router(self, seed: int) -> None:
        """Another router in the place of this one, with empty books and another chance."""
        self.router.close()
        self.router = Router(replace(self.router.config, seed=seed), self.port)

    def raw(self, i: int) -> RawServer:
        server = self.servers[i]
        assert isinstance(server, RawServer)
        return server

    def run(self, ms: float = 0.1) -> None:
        there = [server for i, server in enumerate(self.servers) if i not in self.silent]
        self.network.run([self.router, *there, self.client], int(ms * MS))

    def call(self, payload: bytes = b"hello", policy: int = 0, ms: int = 60_000) -> int:
        self.tag += 1
        self.client.call(self.tag, payload, ROUTER, policy, ms)
        return self.tag

    def calls(self, count: int, policy: int = 0, ms: int = 60_000) -> list[int]:
        tags = [self.call(b"%d" % i, policy, ms) for i in range(count)]
        self.run()
        return tags

    def count(self, name: str) -> int:
        return self.router.counters()[name]

    def outstanding(self) -> list[int]:
        return [server.outstanding for server in self.router.servers()]

    def held(self) -> list[int]:
        return [len(self.raw(i).held) for i in range(len(self.servers))]

    def __enter__(self) -> RouterWorld:
        return self

    def __exit__(self, *exception: object) -> None:
        self.router.close()
        self.client.engine.close()
        for server in self.servers:
            server.engine.close()
        self.network.close()


def check_books(world: RouterWorld) -> None:
    """At rest: every request has ended in exactly one way, and nothing is left."""
    counters = world.router.counters()
    ends = ("requests_answered", "requests_dropped", "requests_expired", "requests_repeated")
    refused = ("drops_no_server", "drops_queue_full", "drops_queue_timeout", "drops_pending_full")
    assert counters["requests"] == sum(counters[name] for name in (*ends, *refused)), counters
    assert (world.router.pending_count, world.router.queued_count) == (0, 0)
    assert world.outstanding() == [0] * len(world.servers)
    servers = world.router.servers()
    assert counters["requests_sent"] == sum(server.sent for server in servers)
    assert all(server.sent == server.answered + server.expired + server.dropped for server in servers), servers
