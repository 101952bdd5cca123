"""Elections, rule by rule. Sections are those of Ongaro's dissertation."""

from __future__ import annotations

import random

import pytest

from raft import (
    Append,
    AppendReply,
    Config,
    Forward,
    HardState,
    InstallSnapshotReply,
    Message,
    PreVote,
    PreVoteReply,
    Raft,
    ReadIndex,
    ReadIndexReply,
    Role,
    TermRuns,
    TimeoutNow,
    Vote,
    VoteReply,
)
from raft.list_log import ListLog
from tests.raft.one_member import answers, append, node_of
from tests.raft.raft_harness import MS, Cluster


def test_a_cluster_elects_one_leader_and_keeps_it() -> None:
    """3.4: heartbeats keep the others followers; idle means heartbeats and their answers, nothing else."""
    cluster = Cluster()
    cluster.run(1000)
    (leader,) = cluster.leaders
    term = leader.raft.term
    idle = cluster.run(1000)
    assert cluster.leaders == [leader]
    assert leader.raft.term == term
    assert {type(message) for message in idle} == {Append, AppendReply}
    assert all(message.count == 0 for message in idle if isinstance(message, Append))
    assert 2 * 99 <= sum(isinstance(message, Append) for message in idle) <= 2 * 101


def test_election_timeouts_are_drawn_from_the_whole_range() -> None:
    """3.4: spread out, never outside."""
    draws = {Raft(Config(0, (0,)), ListLog(), rng=random.Random(i), now_ns=0).deadline_ns for i in range(200)}
    assert min(draws) >= 100 * MS
    assert max(draws) < 200 * MS
    assert max(draws) - min(draws) > 90 * MS


def test_a_single_member_leads_and_commits_alone() -> None:
    """A cluster of one is a majority."""
    cluster = Cluster(1)
    cluster.elect()
    cluster.propose("a", "b")
    assert cluster.nodes[0].raft.commit_index == 3
    assert cluster.nodes[0].raft.global_commit <= 3


def test_pre_vote_changes_no_term_and_no_vote() -> None:
    """9.6: asking costs nobody anything."""
    raft = node_of(TermRuns([(1, 2)], 4), 2)
    raft.step(PreVote(1, 0, 9, 4, 2), 0)
    assert answers(raft) == [PreVoteReply(0, 1, 9, True)]
    assert (raft.term, raft.vote) == (2, None)
    raft.step(PreVote(1, 0, 9, 3, 2), 0)
    assert answers(raft) == [PreVoteReply(0, 1, 2, False)]
    raft.step(PreVote(1, 0, 2, 9, 1), 0)
    assert answers(raft) == [PreVoteReply(0, 1, 2, False)]


@pytest.mark.parametrize(
    ("last_index", "last_term", "granted"),
    [(4, 2, True), (5, 2, True), (3, 2, False), (9, 1, False), (1, 3, True)],
)
def test_votes_go_to_logs_that_are_up_to_date(last_index: int, last_term: int, granted: bool) -> None:
    """3.6.1: the later last term wins, then the longer log."""
    raft = node_of(TermRuns([(1, 2)], 4), 2)
    raft.step(Vote(1, 0, 4, last_index, last_term, request_id=77), 0)
    assert answers(raft) == [VoteReply(0, 1, 4, granted, request_id=77)]
    assert raft.term == 4
    assert raft.vote == (1 if granted else None)


def test_one_vote_a_term() -> None:
    """3.4: the first come has it; the same candidate may ask again."""
    raft = node_of()
    raft.step(Vote(1, 0, 1, 0, 0), 0)
    raft.step(Vote(2, 0, 1, 5, 0), 0)
    raft.step(Vote(1, 0, 1, 0, 0), 0)
    assert [reply.granted for reply in answers(raft) if isinstance(reply, VoteReply)] == [True, False, True]


def test_a_vote_is_withheld_until_it_is_durable() -> None:
    """3.8: Ready carries term and vote; the answer comes out of persisted()."""
    raft = node_of()
    raft.step(Vote(1, 0, 1, 0, 0), 0)
    ready = raft.ready()
    assert ready.hard_state == HardState(1, 1)
    assert ready.messages == []
    assert raft.persisted(ready.number - 1) == []
    assert raft.persisted(ready.number) == [VoteReply(0, 1, 1, True)]


def test_a_candidate_asks_and_counts_itself_only_when_durable() -> None:
    """3.8: requests wait for the disk; so does the own vote."""
    raft = node_of(pre_vote=False)
    raft.tick(raft.deadline_ns)
    ready = raft.ready()
    assert (raft.role, ready.hard_state) == (Role.CANDIDATE, HardState(1, 0))
    assert ready.messages == []
    raft.step(VoteReply(1, 0, 1, True), 300 * MS)
    raft.step(VoteReply(1, 0, 1, True), 300 * MS)
    assert (raft.role, raft.term) == (Role.CANDIDATE, 1), "one other vote, counted once, and our own is not on disk"
    assert [message.target for message in raft.persisted(ready.number)] == [1, 2]
    assert raft.role is Role.LEADER


def test_requests_for_votes_are_repeated_to_the_silent() -> None:
    """UDP loses; an election does not wait out its timeout for one datagram."""
    cluster = Cluster()
    cluster.pass_on = lambda message: (
        not isinstance(message, PreVote | Vote) or random.Random(cluster.now).random() < 0.5
    )
    cluster.run(400)
    assert len(cluster.leaders) == 1


def test_stickiness_ignores_elections_while_the_leader_lives() -> None:
    """4.2.3: neither a pre-vote nor a vote of a higher term disturbs."""
    cluster = Cluster()
    leader = cluster.elect()
    follower = cluster.nodes[1].raft
    for message in (PreVote(2, 1, 9, 50, 8), Vote(2, 1, 9, 50, 8)):
        follower.step(message, cluster.now + 50 * MS)
        leader.raft.step(message, cluster.now + 50 * MS)
        assert not follower.has_ready()
        assert not leader.raft.has_ready()
    assert follower.ignored["leader_alive"] == leader.raft.ignored["leader_alive"] == 2
    follower.step(Vote(2, 1, 9, 50, 8), cluster.now + 101 * MS)
    assert follower.term == 9


def test_a_leader_without_a_majority_steps_down() -> None:
    """6.2: within one election timeout."""
    cluster = Cluster()
    leader = cluster.elect()
    cluster.cut(0)
    cluster.run(115)
    assert leader.raft.role is not Role.LEADER


def test_without_check_quorum_it_stays_and_yields_to_a_higher_term() -> None:
    """The switch does what it says."""
    cluster = Cluster(check_quorum=False)
    leader = cluster.elect()
    cluster.cut(0)
    cluster.run(1000)
    assert leader.raft.role is Role.LEADER
    assert len(cluster.leaders) == 2
    cluster.heal()
    cluster.run(50)
    assert cluster.leaders != [leader]
    assert len(cluster.leaders) == 1


def test_the_own_higher_term_frees_a_stuck_candidate() -> None:
    """A member ahead of its leader says so and is not shut out for ever."""
    cluster = Cluster()
    cluster.elect()
    cluster.nodes[2].raft.step(Vote(1, 2, 7, 9, 6), cluster.now + 500 * MS)
    assert cluster.nodes[2].raft.term == 7
    cluster.run(1000)
    assert len(cluster.leaders) == 1
    assert {node.raft.term for node in cluster.nodes} == {cluster.leaders[0].raft.term}
    assert cluster.leaders[0].raft.term >= 7


def test_a_pre_candidate_gives_its_vote_to_a_candidate() -> None:
    """Pre-votes are free; a vote binds."""
    raft = node_of()
    raft.tick(raft.deadline_ns)
    assert (raft.role, raft.vote) == (Role.PRE_CANDIDATE, None)
    raft.ready()
    raft.step(Vote(1, 0, 1, 0, 0), 300 * MS)
    assert raft.role is Role.FOLLOWER
    assert raft.vote == 1
    assert answers(raft) == [VoteReply(0, 1, 1, True)]


def test_replies_of_other_rounds_elect_nobody() -> None:
    """Pre-votes are not votes, votes of other terms are not ours."""
    raft = node_of(members=5)
    raft.tick(raft.deadline_ns)
    for reply in (PreVoteReply(1, 0, 2, True), PreVoteReply(2, 0, 0, True), VoteReply(1, 0, 0, True)):
        raft.step(reply, 300 * MS)
    assert (raft.role, raft.term) == (Role.PRE_CANDIDATE, 0)
    for member in (1, 2):
        raft.step(PreVoteReply(member, 0, 1, True), 300 * MS)
    assert (raft.role, raft.term) == (Role.CANDIDATE, 1)
    answers(raft)
    for reply in (PreVoteReply(3, 0, 1, True), PreVoteReply(4, 0, 2, True), VoteReply(3, 0, 1, False)):
        raft.step(reply, 300 * MS)
    assert (raft.role, raft.term) == (Role.CANDIDATE, 1)
    for member in (1, 1, 2):
        raft.step(VoteReply(member, 0, 1, True), 300 * MS)
    assert raft.role is Role.LEADER
    raft.step(VoteReply(3, 0, 1, True), 300 * MS)
    assert raft.ignored["old_reply"] == 6


def test_answers_of_strangers_are_ignored() -> None:
    """Of every kind, by count. Requests are heard: the sender may be in a configuration that is still on its way."""
    raft = node_of(pre_vote=False)
    answers_of_9: list[Message] = [
        PreVoteReply(9, 0, 5, False),
        VoteReply(9, 0, 5, True),
        AppendReply(9, 0, 5, 1, 0, 0, 0, 0, True),
        InstallSnapshotReply(9, 0, 5, 1, 0, True, 0),
        ReadIndex(9, 0, 5, 1),
        ReadIndexReply(9, 0, 5, 1, 1, True),
    ]
    for message in answers_of_9:
        raft.step(message, 0)
    assert (raft.term, raft.ignored["not_member"]) == (0, 6)
    raft.step(Forward(1, 0, 0, 1, 64), 0)
    assert raft.ignored["other_kind"] == 1
    assert not raft.has_ready()


def test_messages_of_older_terms_change_nothing() -> None:
    """Of every kind that is not answered; answers say our term."""
    raft = node_of(TermRuns([(1, 1)], 2), 5)
    old: list[Message] = [
        VoteReply(1, 0, 4, True),
        PreVoteReply(1, 0, 4, False),
        AppendReply(1, 0, 4, 1, 1, 0, 0, 0, True),
        ReadIndex(1, 0, 4, 1),
        ReadIndexReply(1, 0, 4, 1, 1, True),
        TimeoutNow(1, 0, 4),
    ]
    for message in old:
        raft.step(message, 0)
    assert raft.ignored["old_term"] == len(old)
    assert not raft.has_ready()
    raft.step(Vote(1, 0, 4, 9, 3), 0)
    raft.step(PreVote(1, 0, 4, 9, 3), 0)
    assert sorted(map(repr, answers(raft))) == sorted(
        map(repr, [VoteReply(0, 1, 5, False), PreVoteReply(0, 1, 5, False)])
    )


def test_the_leader_ignores_answers_of_strangers() -> None:
    """They have no log that counts."""
    cluster = Cluster()
    leader = cluster.elect().raft
    leader.step(AppendReply(9, 0, leader.term, 1, 1, 0, 0, 0, True), cluster.now)
    assert leader.ignored["not_member"] == 1


def test_a_ready_shows_itself() -> None:
    """For traces and failing tests."""
    raft = node_of()
    raft.step(append(1, 0, 0, 3, 1), 0)
    assert "log_ops=[AppendEntries(first_index=1" in repr(raft.ready())
