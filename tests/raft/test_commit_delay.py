"""A leader that may wait before it tells of a commit: the next Append tells it, or the deadline, or a read's round."""

from __future__ import annotations

from raft import Append, AppendReply
from tests.raft.raft_harness import MS, Cluster

DELAY_NS = 500_000


def waiting_cluster() -> Cluster:
    """Elected, at rest, everything told."""
    cluster = Cluster(commit_delay_ns=DELAY_NS)
    cluster.elect()
    cluster.run(30)
    return cluster


def test_a_commit_alone_is_told_when_it_is_due() -> None:
    """Until then the followers do not know; heartbeats keep their own time."""
    cluster = waiting_cluster()
    leader = cluster.nodes[0].raft
    heartbeat_ns = leader.deadline_ns
    sent = cluster.propose("a")
    assert [type(m) for m in sent] == [Append, Append, AppendReply, AppendReply]
    assert [node.raft.commit_index for node in cluster.nodes] == [2, 1, 1]
    assert leader.deadline_ns == cluster.now + DELAY_NS
    leader.tick(cluster.now + DELAY_NS - 1)
    assert not leader.has_ready()
    cluster.now += DELAY_NS
    leader.tick(cluster.now)
    assert leader.deadline_ns == heartbeat_ns
    sent = cluster.settle()
    assert [(type(m), getattr(m, "count", 0)) for m in sent][:2] == [(Append, 0), (Append, 0)]
    assert [node.raft.commit_index for node in cluster.nodes] == [2, 2, 2]
    assert leader.deadline_ns == heartbeat_ns


def test_the_next_append_tells_it_sooner() -> None:
    """And then nothing is owed but the commit of that one."""
    cluster = waiting_cluster()
    leader = cluster.nodes[0].raft
    cluster.propose("a")
    cluster.now += DELAY_NS // 2
    leader.tick(cluster.now)
    sent = cluster.propose("b")
    assert len(sent) == 4
    assert [node.raft.commit_index for node in cluster.nodes] == [3, 2, 2]
    assert leader.deadline_ns >= cluster.now


def test_a_heartbeat_tells_it_and_comes_no_later() -> None:
    """A commit shortly before a heartbeat does not move it."""
    cluster = waiting_cluster()
    leader = cluster.nodes[0].raft
    heartbeat_ns = leader.deadline_ns
    cluster.now = heartbeat_ns - 1
    cluster.nodes[0].propose(["a"], cluster.now)
    leader.tick(cluster.now)
    cluster.settle()
    assert leader.deadline_ns <= heartbeat_ns
    cluster.now = heartbeat_ns
    leader.tick(cluster.now)
    cluster.settle()
    assert leader.deadline_ns == heartbeat_ns + 10 * MS
    assert [node.raft.commit_index for node in cluster.nodes] == [2, 2, 2]


def test_a_read_of_a_follower_does_not_wait_for_it() -> None:
    """The round that confirms the read tells the others, so nothing is owed any more when who asked has the entry."""
    cluster = waiting_cluster()
    leader, asker, other = cluster.nodes
    leader.propose(["a"], cluster.now)
    appends = {m.target: m for m in leader.work() if isinstance(m, Append)}
    other.raft.step(appends[2], cluster.now)
    for reply in other.work():
        leader.raft.step(reply, cluster.now)
    assert leader.raft.commit_index == 2
    ticket = asker.raft.read_index(cluster.now)
    (question,) = asker.work()
    leader.raft.step(question, cluster.now)
    for confirm in leader.work():
        if confirm.target == 2:
            other.raft.step(confirm, cluster.now)
            for reply in other.work():
                leader.raft.step(reply, cluster.now)
    leader.work()  # confirmed, while the entry is still on its way to the asker
    asker.raft.step(appends[1], cluster.now)
    for reply in asker.work():
        leader.raft.step(reply, cluster.now)
    assert asker.raft.commit_index == 1
    (told,) = [m for m in leader.work() if isinstance(m, Append)]
    assert (told.target, told.count, told.commit) == (1, 0, 2)
    assert ticket
