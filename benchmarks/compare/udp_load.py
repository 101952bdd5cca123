"""A closed loop of R2P2 calls over UDP, as a process: ``python -m benchmarks.compare.udp_load OPTIONS``.

The load generator of the project (in C) without its bench, so that it can call a server of another make that answers
R2P2's single-packet requests. Prints ``measuring`` when the warm-up is over, and at the end of the measured time one
JSON object: ``answered``, ``failed``, ``seconds``, ``p50_us``, ``p99_us``, and ``cpu_seconds`` of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

from r2p2 import cli
from r2p2.address import parse_address
from r2p2.bench.calls import READS_AT_ONCE_MAX, Caller
from r2p2.client import FIXED_ROUTE
from r2p2.engine import Engine
from r2p2.errors import UserError
from r2p2.loadgen import ECHO, SET, LoadConfig, LoadGenerator
from r2p2.node import STATUS_REQUEST
from r2p2.ports import Link, PortSpec, open_port

LINK_SECONDS = 10.0
TIMEOUT_NS = 3_000_000_000
WORKLOADS = {"echo": ECHO, "set": SET}


def run(args: argparse.Namespace) -> int:
    """Makes the load and reports; 0."""
    target = parse_address(args.target)
    links = (Link(args.memif, "client", args.target.partition(":")[0]),) if args.memif else ()
    spec = PortSpec("dpdk" if args.memif else "uv", args.ip, 9100, links)
    with open_port(spec) as port:
        engine = Engine(port.address, keep=port)
        try:
            config = LoadConfig(
                WORKLOADS[args.workload],
                FIXED_ROUTE,
                port.local_port,
                outstanding=args.outstanding,
                size=args.size,
                timeout_ns=TIMEOUT_NS,
            )
            engine.client_open(port.local_port, max(args.outstanding, READS_AT_ONCE_MAX))
            if args.memif:
                wait_link(engine, port.local_port, target)
            load = LoadGenerator(engine, config, [target])
            try:
                load.run(args.warmup)
                load.reset()
                print("measuring", flush=True)
                before = time.process_time()
                load.run(args.seconds)
                report(load, engine.now_ns(), time.process_time() - before)
                load.run(TIMEOUT_NS / 1e9, issue=False)
            finally:
                load.close()
        finally:
            engine.close()
    return 0


def wait_link(engine: Engine, local_port: int, target: tuple[int, int]) -> None:
    """Asks until the server answers: what is sent before both ends of the memif have met is lost. UserError."""
    caller = Caller(engine, local_port)
    if not caller.call_each([target], STATUS_REQUEST, FIXED_ROUTE, LINK_SECONDS):
        raise UserError(f"the server has not answered in {LINK_SECONDS:g} s")


def report(load: LoadGenerator, now_ns: int, cpu_seconds: float) -> None:
    """The JSON line."""
    stats = load.stats()
    p50_us, p99_us = load.percentiles_us((0.5, 0.99))
    result = {
        "answered": stats.answered,
        "failed": stats.timeouts + stats.dropped + stats.wrong,
        "seconds": (now_ns - stats.started_ns) / 1e9,
        "p50_us": p50_us,
        "p99_us": p99_us,
        "cpu_seconds": cpu_seconds,
    }
    print(json.dumps(result), flush=True)


def main(argv: Sequence[str]) -> int:
    """The process; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True, metavar="IP:PORT")
    parser.add_argument("--ip", required=True, help="of this process")
    parser.add_argument("--memif", default="", metavar="SOCKET", help="over shared memory instead of kernel UDP")
    parser.add_argument("--workload", choices=WORKLOADS, required=True)
    parser.add_argument("--outstanding", type=int, required=True)
    parser.add_argument("--size", type=int, default=64, help="bytes of a request")
    parser.add_argument("--warmup", type=float, required=True, metavar="S")
    parser.add_argument("--seconds", type=float, required=True, metavar="S")
    args = parser.parse_args(argv)
    return cli.guard(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
