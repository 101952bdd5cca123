"""``r2p2 bench`` from its arguments to its files, with processes."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import pytest

from r2p2 import cli
from r2p2.bench.cluster import Cluster, plan
from r2p2.bench.command import add_arguments, bench_config
from r2p2.bench.measure import BenchConfig
from r2p2.bench.placement import processors
from r2p2.errors import UserError
from r2p2.processes import ProcessFailed


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_the_generator_is_measured_alone_and_repeated(tmp_path: Path) -> None:
    json_path, csv_path, hdr_path = (tmp_path / name for name in ("a.json", "a.csv", "a.hgrm"))
    words = ["bench", "generator", "--duration", "0.2", "--warmup", "0.1", "--repeat", "2", "--pin", "leader+generator"]
    words += ["--pauses", "0.1"]
    files = ["--json", str(json_path), "--csv", str(csv_path), "--hdr", str(hdr_path)]
    assert cli.main([*words, *files]) == 0
    read = json.loads(json_path.read_text())
    assert read["runs_count"] == 2
    assert read["throughput_rps"] > 1000
    assert read["spread"]["p99_us"][0] <= read["p99_us"] <= read["spread"]["p99_us"][1]
    for run in read["runs"]:
        assert run["wrong"] == run["timeouts"] == 0
        assert set(run["placement"]) == {"replica0", "generator"}
        assert sum(count for _, count in run["histogram"]) >= run["answered"]
        assert 0 < run["generator_share"] < 1.5
        assert run["rss_mib"]["generator"] > 1
        assert [pauses["cpu"] for pauses in run["pauses"]] == processors()
    # As long as was asked for, and no slice longer.
    assert 0.2 <= min(run["duration_s"] for run in read["runs"]) < 0.24
    assert len(list(csv.DictReader(csv_path.open()))) == 2
    assert "1/(1-Percentile)" in hdr_path.read_text()


@pytest.mark.needs("plot")
def test_a_ramp_of_replicated_writes_and_reads_is_exactly_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of it, with an objective that a busy machine keeps."""
    monkeypatch.setattr("r2p2.bench.ramp.STEPS_MAX", 2)
    path = tmp_path / "a.json"
    words = ["bench", "replicated", "--ramp", "--objective", "p50=900ms", "--rate", "300", "--reads", "0.5"]
    more = ["--sessions", "40", "--size", "uniform:60..3000", "--duration", "0.1", "--warmup", "0.1"]
    files = ["--json", str(path), "--plots", str(tmp_path / "plots")]
    assert cli.main([*words, *more, *files]) == 0
    read = json.loads(path.read_text())
    assert read["ramp"]["highest_rate"] >= 300
    assert read["is_verified"] and "executed" in read["verification"]
    assert 0 < read["reads_answered"] < read["answered"]
    assert read["batches"]
    assert {picture.name for picture in (tmp_path / "plots").iterdir()} == {"latency.png", "timeline.png", "ramp.png"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("replicated --size 16", "between 48"),
        ("replicated --size 400000", "370406"),
        ("replicated --reads 2", "reads"),
        ("echo --reads 0.5", "reads"),
        ("echo --sessions 4", "sessions"),
        ("echo --value-size 10", "value-size"),
        ("echo --zipf 0.5", "skew"),
        ("replicated --zipf 1", "skew"),
        ("replicated --pin chaos", "pin"),
        ("replicated --replicas 9", "9 replicas"),
        ("replicated --repeat 0", "at least one"),
        ("replicated --ramp --repeat 2", "ramp"),
        ("replicated --pauses -1", "pauses"),
        ("replicated --pauses 61", "pauses"),
        ("spin --service 5", "no time"),
        ("replicated --size uniform:1", "no distribution"),
    ],
)
def test_wrong_arguments_are_the_users_error(words: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        bench_config(parsed(*words.split()))


def test_what_the_arguments_mean() -> None:
    config = bench_config(parsed("replicated", "--value-size", "65536", "--outstanding", "8"))
    assert config.size == 65_536 + 37 + 5
    assert config.spec().keys_count == (64 << 20) // config.size
    assert config.sessions == 1
    assert bench_config(parsed("echo", "--replicas", "3")).is_replicated
    assert not bench_config(parsed("echo")).is_replicated
    assert bench_config(parsed("reads")).spec().spread
    assert not bench_config(parsed("reads", "--one-member")).spec().spread
    assert bench_config(parsed("generator")).plain == "null"


def test_a_server_that_has_ended_at_once_is_missed_at_once(tmp_path: Path) -> None:
    """As with an application that cannot be loaded: it is gone before anybody has waited for it."""
    config = BenchConfig("echo", "uv")
    with Cluster(plan("uv", 1, tmp_path), tmp_path, app="echo", replicated=False, load=config.spec()) as cluster:
        cluster.replicas["replica0"].kill()
        with pytest.raises(ProcessFailed, match=r"replica0 .* ended while waited for: all nodes up"):
            cluster.wait_ready()
