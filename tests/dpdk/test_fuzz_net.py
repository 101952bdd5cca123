"""Fuzzes the frame parsers (fuzz_net.c) under sanitizers for a moment; needs gcc, not DPDK."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "dpdk_backend" / "csrc"
SECONDS = 2
FRAMES_MIN = 5_000
SANITIZE = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined"]


@pytest.fixture(scope="module")
def fuzz_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fuzzer, built."""
    target = tmp_path_factory.mktemp("fuzz") / "fuzz_net"
    sources = [str(HERE / "fuzz_net.c"), str(CSRC / "net.c")]
    flags = [*SANITIZE, "-fno-sanitize-recover=all", f"-I{CSRC}"]
    subprocess.run(["gcc", *flags, *sources, "-o", str(target)], check=True)
    return target


@pytest.mark.parametrize("seed", [1, 20260])
def test_no_frame_breaks_the_parsers(fuzz_net: Path, seed: int) -> None:
    run = subprocess.run([str(fuzz_net), str(seed), str(SECONDS)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"fuzz_net {seed} {SECONDS}: {run.stderr[-3000:]}"
    counts = {name: int(count) for name, count in (line.split() for line in run.stdout.splitlines())}
    assert counts["frames"] > FRAMES_MIN
    unreached = [name for name, count in counts.items() if count == 0]
    assert not unreached, f"the fuzzer reaches no frame of {unreached}"
