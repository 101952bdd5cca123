"""What is installed runs, whatever lies in the working directory: a clone that was never built, for one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from r2p2.processes import python_module


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with packages of the same names, which do not work, and an application."""
    for package in ("r2p2", "uv_backend", "raft"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise RuntimeError('not built')\n")
    (tmp_path / "mine.py").write_text("def reverse(request: bytes) -> bytes:\n    return request[::-1]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_children_are_of_this_installation(clone: Path) -> None:
    plain = subprocess.run([sys.executable, "-m", "r2p2"], capture_output=True, text=True, check=False)
    assert "not built" in plain.stderr, "Python by itself looks here first"
    done = subprocess.run([*python_module("r2p2"), "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_application_is_looked_for_here_last(clone: Path) -> None:
    program = "import sys, r2p2.app; print(r2p2.app.load_application('mine:reverse').query(b'abc'), sys.path[-1])"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"b'cba' {clone}\n"
