"""Real processes broken under load for seconds; by hand: R2P2_TORTURE_SECONDS=300 make pytest ARGS=tests/torture."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from r2p2.cli import main
from r2p2.torture.checker import check
from r2p2.torture.command import are_equal, interruptions, nothing_shown
from r2p2.torture.nemesis import Fault

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


REDIS_SECONDS = float(os.environ.get("R2P2_REDIS_TORTURE_SECONDS", "6"))


@pytest.mark.needs("redis")
@pytest.mark.timeout(REDIS_SECONDS + 120)
def test_a_redis_behind_each_broken_replica_holds_the_same(tmp_path: Path) -> None:
    """By hand, as docs/redis.md has it: R2P2_REDIS_TORTURE_SECONDS=600."""
    arguments = ["--app", "redis", "--seconds", str(REDIS_SECONDS), "--every", "1.0", "--faults", "kill,term"]
    assert main(["torture", *arguments, "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "uv-3-1" / "report.json").read_text())
    assert report["faults"] and report["verdict"]["acknowledged"] > 100
    states = report["clients"]["states"].values()
    assert len(states) == 3 and len({state["state_digest"] for state in states}) == 1


def test_replicas_are_equal_only_when_all_say_the_same() -> None:
    same = {"applied_index": 7, "state_digest": "aa"}
    assert are_equal({"a": same, "b": dict(same)}, 2)
    assert not are_equal({"a": same}, 2)
    assert not are_equal({"a": same, "b": same | {"state_digest": "ab"}}, 2)
    assert not are_equal({"a": same, "b": same | {"applied_index": 8}}, 2)


def test_a_fault_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["torture", "--faults", "kill,flood"]) == 1
    assert "'flood' is none of kill, stop, term" in capsys.readouterr().err


def test_an_interruption_is_the_longest_gap_behind_the_leaders_end() -> None:
    ms = 1_000_000
    answered = [n * ms for n in (0, 990, 999, 1150, 1151, 1250, 1350, 1450, 1550, 3000, 9000)]
    faults = [
        Fault("kill", "replica0", True, 1.0, 0.5),
        Fault("kill", "replica1", False, 3.1, 0.5),  # a follower
        Fault("stop", "replica1", True, 3.1, 0.5),  # it did not end
        Fault("term", "replica2", True, 20.0, 0.5),  # nothing was answered any more
    ]
    assert interruptions(faults, answered) == [0.151]


@pytest.mark.parametrize(
    ("faults", "acknowledged", "why"), [(0, 5, "no fault was made"), (1, 0, "no addition was answered"), (1, 5, "")]
)
def test_a_run_without_faults_or_answers_shows_nothing(faults: int, acknowledged: int, why: str) -> None:
    verdict = replace(check([]), acknowledged=acknowledged)
    assert nothing_shown(verdict, [Fault("kill", "replica-0", True, 0.0, 1.0)] * faults) == why
