"""What the engine's tests share: engines on an in-memory network, datagrams by hand."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

from r2p2.engine import Engine, EngineConfig
from r2p2.memory import MemoryNetwork

SERVER = (0x0A000001, 8000)
CLIENT = (0x0A000002, 9000)
STRANGER = (0x0A000063, 7777)


def packet(
    type_: int, policy: int, rid: int, payload: bytes, *, first: bool = True, last: bool = True, order: int = 1
) -> bytes:
    """One R2P2 packet, from the specification and not from our codec."""
    return struct.pack(">BBBBHH", 0xCC, 8, type_ << 4 | policy, first << 7 | last << 6, rid, order) + payload


def request_packets(rid: int, payload: bytes, policy: int = 1) -> list[bytes]:
    """The packets of a request: one, or REQ0 with 14 bytes and the rest."""
    if len(payload) <= 1464:
        return [packet(0, policy, rid, payload)]
    rest = [payload[i : i + 1464] for i in range(14, len(payload), 1464)]
    n = len(rest) + 1
    first = packet(0, policy, rid, payload[:14], last=False, order=n)
    return [first] + [
        packet(0, policy, rid, part, first=False, last=i == n - 1, order=i) for i, part in enumerate(rest, 1)
    ]


class EchoServer:
    """An engine that hands its requests out and echoes them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.seen: list[bytes] = []

    def poll_once(self) -> int:
        result = self.engine.poll()
        if result[2]:
            requests = self.engine.requests()
            self.seen.extend(requests)
            self.engine.reply(list(requests))
            self.engine.flush()
        return result[1]

    def next_deadline_ns(self) -> int | None:
        return None

    def now_ns(self) -> int:
        return self.engine.now_ns()


class Server(EchoServer):
    """One on the in-memory network."""

    def __init__(self, network: MemoryNetwork, address: tuple[int, int] = SERVER, **config: int) -> None:
        config = {"reassembly_count_max": 1024} | config
        super().__init__(Engine(network.open(*address), EngineConfig(**config)))


class Caller:
    """An engine that calls."""

    def __init__(self, network: MemoryNetwork, address: tuple[int, int] = CLIENT, calls_max: int = 65_535) -> None:
        self.engine = Engine(network.open(*address), EngineConfig(reassembly_count_max=256))
        self.engine.client_open(address[1], calls_max)
        self.port = address[1]
        self.ended: dict[int, tuple[int, bytes]] = {}

    def call(self, tag: int, payload: bytes, target: tuple[int, int] = SERVER, policy: int = 1, ms: int = 1000) -> int:
        rid = self.engine.call(self.port, target, payload, policy=policy, timeout_ns=ms * 1_000_000, tag=tag)
        self.engine.flush()
        return rid

    def poll_once(self) -> int:
        result = self.engine.poll()
        for completion in self.engine.completions():
            assert completion.tag not in self.ended, "a call ends once"
            self.ended[completion.tag] = (completion.status, completion.payload)
        return result[1]

    def next_deadline_ns(self) -> int | None:
        return None

    def now_ns(self) -> int:
        return self.engine.now_ns()


@contextmanager
def pair(seed: int = 1, **config: int) -> Iterator[tuple[MemoryNetwork, Server, Caller]]:
    """A server and a client on a network; at the end every buffer is back."""
    with MemoryNetwork(seed, packets_max=4096) as network:
        server, caller = Server(network, SERVER, **config), Caller(network)
        yield network, server, caller
        server.engine.close()
        caller.engine.close()
