"""Real processes broken under load for seconds; by hand: R2P2_TORTURE_SECONDS=300 make pytest ARGS=tests/torture."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from r2p2.cli import main

SECONDS = float(os.environ.get("R2P2_TORTURE_SECONDS", "6"))


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("backend", ["uv", pytest.param("dpdk", marks=pytest.mark.needs("dpdk"))])
@pytest.mark.parametrize("nodes", [3, 5])
def test_a_broken_cluster_loses_repeats_and_invents_nothing(tmp_path: Path, backend: str, nodes: int) -> None:
    arguments = ["--backend", backend, "--nodes", str(nodes), "--seconds", str(SECONDS), "--every", "1.0"]
    assert main(["torture", *arguments, "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / f"{backend}-{nodes}-1" / "report.json").read_text())
    assert report["faults"]
    assert report["verdict"]["acknowledged"] > 100
    assert report["verdict"]["reads"] > 100


def test_a_fault_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["torture", "--faults", "kill,flood"]) == 1
    assert "'flood' is none of kill, stop, term" in capsys.readouterr().err
