"""``r2p2 demo``: a replicated key-value store under load, its leader killed with SIGKILL, and the proof of what held.

Over DPDK (shared memory between the processes; no NIC, hugepages or root) and then over kernel UDP. Writes a picture of
latency over time and a capture of the traffic for each. One run is :mod:`r2p2.demo.scenario`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

from r2p2.bench.plots import Run, latency_over_time
from r2p2.client import REPLICATED
from r2p2.demo.scenario import DemoConfig, DemoResult, run_scenario
from r2p2.errors import UserError
from r2p2.loadgen import SET, LoadConfig
from r2p2.ports import BACKENDS, missing

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "demo"
HELP = "three replicas under load, the leader killed, and the proof that nothing was lost"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--backend", choices=BACKENDS, action="append", help="only this one; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), metavar="DIR", help="for what is written")
    parser.add_argument("--outstanding", type=int, default=256, metavar="N", help="calls that wait at any time")
    parser.add_argument("--size", type=int, default=64, metavar="B", help="bytes of a request")
    parser.add_argument("--seconds", type=float, default=4.0, metavar="S", help="of load before and after the kill")


def run(args: argparse.Namespace) -> int:
    """Run it over each backend; 0 only if everything held over each."""
    if args.seconds < 0.5:
        raise UserError(f"{args.seconds:g} s of load before and after the kill: at least 0.5")
    # What the generator would refuse, once three replicas are up.
    LoadConfig(SET, REPLICATED, 0, outstanding=args.outstanding, size=args.size).check()
    config = DemoConfig(
        outstanding=args.outstanding,
        size=args.size,
        # A call without an answer takes its key out of use: enough keys for an outage of many timeouts.
        keys_count=64 * args.outstanding,
        before_s=args.seconds,
        after_s=args.seconds,
    )
    backends = args.backend or ["dpdk", "uv"]
    reason = missing("dpdk") if "dpdk" in backends else None
    if reason is not None:
        if args.backend:
            raise reason
        print(f"DPDK is left out: {reason.message}.\nTo get it: {reason.remedy}\nGoing on over kernel UDP.\n")
        backends = ["uv"]
    results = []
    with tempfile.TemporaryDirectory(prefix="r2p2-") as temporary:
        for number, backend in enumerate(backends, 1):
            print(f"[{number}/{len(backends)}] {TITLES[backend]}; {who_runs_it()}", flush=True)
            folder = fresh_folder(args.out / backend)
            sockets = Path(temporary, backend)
            sockets.mkdir()
            result = run_scenario(config, backend, sockets, folder, lambda text: print(text, flush=True))
            results.append(result)
            print(summary(result), flush=True)
    write(args.out, results)
    failed = [f"{result.backend}: {check.what}" for result in results for check in result.checks if not check.held]
    print("\nEverything held." if not failed else "\nFAILED: " + "; ".join(failed))
    return 1 if failed else 0


TITLES = {
    "dpdk": "three replicas and a load generator over DPDK (memif: shared memory, no NIC, no hugepages)",
    "uv": "three replicas and a load generator over kernel UDP (loopback)",
}


def who_runs_it() -> str:
    """Cores and user, since both surprise."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"4 processes on {cores} core{'s' * (cores > 1)}, {'as root' if os.geteuid() == 0 else 'without root'}"


def fresh_folder(path: Path) -> Path:
    """An empty folder at `path`; what an earlier demo left there is removed, anything else is not touched."""
    marker = path / ".r2p2-demo"
    try:
        if path.exists():
            if any(path.iterdir()) and not marker.exists():
                raise UserError(f"{path} is not empty and not from an earlier demo", "Name another --out.")
            shutil.rmtree(path)
        path.mkdir(parents=True)
        marker.touch()
    except OSError as error:
        raise UserError(f"no folder {path} can be made: {error.strerror}", "Name another --out.") from error
    return path


def summary(result: DemoResult) -> str:
    """What one run showed, in a dozen lines."""
    lines = ["", *(f"  {line}" for line in result.steady.text().splitlines()), ""]
    for check in result.checks:
        first, *more = check.detail.splitlines()
        lines.append(f"  {'held  ' if check.held else 'FAILED'}  {check.what}: {first}")
        lines += [f"            {line}" for line in more]
    return "\n".join([*lines, ""])


def write(folder: Path, results: list[DemoResult]) -> None:
    """The picture, the captures and the figures, and their names on the screen."""
    picture = folder / "latency.png"
    runs = [
        Run(f"{result.backend}: {result.steady.size}-byte SETs, three replicas", result.timeline, result.outage)
        for result in results
    ]
    print("Written:")
    try:
        latency_over_time(picture, runs)
        print(f"  {picture}  (latency and throughput over time)")
    except UserError as error:
        print(f"  no picture: {error.message}; {error.remedy}")
    for result in results:
        print(f"  {result.pcap}  (what {result.leader} sent and received; read it with: r2p2 dissect {result.pcap})")
    report = folder / "report.json"
    figures = {
        result.backend: result.steady.to_json()
        | {
            "interrupted_ms": round(result.outage.interrupted_ms, 1),
            "killed": result.killed,
            "new_leader": result.leader,
            "checks": {check.what: check.held for check in result.checks},
        }
        for result in results
    }
    report.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"  {report}  (the figures)")
