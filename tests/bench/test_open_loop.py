"""The open loop counts from when a call was due: a server that stalls shows its stall, however few calls may wait."""

from __future__ import annotations

import pytest

from r2p2 import limits
from r2p2.errors import UserError
from r2p2.loadgen import ECHO, LoadConfig, LoadGenerator
from tests.engine.support import CLIENT, SERVER, pair

STEP_NS = 20 * limits.US
RATE = 10_000.0
SECONDS_NS = limits.SECOND
STALL_FROM_NS, STALL_TO_NS = 400 * limits.MS, 500 * limits.MS


def run_with_stall(outstanding: int, rate: float, *, stalls: bool = True) -> tuple[LoadGenerator, list[float]]:
    """A virtual second over the in-memory port, in which the server does nothing for 100 ms."""
    with pair() as (network, server, caller):
        config = LoadConfig(ECHO, 1, CLIENT[1], outstanding=outstanding, rate=rate)
        load = LoadGenerator(caller.engine, config, [SERVER])
        start_ns = network.now_ns
        while (now_ns := network.now_ns - start_ns) < SECONDS_NS:
            network.advance(STEP_NS)
            load.run(0)  # one turn
            if not (stalls and STALL_FROM_NS <= now_ns < STALL_TO_NS):
                server.poll_once()
        percentiles = load.percentiles_us([0.5, 0.89, 0.95, 0.99])
        with pytest.raises(ValueError, match="ascending"):
            load.percentiles_us([0.99, 0.5])
        load.close()
        return load, percentiles


@pytest.mark.parametrize("outstanding", [64, 4096])
def test_a_stall_is_in_the_percentiles_of_the_open_loop(outstanding: int) -> None:
    """A tenth of the calls is due in the stall; the stall's end is as far from them as they are uniform in it.

    With 64 slots the generator itself must wait; what it cannot send is late by its own clock and not forgotten.
    """
    _, (p50, p89, p95, p99) = run_with_stall(outstanding, RATE)
    assert p50 < 200
    assert p89 < 30_000
    assert 40_000 < p95 < 60_000
    assert 80_000 < p99 < 100_500


def test_the_closed_loop_hides_the_same_stall() -> None:
    """Why the open loop is there: one call waited, and nobody else was due."""
    _, (_, _, _, p99) = run_with_stall(1, 0.0)
    assert p99 < 200


def test_the_gaps_are_of_a_poisson_process() -> None:
    """Counts in 10 ms are Poisson: their variance is their mean; even gaps would have nearly none."""
    with pair() as (network, server, caller):
        config = LoadConfig(ECHO, 1, CLIENT[1], outstanding=4096, rate=RATE)
        load = LoadGenerator(caller.engine, config, [SERVER])
        counts = []
        for _ in range(200):
            before = load.stats().issued
            for _ in range(10 * limits.MS // (100 * limits.US)):
                network.advance(100 * limits.US)
                load.run(0)
                server.poll_once()
            counts.append(load.stats().issued - before)
        load.close()
    mean = sum(counts) / len(counts)
    variance = sum((count - mean) ** 2 for count in counts) / len(counts)
    assert 95 < mean < 105
    assert 0.7 < variance / mean < 1.4


def test_calls_that_time_out_are_in_the_percentiles() -> None:
    with pair() as (network, _server, caller):
        config = LoadConfig(ECHO, 1, CLIENT[1], outstanding=4096, rate=1000.0, timeout_ns=50 * limits.MS)
        load = LoadGenerator(caller.engine, config, [SERVER])
        for _ in range(200):
            network.advance(limits.MS)
            load.run(0)
        assert load.stats().answered == 0
        assert load.stats().timeouts > 100
        (p50,) = load.percentiles_us([0.5])
        assert 49_000 < p50 < 53_000
        load.close()


def test_what_was_due_and_not_sent_is_told() -> None:
    with pair() as (network, _server, caller):
        config = LoadConfig(ECHO, 1, CLIENT[1], outstanding=8, rate=RATE)
        load = LoadGenerator(caller.engine, config, [SERVER])
        for _ in range(100):
            network.advance(limits.MS)
            load.run(0)  # nobody answers: after eight calls all slots wait
        stats = load.stats()
        assert stats.issued == 8
        assert 90 * limits.MS < stats.behind_ns <= 100 * limits.MS
        load.close()


def test_the_rate_can_be_changed_in_an_open_loop_only() -> None:
    with pair() as (network, server, caller):
        closed = LoadGenerator(caller.engine, LoadConfig(ECHO, 1, CLIENT[1]), [SERVER])
        with pytest.raises(UserError, match="open loop"):
            closed.set_rate(10.0)
        closed.close()
        load = LoadGenerator(caller.engine, LoadConfig(ECHO, 1, CLIENT[1], outstanding=4096, rate=1.0), [SERVER])
        load.set_rate(RATE)
        for _ in range(1000):
            network.advance(100 * limits.US)
            load.run(0)
            server.poll_once()
        assert 900 < load.stats().issued < 1100
        load.close()
