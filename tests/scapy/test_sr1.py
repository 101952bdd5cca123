"""Scapy's ``sr1`` and ``sr`` against a real server over real sockets: ``hashret`` and ``answers`` pair what comes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).resolve().parent / "sr1_child.py"
ROOT = CHILD.parent.parent.parent


@pytest.mark.needs("linux", "root", "netns")
def test_requests_and_responses_are_paired(tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "-n", sys.executable, str(CHILD), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["one"] == ["RESPONSE", 7, "1234"]
    assert result["empty"] == ["RESPONSE", 8, ""]
    assert result["many"] == [40, 0]
    assert result["paired"]
    assert result["ack"] == ["ACK", 9, True]
    assert result["large"] == [False, False, 3000]
    assert result["elsewhere"] == ["127.0.0.2", "elsewhere"]
