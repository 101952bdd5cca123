"""Fuzzing of the whole C engine under AddressSanitizer and UBSan: seconds here, ``R2P2_FUZZ_SECONDS=3600`` by hand.

The seconds are of its own processor time.

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


@pytest.mark.timeout(4 * SECONDS + 120)  # it may not be alone on its processor
def test_no_script_breaks_the_engine(tmp_path: Path) -> None:
    csrc = ROOT / "r2p2" / "csrc"
    program = tmp_path / "fuzz_engine"
    sources = [Path(__file__).parent / "c" / "fuzz_engine.c", *sorted(csrc.glob("*.c"))]
    command = ["gcc", *BASE_FLAGS, *SANITIZE, *WARNINGS, f"-I{csrc}", "-o", str(program), *map(str, sources), "-lm"]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    assert compiled.returncode == 0, compiled.stderr
    done = subprocess.run([str(program), SEED, str(SECONDS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    scripts = int(done.stdout.split()[1])
    assert scripts > SECONDS, "so few scripts prove nothing"
