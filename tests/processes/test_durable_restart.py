"""Whole clusters of durable processes, killed with SIGKILL under load and started again: nothing acknowledged is lost.

``R2P2_RESTART_SECONDS`` makes it go on for longer; a restart takes about two seconds.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.processes.members import Load, Members

SECONDS = float(os.environ.get("R2P2_RESTART_SECONDS", "6"))


@pytest.mark.needs("linux")
def test_a_cluster_killed_as_a_whole_comes_back(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "r2p2", "torture", "--faults", "all", "--seconds", str(SECONDS), "--every", "0.5"]
    argv += ["--storage", str(tmp_path / "disks"), "--out", str(tmp_path / "out")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60 + 4 * SECONDS, check=False)
    shown = done.stdout + done.stderr
    assert done.returncode == 0, shown
    restarts = re.search(r"(\d+) all\)", shown)
    assert restarts is not None and int(restarts[1]) >= 2, shown
    acknowledged = re.search(r"([\d,]+) acknowledged additions", shown)
    assert acknowledged is not None and int(acknowledged[1].replace(",", "")) > 100, shown
    assert "0 lost" in shown, shown


@pytest.mark.needs("linux")
def test_members_killed_amid_their_snapshots_lose_nothing(tmp_path: Path) -> None:
    """A log of 1 MiB and 8,000 keys: a member takes a snapshot after every few thousand requests, over a few polls."""
    random = Random(20)
    with (
        Members(tmp_path, "--log-mib", "1", each=lambda slot: ["--storage", str(tmp_path / f"disk{slot}")]) as members,
        Load(members.addresses[:3], rate=20_000.0, outstanding=64, keys_count=8_000) as load,
    ):
        load.wait_answered(10_000)  # every key is there
        for _ in range(5):
            load.wait_answered(random.randrange(1000, 8000))
            victim = random.randrange(3)
            members.kill(victim)
            members.launch(victim)
            members.wait(lambda nodes: len(nodes) == 3 and members.leader_of(nodes) is not None, "a leader")
        for victim in range(3):
            members.kill(victim)
        for victim in range(3):
            members.launch(victim)
        load.wait_answered(10_000)
        load.end()
        nodes = members.wait_in_sync(0, 1, 2)
        assert min(node["storage"]["snapshot_index"] for node in nodes.values()) > 8_000, "of all keys, more than once"
        assert load.stats.wrong == 0
        verdict = members.read_all(load)
        assert verdict.holds and verdict.keys == 8_000, verdict.text()


def test_a_disk_that_fails_ends_the_process(tmp_path: Path) -> None:
    """An error of a sync: the message, and exit code 1."""
    code = f"""
import errno, sys
from r2p2 import cli
from r2p2.files import Files
real, count = Files.sync, [0]
def sync(self, handle):
    count[0] += 1
    if count[0] > 3:
        raise OSError(errno.EIO, "Input/output error")
    real(self, handle)
Files.sync = sync
address = "127.0.0.1:" + sys.argv[1]
argv = ["serve", "--app", "kv", "--bind", address, "--members", address, "--storage", {str(tmp_path / "disk")!r}]
sys.exit(cli.main(argv))
"""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-c", code, str(port)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "sync failed" in done.stderr, done.stderr
    assert "Mend the disk" in done.stderr, done.stderr
