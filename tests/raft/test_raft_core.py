"""The state machine, rule by rule. Sections are those of Ongaro's dissertation."""

from __future__ import annotations

import random

import pytest

from r2p2.sim.node import SimNode
from raft import (
    Append,
    AppendEntries,
    AppendNoop,
    AppendReply,
    Config,
    Forward,
    HardState,
    InstallSnapshotReply,
    Message,
    NotLeader,
    PreVote,
    PreVoteReply,
    Raft,
    ReadIndex,
    ReadIndexReply,
    Role,
    TermRuns,
    TimeoutNow,
    Truncate,
    Vote,
    VoteReply,
)
from raft.list_log import ListLog
from raft.messages import NO_ROUND
from tests.raft.raft_harness import MS, Cluster, over_the_wire


def node_of(runs: TermRuns | None = None, term: int = 0, *, members: int = 3, **settings: object) -> Raft:
    """Member 0 alone, with this log; sizes come from a log of 64-byte entries."""
    runs = runs or TermRuns()
    entries = [(runs.term_at(i), i, 64) for i in range(runs.base_index + 1, runs.last_index + 1)]
    config = Config(0, tuple(range(members)), **settings)  # type: ignore[arg-type]
    log = ListLog(entries, first_index=runs.base_index + 1)
    hard = HardState(term, None) if term else None
    return Raft(config, log, rng=random.Random(1), now_ns=0, hard_state=hard, term_runs=runs)


def append(
    term: int,
    prev: int,
    prev_term: int,
    count: int = 0,
    entries_term: int = 0,
    *,
    commit: int = 0,
    global_commit: int = 0,
    round: int = 1,
    request_id: int = 0,
) -> Append:
    """From member 1."""
    places = (prev, prev_term, entries_term, commit, global_commit, round)
    return Append(1, 0, term, *places, count, 64 * count, request_id=request_id, payload="p")


def answers(raft: Raft) -> list[object]:
    """Everything ready, with the durable part made durable."""
    ready = raft.ready()
    return [*ready.messages, *raft.persisted(ready.number)]


# -- elections --------------------------------------------------------------------------------------------------------


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


# -- following --------------------------------------------------------------------------------------------------------


def test_entries_are_appended_and_acknowledged_when_durable() -> None:
    """3.5: the acknowledgement says how far the logs are equal."""
    raft = node_of()
    raft.step(append(1, 0, 0, 3, 1, round=5, request_id=9), 0)
    ready = raft.ready()
    assert ready.log_ops == [AppendEntries(1, 0, 3, 1, "p")]
    assert ready.messages == []
    assert raft.persisted(ready.number) == [AppendReply(0, 1, 1, 5, 3, 0, 0, 0, True, request_id=9)]
    assert raft.leader_id == 1


def test_an_acknowledgement_of_what_is_not_durable_yet_waits_for_the_earlier_ready() -> None:
    """A duplicate Append needs no write of its own, yet its entries are still on their way to the disk."""
    raft = node_of()
    raft.step(append(1, 0, 0, 3, 1), 0)
    first = raft.ready()
    raft.step(append(1, 0, 0, 3, 1, round=2), 0)
    second = raft.ready()
    assert (second.messages, second.log_ops) == ([], [])
    assert raft.persisted(first.number) == [
        AppendReply(0, 1, 1, 1, 3, 0, 0, 0, True),
        AppendReply(0, 1, 1, 2, 3, 0, 0, 0, True),
    ]
    raft.step(append(1, 3, 1, round=3), 0)
    assert raft.ready().messages == [AppendReply(0, 1, 1, 3, 3, 0, 0, 0, True)], "nothing to wait for"


def test_what_was_handed_out_does_not_change_afterwards() -> None:
    """Neither a Ready, nor what waits for it, learns of messages that come later."""
    raft = node_of()
    raft.step(append(1, 0, 0, 3, 1), 0)
    raft._after.clear()
    first = raft.ready()
    raft.step(append(1, 3, 1, 2, 1, round=2), 0)
    assert (len(first.log_ops), first.messages) == (1, [])
    second = raft.ready()
    assert raft.persisted(first.number) == []
    assert [reply.match_index for reply in raft.persisted(second.number)] == [5]  # type: ignore[union-attr]
    empty = raft.ready()
    raft.step(append(1, 5, 1, round=3), 0)
    raft.step(PreVote(2, 0, 9, 9, 1), 10**9)
    raft.ready()
    assert (empty.messages, empty.log_ops) == ([], [])


@pytest.mark.parametrize(
    ("message", "ops", "match"),
    [
        (append(5, 6, 3, 2, 3), [AppendEntries(7, 0, 2, 3, "p")], 8),  # right behind
        (append(5, 4, 2, 2, 3), [], 6),  # all there
        (append(5, 4, 2, 1, 3), [], 5),  # a part of it: the rest stays
        (append(5, 4, 2, 4, 3), [AppendEntries(7, 2, 2, 3, "p")], 8),  # the new part only
        (append(5, 4, 2, 1, 4), [Truncate(5), AppendEntries(5, 0, 1, 4, "p")], 5),  # another term
        (append(5, 3, 2, 3, 2), [Truncate(5), AppendEntries(5, 1, 2, 2, "p")], 6),  # equal at first, then not
        (append(5, 2, 1, 0), [], 2),  # a heartbeat proves what lies before it, no more
        (append(5, 0, 0, 2, 1), [], 2),
        (append(5, 0, 0, 6, 1), [Truncate(3), AppendEntries(3, 2, 4, 1, "p")], 6),
    ],
)
def test_what_is_missing_is_added_and_only_a_conflict_removed(message: Append, ops: list[object], match: int) -> None:
    """3.5, on a log of terms 1 1 2 2 3 3."""
    raft = node_of(TermRuns([(1, 1), (3, 2), (5, 3)], 6), 5)
    raft.step(message, 0)
    ready = raft.ready()
    assert ready.log_ops == ops
    (reply,) = [*ready.messages, *raft.persisted(ready.number)]
    assert isinstance(reply, AppendReply)
    assert (reply.accepted, reply.match_index) == (True, match)


@pytest.mark.parametrize(
    ("prev", "prev_term", "hint_index", "hint_term"),
    [(7, 3, 6, 0), (99, 4, 6, 0), (6, 4, 5, 3), (5, 2, 5, 3), (4, 1, 3, 2), (2, 2, 1, 1)],
)
def test_a_gap_or_another_term_is_refused_with_a_hint(
    prev: int, prev_term: int, hint_index: int, hint_term: int
) -> None:
    """5.3 of the paper's fast backtracking: a term a step."""
    raft = node_of(TermRuns([(1, 1), (3, 2), (5, 3)], 6), 5)
    raft.step(append(5, prev, prev_term, 1, 4), 0)
    assert answers(raft) == [AppendReply(0, 1, 5, 1, prev, hint_index, hint_term, 0, False)]
    assert raft.last_index == 6


def test_commit_follows_the_leader_only_through_what_is_proven() -> None:
    """3.5: the rest of our log may be somebody else's."""
    raft = node_of(TermRuns([(1, 1)], 6), 5)
    raft.step(append(5, 3, 1, commit=6), 0)
    assert raft.commit_index == 3
    raft.step(append(5, 2, 1, commit=6), 0)
    assert raft.commit_index == 3
    raft.step(append(5, 3, 1, 2, 4, commit=4), 0)
    assert (raft.commit_index, raft.last_index) == (4, 5)


def test_committed_entries_are_neither_compared_nor_removed() -> None:
    """An old Append that reaches back behind the commit, or behind the kept log, is agreed to."""
    raft = node_of(TermRuns([(5, 2)], 8, base_index=4, base_term=2), 5)
    raft.step(append(5, 8, 2, commit=7), 0)
    answers(raft)
    raft.applied(7)
    for prev, count, match in ((0, 3, 3), (2, 4, 6), (3, 6, 9)):
        raft.step(append(5, prev, min(prev, 1), count, 2), 0)
        (reply,) = answers(raft)
        assert isinstance(reply, AppendReply)
        assert (reply.accepted, reply.match_index) == (True, match)
    assert raft.last_index == 9


def test_an_old_leader_is_told_the_term() -> None:
    """It steps down."""
    raft = node_of(TermRuns([(1, 1)], 2), 5)
    raft.step(append(4, 2, 1), 0)
    (reply,) = answers(raft)
    assert isinstance(reply, AppendReply)
    assert (reply.term, reply.accepted) == (5, False)
    assert raft.leader_id is None


def test_even_a_refused_append_keeps_the_election_timer_quiet() -> None:
    """A leader that is still looking for our match point is alive."""
    raft = node_of(TermRuns([(1, 1)], 2), 5)
    before = raft.deadline_ns
    raft.step(append(5, 9, 4), 50 * MS)
    assert raft.deadline_ns == before + 50 * MS


def test_forgetting_waits_for_the_own_state_machine() -> None:
    """Global commit announces what all have applied; nobody forgets more than it applied itself."""
    raft = node_of(TermRuns([(1, 1)], 6), 5)
    raft.step(append(5, 6, 1, commit=6, global_commit=0), 0)
    answers(raft)
    raft.applied(4)
    raft.step(append(5, 6, 1, commit=6, global_commit=6), 0)
    assert raft.ready().forget_index == 4
    assert raft.first_index == 5
    raft.applied(6)
    raft.step(append(5, 6, 1, commit=6, global_commit=6), 0)
    assert raft.ready().forget_index == 6
    raft.step(append(5, 6, 1, commit=6, global_commit=6), 0)
    assert raft.ready().forget_index == 0


# -- leading ----------------------------------------------------------------------------------------------------------


def test_a_term_opens_with_a_no_op() -> None:
    """6.4: and its Appends come when the storage holds it."""
    raft = node_of(TermRuns([(1, 1)], 4), 1, pre_vote=False)
    raft.tick(raft.deadline_ns)
    raft.persisted(raft.ready().number)
    raft.step(VoteReply(2, 0, 2, True), raft.deadline_ns)
    ready = raft.ready()
    assert ready.log_ops == [AppendNoop(5, 2)]
    assert ready.messages == []
    assert raft.has_ready()
    raft._log.append(2, None, 16)  # type: ignore[attr-defined]
    (one, two) = raft.ready().messages
    assert isinstance(one, Append)
    assert isinstance(two, Append)
    assert (one.prev_index, one.prev_term, one.count, one.entries_term, one.bytes_count) == (4, 1, 1, 2, 16)
    assert (one.target, two.target) == (1, 2)
    assert one.round == two.round


def test_proposals_are_replicated_committed_and_applied_everywhere() -> None:
    """3.5, and one message per member and step: no extra ones while there is more to send."""
    cluster = Cluster()
    leader = cluster.elect()
    assert leader.propose(["a", "b"], cluster.now) == 2
    cluster.settle()
    assert [node.raft.commit_index for node in cluster.nodes] == [3, 3, 3]
    assert len({node.digest for node in cluster.nodes}) == 1
    assert cluster.nodes[1].log.entry(3)[1] == "b"
    assert cluster.nodes[1].raft.status()["commit_index"] == 3
    assert "members" in leader.raft.status()


def test_only_a_leader_takes_proposals() -> None:
    """The error says who does."""
    cluster = Cluster()
    leader = cluster.elect()
    with pytest.raises(NotLeader, match="leader is 0"):
        cluster.nodes[1].propose(["a"], cluster.now)
    with pytest.raises(ValueError, match="0 entries"):
        leader.raft.propose(0, cluster.now)


def test_appends_follow_each_other_without_waiting_within_the_bounds() -> None:
    """10.2.1: pipelining; count and bytes in flight are bounded."""
    for settings, count in (({"inflight_max": 5}, 5), ({"inflight_bytes_max": 448, "append_bytes_max": 64}, 7)):
        cluster = Cluster(**settings)  # type: ignore[arg-type]
        leader = cluster.elect()
        cluster.run(30)
        cluster.cut(1)
        for i in range(20):
            leader.propose([i], cluster.now)
            cluster.settle()
        to_one = [m for m in cluster.lost if isinstance(m, Append) and m.target == 1 and m.count]
        assert [m.prev_index + 1 for m in to_one] == list(range(2, 2 + count))
        cluster.heal()
        cluster.run(60)
        assert cluster.nodes[1].raft.commit_index == 21


def test_an_append_has_one_term_and_bounded_bytes() -> None:
    """Term runs cut it, and so do bytes; an entry over the bound travels alone."""
    cluster = Cluster(append_bytes_max=128)
    for i in (0, 1, 0):
        leader = cluster.elect(i)
        cluster.cut(2)
        leader.propose(["x"], cluster.now, bytes_count=800)
        leader.propose(["y"] * 4, cluster.now)
        cluster.settle()
    cluster.heal()
    appends = [m for m in cluster.run(100) if isinstance(m, Append) and m.target == 2 and m.count]
    assert cluster.nodes[2].raft.commit_index == leader.raft.commit_index
    assert max(m.bytes_count for m in appends if m.count > 1) == 128
    assert {m.count for m in appends if m.bytes_count > 128} == {1}
    for m in appends:
        assert {entry[0] for entry in m.payload} == {m.entries_term}  # type: ignore[attr-defined]


def test_a_lost_tail_is_sent_again_after_a_heartbeat_or_two() -> None:
    """Nothing comes behind it that could be refused: silence has to do."""
    cluster = Cluster()
    leader = cluster.elect()
    cluster.run(30)
    cluster.pass_on = lambda m: not (isinstance(m, Append) and m.count)
    cluster.propose("a")
    cluster.heal()
    cluster.run(21)
    assert [node.raft.commit_index for node in cluster.nodes] == [2, 2, 2]
    assert leader.raft.status()["log_held_by"] is None


def test_a_lost_middle_is_sent_again_at_once() -> None:
    """What comes behind the gap is refused, once is enough, and time does not pass."""
    cluster = Cluster()
    leader = cluster.elect()
    cluster.run(30)
    cluster.pass_on = lambda m: not (isinstance(m, Append) and m.count)
    cluster.propose("a")
    cluster.heal()
    for i in range(5):
        leader.propose([i], cluster.now)
        cluster.nodes[1].raft.tick(cluster.now)
    cluster.settle()
    assert [node.raft.commit_index for node in cluster.nodes] == [7, 7, 7]


def test_heartbeats_go_out_whatever_is_in_flight() -> None:
    """A member that is slow to answer Appends still hears its leader."""
    cluster = Cluster(inflight_max=1)
    leader = cluster.elect()
    cluster.run(30)
    cluster.pass_on = lambda m: not (isinstance(m, Append) and m.count)
    cluster.propose("a")
    for _ in range(50):
        heartbeats = [m for m in cluster.run(10) if isinstance(m, Append)]
        assert {m.target for m in heartbeats} == {1, 2}
    assert cluster.leaders == [leader]


def test_a_commit_is_told_at_once_when_nothing_else_is_under_way() -> None:
    """No waiting for the heartbeat at one request at a time, and only one message for it."""
    cluster = Cluster()
    cluster.elect()
    cluster.run(30)
    sent = cluster.propose("a")
    assert [node.raft.commit_index for node in cluster.nodes] == [2, 2, 2]
    assert sum(isinstance(m, Append) for m in sent) == 4


def test_under_load_commits_ride_on_the_next_entries() -> None:
    """No message whose only content is a commit while entries are in flight."""
    cluster = Cluster()
    leader = cluster.elect()
    cluster.run(30)
    leader.propose([0], cluster.now)
    queue = leader.work()
    empty = 0
    for i in range(1, 200):
        leader.propose([i], cluster.now)
        queue += leader.work()
        for _ in range(2):  # the two Appends of the turn before
            message = queue.pop(0)
            empty += isinstance(message, Append) and not message.count
            node = cluster.nodes[message.target]
            node.raft.step(message, cluster.now)
            for reply in node.work():
                leader.raft.step(reply, cluster.now)
    assert leader.raft.commit_index > 190
    assert empty == 0


def test_entries_of_older_terms_are_not_committed_by_counting() -> None:
    """3.6.2, figure 3.7: a majority that holds an old entry does not make it safe; one of the own term does."""
    raft = node_of(TermRuns([(1, 1), (2, 2)], 3), 3, pre_vote=False)
    now = raft.deadline_ns
    raft.tick(now)
    raft.persisted(raft.ready().number)
    raft.step(VoteReply(1, 0, 4, True), now)
    raft.persisted(raft.ready().number)
    raft._log.append(4, None, 16)  # type: ignore[attr-defined]
    raft.ready()
    raft.step(AppendReply(1, 0, 4, 1, 3, 0, 0, 0, True), now)
    raft.step(AppendReply(2, 0, 4, 1, 3, 0, 0, 0, True), now)
    assert raft.commit_index == 0
    raft.step(AppendReply(1, 0, 4, 1, 4, 0, 0, 0, True), now)
    assert raft.commit_index == 4


def test_the_leader_counts_itself_only_when_durable_but_need_not_be_in_the_majority() -> None:
    """10.2.1: its own write goes on beside the replication."""
    cluster = Cluster(sync_at_once=True)
    leader = cluster.elect()
    cluster.run(30)
    leader.sync_at_once = False
    cluster.cut(2)
    cluster.propose("a")
    assert leader.raft.commit_index == 1, "one follower and an unfinished write"
    leader.sync()
    assert leader.raft.commit_index == 2
    cluster.heal()
    leader.propose(["b"], cluster.now)
    cluster.settle()
    assert leader.raft.commit_index == 3, "two followers are a majority"


def test_global_commit_is_what_every_member_applied() -> None:
    """The prefix goes once the slowest is done with it."""
    cluster = Cluster()
    cluster.elect()
    cluster.run(30)
    cluster.cut(2)
    cluster.propose(*range(10))
    cluster.run(50)
    assert cluster.nodes[0].raft.global_commit == cluster.nodes[0].raft.first_index - 1 == 1
    assert cluster.nodes[0].raft.status()["log_held_by"] == 2
    cluster.heal()
    cluster.run(60)
    assert [node.raft.first_index for node in cluster.nodes] == [12, 12, 12]
    assert [node.log.first_index for node in cluster.nodes] == [12, 12, 12]
    cluster.propose("more")
    assert [node.raft.commit_index for node in cluster.nodes] == [12, 12, 12]


def test_what_is_applied_but_not_durable_is_not_reported_as_applied() -> None:
    """Others forget what everybody applied; after a crash we would miss it."""
    raft = node_of()
    raft.step(append(1, 0, 0, 3, 1, commit=3), 0)
    first = raft.ready()
    raft.applied(3)
    raft.step(append(1, 3, 1, round=2, commit=3), 0)
    assert raft.ready().messages == []
    assert [reply.applied_index for reply in raft.persisted(first.number)] == [0, 3]  # type: ignore[union-attr]


def test_replies_that_no_follower_could_send_are_ignored() -> None:
    """Beyond the log, of rounds to come: counted, without effect."""
    cluster = Cluster()
    leader = cluster.elect().raft
    before = leader.commit_index
    term = leader.term
    for reply in (
        AppendReply(1, 0, term, 1, 99, 0, 0, 0, True),
        AppendReply(1, 0, term, 9999, 1, 0, 0, 0, True),
        AppendReply(1, 0, term, 1, 1, 0, 0, 99, True),
    ):
        leader.step(reply, cluster.now)
    assert leader.ignored["impossible"] == 3
    leader.step(Append(1, 0, term, 0, 0, 0, 0, 0, 1, 0, 0), cluster.now)
    assert leader.ignored["impossible"] == 4
    assert (leader.role, leader.commit_index) == (Role.LEADER, before)


def test_an_answer_to_an_append_of_an_older_term_tells_the_term_and_nothing_else() -> None:
    """The older Append's round may be one of a later term's, too."""
    cluster = Cluster()
    leader = cluster.elect().raft
    follower = cluster.nodes[1]
    follower.raft.step(Append(2, 1, leader.term - 1, 0, 0, 0, 0, 0, leader.round, 0, 0), cluster.now)
    (answer,) = follower.work()
    assert isinstance(answer, AppendReply)
    assert (answer.term, answer.accepted, answer.round) == (leader.term, False, NO_ROUND)
    ignored = leader.ignored["old_reply"]
    leader.step(over_the_wire(answer), cluster.now)
    assert leader.ignored["old_reply"] == ignored + 1 and leader.role is Role.LEADER


def test_a_divergent_follower_is_brought_back_in_a_step_a_term() -> None:
    """5.3: hints skip whole terms."""
    cluster = Cluster()
    for term in range(6):
        leader = cluster.elect(0)
        cluster.cut(0)
        leader.propose(range(50), cluster.now)
        cluster.settle()
        cluster.heal()
        cluster.now += 300 * MS
        other = cluster.elect(1)
        cluster.cut(1)
        other.propose(range(20 + term), cluster.now)
        cluster.settle()
        cluster.heal()
    cluster.run(500)
    cluster.propose("end")
    cluster.run(50)
    assert len({tuple(map(str, node.log.entries)) for node in cluster.nodes}) == 1
    assert len({node.digest for node in cluster.nodes}) == 1


def test_applied_takes_only_what_is_committed() -> None:
    """A mistake of the caller is loud."""
    raft = node_of()
    with pytest.raises(ValueError, match=r"applied: 1 is not in 0\.\.0"):
        raft.applied(1)


def test_a_proposal_between_an_election_and_its_ready_is_a_mistake() -> None:
    """Storage and core would disagree about where the log ends."""
    raft = node_of(pre_vote=False, members=1)
    raft.tick(raft.deadline_ns)
    raft.persisted(raft.ready().number)
    assert raft.role is Role.LEADER
    with pytest.raises(RuntimeError, match="Ready"):
        raft.propose(1, 0)


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
