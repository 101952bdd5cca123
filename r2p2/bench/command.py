"""``r2p2 bench``: measure throughput, latency and processor time.

What can be measured is :data:`r2p2.bench.measure.WHATS`; all processes run on this machine. This file turns arguments
into measurements and results into files: one run, several (``--repeat``), or the search for the highest rate under an
objective (``--ramp``). docs/benchmarking.md describes every option.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from r2p2.arguments import SECONDS_MAX, make_folder, writable_file
from r2p2.bench import profile
from r2p2.bench.hdr import write_hgrm
from r2p2.bench.measure import OPEN_LOOP_WAITING_MAX, WHATS, BenchConfig, measure, started
from r2p2.bench.pauses import PAUSES_SECONDS_MAX, Pauses, measure_pauses, pauses_text
from r2p2.bench.placement import SCHEMES, processors
from r2p2.bench.ramp import Ramp, parse_objective, ramp
from r2p2.bench.repeats import Repeats
from r2p2.bench.report import BenchResult, write_json
from r2p2.bench.table import write_csv
from r2p2.busy_loop import IDLE_POLICIES
from r2p2.distribution import Distribution, parse_distribution
from r2p2.errors import UserError
from r2p2.loadgen import set_bytes
from r2p2.ports import BACKENDS

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "bench"
HELP = "measure throughput and latency, with the cpu time of each process"

REPLICAS_MAX = 7
RAMP_FIRST_RATE = 10_000.0
RAMP_STEP_WARMUP_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "what",
        choices=tuple(WHATS),
        help="echo: one server; replicated: SETs to a replicated store; reads: linearizable GETs; spin, stss: services "
        "of a known cost; generator: the generator alone, against a responder in C",
    )
    parser.add_argument("--backend", choices=BACKENDS, default="uv", help="kernel UDP, or DPDK over shared memory")
    _add_load(parser)
    _add_servers(parser)
    _add_reports(parser)


def _add_load(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--outstanding",
        type=int,
        metavar="N",
        default=argparse.SUPPRESS,
        help="closed loop: calls that wait at any time (default: 64); with --rate or --ramp: at most, and what is due "
        f"beyond them waits at the generator (default: {OPEN_LOOP_WAITING_MAX})",
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=0.0,
        metavar="R",
        help="open loop: calls a second in a Poisson process, latency from when a call was due; 0: closed",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--size",
        default="64",
        metavar="B",
        help="bytes of a request, or a distribution: uniform:16..1024, exponential:256, bimodal:64,1024,0.1",
    )
    size.add_argument(
        "--value-size", type=int, metavar="B", default=argparse.SUPPRESS, help="replicated: bytes of a SET's value"
    )
    parser.add_argument(
        "--service", metavar="T", default="10us", help="spin, stss: how long a request takes the server, as sizes are"
    )
    parser.add_argument("--reply-size", type=int, metavar="B", default=8, help="stss: bytes of a reply")
    parser.add_argument(
        "--reads", type=float, metavar="P", default=0.0, help="replicated: this part of the calls are linearizable GETs"
    )
    parser.add_argument(
        "--keys", type=int, metavar="N", default=16_384, help="how many there are (fewer of large values)"
    )
    parser.add_argument("--zipf", type=float, metavar="S", default=0.0, help="skew of the keys, 0 to below 1")
    parser.add_argument("--duration", type=float, default=5.0, metavar="S", help="seconds measured")
    parser.add_argument("--warmup", type=float, default=1.0, metavar="S", help="seconds before them")
    parser.add_argument(
        "--sessions",
        type=int,
        metavar="N",
        default=argparse.SUPPRESS,
        help="replicated: calls belong to N sessions in turn and are executed exactly once, which is verified; "
        "0: single calls (default: 1)",
    )
    parser.add_argument("--one-member", action="store_true", help="reads: ask one member only; by default all in turn")
    parser.add_argument("--ramp", action="store_true", help="find the highest rate under --objective")
    parser.add_argument(
        "--objective", default="p99=1ms", metavar="PERCENTILE=TIME", help="of --ramp: p50, p90, p99 or p999"
    )
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="so many runs; medians and spread")


def _add_servers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--replicas",
        type=int,
        metavar="N",
        default=argparse.SUPPRESS,
        help="of the Raft group (default: 3); given with echo, spin or stss: as replicated requests",
    )
    parser.add_argument("--app", default="", help="another application for the servers, as r2p2 serve names it")
    parser.add_argument(
        "--storage", type=Path, metavar="DIR", help="replicated: durable members, in a folder made there and removed"
    )
    parser.add_argument("--log-mib", type=int, default=0, metavar="N", help="of log at a replica; 0: the default")
    parser.add_argument("--idle", default="yield", choices=IDLE_POLICIES, help="dpdk: what an idle poll does")
    parser.add_argument(
        "--pin",
        default="none",
        metavar="SCHEME",
        help=f"which process runs on which processor: none, {', '.join(SCHEMES)}, or leader=0,generator=0,follower=1",
    )
    parser.add_argument(
        "--against",
        choices=("asyncio", "uvloop"),
        default="",
        help="echo over uv: measure a plain DatagramProtocol in the same run, and print the ratio",
    )


def _add_reports(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON, too")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="a row a run")
    parser.add_argument(
        "--hdr", type=Path, metavar="FILE", help="the latencies as HdrHistogram's percentile text (.hgrm)"
    )
    parser.add_argument(
        "--plots", type=Path, metavar="DIR", help="pictures: latency's distribution, timeline; of a ramp rate and p99"
    )
    parser.add_argument(
        "--profile", action="store_true", help="nanoseconds a request in each layer of each process (perf)"
    )
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep what the processes print")
    parser.add_argument(
        "--pauses",
        type=float,
        default=0.0,
        metavar="S",
        help="before the load, see for S seconds how long this machine takes its processors away: no tail is shorter",
    )


def _size(args: argparse.Namespace) -> tuple[int, Distribution | None]:
    if hasattr(args, "value_size"):
        if args.what not in ("replicated", "generator") or args.value_size < 1:
            raise UserError(f"--value-size {args.value_size} with {args.what}", "Values, of 1 byte or more, are SETs'.")
        return set_bytes(args.value_size), None
    sizes = parse_distribution(args.size)
    if sizes.shape == "fixed":
        if sizes.a != int(sizes.a):
            raise UserError(f"--size {args.size} is not a whole number")
        return int(sizes.a), None
    return 64, sizes


def bench_config(args: argparse.Namespace) -> BenchConfig:
    """The measurement that the arguments describe. UserError for what is out of bounds."""
    replicas = getattr(args, "replicas", 3)
    if not 0 < args.duration < SECONDS_MAX or not 0 <= args.warmup < SECONDS_MAX:
        raise UserError(f"a duration of {args.duration:g} s after a warm-up of {args.warmup:g} s")
    if not 1 <= replicas <= REPLICAS_MAX:
        raise UserError(f"{replicas} replicas: between 1 and {REPLICAS_MAX} are possible")
    if not 0 <= args.rate < math.inf:
        raise UserError(f"a rate of {args.rate:g} calls a second")
    if args.repeat < 1:
        raise UserError(f"--repeat {args.repeat}: at least one run")
    if not 0 <= args.pauses <= PAUSES_SECONDS_MAX:
        raise UserError(f"--pauses {args.pauses:g}: seconds up to {PAUSES_SECONDS_MAX:g}, or 0 for not at all")
    if args.log_mib < 0:
        raise UserError(f"--log-mib {args.log_mib}: at least 1, or 0 for the default")
    if args.ramp and (args.repeat > 1 or args.against or args.profile):
        raise UserError(
            "--ramp searches one launch's highest rate in open loop",
            "Leave --repeat, --against and --profile out.",
        )
    size, sizes = _size(args)
    is_open = args.rate > 0 or args.ramp
    synthetic = args.what in ("spin", "stss")
    config = BenchConfig(
        what=args.what,
        backend=args.backend,
        outstanding=getattr(args, "outstanding", OPEN_LOOP_WAITING_MAX if is_open else 64),
        rate=args.rate or (RAMP_FIRST_RATE if args.ramp else 0.0),
        size=size,
        duration_s=args.duration,
        warmup_s=args.warmup,
        replicas=replicas,
        keys_count=args.keys,
        storage=args.storage,
        leader_only=args.one_member,
        sessions=getattr(args, "sessions", 1 if args.what in ("replicated", "generator") else 0),
        grouped=hasattr(args, "replicas") and args.what in ("echo", "spin", "stss"),
        plain="null" if args.what == "generator" else "",
        sizes=sizes,
        service_ns=parse_distribution(args.service, of_times=True) if synthetic else None,
        reply_bytes=args.reply_size,
        reads=args.reads,
        zipf=args.zipf,
        pin="" if args.pin == "none" else args.pin,
        idle=args.idle,
        log_mib=args.log_mib,
        handler=args.app,
    )
    (replace(config, plain=args.against) if args.against else config).check()
    return config


def run(args: argparse.Namespace) -> int:
    """Measure and report; 0 when something was answered and nothing wrongly."""
    config = bench_config(args)
    if args.plots is not None:
        from r2p2.bench.plots import need_matplotlib

        need_matplotlib()  # before the measurement, not after it
    _check_targets(args)
    pauses = measure_pauses(processors(), args.pauses) if args.pauses else []
    if pauses:
        print(pauses_text(pauses))
    if args.ramp:
        return _run_ramp(args, config, pauses)
    layers = profile.Layers() if args.profile else None
    repeats = Repeats([replace(_one(args, config, layers), pauses=pauses) for _ in range(args.repeat)])
    middle = repeats.middle
    print(middle.text())
    if len(repeats.runs) > 1:
        print(repeats.text())
    if layers is not None:
        print(layers.text(repeats.runs[-1]))
    good = repeats.is_good
    if args.against:
        good = _run_against(args, config, middle) and good
    if args.json is not None:
        if len(repeats.runs) > 1:
            _write(args.json, repeats.to_json())
        else:
            write_json(args.json, middle)
    _write_rest(args, repeats.runs, middle)
    return 0 if good else 1


def _check_targets(args: argparse.Namespace) -> None:
    """Before the measurement, not after it."""
    for name in ("json", "csv", "hdr"):
        if (path := getattr(args, name)) is not None:
            writable_file(f"--{name}", path)
    for name in ("plots", "logs", "storage"):
        if (path := getattr(args, name)) is not None:
            make_folder(f"--{name}", path)


def _one(args: argparse.Namespace, config: BenchConfig, layers: profile.Layers | None) -> BenchResult:
    profiler: Callable[[Mapping[str, int]], AbstractContextManager[object]] | None = None
    if layers is not None:
        profiler = layers.recording
    return replace(measure(config, args.logs, say, profiler), command=_command_line())


def _run_against(args: argparse.Namespace, config: BenchConfig, ours: BenchResult) -> bool:
    plain = measure(replace(config, plain=args.against), args.logs, say)
    print(f"\nthe same load against a plain {args.against} DatagramProtocol")
    print("\n".join(plain.text().splitlines()[1:]))
    print(f"\nratio: {ours.throughput_rps / plain.throughput_rps:.2f} times the requests/s")
    return plain.is_good


def _run_ramp(args: argparse.Namespace, config: BenchConfig, pauses: Sequence[Pauses]) -> int:
    objective = parse_objective(args.objective)
    with started(config, args.logs) as bench:
        warm = False

        def load(rate: float) -> BenchResult:
            nonlocal warm
            warmup_s = RAMP_STEP_WARMUP_S if warm else max(config.warmup_s, RAMP_STEP_WARMUP_S)
            warm = True
            return bench.load(warmup_s=warmup_s, duration_s=config.duration_s, rate=rate)

        found = ramp(objective, config.rate, load, say)
        best = found.best or found.steps[0].result
        best = replace(bench.finish(best), command=_command_line(), pauses=pauses)
    print(best.text())
    print(found.text())
    if args.json is not None:
        _write(args.json, best.to_json() | {"ramp": found.to_json()})
    _write_rest(args, [step.result for step in found.steps], best, found)
    return 0 if best.is_good and found.best is not None else 1


def _write_rest(
    args: argparse.Namespace, runs: Sequence[BenchResult], middle: BenchResult, found: Ramp | None = None
) -> None:
    if args.csv is not None:
        write_csv(args.csv, runs)
    if args.hdr is not None:
        write_hgrm(args.hdr, middle.histogram)
    if args.plots is not None:
        from r2p2.bench.plots import draw_all

        for path in draw_all(args.plots, middle, found):
            say(f"drawn: {path}")


def _write(path: Path, value: object) -> None:
    try:
        path.write_text(json.dumps(value, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"the report cannot be written: {error}") from error


def _command_line() -> str:
    """What to type to do it again."""
    return shlex.join(["r2p2", *sys.argv[1:]])


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)
