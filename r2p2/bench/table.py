"""Results as CSV, a row a run, for spreadsheets and other people's plots."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from r2p2.bench.report import PERCENTILES, BenchResult
from r2p2.errors import UserError

__all__ = ["COLUMNS", "row", "write_csv"]

_AS_THEY_ARE = (
    *("what", "backend", "replicas", "sessions", "outstanding", "rate", "size", "sizes", "service", "reads", "zipf"),
    *("pin", "idle", "duration_s", "answered", "timeouts", "dropped", "wrong", "unsent", "late_max_us"),
)
COLUMNS = (*_AS_THEY_ARE, "throughput_rps", *PERCENTILES, "cpu_us", "generator_cpu_us", "generator_share", "rss_mib")


def row(result: BenchResult) -> dict[str, object]:
    """One run; what differs from process to process is summed up."""
    cpu = result.cpu_us_per_request
    return {name: getattr(result, name) for name in (*_AS_THEY_ARE, *PERCENTILES)} | {
        "throughput_rps": round(result.throughput_rps, 1),
        "cpu_us": round(sum(cpu.values()), 4),
        "generator_cpu_us": round(cpu.get("generator", 0.0), 4),
        "generator_share": round(result.generator_share, 4),
        "rss_mib": round(sum(result.rss_mib.values()), 1),
    }


def write_csv(path: Path, results: Sequence[BenchResult]) -> None:
    """Write them. UserError when the file cannot be written."""
    try:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(row(result) for result in results)
    except OSError as error:
        raise UserError(f"the table cannot be written: {error}") from error
