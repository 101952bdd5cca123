"""``r2p2 dissect --live`` in a network namespace of its own: a real socket sends, the command prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from r2p2.cli import main
from scapy_layers import R2P2

ROOT = Path(__file__).resolve().parent.parent.parent
# Inside the namespace: the interface up, the command started, datagrams once it reads, Ctrl-C once it printed enough.
INSIDE = """
import signal, socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
command = [sys.executable, "-m", "r2p2", "dissect", "--live", "lo", *sys.argv[1:]]
child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
try:
    ready = child.stderr.readline()
    assert "reading lo" in ready, ready + child.stderr.read()
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 8000))
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.bind(("127.0.0.1", 30000))
    client.sendto(bytes.fromhex("REQUEST"), ("127.0.0.1", 8000))
    server.sendto(bytes.fromhex("RESPONSE"), ("127.0.0.1", 30000))
    for _ in range(LINES):
        print(child.stdout.readline(), end="", flush=True)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    print(out, end="")
    print(err, end="", file=sys.stderr)
    sys.exit(child.returncode)
finally:
    child.kill()
    child.wait()
"""


def live(*options: str, lines: int = 1) -> subprocess.CompletedProcess[str]:
    """The command's output in a fresh namespace where one request is asked and answered."""
    request, response = (bytes(R2P2(type=kind, rid=7) / b"hi").hex() for kind in ("REQUEST", "RESPONSE"))
    program = INSIDE.replace("REQUEST", request).replace("RESPONSE", response).replace("LINES", str(lines))
    command = ["unshare", "-n", sys.executable, "-c", program, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.needs("linux", "root", "netns")
def test_live_prints_messages_once_and_ends_with_ctrl_c() -> None:
    done = live(lines=2)
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=1)[1].split() for line in done.stdout.splitlines()]
    assert [line[:6] for line in lines] == [
        ["127.0.0.1:30000", ">", "127.0.0.1:8000", "REQUEST", "rid", "7"],
        ["127.0.0.1:8000", ">", "127.0.0.1:30000", "RESPONSE", "rid", "7"],
    ]
    assert "checksum" not in done.stdout
    assert done.stderr == "r2p2: 2 packets, 2 messages\n"


@pytest.mark.needs("linux", "root", "netns")
def test_live_pairs_have_the_kernels_times() -> None:
    done = live("--pairs")
    assert done.returncode == 0, done.stderr
    assert "=> RESPONSE after " in done.stdout
    assert "requests: 1 answered; latency p50 " in done.stdout


@pytest.mark.needs("linux", "root")
def test_live_names_the_interfaces_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dissect", "--live", "none7"]) == 1
    error = capsys.readouterr().err
    assert "--live none7: No such device" in error and "lo" in error


@pytest.mark.needs("linux", "root")
def test_live_says_that_it_needs_root() -> None:
    program = "import os,sys\nfrom r2p2.dissect.live import Live\nfrom r2p2.errors import UserError\n"
    program += "os.setuid(65534)\ntry:\n    Live('lo')\nexcept UserError as error:\n    print(error)\n"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("--live lo: packet sockets are for root (Run it as root, or: sudo tcpdump")


@pytest.mark.parametrize("options", [[], ["a.pcap", "--live", "lo"]])
def test_either_a_file_or_an_interface(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dissect", *options]) == 1
    assert "either FILE or --live IFACE" in capsys.readouterr().err
