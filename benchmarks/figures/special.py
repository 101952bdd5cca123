"""Figures that are more than a command: a member held down while the log grows, memory over time, a profile.

Each takes an :class:`Effort` and returns rows as ``run.py`` makes them of cases.
"""

from __future__ import annotations

import statistics
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from benchmarks.figures.cases import BEST_PIN
from r2p2.bench.measure import BenchConfig, measure, started
from r2p2.bench.profile import Layers
from r2p2.processes import ManagedProcess, resident_bytes

__all__ = ["SPECIAL", "Effort"]

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Effort:
    """`seconds` of a short load, `runs` of each kind, `memory_seconds` of the load under which memory is watched."""

    seconds: float
    runs: int
    memory_seconds: float


BASE = BenchConfig("replicated", "dpdk", outstanding=512, sessions=1, pin=BEST_PIN)
RETENTION_LOG_MIB = 4096  # 20 s at a million entries a second are 2.2 GiB
RETENTION_MARKS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
RETENTION_SECONDS_MAX = 40.0
KILL_AFTER_S = 0.3
WINDOW_S = 0.25  # of the timeline, around a mark
REQUEST_BYTES = 64


@contextmanager
def _killing(process: ManagedProcess, killed_s: list[float]) -> Iterator[None]:
    """Kills a process a moment after the begin of a measured time, and adds when, as time.monotonic() has it."""
    timer = threading.Timer(KILL_AFTER_S, lambda: killed_s.append(process.kill()))
    timer.start()
    try:
        yield
    finally:
        timer.join()


def retention(effort: Effort) -> Rows:
    """The rate at which the log passes each length, of so many launches; then what memory grew by for an entry."""
    total = min(RETENTION_SECONDS_MAX, effort.seconds * 10)
    config = replace(BASE, log_mib=RETENTION_LOG_MIB)
    rates: dict[int, list[float]] = {}
    overheads: list[float] = []
    for _ in range(max(1, min(effort.runs, 2))):
        with started(config) as bench:
            leader = bench.leader
            victim = next(name for name in bench.cluster.replicas if name != leader)
            pid = bench.pids[leader]
            # Warm first, so that what grows afterwards is the log; then nobody can forget anything any more.
            bench.load(warmup_s=0.2, duration_s=0.5)
            before = resident_bytes(pid) or 0
            killed_s: list[float] = []
            killing = partial(_killing, bench.cluster.replicas[victim], killed_s)
            result = bench.load(warmup_s=0.0, duration_s=total, measured=killing)
            grown = (resident_bytes(pid) or 0) - before
        step_s = result.timeline["step_ns"] / 1e9
        answered = result.timeline["answered"]
        width = max(1, int(WINDOW_S / step_s))
        entries = 0
        for index, count in enumerate(answered):
            if bench.measured_from_s + index * step_s < killed_s[0]:
                continue  # everybody holds it, and it is forgotten
            reached = [mark for mark in RETENTION_MARKS if entries < mark <= entries + count]
            around = answered[max(0, index - width // 2) : index + width // 2 + 1]
            for mark in reached:
                rates.setdefault(mark, []).append(sum(around) / (len(around) * step_s))
            entries += count
        overheads.append(grown / max(1, entries) - REQUEST_BYTES)
    rows: Rows = [_row(f"{mark:,}", mark, "throughput_rps", rates[mark]) for mark in RETENTION_MARKS if mark in rates]
    if rows:
        rows[-1]["overhead_bytes"] = round(statistics.median(overheads), 1)
    command = f"one follower of three killed, then 512 outstanding for {total:g} s, --log-mib {RETENTION_LOG_MIB}"
    return [row | {"command": command} for row in rows]


def memory(effort: Effort) -> Rows:
    """Resident memory of the leader: at rest, then every fifth of a load that is long for a benchmark."""
    total = effort.memory_seconds
    with started(BASE) as bench:
        leader = bench.leader
        rows = [{"label": "at rest", "rss_mib": _mib(bench.pids[leader]), "throughput_rps": 0.0}]
        for part in range(1, 6):
            result = bench.load(warmup_s=0.0, duration_s=total / 5)
            rows.append(
                {
                    "label": f"after {part * total / 5:g} s of load",
                    "rss_mib": _mib(bench.pids[leader]),
                    "throughput_rps": result.throughput_rps,
                }
            )
    return [row | {"command": f"replicated --backend dpdk --outstanding 512, {total:g} s of load"} for row in rows]


def profile(effort: Effort) -> Rows:
    """The table of layers, as one row with Markdown in it."""
    layers = Layers()
    result = measure(
        replace(BASE, duration_s=max(1.0, effort.seconds)),
        None,
        lambda line: print(line, file=sys.stderr),
        layers.recording,
    )
    command = f"r2p2 bench replicated --backend dpdk --outstanding 512 --pin {BEST_PIN} --profile"
    return [
        {
            "label": "profile",
            "command": command,
            "markdown": layers.text(result),
            "throughput_rps": result.throughput_rps,
            "batches": result.batches,
        }
    ]


def _mib(pid: int) -> float:
    return round((resident_bytes(pid) or 0) / 2**20, 1)


def _row(label: str, x: float, name: str, values: list[float]) -> dict[str, Any]:
    spread = {name: [round(min(values), 1), round(max(values), 1)]}
    return {"label": label, "x": x, name: round(statistics.median(values), 1), "spread": spread}


SPECIAL: dict[str, Callable[[Effort], Rows]] = {"retention": retention, "memory": memory, "profile": profile}
