"""The highest rate at which a service keeps a promise about its latency.

Open loop, one launch of the processes. The rate grows by half until a step fails; then the gap between the best good
and the worst bad rate is halved until it is a twentieth. A step is good when the objective's percentile holds, nothing
timed out or was refused, and all calls that were due were sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from r2p2.bench.report import PERCENTILES, BenchResult
from r2p2.distribution import parse_time_ns
from r2p2.errors import UserError

__all__ = ["Objective", "Ramp", "Step", "parse_objective", "ramp"]

GROWTH = 1.5
STEPS_MAX = 40
PRECISION = 0.05


@dataclass(frozen=True, slots=True)
class Objective:
    """`percentile`, a name of PERCENTILES, is at most `latency_us`."""

    percentile: str
    latency_us: float

    @property
    def text(self) -> str:
        """As on the command line, roughly."""
        return f"{self.percentile.removesuffix('_us')} at most {self.latency_us:,.0f} us"


def parse_objective(text: str) -> Objective:
    """``p99=1ms``.

    Raises:
        UserError: it is no such thing.
    """
    name, equals, latency = text.partition("=")
    if not equals or f"{name}_us" not in PERCENTILES:
        names = ", ".join(known.removesuffix("_us") for known in PERCENTILES)
        raise UserError(f"--objective {text!r} is no percentile and time", f"One of {names}, as p99=1ms.")
    return Objective(f"{name}_us", parse_time_ns(latency) / 1e3)


@dataclass(frozen=True, slots=True)
class Step:
    """One rate, what came of it, and why it is not good; empty: it is."""

    result: BenchResult
    failure: str

    @property
    def is_good(self) -> bool:
        """Whether the objective was kept."""
        return not self.failure

    def text(self) -> str:
        """A line."""
        result = self.result
        return (
            f"{result.rate:>11,.0f}/s offered {result.throughput_rps:>11,.0f}/s answered   "
            f"p50 {result.p50_us:>7,.0f} us   p99 {result.p99_us:>8,.0f} us   {self.failure or 'good'}"
        )


@dataclass(frozen=True, slots=True)
class Ramp:
    """All steps in the order they were made, and the best: the good one with the highest rate."""

    objective: Objective
    steps: Sequence[Step]

    @property
    def best(self) -> BenchResult | None:
        """None when not even the first rate was good."""
        good = [step.result for step in self.steps if step.is_good]
        return max(good, key=lambda result: result.rate, default=None)

    def text(self) -> str:
        """The answer in a line."""
        if self.best is None:
            return f"no rate from {self.steps[0].result.rate:,.0f}/s on had {self.objective.text}"
        return (
            f"highest rate with {self.objective.text}: {self.best.rate:,.0f}/s "
            f"(p50 {self.best.p50_us:,.0f} us, p99 {self.best.p99_us:,.0f} us)"
        )

    def to_json(self) -> dict[str, object]:
        """Everything."""
        return {
            "objective": {"percentile": self.objective.percentile, "latency_us": self.objective.latency_us},
            "highest_rate": self.best.rate if self.best else 0.0,
            "steps": [{"failure": step.failure, **step.result.to_json()} for step in self.steps],
        }


def judge(objective: Objective, result: BenchResult) -> Step:
    """One step's verdict."""
    latency_us = float(getattr(result, objective.percentile))
    if result.answered == 0 or result.wrong or result.timeouts or result.dropped:
        failure = f"{result.timeouts + result.dropped + result.wrong:,} not answered well"
    elif not result.kept_up:
        failure = f"{result.unsent:,} calls not sent in time"
    elif latency_us > objective.latency_us:
        failure = f"{objective.percentile.removesuffix('_us')} {latency_us:,.0f} us"
    else:
        failure = ""
    return Step(result, failure)


def ramp(
    objective: Objective,
    first_rate: float,
    load: Callable[[float], BenchResult],
    say: Callable[[str], None] = lambda line: None,
) -> Ramp:
    """Search, beginning with `first_rate`; `load` measures a rate."""
    steps: list[Step] = []
    good, bad, rate = 0.0, float("inf"), first_rate
    while len(steps) < STEPS_MAX:
        step = judge(objective, load(rate))
        steps.append(step)
        say(step.text())
        if step.is_good:
            good = max(good, rate)
        else:
            bad = min(bad, rate)
        if bad == float("inf"):
            rate *= GROWTH
        elif good == 0 or bad - good <= PRECISION * good:
            break
        else:
            rate = (good + bad) / 2
    return Ramp(objective, steps)
