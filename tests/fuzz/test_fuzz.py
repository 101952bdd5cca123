"""Fuzzing of the whole C engine and of the router under AddressSanitizer and UBSan: seconds here,
``R2P2_FUZZ_SECONDS=3600`` by hand.

The seconds are of its own processor time; all tests but the first take a quarter of them.

``R2P2_FUZZ_SEED`` chooses other scripts than the usual ones. A failure names what to run to play its script again:
``fuzz_engine SEED 0 NUMBER``, compiled as below.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cffi_build import BASE_FLAGS, ROOT, WARNINGS

SECONDS = int(os.environ.get("R2P2_FUZZ_SECONDS", "5"))
SEED = os.environ.get("R2P2_FUZZ_SEED", "1")
SANITIZE = ["-O2", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover"]


def build(folder: Path, flags: list[str], name: str = "fuzz_engine", without: str = "") -> Path:
    """A fuzzer with the engine in it, without the file that it includes."""
    csrc = ROOT / "r2p2" / "csrc"
    program = folder / name
    sources = [Path(__file__).parent / "c" / f"{name}.c", *(c for c in sorted(csrc.glob("*.c")) if c.name != without)]
    command = ["gcc", *BASE_FLAGS, *flags, *WARNINGS, f"-I{csrc}", "-o", str(program), *map(str, sources), "-lm"]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    assert compiled.returncode == 0, compiled.stderr
    return program


def scripts_played(program: Path, seconds: int, *further: str) -> int:
    done = subprocess.run([str(program), SEED, str(seconds), *further], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return int(done.stdout.split()[1])


@pytest.mark.timeout(4 * SECONDS + 120)  # it may not be alone on its processor
def test_no_script_breaks_the_engine(tmp_path: Path) -> None:
    scripts = scripts_played(build(tmp_path, SANITIZE), SECONDS)
    assert scripts > SECONDS, "so few scripts prove nothing"


@pytest.mark.timeout(4 * SECONDS + 120)
def test_no_byte_leaves_that_nobody_wrote(tmp_path: Path) -> None:
    # Each script runs over memory filled in two ways, and must send and answer the same bytes. The sanitizers above do
    # not see a read of what was never written. Memory that is not cleared shows within a few scripts.
    seconds = max(SECONDS // 4, 1)
    scripts = scripts_played(build(tmp_path, ["-O2"]), seconds, "twice")
    assert scripts > seconds, "so few scripts prove nothing"


@pytest.mark.timeout(4 * SECONDS + 120)
def test_no_script_breaks_the_router(tmp_path: Path) -> None:
    seconds = max(SECONDS // 4, 1)
    program = build(tmp_path, SANITIZE, "fuzz_router", without="r2p2_router.c")
    assert scripts_played(program, seconds) > seconds, "so few scripts prove nothing"
