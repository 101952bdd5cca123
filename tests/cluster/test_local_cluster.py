"""`r2p2 cluster` and `r2p2 status` with real processes: up, killed, restarted, down."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from r2p2.cluster.config import load
from r2p2.cluster.launcher import Launcher, _began
from r2p2.errors import UserError
from tests.gateway.support import free_udp_ports


def r2p2(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "r2p2", *arguments], capture_output=True, text=True, check=False, timeout=100
    )


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "three.toml"
    nodes = "".join(f'[[nodes]]\naddress = "127.0.0.1:{port}"\n' for port in free_udp_ports(3))
    path.write_text(f'[cluster]\napp = "kv"\n{nodes}')
    yield path
    assert r2p2("cluster", "down", "--config", str(path)).returncode == 0


def status(config: Path) -> tuple[int, dict[str, dict[str, object]]]:
    ended = r2p2("status", "--config", str(config), "--json")
    return ended.returncode, json.loads(ended.stdout)["members"]


@pytest.mark.slow
def test_three_members_up_one_killed_and_back_and_all_down(config: Path) -> None:
    launcher = Launcher(load(config), config.parent / ".r2p2" / "three")
    up = r2p2("cluster", "up", "--config", str(config))
    assert up.returncode == 0, up.stderr
    assert up.stdout.count("follower") == 2 and up.stdout.count(" leader ") == 2  # one row, and the head
    pids = [launcher.pid(slot) for slot in range(3)]
    assert None not in pids

    again = r2p2("cluster", "up", "--config", str(config))
    assert again.returncode == 0 and [launcher.pid(slot) for slot in range(3)] == pids

    assert r2p2("cluster", "kill", "1", "--config", str(config)).returncode == 0
    assert launcher.pid(1) is None
    code, members = status(config)
    assert code == 1 and ["error" in each for each in members.values()] == [False, True, False]
    not_there = r2p2("cluster", "kill", "1", "--config", str(config))
    assert not_there.returncode == 1 and "node 1 does not run" in not_there.stderr

    assert r2p2("cluster", "restart", "1", "--config", str(config)).returncode == 0
    end = time.monotonic() + 60
    while (seen := status(config))[0] != 0:
        assert time.monotonic() < end, seen
    assert launcher.pid(1) not in (None, pids[1])
    killed, now = launcher.earlier_log(1).read_text(), launcher.log(1).read_text()
    assert "cluster formed" in killed and "r2p2: stopped" not in killed, "what the killed one printed is kept"
    assert "asks to be let in" in now and not launcher.earlier_log(0).exists()
    shown = r2p2("cluster", "status", "--config", str(config))
    assert shown.returncode == 0 and f"node 1 {launcher.pid(1)}" in shown.stdout

    down = r2p2("cluster", "down", "--config", str(config))
    assert down.returncode == 0, down.stderr
    assert [launcher.pid(slot) for slot in range(3)] == [None] * 3
    assert all("r2p2: stopped" in launcher.log(slot).read_text() for slot in range(3))


@pytest.mark.slow
def test_members_in_memory_are_restarted_one_after_the_other_and_nothing_is_lost(config: Path) -> None:
    assert r2p2("cluster", "up", "--config", str(config)).returncode == 0
    where = load(config).addresses
    assert "+OK" in r2p2("call", where[0], "--policy", "replicated", "--resp", "SET", "name", "R2P2").stdout
    for slot in range(3):
        restarted = r2p2("cluster", "restart", str(slot), "--config", str(config))
        assert restarted.returncode == 0, restarted.stderr
        assert status(config)[0] == 0, "it votes again, so the next one may be restarted"
    assert r2p2("cluster", "kill", "1", "--config", str(config)).returncode == 0
    refused = r2p2("cluster", "restart", "0", "--config", str(config))
    assert refused.returncode == 1
    assert "node 0 is in memory, and without it 1 of 3 voters would remember: no majority" in refused.stderr
    assert r2p2("cluster", "restart", "1", "--config", str(config)).returncode == 0
    assert "R2P2" in r2p2("call", where[2], "--policy", "read", "--resp", "GET", "name").stdout


def test_a_member_that_cannot_start_says_why_and_nothing_is_left(config: Path) -> None:
    config.write_text(config.read_text().replace('"kv"', '"no.such.module:App"'))
    up = r2p2("cluster", "up", "--config", str(config))
    assert up.returncode == 1
    assert "node 0 ended" in up.stderr and "No module named 'no'" in up.stderr
    launcher = Launcher(load(config), config.parent / ".r2p2" / "three")
    assert [launcher.pid(slot) for slot in range(3)] == [None] * 3


def test_a_process_id_of_somebody_else_is_not_taken_for_a_member(config: Path) -> None:
    launcher = Launcher(load(config), config.parent)
    (config.parent / "node-0.pid").write_text(f"{os.getpid()} 1\n")
    assert launcher.pid(0) is None
    (config.parent / "node-0.pid").write_text("junk")
    assert launcher.pid(0) is None


def test_a_log_that_is_cut_while_it_is_written_has_no_hole(config: Path) -> None:
    """As logrotate does with copytruncate."""
    launcher = Launcher(load(config), config.parent)
    launcher.start(0)
    launcher.wait_ready(0, 20.0)
    os.truncate(launcher.log(0), 0)
    launcher.stop([0], 20.0)
    assert launcher.log(0).read_bytes().startswith(b"r2p2: ")


def processes_of(config: Path) -> list[str]:
    """Command lines of processes that were started with that file."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in lines if f"serve --config {config}" in line]


def test_a_member_whose_process_id_cannot_be_kept_is_not_left_behind(config: Path) -> None:
    (config.parent / ".r2p2" / "three" / "node-0.pid").mkdir(parents=True)
    up = r2p2("cluster", "up", "--config", str(config))
    assert up.returncode == 1 and "node 0 cannot be started" in up.stderr and "Traceback" not in up.stderr
    assert processes_of(config) == []


@pytest.mark.slow
def test_two_that_start_a_cluster_at_once_start_one(config: Path) -> None:
    command = [sys.executable, "-m", "r2p2", "cluster", "up", "--config", str(config)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [each.communicate(timeout=60) for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    launcher = Launcher(load(config), config.parent / ".r2p2" / "three")
    assert None not in [launcher.pid(slot) for slot in range(3)] and len(processes_of(config)) == 3


def test_who_starts_and_ends_members_is_waited_for(config: Path) -> None:
    launcher = Launcher(load(config), config.parent)
    down = ("cluster", "down", "--config", str(config), "--dir", str(config.parent), "--timeout", "0.2")
    with launcher.alone(1.0):
        refused = r2p2(*down)
    assert refused.returncode == 1 and "another r2p2 cluster command is at work" in refused.stderr
    assert r2p2(*down).returncode == 0


def test_a_process_of_another_user_is_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = Launcher(load(config), config.parent)
    (config.parent / "node-0.pid").write_text(f"{os.getpid()} {_began(os.getpid())}\n")

    def refuse(pid: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", refuse)
    with pytest.raises(UserError, match=f"node 0 is process {os.getpid()} of another user"):
        launcher.stop([0], 1.0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("cluster", "kill"), "r2p2 cluster kill: name one node"),
        (("cluster", "up", "1"), "r2p2 cluster up: takes no node"),
        (("cluster", "kill", "7"), "there is no node 7"),
        (("cluster", "up", "--timeout", "0"), "--timeout is 0.0, not above 0"),
        (("status", "--timeout", "0"), "--timeout is 0.0, not above 0"),
        (("serve",), "--config without --node"),
        (("serve", "--node", "9"), "there is no node 9"),
    ],
)
def test_wrong_arguments_are_named(config: Path, arguments: tuple[str, ...], told: str) -> None:
    ended = r2p2(*arguments, "--config", str(config))
    assert ended.returncode == 1 and told in ended.stderr, ended.stderr


def test_status_of_what_is_not_there() -> None:
    ended = r2p2("status", "--nodes", "127.0.0.1:1", "--timeout", "0.1")
    assert ended.returncode == 1 and "no answer from 127.0.0.1:1" in ended.stdout
