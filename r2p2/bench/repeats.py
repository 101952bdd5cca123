"""Several runs of one kind: their medians, and how far they lie apart.

A median alone hides that a shared machine gives different figures from run to run, and a mean follows the worst of
them; so both ends are told, too. Pure: results in, text out.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from r2p2.bench.report import PERCENTILES, BenchResult

__all__ = ["METRICS", "Repeats", "Spread"]


@dataclass(frozen=True, slots=True)
class Spread:
    """Of one figure over all runs."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """At least one."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 0) -> str:
        """``median (least..most)``."""
        return f"{self.median:,.{digits}f} ({self.least:,.{digits}f}..{self.most:,.{digits}f})"


def _percentile(name: str) -> Callable[[BenchResult], float]:
    return lambda result: float(getattr(result, name))


METRICS: dict[str, Callable[[BenchResult], float]] = {
    "throughput_rps": lambda result: result.throughput_rps,
    **{name: _percentile(name) for name in PERCENTILES},
    "cpu_us": lambda result: sum(result.cpu_us_per_request.values()),
    "generator_share": lambda result: result.generator_share,
}


@dataclass(frozen=True, slots=True)
class Repeats:
    """At least one run."""

    runs: Sequence[BenchResult]

    def spread(self, metric: str) -> Spread:
        """Of a name of METRICS."""
        return Spread.of([METRICS[metric](run) for run in self.runs])

    @property
    def middle(self) -> BenchResult:
        """The run whose throughput is the median (of an even number: the lower of the two)."""
        return sorted(self.runs, key=lambda run: run.throughput_rps)[(len(self.runs) - 1) // 2]

    @property
    def is_good(self) -> bool:
        """All of them."""
        return all(run.is_good for run in self.runs)

    def to_json(self) -> dict[str, object]:
        """The medians under the names of a single run's figures, the spread of each, and all runs."""
        spreads = {name: self.spread(name) for name in METRICS}
        return {
            **{name: round(spread.median, 3) for name, spread in spreads.items()},
            "spread": {name: [round(s.least, 3), round(s.most, 3)] for name, s in spreads.items()},
            "runs_count": len(self.runs),
            "runs": [run.to_json() for run in self.runs],
        }

    def text(self) -> str:
        """The figures of all runs in a few lines, below what the middle one says."""
        lines = [f"{len(self.runs)} runs, each with processes of its own: median (least..most)"]
        lines.append(f"  throughput   {self.spread('throughput_rps').text():>28} requests/s")
        lines += [f"  {name[:-3]:<12} {self.spread(name).text():>28} us" for name in PERCENTILES]
        lines.append(f"  cpu time     {self.spread('cpu_us').text(2):>28} us a request")
        return "\n".join(lines)
