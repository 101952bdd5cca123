"""The examples run, and the README shows the example that is tested."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
