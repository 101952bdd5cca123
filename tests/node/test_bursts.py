"""Messages of one poll that change who leads, or how much the log holds, several times: a fellow's words by hand."""

from __future__ import annotations

import pytest

from r2p2.apps.kv import encode_command
from raft import Append, Forward, PreVoteReply, VoteReply
from tests.engine.support import packet
from tests.engine.test_logs_agree import wire
from tests.node.support import World
from tests.node.test_steady import CLIENT, DELAY_NS, Lone


@pytest.mark.parametrize("with_entries", [False, True])
def test_elected_and_deposed_in_one_poll_with_requests_held(with_entries: bool) -> None:
    """A Forward has the election carried out at once, and what was held is in the log when the office ends."""
    lone = Lone(2, leads=False, steady=True)
    try:
        raft, engine = lone.raft, lone.node.engine
        while raft.role.value != "pre_candidate":
            lone.poll(1_000_000)
        one, other = lone.others[:2]
        lone.say(PreVoteReply(one, 0, raft.term + 1, True), 7)
        lone.poll(DELAY_NS)
        assert raft.role.value == "candidate"
        for rid in (1, 2, 3):
            lone.put(CLIENT, packet(0, 2, rid, b"SET"))
        lone.poll(DELAY_NS)
        term, before, last_term = raft.term, raft.last_index, raft._runs.last_term
        lone.say(VoteReply(one, 0, term, True), 8)
        forwarded, entry = wire(b"forwarded"), wire(None)
        lone.say(Forward(other, 0, term, 1, len(forwarded)), 9, forwarded)
        count, length = (1, len(entry)) if with_entries else (0, 0)
        append = Append(
            other, 0, term + 1, before, last_term, term + 1 if count else 0, raft.commit_index, 0, 1, count, length
        )
        lone.say(append, 10, entry if with_entries else b"")
        lone.poll(DELAY_NS)
        lone.poll(DELAY_NS)
        assert (raft.role.value, raft.term) == ("follower", term + 1)
        # The no-op of the lost office, the three that were held, the forwarded one; or the new leader's in their place.
        assert raft.last_index == engine.log_last_index == before + (1 if with_entries else 5)
        append = Append(other, 0, term + 1, before, last_term, term + 1, before + 1, 0, 2, 1, len(entry))
        lone.say(append, 11, entry)
        lone.poll(DELAY_NS)
        assert raft.last_index == engine.log_last_index == engine.applied_index == before + 1
    finally:
        lone.close()


def test_appends_of_one_poll_are_held_to_the_bound_together() -> None:
    """A follower that was off its processor finds more at once than its log takes: the rest comes again."""
    lone = Lone(2, leads=False, steady=False, log_bytes_max=1 << 20)
    try:
        raft, engine = lone.raft, lone.node.engine
        first, entry = raft.last_index, wire(b"v" * 100_000)
        for i in range(30):
            append = Append(lone.leader, 0, 5, first + i, 5, 5, raft.commit_index, 0, 1_000 + i, 1, len(entry))
            lone.say(append, 20 + i, entry)
            if i % 10 == 9:
                lone.say(append, 50 + i, entry)  # twice
            if i == 4:
                lone.poll(DELAY_NS)  # the rest in one poll
        lone.world.network.advance(DELAY_NS)
        for _ in range(10):
            lone.node.poll_once()
        assert raft.last_index == engine.log_last_index == first + 13, "as many as fit into the bound and a quarter"
        assert lone.node.counters["raft_drop_log_full"] > 0
    finally:
        lone.close()


def test_a_log_full_of_its_own_tail_gives_way_to_the_leaders() -> None:
    """A deposed leader's log is filled by entries that nobody else has: the Append that removes them is taken."""
    with World(truncation="block", log_bytes_max=1 << 20) as world:
        lost = world.elect()
        world.part(lost)
        for size in (349_000, 349_000, 349_000, 365_000):
            world.call(encode_command("SET", "lost", "v" * size), lost, ms=50)
            world.run(8)
        assert world.nodes[lost].engine.log_bytes > (1 << 20) * 5 // 4
        world.run(500)
        world.part(lost, False)
        leader = world.leader
        assert leader is not None and leader != lost
        assert world.ask(encode_command("SET", "k", "v"), leader) == (0, b"+OK\r\n")
        world.run(300)
        assert world.nodes[lost].engine.log_bytes < 1 << 20
        assert len(world.digests()) == 1
