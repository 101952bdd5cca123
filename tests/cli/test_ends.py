"""How a command ends when its output has no room, and on a Ctrl-C that comes early."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

R2P2 = [sys.executable, "-m", "r2p2"]


@pytest.mark.parametrize("arguments", [("--help",), ("call", "--help"), ("sim", "--seeds", "0:1", "--events", "50")])
def test_output_without_room_is_1_with_a_line(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*R2P2, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments", ["--version", "call --help", "sim --seeds 0:1 --events 50"])
def test_closed_streams_lead_nowhere(arguments: str, closed: str) -> None:
    """A supervisor may start it so."""
    command = f'"{sys.executable}" -m r2p2 {arguments} {closed}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("encoding", ["ascii", "utf-8:strict"])
@pytest.mark.parametrize("name", ["\xfc.pcap", "\udcff.pcap"])
def test_what_the_terminal_has_no_characters_for_is_escaped(tmp_path: Path, encoding: str, name: str) -> None:
    (tmp_path / "in").write_text('host a 10.0.0.1:1\nhost b 10.0.0.2:2\nraw a > b "x"\n')
    done = subprocess.run(
        [*R2P2, "craft", str(tmp_path / "in"), "-o", str(tmp_path / name)],
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "1"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"") and b".pcap: 1 packets" in done.stdout


def test_a_closed_stream_is_no_socket_of_ours() -> None:
    """A reply must not go where somebody else's output was to go."""
    probe = (
        "import os, socket, sys; from r2p2.__main__ import _fill_in_what_is_closed as fill; fill(); "
        "sys.exit(socket.socket().fileno() < 3 or not os.path.samefile('/dev/fd/1', os.devnull))"
    )
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -c "{probe}" <&- >&- 2>&-'], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0


def test_ctrl_c_while_modules_are_imported(tmp_path: Path) -> None:
    # The folder's module is found first, and is imported by r2p2.cli.
    (tmp_path / "argparse.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(20)\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    # Whoever runs the tests in the background ignores the signal, and so would the child.
    with subprocess.Popen(
        ["env", "--default-signal=INT", *R2P2, "sim"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read() == ""
