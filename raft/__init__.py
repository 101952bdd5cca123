"""Raft without I/O: no clock, no randomness, no socket, no logging.

``now_ns`` and a seeded random source are arguments; messages come in by :meth:`Raft.step` and go out in :class:`Ready`
values. The core works on index ranges and terms and never sees the bytes of an entry: whoever embeds it keeps them.

What is left to others: entry storage, durable writes, the network, the state machine, clients.
"""

from raft.codec import (
    Identity,
    MessageError,
    Reason,
    common_head,
    decode,
    decode_configuration,
    encode,
    encode_configuration,
)
from raft.config import Chance, ChangeRefused, Config, HardState, Log, NotLeader, Role
from raft.configuration import Configuration, incarnation_of, member_id, slot_of
from raft.core import Raft
from raft.messages import (
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
from raft.ready import (
    AbandonSnapshot,
    AppendConfiguration,
    AppendEntries,
    AppendNoop,
    LogOp,
    Ready,
    RestoreSnapshot,
    SnapshotChunk,
    Truncate,
)
from raft.term_runs import TermRuns

__all__ = [
    "AbandonSnapshot",
    "Append",
    "AppendConfiguration",
    "AppendEntries",
    "AppendNoop",
    "AppendReply",
    "Chance",
    "ChangeRefused",
    "Config",
    "Configuration",
    "Formed",
    "Forward",
    "HardState",
    "Hello",
    "Identity",
    "InstallSnapshot",
    "InstallSnapshotReply",
    "Log",
    "LogOp",
    "Message",
    "MessageError",
    "NotLeader",
    "PreVote",
    "PreVoteReply",
    "Raft",
    "ReadIndex",
    "ReadIndexReply",
    "Ready",
    "Reason",
    "RestoreSnapshot",
    "Role",
    "SnapshotChunk",
    "TermRuns",
    "TimeoutNow",
    "Truncate",
    "Vote",
    "VoteReply",
    "common_head",
    "decode",
    "decode_configuration",
    "encode",
    "encode_configuration",
    "incarnation_of",
    "member_id",
    "slot_of",
]
