"""Fuzzes the frame parsers (fuzz_net.c) and the neighbours (fuzz_neighbour.c) under sanitizers for a moment; needs gcc,
not DPDK.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "dpdk_backend" / "csrc"
RANDOM = HERE.parent / "fuzz" / "c"
SECONDS = 2
FRAMES_MIN = 5_000
SANITIZE = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined"]


@pytest.fixture(scope="module")
def fuzz_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fuzzer of frames, built."""
    return build(tmp_path_factory.mktemp("fuzz") / "fuzz_net", "net.c")


def build(target: Path, source: str) -> Path:
    """The fuzzer of one of the stack's files."""
    sources = [str(HERE / f"{target.name}.c"), str(CSRC / source)]
    flags = [*SANITIZE, "-fno-sanitize-recover=all", f"-I{CSRC}", f"-I{RANDOM}"]
    subprocess.run(["gcc", *flags, *sources, "-o", str(target)], check=True)
    return target


def test_no_order_of_neighbours_breaks_the_table(tmp_path: Path) -> None:
    program = build(tmp_path / "fuzz_neighbour", "neighbour.c")
    run = subprocess.run([str(program), "1", str(SECONDS)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    counts = {name: int(count) for name, count in (line.split() for line in run.stdout.splitlines())}
    assert min(counts.values()) > 0, counts


@pytest.mark.parametrize("seed", [1, 20260])
def test_no_frame_breaks_the_parsers(fuzz_net: Path, seed: int) -> None:
    run = subprocess.run([str(fuzz_net), str(seed), str(SECONDS)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"fuzz_net {seed} {SECONDS}: {run.stderr[-3000:]}"
    counts = {name: int(count) for name, count in (line.split() for line in run.stdout.splitlines())}
    assert counts["frames"] > FRAMES_MIN
    unreached = [name for name, count in counts.items() if count == 0]
    assert not unreached, f"the fuzzer reaches no frame of {unreached}"
