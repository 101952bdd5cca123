"""Direct server return over DPDK: a client, a router and two servers, a process each, joined by memif links."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from r2p2.processes import ManagedProcess, Supervisor

R2P2 = [sys.executable, "-m", "r2p2"]
CLIENT, ROUTER, SERVERS = "10.9.0.100", "10.9.0.254", ("10.9.0.1", "10.9.0.2")
CALLS = 2000
pytestmark = pytest.mark.needs("dpdk")


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder with a short name: a socket's path has a bound."""
    with tempfile.TemporaryDirectory(prefix="r2p2-") as name:
        yield Path(name)


def start(supervisor: Supervisor, name: str, ready: str, *command: str) -> ManagedProcess:
    process = supervisor.start(name, [*R2P2, *command, "--backend", "dpdk"])
    process.wait_line(lambda line: line.startswith(ready), 30, what="the ready line")
    return process


@pytest.mark.parametrize("mode", ["direct", "relay"])
def test_requests_through_the_router(mode: str, sockets: Path, tmp_path: Path) -> None:
    def link(role: str, peer: str, *ends: str) -> list[str]:
        return ["--link", f"{role}:{peer}:{sockets / '-'.join(ends)}"]

    servers = ",".join(f"{ip}:8000" for ip in SERVERS)
    with Supervisor(tmp_path) as supervisor:
        arguments = ["--bind", f"{ROUTER}:8000", "--servers", servers, "--mode", mode, "--policy", "jbsq:4"]
        links = link("server", CLIENT, "router", "client")
        for ip in SERVERS:
            links += link("server", ip, "router", ip)
        router = start(supervisor, "router", "r2p2: routing", "router", *arguments, *links)
        for ip in SERVERS:
            links = link("client", ROUTER, "router", ip) + link("server", CLIENT, ip, "client")
            start(supervisor, ip, "r2p2: serving", "serve", "--bind", f"{ip}:8000", "--router", ROUTER, *links)
        peers = [(str(sockets / "router-client"), ROUTER)]
        peers += [(str(sockets / f"{ip}-client"), ip) for ip in SERVERS]
        script = str(Path(__file__).parent / "dpdk_client.py")
        command = [sys.executable, script, CLIENT, json.dumps(peers), f"{ROUTER}:8000", str(CALLS)]
        client = supervisor.start("client", command)
        result = json.loads(client.wait_line(lambda line: line.startswith('{"ip"'), 60, what="the result"))
        assert (result["answered"], result["wrong"]) == (CALLS, 0), client.lines
        if mode == "direct":
            assert set(result["by"]) == {f"{ip}:8000" for ip in SERVERS}, "the servers answered, not the router"
            assert min(result["by"].values()) > CALLS // 10
        else:
            assert result["by"] == {f"{ROUTER}:8000": CALLS}
        router.signal(signal.SIGTERM)
        assert router.wait(10) == 0
        counters = json.loads(router.lines[-1].partition("counted: ")[2].replace("'", '"'))
        assert counters["requests_answered"] >= CALLS
        assert counters["requests_answered"] + counters.get("requests_expired", 0) == counters["requests_sent"]
        if mode == "direct":
            assert counters["feedback"] == counters["requests_answered"]
            assert "packets_passed" not in counters
