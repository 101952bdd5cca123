"""Messages of one and of many packets, in any order, duplicated, bad: the real engine over the in-memory port."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2p2.engine import DONE_CANCELLED, DONE_DROPPED, DONE_OK, DONE_TIMEOUT, ROLE_FOLLOWER, ROLE_LEADER
from r2p2.errors import EngineError, RequestTooLarge
from r2p2.requests import LATER
from tests.engine.support import CLIENT, SERVER, STRANGER, packet, pair, request_packets

SIZES = [0, 1, 13, 14, 15, 1463, 1464, 1465, 14 + 1464, 14 + 1464 + 1, 50_000, 370_406]


def test_golden_bytes() -> None:
    with pair() as (network, server, _):
        network.inject(STRANGER, SERVER, bytes.fromhex("cc0800c00001000131323334"))
        network.advance(10_000)
        server.engine.capture_start(1000, 1472)
        server.poll_once()
        server.poll_once()
        sent = [d.payload.hex() for d in server.engine.capture_take()[0] if d.source_ip == SERVER[0]]
        assert sent == ["cc0811c00001000131323334"]


@pytest.mark.parametrize("size", SIZES)
def test_a_request_of_any_size_is_echoed(size: int) -> None:
    payload = bytes(i * 7 % 256 for i in range(size))
    with pair() as (network, server, caller):
        caller.call(5, payload)
        network.run([server, caller], 5_000_000)
        assert caller.ended == {5: (DONE_OK, payload)}
        assert server.seen == [payload]


def test_too_large_is_a_local_error_before_anything_is_sent() -> None:
    with pair() as (_, _, caller):
        with pytest.raises(RequestTooLarge, match="370407"):
            caller.call(1, bytes(370_407))
        assert caller.engine.counters()["tx_packets"] == 0


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
def test_every_order_of_packets_makes_the_message_once(count: int) -> None:
    """And again with one of the packets coming twice, at any later place."""
    payload = bytes(range(256)) * 7 * count
    payload = payload[: 14 + (count - 2) * 1464 + 1460]
    with pair() as (network, server, caller):
        for rid, order in enumerate(itertools.permutations(range(count))):
            packets = request_packets(2 * rid, payload)
            assert len(packets) == count
            # Under the next rid: the same order, and a copy of its packet number `again` behind `later` further ones.
            again = sum(order[:2]) % count
            later = order[-1] % (count - again)
            copies = request_packets(2 * rid + 1, payload)
            twice = [copies[i] for i in order]
            twice.insert(again + later + 1, copies[order[again]])
            for p in [*(packets[i] for i in order), *twice]:
                network.inject(STRANGER, SERVER, p)
            network.run([server, caller], 1_000_000)
            assert server.seen == [payload, payload], (order, again, later)
            server.seen.clear()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_duplicates_and_reordering_of_many_messages(data: st.DataObject) -> None:
    """Every message arrives whole, whatever the order and however often its packets come."""
    sizes = data.draw(st.lists(st.integers(1465, 9000), min_size=1, max_size=4))
    payloads = [bytes([i + 1]) * size for i, size in enumerate(sizes)]
    packets = [(rid, p) for rid, payload in enumerate(payloads) for p in request_packets(rid, payload)]
    extra = data.draw(st.lists(st.sampled_from(packets), max_size=6))
    with pair() as (network, server, caller):
        for _, p in data.draw(st.permutations(packets + extra)):
            network.inject(STRANGER, SERVER, p)
        network.run([server, caller], 1_000_000)
        assert sorted(server.seen) == sorted(payloads)


def test_loss_of_one_packet_is_a_timeout_and_the_half_expires() -> None:
    with pair(reassembly_timeout_ns=20_000_000) as (network, server, caller):
        for p in request_packets(1, bytes(5000))[:-1]:
            network.inject(STRANGER, SERVER, p)
        network.run([server, caller], 10_000_000)
        assert server.engine.counters()["rx_expired_halves"] == 0
        network.run([server, caller], 30_000_000)
        assert server.engine.counters()["rx_expired_halves"] == 1
        assert server.seen == []


def test_a_new_first_packet_replaces_the_stale_half() -> None:
    old, new = request_packets(1, b"o" * 2500), request_packets(1, b"n" * 2500)
    with pair() as (network, server, caller):
        for p in [old[0], old[1], new[0], new[1], new[2]]:
            network.inject(STRANGER, SERVER, p)
        network.run([server, caller], 1_000_000)
        assert server.seen == [b"n" * 2500]
        assert server.engine.counters()["rx_replaced_halves"] == 1


def test_a_full_table_lets_go_of_the_oldest_half_of_one_packet_whatever_is_older() -> None:
    with pair(reassembly_count_max=64) as (network, server, _):

        def send(host: int, *packets: bytes) -> None:
            for data in packets:
                network.inject((0x0B000000 + host, 1), SERVER, data)
            network.advance(10_000)
            server.poll_once()

        first = packet(0, 1, 1, b"x", last=False, order=3)
        second, third = (packet(0, 1, 1, b"x", first=False, last=i == 2, order=i) for i in (1, 2))
        send(0, first, second)  # not of one packet any more: it stays, at the old end
        for host in range(1, 64 + 10):
            send(host, first)
        counters = server.engine.counters()
        assert (counters["rx_evicted_halves"], counters["rx_drop_reassembly_full"]) == (10, 0)
        send(0, third)
        send(73, second, third)
        assert server.seen == [b"xxx", b"xxx"]


def test_a_stranger_does_not_fill_the_table_of_half_raft_messages() -> None:
    with pair(reassembly_count_max=64) as (network, server, _):
        server.engine.set_role(ROLE_FOLLOWER)
        for rid in range(64):
            for order in (1, 2):
                network.inject(STRANGER, SERVER, packet(5, 1, rid, b"x", first=False, last=False, order=order))
        parts = [packet(5, 1, 7, bytes(1464), last=False, order=2), packet(5, 1, 7, b"end", first=False, order=1)]
        for data in parts:
            network.inject(CLIENT, SERVER, data)
        network.advance(10_000)
        server.engine.poll()
        server.engine.poll()
        counters = server.engine.counters()
        assert counters["rx_drop_source_quota"] == 2 * (64 - 16)
        assert counters["rx_raft_messages"] == 1


def test_one_source_has_its_quota_of_half_messages() -> None:
    with pair(reassembly_count_max=8) as (network, server, caller):
        for rid in range(50):
            network.inject(STRANGER, SERVER, request_packets(rid, bytes(3000))[0])
        network.run([server, caller], 1_000_000)
        assert server.engine.counters()["rx_drop_source_quota"] == 48
        caller.call(1, b"honest" * 1000)
        network.run([server, caller], 1_000_000)
        assert caller.ended == {1: (DONE_OK, b"honest" * 1000)}


def test_a_flood_of_first_packets_from_many_sources_pushes_out_its_own() -> None:
    """A thousand spoofed sources against a table of 64: honest requests of many packets still get through."""
    with pair(reassembly_count_max=64) as (network, server, caller):
        for tag in range(20):
            caller.call(tag, bytes([tag]) * 5000)
            for i in range(50):
                spoofed = (0x0B000000 + tag * 50 + i, 1000 + i)
                network.inject(spoofed, SERVER, request_packets(i, bytes(300_000))[0])
            network.run([server, caller], 30_000)
        network.run([server, caller], 1_000_000)
        assert len([1 for status, _ in caller.ended.values() if status == DONE_OK]) == 20
        assert server.engine.counters()["rx_evicted_halves"] > 900


def test_memory_follows_what_was_received_not_what_was_announced() -> None:
    with pair(reassembly_bytes_max=1 << 20) as (network, server, caller):
        for rid in range(60):  # each announces 370 kB
            network.inject((STRANGER[0] + rid, 1), SERVER, request_packets(rid, bytes(370_000))[0])
        network.run([server, caller], 1_000_000)
        counters = server.engine.counters()
        assert (counters["rx_drop_reassembly_full"], counters["rx_drop_source_quota"]) == (0, 0)


def test_bytes_of_one_source_are_bounded() -> None:
    with pair(reassembly_bytes_max=1 << 20) as (network, server, caller):
        for p in request_packets(1, bytes(370_000))[:-1]:
            network.inject(STRANGER, SERVER, p)
        network.run([server, caller], 1_000_000)
        assert server.engine.counters()["rx_drop_source_quota"] > 50
        caller.call(1, bytes(100_000))
        network.run([server, caller], 1_000_000)
        assert caller.ended[1][0] == DONE_OK


def test_a_last_flag_on_another_packet_than_the_last_is_refused_in_any_order() -> None:
    packets = request_packets(1, bytes(4000))
    wrong = packet(0, 1, 1, bytes(1464), first=False, last=True, order=1)
    for order in ([packets[0], wrong], [wrong, packets[0]]):
        with pair() as (network, server, caller):
            for p in [*order, packets[2], packets[3]]:
                network.inject(STRANGER, SERVER, p)
            network.run([server, caller], 1_000_000)
            counters = server.engine.counters()
            assert server.seen == []
            assert counters["rx_bad_order"] + counters["rx_replaced_halves"] == 1


BAD = {
    "rx_bad_short": b"\xcc\x08\x00",
    "rx_bad_magic": b"\xcd" + packet(0, 1, 1, b"x")[1:],
    "rx_bad_header_size": b"\xcc\x07" + packet(0, 1, 1, b"x")[2:],
    "rx_bad_type": packet(9, 1, 1, b"x"),
    "rx_bad_policy": packet(0, 9, 1, b"x"),
    "rx_bad_flags": packet(0, 1, 1, b"x", order=2),
    "rx_bad_order": packet(0, 1, 1, b"x", last=False, order=255),
    "rx_bad_length": packet(0, 1, 1, b"", last=False, order=2),
    "rx_unexpected": packet(5, 1, 1, b"raft"),
    "rx_unmatched": packet(1, 1, 1, b"nobody asked"),
}


@pytest.mark.parametrize("counter", BAD)
def test_bad_datagrams_are_counted_by_reason(counter: str) -> None:
    with pair() as (network, server, caller):
        network.inject(STRANGER, SERVER, BAD[counter])
        network.run([server, caller], 1_000_000)
        counters = server.engine.counters()
        assert counters[counter] == 1
        assert server.seen == []
        assert counters["tx_packets"] == 0


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=60) | st.binary(max_size=50).map(lambda b: b"\xcc\x08" + b), max_size=20))
def test_arbitrary_bytes_always_end_somewhere(datagrams: list[bytes]) -> None:
    """Whatever comes is a request, a stored packet, or a counted drop."""
    with pair() as (network, server, caller):
        for datagram in datagrams:
            network.inject(STRANGER, SERVER, datagram)
        network.run([server, caller], 1_000_000)
        c = server.engine.counters()
        assert c["rx_packets"] == len(datagrams)
        bad = sum(n for name, n in c.items() if name.startswith("rx_bad_"))
        ended = bad + c["rx_unexpected"] + c["rx_unmatched"] + c["rx_requests"] + c["rx_duplicate_packets"]
        assert ended <= len(datagrams)
        assert len(server.seen) + c["drops_no_service"] == c["rx_requests"]
        network.run([server, caller], 400_000_000)
        c = server.engine.counters()
        halves = c["rx_expired_halves"] + c["rx_replaced_halves"]
        assert ended + halves <= len(datagrams) or halves <= len(datagrams)


def test_timeout_drop_and_cancel_are_told_apart() -> None:
    with pair() as (network, server, caller):
        caller.call(1, b"to nobody", target=(0x0A000009, 1), ms=5)
        caller.call(2, b"replicated, but there is no group", policy=2)
        rid = caller.call(3, b"given up", target=(0x0A000009, 1))
        caller.engine.cancel(CLIENT[1], rid)
        network.run([server, caller], 20_000_000)
        assert {tag: status for tag, (status, _) in caller.ended.items()} == {
            1: DONE_TIMEOUT,
            2: DONE_DROPPED,
            3: DONE_CANCELLED,
        }


def test_an_answer_after_the_deadline_is_not_taken_for_another_calls() -> None:
    """The rid of a call without an answer rests: the late answer finds nobody, instead of the next call."""
    with pair() as (network, server, caller):
        rid = caller.call(1, b"slow", target=STRANGER, ms=2)
        network.run([server, caller], 5_000_000)
        assert caller.ended[1][0] == DONE_TIMEOUT
        rids = {caller.call(tag, b"x", ms=1) for tag in range(10, 1000)}
        assert rid not in rids
        network.inject(STRANGER, CLIENT, packet(1, 1, rid, b"late"))
        network.run([caller], 100_000)
        assert caller.engine.counters()["rx_unmatched"] == 1


def test_a_second_answer_to_a_repeated_call_is_not_taken_for_another_calls() -> None:
    with pair() as (network, server, caller):
        rid = caller.engine.call(
            caller.port, STRANGER, b"slow", policy=1, timeout_ns=1_000_000_000, retry_ns=10_000_000, tag=1
        )
        network.run([caller], 25_000_000)
        assert caller.engine.counters()["client_retries"] == 1
        network.inject(STRANGER, CLIENT, packet(1, 1, rid, b"slow"))
        network.run([caller], 1_000_000)
        assert caller.ended.pop(1) == (DONE_OK, b"slow")
        for first in range(0, 66_000, 500):
            rids = {caller.call(tag, b"fast") for tag in range(first, first + 500)}
            assert rid not in rids
            network.run([server, caller], 1_000_000)
        network.inject(STRANGER, CLIENT, packet(1, 1, rid, b"slow"))
        network.run([server, caller], 1_000_000)
        assert set(caller.ended.values()) == {(DONE_OK, b"fast")}
        assert caller.engine.counters()["rx_unmatched"] == 1


def test_rids_wrap_past_those_in_use() -> None:
    with pair() as (network, server, caller):
        kept = caller.call(0, b"waits", target=STRANGER, ms=100_000)
        seen = set()
        for tag in range(1, 70_001):
            rid = caller.call(tag, b"")
            assert rid != kept
            seen.add(rid)
            if tag % 500 == 0:
                network.run([server, caller], 50_000)
        assert len(seen) == 65_535
        assert sum(status == DONE_OK for status, _ in caller.ended.values()) == 70_000


def test_the_number_of_calls_is_bounded() -> None:
    from r2p2.memory import MemoryNetwork
    from tests.engine.support import Caller

    with MemoryNetwork(1) as network:
        caller = Caller(network, calls_max=3)
        for tag in range(3):
            caller.call(tag, b"x")
        with pytest.raises(EngineError, match="bound"):
            caller.call(3, b"x")
        caller.engine.close()


def test_deadlines_hold_over_long_and_short_times() -> None:
    with pair() as (network, _, caller):
        for tag, ms in enumerate([1, 2, 50, 1023, 1024, 1025, 3000]):
            caller.call(tag, b"x", target=(0x0A000009, 1), ms=ms)
        ended_at: dict[int, int] = {}
        for ms in range(1, 3100):
            network.advance(1_000_000)
            caller.poll_once()
            for tag in caller.ended:
                ended_at.setdefault(tag, ms)
        assert all(
            want <= got <= want + 2
            for want, got in zip([1, 2, 50, 1023, 1024, 1025, 3000], ended_at.values(), strict=True)
        )


@pytest.mark.parametrize("seed", range(3))
def test_many_messages_with_loss_duplication_and_reordering(seed: int) -> None:
    """Each call ends exactly once; nothing stays behind in the tables or the network."""
    with pair(seed) as (network, server, caller):
        network.faults(
            loss_ppm=10_000, duplicate_ppm=10_000, reorder_ppm=10_000, delay_min_ns=5_000, delay_max_ns=90_000
        )
        total = 3000
        for tag in range(total):
            caller.call(tag, bytes([tag % 256]) * (tag * 37 % 4000), ms=40)
            if tag % 100 == 99:
                network.run([server, caller], 2_000_000)
        network.faults()
        network.run([server, caller], 500_000_000)
        assert len(caller.ended) == total
        good = [tag for tag, (status, _) in caller.ended.items() if status == DONE_OK]
        assert len(good) > 0.8 * total
        assert all(caller.ended[tag][1] == bytes([tag % 256]) * (tag * 37 % 4000) for tag in good)
        server.engine.close()
        caller.engine.close()
        assert network.in_flight == 0


# ---- repeated requests, trusted servers, the router's FEEDBACK, replies that come later ----


def test_a_request_that_is_safe_to_repeat_survives_loss() -> None:
    with pair(3) as (network, server, caller):
        network.faults(loss_ppm=200_000, delay_min_ns=5_000, delay_max_ns=20_000)
        for tag in range(60):
            caller.engine.call(
                caller.port,
                SERVER,
                bytes([tag]) * (tag * 40),
                policy=1,
                timeout_ns=4_000_000_000,
                retry_ns=2_000_000,
                tag=tag,
            )
        caller.engine.flush()
        network.run([server, caller], 4_100_000_000)
        good = [tag for tag, (status, _) in caller.ended.items() if status == DONE_OK]
        assert len(caller.ended) == 60
        assert len(good) >= 55, "two of ten packets are lost, and it is tried eleven times"
        assert all(caller.ended[tag][1] == bytes([tag]) * (tag * 40) for tag in good)
        assert caller.engine.counters()["client_retries"] > 20


@pytest.mark.parametrize("retry_ns", [0, 20_000_000])
def test_an_ack_brings_the_rest_once_for_each_first_packet(retry_ns: int) -> None:
    """Forged or duplicated: 11 bytes must not be worth 360,000 again and again, to whom they name."""
    with pair() as (network, _, caller):
        network.block(CLIENT[0], SERVER[0])
        network.open(*STRANGER)
        caller.engine.capture_start(10**9, 8)
        rid = caller.engine.call(
            caller.port, SERVER, bytes(3000), policy=1, timeout_ns=90_000_000, retry_ns=retry_ns, tag=1
        )
        caller.engine.flush()
        for _ in range(50):
            network.inject(STRANGER, CLIENT, packet(3, 1, rid, b"ACK"))
            network.run([caller], 1_000_000)
        sent = [d for d in caller.engine.capture_take()[0] if d.source_ip == CLIENT[0]]
        first_packets_count = sum(d.target_ip == SERVER[0] for d in sent)
        assert first_packets_count == (2 if retry_ns else 1)
        assert sum(d.target_ip == STRANGER[0] for d in sent) == 3 * first_packets_count
        assert caller.engine.counters()["rx_unmatched"] == 50 - first_packets_count


def test_a_request_that_is_not_safe_is_sent_once() -> None:
    with pair() as (network, server, caller):
        network.block(CLIENT[0], SERVER[0])
        caller.call(1, b"once", ms=50)
        network.run([server, caller], 100_000_000)
        assert caller.ended[1][0] == DONE_TIMEOUT
        assert caller.engine.counters()["tx_packets"] == 1


def test_repeats_come_at_twice_the_interval_each_time() -> None:
    with pair() as (network, server, caller):
        network.block(CLIENT[0], SERVER[0])
        caller.engine.capture_start(10_000, 1472)
        caller.engine.call(caller.port, SERVER, b"x", policy=1, timeout_ns=100_000_000, retry_ns=5_000_000, tag=1)
        caller.engine.flush()
        network.run([server, caller], 120_000_000)
        sent = [d.time_ns / 1e6 for d in caller.engine.capture_take()[0]]
        assert [round(b - a) for a, b in itertools.pairwise(sent)] in ([5, 10, 20, 40], [6, 11, 21, 41])
        assert caller.ended[1][0] == DONE_TIMEOUT


@pytest.mark.parametrize("size", [100, 3000])
def test_a_refused_copy_does_not_end_a_call_whose_first_copy_may_have_been_taken(size: int) -> None:
    """A leader takes the first copy, its backlog is full then, and it refuses the second one."""
    with pair(backlog_entries_max=1) as (network, server, caller):
        leader = server.engine
        leader.set_role(ROLE_LEADER)
        caller.engine.call(
            caller.port, SERVER, b"w" * size, policy=2, timeout_ns=900_000_000, retry_ns=20_000_000, tag=1
        )
        caller.engine.flush()
        network.run([server, caller], 200_000_000)
        assert leader.counters()["drops_backlog"] > 2
        assert caller.ended == {}
        assert caller.engine.counters()["client_refusals"] == leader.counters()["drops_backlog"]
        requests, _ = leader.apply_prepare(leader.log_last_index, 64)
        assert len(requests) == 1
        leader.apply_reply([b"done"], send=True)
        leader.flush()
        network.run([caller], 1_000_000)
        assert caller.ended == {1: (DONE_OK, b"done")}


def test_refused_until_the_deadline_a_repeated_call_times_out_and_one_sent_once_was_refused() -> None:
    with pair() as (network, server, caller):  # which refuses every replicated request
        network.block(CLIENT[0], SERVER[0])
        caller.engine.call(caller.port, SERVER, b"x", policy=2, timeout_ns=3_000_000_000, retry_ns=1_000_000, tag=1)
        caller.engine.call(caller.port, SERVER, b"x", policy=2, timeout_ns=900_000_000, retry_ns=800_000_000, tag=2)
        caller.engine.flush()
        network.run([caller], 4_000_000)
        network.block(CLIENT[0], SERVER[0], False)
        caller.engine.call(caller.port, SERVER, b"x", policy=2, timeout_ns=900_000_000, retry_ns=1_000_000_000, tag=3)
        caller.engine.flush()
        network.run([server, caller], 2_500_000_000)
        assert caller.ended == {2: (DONE_TIMEOUT, b""), 3: (DONE_DROPPED, b"")}
        before = caller.engine.counters()["client_refusals"]
        assert before > 50, "one each 32 ms"
        # A lost copy is repeated as soon as ever: refusals do not make the interval longer.
        network.block(CLIENT[0], SERVER[0])
        network.run([server, caller], 40_000_000)
        network.block(CLIENT[0], SERVER[0], False)
        network.run([server, caller], 100_000_000)
        assert caller.engine.counters()["client_refusals"] > before
        network.run([server, caller], 500_000_000)
        assert caller.ended[1] == (DONE_TIMEOUT, b"")


def test_answers_from_anybody_unless_the_client_names_its_servers() -> None:
    with pair() as (network, _, caller):
        rid = caller.call(1, b"x", target=(0x0A000009, 1))
        network.inject((0x0A00000A, 0), CLIENT, packet(1, 1, rid, b"from elsewhere, port 0"))
        network.run([caller], 1_000_000)
        assert caller.ended == {1: (DONE_OK, b"from elsewhere, port 0")}
        caller.engine.restrict(caller.port, [SERVER])
        rid = caller.call(2, b"x", ms=20)
        for type_, payload in ((1, b"forged"), (4, b"DROP"), (3, b"ACK")):
            network.inject(STRANGER, CLIENT, packet(type_, 1, rid, payload))
        network.run([caller], 5_000_000)
        assert 2 not in caller.ended
        assert caller.engine.counters()["rx_bad_sender"] == 3


def test_feedback_after_a_response_and_after_a_drop() -> None:
    router = (0x0A000050, 9000)
    with pair(router_ip=router[0], router_port=router[1]) as (network, server, caller):
        server.engine.capture_start(1000, 1472)
        network.inject(STRANGER, SERVER, packet(0, 1, 77, b"answered"))
        network.inject(STRANGER, SERVER, packet(0, 2, 78, b"refused"))
        network.run([server, caller], 1_000_000)
        to_router = [d.payload for d in server.engine.capture_take()[0] if d.target_ip == router[0]]
        assert sorted((p[0], p[2] >> 4, len(p), p[8:16].hex()) for p in to_router) == [
            (0xCC, 2, 16, f"004d{STRANGER[1]:04x}{STRANGER[0]:08x}"),
            (0xCC, 2, 16, f"004e{STRANGER[1]:04x}{STRANGER[0]:08x}"),
        ]


def test_a_reply_may_come_later_or_be_a_refusal() -> None:
    with pair() as (network, server, caller):
        for tag in range(3):
            caller.call(tag, bytes([tag]))
        network.advance(10_000)
        server.engine.poll()
        requests = server.engine.requests()
        askers = server.engine.askers(len(requests))
        by_payload = {request: askers[12 * i : 12 * i + 12] for i, request in enumerate(requests)}
        server.engine.reply([LATER, LATER, LATER])
        server.engine.flush()
        network.run([server, caller], 1_000_000)
        assert caller.ended == {}
        server.engine.reply_later(by_payload[b"\x02"], b"last first" * 300)
        server.engine.reply_later(by_payload[b"\x00"], None)
        server.engine.flush()
        network.run([server, caller], 1_000_000)
        assert caller.ended == {2: (DONE_OK, b"last first" * 300), 0: (DONE_DROPPED, b"")}
