"""What a machine takes of its processors' time, seen by a program that reads the clock."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from r2p2.bench import pauses
from r2p2.bench.pauses import Pauses, measure_pauses, pauses_text
from r2p2.bench.placement import processors
from r2p2.errors import UserError


def test_short_pauses_are_left_out_and_long_ones_counted() -> None:
    found = Pauses.of(1, [99_999, 100_000, 900_000, 1_000_000, 3_000_000], 2.0)
    assert found == Pauses(cpu=1, lost_ms_per_s=2.5, long_per_s=1.0, longest_ms=3.0)
    assert Pauses.of(0, [], 1.0) == Pauses(cpu=0, lost_ms_per_s=0.0, long_per_s=0.0, longest_ms=0.0)


def test_a_pause_is_the_time_between_two_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    readings: Iterator[int] = iter([0, 50_000, 200_000, 210_000, 5_210_000, 10_000_000_000])
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(readings))
    assert pauses.read_clock(1.0) == [150_000, 5_000_000, 10_000_000_000 - 5_210_000]


@pytest.mark.needs("linux")
def test_a_processor_shared_with_who_computes_is_taken_away_half_of_the_time() -> None:
    """A real one: this process computes on the processor that is looked at."""
    cpu, before = processors()[0], os.sched_getaffinity(0)
    rival = os.fork()
    if rival == 0:
        os.sched_setaffinity(0, {cpu})
        end = time.monotonic() + 60
        while time.monotonic() < end:
            pass
        os._exit(0)
    try:
        found = measure_pauses([cpu], 0.5)
    finally:
        os.kill(rival, signal.SIGKILL)
        os.waitpid(rival, 0)
    assert os.sched_getaffinity(0) == before
    assert found[0].cpu == cpu and found[0].lost_ms_per_s > 100
    assert found[0].long_per_s > 0 and found[0].longest_ms >= 1
    assert f"processor {cpu} at rest: taken away for" in pauses_text(found)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 61.0])
def test_seconds_out_of_bounds_are_the_users_error(seconds: float) -> None:
    with pytest.raises(UserError, match="pauses"):
        measure_pauses([0], seconds)


@pytest.mark.needs("linux")
def test_a_processor_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="the clock cannot be read there: OSError"):
        measure_pauses([max(processors()) + 4096], 0.1)
