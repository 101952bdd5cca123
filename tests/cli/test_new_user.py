"""What a new user meets in the first ten minutes: the README's commands, and the usual ways they go wrong.

Each ends in one clear message and the right exit code, never in a traceback.
"""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import r2p2 as r2p2_library
from r2p2.processes import ManagedProcess, Supervisor
from tests.cli.test_cli import R2P2, r2p2
from tests.gateway.support import free_udp_ports

# Says that it was asked, and never answers.
SILENT = """
import time

def silent(request: bytes) -> bytes:
    print("asked", flush=True)
    time.sleep(60)
    return request
"""


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    (tmp_path / "silent_app.py").write_text(SILENT)
    with Supervisor(tmp_path / "logs") as made:
        yield made


def serve(supervisor: Supervisor, name: str, *arguments: str, folder: Path | None = None) -> tuple[ManagedProcess, str]:
    """A server and its address."""
    env = {"PYTHONPATH": str(folder)} if folder else None
    server = supervisor.start(name, [*R2P2, "serve", "--bind", "127.0.0.1:0", *arguments], env)
    line = server.wait_line(lambda text: text.startswith("r2p2: serving"), 20, what="the ready line")
    found = re.search(r"127\.0\.0\.1:\d+", line)
    assert found
    return server, found[0]


def assert_says(done: subprocess.CompletedProcess[str], *texts: str) -> None:
    assert done.returncode == 1
    assert done.stderr.startswith("r2p2: error: ")
    assert "Traceback" not in done.stderr
    for text in texts:
        assert text in done.stderr


def test_the_readmes_calls(supervisor: Supervisor) -> None:
    _, echo = serve(supervisor, "echo", "--app", "echo")
    assert r2p2("call", echo, "hello").stdout == "hello\n"
    assert r2p2("call", echo, "--timeout", "2", "hello").stdout == "hello\n", "options may stand before the payload"
    assert r2p2("call", "--policy", "lb", echo, "hello").stdout == "hello\n"
    _, store = serve(supervisor, "store", "--app", "kv")
    assert r2p2("call", store, "--resp", "SET", "name", "R2P2").stdout == "+OK\n"
    assert r2p2("call", store, "--resp", "GET", "name").stdout == "$4\nR2P2\n"
    assert '"replicated": false' in r2p2("call", store, "--status").stdout
    assert_says(r2p2("call", echo, "--policy", "replicated", "hello"), "refused")


def test_a_member_says_whom_it_waits_for(supervisor: Supervisor) -> None:
    """The first of three is silent otherwise, and one alone has nobody to wait for."""
    ports = free_udp_ports(3)
    members = [f"127.0.0.1:{port}" for port in ports]
    command = [*R2P2, "serve", "--app", "kv", "--bind", members[1]]
    first = supervisor.start("first", [*command, "--members", ",".join(members)])
    told = first.wait_line(lambda text: text.startswith("r2p2: waits for "), 20, what="whom it waits for")
    assert told == f"r2p2: waits for {members[0]}, {members[2]}: a cluster forms once all its members have been there"
    first.signal(signal.SIGTERM)
    assert first.wait(10) == 0
    alone = supervisor.start("alone", [*command, "--members", members[1]])
    alone.wait_line(lambda text: "leader of term" in text, 20, what="its leadership")
    assert not any("waits for" in line for line in alone.lines)


def test_many_thousands_of_calls_at_once_are_answered(supervisor: Supervisor) -> None:
    """More answers than a socket holds come while calls are still begun, in one turn of the loop."""
    _, address = serve(supervisor, "echo", "--app", "echo")
    payloads = [b"%d" % number for number in range(70_000)]

    async def main() -> None:
        async with r2p2_library.Client(address, timeout_s=20.0, ports_count=2) as client:
            answers = await client.call_many(payloads, policy=r2p2_library.FIXED_ROUTE)
            # On a machine with much else to do the server's socket may overflow: nobody reads that in this turn.
            assert sum(answer == payload for answer, payload in zip(answers, payloads, strict=True)) > 65_535

    asyncio.run(main())


def test_a_wrong_port_a_taken_one_and_an_address_of_nobody(supervisor: Supervisor) -> None:
    server, address = serve(supervisor, "server", "--app", "echo")
    assert_says(r2p2("serve", "--bind", address), address, "Address already in use", "choose another")
    server.signal(signal.SIGTERM)
    assert server.wait(10) == 0
    assert_says(r2p2("call", address, "hello", "--timeout", "0.3"), f"no answer from {address}", "is a server running")
    assert_says(r2p2("serve", "--bind", "192.0.2.1:0"), "192.0.2.1", "no interface of this machine")
    assert_says(r2p2("call", "localhost:8000", "x"), "'localhost' is not an IPv4 address", "10.0.0.1")
    assert_says(r2p2("call", "127.0.0.1", "x"), "'127.0.0.1' has no port")
    assert_says(r2p2("call", address), "exactly one request")


def test_a_server_killed_mid_request_and_started_again(supervisor: Supervisor, tmp_path: Path) -> None:
    server, address = serve(supervisor, "first", "--app", "silent_app:silent", folder=tmp_path)
    caller = supervisor.start("caller", [*R2P2, "call", address, "hello", "--timeout", "2"])
    server.wait_line(lambda text: text == "asked", 20, what="the request")
    server.signal(signal.SIGKILL)
    assert caller.wait(20) == 1
    assert any(f"no answer from {address}" in line for line in caller.lines)
    assert not any("Traceback" in line for line in caller.lines)
    again = supervisor.start("again", [*R2P2, "serve", "--app", "echo", "--bind", address])
    again.wait_line(lambda text: text.startswith("r2p2: serving"), 20, what="the ready line")
    assert r2p2("call", address, "back").stdout == "back\n"


def test_ctrl_c_ends_a_waiting_call_at_once(supervisor: Supervisor, tmp_path: Path) -> None:
    server, address = serve(supervisor, "server", "--app", "silent_app:silent", folder=tmp_path)
    command = [*R2P2, "call", address, "hello", "--timeout", "50"]
    caller = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell has its background jobs ignore it, and whatever they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        server.wait_line(lambda text: text == "asked", 20, what="the request")
        caller.send_signal(signal.SIGINT)
        out, errors = caller.communicate(timeout=20)
    finally:
        caller.kill()
        caller.wait()
    assert (caller.returncode, out, errors) == (130, "", "")


def test_a_capture_says_at_its_end_what_it_holds(supervisor: Supervisor, tmp_path: Path) -> None:
    capture = tmp_path / "server.pcap"
    server, address = serve(supervisor, "server", "--app", "echo", "--pcap", str(capture), "--pcap-rate", "2")
    for number in range(4):
        assert r2p2("call", address, str(number)).returncode == 0
    server.signal(signal.SIGINT)
    assert server.wait(10) == 0
    (line,) = (line for line in server.lines if "--pcap" in line)
    found = re.fullmatch(
        r"r2p2: --pcap (\S+): (\d+) datagrams(?:, (\d+) left out by the sample \(--pcap-rate\))?", line
    )
    assert found, line
    assert found[1] == str(capture)
    assert int(found[2]) + int(found[3] or 0) == 8
    listed = subprocess.run(
        [sys.executable, "-m", "r2p2", "dissect", str(capture)], capture_output=True, text=True, check=True
    )
    assert len(listed.stdout.splitlines()) >= int(found[2])
