"""The ports' C under AddressSanitizer and UBSan, as programs of their own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cffi_build import ROOT, WARNINGS

HERE = Path(__file__).parent / "c"
SANITIZE = [
    "-std=gnu11",
    "-O1",
    "-g",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover",
]
INCLUDES = [f"-I{ROOT / 'r2p2' / 'csrc'}", f"-I{ROOT / 'uv_backend' / 'csrc'}"]
UDP_PORT = sorted((ROOT / "uv_backend" / "csrc").glob("*.c"))
MEM_PORT = ROOT / "r2p2" / "csrc" / "r2p2_mem_port.c"


def compile_and_run(directory: Path, sources: list[Path], extra: list[str], arguments: list[str]) -> None:
    """Compile with every warning an error, run, and want ``ok``."""
    program = directory / sources[0].stem
    command = ["gcc", *SANITIZE, *WARNINGS, *INCLUDES, *extra, "-o", str(program), *map(str, sources)]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    assert compiled.returncode == 0, compiled.stderr
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr[-4000:]


@pytest.mark.needs("linux")
def test_system_calls_that_fail_cost_only_their_datagram(tmp_path: Path) -> None:
    wrap = ["-Wl,--wrap=sendmmsg,--wrap=recvmmsg"]
    compile_and_run(tmp_path, [HERE / "udp_faults.c", *UDP_PORT], wrap, [])


@pytest.mark.needs("linux")
@pytest.mark.parametrize("seed", [1, 2])
def test_random_traffic_keeps_every_buffer_with_its_owner(tmp_path: Path, seed: int) -> None:
    compile_and_run(tmp_path, [HERE / "churn.c", *UDP_PORT, MEM_PORT], [], [str(seed), "20000"])
