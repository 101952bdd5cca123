# scapy.contrib.description = R2P2 messages of several packets
# scapy.contrib.status = skip

"""Messages of several packets: cutting them up for a capture, and putting them together from one.

:func:`packets` cuts a message as docs/wire.md says. :class:`Reassembler` does the opposite for packets in any order,
with duplicates and losses, within bounds. :class:`R2P2MessageSession` is the same as a Scapy session:
``sniff(offline=..., session=R2P2MessageSession)`` gives whole messages. A capture is read from outside, so handshakes
are not enforced and nothing is ever answered.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

from scapy.layers.inet import IP, UDP
from scapy.packet import Packet, Raw
from scapy.sessions import DefaultSession

from scapy_layers.r2p2 import FIRST, FIRST_PAYLOAD_BYTES, LAST, PACKETS_MAX, PAYLOAD_BYTES_MAX, R2P2, REQUEST, body

HALF_MESSAGES_MAX: Final = 4096
HALF_MESSAGE_SECONDS: Final = 10.0

Key = tuple[Any, ...]


def packets(message: Packet) -> list[Packet]:
    """The packets of one message, each an :class:`R2P2` over Raw, given as R2P2 over its whole payload.

    Type, policy, rid and the extension (on the first packet only) are taken over; flags and p_order are computed.
    ValueError when the message needs more than 254 packets.
    """
    load = body(message)
    # A first packet's extension takes its room from the payload.
    room = PAYLOAD_BYTES_MAX - (len(message.extension) if message.extension is not None else 0)
    head = message.copy()
    head.remove_payload()
    head.type = message.type  # may have come from the payload just removed
    if len(load) <= room:
        head.flags, head.p_order = FIRST | LAST, 1
        return [head / Raw(load) if load else head]
    first_bytes = FIRST_PAYLOAD_BYTES if message.type == REQUEST else room
    parts = [load[:first_bytes]]
    parts += [load[at : at + PAYLOAD_BYTES_MAX] for at in range(first_bytes, len(load), PAYLOAD_BYTES_MAX)]
    if len(parts) > PACKETS_MAX:
        raise ValueError(f"a message of {len(load)} bytes needs {len(parts)} packets; {PACKETS_MAX} are the most")
    made = []
    for index, part in enumerate(parts):
        packet = head.copy()
        packet.flags = (FIRST if index == 0 else 0) | (LAST if index == len(parts) - 1 else 0)
        packet.p_order = index or len(parts)
        if index:
            packet.extension = None
        made.append(packet / Raw(part))
    return made


@dataclass(slots=True)
class _Half:
    """A message of which packets are missing."""

    started: float
    first: Packet | None = None
    parts: dict[int, bytes] = field(default_factory=dict)


class Reassembler:
    """Puts messages together from IP/UDP/R2P2 packets in the order of a capture.

    A request is known by its sender and rid alone, since its packets may go to two addresses (a router and the server
    it chose); any other message by both addresses, type and rid. At most ``messages_max`` half messages are kept, the
    oldest is given up first; one older than ``timeout`` seconds of capture time is given up too. ``given_up`` counts
    them.
    """

    def __init__(self, messages_max: int = HALF_MESSAGES_MAX, timeout: float = HALF_MESSAGE_SECONDS) -> None:
        """An empty table."""
        self.messages_max = messages_max
        self.timeout = timeout
        self.given_up = 0
        self._halves: OrderedDict[Key, _Half] = OrderedDict()

    def __len__(self) -> int:
        """The half messages waiting."""
        return len(self._halves)

    def add(self, packet: Packet) -> Packet | None:
        """The message that ``packet`` completes, or None.

        A packet without an R2P2 layer, one that is malformed, and a single-packet message come back as they are. A
        message of several packets comes back as a copy of its first packet with the last one's time and, above R2P2,
        the layer of the whole message.
        """
        if R2P2 not in packet or packet[R2P2].problem():
            return packet
        part = packet[R2P2]
        flags = int(part.flags)
        if flags & (FIRST | LAST) == FIRST | LAST:
            return packet
        now = float(packet.time)
        self._expire(now)
        half = self._half(_key(packet, part), now)
        if flags & FIRST:
            if half.first is not None and (half.first[R2P2].p_order, half.parts[0]) != (part.p_order, body(part)):
                half.parts.clear()  # begun again under the same number: what was there is of another message
            half.first = packet
        half.parts[0 if flags & FIRST else part.p_order] = body(part)
        return self._complete(packet, part, half)

    def _half(self, key: Key, now: float) -> _Half:
        half = self._halves.get(key)
        if half is None:
            if len(self._halves) >= self.messages_max:
                self._halves.popitem(last=False)
                self.given_up += 1
            half = self._halves[key] = _Half(now)
        return half

    def _expire(self, now: float) -> None:
        while self._halves:
            key, half = next(iter(self._halves.items()))
            if now - half.started <= self.timeout:
                return
            del self._halves[key]
            self.given_up += 1

    def _complete(self, packet: Packet, part: Packet, half: _Half) -> Packet | None:
        if half.first is None:
            return None
        count = half.first[R2P2].p_order
        if len(half.parts) < count or any(index not in half.parts for index in range(count)):
            return None
        del self._halves[_key(packet, part)]
        return _message(half.first, b"".join(half.parts[index] for index in range(count)), packet.time)


def _key(packet: Packet, part: Packet) -> Key:
    source = (packet[IP].src, packet[UDP].sport) if IP in packet else ()
    if part.type == REQUEST:
        return (REQUEST, part.rid, *source)
    target = (packet[IP].dst, packet[UDP].dport) if IP in packet else ()
    return (part.type, part.rid, *source, *target)


def _message(first: Packet, load: bytes, time: Any) -> Packet:
    message = first.copy()
    header = message[R2P2]
    header.remove_payload()
    header.flags = FIRST | LAST
    header.add_payload(header.guess_payload_class(load)(load))
    header.flags = FIRST
    message.time = time
    return message


class R2P2MessageSession(DefaultSession):
    """A Scapy session that hands out whole messages instead of their packets."""

    def __init__(self, *args: Any, **kargs: Any) -> None:
        """As DefaultSession."""
        super().__init__(*args, **kargs)
        self.reassembler = Reassembler()

    def process(self, pkt: Packet) -> Packet | None:
        """The message ``pkt`` completes, or None."""
        whole = super().process(pkt)
        return None if whole is None else self.reassembler.add(whole)
