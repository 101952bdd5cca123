"""Corners of chapters 4 and 5 that the stories of testdata/ do not come by. Left to others: the usual ways."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from r2p2.sim.node import SimNode
from raft import (
    Append,
    AppendConfiguration,
    AppendNoop,
    AppendReply,
    Config,
    Configuration,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    PreVote,
    Raft,
    ReadIndex,
    Role,
    TermRuns,
    TimeoutNow,
    Vote,
    VoteReply,
    member_id,
)
from raft.config import HardState
from raft.list_log import ListLog
from raft.state import State
from tests.raft.raft_harness import MS, Cluster, over_the_wire


def raft_of(configuration: Configuration, node_id: int = 0, **settings: object) -> Raft:
    """One member of a log of three entries of term 1, the last of which holds ``configuration``, not committed."""
    runs = TermRuns([(1, 1)], 3)
    known = [(0, Configuration((0, 1, 2))), (3, configuration)]
    config = Config(node_id, (0, 1, 2), joining=node_id > 2, **settings)  # type: ignore[arg-type]
    log = ListLog([(1, i, 64) for i in range(3)])
    rng = random.Random(1)
    return Raft(config, log, rng=rng, now_ns=0, hard_state=HardState(1, None), term_runs=runs, configurations=known)


def work(raft: Raft) -> list[Message]:
    """All it says, everything durable at once; its log takes the leader's own entries."""
    out: list[Message] = []
    while raft.has_ready():
        ready = raft.ready()
        for op in ready.log_ops:
            if isinstance(op, AppendNoop):
                raft._log.execute(op)  # type: ignore[attr-defined]
        out += [*ready.messages, *raft.persisted(ready.number)]
    return out


def test_identities_of_eighty_bits_vote_lead_and_commit() -> None:
    """Launches of three slots, one of them of the highest number."""
    members = tuple(sorted(member_id(slot, 2**64 - 1 - slot) for slot in range(3)))
    rafts = {
        member: Raft(Config(member, members), ListLog(), rng=random.Random(member), now_ns=0) for member in members
    }
    raft = rafts[members[0]]
    raft.tick(raft.deadline_ns)
    flight = work(raft)
    while flight:
        message = flight.pop(0)
        rafts[message.target].step(message, 200 * MS)
        flight += work(rafts[message.target])
    assert raft.role is Role.LEADER
    assert raft.commit_index == 1
    assert {other.vote for other in rafts.values()} == {members[0]}


def test_a_new_launch_takes_the_place_of_its_predecessor() -> None:
    """The slot is the same, the member is another: its vote and its acknowledgements are its own."""
    old, new = member_id(2, 1), member_id(2, 2)
    raft = Raft(Config(0, (0, 1, old)), ListLog(), rng=random.Random(1), now_ns=0, hard_state=None)
    raft.tick(raft.deadline_ns)
    assert {message.target for message in work(raft)} == {1, old}
    raft.step(VoteReply(new, 0, 1, True), 0)
    assert raft.ignored["not_member"] == 1


def test_a_member_that_its_log_leaves_out_may_be_the_only_one_who_can_win() -> None:
    """4.2.2: its removal is in its log, but not known to be committed: it stands, and counts others alone."""
    raft = raft_of(Configuration((1, 2), (), ()), pre_vote=False)
    raft.tick(raft.deadline_ns)
    assert (raft.role, raft.term) == (Role.CANDIDATE, 2)
    assert [message.target for message in work(raft)] == [1, 2]
    raft.step(VoteReply(1, 0, 2, True), 300 * MS)
    assert (raft.role, raft.term) == (Role.CANDIDATE, 2), "its own vote is none of this configuration"
    raft.step(VoteReply(2, 0, 2, True), 300 * MS)
    assert raft.role is Role.LEADER


def test_a_learner_with_an_older_right_to_vote_only_in_its_log_stands() -> None:
    """4.1: a promotion counts as soon as it is in the log."""
    raft = raft_of(Configuration((0, 1, 2, 4)), 4)
    assert raft.is_voter
    raft.tick(raft.deadline_ns)
    assert raft.role is Role.PRE_CANDIDATE


@pytest.mark.parametrize("message", [PreVote(7, 0, 5, 3, 1), Vote(7, 0, 5, 3, 1)])
def test_strangers_are_answered(message: Message) -> None:
    """4.1: a voter may not have heard yet of the configuration that a candidate is in."""
    raft = raft_of(Configuration((0, 1, 2)))
    raft.step(message, 0)
    (answer,) = work(raft)
    assert answer.target == 7
    assert answer.granted  # type: ignore[union-attr]


def test_a_candidate_that_learns_that_it_is_none_any_more_gives_up() -> None:
    """Its standing was taken out of its log, here by a snapshot that leaves it out."""
    raft = raft_of(Configuration((0, 1, 2)))
    raft.tick(raft.deadline_ns)
    assert (raft.role, raft.term) == (Role.PRE_CANDIDATE, 1)
    raft._history.restart(3, Configuration((1, 2)))
    raft.commit_index = 3
    raft.tick(raft._election_deadline_ns)
    assert raft.role is Role.FOLLOWER


def test_time_out_now_is_nothing_for_learners() -> None:
    """3.10: whoever may not stand does not."""
    raft = raft_of(Configuration((0, 1, 2), (), (4,)), 4)
    raft.step(Append(1, 4, 1, 3, 1, 0, 3, 0, 1, 0, 0), 0)
    raft.step(TimeoutNow(1, 4, 1), 0)
    assert raft.role is Role.FOLLOWER
    assert raft.ignored["old_reply"] == 1


def test_a_configuration_in_company_is_refused() -> None:
    """No leader sends it: it would be impossible to say which entry it is."""
    raft = raft_of(Configuration((0, 1, 2)))
    configuration = Configuration((0, 1))
    raft.step(Append(1, 0, 1, 3, 1, 1, 0, 0, 1, 2, 128, payload=(), configuration=configuration), 0)
    assert raft.ignored["impossible"] == 1
    assert raft.last_index == 3
    raft.step(Append(1, 0, 1, 3, 1, 1, 0, 0, 1, 1, 64, payload=(), configuration=configuration), 0)
    assert raft.configuration == configuration
    assert raft.configuration_index == 4
    assert raft.configurations() == [(0, Configuration((0, 1, 2))), (3, Configuration((0, 1, 2))), (4, configuration)]
    assert raft.configuration_at(3) == Configuration((0, 1, 2))


def test_a_list_log_takes_a_configuration_in_its_place_alone() -> None:
    """As every other entry."""
    log = ListLog([(1, "a", 64)])
    op = AppendConfiguration(2, 1, Configuration((1,)))
    log.execute(op)
    assert log.entry(2)[:2] == (1, Configuration((1,)))
    with pytest.raises(ValueError, match="the log ends at 2"):
        log.execute(op)


def test_what_a_leader_knows_of_a_member_can_be_read() -> None:
    """For status and for the node's policies."""
    cluster = Cluster(3)
    leader = cluster.elect(0)
    peer = leader.raft.peer(1)
    assert peer is not None
    assert not peer.takes_snapshot
    assert leader.raft.peer(0) is None
    assert leader.raft.peer(9) is None


def test_the_state_alone_is_no_member() -> None:
    """Who counts is members.py's business."""
    with pytest.raises(NotImplementedError):
        State(Config(0, (0,)), ListLog(), rng=random.Random(1), now_ns=0)


def test_a_read_in_a_joint_configuration_needs_both_halves() -> None:
    """6.4 with 4.3: an outgoing voter's word is wanted, too."""
    cluster = Cluster(3)
    leader = cluster.elect(0)
    raft = leader.raft
    raft.propose_configuration(Configuration((0,)), cluster.now)
    leader.work()
    leader.readies.clear()
    ticket = raft.read_index(cluster.now)
    leader.work()
    assert raft.configuration.joint
    assert not any(ready.reads for ready in leader.readies)
    raft.step(AppendReply(1, 0, raft.term, raft._round, 1, 0, 0, 1, True), cluster.now)
    leader.work()
    assert [ready.reads for ready in leader.readies if ready.reads] == [((ticket, 1),)]


def behind(cluster: Cluster) -> SimNode:
    """Member 2 misses what the leader keeps no longer; nobody has told it so."""
    leader = cluster.elect(0)
    cluster.propose("a")
    cluster.cut(2)
    cluster.propose("b", "c")
    cluster.run(30)
    leader.take_snapshot()
    cluster.settle()
    return leader


def test_answers_about_snapshots_that_cannot_be() -> None:
    """Of strangers, of indices that nobody has, of snapshots that are not being sent, and late ones."""
    cluster = Cluster(3)
    leader = behind(cluster)
    raft, term = leader.raft, leader.raft.term
    raft.ignored.update(dict.fromkeys(raft.ignored, 0))
    raft.step(InstallSnapshotReply(9, 0, term, 1, 0, True, 0), cluster.now)
    assert raft.ignored["not_member"] == 1
    for index, applied in ((99, 0), (1, 99)):
        raft.step(InstallSnapshotReply(2, 0, term, index, 0, True, applied), cluster.now)
    assert raft.ignored["impossible"] == 2
    raft.step(InstallSnapshotReply(1, 0, term, 1, 0, True, 0), cluster.now)
    assert raft.ignored["old_reply"] == 1
    total = raft._snapshot.total_bytes  # type: ignore[union-attr]
    peer = raft.peer(2)
    assert peer is not None and peer.takes_snapshot
    before = peer.snapshot_offset
    raft.step(InstallSnapshotReply(2, 0, term, raft.snapshot_index, total, False, 0), cluster.now)
    assert peer.snapshot_offset == before, "all of it there, and not installed: no piece follows the last one"
    raft.step(InstallSnapshotReply(2, 0, term - 1, 1, 0, True, 0), cluster.now)
    assert raft.ignored["old_term"] == 1
    cluster.nodes[1].raft.step(InstallSnapshotReply(2, 1, term, 1, 0, True, 0), cluster.now)
    assert cluster.nodes[1].raft.ignored["old_reply"] == 1


def test_a_piece_in_the_wrong_place_says_where_to_go_on() -> None:
    """Each is answered with what is here; a piece of an older snapshot is not."""
    raft = raft_of(Configuration((0, 1, 2)))
    members = Configuration((0, 1, 2))
    piece = InstallSnapshot(1, 0, 1, 9, 1, 0, 300, 100, members)

    def answer(message: InstallSnapshot) -> tuple[int, bool]:
        raft.step(message, 0)
        (reply,) = work(raft)
        assert isinstance(reply, InstallSnapshotReply)
        return reply.offset, reply.installed

    assert answer(replace(piece, offset=100, configuration=None)) == (0, False)  # not from the beginning
    assert answer(piece) == (100, False)
    assert answer(piece) == (100, False)  # again
    assert answer(replace(piece, offset=200, configuration=None)) == (100, False)  # one is missing
    raft.step(replace(piece, index=8), 0)
    assert work(raft) == []
    assert raft.ignored["old_reply"] == 1
    assert answer(replace(piece, index=3, term=1)) == (300, True)  # in the log: committed, nothing thrown away
    assert raft.commit_index == 3
    assert answer(replace(piece, index=2)) == (300, True)
    assert answer(replace(piece, term=2, index=8)) == (100, False)  # a newer leader's, though of an older index
    assert answer(replace(piece, term=2, index=8, offset=100, bytes_count=200, configuration=None)) == (300, True)
    assert (raft.first_index, raft.last_index, raft.applied_index) == (9, 8, 8)
    assert answer(replace(piece, term=1)) == (0, False)  # a deposed leader's: it learns the term


def test_a_snapshot_ends_a_candidacy_and_never_a_lead() -> None:
    """Whoever sends it leads the term; two leaders of one term cannot be."""
    raft = raft_of(Configuration((0, 1, 2)))
    raft.tick(raft.deadline_ns)
    work(raft)
    raft.step(InstallSnapshot(1, 0, 1, 9, 1, 0, 300, 100, Configuration((0, 1, 2))), 0)
    assert raft.role is Role.FOLLOWER
    assert raft.leader_id == 1
    cluster = Cluster(3)
    leader = cluster.elect(0)
    leader.raft.step(InstallSnapshot(1, 0, leader.raft.term, 9, 1, 0, 300, 100, Configuration((0, 1, 2))), cluster.now)
    assert leader.raft.ignored["impossible"] == 1


def test_entries_on_their_way_when_the_log_is_compacted_are_found_lost_by_silence() -> None:
    """The member was not behind when the prefix went; that its Appends are lost shows at a heartbeat."""
    cluster = Cluster(3)
    leader = cluster.elect(0)
    cluster.propose("a")
    cluster.cut(2)
    leader.propose(["b"], cluster.now)
    leader.propose(["c"], cluster.now)
    cluster.settle()
    leader.take_snapshot()
    leader.work()
    peer = leader.raft.peer(2)
    assert peer is not None
    assert peer.next_index > leader.raft.first_index - 1
    assert not peer.takes_snapshot
    for _ in range(3):
        cluster.now += 10 * MS
        leader.raft.tick(cluster.now)
        leader.work()
    peer = leader.raft.peer(2)
    assert peer is not None and peer.takes_snapshot
    cluster.heal()
    cluster.run(100)
    assert len({node.digest for node in cluster.nodes}) == 1


def test_a_learners_read_waits_with_the_leader_it_asked() -> None:
    """6.4: refused by a follower, as anybody's."""
    raft = raft_of(Configuration((0, 1, 2), (), (4,)))
    raft.step(ReadIndex(4, 0, 1, 77), 0)
    (answer,) = work(raft)
    assert not answer.granted  # type: ignore[union-attr]


def test_over_the_wire_configurations_stay_what_they_are() -> None:
    """The harness itself."""
    append = Append(1, 0, 1, 3, 1, 1, 0, 0, 1, 1, 64, payload=(), configuration=Configuration((0, 1)))
    assert over_the_wire(append) == append


def test_a_member_with_entries_of_a_lost_term_is_led_back_to_the_match_point() -> None:
    """3.5: the hint names the term and where its run begins; a whole term is stepped over at once."""
    cluster = Cluster(3)
    old = cluster.elect(0)
    cluster.propose("a")
    cluster.cut(0)
    old.propose(["x", "y", "z"], cluster.now)
    cluster.settle()
    cluster.stopped = {0}
    cluster.run(500)
    (second,) = [node for node in cluster.leaders if node is not old]
    second.propose(["b", "c"], cluster.now)
    cluster.run(20)
    cluster.stopped = {0, second.config.node_id}
    cluster.pass_on = lambda message: True
    cluster.run(150)
    cluster.stopped = {second.config.node_id}
    sent = cluster.run(500)
    (third,) = [node for node in cluster.leaders if node is not second]
    assert [m for m in sent if isinstance(m, AppendReply) and m.hint_term]
    assert old.digest == third.digest
    assert old.raft.last_index == third.raft.last_index


def test_a_piece_that_went_out_just_now_is_not_repeated() -> None:
    """A heartbeat repeats what has been silent for a heartbeat's time, nothing younger."""
    cluster = Cluster(3, append_bytes_max=100)
    leader = behind(cluster)
    cluster.heal()
    refusal: list[Message] = []

    def hold(message: Message) -> bool:
        if isinstance(message, InstallSnapshot):
            refusal.append(message)
        return not isinstance(message, InstallSnapshot)

    cluster.pass_on = hold
    cluster.run(10)
    peer = leader.raft.peer(2)
    assert peer is not None and peer.takes_snapshot
    sent = len(refusal)
    peer.progress_ns = leader.raft.deadline_ns - MS
    cluster.now = leader.raft.deadline_ns
    leader.raft.tick(cluster.now)
    assert not [message for message in leader.work() if isinstance(message, InstallSnapshot)]
    cluster.run(20)
    assert len(refusal) > sent
