"""An engine over a port: opened, polled, counted, captured from, closed."""

from __future__ import annotations

from dataclasses import asdict
from struct import Struct
from typing import Any, Final

from r2p2 import limits
from r2p2._engine import ffi, lib
from r2p2.engine.records import COUNTER_NAMES, CapturedDatagram, EngineConfig
from r2p2.engine.status import STATUS_TEXT, check
from r2p2.errors import EngineError

# Of r2p2_steady_state, in front of the peers' answers.
_STEADY_WORDS: Final[int] = ffi.offsetof("r2p2_steady_state", "answers") // 8
_CAPTURE_RECORD: Final = Struct("=QIIHHIII")
assert _CAPTURE_RECORD.size == ffi.sizeof("r2p2_capture_record")


class Polling:
    """The part of :class:`r2p2.engine.Engine` that the others go by; its arguments are told there."""

    def __init__(self, port_address: int, config: EngineConfig | None = None, *, keep: object = None) -> None:
        error = ffi.new("int32_t *")
        config = config or EngineConfig()
        c_config = ffi.new("r2p2_engine_config *", asdict(config))
        self._engine: Any = lib.r2p2_engine_new(port_address, c_config, error)
        if not self._engine:
            raise EngineError(f"r2p2_engine_new: {STATUS_TEXT.get(error[0], 'unknown status')} ({error[0]})")
        self._keep = keep
        # A port that is closed first closes what is over it.
        if (engines := getattr(keep, "engines", None)) is not None:
            engines.add(self)
        self._append_bytes_max = config.append_bytes_max
        self._result = ffi.new("r2p2_poll_result *")
        self._result_view = memoryview(ffi.buffer(self._result)).cast("B").cast("Q")
        steady = memoryview(ffi.buffer(lib.r2p2_steady_read(self._engine))).cast("B").cast("Q")
        # Apart, since only a leader's Python looks at the answers.
        self._steady_view, self._answers_view = steady[:_STEADY_WORDS], steady[_STEADY_WORDS:]
        steady.release()
        self._batch = ffi.new("r2p2_batch *")
        # Where C puts what completions() reads: polls that find nothing are most of a client's.
        self._completions = ffi.new("r2p2_completion **"), ffi.new("uint8_t **"), ffi.new("uint64_t *")
        self._raft = ffi.new("r2p2_raft_message[]", limits.RAFT_MESSAGES_MAX)
        self._raft_bytes = ffi.buffer(self._raft)
        self._targets: dict[tuple[tuple[int, int], ...], tuple[Any, int]] = {}
        self._counters = ffi.new("uint64_t[]", len(COUNTER_NAMES))
        self.replies_refused = 0
        """Replies of batches that were none, in whose place an error went out."""

    def close(self) -> None:
        """Sends what is filled in and frees everything. Idempotent."""
        if self._engine:
            self._steady_view.release()  # they look into the engine
            self._answers_view.release()
            lib.r2p2_engine_free(self._engine)
            self._engine = None

    def abandon(self) -> None:
        """Lets go of everything and sends nothing, as a forked child does with its copy; C's memory stays."""
        self._engine = None

    @property
    def handle(self) -> Any:
        """The C engine, for modules of this package only."""
        return self._engine

    def now_ns(self) -> int:
        """The port's clock, ns."""
        return lib.r2p2_engine_now_ns(self._engine)

    def poll(self) -> list[int]:
        """One step: receive, handle, expire, send.

        Returns:
            ``[now_ns, packets, requests, appended, held, raft, completions, log_last_index, reads, steady]``, counts of
            what is ready; steady: which steps were taken (STEADY_*), to be told Raft before anything else.
        """
        lib.r2p2_engine_poll(self._engine, self._result)
        return self._result_view.tolist()

    def flush(self) -> None:
        """Sends what replies and Raft messages have filled in."""
        lib.r2p2_engine_flush(self._engine)

    def counters(self) -> dict[str, int]:
        """Every counter of the engine and its port by name."""
        lib.r2p2_counters_read(self._engine, self._counters)
        return dict(zip(COUNTER_NAMES, list(self._counters), strict=True))

    # ---- capture ----

    def capture_start(self, rate: int, snap_bytes: int) -> None:
        """Copies datagrams from now on: at most ``rate`` a second under load, elections always, ``snap_bytes`` of
        each.
        """
        check("r2p2_capture_set", lib.r2p2_capture_set(self._engine, rate, snap_bytes))

    def capture_take(self) -> tuple[list[CapturedDatagram], int]:
        """The datagrams captured since the last call, and how many were left out since the start."""
        records, missed = ffi.new("uint8_t **"), ffi.new("uint64_t *")
        used = lib.r2p2_capture_take(self._engine, records, missed)
        if not used:
            return [], missed[0]
        data = ffi.buffer(records[0], used)[:]
        taken, at = [], 0
        while at < used:
            fields = _CAPTURE_RECORD.unpack_from(data, at)
            time_ns, source_ip, target_ip, source_port, target_port, length, captured, record_bytes = fields
            start = at + _CAPTURE_RECORD.size
            payload = data[start : start + captured]
            taken.append(CapturedDatagram(time_ns, source_ip, source_port, target_ip, target_port, payload, length))
            at += record_bytes
        return taken, missed[0]
