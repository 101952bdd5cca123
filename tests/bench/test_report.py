"""Reports and pictures: pure functions of numbers, held to hand-computed values."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2p2.bench.hdr import percentile_ns
from r2p2.bench.plots import Outage, Run, latency_over_time
from r2p2.bench.report import write_json
from r2p2.distribution import parse_distribution
from r2p2.errors import UserError
from r2p2.loadgen import SET, STSS, LoadConfig, Timeline
from tests.bench.results import RESULT


def test_json_has_the_promised_keys(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json(path, RESULT)
    read = json.loads(path.read_text())
    assert read["throughput_rps"] == 200_000
    assert [read[name] for name in ("p50_us", "p90_us", "p99_us", "p999_us")] == [300, 400, 512.4, 2048]
    assert read["cpu_us_per_request"] == {"replica 1": 2.5, "generator": 1.25}
    assert read["backend"] == "uv"


def test_json_into_a_missing_folder_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        write_json(tmp_path / "no" / "report.json", RESULT)


def test_text_names_figures_and_failures() -> None:
    text = RESULT.text()
    assert "200,000 requests/s" in text
    assert "p99 512 us" in text
    assert "not answered" not in text
    assert "7 timeouts" in replace(RESULT, timeouts=7).text()


def test_without_an_answer_nothing_divides_by_zero() -> None:
    nothing = replace(RESULT, answered=0, duration_s=0.0)
    assert nothing.throughput_rps == 0
    assert nothing.cpu_us_per_request == {"replica 1": 0, "generator": 0}
    assert not nothing.is_good
    assert RESULT.is_good
    assert not replace(RESULT, wrong=1).is_good


@given(st.lists(st.integers(0, 9), min_size=1, max_size=200), st.floats(0, 1))
def test_percentile_is_the_sorted_lists(values: list[int], fraction: float) -> None:
    histogram = [(edge, values.count(edge)) for edge in range(10)]
    expected = sorted(values)[min(len(values) - 1, int(fraction * len(values)))]
    assert percentile_ns(histogram, fraction) == expected


def test_percentile_of_nothing() -> None:
    assert percentile_ns([(1, 0), (2, 0)], 0.5) == 0


@pytest.mark.parametrize(
    "config",
    [
        LoadConfig(SET, 2, 9000, outstanding=0),
        LoadConfig(SET, 2, 9000, size=47),
        LoadConfig(SET, 2, 9000, size=370_407),
        LoadConfig(SET, 2, 9000, reads=1.5),
        LoadConfig(SET, 2, 9000, zipf=1.0),
        LoadConfig(SET, 2, 9000, sizes=parse_distribution("uniform:16..64")),
        LoadConfig(STSS, 1, 9000, service_ns=parse_distribution("2s", of_times=True)),
        LoadConfig(SET, 2, 9000, outstanding=65, keys_count=64),
        LoadConfig(SET, 2, 9000, rate=-1.0),
    ],
)
def test_a_load_out_of_bounds_is_the_users_error(config: LoadConfig) -> None:
    with pytest.raises(UserError):
        config.check()


@pytest.mark.needs("plot")
def test_picture_of_two_runs_with_an_outage(tmp_path: Path) -> None:
    steps = [1000] * 40 + [0] * 20 + [900] * 40
    latencies = [n * 50_000 for n in steps]
    timeline = Timeline(5_000_000, steps, [0] * 100, latencies, [200_000 if n else 0 for n in steps])
    outage = Outage(killed_s=0.2, last_answer_s=0.2, first_answer_s=0.3)
    assert outage.interrupted_ms == pytest.approx(100)
    path = tmp_path / "run.png"
    latency_over_time(path, [Run("dpdk", timeline, outage), Run("uv", timeline)])
    picture = path.read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000
    with pytest.raises(UserError, match="cannot be written"):
        latency_over_time(tmp_path / "no" / "run.png", [Run("empty", Timeline(1, [], [], [], []))])


@pytest.mark.needs("plot")
def test_a_pictures_axes_hold_every_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second column may be the faster or the slower one; and numbers are plain."""
    figures: list[Any] = []
    monkeypatch.setattr("r2p2.bench.plots._save", lambda figure, path: figures.append(figure))
    slow = Timeline(5_000_000, [10] * 100, [0] * 100, [3_000_000] * 100, [400_000] * 100)
    fast = Timeline(5_000_000, [5_000] * 100, [0] * 100, [9_000_000_000] * 100, [2_500_000] * 100)
    for runs in ([Run("dpdk", slow), Run("uv", fast)], [Run("dpdk", fast), Run("uv", slow)]):
        latency_over_time(tmp_path / "a.png", runs)
        figure = figures.pop()
        figure.canvas.draw()
        for latency, throughput in zip(figure.axes[:2], figure.axes[2:], strict=True):
            assert throughput.get_ylim()[0] == 0 and throughput.get_ylim()[1] >= 1_000
            assert latency.get_ylim()[1] > 2_500 * 1.5, "the legend is above what was measured"
        labels = [label.get_text() for label in figure.axes[0].get_yticklabels(which="both")]
        assert "1,000" in labels and "500" in labels and not any("$" in label for label in labels)
