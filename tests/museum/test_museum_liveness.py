"""Known liveness bugs of this family, one scenario a bug.

Loops of forwarded requests (L8) and transfers to removed members: test_museum_members.py.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from raft import Append, AppendReply, Message, Role, TimeoutNow, Vote
from tests.raft.raft_harness import MS, Cluster


def cut_links(cluster: Cluster, links: set[tuple[int, int]]) -> None:
    """One-way cuts: (sender, target)."""
    cluster.pass_on = lambda message: (message.sender, message.target) not in links


def test_l01_an_isolated_member_comes_back_without_an_election() -> None:
    """Dissertation 9.6, redpanda issue 2048: a minute alone, then home; the leader and its term are the same."""
    cluster = Cluster()
    leader = cluster.elect()
    term = leader.raft.term
    cluster.cut(2)
    cluster.run(6_000)
    cluster.propose("meanwhile")
    cluster.heal()
    cluster.run(500)
    assert cluster.leaders == [leader]
    assert {node.raft.term for node in cluster.nodes} == {term}
    assert cluster.nodes[2].raft.commit_index == leader.raft.commit_index


def test_l01_a_member_that_only_the_leader_does_not_reach_asks_in_vain() -> None:
    """The third member hears both: it gives no pre-vote while its leader lives, so no term ends, cut or healed."""
    cluster = Cluster()
    leader = cluster.elect()
    cluster.propose("a")
    term = leader.raft.term
    cut_links(cluster, {(0, 2), (2, 0)})
    cluster.run(6_000)
    assert {node.raft.term for node in cluster.nodes} == {term}
    cluster.heal()
    cluster.run(500)
    assert cluster.leaders == [leader]
    assert {node.raft.term for node in cluster.nodes} == {term}


LINKS = list(itertools.permutations(range(3), 2))


@pytest.mark.parametrize("cuts", range(1, 7))
def test_l02_every_one_way_cut_of_three(cuts: int) -> None:
    """All sets of one-way cuts, whoever leads: where two members hear each other, there is a stable leader.

    Cloudflare's outage of 2020; CockroachDB issue 104042.
    """
    for links in itertools.combinations(LINKS, cuts):
        mutual = any((a, b) not in links and (b, a) not in links for a, b in LINKS)
        for first in range(3) if mutual else ():
            cluster = Cluster(seed=first)
            cluster.elect(first)
            cut_links(cluster, set(links))
            cluster.run(1500)
            leaders = [(node.raft.term, node) for node in cluster.leaders]
            assert leaders, links
            term, leader = max(leaders, key=lambda pair: pair[0])
            leader.propose(["x"], cluster.now)
            cluster.run(400)
            assert (leader.raft.role, leader.raft.term) == (Role.LEADER, term), f"{links}: not stable"
            assert leader.raft.commit_index == leader.raft.last_index, f"{links}: no progress"


def test_l02_sampled_one_way_cuts_of_five() -> None:
    """Wherever some member and a majority hear each other all around, the cluster makes progress."""
    links = list(itertools.permutations(range(5), 2))
    tried = 0
    for seed in range(60):
        rng = random.Random(seed)
        cuts = set(rng.sample(links, rng.randint(2, 10)))
        mutual = {(a, b) for a, b in links if (a, b) not in cuts and (b, a) not in cuts}
        quorums = [q for q in itertools.combinations(range(5), 3) if set(itertools.permutations(q, 2)) <= mutual]
        if not quorums:
            continue
        tried += 1
        cluster = Cluster(5, seed=seed)
        cluster.elect(rng.randrange(5))
        cut_links(cluster, cuts)
        cluster.run(2500)
        term, leader = max(((node.raft.term, node) for node in cluster.leaders), key=lambda pair: pair[0])
        leader.propose(["x"], cluster.now)
        cluster.run(300)
        assert leader.raft.commit_index == leader.raft.last_index, f"seed {seed}, cuts {cuts}, term {term}"
    assert tried > 10


def test_l03_a_leader_that_hears_nobody_steps_down() -> None:
    """It can still send, so the others stay loyal: CheckQuorum ends it within one election timeout."""
    cluster = Cluster()
    leader = cluster.elect()
    cut_links(cluster, {(1, 0), (2, 0)})
    cluster.run(115)
    assert leader.raft.role is not Role.LEADER
    cluster.run(600)
    assert [node.config.node_id for node in cluster.leaders] in ([1], [2])


def test_l04_a_stuck_candidate_of_a_higher_term_is_freed() -> None:
    """It won pre-votes, lost the election, and nobody hears it any more since the leader lives. etcd/raft 3c7359d."""
    cluster = Cluster()
    leader = cluster.elect()
    cluster.propose("a")
    stuck = cluster.nodes[2].raft
    cluster.cut(2)
    cluster.propose("b")
    stuck.step(Vote(0, 2, stuck.term + 5, 1, 1), cluster.now + 500 * MS)
    assert stuck.term == leader.raft.term + 5
    cluster.run(500)
    cluster.heal()
    cluster.run(1000)
    assert len({node.raft.term for node in cluster.nodes}) == 1
    assert len(cluster.leaders) == 1
    assert stuck.commit_index == cluster.leaders[0].raft.commit_index


def test_l04_a_higher_term_with_an_older_log_does_not_keep_the_rest_from_electing() -> None:
    """The leader is dead; of the two that are left one cannot win and the other's term is too low to be heard.

    etcd/raft's TestPreVoteMigrationWithFreeStuckPreCandidate: the refusal has to tell the term.
    """
    cluster = Cluster()
    cluster.elect(0)
    cluster.cut(2)
    cluster.propose("a")
    ahead = cluster.nodes[2].raft
    ahead.step(Vote(0, 2, ahead.term + 5, 1, 1), cluster.now + 500 * MS)
    ahead_term = ahead.term
    cluster.stopped = {0}
    cluster.heal()
    cluster.run(1000)
    leader = cluster.nodes[1]
    assert (leader.raft.role, leader.raft.term > ahead_term) == (Role.LEADER, True)
    assert ahead.commit_index == leader.raft.last_index


@pytest.mark.parametrize("lost_ms", [5, 50, 150, 1000])
def test_l04_the_votes_of_a_transfer_are_lost(lost_ms: int) -> None:
    """Its target is ahead of everybody by a term that nobody has heard of. redpanda issue 31547."""
    cluster = Cluster()
    leader = cluster.elect(0)
    cluster.propose("a")
    cluster.pass_on = lambda m: not isinstance(m, Vote)
    leader.raft.transfer(2, cluster.now)
    cluster.settle()
    assert cluster.nodes[2].raft.role is Role.CANDIDATE
    cluster.run(lost_ms)
    cluster.heal()
    cluster.run(1000)
    assert len(cluster.leaders) == 1
    cluster.propose("b")
    cluster.run(20)
    assert {node.raft.commit_index for node in cluster.nodes} == {cluster.leaders[0].raft.last_index}


def test_l05_a_follower_that_only_refuses_starts_no_election() -> None:
    """Ten timeouts of refused Appends: the leader is alive, and heard. redpanda issues 30817, 31547, 20801, 2072."""
    cluster = Cluster()
    leader = cluster.elect()
    cluster.cut(2)
    for i in range(20):
        cluster.propose(i)
    term = leader.raft.term
    for round_ in range(1, 101):  # all that gets through to member 2 does not fit its log
        cluster.nodes[2].raft.step(Append(0, 2, term, 20, 1, 0, 0, 0, round_, 0, 0), cluster.now)
        cluster.run(20)
        assert cluster.nodes[2].raft.role is Role.FOLLOWER
    assert cluster.leaders == [leader]
    assert cluster.nodes[2].raft.term == term
    refusals = [m for m in cluster.lost if isinstance(m, AppendReply) and m.sender == 2]
    assert len(refusals) == 100 and not any(m.accepted for m in refusals)


def test_l05_heartbeats_are_sent_while_appends_are_in_flight() -> None:
    """A full window is no reason to be silent."""
    cluster = Cluster(inflight_max=1)
    leader = cluster.elect()
    cluster.pass_on = lambda m: not (isinstance(m, AppendReply) and m.sender == 2)
    cluster.propose("a")
    cluster.propose("b")
    for _ in range(200):  # as a follower that is slow, whose answers are of use when they come
        late = cluster.lost[-1:]
        delivered = cluster.run(10)
        assert [m for m in delivered if isinstance(m, Append) and m.target == 2], "a heartbeat in every interval"
        for message in late:
            leader.raft.step(message, cluster.now)
    assert cluster.leaders == [leader]
    assert cluster.nodes[2].raft.role is Role.FOLLOWER


def test_l05_a_slow_state_machine_costs_no_election() -> None:
    """It applies nothing for ten election timeouts, while entries come in."""
    cluster = Cluster()
    leader = cluster.elect()
    term = leader.raft.term
    for node in cluster.nodes:
        node._apply = lambda commit_index: None  # type: ignore[method-assign]
    for i in range(200):
        leader.propose([i], cluster.now)
        cluster.run(10)
    assert cluster.leaders == [leader] and {node.raft.term for node in cluster.nodes} == {term}
    assert {node.raft.applied_index for node in cluster.nodes} == {1}
    for node in cluster.nodes:
        del node._apply
    cluster.run(20)
    assert {node.raft.applied_index for node in cluster.nodes} == {leader.raft.last_index}


@pytest.mark.parametrize("fate", ["well", "slow", "dead", "dies", "deaf"])
def test_l06_a_transfer_ends_and_loses_nothing(fate: str) -> None:
    """Under writes, to a target that is well, far behind, dead, dies on the way, or does not hear TimeoutNow.

    hashicorp/raft issues 581, 570 and 413.
    """
    cluster = Cluster()
    leader = cluster.elect()
    if fate == "slow":
        cluster.cut(2)
        cluster.propose(*range(200))
        cluster.heal()
    elif fate == "dead":
        cluster.cut(2)
    elif fate == "deaf":
        cluster.pass_on = lambda m: not isinstance(m, TimeoutNow)
    leader.raft.transfer(2, cluster.now)
    written = 0
    for i in range(40):
        for node in cluster.leaders[-1:]:
            node.propose([f"w{i}"], cluster.now)
            written += 1
        cluster.run(5)
        if fate == "dies" and i == 0:
            cluster.cut(2)
    assert all(node.raft.transfer_target is None for node in cluster.nodes)
    assert written >= 20, "service goes on"
    cluster.heal()
    cluster.run(600)
    (leader,) = cluster.leaders
    assert (leader.config.node_id == 2) == (fate in ("well", "slow")) or fate == "dies"
    assert len({node.raft.commit_index for node in cluster.nodes}) == 1
    assert len({node.digest for node in cluster.nodes}) == 1
    assert leader.raft.commit_index > written * 0.9 or fate == "dies"


def test_l06_a_lost_timeout_now_is_said_again() -> None:
    """Within the time of the transfer, not more than once a heartbeat. hashicorp/raft issue 413."""
    cluster = Cluster()
    leader = cluster.elect()
    cluster.pass_on = lambda m: not isinstance(m, TimeoutNow)
    leader.raft.transfer(2, cluster.now)
    cluster.run(25)
    assert 2 <= sum(isinstance(m, TimeoutNow) for m in cluster.lost) <= 4
    cluster.heal()
    cluster.run(15)
    assert cluster.leaders == [cluster.nodes[2]]


def test_l06_a_transfer_to_the_dead_is_given_up() -> None:
    """After the shortest election timeout; the leader leads on. hashicorp/raft issues 581 and 570."""
    cluster = Cluster()
    leader = cluster.elect()
    cluster.cut(2)
    leader.raft.transfer(2, cluster.now)
    cluster.run(120)
    assert (cluster.leaders, leader.raft.transfer_target) == ([leader], None)


def test_l07_the_last_append_of_a_burst_is_lost_and_then_nothing_is_said() -> None:
    """Found again by silence, within two heartbeats, and the commit is told. WRaft, RaftOS."""
    cluster = Cluster()
    leader = cluster.elect()
    cluster.run(30)
    for i in range(5):
        leader.propose([i], cluster.now)
        if i == 4:
            cluster.pass_on = lambda m: not (isinstance(m, Append) and m.count)
        cluster.settle()
    cluster.heal()
    cluster.run(21)
    assert [node.raft.commit_index for node in cluster.nodes] == [6, 6, 6]


def test_l07_the_news_of_the_last_commit_is_lost() -> None:
    """The heartbeat brings it."""
    cluster = Cluster()
    cluster.elect()
    cluster.run(30)
    cluster.pass_on = lambda m: not (isinstance(m, Append) and not m.count)
    cluster.propose("a")
    assert [node.raft.commit_index for node in cluster.nodes] == [2, 1, 1]
    cluster.heal()
    cluster.run(11)
    assert [node.raft.commit_index for node in cluster.nodes] == [2, 2, 2]


def test_l09_split_votes_end() -> None:
    """Five members, equal round trips, clocks of whole milliseconds: how many terms does an election take?

    ESCAPE; paper 5.2. Two thirds at the first attempt, none near ten.
    """
    rounds: Counter[int] = Counter()
    for seed in range(300):
        cluster = Cluster(5, seed=seed)
        queue: list[Message] = []
        while not cluster.leaders:
            cluster.now += MS
            for node in cluster.nodes:
                node.raft.tick(cluster.now)
            arriving, queue = queue, [m for node in cluster.nodes for m in node.work()]
            for message in arriving:  # one millisecond each way
                cluster.nodes[message.target].raft.step(message, cluster.now)
            queue += [m for node in cluster.nodes for m in node.work()]
            assert cluster.now < 5_000 * MS
        rounds[cluster.leaders[0].raft.term] += 1
    assert rounds[1] >= 200, rounds
    assert max(rounds) <= 6, rounds


def test_an_idle_term_commits_what_it_inherited() -> None:
    """The old leader's last entry is on every disk, not yet committed, and no client says anything more."""
    cluster = Cluster()
    cluster.elect(0)
    cluster.run(30)
    cluster.pass_on = lambda m: not isinstance(m, AppendReply)
    cluster.propose("a")
    cluster.cut(0)
    cluster.run(1000)
    assert [node.raft.commit_index for node in cluster.nodes] == [1, 3, 3]


def test_l10_a_leader_that_comes_back_trusts_nothing_it_knew() -> None:
    """Match points of an earlier term are forgotten: entries were replaced since. copycat issue 29.

    A leads, B and A hold a long tail that C, D and E replace by a short one; A leads again, and B hears nothing.
    """
    cluster = Cluster(5)
    a = cluster.elect(0)
    cluster.cut(2, 3, 4)
    cluster.propose(*range(20))
    assert a.raft.commit_index == 1
    cluster.cut(0, 1)
    c = cluster.elect(2)
    cluster.propose("short")
    cluster.pass_on = lambda m: m.sender != 1 and m.target != 1
    cluster.run(100)
    assert a.log.last_index == c.log.last_index == 3
    cluster.now += 3000 * MS
    a = cluster.elect(0)
    # The no-op of the new term reaches nobody: whatever A commits, it made up.
    commit = a.raft.commit_index
    cluster.pass_on = lambda m: not (isinstance(m, Append) and m.count) and 1 not in (m.sender, m.target)
    cluster.propose("x")
    cluster.run(50)
    assert a.raft.commit_index == commit
    cluster.heal()
    cluster.run(100)
    assert len({node.raft.commit_index for node in cluster.nodes}) == 1
    assert len({node.digest for node in cluster.nodes}) == 1
