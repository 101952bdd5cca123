"""The search for the highest rate, over a service whose capacity is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from r2p2.bench.ramp import STEPS_MAX, Objective, parse_objective, ramp
from r2p2.bench.report import BenchResult
from r2p2.errors import UserError
from tests.bench.results import RESULT

OBJECTIVE = Objective("p99_us", 1000.0)


def queue(capacity: float) -> Callable[[float], BenchResult]:
    """A server whose latency grows as a queue's does, from 25 us on."""

    def load(rate: float) -> BenchResult:
        if rate >= capacity:
            unsent = int(rate - capacity) + 1000
            return replace(RESULT, rate=rate, duration_s=1.0, answered=int(capacity), unsent=unsent)
        p99_us = 25 / (1 - rate / capacity)
        return replace(RESULT, rate=rate, duration_s=1.0, answered=int(rate), p99_us=p99_us)

    return load


@pytest.mark.parametrize("capacity", [11_000.0, 200_000.0, 5_000_000.0])
def test_it_finds_the_rate_within_a_twentieth(capacity: float) -> None:
    found = ramp(OBJECTIVE, 10_000.0, queue(capacity))
    assert found.best is not None
    highest = capacity * (1 - 25 / 1000)
    assert 0.95 * highest <= found.best.rate <= highest
    assert f"{found.best.rate:,.0f}/s" in found.text()


def test_a_service_that_is_never_good_is_said_to_be() -> None:
    lines: list[str] = []
    found = ramp(OBJECTIVE, 10_000.0, queue(9_000.0), lines.append)
    assert found.best is None
    assert "no rate from 10,000/s on" in found.text()
    assert len(lines) == 1 and "not sent in time" in lines[0]


def test_a_service_without_a_limit_ends_the_search() -> None:
    found = ramp(OBJECTIVE, 1.0, lambda rate: replace(RESULT, rate=rate, p99_us=1.0, answered=int(rate) + 1))
    assert len(found.steps) == STEPS_MAX


GOOD = replace(RESULT, p99_us=1.0)


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, timeouts=1),
        replace(GOOD, dropped=1),
        replace(GOOD, wrong=1),
        replace(GOOD, answered=0),
        replace(GOOD, p99_us=1000.1),
    ],
)
def test_a_step_with_a_failure_is_not_good(bad: BenchResult) -> None:
    found = ramp(OBJECTIVE, 10.0, lambda rate: replace(bad, rate=rate))
    assert found.best is None


def test_objectives_in_words() -> None:
    assert parse_objective("p999=1500us") == Objective("p999_us", 1500.0)
    for text in ("p99", "p98=1ms", "p99=1", "=1ms"):
        with pytest.raises(UserError):
            parse_objective(text)
