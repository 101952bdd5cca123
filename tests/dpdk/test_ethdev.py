"""The bindings: frames as bursts, and the forwarding command line over them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether

from dpdk_backend.forward import txonly_frame
from tests.dpdk.frames import OUR_IP, OUR_MAC, PEER_MAC, arp, echo, is_sound, udp
from tests.dpdk.launch import Children
from tests.dpdk.test_replay import read, write

pytestmark = pytest.mark.needs("dpdk", "scapy")

ROOT = Path(__file__).resolve().parents[2]


def command_line(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``python -m dpdk_backend``."""
    command = [sys.executable, "-m", "dpdk_backend", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def forwarded(folder: Path, mode: str, frames: list[object]) -> tuple[list[bytes], str]:
    """What a mode makes of a capture, and what it prints."""
    rx = write(folder / "in.pcap", frames)
    run = command_line("--vdev", f"net_pcap0,rx_pcap={rx},tx_pcap={folder / 'out.pcap'}", "--forward", mode)
    assert run.returncode == 0, run.stderr
    return read(folder / "out.pcap"), run.stdout


FRAMES = [bytes(udp(bytes([i]) * i)) for i in range(1, 200)]


def test_io_moves_frames_unchanged(tmp_path: Path) -> None:
    out, printed = forwarded(tmp_path, "io", [*FRAMES])
    assert out == FRAMES
    assert "io: 199 frames moved" in printed
    assert "net_pcap0: tx_good_packets 199" in printed


def test_macswap_swaps_macs_and_nothing_else(tmp_path: Path) -> None:
    out, _ = forwarded(tmp_path, "macswap", [*FRAMES])
    assert out == [frame[6:12] + frame[:6] + frame[12:] for frame in FRAMES]


def test_rxonly_sends_nothing(tmp_path: Path) -> None:
    out, printed = forwarded(tmp_path, "rxonly", [*FRAMES])
    assert out == []
    assert "rxonly: 199 frames moved" in printed


def test_icmpecho_answers_arp_and_ping_for_any_address_and_drops_the_rest(tmp_path: Path) -> None:
    multicast = bytearray(bytes(echo()))
    multicast[0] = 1
    frames = [arp(pdst="10.9.9.9"), echo(b"data"), udp(), bytes(10), bytes(multicast), echo(type=0)]
    out, _ = forwarded(tmp_path, "icmpecho", frames)
    first, second = map(Ether, out)
    assert (first[ARP].op, first[ARP].psrc, first.dst) == (2, "10.9.9.9", PEER_MAC)
    assert (second[ICMP].type, bytes(second[ICMP].payload), second[IP].src) == (0, b"data", OUR_IP)
    assert (second.src, second.dst) == (OUR_MAC, PEER_MAC)
    assert is_sound(out[1])


def test_txonly_sends_sound_frames_and_prints_in_between() -> None:
    run = command_line(
        "--vdev", "net_null0,no-rx=1", "--forward", "txonly", "--duration", "0.6", "--stats-period", "0.2"
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("net_null0            rx") >= 3
    moved = int(run.stdout.split("txonly: ")[1].split(" frames")[0].replace(",", ""))
    assert moved > 10_000
    assert f"net_null0: tx_good_packets {moved}" in run.stdout
    for size in (60, 64, 1514):
        frame = Ether(txonly_frame(size))
        sum_written = frame[IP].chksum
        del frame[IP].chksum
        assert Ether(bytes(frame))[IP].chksum == sum_written
        assert len(txonly_frame(size)) == size == frame[IP].len + 14
    with pytest.raises(ValueError, match="1515"):
        txonly_frame(1515)


def test_the_command_line_says_what_is_wrong() -> None:
    run = command_line()
    assert run.returncode == 1
    assert "--vdev" in run.stderr
    run = command_line("--vdev", "net_nosuch0")
    assert run.returncode == 1
    assert "net_nosuch0" in run.stderr
    assert "Traceback" not in run.stderr


def test_frames_go_in_and_come_out_byte_for_byte(children: Children) -> None:
    result = children.run("ring_frames")
    assert result["wrong"] == []
    assert result["short_of_buffers"] < 64
    assert result["after"] == 64
    assert result["leaked"] == 0
    assert result["kept"] == 3
