"""Whose request of several packets may come, and when: what was announced, acknowledged and has not come is bounded."""

from __future__ import annotations

import pytest

from r2p2 import limits
from r2p2.engine import DONE_OK, ROLE_FOLLOWER, ROLE_LEADER, Engine, EngineConfig
from r2p2.memory import MemoryNetwork
from tests.engine.support import SERVER, STRANGER, packet, pair, request_packets
from tests.engine.test_sessions import session_packets

ACK, DROP = 3, 4
OTHER = (0x0A000077, 7000)
# Packets one address may have on their way, where the port does not say what it holds.
SHARE = limits.GRANT_PACKETS_MAX // 2


class Outside:
    """An endpoint without an engine: what came to whom is read off the server's capture."""

    def __init__(self, **config: int) -> None:
        self.network = MemoryNetwork(1, packets_max=8192)
        self.engine = Engine(self.network.open(*SERVER), EngineConfig(**({"reassembly_count_max": 1024} | config)))
        self.engine.capture_start(10**9, limits.DATAGRAM_BYTES_MAX)

    def send(self, source: tuple[int, int], *packets: bytes) -> None:
        for data in packets:
            self.network.inject(source, SERVER, data)
        self.network.advance(10_000)

    def poll(self, after_ns: int = 0) -> list[tuple[int, int, int]]:
        """One poll; the address, type and rid of everything it sent."""
        self.network.advance(after_ns)
        self.engine.poll()
        self.engine.flush()
        sent = [one for one in self.engine.capture_take()[0] if one.source_ip == SERVER[0]]
        return [(one.target_ip, one.payload[2] >> 4, int.from_bytes(one.payload[4:6], "big")) for one in sent]

    def acknowledged(self, after_ns: int = 0) -> list[tuple[int, int]]:
        answers = self.poll(after_ns)
        assert {kind for _, kind, _ in answers} <= {ACK}
        return [(ip, rid) for ip, _, rid in answers]

    def close(self) -> None:
        self.engine.close()
        self.network.close()


def announce(rid: int, packets: int) -> bytes:
    return packet(0, 1, rid, b"fourteen bytes", last=False, order=packets)


def rest(rid: int, packets: int) -> list[bytes]:
    return [
        packet(0, 1, rid, bytes(limits.PAYLOAD_BYTES_MAX), first=False, last=i == packets - 1, order=i)
        for i in range(1, packets)
    ]


def test_what_one_address_has_on_its_way_is_bounded_and_the_next_come_as_the_first_are_whole() -> None:
    """101 packets each: 5 of them fit in half of 1,024, as 100 each are to come."""
    outside = Outside()
    outside.send(STRANGER, *(announce(rid, 101) for rid in range(8)))
    assert outside.acknowledged() == [(STRANGER[0], rid) for rid in range(SHARE // 100)]
    assert outside.acknowledged(1000) == []
    outside.send(STRANGER, *rest(3, 101))
    assert outside.acknowledged() == [(STRANGER[0], 5)], "one is whole: the next may come"
    outside.send(STRANGER, *rest(0, 101)[:87])
    assert outside.acknowledged() == [], "413 are to come: 100 more would be 513"
    outside.send(STRANGER, rest(0, 101)[87])
    assert outside.acknowledged() == [(STRANGER[0], 6)]
    assert outside.engine.counters()["rx_requests_waited"] == 2
    outside.close()


def test_addresses_take_turns() -> None:
    outside = Outside()
    outside.send(STRANGER, *(announce(rid, 251) for rid in range(4)))
    assert outside.acknowledged() == [(STRANGER[0], 0), (STRANGER[0], 1)]
    outside.send(OTHER, *(announce(rid, 251) for rid in range(10, 14)))
    assert outside.acknowledged() == [(OTHER[0], 10), (OTHER[0], 11)], "it has its own share"
    outside.send(STRANGER, *rest(0, 251))
    outside.send(OTHER, *rest(10, 251))
    assert outside.acknowledged() == [(STRANGER[0], 2), (OTHER[0], 12)]
    outside.close()


def test_what_does_not_come_makes_room_after_a_while_and_may_still_come() -> None:
    outside = Outside()
    outside.send(STRANGER, *(announce(rid, 254) for rid in range(4)))
    assert len(outside.acknowledged()) == 2
    assert outside.acknowledged(limits.GRANT_OVERDUE_NS - 20_000) == []
    assert outside.acknowledged(40_000) == [(STRANGER[0], 2), (STRANGER[0], 3)]
    outside.send(STRANGER, *rest(0, 254))
    outside.poll()
    assert outside.engine.counters()["rx_requests"] == 1
    outside.close()


def test_one_that_was_given_up_is_acknowledged_again_when_it_is_announced_again() -> None:
    outside = Outside()
    outside.send(STRANGER, announce(1, 254))
    assert outside.acknowledged() == [(STRANGER[0], 1)]
    outside.send(STRANGER, *(announce(rid, 254) for rid in (2, 3)))
    assert outside.acknowledged() == [(STRANGER[0], 2)]
    assert outside.acknowledged(limits.GRANT_OVERDUE_NS + 10_000) == [(STRANGER[0], 3)]
    outside.send(STRANGER, announce(1, 254))
    assert outside.acknowledged() == [(STRANGER[0], 1)]
    outside.close()


def test_waiting_for_a_grant_counts_against_no_time_limit_once_it_is_given() -> None:
    """The one that waited longest has the whole time for its packets."""
    outside = Outside(reassembly_timeout_ns=8_000_000)
    outside.send(STRANGER, *(announce(rid, 254) for rid in range(4)))
    outside.poll()
    assert outside.acknowledged(6_000_000) == [(STRANGER[0], 2), (STRANGER[0], 3)]
    outside.poll(6_000_000)
    assert outside.engine.counters()["rx_expired_halves"] == 2, "the first two"
    outside.send(STRANGER, *rest(2, 254))
    outside.poll()
    assert outside.engine.counters()["rx_requests"] == 1
    outside.close()


def test_a_second_grant_begins_no_new_time() -> None:
    """Else whoever announces a message again and again, one datagram each time, would keep its half for ever."""
    outside = Outside(reassembly_timeout_ns=20_000_000)
    outside.send(STRANGER, announce(1, 254), *rest(1, 254)[:1])
    outside.poll()
    for rid in range(2, 7):
        outside.poll(limits.GRANT_OVERDUE_NS + 10_000)
        outside.send((OTHER[0] + rid, 1), announce(rid, 2))  # somebody waits: what is overdue is given up
        outside.poll()
        outside.send(STRANGER, announce(1, 254))
        outside.poll()
    outside.send(STRANGER, *rest(1, 254)[1:])
    outside.poll()
    assert outside.engine.counters()["rx_requests"] == 0
    outside.close()


def test_announced_again_while_it_waits_it_is_acknowledged_once() -> None:
    outside = Outside()
    outside.send(STRANGER, *(announce(rid, 254) for rid in range(3)))
    assert len(outside.acknowledged()) == 2
    for _ in range(5):
        outside.send(STRANGER, announce(2, 254))
        assert outside.acknowledged() == []
    outside.send(STRANGER, *rest(0, 254))
    assert outside.acknowledged() == [(STRANGER[0], 2)]
    outside.close()


def forged(outside: Outside, number: int) -> None:
    """The first packet of a request of 254 that nobody sends, each from an address of its own."""
    outside.network.inject((0x0B000000 + number, 1), SERVER, announce(1, 254))


@pytest.mark.parametrize("a_ms", [1, 2, 9, 60])
def test_announcements_that_nobody_means_do_not_keep_an_honest_sender_waiting(a_ms: int) -> None:
    """1,000 to 60,000 a second: where the table is far from full, what never comes would use up the bound."""
    outside = Outside()
    done, asked_ms, longest_ms = 0, 0, 0
    for ms in range(1000):
        for i in range(a_ms):
            forged(outside, a_ms * ms + i)
        if ms - asked_ms in (0, 20, 40, 60):
            outside.send(STRANGER, announce(done, 3))
        if (STRANGER[0], done) in outside.acknowledged(1_000_000):
            outside.send(STRANGER, *rest(done, 3))
            longest_ms = max(longest_ms, ms - asked_ms)
            done, asked_ms = done + 1, ms + 1
    assert done > 900
    assert longest_ms < 20
    outside.close()


def granted_at_once(outside: Outside, rid: int) -> int:
    """How many of eight long requests, each from an address of its own, are acknowledged in one poll."""
    for i in range(8):
        outside.send((0x0C000000 + 8 * rid + i, 1), announce(rid, 254))
    return sum(ip >= 0x0C000000 for ip, _ in outside.acknowledged())


def test_as_soon_as_much_comes_the_bound_holds_again_though_forged_announcements_go_on() -> None:
    outside = Outside()
    for number in range(60):
        forged(outside, number)
        outside.poll(1_000_000)
    assert granted_at_once(outside, 1) == 8, "what came before was announced and did not come"
    for i in range(8):
        outside.send((0x0C000008 + i, 1), *rest(1, 254))
    outside.poll()
    outside.send(OTHER, announce(2, 254))
    outside.poll()
    outside.send(OTHER, *rest(2, 254))
    outside.poll()
    outside.poll(limits.GRANT_OVERDUE_NS + 10_000)
    assert granted_at_once(outside, 3) == 4
    outside.close()


def test_senders_that_are_stopped_for_a_moment_do_not_void_the_bound() -> None:
    outside = Outside()
    assert granted_at_once(outside, 1) == 4
    assert len(outside.acknowledged(limits.GRANT_OVERDUE_NS + 10_000)) == 4
    outside.send(STRANGER, announce(1, 2))
    outside.poll(limits.GRANT_OVERDUE_NS + 10_000)
    assert granted_at_once(outside, 2) == 4
    outside.close()


def test_what_comes_late_has_come() -> None:
    """Twice as much as the bound is overdue when it comes, and more of the same after it: nobody forges anything."""
    outside = Outside()
    for rid in range(1, 7):
        assert granted_at_once(outside, rid) == 4
        outside.poll(limits.GRANT_OVERDUE_NS + 10_000)
        for i in range(8):
            outside.send((0x0C000000 + 8 * rid + i, 1), *rest(rid, 254))
        for _ in range(4):
            outside.poll()
    outside.close()


def test_a_thousand_long_requests_at_once_lose_nothing() -> None:
    """65 kB each, far more than the network's buffers hold: none is dropped, and nothing is sent twice."""
    with pair(reassembly_count_max=4096) as (network, server, caller):
        payloads = {tag: bytes([tag % 251]) * 65_000 for tag in range(1000)}
        for tag, payload in payloads.items():
            caller.call(tag, payload, ms=10_000)
        network.run([server, caller], 1_000_000_000)
        assert {status for status, _ in caller.ended.values()} == {DONE_OK}
        assert {tag: payload for tag, (_, payload) in caller.ended.items()} == payloads
        assert server.engine.counters()["rx_duplicate_packets"] == 0


# ---- what will not be taken need not come ----


def replicated(rid: int, size: int, sequence: int = 1, client_id: int = 77) -> bytes:
    """The first packet of a session's request of so many packets."""
    whole = session_packets(rid, client_id, sequence, 1, b"")
    return whole[:3] + b"\x80" + whole[4:6] + size.to_bytes(2, "big") + whole[8:]


def test_a_full_log_refuses_a_long_request_at_its_first_packet() -> None:
    outside = Outside(log_bytes_max=2000)
    outside.engine.set_role(ROLE_LEADER)
    outside.send(STRANGER, replicated(5, 40))
    assert outside.poll() == [(STRANGER[0], ACK, 5)]
    outside.send(OTHER, *(session_packets(rid, 8, rid, 1, bytes(1000)) for rid in (1, 2, 3)))
    assert outside.poll() == [(OTHER[0], DROP, 3)]
    outside.send(STRANGER, replicated(6, 40, sequence=2))
    assert outside.poll() == [(STRANGER[0], DROP, 6)]
    assert outside.engine.counters()["drops_log_full"] == 2
    outside.close()


@pytest.mark.parametrize("role", [ROLE_LEADER, ROLE_FOLLOWER])
def test_a_long_request_that_was_taken_is_not_refused_when_its_first_packet_comes_again(role: int) -> None:
    """It fills the last place itself: the network's copy of its first packet finds none."""
    outside = Outside(backlog_entries_max=1, hold_bytes_max=5000)
    outside.engine.set_role(role)
    first, *others = request_packets(7, bytes(3000), policy=2)
    outside.send(STRANGER, first)
    assert outside.poll() == [(STRANGER[0], ACK, 7)]
    outside.send(STRANGER, *others)
    assert outside.poll() == []
    for _ in range(3):
        outside.send(STRANGER, first)
        assert outside.poll() == [(STRANGER[0], ACK, 7)], "as if there were room"
    outside.send(OTHER, first)
    assert outside.poll() == [(OTHER[0], DROP, 7)], "somebody else's"
    outside.send(STRANGER, request_packets(7, b"another" * 500, policy=2)[0])
    assert outside.poll() == [(STRANGER[0], DROP, 7)], "another one under its number"
    assert outside.poll(60_000_000) == []
    outside.send(STRANGER, first)
    assert outside.poll() == [(STRANGER[0], DROP, 7)], "long afterwards it is a new one"
    outside.close()


def test_a_long_request_on_its_way_is_not_refused_when_its_first_packet_comes_again() -> None:
    outside = Outside(backlog_entries_max=1)
    outside.engine.set_role(ROLE_LEADER)
    first, *others = request_packets(7, bytes(3000), policy=2)
    outside.send(STRANGER, first)
    assert outside.poll() == [(STRANGER[0], ACK, 7)]
    outside.send(OTHER, packet(0, 2, 1, b"fills the backlog"))
    assert outside.poll() == []
    outside.send(STRANGER, first)
    assert outside.poll() == [(STRANGER[0], ACK, 7)]
    outside.engine.apply_prepare(outside.engine.log_last_index, 10)
    outside.engine.apply_reply([b"done"], send=False)
    outside.send(STRANGER, *others)
    assert outside.poll() == []
    assert outside.engine.log_last_index == 2, "and it was taken"
    outside.close()


def test_a_sessions_long_request_that_comes_again_when_it_was_whole_is_refused_like_any_other() -> None:
    """Its client takes no DROP for the end, and it would not be known for a duplicate before it is in the log."""
    outside = Outside(backlog_entries_max=1)
    outside.engine.set_role(ROLE_LEADER)
    first = replicated(2, 3)
    outside.send(STRANGER, first)
    outside.poll()
    outside.send(OTHER, packet(0, 2, 1, b"fills the backlog"))
    outside.poll()
    outside.send(STRANGER, first)
    assert outside.poll() == [(STRANGER[0], ACK, 2)], "it is on its way"
    outside.engine.apply_prepare(outside.engine.log_last_index, 10)
    outside.engine.apply_reply([b"done"], send=False)
    outside.send(STRANGER, *request_rest(2))
    assert outside.poll() == []
    outside.send(STRANGER, first)
    assert outside.poll() == [(STRANGER[0], DROP, 2)]
    outside.close()


def test_a_server_without_a_group_refuses_a_long_replicated_request_at_its_first_packet() -> None:
    outside = Outside()
    outside.send(STRANGER, replicated(5, 40))
    assert outside.poll() == [(STRANGER[0], DROP, 5)]
    assert outside.engine.counters()["drops_no_service"] == 1
    outside.close()


def test_a_follower_whose_hold_is_full_refuses_a_long_request_at_its_first_packet() -> None:
    outside = Outside(hold_bytes_max=100_000)
    outside.engine.set_role(ROLE_FOLLOWER)
    outside.send(STRANGER, replicated(5, 60))
    assert outside.poll() == [(STRANGER[0], ACK, 5)]
    outside.send(STRANGER, replicated(6, 80, sequence=2))
    assert outside.poll() == [(STRANGER[0], DROP, 6)]
    assert outside.engine.counters()["drops_hold_full"] == 1
    outside.close()


def test_a_long_request_that_was_executed_is_answered_at_its_first_packet() -> None:
    """Its client's retry: the kept reply, and none of the request's packets comes again."""
    outside = Outside()
    engine = outside.engine
    engine.set_role(ROLE_LEADER)
    outside.send(STRANGER, session_packets(1, 0, 0, 0, b""))  # opens a session
    outside.poll()
    engine.apply_prepare(engine.log_last_index, 10)
    engine.apply_reply([], send=False)
    client_id = engine.log_last_index
    first = replicated(2, 3, client_id=client_id)
    outside.send(STRANGER, first)
    assert outside.poll() == [(STRANGER[0], ACK, 2)]
    outside.send(STRANGER, *request_rest(2))
    outside.poll()
    requests, _ = engine.apply_prepare(engine.log_last_index, 10)
    assert len(requests) == 1
    engine.apply_reply([b"done"], send=False)
    outside.send(STRANGER, first)
    assert outside.poll() == [(STRANGER[0], 1, 2)], "a response, no ACK"
    assert engine.counters()["sessions_answered_early"] == 1
    outside.close()


def request_rest(rid: int) -> list[bytes]:
    return [packet(0, 2, rid, bytes(1464), first=False, last=i == 2, order=i) for i in (1, 2)]
