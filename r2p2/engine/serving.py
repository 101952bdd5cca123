"""Requests out of the engine and replies into it: of a server, of linearizable reads, of the log's entries."""

from __future__ import annotations

from r2p2 import limits
from r2p2._engine import ffi, lib
from r2p2.engine.polling import Polling
from r2p2.engine.status import TOO_LARGE, check, refuse_replies
from r2p2.requests import Replies, ReplySequence, Requests, laid_out


class Serving(Polling):
    """The application's side."""

    # ---- unreplicated requests ----

    def _requests(self, time_ms: int = 0) -> Requests:
        batch = self._batch
        count = batch.requests_count
        if count == 0:
            return Requests(b"", memoryview(b"").cast("I"), b"", time_ms)
        slab = ffi.buffer(batch.slab, batch.slab_bytes)[:] if batch.slab_bytes else b""
        lengths = memoryview(ffi.buffer(batch.lengths, 4 * count)[:]).cast("I")
        return Requests(slab, lengths, ffi.buffer(batch.policies, count)[:], time_ms)

    def requests(self) -> Requests:
        """The unreplicated requests of the last poll."""
        lib.r2p2_requests_batch(self._engine, self._batch)
        return self._requests()

    def reply(self, replies: ReplySequence) -> None:
        """Answers them, one reply a request in order; what is no reply is an error, see :meth:`Replies.settled`."""
        packed = laid_out(replies, limits.MESSAGE_BYTES_MAX)
        status = self._reply(packed)
        if status == TOO_LARGE:
            packed = Replies.settled(packed, limits.MESSAGE_BYTES_MAX)
            status = self._reply(packed)
        self.replies_refused += packed.refused_count
        if status:
            refuse_replies("r2p2_requests_reply", status, packed, self._batch.requests_count)

    def _reply(self, packed: Replies) -> int:
        slab, lengths = packed.slab, packed.lengths
        return lib.r2p2_requests_reply(
            self._engine, slab, len(slab), ffi.from_buffer("uint32_t[]", lengths), len(lengths)
        )

    def askers(self, count: int) -> bytes:
        """Who asked each of the ``count`` requests of the batch at hand: 12 bytes each, for :meth:`reply_later`."""
        return bytes(ffi.buffer(self._batch.askers, limits.ASKER_BYTES * count)[:])

    def reply_later(self, asker: bytes, payload: bytes | None) -> None:
        """Answers a request whose reply in its batch was LATER; None refuses it (DROP)."""
        data = payload or b""
        status = lib.r2p2_reply_later(self._engine, asker, data, len(data), 1 if payload is None else 0)
        check("r2p2_reply_later", status)

    # ---- linearizable reads ----

    def take_reads(self) -> tuple[Requests, bytes]:
        """All the reads gathered so far as one group, and its askers; end it with :meth:`reads_reply` or
        :meth:`reads_drop`.
        """
        lib.r2p2_reads_take(self._engine, self._batch)
        requests = self._requests()
        return requests, self.askers(len(requests))

    def reads_reply(self, requests: Requests, askers: bytes, replies: ReplySequence) -> None:
        """Answers a group, one reply a request in order; what is no reply is an error."""
        packed = laid_out(replies, limits.MESSAGE_BYTES_MAX)
        status = self._reads_reply(requests, askers, packed)
        if status == TOO_LARGE:
            packed = Replies.settled(packed, limits.MESSAGE_BYTES_MAX)
            status = self._reads_reply(requests, askers, packed)
        self.replies_refused += packed.refused_count
        if status:
            refuse_replies("r2p2_reads_reply", status, packed, len(requests))

    def _reads_reply(self, requests: Requests, askers: bytes, packed: Replies) -> int:
        slab, lengths = packed.slab, packed.lengths
        return lib.r2p2_reads_reply(
            self._engine,
            askers,
            len(requests),
            len(requests.slab),
            slab,
            len(slab),
            ffi.from_buffer("uint32_t[]", lengths),
            len(lengths),
        )

    def reads_drop(self, requests: Requests, askers: bytes) -> None:
        """Refuses a group: each client gets DROP."""
        status = lib.r2p2_reads_drop(self._engine, askers, len(requests), len(requests.slab))
        check("r2p2_reads_drop", status)

    # ---- apply ----

    def apply_prepare(self, last_index: int, entries_max: int = limits.APPLY_BATCH_ENTRIES_MAX) -> tuple[Requests, int]:
        """The requests of the next entries up to ``last_index``, and the last index they cover (no-ops are left
        out). A batch has one time; it ends before a request at a later one.
        """
        status = lib.r2p2_apply_prepare(self._engine, last_index, entries_max, self._batch)
        if status:
            check("r2p2_apply_prepare", status)
        batch = self._batch
        return self._requests(batch.time_ms), batch.last_index

    def apply_reply(self, replies: ReplySequence, *, send: bool) -> None:
        """Ends the prepared batch: answers each request when ``send``, and counts its entries as applied.

        What is no reply is an error on every member: the state has changed by then, and who reads the log again would
        come to the same place.
        """
        packed = laid_out(replies, limits.REPLICATED_REPLY_BYTES_MAX)
        status = self._apply_reply(packed, send)
        if status == TOO_LARGE:
            packed = Replies.settled(packed, limits.REPLICATED_REPLY_BYTES_MAX)
            status = self._apply_reply(packed, send)
        self.replies_refused += packed.refused_count
        if status:
            refuse_replies("r2p2_apply_reply", status, packed, self._batch.requests_count)

    def _apply_reply(self, packed: Replies, send: bool) -> int:
        slab, lengths = packed.slab, packed.lengths
        return lib.r2p2_apply_reply(
            self._engine, slab, len(slab), ffi.from_buffer("uint32_t[]", lengths), len(lengths), 1 if send else 0
        )

    def apply_abandon(self) -> None:
        """Forgets the prepared batch. Only for a snapshot that is restored next, sessions and all."""
        lib.r2p2_apply_abandon(self._engine)

    @property
    def applied_index(self) -> int:
        """The last applied entry's index."""
        return lib.r2p2_applied_index(self._engine)

    @property
    def applied_digest(self) -> int:
        """A 64-bit chain over every applied entry in order: equal index and digest mean equal history."""
        return lib.r2p2_applied_digest(self._engine)
