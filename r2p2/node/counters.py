"""What each counter that a node keeps in Python counts; those of the engine and of the ports have their text in C.

For docs/reference/counters.md. A test holds that a node has no counter without a text.
"""

from __future__ import annotations

from typing import Final

from raft.codec import Reason

__all__ = ["ENGINE_REASONS", "NODE_COUNTERS"]

# These the engine finds before a message is Python's, and counts under the same names.
ENGINE_REASONS: Final = (Reason.VERSION, Reason.CLUSTER)

_BAD: Final[dict[str, str]] = {
    f"raft_bad_{reason.value}": f"Raft messages dropped: {reason.name.lower().replace('_', ' ')}"
    for reason in Reason
    if reason not in ENGINE_REASONS
}

NODE_COUNTERS: Final[dict[str, str]] = _BAD | {
    "raft_bad_entries": "Raft messages dropped: their entries contradict themselves",
    "raft_drop_forming": "Raft messages dropped: the cluster has not formed here yet, or is not the one to be joined",
    "raft_drop_stranger": "Raft messages dropped: their sender is no member, or sends from another address",
    "raft_drop_gone": "Raft messages dropped: of a launch that is no member any more",
    "raft_drop_snapshot_too_large": "snapshots refused: over their bound",
    "raft_drop_log_full": "Appends dropped: the log is at its bound",
    "polls_busy": "polls that handled at least one packet",
    "apply_batches": "batches given to the application",
    "appends_sent": "Appends with entries sent to followers",
    "append_entries": "entries in them, each message counted once for all its targets",
    "steady_steps": "polls in which the engine took the usual step of replication by itself (decision 21)",
    "forwards_refused": "requests that a leader passed back because it leads no more",
    "handler_stalls": "batches that took the application longer than an election timeout, by the clock",
    "queries_refused": "unreplicated requests refused: too many waited for an application that was busy",
    "determinism_checks": "places at which this member compared its results with the leader's",
    "determinism_differences": "of these, where they differed: the application is not deterministic",
    "handler_errors": "requests whose handler raised or returned no reply, which was answered with an error",
    "handler_over_budget": "batches whose handler took longer than its budget",
    "read_groups": "groups of linearizable reads taken",
    "reads_asked_again": "questions for a read index that were sent again",
    "reads_failed": "reads answered with an error: the application raised",
    "log_compactions": "times the log was cut behind a snapshot because a member held it",
    "members_evicted": "members removed because they held the log",
    "snapshots_taken": "snapshots of the application taken",
    "snapshots_restored": "snapshots of the application restored",
    "snapshots_abandoned": "snapshots that came in part only: the log overtook them, or their leader's term ended",
    "snapshots_unused": "snapshots of no use: the log went beyond, the leader's came, or a member was sent another",
    "snapshots_over_budget": "snapshots that held the loop up for longer at once than a handler may",
    "snapshot_chunks_sent": "pieces of snapshots sent",
    "storage_syncs": "fsyncs of the log",
    "storage_entries": "entries written to the disk",
    "storage_bytes": "bytes written to the disk",
    "storage_snapshots": "snapshots written to the disk",
    "storage_full": "1: the disk's share is used up, and new requests are refused",
}
