"""Reads R2P2 headers, Raft messages and log entries for printing.

What: :func:`header`, :func:`raft` and :func:`entries`, from bytes to small values or a word that says what docs/wire.md
forbids. Driven by tables, and quicker than Scapy by two orders of magnitude; the Scapy layers are the oracle the tests
hold it to. It shows what a peer sent, so it refuses less than a node does: a stranger's cluster id is printed, not
dropped.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

MAGIC: Final = 0xCC
HEADER_BYTES: Final = 8
SESSION_HEADER_BYTES: Final = 32
PAYLOAD_BYTES_MAX: Final = 1464
FIRST_PAYLOAD_BYTES: Final = 14
PACKETS_MAX: Final = 254
REQUEST, RESPONSE, FEEDBACK, ACK, DROP, RAFT_REQ, RAFT_REP, RAFT_MSG = range(8)
TYPE_NAMES: Final = ("REQUEST", "RESPONSE", "FEEDBACK", "ACK", "DROP", "RAFT_REQ", "RAFT_REP", "RAFT_MSG")
POLICY_NAMES: Final = ("LB_ROUTE", "FIXED_ROUTE", "REPLICATED_ROUTE", "REPLICATED_ROUTE_NO_SE")
FIRST: Final = 0x80
LAST: Final = 0x40
WHOLE: Final = FIRST | LAST

_HEADER: Final = struct.Struct(">BBBBHH")


class Header(NamedTuple):
    """A valid R2P2 header."""

    header_size: int
    type: int
    policy: int
    flags: int  # FIRST and LAST
    rid: int
    p_order: int


def header(packet: bytes) -> Header | str:
    """The header of an R2P2 packet, or what is wrong with the packet.

    The words: short, magic, size, type, policy, flags, order, oversize, payload.
    """
    length = len(packet)
    if length < HEADER_BYTES:
        return "short"
    magic, size, type_policy, flags, rid, p_order = _HEADER.unpack_from(packet)
    kind, policy = type_policy >> 4, type_policy & 15
    if magic != MAGIC:
        return "magic"
    if kind == FEEDBACK:
        # Deployed senders initialise only the magic, the type and the last eight bytes.
        return Header(HEADER_BYTES, kind, policy & 3, WHOLE, rid, 1) if length == 16 else "payload"
    if not HEADER_BYTES <= size <= length:
        return "size"
    if kind > RAFT_MSG:
        return "type"
    if policy > 3:
        return "policy"
    if flags & ~WHOLE:
        return "flags"
    if flags & FIRST:
        if not 1 <= p_order <= PACKETS_MAX:
            return "order"
        if (p_order == 1) != (flags & LAST != 0):
            return "flags"
    elif not 1 <= p_order < PACKETS_MAX:
        return "order"
    return _payload_problem(packet, size, kind, flags) or Header(size, kind, policy, flags, rid, p_order)


def _payload_problem(packet: bytes, size: int, kind: int, flags: int) -> str | None:
    length = len(packet) - size
    if length > PAYLOAD_BYTES_MAX - (size - HEADER_BYTES):  # an extension takes of the payload's room
        return "oversize"
    if kind == DROP and size == SESSION_HEADER_BYTES:
        return None if packet[size:] in (b"", b"DROP", b"SESSION_EXPIRED") else "payload"
    if kind in (ACK, DROP):
        return None if packet[size:] == (b"ACK" if kind == ACK else b"DROP") else "payload"
    return "payload" if kind == REQUEST and flags == FIRST and length != FIRST_PAYLOAD_BYTES else None


class Kind(NamedTuple):
    """A Raft message kind: its fields after the common header, in wire order."""

    name: str
    type: int
    layout: struct.Struct
    fields: tuple[str, ...]


COMMON: Final = struct.Struct(">BBHIQQ")
KINDS: Final = {
    1: Kind("PRE_VOTE", RAFT_REQ, struct.Struct(">QQ"), ("last_index", "last_term")),
    2: Kind("PRE_VOTE_REPLY", RAFT_REP, struct.Struct(">B7s"), ("granted", "reserved")),
    3: Kind("VOTE", RAFT_REQ, struct.Struct(">QQ"), ("last_index", "last_term")),
    4: Kind("VOTE_REPLY", RAFT_REP, struct.Struct(">B7s"), ("granted", "reserved")),
    5: Kind(
        "APPEND",
        RAFT_REQ,
        struct.Struct(">QQQQQQII"),
        ("prev_index", "prev_term", "entries_term", "commit", "global_commit", "round", "count", "bytes"),
    ),
    6: Kind(
        "APPEND_REPLY",
        RAFT_REP,
        struct.Struct(">QQQQQB7s"),
        ("round", "match_index", "hint_index", "hint_term", "applied_index", "accepted", "reserved"),
    ),
    7: Kind("FORWARD", RAFT_MSG, struct.Struct(">II"), ("count", "bytes")),
    8: Kind("HELLO", RAFT_MSG, struct.Struct(">BB6sQ"), ("state", "coordinator", "reserved", "to_incarnation")),
    9: Kind("FORMED", RAFT_MSG, struct.Struct(">H6s"), ("count", "reserved")),
    10: Kind("READ_INDEX", RAFT_REQ, struct.Struct(">Q"), ("context",)),
    11: Kind("READ_INDEX_REPLY", RAFT_REP, struct.Struct(">QQB7s"), ("context", "index", "granted", "reserved")),
    12: Kind("TIMEOUT_NOW", RAFT_MSG, struct.Struct(">"), ()),
    13: Kind("VOTE_TRANSFER", RAFT_REQ, struct.Struct(">QQ"), ("last_index", "last_term")),
    14: Kind(
        "INSTALL_SNAPSHOT",
        RAFT_REQ,
        struct.Struct(">QQQQII"),
        ("index", "index_term", "offset", "total_bytes", "chunk_bytes", "configuration_bytes"),
    ),
    15: Kind(
        "INSTALL_SNAPSHOT_REPLY",
        RAFT_REP,
        struct.Struct(">QQB7sQ"),
        ("index", "offset", "installed", "reserved", "applied_index"),
    ),
}
_FLAGS: Final = ("granted", "accepted", "state", "coordinator", "installed")


class Member(NamedTuple):
    """One member of a FORMED message."""

    member: int
    incarnation: int


class Raft(NamedTuple):
    """A Raft message: the common header, and the fields of its kind by name (without ``reserved``)."""

    kind: str
    sender: int
    cluster_id: int
    incarnation: int
    term: int
    fields: dict[str, int]
    entries: bytes  # of an APPEND or FORWARD, as they lie there
    members: tuple[Member, ...]  # of a FORMED


def raft(body: bytes, r2p2_type: int, is_cut: bool = False) -> Raft | str:
    """The Raft message in a whole R2P2 message, or what is wrong with it.

    The words: short, version, kind, type, incarnation, length, field, entry. ``is_cut`` says that the end of ``body``
    is made up because the capture cut it: entries are not looked at then, and not given.
    """
    if len(body) < COMMON.size:
        return "short"
    version, number, sender, cluster_id, incarnation, term = COMMON.unpack_from(body)
    kind = KINDS.get(number)
    if version != 1:
        return "version"
    if kind is None:
        return "kind"
    if kind.type != r2p2_type:
        return "type"
    if incarnation == 0:
        return "incarnation"
    if len(body) < COMMON.size + kind.layout.size:
        return "length"
    values = dict(zip(kind.fields, kind.layout.unpack_from(body, COMMON.size), strict=True))
    reserved = values.pop("reserved", b"")
    rest = b"" if is_cut else body[COMMON.size + kind.layout.size :]
    problem, members = (None, ()) if is_cut else _rest_problem(kind.name, values, rest)
    if problem is None and (any(reserved) or any(values.get(name, 0) > 1 for name in _FLAGS)):
        problem = "field"
    return problem or Raft(
        kind.name, sender, cluster_id, incarnation, term, values, rest if "bytes" in values else b"", members
    )


def _rest_problem(name: str, values: dict[str, int], rest: bytes) -> tuple[str | None, tuple[Member, ...]]:
    """What is wrong after the fixed fields, and the members when it is a FORMED."""
    if "bytes" in values:
        problem = _entries_problem(values["count"], values["bytes"], rest, timed=name == "APPEND")
        if problem is None and name == "APPEND" and (values["count"] == 0) != (values["entries_term"] == 0):
            problem = "field"
        return problem, ()
    if name == "READ_INDEX_REPLY" and not rest and (values["index"] > 0) != (values["granted"] > 0):
        return "field", ()
    if name == "INSTALL_SNAPSHOT":
        return _snapshot_problem(values, len(rest)), ()
    if name != "FORMED":
        return ("length" if rest else None), ()
    if len(rest) != values["count"] * 16:
        return "length", ()
    members = []
    for member, reserved, incarnation in struct.iter_unpack(">H6sQ", rest):
        if any(reserved) or not incarnation:
            return "field", ()
        members.append(Member(member, incarnation))
    return None, tuple(members)


def _snapshot_problem(values: dict[str, int], length: int) -> str | None:
    if length != values["chunk_bytes"] + values["configuration_bytes"]:
        return "length"
    fits = values["chunk_bytes"] and values["offset"] + values["chunk_bytes"] <= values["total_bytes"]
    return None if fits and (values["offset"] == 0) == (values["configuration_bytes"] > 0) else "field"


ENTRY: Final = struct.Struct(">IIHHBBBB")
TIMED: Final = 1
TIME: Final = struct.Struct(">Q")
TIME_MS_MAX: Final = (1 << 48) - 1
_CONFIG: Final = 3
ENTRY_KINDS: Final = ("NOOP", "REQUEST", "REQUEST_SESSION", "CONFIG")


class Entry(NamedTuple):
    """One log entry; ``time_ms`` 0: it carries none."""

    client_ip: int
    client_port: int
    rid: int
    kind: int
    policy: int
    time_ms: int
    body: bytes


def _time_is_good(data: bytes, at: int, body_length: int, kind: int) -> bool:
    return body_length >= TIME.size and kind != _CONFIG and 0 < TIME.unpack_from(data, at)[0] <= TIME_MS_MAX


def _entries_problem(count: int, length: int, data: bytes, *, timed: bool) -> str | None:
    """timed: entries may carry a time, as only a leader's do."""
    if length != len(data):
        return "length"
    at = found = 0
    while at < length:
        if at + ENTRY.size > length:
            return "entry"
        body_length, client_ip, _, _, kind, policy, reserved, flags = ENTRY.unpack_from(data, at)
        body = at + ENTRY.size
        end = body + body_length
        at = end + -body_length % 8
        if at > length or kind >= len(ENTRY_KINDS) or policy > 3 or reserved or any(data[end:at]):
            return "entry"
        if kind == 0 and client_ip:
            return "entry"
        if flags and (flags != TIMED or not timed or not _time_is_good(data, body, body_length, kind)):
            return "entry"
        found += 1
    return None if found == count else "entry"


def entries(message: Raft) -> Iterator[Entry]:
    """The entries of a valid APPEND or FORWARD, in order."""
    data, at = message.entries, 0
    while at < len(data):
        body_length, client_ip, client_port, rid, kind, policy, _, flags = ENTRY.unpack_from(data, at)
        at += ENTRY.size
        end, time_ms = at + body_length, 0
        if flags & TIMED:
            time_ms = TIME.unpack_from(data, at)[0]
            at += TIME.size
        yield Entry(client_ip, client_port, rid, kind, policy, time_ms, data[at:end])
        at = end + -body_length % 8
