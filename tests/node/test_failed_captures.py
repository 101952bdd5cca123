"""A failing test of a cluster leaves a capture that dissect reads; one that passes leaves nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from r2p2.cli import main

ROOT = Path(__file__).resolve().parent.parent.parent
TESTS = """
from tests.node.support import World

def test_good():
    with World() as world:
        world.elect()

def test_bad():
    with World() as world:
        leader = world.elect()
        world.ask(b"*1\\r\\n$4\\r\\nPING\\r\\n", leader)
        world.kill(leader)
        assert world.leader == leader

def test_bad_without_a_cluster():
    assert False
"""


def test_a_failed_test_leaves_its_packets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), "-c", "/dev/null", str(tmp_path / "test_it.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "2 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    [capture] = (tmp_path / "out" / "failed").iterdir()
    assert capture.name == "test_it.py_test_bad.pcap"
    assert f"out/failed/{capture.name}: the last " in done.stdout
    assert main(["dissect", "--raft", str(capture)]) == 0
    told = capsys.readouterr().out
    assert "leads term 1" in told and "votes for member" in told and "cluster formed of members 0, 1, 2" in told
    assert main(["dissect", str(capture), "--pairs", "--filter", "type=REQUEST"]) == 0
    assert "PING => RESPONSE" in capsys.readouterr().out
