"""Every line and every branch of raft/ is gone by its own tests; `make coverage` shows what is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_every_branch_of_the_core_is_covered(tmp_path: Path) -> None:
    """A process of its own: the tests of raft/ as they are, measured."""
    env = {**os.environ, "COVERAGE_FILE": str(tmp_path / "coverage"), "R2P2_REQUIRE": ""}
    coverage = [sys.executable, "-m", "coverage"]
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/raft", "--ignore=tests/raft/test_coverage.py"]
    ran = subprocess.run([*coverage, "run", *tests], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    done = subprocess.run([*coverage, "report"], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
