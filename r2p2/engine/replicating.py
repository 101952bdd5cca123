"""Raft's messages, and the step of replication that the engine takes by itself (docs/adr/0021)."""

from __future__ import annotations

from collections.abc import Collection
from struct import Struct
from typing import Any, Final

from r2p2 import limits
from r2p2._engine import ffi, lib
from r2p2.engine.polling import Polling
from r2p2.engine.records import RaftMessage
from r2p2.engine.status import check, check_head

_RAFT_MESSAGE_BYTES: Final[int] = ffi.sizeof("r2p2_raft_message")
_RAFT_PREFIX_OFFSET: Final[int] = ffi.offsetof("r2p2_raft_message", "prefix")
# handle, length, source_ip, source_port, rid, type, prefix_bytes; the prefix follows.
_RAFT_MESSAGE: Final = Struct("=IIIHHBxH4x")
assert _RAFT_MESSAGE.size == _RAFT_PREFIX_OFFSET


class Replicating(Polling):
    """Raft's side."""

    # ---- the replicated policy ----

    def set_group(self, cluster_id: int, peers: Collection[tuple[int, int]]) -> None:
        """Raft messages of another cluster are dropped from now on; ``peers``: where members are, for whom there is
        room in any case.
        """
        targets = ffi.new("r2p2_target[]", [(ip, port, 0) for ip, port in peers])
        check("r2p2_set_group", lib.r2p2_set_group(self._engine, cluster_id, targets, len(peers)))

    def set_role(self, role: int) -> None:
        """What becomes of replicated requests from now on: one of ``ROLE_*``."""
        lib.r2p2_set_role(self._engine, role)

    def forward_held(self, header: bytes, target: tuple[int, int]) -> int:
        """Sends held requests to the leader in one message; returns how many. Call until 0."""
        return check(
            "r2p2_forward_held", lib.r2p2_forward_held(self._engine, header, len(header), target[0], target[1])
        )

    def drop_forwarded(self, handle: int, header_bytes: int) -> int:
        """Answers DROP to the clients of a forwarded message (after :meth:`check_entries`); returns how many."""
        return check("r2p2_drop_forwarded", lib.r2p2_drop_forwarded(self._engine, handle, header_bytes))

    def raft_messages(self) -> list[RaftMessage]:
        """The whole Raft messages of the last poll that were not fetched yet."""
        count = lib.r2p2_raft_next(self._engine, self._raft, limits.RAFT_MESSAGES_MAX)
        view, fields_at = self._raft_bytes, _RAFT_MESSAGE.unpack_from
        messages = []
        for at in range(0, count * _RAFT_MESSAGE_BYTES, _RAFT_MESSAGE_BYTES):
            handle, length, source_ip, source_port, rid, kind, prefix_bytes = fields_at(view, at)
            start = at + _RAFT_PREFIX_OFFSET
            prefix = view[start : start + prefix_bytes]
            messages.append(RaftMessage(handle, length, source_ip, source_port, rid, kind, prefix))
        return messages

    def check_entries(self, handle: int, header_bytes: int, *, timed: bool = True) -> bool:
        """True when the entries behind ``header_bytes`` of the message are whole and fill it exactly; with ``timed``
        false, only when none of them carries a time.
        """
        found = lib.r2p2_raft_check(self._engine, handle, header_bytes)
        return found == 0 or (timed and found == 1)

    def configuration_bytes(self, handle: int, header_bytes: int) -> bytes:
        """The configuration that is the only entry of a checked message; empty when that holds something else."""
        length = lib.r2p2_raft_configuration(self._engine, handle, header_bytes)
        return self.message_bytes(handle, header_bytes + limits.ENTRY_HEADER_BYTES, length) if length else b""

    def message_bytes(self, handle: int, offset: int, length: int) -> bytes:
        """``length`` bytes at ``offset`` of a received message; valid until the next poll like its handle."""
        out = bytearray(length)
        view = ffi.from_buffer("uint8_t[]", out)
        check("r2p2_raft_copy", lib.r2p2_raft_copy(self._engine, handle, offset, view, length))
        return bytes(out)

    def message_tail(self, handle: int, length: int) -> bytes:
        """The last ``length`` bytes of a received message."""
        return self.message_bytes(handle, lib.r2p2_raft_length(self._engine, handle) - length, length)

    def raft_send(
        self,
        message_type: int,
        rid: int,
        header: bytes,
        targets: tuple[tuple[int, int], ...],
        first_index: int = 1,
        last_index: int = 0,
    ) -> None:
        """Sends ``header`` and entries ``first_index..last_index`` (none when last < first) to each target."""
        known = self._targets.get(targets) or self._known_targets(targets)
        status = lib.r2p2_raft_send(
            self._engine, message_type, rid, header, len(header), first_index, last_index, known[0], known[1]
        )
        if status:
            check("r2p2_raft_send", status)

    def _known_targets(self, targets: tuple[tuple[int, int], ...]) -> tuple[Any, int]:
        known = self._targets.get(targets)
        if known is None:
            known = (ffi.new("r2p2_target[]", [(ip, port, 0) for ip, port in targets]), len(targets))
            self._targets[targets] = known
        return known

    # ---- the steady step ----

    def steady(self) -> list[int]:
        """What the last poll's steady steps have come to: ``[commit_index, global_commit, round, appends_room,
        sent_bytes, answered_mask]``.
        """
        return self._steady_view.tolist()

    def steady_answers(self) -> list[int]:
        """round, match_index and applied_index of each peer in turn: good where its bit of answered_mask is set."""
        return self._answers_view.tolist()

    def steady_off(self) -> None:
        """From now on every Raft message is fetched by :meth:`raft_messages`."""
        lib.r2p2_steady_off(self._engine)

    def steady_follow(
        self,
        leader_head: bytes,
        own_head: bytes,
        leader: tuple[tuple[int, int], ...],
        commit_index: int,
        global_commit: int,
    ) -> None:
        """Appends that begin with ``leader_head`` and go on where the log ends are taken and answered."""
        check_head(leader_head, 1)
        check_head(own_head, 1)
        targets = self._known_targets(leader)[0]
        lib.r2p2_steady_follow(self._engine, leader_head, own_head, targets, commit_index, global_commit)

    def steady_lead(
        self,
        own_head: bytes,
        peer_heads: bytes,
        peers: tuple[tuple[int, int], ...],
        matches: list[int],
        commit_index: int,
        global_commit: int,
        round_: int,
        rid: int,
        appends_room: int,
    ) -> None:
        """Accepting answers that begin with one of ``peer_heads`` are counted, and what comes in is sent to ``peers``.
        ``matches``: match_index and applied_index of each in turn.
        """
        check_head(own_head, 1)
        check_head(peer_heads, len(peers))
        targets, count = self._known_targets(peers)
        status = lib.r2p2_steady_lead(
            self._engine,
            own_head,
            peer_heads,
            targets,
            matches,
            count,
            commit_index,
            global_commit,
            round_,
            rid,
            appends_room,
            self._append_bytes_max,
        )
        if status:
            check("r2p2_steady_lead", status)

    def steady_room(self, appends_room: int) -> None:
        """So many Appends may be sent before any is answered."""
        lib.r2p2_steady_room(self._engine, appends_room)
