"""How large the batches of a run were, from what the servers count: the reason for most of its speed.

A node's counters (:meth:`r2p2.node.Node.status`) before the load and after it, warm-up included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["batch_sizes"]

# What is printed -> the counter above and the counter below the line.
RATIOS: dict[str, tuple[str, str]] = {
    "datagrams a poll that found any": ("rx_packets", "polls_busy"),
    "requests a poll": ("rx_requests", "polls_busy"),
    "entries an APPEND": ("append_entries", "appends_sent"),
    "entries a batch of the application": ("log_applied", "apply_batches"),
    "entries an fsync": ("storage_entries", "storage_syncs"),
}


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
