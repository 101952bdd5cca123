"""Leading, rule by rule. Sections are those of Ongaro's dissertation."""

from __future__ import annotations

import pytest

from raft import (
    Append,
    AppendNoop,
    AppendReply,
    NotLeader,
    Role,
    TermRuns,
    VoteReply,
)
from raft.messages import NO_ROUND
from tests.raft.one_member import append, node_of
from tests.raft.raft_harness import MS, Cluster, over_the_wire


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
