"""The guard against silent skips: where every test must run, a skip by any means fails the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"
SKIPS = {
    "mark": "@pytest.mark.skip(reason='the reason')\ndef test_it(): pass",
    "call": "def test_it(): pytest.skip('the reason')",
    "fixture": "@pytest.fixture\ndef f(): pytest.skip('the reason')\ndef test_it(f): pass",
    "module": "pytest.skip('the reason', allow_module_level=True)",
    "import": "pytest.importorskip('no_such_module_the_reason')",
    "needs": "@pytest.mark.needs('absent')\ndef test_it(): pass",
}


def run(folder: Path, test: str, require: str) -> subprocess.CompletedProcess[str]:
    conftest = CONFTEST.read_text() + '\n_CHECKS["absent"] = lambda: "the reason"\n'
    (folder / "conftest.py").write_text(conftest)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = needs(*what): needs\n")
    (folder / "test_it.py").write_text(f"import pytest\n{test}\n\ndef test_other(): pass\n")
    environment = {**os.environ, "R2P2_REQUIRE": require, "PYTHONPATH": str(CONFTEST.parents[1])}
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)


@pytest.mark.parametrize("means", SKIPS)
def test_a_skip_fails_where_all_must_run(means: str, tmp_path: Path) -> None:
    done = run(tmp_path, SKIPS[means], "all")
    assert done.returncode != 0, done.stdout
    assert "the_reason" in done.stdout or "the reason" in done.stdout


@pytest.mark.parametrize("means", SKIPS)
def test_a_skip_is_a_skip_elsewhere(means: str, tmp_path: Path) -> None:
    done = run(tmp_path, SKIPS[means], "")
    assert done.returncode in (0, 5), done.stdout  # 5: the whole module was skipped
    assert "skipped" in done.stdout


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    done = run(tmp_path, "@pytest.mark.xfail(reason='known')\ndef test_it(): assert False", "all")
    assert done.returncode == 0, done.stdout


def test_an_unknown_need_is_an_error(tmp_path: Path) -> None:
    assert run(tmp_path, "@pytest.mark.needs('luck')\ndef test_it(): pass", "").returncode not in (0, 1, 5)
