"""What the documents show is what the repository holds: examples run, commands exist, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from r2p2 import cli

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]


def test_readme_shows_the_example_file() -> None:
    shown = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert shown == [(ROOT / "examples" / "counter.py").read_text()]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files(document: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text()):
        assert "://" in target or (ROOT / target).exists(), f"{document}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^ {4}|`)make ([a-z]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{document}: make {target}"
    for name in re.findall(r"(?:^ {4}|`)r2p2 ([a-z]+)", text, re.MULTILINE):
        assert name in cli.SUBCOMMANDS, f"{document}: r2p2 {name}"


def test_paths_in_the_code_map_exist() -> None:
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    assert len(rows) >= 10
    for path in re.findall(r"`([^`]+)`", " ".join(rows)):
        assert (ROOT / path).exists(), path
