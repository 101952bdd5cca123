"""Every golden pair through the whole stack over DPDK's pcap device: the output is the golden one, byte for byte.

The servers' pairs come from the specification (pcaps/pairs.py), the members' from a run over the in-memory network
(pcaps/record.py): the replay must give bytes and times that another program wrote.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from pcaps.pairs import PAIRS as SERVERS
from pcaps.record import PAIRS as MEMBERS
from r2p2.dissect.captures import Record, records
from tests.replay.test_replay_command import replay
from tests.scapy.golden import FOLDER

pytestmark = pytest.mark.needs("dpdk", "scapy")

COMMANDS = {name: list(pair.arguments) for name, pair in SERVERS.items()} | {
    name: pair.replay_arguments() for name, pair in MEMBERS.items()
}


def packets(path: Path) -> list[Record]:
    with path.open("rb") as stream:
        return list(records(stream))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_replay_gives_the_golden_output(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    ended = replay("--rx", str(FOLDER / f"{name}-in.pcap"), "--tx", str(out), *COMMANDS[name])
    assert ended.returncode == 0, ended.stderr
    expected = FOLDER / f"{name}-out.pcap"
    assert [r.data for r in packets(out)] == [r.data for r in packets(expected)]
    assert out.read_bytes() == expected.read_bytes(), "the same frames, at other times"


def test_the_recorded_members_are_what_record_records() -> None:
    command = [sys.executable, str(FOLDER / "record.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (checked.returncode, checked.stderr) == (0, "")


def view(name: str, path: Path, *, without_frame: int | None = None) -> Path:
    """Both directions of a member as one capture of raw IPv4, which is what a node's own capture is."""
    sides = {side: packets(FOLDER / f"{name}-{side}.pcap") for side in ("in", "out")}
    both = [(r.time_ns, side, r.number, r.data) for side, found in sides.items() for r in found]
    both.sort()
    if without_frame is not None:
        del both[without_frame]
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65_535, 101))
        for time_ns, _, _, data in both:
            length = len(data) - 14
            file.write(struct.pack("<IIII", *divmod(time_ns, 1_000_000_000), length, length) + data[14:])
    return path


@pytest.mark.parametrize("name", MEMBERS)
def test_a_members_own_capture_is_checked_against_its_replay(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    capture = view(name, tmp_path / "view.pcap")
    ended = replay("--rx", str(capture), "--tx", str(out), "--check", *MEMBERS[name].replay_arguments())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"the same {len(packets(out))} datagrams as in the capture" in ended.stdout
    assert out.read_bytes() == (FOLDER / f"{name}-out.pcap").read_bytes()


def test_a_member_that_was_told_something_else_differs(tmp_path: Path) -> None:
    """Another incarnation, another cluster, a packet that is not there: each is noticed."""
    capture = view("member-election", tmp_path / "view.pcap")
    arguments = MEMBERS["member-election"].replay_arguments()
    short = view("member-election", tmp_path / "short.pcap", without_frame=6)
    for source, changed in (
        (capture, [*arguments, "--incarnation", "77"]),
        (capture, [*arguments, "--cluster-id", "2"]),
        (short, arguments),
    ):
        ended = replay("--rx", str(source), "--tx", str(tmp_path / "out.pcap"), "--check", *changed)
        assert ended.returncode == 1, ended.stdout
        assert "differs at datagram" in ended.stdout


def test_the_clock_is_the_captures_and_not_the_walls(tmp_path: Path) -> None:
    """Hours of capture, replayed in moments, twice: the same file, with the times of the capture."""
    members = MEMBERS["member-election"].replay_arguments()
    frames = packets(FOLDER / "member-election-in.pcap")
    rx = tmp_path / "in.pcap"
    with rx.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65_535, 1))
        for frame in [*frames, frames[-1]._replace(time_ns=frames[-1].time_ns + 60_000_000_000)]:
            at = divmod(frame.time_ns, 1_000_000_000)
            file.write(struct.pack("<IIII", *at, len(frame.data), len(frame.data)) + frame.data)
    outs = [tmp_path / "one.pcap", tmp_path / "two.pcap"]
    for out in outs:
        ended = replay("--rx", str(rx), "--tx", str(out), *members)
        assert ended.returncode == 0, ended.stderr
    assert outs[0].read_bytes() == outs[1].read_bytes()
    times = [r.time_ns for r in packets(outs[0])]
    assert times == sorted(times)
    assert times[-1] - times[0] > 59_000_000_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--members", "10.0.0.1:1,10.0.0.2:1"], "--bind 10.0.0.1:8000 is not one of --members"),
        (["--members", "10.0.0.1:8000", "--incarnation", "xyz"], "--incarnation"),
        (["--seed", "7"], "--seed without --members"),
        (["--incarnation", "77"], "--incarnation without --members"),
        (["--cluster-id", "1"], "--cluster-id without --members"),
        (["--timers", "default"], "--timers without --members"),
        (["--seed", "-1"], "--seed is -1"),
        (["--start", "soon"], "--start"),
        (["--start", "1700000001"], "after the first packet"),
        (["--mac", "02:00"], "--mac"),
        (["--check"], "holds nothing that the server"),
    ],
)
def test_wrong_arguments_are_said(arguments: list[str], said: str, tmp_path: Path) -> None:
    source = str(FOLDER / "single-in.pcap")
    ended = replay("--rx", source, "--tx", str(tmp_path / "out.pcap"), *arguments)
    assert ended.returncode == 1
    assert "r2p2: error:" in ended.stderr and said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_files_that_are_no_captures_are_said(tmp_path: Path) -> None:
    torn, other, loopback = tmp_path / "torn.pcap", tmp_path / "other.pcap", tmp_path / "loopback.pcap"
    torn.write_bytes((FOLDER / "single-in.pcap").read_bytes()[:-5])
    other.write_bytes(b"not a capture at all")
    head = (FOLDER / "single-in.pcap").read_bytes()
    loopback.write_bytes(head[:20] + struct.pack("<I", 0) + head[24:])
    for path, said in ((torn, "truncated"), (other, "neither pcap nor pcapng"), (loopback, "link type 0")):
        ended = replay("--rx", str(path), "--tx", str(tmp_path / "out.pcap"))
        assert ended.returncode == 1
        assert said in ended.stderr and "Traceback" not in ended.stderr
