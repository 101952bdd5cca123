"""Compares captured answers with golden ones, frame by frame.

Times never matter. Order matters within a kind (ARP, ICMP, and each R2P2 type) but not across kinds: an ACK may
overtake a RESPONSE that waits for its batch. Everything is told by bytes, with the dissection of the first frame that
differs.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import zip_longest
from pathlib import Path

from scapy.layers.inet import ICMP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet
from scapy.utils import RawPcapReader

from scapy_layers import R2P2

FOLDER = Path(__file__).resolve().parent.parent.parent / "pcaps"


def frames(path: Path) -> list[bytes]:
    """The frames of a pcap file in order."""
    with RawPcapReader(str(path)) as reader:
        return [data for data, _ in reader]


def kind(frame: bytes) -> str:
    """What order is kept in: ARP, ICMP, an R2P2 type, or other."""
    packet: Packet = Ether(frame)
    if ARP in packet:
        return "ARP"
    if ICMP in packet:
        return "ICMP"
    return str(packet[R2P2].sprintf("%R2P2.type%")) if R2P2 in packet else "other"


def difference(expected: list[bytes], found: list[bytes]) -> str | None:
    """None when both hold the same frames, each kind in the same order.

    Else a text: the first difference of each kind.
    """
    split: dict[str, tuple[list[bytes], list[bytes]]] = defaultdict(lambda: ([], []))
    for side, some in enumerate((expected, found)):
        for frame in some:
            split[kind(frame)][side].append(frame)
    told = []
    for name, (wanted, got) in split.items():
        for place, (want, have) in enumerate(zip_longest(wanted, got)):
            if want != have:
                told.append(f"{name} {place + 1} (of {len(wanted)} expected, {len(got)} found)")
                told.append(f"  expected {_shown(want)}")
                told.append(f"  found    {_shown(have)}")
                break
    return "\n".join(told) or None


def _shown(frame: bytes | None) -> str:
    return "nothing" if frame is None else f"{Ether(frame).summary()}: {frame.hex()}"
