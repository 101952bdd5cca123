"""Members come and go (dissertation chapter 4), and those too far behind get a snapshot (chapter 5)."""

from __future__ import annotations

import pytest

from r2p2.sim.node import SimNode
from raft import ChangeRefused, Configuration, InstallSnapshot, Message, NotLeader, Role
from tests.raft.raft_harness import MS, Cluster


def change(cluster: Cluster, leader: SimNode, target: Configuration) -> None:
    leader.raft.propose_configuration(target, cluster.now)
    cluster.settle()


def leader_of(cluster: Cluster) -> SimNode:
    (leader,) = [node for node in cluster.leaders if node.config.node_id not in cluster.stopped]
    return leader


def add_learner(cluster: Cluster, leader: SimNode) -> SimNode:
    node = cluster.join()
    change(cluster, leader, leader.raft.configuration.with_learner(node.config.node_id))
    cluster.run(30)
    if leader.raft.snapshot_wanted:  # what everybody had applied is forgotten
        leader.take_snapshot()
    cluster.run(100)
    return node


def in_force(node: SimNode) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    current = node.raft.configuration
    return current.voters, current.outgoing, current.learners


def test_a_learner_gets_everything_and_counts_for_nothing() -> None:
    cluster = Cluster(3)
    leader = cluster.elect(0)
    cluster.propose("a", "b")
    learner = add_learner(cluster, leader)
    assert in_force(learner) == ((0, 1, 2), (), (3,))
    assert learner.digest == leader.digest
    cluster.cut(1, 2)
    leader.propose(["c"], cluster.now)
    cluster.settle()
    assert leader.raft.commit_index < leader.raft.last_index == learner.raft.last_index
    cluster.stopped = {0, 1, 2}
    cluster.run(1000)
    assert learner.raft.role is Role.FOLLOWER  # it never stands


def test_a_learner_that_keeps_up_becomes_a_voter() -> None:
    """4.2.1, 4.3."""
    cluster = Cluster(3)
    leader = cluster.elect(0)
    learner = add_learner(cluster, leader)
    cluster.propose("a")
    cluster.propose("b")
    assert leader.raft.caught_up(3)
    assert not leader.raft.caught_up(1)  # no learner
    change(cluster, leader, leader.raft.configuration.with_voter(3))
    assert [in_force(node) for node in cluster.nodes] == [((0, 1, 2, 3), (), ())] * 4
    assert leader.raft.configuration_committed
    cluster.cut(1, 2)
    leader.propose(["c"], cluster.now)
    cluster.settle()
    assert leader.raft.commit_index < leader.raft.last_index  # two of four are no majority
    assert learner.raft.is_voter


@pytest.mark.parametrize("silent", [{1, 2}, {3, 4, 5}, {1, 2, 3}, {4, 5}])
def test_a_joint_configuration_needs_both_majorities(silent: set[int]) -> None:
    """4.3: neither half decides alone."""
    cluster = Cluster(3)
    leader = cluster.elect(0)
    for _ in range(3):
        add_learner(cluster, leader)
    target = Configuration((0, 3, 4, 5))
    cluster.pass_on = lambda message: {message.sender, message.target}.isdisjoint(silent)
    leader.raft.propose_configuration(target, cluster.now)
    cluster.settle()
    index = leader.raft.configuration_index
    assert in_force(leader) == ((0, 3, 4, 5), (0, 1, 2), ())
    # {4, 5}: with 0 and 3 alone, two of the four new voters.
    assert leader.raft.commit_index < index
    cluster.heal()
    cluster.run(60)
    assert in_force(leader) == ((0, 3, 4, 5), (), ())
    assert leader.raft.configuration_committed


def test_one_change_at_a_time_and_none_before_the_no_op() -> None:
    """Museum S9 (Ongaro, raft-dev 2015)."""
    cluster = Cluster(3)
    leader = cluster.elect(0)
    cluster.join()
    target = leader.raft.configuration.with_learner(3)
    with pytest.raises(NotLeader):
        cluster.nodes[1].raft.propose_configuration(target, cluster.now)
    with pytest.raises(ValueError, match="in force already"):
        leader.raft.propose_configuration(leader.raft.configuration, cluster.now)
    with pytest.raises(ValueError, match="is joint"):
        leader.raft.propose_configuration(Configuration((0,), (0, 1)), cluster.now)
    leader.raft.propose_configuration(target, cluster.now)
    with pytest.raises(RuntimeError, match="still to be executed"):
        leader.raft.propose_configuration(target.without(1), cluster.now)
    leader.work()
    with pytest.raises(ChangeRefused, match="still under way"):
        leader.raft.propose_configuration(target.without(1), cluster.now)
    cluster.settle()
    fresh = Cluster(3)
    fresh.pass_on = lambda message: type(message).__name__ != "AppendReply"
    opener = fresh.elect(0)
    with pytest.raises(ChangeRefused, match="no entry of this leader's term"):
        opener.raft.propose_configuration(target, fresh.now)


def test_a_configuration_that_is_truncated_is_taken_back() -> None:
    cluster = Cluster(3)
    leader = cluster.elect(0)
    cluster.cut(0)
    leader.raft.propose_configuration(leader.raft.configuration.without(2), cluster.now)
    cluster.settle()
    assert in_force(leader) == ((0, 1), (0, 1, 2), ())
    cluster.stopped = {0}
    cluster.heal()
    cluster.run(600)
    cluster.stopped = set()
    cluster.run(300)
    assert [in_force(node) for node in cluster.nodes] == [((0, 1, 2), (), ())] * 3
    assert len({node.digest for node in cluster.nodes}) == 1


def test_a_removed_leader_goes_on_until_it_is_committed_and_then_hands_over() -> None:
    """4.2.2."""
    cluster = Cluster(3)
    leader = cluster.elect(0)
    change(cluster, leader, leader.raft.configuration.without(0))
    cluster.run(20)
    assert leader.raft.removed
    assert leader.raft.role is Role.FOLLOWER
    new = leader_of(cluster)
    assert new.config.node_id in (1, 2)
    assert in_force(new) == ((1, 2), (), ())
    term = new.raft.term
    cluster.run(2000)
    assert leader_of(cluster) is new
    assert new.raft.term == term  # the removed one disturbs nobody


def test_a_removed_follower_is_told() -> None:
    cluster = Cluster(3)
    leader = cluster.elect(0)
    change(cluster, leader, leader.raft.configuration.without(2))
    cluster.run(50)
    assert cluster.nodes[2].raft.removed
    assert not cluster.nodes[1].raft.removed
    cluster.run(500)
    assert 2 not in [message.target for message in cluster.run(100)]  # and then left alone


def test_a_new_leader_leaves_the_joint_configuration() -> None:
    """The old one died between its two steps."""
    cluster = Cluster(3)
    leader = cluster.elect(0)
    add_learner(cluster, leader)
    joint: list[bool] = []

    def only_the_first_step(message: object) -> bool:
        configuration = getattr(message, "configuration", None)
        joint.append(configuration is not None and configuration.joint)
        return configuration is None or configuration.joint

    cluster.pass_on = only_the_first_step
    change(cluster, leader, leader.raft.configuration.with_voter(3, instead_of=0))
    assert any(joint)
    cluster.stopped = {0}
    cluster.heal()
    cluster.run(1000)
    new = leader_of(cluster)
    assert in_force(new) == ((1, 2, 3), (), ())
    assert new.raft.configuration_committed


def test_a_transfer_to_one_who_leaves_is_given_up() -> None:
    cluster = Cluster(3)
    leader = cluster.elect(0)
    cluster.cut(2)
    leader.raft.transfer(2, cluster.now)
    cluster.settle()
    change(cluster, leader, leader.raft.configuration.without(2))
    assert leader.raft.transfer_target is None
    with pytest.raises(ValueError, match="not another member that votes"):
        leader.raft.transfer(2, cluster.now)


def behind(cluster: Cluster, member: int) -> SimNode:
    """A leader that keeps nothing of what ``member`` misses."""
    leader = cluster.elect(0)
    cluster.propose("a")
    cluster.cut(member)
    cluster.propose("b", "c", "d")
    cluster.run(30)
    leader.take_snapshot()
    cluster.settle()
    assert leader.raft.first_index == leader.raft.applied_index + 1
    return leader


@pytest.mark.parametrize("chunk", [64, 299, 300, 100_000])
def test_a_member_behind_the_log_gets_a_snapshot(chunk: int) -> None:
    """Chapter 5: in pieces, and Appends go on behind it."""
    cluster = Cluster(3, append_bytes_max=chunk)
    leader = behind(cluster, 2)
    cluster.propose("e")
    cluster.heal()
    sent = cluster.run(100)
    chunks = [message for message in sent if isinstance(message, InstallSnapshot)]
    assert [m.offset for m in chunks] == list(range(0, 300, chunk))
    assert all(m.target == 2 for m in chunks)
    assert {node.digest for node in cluster.nodes} == {leader.digest}
    cluster.run(100)
    assert leader.raft.global_commit == leader.raft.last_index


def test_lost_pieces_are_sent_again_and_duplicates_do_no_harm() -> None:
    cluster = Cluster(3, append_bytes_max=64)
    leader = behind(cluster, 2)
    dropped: dict[str, int] = {}

    def every_second(message: object) -> bool:
        name = type(message).__name__
        if "Snapshot" not in name:
            return True
        dropped[name] = dropped.get(name, 0) + 1
        return dropped[name] % 2 == 0

    cluster.pass_on = every_second
    cluster.run(1000)
    assert cluster.nodes[2].digest == leader.digest
    assert min(dropped.values()) > 4


def test_a_snapshot_of_what_is_here_changes_nothing() -> None:
    """Museum S14: a delayed first piece, after the member has gone on."""
    cluster = Cluster(3)
    leader = behind(cluster, 2)
    late: list[InstallSnapshot] = []

    def hold(message: Message) -> bool:
        if isinstance(message, InstallSnapshot):
            late.append(message)
        return not isinstance(message, InstallSnapshot)

    cluster.pass_on = hold
    cluster.run(30)
    cluster.heal()
    cluster.run(200)
    cluster.propose("e", "f")
    node = cluster.nodes[2]
    before = node.raft.status()
    digest = node.digest
    node.raft.step(late[0], cluster.now)
    cluster.settle()
    assert (node.raft.applied_index, node.digest) == (before["applied_index"], digest)
    assert node.digest == leader.digest


def test_an_election_while_a_snapshot_is_on_its_way() -> None:
    """Museum S14: the half of an old leader's snapshot is not completed with a new one's."""
    cluster = Cluster(3, append_bytes_max=64)
    behind(cluster, 2)
    cluster.pass_on = lambda message: not (isinstance(message, InstallSnapshot) and message.offset > 64)
    cluster.run(30)
    cluster.stopped = {0}
    cluster.heal()
    cluster.run(600)
    new = leader_of(cluster)
    new.propose(["x"], cluster.now)
    cluster.run(30)
    if new.raft.snapshot_wanted or new.raft.first_index > 1:
        new.take_snapshot()
    cluster.run(300)
    cluster.stopped = set()
    cluster.run(300)
    assert len({node.digest for node in cluster.nodes}) == 1
    assert len({node.raft.applied_index for node in cluster.nodes}) == 1


def test_a_joining_member_gets_the_snapshot_then_the_log() -> None:
    cluster = Cluster(3)
    leader = cluster.elect(0)
    cluster.propose(*range(10))
    cluster.run(30)  # everybody has applied it, and it is forgotten
    assert leader.raft.first_index > 5
    node = cluster.join()
    change(cluster, leader, leader.raft.configuration.with_learner(3))
    cluster.run(30)
    assert (leader.raft.snapshot_wanted, leader.raft.snapshot_in_use) == (True, False)
    leader.take_snapshot()
    assert (leader.raft.snapshot_wanted, leader.raft.snapshot_in_use) == (False, True)
    cluster.propose("z")
    cluster.run(100)
    assert node.digest == leader.digest
    assert not leader.raft.snapshot_wanted
    assert not leader.raft.snapshot_in_use
    assert in_force(node) == ((0, 1, 2), (), (3,))
    again = cluster.start(1, cluster.nodes[1].crash())
    assert in_force(again) == in_force(leader)  # from its disk


def test_a_restored_member_restarts_from_its_snapshot() -> None:
    cluster = Cluster(3)
    leader = behind(cluster, 2)
    cluster.heal()
    cluster.run(100)
    disk = cluster.nodes[2].crash()
    cluster.nodes[2] = cluster.start(2, disk)
    assert cluster.nodes[2].raft.first_index == leader.raft.first_index
    cluster.run(300)
    assert cluster.nodes[2].digest == leader.digest


def test_what_no_snapshot_holds_is_not_compacted() -> None:
    cluster = Cluster(3)
    leader = cluster.elect(0)
    cluster.propose("a")
    with pytest.raises(ValueError, match="compact"):
        leader.raft.compact(1)
    with pytest.raises(ValueError, match="is not in"):
        leader.raft.snapshot_taken(leader.raft.last_index + 1, 10)
    with pytest.raises(ValueError, match="0 bytes"):
        leader.raft.snapshot_taken(leader.raft.applied_index, 0)


def test_a_leader_that_did_not_run_does_not_blame_the_others() -> None:
    """A process that was stopped for longer than an election timeout asked nobody: no majority is missing."""
    cluster = Cluster(3)
    leader = cluster.elect(0)
    cluster.now += 80 * MS
    leader.raft.tick(cluster.now)
    leader.work()
    cluster.now += 80 * MS
    leader.raft.tick(cluster.now)
    assert leader.raft.role is Role.LEADER


@pytest.mark.parametrize("pre_vote", [True, False])
def test_a_learner_whose_vote_is_needed_and_whose_log_is_ahead_stands_itself(pre_vote: bool) -> None:
    """A leader began to make it a voter, unheard; the next one gave it more entries and died. Neither the first one,
    whose change needs it, nor the others can win without the one with the longest log. Seen in the simulator.
    """
    cluster = Cluster(3, pre_vote=pre_vote)
    first = cluster.elect(0)
    learner = add_learner(cluster, first)
    cluster.cut(0)
    first.raft.propose_configuration(first.raft.configuration.with_voter(3), cluster.now)
    cluster.settle()
    cluster.stopped = {0}
    second = cluster.elect(2)
    cluster.stopped = {0}
    cluster.pass_on = lambda message: {message.sender, message.target} <= {2, 3}
    second.propose(["x"], cluster.now)
    cluster.settle()
    assert learner.raft.last_index == second.raft.last_index
    cluster.stopped = {2}
    cluster.heal()
    cluster.run(6000)
    leader = leader_of(cluster)
    assert leader.config.node_id in (0, 1)  # the learner has won, committed, and handed over
    assert {node.digest for node in cluster.nodes if node is not second} == {leader.digest}
    assert [entry[1] for entry in leader.log.entries if entry[1] == "x"] in ([], ["x"])
    assert ("x" in [entry[1] for _, entry in learner.applied]) or leader.raft.first_index > 1
