"""R2P2 itself: ``r2p2 bench`` for what is replicated and for the echo, a server and the same generator for the store.

Over memif, and over kernel UDP on loopback, as all others are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.compare.measure import (
    REQUEST_BYTES,
    Load,
    Measure,
    Sample,
    Setting,
    Stage,
    System,
    Times,
    closed_loops,
    run_client,
    start_server,
    udp_client,
)
from r2p2.processes import ProcessFailed
from r2p2.serve import READY_PREFIX

PORT = 8000
PIN = "leader+generator"
BENCH_SECONDS = 60.0  # beyond the measured time: start, an election, reading back what was written


def parse_report(report: Mapping[str, Any]) -> Sample:
    """From what ``r2p2 bench --json`` writes."""
    rate = report["throughput_rps"]
    cores = {name: cpu * rate / 1e6 for name, cpu in report["cpu_us_per_request"].items()}
    client = cores.pop("generator", 0.0)
    failed = report["timeouts"] + report["dropped"] + report["wrong"]
    return Sample(rate, report["p50_us"], report["p99_us"], sum(cores.values()), client, failed)


@contextmanager
def bench(stage: Stage, what: str, backend: str, storage: Path | None = None, pin: str = "none") -> Iterator[Measure]:
    """``r2p2 bench``, which starts its servers itself, for each run of load anew."""

    def measure(load: Load, times: Times) -> Sample:
        report = stage.folder / "bench.json"
        argv = [str(stage.our_python), "-m", "r2p2", "bench", what, "--backend", backend]
        argv += ["--outstanding", str(load.outstanding), "--size", str(REQUEST_BYTES), "--json", str(report)]
        argv += ["--duration", str(times.measure_s), "--warmup", str(times.warmup_s), "--pin", pin]
        if storage is not None:
            argv += ["--storage", str(storage)]
        process = stage.supervisor.start("bench", argv)
        code = process.wait(times.warmup_s + times.measure_s + BENCH_SECONDS)
        if code != 0:
            raise ProcessFailed(f"{' '.join(argv[1:])} ended with exit code {code}\n{process.tail()}")
        return parse_report(json.loads(report.read_text()))

    yield measure


@contextmanager
def store(stage: Stage, backend: str) -> Iterator[Measure]:
    """The key-value store without replicas."""
    memif = str(stage.folder / "store.sock") if backend == "dpdk" else ""
    bind = f"10.0.0.1:{PORT}" if memif else f"{stage.ip(0)}:{PORT}"
    argv = [str(stage.our_python), "-m", "r2p2", "serve", "--app", "kv", "--backend", backend, "--bind", bind]
    argv += ["--link", f"server:10.0.0.100:{memif}"] if memif else []
    server = start_server(stage, argv, READY_PREFIX)
    yield lambda load, times: run_client(stage, udp_client(stage, bind, "set", load, times, memif), [server], times)


def _bench(category: str, name: str, what: str, backend: str, *outstanding: int) -> Setting:
    return Setting(category, name, closed_loops(*outstanding), lambda stage: bench(stage, what, backend))


def _pinned(backend: str, *outstanding: int) -> Setting:
    loads, name = closed_loops(*outstanding), "in memory, pinned"
    return Setting("writes", name, loads, lambda stage: bench(stage, "replicated", backend, pin=PIN))


def _stored(category: str, name: str, backend: str, folder: Callable[[Stage], Path], *outstanding: int) -> Setting:
    loads = closed_loops(*outstanding)
    return Setting(category, name, loads, lambda stage: bench(stage, "replicated", backend, folder(stage)))


def _system(backend: str, title: str, writes_best: int, echo_best: int) -> System:
    return System(
        backend,
        title,
        (
            _bench("writes", "in memory", "replicated", backend, 1, 64, 256, writes_best),
            _pinned(backend, 64, 256, writes_best),
            _stored("writes", "files in memory", backend, lambda stage: stage.memory, 64, 256, writes_best),
            _stored("durable", "files on disk", backend, lambda stage: stage.disk, 1, 64, 256, writes_best),
            _bench("echo", "batch handler", "echo", backend, 1, 64, 256, echo_best),
            Setting("kv", "one server", closed_loops(1, 64, 256, echo_best), lambda stage: store(stage, backend)),
        ),
        backend=backend,
    )


MEMIF = _system("dpdk", "R2P2 over memif", 1024, 512)
UDP = _system("uv", "R2P2 over kernel UDP", 1024, 32)
