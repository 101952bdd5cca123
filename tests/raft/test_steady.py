"""The steady step is the core's step: two members of the same past get the same messages, one of them takes the usual
ones outside; what they say and what they know stays equal.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypedDict

import pytest

from r2p2.sim.node import SimNode
from r2p2.sim.steady import SteadyNode
from raft import (
    Append,
    AppendReply,
    Config,
    Configuration,
    InstallSnapshot,
    Message,
    PreVote,
    PreVoteReply,
    Role,
    Vote,
    VoteReply,
)
from raft.steady import FORGET_ENTRIES
from tests.raft.raft_harness import MS, Cluster

MEMBERS = (0, 1, 2)


class Settings(TypedDict):
    """Of Config."""

    commit_delay_ns: int
    append_bytes_max: int
    inflight_max: int
    inflight_bytes_max: int


SETTINGS: Settings = {
    "commit_delay_ns": 500_000,
    "append_bytes_max": 4096,
    "inflight_max": 12,
    "inflight_bytes_max": 1 << 20,
}


class Twins:
    """One member by the core alone, one by steady steps."""

    def __init__(self, seed: int) -> None:
        self.now = 0
        config = Config(0, MEMBERS, **SETTINGS)
        self.plain = SimNode(config, rng=random.Random(seed), now_ns=0)
        self.steady = SteadyNode(config, rng=random.Random(seed), now_ns=0)

    def do(self, action: Callable[[SimNode], object]) -> list[Message]:
        """The same to both; what both say, the same."""
        said = []
        for node in (self.plain, self.steady):
            action(node)
            said.append(sorted(node.work(), key=lambda m: (m.target, type(m).__name__, getattr(m, "round", 0))))
        assert said[0] == said[1]
        self.compare()
        return said[0]

    def step(self, message: Message) -> list[Message]:
        """Copies, since a message may be kept."""
        return self.do(lambda node: node.step(message, self.now))

    def compare(self) -> None:
        a, b = self.plain.raft, self.steady.raft
        names = ["role", "term", "vote", "leader_id", "last_index", "commit_index", "applied_index", "deadline_ns"]
        names += ["_heard_ns", "_election_deadline_ns", "_round", "_durable_index", "_heartbeat_due_ns", "_pending"]
        names += ["ignored", "removed", "_now_ns"]
        assert {n: getattr(a, n) for n in names} == {n: getattr(b, n) for n in names}
        for ours, theirs in zip(a._peers_list, b._peers_list, strict=True):
            slots = [name for name in ours.__slots__ if a.role is Role.LEADER]
            assert {n: getattr(ours, n) for n in slots} == {n: getattr(theirs, n) for n in slots}
        assert a._me.match_index == b._me.match_index
        assert b.global_commit <= a.global_commit <= a.applied_index
        assert self.plain.digest == self.steady.digest


def entries(count: int, term: int, prefix: object) -> tuple[tuple[int, object, int], ...]:
    return tuple((term, f"{prefix}:{i}", 64) for i in range(count))


@pytest.mark.parametrize("seed", range(40))
def test_a_follower_is_the_same(seed: int) -> None:
    rng = random.Random(seed)
    twins = Twins(seed)
    raft = twins.plain.raft
    term = 1
    sent: list[Message] = []
    for round_, number in enumerate(range(300), 1):
        twins.now += rng.choice((1_000, 50_000, 3 * MS))
        chance = rng.random()
        last = raft.last_index
        if chance < 0.02:
            term += 1
        prev = last if chance < 0.8 else max(raft.commit_index, last - rng.randint(0, 3))
        prev_term = raft._runs.term_at(prev)
        count = rng.choice((0, 1, 1, 3, 40))
        commit = min(prev + count + rng.choice((0, 0, 2)), max(raft.commit_index, prev + count - rng.randint(0, 5)))
        commit = max(commit, raft.commit_index)
        everywhere = min(commit, max(0, raft.applied_index - rng.randint(0, 20)))
        leader = 1 if term % 2 else 2
        body = entries(count, term, number)
        size = 64 * count
        append = Append(
            leader,
            0,
            term,
            prev,
            prev_term,
            term if count else 0,
            commit,
            everywhere,
            round_,
            count,
            size,
            number,
            body,
        )
        if chance > 0.95 and sent:
            twins.step(rng.choice(sent))  # once more
        elif chance > 0.93:
            append.prev_index += 2
            append.prev_term = append.prev_term or term
            twins.step(append)  # one before it is lost
        elif chance > 0.91:
            twins.step(PreVote(2, 0, term + 1, last + 1, term))
        elif chance > 0.90:
            term += 1
            twins.step(Vote(2, 0, term, last + 1, term - 1))
        elif chance > 0.88 and number > 50:
            twins.now = raft.deadline_ns
            twins.do(lambda node: node.raft.tick(twins.now))
            term = raft.term
        else:
            if term >= raft.term:
                sent.append(append)
            twins.step(append)
    assert twins.steady.steps_count > 40
    assert raft.commit_index > 100


def test_a_leader_is_the_same() -> None:
    assert sum(lead(seed) for seed in range(60)) > 4_000


def lead(seed: int) -> int:
    """A term of leading; how many steps were taken outside."""
    rng = random.Random(1_000 + seed)
    twins = Twins(seed)
    raft = twins.plain.raft
    twins.now = raft.deadline_ns
    asked = twins.do(lambda node: node.raft.tick(twins.now))
    while raft.role is not Role.LEADER:
        asked = [m for question in asked if isinstance(question, PreVote | Vote) for m in grant(twins, question)]
    term = raft.term
    flight: list[Append] = [m for m in asked if isinstance(m, Append)]
    matches = {1: 0, 2: 0}
    applied = {1: 0, 2: 0}
    for number in range(400):
        twins.now += rng.choice((1_000, 1_000, 20_000, 600_000))
        chance = rng.random()
        said: list[Message] = []
        if twins.plain.raft.role is not Role.LEADER:
            break
        if chance < 0.22:
            values = [f"{number}:{i}" for i in range(rng.choice((1, 1, 5, 30, 80)))]
            said = twins.do(lambda node, values=values: node.propose(values, twins.now))  # type: ignore[misc]
        elif chance < 0.85 and flight:
            append = flight.pop(0 if rng.random() < 0.95 else -1)
            member = append.target
            if rng.random() < 0.01:
                continue  # lost
            last = append.prev_index + append.count
            refuses = append.prev_index > matches[member]
            if not refuses:
                matches[member] = max(matches[member], last)
                applied[member] = max(applied[member], min(append.commit, matches[member]) - rng.randint(0, 2))
            hint = matches[member] if refuses else 0
            match = append.prev_index if refuses else last
            reply = AppendReply(member, 0, term, append.round, match, hint, 0, applied[member], not refuses, number)
            said = twins.step(reply)
            if rng.random() < 0.1:
                said += twins.step(reply)
        elif chance < 0.88:
            said = twins.do(lambda node: node.raft.read_index(twins.now))
        elif chance < 0.89:
            said = twins.step(AppendReply(rng.choice((1, 2, 7)), 0, term, 1 << 40, 1, 0, 0, 1, True))  # impossible
        elif chance < 0.90:
            said = twins.step(AppendReply(7, 0, term, 1, 1, 0, 0, 1, True))
        elif chance < 0.905:
            said = twins.do(lambda node: node.raft.transfer(1, twins.now))
        elif twins.now >= raft.deadline_ns or chance > 0.98:
            twins.now = max(twins.now, raft.deadline_ns)
            said = twins.do(lambda node: node.raft.tick(twins.now))
        flight += [m for m in said if isinstance(m, Append)]
        del flight[:-50]
    return twins.steady.steps_count


def grant(twins: Twins, question: PreVote | Vote) -> list[Message]:
    """A yes of whoever was asked."""
    kind = PreVoteReply if isinstance(question, PreVote) else VoteReply
    return twins.step(kind(question.target, 0, question.term, True))


def steady_cluster(count: int = 3) -> Cluster:
    cluster = Cluster(count, **SETTINGS)
    cluster.elect()
    cluster.propose("a")
    cluster.run(30)
    return cluster


def test_when_it_is_allowed() -> None:
    cluster = steady_cluster()
    leader, follower = cluster.nodes[0].raft, cluster.nodes[1].raft
    assert leader.leads_steadily and not leader.follows_steadily
    assert follower.follows_steadily and not follower.leads_steadily
    assert leader.steady_peers() == [(1, 2, 2), (2, 2, 2)]
    assert leader.appends_room() == 12


def test_a_leader_alone_has_nobody_to_send_to() -> None:
    assert not steady_cluster(1).nodes[0].raft.leads_steadily


def test_not_while_something_is_on_its_way_to_the_disk() -> None:
    cluster = steady_cluster()
    cluster.nodes[0].sync_at_once = False
    cluster.nodes[0].propose(["b"], cluster.now)
    assert not cluster.nodes[0].raft.leads_steadily
    cluster.nodes[0].work()
    assert not cluster.nodes[0].raft.leads_steadily
    cluster.nodes[0].sync()
    cluster.nodes[0].work()
    assert cluster.nodes[0].raft.leads_steadily


def test_not_while_a_member_is_behind() -> None:
    cluster = steady_cluster()
    cluster.pass_on = lambda message: 2 not in (message.sender, message.target)
    cluster.propose("b")
    cluster.run(50)
    assert not cluster.nodes[0].raft.leads_steadily  # it probes
    cluster.pass_on = lambda message: True
    cluster.run(50)
    assert cluster.nodes[0].raft.leads_steadily


def test_not_while_the_role_is_handed_over() -> None:
    cluster = steady_cluster()
    leader = cluster.nodes[0].raft
    leader.transfer(1, cluster.now)
    assert not leader.leads_steadily
    cluster.settle()
    assert cluster.nodes[1].raft.leads_steadily


def test_not_in_a_new_term_before_its_first_entry() -> None:
    """The log's last entry has an older term: what follows it must be compared."""
    cluster = steady_cluster()
    follower = cluster.nodes[1].raft
    follower.step(Append(2, 1, 2, 2, 1, 0, 2, 0, 1, 0, 0), cluster.now)
    cluster.nodes[1].work()
    assert follower.leader_id == 2 and not follower.follows_steadily
    follower.step(Append(2, 1, 2, 2, 1, 2, 2, 0, 2, 1, 64, 0, entries(1, 2, "b")), cluster.now)
    assert not follower.follows_steadily  # its answer waits
    cluster.nodes[1].work()
    assert follower.follows_steadily


def test_not_with_learners_or_a_change_under_way() -> None:
    cluster = steady_cluster()
    cluster.join()
    leader = cluster.nodes[0].raft
    leader.propose_configuration(Configuration((0, 1, 2), learners=(3,)), cluster.now)
    assert not leader.leads_steadily
    cluster.run(30)
    assert leader.configuration.learners == (3,) and not leader.leads_steadily
    assert cluster.nodes[1].raft.follows_steadily


def test_not_while_a_snapshot_comes_in() -> None:
    cluster = steady_cluster()
    follower = cluster.nodes[1].raft
    piece = InstallSnapshot(0, 1, 1, 9, 1, 0, 600, 300, follower.configuration, 0, bytes(300))
    cluster.nodes[1].step(piece, cluster.now)
    cluster.nodes[1].work()
    assert not follower.follows_steadily


def test_the_prefix_goes_in_pieces() -> None:
    """A Ready only for that comes when there is much of it."""
    twins = Twins(1)
    twins.step(Append(1, 0, 1, 0, 0, 1, 0, 0, 1, 1, 64, 0, entries(1, 1, "a")))
    last = 1
    for round_ in range(2, 70):
        everywhere = twins.steady.raft.applied_index
        before = twins.steady.raft.first_index
        twins.step(Append(1, 0, 1, last, 1, 1, last, everywhere, round_, 40, 2560, 0, entries(40, 1, round_)))
        last += 40
        gone = twins.steady.raft.first_index - before
        assert gone == 0 or gone >= FORGET_ENTRIES
    assert twins.steady.raft.first_index > FORGET_ENTRIES
    assert twins.steady.log.first_index == twins.steady.raft.first_index
    twins.step(Append(1, 0, 1, last, 1, 0, last, last - 40, 99, 0, 0))
    assert twins.steady.raft.first_index == twins.plain.raft.first_index == last - 39


def test_a_leaders_prefix_goes_in_pieces() -> None:
    cluster = steady_cluster()
    leader = cluster.nodes[0].raft
    for _ in range(FORGET_ENTRIES // 16 + 8):
        last = leader.last_index + 16
        leader.sent(last, 1024, min(leader.applied_index, leader.last_index), cluster.now)
        if leader.has_ready():
            assert leader.global_commit >= FORGET_ENTRIES
            assert leader.ready().forget_index == leader.global_commit
            return
        leader.answered([(i, leader.round, last, leader.applied_index) for i in (1, 2)], cluster.now, sent_next=True)
        assert leader.commit_index == last
        leader.applied(last)
    pytest.fail("nothing was forgotten")
