"""Snapshots and leavers against the clock (museum S14): what once ended a leader, and copies that never died out."""

from __future__ import annotations

import dataclasses
import random

import pytest

from r2p2.sim.node import SimNode
from raft import (
    Append,
    AppendReply,
    Config,
    Configuration,
    HardState,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    MessageError,
    Raft,
    Role,
    TermRuns,
    TimeoutNow,
    Vote,
    decode_configuration,
    encode_configuration,
)
from raft.list_log import ListLog
from tests.raft.raft_harness import MS, Cluster, over_the_wire


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


@pytest.mark.parametrize("copies", [1, 3])
def test_copies_of_pieces_die_out(copies: int) -> None:
    """Some pieces come several times: no more is sent for it."""
    cluster = Cluster(3, append_bytes_max=16)
    leader = cluster.elect(0)
    cluster.propose("a")
    cluster.cut(2)
    cluster.propose("b")
    leader.take_snapshot()
    cluster.settle()
    cluster.heal()
    cluster.now += 10 * MS
    leader.raft.tick(cluster.now)
    queue, sent = leader.work(), 0
    while queue:
        message = queue.pop(0)
        times = 1
        if isinstance(message, InstallSnapshot):
            sent += 1
            times = copies if sent <= 3 else 1
        for _ in range(times):
            queue += deliver(cluster, cluster.nodes[message.target], message)
    snapshot = leader.raft._snapshot
    assert snapshot is not None
    assert sent == -(-snapshot.total_bytes // 16)
    assert cluster.nodes[2].digest == leader.digest


def removed_while_its_answers_were_held(window: int) -> tuple[Cluster, SimNode, list[Message]]:
    """Member 2 has left and what it misses is forgotten, but it is still told; its answers come late."""
    cluster = Cluster(3, inflight_max=window)
    leader = cluster.elect(0)
    cluster.propose("a")
    cluster.run(20)
    held = hold_all_to(cluster, 0)

    def hold(message: Message) -> bool:
        if message.sender == 2:
            held.append(message)
        return message.sender != 2

    cluster.pass_on = hold
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
    peer = leader.raft.peer(2)
    assert peer is not None and not peer.takes_snapshot
    cluster.heal()
    cluster.run(100)
    assert {node.digest for node in cluster.nodes} == {leader.digest}


def test_there_is_one_snapshot_of_an_index() -> None:
    """Else who has half of the first would get the other half from the second's bytes."""
    cluster = Cluster(3)
    leader = cluster.elect(0)
    cluster.propose("a")
    leader.take_snapshot()
    with pytest.raises(ValueError, match="snapshot_taken"):
        leader.raft.snapshot_taken(leader.raft.snapshot_index, 300)


def test_a_restarted_member_can_go_back_to_how_the_cluster_began() -> None:
    """4.1: the only configuration in its log is truncated."""
    config = Config(0, (0, 1, 2))
    raft = Raft(
        config,
        ListLog([(1, "a", 64), (1, "b", 64)]),
        rng=random.Random(1),
        now_ns=0,
        hard_state=HardState(1, None),
        term_runs=TermRuns([(1, 1)], 2),
        configurations=[(2, Configuration((0, 1)))],
    )
    assert raft.configuration == Configuration((0, 1))
    raft.step(Append(1, 0, 2, 1, 1, 2, 0, 0, 1, 1, 64, payload=[(2, "c", 64)]), 0)
    assert raft.configuration == Configuration((0, 1, 2))
    assert (raft.configuration_index, raft.is_voter) == (0, True)


def test_the_bytes_of_a_configuration_are_the_only_ones() -> None:
    """Members ascend, each once; an address that is none is none on both sides."""
    data = encode_configuration(Configuration((3,), (), (5,)))
    for wrong in (data[:8] + data[28:] + data[8:28], data[:8] + 2 * data[8:28]):
        with pytest.raises(MessageError, match="CONFIGURATION"):
            decode_configuration(wrong)
    added = Configuration((3,)).with_learner(5)
    assert decode_configuration(encode_configuration(added)) == added
    assert added.with_learner(5, 7, 8).addresses == ((5, 7, 8),)


@pytest.mark.parametrize("address", [(1, 0, 0), (1, -1, 5), (1, 1 << 32, 5), (1, 5, 1 << 16), (1, 5, -1)])
def test_addresses_are_checked_where_they_come_from(address: tuple[int, int, int]) -> None:
    """Not when they are encoded."""
    with pytest.raises(ValueError, match="addresses"):
        Configuration((1,), (), (), (address,))


def half_installed(*, pre_vote: bool = True) -> tuple[Cluster, SimNode]:
    """Member 2 has the first pieces of member 0's snapshot; member 1 has all of the log still, and hears nobody."""
    cluster = Cluster(3, append_bytes_max=16, pre_vote=pre_vote)
    leader = cluster.elect(0)
    cluster.propose("a")
    cluster.cut(2)
    for value in "bcde":
        cluster.propose(value)
    leader.take_snapshot()
    cluster.settle()
    pieces = 0

    def pass_on(message: Message) -> bool:
        nonlocal pieces
        pieces += isinstance(message, InstallSnapshot)
        return pieces <= 3 and 1 not in (message.sender, message.target)

    cluster.pass_on = pass_on
    while pieces <= 3:
        cluster.run(10)
    assert received(cluster.nodes[2]) == (3 * 16, 3 * 16)
    return cluster, leader


def received(node: SimNode) -> tuple[int | None, int]:
    """What the core says has come of a snapshot, and the bytes that are kept."""
    incoming = node.raft._incoming
    return None if incoming is None else incoming.offset, len(node.incoming)


def test_a_half_snapshot_goes_when_appends_overtake_it() -> None:
    """Another leader still has the log, so the rest of the snapshot is never sent: its bytes stayed for ever, and the
    steady step was never taken again.
    """
    cluster, _ = half_installed()
    cluster.cut(0)
    cluster.run(1000)
    assert cluster.leaders[-1] is cluster.nodes[1]
    cluster.run(100)
    late = cluster.nodes[2]
    assert late.raft.commit_index == cluster.nodes[1].raft.last_index
    assert received(late) == (None, 0)
    assert late.raft.follows_steadily


def overtaken() -> tuple[Cluster, SimNode, InstallSnapshot, int]:
    """Appends that were on their way before the log was forgotten have arrived behind the first pieces of the snapshot.
    The next piece is on its way, and the log reaches beyond the snapshot's index.
    """
    cluster, leader = half_installed()
    late = cluster.nodes[2]
    pieces = [message for message in cluster.lost if isinstance(message, InstallSnapshot)]
    appends = [message for message in cluster.lost if isinstance(message, Append) and message.target == 2]
    for append in [message for message in appends if message.count]:
        deliver(cluster, late, append)
    assert late.raft.commit_index < leader.snapshot_index < late.raft.last_index + 1
    assert received(late) == (48, 48), "what is not known to be committed may be taken back"
    return cluster, late, pieces[-1], leader.raft.term


def test_a_half_snapshot_goes_when_its_own_leaders_appends_overtake_it() -> None:
    """A heartbeat tells of the commit."""
    cluster, late, piece, term = overtaken()
    deliver(cluster, late, Append(0, 2, term, piece.index, piece.index_term, 0, piece.index, 0, 99, 0, 0))
    assert late.raft.commit_index == piece.index
    assert received(late) == (None, 0)


def test_a_half_snapshot_goes_when_the_log_is_found_to_hold_its_last_entry() -> None:
    """By a piece of it; one of an older snapshot says nothing of this one."""
    cluster, late, piece, _ = overtaken()
    deliver(cluster, late, dataclasses.replace(piece, index=piece.index - 1))
    assert late.raft.commit_index == piece.index - 1
    assert received(late) == (48, 48)
    deliver(cluster, late, piece)
    assert late.raft.commit_index == piece.index
    assert received(late) == (None, 0)


@pytest.mark.parametrize("end", ["append", "vote", "piece", "timeout", "take over"])
def test_a_half_snapshot_goes_with_its_leaders_term(end: str) -> None:
    """Nobody sends the rest of it: whoever leads next begins with its own."""
    cluster, leader = half_installed(pre_vote=False)
    late, term = cluster.nodes[2], leader.raft.term
    if end == "append":
        deliver(cluster, late, Append(1, 2, term + 1, 50, 1, 0, 0, 0, 1, 0, 0))
    elif end == "vote":
        deliver(cluster, late, Vote(1, 2, term + 1, 1, 1, transfer=True))
    elif end == "piece":  # the same snapshot, as far as its numbers say
        other = InstallSnapshot(1, 2, term + 1, leader.snapshot_index, term, 48, 300, 16, None, payload=bytes(16))
        (answer,) = deliver(cluster, late, other)
        assert isinstance(answer, InstallSnapshotReply)
        assert (answer.offset, answer.installed) == (0, False)
    elif end == "timeout":
        late.raft.tick(late.raft._election_deadline_ns)
        late.work()
        assert late.raft.role is Role.CANDIDATE
    else:
        deliver(cluster, late, TimeoutNow(0, 2, term))
        assert late.raft.role is Role.CANDIDATE
    assert late.raft.term == term + 1
    assert received(late) == (None, 0)
    cluster.heal()
    cluster.run(1500)
    assert {node.digest for node in cluster.nodes} == {cluster.nodes[1].digest}


def test_a_half_snapshot_waits_for_its_leader_to_be_heard_again() -> None:
    """Silence ends nothing: pre-votes do not end a term, and the leader goes on where it was."""
    cluster, _ = half_installed()
    late = cluster.nodes[2]
    cluster.cut(2)
    cluster.run(500)
    assert late.raft.role is Role.PRE_CANDIDATE
    assert received(late) == (48, 48)
    cluster.heal()
    cluster.run(300)
    assert late.restores_count == 1
    assert received(late) == (None, 0)
