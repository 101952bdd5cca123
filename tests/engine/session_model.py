"""The session table once more, as short as it goes: what the C table is held against.

Written from docs/exactly-once.md: one entry after the other, no batches, no memory management. ``save`` is the exported
form, byte for byte.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable

from r2p2.limits import APPLY_BATCH_ENTRIES_MAX, SESSION_KEPT_BYTES, SESSION_WINDOW_MAX, SESSIONS_SHARE

INLINE_BYTES = 24


class ModelSession:
    def __init__(self) -> None:
        self.first = self.end = 1
        self.kept: dict[int, bytes] = {}

    def bytes(self) -> int:
        blocks = sum(len(reply) for reply in self.kept.values() if len(reply) > INLINE_BYTES)
        return (self.end - self.first) * SESSION_KEPT_BYTES + blocks


class ModelTable:
    """``execute``: the application."""

    def __init__(self, count_max: int, bytes_max: int, execute: Callable[[bytes], bytes]) -> None:
        self.count_max = count_max
        self.bytes_max = bytes_max
        self.execute = execute
        self.sessions: OrderedDict[int, ModelSession] = OrderedDict()  # the least recently used first
        self.index = 0

    def entry(self, entry: tuple[int, int, int, bytes] | None) -> tuple[str, bytes]:
        """One entry of the log (None: of another kind); what its client is answered."""
        self.index += 1
        answer = ("none", b"") if entry is None else self._request(*entry)
        if self.index % APPLY_BATCH_ENTRIES_MAX == 0:
            self._bound()
        return answer

    def _request(self, client_id: int, sequence: int, oldest: int, request: bytes) -> tuple[str, bytes]:
        if client_id == 0:
            if len(self.sessions) == self.count_max:
                self.sessions.popitem(last=False)
            self.sessions[self.index] = ModelSession()
            return "reply", self.index.to_bytes(8, "big")
        if client_id not in self.sessions:
            return "expired", b"SESSION_EXPIRED"
        self.sessions.move_to_end(client_id)
        session = self.sessions[client_id]
        session.first = max(session.first, oldest)
        session.end = max(session.end, session.first)
        session.kept = {s: reply for s, reply in session.kept.items() if s >= session.first}
        if sequence < session.first:
            return "expired", b"SESSION_EXPIRED"  # to whoever waits: it is not the session's own client
        session.end = max(session.end, sequence + 1)
        places_max = self.bytes_max // 2 // SESSION_KEPT_BYTES
        share = (places_max - SESSION_WINDOW_MAX) // self.count_max
        while sum(s.end - s.first for s in self.sessions.values()) > places_max:
            spans = {i: s.end - s.first for i, s in self.sessions.items() if i != client_id}
            del self.sessions[max((i for i in spans if spans[i] > share), key=lambda i: spans[i].bit_length())]
        if sequence not in session.kept:
            session.kept[sequence] = self.execute(request)
        return "reply", session.kept[sequence]

    def _bound(self) -> None:
        def over() -> bool:
            return sum(session.bytes() for session in self.sessions.values()) > self.bytes_max

        share, least = self.bytes_max // SESSIONS_SHARE, self.bytes_max // self.count_max
        while over():
            for client_id in list(self.sessions):
                if over() and self.sessions[client_id].bytes() > max(share, least):
                    del self.sessions[client_id]
            share //= 2

    def save(self) -> bytes:
        """As the C table is exported."""
        out = struct.pack(">IIQ", 1, 0, len(self.sessions))
        for client_id, session in self.sessions.items():
            out += struct.pack(">QQQQ", client_id, session.first, session.end, len(session.kept))
            for sequence, reply in sorted(session.kept.items()):
                out += struct.pack(">QIB3x", sequence, len(reply), 2) + reply + bytes(-len(reply) % 8)
        return out
