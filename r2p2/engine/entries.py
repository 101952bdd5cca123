"""The log that the engine holds, its time, and the table of sessions that goes by it."""

from __future__ import annotations

from r2p2._engine import ffi, lib
from r2p2.engine.polling import Polling
from r2p2.engine.status import FULL, check
from r2p2.errors import EngineError


class Entries(Polling):
    """The log's side."""

    # ---- the log ----

    @property
    def log_first_index(self) -> int:
        """Index of the oldest entry kept; last + 1 when none is."""
        return lib.r2p2_log_first_index(self._engine)

    @property
    def log_last_index(self) -> int:
        """Index of the newest entry; 0 before the first."""
        return lib.r2p2_log_last_index(self._engine)

    @property
    def log_bytes(self) -> int:
        """Bytes of the entries kept, with headers and padding."""
        return lib.r2p2_log_bytes(self._engine)

    def append_noop(self) -> None:
        """Appends a no-op entry."""
        check("r2p2_log_append_noop", lib.r2p2_log_append_noop(self._engine))

    def append_note(self, body: bytes) -> bool:
        """Appends a no-op with a body (:mod:`r2p2.node.determinism`). False: the log is full."""
        status = lib.r2p2_log_append_note(self._engine, body, len(body))
        if status == FULL:
            return False
        check("r2p2_log_append_note", status)
        return True

    def append_configuration(self, body: bytes) -> None:
        """Appends a configuration entry."""
        status = lib.r2p2_log_append_configuration(self._engine, body, len(body))
        check("r2p2_log_append_configuration", status)

    def reset_log(self, index: int, digest: int, time_ms: int = 0) -> None:
        """Forgets every entry: the log begins behind ``index``, applied with ``digest`` at the log's time ``time_ms``,
        as a restored snapshot says.

        Raises:
            EngineError: a later index is applied already.
        """
        check("r2p2_log_reset", lib.r2p2_log_reset(self._engine, index, digest, time_ms))

    def append_message(self, handle: int, header_bytes: int, skip: int, count: int) -> bool:
        """Appends entries ``skip..skip+count-1`` of a checked message. False when the log is full: nothing was
        appended.
        """
        status = lib.r2p2_log_append_message(self._engine, handle, header_bytes, skip, count)
        if status == FULL:
            return False
        check("r2p2_log_append_message", status)
        return True

    def append_forwarded(self, handle: int, header_bytes: int) -> bool:
        """Appends all entries of a forwarded, checked message, at the time it is. False when the log is full: nothing
        was appended.
        """
        status = lib.r2p2_log_append_forwarded(self._engine, handle, header_bytes)
        if status == FULL:
            return False
        check("r2p2_log_append_forwarded", status)
        return True

    def truncate_suffix(self, from_index: int) -> None:
        """Removes entries from ``from_index`` on. None of them may be applied."""
        check("r2p2_log_truncate_suffix", lib.r2p2_log_truncate_suffix(self._engine, from_index))

    def drop_prefix(self, through_index: int) -> None:
        """Forgets entries through ``through_index``, which must be applied."""
        check("r2p2_log_drop_prefix", lib.r2p2_log_drop_prefix(self._engine, through_index))

    def fit(self, first_index: int, last_index: int, bytes_max: int) -> int:
        """The last index up to which entries from ``first_index`` take at most ``bytes_max``; at least
        ``first_index``.
        """
        return lib.r2p2_log_fit(self._engine, first_index, last_index, bytes_max)

    def range_bytes(self, first_index: int, last_index: int) -> int:
        """Bytes of entries ``first_index..last_index`` on the wire."""
        return lib.r2p2_log_range_bytes(self._engine, first_index, last_index)

    def log_copy(self, first_index: int, last_index: int) -> bytearray:
        """The wire bytes of entries ``first_index..last_index``."""
        out = bytearray(lib.r2p2_log_range_bytes(self._engine, first_index, last_index))
        view = ffi.from_buffer("uint8_t[]", out)
        check("r2p2_log_copy", lib.r2p2_log_copy(self._engine, first_index, last_index, view, len(out)))
        return out

    def append_raw(self, entries: bytes, count: int) -> bool:
        """Appends ``count`` entries in their wire form, as the disk gives them back. False when the log is full.

        Raises:
            EngineError: they are not whole entries.
        """
        status = lib.r2p2_log_append_raw(self._engine, entries, len(entries), count)
        if status == FULL:
            return False
        check("r2p2_log_append_raw", status)
        return True

    def set_storage(self, log_bytes: int) -> None:
        """The disk holds so many bytes of log, through the end of this one. From ``log_bytes_max`` on the leader
        refuses new requests (counted: drops_storage_full).
        """
        lib.r2p2_set_storage(self._engine, log_bytes)

    # ---- the log's time ----

    def set_clock(self, offset_ns: int) -> None:
        """``offset_ns``: unix time minus the port's clock. From the first call on, entries that are appended here carry
        the time.
        """
        lib.r2p2_set_clock(self._engine, offset_ns)

    @property
    def stamp_ms(self) -> int:
        """The time, unix ms, that an entry appended now would carry; never less than the log's."""
        return lib.r2p2_stamp_ms(self._engine)

    @property
    def log_time_ms(self) -> int:
        """The largest time that any entry of this log has carried, unix ms; 0: none has."""
        return lib.r2p2_log_time_ms(self._engine)

    @property
    def applied_time_ms(self) -> int:
        """The log's time at the applied index, unix ms; 0: it has none yet."""
        return lib.r2p2_applied_time_ms(self._engine)

    def append_time(self) -> bool:
        """Appends a no-op that carries the time. False: the time has not moved on, or the log is full."""
        status = lib.r2p2_log_append_time(self._engine)
        if status in (lib.R2P2_ERROR_STATE, FULL):
            return False
        check("r2p2_log_append_time", status)
        return True

    # ---- the session table ----

    def sessions_export(self) -> bytes:
        """The session table as of the applied index, for a snapshot: equal tables give equal bytes.

        Raises:
            EngineError: a batch is prepared, so that replies are not known.
        """
        room = lib.r2p2_sessions_export(self._engine, ffi.NULL, 0)
        out = ffi.new("uint8_t[]", room or 1)
        if not room or lib.r2p2_sessions_export(self._engine, out, room) != room:
            raise EngineError("r2p2_sessions_export: a batch is prepared")
        return bytes(ffi.buffer(out, room))

    def sessions_import(self, data: bytes, through_index: int) -> bool:
        """Replaces the session table by one exported at ``through_index``. False, and nothing is changed, when that is
        malformed or beyond this engine's bounds.
        """
        status = lib.r2p2_sessions_import(self._engine, through_index, ffi.from_buffer(data), len(data))
        if status in (lib.R2P2_ERROR_MALFORMED, FULL):
            return False
        check("r2p2_sessions_import", status)
        return True

    def sessions_size(self) -> tuple[int, int]:
        """How many sessions there are, and the bytes that count towards ``sessions_bytes_max``."""
        size = ffi.new("uint64_t *")
        count: int = lib.r2p2_sessions_size(self._engine, size)
        return count, size[0]
