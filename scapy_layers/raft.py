# scapy.contrib.description = Raft inside R2P2
# scapy.contrib.status = library

"""The Raft messages and log entries of docs/wire.md as Scapy layers.

What: one layer a message kind, each with the whole common header, all of them :class:`RaftMessage`; entries inside
APPEND and FORWARD, members inside FORMED. Building one over :class:`scapy_layers.r2p2.R2P2` sets the R2P2 type;
dissecting chooses the layer by ``kind``.

Counts, lengths and padding are computed unless given. :meth:`RaftMessage.problem` says what docs/wire.md forbids in a
message.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, cast

from scapy.fields import (
    ByteEnumField,
    ByteField,
    ConditionalField,
    FieldLenField,
    FlagsField,
    IPField,
    LongField,
    PacketListField,
    ShortField,
    StrFixedLenField,
    StrLenField,
    XIntField,
    XLongField,
)
from scapy.packet import Packet, Raw, bind_bottom_up, bind_top_down

from scapy_layers.r2p2 import POLICIES, R2P2, RAFT_MSG, RAFT_REP, RAFT_REQ, AnyField, body

VERSION: Final = 1
COMMON_BYTES: Final = 24
ENTRY_HEADER_BYTES: Final = 16
TIME_BYTES: Final = 8
TIME_MS_MAX: Final = (1 << 48) - 1
ENTRY_FLAGS: Final = ["TIMED", *(f"bit{bit}" for bit in range(1, 8))]
CONFIG: Final = 3
MEMBER_BYTES: Final = 16
CONFIGURED_BYTES: Final = 20
# A kind of message: its number, its name, and the R2P2 type it travels in. A new kind is a row here and a layer below.
_TABLE: Final = (
    (1, "PRE_VOTE", RAFT_REQ),
    (2, "PRE_VOTE_REPLY", RAFT_REP),
    (3, "VOTE", RAFT_REQ),
    (4, "VOTE_REPLY", RAFT_REP),
    (5, "APPEND", RAFT_REQ),
    (6, "APPEND_REPLY", RAFT_REP),
    (7, "FORWARD", RAFT_MSG),
    (8, "HELLO", RAFT_MSG),
    (9, "FORMED", RAFT_MSG),
    (10, "READ_INDEX", RAFT_REQ),
    (11, "READ_INDEX_REPLY", RAFT_REP),
    (12, "TIMEOUT_NOW", RAFT_MSG),
    (13, "VOTE_TRANSFER", RAFT_REQ),
    (14, "INSTALL_SNAPSHOT", RAFT_REQ),
    (15, "INSTALL_SNAPSHOT_REPLY", RAFT_REP),
)
KINDS: Final = {number: name for number, name, _ in _TABLE}
R2P2_TYPES: Final = {number: r2p2_type for number, _, r2p2_type in _TABLE}
ENTRY_KINDS: Final = {0: "NOOP", 1: "REQUEST", 2: "REQUEST_SESSION", 3: "CONFIG"}
HELLO_STATES: Final = {0: "fresh", 1: "formed"}
# A reply's kind -> the kinds it answers.
_ANSWERS: Final = {2: (1,), 4: (3, 13), 6: (5,), 11: (10,), 15: (14,)}


def _common(kind: int) -> list[AnyField]:
    """The 24 bytes every message starts with."""
    return [
        ByteField("version", VERSION),
        ByteEnumField("kind", kind, KINDS),
        ShortField("sender", 0),
        XIntField("cluster_id", 0),
        XLongField("incarnation", 1),
        LongField("term", 0),
    ]


def _reserved(length: int) -> StrFixedLenField:
    return StrFixedLenField("reserved", bytes(length), length)


class RaftEntry(Packet):
    """A log entry: 16 bytes, the body, and zeros to a multiple of 8. ``padding`` None is computed."""

    name = "Raft entry"
    fields_desc: ClassVar[list[AnyField]] = [
        FieldLenField(
            "body_length",
            None,
            length_of="body",
            fmt="I",
            adjust=lambda packet, length: length + (TIME_BYTES if packet.flags & 1 else 0),
        ),
        IPField("client_ip", "0.0.0.0"),
        ShortField("client_port", 0),
        ShortField("rid", 0),
        ByteEnumField("kind", 1, ENTRY_KINDS),
        ByteEnumField("policy", 2, POLICIES),
        ByteField("reserved", 0),
        FlagsField("flags", 0, 8, ENTRY_FLAGS),
        ConditionalField(LongField("time_ms", 0), lambda packet: bool(packet.flags & 1)),
        StrLenField("body", b"", length_from=lambda packet: max(0, packet.body_length - packet.time_bytes)),
        StrLenField("padding", cast(bytes, None), length_from=lambda packet: -packet.body_length % 8),
    ]

    @property
    def time_bytes(self) -> int:
        """What the time takes of the body."""
        return TIME_BYTES if self.flags & 1 else 0

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        """Pads with zeros where the padding was left open."""
        return pkt + (bytes(-len(pkt) % 8) if self.padding is None else b"") + pay

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """What follows is the next entry."""
        return b"", s

    def problem(self) -> str | None:
        """length, kind, policy, reserved, time, padding, noop, or None; in a dissected entry only."""
        if len(self.body) + self.time_bytes != self.body_length or len(self.padding) != -self.body_length % 8:
            return "length"
        if self.kind not in ENTRY_KINDS:
            return "kind"
        if self.policy not in POLICIES:
            return "policy"
        if self.reserved or int(self.flags) > 1:
            return "reserved"
        if self.time_bytes and (not 0 < self.time_ms <= TIME_MS_MAX or self.kind == CONFIG):
            return "time"
        if any(self.padding):
            return "padding"
        return "noop" if self.kind == 0 and self.client_ip != "0.0.0.0" else None

    def mysummary(self) -> str:
        """Whose request, and how long."""
        return self.sprintf("%kind% %client_ip%:%client_port% rid %rid% ") + f"{len(self.body)} bytes"


class RaftConfigured(Packet):
    """One member of a configuration: its launch, its address, and what it may do."""

    name = "Raft configured member"
    fields_desc: ClassVar[list[AnyField]] = [
        ShortField("slot", 0),
        ShortField("port", 0),
        IPField("ip", "0.0.0.0"),
        XLongField("incarnation", 0),
        FlagsField("flags", 1, 8, ["voter", "outgoing", "learner"]),
        _reserved(3),
    ]

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """What follows is the next member."""
        return b"", s


class RaftConfiguration(Packet):
    """Who is in the cluster: the body of an entry of kind CONFIG, and part of a snapshot's first piece."""

    name = "Raft configuration"
    fields_desc: ClassVar[list[AnyField]] = [
        ByteField("version", VERSION),
        _reserved(5),
        FieldLenField("count", None, count_of="members", fmt="H"),
        PacketListField("members", [], RaftConfigured, length_from=lambda packet: packet.count * CONFIGURED_BYTES),
    ]


class RaftMember(Packet):
    """One member in a FORMED message: its slot and the launch that holds it."""

    name = "Raft member"
    fields_desc: ClassVar[list[AnyField]] = [ShortField("member", 0), _reserved(6), XLongField("incarnation", 0)]

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """What follows is the next member."""
        return b"", s


class RaftMessage(Packet):
    """The common header; the layer of a message whose kind is unknown, and the base of all others."""

    name = "Raft"
    match_subclass = True
    fields_desc: ClassVar[list[AnyField]] = _common(0)

    @classmethod
    def dispatch_hook(cls, _pkt: bytes | None = None, *args: Any, **kargs: Any) -> type[Packet]:
        """The layer of the kind in the second byte."""
        if _pkt is not None and len(_pkt) >= COMMON_BYTES:
            return MESSAGES.get(_pkt[1], RaftMessage)
        return cls if _pkt is None else Raw

    def answers(self, other: Packet) -> int:
        """1 when this is the reply kind of ``other``'s kind."""
        return int(isinstance(other, RaftMessage) and other.kind in _ANSWERS.get(self.kind, ()))

    def problem(self) -> str | None:
        """What is wrong with a dissected message, or None.

        The words: version, kind, type, incarnation, length, field, entry.
        """
        if self.version != VERSION:
            return "version"
        if self.kind not in MESSAGES:
            return "kind"
        if isinstance(self.underlayer, R2P2) and self.underlayer.type != R2P2_TYPES[self.kind]:
            return "type"
        if self.incarnation == 0:
            return "incarnation"
        if body(self):
            return "length"
        return self._own_problem()

    def _own_problem(self) -> str | None:
        """What is wrong in the fields of this kind."""
        for field in self.fields_desc:
            if isinstance(field, StrFixedLenField):
                value = self.getfieldval(field.name)
                # Scapy takes what there is where a message ends inside the field.
                if len(value) != field.length_from(self):
                    return "length"
                if any(value):
                    return "field"
        return None

    def mysummary(self) -> str:
        """Kind, member and term."""
        return f"Raft {KINDS.get(self.kind, self.kind)} member {self.sender} term {self.term}"


class _RaftLast(RaftMessage):
    """What the two vote requests share."""

    def mysummary(self) -> str:
        """With the end of the candidate's log."""
        return f"{super().mysummary()} last {self.last_index}@{self.last_term}"


class RaftPreVote(_RaftLast):
    """Would you vote for me in this term?"""

    name = "Raft PRE_VOTE"
    fields_desc: ClassVar[list[AnyField]] = [*_common(1), LongField("last_index", 0), LongField("last_term", 0)]


class RaftVote(_RaftLast):
    """Vote for me in this term."""

    name = "Raft VOTE"
    fields_desc: ClassVar[list[AnyField]] = [*_common(3), LongField("last_index", 0), LongField("last_term", 0)]


class _RaftGranted(RaftMessage):
    """What the two vote replies share."""

    def _own_problem(self) -> str | None:
        return super()._own_problem() or ("field" if self.granted > 1 else None)

    def mysummary(self) -> str:
        """With the answer."""
        return f"{super().mysummary()} {'granted' if self.granted else 'refused'}"


class RaftPreVoteReply(_RaftGranted):
    """The answer to PRE_VOTE."""

    name = "Raft PRE_VOTE_REPLY"
    fields_desc: ClassVar[list[AnyField]] = [*_common(2), ByteField("granted", 0), _reserved(7)]


class RaftVoteReply(_RaftGranted):
    """The answer to VOTE."""

    name = "Raft VOTE_REPLY"
    fields_desc: ClassVar[list[AnyField]] = [*_common(4), ByteField("granted", 0), _reserved(7)]


def _entries() -> list[AnyField]:
    """count, bytes and the entries themselves, as APPEND and FORWARD end."""
    return [
        FieldLenField("count", None, count_of="entries", fmt="I"),
        FieldLenField("bytes", None, length_of="entries", fmt="I"),
        PacketListField("entries", [], RaftEntry, length_from=lambda packet: packet.bytes),
    ]


class _RaftEntries(RaftMessage):
    """What the two kinds with entries share."""

    def _own_problem(self) -> str | None:
        if self.bytes != sum(len(entry) for entry in self.entries):
            return "length"
        if any(not isinstance(entry, RaftEntry) or entry.problem() for entry in self.entries):
            return "entry"
        return "entry" if self.count != len(self.entries) else None


class RaftAppend(_RaftEntries):
    """Entries prev_index+1..prev_index+count, all of term entries_term; none is a heartbeat."""

    name = "Raft APPEND"
    fields_desc: ClassVar[list[AnyField]] = [
        *_common(5),
        LongField("prev_index", 0),
        LongField("prev_term", 0),
        LongField("entries_term", 0),
        LongField("commit", 0),
        LongField("global_commit", 0),
        LongField("round", 0),
        *_entries(),
    ]

    def _own_problem(self) -> str | None:
        return super()._own_problem() or ("field" if (self.count == 0) != (self.entries_term == 0) else None)

    def mysummary(self) -> str:
        """With the range of entries and the commit index."""
        last = self.prev_index + (self.count or len(self.entries))
        return f"{super().mysummary()} {self.prev_index}..{last} commit {self.commit}"


class RaftAppendReply(RaftMessage):
    """The answer to APPEND, or to each of several: ``round`` names which."""

    name = "Raft APPEND_REPLY"
    fields_desc: ClassVar[list[AnyField]] = [
        *_common(6),
        LongField("round", 0),
        LongField("match_index", 0),
        LongField("hint_index", 0),
        LongField("hint_term", 0),
        LongField("applied_index", 0),
        ByteField("accepted", 0),
        _reserved(7),
    ]

    def _own_problem(self) -> str | None:
        return super()._own_problem() or ("field" if self.accepted > 1 else None)

    def mysummary(self) -> str:
        """With the answer."""
        return f"{super().mysummary()} {'accepted' if self.accepted else 'rejected'} {self.match_index}"


class RaftForward(_RaftEntries):
    """Client requests a follower hands to the leader."""

    name = "Raft FORWARD"
    fields_desc: ClassVar[list[AnyField]] = [*_common(7), *_entries()]

    def _own_problem(self) -> str | None:
        timed = any(isinstance(entry, RaftEntry) and entry.time_bytes for entry in self.entries)
        return super()._own_problem() or ("entry" if timed else None)


class RaftHello(RaftMessage):
    """Who am I, and does my cluster exist already?"""

    name = "Raft HELLO"
    fields_desc: ClassVar[list[AnyField]] = [
        *_common(8),
        ByteEnumField("state", 0, HELLO_STATES),
        ByteField("coordinator", 0),
        _reserved(6),
        XLongField("to_incarnation", 0),
    ]

    def _own_problem(self) -> str | None:
        return super()._own_problem() or ("field" if self.state > 1 or self.coordinator > 1 else None)


class RaftFormed(RaftMessage):
    """The cluster exists, and these launches are its members."""

    name = "Raft FORMED"
    fields_desc: ClassVar[list[AnyField]] = [
        *_common(9),
        FieldLenField("count", None, count_of="members", fmt="H"),
        _reserved(6),
        PacketListField("members", [], RaftMember, length_from=lambda packet: packet.count * MEMBER_BYTES),
    ]

    def _own_problem(self) -> str | None:
        if len(self.members) != self.count or any(not isinstance(member, RaftMember) for member in self.members):
            return "length"
        if any(any(member.reserved) or not member.incarnation for member in self.members):
            return "field"
        return super()._own_problem()


class RaftReadIndex(RaftMessage):
    """A follower asks its leader how far it must have applied before it answers a read."""

    name = "Raft READ_INDEX"
    fields_desc: ClassVar[list[AnyField]] = [*_common(10), XLongField("context", 0)]


class RaftReadIndexReply(_RaftGranted):
    """The answer to READ_INDEX; refused has index 0."""

    name = "Raft READ_INDEX_REPLY"
    fields_desc: ClassVar[list[AnyField]] = [
        *_common(11),
        XLongField("context", 0),
        LongField("index", 0),
        ByteField("granted", 0),
        _reserved(7),
    ]

    def _own_problem(self) -> str | None:
        return super()._own_problem() or ("field" if (self.index > 0) != bool(self.granted) else None)


class RaftTimeoutNow(RaftMessage):
    """The leader asks the target to stand for election at once."""

    name = "Raft TIMEOUT_NOW"
    fields_desc: ClassVar[list[AnyField]] = _common(12)


class RaftVoteTransfer(_RaftLast):
    """VOTE of a candidate that TIMEOUT_NOW asked to stand."""

    name = "Raft VOTE_TRANSFER"
    fields_desc: ClassVar[list[AnyField]] = [*_common(13), LongField("last_index", 0), LongField("last_term", 0)]


class RaftInstallSnapshot(RaftMessage):
    """A piece of a state machine, for a member whose next entries nobody keeps."""

    name = "Raft INSTALL_SNAPSHOT"
    fields_desc: ClassVar[list[AnyField]] = [
        *_common(14),
        LongField("index", 0),
        LongField("index_term", 0),
        LongField("offset", 0),
        LongField("total_bytes", 0),
        FieldLenField("chunk_bytes", None, length_of="chunk", fmt="I"),
        FieldLenField("configuration_bytes", None, length_of="configuration", fmt="I"),
        StrLenField("configuration", b"", length_from=lambda packet: packet.configuration_bytes),
        StrLenField("chunk", b"", length_from=lambda packet: packet.chunk_bytes),
    ]

    def _own_problem(self) -> str | None:
        if len(self.configuration) != self.configuration_bytes or len(self.chunk) != self.chunk_bytes:
            return "length"
        begins = self.offset == 0
        good = self.chunk_bytes and self.offset + self.chunk_bytes <= self.total_bytes
        return None if good and begins == bool(self.configuration_bytes) else "field"

    def mysummary(self) -> str:
        """With the piece."""
        return f"{super().mysummary()} snapshot {self.index} {self.offset}+{self.chunk_bytes} of {self.total_bytes}"


class RaftInstallSnapshotReply(RaftMessage):
    """The answer to INSTALL_SNAPSHOT: where to go on."""

    name = "Raft INSTALL_SNAPSHOT_REPLY"
    fields_desc: ClassVar[list[AnyField]] = [
        *_common(15),
        LongField("index", 0),
        LongField("offset", 0),
        ByteField("installed", 0),
        _reserved(7),
        LongField("applied_index", 0),
    ]

    def _own_problem(self) -> str | None:
        return super()._own_problem() or ("field" if self.installed > 1 else None)

    def mysummary(self) -> str:
        """With what is there."""
        return f"{super().mysummary()} snapshot {self.index} {'installed' if self.installed else self.offset}"


_LAYERS: Final[tuple[type[RaftMessage], ...]] = (
    RaftPreVote,
    RaftPreVoteReply,
    RaftVote,
    RaftVoteReply,
    RaftAppend,
    RaftAppendReply,
    RaftForward,
    RaftHello,
    RaftFormed,
    RaftReadIndex,
    RaftReadIndexReply,
    RaftTimeoutNow,
    RaftVoteTransfer,
    RaftInstallSnapshot,
    RaftInstallSnapshotReply,
)
MESSAGES: Final[dict[int, type[RaftMessage]]] = {
    number: layer for (number, *_), layer in zip(_TABLE, _LAYERS, strict=True)
}

for _type in (RAFT_REQ, RAFT_REP, RAFT_MSG):
    bind_bottom_up(R2P2, RaftMessage, type=_type)
bind_top_down(R2P2, RaftMessage, type=RAFT_MSG)
for _kind, _layer in MESSAGES.items():
    bind_top_down(R2P2, _layer, type=R2P2_TYPES[_kind])
