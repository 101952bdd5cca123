"""Every script of testdata/ has the trace it says; see script.py for the form, and for REWRITE=1."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.raft.script import Script

SCRIPTS = sorted((Path(__file__).parent / "testdata").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_a_script_has_its_trace(path: Path) -> None:
    """To the last line."""
    expected = path.read_text()
    out = Script().run(expected)
    if os.environ.get("REWRITE"):
        path.write_text(out)
        return
    assert out == expected


def test_there_are_scripts_and_they_can_fail() -> None:
    """A changed line is a failure."""
    assert len(SCRIPTS) >= 6
    text = SCRIPTS[0].read_text()
    assert Script().run(text.replace("term=1", "term=7")) == text
