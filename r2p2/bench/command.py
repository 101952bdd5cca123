"""``r2p2 bench``: measure throughput, latency and processor time.

``bench echo``: one server that sends back what it gets. ``bench replicated``: RESP SETs to a key-value store on a Raft
group. All processes run on this machine. The measuring is :mod:`r2p2.bench.measure`.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from r2p2.bench.measure import BenchConfig, measure
from r2p2.bench.report import write_json
from r2p2.errors import UserError
from r2p2.ports import BACKENDS

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "bench"
HELP = "measure throughput and latency, with the cpu time of each process"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("what", choices=("echo", "replicated"), help="one echo server, or SETs to a replicated store")
    parser.add_argument("--backend", choices=BACKENDS, default="uv", help="kernel UDP, or DPDK over shared memory")
    loop = parser.add_mutually_exclusive_group()
    loop.add_argument(
        "--outstanding",
        type=int,
        metavar="N",
        default=argparse.SUPPRESS,
        help="closed loop: calls that wait at any time (default: 64)",
    )
    loop.add_argument(
        "--rate", type=float, default=0.0, metavar="R", help="open loop: calls a second, at exponential gaps; 0: closed"
    )
    parser.add_argument("--size", type=int, default=64, metavar="B", help="bytes of a request")
    parser.add_argument("--duration", type=float, default=5.0, metavar="S", help="seconds measured")
    parser.add_argument("--warmup", type=float, default=1.0, metavar="S", help="seconds before them")
    parser.add_argument(
        "--sessions",
        type=int,
        metavar="N",
        default=argparse.SUPPRESS,
        help="replicated: calls belong to N sessions and are executed exactly once, which is verified; "
        "0: single calls (default: 1)",
    )
    parser.add_argument("--replicas", type=int, default=3, metavar="N", help="of the Raft group")
    parser.add_argument(
        "--against",
        choices=("asyncio", "uvloop"),
        default="",
        help="echo over uv: measure a plain DatagramProtocol in the same run, and print the ratio",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON, too")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep what the processes print")


OPEN_LOOP_WAITING_MAX = 16_384


def run(args: argparse.Namespace) -> int:
    """Measure and report; 0 when something was answered and nothing wrongly."""
    if args.duration <= 0 or args.warmup < 0:
        raise UserError(f"a duration of {args.duration:g} s after a warm-up of {args.warmup:g} s")
    if not 1 <= args.replicas <= 7:
        raise UserError(f"{args.replicas} replicas: between 1 and 7 are possible")
    if args.rate < 0:
        raise UserError(f"a rate of {args.rate:g} calls a second")
    config = BenchConfig(
        what=args.what,
        backend=args.backend,
        outstanding=OPEN_LOOP_WAITING_MAX if args.rate else getattr(args, "outstanding", 64),
        rate=args.rate,
        size=args.size,
        duration_s=args.duration,
        warmup_s=args.warmup,
        replicas=args.replicas,
        sessions=getattr(args, "sessions", 1 if args.what == "replicated" else 0),
    )
    replace(config, plain=args.against).check()
    result = measure(config, args.logs, say)
    print(result.text())
    good = result.is_good
    if args.against:
        plain = measure(replace(config, plain=args.against), args.logs, say)
        good = good and plain.is_good
        print(f"\nthe same load against a plain {args.against} DatagramProtocol")
        print("\n".join(plain.text().splitlines()[1:]))
        print(f"\nratio: {result.throughput_rps / plain.throughput_rps:.2f} times the requests/s")
    if args.json is not None:
        write_json(args.json, result)
    return 0 if good else 1


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)
