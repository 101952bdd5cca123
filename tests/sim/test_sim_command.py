"""`r2p2 sim`, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import pytest

from r2p2.cli import main
from r2p2.sim import command
from r2p2.sim.world import Violation, World


def test_seeds_that_hold(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Exit code 0, totals, and the last seed's trace where asked for."""
    trace = tmp_path / "trace.ndjson"
    assert main(["sim", "--seeds", "3:6", "--events", "200", "--trace", str(trace)]) == 0
    assert "3 seeds, 0 failed" in capsys.readouterr().out
    assert json.loads(trace.read_text().splitlines()[0])["event"]


def test_a_seed_that_breaks_a_property(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, the line that replays it, and no further seeds unless told to."""
    with mock.patch.object(World, "run", side_effect=Violation("canary", "must fail\n  replay: r2p2 sim --seeds 3:4")):
        assert main(["sim", "--seeds", "3:6"]) == 1
        out = capsys.readouterr().out
        assert "FAILED canary: must fail" in out
        assert "replay: r2p2 sim --seeds 3:4" in out
        assert "1 seeds, 1 failed" in out
        assert main(["sim", "--seeds", "3:6", "--keep-going"]) == 1
        assert "3 seeds, 3 failed" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--seeds", "a:b"], ["--seeds", "4:4"], ["--events", "0"]])
def test_nonsense_is_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A line, no traceback."""
    assert main(["sim", *arguments]) != 0
    assert "r2p2: error:" in capsys.readouterr().err


def test_one_seed() -> None:
    """A alone is A:A+1."""
    assert command.seeds_of("7") == range(7, 8)
