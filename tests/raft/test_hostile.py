"""Whatever passes the gateway, from whomever, the core takes: no exception, no broken invariant, no endless work.

A peer may be of another version, broken, or lying. Then safety is lost, as in every Raft; the process is not.
"""

from __future__ import annotations

import random
import struct

import pytest

from r2p2.sim.node import SimNode
from raft import (
    Append,
    AppendReply,
    Config,
    Forward,
    Hello,
    Identity,
    Message,
    MessageError,
    NotLeader,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    Role,
    TimeoutNow,
    Vote,
    VoteReply,
    decode,
    encode,
)

MS = 1_000_000


def small(rng: random.Random) -> int:
    """An index or term near those in use, rarely a huge one."""
    return rng.choice((0, 1, 2, 3, 4, 5, 6, 8, 12, 2**63 - 2)) if rng.random() < 0.3 else rng.randint(0, 8)


def a_message(rng: random.Random, raft_term: int) -> Message:
    """Any kind, any fields, a term that is often the current one."""
    term = raft_term if rng.random() < 0.6 else raft_term + rng.randint(-1, 1) if rng.random() < 0.95 else small(rng)
    sender = rng.choice((1, 1, 2, 3))
    kind = rng.randrange(12)
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
        fields = (small(rng), small(rng), entries_term if count else 0, small(rng), small(rng), small(rng))
        return Append(sender, 0, term, *fields, count, 16 * count, payload=payload)
    if kind <= 8:
        accepted = rng.random() < 0.6
        return AppendReply(sender, 0, term, small(rng), small(rng), small(rng), small(rng), small(rng), accepted)
    if kind == 9:
        return rng.choice((Forward(sender, 0, term, 1, 16), Hello(sender, 0, term, 0, False, 0)))
    if kind == 10:
        return rng.choice((ReadIndex(sender, 0, term, 7), TimeoutNow(sender, 0, term)))
    return ReadIndexReply(sender, 0, term, small(rng), small(rng), True)


@pytest.mark.parametrize("block", range(10))
def test_the_core_takes_whatever_passes_the_gateway(block: int) -> None:
    """Members of all roles, with messages that no correct member would send."""
    roles: set[Role] = set()
    taken = 0
    for seed in range(block * 40, block * 40 + 40):
        rng = random.Random(seed)
        config = Config(0, (0, 1, 2), pre_vote=rng.random() < 0.5, check_quorum=rng.random() < 0.5)
        node = SimNode(config, rng=rng, now_ns=0, sync_at_once=rng.random() < 0.5)
        raft, now = node.raft, 0
        for _ in range(300):
            now += rng.choice((0, 0, MS, 10 * MS, 300 * MS))
            what = rng.random()
            if what < 0.1:
                raft.tick(now)
            elif what < 0.2 and raft.role is Role.LEADER:
                node.propose(["x"] * rng.randint(1, 3), now)
            elif what < 0.23:
                try:
                    raft.read_index(now)
                    raft.transfer(1, now)
                except NotLeader:
                    roles.add(raft.role)
            elif what < 0.3:
                node.sync(1)
            else:
                message = a_message(rng, raft.term)
                entries_bytes = message.bytes_count if isinstance(message, Append | Forward) else 0
                try:
                    data = encode(message, Identity(1, message.sender, 1))
                    decoded, _ = decode(data, len(data) + entries_bytes, cluster_id=1)
                except (MessageError, struct.error):  # not legal on the wire, or not even representable
                    continue
                decoded.payload = message.payload
                raft.step(decoded, now)
                taken += 1
            node.work()
            roles.add(raft.role)
            assert raft.global_commit <= raft.applied_index <= raft.commit_index <= raft.last_index
            assert raft.last_index == node.log.last_index
            assert raft.first_index == node.log.first_index
    assert roles == set(Role)
    assert taken > 2_000
