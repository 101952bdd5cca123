"""The examples run, and the README shows the example that is tested."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from r2p2.processes import Supervisor

ROOT = Path(__file__).parent.parent


def test_the_counter_survives_its_leader() -> None:
    ended = subprocess.run(
        [sys.executable, "examples/counter.py"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[:3] == ["+ 1 = 1", "+ 2 = 3", "+ 3 = 6"]
    assert "it is stopped now" in lines[3]
    # A call that timed out may have been executed all the same: the sum is 6 plus a four for each call at most.
    total = int(lines[-1].removeprefix("+ 4 = "))
    tries = sum(line.startswith("  ...") for line in lines) + 1
    assert total in range(10, 6 + 4 * tries + 1, 4)


def test_the_service_and_its_failures() -> None:
    ended = subprocess.run(
        [sys.executable, "examples/service.py"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0] == "b'HELLO'"
    assert lines[1] == "[b'1', b'2', b'5000']"
    assert lines[2].startswith("RequestTooLarge - a request of 400000 bytes")
    assert lines[3].startswith("CallTimeout - no answer from 127.0.0.1:1 after")
    assert lines[4] == "CallDropped - this service has no replicas"


@pytest.mark.parametrize("backend", [pytest.param("dpdk", marks=pytest.mark.needs("dpdk")), "uv"])
def test_calls_past_the_kernel(backend: str) -> None:
    command = [sys.executable, "examples/bypass.py", "--backend", backend, "--calls", "2000"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    said = re.findall(r"^(\d+) waiting: [0-9,]+ calls/s, p50 \d+ us, p99 \d+ us$", ended.stdout, re.MULTILINE)
    assert said == ["1", "64"]


def test_a_lease_ends_and_a_late_owner_is_fenced_off() -> None:
    ended = subprocess.run(
        [sys.executable, "examples/locks.py"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[:3] == ["anna has the lock, token 1", "the printer prints for anna, token 1", "anna renews: granted"]
    assert "it is stopped now" in lines[3]
    assert lines[4:] == [
        "anna's lease has ended; ben has the lock, token 2",
        "the printer prints for ben, token 2",
        "the printer refuses anna: token 1 is lower than 2",
        "anna renews: lost",
        "ben releases: released",
    ]


def test_every_job_is_done_once_or_dead() -> None:
    ended = subprocess.run(
        [sys.executable, "examples/jobs.py"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[:2] == ["21 jobs submitted", "worker0 took job 1 and crashes"]
    assert sum("it is stopped now" in line for line in lines) == 1
    assert sum("could not do job 21, attempt" in line for line in lines) == 3
    assert lines[-2:] == ["20 jobs were done, 20 different ones", "the queue says: 20 done, 1 dead: impossible"]


@pytest.mark.parametrize("name", ["locks", "jobs"])
def test_ctrl_c_ends_an_example_without_a_traceback(name: str, tmp_path: Path) -> None:
    with Supervisor(tmp_path / "logs") as supervisor:
        process = supervisor.start(name, [sys.executable, "-u", str(ROOT / "examples" / f"{name}.py")])
        process.wait_line(lambda line: line != "", 60)
        process.signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert not any("Traceback" in line for line in process.lines)
