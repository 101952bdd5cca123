"""Linearizable reads through ReadIndex at any member: never stale, never in the log, never sent on, bounded."""

from __future__ import annotations

import random

import pytest

from r2p2 import limits
from r2p2.app import StateMachine, state_machine
from r2p2.apps.kv import KeyValue, encode_command
from r2p2.engine import DONE_DROPPED, DONE_OK
from r2p2.requests import ReplySequence, Requests
from tests.node.support import MS, World, replica_of

OK = b"+OK\r\n"
READ = 3


def put(key: str, value: str) -> bytes:
    return encode_command("SET", key, value)


def get(key: str) -> bytes:
    return encode_command("GET", key)


def bulk(value: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value.encode())


def counter(world: World, member: int, name: str) -> int:
    found: int = world.nodes[member].status()["counters"].get(name, 0)
    return found


def test_every_member_answers_reads_itself_and_none_enters_the_log() -> None:
    with World() as world:
        leader = world.elect()
        for i in range(20):
            assert world.ask(put("k", str(i)), leader) == (DONE_OK, OK)
            for member in world.nodes:
                assert world.ask(get("k"), member, READ) == (DONE_OK, bulk(str(i)))
        for member, node in world.nodes.items():
            assert counter(world, member, "reads_answered") == 20
            assert counter(world, member, "forwarded_requests") == 0
            assert node.status()["log_last_index"] == 21, "a no-op and the writes"


def test_reads_that_come_together_share_a_confirmation() -> None:
    with World() as world:
        leader = world.elect()
        world.ask(put("k", "v"), leader)
        follower = (leader + 1) % 3
        tags = [world.call(get("k"), follower, READ) for _ in range(2000)]
        world.run(20)
        assert [world.client.ended.get(tag) for tag in tags] == [(DONE_OK, bulk("v"))] * 2000
        assert counter(world, follower, "reads_answered") == 2000
        assert 1 <= counter(world, follower, "read_groups") <= 100


def test_a_cluster_of_one_reads() -> None:
    with World(size=1) as world:
        world.elect()
        assert world.ask(put("k", "v"), 0) == (DONE_OK, OK)
        assert world.ask(get("k"), 0, READ) == (DONE_OK, bulk("v"))


def test_a_read_refuses_to_write() -> None:
    with World() as world:
        leader = world.elect()
        assert world.ask(put("k", "v"), leader, READ)[1].startswith(b"-READONLY")
        assert world.ask(get("k"), leader, READ) == (DONE_OK, b"$-1\r\n")


# ---- the ways to a stale read ----


def test_a_deposed_leader_does_not_read_locally() -> None:
    """S10: cut the leader off, write on the other side, read on the old one."""
    with World(seed=2) as world:
        old = world.elect()
        assert world.ask(put("k", "old"), old) == (DONE_OK, OK)
        world.part(old)
        early = world.call(get("k"), old, READ, ms=5000)  # it still thinks that it leads
        world.run_until(lambda: world.leader not in (None, old), 3000)
        new = world.leader
        assert new is not None
        assert world.ask(put("k", "new"), new) == (DONE_OK, OK)
        status, _ = world.ask(get("k"), old, READ, ms=2000)
        assert status == DONE_DROPPED
        world.run(500)
        assert world.client.ended[early][0] == DONE_DROPPED
        assert counter(world, old, "drops_reads_unconfirmed") == 2
        world.part(old, False)
        world.run(300)
        assert world.ask(get("k"), old, READ) == (DONE_OK, bulk("new"))


@pytest.mark.parametrize("seed", range(6))
def test_a_fresh_leader_reads_behind_its_own_first_entry(seed: int) -> None:
    """S11: the write is committed and acknowledged, but no survivor has heard of the commit when it begins to lead.

    Two of five do not even have the entry: their refusals confirm the new leader's rounds before it can commit.
    """
    with World(size=5, seed=seed) as world:
        old = world.elect()
        world.run(50)
        for behind in [(old + 1) % 5, (old + 2) % 5]:
            world.network.block(world.addresses[old][0], world.addresses[behind][0])
        tag = world.call(put("k", "new"), old)
        written = [node for member, node in world.nodes.items() if member in ((old + 3) % 5, (old + 4) % 5)]
        while tag not in world.client.ended:
            world.network.run([*world.nodes.values(), world.client], 2_000, step_max_ns=2_000)
            if all(node.engine.log_last_index == 2 for node in written):
                for other in world.addresses:  # the word of the commit reaches the client alone
                    world.network.block(world.addresses[old][0], world.addresses[other][0])
        assert world.client.ended[tag] == (DONE_OK, OK)
        world.kill(old)
        reads = {member: world.call(get("k"), member, READ, ms=5000) for member in world.nodes}
        world.run_until(lambda: all(read in world.client.ended for read in reads.values()), 3000)
        for member, read in reads.items():
            status, payload = world.client.ended[read]
            assert (status, payload) in ((DONE_OK, bulk("new")), (DONE_DROPPED, b"")), member
        leader = world.elect()
        assert world.ask(get("k"), leader, READ) == (DONE_OK, bulk("new"))


def test_old_answers_do_not_confirm_a_later_read() -> None:
    """S12: a leader is paused with its followers' answers unread; a new one writes; the old one wakes up and reads.

    The old answers keep its CheckQuorum quiet, so that only their round tells that they prove nothing.
    """
    with World(seed=4) as world:
        old = world.elect()
        assert world.ask(put("k", "old"), old) == (DONE_OK, OK)
        raft = replica_of(world.nodes[old]).raft
        # The leader speaks once more, then is paused; the answers wait at its port.
        while world.network.now_ns < raft.deadline_ns:
            world.network.advance(1)
        world.nodes[old].poll_once()
        others = [node for member, node in world.nodes.items() if member != old]
        world.network.run([*others, world.client], 1 * MS)
        world.part(old)
        for _ in range(3000):
            world.network.run([*others, world.client], 1 * MS)
            new = next((m for m, node in world.nodes.items() if m != old and node.is_leader), None)
            if new is not None:
                break
        assert new is not None
        write = world.call(put("k", "new"), new)
        while write not in world.client.ended:
            world.network.run([*others, world.client], 1 * MS)
        read = world.call(get("k"), old, READ, ms=3000)
        world.network.run([*others, world.client], 1 * MS)
        assert read not in world.client.ended
        world.nodes[old].poll_once()
        assert world.nodes[old].is_leader, "it has heard old answers of a majority, and still believes"
        world.run(1000)
        assert world.client.ended[read][0] == DONE_DROPPED


@pytest.mark.parametrize("seed", range(8))
def test_no_read_is_older_than_what_was_known_before_it(seed: int) -> None:
    """One register, written in order; loss, duplication, reordering, cuts, a killed member; reads at every member."""
    rng = random.Random(seed)
    with World(size=5, seed=seed) as world:
        world.network.faults(
            loss_ppm=20_000, duplicate_ppm=30_000, reorder_ppm=50_000, delay_min_ns=5_000, delay_max_ns=300_000
        )
        world.run_until(lambda: world.leader is not None, 5000)
        written = acked = 0
        write: int | None = None
        floors: dict[int, int] = {}  # read -> the least it may return
        seen = 0  # the newest value that any finished read has returned
        answered = 0
        for step in range(400):
            if step == 150:
                world.kill(rng.choice(sorted(world.nodes)))
            if step % 40 == 10:
                world.part(rng.choice(sorted(world.addresses)))
            if step % 40 == 25:
                for member in world.addresses:
                    world.part(member, False)
            if write is None or write in world.client.ended:
                if write is not None and world.client.ended[write][0] == DONE_OK:
                    acked = written
                written += 1
                write = world.call(put("r", str(written)), rng.choice(sorted(world.nodes)), ms=300)
            for _ in range(rng.randrange(4)):
                floors[world.call(get("r"), rng.choice(sorted(world.nodes)), READ, ms=900)] = max(acked, seen)
            world.run(rng.random() * 6)
            for read in [read for read in floors if read in world.client.ended]:
                status, payload = world.client.ended[read]
                floor = floors.pop(read)
                if status == DONE_OK:
                    value = 0 if payload == b"$-1\r\n" else int(payload.split(b"\r\n")[1])
                    assert floor <= value <= written, f"step {step}"
                    seen = max(seen, value)
                    answered += 1
        assert answered > 200


# ---- waiting, asking again, giving up ----


def test_a_lost_question_is_asked_again() -> None:
    with World() as world:
        leader = world.elect()
        world.ask(put("k", "v"), leader)
        follower = (leader + 1) % 3
        world.network.block(world.addresses[follower][0], world.addresses[leader][0])
        read = world.call(get("k"), follower, READ)
        world.run(5)
        world.network.block(world.addresses[follower][0], world.addresses[leader][0], False)
        world.run(60)
        assert world.client.ended[read] == (DONE_OK, bulk("v"))
        assert counter(world, follower, "reads_asked_again") >= 1


def test_a_read_waits_until_its_member_has_applied_the_index() -> None:
    """The follower knows the index before it has the entries."""
    with World() as world:
        leader = world.elect()
        slow = (leader + 1) % 3
        world.network.block(world.addresses[leader][0], world.addresses[slow][0])
        for i in range(50):
            assert world.ask(put("k", str(i)), leader) == (DONE_OK, OK)
        world.network.block(world.addresses[leader][0], world.addresses[slow][0], False)
        read = world.call(get("k"), slow, READ)
        world.run_until(lambda: read in world.client.ended)
        assert world.client.ended[read] == (DONE_OK, bulk("49"))


def test_without_a_leader_reads_are_refused_in_time() -> None:
    with World(hold_timeout_ns=100 * MS) as world:
        leader = world.elect()
        for member in range(3):
            if member != leader:
                world.kill(member)
        world.run(300)
        began_ns = world.network.now_ns
        assert world.ask(get("k"), leader, READ, ms=2000)[0] == DONE_DROPPED
        assert world.network.now_ns - began_ns < 150 * MS
        assert counter(world, leader, "drops_reads_unconfirmed") == 1


def test_reads_before_the_first_election_are_held_and_answered() -> None:
    with World() as world:
        assert world.ask(get("k"), 1, READ) == (DONE_OK, b"$-1\r\n")


def test_reads_over_the_bound_are_refused_at_once() -> None:
    fit = limits.READS_BYTES_MAX // 370_000
    with World(hold_timeout_ns=2_000 * MS) as world:
        leader = world.elect()
        for member in range(3):
            if member != leader:
                world.kill(member)
        world.run(300)
        tags = []
        for _ in range(fit + 5):
            tags.append(world.call(b"x" * 370_000, leader, READ, ms=5000))
            world.run(1)
        assert counter(world, leader, "drops_reads_full") == 5
        assert [world.client.ended[tag][0] for tag in tags[fit:]] == [DONE_DROPPED] * 5
        assert not any(tag in world.client.ended for tag in tags[:fit])
        world.run(5000)
        assert counter(world, leader, "drops_reads_unconfirmed") == fit
        # What was refused takes no room any more.
        tag = world.call(b"x" * 370_000, leader, READ, ms=5000)
        world.run(3000)
        assert world.client.ended[tag][0] == DONE_DROPPED
        assert counter(world, leader, "drops_reads_unconfirmed") == fit + 1


# ---- applications ----


class Failing(StateMachine):
    """Whose reads fail, one by one or as a batch."""

    def __init__(self, whole: bool) -> None:
        self._whole = whole

    def apply(self, requests: Requests) -> ReplySequence:
        return [b"done"] * len(requests)

    def query(self, request: bytes) -> bytes:
        if request == b"bad":
            raise ValueError("no such thing")
        return b"good"

    def query_batch(self, requests: Requests) -> ReplySequence:
        if self._whole:
            raise RuntimeError("nothing works")
        return super().query_batch(requests)


@pytest.mark.parametrize("whole", [False, True])
def test_an_exception_of_a_query_is_an_error_reply(whole: bool) -> None:
    with World(make_app=lambda: Failing(whole)) as world:
        leader = world.elect()
        bad, good = world.call(b"bad", leader, READ), world.call(b"fine", leader, READ)
        world.run(50)
        failed = (DONE_OK, b"-ERR RuntimeError\r\n")
        assert world.client.ended[bad] == (failed if whole else (DONE_OK, b"-ERR ValueError\r\n"))
        assert world.client.ended[good] == (failed if whole else (DONE_OK, b"good"))
        assert world.ask(b"write", leader) == (DONE_OK, b"done")


def test_too_few_replies_are_an_error_to_all() -> None:
    class Short(KeyValue):
        def query_batch(self, requests: Requests) -> ReplySequence:
            return []

    with World(make_app=Short) as world:
        leader = world.elect()
        assert world.ask(get("k"), leader, READ) == (DONE_OK, b"-ERR ReplyCountError\r\n")


def test_large_replies_and_functions() -> None:
    with World(make_app=lambda: state_machine(lambda request: request * 100)) as world:
        leader = world.elect()
        for member in (leader, (leader + 1) % 3):
            assert world.ask(b"x" * 3000, member, READ) == (DONE_OK, b"x" * 300_000)
