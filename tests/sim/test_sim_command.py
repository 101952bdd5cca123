"""`r2p2 sim`, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r2p2.cli import main
from r2p2.sim import command


def test_seeds_that_hold(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Exit code 0, totals, and the last seed's trace where asked for."""
    trace = tmp_path / "trace.ndjson"
    assert main(["sim", "--seeds", "3:6", "--events", "200", "--trace", str(trace)]) == 0
    assert "3 seeds, 0 failed" in capsys.readouterr().out
    assert json.loads(trace.read_text().splitlines()[0])["event"]


def test_a_canary_that_must_fail(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Exit code 1, a line that replays it, no further seeds unless told to, and a trace in both forms."""
    trace = tmp_path / "trace.ndjson"
    canary = ["sim", "--mutant", "nothing_is_withheld", "--events", "500", "--trace", str(trace)]
    assert main([*canary, "--seeds", "0:6"]) == 1
    out = capsys.readouterr().out
    assert "FAILED commit: " in out
    assert "1 seeds, 1 failed" in out
    (replay,) = [line.partition("replay: r2p2 ")[2] for line in out.splitlines() if "replay: " in line]
    told = out[: out.index("replay: ")]
    assert main(replay.replace("FILE", str(trace)).split()) == 1
    assert told in capsys.readouterr().out
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    assert any(line.get("kind") == "Append" and line["from"].startswith("n") for line in lines)
    diagram = trace.with_suffix(".mmd").read_text().splitlines()
    assert diagram[0] == "sequenceDiagram"
    assert any("->>" in line and "Append" in line for line in diagram)
    # What broke is the last of both.
    assert (lines[-1]["event"], lines[-1]["checker"]) == ("FAILED", "commit")
    assert lines[-1]["what"] in told and f"FAILED checker commit, what {lines[-1]['what']}" in diagram[-1]
    assert any(" ms role " in line for line in diagram) and not any("role role" in line for line in diagram)
    assert main([*canary, "--seeds", "0:6", "--keep-going", "--jobs", "2"]) == 1
    assert "6 seeds, " in capsys.readouterr().out
    assert main(["sim", "--mutant", "?"]) == 0
    assert "nothing_is_withheld" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["--seeds", "a:b"], ["--seeds", "4:4"], ["--events", "0"], ["--jobs", "-1"], ["--mutant", "no"]]
)
def test_nonsense_is_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A line, no traceback."""
    assert main(["sim", *arguments]) != 0
    assert "r2p2: error:" in capsys.readouterr().err


def test_one_seed() -> None:
    """A alone is A:A+1."""
    assert command.seeds_of("7") == range(7, 8)
