"""The systemd unit: what systemd itself says of it, and what a node tells the manager that started it."""

from __future__ import annotations

import configparser
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from r2p2.errors import UserError
from r2p2.node.forming import RemovedError
from r2p2.processes import Supervisor
from r2p2.service_manager import STATUS_CHARACTERS_MAX, ServiceManager

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "systemd" / "r2p2@.service"
WAIT_SECONDS = 30

pytestmark = pytest.mark.needs("linux")


def settings() -> dict[str, str]:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(UNIT)
    return dict(parser["Service"])


@pytest.mark.needs("systemd")
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    # A path that is there, in place of the one on a real machine.
    unit = tmp_path / "r2p2@0.service"
    unit.write_text(UNIT.read_text().replace("/opt/r2p2/bin/r2p2", shutil.which("true") or "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("[Service]", "[Service]\nRestartPreventExit=3"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert "RestartPreventExit" in done.stderr, "it would say so"


@pytest.mark.needs("systemd")
def test_the_unit_is_confined(tmp_path: Path) -> None:
    unit = tmp_path / "r2p2@0.service"
    unit.write_text(UNIT.read_text())
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_the_unit_starts_what_there_is(tmp_path: Path) -> None:
    unit = settings()
    command = unit["ExecStart"].split()
    assert command[:2] == ["/opt/r2p2/bin/r2p2", "serve"] and command[command.index("--node") + 1] == "%i"
    # The command line is right: the file that is not there is the first thing wrong with it.
    done = subprocess.run(
        [sys.executable, "-m", "r2p2", *(word.replace("%i", "0") for word in command[1:])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "/etc/r2p2/cluster.toml: No such file" in done.stderr
    assert unit["Type"] == "notify"
    assert int(unit["RestartPreventExitStatus"]) == RemovedError.exit_code != UserError.exit_code


def test_a_node_says_when_it_is_ready_and_when_it_stops(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, Supervisor(tmp_path / "logs") as supervisor:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(WAIT_SECONDS)
        serve = [sys.executable, "-m", "r2p2", "serve", "--bind", "127.0.0.1:0"]
        process = supervisor.start("node", serve, {"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert manager.recv(1000).startswith(b"STATUS=serving echo on 127.0.0.1:")
        assert manager.recv(1000) == b"READY=1"
        process.signal(signal.SIGTERM)
        assert manager.recv(1000) == b"STOPPING=1"
        assert manager.recv(1000) == b"STATUS=stopped; dropped: nothing"
        assert process.wait(WAIT_SECONDS) == 0


def test_abstract_sockets_long_lines_and_a_manager_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"r2p2-test-{os.getpid()}"
        manager.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        tell = ServiceManager().telling(told.append)
        assert "NOTIFY_SOCKET" not in os.environ
        tell("x" * 1000 + "\nmore")
        assert manager.recv(2000) == b"STATUS=" + b"x" * STATUS_CHARACTERS_MAX
        no_text = os.fsdecode(b"in \xff")  # a path
        tell(no_text)
        assert manager.recv(2000) == rb"STATUS=in \udcff"
    tell("nobody listens")
    assert told == ["x" * 1000 + "\nmore", no_text, "nobody listens"]
    assert "cannot tell the service manager" in caplog.text
    quiet = ServiceManager()
    assert quiet.telling(told.append) == told.append
    quiet.ready()
