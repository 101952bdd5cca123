"""One measurement: starts the processes, warms up, measures, and says what came of it as a :class:`BenchResult`.

Closed loop: so many calls wait at any time. Open loop: calls begin at a rate, and latency counts from when a call was
due.
The generator itself reads the processor times at the two ends of the measured time, so that both are of the same time.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r2p2.bench.batches import batch_sizes, losses
from r2p2.bench.cluster import Cluster, plan
from r2p2.bench.generator import Spec
from r2p2.bench.placement import check as check_placement
from r2p2.bench.placement import place
from r2p2.bench.report import PERCENTILES, BenchResult
from r2p2.bench.verify import Verdict, count_executions
from r2p2.busy_loop import IDLE_POLICIES
from r2p2.client import FIXED_ROUTE, REPLICATED, REPLICATED_READ
from r2p2.distribution import Distribution
from r2p2.errors import UserError
from r2p2.loadgen import LoadStats
from r2p2.ports import PortSpec, missing
from r2p2.processes import ProcessFailed, pin, resident_bytes

__all__ = [
    "OPEN_LOOP_WAITING_MAX",
    "WHATS",
    "Bench",
    "BenchConfig",
    "ProgressLines",
    "load_result",
    "machine",
    "measure",
    "read_back",
    "run_for",
    "started",
    "warm_up",
]

Measured = Callable[[], AbstractContextManager[object]]

# What is measured -> the generator's workload, the policy on one server and on a group, and the application.
WHATS: dict[str, tuple[str, int, str]] = {
    "echo": ("echo", FIXED_ROUTE, "echo"),
    "replicated": ("set", REPLICATED, "kv"),
    "reads": ("get", REPLICATED_READ, "kv"),
    "spin": ("spin", FIXED_ROUTE, "spin"),
    "stss": ("stss", FIXED_ROUTE, "stss"),
    "generator": ("set", REPLICATED, ""),
}
ALWAYS_REPLICATED = ("replicated", "reads")
# More than the rings between two processes hold would be lost on the way, and sent again, whenever one of them has
# to wait for a processor: a burst that was due becomes a storm of repetitions.
OPEN_LOOP_WAITING_MAX = 2_048
STORED_BYTES_MAX = 64 << 20  # of values at a replica: fewer keys, when they are large
SESSION_TIMEOUT_MS = 3000  # the calls of a session are repeated meanwhile
VERIFY_SECONDS = 20.0
STATUS_SECONDS = 10.0
# A progress event is a pause of the load, which an open loop counts as latency: no more of them than one wants to read.
# They end the warm-up, too.
PROGRESS_SECONDS_MIN = 0.25
PROGRESS_SECONDS_MAX = 1.0
SETTLE_SECONDS = 10.0  # for an answer of the generator beyond the time it was told to take


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """What to measure. `what`: a name of WHATS; "echo", "spin" and "stss" are one server, unless `grouped`."""

    what: str
    backend: str
    outstanding: int = 64
    rate: float = 0.0
    size: int = 64
    duration_s: float = 5.0
    warmup_s: float = 1.0
    replicas: int = 3
    keys_count: int = 16_384
    storage: Path | None = None
    """replicated: durable members, in a folder made there and removed afterwards."""
    leader_only: bool = False
    """reads: all of them at one member, which becomes whoever answered last; else each member its share."""
    sessions: int = 0
    """replicated: of so many sessions, with retries and exactly once; 0: single calls, executed as they come."""
    plain: str = ""
    """Another server in place of ours: echo over uv "asyncio" or "uvloop", as a comparison; "null", with which the
    generator is measured.
    """
    grouped: bool = False
    """echo, spin, stss: by `replicas` replicas, as replicated requests."""
    sizes: Distribution | None = None
    """In place of `size`."""
    service_ns: Distribution | None = None
    reply_bytes: int = 8
    reads: float = 0.0
    zipf: float = 0.0
    pin: str = ""
    idle: str = "yield"
    log_mib: int = 0
    """Of log at each replica; 0: the default."""
    handler: str = ""
    """The servers' application as ``r2p2 serve --app`` names it; by default what fits the load."""

    def check(self) -> None:
        """UserError when it is out of bounds."""
        if self.plain and self.what != "generator" and (self.what != "echo" or self.backend != "uv" or self.grouped):
            raise UserError("--against compares echo over uv only", "r2p2 bench echo --backend uv --against asyncio")
        if self.storage is not None and not self.is_replicated:
            raise UserError("--storage without replicas", "r2p2 bench replicated --storage DIR")
        if self.service_ns is not None and self.what not in ("spin", "stss"):
            raise UserError(f"a service time with {self.what}", "r2p2 bench spin|stss --service 10us")
        if self.idle not in IDLE_POLICIES:
            raise UserError(f"--idle {self.idle!r} is none of {', '.join(IDLE_POLICIES)}")
        if self.sessions and WHATS[self.what][0] != "set":
            raise UserError(f"sessions with {self.what}", "They are for writes: r2p2 bench replicated --sessions N")
        check_placement(self.pin)
        self.spec().config(1).check()

    @property
    def is_replicated(self) -> bool:
        """Whether Raft is in it."""
        return self.what in ALWAYS_REPLICATED or self.grouped

    @property
    def app(self) -> str:
        """What the servers run."""
        return self.handler or WHATS[self.what][2]

    def _keys_count(self) -> int:
        largest = self.sizes.largest if self.sizes is not None else self.size
        return max(self.outstanding, min(self.keys_count, int(STORED_BYTES_MAX // max(largest, 1))))

    def spec(self) -> Spec:
        """For the generator; its port and targets are the cluster's to fill in."""
        workload, policy, _ = WHATS[self.what]
        return Spec(
            port=PortSpec(self.backend, "0.0.0.0"),
            targets=(),
            workload=workload,
            policy=REPLICATED if self.grouped and self.what not in ALWAYS_REPLICATED else policy,
            spread=(self.what == "reads" or self.reads > 0) and not self.leader_only,
            outstanding=self.outstanding,
            size=self.size,
            rate=self.rate,
            keys_count=self._keys_count(),
            sessions=self.sessions,
            timeout_ms=SESSION_TIMEOUT_MS if self.sessions else 1000,
            sizes=self.sizes,
            service_ns=self.service_ns,
            reply_bytes=self.reply_bytes,
            reads=self.reads,
            zipf=self.zipf,
            slice_seconds=min(PROGRESS_SECONDS_MAX, max(PROGRESS_SECONDS_MIN, min(self.warmup_s, self.duration_s))),
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
    stats, at_end = LoadStats(**stopped["stats"]), LoadStats(**stopped["at_end"])
    before, after = reset["cpu_s"], stopped["cpu_s"]
    return BenchResult(
        what=config.what,
        backend=config.backend,
        outstanding=config.outstanding,
        rate=config.rate,
        size=config.size,
        duration_s=(stopped["ended_ns"] - stats.started_ns) / 1e9,
        answered=at_end.answered,
        timeouts=stats.timeouts,
        dropped=stats.dropped,
        wrong=stats.wrong,
        cpu_s={name: after[name] - before[name] for name in after if name in before},
        machine=machine(),
        replicas=config.replicas if config.is_replicated else 0,
        sessions=config.sessions,
        idle=config.idle,
        sizes=config.sizes.text if config.sizes else "",
        service=config.service_ns.text if config.service_ns else "",
        reads=config.reads,
        reads_answered=stats.reads_answered,
        zipf=config.zipf,
        pin=config.pin,
        unsent=int(at_end.behind_ns / 1e9 * config.rate),
        late_mean_us=at_end.late_sum_ns / max(1, at_end.issued) / 1e3,
        late_max_us=at_end.late_max_ns / 1e3,
        histogram=tuple((edge, count) for edge, count in stopped["histogram"]),
        timeline=stopped["timeline"],
        **{name: stopped["percentiles"][name] for name in PERCENTILES},
    )


@contextmanager
def _storage_folder(config: BenchConfig) -> Iterator[Path | None]:
    if config.storage is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="r2p2-bench-", dir=config.storage) as folder:
        yield Path(folder)


class Bench:
    """Servers and a generator that are ready; made by :func:`started`. Loads go one after the other, then the end."""

    def __init__(self, cluster: Cluster, config: BenchConfig, say: Callable[[str], None]) -> None:
        """Waits for the servers, pins all processes."""
        self.cluster = cluster
        self._config = config
        self._say = say
        self._loads: list[LoadStats] = []
        self._generator_counters: dict[str, int] = {}
        self._before = cluster.wait_ready()
        leader = next((name for name, node in self._before.items() if node.get("role") == "leader"), "")
        self.leader = leader
        """The process that led before the load; empty where nobody leads."""
        self.measured_from_s = 0.0
        """When the last measured time began, as time.monotonic() has it."""
        count = len(self._before)
        say(f"{count} server{'s' * (count > 1)} up{', ' + leader + ' leads' if leader else ''}")
        self.placement = place(config.pin, list(cluster.replicas), leader)
        for name, cpu in self.placement.items():
            pin(self.pids[name], cpu)
        cluster.watch()

    @property
    def pids(self) -> dict[str, int]:
        """Of every process, by name."""
        servers = {name: process.pid for name, process in self.cluster.replicas.items()}
        return servers | {"generator": self.cluster.generator.process.pid}

    def load(
        self, *, warmup_s: float, duration_s: float, rate: float | None = None, measured: Measured = nullcontext
    ) -> BenchResult:
        """Make load and measure it; `rate`: another one than the configuration's. `measured`: a context that begins
        with the measured time and ends with it, as a profiler's.
        """
        config, generator = self._config, self.cluster.generator
        if rate is not None:
            config = replace(config, rate=rate)
            generator.tell("rate", str(rate))
        if self._loads:  # what came since the last load's reset has been counted
            generator.tell("reset")
            generator.event("reset", SETTLE_SECONDS)
        generator.tell("start")
        run_for(self.cluster, warmup_s)
        generator.tell("measure", str(duration_s))
        started_ns = generator.event("measuring", SETTLE_SECONDS)["started_ns"]
        lines = ProgressLines(self.cluster.plan.name_of, started_ns)
        with measured():
            stopped = generator.event(
                "stopped", duration_s + SETTLE_SECONDS, lambda event: self._say(lines.line(event))
            )
            resident = {name: resident_bytes(pid) for name, pid in self.pids.items()}
        reset = stopped["reset"]
        self.measured_from_s = (reset["stats"]["started_ns"] + reset["offset_ns"]) / 1e9
        self._generator_counters = stopped["counters"]
        self._loads += [LoadStats(**reset["discarded"]), LoadStats(**stopped["stats"])]
        return replace(
            load_result(config, reset, stopped),
            placement=self.placement,
            rss_mib={name: round(bytes_ / 2**20, 1) for name, bytes_ in resident.items() if bytes_ is not None},
        )

    def _status(self) -> dict[str, dict[str, Any]]:
        """Of every server, as it is asked after the load."""
        count = len(self._before)
        return self.cluster.wait_status(lambda nodes: len(nodes) == count, STATUS_SECONDS, "the status of every server")

    def _losses(self, after: dict[str, dict[str, Any]]) -> dict[str, dict[str, int]]:
        return losses(self._before, after | {"generator": {"counters": self._generator_counters}})

    def finish(self, result: BenchResult) -> BenchResult:
        """What can be said of all loads once they have ended: whether they were executed once, how large batches were.

        No load comes after it.
        """
        if not self._config.sessions or self._config.plain:
            self.cluster.generator.tell("finish")
            self.cluster.generator.event("finished", SETTLE_SECONDS)
            after = self._status()
            return replace(result, batches=batch_sizes(self._before, after), losses=self._losses(after))
        self._say("reading every key back")
        verdict = read_back(self.cluster)
        after = self._status()
        executions = count_executions(self._loads, after)
        return replace(
            result,
            is_verified=verdict.holds and executions.holds,
            verification=executions.text() + ("" if verdict.holds else f"; {verdict.text()}"),
            batches=batch_sizes(self._before, after),
            losses=self._losses(after),
        )


@contextmanager
def started(
    config: BenchConfig, log_folder: Path | None = None, say: Callable[[str], None] = lambda line: None
) -> Iterator[Bench]:
    """All processes of a benchmark, until the block's end. Logs go to `log_folder`; without one they are gone then.

    UserError for a configuration out of bounds, ProcessFailed when a process fails.
    """
    config.check()
    reason = missing(config.backend)
    if reason is not None:
        raise reason
    with tempfile.TemporaryDirectory(prefix="r2p2-") as temporary, _storage_folder(config) as storage:
        layout = plan(config.backend, config.replicas if config.is_replicated else 1, Path(temporary))
        try:
            with Cluster(
                layout,
                log_folder or Path(temporary),
                app=config.app,
                replicated=config.is_replicated,
                load=config.spec(),
                plain=config.plain,
                storage=storage,
                idle=config.idle,
                log_mib=config.log_mib,
            ) as cluster:
                yield Bench(cluster, config, say)
        except ProcessFailed as error:
            remedy = error.remedy if log_folder else "--logs DIR keeps all that the processes print"
            raise ProcessFailed(error.message, remedy) from error


def measure(
    config: BenchConfig,
    log_folder: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    profiler: Callable[[Mapping[str, int]], AbstractContextManager[object]] | None = None,
) -> BenchResult:
    """One measurement from start to end, as :func:`started` says. `profiler`: of the processes by name, around the
    measured time.
    """
    with started(config, log_folder, say) as bench:

        def measured() -> AbstractContextManager[object]:
            return nullcontext() if profiler is None else profiler(bench.pids)

        result = bench.load(warmup_s=config.warmup_s, duration_s=config.duration_s, measured=measured)
        return bench.finish(result)


def warm_up(cluster: Cluster, seconds: float) -> dict[str, Any]:
    """Start the load and let it run for so long: the ``reset`` event with which the measured time begins, to end when
    the generator is told.
    """
    cluster.generator.tell("start")
    run_for(cluster, seconds)
    cluster.generator.tell("reset")
    return cluster.generator.event("reset", SETTLE_SECONDS)


def read_back(cluster: Cluster) -> Verdict:
    """Have the generator read every key back that it wrote, which ends its load: what became of the writes."""
    cluster.generator.tell("verify")
    event = cluster.generator.event("verified", VERIFY_SECONDS)
    return Verdict(*(event[name] for name in Verdict._fields))


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
    """Turns progress events into lines: the rate since the event before, the latency since the begin."""

    def __init__(self, name_of: Callable[[str], str], started_ns: int) -> None:
        """`name_of` names a server by its IP; `started_ns`: when the measured time began, on the generator's clock."""
        self._name_of = name_of
        self._last_ns = started_ns
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
