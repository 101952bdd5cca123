"""The build's own promises: what is rebuilt when, commands that exist, checks that find something."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEYS = "import build_modules as b; print([b.inputs_key(n) for n in ('engine', 'udp', 'dpdk', 'batch', 'kv')])"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what modules are built from, in a folder with a space in its name."""
    copy = tmp_path / "a tree"
    for package in ("r2p2", "r2p2/requests", "r2p2/apps/kv", "uv_backend", "dpdk_backend"):
        ignore = shutil.ignore_patterns("*.o")
        shutil.copytree(ROOT / package / "csrc", copy / package / "csrc", ignore=ignore)
    shutil.copytree(ROOT / "tools", copy / "tools")
    shutil.copy(ROOT / "cffi_build.py", copy)
    return copy


def keys(tree: Path) -> list[str]:
    done = subprocess.run([sys.executable, "-c", KEYS], cwd=tree / "tools", capture_output=True, text=True, check=True)
    found = re.findall(r"[0-9a-f]{64}", done.stdout)
    assert len(found) == 5
    return found


@pytest.mark.parametrize(
    ("changed", "rebuilt"),
    [
        ("uv_backend/csrc/udp_port.c", (False, True, False, False, False)),
        ("r2p2/csrc/r2p2_engine.c", (True, False, False, False, False)),
        ("r2p2/requests/csrc/batch.c", (False, False, False, True, False)),
        ("r2p2/apps/kv/csrc/kv_plain.c", (False, False, False, False, True)),
        ("r2p2/csrc/r2p2_port.h", (True, True, True, True, True)),
        ("cffi_build.py", (True, True, True, True, True)),
        ("tools/lock.sh", (False, False, False, False, False)),
    ],
)
def test_a_change_rebuilds_what_it_concerns(changed: str, rebuilt: tuple[bool, ...], tree: Path) -> None:
    before = keys(tree)
    assert keys(tree) == before
    with (tree / changed).open("a") as file:
        file.write("\n")
    assert tuple(old != new for old, new in zip(before, keys(tree), strict=True)) == rebuilt


def test_a_warning_in_c_is_found(tree: Path) -> None:
    source = tree / "uv_backend" / "csrc" / "udp_port.c"
    source.write_text(source.read_text() + "\nint unprototyped(void) { int unused; return 0; }\n")
    for package in ("r2p2", "dpdk_backend"):
        shutil.rmtree(tree / package)
    shutil.copytree(ROOT / "r2p2" / "csrc", tree / "r2p2" / "csrc", ignore=shutil.ignore_patterns("*.c", "*.o"))
    check = [sys.executable, "tools/check_c.py"]
    done = subprocess.run(check, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "unused" in done.stderr
    assert "3 of 4 C files" in done.stdout


def test_help_lists_every_target() -> None:
    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    targets = set(phony[1].split())
    assert {"demo", "test", "lint", "types", "bench", "setup", "clean", "help"} <= targets
    for target in targets:
        assert f"make {target} " in listed, f"{target} is not in the help"


@pytest.mark.parametrize("script", sorted((ROOT / "tools").glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_plain_sh(script: Path) -> None:
    assert script.read_text().startswith("#!/bin/sh\n")
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0


def test_set_up_without_what_it_needs_says_what_to_install(tmp_path: Path, tree: Path) -> None:
    """No compiler, and nobody may install one: the message has the command to run."""
    (tree / "requirements").mkdir()
    shutil.copy(ROOT / "requirements" / "dev.txt", tree / "requirements")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("sh", "env", "id", "cat", "mkdir", "dirname", "printf", "sha256sum", "cut"):
        found = shutil.which(name)
        if found:
            (commands / name).symlink_to(found)
    (commands / "python3").symlink_to(sys.executable)
    environment = {"PATH": str(commands), "PYTHON": str(commands / "python3"), "CC": "no-such-compiler"}
    setup = ["/bin/sh", "tools/setup.sh"]
    done = subprocess.run(setup, cwd=tree, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert "a C compiler" in done.stderr
    assert "apt-get install -y gcc libc6-dev" in done.stderr
