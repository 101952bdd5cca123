"""Pictures of a run: latency and throughput over time, with a failure marked; the distribution of latencies; a ramp.

Needs matplotlib (the extra ``plot``), imported when a picture is made; drawn with the Agg canvas, so no display is
needed. What the numbers are: :class:`r2p2.loadgen.Timeline`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2p2.bench.hdr import Histogram, curve, percentile_ns
from r2p2.bench.ramp import Ramp
from r2p2.bench.report import PERCENTILES, BenchResult
from r2p2.errors import UserError
from r2p2.loadgen import Timeline

__all__ = ["Outage", "Run", "draw_all", "latency_curve", "latency_over_time", "need_matplotlib", "ramp_curve"]


# Above the highest latency of a timeline: a longest one must not be behind the legend.
HEADROOM = 3.0
THROUGHPUT_STEPS = 5  # of the timeline, averaged for one point: single steps hold few bursts


@dataclass(frozen=True, slots=True)
class Outage:
    """A failure made on purpose, in seconds since the timeline's start: the kill, the answers before and after."""

    killed_s: float
    last_answer_s: float
    first_answer_s: float

    @property
    def interrupted_ms(self) -> float:
        """How long nothing was answered."""
        return (self.first_answer_s - self.last_answer_s) * 1e3


@dataclass(frozen=True, slots=True)
class Run:
    """One column of the picture."""

    title: str
    timeline: Timeline
    outage: Outage | None = None


def plain(value: float) -> str:
    """A number at an axis: 2,000 and not 2 x 10^3."""
    return f"{value:,g}"


def _plain_log(axis: Any) -> None:
    """Numbers at a logarithmic axis; where it has no two decades, at 2 and 5 of each, too."""

    def between(value: float, _: object) -> str:
        low, high = axis.get_view_interval()
        is_short = high < 100 * max(low, 1e-300)
        return plain(value) if is_short and f"{value:e}"[0] in "25" else ""

    axis.set_major_formatter(lambda value, _: plain(value))
    axis.set_minor_formatter(between)


def latency_over_time(path: Path, runs: Sequence[Run]) -> None:
    """Draw a column for each run, latency above and throughput below, into the PNG `path`.

    UserError when matplotlib is missing or the file cannot be written.
    """
    figure = _figure(1.5 + 6.5 * len(runs), 6.5)
    axes = figure.subplots(2, len(runs), squeeze=False, sharey="row", height_ratios=(3, 2))
    for column, run in enumerate(runs):
        _draw_run(axes[0][column], axes[1][column], run)
    axes[0][0].set_ylabel("latency (us, log scale)")
    # One axis for all columns: its ends are set when all of them are drawn, since a set one no longer grows.
    axes[1][0].set_ylim(bottom=0)
    low, high = axes[0][0].get_ylim()
    axes[0][0].set_ylim(low, high * HEADROOM)
    _plain_log(axes[0][0].yaxis)
    axes[1][0].yaxis.set_major_formatter(lambda value, _: plain(value))
    axes[1][0].set_ylabel("thousand requests/s")
    axes[0][0].legend(loc="upper left", fontsize=8)
    _save(figure, path)


def need_matplotlib() -> None:
    """UserError where it is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError("a picture needs matplotlib, which is not installed", "pip install matplotlib") from error


def _figure(width: float, height: float) -> Any:
    need_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise UserError(f"the picture cannot be written: {error}") from error


def draw_all(folder: Path, result: BenchResult, found: Ramp | None = None) -> list[Path]:
    """Every picture of a measurement, into a folder that is made; their paths. UserError as the others."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the pictures' folder cannot be made: {error}") from error
    drawn = [folder / "latency.png", folder / "timeline.png"]
    latency_curve(drawn[0], result.title(), result.histogram)
    latency_over_time(drawn[1], [Run(result.title(), Timeline(**result.timeline))])
    if found is not None:
        drawn.append(folder / "ramp.png")
        ramp_curve(drawn[2], found)
    return drawn


def latency_curve(path: Path, title: str, histogram: Histogram) -> None:
    """The part of the calls that took longer than a time: both axes logarithmic, so that the tail is seen."""
    figure = _figure(8, 5)
    axes = figure.subplots()
    edges_us, parts = curve(histogram)
    # Behind the last call there is nothing, which a logarithm does not show: half a call.
    least = 0.5 / max(1, sum(count for _, count in histogram))
    left = [max(1 - part, least) for part in parts]
    axes.loglog(edges_us, left, color="#1f5f99", linewidth=1.6, drawstyle="steps-post")
    for name, fraction in PERCENTILES.items():
        at_us = percentile_ns(histogram, fraction) / 1e3
        axes.plot([at_us], [1 - fraction], "o", color="#d98c3f", markersize=5)
        axes.annotate(
            f"{name.removesuffix('_us')}: {at_us:,.0f} us",
            (at_us, 1 - fraction),
            xytext=(7, 5),
            textcoords="offset points",
            fontsize=9,
        )
    axes.set_xlabel("latency (us, log scale)")
    axes.set_ylabel("part of the calls that took longer (log scale)")
    axes.set_ylim(top=1.5)
    if edges_us:
        axes.set_xlim(max(edges_us[0], 0.1) * 0.8, edges_us[-1] * 4)  # room for the words beside the last mark
    _plain_log(axes.xaxis)
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.25, which="both")
    _save(figure, path)


def ramp_curve(path: Path, found: Ramp) -> None:
    """Latency against the answered rate, a point a step; the objective as a line, steps that failed marked."""
    figure = _figure(8, 5)
    axes = figure.subplots()
    steps = sorted(found.steps, key=lambda step: step.result.rate)
    rates = [step.result.throughput_rps / 1e3 for step in steps]
    for name, color in (("p50_us", "#7a9e3f"), ("p99_us", "#1f5f99")):
        values = [float(getattr(step.result, name)) for step in steps]
        axes.semilogy(rates, values, "-", color=color, linewidth=1.2, label=name.removesuffix("_us"))
        good = [(r, v) for r, v, step in zip(rates, values, steps, strict=True) if step.is_good]
        bad = [(r, v) for r, v, step in zip(rates, values, steps, strict=True) if not step.is_good]
        for points, marker in ((good, "o"), (bad, "x")):
            axes.plot([r for r, _ in points], [v for _, v in points], marker, color=color, markersize=6)
    axes.axhline(found.objective.latency_us, color="#c0392b", linestyle="--", linewidth=1, label=found.objective.text)
    if found.best is not None:
        axes.axvline(found.best.throughput_rps / 1e3, color="#555555", linestyle=":", linewidth=1)
        axes.annotate(
            f"{found.best.throughput_rps:,.0f}/s",
            (found.best.throughput_rps / 1e3, 0.02),
            xycoords=("data", "axes fraction"),
            xytext=(-5, 0),
            textcoords="offset points",
            ha="right",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )
    low, high = axes.get_ylim()
    axes.set_ylim(low / 2, high)  # room for the words below the points
    axes.set_xlabel("thousand requests/s answered (open loop; x: a step that failed)")
    axes.set_ylabel("latency (us, log scale)")
    _plain_log(axes.yaxis)
    axes.set_xlim(left=0)
    axes.set_title(found.steps[0].result.title().partition(":")[0] + ", " + found.text(), fontsize=9)
    axes.legend(loc="upper left", fontsize=9)
    axes.grid(alpha=0.25, which="both")
    _save(figure, path)


def _draw_run(latency: Any, throughput: Any, run: Run) -> None:
    timeline = run.timeline
    step_s = timeline.step_ns / 1e9
    # A step without an answer has no latency; the gap stays a gap in the line.
    gap = float("nan")
    times = [(i + 0.5) * step_s for i in range(len(timeline.answered))]
    mean = [s / n / 1e3 if n else gap for s, n in zip(timeline.latency_sum_ns, timeline.answered, strict=True)]
    longest = [m / 1e3 if n else gap for m, n in zip(timeline.latency_max_ns, timeline.answered, strict=True)]
    latency.semilogy(
        times,
        longest,
        color="#d98c3f",
        linewidth=0.7,
        marker=".",
        markersize=2,
        label=f"longest in {step_s * 1e3:.0f} ms",
    )
    latency.semilogy(
        times, mean, color="#1f5f99", linewidth=1.0, marker=".", markersize=2, label=f"mean of {step_s * 1e3:.0f} ms"
    )
    wide = THROUGHPUT_STEPS
    rates = [
        sum(timeline.answered[i : i + wide]) / (wide * step_s) / 1e3 for i in range(0, len(times) - wide + 1, wide)
    ]
    throughput.plot([(i + 0.5) * wide * step_s for i in range(len(rates))], rates, color="#1f5f99", linewidth=1.0)
    throughput.set_xlabel("time (s)")
    latency.set_title(run.title, fontsize=10)
    latency.tick_params(labelbottom=False)
    for axis in (latency, throughput):
        axis.set_xlim(0, max(times, default=step_s) + step_s)
        axis.grid(alpha=0.25)
        if run.outage is not None:
            axis.axvspan(run.outage.last_answer_s, run.outage.first_answer_s, color="#c0392b", alpha=0.15, linewidth=0)
            axis.axvline(run.outage.killed_s, color="#c0392b", linestyle="--", linewidth=1)
    if run.outage is not None:
        latency.annotate(
            f"leader killed,\n{run.outage.interrupted_ms:.0f} ms without an answer",
            xy=(run.outage.first_answer_s, 0.97),
            xycoords=("data", "axes fraction"),
            xytext=(6, 0),
            textcoords="offset points",
            va="top",
            fontsize=8,
            color="#c0392b",
        )
