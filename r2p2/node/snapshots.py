"""A node's snapshots: taken of the application at an applied index, sent in chunks, put together and restored.

A node's snapshot is the digest of its history, the log's time there, the table of client sessions and the application's
own bytes, since all are what entries did. One is held at most; which index it is of, when a new one is worth its time
and who needs it is decided elsewhere (:mod:`r2p2.node.truncation`, ``raft/``).

It is taken in the node's own loop: begun between two batches, and, where the application gives it in pieces, gone on
with between two polls (docs/adr/0022). One that holds the loop up for longer than the handler budget at once is counted
and logged once, like a slow handler.

Layout, big-endian: version u32, CRC-32 u32 of all that follows, digest u64, time u64 (unix ms), sessions bytes u64,
sessions, application.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final

from r2p2 import limits
from r2p2.app import StateMachine
from r2p2.engine import Engine
from r2p2.errors import UserError

__all__ = ["Assembly", "NodeSnapshot", "SnapshotDamaged", "Snapshots", "Taking", "decode_snapshot", "encode_snapshot"]

log = logging.getLogger("r2p2.snapshots")

VERSION: Final = 2
_HEAD: Final = Struct(">IIQQQ")
_CRC: Final = Struct(">I")
_CRC_AT: Final = 4
_CHECKED_FROM: Final = 8


class SnapshotDamaged(UserError):
    """Bytes that are no snapshot of this version. The member that was sent them cannot go on."""


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """``digest``: of the applied history; ``time_ms``: the log's there, unix ms; the others are opaque here."""

    digest: int
    time_ms: int
    sessions: bytes
    application: bytes


class Taking:
    """A snapshot on its way out of the application.

    Args:
        index: of which it is, whatever has been applied since.
        snapshot: of it, but for the application's bytes that ``pieces`` are still to bring.
        front: what stands in front of it in :attr:`data`.

    Attributes:
        data: what there is of it, in place: it is never copied as a whole. Complete when :meth:`finish` has returned.
        held_ns: processor time that it has taken at once, at most.
    """

    def __init__(self, index: int, snapshot: NodeSnapshot, pieces: Iterator[bytes], front: bytes = b"") -> None:
        head = _HEAD.pack(VERSION, 0, snapshot.digest, snapshot.time_ms, len(snapshot.sessions))
        self.index = index
        self.data = bytearray(front)
        self.held_ns = 0
        self._head_at = len(front)
        self._pieces = pieces
        self._crc = zlib.crc32(head[_CHECKED_FROM:])
        self.data += head
        self._add(snapshot.sessions)
        self._add(snapshot.application)

    @property
    def size(self) -> int:
        """Bytes of the snapshot that there are."""
        return len(self.data) - self._head_at

    def _add(self, piece: bytes) -> None:
        self._crc = zlib.crc32(piece, self._crc)
        self.data += piece

    def step(self) -> bool:
        """Takes the next piece; False: there is none.

        Raises:
            UserError: it is not bytes.
        """
        piece = next(self._pieces, None)
        if piece is None:
            return False
        if not isinstance(piece, bytes):
            raise UserError(f"a piece of the application's snapshot is {piece!r:.60}, not bytes")
        self._add(piece)
        return True

    def finish(self) -> None:
        """All pieces have come."""
        _CRC.pack_into(self.data, self._head_at + _CRC_AT, self._crc)


def encode_snapshot(snapshot: NodeSnapshot) -> bytes:
    """The bytes that travel and are stored."""
    taking = Taking(0, snapshot, iter(()))
    taking.finish()
    return bytes(taking.data)


def decode_snapshot(data: bytes) -> NodeSnapshot:
    """The reverse.

    Raises:
        SnapshotDamaged: another version, or not what was encoded.
    """
    if len(data) < _HEAD.size:
        raise SnapshotDamaged(f"a snapshot of {len(data)} bytes is too short")
    version, crc, digest, time_ms, sessions_bytes = _HEAD.unpack_from(data)
    if version != VERSION:
        raise SnapshotDamaged(
            f"a snapshot of version {version}; this member knows {VERSION}", "Run the same version on every member."
        )
    if crc != zlib.crc32(memoryview(data)[_CHECKED_FROM:]) or sessions_bytes > len(data) - _HEAD.size:
        raise SnapshotDamaged(f"a snapshot of {len(data)} bytes is damaged", "Start the member again.")
    end = _HEAD.size + sessions_bytes
    return NodeSnapshot(digest, time_ms, data[_HEAD.size : end], data[end:])


class Assembly:
    """A snapshot on its way in: chunks in order, starting over with a first one."""

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def bytes_held(self) -> int:
        """Bytes that have come so far."""
        return len(self._data)

    def add(self, offset: int, chunk: bytes) -> None:
        """The chunk at ``offset``; at 0 it begins a new snapshot.

        Raises:
            ValueError: a gap, which the core does not let through.
        """
        if offset == 0:
            self._data = bytearray()
        if offset != len(self._data):
            raise ValueError(f"a chunk at {offset} behind {len(self._data)} bytes")
        self._data += chunk

    def clear(self) -> None:
        """The rest will not come."""
        self._data = bytearray()

    def take(self) -> bytes:
        """All of it; afterwards there is none."""
        data, self._data = bytes(self._data), bytearray()
        return data


class Snapshots:
    """The snapshots of one node.

    Args:
        app: whose state it is.
        engine: whose log and digest.
        counters: the node's: :attr:`COUNTERS` are counted there.
        budget_ns: processor time that one may take at once unnoticed.

    Attributes:
        index: of the snapshot held; 0: none.
    """

    COUNTERS: Final = (
        "snapshots_taken",
        "snapshots_restored",
        "snapshots_abandoned",
        "snapshots_over_budget",
        "snapshot_chunks_sent",
    )

    def __init__(self, app: StateMachine, engine: Engine, counters: dict[str, int], budget_ns: int) -> None:
        self._app = app
        self._engine = engine
        self._counters = counters
        self._budget_ns = budget_ns
        self._told_slow = False
        self._incoming = Assembly()
        self._data = bytearray()
        self.index = 0
        for name in self.COUNTERS:
            counters.setdefault(name, 0)

    @property
    def held_bytes(self) -> int:
        """Bytes of the snapshot held."""
        return len(self._data)

    @property
    def incoming_bytes(self) -> int:
        """Bytes that have come of one on its way in."""
        return self._incoming.bytes_held

    def begin(self, front: bytes = b"") -> Taking:
        """Begins one at the applied index, with ``front`` before it; to be gone on with (:meth:`go_on`).

        Raises:
            UserError: the application has none.
        """
        engine = self._engine
        began_ns = time.thread_time_ns()
        given = self._app.snapshot()
        if given is None:
            raise UserError(
                f"{type(self._app).__name__}.snapshot() returned None though the class has it",
                "Return bytes, or an iterator over them.",
            )
        whole, pieces = (given, iter(())) if isinstance(given, bytes) else (b"", iter(given))
        taking = Taking(
            engine.applied_index,
            NodeSnapshot(engine.applied_digest, engine.applied_time_ms, engine.sessions_export(), whole),
            pieces,
            front,
        )
        taking.held_ns = time.thread_time_ns() - began_ns
        return taking

    def go_on(self, taking: Taking) -> bool:
        """Takes further pieces, as many as the loop may wait for; True: it is complete.

        Raises:
            UserError: it is larger than can be sent, or a piece is not bytes.
        """
        engine = self._engine
        began_ns, until_ns = time.thread_time_ns(), engine.now_ns() + limits.SNAPSHOT_TURN_NS
        for _ in range(limits.SNAPSHOT_TURN_PIECES_MAX):
            is_done = not taking.step()
            if taking.size > limits.SNAPSHOT_BYTES_MAX:
                raise UserError(
                    f"a snapshot of {taking.size} bytes or more is over the bound of {limits.SNAPSHOT_BYTES_MAX}",
                    "Keep less state in the application, or run with the truncation policy block.",
                )
            if is_done or engine.now_ns() >= until_ns:
                break
        taking.held_ns = max(taking.held_ns, time.thread_time_ns() - began_ns)
        if is_done:
            taking.finish()
            self._counters["snapshots_taken"] += 1
            self._look_at_time("taking", taking.held_ns, taking.size)
        return is_done

    def hold(self, taking: Taking) -> int:
        """Holds a complete one, in place of the one held; returns its bytes."""
        self._data, self.index = taking.data, taking.index
        return len(self._data)

    def release(self) -> None:
        """Nobody needs the one that is held."""
        self._data = bytearray()
        self.index = 0

    def chunk(self, index: int, offset: int, count: int) -> bytes | None:
        """``count`` bytes at ``offset`` of the snapshot of ``index``; None when that is not the one held."""
        if index != self.index or offset + count > len(self._data):
            return None
        self._counters["snapshot_chunks_sent"] += 1
        return bytes(memoryview(self._data)[offset : offset + count])

    def receive(self, offset: int, chunk: bytes) -> None:
        """A chunk that the core has accepted, in order."""
        self._incoming.add(offset, chunk)

    def abandon(self) -> None:
        """The rest of what is coming in will not come."""
        self._incoming.clear()
        self._counters["snapshots_abandoned"] += 1

    def install(self, index: int) -> bytes:
        """Restores what has come in (:meth:`restore`) and returns its bytes."""
        data = self._incoming.take()
        self.restore(index, data)
        return data

    def restore(self, index: int, data: bytes) -> None:
        """Application and sessions, log and digest now stand at ``index``.

        Raises:
            SnapshotDamaged: it is none, or the application does not take it.
        """
        began_ns = time.thread_time_ns()
        snapshot = decode_snapshot(data)
        try:
            self._app.restore(snapshot.application)
        except (ValueError, NotImplementedError) as error:
            raise SnapshotDamaged(
                f"the application does not take the snapshot of {len(snapshot.application)} bytes: {error}",
                "Run the same version of the application on every member.",
            ) from error
        if not self._engine.sessions_import(snapshot.sessions, index):
            raise SnapshotDamaged(
                f"the session table of {len(snapshot.sessions)} bytes is malformed or over this member's bounds",
                "Give every member the same bounds on sessions, and run the same version.",
            )
        self._engine.reset_log(index, snapshot.digest, snapshot.time_ms)
        self.release()
        self._counters["snapshots_restored"] += 1
        self._look_at_time("restoring", time.thread_time_ns() - began_ns, len(data))

    def _look_at_time(self, doing: str, took_ns: int, size: int) -> None:
        if took_ns <= self._budget_ns:
            return
        self._counters["snapshots_over_budget"] += 1
        if not self._told_slow:
            self._told_slow = True
            log.warning(
                "%s a snapshot of %d bytes took %.1f ms at once (budget %.1f ms): it holds up this node's loop; "
                "further cases are counted in snapshots_over_budget",
                doing,
                size,
                took_ns / limits.MS,
                self._budget_ns / limits.MS,
            )
