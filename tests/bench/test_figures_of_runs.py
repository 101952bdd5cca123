"""What is made of runs: repeats, placement, batches, tables, the percentile text, a profile's layers."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from r2p2.bench.batches import batch_sizes, losses
from r2p2.bench.hdr import hgrm_text, write_hgrm
from r2p2.bench.placement import SCHEMES, check, place
from r2p2.bench.plots import draw_all
from r2p2.bench.profile import LAYERS, Layers, layer_of, samples_of
from r2p2.bench.ramp import Objective, ramp
from r2p2.bench.repeats import Repeats
from r2p2.bench.table import COLUMNS, write_csv
from r2p2.errors import UserError
from r2p2.processes import pin, resident_bytes
from tests.bench.results import RESULT

SERVERS = ["replica0", "replica1", "replica2"]


# ---- repeats ----


def test_medians_and_spread() -> None:
    runs = [replace(RESULT, answered=answered, p99_us=answered / 1000) for answered in (200_000, 600_000, 300_000)]
    repeats = Repeats(runs)
    assert repeats.spread("throughput_rps").text() == "150,000 (100,000..300,000)"
    assert repeats.middle is runs[2]
    read = repeats.to_json()
    assert read["throughput_rps"] == 150_000
    assert read["spread"]["p99_us"] == [200, 600]  # type: ignore[index]
    assert "150,000 (100,000..300,000) requests/s" in repeats.text()
    assert repeats.is_good and not Repeats([*runs, replace(RESULT, wrong=1)]).is_good


# ---- placement ----


def test_schemes_share_the_first_processor_as_they_say() -> None:
    assert place("leader+generator", SERVERS, "replica1", [4, 5]) == {
        "replica1": 4,
        "generator": 4,
        "replica0": 5,
        "replica2": 5,
    }
    assert place("leader+follower", SERVERS, "replica1", [0, 1]) == {
        "replica1": 0,
        "replica0": 0,
        "generator": 1,
        "replica2": 1,
    }
    assert place("leader", ["replica0"], "", [0, 1]) == {"replica0": 0, "generator": 1}
    assert place("leader", SERVERS, "replica0", [0, 1, 2, 3]) == {
        "replica0": 0,
        "generator": 1,
        "replica1": 2,
        "replica2": 3,
    }
    assert place("leader=1,generator=1,follower=0", SERVERS, "replica2", [0, 1]) == {
        "replica2": 1,
        "generator": 1,
        "replica0": 0,
        "replica1": 0,
    }
    assert place("none", SERVERS, "replica0", [0, 1]) == place("", SERVERS, "", [0]) == {}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_places_every_process_on_any_machine(scheme: str) -> None:
    for cpus in ([0], [0, 1], [3, 5, 7], list(range(64))):
        for servers in (SERVERS, SERVERS[:1]):
            placed = place(scheme, servers, servers[0], cpus)
            assert set(placed) == {*servers, "generator"}
            assert set(placed.values()) <= set(cpus)


@pytest.mark.parametrize("scheme", ["both", "leader=0", "leader=x,generator=0", "router=1", "leader=0,generator"])
def test_what_is_no_scheme_is_the_users_error(scheme: str) -> None:
    with pytest.raises(UserError, match="pin"):
        check(scheme)


@pytest.mark.needs("linux")
def test_a_process_is_pinned_and_measured() -> None:
    program = "print('up', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"up\n"
        cpu = max(os.sched_getaffinity(0))
        pin(child.pid, cpu)
        assert os.sched_getaffinity(child.pid) == {cpu}
        resident = resident_bytes(child.pid)
        assert resident is not None and 100_000 < resident < 1 << 30
        with pytest.raises(UserError, match="cannot be pinned"):
            pin(child.pid, 1023)
        child.kill()
    assert resident_bytes(child.pid) is None


# ---- batches ----


def test_batch_sizes_are_of_the_load_alone() -> None:
    before = {"replica0": {"counters": {"rx_packets": 100, "polls_busy": 50, "log_applied": 10}}}
    counters = {"rx_packets": 740, "polls_busy": 60, "rx_requests": 320, "log_applied": 330, "apply_batches": 5}
    sizes = batch_sizes(before, {"replica0": {"counters": counters}, "replica1": {"counters": {}}})
    assert sizes == {
        "replica0": {
            "datagrams a poll that found any": 64.0,
            "requests a poll": 32.0,
            "entries a batch of the application": 64.0,
        }
    }


def test_losses_are_of_the_load_alone_and_the_most_come_first() -> None:
    before = {"replica0": {"counters": {"tx_drop_full": 5, "rx_bad_magic": 2}}}
    counters = {"tx_drop_full": 7, "rx_bad_magic": 2, "client_retries": 90, "rx_packets": 1000}
    after = {"replica0": {"counters": counters}, "replica1": {"counters": {"rx_packets": 9}}}
    lost = losses(before, after)
    assert lost == {"replica0": {"client_retries": 90, "tx_drop_full": 2}}
    assert list(lost["replica0"]) == ["client_retries", "tx_drop_full"]
    text = replace(RESULT, losses=lost).text()
    assert "  counted at replica0: 90 client_retries, 2 tx_drop_full" in text


# ---- files ----


def test_a_row_a_run(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    write_csv(path, [RESULT, replace(RESULT, answered=1)])
    rows = list(csv.DictReader(path.open()))
    assert tuple(rows[0]) == COLUMNS
    assert float(rows[0]["throughput_rps"]) == 200_000
    assert float(rows[0]["cpu_us"]) == 3.75
    with pytest.raises(UserError, match="cannot be written"):
        write_csv(tmp_path / "no" / "runs.csv", [])


def test_the_percentile_text_has_hdrhistograms_lines(tmp_path: Path) -> None:
    """1..1000 us once each; the value at a fraction is that many us, and the last line is all of it."""
    histogram = [(n * 1000, 1) for n in range(1, 1001)]
    text = hgrm_text(histogram)
    title, _, *lines = text.splitlines()
    assert title.split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    numbers = [list(map(float, line.split())) for line in lines if not line.startswith("#")]
    assert numbers[-1] == [1000.0, 1.0, 1000.0]
    for value, fraction, count, *inverse in numbers:
        assert count == value
        assert value >= 1000 * fraction
        assert value < 1000 * fraction + 2
        if inverse:
            assert inverse[0] == pytest.approx(1 / (1 - fraction), abs=0.01)
    assert [row[1] for row in numbers[:11]] == [*(n / 10 for n in range(5)), *(n / 20 for n in range(10, 16))]
    assert "Total count    =         1000]" in text
    assert hgrm_text([]).count("\n") == 2
    with pytest.raises(UserError, match="cannot be written"):
        write_hgrm(tmp_path / "no" / "a.hgrm", histogram)


@pytest.mark.needs("plot")
def test_pictures_of_a_ramp(tmp_path: Path) -> None:
    timeline = {"step_ns": 5_000_000, "answered": [10] * 100, "failed": [0] * 100}
    timeline |= {"latency_sum_ns": [1_000_000] * 100, "latency_max_ns": [200_000] * 100}
    result = replace(RESULT, histogram=[(n * 1000, 1000 - n) for n in range(1, 1000)], timeline=timeline)
    found = ramp(Objective("p99_us", 500.0), 10.0, lambda rate: replace(result, rate=rate, p99_us=rate))
    drawn = draw_all(tmp_path / "new" / "folder", result, found)
    assert [path.name for path in drawn] == ["latency.png", "timeline.png", "ramp.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


# ---- profile ----

SCRIPT = """\
18461  ffffffff8158cc9d finish_task_switch.isra.0 ([kernel.kallsyms])
18461      7fddf125d69e _PyEval_EvalFrameDefault (/usr/bin/python3.11)
18461      7fddf125d69e r2p2_engine_poll (/srv/a folder (1)/r2p2/_engine.cpython-311-x86_64-linux-gnu.so)
18461      7fddf125d69e eth_memif_rx (/usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_net_memif.so.23.0)
   99      7fddf125d69e r2p2_loadgen_run (/srv/r2p2/_engine.cpython-311-x86_64-linux-gnu.so)
    1      7fddf125d69e stranger (/usr/bin/python3.11)
18461      7fddf125d69e [unknown] ([unknown])
"""


def test_samples_fall_into_layers() -> None:
    found = samples_of(SCRIPT, {18461: "replica0", 99: "generator"})
    assert found.total() == 6
    assert found["generator", layer_of("/x/_engine.abi3.so")] == 1
    assert found["replica0", "memif driver"] == found["replica0", "Python: handler, Raft, the loop"] == 1
    assert layer_of("/usr/lib/librte_eal.so.23") == "DPDK's libraries"
    assert layer_of("/srv/r2p2/_other.cpython-311.so") == "_other"
    assert len({layer for layer, _ in LAYERS}) == len(LAYERS)


def test_a_layer_has_its_share_of_the_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r2p2.bench.profile.need_perf", lambda: "perf")
    layers = Layers()
    assert "no samples" in layers.text(RESULT)
    layers.samples.update({("replica 1", "hiredis"): 1, ("replica 1", "memif driver"): 3, ("generator", "hiredis"): 2})
    table = layers.ns_per_request(RESULT)  # 2.5 us and 1.25 us a request
    assert table["hiredis"] == {"replica 1": 625.0, "generator": 1250.0}
    assert table["memif driver"] == {"replica 1": 1875.0, "generator": 0.0}
    assert layers.text(RESULT).splitlines()[-1] == "| sum | 2,500 | 1,250 |"
