"""The tutorial's three machines: network namespaces on a bridge, and a client on a fourth; its commands, literally."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from r2p2.processes import ManagedProcess, Supervisor
from tests.docs.tutorial import blocks, commands_of, files, missing

MACHINES = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")
CLIENT = MACHINES[3]
WAIT_SECONDS = 40

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.needs("linux", "root", "netns")]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Lan:
    """Four namespaces, and a fifth with the bridge that their cables end in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._prefix = f"r2p2t{os.getpid()}"
        self._switch = f"{self._prefix}sw"
        self.supervisor = Supervisor(folder / "logs")
        self._made: list[str] = []

    def build(self) -> None:
        self._add(self._switch)
        ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self._switch, "link", "set", "bridge", "up")
        for number, address in enumerate(MACHINES):
            name = self.name(address)
            self._add(name)
            cable = f"cable{number}"
            ip("-n", self._switch, "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", self._switch, "link", "set", cable, "master", "bridge", "up")
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
            (self.folder / address).mkdir()
            for file, text in files().items():
                (self.folder / address / file).write_text(text)

    def _add(self, name: str) -> None:
        ip("netns", "add", name)
        self._made.append(name)

    def remove(self) -> None:
        self.supervisor.close()
        for name in self._made:
            ip("netns", "delete", name)

    def name(self, address: str) -> str:
        return f"{self._prefix}m{MACHINES.index(address)}"

    def cable(self, address: str, state: str) -> None:
        """Plugs the cable of a machine in ("up") or pulls it ("down")."""
        ip("-n", self._switch, "link", "set", f"cable{MACHINES.index(address)}", state)

    def _argv(self, address: str, command: str) -> list[str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        shell = f"cd {shlex.quote(str(self.folder / address))} && export PATH={shlex.quote(path)} && exec {command}"
        return ["ip", "netns", "exec", self.name(address), "bash", "-c", shell]

    def start(self, name: str, address: str, command: str) -> ManagedProcess:
        return self.supervisor.start(name, self._argv(address, command), {"PYTHONUNBUFFERED": "1"})

    def run(self, address: str, command: str) -> tuple[int, str]:
        done = subprocess.run(
            self._argv(address, command), capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    made = Lan(tmp_path)
    try:
        made.build()
        yield made
    finally:
        made.remove()


def wait_healthy(lan: Lan, status: str) -> str:
    end = time.monotonic() + WAIT_SECONDS
    while True:
        code, text = lan.run(CLIENT, status)
        if code == 0:
            return text
        assert time.monotonic() < end, text


def leader_of(lan: Lan, status: str) -> str:
    _, text = lan.run(CLIENT, f"{status} --json")
    return MACHINES[json.loads(text)["leader"]]


def test_three_machines_and_a_client_on_a_fourth(lan: Lan) -> None:
    members = {}
    for address in MACHINES[:3]:
        (command,) = commands_of(address)
        members[address] = lan.start(f"node-{address}", address, command)
    status, client = commands_of(CLIENT)
    table = wait_healthy(lan, status)

    # The leader's cable is pulled while the client calls; the client goes on, and nothing is counted twice.
    leader = leader_of(lan, status)
    calls = lan.start("client", CLIENT, client)
    calls.wait_line(lambda line: line.startswith("plum 10 "), WAIT_SECONDS)
    lan.cable(leader, "down")
    assert calls.wait(WAIT_SECONDS) == 0
    assert [line.split()[1] for line in calls.lines] == [str(n) for n in range(1, 51)]
    expected = [block.text for block in blocks() if block.kind == "text"][-1]
    assert not missing(expected, "\n".join([table, *calls.lines]))
    assert lan.run(CLIENT, status)[0] == 1, "one member does not answer"
    assert leader_of(lan, status) != leader
    lan.cable(leader, "up")
    wait_healthy(lan, status)

    # Then the leader's process is killed, and started again with the same command.
    leader = leader_of(lan, status)
    again = lan.start("client-again", CLIENT, client)
    again.wait_line(lambda line: line.startswith("plum 60 "), WAIT_SECONDS)
    members[leader].kill()
    assert again.wait(WAIT_SECONDS) == 0
    assert [line.split()[1] for line in again.lines] == [str(n) for n in range(51, 101)]
    back = lan.start("back", leader, commands_of(leader)[0])
    back.wait_line(lambda line: "has been let in: it is a member that votes" in line, WAIT_SECONDS)
    wait_healthy(lan, status)
