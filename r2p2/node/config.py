"""What a node is told when it is made.

Leaves to others: the command line's options (:mod:`r2p2.serve`), bounds (:mod:`r2p2.limits`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from r2p2 import limits
from r2p2.engine import EngineConfig
from r2p2.errors import UserError
from r2p2.files import Files
from r2p2.node.log_time import UnixClock, system_clock_ns
from raft import Config

__all__ = ["NodeConfig", "Timers"]

# With nothing else to send, followers are told of a commit after this part of a heartbeat; where more requests
# follow, the next Append tells them, which spares every member a turn (docs/adr/0019).
COMMIT_DELAYS_PER_HEARTBEAT: Final = 20


@dataclass(frozen=True, slots=True)
class Timers:
    """Raft's timers, ns. ``DEFAULT`` suits shared machines, ``DATACENTER`` one core a node."""

    heartbeat_ns: int = 10 * limits.MS
    election_min_ns: int = 100 * limits.MS
    election_max_ns: int = 200 * limits.MS

    @classmethod
    def profile(cls, name: str) -> Timers:
        """``default`` or ``datacenter`` (1 ms heartbeats, elections after 10-20 ms)."""
        if name == "default":
            return cls()
        if name == "datacenter":
            return cls(1 * limits.MS, 10 * limits.MS, 20 * limits.MS)
        raise UserError(f"timers: {name!r} is neither default nor datacenter")


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One node.

    Attributes:
        node_id: this member's slot.
        members: slot -> (ip, port) of every member of the Raft group, this one's too; empty: an unreplicated server.
        join: (ip, port) of some members of a group that runs already, instead of ``members``: this one asks them to be
            let in (``r2p2 member add``).
        truncation: ``snapshot``, ``evict`` or ``block``: what gives way when a member that is down holds the log;
            by default ``snapshot`` where the application has them, else ``block``.
        cluster_id: tells groups apart that can reach each other.
        timers: Raft's.
        engine: bounds of the engine.
        incarnation: this launch's random number; drawn when 0.
        seed: of election timeouts; drawn when None.
        storage: the directory of a durable member (docs/durability.md); None: in memory. An incarnation that it holds
            goes before ``incarnation``.
        application: the name of what is replicated: a directory that another one has written is refused; empty: any.
        storage_files: the calls that write there, and whether in threads of their own: for tests.
        storage_threaded: see there.
        unix_clock_ns: where the log's time comes from while this member leads (docs/log-time.md), and the time of an
            unreplicated server's requests; None: the port's clock is unix time.
        apply_thread: the application's ``apply`` runs on a thread of its own, in order; heartbeats, elections and
            replication go on while it works (docs/applications.md).
        steady_step: whether the engine takes the usual step of replication without asking (docs/adr/0021). Durable
            members never do.
        check_determinism: a debug mode: replicas compare replies and states every so many entries
            (:mod:`r2p2.node.determinism`); 0: not.
        handler_budget_ns: a batch that takes the application more processor time than this is counted, and logged once;
            from the second one on, since processor time is taken only of an application that was slow by the clock.
    """

    node_id: int = 0
    members: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    cluster_id: int = 1
    timers: Timers = field(default_factory=Timers)
    engine: EngineConfig = field(default_factory=EngineConfig)
    incarnation: int = 0
    seed: int | None = None
    handler_budget_ns: int = 5 * limits.MS
    join: tuple[tuple[int, int], ...] = ()
    truncation: str | None = None
    storage: Path | None = None
    application: str = ""
    storage_files: Files | None = None
    storage_threaded: bool = True
    unix_clock_ns: UnixClock | None = system_clock_ns
    apply_thread: bool = False
    check_determinism: int = 0
    steady_step: bool = True

    def for_raft(self, member: int, members: tuple[int, ...], *, joining: bool) -> Config:
        """What Raft's core is told: ``member`` is this one's identity, ``members`` those of the group."""
        timers = self.timers
        return Config(
            node_id=member,
            members=members,
            heartbeat_ns=timers.heartbeat_ns,
            election_min_ns=timers.election_min_ns,
            election_max_ns=timers.election_max_ns,
            append_bytes_max=self.engine.append_bytes_max,
            joining=joining,
            commit_delay_ns=timers.heartbeat_ns // COMMIT_DELAYS_PER_HEARTBEAT,
        )
