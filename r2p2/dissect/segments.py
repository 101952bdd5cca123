"""Datagrams that were captured before they were cut.

A kernel that sends several datagrams of one size to one address may pass them on in one piece (UDP segmentation
offload), and on the loopback and on veth nobody ever cuts it: a packet socket, and so tcpdump and ``--live``, sees one
long datagram. All pieces have one size but the last, which may be shorter; where R2P2 headers stand at just these
places it is taken apart.
"""

from __future__ import annotations

from typing import Final

from r2p2.dissect.wire import HEADER_BYTES, PAYLOAD_BYTES_MAX, Header, header

_PIECES_MAX: Final = 128  # of one message, in any kernel so far


def segments(payload: bytes) -> list[bytes]:
    """The R2P2 packets a captured UDP payload holds: mostly the payload itself, alone."""
    last = min(len(payload) - HEADER_BYTES, PAYLOAD_BYTES_MAX + HEADER_BYTES)
    size = payload.find(b"\xcc", HEADER_BYTES, last + 1)
    while size >= 0:
        if len(payload) <= size * _PIECES_MAX and _are_packets(payload, size):
            return [payload[at : at + size] for at in range(0, len(payload), size)]
        size = payload.find(b"\xcc", size + 1, last + 1)
    return [payload]


def _are_packets(payload: bytes, size: int) -> bool:
    """Whether a good packet of one type begins at every multiple of ``size``, and no two are the same."""
    seen: set[tuple[int, int, int]] = set()
    kind = payload[2] >> 4
    # From the end: what is no sequence of packets is found out soonest there.
    for at in range((len(payload) - 1) // size * size, -1, -size):
        head = header(payload[at : at + size])
        if not isinstance(head, Header) or head.type != kind:
            return False
        place = (head.rid, head.flags, head.p_order)
        if place in seen:
            return False
        seen.add(place)
    return True
