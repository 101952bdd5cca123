"""What a seed draws before it begins: how large the cluster is, how bad the day gets.

Left to others: making it happen (world.py, faults.py, clients.py, operators.py).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

MS = 1_000_000


@dataclass(frozen=True)
class Options:
    """Probabilities per message or per client request, times in nanoseconds of the world's clock."""

    members_count: int = 3
    spares_count: int = 0  # further slots, whose processes can be made members
    loss: float = 0.0
    duplicate: float = 0.0
    straggler: float = 0.0  # delayed by a multiple of the usual: overtaken by what was sent later
    delay_min_ns: int = 50_000
    delay_max_ns: int = 500_000
    straggler_max_ns: int = 80 * MS
    sync_max_ns: int = 0  # 0: durable at once
    fault_mean_ns: int = 150 * MS  # between faults; 0: none
    partitions: bool = True
    clogs: bool = True
    crashes: bool = True
    disk_losses: bool = False  # a crashed member may come back as another incarnation, with nothing
    pauses: bool = True
    slow_members: bool = False
    clock_drift: float = 0.0  # each member's clock runs up to this much faster or slower
    clients_count: int = 3
    client_mean_ns: int = 10 * MS  # between a client's operations
    pending_max: int = 2  # operations a client has under way at once
    registers_count: int = 2
    sessions_max: int = 1_000  # in the state machine; few: they get evicted
    request_mean_ns: int = 3 * MS  # between batches of requests without a session
    read_mean_ns: int = 10 * MS
    transfers: bool = True
    change_mean_ns: int = 0  # between changes of members; 0: none
    snapshot_mean_ns: int = 0  # between snapshots, whose prefix of the log goes; 0: none
    batch_max: int = 4
    backlog_max: int = 100  # entries of a leader not yet committed, over which clients hold back
    inflight_max: int = 64
    append_bytes_max: int = 256 << 10
    pre_vote: bool = True
    check_quorum: bool = True
    commit_delay_ns: int = 0  # before commits are told by themselves
    steady: bool = False  # members in memory take the usual step outside the core


def draw(rng: random.Random) -> Options:
    """Somewhere between a good day and a very bad one."""
    bad = rng.random()
    return Options(
        members_count=rng.choice((1, 2, 3, 3, 3, 3, 4, 5, 5)),
        spares_count=rng.choice((0, 0, 1, 2)),
        loss=rng.choice((0.0, 0.01, 0.1, 0.3)) * bad,
        duplicate=rng.choice((0.0, 0.05, 0.3)) * bad,
        straggler=rng.choice((0.0, 0.05, 0.3)) * bad,
        delay_max_ns=rng.choice((100_000, 500_000, 5 * MS)),
        straggler_max_ns=rng.choice((20 * MS, 80 * MS, 400 * MS)),
        sync_max_ns=rng.choice((0, 1 * MS, 20 * MS)),
        fault_mean_ns=rng.choice((0, 60 * MS, 150 * MS, 400 * MS)),
        partitions=rng.random() < 0.8,
        clogs=rng.random() < 0.5,
        crashes=rng.random() < 0.8,
        disk_losses=rng.random() < 0.4,
        pauses=rng.random() < 0.5,
        slow_members=rng.random() < 0.3,
        clock_drift=rng.choice((0.0, 0.0, 0.05, 0.2)),
        clients_count=rng.choice((1, 3, 6)),
        client_mean_ns=rng.choice((2 * MS, 10 * MS, 40 * MS)),
        pending_max=rng.choice((1, 2, 4)),
        registers_count=rng.choice((1, 2, 8)),
        sessions_max=rng.choice((2, 4, 1_000)),
        request_mean_ns=rng.choice((3 * MS, 10 * MS, 40 * MS)),
        read_mean_ns=rng.choice((2 * MS, 20 * MS)),
        transfers=rng.random() < 0.5,
        change_mean_ns=rng.choice((0, 50 * MS, 300 * MS)),
        snapshot_mean_ns=rng.choice((0, 20 * MS, 200 * MS)),
        backlog_max=rng.choice((10, 100, 1_000)),
        batch_max=rng.choice((1, 4, 40)),
        inflight_max=rng.choice((1, 2, 64)),
        append_bytes_max=rng.choice((64, 300, 256 << 10)),
        pre_vote=rng.random() < 0.9,
        check_quorum=rng.random() < 0.9,
        commit_delay_ns=rng.choice((0, 0, 500_000, 5 * MS)),
        steady=rng.random() < 0.5,
    )
