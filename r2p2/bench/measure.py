"""One measurement: starts the processes, warms up, measures, and says what came of it as a :class:`BenchResult`.

Closed loop: so many calls wait at any time. Open loop: calls begin at a rate, and latency counts from when a call was
due.
The generator itself reads the processor times at the two ends of the measured time, so that both are of the same time.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r2p2.bench.cluster import Cluster, plan
from r2p2.bench.generator import Spec
from r2p2.bench.report import PERCENTILES, BenchResult
from r2p2.bench.verify import Verdict, count_executions
from r2p2.errors import UserError
from r2p2.loadgen import LoadStats
from r2p2.ports import PortSpec, missing
from r2p2.processes import ProcessFailed

__all__ = ["BenchConfig", "ProgressLines", "load_result", "machine", "measure", "run_for"]

REPLICATED_ROUTE = 2
FIXED_ROUTE = 1
SESSION_TIMEOUT_MS = 3000  # the calls of a session are repeated meanwhile
VERIFY_SECONDS = 20.0
SETTLE_SECONDS = 10.0  # for an answer of the generator beyond the time it was told to take


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """What to measure. `what`: "echo" (one server, unreplicated) or "replicated" (RESP SETs to a key-value store)."""

    what: str
    backend: str
    outstanding: int = 64
    rate: float = 0.0
    size: int = 64
    duration_s: float = 5.0
    warmup_s: float = 1.0
    replicas: int = 3
    keys_count: int = 16_384
    sessions: int = 0
    """replicated: of so many sessions, with retries and exactly once; 0: single calls, executed as they come."""
    plain: str = ""
    """echo over uv: "asyncio" or "uvloop" in place of our server, as a comparison."""

    def check(self) -> None:
        """UserError when it is out of bounds."""
        if self.plain and (self.is_replicated or self.backend != "uv"):
            raise UserError("--against compares echo over uv only", "r2p2 bench echo --backend uv --against asyncio")
        self.spec().config(1).check()

    @property
    def is_replicated(self) -> bool:
        """Whether Raft is in it."""
        return self.what == "replicated"

    def spec(self) -> Spec:
        """For the generator; its port and targets are the cluster's to fill in."""
        return Spec(
            port=PortSpec(self.backend, "0.0.0.0"),
            targets=(),
            workload="set" if self.is_replicated else "echo",
            policy=REPLICATED_ROUTE if self.is_replicated else FIXED_ROUTE,
            outstanding=self.outstanding,
            size=self.size,
            rate=self.rate,
            keys_count=max(self.keys_count, self.outstanding),
            sessions=self.sessions,
            timeout_ms=SESSION_TIMEOUT_MS if self.sessions else 1000,
        )


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        model = platform.machine()  # not Linux
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0
    return {"cpu": model, "cores": cores, "kernel": platform.release(), "python": platform.python_version()}


def load_result(config: BenchConfig, reset: dict[str, Any], stopped: dict[str, Any]) -> BenchResult:
    """The result from the generator's events at the two ends of the measured time."""
    stats = LoadStats(**stopped["stats"])
    before, after = reset["cpu_s"], stopped["cpu_s"]
    return BenchResult(
        what=config.what,
        backend=config.backend,
        outstanding=config.outstanding,
        rate=config.rate,
        size=config.size,
        duration_s=(stopped["ended_ns"] - stats.started_ns) / 1e9,
        answered=stats.answered,
        timeouts=stats.timeouts,
        dropped=stats.dropped,
        wrong=stats.wrong,
        cpu_s={name: after[name] - before[name] for name in after if name in before},
        machine=machine(),
        **{name: stopped["percentiles"][name] for name in PERCENTILES},
    )


def measure(
    config: BenchConfig, log_folder: Path | None = None, say: Callable[[str], None] = lambda line: None
) -> BenchResult:
    """Run it. Logs go to `log_folder`, which is kept; without one they are gone at the end.

    UserError for a configuration out of bounds, ProcessFailed when a process fails.
    """
    config.check()
    reason = missing(config.backend)
    if reason is not None:
        raise reason
    with tempfile.TemporaryDirectory(prefix="r2p2-") as temporary:
        layout = plan(config.backend, config.replicas if config.is_replicated else 1, Path(temporary))
        app = "kv" if config.is_replicated else "echo"
        folder = log_folder or Path(temporary)
        try:
            with Cluster(
                layout, folder, app=app, replicated=config.is_replicated, load=config.spec(), plain=config.plain
            ) as cluster:
                return _measure(cluster, config, say)
        except ProcessFailed as error:
            remedy = error.remedy if log_folder else "--logs DIR keeps all that the processes print"
            raise ProcessFailed(error.message, remedy) from error


def _measure(cluster: Cluster, config: BenchConfig, say: Callable[[str], None]) -> BenchResult:
    """Wait for the servers, warm up, measure."""
    status = cluster.wait_ready()
    leader = next((name for name, node in status.items() if node.get("role") == "leader"), "")
    say(f"{len(status)} server{'s' * (len(status) > 1)} up{', ' + leader + ' leads' if leader else ''}")
    generator = cluster.generator
    cluster.watch()
    generator.tell("start")
    run_for(cluster, config.warmup_s)
    generator.tell("reset")
    reset = generator.event("reset", SETTLE_SECONDS)
    lines = ProgressLines(cluster.plan.name_of, reset)
    run_for(cluster, config.duration_s, lambda event: say(lines.line(event)), reset["stats"]["started_ns"])
    generator.tell("stop")
    stopped = generator.event("stopped", SETTLE_SECONDS)
    result = load_result(config, reset, stopped)
    if not config.sessions:
        return result
    say("reading every key back")
    generator.tell("verify")
    event = generator.event("verified", VERIFY_SECONDS)
    verdict = Verdict(*(event[name] for name in Verdict._fields))
    loads = [LoadStats(**reset["discarded"]), LoadStats(**stopped["stats"])]
    executions = count_executions(loads, cluster.status())
    is_verified = verdict.holds and executions.holds
    return replace(result, sessions=config.sessions, is_verified=is_verified, verification=executions.text())


def run_for(
    cluster: Cluster,
    seconds: float,
    on_progress: Callable[[dict[str, Any]], None] = lambda event: None,
    start_ns: int | None = None,
    answers_max: int | None = None,
) -> int:
    """Let the load run until a progress event at least `seconds` after `start_ns` (default: after the first event).

    `answers_max`: end sooner, once so many answers have come since the first event. Returns the last event's time on
    the generator's clock.
    """
    first: dict[str, Any] | None = None
    while True:
        event = cluster.generator.event("progress", SETTLE_SECONDS)
        first = first or event
        now_ns: int = event["now_ns"]
        start_ns = now_ns if start_ns is None else start_ns
        on_progress(event)
        if now_ns - start_ns >= seconds * 1e9:
            return now_ns
        if answers_max is not None and event["answered"] - first["answered"] >= answers_max:
            return now_ns


class ProgressLines:
    """Turns progress events into lines: the rate since the event before, the latency since the reset."""

    def __init__(self, name_of: Callable[[str], str], reset: dict[str, Any]) -> None:
        """`name_of` names a server by its IP; `reset` is the event the measured time began with."""
        self._name_of = name_of
        self._last_ns: int = reset["stats"]["started_ns"]
        self._last_answered = 0
        self._last_failed = 0

    def line(self, event: dict[str, Any]) -> str:
        """The next line."""
        now_ns, answered = event["now_ns"], event["answered"]
        failed = event["timeouts"] + event["dropped"] + event["wrong"]
        rate = (answered - self._last_answered) / max(1e-9, (now_ns - self._last_ns) / 1e9)
        new_failed = failed - self._last_failed
        self._last_ns, self._last_answered, self._last_failed = now_ns, answered, failed
        latency = event["percentiles"]
        return (
            f"{rate:>9,.0f} requests/s   p50 {latency['p50_us']:>6,.0f} us   p99 {latency['p99_us']:>6,.0f} us   "
            f"{self._name_of(event['leader'])} answers{f'   {new_failed:,} not answered' if new_failed else ''}"
        )
