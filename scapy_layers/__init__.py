"""R2P2 and its Raft messages in Scapy: ``from scapy_layers import *`` reads UDP ports 8000 and 9000 as R2P2.

An independent reading of docs/wire.md: it imports Scapy and nothing of this project, so that the C codec and this one
can be held against each other. :func:`bind_port` adds further ports.
"""

from scapy_layers.messages import R2P2MessageSession, Reassembler, packets
from scapy_layers.r2p2 import R2P2, R2P2Ack, R2P2Drop, R2P2Feedback, R2P2SessionExtension, bind_port, body
from scapy_layers.raft import (
    RaftAppend,
    RaftAppendReply,
    RaftConfiguration,
    RaftConfigured,
    RaftEntry,
    RaftFormed,
    RaftForward,
    RaftHello,
    RaftInstallSnapshot,
    RaftInstallSnapshotReply,
    RaftMember,
    RaftMessage,
    RaftPreVote,
    RaftPreVoteReply,
    RaftReadIndex,
    RaftReadIndexReply,
    RaftTimeoutNow,
    RaftVote,
    RaftVoteReply,
    RaftVoteTransfer,
)

__all__ = [
    "R2P2",
    "R2P2Ack",
    "R2P2Drop",
    "R2P2Feedback",
    "R2P2MessageSession",
    "R2P2SessionExtension",
    "RaftAppend",
    "RaftAppendReply",
    "RaftConfiguration",
    "RaftConfigured",
    "RaftEntry",
    "RaftFormed",
    "RaftForward",
    "RaftHello",
    "RaftInstallSnapshot",
    "RaftInstallSnapshotReply",
    "RaftMember",
    "RaftMessage",
    "RaftPreVote",
    "RaftPreVoteReply",
    "RaftReadIndex",
    "RaftReadIndexReply",
    "RaftTimeoutNow",
    "RaftVote",
    "RaftVoteReply",
    "RaftVoteTransfer",
    "Reassembler",
    "bind_port",
    "body",
    "packets",
]
