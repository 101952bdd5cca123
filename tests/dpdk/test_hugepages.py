"""With hugepages: the same port out of them, no hugetlbfs mounted, and none of them left taken afterwards.

Pages are reserved for the test and given back after it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dpdk_backend.hugepages import free_mb, mounts
from tests.dpdk.launch import Children

ROOT = Path(__file__).resolve().parents[2]
POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
RESERVED_MB = 224
pytestmark = [pytest.mark.needs("dpdk", "hugepages"), pytest.mark.usefixtures("hugepages")]


@pytest.fixture
def hugepages() -> Iterator[None]:
    """So many megabytes more than there were."""
    pages = RESERVED_MB // 2
    before = int(POOL.read_text())
    POOL.write_text(str(before + pages))
    try:
        if int(POOL.read_text()) < before + pages:  # memory is in pieces: have the kernel put them together
            Path("/proc/sys/vm/compact_memory").write_text("1")
            POOL.write_text(str(before + pages))
        assert free_mb() >= RESERVED_MB, f"{free_mb()} MB of hugepages could be had, {RESERVED_MB} are wanted"
        yield
    finally:
        POOL.write_text(str(max(int(POOL.read_text()) - pages, 0)))


def test_buffers_come_from_hugepages_and_all_go_back(children: Children) -> None:
    before = free_mb()
    result = children.run("in_hugepages")
    assert result["taken_mb"] >= 64
    assert result["counters"]["rx_drop_foreign_address"] == 6400
    assert result["in_use"] - result["at_start"] == 0
    assert result["leaked"] == 0
    assert free_mb() == before


@pytest.mark.timeout(300)
def test_the_port_in_hugepages_does_what_every_port_must() -> None:
    suite = ROOT / "tests" / "ports" / "test_conformance.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(suite)]
    environment = {**os.environ, "R2P2_PORT_WORLD": "dpdk", "R2P2_DPDK_HUGEPAGES": "1", "R2P2_REQUIRE": "all"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]


def test_free_hugepages_that_cannot_be_files_say_so(children: Children) -> None:
    # Where there is a mount, no file may stay in it: it would hold its page.
    unlink = ["--huge-unlink"]
    error = children.run("eal_error", hugepages=True, shared_files=True, memory_mb=64, extra_arguments=unlink)
    if mounts():  # and as root we may write there
        assert error["kind"] == ""
        return
    assert error["kind"] == "EalError"
    assert "mount -t hugetlbfs" in error["text"]


def test_serve_takes_them_when_told(shared_folder: Path) -> None:
    before = free_mb()
    command = [sys.executable, "-m", "r2p2", "serve", "--backend", "dpdk", "--hugepages", "--bind", "10.0.0.1:8000"]
    command += ["--vdev", "net_null0,no-rx=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline().startswith("r2p2: serving")
            assert before - free_mb() >= 64
        finally:
            server.terminate()
        assert server.wait(timeout=20) == 0
    assert free_mb() == before
