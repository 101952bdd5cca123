"""Frames for the tests, made by Scapy: an independent hand, so a mistake of ours does not cancel out."""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

OUR_IP = "10.0.0.1"
OUR_MAC = "02:00:0a:00:00:01"
PEER_IP = "10.0.0.9"
PEER_MAC = "02:00:0a:00:00:09"


def udp(payload: bytes = b"payload", **fields: Any) -> Any:
    """A valid datagram from the peer to us; `fields` go to the IP header."""
    ip = IP(**{"src": PEER_IP, "dst": OUR_IP, **fields})
    return Ether(src=PEER_MAC, dst=OUR_MAC) / ip / UDP(sport=1234, dport=9000) / Raw(payload)


def arp(op: int = 1, **fields: Any) -> Any:
    """An ARP frame from the peer about us."""
    values = {"op": op, "hwsrc": PEER_MAC, "psrc": PEER_IP, "pdst": OUR_IP, **fields}
    return Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff" if op == 1 else OUR_MAC) / ARP(**values)


def echo(payload: bytes = b"ping", **fields: Any) -> Any:
    """An ICMP echo request from the peer to us."""
    ip = IP(src=PEER_IP, dst=OUR_IP)
    return Ether(src=PEER_MAC, dst=OUR_MAC) / ip / ICMP(**{"type": 8, "id": 7, "seq": 3, **fields}) / Raw(payload)


def bare(protocol: int, length: int) -> bytes:
    """An IPv4 packet with `length` zero bytes of a protocol."""
    return bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / IP(src=PEER_IP, dst=OUR_IP, proto=protocol) / bytes(length))


def cut(frame: Any, length: int) -> bytes:
    """The first bytes of a frame as it would lie on the wire."""
    return bytes(frame)[:length]


def patch(frame: Any, offset: int, value: bytes) -> bytes:
    """A frame with bytes overwritten; checksums stay as they were."""
    data = bytearray(bytes(frame))
    data[offset : offset + len(value)] = value
    return bytes(data)


def is_sound(data: bytes) -> bool:
    """Whether Scapy, computing every length and checksum itself, arrives at the same bytes."""
    frame = Ether(data)
    for layer in (IP, UDP, ICMP):
        if layer in frame:
            for field in ("chksum", "len"):
                if hasattr(frame[layer], field):
                    delattr(frame[layer], field)
    return bytes(frame) == data


HOSTILE: dict[str, tuple[bytes, str]] = {
    # name: (frame, the counter it must raise)
    "shorter than Ethernet": (bytes(13), "rx_drop_truncated"),
    "Ethernet alone": (cut(udp(), 14), "rx_drop_truncated"),
    "half an IPv4 header": (cut(udp(), 30), "rx_drop_truncated"),
    "IPv4 header alone": (cut(udp(), 34), "rx_drop_truncated"),
    "cut inside the payload": (cut(udp(bytes(100)), 100), "rx_drop_truncated"),
    "IPv6": (patch(udp(), 12, b"\x86\xdd"), "rx_drop_not_ipv4"),
    "VLAN": (patch(udp(), 12, b"\x81\x00"), "rx_drop_not_ipv4"),
    "802.3 length": (patch(udp(), 12, b"\x00\x40"), "rx_drop_not_ipv4"),
    "version 6 in an IPv4 frame": (patch(udp(), 14, b"\x65"), "rx_drop_bad_ip"),
    "ihl 4": (patch(udp(), 14, b"\x44"), "rx_drop_bad_ip"),
    "ihl 15, total length less": (patch(udp(b"x"), 14, b"\x4f"), "rx_drop_bad_ip"),
    "total length 19": (bytes(udp(len=19)), "rx_drop_bad_ip"),
    "wrong IPv4 checksum": (patch(udp(), 24, b"\xde\xad"), "rx_drop_bad_ip"),
    "TTL 0": (bytes(udp(ttl=0)), "rx_drop_bad_ip"),
    "from ourselves": (bytes(udp(src=OUR_IP)), "rx_drop_bad_ip"),
    "from multicast": (bytes(udp(src="224.0.0.5")), "rx_drop_bad_ip"),
    "from broadcast": (bytes(udp(src="255.255.255.255")), "rx_drop_bad_ip"),
    "from nobody": (bytes(udp(src="0.0.0.0")), "rx_drop_bad_ip"),
    "from loopback": (bytes(udp(src="127.0.0.1")), "rx_drop_bad_ip"),
    "first fragment": (bytes(udp(flags="MF")), "rx_drop_fragment"),
    "last fragment": (bytes(udp(frag=100)), "rx_drop_fragment"),
    "TCP": (bytes(udp(proto=6)), "rx_drop_not_udp"),
    "ICMP unreachable": (bytes(echo(type=3)), "rx_drop_not_udp"),
    "ICMP echo reply": (bytes(echo(type=0)), "rx_drop_not_udp"),
    "ICMP of 4 bytes": (bare(1, 4), "rx_drop_truncated"),
    "ICMP checksum": (patch(echo(), 36, b"\xde\xad"), "rx_drop_bad_checksum"),
    "UDP of 7 bytes": (bare(17, 7), "rx_drop_truncated"),
    "UDP length 7": (patch(udp(), 38, b"\x00\x07"), "rx_drop_bad_udp"),
    "UDP length beyond the packet": (patch(udp(), 38, b"\x01\x00"), "rx_drop_bad_udp"),
    "wrong UDP checksum": (patch(udp(), 40, b"\xde\xad"), "rx_drop_bad_checksum"),
    "damaged payload": (patch(udp(bytes(64)), 80, b"\xff"), "rx_drop_bad_checksum"),
    "a UDP port nobody opened": (patch(patch(udp(), 36, b"\x23\x29"), 40, bytes(2)), "rx_drop_no_listener"),
    "another's MAC": (patch(udp(), 0, b"\x02\x00\x0a\x00\x00\x02"), "rx_drop_foreign_address"),
    "multicast MAC": (patch(udp(), 0, b"\x01\x00\x5e\x00\x00\x01"), "rx_drop_foreign_address"),
    "another's address": (bytes(udp(dst="10.0.0.2")), "rx_drop_foreign_address"),
    "broadcast address": (bytes(udp(dst="255.255.255.255")), "rx_drop_foreign_address"),
    "ARP cut": (cut(arp(), 41), "rx_drop_bad_arp"),
    "ARP for another": (bytes(arp(pdst="10.0.0.7")), "rx_drop_bad_arp"),
    "ARP of another hardware": (bytes(arp(hwtype=6)), "rx_drop_bad_arp"),
    "ARP, sender differs from the frame's": (bytes(arp(hwsrc="02:00:00:00:00:77")), "rx_drop_bad_arp"),
    "ARP, we are said to be the sender": (bytes(arp(psrc=OUR_IP)), "rx_drop_bad_arp"),
    "ARP reply to everyone": (patch(arp(op=2), 0, b"\xff" * 6), "rx_drop_bad_arp"),
    "ARP operation 3": (bytes(arp(op=3)), "rx_drop_bad_arp"),
}  # fmt: skip
