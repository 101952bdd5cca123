"""A result of a benchmark, as the tests of reports take it."""

from __future__ import annotations

from r2p2.bench.report import BenchResult

RESULT = BenchResult(
    what="replicated",
    backend="uv",
    outstanding=64,
    rate=0.0,
    size=64,
    duration_s=2.0,
    answered=400_000,
    timeouts=0,
    dropped=0,
    wrong=0,
    p50_us=300.0,
    p90_us=400.0,
    p99_us=512.4,
    p999_us=2048.0,
    cpu_s={"replica 1": 1.0, "generator": 0.5},
)
