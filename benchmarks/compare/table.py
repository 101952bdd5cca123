"""From samples to medians, ratios and a page. Pure: numbers in, text out.

What may be set beside what is decided here: :data:`CATEGORIES` are the tables, :data:`CLAIMS` the ratios with the
targets that the project sets itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.compare.measure import Load, Sample
from r2p2.columns import aligned
from r2p2.errors import UserError

__all__ = ["CATEGORIES", "CLAIMS", "Claim", "Ratio", "Row", "insert", "markdown", "ratios", "text_table"]

COLUMNS = (1, 64, 256)  # outstanding requests that every system is measured at
BEGIN, END = "<!-- compare -->", "<!-- /compare -->"

CATEGORIES: dict[str, str] = {
    "writes": "Replicated writes, in memory, called from another process",
    "inside": "Replicated writes, the caller inside the leader's process",
    "durable": "Replicated writes, durable on disk",
    "echo": "Echo, one server",
    "kv": "Key-value store, one server, nothing replicated",
    "streams": "Echo over TCP streams, one server",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One system in one setting under one load, with a sample for each round."""

    system: str
    title: str
    category: str
    setting: str
    load: Load
    samples: tuple[Sample, ...]

    @property
    def rate_rps(self) -> float:
        """The median."""
        return median(sample.rate_rps for sample in self.samples)

    @property
    def p50_us(self) -> float:
        """The median of the rounds' medians."""
        return median(sample.p50_us for sample in self.samples)

    @property
    def p99_us(self) -> float:
        """The median of the rounds' 99th percentiles."""
        return median(sample.p99_us for sample in self.samples)

    @property
    def server_cores(self) -> float:
        """Of all servers together, the median."""
        return median(sample.server_cores for sample in self.samples)

    @property
    def client_cores(self) -> float | None:
        """The median; None where the caller is inside a server."""
        known = [sample.client_cores for sample in self.samples if sample.client_cores is not None]
        return median(known) if known else None

    @property
    def failed(self) -> int:
        """Requests of all rounds that were not answered rightly."""
        return sum(sample.failed for sample in self.samples)

    def to_json(self) -> dict[str, Any]:
        """All of it, the medians first."""
        medians = {name: getattr(self, name) for name in ("rate_rps", "p50_us", "p99_us", "server_cores")}
        return medians | {"client_cores": self.client_cores} | asdict(self)


@dataclass(frozen=True, slots=True)
class Side:
    """Rows to choose from: the best of them counts, at each load. `settings`: only these; empty: any."""

    systems: tuple[str, ...]
    category: str
    settings: tuple[str, ...] = ()

    def rows(self, rows: Iterable[Row]) -> list[Row]:
        """Those of `rows` that belong to it."""
        return [
            row
            for row in rows
            if row.system in self.systems
            and row.category == self.category
            and (not self.settings or row.setting in self.settings)
        ]


@dataclass(frozen=True, slots=True)
class Claim:
    """We beside them. `target`: how many times their best rate ours is to be; 0: none is set."""

    against: str
    theirs: Side
    ours_category: str
    ours_settings: tuple[str, ...] = ()
    target: float = 0.0


IN_MEMORY = ("in memory", "in memory, pinned")
CLAIMS: tuple[Claim, ...] = (
    Claim("etcd, files in memory; ours in memory", Side(("etcd",), "writes"), "writes", IN_MEMORY, 30),
    Claim("etcd, files in memory; ours the same", Side(("etcd",), "writes"), "writes", ("files in memory",)),
    Claim("etcd, files on disk; ours the same", Side(("etcd",), "durable"), "durable"),
    Claim("PySyncObj behind UDP", Side(("pysyncobj",), "writes"), "writes", IN_MEMORY, 10),
    Claim("PySyncObj, caller inside; ours remote", Side(("pysyncobj",), "inside"), "writes", IN_MEMORY, 4),
    Claim("Redis, two replicas, WAIT 1", Side(("redis",), "writes"), "writes", IN_MEMORY),
    Claim("gRPC for Python, echo", Side(("grpc",), "echo"), "echo", (), 20),
    Claim("asyncio, UDP echo", Side(("asyncio",), "echo"), "echo"),
    Claim("uvloop, UDP echo", Side(("uvloop",), "echo"), "echo"),
    Claim("Redis, one server", Side(("redis",), "kv"), "kv"),
    Claim("memcached, one server", Side(("memcached",), "kv"), "kv"),
    Claim(
        "asyncio, TCP, a request a connection",
        Side(("asyncio",), "streams", ("TCP, a request a connection",)),
        "echo",
    ),
    Claim(
        "uvloop, TCP, a request a connection",
        Side(("uvloop",), "streams", ("TCP, a request a connection",)),
        "echo",
    ),
)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A claim with figures, each None where one side was not measured. `latency`: their p50 to ours, at one request."""

    claim: Claim
    ours: str
    latency: float | None
    rates: Mapping[int, float | None]
    best: float | None

    @property
    def is_met(self) -> bool | None:
        """None without a target, or without figures."""
        return None if not self.claim.target or self.best is None else self.best >= self.claim.target


def _rate_at(rows: Iterable[Row], outstanding: int) -> float | None:
    return max((row.rate_rps for row in rows if row.load.outstanding == outstanding), default=None)


def _best(rows: Iterable[Row]) -> float | None:
    return max((row.rate_rps for row in rows), default=None)


def _latency(rows: Iterable[Row]) -> float | None:
    return min((row.p50_us for row in rows if row.load.outstanding == 1), default=None)


def _quotient(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None


def ratios(rows: Sequence[Row], ours: Mapping[str, str]) -> list[Ratio]:
    """Every claim of which both sides were measured, for each of our systems (`ours`: key -> title)."""
    found = []
    for claim in CLAIMS:
        theirs = claim.theirs.rows(rows)
        for key, title in ours.items():
            mine = Side((key,), claim.ours_category, claim.ours_settings).rows(rows)
            if theirs and mine:
                rates = {n: _quotient(_rate_at(mine, n), _rate_at(theirs, n)) for n in COLUMNS[1:]}
                latency = _quotient(_latency(theirs), _latency(mine))
                found.append(Ratio(claim, title, latency, rates, _quotient(_best(mine), _best(theirs))))
    return found


def _number(value: float) -> str:
    """Three digits that count."""
    digits = max(0, len(f"{value:.0f}") - 3)
    return f"{round(value, -digits):,.0f}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value < 20 else f"{value:,.0f}"


def _cores(row: Row) -> str:
    client = "inside" if row.client_cores is None else f"{row.client_cores:.2f}"
    return f"{row.server_cores:.2f} + {client}"


def category_table(rows: Sequence[Row], category: str) -> list[list[str]]:
    """The head and a line for each setting; empty without rows of the category."""
    settings: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.category == category:
            settings.setdefault((row.title, row.setting), []).append(row)
    if not settings:
        return []
    head = ["system", "setting", "p50 at 1", "at 64", "at 256", "best rate", "its range", "at", "cores"]
    lines = [head]
    for (title, setting), group in settings.items():
        by_load = {row.load.outstanding: row for row in group}
        best = max(group, key=lambda row: row.rate_rps)
        cells = [f"{by_load[1].p50_us:,.0f} us" if 1 in by_load else "-"]
        cells += [_number(by_load[n].rate_rps) if n in by_load else "-" for n in COLUMNS[1:]]
        low, high = (pick(sample.rate_rps for sample in best.samples) for pick in (min, max))
        cells += [_number(best.rate_rps), f"{_number(low)} to {_number(high)}", f"{best.load.outstanding:,}"]
        lines.append([title, setting, *cells, _cores(best)])
    return lines


def ratio_table(found: Sequence[Ratio]) -> list[list[str]]:
    """The head and a line for each ratio."""
    lines = [["against", "ours", "p50 at 1", "at 64", "at 256", "best to best", "target"]]
    for ratio in found:
        met = {True: "met", False: "not met"}
        target = f"{ratio.claim.target:g}: {met[ratio.is_met]}" if ratio.is_met is not None else "-"
        cells = [_times(ratio.latency), *(_times(ratio.rates[n]) for n in COLUMNS[1:]), _times(ratio.best)]
        lines.append([ratio.claim.against, ratio.ours, *cells, target])
    return lines


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table for a page."""
    head, *rest = lines
    rows = [head, ["---"] * len(head), *rest]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def text_table(lines: Sequence[Sequence[str]]) -> str:
    """A table for a terminal."""
    return "\n".join(aligned(lines))


def page(rows: Sequence[Row], found: Sequence[Ratio], about: Sequence[str]) -> str:
    """What goes between the page's markers: `about` says when, where and how it was measured."""
    parts = ["\n".join(about), "### Ratios", markdown(ratio_table(found))]
    for category, title in CATEGORIES.items():
        if lines := category_table(rows, category):
            parts += [f"### {title}", markdown(lines)]
    return "\n\n".join(parts)


def insert(text: str, part: str) -> str:
    """`text` with `part` between its markers. UserError when it has not one of each, in this order."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest:
        raise UserError(f"the page has not one {BEGIN} with {END} behind it")
    return f"{before}{BEGIN}\n\n{part}\n\n{END}{after}"
