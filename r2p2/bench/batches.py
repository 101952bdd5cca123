"""How large the batches of a run were, and what was lost or came twice, from what every process counts.

The first is the reason for most of a run's speed, the second for most of what it lacks. A node's counters
(:meth:`r2p2.node.Node.status`) before the load and after it, warm-up included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["batch_sizes", "losses"]

# What is printed -> the counter above and the counter below the line.
RATIOS: dict[str, tuple[str, str]] = {
    "datagrams a poll that found any": ("rx_packets", "polls_busy"),
    "requests a poll": ("rx_requests", "polls_busy"),
    "entries an APPEND": ("append_entries", "appends_sent"),
    "entries a batch of the application": ("log_applied", "apply_batches"),
    "entries an fsync": ("storage_entries", "storage_syncs"),
}

# Counters with one of these in their names count what was dropped, refused, sent again, or came twice or too late.
LOSS_WORDS = ("drop", "bad", "refus", "retries", "expired", "evicted", "replaced", "duplicate", "timeouts", "failed")


def _rise(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> int:
    then, now = before.get("counters", {}).get(name, 0), after.get("counters", {}).get(name, 0)
    return int(now - then)


def batch_sizes(
    before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    """Process name -> what -> how many; what did not happen is left out."""
    sizes: dict[str, dict[str, float]] = {}
    for name, status in after.items():
        found = {
            what: round(_rise(before.get(name, {}), status, above) / below, 2)
            for what, (above, per) in RATIOS.items()
            if (below := _rise(before.get(name, {}), status, per)) and _rise(before.get(name, {}), status, above)
        }
        if found:
            sizes[name] = found
    return sizes


def losses(
    before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, int]]:
    """Process name -> counter -> by how much it rose, the most first; processes that lost nothing are left out."""
    lost: dict[str, dict[str, int]] = {}
    for name, status in after.items():
        counters = (counter for counter in status.get("counters", {}) if any(word in counter for word in LOSS_WORDS))
        risen = {counter: _rise(before.get(name, {}), status, counter) for counter in counters}
        found = dict(sorted(((counter, n) for counter, n in risen.items() if n > 0), key=lambda item: -item[1]))
        if found:
            lost[name] = found
    return lost
