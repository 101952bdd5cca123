"""A node: the engine, Raft and an application in one loop.

:mod:`r2p2.node.node` is the loop; start there. The other files are its parts, each with a state of its own:

* the group: ``group`` (from a launch to a member), ``hellos`` (Hello and Formed), ``replica`` (carries out what Raft
  decides), ``leadership`` (whom replicated requests are for);
* messages: ``incoming`` (the gateway), ``peers`` (where the others are, and sending), ``room`` (for entries);
* the application: ``batches`` (which entries), ``applying`` (in the loop), ``applying_apart`` (on a thread),
  ``handler_watch`` (how long it takes), ``unreplicated`` (what no log orders), ``state_digest``;
* the disk of a durable member: ``disk_upkeep``.
"""

from __future__ import annotations

from r2p2.node.config import NodeConfig, Timers
from r2p2.node.node import Node
from r2p2.node.unreplicated import STATE_REQUEST, STATUS_REQUEST

__all__ = ["STATE_REQUEST", "STATUS_REQUEST", "Node", "NodeConfig", "Timers"]
