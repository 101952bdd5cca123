"""From a captured packet to the UDP datagram in it: link layer, IPv4, UDP.

What: :func:`datagram` gives a :class:`Datagram`, or a :class:`Other` that says in a word what the packet is instead.
Link types: Ethernet with VLAN tags, raw IP, Linux cooked (both versions), BSD loopback. Written with slices and one
struct call, since a capture has millions of packets; the Scapy layers are its oracle in the tests.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, NamedTuple

from r2p2.dissect.captures import Record

CUT: Final = "cut"  # how the note on a packet begins that the capture cut
ETHERNET, RAW_IP, LINUX_COOKED, LINUX_COOKED_2, IPV4 = 1, 101, 113, 276, 228
_LOOPBACKS: Final = frozenset({0, 108})
_RAW_TYPES: Final = frozenset({RAW_IP, IPV4, 12, 14})
_ETHERTYPE_IPV4, _ETHERTYPE_ARP, _ETHERTYPE_IPV6 = 0x0800, 0x0806, 0x86DD
_VLAN_TAGS: Final = frozenset({0x8100, 0x88A8})
_PROTOCOLS: Final = {1: "icmp", 6: "tcp", 58: "icmpv6"}
_UDP: Final = 17
_HEADERS: Final = struct.Struct(">BBHHHBBHII")
_PORTS: Final = struct.Struct(">HHHH")


class Datagram(NamedTuple):
    """A UDP datagram. Addresses are host-order integers."""

    number: int
    time_ns: int
    source_ip: int
    source_port: int
    target_ip: int
    target_port: int
    payload: bytes  # where the capture cut it, filled up with zeros to its length on the wire
    notes: tuple[str, ...]  # what is odd about it without making it unreadable


class Other(NamedTuple):
    """A packet without a readable UDP datagram: ``kind`` names the protocol, or what is broken when ``malformed``."""

    number: int
    time_ns: int
    kind: str
    malformed: bool


@lru_cache(maxsize=4096)
def dotted(address: int) -> str:
    """10.0.0.1 for 0x0A000001."""
    return ".".join(map(str, address.to_bytes(4, "big")))


def datagram(record: Record) -> Datagram | Other:
    """The datagram in a captured packet; never raises, whatever the bytes."""
    data = record.data
    start = _ip_start(record.linktype, data)
    if isinstance(start, str):
        return Other(record.number, record.time_ns, start, start == "short")
    if len(data) < start + 20:
        return Other(record.number, record.time_ns, "short", True)
    if data[start] >> 4 == 6:
        return Other(record.number, record.time_ns, "ipv6", False)
    version, _, total, _, fragment, ttl, protocol, _, source_ip, target_ip = _HEADERS.unpack_from(data, start)
    header_bytes = (version & 15) * 4
    problem = _ip_problem(data[start : start + header_bytes], version, total, fragment, record.length - start)
    if ttl == 0:
        problem = problem or "ip ttl"
    if problem:
        return Other(record.number, record.time_ns, problem, problem != "fragment")
    if protocol != _UDP:
        return Other(record.number, record.time_ns, _PROTOCOLS.get(protocol, f"ip protocol {protocol}"), False)
    at = start + header_bytes
    if len(data) < at + 8 or total < header_bytes + 8:
        return Other(record.number, record.time_ns, "short", True)
    source_port, target_port, length, checksum = _PORTS.unpack_from(data, at)
    if not 8 <= length <= total - header_bytes:
        return Other(record.number, record.time_ns, "udp length", True)
    payload = data[at + 8 : at + length]
    missing = length - 8 - len(payload)
    notes: tuple[str, ...] = ()
    if missing:
        notes = (f"{CUT} to {len(payload)} of {length - 8} bytes by the capture",)
        payload += bytes(missing)
    elif checksum and not _checksum_holds(data[at : at + length], checksum, data[start + 12 : start + 20]):
        notes = ("wrong UDP checksum",)
    return Datagram(record.number, record.time_ns, source_ip, source_port, target_ip, target_port, payload, notes)


def _ip_start(linktype: int, data: bytes) -> int | str:
    """Where the IP header begins, or what the packet is instead."""
    if linktype == ETHERNET:
        return _after_ethertype(data, 12)
    if linktype in _RAW_TYPES:
        return 0
    if linktype == LINUX_COOKED:
        return _after_ethertype(data, 14)
    if linktype == LINUX_COOKED_2:
        ethertype = int.from_bytes(data[0:2], "big")
        return 20 if ethertype == _ETHERTYPE_IPV4 else _ethertype_name(ethertype)
    if linktype in _LOOPBACKS:
        # A family word in the byte order of whoever captured: AF_INET is 2 everywhere.
        return 4 if data[:4] in (b"\0\0\0\2", b"\2\0\0\0") else "not ipv4"
    return f"link type {linktype}"


def _after_ethertype(data: bytes, at: int) -> int | str:
    if len(data) < at + 2:
        return "short"
    ethertype = data[at] << 8 | data[at + 1]
    while ethertype in _VLAN_TAGS:
        at += 4
        if len(data) < at + 2:
            return "short"
        ethertype = data[at] << 8 | data[at + 1]
    return at + 2 if ethertype == _ETHERTYPE_IPV4 else _ethertype_name(ethertype)


def _ethertype_name(ethertype: int) -> str:
    names = {_ETHERTYPE_ARP: "arp", _ETHERTYPE_IPV6: "ipv6"}
    return names.get(ethertype, f"ethertype 0x{ethertype:04x}")


def _ip_problem(header: bytes, version: int, total: int, fragment: int, available: int) -> str | None:
    if version >> 4 != 4 or version & 15 < 5 or len(header) < (version & 15) * 4:
        return "ip header"
    # A checksum of 0 is what a sender shows that leaves it to the device.
    if header[10:12] != b"\0\0" and int.from_bytes(header, "big") % 0xFFFF:
        return "ip checksum"
    if not len(header) <= total <= available:
        return "ip length"
    return "fragment" if fragment & 0x3FFF else None


def _checksum_holds(datagram_bytes: bytes, checksum: int, addresses: bytes) -> bool:
    """Also true for the half sum the kernel leaves in a packet whose device, or loopback, would finish it."""
    length = len(datagram_bytes)
    pseudo = int.from_bytes(addresses, "big") + _UDP + length
    whole = int.from_bytes(datagram_bytes, "big") << (8 if length & 1 else 0)
    return (whole + pseudo) % 0xFFFF == 0 or checksum % 0xFFFF == pseudo % 0xFFFF
