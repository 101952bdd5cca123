"""What a member knows of snapshots: the one it can send, and the one it is being sent. Bytes are the node's.

Left to others: when to take one, the chunks themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

from raft.configuration import Configuration


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state machine after ``index``, whose entry has ``term``, in ``total_bytes`` that the node keeps."""

    index: int
    term: int
    total_bytes: int
    configuration: Configuration


@dataclass(slots=True)
class Incoming:
    """A snapshot on its way in from the leader of the current term: its first ``offset`` bytes are here.

    Beyond the commit, and of one leader's bytes: it ends with the term, and when the log has passed it.
    """

    index: int
    total_bytes: int
    configuration: Configuration
    offset: int = 0
