"""Captures through the stack on the pcap device: what is answered, what is dropped and why, and no buffer lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP, IPOption
from scapy.layers.l2 import ARP, Ether
from scapy.utils import PcapReader, PcapWriter

from tests.dpdk.frames import HOSTILE, OUR_IP, OUR_MAC, PEER_IP, PEER_MAC, arp, echo, is_sound, udp
from tests.dpdk.launch import Children

pytestmark = pytest.mark.needs("dpdk", "scapy")


def write(path: Path, frames: list[Any]) -> str:
    """A capture of frames as they are."""
    with PcapWriter(str(path), linktype=1) as writer:
        writer.write_header(None)
        for frame in frames:
            writer.write_packet(bytes(frame), sec=0, usec=0)
    return str(path)


def read(path: Path) -> list[bytes]:
    """The frames of a capture."""
    with PcapReader(str(path)) as reader:
        return [bytes(frame) for frame in reader]


def replay(
    children: Children, folder: Path, *captures: list[Any], **arguments: Any
) -> list[tuple[dict[str, Any], list[bytes]]]:
    """Result and answer of each capture, all in one process."""
    paths = [(write(folder / f"{i}.pcap", frames), folder / f"{i}.out.pcap") for i, frames in enumerate(captures)]
    results = children.run("replay", paths=[[rx, str(tx)] for rx, tx in paths], **arguments)["results"]
    for result in results:
        assert (result["at_start"], result["in_use"], result["leaked"]) == (0, 0, 0), result
    return [(result, read(tx)) for result, (_, tx) in zip(results, paths, strict=True)]


def test_datagrams_come_back_with_sound_headers(children: Children, tmp_path: Path) -> None:
    payloads = [bytes((i + k) % 256 for k in range(i)) for i in [*range(1, 200), 1000, 1471, 1472]]
    ((result, out),) = replay(children, tmp_path, [udp(payload) for payload in payloads])
    assert result["echoed"] == len(payloads)
    assert all(is_sound(frame) for frame in out)
    frames = [Ether(frame) for frame in out]
    assert [bytes(f[UDP].payload) for f in frames] == payloads
    assert {(f.src, f.dst, f[IP].src, f[IP].dst) for f in frames} == {(OUR_MAC, PEER_MAC, OUR_IP, PEER_IP)}
    assert {(f[UDP].sport, f[UDP].dport, f[IP].ttl) for f in frames} == {(9000, 1234, 64)}
    size = sum(map(len, payloads))
    count = len(payloads)
    assert result["counters"] == {"rx_packets": count, "rx_bytes": size, "tx_packets": count, "tx_bytes": size}
    assert result["stats"]["rx_packets"] == count
    assert result["xstats"]["tx_good_packets"] == count


def test_what_else_is_valid_is_taken(children: Children, tmp_path: Path) -> None:
    padded = bytes(udp(b"padded")) + bytes(12)
    no_checksum = udp(b"none")
    no_checksum[UDP].chksum = 0
    options = udp(b"options", options=[IPOption(b"\x01")] * 8)
    broadcast = udp(b"broadcast frame")
    broadcast.dst = "ff:ff:ff:ff:ff:ff"
    ttl = udp(b"last hop", ttl=1)
    frames = [padded, no_checksum, options, broadcast, ttl]
    ((result, out),) = replay(children, tmp_path, frames)
    assert [bytes(Ether(f)[UDP].payload) for f in out] == [
        b"padded",
        b"none",
        b"options",
        b"broadcast frame",
        b"last hop",
    ]
    assert result["counters"]["rx_packets"] == 5


def test_a_checksum_of_zero_is_sent_as_ones(children: Children, tmp_path: Path) -> None:
    """A sum that comes out as 0 must not be written as "no checksum"."""
    plain = bytes(IP(src=OUR_IP, dst=PEER_IP) / UDP(sport=9000, dport=1234) / bytes(2))
    # The sum is linear: a payload equal to the checksum of zeros brings it to all ones, the checksum to 0.
    value = int.from_bytes(plain[26:28], "big")
    judge = bytes(IP(src=OUR_IP, dst=PEER_IP) / UDP(sport=9000, dport=1234) / value.to_bytes(2, "big"))
    assert judge[26:28] == b"\xff\xff"
    ((_, out),) = replay(children, tmp_path, [udp(value.to_bytes(2, "big"))])
    assert out[0][40:42] == b"\xff\xff"


def test_hostile_frames_are_dropped_by_reason(children: Children, tmp_path: Path) -> None:
    cases = list(HOSTILE.items())
    results = replay(children, tmp_path, *[[frame, udp(b"sentinel")] for _, (frame, _) in cases])
    wrong = {}
    for (name, (_, counter)), (result, out) in zip(cases, results, strict=True):
        drops = {k: v for k, v in result["counters"].items() if k not in ("rx_bytes", "tx_bytes")}
        if drops != {counter: 1, "rx_packets": 1, "tx_packets": 1} or len(out) != 1:
            wrong[name] = (counter, drops, len(out))
    assert not wrong


def test_no_datagram_with_one_bit_flipped_is_taken(children: Children, tmp_path: Path) -> None:
    """Any bit behind the Ethernet addresses; where one of the sender's MAC is another, the datagram is as it was."""
    whole = bytes(udp(bytes(range(40, 80))))
    frames = []
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        frames.append(bytes(damaged))
    of_sender, others = frames[6 * 8 : 12 * 8], frames[: 6 * 8] + frames[12 * 8 :]
    # Few enough a capture that the child does not take a burst without an echo for the end.
    parts = [others[i : i + 100] for i in range(0, len(others), 100)]
    harmless, *results = replay(children, tmp_path, [*of_sender, whole], *([*part, whole] for part in parts))
    for part, (result, out) in zip(parts, results, strict=True):
        assert len(out) == result["counters"]["rx_packets"] == 1
        drops = sum(count for name, count in result["counters"].items() if name.startswith("rx_drop_"))
        assert drops == len(part)
    assert harmless[0]["counters"]["rx_packets"] == 6 * 8 + 1


def test_arp_is_answered_and_learned(children: Children, tmp_path: Path) -> None:
    probe = arp(psrc="0.0.0.0")
    answer = arp(op=2, psrc="10.0.0.8", hwsrc="02:00:0a:00:00:08")
    answer.src = "02:00:0a:00:00:08"
    ((result, out),) = replay(children, tmp_path, [arp(), probe, answer])
    first, second = (Ether(frame) for frame in out)
    assert (first.dst, first.src, first.type, len(out[0])) == (PEER_MAC, OUR_MAC, 0x0806, 42)
    a = first[ARP]
    assert (a.op, a.hwsrc, a.psrc, a.hwdst, a.pdst) == (2, OUR_MAC, OUR_IP, PEER_MAC, PEER_IP)
    assert second[ARP].pdst == "0.0.0.0"
    assert result["counters"] == {"arp_requests": 2, "arp_replies": 1}
    assert result["known"] == {PEER_IP: PEER_MAC, "10.0.0.8": "02:00:0a:00:00:08"}


def test_a_static_neighbour_is_not_learned_over(children: Children, tmp_path: Path) -> None:
    liar = arp(hwsrc="02:00:00:00:00:66")
    liar.src = "02:00:00:00:00:66"
    spoofed = udp(b"spoofed")
    spoofed.src = "02:00:00:00:00:66"
    ((result, out),) = replay(children, tmp_path, [liar, spoofed], neighbours={PEER_IP: PEER_MAC})
    assert result["known"][PEER_IP] == PEER_MAC
    assert Ether(out[1]).dst == PEER_MAC


def test_ping_is_answered(children: Children, tmp_path: Path) -> None:
    payloads = [b"", b"x", b"odd", bytes(range(256)), bytes(1472)]
    ((result, out),) = replay(children, tmp_path, [echo(payload) for payload in payloads])
    assert all(is_sound(frame) for frame in out)
    for frame, payload in zip(map(Ether, out), payloads, strict=True):
        icmp = frame[ICMP]
        assert (frame.dst, frame.src, frame[IP].src, frame[IP].dst) == (PEER_MAC, OUR_MAC, OUR_IP, PEER_IP)
        assert (icmp.type, icmp.code, icmp.id, icmp.seq, bytes(icmp.payload)) == (0, 0, 7, 3, payload)
    assert result["counters"] == {"icmp_echoes": len(payloads)}


def from_source(ip: str) -> Any:
    frame = Ether(bytes(udp(b"x")))
    frame[IP].src = ip
    del frame[IP].chksum, frame[UDP].chksum
    return frame


def test_who_gives_way_to_a_stranger_is_not_for_him_to_choose(children: Children, tmp_path: Path) -> None:
    """Addresses with the last 24 bits in common met in every table, as long as all hashed alike."""
    frames = [udp(b"x"), *(from_source(f"{i}.0.0.9") for i in range(11, 19))]
    ((result, _),) = replay(children, tmp_path, frames)
    assert result["known"][PEER_IP] == PEER_MAC


def test_a_member_does_not_give_way_to_strangers_and_chance_has_a_seed(children: Children, tmp_path: Path) -> None:
    crowd = [udp(b"x"), *(from_source(f"10.2.{i // 256}.{i % 256}") for i in range(5000))]
    path = write(tmp_path / "crowd.pcap", crowd)
    stayed = []
    for keep, seed in ((True, None), (False, None), (False, 7), (False, 7)):
        result = children.run("crowded", rx_path=path, peer=PEER_IP, keep=keep, seed=seed)
        assert result["known"] == (PEER_MAC if keep else None)
        assert (result["in_use"], result["leaked"]) == (0, 0)
        stayed.append(result["learned"])
    assert stayed[2] == stayed[3] != stayed[1]


def test_a_flood_of_sources_costs_bounded_memory_and_no_static_neighbour(children: Children, tmp_path: Path) -> None:
    sources = 3000
    frames = []
    template = bytes(udp(b"x"))
    for i in range(sources):
        frame = Ether(template)
        frame[IP].src = f"10.2.{i // 256}.{i % 256}"
        del frame[IP].chksum, frame[UDP].chksum
        frames.append(frame)
    result = children.run("flood", rx_path=write(tmp_path / "flood.pcap", frames), sources=sources)
    assert result["received"] == sources
    assert result["kept"] == 1000
    assert 512 < result["learned"] <= 1024
    assert result["grown_kb"] < 4096
    assert (result["in_use"], result["leaked"]) == (0, 0)
