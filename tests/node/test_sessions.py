"""Exactly once, end to end on the in-memory network: whatever is lost, doubled, cut or killed, each request of a
session is executed at most once, and once when it was answered.
"""

from __future__ import annotations

import random

import pytest

from r2p2.engine import DONE_EXPIRED, DONE_OK, DONE_TIMEOUT
from r2p2.errors import SessionExpiredError
from tests.engine.support import packet
from tests.node.session_world import SessionCaller, SessionWorld
from tests.node.support import MS


def extension(client_id: int, sequence: int, oldest_pending: int) -> bytes:
    return b"".join(n.to_bytes(8, "big") for n in (client_id, sequence, oldest_pending))


def session_request(rid: int, payload: bytes, *numbers: int) -> bytes:
    plain = packet(0, 2, rid, extension(*numbers) + payload)
    return plain[:1] + bytes([32]) + plain[2:]


def lose_replies(world: SessionWorld, lost: bool = True) -> None:
    """Requests arrive; what the members answer does not, or does again."""
    for ip, _ in world.addresses.values():
        world.network.block(ip, 0x0A000100, lost)


def test_a_session_opens_by_itself_and_its_calls_are_executed_in_order() -> None:
    with SessionWorld() as world:
        world.elect()
        for i in range(100):
            world.caller.call(b"%d" % i)
        world.settle()
        world.check()
        assert world.journals()[0] == [b"%d" % i for i in range(100)]
        info = world.caller.engine.session_info(world.caller.port, world.caller.session)
        assert info.client_id > 0
        assert (info.next_sequence, info.oldest_pending, info.waiting_count) == (101, 101, 0)
        assert info.target == world.addresses[world.elect()], "who answered is asked next"
        assert world.counter("sessions_opened") == 3


@pytest.mark.parametrize("size", [0, 1439, 1440, 1441, 1464, 1465, 60_000, 370_406])
def test_requests_and_replies_of_any_size(size: int) -> None:
    payload = random.Random(size).randbytes(size)
    with SessionWorld() as world:
        leader = world.elect()
        tags = [world.caller.call(payload)]
        world.run(30)
        for to in range(3):  # through every member, the followers' forwarding too
            other = SessionCaller(world.network, [world.addresses[(leader + to) % 3]], (0x0A000200 + to, 9000))
            world.callers.append(other)
            other.call(b"%d" % to + payload[1:])
            other.call(b"big %d %d" % (size + 1400, to))
        world.settle()
        assert {status for caller in world.callers for status, _ in caller.ended.values()} == {DONE_OK}
        assert world.caller.ended[tags[0]][1].endswith(payload)
        assert sorted(len(caller.ended[2][1]) for caller in world.callers[1:]) == [size + 1400] * 3


@pytest.mark.parametrize("seed", range(6))
def test_loss_duplication_and_reordering(seed: int) -> None:
    with SessionWorld(seed=seed, clients=3) as world:
        world.network.faults(
            loss_ppm=150_000, duplicate_ppm=200_000, reorder_ppm=300_000, delay_min_ns=5_000, delay_max_ns=2 * MS
        )
        for i in range(60):
            for c, caller in enumerate(world.callers):
                caller.call(b"%d %d" % (c, i) if i % 10 else b"big 3000 %d %d" % (c, i), ms=60_000)
            world.run(3)
        world.run_until(lambda: not any(caller.waiting for caller in world.callers), 60_000)
        world.network.faults()
        world.settle()
        world.check()
        assert sorted(world.journals()[0]) == sorted(r for c in world.callers for r in c.sent.values())
        assert world.counter("sessions_duplicates") + world.counter("sessions_answered_early") > 0


@pytest.mark.parametrize("seed", range(6))
def test_the_leader_dies_with_calls_under_way(seed: int) -> None:
    """No call fails: each waits for the next leader, and is executed once whichever of them got it."""
    rng = random.Random(seed)
    with SessionWorld(size=5, seed=seed, clients=2) as world:
        world.network.faults(duplicate_ppm=50_000, delay_min_ns=5_000, delay_max_ns=400_000)
        for kill in range(2):
            leader = world.elect()
            for i in range(200):
                world.callers[i % 2].call(b"%d %d" % (kill, i), ms=8_000)
                if i % 10 == 0:
                    world.run(rng.random() * 0.3)
            world.kill(leader)
            for i in range(50):
                world.callers[i % 2].call(b"%d later %d" % (kill, i), ms=8_000)
            world.settle()
        assert {status for caller in world.callers for status, _ in caller.ended.values()} == {DONE_OK}
        world.check()
        assert len(world.journals()[0]) == 500


@pytest.mark.parametrize("seed", range(4))
def test_a_leader_cut_off_from_everybody_and_back(seed: int) -> None:
    with SessionWorld(seed=seed) as world:
        leader = world.elect()
        world.caller.call(b"first")
        world.run(30)
        ip = world.addresses[leader][0]
        for i in range(100):
            world.caller.call(b"%d" % i, ms=20_000)
        world.run(0.05 * seed)
        world.cut_off(ip)
        world.run(600)
        world.cut_off(ip, blocked=False)
        world.settle()
        world.check()
        assert len(world.journals()[0]) == 101


def test_every_reply_is_lost_for_a_while() -> None:
    """Requests arrive, answers do not: the retries find the kept replies."""
    with SessionWorld() as world:
        world.elect()
        world.caller.call(b"open")
        world.run(50)
        lose_replies(world)
        tags = [world.caller.call(b"%d" % i) for i in range(50)]
        world.run(200)
        assert world.caller.waiting == 50
        assert [len(journal) for journal in world.journals()] == [51] * 3
        lose_replies(world, lost=False)
        world.settle()
        world.check()
        assert [world.caller.ended[tag][0] for tag in tags] == [DONE_OK] * 50


def test_a_call_over_its_deadline_says_so_and_later_ones_go_on() -> None:
    with SessionWorld() as world:
        world.elect()
        world.caller.call(b"open")
        world.run(50)
        lose_replies(world)
        tag = world.caller.call(b"in vain", ms=100)
        world.run(150)
        assert world.caller.ended[tag] == (DONE_TIMEOUT, b"")
        lose_replies(world, lost=False)
        world.caller.call(b"next")
        world.settle()
        world.check()
        assert world.journals()[0] == [b"open", b"in vain", b"next"]


def test_without_a_leader_a_call_waits_for_one() -> None:
    """Refusals (DROP) are not the end of a session's call."""
    with SessionWorld(hold_timeout_ns=20 * MS) as world:
        leader = world.elect()
        world.caller.call(b"open")
        world.run(50)
        others = [i for i in range(3) if i != leader]
        for i in others:
            world.cut_off(world.addresses[i][0])
        world.run(500)  # the leader has stepped down
        tag = world.caller.call(b"waits", ms=5000)
        world.run(600)
        assert tag not in world.caller.ended
        assert world.caller.engine.counters()["client_refusals"] > 3
        for i in others:
            world.cut_off(world.addresses[i][0], blocked=False)
        world.settle()
        assert world.caller.ended[tag][0] == DONE_OK
        world.check()


def test_an_evicted_session_is_an_error_the_caller_sees() -> None:
    with SessionWorld(clients=4, sessions_count_max=3) as world:
        world.elect()
        for caller in world.callers[:3]:
            caller.call(b"hello %d" % caller.engine.now_ns() + b"%d" % id(caller))
            world.run(30)
        world.settle()
        world.callers[3].call(b"one more")  # the least recently used session gives way: the first
        world.settle()
        assert world.counter("sessions_evicted") == 3
        tag = world.caller.call(b"too late")
        world.settle()
        assert world.caller.ended[tag] == (DONE_EXPIRED, b"")
        with pytest.raises(SessionExpiredError, match="nothing was sent"):
            world.caller.call(b"not sent")
        assert b"too late" not in world.journals()[0]
        world.caller.engine.session_renew(world.caller.port, world.caller.session)
        tag = world.caller.call(b"anew")
        world.settle()
        assert world.caller.ended[tag][0] == DONE_OK
        assert world.counter("sessions_evicted") == 6
        assert len({node.engine.sessions_export() for node in world.nodes.values()}) == 1


@pytest.mark.parametrize("first_sequences", [(1 << 61, 5), (5, 1 << 61)])
def test_a_client_that_outlives_the_cluster_is_not_taken_for_one_of_the_next(first_sequences: tuple[int, int]) -> None:
    """All members begin anew, without a memory, and give out the same ids again: two clients have one session."""
    with SessionWorld(clients=2, first_sequences=first_sequences) as world:
        world.elect()
        survivor, newcomer = world.callers
        for i in range(20):
            survivor.call(b"before %d" % i)
        world.settle()
        for member in world.addresses:
            world.kill(member)
        for member in world.addresses:
            world.launch(member)
        world.elect()
        for i in range(20):
            newcomer.call(b"newcomer %d" % i)
            world.run(20)
        ids = [caller.engine.session_info(caller.port, caller.session).client_id for caller in world.callers]
        assert ids[0] == ids[1]
        was_executed: set[bytes] = set()
        for round_ in range(3):
            for caller, name in ((survivor, b"survivor"), (newcomer, b"newcomer again")):
                text = b"%b %d" % (name, round_)
                if caller.engine.session_info(caller.port, caller.session).is_expired:
                    caller.engine.session_renew(caller.port, caller.session)
                tag = caller.call(text)
                world.settle(2000)
                status, reply = caller.ended[tag]
                assert status == DONE_EXPIRED or (status == DONE_OK and reply.endswith(text))
                if status == DONE_OK:
                    was_executed.add(text)
                assert (text in world.journals()[0]) == (status == DONE_OK)
        assert {b"survivor 1", b"survivor 2", b"newcomer again 1", b"newcomer again 2"} <= was_executed


def test_a_renewed_session_does_not_count_from_the_beginning() -> None:
    with SessionWorld(clients=4, sessions_count_max=3) as world:
        world.elect()
        for caller in world.callers:
            caller.call(b"hello %d" % id(caller))
            world.settle()
        tag = world.caller.call(b"too late")
        world.settle()
        assert world.caller.ended[tag] == (DONE_EXPIRED, b"")
        world.caller.engine.session_renew(world.caller.port, world.caller.session)
        info = world.caller.engine.session_info(world.caller.port, world.caller.session)
        assert (info.oldest_pending, info.next_sequence) == (3, 3)
        tags = [world.caller.call(b"anew %d" % i) for i in range(100)]
        world.settle()
        assert [world.caller.ended[tag][0] for tag in tags] == [DONE_OK] * 100


def test_a_flood_of_openings_leaves_a_resting_session_its_place() -> None:
    """Of one address, more than the table holds: neither the session of somebody who rests nor a new one is refused."""
    with SessionWorld(clients=2, sessions_count_max=20_000) as world:
        leader = world.elect()
        world.caller.call(b"first")
        world.settle()
        world.run(100)
        for at in range(0, 24_000, 1000):
            for rid in range(at, at + 1000):
                world.network.inject((0x0A0000AA, 7), world.addresses[leader], session_request(rid, b"", 0, 0, 0))
            world.run(5)
        assert world.nodes[leader].engine.counters()["drops_openings"] > 11_000
        # Those that were let in are opened in time; meanwhile others' calls go on.
        calls = [world.caller.call(b"second"), world.callers[1].call(b"of another")]
        world.settle()
        assert [caller.ended[tag][0] for caller, tag in zip(world.callers, calls, strict=True)] == [DONE_OK] * 2
        world.check()
        assert world.journals()[0].count(b"second") == 1


def test_openings_refused_are_sent_again_until_they_are_let_in() -> None:
    with SessionWorld(size=1) as world:
        leader = world.elect()
        for rid in range(13_000):
            world.network.inject((0x0A000100, 7), world.addresses[leader], session_request(rid, b"", 0, 0, 0))
            if rid % 500 == 0:
                world.run(0.1)
        world.run(1)
        world.caller.call(b"waits a moment")
        world.settle()
        assert world.caller.ended[1] == (DONE_OK, b"1 waits a moment")
        assert world.caller.engine.counters()["client_refusals"] > 0
        assert world.caller.engine.counters()["client_timeouts"] == 0


def test_a_delayed_duplicate_of_an_evicted_session_is_never_executed() -> None:
    """The network keeps a copy of a request; its session is evicted; the copy arrives."""
    with SessionWorld(clients=3, sessions_count_max=2) as world:
        leader = world.elect()
        world.caller.call(b"once")
        world.settle()
        client_id = world.caller.engine.session_info(world.caller.port, 0).client_id
        for caller in world.callers[1:]:
            caller.call(b"other %d" % id(caller))
            world.settle()
        old = session_request(1, b"once", client_id, 1, 1)
        for to in range(3):
            world.network.inject((0x0A000100, 9000), world.addresses[(leader + to) % 3], old)
        world.run(100)
        world.check()
        assert world.counter("sessions_expired") == 9
        assert [journal.count(b"once") for journal in world.journals()] == [1] * 3


def test_an_answer_to_an_earlier_call_of_the_same_number_is_not_believed() -> None:
    with SessionWorld() as world:
        world.elect()
        world.caller.call(b"open")
        world.settle()
        info = world.caller.engine.session_info(world.caller.port, 0)
        rid = world.caller.engine.session_call(world.caller.port, 0, b"asked", timeout_ns=10**9, tag=77, retry_ns=0)
        assert rid is not None
        for stale in (
            extension(info.client_id, info.next_sequence - 1, 0) + b"9 of an older call",
            extension(info.client_id + 1, info.next_sequence, 0) + b"9 of another session",
        ):
            plain = packet(1, 1, rid, stale)
            world.network.inject(world.addresses[0], (0x0A000100, 9000), plain[:1] + b"\x20" + plain[2:])
        world.network.inject(world.addresses[0], (0x0A000100, 9000), packet(1, 1, rid, b"9 without an extension"))
        world.network.advance(50_000)
        world.caller.poll_once()
        assert world.caller.engine.counters()["rx_stale_answers"] == 3
        world.run(50)
        assert world.caller.ended[77] == (DONE_OK, b"2 asked")


@pytest.mark.parametrize(
    "numbers", [(0, 1, 0), (0, 0, 1), (5, 0, 0), (5, 3, 0), (5, 3, 4), (5, 70_000, 1), (5, 2**64 - 1, 2**64 - 1)]
)
def test_an_extension_that_contradicts_itself_is_counted_and_dropped(numbers: tuple[int, int, int]) -> None:
    with SessionWorld() as world:
        leader = world.elect()
        before = world.nodes[leader].engine.log_last_index
        world.network.inject((0x0A000100, 9000), world.addresses[leader], session_request(9, b"x", *numbers))
        world.run(20)
        assert world.counter("rx_bad_session") == 1
        assert world.nodes[leader].engine.log_last_index == before


def test_the_extension_means_nothing_under_other_policies() -> None:
    """A read (policy 3) with it is a read; a replicated request with an unknown extension is executed as it comes."""
    with SessionWorld() as world:
        leader = world.elect()
        read = bytearray(session_request(9, b"read", 1, 1, 1))
        read[2] = 3
        other = packet(0, 2, 10, bytes(16) + b"other")
        for data in (bytes(read), other[:1] + bytes([24]) + other[2:]):
            world.network.inject((0x0A000100, 9000), world.addresses[leader], data)
            world.run(30)
        assert world.journals()[leader] == [b"other"]
        assert world.counter("reads_answered") == 1
        assert world.counter("rx_bad_session") == 0


def test_more_than_a_request_may_have_never_reaches_the_log() -> None:
    """254 full packets carry more than a request may; the cluster goes on."""
    with SessionWorld() as world:
        leader = world.elect()
        for i in range(254):
            data = packet(0, 2, 5, bytes(1464), first=i == 0, last=i == 253, order=i or 254)
            world.network.inject((0x0A000177, 1), world.addresses[leader], data)
        world.caller.call(b"goes on")
        world.settle()
        world.check()
        assert world.counter("rx_bad_length") == 1


@pytest.mark.parametrize("seed", range(4))
def test_members_brought_up_by_snapshots_know_what_was_executed(seed: int) -> None:
    """Every member loses its memory in turn while requests and answers get lost: nothing is executed twice."""
    with SessionWorld(seed=seed, clients=2, log_bytes_max=40_000) as world:
        world.elect()
        world.network.faults(loss_ppm=50_000, duplicate_ppm=50_000, delay_min_ns=5_000, delay_max_ns=200_000)
        number = 0
        for victim in range(3):
            world.kill(victim)
            for _ in range(150):
                number += 1
                world.callers[number % 2].call(b"%d " % number + b"x" * 200, ms=20_000)
                world.run(1)
            world.launch(victim)
            world.run_until(lambda victim=victim: bool(world.nodes[victim].status()["formed"]), 20_000)  # type: ignore[misc]
        world.network.faults()
        world.settle(20_000)
        world.check()
        assert len(world.journals()[0]) == number
        assert sum(node.counters["snapshots_restored"] for node in world.nodes.values()) >= 3
