"""Replay: a golden capture through the whole stack on DPDK's pcap device, compared frame by frame."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.scapy.golden import FOLDER, difference, frames

pytestmark = pytest.mark.needs("dpdk")


def replay(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "r2p2", "replay", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_golden_pair(tmp_path: Path) -> None:
    out = tmp_path / "out, with a comma.pcap"
    ended = replay("--rx", str(FOLDER / "echo-in.pcap"), "--tx", str(out), "--app", "echo")
    assert ended.returncode == 0, ended.stderr
    assert frames(out) == frames(FOLDER / "echo-out.pcap"), difference(frames(out), frames(FOLDER / "echo-out.pcap"))
    for reason in (
        "rx_bad_magic",
        "rx_bad_order",
        "rx_drop_bad_ip",
        "rx_drop_bad_checksum",
        "rx_drop_foreign_address",
        "rx_drop_no_listener",
        "rx_drop_fragment",
    ):
        assert f"{reason} " in ended.stdout, "every drop has its reason"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rx", "/nowhere.pcap", "--tx", "/tmp/x.pcap"], "there is no such file"),
        (["--rx", str(FOLDER / "echo-in.pcap"), "--tx", "/nowhere/x.pcap"], "does not exist"),
        (["--rx", str(FOLDER / "echo-in.pcap"), "--tx", "/tmp/x.pcap", "--app", "nonsense"], "--app"),
        (["--rx", str(FOLDER / "echo-in.pcap"), "--tx", "/tmp/x.pcap", "--bind", "x"], "x"),
    ],
)
def test_errors_say_what_is_wrong(arguments: list[str], said: str) -> None:
    ended = replay(*arguments)
    assert ended.returncode == 1
    assert "r2p2: error:" in ended.stderr and said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_capture_is_not_written_over(tmp_path: Path) -> None:
    capture, link = tmp_path / "in.pcap", tmp_path / "link.pcap"
    content = (FOLDER / "echo-in.pcap").read_bytes()
    capture.write_bytes(content)
    link.symlink_to(capture)
    for target in (capture, link):
        ended = replay("--rx", str(capture), "--tx", str(target), "--app", "echo")
        assert ended.returncode == 1
        assert "is the capture of --rx, which would be lost" in ended.stderr
    assert capture.read_bytes() == content
