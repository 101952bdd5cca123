"""The engine, typed: one Python call for a burst, nothing of C in what it returns.

Wraps ``r2p2._engine`` (see ``r2p2/csrc/r2p2_engine_api.h``). CData stays in this module: callers see ints, bytes and
:class:`~r2p2.requests.Requests`. Addresses are ``(ip, port)`` with the IPv4 address as an int in host order
(:mod:`r2p2.address`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from struct import Struct
from typing import Any, Final, NamedTuple, NoReturn

from r2p2 import limits
from r2p2._engine import ffi, lib
from r2p2.errors import EngineError, ReplyCountError, RequestTooLarge, SessionExpiredError
from r2p2.requests import Replies, ReplySequence, Requests, laid_out

ROLE_NONE: Final[int] = lib.R2P2_ROLE_NONE
ROLE_LEADER: Final[int] = lib.R2P2_ROLE_LEADER
ROLE_FOLLOWER: Final[int] = lib.R2P2_ROLE_FOLLOWER
ROLE_HOLD: Final[int] = lib.R2P2_ROLE_HOLD

STEADY_FOLLOWED: Final[int] = lib.R2P2_STEADY_FOLLOWED
STEADY_ANSWERED: Final[int] = lib.R2P2_STEADY_ANSWERED
STEADY_SENT: Final[int] = lib.R2P2_STEADY_SENT
STEADY_HEAD_BYTES: Final[int] = lib.R2P2_STEADY_HEAD_BYTES

# Of r2p2_steady_state, in front of the peers' answers.
_STEADY_WORDS: Final[int] = ffi.offsetof("r2p2_steady_state", "answers") // 8

DONE_OK: Final[int] = lib.R2P2_DONE_OK
DONE_TIMEOUT: Final[int] = lib.R2P2_DONE_TIMEOUT
DONE_DROPPED: Final[int] = lib.R2P2_DONE_DROPPED
DONE_CANCELLED: Final[int] = lib.R2P2_DONE_CANCELLED
DONE_EXPIRED: Final[int] = lib.R2P2_DONE_EXPIRED

_STATUS_TEXT: Final = {
    lib.R2P2_ERROR_NO_MEMORY: "no memory",
    lib.R2P2_ERROR_ARGUMENT: "bad argument",
    lib.R2P2_ERROR_TOO_LARGE: "message over 254 packets",
    lib.R2P2_ERROR_FULL: "a bound is reached",
    lib.R2P2_ERROR_RANGE: "index outside the log",
    lib.R2P2_ERROR_MALFORMED: "malformed entries",
    lib.R2P2_ERROR_STATE: "not legal now",
}
# tag, latency_ns, offset, length, status, source_ip, source_port
_COMPLETION: Final = Struct("=QQQIIIH2x")
assert _COMPLETION.size == ffi.sizeof("r2p2_completion")
_CAPTURE_RECORD: Final = Struct("=QIIHHIII")
assert _CAPTURE_RECORD.size == ffi.sizeof("r2p2_capture_record")
_RAFT_MESSAGE_BYTES: Final[int] = ffi.sizeof("r2p2_raft_message")
_RAFT_PREFIX_OFFSET: Final[int] = ffi.offsetof("r2p2_raft_message", "prefix")
# handle, length, source_ip, source_port, rid, type, prefix_bytes; the prefix follows.
_RAFT_MESSAGE: Final = Struct("=IIIHHBxH4x")
assert _RAFT_MESSAGE.size == _RAFT_PREFIX_OFFSET
FULL: Final[int] = lib.R2P2_ERROR_FULL
_TOO_LARGE: Final[int] = lib.R2P2_ERROR_TOO_LARGE
_COUNTER_NAMES: Final = [ffi.string(lib.r2p2_counter_name(i)).decode() for i in range(lib.r2p2_counters_count())]
_COUNTER_HELPS: Final = [ffi.string(lib.r2p2_counter_help(i)).decode() for i in range(lib.r2p2_counters_count())]


def counter_helps() -> dict[str, str]:
    """Every counter's name and what it counts, in the order of :meth:`Engine.counters`."""
    return dict(zip(_COUNTER_NAMES, _COUNTER_HELPS, strict=True))


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Bounds of one engine; :mod:`r2p2.limits` gives the reasons for the defaults.

    ``sessions_bytes_max`` and ``sessions_count_max`` decide which sessions are evicted: they must be the same on every
    member.
    """

    reassembly_bytes_max: int = limits.REASSEMBLY_BYTES_MAX
    reassembly_timeout_ns: int = limits.REASSEMBLY_TIMEOUT_NS
    log_bytes_max: int = limits.LOG_BYTES_MAX
    log_entries_max: int = limits.LOG_ENTRIES_MAX
    backlog_entries_max: int = limits.BACKLOG_ENTRIES_MAX
    hold_bytes_max: int = limits.HOLD_BYTES_MAX
    hold_timeout_ns: int = limits.HOLD_TIMEOUT_NS
    sessions_bytes_max: int = limits.SESSIONS_BYTES_MAX
    sessions_count_max: int = limits.SESSIONS_COUNT_MAX
    reassembly_count_max: int = limits.REASSEMBLY_COUNT_MAX
    packets_per_poll_max: int = limits.PACKETS_PER_POLL_MAX
    router_ip: int = 0
    router_port: int = 0

    @property
    def append_bytes_max(self) -> int:
        """Of entries in one Append, but for one that is larger alone."""
        return min(limits.APPEND_BYTES_MAX, self.log_bytes_max // limits.APPENDS_PER_LOG)


class RaftMessage(NamedTuple):
    """A whole Raft message: its first bytes, and a handle for its entries that is valid until the next poll."""

    handle: int
    length: int
    source_ip: int
    source_port: int
    rid: int
    type: int
    prefix: bytes


class Completion(NamedTuple):
    """The end of a call. ``status`` is one of ``DONE_*``; ``payload`` is empty unless it is ``DONE_OK``."""

    tag: int
    status: int
    payload: bytes
    latency_ns: int
    source_ip: int
    source_port: int


class SessionInfo(NamedTuple):
    """A client's session. ``client_id``: 0 while it has none; ``target``: who is asked next."""

    client_id: int
    next_sequence: int
    oldest_pending: int
    waiting_count: int
    is_expired: bool
    target: tuple[int, int]


class CapturedDatagram(NamedTuple):
    """A copy of a datagram that was received or sent; ``payload`` holds the first bytes of ``length``."""

    time_ns: int
    source_ip: int
    source_port: int
    target_ip: int
    target_port: int
    payload: bytes
    length: int


def _check(call: str, status: int) -> int:
    """``status`` when it is good; raises :class:`EngineError` naming the call when not."""
    if status < 0:
        raise EngineError(f"{call}: {_STATUS_TEXT.get(status, 'unknown status')} ({status})")
    return status


def _replies_refused(call: str, status: int, packed: Replies, requests_count: int) -> NoReturn:
    count = len(packed.lengths)
    if count != requests_count:
        raise ReplyCountError(
            f"the application gave {count} replies to {requests_count} requests",
            "It has to give one reply to each request of a batch, in order.",
        )
    raise EngineError(f"{call}: {_STATUS_TEXT.get(status, 'unknown status')} ({status})")


def _check_head(heads: bytes, count: int) -> None:
    if len(heads) != count * STEADY_HEAD_BYTES:
        raise ValueError(f"heads: {len(heads)} bytes for {count} of {STEADY_HEAD_BYTES}")


class Engine:
    """One engine over one port.

    Args:
        port_address: of the port's ``struct r2p2_port``, from a backend. The port must outlive the engine.
        config: bounds.
        keep: an object to hold on to as long as the engine lives, normally the port.
    """

    def __init__(self, port_address: int, config: EngineConfig | None = None, *, keep: object = None) -> None:
        error = ffi.new("int32_t *")
        config = config or EngineConfig()
        c_config = ffi.new("r2p2_engine_config *", asdict(config))
        self._engine: Any = lib.r2p2_engine_new(port_address, c_config, error)
        if not self._engine:
            raise EngineError(f"r2p2_engine_new: {_STATUS_TEXT.get(error[0], 'unknown status')} ({error[0]})")
        self._keep = keep
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
        self._counters = ffi.new("uint64_t[]", len(_COUNTER_NAMES))
        self.replies_refused = 0
        """Replies of batches that were none, in whose place an error went out."""

    def close(self) -> None:
        """Sends what is filled in and frees everything. Idempotent."""
        if self._engine:
            self._steady_view.release()  # they look into the engine
            self._answers_view.release()
            lib.r2p2_engine_free(self._engine)
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
        return dict(zip(_COUNTER_NAMES, list(self._counters), strict=True))

    # ---- capture ----

    def capture_start(self, rate: int, snap_bytes: int) -> None:
        """Copies datagrams from now on: at most ``rate`` a second under load, elections always, ``snap_bytes`` of
        each.
        """
        _check("r2p2_capture_set", lib.r2p2_capture_set(self._engine, rate, snap_bytes))

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

    # ---- server ----

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
        if status == _TOO_LARGE:
            packed = Replies.settled(packed, limits.MESSAGE_BYTES_MAX)
            status = self._reply(packed)
        self.replies_refused += packed.refused_count
        if status:
            _replies_refused("r2p2_requests_reply", status, packed, self._batch.requests_count)

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
        _check("r2p2_reply_later", status)

    # ---- the replicated policy ----

    def set_group(self, cluster_id: int, peers: Collection[tuple[int, int]]) -> None:
        """Raft messages of another cluster are dropped from now on; ``peers``: where members are, for whom there is
        room in any case.
        """
        targets = ffi.new("r2p2_target[]", [(ip, port, 0) for ip, port in peers])
        _check("r2p2_set_group", lib.r2p2_set_group(self._engine, cluster_id, targets, len(peers)))

    def set_role(self, role: int) -> None:
        """What becomes of replicated requests from now on: one of ``ROLE_*``."""
        lib.r2p2_set_role(self._engine, role)

    def forward_held(self, header: bytes, target: tuple[int, int]) -> int:
        """Sends held requests to the leader in one message; returns how many. Call until 0."""
        return _check(
            "r2p2_forward_held", lib.r2p2_forward_held(self._engine, header, len(header), target[0], target[1])
        )

    def drop_forwarded(self, handle: int, header_bytes: int) -> int:
        """Answers DROP to the clients of a forwarded message (after :meth:`check_entries`); returns how many."""
        return _check("r2p2_drop_forwarded", lib.r2p2_drop_forwarded(self._engine, handle, header_bytes))

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
        _check("r2p2_raft_copy", lib.r2p2_raft_copy(self._engine, handle, offset, view, length))
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
            _check("r2p2_raft_send", status)

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
        _check_head(leader_head, 1)
        _check_head(own_head, 1)
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
        _check_head(own_head, 1)
        _check_head(peer_heads, len(peers))
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
            _check("r2p2_steady_lead", status)

    def steady_room(self, appends_room: int) -> None:
        """So many Appends may be sent before any is answered."""
        lib.r2p2_steady_room(self._engine, appends_room)

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
        if status == _TOO_LARGE:
            packed = Replies.settled(packed, limits.MESSAGE_BYTES_MAX)
            status = self._reads_reply(requests, askers, packed)
        self.replies_refused += packed.refused_count
        if status:
            _replies_refused("r2p2_reads_reply", status, packed, len(requests))

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
        _check("r2p2_reads_drop", status)

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
        _check("r2p2_log_append_noop", lib.r2p2_log_append_noop(self._engine))

    def append_note(self, body: bytes) -> bool:
        """Appends a no-op with a body (:mod:`r2p2.node.determinism`). False: the log is full."""
        status = lib.r2p2_log_append_note(self._engine, body, len(body))
        if status == FULL:
            return False
        _check("r2p2_log_append_note", status)
        return True

    def append_configuration(self, body: bytes) -> None:
        """Appends a configuration entry."""
        status = lib.r2p2_log_append_configuration(self._engine, body, len(body))
        _check("r2p2_log_append_configuration", status)

    def reset_log(self, index: int, digest: int, time_ms: int = 0) -> None:
        """Forgets every entry: the log begins behind ``index``, applied with ``digest`` at the log's time ``time_ms``,
        as a restored snapshot says.

        Raises:
            EngineError: a later index is applied already.
        """
        _check("r2p2_log_reset", lib.r2p2_log_reset(self._engine, index, digest, time_ms))

    def append_message(self, handle: int, header_bytes: int, skip: int, count: int) -> bool:
        """Appends entries ``skip..skip+count-1`` of a checked message. False when the log is full: nothing was
        appended.
        """
        status = lib.r2p2_log_append_message(self._engine, handle, header_bytes, skip, count)
        if status == FULL:
            return False
        _check("r2p2_log_append_message", status)
        return True

    def append_forwarded(self, handle: int, header_bytes: int) -> bool:
        """Appends all entries of a forwarded, checked message, at the time it is. False when the log is full: nothing
        was appended.
        """
        status = lib.r2p2_log_append_forwarded(self._engine, handle, header_bytes)
        if status == FULL:
            return False
        _check("r2p2_log_append_forwarded", status)
        return True

    def truncate_suffix(self, from_index: int) -> None:
        """Removes entries from ``from_index`` on. None of them may be applied."""
        _check("r2p2_log_truncate_suffix", lib.r2p2_log_truncate_suffix(self._engine, from_index))

    def drop_prefix(self, through_index: int) -> None:
        """Forgets entries through ``through_index``, which must be applied."""
        _check("r2p2_log_drop_prefix", lib.r2p2_log_drop_prefix(self._engine, through_index))

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
        _check("r2p2_log_copy", lib.r2p2_log_copy(self._engine, first_index, last_index, view, len(out)))
        return out

    def append_raw(self, entries: bytes, count: int) -> bool:
        """Appends ``count`` entries in their wire form, as the disk gives them back. False when the log is full.

        Raises:
            EngineError: they are not whole entries.
        """
        status = lib.r2p2_log_append_raw(self._engine, entries, len(entries), count)
        if status == FULL:
            return False
        _check("r2p2_log_append_raw", status)
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
        _check("r2p2_log_append_time", status)
        return True

    # ---- apply ----

    def apply_prepare(self, last_index: int, entries_max: int = limits.APPLY_BATCH_ENTRIES_MAX) -> tuple[Requests, int]:
        """The requests of the next entries up to ``last_index``, and the last index they cover (no-ops are left
        out). A batch has one time; it ends before a request at a later one.
        """
        status = lib.r2p2_apply_prepare(self._engine, last_index, entries_max, self._batch)
        if status:
            _check("r2p2_apply_prepare", status)
        batch = self._batch
        return self._requests(batch.time_ms), batch.last_index

    def apply_reply(self, replies: ReplySequence, *, send: bool) -> None:
        """Ends the prepared batch: answers each request when ``send``, and counts its entries as applied.

        What is no reply is an error on every member: the state has changed by then, and who reads the log again would
        come to the same place.
        """
        packed = laid_out(replies, limits.REPLICATED_REPLY_BYTES_MAX)
        status = self._apply_reply(packed, send)
        if status == _TOO_LARGE:
            packed = Replies.settled(packed, limits.REPLICATED_REPLY_BYTES_MAX)
            status = self._apply_reply(packed, send)
        self.replies_refused += packed.refused_count
        if status:
            _replies_refused("r2p2_apply_reply", status, packed, self._batch.requests_count)

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
        _check("r2p2_sessions_import", status)
        return True

    def sessions_size(self) -> tuple[int, int]:
        """How many sessions there are, and the bytes that count towards ``sessions_bytes_max``."""
        size = ffi.new("uint64_t *")
        count: int = lib.r2p2_sessions_size(self._engine, size)
        return count, size[0]

    # ---- client ----

    def client_open(self, local_port: int, calls_max: int = limits.CALLS_MAX) -> None:
        """Makes ``local_port`` one that calls can leave from."""
        _check("r2p2_client_open", lib.r2p2_client_open(self._engine, local_port, calls_max))

    def call(
        self,
        local_port: int,
        target: tuple[int, int],
        payload: bytes,
        *,
        policy: int,
        timeout_ns: int,
        tag: int,
        retry_ns: int = 0,
    ) -> int:
        """Begins a call; its end comes with :meth:`completions` under ``tag``. Returns the rid.

        ``retry_ns``: not 0 says that the request is safe to repeat: it is sent again after that time, then twice that.
        Once it has been, a refusal does not end the call: another copy may have been taken.

        Raises:
            RequestTooLarge: the payload does not fit in 254 packets.
            EngineError: too many calls wait already, or ``local_port`` is not open.
        """
        rid = self.try_call(
            local_port, target, payload, policy=policy, timeout_ns=timeout_ns, tag=tag, retry_ns=retry_ns
        )
        return rid if rid is not None else _check("r2p2_client_call", FULL)

    def try_call(
        self,
        local_port: int,
        target: tuple[int, int],
        payload: bytes,
        *,
        policy: int,
        timeout_ns: int,
        tag: int,
        retry_ns: int = 0,
    ) -> int | None:
        """As :meth:`call`; None when ``local_port`` has all the calls it can have."""
        status = lib.r2p2_client_call(
            self._engine, local_port, target[0], target[1], policy, payload, len(payload), timeout_ns, retry_ns, tag
        )
        if status == lib.R2P2_ERROR_TOO_LARGE:
            raise RequestTooLarge(f"a request of {len(payload)} bytes; at most {limits.REQUEST_BYTES_MAX} fit")
        return None if status == FULL else _check("r2p2_client_call", status)

    def session_new(self, local_port: int, targets: Sequence[tuple[int, int]], *, first_sequence: int = 1) -> int:
        """A client's session with the servers ``targets`` (1 to 16), whose calls leave from ``local_port``; its
        number. Nothing is sent before its first call.

        ``first_sequence``: of its first call, 1..2^63 - 1; drawn, it tells the session from another of the same id
        (docs/exactly-once.md).
        """
        c_targets = ffi.new("r2p2_target[]", [(ip, port, 0) for ip, port in targets])
        return _check(
            "r2p2_session_new", lib.r2p2_session_new(self._engine, local_port, c_targets, len(targets), first_sequence)
        )

    def session_call(
        self, local_port: int, session: int, payload: bytes, *, timeout_ns: int, tag: int, retry_ns: int = 0
    ) -> int | None:
        """Begins a replicated call that is executed at most once and sent again until its end. ``retry_ns`` 0: the
        default. Returns the rid; None when too many calls wait.

        Raises:
            RequestTooLarge: the payload does not fit in 254 packets.
            SessionExpiredError: the servers have ended the session; :meth:`session_renew` lets it begin anew.
        """
        status = lib.r2p2_session_call(
            self._engine, local_port, session, payload, len(payload), timeout_ns, retry_ns, tag
        )
        if status >= 0:
            return int(status)
        if status == lib.R2P2_ERROR_TOO_LARGE:
            raise RequestTooLarge(f"a request of {len(payload)} bytes; at most {limits.REQUEST_BYTES_MAX} fit")
        if status == lib.R2P2_ERROR_STATE:
            raise SessionExpiredError("the session has expired; nothing was sent. Renew it to go on with a new one")
        return None if status == FULL else _check("r2p2_session_call", status)

    def session_renew(self, local_port: int, session: int) -> None:
        """Lets an expired session be opened anew by its next call.

        Raises:
            EngineError: it has not expired.
        """
        _check("r2p2_session_renew", lib.r2p2_session_renew(self._engine, local_port, session))

    def session_close(self, local_port: int, session: int) -> None:
        """Forgets a session; its number may be given out again.

        Raises:
            EngineError: a call of it waits.
        """
        _check("r2p2_session_close", lib.r2p2_session_close(self._engine, local_port, session))

    def session_info(self, local_port: int, session: int) -> SessionInfo:
        """How a session stands."""
        info = ffi.new("r2p2_session_info *")
        _check("r2p2_session_read_info", lib.r2p2_session_read_info(self._engine, local_port, session, info))
        return SessionInfo(
            info.client_id,
            info.next_sequence,
            info.oldest_pending,
            info.waiting_count,
            info.state == lib.R2P2_SESSION_EXPIRED,
            (info.target_ip, info.target_port),
        )

    def restrict(self, local_port: int, senders: Sequence[tuple[int, int]]) -> None:
        """Only ``senders`` may answer calls of ``local_port`` from now on; none: anybody. At most 16."""
        c_senders = ffi.new("r2p2_target[]", [(ip, port, 0) for ip, port in senders])
        _check("r2p2_client_restrict", lib.r2p2_client_restrict(self._engine, local_port, c_senders, len(senders)))

    def cancel(self, local_port: int, rid: int) -> None:
        """Ends a waiting call as ``DONE_CANCELLED``."""
        _check("r2p2_client_cancel", lib.r2p2_client_cancel(self._engine, local_port, rid))

    def completions(self) -> list[Completion]:
        """The calls that ended since the last time."""
        descriptors, slab, slab_bytes = self._completions
        count = lib.r2p2_client_completions(self._engine, descriptors, slab, slab_bytes)
        if count == 0:
            return []
        data = ffi.buffer(slab[0], slab_bytes[0])[:] if slab_bytes[0] else b""
        fields = _COMPLETION.iter_unpack(ffi.buffer(descriptors[0], count * _COMPLETION.size))
        return [
            Completion(tag, status, data[offset : offset + length], latency_ns, source_ip, source_port)
            for tag, latency_ns, offset, length, status, source_ip, source_port in fields
        ]


def header_check(data: bytes) -> tuple[int, list[int]]:
    """What the C codec says of a datagram.

    Returns:
        0 and ``[header_size, type, policy, is_first, is_last, rid, p_order]``, or the reason (1 short, 2 magic, 3
        header_size, 4 type, 5 policy, 6 flags, 7 p_order) and an empty list.
    """
    fields = ffi.new("uint16_t[8]")
    error = lib.r2p2_header_check(ffi.from_buffer(data), len(data), fields)
    return error, [] if error else list(fields)[:7]


def resp_first_broken(requests: Requests) -> int:
    """Index of the first request that is not exactly one RESP array of bulk strings; ``len(requests)`` when all are."""
    if not len(requests):
        return 0
    lengths = ffi.from_buffer("uint32_t[]", requests.lengths)
    return lib.r2p2_resp_first_broken(requests.slab, lengths, len(requests))
