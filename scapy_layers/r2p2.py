# scapy.contrib.description = R2P2, the request-response pair protocol
# scapy.contrib.status = library

"""The R2P2 header and its short payloads as Scapy layers.

What: :class:`R2P2` with its header extension, and the payloads of ACK, DROP and FEEDBACK. Written from docs/wire.md
alone and importing Scapy alone, so that it can serve as an oracle for the C codec. Raft messages are in
:mod:`scapy_layers.raft`, messages of several packets in :mod:`scapy_layers.messages`.

``R2P2() / Raw(b"1234")`` builds ``cc0800c00000... 1234`` with everything computed; a value given by hand is sent as it
is, so malformed packets can be built too. :meth:`R2P2.problem` says what is wrong with a packet.
"""

from __future__ import annotations

import struct
from typing import Any, ClassVar, Final, cast

from scapy.fields import (
    BitEnumField,
    ByteField,
    Field,
    FlagsField,
    IPField,
    LongField,
    PacketLenField,
    ShortField,
    StrField,
    XByteField,
    XLongField,
    _FieldContainer,
)
from scapy.layers.inet import UDP
from scapy.packet import NoPayload, Packet, Padding, Raw, bind_bottom_up, bind_layers, bind_top_down

MAGIC: Final = 0xCC
HEADER_BYTES: Final = 8
PAYLOAD_BYTES_MAX: Final = 1464
FIRST_PAYLOAD_BYTES: Final = 14
PACKETS_MAX: Final = 254
PORT: Final = 8000
FEEDBACK_PORT: Final = 9000

REQUEST, RESPONSE, FEEDBACK, ACK, DROP, RAFT_REQ, RAFT_REP, RAFT_MSG = range(8)
TYPES: Final = {
    REQUEST: "REQUEST",
    RESPONSE: "RESPONSE",
    FEEDBACK: "FEEDBACK",
    ACK: "ACK",
    DROP: "DROP",
    RAFT_REQ: "RAFT_REQ",
    RAFT_REP: "RAFT_REP",
    RAFT_MSG: "RAFT_MSG",
}
POLICIES: Final = {0: "LB_ROUTE", 1: "FIXED_ROUTE", 2: "REPLICATED_ROUTE", 3: "REPLICATED_ROUTE_NO_SE"}
FIRST: Final = 0x80
LAST: Final = 0x40
SESSION_EXPIRED: Final = b"SESSION_EXPIRED"
# From the lowest bit up; the six low bits have no meaning and must be 0.
FLAGS: Final = ["bit0", "bit1", "bit2", "bit3", "bit4", "bit5", "LAST", "FIRST"]
# What fields_desc holds; Scapy has no public name for it.
AnyField = Field[Any, Any] | _FieldContainer
_ANSWERS: Final = {(RESPONSE, REQUEST), (ACK, REQUEST), (DROP, REQUEST), (RAFT_REP, RAFT_REQ)}


class R2P2SessionExtension(Packet):
    """Header extension of a first packet (header_size 32): which of a client's numbered requests this is.

    In a replicated REQUEST; in its RESPONSE or DROP the same client_id and sequence, and oldest_pending 0.
    """

    name = "R2P2 session"
    fields_desc: ClassVar[list[AnyField]] = [
        XLongField("client_id", 0),
        LongField("sequence", 0),
        LongField("oldest_pending", 0),
    ]

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """Nothing lies above it."""
        return b"", s


def _extension(data: bytes) -> Packet:
    """24 bytes are the session extension; any other length is unknown and kept as it is."""
    return R2P2SessionExtension(data) if len(data) == 24 else Raw(data)


def _extension_bytes(packet: Packet) -> int:
    # A FEEDBACK's header_size is not to be trusted: deployed senders leave it uninitialised.
    return 0 if packet.type == FEEDBACK else max(0, packet.header_size - HEADER_BYTES)


def body(packet: Packet) -> bytes:
    """The bytes above a layer, without the Ethernet padding that Scapy hangs below the last layer."""
    data = bytes(packet.payload)
    padding = packet.getlayer(Padding)
    return data if padding is None else data[: len(data) - len(padding.load)]


class R2P2(Packet):
    """The R2P2 header, 8 bytes and an extension.

    ``header_size`` None is computed from the extension; ``policy`` None is LB_ROUTE in a REQUEST and FIXED_ROUTE in
    everything else.
    """

    name = "R2P2"
    fields_desc: ClassVar[list[AnyField]] = [
        XByteField("magic", MAGIC),
        ByteField("header_size", None),
        BitEnumField("type", REQUEST, 4, TYPES),
        BitEnumField("policy", None, 4, POLICIES),
        FlagsField("flags", FIRST | LAST, 8, FLAGS),
        ShortField("rid", 1),
        ShortField("p_order", 1),
        PacketLenField("extension", cast(Packet, None), _extension, length_from=_extension_bytes),
    ]

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        """Fills in header_size and policy where they were left open."""
        size = len(pkt) if self.header_size is None else pkt[1]
        type_policy = pkt[2]
        if self.policy is None and self.type != REQUEST:
            type_policy |= 1
        return pkt[:1] + bytes((size & 0xFF, type_policy)) + pkt[3:] + pay

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        """By type, but only where the whole message is in this packet; a part of a message is Raw."""
        if int(self.flags) & (FIRST | LAST) != FIRST | LAST and self.type != FEEDBACK:
            return Raw
        guessed: type[Packet] = super().guess_payload_class(payload)
        return guessed

    def hashret(self) -> bytes:
        """Pairs are found by rid; the addresses are up to IP (conf.checkIPaddr off lets another server answer)."""
        return struct.pack(">H", self.rid)

    def answers(self, other: Packet) -> int:
        """1 when this answers ``other``: same rid, and a type that answers its type."""
        if not isinstance(other, R2P2) or self.rid != other.rid or (self.type, other.type) not in _ANSWERS:
            return 0
        if self.type == RAFT_REP and not isinstance(self.payload, Raw | NoPayload):
            return int(self.payload.answers(other.payload))
        return 1

    def problem(self) -> str | None:
        """What docs/wire.md forbids in this packet, as one word, or None.

        The words: magic, size, type, policy, flags, order, oversize, payload.
        In a dissected packet only; a field that was left open (None) has nothing to be wrong. A packet of fewer than 8
        bytes never becomes an R2P2 layer.
        """
        if self.magic != MAGIC:
            return "magic"
        load = body(self)
        if self.type == FEEDBACK:
            return None if len(load) == 8 else "payload"
        problem = self._header_problem()
        extension_bytes = len(self.extension) if self.extension is not None else 0
        if problem is None and len(load) > PAYLOAD_BYTES_MAX - extension_bytes:
            problem = "oversize"
        return problem or self._payload_problem(load)

    def _header_problem(self) -> str | None:
        extension_bytes = len(self.extension) if self.extension is not None else 0
        if self.header_size is not None and self.header_size != HEADER_BYTES + extension_bytes:
            return "size"
        if self.type not in TYPES:
            return "type"
        if self.policy is not None and self.policy not in POLICIES:
            return "policy"
        flags = int(self.flags)
        if flags & ~(FIRST | LAST):
            return "flags"
        if not flags & FIRST:
            return None if 1 <= self.p_order < PACKETS_MAX else "order"
        if not 1 <= self.p_order <= PACKETS_MAX:
            return "order"
        return None if (self.p_order == 1) == bool(flags & LAST) else "flags"

    def _payload_problem(self, load: bytes) -> str | None:
        """REQ0 carries exactly 14 bytes, ACK and DROP their word; a DROP of a session may say that it has ended."""
        if self.type == DROP and isinstance(self.extension, R2P2SessionExtension):
            return None if load in (b"", b"DROP", SESSION_EXPIRED) else "payload"
        if self.type in (ACK, DROP):
            return None if load == (b"ACK" if self.type == ACK else b"DROP") else "payload"
        is_req0 = self.type == REQUEST and int(self.flags) == FIRST
        return "payload" if is_req0 and len(load) != FIRST_PAYLOAD_BYTES else None

    def mysummary(self) -> str:
        """Type, rid, policy and place in the message."""
        text = self.sprintf("R2P2 %R2P2.type% rid %R2P2.rid% %R2P2.policy%")
        if int(self.flags) & (FIRST | LAST) == FIRST | LAST:
            return text
        return text + (f" first of {self.p_order}" if int(self.flags) & FIRST else f" packet {self.p_order}")


class R2P2Ack(Packet):
    """Payload of an ACK: the client may send the rest of its request to where the ACK came from."""

    name = "R2P2 ACK"
    fields_desc: ClassVar[list[AnyField]] = [StrField("word", b"ACK")]

    def mysummary(self) -> str:
        """The word."""
        return f"{bytes(self.word)!r}"


class R2P2Drop(Packet):
    """Payload of a DROP: the server refuses the request."""

    name = "R2P2 DROP"
    fields_desc: ClassVar[list[AnyField]] = [StrField("word", b"DROP")]

    def mysummary(self) -> str:
        """The word."""
        return f"{bytes(self.word)!r}"


class R2P2Feedback(Packet):
    """Payload of a FEEDBACK: which request the server has done with, for the router's count."""

    name = "R2P2 FEEDBACK"
    fields_desc: ClassVar[list[AnyField]] = [
        ShortField("rid", 0),
        ShortField("client_port", 0),
        IPField("client_ip", "0.0.0.0"),
    ]

    def mysummary(self) -> str:
        """The request it is about."""
        return self.sprintf("for %client_ip%:%client_port% rid %rid%")


def bind_port(port: int) -> None:
    """Reads UDP datagrams from and to ``port`` as R2P2, and gives them that target port when built."""
    bind_bottom_up(UDP, R2P2, dport=port)
    bind_bottom_up(UDP, R2P2, sport=port)
    bind_top_down(UDP, R2P2, dport=port)


def bind_payload(kind: int, layer: type[Packet], **fields: Any) -> None:
    """Reads single-packet messages of type ``kind`` as ``layer``, and gives R2P2 that type when built below it."""
    bind_layers(R2P2, layer, type=kind, **fields)


bind_payload(FEEDBACK, R2P2Feedback)
bind_payload(ACK, R2P2Ack)
bind_payload(DROP, R2P2Drop)
bind_port(FEEDBACK_PORT)
bind_port(PORT)
