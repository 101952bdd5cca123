"""A node: the engine, Raft and an application in one loop.

:mod:`r2p2.node.node` is the loop; start there. The other files are its parts, each with a state of its own:

* the group: ``group`` (from a launch to a member), ``forming`` and ``hellos`` (its decisions, and who is asked),
  ``replica`` (carries out what Raft decides), ``steady`` (the usual step, which the engine takes by itself),
  ``leadership`` (whom replicated requests are for);
* messages: ``incoming`` (the gateway), ``peers`` (where the others are, and sending), ``room`` (for entries);
* the application: ``batches`` (which entries), ``applying`` (in the loop), ``applying_apart`` and ``apply_thread``
  (on a thread), ``handler_watch`` (how long it takes), ``reads`` (linearizable ones), ``unreplicated`` (what no log
  orders), ``log_time`` (the time it is told), ``determinism`` and ``state_digest`` (whether replicas agree);
* upkeep: ``upkeep`` over ``membership`` (who is to be a member), ``snapshots`` (taken, sent, restored) and
  ``truncation`` (of a log that is held);
* membership: ``changes`` (the next configuration), ``member_requests`` (operators'), ``outsiders`` (who knocks),
  ``configurations`` (what one says), ``membership_core`` (what is asked of Raft);
* the disk of a durable member: ``durability`` (over :mod:`r2p2.storage`), ``disk_upkeep``;
* ``config`` (what it is told when it is made), ``counters`` (what each counts), ``own_requests`` (which requests it
  answers itself).

The names below are imported when they are first used: a command that asks a node needs none of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from r2p2.node.config import NodeConfig, Timers
    from r2p2.node.node import Node
    from r2p2.node.own_requests import STATE_REQUEST, STATUS_REQUEST

__all__ = ["STATE_REQUEST", "STATUS_REQUEST", "Node", "NodeConfig", "Timers"]

_HOME = {
    "Node": "r2p2.node.node",
    "NodeConfig": "r2p2.node.config",
    "STATE_REQUEST": "r2p2.node.own_requests",
    "STATUS_REQUEST": "r2p2.node.own_requests",
    "Timers": "r2p2.node.config",
}


def __getattr__(name: str) -> Any:
    """Imports a name's module when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'r2p2.node' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
