"""The port conformance suite (tests/ports) over DPDK, in a process of its own because of the EAL."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUITES = ("test_conformance.py", "test_engine_conformance.py")


@pytest.mark.needs("dpdk")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("suite", SUITES)
def test_the_dpdk_port_does_what_every_port_must(suite: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests" / "ports" / suite)]
    environment = {**os.environ, "R2P2_PORT_WORLD": "dpdk", "R2P2_REQUIRE": "all"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    assert int(passed[1]) >= 15
