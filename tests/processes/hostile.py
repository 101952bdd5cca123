"""Datagrams nobody should send: random ones, and those of the golden captures with bits flipped, cut and mixed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from r2p2.dissect.captures import records
from r2p2.dissect.datagrams import Datagram, datagram

PCAPS = Path(__file__).resolve().parents[2] / "pcaps"
RAFT_TYPES = (5, 6, 7)
# Whoever reaches a port may send these, and they do what they say: no mutation of them proves anything.
COMMANDS = (b"\x00r2p2-", b"FLUSH")


@cache
def golden() -> tuple[bytes, ...]:
    """The payloads of all golden captures, each once."""
    found: dict[bytes, None] = {}
    for path in sorted(PCAPS.glob("*.pcap")):
        with path.open("rb") as stream:
            for record in records(stream):
                one = datagram(record)
                if isinstance(one, Datagram) and not any(word in one.payload for word in COMMANDS):
                    found[bytes(one.payload)] = None
    return tuple(found)


def is_raft(payload: bytes) -> bool:
    """Whether it is a packet of a Raft message."""
    return len(payload) > 32 and payload[2] >> 4 in RAFT_TYPES


def flipped(rng: random.Random, payload: bytes, bits_max: int) -> bytes:
    """With 1 to ``bits_max`` bits the other way."""
    out = bytearray(payload)
    for _ in range(rng.randint(1, bits_max) if out else 0):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def mutated(rng: random.Random, payload: bytes) -> bytes:
    """Another datagram made of it."""
    kind = rng.randrange(5)
    if kind <= 1:
        return flipped(rng, payload, 8)
    if kind == 2:
        return payload[: rng.randrange(len(payload) + 1)]
    if kind == 3:
        return payload + rng.randbytes(rng.randint(1, 100))
    other = rng.choice(golden())
    return payload[: rng.randrange(len(payload) + 1)] + other[rng.randrange(len(other) + 1) :]


def datagrams(rng: random.Random) -> Iterator[bytes]:
    """Without end."""
    while True:
        kind = rng.randrange(10)
        if kind < 2:
            yield rng.randbytes(rng.randrange(100))
        elif kind < 4:
            types = rng.randrange(9) << 4 | rng.randrange(5)
            flags = rng.choice((0x00, 0x40, 0x80, 0xC0, rng.randrange(256)))
            order = rng.choice((0, 1, 2, 253, 254, 255, rng.randrange(65536)))
            head = bytes((0xCC, rng.choice((8, 8, 8, 32, rng.randrange(256))), types, flags))
            yield head + rng.randbytes(2) + order.to_bytes(2, "big") + rng.randbytes(rng.randrange(80))
        else:
            yield mutated(rng, rng.choice(golden()))[:1472]
