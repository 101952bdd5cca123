"""Pictures of a run: latency and throughput over time, with a failure marked.

Needs matplotlib (the extra ``plot``), imported when a picture is made; drawn with the Agg canvas, so no display is
needed. What the numbers are: :class:`r2p2.loadgen.Timeline`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2p2.errors import UserError
from r2p2.loadgen import Timeline

__all__ = ["Outage", "Run", "latency_over_time"]


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


def latency_over_time(path: Path, runs: Sequence[Run]) -> None:
    """Draw a column for each run, latency above and throughput below, into the PNG `path`.

    UserError when matplotlib is missing or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UserError("a picture needs matplotlib, which is not installed", "pip install matplotlib") from error
    figure = Figure(figsize=(1.5 + 6.5 * len(runs), 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(runs), squeeze=False, sharey="row", height_ratios=(3, 2))
    for column, run in enumerate(runs):
        _draw_run(axes[0][column], axes[1][column], run)
    axes[0][0].set_ylabel("latency (us, log scale)")
    axes[1][0].set_ylabel("thousand requests/s")
    axes[0][0].legend(loc="upper left", fontsize=8)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise UserError(f"the picture cannot be written: {error}") from error


def _draw_run(latency: Any, throughput: Any, run: Run) -> None:
    timeline = run.timeline
    step_s = timeline.step_ns / 1e9
    # A step without an answer has no latency; the gap stays a gap in the line.
    gap = float("nan")
    times = [(i + 0.5) * step_s for i in range(len(timeline.answered))]
    mean = [s / n / 1e3 if n else gap for s, n in zip(timeline.latency_sum_ns, timeline.answered, strict=True)]
    longest = [m / 1e3 if n else gap for m, n in zip(timeline.latency_max_ns, timeline.answered, strict=True)]
    latency.semilogy(times, longest, color="#d98c3f", linewidth=0.7, label=f"longest in {step_s * 1e3:.0f} ms")
    latency.semilogy(times, mean, color="#1f5f99", linewidth=1.0, label=f"mean of {step_s * 1e3:.0f} ms")
    wide = THROUGHPUT_STEPS
    rates = [
        sum(timeline.answered[i : i + wide]) / (wide * step_s) / 1e3 for i in range(0, len(times) - wide + 1, wide)
    ]
    throughput.plot([(i + 0.5) * wide * step_s for i in range(len(rates))], rates, color="#1f5f99", linewidth=1.0)
    throughput.set_ylim(bottom=0)
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
