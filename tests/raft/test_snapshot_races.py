"""Snapshots and leavers against the clock (museum S14): what once ended a leader, and copies that never died out."""

from __future__ import annotations

import pytest
from raft_harness import MS, Cluster, over_the_wire

from r2p2.sim.node import SimNode
from raft import (
    Append,
    AppendReply,
    Message,
)


def deliver(cluster: Cluster, node: SimNode, message: Message) -> list[Message]:
    """Its answers."""
    node.raft.step(over_the_wire(message), cluster.now)
    return node.work()


def hold_all_to(cluster: Cluster, member: int) -> list[Message]:
    """What is sent to ``member`` from now on, instead of its arrival."""
    held: list[Message] = []

    def pass_on(message: Message) -> bool:
        if message.target == member:
            held.append(message)
        return message.target != member

    cluster.pass_on = pass_on
    return held


def removed_while_its_answers_were_held(window: int) -> tuple[Cluster, SimNode, list[Message]]:
    """Member 2 has left and what it misses is forgotten, but it is still told; its answers come late."""
    cluster = Cluster(3, inflight_max=window)
    leader = cluster.elect(0)
    cluster.propose("a")
    cluster.run(20)
    held = hold_all_to(cluster, 0)
    cluster.pass_on = lambda message: message.sender != 2 or bool(held.append(message))
    leader.propose(["b"], cluster.now)
    cluster.settle()
    leader.raft.propose_configuration(leader.raft.configuration.without(2), cluster.now)
    cluster.settle()
    for value in "cde":
        leader.propose([value], cluster.now)
        cluster.settle()
    peer = leader.raft.peer(2)
    assert peer is not None
    assert peer.match_index + 1 < leader.raft.first_index
    return cluster, leader, held


@pytest.mark.parametrize("window", [1, 64])
def test_late_answers_of_one_who_left_do_no_harm(window: int) -> None:
    """It does not hold the log back, so its next entry may be gone."""
    cluster, leader, held = removed_while_its_answers_were_held(window)
    cluster.heal()
    for message in held:
        if isinstance(message, AppendReply):
            leader.raft.step(over_the_wire(message), cluster.now)
    cluster.settle()
    cluster.propose("f")
    assert leader.raft.commit_index == leader.raft.last_index


def test_one_who_left_and_is_silent_is_only_asked() -> None:
    """By heartbeats, as long as there is no snapshot."""
    cluster, leader, _ = removed_while_its_answers_were_held(64)
    for _ in range(4):
        cluster.now += 10 * MS
        leader.raft.tick(cluster.now)
        sent = [message for message in leader.work() if message.target == 2]
        assert all(isinstance(message, Append) for message in sent)
    peer = leader.raft.peer(2)
    assert peer is not None
    assert not peer.takes_snapshot


def test_a_newer_snapshot_for_one_who_has_caught_up_with_it_meanwhile() -> None:
    """Appends from before the snapshot arrive behind the refusal that began it, and reach further than it does."""
    cluster = Cluster(3)
    leader = cluster.elect(0)
    cluster.propose("a")
    cluster.run(20)
    held = hold_all_to(cluster, 2)
    for value in "bcd":
        leader.propose([value], cluster.now)
        cluster.settle()
    leader.take_snapshot()
    leader.work()
    leader.propose(["e"], cluster.now)
    cluster.settle()
    entries = [message for message in held if isinstance(message, Append) and message.count]
    held.clear()
    cluster.now += 10 * MS
    leader.raft.tick(cluster.now)
    cluster.settle()
    heartbeat = [message for message in held if isinstance(message, Append) and not message.count][-1]
    for answer in deliver(cluster, cluster.nodes[2], heartbeat):
        leader.raft.step(over_the_wire(answer), cluster.now)
    leader.work()
    peer = leader.raft.peer(2)
    assert peer is not None and peer.takes_snapshot
    for append in entries:
        for answer in deliver(cluster, cluster.nodes[2], append):
            leader.raft.step(over_the_wire(answer), cluster.now)
    leader.work()
    leader.take_snapshot()
    assert not peer.takes_snapshot
    cluster.heal()
    cluster.run(100)
    assert {node.digest for node in cluster.nodes} == {leader.digest}
