"""A cluster on the in-memory network, with a client that can be asked what it got."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from r2p2.app import StateMachine
from r2p2.apps.kv import KeyValue
from r2p2.engine import EngineConfig
from r2p2.files import Files
from r2p2.memory import MemoryNetwork
from r2p2.node import Node, NodeConfig
from r2p2.node.group import Group
from r2p2.node.replica import Replica
from tests.engine.support import Caller
from tests.failed_captures import LastPackets

MS = 1_000_000
SMALL = {"reassembly_count_max": 256}


def group_of(node: Node) -> Group:
    """What a member knows of its group."""
    assert node._group is not None
    return node._group


def replica_of(node: Node) -> Replica:
    """What takes part in the group, from when it is known."""
    replica = group_of(node).replica
    assert replica is not None
    return replica


class World:
    """Members 0..n-1 at 10.0.0.1.., a client at 10.0.0.100."""

    def __init__(
        self,
        size: int = 3,
        seed: int = 1,
        make_app: Callable[[], StateMachine] = KeyValue,
        truncation: str | None = None,
        storage: Path | None = None,
        files: Mapping[int, Files] | None = None,
        launch: bool = True,
        check_determinism: int = 0,
        steady_step: bool = True,
        **engine: int,
    ) -> None:
        self.network = MemoryNetwork(seed, packets_max=16_384)
        self.network.faults(delay_min_ns=5_000, delay_max_ns=60_000)
        self.addresses = {i: (0x0A000001 + i, 8000) for i in range(size)}
        self.make_app = make_app
        self.seed = seed
        self.truncation = truncation
        self.storage = storage  # each member's directory is there; None: in memory
        self.files = dict(files or {})  # what a durable member writes with
        self.launches = 0
        self.check_determinism = check_determinism
        self.steady_step = steady_step
        self.clocks: dict[int, Callable[[], int]] = {}  # unix clocks that differ from the network's
        self.engine_config = EngineConfig(**(SMALL | engine))
        self.events: list[tuple[float, int, str]] = []
        self.ports: dict[int, int] = {}
        self.nodes: dict[int, Node] = {}
        self.last_packets = LastPackets()
        for i in range(size if launch else 0):
            self.launch(i)
        self.client = Caller(self.network, (0x0A000064, 9000))
        self.tag = 0

    def launch(
        self, i: int, incarnation: int = 0, *, join: bool = False, asks: tuple[int, ...] | None = None, ip: int = 0
    ) -> None:
        """A process in slot i; join: it knows the others' addresses, or those of `asks`, and is none of the members."""
        self.launches += 1
        address = (ip or 0x0A000001 + i, 8000)
        config = NodeConfig(
            node_id=i,
            members={} if join else self.addresses,
            join=tuple(self.addresses[j] for j in (asks or self.nodes) if j != i) if join else (),
            engine=self.engine_config,
            seed=self.seed * 100 + self.launches - 1,
            incarnation=incarnation or self.seed * 1000 + self.launches,
            truncation=self.truncation,
            storage=None if self.storage is None else self.storage / f"member{i}",
            storage_files=self.files.get(i),
            storage_threaded=False,
            check_determinism=self.check_determinism,
            steady_step=self.steady_step,
            unix_clock_ns=self.clocks.get(i),
        )
        if join:
            self.addresses = {**self.addresses, i: address}
        self.ports[i] = self.network.open(*address)
        try:
            self.nodes[i] = Node(
                config,
                self.ports[i],
                self.make_app(),
                on_event=lambda text: self.events.append((self.network.now_ns / MS, i, text)),
            )
        except BaseException:
            self.network.close_port(self.ports.pop(i))
            raise
        self.last_packets.watch(self.nodes[i].engine)

    def keep_packets(self, *members: int) -> None:
        """Keeps what the engines captured, for the case that the test fails."""
        ips = {ip for ip, _ in self.addresses.values()}
        for i in members or tuple(self.nodes):
            self.last_packets.take(self.nodes[i].engine, self.addresses[i][0], ips)

    def kill(self, i: int) -> None:
        """The process is gone; what it had not sent is lost."""
        self.keep_packets(i)
        self.nodes.pop(i).close()
        self.network.close_port(self.ports.pop(i))

    def cut_off(self, ip: int, blocked: bool = True) -> None:
        """Between an address and everybody else, the client too; not `blocked`: no more."""
        self.network.block(ip, 0, blocked)
        self.network.block(0, ip, blocked)

    def part(self, member: int, blocked: bool = True) -> None:
        """Parts a member from the others, both ways; clients reach it."""
        for other in self.addresses:
            if other != member:
                self.network.block(self.addresses[member][0], self.addresses[other][0], blocked)
                self.network.block(self.addresses[other][0], self.addresses[member][0], blocked)

    def run(self, ms: float) -> None:
        self.network.run([*self.nodes.values(), self.client], int(ms * MS))
        self.keep_packets()

    def run_until(self, condition: Callable[[], bool], ms: float = 2000) -> None:
        end_ns = self.network.now_ns + ms * MS
        while not condition():
            assert self.network.now_ns < end_ns, f"not within {ms} ms: {self.events[-8:]}"
            self.run(1)

    @property
    def leader(self) -> int | None:
        leaders = [(n.status()["term"], i) for i, n in self.nodes.items() if n.is_leader]
        return max(leaders)[1] if leaders else None

    def elect(self) -> int:
        self.run_until(lambda: self.leader is not None)
        self.run(30)
        leader = self.leader
        assert leader is not None
        return leader

    def call(self, payload: bytes, to: int, policy: int = 2, ms: int = 1000) -> int:
        self.tag += 1
        self.client.call(self.tag, payload, self.addresses[to], policy, ms)
        return self.tag

    def ask(self, payload: bytes, to: int, policy: int = 2, ms: int = 1000) -> tuple[int, bytes]:
        """Calls and waits."""
        tag = self.call(payload, to, policy, ms)
        self.run_until(lambda: tag in self.client.ended, ms + 50)
        return self.client.ended[tag]

    def digests(self) -> set[tuple[object, ...]]:
        keys = ("applied_index", "applied_digest", "state_digest")
        return {tuple(node.status(with_state=True)[k] for k in keys) for node in self.nodes.values()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.keep_packets()
        for node in self.nodes.values():
            node.close()
        self.client.engine.close()
        self.network.close()
