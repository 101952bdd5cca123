"""What the engine is told and what it returns: bounds, constants, records. Nothing of C in any of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from r2p2 import limits
from r2p2._engine import ffi, lib

ROLE_NONE: Final[int] = lib.R2P2_ROLE_NONE
ROLE_LEADER: Final[int] = lib.R2P2_ROLE_LEADER
ROLE_FOLLOWER: Final[int] = lib.R2P2_ROLE_FOLLOWER
ROLE_HOLD: Final[int] = lib.R2P2_ROLE_HOLD

STEADY_FOLLOWED: Final[int] = lib.R2P2_STEADY_FOLLOWED
STEADY_ANSWERED: Final[int] = lib.R2P2_STEADY_ANSWERED
STEADY_SENT: Final[int] = lib.R2P2_STEADY_SENT
STEADY_HEAD_BYTES: Final[int] = lib.R2P2_STEADY_HEAD_BYTES

DONE_OK: Final[int] = lib.R2P2_DONE_OK
DONE_TIMEOUT: Final[int] = lib.R2P2_DONE_TIMEOUT
DONE_DROPPED: Final[int] = lib.R2P2_DONE_DROPPED
DONE_CANCELLED: Final[int] = lib.R2P2_DONE_CANCELLED
DONE_EXPIRED: Final[int] = lib.R2P2_DONE_EXPIRED
COUNTER_NAMES: Final = [ffi.string(lib.r2p2_counter_name(i)).decode() for i in range(lib.r2p2_counters_count())]
_COUNTER_HELPS: Final = [ffi.string(lib.r2p2_counter_help(i)).decode() for i in range(lib.r2p2_counters_count())]


def counter_helps() -> dict[str, str]:
    """Every counter's name and what it counts, in the order of :meth:`Engine.counters`."""
    return dict(zip(COUNTER_NAMES, _COUNTER_HELPS, strict=True))


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
