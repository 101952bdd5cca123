"""The comparison's own servers and clients against each other, for a moment: do they count rightly?"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.compare.measure import SERVERS, write_requests
from benchmarks.compare.run import compile_client
from r2p2.processes import ManagedProcess, Supervisor

BIND = "127.77.78.{}:8000"


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with Supervisor(tmp_path / "logs") as found:
        yield found


def start_echo(supervisor: Supervisor, transport: str, bind: str) -> ManagedProcess:
    argv = [sys.executable, str(SERVERS / "socket_echo.py"), transport, "--bind", bind]
    server = supervisor.start("server", argv)
    server.wait_line(lambda line: line == "ready", 20, what="the ready line")
    return server


def tcp_load(tmp_path: Path, bind: str, connections: int, depth: int, first: str) -> dict[str, float]:
    program = compile_client(tmp_path)
    requests = write_requests(tmp_path / "requests", [b"%064d" % i for i in range(100)])
    ip, _, port = bind.partition(":")
    argv = [str(program), ip, port, str(connections), str(depth), "64", "0.05", "0.2", first, str(requests)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20)
    begun, result = done.stdout.splitlines()
    assert begun == "measuring"
    found: dict[str, float] = json.loads(result)
    return found


@pytest.mark.parametrize(("connections", "depth"), [(1, 1), (1, 256), (16, 4)])
def test_the_tcp_client_counts_echoes(tmp_path: Path, supervisor: Supervisor, connections: int, depth: int) -> None:
    bind = BIND.format(1)
    start_echo(supervisor, "tcp", bind)
    result = tcp_load(tmp_path, bind, connections, depth, "0000")
    assert result["answered"] > 0 and result["failed"] == 0
    assert 0 < result["p50_us"] <= result["p99_us"]
    assert 0 < result["cpu_seconds"] <= 1.1 * result["seconds"]  # one thread
    # A closed loop: rate times mean latency is what waits at any time, and a median is at most twice its mean.
    assert result["answered"] / result["seconds"] * result["p50_us"] / 1e6 <= 2.5 * connections * depth


def test_the_tcp_client_counts_wrong_answers_apart(tmp_path: Path, supervisor: Supervisor) -> None:
    bind = BIND.format(2)
    start_echo(supervisor, "tcp", bind)
    result = tcp_load(tmp_path, bind, 1, 8, "STORED")
    assert result["answered"] == 0 and result["failed"] > 0


def test_the_udp_client_counts_echoes(supervisor: Supervisor) -> None:
    bind = BIND.format(3)
    start_echo(supervisor, "udp", bind)
    argv = [sys.executable, "-m", "benchmarks.compare.udp_load", "--target", bind, "--ip", "127.77.78.100"]
    argv += ["--workload", "echo", "--outstanding", "16", "--warmup", "0.05", "--seconds", "0.2"]
    client = supervisor.start("client", argv)
    client.wait_line(lambda line: line == "measuring", 20)
    result = json.loads(client.wait_line(lambda line: line.startswith("{"), 20))
    assert result["answered"] > 0 and result["failed"] == 0
    assert client.wait(20) == 0
