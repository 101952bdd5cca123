"""A datagram damaged on its way never comes out of a kernel socket: UDP's checksum is on, and no port turns it off."""

from __future__ import annotations

import select
import socket
import struct

import pytest

from r2p2.engine import Engine
from tests.engine.support import packet
from uv_backend import PortablePort, UdpPort

pytestmark = pytest.mark.needs("linux", "root")

LOOPBACK = b"\x7f\x00\x00\x01"


def udp(source: int, target: int, payload: bytes) -> bytes:
    """A UDP datagram with its checksum, made here."""
    head = struct.pack(">HHHH", source, target, 8 + len(payload), 0)
    pseudo = LOOPBACK + LOOPBACK + struct.pack(">BBH", 0, 17, 8 + len(payload))
    data = pseudo + head + payload + bytes(len(payload) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return head[:6] + struct.pack(">H", (~total & 0xFFFF) or 0xFFFF) + payload


@pytest.mark.parametrize("kind", [UdpPort, PortablePort])
def test_no_datagram_with_one_bit_flipped_is_taken(kind: type[UdpPort] | type[PortablePort]) -> None:
    request = packet(0, 1, 7, b"whole")
    with kind("127.0.0.1") as port, socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as wire:
        engine = Engine(port.address, keep=port)
        target = port.local_address[1]
        whole = udp(40_000, target, request)
        for bit in range(8 * len(whole)):
            if bit // 8 in (2, 3):
                continue  # the port it is for: another socket's, or nobody's
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            wire.sendto(damaged, ("127.0.0.1", 0))
        wire.sendto(whole, ("127.0.0.1", 0))
        assert select.select([port.fileno()], [], [], 5)[0]
        engine.poll()
        assert list(engine.requests()) == [b"whole"]
        engine.reply([b""])
        engine.poll()
        assert port.counters()["rx_packets"] == 1
        engine.close()
