"""Whatever passes the gateway, from whomever, the core takes: no exception, no broken invariant, no endless work.

A peer may be of another version, broken, or lying. Then safety is lost, as in every Raft; the process is not.
"""

from __future__ import annotations

import contextlib
import random
import struct

import pytest

from raft import (
    Append,
    AppendReply,
    ChangeRefused,
    Config,
    Configuration,
    Forward,
    Hello,
    Identity,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    MessageError,
    NotLeader,
    PreVote,
    PreVoteReply,
    Raft,
    ReadIndex,
    ReadIndexReply,
    Role,
    TimeoutNow,
    Vote,
    VoteReply,
    decode,
    encode,
)
from raft.list_log import ListLog

MS = 1_000_000


def small(rng: random.Random) -> int:
    """An index or term near those in use, rarely a huge one."""
    return rng.choice((0, 1, 2, 3, 4, 5, 6, 8, 12, 2**63 - 2)) if rng.random() < 0.3 else rng.randint(0, 8)


def members(rng: random.Random) -> Configuration:
    """Some of 0..3 as voters, joint or not, and some of the rest as learners."""
    voters, outgoing = (tuple(sorted(rng.sample(range(4), rng.randint(1, 3)))) for _ in range(2))
    outgoing = outgoing if rng.random() < 0.5 else ()
    learners = tuple(i for i in range(5) if i not in (*voters, *outgoing) and rng.random() < 0.5)
    return Configuration(voters, outgoing, learners)


def a_message(rng: random.Random, raft_term: int) -> Message:
    """Any kind, any fields, a term that is often the current one."""
    term = raft_term if rng.random() < 0.6 else raft_term + rng.randint(-1, 1) if rng.random() < 0.95 else small(rng)
    sender = rng.choice((1, 1, 2, 3))
    kind = rng.randrange(15)
    if kind == 14:
        return InstallSnapshotReply(sender, 0, term, small(rng), small(rng) * 50, rng.random() < 0.3, small(rng))
    if kind >= 12:
        offset = rng.choice((0, 0, 150))
        fields = (small(rng), small(rng), offset, rng.choice((150, 300)), 150)
        return InstallSnapshot(sender, 0, term, *fields, None if offset else members(rng), payload=b"")
    if kind == 0:
        return PreVote(sender, 0, term, small(rng), small(rng))
    if kind == 1:
        return PreVoteReply(sender, 0, term, rng.random() < 0.7)
    if kind == 2:
        return Vote(sender, 0, term, small(rng), small(rng), transfer=rng.random() < 0.3)
    if kind == 3:
        return VoteReply(sender, 0, term, rng.random() < 0.7)
    if kind <= 6:
        count, entries_term = rng.choice((0, 1, 2, 5)), small(rng)
        payload = tuple((entries_term, rng.randrange(9), 16) for _ in range(count))
        places = (small(rng), small(rng), entries_term if count else 0, small(rng), small(rng), small(rng))
        configuration = members(rng) if count and rng.random() < 0.2 else None
        return Append(sender, 0, term, *places, count, 16 * count, payload=payload, configuration=configuration)
    if kind <= 8:
        accepted = rng.random() < 0.6
        return AppendReply(sender, 0, term, small(rng), small(rng), small(rng), small(rng), small(rng), accepted)
    if kind == 9:
        return rng.choice((Forward(sender, 0, term, 1, 16), Hello(sender, 0, term, 0, False, 0)))
    if kind == 10:
        return rng.choice((ReadIndex(sender, 0, term, 7), TimeoutNow(sender, 0, term)))
    return ReadIndexReply(sender, 0, term, small(rng), small(rng), True)


class Node:
    """Does the work of Readies on a list log, and knows nothing of what is in a snapshot."""

    def __init__(self, config: Config, rng: random.Random) -> None:
        self.log = ListLog()
        self.raft = Raft(config, self.log, rng=rng, now_ns=0)
        self.at_once = rng.random() < 0.5
        self.unpersisted: list[int] = []

    def work(self) -> None:
        raft = self.raft
        while raft.has_ready():
            ready = raft.ready()
            for op in ready.log_ops:
                self.log.execute(op)
            self.unpersisted.append(ready.number)
            if self.at_once:
                self.persist(len(self.unpersisted))
            raft.applied(max(ready.commit_index, raft.applied_index))
            if ready.forget_index:
                self.log.drop_prefix(ready.forget_index)

    def persist(self, count: int) -> None:
        for number in self.unpersisted[:count]:
            self.raft.persisted(number)
        del self.unpersisted[:count]

    def propose(self, count: int, now_ns: int) -> None:
        for _ in range(count):
            self.log.append(self.raft.term, "x", 16)
        self.raft.propose(count, now_ns)

    def do_something(self, rng: random.Random, now_ns: int) -> None:
        """What its own node may ask it at any time."""
        raft = self.raft
        what = rng.randrange(5)
        if what == 0 and raft.role is Role.LEADER:
            self.propose(rng.randint(1, 3), now_ns)
        elif what == 1:
            self.persist(1)
        elif what == 2 and max(raft.snapshot_index + 1, raft.first_index - 1) <= raft.applied_index:
            raft.snapshot_taken(raft.applied_index, 300)
            raft.compact(rng.randint(0, raft.snapshot_index))
        elif what == 3:
            with contextlib.suppress(NotLeader, ChangeRefused, ValueError):
                raft.propose_configuration(members(rng), now_ns)
        else:
            with contextlib.suppress(NotLeader, ValueError):
                raft.read_index(now_ns)
                raft.transfer(rng.randrange(4), now_ns)


@pytest.mark.parametrize("block", range(10))
def test_the_core_takes_whatever_passes_the_gateway(block: int) -> None:
    """Members of all roles, with messages that no correct member would send."""
    roles: set[Role] = set()
    taken: dict[str, int] = {}
    for seed in range(block * 40, block * 40 + 40):
        rng = random.Random(seed)
        joining = rng.random() < 0.2
        config = Config(
            4 if joining else 0,
            (0, 1, 2),
            pre_vote=rng.random() < 0.5,
            check_quorum=rng.random() < 0.5,
            append_bytes_max=100,
            inflight_max=rng.choice((1, 64)),
            joining=joining,
        )
        node = Node(config, rng)
        raft, now = node.raft, 0
        for _ in range(300):
            now += rng.choice((0, 0, MS, 10 * MS, 300 * MS))
            what = rng.random()
            if what < 0.1:
                raft.tick(now)
            elif what < 0.3:
                node.do_something(rng, now)
            else:
                message = a_message(rng, raft.term)
                further = message.bytes_count if isinstance(message, Append | Forward | InstallSnapshot) else 0
                try:
                    data = encode(message, Identity(1, message.sender, 1))
                    decoded, _ = decode(data, len(data) + further, cluster_id=1)
                except (MessageError, struct.error):  # not legal on the wire, or not even representable
                    continue
                decoded.payload = message.payload
                if isinstance(message, Append) and isinstance(decoded, Append):
                    decoded.configuration = message.configuration
                raft.step(decoded, now)
                name = type(message).__name__
                taken[name] = taken.get(name, 0) + 1
            node.work()
            roles.add(raft.role)
            assert raft.global_commit <= raft.applied_index <= raft.commit_index <= raft.last_index
            assert raft.last_index == node.log.last_index
            assert raft.first_index == node.log.first_index
            assert raft.status()["configuration_index"] <= raft.last_index  # type: ignore[operator]
    assert roles == set(Role)
    assert sum(taken.values()) > 2_000
    assert min(taken.values()) > 50, taken
