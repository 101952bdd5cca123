"""What a replicated request costs, in ns of processor time: three replicas and a load generator in one process.

The in-memory network carries the datagrams, so no driver, no scheduler and no other process is in the figures: they are
the engine's, Raft's, the loop's and the application's, and two runs on a busy machine agree within a few percent. Each
line is the best of many short slices. ``--outstanding 1`` shows what a turn costs when there is nothing to share it.

    python benchmarks/hot_path.py [--outstanding 512] [--seconds 4] [--reads] [--layers]

``--layers`` puts a clock around the calls of each layer, which costs about 0.1 us a call: for shares, not for sums.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from r2p2.app import load_application
from r2p2.client import REPLICATED, REPLICATED_READ
from r2p2.engine import Engine
from r2p2.loadgen import GET, SET, LoadConfig, LoadGenerator
from r2p2.memory import MemoryNetwork
from r2p2.node import Node, NodeConfig

CLIENT = 0x0A000064
CLIENT_PORT = 9100
MS = 1_000_000
SLICE_ROUNDS = 100
LAYERS = {
    "engine": (
        "poll",
        "raft_messages",
        "check_entries",
        "append_message",
        "raft_send",
        "apply_prepare",
        "apply_reply",
        "flush",
    ),
    "app": ("apply", "query_batch"),
}


def addresses(count: int) -> dict[int, tuple[int, int]]:
    """Of the members by slot."""
    return {slot: (0x0A000001 + slot, 8000) for slot in range(count)}


class Bench:
    """A group, a generator, and how long each has worked."""

    def __init__(self, members: int, outstanding: int, sessions: int, workload: int, app: str) -> None:
        self.network = MemoryNetwork(1)
        self.network.faults(delay_min_ns=0, delay_max_ns=0)
        where = addresses(members)
        self.nodes = [
            Node(
                NodeConfig(slot, where, seed=slot + 1, incarnation=slot + 1),
                self.network.open(*where[slot]),
                load_application(app),
            )
            for slot in where
        ]
        for _ in range(20_000):
            self.network.run(self.nodes, 10 * MS)
            if any(node.is_leader for node in self.nodes) and all(
                node.status().get("leader") is not None for node in self.nodes
            ):
                break
        else:
            raise AssertionError("no leader")
        self.nodes.sort(key=lambda node: not node.is_leader)
        self.engine = Engine(self.network.open(CLIENT, CLIENT_PORT))
        self.engine.client_open(CLIENT_PORT, max(outstanding, 64))
        config = LoadConfig(
            workload,
            REPLICATED_READ if workload == GET else REPLICATED,
            CLIENT_PORT,
            outstanding,
            sessions=sessions if workload == SET else 0,
        )
        self.load = LoadGenerator(
            self.engine, config, [node.config.members[node.config.node_id] for node in self.nodes]
        )
        self.spent: dict[str, int] = defaultdict(int)

    def round(self) -> None:
        """Everybody once, each timed; time goes on by 1 us, so that the latency that is reported means nothing."""
        clock, spent = time.process_time_ns, self.spent
        self.network.advance(1_000)
        start = clock()
        self.load.run(0)
        end = clock()
        spent["generator"] += end - start
        for i, node in enumerate(self.nodes):
            start = end
            node.poll_once()
            end = clock()
            spent["leader" if i == 0 else f"follower {i}"] += end - start

    def time_layers(self) -> dict[str, int]:
        """Puts a clock around the leader's layers (and a follower's)."""
        spent: dict[str, int] = defaultdict(int)

        def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
            clock = time.perf_counter_ns

            def run(*arguments: Any, **named: Any) -> Any:
                start = clock()
                try:
                    return call(*arguments, **named)
                finally:
                    spent[name] += clock() - start

            return run

        for i, node in enumerate(self.nodes[:2]):
            role = "leader" if i == 0 else "follower 1"
            for layer, names in LAYERS.items():
                of = node.engine if layer == "engine" else node.app
                for name in names:
                    setattr(of, name, timed(f"{role}: {layer}.{name}", getattr(of, name)))
        return spent


def measure(bench: Bench, seconds: float) -> dict[str, float]:
    """ns a request of each process, the best slice of each."""
    best: dict[str, float] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        bench.spent.clear()
        before = bench.load.stats().answered
        for _ in range(SLICE_ROUNDS):
            bench.round()
        answered = bench.load.stats().answered - before
        if answered:
            for name, ns in bench.spent.items():
                best[name] = min(best.get(name, float("inf")), ns / answered)
    return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--outstanding", type=int, default=512)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--reads", action="store_true")
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--app", default="kv")
    args = parser.parse_args()
    bench = Bench(args.members, args.outstanding, args.sessions, GET if args.reads else SET, args.app)
    measure(bench, 0.5)
    layers = bench.time_layers() if args.layers else {}
    layers.clear()
    before = bench.load.stats().answered
    polls = bench.load.stats().polls
    best = measure(bench, args.seconds)
    stats = bench.load.stats()
    answered = stats.answered - before
    a_round = answered / max(1, stats.polls - polls)
    print(f"{answered} requests, {a_round:.1f} a round, dropped {stats.dropped}, wrong {stats.wrong}")
    for name, ns in best.items():
        print(f"{name:<12} {ns:>8.0f} ns a request")
    print(f"{'sum':<12} {sum(best.values()):>8.0f}")
    for name, spent_ns in sorted(layers.items()):
        print(f"{name:<36} {spent_ns / answered:>8.1f} ns a request")


if __name__ == "__main__":
    main()
