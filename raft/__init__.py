"""Raft without I/O: no clock, no randomness, no socket, no logging.

``now_ns`` and a seeded random source are arguments; messages come in by :meth:`Raft.step` and go out in :class:`Ready`
values. The core works on index ranges and terms and never sees the bytes of an entry: whoever embeds it keeps them.

What is left to others: entry storage, durable writes, the network, the state machine, clients.
"""

from raft.codec import Identity, MessageError, Reason, decode, encode
from raft.config import Chance, Config, HardState, Log, NotLeader, Role
from raft.core import Raft
from raft.messages import (
    Append,
    AppendReply,
    Formed,
    Forward,
    Hello,
    Message,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    TimeoutNow,
    Vote,
    VoteReply,
)
from raft.ready import AppendEntries, AppendNoop, LogOp, Ready, Truncate
from raft.term_runs import TermRuns

__all__ = [
    "Append",
    "AppendEntries",
    "AppendNoop",
    "AppendReply",
    "Chance",
    "Config",
    "Formed",
    "Forward",
    "HardState",
    "Hello",
    "Identity",
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
    "Role",
    "TermRuns",
    "TimeoutNow",
    "Truncate",
    "Vote",
    "VoteReply",
    "decode",
    "encode",
]
