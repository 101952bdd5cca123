"""Real processes: a router and two servers over kernel UDP, called as a user calls them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from r2p2.client import LB_ROUTE, BlockingClient
from r2p2.errors import CallDropped, CallTimeout
from r2p2.processes import ManagedProcess, Supervisor

R2P2 = [sys.executable, "-m", "r2p2"]
READY_S = 20


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(supervisor: Supervisor, name: str, *arguments: str) -> tuple[ManagedProcess, str]:
    server = supervisor.start(name, [*R2P2, "serve", "--bind", "127.0.0.1:0", *arguments])
    line = server.wait_line(lambda line: line.startswith("r2p2: serving"), READY_S, what="the ready line")
    return server, line.split(" on ")[1].split()[0]


def start_router(supervisor: Supervisor, servers: list[str], *arguments: str) -> tuple[ManagedProcess, str]:
    command = [*R2P2, "router", "--bind", "127.0.0.1:0", "--servers", ",".join(servers), *arguments]
    router = supervisor.start("router", command)
    line = router.wait_line(lambda line: line.startswith("r2p2: routing"), READY_S, what="the ready line")
    return router, line.split(" on ")[1].split()[0]


def call(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*R2P2, "call", address, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def counted(router: ManagedProcess) -> dict[str, int]:
    """Stops the router; its counters."""
    router.signal(signal.SIGTERM)
    assert router.wait(10) == 0
    last = router.lines[-1]
    assert last.startswith("r2p2: stopped; counted: ")
    return dict(json.loads(last.partition("counted: ")[2].replace("'", '"')))


def test_a_router_with_two_servers_and_a_killed_one(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        control = str(free_port())
        started = [start_server(supervisor, f"server{i}") for i in range(2)]
        arguments = ("--control-port", control, "--policy", "jbsq:2", "--timeout", "0.2", "--down", "0.3")
        router, address = start_router(supervisor, [where for _, where in started], *arguments)
        done = call(address, "hello", "--policy", "lb")
        assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
        with BlockingClient("127.0.0.1") as client:
            big = bytes(range(256)) * 400
            assert client.call(address, big, policy=LB_ROUTE) == big
            for i in range(50):
                assert client.call(address, b"%d" % i, policy=LB_ROUTE) == b"%d" % i
            started[0][0].kill()
            outcomes = []
            for i in range(40):
                try:
                    outcomes.append(client.call(address, b"%d" % i, policy=LB_ROUTE, timeout_s=0.4) == b"%d" % i)
                except (CallTimeout, CallDropped):
                    outcomes.append(False)
        assert outcomes.count(False) <= 3 + 3, "three misses put it out; then one probe now and then"
        assert outcomes[-1] or outcomes[-2]
        counters = counted(router)
        assert counters["requests_answered"] + counters["requests_expired"] == counters["requests_sent"] == 92
        assert counters["servers_out"] == 1


def test_servers_feed_back_and_the_router_reports(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        control = free_port()
        _, where = start_server(supervisor, "server", "--router", f"127.0.0.1:{control}")
        router, address = start_router(supervisor, [where], "--control-port", str(control), "--report", "0.05")
        assert call(address, "hello", "--policy", "lb").stdout == "hello\n"
        line = router.wait_line(lambda line: '"requests_answered": 1' in line and '"feedback' in line, 10)
        status = json.loads(line)
        assert (status["mode"], status["policy"], status["pending_count"]) == ("relay", "jbsq:3", 0)
        assert status["servers"][0]["address"] == where
        assert status["servers"][0]["answered"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--servers", "127.0.0.1"), "no port"),
        (("--servers", "127.0.0.1:0"), "no UDP port"),
        (("--servers", "127.0.0.1:1", "--policy", "best"), "'best'"),
        (("--servers", "127.0.0.1:1", "--policy", "jbsq:0"), "bound between"),
        (("--servers", "127.0.0.1:1", "--mode", "direct"), "--mode relay"),
        (("--servers", "127.0.0.1:1", "--timeout", "0"), "--timeout"),
        (("--servers", "127.0.0.1:1", "--control-port", "99999"), "--control-port"),
        (("--servers", "127.0.0.1:1", "--bind", "192.0.2.1:8000"), "192.0.2.1"),
    ],
)
def test_a_users_error_is_a_line(arguments: tuple[str, ...], message: str) -> None:
    done = subprocess.run([*R2P2, "router", *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("r2p2: error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_router_whose_report_nobody_reads_any_more_routes_on(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        _, where = start_server(supervisor, "server")
        command = [*R2P2, "router", "--bind", "127.0.0.1:0", "--servers", where, "--control-port", "0"]
        with subprocess.Popen([*command, "--report", "0.02"], stdout=subprocess.PIPE, text=True) as router:
            try:
                assert router.stdout is not None
                address = router.stdout.readline().split(" on ")[1].split()[0]
                router.stdout.readline()  # a report
                router.stdout.close()
                for _ in range(3):  # several reports, none of which can be written
                    time.sleep(0.02)
                    assert call(address, "--policy", "lb", "x").stdout == "x\n"
                assert router.poll() is None
            finally:
                router.kill()
