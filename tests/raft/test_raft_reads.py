"""ReadIndex (dissertation 6.4) and leadership transfer (3.10)."""

from __future__ import annotations

import pytest

from r2p2.sim.node import SimNode
from raft import Append, AppendReply, NotLeader, ReadIndex, ReadIndexReply, Role, TimeoutNow, Vote
from raft.reads import ASKED_MAX
from tests.raft.raft_harness import MS, Cluster


def reads(node: SimNode) -> list[tuple[int, int]]:
    """(ticket, index) that came out of Readies so far; forgets them."""
    return [read for ready in taken(node) for read in ready[0]]


def failures(node: SimNode) -> list[int]:
    """Tickets that came out as failed so far; forgets them."""
    return [ticket for ready in taken(node) for ticket in ready[1]]


def taken(node: SimNode) -> list[tuple[tuple[tuple[int, int], ...], tuple[int, ...]]]:
    """What the Readies said of reads."""
    readies, node.readies = node.readies, []
    return [(ready.reads, ready.reads_failed) for ready in readies]


def test_a_leader_confirms_a_read_by_a_round_of_its_own() -> None:
    """One empty Append each, the commit index at the time of asking, and no log entry."""
    cluster = Cluster()
    leader = cluster.elect()
    cluster.propose("a")
    cluster.run(30)
    ticket = leader.raft.read_index(cluster.now)
    sent = cluster.settle()
    assert reads(leader) == [(ticket, 2)]
    assert [type(m) for m in sent] == [Append, Append, AppendReply, AppendReply]
    assert leader.raft.last_index == 2


def test_reads_ride_on_appends_that_flow_anyway() -> None:
    """Proposed in the same turn: no message more."""
    cluster = Cluster()
    leader = cluster.elect()
    cluster.run(30)
    tickets = [leader.raft.read_index(cluster.now) for _ in range(3)]
    leader.propose(["a"], cluster.now)
    appends = [m for m in leader.work() if isinstance(m, Append)]
    assert [m.count for m in appends] == [1, 1]
    for m in appends[:1]:
        cluster.nodes[m.target].raft.step(m, cluster.now)
        for reply in cluster.nodes[m.target].work():
            leader.raft.step(reply, cluster.now)
    leader.work()
    assert reads(leader) == [(ticket, 1) for ticket in tickets]


def test_a_read_waits_for_a_majority() -> None:
    """One of four others is not enough; nor is the same one twice."""
    cluster = Cluster(5)
    leader = cluster.elect()
    cluster.run(30)
    cluster.pass_on = lambda m: m.target in (0, 1)
    leader.raft.read_index(cluster.now)
    cluster.settle()
    cluster.run(50)
    assert reads(leader) == []
    cluster.heal()
    cluster.run(20)
    assert [index for _, index in reads(leader)] == [1]


def test_a_single_member_confirms_itself() -> None:
    """Nobody to ask."""
    cluster = Cluster(1)
    leader = cluster.elect()
    ticket = leader.raft.read_index(cluster.now)
    cluster.settle()
    assert reads(leader) == [(ticket, 1)]


def test_a_follower_asks_its_leader() -> None:
    """It answers itself once it has applied that far."""
    cluster = Cluster()
    cluster.elect()
    cluster.propose("a")
    follower = cluster.nodes[1]
    ticket = follower.raft.read_index(cluster.now)
    sent = cluster.settle()
    assert reads(follower) == [(ticket, 2)]
    assert ReadIndex(1, 0, 1, ticket) in sent
    assert ReadIndexReply(0, 1, 1, ticket, 2, True) in sent


def test_nobody_to_ask() -> None:
    """Without a leader there is no read; an old leader's address refuses."""
    cluster = Cluster()
    with pytest.raises(NotLeader):
        cluster.nodes[0].raft.read_index(0)
    cluster.elect(0)
    follower = cluster.nodes[1]
    ticket = follower.raft.read_index(cluster.now)
    cluster.nodes[0].raft._become_follower(1, cluster.now)
    cluster.settle()
    assert failures(follower) == [ticket]


def test_reads_fail_when_leadership_is_lost() -> None:
    """The leader's own and those that others asked for; they learn it if the network lets them."""
    cluster = Cluster()
    leader = cluster.elect()
    cluster.run(30)
    follower = cluster.nodes[1]
    cluster.pass_on = lambda m: not isinstance(m, AppendReply)
    asked = follower.raft.read_index(cluster.now)
    own = leader.raft.read_index(cluster.now)
    cluster.settle()
    cluster.run(115)
    assert leader.raft.role is not Role.LEADER
    assert failures(leader) == [own]
    assert failures(follower) == [asked]


def test_a_follower_waits_for_a_bounded_number_of_reads() -> None:
    """The oldest ones fail."""
    cluster = Cluster()
    cluster.elect()
    cluster.cut(1)
    follower = cluster.nodes[1]
    tickets = [follower.raft.read_index(cluster.now) for _ in range(ASKED_MAX + 2)]
    cluster.settle()
    assert failures(follower) == tickets[:2]
    cluster.run(300)
    assert failures(follower) == tickets[2:]


def test_replies_to_reads_nobody_waits_for_are_ignored() -> None:
    """Twice, of somebody else, of an older term."""
    cluster = Cluster()
    cluster.elect()
    follower = cluster.nodes[1]
    ticket = follower.raft.read_index(cluster.now)
    cluster.settle()
    for reply in (ReadIndexReply(0, 1, 1, ticket, 9, True), ReadIndexReply(2, 1, 1, 77, 9, True)):
        follower.raft.step(reply, cluster.now)
    assert follower.raft.ignored["old_reply"] == 2
    assert reads(follower) == [(ticket, 1)]


# -- transfer ---------------------------------------------------------------------------------------------------------


def test_a_leader_hands_over_at_once() -> None:
    """3.10: no election timeout passes, the lease of the old leader does not protect it."""
    cluster = Cluster()
    leader = cluster.elect()
    cluster.propose("a")
    leader.raft.transfer(2, cluster.now)
    sent = cluster.settle()
    assert cluster.leaders == [cluster.nodes[2]]
    assert sum(isinstance(m, TimeoutNow) for m in sent) == 1
    assert all(m.transfer for m in sent if isinstance(m, Vote))
    assert leader.raft.transfer_target is None
    cluster.propose("b")
    assert len({node.digest for node in cluster.nodes}) == 1


def test_a_target_that_lags_gets_everything_first() -> None:
    """It would lose the election otherwise."""
    cluster = Cluster()
    leader = cluster.elect()
    cluster.cut(2)
    cluster.propose(*range(50))
    cluster.heal()
    leader.raft.transfer(2, cluster.now)
    cluster.run(60)
    assert cluster.leaders == [cluster.nodes[2]]
    assert cluster.nodes[2].raft.commit_index == cluster.nodes[2].raft.last_index


def test_a_transfer_to_the_dead_is_given_up_and_nothing_else_changes() -> None:
    """The leader serves on, during and after."""
    cluster = Cluster()
    leader = cluster.elect()
    cluster.cut(2)
    leader.raft.transfer(2, cluster.now)
    cluster.propose("during")
    assert (leader.raft.transfer_target, leader.raft.commit_index) == (2, 2)
    cluster.run(111)
    assert leader.raft.transfer_target is None
    cluster.propose("after")
    assert leader.raft.commit_index == 3
    cluster.heal()
    cluster.run(300)
    assert cluster.leaders == [leader]


def test_a_lost_timeout_now_is_repeated() -> None:
    """At the next heartbeat."""
    cluster = Cluster()
    leader = cluster.elect()
    cluster.run(30)
    cluster.pass_on = lambda m: not isinstance(m, TimeoutNow)
    leader.raft.transfer(1, cluster.now)
    cluster.settle()
    cluster.heal()
    cluster.run(11)
    assert cluster.leaders == [cluster.nodes[1]]


def test_who_may_transfer_to_whom() -> None:
    """The leader, to another member; TimeoutNow counts from the leader alone."""
    cluster = Cluster()
    leader = cluster.elect()
    with pytest.raises(NotLeader):
        cluster.nodes[1].raft.transfer(2, cluster.now)
    for target in (0, 9):
        with pytest.raises(ValueError, match=f"transfer: {target}"):
            leader.raft.transfer(target, cluster.now)
    cluster.nodes[1].raft.step(TimeoutNow(2, 1, 1), cluster.now)
    leader.raft.step(TimeoutNow(2, 0, 1), cluster.now)
    cluster.settle()
    assert cluster.leaders == [leader]
    assert cluster.now < 5_000 * MS
