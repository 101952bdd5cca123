"""The interruption is found where it is, whether it is the longest pause or not."""

from __future__ import annotations

import pytest

from r2p2.demo.outage import find_outage
from r2p2.loadgen import LoadStats, Timeline

STEP_NS = 5_000_000
START_NS = 10**12


def stats(gap_start_s: float, gap_end_s: float) -> LoadStats:
    zero = dict.fromkeys(LoadStats._fields, 0)
    at_ns = START_NS + int(gap_end_s * 1e9)
    return LoadStats(
        **zero | {"started_ns": START_NS, "max_gap_at_ns": at_ns, "max_gap_ns": int((gap_end_s - gap_start_s) * 1e9)}
    )


def timeline(*gaps_s: tuple[float, float], seconds: float = 4.0) -> Timeline:
    answered = [
        0 if any(start <= i * STEP_NS / 1e9 < end for start, end in gaps_s) else 100
        for i in range(int(seconds * 1e9 / STEP_NS))
    ]
    return Timeline(STEP_NS, answered, [0] * len(answered), answered, answered)


def ns(seconds: float) -> int:
    return START_NS + int(seconds * 1e9)


def test_the_longest_pause_is_the_kills() -> None:
    outage = find_outage(stats(2.001, 2.251), timeline((2.005, 2.25)), ns(2.0))
    assert outage.interrupted_ms == pytest.approx(250)
    assert outage.killed_s == pytest.approx(2.0)


def test_a_longer_pause_before_the_kill_is_not_taken() -> None:
    outage = find_outage(stats(0.5, 1.2), timeline((0.5, 1.2), (2.0, 2.1)), ns(2.0))
    assert outage.interrupted_ms == pytest.approx(100, abs=10)
    assert outage.last_answer_s == pytest.approx(2.0, abs=0.01)


def test_a_longer_pause_long_after_the_kill_is_not_taken() -> None:
    outage = find_outage(stats(3.0, 3.5), timeline((2.0, 2.1), (3.0, 3.5)), ns(2.0))
    assert outage.interrupted_ms == pytest.approx(100, abs=10)


def test_no_pause_is_shorter_than_a_step() -> None:
    assert find_outage(stats(0.0, 0.004), timeline(), ns(2.0)).interrupted_ms == pytest.approx(5)


def test_a_service_that_never_came_back() -> None:
    cut = timeline(seconds=2.0)
    outage = find_outage(stats(0.1, 0.101), Timeline(STEP_NS, cut.answered + [0] * 400, [0] * 800, [], []), ns(2.0))
    assert outage.first_answer_s == pytest.approx(4.0)
