"""The result of one measurement, as JSON for machines and as a table for people.

Pure: numbers in, text out. Who measured them: :mod:`r2p2.bench.command`. The JSON has the keys ``throughput_rps``,
``p50_us``, ``p90_us``, ``p99_us``, ``p999_us`` and ``cpu_us_per_request`` (process name -> microseconds of processor
time a request), and what is needed to repeat and to judge the run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from r2p2.errors import UserError

__all__ = ["PERCENTILES", "BenchResult", "write_json"]

PERCENTILES: dict[str, float] = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "p999_us": 0.999}


@dataclass(frozen=True, slots=True)
class BenchResult:
    """One measurement. `rate` 0 is closed loop; counts and latencies are without the warm-up."""

    what: str
    backend: str
    outstanding: int
    rate: float
    size: int
    duration_s: float
    answered: int
    timeouts: int
    dropped: int
    wrong: int
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    cpu_s: Mapping[str, float]  # processor time of each process in the measured time
    machine: Mapping[str, str | int] = field(default_factory=dict)
    sessions: int = 0
    is_verified: bool = True  # with sessions: every acknowledged write was executed once, and is there
    verification: str = ""

    @property
    def throughput_rps(self) -> float:
        """Answers a second."""
        return self.answered / self.duration_s if self.duration_s > 0 else 0.0

    @property
    def cpu_us_per_request(self) -> dict[str, float]:
        """Of each process; 0 without any answer."""
        return {name: 1e6 * cpu / self.answered if self.answered else 0.0 for name, cpu in self.cpu_s.items()}

    @property
    def is_good(self) -> bool:
        """Something was answered, nothing wrongly, and with sessions all of it was executed once."""
        return self.answered > 0 and self.wrong == 0 and self.is_verified

    def to_json(self) -> dict[str, object]:
        """All of it, the derived figures first, ready for :func:`json.dumps`."""
        derived = {
            "throughput_rps": round(self.throughput_rps, 1),
            **{name: round(getattr(self, name), 3) for name in PERCENTILES},
            "cpu_us_per_request": {name: round(cpu, 4) for name, cpu in self.cpu_us_per_request.items()},
        }
        return derived | {name: value for name, value in asdict(self).items() if name not in derived}

    def text(self) -> str:
        """A table of a dozen lines."""
        loop = f"open loop, {self.rate:,.0f}/s offered" if self.rate else f"closed loop, {self.outstanding} outstanding"
        lines = [
            f"{self.what} over {self.backend}: {loop}, {self.size} bytes, {self.duration_s:.1f} s",
            f"  throughput   {self.throughput_rps:>12,.0f} requests/s",
            "  latency      " + "   ".join(f"{n[:-3]} {getattr(self, n):,.0f} us" for n in PERCENTILES),
        ]
        total = sum(self.cpu_us_per_request.values())
        lines.append(f"  cpu time     {total:>12.2f} us a request, of which")
        lines += [f"    {name:<12}{cpu:>11.2f} us" for name, cpu in self.cpu_us_per_request.items()]
        if self.verification:
            verdict = "exactly once" if self.is_verified else "NOT EXACTLY ONCE"
            lines.append(f"  {verdict}: {self.verification}, {self.sessions} session{'s' * (self.sessions > 1)}")
        bad = {"timeouts": self.timeouts, "dropped": self.dropped, "wrong answers": self.wrong}
        if any(bad.values()):
            lines.append("  not answered " + ", ".join(f"{count:,} {name}" for name, count in bad.items() if count))
        return "\n".join(lines)


def write_json(path: Path, result: BenchResult) -> None:
    """Write it as one JSON object. UserError when the file cannot be written."""
    try:
        path.write_text(json.dumps(result.to_json(), indent=2) + "\n")
    except OSError as error:
        raise UserError(f"the report cannot be written: {error}") from error
