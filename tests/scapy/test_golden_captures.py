"""The golden captures: reproducible, and right by a second look that does not use what made them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from scapy_layers import R2P2, RaftMessage, Reassembler, body
from tests.scapy.golden import FOLDER, difference, frames, kind

MAKE = FOLDER / "make.py"


def test_they_are_what_make_makes() -> None:
    checked = subprocess.run(
        [sys.executable, str(MAKE), "--check"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_every_answer_has_the_header_our_stack_sends() -> None:
    answers = [Ether(frame) for frame in frames(FOLDER / "echo-out.pcap")]
    assert len(answers) == 22
    for frame, packet in zip(frames(FOLDER / "echo-out.pcap"), answers, strict=True):
        assert (packet.src, packet.dst) == ("02:00:0a:00:00:01", "02:00:0a:00:00:02")
        if ARP in packet:
            assert len(frame) == 42
            continue
        ip = packet[IP]
        assert (ip.src, ip.dst) == ("10.0.0.1", "10.0.0.2")
        assert (ip.version, ip.ihl, ip.tos, ip.id, str(ip.flags), ip.frag, ip.ttl) == (4, 5, 0, 0, "DF", 0, 64)
        assert len(frame) == 14 + ip.len, "no padding"
        rebuilt = ip.copy()
        del rebuilt.chksum
        if UDP in rebuilt:
            assert packet[UDP].chksum != 0
            del rebuilt[UDP].chksum
            assert packet[R2P2].problem() is None
        assert bytes(rebuilt) == frame[14:], "checksums"


def test_every_request_is_answered_and_nothing_else() -> None:
    """Echo by hand: what the well-formed part of echo-in asks is what echo-out says, for the R2P2 part."""
    asked, answered = Reassembler(), Reassembler()
    wanted, found = [], []
    for frame in frames(FOLDER / "echo-in.pcap"):
        packet = Ether(frame)
        if R2P2 not in packet or IP not in packet or packet[IP].dst != "10.0.0.1" or packet[UDP].dport != 8000:
            continue
        if packet[R2P2].problem() or packet[R2P2].type != 0 or packet[R2P2].rid == 200:
            continue
        whole = asked.add(packet)
        if whole is None:
            continue
        header = whole[R2P2]
        answer = b"DROP" if header.policy > 1 else body(header)
        wanted.append((whole[UDP].sport, header.rid, answer))
    for frame in frames(FOLDER / "echo-out.pcap"):
        packet = Ether(frame)
        if R2P2 in packet and packet[R2P2].type != 3 and (whole := answered.add(packet)) is not None:
            found.append((whole[UDP].dport, whole[R2P2].rid, bytes(whole[R2P2].payload)))
    assert found == wanted
    assert len(wanted) == 12


def test_the_malformed_part_covers_every_reason() -> None:
    reasons = {Ether(frame)[R2P2].problem() for frame in frames(FOLDER / "echo-in.pcap") if R2P2 in Ether(frame)}
    assert {"magic", "size", "type", "policy", "flags", "order"} <= reasons


@pytest.mark.parametrize("name", ["election.pcap", "replication.pcap", "forward.pcap"])
def test_the_cluster_captures_hold_valid_raft_messages(name: str) -> None:
    reassembler = Reassembler()
    problems = []
    for frame in frames(FOLDER / name):
        whole = reassembler.add(Ether(frame))
        if whole is not None and RaftMessage in whole:
            problems.append(whole[RaftMessage].problem())
    assert len(problems) > 5
    assert set(problems) == {None}


def test_difference_tells_what_differs() -> None:
    golden = frames(FOLDER / "echo-out.pcap")
    assert difference(golden, golden) is None
    responses = [frame for frame in golden if kind(frame) == "RESPONSE"]
    others = [frame for frame in golden if kind(frame) != "RESPONSE"]
    assert difference(golden, others + responses) is None
    assert "RESPONSE 1" in (difference(golden, others + responses[::-1]) or "")
    assert "found    nothing" in (difference(golden, golden[:-1]) or "")
    assert "expected nothing" in (difference(golden, [*golden, golden[-1]]) or "")
    flipped = golden[0][:-1] + bytes((golden[0][-1] ^ 1,))
    assert "ARP 1" in (difference(golden, [flipped, *golden[1:]]) or "")
    assert kind(bytes(Ether() / IP() / ICMP())) == "ICMP"
    assert kind(bytes(Ether() / IP() / UDP(dport=1) / Raw(b"x"))) == "other"


def test_check_notices_a_changed_file(tmp_path: Path) -> None:
    folder = tmp_path / "pcaps"
    folder.mkdir()
    (tmp_path / "scapy_layers").symlink_to(FOLDER.parent / "scapy_layers")
    for path in (*FOLDER.glob("*.py"), *FOLDER.glob("*.pcap")):
        content = bytearray(path.read_bytes())
        if path.name in ("election.pcap", "hostile-in.pcap"):
            content[-1] ^= 1
        (folder / path.name).write_bytes(content)
    checked = subprocess.run(
        [sys.executable, str(folder / "make.py"), "--check"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (checked.returncode, checked.stderr) == (
        1,
        "election.pcap differs from what pcaps/make.py makes\nhostile-in.pcap differs from what pcaps/make.py makes\n",
    )
