"""What goes wrong: DROP, lost FEEDBACK, lost answers, dead servers, strangers, malformed bytes. Slots come back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2p2._engine import ffi, lib
from tests.engine.support import packet
from tests.router.support import (
    ACK,
    CLIENT_IP,
    CONTROL,
    DROP,
    MS,
    RESPONSE,
    ROUTER,
    RouterWorld,
    check_books,
    feedback,
    server_address,
)

MODES = ["relay", "direct"]
STRANGER = (0x0A0A0A0A, 9000)
FAST: dict[str, Any] = {"timeout_ns": 100 * MS, "queue_timeout_ns": 1000 * MS, "down_ns": 500 * MS}


@pytest.mark.parametrize("mode", MODES)
def test_a_slot_comes_back_after_drop(mode: str) -> None:
    with RouterWorld(1, policy="jbsq:1", mode=mode) as world:
        (tag,) = world.calls(1)
        server = world.raw(0)
        request = server.held.pop()
        server.answer(request, b"DROP", DROP)
        if mode == "direct":  # the DROP does not pass the router
            world.run()
            assert world.outstanding() == [1]
            server.feed_back(request)
        world.run()
        assert world.client.ended[tag] == (2, b"")
        assert world.outstanding() == [0]
        world.calls(1)
        assert world.held() == [1]


@pytest.mark.parametrize("lost", ["answer", "feedback"])
def test_relay_needs_one_of_answer_and_feedback(lost: str) -> None:
    with RouterWorld(1, policy="jbsq:1", **FAST) as world:
        (tag,) = world.calls(1, ms=300)
        server = world.raw(0)
        request = server.held.pop()
        if lost == "answer":
            server.feed_back(request)
        else:
            server.answer(request)
        world.run()
        assert world.outstanding() == [0]
        world.run(400)
        assert world.client.ended[tag][0] == (1 if lost == "answer" else 0)
        assert world.router.servers()[0].misses == 0, "it did answer"
        check_books(world)


def test_feedback_before_the_answer_does_not_lose_the_answer() -> None:
    with RouterWorld(1) as world:
        (tag,) = world.calls(1)
        request = world.raw(0).held.pop()
        world.raw(0).feed_back(request)
        world.run()
        assert world.outstanding() == [0]
        world.raw(0).answer(request)
        world.run()
        assert world.client.ended[tag] == (0, b"ok")


def test_lost_feedback_costs_a_slot_for_the_timeout_only() -> None:
    with RouterWorld(1, policy="jbsq:1", mode="direct", **FAST) as world:
        first, second = world.calls(2)
        server = world.raw(0)
        server.answer(server.held.pop())
        world.run(99)
        assert world.client.ended == {first: (0, b"ok")}
        assert world.held() == [0], "the second still waits"
        world.run(2)
        assert world.held() == [1]
        assert (world.count("requests_expired"), world.router.servers()[0].misses) == (1, 1)
        server.finish()
        world.run()
        assert world.client.ended[second] == (0, b"ok")
        assert world.router.servers()[0].misses == 0
        check_books(world)


@pytest.mark.parametrize("mode", MODES)
def test_a_dead_server_is_left_out_and_tried_with_one_request(mode: str) -> None:
    with RouterWorld(2, policy="jsq", mode=mode, misses_max=3, **FAST) as world:
        world.silent = {0}
        world.calls(8)
        world.raw(1).finish()
        world.run(110)
        dead = world.router.servers()[0]
        assert (dead.is_down, dead.outstanding, dead.expired) == (True, 0, 4)
        assert world.count("servers_out") == 1
        seen = world.raw(1).seen_count
        world.calls(10)
        assert world.raw(1).seen_count == seen + 10, "nothing goes to the dead one"
        world.raw(1).finish()
        world.run(500)  # now one request may try it
        world.calls(6)
        assert world.router.servers()[0].sent == 4 + 1
        world.raw(1).finish()
        world.run(110)  # and it is still dead
        assert world.router.servers()[0].is_down
        world.calls(4)
        assert world.router.servers()[0].sent == 4 + 1, "and left out anew"
        world.raw(1).finish()
        world.silent = set()
        world.run(1)
        world.raw(0).held.clear()  # what came while it was away
        world.run(500)
        world.calls(6)
        assert len(world.raw(0).held) == 1
        world.raw(0).finish()
        world.raw(1).finish()
        world.run()
        assert not world.router.servers()[0].is_down
        assert world.count("servers_back") == 1
        world.calls(4)
        assert world.held() == [2, 2]


def test_nobody_up_is_a_drop_at_once_and_the_queue_is_served_by_who_comes_back() -> None:
    with RouterWorld(1, policy="jbsq:1", misses_max=1, **FAST) as world:
        world.silent = {0}
        tags = world.calls(3)
        world.run(110)  # the first expired: the server is out, two wait
        assert world.router.queued_count == 2
        (refused,) = world.calls(1)
        assert world.client.ended == {refused: (2, b"")}
        assert world.count("drops_no_server") == 1
        world.silent = set()
        # Two wait; the router asks to be woken when it may try the server again.
        assert world.router.next_deadline_ns() == 600 * MS
        world.run(500)
        world.raw(0).held = [request for request in world.raw(0).held if request.payload != b"0"]
        world.raw(0).finish()
        world.run()
        world.raw(0).finish()
        world.run()
        assert [world.client.ended[tag][0] for tag in tags[1:]] == [0, 0]


def test_a_late_answer_goes_to_nobody() -> None:
    with RouterWorld(1, policy="random", **FAST) as world:
        (first,) = world.calls(1, ms=50)
        request = world.raw(0).held.pop()
        world.run(150)
        later = world.calls(20)
        world.raw(0).answer(request, b"late")
        world.run()
        assert world.count("rx_unmatched") == 1
        assert world.client.ended == {first: (1, b"")}
        assert request.rid not in {held.rid for held in world.raw(0).held}, "the rid rests"
        world.raw(0).finish()
        world.run()
        assert all(world.client.ended[tag] == (0, b"ok") for tag in later)


def test_a_late_answer_to_the_router_before_goes_to_nobody() -> None:
    with RouterWorld(1, policy="random", **FAST) as world:
        world.calls(3)
        late, world.raw(0).held = world.raw(0).held, []
        world.restart_router(seed=2)
        tags = world.calls(3)
        for request in late:
            world.raw(0).answer(request, b"late")
        world.run()
        assert world.count("rx_unmatched") == 3
        world.raw(0).finish()
        world.run()
        assert [world.client.ended.get(tag) for tag in tags] == [(0, b"ok")] * 3


def test_rids_wrap_and_never_meet() -> None:
    with RouterWorld(1, policy="random", pending_count_max=100, packets_max=2048, misses_max=100) as world:
        world.calls(1)
        world.run(1001)
        (unanswered,) = world.raw(0).held
        assert world.count("requests_expired") == 1
        world.raw(0).held.clear()
        world.calls(3)
        kept, world.raw(0).held = world.raw(0).held, []
        for _ in range(65_536 // 90 + 1):
            tags = world.calls(90)
            rids = {request.rid for request in world.raw(0).held} | {request.rid for request in kept}
            assert len(rids) == 93
            assert unanswered.rid not in rids, "a late answer would go to the wrong client"
            world.raw(0).finish()
            world.run()
            assert all(world.client.ended.pop(tag) == (0, b"ok") for tag in tags)
        assert world.router.pending_count == 3
        assert world.network.now_ns < 2000 * MS, "all within the second in which the unanswered rid rests"


@pytest.mark.parametrize("mode", MODES)
def test_a_repeated_request_goes_to_the_same_server_and_takes_no_second_slot(mode: str) -> None:
    with RouterWorld(3, policy="jbsq:1", mode=mode) as world:
        client = (CLIENT_IP + 9, 1234)
        world.network.open(*client)
        for _ in range(3):
            world.network.inject(client, ROUTER, packet(0, 0, 77, b"again"))
        world.run()
        assert sorted(world.held()) == [0, 0, 3]
        assert sorted(world.outstanding()) == [0, 0, 1]
        assert world.count("requests_repeated") == 2


@pytest.mark.parametrize("mode", MODES)
def test_a_repeated_request_takes_no_second_place_in_the_queue(mode: str) -> None:
    with RouterWorld(1, policy="jbsq:1", mode=mode, queue_count_max=3) as world:
        world.calls(1)  # holds the slot
        client = (CLIENT_IP + 9, 1234)
        world.network.open(*client)
        for _ in range(20):
            world.network.inject(client, ROUTER, packet(0, 0, 77, b"again"))
        world.run()
        assert world.router.queued_count == 1
        assert (world.count("requests_queued"), world.count("requests_repeated")) == (1, 19)
        world.calls(2)
        world.network.inject(client, ROUTER, packet(0, 0, 77, b"again"))
        world.run()
        assert world.router.queued_count == 3
        assert world.count("drops_queue_full") == 0, "nor is it refused when the queue is full"
        seen = []
        for _ in range(6):
            seen += [request.payload for request in world.raw(0).held]
            world.raw(0).finish()
            world.run()
        assert seen == [b"0", b"again", b"0", b"1"]
        # It has ended: the next one under its number is a new one, and waits again.
        world.calls(1)
        world.network.inject(client, ROUTER, packet(0, 0, 77, b"anew"))
        world.run()
        assert world.router.queued_count == 1
        for _ in range(2):
            world.raw(0).finish()
            world.run()
        world.run(2000)
        check_books(world)


def test_a_repeated_request_in_the_queue_is_not_refused_while_nobody_is_up() -> None:
    """It will be sent to who comes back, so its client must not hear that it was not executed."""
    with RouterWorld(1, policy="jbsq:1", misses_max=1, **FAST) as world:
        world.silent = {0}
        world.calls(2)
        world.run(110)
        assert world.router.servers()[0].is_down
        waiting = (CLIENT_IP, 5000)
        world.network.inject(waiting, ROUTER, packet(0, 0, 2, b"1"))
        world.run()
        assert world.client.ended == {}
        assert (world.count("drops_no_server"), world.count("requests_repeated")) == (0, 1)


def test_a_repeated_request_leaves_a_dead_server() -> None:
    with RouterWorld(2, policy="round-robin", misses_max=1, **FAST) as world:
        world.silent = {0}
        world.calls(1)
        world.run(60)
        client = (CLIENT_IP + 9, 1234)
        world.network.open(*client)
        world.calls(1)
        world.network.inject(client, ROUTER, packet(0, 0, 77, b"again"))
        world.run(50)
        assert world.router.servers()[0].is_down
        seen = world.raw(1).seen_count
        world.network.inject(client, ROUTER, packet(0, 0, 77, b"again"))
        world.run()
        assert world.raw(1).seen_count == seen + 1


@pytest.mark.parametrize("mode", MODES)
def test_clients_that_begin_and_leave_do_not_put_servers_out(mode: str) -> None:
    with RouterWorld(1, policy="jbsq:3", mode=mode, misses_max=1, **FAST) as world:
        client = (CLIENT_IP + 9, 1234)
        world.network.open(*client)
        world.network.inject(client, ROUTER, packet(0, 0, 7, bytes(14), last=False, order=3))
        world.run()
        world.raw(0).answer(world.raw(0).held[0], b"ACK", ACK)
        world.run(250)
        assert world.count("requests_expired") == 1
        assert world.outstanding() == [0]
        assert not world.router.servers()[0].is_down


# ---- what strangers and accidents send ----


def test_feedback_reads_only_its_four_fields() -> None:
    fields = ffi.new("uint16_t[4]")
    for rest in (0, 0x5A, 0xFF):
        data = feedback(0x1234, (0x0A0B0C0D, 0xBEEF), rest)
        assert len(data) == 16
        assert lib.r2p2_feedback_check(data, len(data), fields) == 0
        assert list(fields) == [0x1234, 0xBEEF, 0x0A0B, 0x0C0D]
        assert lib.r2p2_feedback_check(data, 15, fields) < 0
        assert lib.r2p2_feedback_check(b"\xcd" + data[1:], 16, fields) < 0
        assert lib.r2p2_feedback_check(data[:2] + b"\x10" + data[3:], 16, fields) < 0


@pytest.mark.parametrize("mode", MODES)
def test_feedback_that_is_wrong_is_counted_and_frees_nothing(mode: str) -> None:
    with RouterWorld(2, policy="round-robin", mode=mode) as world:
        world.calls(2)
        request = world.raw(0).held[0]
        good = feedback(request.rid, request.source)
        cases = [
            (server_address(0), good[:15], "feedback_malformed"),
            (server_address(0), b"", "feedback_malformed"),
            (server_address(0), packet(RESPONSE, 1, request.rid, b"a response"), "feedback_malformed"),
            (STRANGER, good, "feedback_stranger"),
            (server_address(1), good, "feedback_unmatched"),
            (server_address(0), feedback(request.rid + 100, request.source), "feedback_unmatched"),
            (server_address(0), feedback(request.rid, (request.source[0], 1)), "feedback_unmatched"),
        ]
        for source, data, counter in cases:
            before = world.router.counters()
            world.network.inject(source, CONTROL, data)
            world.run()
            after = world.router.counters()
            changed = {name for name in after if after[name] != before[name]}
            assert changed - {"rx_packets", "rx_bytes"} == {counter}
            assert world.outstanding() == [1, 1]
        world.network.inject((server_address(0)[0], 31000), CONTROL, good)  # from another UDP port of the server
        world.run()
        assert world.outstanding() == [0, 1]


def test_feedback_on_the_one_port() -> None:
    with RouterWorld(1, control_port=ROUTER[1]) as world:
        world.calls(1)
        request = world.raw(0).held[0]
        world.network.inject(server_address(0), ROUTER, feedback(request.rid, request.source, 0x77))
        world.run()
        assert world.outstanding() == [0]
        world.raw(0).answer(request)
        world.run()
        assert world.client.ended == {1: (0, b"ok")}


def test_strange_packets_have_their_counters() -> None:
    with RouterWorld(1) as world:
        world.calls(1)
        rid = world.raw(0).held[0].rid
        server, client = server_address(0), (CLIENT_IP + 9, 1234)
        cases = [
            (client, ROUTER, b"\xcc\x08", "rx_bad_short"),
            (client, ROUTER, b"\xcd" + packet(0, 0, 1, b"x")[1:], "rx_bad_magic"),
            (client, ROUTER, packet(8, 0, 1, b"x"), "rx_bad_type"),
            (client, ROUTER, packet(0, 4, 1, b"x"), "rx_bad_policy"),
            (client, ROUTER, packet(0, 0, 1, b"x", last=False, order=1), "rx_bad_flags"),
            (client, ROUTER, packet(0, 0, 1, b"x", first=False, order=0), "rx_bad_order"),
            (client, ROUTER, packet(0, 0, 1, b"x", first=False, order=3), "rx_unmatched"),
            ((client[0], 0), ROUTER, packet(0, 0, 1, b"x"), "rx_bad_source"),
            (client, ROUTER, packet(5, 1, 1, b"x"), "rx_unexpected"),
            (client, (ROUTER[0], 8500), packet(0, 0, 1, b"x"), "rx_wrong_port"),
            (STRANGER, ROUTER, packet(RESPONSE, 1, rid, b"forged"), "rx_stranger"),
            (server, ROUTER, packet(RESPONSE, 1, rid + 1, b"x"), "rx_unmatched"),
            (server, ROUTER, packet(DROP, 1, rid, b"DROP", last=False, order=2), "rx_bad_flags"),
        ]
        for source, target, data, counter in cases:
            before = world.router.counters()
            world.network.inject(source, target, data)
            world.run()
            after = world.router.counters()
            changed = {name for name in after if after[name] != before[name]}
            assert changed - {"rx_packets", "rx_bytes"} == {counter}, data
        world.raw(0).finish()
        world.run()
        assert world.client.ended == {1: (0, b"ok")}


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=100, deadline=None)
@given(
    datagrams=st.lists(
        st.tuples(
            st.sampled_from([(CLIENT_IP + 9, 1234), server_address(0), server_address(1), STRANGER]),
            st.sampled_from([ROUTER, CONTROL]),
            st.one_of(
                st.binary(max_size=40),
                st.builds(
                    packet,
                    st.integers(0, 7),
                    st.integers(0, 3),
                    st.integers(0, 6),
                    st.binary(max_size=20),
                    first=st.booleans(),
                    last=st.booleans(),
                    order=st.integers(0, 4),
                ),
                st.builds(feedback, st.integers(0, 6), st.just((CLIENT_IP + 9, 1234)), st.integers(0, 255)),
                st.builds(feedback, st.integers(0, 6), st.just(ROUTER), st.integers(0, 255)),
            ),
        ),
        max_size=60,
    )
)
def test_any_datagrams_end_in_a_counter_and_leave_nothing(
    mode: str, datagrams: list[tuple[tuple[int, int], tuple[int, int], bytes]]
) -> None:
    with RouterWorld(2, mode=mode, policy="jbsq:2", queue_count_max=4, **FAST) as world:
        world.network.open(CLIENT_IP + 9, 1234)
        for source, target, data in datagrams:
            world.network.inject(source, target, data)
            world.run(1)
            assert max(world.outstanding()) <= 2
        world.run(5000)
        check_books(world)
        world.calls(1)
        for _ in range(3):
            world.run(600)
        assert world.router.pending_count == 0
