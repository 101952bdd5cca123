"""What the generator draws, and how finely it measures."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2p2._engine import ffi, lib
from r2p2.bench.generator import value_bytes
from r2p2.distribution import SHAPES, Distribution, parse_distribution, parse_time_ns
from r2p2.errors import UserError
from r2p2.loadgen import ECHO, SET, LoadConfig, LoadGenerator, set_bytes
from tests.engine.support import CLIENT, SERVER, pair

DRAWS = 20_000


def draws(text: str) -> list[float]:
    distribution = parse_distribution(text)
    values = {"a": distribution.a, "b": distribution.b, "share": distribution.share}
    given_to_c = ffi.new("r2p2_distribution *", values | {"shape": SHAPES.index(distribution.shape)})
    state = ffi.new("uint64_t *", 7)
    return [lib.r2p2_load_draw(state, given_to_c) for _ in range(DRAWS)]


@pytest.mark.parametrize("text", ["64", "fixed:100", "uniform:16..1024", "exponential:256", "bimodal:64,1024,0.1"])
def test_draws_have_the_mean_and_the_bounds_that_are_promised(text: str) -> None:
    distribution, values = parse_distribution(text), draws(text)
    assert sum(values) / DRAWS == pytest.approx(distribution.mean, rel=0.05)
    assert min(values) >= distribution.least
    assert max(values) <= distribution.largest
    if distribution.shape == "bimodal":
        assert set(values) == {64, 1024}


def test_words_for_times() -> None:
    assert parse_time_ns("10us") == 10_000
    assert parse_distribution("bimodal:10us,1ms,0.01", of_times=True) == Distribution(
        "bimodal", 10_000, 1_000_000, 0.01, "bimodal:10us,1ms,0.01"
    )


@pytest.mark.parametrize(
    "text", ["", "x", "uniform:9..3", "uniform:9", "bimodal:1,2", "bimodal:1,2,3", "zipf:1", "-1", "exponential:10us"]
)
def test_what_is_no_distribution_is_the_users_error(text: str) -> None:
    with pytest.raises(UserError):
        parse_distribution(text)


@pytest.mark.parametrize("skew", [0.5, 0.99])
def test_keys_have_the_skew(skew: float) -> None:
    """Key i is drawn (i + 1) ** -skew times as often as key 0. The formula is exact for the first two only."""
    out = ffi.new("uint64_t[]", 200_000)
    lib.r2p2_load_draw_keys(1, 1000, skew, out, len(out))
    counts = Counter(list(out))
    assert max(counts) < 1000
    assert counts[1] / counts[0] == pytest.approx(2**-skew, rel=0.05)
    assert counts[99] / counts[0] == pytest.approx(100**-skew, rel=0.35)


def test_a_bucket_is_a_thousandth_wide() -> None:
    edges = [lib.r2p2_loadgen_bucket_ns(i) for i in range(lib.r2p2_loadgen_buckets_count())]
    assert edges[0] == 0
    for below, edge in pairwise(edges):
        assert below < edge
        assert edge - below <= max(1, edge / 1024)
    assert edges[-1] == 2**40 - 1


def test_a_latency_is_measured_within_a_thousandth() -> None:
    with pair() as (network, server, caller):
        network.faults(delay_min_ns=1_234_567, delay_max_ns=1_234_567)
        load = LoadGenerator(caller.engine, LoadConfig(ECHO, 1, CLIENT[1], outstanding=1), [SERVER])
        load.run(0)
        network.advance(1_234_567)
        server.poll_once()
        network.advance(1_234_567)
        load.run(0)
        (p50,) = load.percentiles_us([0.5])
        assert 2469.134 <= p50 <= 2469.134 * (1 + 1 / 1024)
        assert [count for _, count in load.histogram()] == [1]
        load.close()


@given(st.integers(48, 70_000))
def test_the_values_length_is_the_one_in_the_set(size: int) -> None:
    """Of the largest SET that is not larger."""
    assert set_bytes(value_bytes(size)) <= size < set_bytes(value_bytes(size) + 1)


@pytest.mark.parametrize("size", [48, 64, 1464, 1465, 5000])
def test_sets_go_out_whole_at_any_size(size: int) -> None:
    with pair() as (network, server, caller):
        load = LoadGenerator(caller.engine, LoadConfig(SET, 1, CLIENT[1], outstanding=1, size=size), [SERVER])
        for _ in range(6):  # a request, its ACK, the rest
            load.run(0)
            network.advance(2_000)
            server.poll_once()
        (request, *_) = server.seen
        head, value = request.split(b"$%d\r\n" % value_bytes(size))
        assert head == b"*3\r\n$3\r\nSET\r\n$12\r\nk00000000000\r\n"
        assert value == b"1\r\n".rjust(value_bytes(size) + 2, b"0")
        load.close()
