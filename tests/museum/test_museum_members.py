"""Known bugs around members, snapshots, retries and leases; and those that cannot be here, with what keeps them out.

Each docstring says what went wrong, and where it was seen. Random mixtures of the same are the simulator's.
"""

from __future__ import annotations

import dataclasses

import pytest

from r2p2.sim.machine import DONE, EXPIRED, OPEN, SWAP, Machine, Reply, Request
from r2p2.sim.node import Disk, SimNode, snapshot_data
from raft import (
    Append,
    AppendReply,
    ChangeRefused,
    Config,
    Configuration,
    Forward,
    Identity,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    MessageError,
    Role,
    TimeoutNow,
    Vote,
    decode,
    encode,
)
from tests.museum.test_museum_safety import append, entries, log_of, member, reads_of
from tests.node.support import World as NodeWorld
from tests.node.support import group_of
from tests.raft.raft_harness import MS, Cluster


def test_s09_a_new_leader_changes_nothing_before_its_no_op_is_committed() -> None:
    """Two leaders, each with a change of its own that the other does not know: Ongaro, raft-dev 2015; RedisRaft 17, 28.

    The first leader's change is in its log alone. The second may not begin one until an entry of its term is committed,
    and by then the first one's cannot be any more.
    """
    cluster = Cluster(4)
    old = cluster.elect(0)
    cluster.cut(0)
    old.raft.propose_configuration(old.raft.configuration.without(3), cluster.now)
    cluster.settle()
    cluster.now += 1000 * MS
    cluster.pass_on = lambda m: 0 not in (m.sender, m.target) and not isinstance(m, Append)
    new = cluster.nodes[1]
    new.raft.tick(cluster.now)
    cluster.settle()
    assert new.raft.role is Role.LEADER
    with pytest.raises(ChangeRefused):
        new.raft.propose_configuration(new.raft.configuration.without(2), cluster.now)
    cluster.cut(0)
    cluster.run(30)
    new.raft.propose_configuration(new.raft.configuration.without(2), cluster.now)
    cluster.run(100)
    cluster.heal()
    cluster.run(300)
    assert {node.raft.configuration.voters for node in cluster.nodes[:2]} == {(0, 1, 3)}


def test_s09_one_change_at_a_time() -> None:
    """Neither while the joint configuration is under way nor before its end is committed."""
    cluster = Cluster(4)
    leader = cluster.elect(0)
    cluster.pass_on = lambda m: not isinstance(m, AppendReply)
    leader.raft.propose_configuration(leader.raft.configuration.without(3), cluster.now)
    cluster.settle()
    for target in (leader.raft.configuration.settled().without(2), Configuration((0, 1))):
        with pytest.raises(ChangeRefused):
            leader.raft.propose_configuration(target, cluster.now)


def test_s13_a_stopped_leader_reads_nothing_when_it_wakes() -> None:
    """It slept for two election timeouts, its clock jumped, the others elected and wrote. etcd's and its issue 20418.

    There are no leases here: a read takes a round of answers that began after it, whatever the clock says.
    """
    assert not [field.name for field in dataclasses.fields(Config) if "lease" in field.name]
    cluster = Cluster()
    old = cluster.elect(0)
    cluster.propose("a")
    cluster.stopped = {0}
    cluster.run(600)
    (new,) = [node for node in cluster.leaders if node is not old]
    new.propose(["b"], cluster.now)
    cluster.settle()
    cluster.stopped = set()
    for jump_ms in (0, 1, 5_000):
        assert old.raft.role is Role.LEADER
        old.raft.read_index(cluster.now + jump_ms * MS)
        old.work()
        assert reads_of(old) == []
    cluster.run(300)
    assert reads_of(old) == []


def chunks(node: SimNode, size: int, *, term: int = 1) -> list[InstallSnapshot]:
    """The snapshot of ``node``, from member 1 to member 0, in pieces."""
    data = node._snapshot
    index = node.snapshot_index
    configuration = Configuration((0, 1, 2))
    return [
        InstallSnapshot(
            1,
            0,
            term,
            index,
            1,
            offset,
            len(data),
            len(data[offset : offset + size]),
            None if offset else configuration,
            payload=data[offset : offset + size],
        )
        for offset in range(0, len(data), size)
    ]


def leader_with_snapshot(entries_count: int) -> SimNode:
    """A member that has applied so many entries and taken a snapshot of them."""
    node = member(1, Disk())
    node.raft.step(append_to(1, entries_count), 0)
    node.work()
    node.take_snapshot(compact=False)
    assert node.snapshot_index == entries_count
    return node


def append_to(target: int, count: int) -> Append:
    """``count`` entries of term 1, all committed."""
    message = append(1, 0, 0, (1,) * count, commit=count)
    message.sender, message.target = 0, target
    return message


def answered(node: SimNode, message: Message) -> list[InstallSnapshotReply]:
    """What it says of a piece."""
    node.raft.step(dataclasses.replace(message), 0)
    return [reply for reply in node.work() if isinstance(reply, InstallSnapshotReply)]


def test_s14_pieces_of_two_snapshots_make_none() -> None:
    """A second snapshot, of the same size, while the first is half here; etcd, RedisRaft issues 43 and 45."""
    first, second = chunks(leader_with_snapshot(10), 100), chunks(leader_with_snapshot(12), 100)
    f = member(0, Disk())
    assert [reply.offset for reply in answered(f, first[0])] == [100]
    assert [reply.offset for reply in answered(f, second[1])] == [0]
    assert [reply.offset for reply in answered(f, first[2])] == [0]
    for piece in second:
        replies = answered(f, piece)
    assert [reply.installed for reply in replies] == [True]
    assert f.raft.applied_index == 12


def test_s14_pieces_of_two_leaders_make_none() -> None:
    """Of the same index and size, and not of the same bytes: each leader keeps its own. A new term begins anew,
    whatever tells of it first; etcd, RedisRaft issues 43 and 45.
    """
    first, second = leader_with_snapshot(10), leader_with_snapshot(10)
    second._snapshot = snapshot_data(7, Machine())
    assert len(first._snapshot) == len(second._snapshot)
    old, new = chunks(first, 100), chunks(second, 100, term=2)
    new[0] = dataclasses.replace(new[0], configuration=Configuration((0, 1, 2), (), (9,)))
    for news in (new[1], Vote(1, 0, 2, 0, 0, transfer=True), append(2, 30, 1)):
        f = member(0, Disk())
        assert [reply.offset for reply in answered(f, old[0])] == [100]
        answered(f, news)
        assert [(reply.term, reply.offset) for reply in answered(f, new[1])] == [(2, 0)]
        assert [(reply.term, reply.offset) for reply in answered(f, old[1])] == [(2, 0)]
        assert len(f.incoming) == 0, "nobody sends the rest of the first one"
        assert [reply.offset for reply in answered(f, new[0])] == [100]
        assert [(reply.term, reply.offset) for reply in answered(f, old[1])] == [(2, 0)]
        for piece in new[1:]:
            replies = answered(f, piece)
        assert [reply.installed for reply in replies] == [True]
        assert (f.digest, f.raft.configuration.learners) == (7, (9,))


def test_s14_an_earlier_write_that_a_snapshot_overtakes_proves_nothing() -> None:
    """A tail is being written when the snapshot takes the log's place; it returns, and new entries stand there by then.

    The same as a truncation (S16), since the tail is gone.
    """
    f = member(0, log_of(1, 1))
    f.sync_at_once = False
    f.raft.step(append(1, 2, 1, (1,) * 18), 0)
    f.work()
    for piece in chunks(leader_with_snapshot(10), 300, term=2):
        piece.index_term = 2  # the tail is of another history
        f.raft.step(piece, 0)
    f.work()
    f.raft.step(append(2, 10, 2, (2,) * 10), 0)
    f.work()
    assert f.raft.last_index == 20
    f.sync(1)
    assert f.raft._durable_index <= 2
    f.sync(1)
    assert f.raft._durable_index == 10
    f.sync()
    assert f.raft._durable_index == 20


@pytest.mark.parametrize("pieces", range(1, 8))
def test_s14_a_crash_between_pieces_begins_again(pieces: int) -> None:
    """What had come is gone with the process; the leader hears so and goes back to the first piece."""
    cluster = Cluster(3, append_bytes_max=40)
    leader = cluster.elect(0)
    cluster.propose("a")
    cluster.cut(2)
    cluster.propose(*range(20))
    leader.take_snapshot()
    cluster.settle()
    sent = 0

    def pass_on(message: Message) -> bool:
        nonlocal sent
        sent += isinstance(message, InstallSnapshot)
        return sent <= pieces

    cluster.pass_on = pass_on
    while sent <= pieces:
        cluster.run(10)
    assert len(cluster.nodes[2].incoming) == 40 * pieces
    cluster.nodes[2] = cluster.start(2, cluster.nodes[2].crash())
    cluster.heal()
    offsets = [m.offset for m in cluster.run(100) if isinstance(m, InstallSnapshot)]
    assert offsets == [40 * pieces, *range(0, 300, 40)]
    assert cluster.nodes[2].restores_count == 1
    assert {node.digest for node in cluster.nodes} == {leader.digest}


def test_s14_a_snapshot_older_than_the_commit_takes_nothing_back() -> None:
    """Late pieces of a snapshot that the log has passed. TiKV issue 1287, RedisRaft."""
    f = member(0, Disk())
    f.raft.step(append(1, 0, 0, (1,) * 20, commit=20), 0)
    f.work()
    digest = f.digest
    for piece in chunks(leader_with_snapshot(10), 100):
        assert [reply.installed for reply in answered(f, piece)] == [True]
    assert (f.raft.applied_index, f.log.last_index, f.digest) == (20, 20, digest)


def test_s14_a_snapshot_carries_the_members_of_its_index() -> None:
    """Not those of a change behind it, which may never be committed. canonical/raft 2a38d3d and 4fbd3c0."""
    cluster = Cluster()
    leader = cluster.elect(0)
    cluster.propose("a")
    cluster.cut(0)
    leader.raft.propose_configuration(leader.raft.configuration.with_learner(9), cluster.now)
    cluster.settle()
    leader.take_snapshot(compact=False)
    assert leader.raft.configuration.learners == (9,)
    assert leader.raft._snapshot is not None
    assert leader.raft._snapshot.configuration == Configuration((0, 1, 2))


@pytest.mark.parametrize("kept", range(8))
@pytest.mark.parametrize("between", ["nothing", "append", "timeout_now", "election"])
def test_s14_a_crash_at_any_step_of_an_installation(kept: int, between: str) -> None:
    """Slow disk, pieces between Appends, a TimeoutNow, an election; then kill -9, and all of it again. Scylla 20363."""
    source = leader_with_snapshot(10)
    pieces = chunks(source, 60)
    disk = log_of(1, 1)
    f = member(0, disk)
    f.sync_at_once = False
    for number, piece in enumerate(pieces):
        f.raft.step(dataclasses.replace(piece), 0)
        f.work()
        if number == 2 and between == "append":
            f.raft.step(append(1, 10, 1, (1,), commit=11), 0)
        elif number == 2 and between == "timeout_now":
            f.raft.step(TimeoutNow(1, 0, 1), 0)
        elif number == 2 and between == "election":
            f.raft.tick(f.raft._election_deadline_ns)
        f.work()
    f = member(0, f.crash(writes_kept=kept, torn_ops=1))
    assert f.raft.applied_index in (0, 10), "all of it or nothing"
    for piece in chunks(source, 60, term=9):
        replies = answered(f, piece)
    assert [reply.installed for reply in replies] == [True]
    f.raft.step(append(9, 10, 1, (9,), commit=11), 0)
    f.work()
    assert f.raft.applied_index == 11
    assert f.digests[10] == source.digest


def test_s14_a_newer_snapshot_while_one_is_on_its_way() -> None:
    """The member has caught up meanwhile, as far as the leader knows, and needs no part of either; seen here."""
    cluster = Cluster()
    leader = cluster.elect(0)
    cluster.cut(2)
    cluster.propose(*range(20))
    leader.take_snapshot()
    cluster.run(30)
    cluster.pass_on = lambda m: not isinstance(m, InstallSnapshot)
    cluster.run(30)
    peer = leader.raft._peers[2]
    assert (leader.raft.snapshot_in_use, peer.takes_snapshot) == (True, True)
    # An answer of an earlier attempt says what the member has; the piece under way is of the older snapshot still.
    cluster.propose("more")
    peer.match_index = leader.raft.applied_index
    leader.take_snapshot()
    assert not leader.raft.snapshot_in_use
    cluster.heal()
    peer.match_index = 1
    cluster.run(300)
    assert len({node.raft.applied_index for node in cluster.nodes}) == 1
    assert len({node.digest for node in cluster.nodes}) == 1


def test_a_removed_member_far_behind_does_not_end_the_leader() -> None:
    """Everybody who stays has applied all, so the log goes; who leaves is still being told, and needs it; seen here."""
    cluster = Cluster(3, inflight_max=1)
    leader = cluster.elect(0)
    cluster.pass_on = lambda m: not (isinstance(m, AppendReply) and m.sender == 2)
    cluster.propose("a")
    (late,) = [m for m in cluster.lost if isinstance(m, AppendReply) and m.match_index == 2][-1:]
    leader.raft.propose_configuration(leader.raft.configuration.without(2), cluster.now)
    cluster.settle()
    for value in range(30):
        cluster.propose(value)
    assert leader.raft.first_index > 20
    leader.raft.step(late, cluster.now)  # there is room in its window now, for entries that are gone
    cluster.settle()
    assert leader.raft.role is Role.LEADER
    assert leader.raft.commit_index == leader.raft.last_index


def retry(session: int, sequence: int, value: int, oldest: int = 1) -> Request:
    """A client's swap of register 0; every retry is another datagram."""
    return Request(7, 1, SWAP, session, sequence, oldest, 0, value)


def test_s15_a_retry_is_executed_once_wherever_and_whenever_it_arrives() -> None:
    """At three members, across a change of leader, compaction, a snapshot; then after the session's end.

    Dissertation 6.3; FoundationDB's commit_unknown_result; RedisRaft's aborted reads.
    """
    cluster = Cluster()
    leader = cluster.elect(0)
    leader.propose([Request(7, 0, OPEN, 0, 0, 0, 0, 0)], cluster.now)
    cluster.settle()
    session = leader.answers[-1][1].version
    cluster.cut(2)
    answers = []
    for step in range(6):
        leader.propose([retry(session, 1, 55)], cluster.now)
        cluster.settle()
        answers.append(leader.answers[-1][1])
        if step == 1:
            leader.take_snapshot()
            cluster.run(30)
            assert leader.raft.first_index > 1
            cluster.heal()  # member 2 comes back by the snapshot
            cluster.run(300)
            assert cluster.nodes[2].raft.applied_index == leader.raft.applied_index
        elif step in (2, 3):
            leader = cluster.elect(3 - step + 1)
    assert [(a.status, a.version, a.value) for a in answers] == [(DONE, 1, 0)] * 6
    assert {node.machine.registers[0] for node in cluster.nodes} == {(1, 55)}
    for node in cluster.nodes:
        node.machine.sessions.clear()  # as evicted
    leader.propose([retry(session, 1, 55)], cluster.now)
    cluster.settle()
    assert leader.answers[-1][1].status == EXPIRED
    assert {node.machine.registers[0] for node in cluster.nodes} == {(1, 55)}


def test_s15_sessions_are_bounded_and_evicted_alike_everywhere() -> None:
    """By the order of the log; a late duplicate of an answered operation, or of an evicted session, is nothing."""
    machines = [Machine(2), Machine(2)]
    machines[1] = Machine.of(machines[1].export())
    last: Reply | None = None
    for machine in machines:
        for index in (1, 2):
            machine.apply(index, Request(index, 0, OPEN, 0, 0, 0, 0, 0))
        machine.apply(3, retry(1, 1, 5))
        machine.apply(4, retry(1, 2, 6, oldest=2))
        assert machine.apply(5, retry(1, 1, 5)) is None, "its reply was acknowledged"
        machine.apply(6, Request(3, 0, OPEN, 0, 0, 0, 0, 0))  # evicts session 2, the least recently used
        assert list(machine.sessions) == [1, 6]
        last = machine.apply(7, retry(2, 1, 9))
        assert last is not None and last.status == EXPIRED
        assert machine.registers == {0: (2, 6)}
    assert machines[0].export() == machines[1].export()


def test_s19_a_commit_counts_only_members_that_hold_the_body() -> None:
    """HovercRaft orders metadata and sends bodies apart: committed, and nobody who answers has it.

    Here an entry is its body: an Append without the bytes it announces does not parse, and what was not received is not
    acknowledged, however many heartbeats are.
    """
    announced = Append(1, 0, 1, 0, 0, 1, 0, 0, 1, 3, 192)
    with pytest.raises(MessageError):
        decode(encode(announced, Identity(1, 1, 1)), Append.HEADER_BYTES, cluster_id=1)
    hollow = Append(1, 0, 1, 0, 0, 1, 0, 0, 1, 3, 0)
    with pytest.raises(MessageError):
        decode(encode(hollow, Identity(1, 1, 1)), Append.HEADER_BYTES, cluster_id=1)
    cluster = Cluster(5)
    leader = cluster.elect(0)
    commit = leader.raft.commit_index
    cluster.pass_on = lambda m: not (isinstance(m, Append) and m.count and m.target != 1)  # one body of four arrives
    cluster.propose("a")
    cluster.run(60)
    assert leader.raft.commit_index == commit
    cluster.nodes[0], cluster.stopped = leader, {1}  # its only other holder is gone
    cluster.run(60)
    assert leader.raft.commit_index == commit
    cluster.heal()
    cluster.run(60)
    assert leader.raft.commit_index == commit + 1
    holders = [node for node in cluster.nodes if node.log.last_index >= commit + 1]
    assert len(holders) >= 3
    assert all(entries(node)[-1][1] == "a" for node in holders)


def test_s20_nobody_answers_for_others() -> None:
    """HovercRaft++'s switch counts for a quorum, and is believed after its restart and for an old term.

    There is no aggregator: an answer counts for its own sender, if that is a member, in its own term, once.
    """
    cluster = Cluster()
    leader = cluster.elect(0)
    cluster.run(30)
    cluster.pass_on = lambda m: not isinstance(m, AppendReply)
    cluster.propose("a")
    old = [m for m in cluster.lost if isinstance(m, AppendReply) and m.match_index == 2]
    assert {m.sender for m in old} == {1, 2}
    cluster.heal()
    cluster.cut(1, 2)
    term = leader.raft.term
    for stranger in (7, 99, 1 << 16 | 1):  # another launch of member 1 is nobody either
        leader.raft.step(AppendReply(stranger, 0, term, leader.raft._round, 2, 0, 0, 2, True), cluster.now)
    assert leader.raft.commit_index == 1
    cluster.heal()
    leader = cluster.elect(0)
    commit, cluster.pass_on = leader.raft.commit_index, lambda m: False
    leader.propose(["b"], cluster.now)
    cluster.settle()
    for reply in old * 3:  # of the term before
        leader.raft.step(dataclasses.replace(reply, match_index=leader.raft.last_index), cluster.now)
    assert leader.raft.commit_index == commit


def test_l06_a_transfer_to_one_who_is_removed_ends() -> None:
    """hashicorp/raft: the transfer waits for somebody who will never catch up."""
    cluster = Cluster(4)
    leader = cluster.elect(0)
    cluster.cut(3)
    cluster.propose("a")
    leader.raft.transfer(3, cluster.now)
    leader.raft.propose_configuration(leader.raft.configuration.without(3), cluster.now)
    cluster.settle()
    assert leader.raft.transfer_target is None
    cluster.run(200)
    assert cluster.leaders == [leader]
    assert leader.raft.configuration.voters == (0, 1, 2)


def test_l08_a_forwarded_request_is_not_forwarded_again() -> None:
    """Two members that each take the other for the leader: A -> B -> A for ever. Jepsen's Redis-Raft, HovercRaft.

    The follower that gets a Forward answers the client with a DROP, and sends nothing on.
    """
    with NodeWorld(3) as world:
        leader = world.elect()
        others = [i for i in world.nodes if i != leader]
        before = {i: world.nodes[i].status()["counters"].get("forwards_refused", 0) for i in others}
        for target in others:
            for source in others:
                if source != target:
                    node = world.nodes[source]
                    term = node.status()["term"]
                    forward = Forward(source, target, term, 1, 24)
                    entry = b"\x00\x00\x00\x01\x0a\x00\x00\x64\x23\x28\x00\x07\x01\x02\x00\x00" + b"x" + bytes(7)
                    data = encode(forward, group_of(node).peers.identity) + entry
                    packet = b"\xcc\x08\x71\xc0\x00\x07\x00\x01" + data
                    world.network.inject(world.addresses[source], world.addresses[target], packet)
        world.run(20)
        after = {i: world.nodes[i].status()["counters"].get("forwards_refused", 0) for i in others}
        assert {i: after[i] - before[i] for i in others} == dict.fromkeys(others, 1)
        assert world.nodes[leader].status()["log_last_index"] == 1, "it reached nobody else"


def test_snapshot_bytes_tell_states_apart() -> None:
    """What the scenarios above compare."""
    assert snapshot_data(1, Machine()) != snapshot_data(2, Machine())
