"""What a member begins with: its disk, and its settings. Sections are those of Ongaro's dissertation."""

from __future__ import annotations

import random

import pytest

from r2p2.sim.node import SimNode
from raft import (
    Config,
    TermRuns,
    Vote,
    VoteReply,
)
from tests.raft.one_member import node_of
from tests.raft.raft_harness import Cluster

# -- restarts ---------------------------------------------------------------------------------------------------------


def test_a_cluster_restarts_from_its_disks() -> None:
    """3.8: terms go on, entries are still there."""
    cluster = Cluster()
    cluster.elect()
    cluster.propose("a", "b", "c")
    term = cluster.leaders[0].raft.term
    digest = cluster.nodes[0].digest
    cluster.nodes = [cluster.start(i, node.crash()) for i, node in enumerate(cluster.nodes)]
    assert [node.raft.term for node in cluster.nodes] == [term] * 3
    cluster.run(500)
    assert len(cluster.leaders) == 1
    assert cluster.leaders[0].raft.term > term
    assert all(node.log.last_index == 5 for node in cluster.nodes)
    assert {node.digests[4] for node in cluster.nodes if 4 in node.digests} <= {digest}


def test_a_log_of_a_later_term_than_the_hard_state_is_refused() -> None:
    """Term and vote are written with the log or before it."""
    with pytest.raises(ValueError, match="term_runs"):
        node_of(TermRuns([(1, 3)], 3), 2)


def test_a_restarted_voter_does_not_vote_again() -> None:
    """The disk remembers for it."""
    node = SimNode(Config(0, (0, 1, 2)), rng=random.Random(1), now_ns=0)
    node.raft.step(Vote(1, 0, 1, 0, 0), 0)
    assert [m.granted for m in node.work() if isinstance(m, VoteReply)] == [True]
    again = SimNode(Config(0, (0, 1, 2)), rng=random.Random(1), now_ns=0, disk=node.crash())
    again.raft.step(Vote(2, 0, 1, 0, 0), 0)
    assert [m.granted for m in again.work() if isinstance(m, VoteReply)] == [False]


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"node_id": -1}, "node_id"),
        ({"node_id": 0xFFFF}, "node_id"),
        ({"members": ()}, "members"),
        ({"members": tuple(range(17))}, "members"),
        ({"members": (0, 1, 1)}, "members"),
        ({"members": (0, 0xFFFF)}, "members"),
        ({"members": (1, 2)}, "members"),
        ({"heartbeat_ns": 0}, "heartbeat_ns"),
        ({"commit_delay_ns": 10_000_000}, "commit_delay_ns"),
        ({"commit_delay_ns": -1}, "commit_delay_ns"),
        ({"election_min_ns": 19_000_000}, "election_min_ns"),
        ({"election_max_ns": 100_000_000}, "election_max_ns"),
        ({"inflight_max": 0}, "inflight_max"),
        ({"append_bytes_max": 0}, "append_bytes_max"),
        ({"inflight_bytes_max": 100}, "inflight_bytes_max"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], name: str) -> None:
    """ValueError, before anything runs."""
    with pytest.raises(ValueError, match=f"^{name}:"):
        Config(**({"node_id": 0, "members": (0, 1, 2)} | settings))  # type: ignore[arg-type]
