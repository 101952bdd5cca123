"""The result of one measurement, as JSON for machines and as a table for people.

Pure: numbers in, text out. Who measured them: :mod:`r2p2.bench.measure`. The JSON has the keys ``throughput_rps``,
``p50_us``, ``p90_us``, ``p99_us``, ``p999_us`` and ``cpu_us_per_request`` (process name -> microseconds of processor
time a request), and what is needed to repeat and to judge the run. Several runs of one kind: :mod:`r2p2.bench.repeats`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from r2p2.bench.pauses import Pauses
from r2p2.errors import UserError

__all__ = ["PERCENTILES", "BenchResult", "write_json"]

PERCENTILES: dict[str, float] = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "p999_us": 0.999}
UNSENT_SHARE_MAX = 0.001  # of an open loop's calls: more, and the percentiles miss the worst
LOSSES_SHOWN = 8  # counters of a process in the text; the JSON has all


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
    command: str = ""
    replicas: int = 0
    idle: str = ""
    sizes: str = ""  # a distribution; `size` is then not used
    service: str = ""
    reads: float = 0.0  # part of the calls
    reads_answered: int = 0
    zipf: float = 0.0
    pin: str = ""
    placement: Mapping[str, int] = field(default_factory=dict)  # process name -> processor
    unsent: int = 0  # open loop: calls that were due and not sent at the end
    late_mean_us: float = 0.0  # open loop: how long after they were due calls were sent
    late_max_us: float = 0.0
    batches: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # bench.batches
    losses: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # bench.batches
    rss_mib: Mapping[str, float] = field(default_factory=dict)  # resident at the end
    pauses: Sequence[Pauses] = ()  # of the processors, before the load
    histogram: Sequence[tuple[int, int]] = ()  # bench.hdr
    timeline: Mapping[str, Any] = field(default_factory=dict)  # r2p2.loadgen.Timeline

    @property
    def throughput_rps(self) -> float:
        """Answers a second."""
        return self.answered / self.duration_s if self.duration_s > 0 else 0.0

    @property
    def cpu_us_per_request(self) -> dict[str, float]:
        """Of each process; 0 without any answer."""
        return {name: 1e6 * cpu / self.answered if self.answered else 0.0 for name, cpu in self.cpu_s.items()}

    @property
    def generator_share(self) -> float:
        """Of one processor's time, what the generator took. One that spins or yields takes what is left over."""
        return self.cpu_s.get("generator", 0.0) / self.duration_s if self.duration_s > 0 else 0.0

    @property
    def kept_up(self) -> bool:
        """Open loop: whether all calls that were due were sent."""
        return self.unsent <= UNSENT_SHARE_MAX * max(self.answered, 1)

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
            "generator_share": round(self.generator_share, 4),
        }
        return derived | {name: value for name, value in asdict(self).items() if name not in derived}

    def title(self) -> str:
        """What was measured, in a line."""
        loop = f"open loop, {self.rate:,.0f}/s offered" if self.rate else f"closed loop, {self.outstanding} outstanding"
        size = f"{self.sizes} bytes" if self.sizes else f"{self.size} bytes"
        parts = [loop, size, f"{self.duration_s:.1f} s"]
        if self.service:
            parts.insert(2, f"service time {self.service}")
        if self.reads:
            parts.insert(2, f"{self.reads:.0%} reads")
        if self.zipf:
            parts.insert(2, f"keys with a skew of {self.zipf:g}")
        if self.pin:
            parts.append(f"pinned {self.pin}")
        return f"{self.what} over {self.backend}: {', '.join(parts)}"

    def text(self) -> str:
        """A table of a dozen lines or two."""
        lines = [
            self.title(),
            f"  throughput   {self.throughput_rps:>12,.0f} requests/s",
            "  latency      " + "   ".join(f"{n[:-3]} {getattr(self, n):,.0f} us" for n in PERCENTILES),
        ]
        total = sum(self.cpu_us_per_request.values())
        lines.append(f"  cpu time     {total:>12.2f} us a request, of which")
        for name, cpu in self.cpu_us_per_request.items():
            where = f"   on processor {self.placement[name]}" if name in self.placement else ""
            memory = f"   {self.rss_mib[name]:,.0f} MiB resident" if name in self.rss_mib else ""
            lines.append(f"    {name:<12}{cpu:>11.2f} us{where}{memory}")
        lines.append(f"  the generator takes {self.generator_share:.0%} of a processor, waiting included")
        for name, sizes in self.batches.items():
            lines.append(f"  batches of {name}: " + ", ".join(f"{n:,.1f} {what}" for what, n in sizes.items()))
        for name, counts in self.losses.items():
            most = list(counts.items())[:LOSSES_SHOWN]
            lines.append(f"  counted at {name}: " + ", ".join(f"{n:,} {counter}" for counter, n in most))
        if self.verification:
            verdict = "exactly once" if self.is_verified else "NOT EXACTLY ONCE"
            lines.append(f"  {verdict}: {self.verification}, {self.sessions} session{'s' * (self.sessions > 1)}")
        if self.rate:
            late = f"{self.late_mean_us:,.0f} us late in the mean, {self.late_max_us:,.0f} us at most"
            lines.append(f"  calls were sent {late} (in the latencies)")
        if not self.kept_up:
            lines.append(f"  NOT KEPT UP: {self.unsent:,} calls were due and not sent; the latencies miss them")
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
