"""Raft messages as they come in: the gateway that lets through what is well-formed, and counts the rest.

What has passed is trusted inside. Leaves to others: packets and entries (the engine), the messages' layout
(``raft/codec.py``), whether the sender is anybody who may speak (:mod:`r2p2.node.node`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from r2p2 import limits
from r2p2.engine import Engine, RaftMessage
from r2p2.node.counters import ENGINE_REASONS
from raft import (
    Append,
    Forward,
    InstallSnapshot,
    Message,
    MessageError,
    Reason,
    decode,
    decode_configuration,
    member_id,
)

__all__ = ["R2P2_TYPES", "Incoming"]

R2P2_TYPES: Final = {1: 5, 2: 6, 3: 5, 4: 6, 5: 5, 6: 6, 7: 7, 8: 7, 9: 7, 10: 5, 11: 6, 12: 7, 14: 5, 15: 6}
"""R2P2 type by kind of Raft message (docs/wire.md): requests 5, replies 6, one-way messages 7."""

_INSTALL_SNAPSHOT: Final = bytes([InstallSnapshot.KIND])
_WITH_ENTRIES: Final = (Append, Forward)


class Incoming:
    """The gateway of one node.

    Args:
        engine: has received them.
        cluster_id: of the group; messages of others are dropped.
        counters: the node's.
    """

    COUNTERS: Final = (
        *(f"raft_bad_{reason.value}" for reason in Reason if reason not in ENGINE_REASONS),
        "raft_bad_entries",
        "raft_drop_snapshot_too_large",
    )

    def __init__(self, engine: Engine, cluster_id: int, counters: dict[str, int]) -> None:
        self._engine = engine
        self._cluster_id = cluster_id
        self._counters = counters
        for name in self.COUNTERS:
            counters.setdefault(name, 0)

    def messages(self) -> Iterator[tuple[Message, int, tuple[int, int]]]:
        """The good ones of the last poll, each once: the message, its sender's incarnation and address.

        Its ``sender`` is a member's identity, its ``payload`` the engine's handle, valid until the next poll.
        """
        for raw in self._engine.raft_messages():
            decoded = self._decode(raw)
            if decoded is not None:
                yield decoded[0], decoded[1], (raw.source_ip, raw.source_port)

    def _decode(self, raw: RaftMessage) -> tuple[Message, int] | None:
        """A good message and its sender's incarnation, or None and a counter."""
        prefix = raw.prefix
        if prefix[1:2] == _INSTALL_SNAPSHOT and raw.length > len(prefix):  # a configuration may stand in front
            length = min(raw.length, InstallSnapshot.HEADER_BYTES + limits.CONFIGURATION_BYTES_MAX)
            prefix = self._engine.message_bytes(raw.handle, 0, length)
        try:
            message, incarnation = decode(prefix, raw.length, cluster_id=self._cluster_id)
            message.sender = member_id(message.sender, incarnation)
            if isinstance(message, InstallSnapshot) and message.total_bytes > limits.SNAPSHOT_BYTES_MAX:
                self._counters["raft_drop_snapshot_too_large"] += 1
                return None
        except MessageError as error:
            # The head's version is the engine's to look at: here it is that of a configuration behind it.
            reason = Reason.FIELD if error.reason in ENGINE_REASONS else error.reason
            self._counters[f"raft_bad_{reason.value}"] += 1
            return None
        if raw.type != R2P2_TYPES[message.KIND]:
            self._counters["raft_bad_kind"] += 1
            return None
        if isinstance(message, _WITH_ENTRIES) and message.count and not self._entries_are_good(raw.handle, message):
            self._counters["raft_bad_entries"] += 1
            return None
        message.request_id = raw.rid
        message.payload = raw.handle
        return message, incarnation

    def _entries_are_good(self, handle: int, message: Append | Forward) -> bool:
        """Looks at the entries of a message, and reads a configuration out of them: the leader's to append."""
        if not self._engine.check_entries(handle, message.HEADER_BYTES, timed=isinstance(message, Append)):
            return False
        if message.count != 1:
            return True
        body = self._engine.configuration_bytes(handle, message.HEADER_BYTES)
        if not body:
            return True
        if isinstance(message, Forward):
            return False
        try:
            message.configuration = decode_configuration(body)
        except MessageError:
            return False
        return True
