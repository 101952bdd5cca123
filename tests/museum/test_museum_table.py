"""The museum's table names what is there: every bug has a test, every mutant a row, and none of them is gone."""

from __future__ import annotations

import re
from pathlib import Path

from r2p2.sim.mutants import MUTANTS

TESTS = Path(__file__).resolve().parents[1]
ROWS = re.findall(r"^\| ([SLD]\d+) \|(.*)\|$", (TESTS / "museum" / "README.md").read_text(), re.MULTILINE)


def test_every_bug_has_a_row_and_every_row_a_test() -> None:
    expected = [f"S{i}" for i in range(1, 21)] + [f"L{i}" for i in range(1, 11)] + [f"D{i}" for i in range(1, 6)]
    assert [number for number, _ in ROWS] == expected
    assert all("`test_" in text for _, text in ROWS)


def test_the_tests_and_mutants_of_the_table_exist() -> None:
    sources = "\n".join(path.read_text() for path in TESTS.rglob("test_*.py"))
    there = set(re.findall(r"^\s*(?:async )?def (test_\w+)", sources, re.MULTILINE))
    named = {name for _, text in ROWS for name in re.findall(r"`(\w+)`", text) if name.islower()}
    mutants = {mutant.name for mutant in MUTANTS}
    assert named - there == mutants, "all mutants stand in the table, and everything else in it is a test"
