"""The fenced blocks of docs/tutorial.md: what is to be run where, what is to be saved, what is to be seen."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"


@dataclass(frozen=True)
class Block:
    """One block. ``kind``: sh, python, toml or text; ``where``: what follows it: a file's name, a machine, install."""

    kind: str
    where: str
    text: str


def blocks() -> list[Block]:
    """All, in order."""
    found = re.findall(r"^```(\w+) ?([^\n]*)\n(.*?)^```$", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(*each) for each in found]


def files() -> dict[str, str]:
    """What a reader saves, by name."""
    return {block.where: block.text for block in blocks() if block.kind in ("python", "toml")}


def commands_of(machine: str) -> list[str]:
    """The lines to type on one of the machines."""
    (block,) = (block for block in blocks() if block.kind == "sh" and block.where == f"machine {machine}")
    return block.text.splitlines()


def pattern_of(line: str) -> re.Pattern[str]:
    """A line as it may come: other numbers, another leader, ``...`` for anything."""
    words = []
    for word in line.split():
        escaped = re.escape(word).replace(r"\.\.\.", ".*")
        escaped = re.sub(r"\d+(\\\.\d+)?", r"[0-9][0-9.]*", escaped)
        words.append(re.sub(r"^(leader|follower)$", "(leader|follower)", escaped))
    return re.compile(r"\s+".join(words))


def missing(expected: str, seen: str) -> str:
    """The first expected line that does not come, in order; empty when all do."""
    lines = iter(seen.splitlines())
    for wanted in expected.splitlines():
        if wanted.strip() == "...":
            continue
        pattern = pattern_of(wanted)
        if not any(pattern.match(line) for line in lines):
            return wanted
    return ""
