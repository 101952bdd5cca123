"""The messages of Raft, one class per kind of docs/wire.md.

Plain values: the codec checks what comes from the wire, so whoever holds a message may trust its ranges. ``target``
is who it is meant for when it is sent; a decoded message has target 0, since the wire does not carry it.
``request_id`` is the R2P2 request id, outside the body; a reply carries the one of its request. ``payload`` is an
opaque handle to the entry bytes of a received Append or Forward: it is passed through to the log operation untouched.

Left to others: bytes (codec.py), meaning (core.py), formation of a cluster by Hello and Formed (the node).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from raft.configuration import Configuration

HELLO_FRESH = 0
HELLO_FORMED = 1
# The round of an answer that confirms none: above all that a leader gives out, below what the codec refuses.
NO_ROUND = (1 << 63) - 1


@dataclass(slots=True)
class PreVote:
    """Would you vote for me in ``term`` (one above the sender's own)? Changes nobody's term."""

    sender: int
    target: int
    term: int
    last_index: int
    last_term: int
    request_id: int = 0
    payload: object = None
    KIND: ClassVar[int] = 1
    HEADER_BYTES: ClassVar[int] = 40


@dataclass(slots=True)
class PreVoteReply:
    """Answer to PreVote; granted: ``term`` is the term asked for; refused: the sender's own."""

    sender: int
    target: int
    term: int
    granted: bool
    request_id: int = 0
    payload: object = None
    KIND: ClassVar[int] = 2
    HEADER_BYTES: ClassVar[int] = 32


@dataclass(slots=True)
class Vote:
    """A candidate of ``term`` asks for a vote; its log ends at (last_index, last_term).

    ``transfer``: its leader asked it to take over, so voters do not protect that leader. On the wire that is kind 13.
    """

    sender: int
    target: int
    term: int
    last_index: int
    last_term: int
    request_id: int = 0
    payload: object = None
    transfer: bool = False
    KIND: ClassVar[int] = 3
    HEADER_BYTES: ClassVar[int] = 40


@dataclass(slots=True)
class VoteReply:
    """Answer to Vote in the sender's ``term``."""

    sender: int
    target: int
    term: int
    granted: bool
    request_id: int = 0
    payload: object = None
    KIND: ClassVar[int] = 4
    HEADER_BYTES: ClassVar[int] = 32


@dataclass(slots=True)
class Append:
    """Entries ``prev_index + 1 .. prev_index + count``, all of ``entries_term``; none: a heartbeat, a probe or news
    of a commit.

    ``configuration``: the one entry holds it; such an entry travels alone. Who receives the message reads it from the
    entry's bytes and sets it before step().

    Appends of one leader with the same term and round are equal but for the target, so they can be encoded once.
    """

    sender: int
    target: int
    term: int
    prev_index: int
    prev_term: int
    entries_term: int
    commit: int
    global_commit: int
    round: int
    count: int
    bytes_count: int
    request_id: int = 0
    payload: object = None
    configuration: Configuration | None = None
    KIND: ClassVar[int] = 5
    HEADER_BYTES: ClassVar[int] = 80


@dataclass(slots=True)
class AppendReply:
    """Answer to the Append ``round``; to one of an older term: NO_ROUND, for rounds are counted anew in each term.

    accepted: the log matches the leader's through ``match_index``, which is the Append's prev_index + count.
    Not accepted: the entry at ``match_index`` (the Append's prev_index) is missing (hint_term 0, hint_index is the
    last index) or has the other term ``hint_term``, whose first uncommitted entry is ``hint_index``.
    """

    sender: int
    target: int
    term: int
    round: int
    match_index: int
    hint_index: int
    hint_term: int
    applied_index: int
    accepted: bool
    request_id: int = 0
    payload: object = None
    KIND: ClassVar[int] = 6
    HEADER_BYTES: ClassVar[int] = 72


@dataclass(slots=True)
class Forward:
    """Client requests on their way from a follower to the leader, as ``count`` entries of ``bytes_count`` bytes."""

    sender: int
    target: int
    term: int
    count: int
    bytes_count: int
    request_id: int = 0
    payload: object = None
    KIND: ClassVar[int] = 7
    HEADER_BYTES: ClassVar[int] = 32


@dataclass(slots=True)
class Hello:
    """A member of a cluster that has not formed says that it is there; ``state`` is HELLO_FRESH or HELLO_FORMED."""

    sender: int
    target: int
    term: int
    state: int
    coordinator: bool
    to_incarnation: int
    request_id: int = 0
    payload: object = None
    KIND: ClassVar[int] = 8
    HEADER_BYTES: ClassVar[int] = 40


@dataclass(slots=True)
class Formed:
    """The cluster has formed of ``members``: (member id, incarnation) pairs in ascending order of id."""

    sender: int
    target: int
    term: int
    members: tuple[tuple[int, int], ...]
    request_id: int = 0
    payload: object = None
    KIND: ClassVar[int] = 9
    HEADER_BYTES: ClassVar[int] = 32


@dataclass(slots=True)
class ReadIndex:
    """A follower asks its leader how far it has to have applied to answer a read; ``context`` names the read there."""

    sender: int
    target: int
    term: int
    context: int
    request_id: int = 0
    payload: object = None
    KIND: ClassVar[int] = 10
    HEADER_BYTES: ClassVar[int] = 32


@dataclass(slots=True)
class ReadIndexReply:
    """Answer to ReadIndex: apply through ``index``, then read; or (not granted, index 0) ask somebody else."""

    sender: int
    target: int
    term: int
    context: int
    index: int
    granted: bool
    request_id: int = 0
    payload: object = None
    KIND: ClassVar[int] = 11
    HEADER_BYTES: ClassVar[int] = 48


@dataclass(slots=True)
class TimeoutNow:
    """The leader asks the target to stand for election at once: leadership transfer."""

    sender: int
    target: int
    term: int
    request_id: int = 0
    payload: object = None
    KIND: ClassVar[int] = 12
    HEADER_BYTES: ClassVar[int] = 24


@dataclass(slots=True)
class InstallSnapshot:
    """A piece of the state machine as it was after ``index`` (whose entry has ``index_term``), for a member whose next
    entries nobody keeps: bytes offset .. offset + bytes_count of ``total_bytes``.

    ``configuration``: what was in force at ``index``; in the first piece only.
    """

    sender: int
    target: int
    term: int
    index: int
    index_term: int
    offset: int
    total_bytes: int
    bytes_count: int
    configuration: Configuration | None = None
    request_id: int = 0
    payload: object = None
    KIND: ClassVar[int] = 14
    HEADER_BYTES: ClassVar[int] = 64


@dataclass(slots=True)
class InstallSnapshotReply:
    """Answer to InstallSnapshot: so many bytes of the snapshot of ``index`` are here; installed: that and all before it
    is in the state machine or in the log.
    """

    sender: int
    target: int
    term: int
    index: int
    offset: int
    installed: bool
    applied_index: int
    request_id: int = 0
    payload: object = None
    KIND: ClassVar[int] = 15
    HEADER_BYTES: ClassVar[int] = 56


Message: TypeAlias = (
    PreVote
    | PreVoteReply
    | Vote
    | VoteReply
    | Append
    | AppendReply
    | Forward
    | Hello
    | Formed
    | ReadIndex
    | ReadIndexReply
    | TimeoutNow
    | InstallSnapshot
    | InstallSnapshotReply
)
