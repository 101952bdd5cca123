"""What is done about a log that a member holds back, as pure decisions (docs/truncation.md).

The log's prefix goes when every member has applied it. A member that is down stops that; then, as the log nears its
bound, one of three policies says what gives way:

* ``snapshot``: the prefix goes all the same, behind a snapshot of the application; the member is brought up with that.
* ``evict``: the leader removes the member from the configuration.
* ``block``: nothing: the log fills, and new requests get DROP until the member is back.

Leaves to others: taking snapshots (:mod:`r2p2.node.snapshots`), changing the configuration
(:mod:`r2p2.node.membership`), refusing requests (the engine).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from r2p2.errors import UserError

__all__ = ["POLICIES", "Act", "Situation", "choose_policy", "compact_through", "decide", "is_near"]

POLICIES: Final = ("snapshot", "evict", "block")
# The log is "near its bound" at three quarters: the rest takes what comes while something is done about it.
HIGH_PARTS: Final = 3
KEEP_PARTS: Final = 1  # what stays for members that are a little behind
PARTS: Final = 4


class Act(Enum):
    """What to do now."""

    NOTHING = "nothing"
    COMPACT = "compact"
    EVICT = "evict"


@dataclass(frozen=True, slots=True)
class Situation:
    """What the decision depends on.

    Attributes:
        log_bytes, log_bytes_max, log_entries, log_entries_max: the log and its bounds.
        leads: whether this member leads.
        changing: a change of the configuration is under way.
        holder_silent_ns: how long the member that holds the log has not answered; None: nobody holds it, or unknown.
        silent_ns_min: how long makes a member be down.
    """

    log_bytes: int
    log_bytes_max: int
    log_entries: int
    log_entries_max: int
    leads: bool = False
    changing: bool = False
    holder_silent_ns: int | None = None
    silent_ns_min: int = 0


class LogSizes(Protocol):
    """What the engine says of its log."""

    def range_bytes(self, first_index: int, last_index: int) -> int:
        """Bytes of entries first..last."""
        ...


def choose_policy(name: str | None, *, has_snapshots: bool) -> str:
    """The policy to run with; by default ``snapshot`` where the application has them, else ``block``.

    Raises:
        UserError: there is no such policy, or the application cannot follow it.
    """
    if name is None:
        return "snapshot" if has_snapshots else "block"
    if name not in POLICIES:
        raise UserError(f"truncation {name!r} is not one of {', '.join(POLICIES)}")
    if name == "snapshot" and not has_snapshots:
        raise UserError(
            "the truncation policy snapshot needs an application with snapshots",
            "Give it snapshot() and restore(), or choose evict or block.",
        )
    return name


def is_near(size: int, bound: int) -> bool:
    """Whether ``size`` has come to three quarters of ``bound``."""
    return size * PARTS >= bound * HIGH_PARTS


def decide(policy: str, now: Situation) -> Act:
    """What to do about the log. Nothing while it is below three quarters of its bounds."""
    if not is_near(now.log_bytes, now.log_bytes_max) and not is_near(now.log_entries, now.log_entries_max):
        return Act.NOTHING
    if policy == "snapshot":
        return Act.COMPACT
    # A member that answers is only slow, and slowness is not cured by sending it away.
    down = now.holder_silent_ns is not None and now.holder_silent_ns >= now.silent_ns_min
    if policy == "evict" and now.leads and not now.changing and down:
        return Act.EVICT
    return Act.NOTHING


def compact_through(log: LogSizes, first_index: int, applied_index: int, bytes_max: int, entries_max: int) -> int:
    """The index through which the log may go: what stays behind it is at most a quarter of the bounds. 0: too little
    would go to be worth a snapshot.
    """
    if applied_index < first_index:
        return 0
    keep_bytes = bytes_max * KEEP_PARTS // PARTS
    keep_entries = entries_max * KEEP_PARTS // PARTS
    low, high = max(first_index - 1, applied_index - keep_entries), applied_index
    while low < high:  # the smallest index behind which the rest fits
        middle = (low + high) // 2
        if log.range_bytes(middle + 1, applied_index) <= keep_bytes:
            high = middle
        else:
            low = middle + 1
    freed_bytes = log.range_bytes(first_index, low) if low >= first_index else 0
    freed_entries = low + 1 - first_index
    worth_it = freed_bytes >= keep_bytes or freed_entries >= keep_entries
    return low if worth_it else 0
