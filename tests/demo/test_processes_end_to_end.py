"""Real processes: bench and demo, short, over each backend; and nothing is left behind when they are stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from r2p2.processes import Supervisor

R2P2 = [sys.executable, "-m", "r2p2"]
BACKENDS = ["uv", pytest.param("dpdk", marks=pytest.mark.needs("dpdk"))]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", ["echo", "replicated"])
def test_bench_reports_what_it_measured(what: str, backend: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    options = ["--backend", backend, "--outstanding", "16", "--duration", "0.5", "--warmup", "0.2"]
    done = subprocess.run(
        [*R2P2, "bench", what, *options, "--json", str(report), "--logs", str(tmp_path / "logs")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read = json.loads(report.read_text())
    assert read["throughput_rps"] > 100
    assert 0 < read["p50_us"] <= read["p90_us"] <= read["p99_us"] <= read["p999_us"]
    servers = 3 if what == "replicated" else 1
    assert set(read["cpu_us_per_request"]) == {f"replica{i}" for i in range(servers)} | {"generator"}
    assert all(cpu >= 0 for cpu in read["cpu_us_per_request"].values())
    assert read["wrong"] == 0
    assert f"{what} over {backend}" in done.stdout


def test_bench_open_loop_offers_the_rate(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [*R2P2, "bench", "echo", "--rate", "2000", "--duration", "1", "--warmup", "0.2", "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(report.read_text())["throughput_rps"] == pytest.approx(2000, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_demo_holds(backend: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [*R2P2, "demo", "--backend", backend, "--seconds", "1", "--outstanding", "32", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything held." in done.stdout
    assert "kill -9" in done.stdout
    assert (out / "latency.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((out / "report.json").read_text())[backend]
    assert len(report["checks"]) == 5
    assert all(report["checks"].values())
    read = subprocess.run([*R2P2, "dissect", str(out / f"{backend}.pcap")], capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    for kind in ("HELLO", "FORMED", "PRE_VOTE", "VOTE", "APPEND", "REQUEST", "RESPONSE"):
        assert kind in read.stdout, f"the capture has no {kind}"
    the_capture_tells_of_the_kill(out / f"{backend}.pcap", report)


def the_capture_tells_of_the_kill(capture: Path, report: dict[str, Any]) -> None:
    """The capture has the election after the kill, who won it, and the interruption that was printed."""
    command = [*R2P2, "dissect", str(capture), "--raft", "--json"]
    read = subprocess.run(command, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    events = [json.loads(line) for line in read.stdout.splitlines()]
    killed, new_leader = (int(report[who].removeprefix("replica")) for who in ("killed", "new_leader"))
    leaders = [event for event in events if event["event"] == "leader"]
    first, last = leaders[0], leaders[-1]
    assert (first["member"], last["member"]) == (killed, new_leader)
    assert last["term"] > first["term"]
    stood = [event for event in events if event["event"] == "vote" and event["term"] == last["term"]]
    assert new_leader in {event["member"] for event in stood}
    # Seen by the new leader here and by the clients there. Here it begins with the old leader's last APPEND, which may
    # come after its last answer, and a client reads the first answer when it has a processor: there it is longer.
    interruption_ms = next(
        event["interruption_ns"] / 1e6
        for event in events
        if event["event"] == "answer" and event["time_ns"] > last["time_ns"]
    )
    assert report["interrupted_ms"] / 2 < interruption_ms < report["interrupted_ms"] * 1.25 + 30
    assert last["without_leader_ns"] / 1e6 <= interruption_ms


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.needs("linux")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_demo_leaves_nobody_behind(number: signal.Signals, tmp_path: Path) -> None:
    with Supervisor(tmp_path / "logs") as supervisor:
        command = [*R2P2, "demo", "--backend", "uv", "--seconds", "30", "--out", str(tmp_path / "out")]
        demo = supervisor.start("demo", command)
        demo.wait_line(lambda line: "requests/s" in line, 40, what="load")
        children = children_of(demo.pid)
        assert len(children) == 4
        demo.signal(number)
        code = demo.wait(15)
        assert code == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
        assert not any("Traceback" in line for line in demo.lines)
        end = time.monotonic() + 5
        while left := [pid for pid in children if is_running(pid)]:
            assert time.monotonic() < end, f"still running: {left}"
            time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_demo_does_not_overwrite_somebody_elses_folder(tmp_path: Path) -> None:
    mine = tmp_path / "uv" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("irreplaceable")
    command = [*R2P2, "demo", "--backend", "uv", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "is not empty and not from an earlier demo" in done.stderr
    assert mine.read_text() == "irreplaceable"
