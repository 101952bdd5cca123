"""Known safety bugs of this family, one scenario a bug. Each docstring says what went wrong, and where it was seen.

Changes of members, snapshots, retried requests, and what the design leaves no room for: test_museum_members.py.
"""

from __future__ import annotations

import random

import pytest

from r2p2.sim.node import Disk, SimNode
from raft import (
    Append,
    AppendEntries,
    AppendReply,
    Config,
    HardState,
    Message,
    Raft,
    Role,
    TermRuns,
    Vote,
    VoteReply,
    decode,
    encode,
)
from raft.codec import Identity
from raft.list_log import ListLog
from tests.raft.raft_harness import MS, Cluster, over_the_wire


def log_of(*terms: int) -> Disk:
    """A disk whose log has these terms; values are their indices."""
    return Disk(
        HardState(max(terms, default=0), None), ListLog([(term, (term, i), 64) for i, term in enumerate(terms)])
    )


def member(i: int, disk: Disk, members: int = 3, **settings: object) -> SimNode:
    """Member i on that disk."""
    config = Config(i, tuple(range(members)), **settings)  # type: ignore[arg-type]
    return SimNode(config, rng=random.Random(i), now_ns=0, disk=disk)


def entries(node: SimNode) -> list[tuple[int, object]]:
    """(term, value) of the whole log."""
    return [(term, value) for term, value, _ in node.log.entries]


def append(
    term: int, prev: int, prev_term: int, terms: tuple[int, ...] = (), *, commit: int = 0, global_commit: int = 0
) -> Append:
    """From member 1 to member 0; entries named as log_of names them."""
    payload = tuple((t, (t, prev + i), 64) for i, t in enumerate(terms))
    entries_term = terms[0] if terms else 0
    return Append(
        1,
        0,
        term,
        prev,
        prev_term,
        entries_term,
        commit,
        global_commit,
        round=1,
        count=len(terms),
        bytes_count=64 * len(terms),
        payload=payload,
    )


def replies(node: SimNode, *messages: Message) -> list[AppendReply]:
    """What it answers to Appends, in order."""
    out: list[Message] = []
    for message in messages:
        node.raft.step(message, 0)
        out += node.work()
    return [message for message in out if isinstance(message, AppendReply)]


def test_s01_vote_and_term_survive_kill_9() -> None:
    """A votes for B in t, is killed and restarted in the same election, C asks for t: no second vote.

    PySyncObj pull request 202 and openraft issue 1535 lost the vote; willemt/raft wrote term and vote apart.
    """
    a = member(0, Disk())
    a.raft.step(Vote(1, 0, 7, 0, 0), 0)
    assert [m.granted for m in a.work() if isinstance(m, VoteReply)] == [True]
    for _ in range(3):
        a = member(0, a.crash())
        assert a.raft.term == 7
        a.raft.step(Vote(2, 0, 7, 9, 6), 0)
        assert [m.granted for m in a.work() if isinstance(m, VoteReply)] == [False]
    a.raft.step(Vote(1, 0, 7, 0, 0), 0)
    assert [m.granted for m in a.work() if isinstance(m, VoteReply)] == [True]


def test_s01_a_vote_in_a_term_already_known_survives() -> None:
    """The term came, and was written, with a request that was refused; the vote in it is another write."""
    a = member(0, log_of(1, 2))
    a.raft.step(Vote(1, 0, 7, 1, 1), 0)
    a.work()
    a.raft.step(Vote(2, 0, 7, 2, 2), 0)
    assert [m.granted for m in a.work() if isinstance(m, VoteReply)] == [True]
    a = member(0, a.crash())
    a.raft.step(Vote(1, 0, 7, 9, 6), 0)
    assert [m.granted for m in a.work() if isinstance(m, VoteReply)] == [False]


def test_s01_terms_do_not_fall_when_all_restart() -> None:
    """The whole cluster goes down and comes back: its terms go on."""
    cluster = Cluster()
    for i in (0, 1, 2, 1):
        cluster.elect(i)
    term = cluster.nodes[1].raft.term
    cluster.nodes = [cluster.start(i, node.crash()) for i, node in enumerate(cluster.nodes)]
    assert [node.raft.term for node in cluster.nodes] == [term] * 3


@pytest.mark.parametrize("leader_finishes", [False, True])
def test_s02_figure_8_of_the_paper(leader_finishes: bool) -> None:
    """An entry of term 2 on three of five disks may still be replaced; with one of term 4 behind it, it may not.

    LogCabin issue 44, PySyncObj issues 169 and 110.
    """
    disks = [log_of(1, 2), log_of(1, 2), log_of(1), log_of(1), log_of(1, 3)]
    for disk in disks:
        disk.hard_state = HardState(3, None)
    cluster = Cluster(5)
    cluster.nodes = [cluster.start(i, disk) for i, disk in enumerate(disks)]
    # S1 leads in term 4 with the votes of S2..S4. Its entry of term 2 reaches S3; of term 4 nothing, or all of it.
    cluster.pass_on = lambda m: (
        m.target != 4 and m.sender != 4 and not (isinstance(m, Append) and m.entries_term == 4 and not leader_finishes)
    )
    leader = cluster.elect(0)
    assert leader.raft.term == 4
    cluster.run(60)
    if leader_finishes:
        assert leader.raft.commit_index == 3
    else:
        assert entries(cluster.nodes[2])[:2] == [(1, (1, 0)), (2, (2, 1))]
        assert leader.raft.commit_index == 0, "a majority has the entry of term 2, and it is not committed"
    cluster.cut(0)
    cluster.now += 2000 * MS
    s5 = cluster.nodes[4].raft
    s5.tick(cluster.now)
    cluster.settle()
    cluster.run(400)
    assert (s5.role is Role.LEADER) <= (not leader_finishes)
    cluster.heal()
    cluster.run(1000)
    values = [entries(node)[1] for node in cluster.nodes if node.log.first_index == 1]
    assert not leader_finishes or all(value == (2, (2, 1)) for value in values)


def test_s03_commit_stops_at_the_match_point() -> None:
    """A divergent tail, a heartbeat with a commit index beyond it: none of the tail is committed.

    Scylla issue 9965; WRaft's model found the same.
    """
    f = member(0, log_of(1, 1, 2, 2, 2))
    (reply,) = replies(f, append(5, 2, 1, commit=5))
    assert (reply.accepted, reply.match_index) == (True, 2)
    assert f.raft.commit_index == 2
    assert f.raft.applied_index == 2


def test_s04_a_delayed_short_append_removes_nothing() -> None:
    """Entries 5..8 arrive, then the delayed Append of 3..4.

    willemt/raft 77fb611, CCF issues 5991 and 6016, RaftOS.
    """
    f = member(0, log_of(1, 1, 1, 1))
    got = replies(f, append(1, 4, 1, (1, 1, 1, 1), commit=8), append(1, 2, 1, (1, 1)), append(1, 4, 1, (1,)))
    assert [reply.match_index for reply in got] == [8, 4, 5]
    assert f.log.last_index == 8
    assert f.raft.commit_index == 8


def test_s04_a_delayed_refusal_moves_nothing_back_behind_the_match() -> None:
    """The leader's picture of a follower, and its own log, survive a refusal that was overtaken."""
    cluster = Cluster()
    leader = cluster.elect()
    cluster.propose(*"abcdefg")
    commit = leader.raft.commit_index
    term = leader.raft.term
    for round_ in range(1, leader.raft._round + 1):
        for prev in range(1, leader.raft.last_index + 1):
            leader.raft.step(AppendReply(1, 0, term, round_, prev, 0, 0, 0, False), cluster.now)
            leader.raft.step(AppendReply(1, 0, term, round_, prev, 1, 1, 0, False), cluster.now)
    assert not [m for m in leader.work() if isinstance(m, Append) and m.prev_index < commit]
    assert leader.raft.commit_index == commit
    assert leader.log.last_index == commit


def test_s05_the_answer_claims_what_the_append_proved() -> None:
    """A longer divergent suffix behind entries that are "already there" does not count as matching. CCF issue 6001."""
    f = member(0, log_of(1, 1, 1, 2, 2, 2, 2))
    (reply,) = replies(f, append(5, 1, 1, (1, 1)))
    assert (reply.accepted, reply.match_index) == (True, 3)
    (reply,) = replies(f, append(5, 3, 1))
    assert reply.match_index == 3


def test_s06_a_duplicate_first_append_after_compaction() -> None:
    """prev = 0, long after entries 1..3 were dropped: nothing is appended twice. WRaft, RedisLabs/raft issue 49."""
    f = member(0, Disk())
    first = append(1, 0, 0, (1, 1, 1))
    replies(f, first, append(1, 3, 1, (1,), commit=4), append(1, 4, 1, commit=4, global_commit=4))
    assert f.log.first_index == 5
    (reply,) = replies(f, first)
    assert (reply.accepted, reply.match_index) == (True, 3)
    assert (f.log.first_index, f.log.last_index) == (5, 4)
    (reply,) = replies(f, append(1, 0, 0, (1,) * 6))
    assert (reply.accepted, reply.match_index) == (True, 6)
    assert (f.log.first_index, f.log.last_index) == (5, 6)


def test_s07_match_commit_and_term_never_fall() -> None:
    """All replies again, shuffled, thrice. PySyncObj issues 166 and 167, RaftOS, WRaft, RATIS-1161."""
    cluster = Cluster()
    leader = cluster.elect()
    seen: list[AppendReply] = []
    for i in range(30):
        leader.propose([i], cluster.now)
        seen += [m for m in cluster.settle() if isinstance(m, AppendReply)]
    raft = leader.raft
    rng = random.Random(7)
    peers = raft._peers_list
    before = (raft.term, raft.commit_index, [peer.match_index for peer in peers])
    for reply in rng.sample(seen * 3, len(seen) * 3):
        raft.step(reply, cluster.now)
        assert (raft.term, raft.commit_index, [peer.match_index for peer in peers]) == before
        assert all(peer.next_index > peer.match_index for peer in peers)


def test_s08_votes_of_an_earlier_term_elect_nobody() -> None:
    """Vote replies of t, delivered in t + 2. Xraft, DaosRaft."""
    a = member(0, Disk(), 5, pre_vote=False)
    for _ in range(3):
        a.raft.tick(a.raft._election_deadline_ns)
        a.work()
    assert (a.raft.role, a.raft.term) == (Role.CANDIDATE, 3)
    for term in (1, 2):
        for sender in (1, 2, 3, 4):
            a.raft.step(VoteReply(sender, 0, term, True), 0)
    assert a.raft.role is Role.CANDIDATE
    for sender in (1, 2):
        a.raft.step(VoteReply(sender, 0, 3, True), 0)
    assert a.raft.role is Role.LEADER  # type: ignore[comparison-overlap]


def test_s08_the_own_vote_of_a_lost_election_does_not_count_in_the_next() -> None:
    """The disk is slow, the candidate goes on to the next term, the old write returns. etcd's "self-vote" tests."""
    config = Config(0, (0, 1, 2), pre_vote=False)
    a = Raft(config, ListLog(), rng=random.Random(1), now_ns=0)
    a.tick(a._election_deadline_ns)
    first = a.ready()
    a.tick(a._election_deadline_ns)
    second = a.ready()
    assert a.term == 2
    asked = a.persisted(first.number)
    assert {m.term for m in asked} == {1}
    a.step(VoteReply(1, 0, 2, True), 0)
    assert a.role is Role.CANDIDATE, "one other vote, and our own of term 2 is not durable"
    a.persisted(second.number)
    assert a.role is Role.LEADER  # type: ignore[comparison-overlap]


def reads_of(node: SimNode) -> list[tuple[int, int]]:
    """(ticket, index) that Readies confirmed."""
    return [read for ready in node.readies for read in ready.reads]


def test_s10_a_deposed_leader_answers_no_read() -> None:
    """It is cut off, the others elect a leader and write; it still thinks it leads. etcd issue 741."""
    cluster = Cluster(check_quorum=False)
    old = cluster.elect(0)
    cluster.propose("a")
    cluster.cut(0)
    cluster.run(1000)
    (new,) = [node for node in cluster.leaders if node is not old]
    new.propose(["b"], cluster.now)
    cluster.settle()
    assert old.raft.role is Role.LEADER
    old.raft.read_index(cluster.now)
    cluster.settle()
    cluster.run(300)
    assert reads_of(old) == []
    cluster.heal()
    cluster.run(300)
    assert reads_of(old) == []
    assert [len(ready.reads_failed) for ready in old.readies if ready.reads_failed] == [1]


def test_s11_a_fresh_leader_reads_behind_its_no_op() -> None:
    """It holds a committed entry without knowing that it is: an immediate read must not miss it.

    etcd issue 7331, TiKV issues 1634, 6340 and 9239, RedisRaft issue 22.
    """
    cluster = Cluster()
    cluster.elect(0)
    cluster.pass_on = lambda m: not (isinstance(m, Append) and not m.count)  # nobody hears of the commit
    cluster.propose("a")
    assert [node.raft.commit_index for node in cluster.nodes] == [2, 1, 1]
    cluster.cut(0)
    cluster.now += 1000 * MS
    fresh = cluster.nodes[1]
    fresh.raft.tick(cluster.now)
    cluster.pass_on = lambda m: 0 not in (m.sender, m.target) and not isinstance(m, Append)
    cluster.settle()
    assert fresh.raft.role is Role.LEADER
    assert fresh.raft.commit_index == 1
    ticket = fresh.raft.read_index(cluster.now)
    cluster.cut(0)
    cluster.run(30)
    assert reads_of(fresh) == [(ticket, 3)]


def test_s12_an_old_answer_confirms_no_later_read() -> None:
    """Answers are under way, the leader is stopped, another one writes, the old one runs on and is asked; they arrive.

    etcd issue 20418, etcd/raft issue 397.
    """
    cluster = Cluster()
    old = cluster.elect(0)
    cluster.run(30)
    cluster.pass_on = lambda m: not isinstance(m, AppendReply)
    first = old.raft.read_index(cluster.now)
    cluster.settle()
    late = [m for m in cluster.lost if isinstance(m, AppendReply)][-2:]
    cluster.heal()
    cluster.stopped = {0}
    cluster.run(1000)
    (new,) = [node for node in cluster.leaders if node is not old]
    new.propose(["b"], cluster.now)
    cluster.settle()
    for _ in range(2):
        second = old.raft.read_index(cluster.now)
        for reply in late * 3:
            old.raft.step(reply, cluster.now)
        old.work()
    confirmed = [ticket for ticket, _ in reads_of(old)]
    assert confirmed == [first], "the first began before the answers, so it may be confirmed; the later ones may not"
    assert second not in confirmed


def test_s12_an_answer_to_an_older_term_confirms_no_round() -> None:
    """A member leads again, and its rounds begin anew; a slow copy of a heartbeat of its first term is answered in the
    second, and the answer comes when a third term has a leader and the old one is asked for a read.
    """
    cluster = Cluster()
    old = cluster.elect(0)
    for i in range(5):
        cluster.propose(f"a{i}")
    cluster.pass_on = lambda m: not isinstance(m, Append) or m.target != 1
    cluster.run(300)
    heartbeats = {m.round: m for m in cluster.lost if isinstance(m, Append)}
    cluster.heal()
    assert cluster.elect(0) is old
    while old.raft.round + 1 not in heartbeats:
        cluster.propose("b")
    slow = heartbeats[old.raft.round + 1]
    assert old.raft.term > slow.term
    cluster.nodes[1].raft.step(over_the_wire(slow), cluster.now)
    (answer,) = [m for m in cluster.nodes[1].work() if isinstance(m, AppendReply)]
    assert answer.term == old.raft.term
    cluster.stopped = {0}
    cluster.run(1000)
    (new,) = [node for node in cluster.leaders if node is not old]
    new.propose(["c"], cluster.now)
    cluster.settle()
    assert old.raft.role is Role.LEADER and new.raft.commit_index > old.raft.commit_index
    old.raft.read_index(cluster.now)
    old.work()
    assert old.raft.round == slow.round, "as if the answer were to the read's round"
    old.raft.step(over_the_wire(answer), cluster.now)
    old.work()
    assert reads_of(old) == []


def test_s16_the_write_of_a_truncated_entry_proves_nothing() -> None:
    """Slow fsync; the entry is truncated and another stands in its place; the first write returns.

    etcd/raft's async_storage_writes_append_aba_race.
    """
    f = member(0, log_of(1, 1))
    f.sync_at_once = False
    f.raft.step(append(2, 2, 1, (2, 2, 2)), 0)
    assert f.work() == []
    f.raft.step(append(3, 2, 1, (3, 3, 3)), 0)
    assert f.work() == []
    assert len(f.writes) == 2
    (old,) = f.sync(1)
    assert isinstance(old, AppendReply)
    assert (old.term, old.match_index) == (2, 5), "the old leader may hear what it asked for"
    assert f.raft._durable_index == 2, "entries 3..5 of term 3 are not on disk"
    (new,) = f.sync(1)
    assert isinstance(new, AppendReply)
    assert (new.term, new.match_index) == (3, 5)
    assert f.raft._durable_index == 5


def test_s16_an_entry_in_the_place_of_a_durable_one_is_not_durable() -> None:
    """What was on disk is truncated; whoever is elected before the new entries are there does not count itself."""
    f = member(0, log_of(1, 1, 1, 1, 1))
    f.sync_at_once = False
    f.raft.step(append(3, 2, 1, (3, 3, 3)), 0)
    f.work()
    assert (f.raft.last_index, f.raft._durable_index) == (5, 2)
    f.sync()
    assert f.raft._durable_index == 5


def test_an_answer_waits_for_its_own_write() -> None:
    """A leader with writes under way is deposed: its answer to the new one does not leave with them; seen here."""
    node = member(0, Disk(), pre_vote=False)
    node.sync_at_once = False
    node.raft.tick(node.raft.deadline_ns)
    node.work()
    node.sync()
    node.raft.step(VoteReply(1, 0, 1, True), 0)
    node.work()
    node.propose(["a"], 0)
    node.work()
    node.raft.step(append(2, 0, 0, (1, 1, 1, 1)), 0)
    node.work()
    assert len(node.writes) >= 3
    released: list[Message] = []
    while node.writes:
        assert not released, "the answer left before the entries were written"
        released = node.sync(1)
    assert [type(message) for message in released] == [AppendReply]


@pytest.mark.parametrize("limit", [16, 63, 64, 65, 127, 128, 129, 1000])
@pytest.mark.parametrize("window", [1, 2, 5])
def test_s17_boundary_sizes_lose_nothing_and_wedge_nobody(limit: int, window: int) -> None:
    """Entries around the bounds of a message and of the window. etcd/raft 8ecce32, a370b6f, e419ba5."""
    cluster = Cluster(append_bytes_max=limit, inflight_max=window, inflight_bytes_max=max(limit, 130))
    leader = cluster.elect()
    rng = random.Random(limit * 10 + window)
    for i in range(40):
        leader.propose([i], cluster.now, bytes_count=rng.choice((16, 56, 64, 72, 120, 128, 136, 2000)))
        if i % 3 == 0:
            cluster.settle()
    cluster.run(30)
    assert [node.raft.commit_index for node in cluster.nodes] == [41] * 3
    assert len({node.digest for node in cluster.nodes}) == 1
    for peer in leader.raft._peers_list:  # what is counted as in flight for ever leaves no room for what is
        assert (len(peer.inflight), peer.inflight_bytes) == (0, 0)


def test_s17_the_window_is_full_only_while_it_is() -> None:
    """Answered bytes make room again, however often it was filled to the last of them."""
    cluster = Cluster(append_bytes_max=128, inflight_max=8, inflight_bytes_max=256)
    leader = cluster.elect()
    cluster.run(30)
    for i in range(20):
        leader.propose([i] * 8, cluster.now, bytes_count=64)
        sent = [m for m in leader.work() if isinstance(m, Append) and m.target == 1]
        assert [(m.count, m.bytes_count) for m in sent] == [(2, 128)] * 2, "both fit, and no third"
        cluster.run(30)
        assert leader.raft.commit_index == leader.raft.last_index


@pytest.mark.parametrize("start", [2**8 - 2, 2**16 - 2, 2**31 - 2, 2**32 - 2, 2**62, 2**63 - 1000])
def test_s18_terms_and_indices_pass_every_width(start: int) -> None:
    """Counters that were 8 or 32 bits wide elsewhere, on the wire and in the core. HovercRaft, eRPC."""
    disks = [Disk(HardState(start, None), ListLog(first_index=start + 1), base_term=start) for _ in range(3)]
    cluster = Cluster()
    cluster.nodes = [cluster.start(i, disk) for i, disk in enumerate(disks)]
    for i in (0, 1, 2, 0):
        cluster.elect(i)
        cluster.propose(*range(i, i + 3))
    assert {node.raft.commit_index for node in cluster.nodes} == {start + 16}
    assert {node.raft.term for node in cluster.nodes} == {start + 4}
    assert len({node.digest for node in cluster.nodes}) == 1


def test_s18_what_does_not_fit_is_refused_by_the_gateway() -> None:
    """2**63 and on never gets in."""
    reply = AppendReply(1, 0, 1, 1, 2**63 - 1, 0, 0, 0, True)
    assert decode(encode(reply, Identity(1, 1, 1)), 72, cluster_id=1)[0] == reply
    reply.match_index += 1
    with pytest.raises(Exception, match="field"):
        decode(encode(reply, Identity(1, 1, 1)), 72, cluster_id=1)


def test_entries_are_taken_once_from_overlapping_appends() -> None:
    """Every order of a handful of overlapping Appends leads to the same log."""
    pieces = [append(2, 0, 0, (1, 1)), append(2, 1, 1, (1, 1, 1)), append(2, 4, 1, (2, 2)), append(2, 3, 1, (1,))]
    for seed in range(200):
        rng = random.Random(seed)
        f = member(0, log_of(*[1] * rng.randint(0, 3)))
        for _ in range(8):
            for piece in rng.sample(pieces, len(pieces)):
                replies(f, piece)
        assert entries(f) == [(t, (t, i)) for i, t in enumerate((1, 1, 1, 1, 2, 2))]
    assert isinstance(pieces[0].payload, tuple)
    assert AppendEntries(1, 0, 2, 1, pieces[0].payload).count == 2
    assert TermRuns([(1, 1), (5, 2)], 6).last_of_term(1) == 4
