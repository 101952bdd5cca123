"""docs/dissect.md shows what the command prints: every example is run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from r2p2.cli import main
from r2p2.dissect import filters

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "docs" / "dissect.md").read_text()
EXAMPLES = re.findall(r"^```text\n\$ r2p2 (.*)\n((?:.*\n)*?)```$", TEXT, re.MULTILINE)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize(("command", "shown"), EXAMPLES, ids=[command for command, _ in EXAMPLES])
def test_an_example(
    command: str, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(shlex.split(command)) == 0
    assert shown in capsys.readouterr().out


def test_every_filter_key_and_option_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    for key in filters._KEYS:
        assert f"`{key}`" in TEXT, key
    assert main(["dissect", "--help"]) == 0
    for option in set(re.findall(r"--[a-z]+", capsys.readouterr().out)) - {"--help"}:
        assert f"`{option}" in TEXT, option


def test_every_event_is_described() -> None:
    source = (ROOT / "r2p2" / "dissect" / "timeline.py").read_text()
    events = set(re.findall(r'yield "(\w+)", ', source)) | set(re.findall(r'cluster_id, "(\w+)", text', source))
    assert len(events) >= 9
    for event in events | {"pre_vote", "pre_vote_reply", "vote", "vote_reply", "vote_transfer"}:
        assert f"`{event}`" in TEXT, event
