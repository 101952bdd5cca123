"""Bytes to messages and back: the gateway. What passes decode() may be trusted; what does not is one MessageError
with a reason.

Layouts are those of docs/wire.md: big-endian, every reserved byte zero. Entry bytes are neither read nor written
here: encode() gives the header in front of them, decode() looks at the first bytes of a message and at its whole
length.

Left to others: whether the sender is a member and its incarnation a living one (the node), what a message means
(core.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from struct import Struct

from raft.configuration import Configuration, incarnation_of, member_id, slot_of
from raft.messages import (
    HELLO_FORMED,
    Append,
    AppendReply,
    Formed,
    Forward,
    Hello,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    TimeoutNow,
    Vote,
    VoteReply,
)

VERSION = 1
COMMON_BYTES = 24
MEMBER_BYTES = 16
MEMBERS_MAX = 16  # of one FORMED message; a 104-byte prefix holds 4, so the caller has to hand over more for more
ENTRY_BYTES_MIN = 16
ENTRY_ALIGNMENT_BYTES = 8
INDEX_LIMIT = 1 << 63  # indices, terms and rounds stay below
NO_SENDER = 0xFFFF
VOTE_TRANSFER = 13  # the kind of a Vote whose candidate was asked to take over

_COMMON = Struct(">BBHIQQ")
_TWO = Struct(">QQ")
_ONE = Struct(">Q")
_COUNTS = Struct(">II")
_MEMBER = Struct(">HHIQ")
_APPEND = Struct(">BBHIQQQQQQQQII")
_APPEND_BODY = Struct(">QQQQQQII")
_APPEND_REPLY = Struct(">BBHIQQQQQQQQ")
_APPEND_REPLY_BODY = Struct(">QQQQQQ")
_ASK = Struct(">BBHIQQQQ")
_ANSWER = Struct(">BBHIQQQ")
_FORWARD = Struct(">BBHIQQII")
_HELLO = Struct(">BBHIQQBB6xQ")
_READ_INDEX_REPLY = Struct(">BBHIQQQQQ")
_READ_INDEX_REPLY_BODY = Struct(">QQQ")
_FORMED = Struct(">BBHIQQH6x")

_INSTALL = Struct(">BBHIQQQQQQII")
_INSTALL_BODY = Struct(">QQQQII")
_INSTALL_REPLY = Struct(">BBHIQQQQQQ")
_INSTALL_REPLY_BODY = Struct(">QQQQ")
_CONFIGURATION = Struct(">B5sH")
_CONFIGURED = Struct(">HHIQB3x")
_VOTER, _OUTGOING, _LEARNER = 1, 2, 4
CONFIGURATION_BYTES_MAX = 8 + 48 * 20

_APPEND_REPLY_BYTES = AppendReply.HEADER_BYTES
_YES = 1 << 56  # a u8 flag of 1 with seven reserved zero bytes behind it


class Reason(StrEnum):
    """Why a message was refused. The names are counters."""

    SHORT = "short"
    VERSION = "version"
    KIND = "kind"
    CLUSTER = "cluster"
    SENDER = "sender"
    INCARNATION = "incarnation"
    LENGTH = "length"
    FIELD = "field"


@dataclass
class MessageError(Exception):
    """A peer's message does not parse: ``reason`` is the counter, ``detail`` names the numbers."""

    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        """Reason and numbers on one line."""
        return f"{self.reason.value}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who encodes: cluster id (u32), member id (0..65534), incarnation of this launch (u64, never 0)."""

    cluster_id: int
    node_id: int
    incarnation: int


def common_head(kind: int, term: int, identity: Identity) -> bytes:
    """The COMMON_BYTES that every message of this kind, term and sender begins with."""
    return _COMMON.pack(VERSION, kind, identity.node_id, identity.cluster_id, identity.incarnation, term)


def encode(message: Message, identity: Identity) -> bytes:
    """The header of a message, HEADER_BYTES long (Formed: with its members). The sender is ``identity.node_id``.

    Raises struct.error where a field of ours does not fit its width.
    """
    cluster_id, node_id, incarnation = identity.cluster_id, identity.node_id, identity.incarnation
    if isinstance(message, Append):
        return _APPEND.pack(
            VERSION,
            5,
            node_id,
            cluster_id,
            incarnation,
            message.term,
            message.prev_index,
            message.prev_term,
            message.entries_term,
            message.commit,
            message.global_commit,
            message.round,
            message.count,
            message.bytes_count,
        )
    if isinstance(message, AppendReply):
        return _APPEND_REPLY.pack(
            VERSION,
            6,
            node_id,
            cluster_id,
            incarnation,
            message.term,
            message.round,
            message.match_index,
            message.hint_index,
            message.hint_term,
            message.applied_index,
            _YES if message.accepted else 0,
        )
    kind = VOTE_TRANSFER if isinstance(message, Vote) and message.transfer else message.KIND
    common = (VERSION, kind, node_id, cluster_id, incarnation, message.term)
    if isinstance(message, PreVote | Vote):
        return _ASK.pack(*common, message.last_index, message.last_term)
    if isinstance(message, PreVoteReply | VoteReply):
        return _ANSWER.pack(*common, _YES if message.granted else 0)
    if isinstance(message, Forward):
        return _FORWARD.pack(*common, message.count, message.bytes_count)
    if isinstance(message, ReadIndex):
        return _ANSWER.pack(*common, message.context)
    if isinstance(message, ReadIndexReply):
        return _READ_INDEX_REPLY.pack(*common, message.context, message.index, _YES if message.granted else 0)
    if isinstance(message, TimeoutNow):
        return _COMMON.pack(*common)
    if isinstance(message, InstallSnapshot):
        configuration = b"" if message.configuration is None else encode_configuration(message.configuration)
        place = (message.index, message.index_term, message.offset, message.total_bytes)
        return _INSTALL.pack(*common, *place, message.bytes_count, len(configuration)) + configuration
    if isinstance(message, InstallSnapshotReply):
        installed = _YES if message.installed else 0
        return _INSTALL_REPLY.pack(*common, message.index, message.offset, installed, message.applied_index)
    if isinstance(message, Hello):
        return _HELLO.pack(*common, message.state, message.coordinator, message.to_incarnation)
    members = b"".join(_MEMBER.pack(member, 0, 0, incarnation) for member, incarnation in message.members)
    return _FORMED.pack(*common, len(message.members)) + members


def decode(prefix: bytes, total_bytes: int, *, cluster_id: int) -> tuple[Message, int]:
    """The message whose first bytes are ``prefix`` and whose whole length is ``total_bytes``, and its sender's
    incarnation.

    ``prefix`` has to hold the header: min(total_bytes, 104) bytes are enough for every kind but a Formed of more than 4
    members. Raises MessageError, and nothing else, for whatever a peer may have sent.
    """
    if len(prefix) < COMMON_BYTES or total_bytes < COMMON_BYTES:
        raise MessageError(Reason.SHORT, f"{len(prefix)} bytes of {total_bytes}, a header has {COMMON_BYTES}")
    version, kind, sender, cluster, incarnation, term = _COMMON.unpack_from(prefix)
    if version != VERSION:
        raise MessageError(Reason.VERSION, f"version {version}, we speak {VERSION}")
    if not 1 <= kind <= len(_DECODERS):
        raise MessageError(Reason.KIND, f"kind {kind}")
    if cluster != cluster_id:
        raise MessageError(Reason.CLUSTER, f"cluster {cluster:#x}, ours is {cluster_id:#x}")
    if sender == NO_SENDER:
        raise MessageError(Reason.SENDER, f"sender {sender:#x}")
    if incarnation == 0:
        raise MessageError(Reason.INCARNATION, "incarnation 0")
    header_bytes, decoder = _DECODERS[kind - 1]
    if total_bytes < header_bytes or len(prefix) < header_bytes:
        raise MessageError(Reason.SHORT, f"kind {kind}: {len(prefix)} bytes of {total_bytes}, needs {header_bytes}")
    if term >= INDEX_LIMIT or (term == 0 and (kind <= AppendReply.KIND or kind >= ReadIndex.KIND)):
        raise MessageError(Reason.FIELD, f"kind {kind}: term {term}")
    return decoder(prefix, total_bytes, sender, term), incarnation


def encode_configuration(configuration: Configuration) -> bytes:
    """The body of a log entry that changes the members: 8 bytes, then 20 a member in ascending order of identity."""
    addresses = {member: (ip, port) for member, ip, port in configuration.addresses}
    members = configuration.members
    parts = [_CONFIGURATION.pack(VERSION, bytes(5), len(members))]
    for member in members:
        ip, port = addresses.get(member, (0, 0))
        flags = (
            _VOTER * (member in configuration.voters)
            | _OUTGOING * (member in configuration.outgoing)
            | _LEARNER * (member in configuration.learners)
        )
        parts.append(_CONFIGURED.pack(slot_of(member), port, ip, incarnation_of(member), flags))
    return b"".join(parts)


def decode_configuration(data: bytes) -> Configuration:
    """What :func:`encode_configuration` wrote. Raises MessageError, and nothing else, for any other bytes."""
    if len(data) < _CONFIGURATION.size:
        raise MessageError(Reason.SHORT, f"CONFIGURATION: {len(data)} bytes")
    version, reserved, count = _CONFIGURATION.unpack_from(data)
    if version != VERSION:
        raise MessageError(Reason.VERSION, f"CONFIGURATION: version {version}, we speak {VERSION}")
    _exact_length(len(data), _CONFIGURATION.size + _CONFIGURED.size * count, "CONFIGURATION")
    _require(not any(reserved), "CONFIGURATION", reserved)
    voters, outgoing, learners, addresses = [], [], [], []
    before = -1
    for at in range(_CONFIGURATION.size, len(data), _CONFIGURED.size):
        slot, port, ip, incarnation, flags = _CONFIGURED.unpack_from(data, at)
        member = member_id(slot, incarnation)
        good = before < member and 0 < flags < 2 * _LEARNER and data[at + 17 : at + 20] == bytes(3)
        _require(good, "CONFIGURATION", (before, member, flags))
        before = member
        if flags & _VOTER:
            voters.append(member)
        if flags & _OUTGOING:
            outgoing.append(member)
        if flags & _LEARNER:
            learners.append(member)
        if ip or port:
            addresses.append((member, ip, port))
    try:
        return Configuration(tuple(voters), tuple(outgoing), tuple(learners), tuple(addresses))
    except ValueError as error:
        raise MessageError(Reason.FIELD, f"CONFIGURATION: {error}") from error


def _require(good: bool, kind: str, fields: object) -> None:
    if not good:
        raise MessageError(Reason.FIELD, f"{kind}: {fields}")


def _exact_length(total_bytes: int, expected_bytes: int, kind: str) -> None:
    if total_bytes != expected_bytes:
        raise MessageError(Reason.LENGTH, f"{kind}: {total_bytes} bytes, expected {expected_bytes}")


def _entries(count: int, bytes_count: int, room_bytes: int, kind: str) -> None:
    """The entries fill the message to its end, and so many entries can fit into so many bytes."""
    if bytes_count != room_bytes:
        raise MessageError(Reason.LENGTH, f"{kind}: {bytes_count} bytes of entries announced, {room_bytes} there")
    _require(
        bytes_count >= ENTRY_BYTES_MIN * count
        and bytes_count % ENTRY_ALIGNMENT_BYTES == 0
        and (count == 0) == (bytes_count == 0),
        kind,
        (count, bytes_count),
    )


def _flag(value: int, kind: str) -> bool:
    _require(value in (0, _YES), kind, f"flag and reserved bytes {value:#x}")
    return value != 0


def _last_entry(prefix: bytes, total_bytes: int, term: int, kind: str) -> tuple[int, int]:
    """(last_index, last_term) of one who asks for votes in a term that none of its entries can have yet."""
    _exact_length(total_bytes, Vote.HEADER_BYTES, kind)
    last_index, last_term = _TWO.unpack_from(prefix, COMMON_BYTES)
    _require(
        last_index < INDEX_LIMIT and last_term < term and (last_index == 0) == (last_term == 0),
        kind,
        (last_index, last_term, term),
    )
    return last_index, last_term


def _decode_pre_vote(prefix: bytes, total_bytes: int, sender: int, term: int) -> Message:
    return PreVote(sender, 0, term, *_last_entry(prefix, total_bytes, term, "PRE_VOTE"))


def _decode_vote(prefix: bytes, total_bytes: int, sender: int, term: int) -> Message:
    return Vote(sender, 0, term, *_last_entry(prefix, total_bytes, term, "VOTE"))


def _decode_vote_transfer(prefix: bytes, total_bytes: int, sender: int, term: int) -> Message:
    return Vote(sender, 0, term, *_last_entry(prefix, total_bytes, term, "VOTE_TRANSFER"), transfer=True)


def _decode_pre_vote_reply(prefix: bytes, total_bytes: int, sender: int, term: int) -> Message:
    _exact_length(total_bytes, PreVoteReply.HEADER_BYTES, "PRE_VOTE_REPLY")
    return PreVoteReply(sender, 0, term, _flag(_ONE.unpack_from(prefix, COMMON_BYTES)[0], "PRE_VOTE_REPLY"))


def _decode_vote_reply(prefix: bytes, total_bytes: int, sender: int, term: int) -> Message:
    _exact_length(total_bytes, VoteReply.HEADER_BYTES, "VOTE_REPLY")
    return VoteReply(sender, 0, term, _flag(_ONE.unpack_from(prefix, COMMON_BYTES)[0], "VOTE_REPLY"))


def _decode_append(prefix: bytes, total_bytes: int, sender: int, term: int) -> Message:
    fields = _APPEND_BODY.unpack_from(prefix, COMMON_BYTES)
    prev_index, prev_term, entries_term, commit, global_commit, round_, count, bytes_count = fields
    _entries(count, bytes_count, total_bytes - Append.HEADER_BYTES, "APPEND")
    if not (
        prev_index + count < INDEX_LIMIT
        and prev_term <= term
        and (prev_index == 0) == (prev_term == 0)
        and (prev_term <= entries_term <= term and entries_term > 0 if count else entries_term == 0)
        and global_commit <= commit < INDEX_LIMIT
        and 0 < round_ < INDEX_LIMIT
    ):
        raise MessageError(Reason.FIELD, f"APPEND: term {term}, {fields}")
    return Append(sender, 0, term, *fields)


def _decode_append_reply(prefix: bytes, total_bytes: int, sender: int, term: int) -> Message:
    if total_bytes != _APPEND_REPLY_BYTES:
        _exact_length(total_bytes, _APPEND_REPLY_BYTES, "APPEND_REPLY")
    fields = _APPEND_REPLY_BODY.unpack_from(prefix, COMMON_BYTES)
    round_, match_index, hint_index, hint_term, applied_index, accepted = fields
    if not (
        0 < round_ < INDEX_LIMIT
        and match_index < INDEX_LIMIT
        and hint_index < INDEX_LIMIT
        and hint_term <= term
        and applied_index < INDEX_LIMIT
    ):
        raise MessageError(Reason.FIELD, f"APPEND_REPLY: term {term}, {fields}")
    if accepted != 0 and accepted != _YES:
        raise MessageError(Reason.FIELD, f"APPEND_REPLY: flag and reserved bytes {accepted:#x}")
    return AppendReply(sender, 0, term, round_, match_index, hint_index, hint_term, applied_index, accepted != 0)


def _decode_forward(prefix: bytes, total_bytes: int, sender: int, term: int) -> Message:
    count, bytes_count = _COUNTS.unpack_from(prefix, COMMON_BYTES)
    _entries(count, bytes_count, total_bytes - Forward.HEADER_BYTES, "FORWARD")
    _require(count > 0, "FORWARD", "no entries")
    return Forward(sender, 0, term, count, bytes_count)


def _decode_hello(prefix: bytes, total_bytes: int, sender: int, term: int) -> Message:
    _exact_length(total_bytes, Hello.HEADER_BYTES, "HELLO")
    flags, to_incarnation = _TWO.unpack_from(prefix, COMMON_BYTES)
    state, coordinator = flags >> 56, flags >> 48 & 0xFF
    _require(state <= HELLO_FORMED and coordinator <= 1 and flags & 0xFFFFFFFFFFFF == 0, "HELLO", f"{flags:#x}")
    return Hello(sender, 0, term, state, coordinator == 1, to_incarnation)


def _decode_formed(prefix: bytes, total_bytes: int, sender: int, term: int) -> Message:
    head = _ONE.unpack_from(prefix, COMMON_BYTES)[0]
    count = head >> 48
    _require(1 <= count <= MEMBERS_MAX and head & 0xFFFFFFFFFFFF == 0, "FORMED", f"{head:#x}")
    expected_bytes = Formed.HEADER_BYTES + MEMBER_BYTES * count
    _exact_length(total_bytes, expected_bytes, "FORMED")
    if len(prefix) < expected_bytes:
        raise MessageError(Reason.LENGTH, f"FORMED: {count} members need {expected_bytes} bytes, got {len(prefix)}")
    members: list[tuple[int, int]] = []
    before = -1
    for i in range(count):
        member, high, low, incarnation = _MEMBER.unpack_from(prefix, Formed.HEADER_BYTES + MEMBER_BYTES * i)
        good = before < member < NO_SENDER and high == 0 and low == 0 and incarnation != 0
        _require(good, "FORMED", (before, member, high, low, incarnation))
        members.append((member, incarnation))
        before = member
    return Formed(sender, 0, term, tuple(members))


def _decode_read_index(prefix: bytes, total_bytes: int, sender: int, term: int) -> Message:
    _exact_length(total_bytes, ReadIndex.HEADER_BYTES, "READ_INDEX")
    return ReadIndex(sender, 0, term, _ONE.unpack_from(prefix, COMMON_BYTES)[0])


def _decode_read_index_reply(prefix: bytes, total_bytes: int, sender: int, term: int) -> Message:
    _exact_length(total_bytes, ReadIndexReply.HEADER_BYTES, "READ_INDEX_REPLY")
    context, index, granted = _READ_INDEX_REPLY_BODY.unpack_from(prefix, COMMON_BYTES)
    reply = ReadIndexReply(sender, 0, term, context, index, _flag(granted, "READ_INDEX_REPLY"))
    _require(index < INDEX_LIMIT and (index > 0) == reply.granted, "READ_INDEX_REPLY", (index, reply.granted))
    return reply


def _decode_timeout_now(prefix: bytes, total_bytes: int, sender: int, term: int) -> Message:
    _exact_length(total_bytes, TimeoutNow.HEADER_BYTES, "TIMEOUT_NOW")
    return TimeoutNow(sender, 0, term)


def _decode_install_snapshot(prefix: bytes, total_bytes: int, sender: int, term: int) -> Message:
    fields = _INSTALL_BODY.unpack_from(prefix, COMMON_BYTES)
    index, index_term, offset, snapshot_bytes, bytes_count, configuration_bytes = fields
    header_bytes = InstallSnapshot.HEADER_BYTES + configuration_bytes
    _exact_length(total_bytes, header_bytes + bytes_count, "INSTALL_SNAPSHOT")
    _require(
        0 < index < INDEX_LIMIT
        and 0 < index_term <= term
        and bytes_count > 0
        and offset + bytes_count <= snapshot_bytes < INDEX_LIMIT
        and (configuration_bytes > 0) == (offset == 0),
        "INSTALL_SNAPSHOT",
        fields,
    )
    configuration = None
    if configuration_bytes:
        if len(prefix) < header_bytes:
            raise MessageError(Reason.LENGTH, f"INSTALL_SNAPSHOT: needs {header_bytes} bytes, got {len(prefix)}")
        configuration = decode_configuration(prefix[InstallSnapshot.HEADER_BYTES : header_bytes])
    return InstallSnapshot(sender, 0, term, index, index_term, offset, snapshot_bytes, bytes_count, configuration)


def _decode_install_snapshot_reply(prefix: bytes, total_bytes: int, sender: int, term: int) -> Message:
    _exact_length(total_bytes, InstallSnapshotReply.HEADER_BYTES, "INSTALL_SNAPSHOT_REPLY")
    index, offset, installed, applied_index = _INSTALL_REPLY_BODY.unpack_from(prefix, COMMON_BYTES)
    flag = _flag(installed, "INSTALL_SNAPSHOT_REPLY")
    _require(
        0 < index < INDEX_LIMIT and offset < INDEX_LIMIT and applied_index < INDEX_LIMIT,
        "INSTALL_SNAPSHOT_REPLY",
        (index, offset, applied_index),
    )
    return InstallSnapshotReply(sender, 0, term, index, offset, flag, applied_index)


_DECODERS: tuple[tuple[int, Callable[[bytes, int, int, int], Message]], ...] = (
    (PreVote.HEADER_BYTES, _decode_pre_vote),
    (PreVoteReply.HEADER_BYTES, _decode_pre_vote_reply),
    (Vote.HEADER_BYTES, _decode_vote),
    (VoteReply.HEADER_BYTES, _decode_vote_reply),
    (Append.HEADER_BYTES, _decode_append),
    (AppendReply.HEADER_BYTES, _decode_append_reply),
    (Forward.HEADER_BYTES, _decode_forward),
    (Hello.HEADER_BYTES, _decode_hello),
    (Formed.HEADER_BYTES, _decode_formed),
    (ReadIndex.HEADER_BYTES, _decode_read_index),
    (ReadIndexReply.HEADER_BYTES, _decode_read_index_reply),
    (TimeoutNow.HEADER_BYTES, _decode_timeout_now),
    (Vote.HEADER_BYTES, _decode_vote_transfer),
    (InstallSnapshot.HEADER_BYTES, _decode_install_snapshot),
    (InstallSnapshotReply.HEADER_BYTES, _decode_install_snapshot_reply),
)
