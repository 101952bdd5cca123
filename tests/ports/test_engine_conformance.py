"""Whole request-response pairs over each port: the same engine, the same answers (docs/wire.md is the contract).

`outsider` is a bare port in the hands of the test: it sees and sends datagrams byte by byte, as a foreign
implementation would.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2p2 import limits
from r2p2.engine import DONE_DROPPED, DONE_OK, DONE_TIMEOUT, Completion, Engine, EngineConfig
from r2p2.errors import EngineError, RequestTooLarge
from r2p2.requests import DROP, Replies, ReplySequence, Requests
from tests.ports.worlds import WAIT_S, Address, Endpoint, MemWorld, World

FIXED_ROUTE = 1
GOLDEN_REQUEST = bytes.fromhex("cc0800c00001000131323334")
GOLDEN_RESPONSE = bytes.fromhex("cc0811c00001000131323334")

REQUEST, RESPONSE, FEEDBACK, ACK, DROPPED, RAFT_REQ = range(6)
FIRST, LAST = 0x80, 0x40


def packet(kind: int, rid: int, payload: bytes, flags: int = FIRST | LAST, order: int = 1, policy: int = 1) -> bytes:
    """One R2P2 packet, made without the engine."""
    return bytes([0xCC, 8, kind << 4 | policy, flags]) + rid.to_bytes(2, "big") + order.to_bytes(2, "big") + payload


def request_packets(rid: int, payload: bytes, policy: int = 0) -> list[bytes]:
    """A multi-packet request: 14 bytes, then full packets."""
    parts = [payload[:14]] + [payload[i : i + 1464] for i in range(14, len(payload), 1464)]
    return split(REQUEST, rid, parts, policy)


def response_packets(rid: int, payload: bytes) -> list[bytes]:
    """A multi-packet response: full packets."""
    return split(RESPONSE, rid, [payload[i : i + 1464] for i in range(0, len(payload), 1464)], 1)


def split(kind: int, rid: int, parts: list[bytes], policy: int) -> list[bytes]:
    """Packets of these parts."""
    count = len(parts)
    return [
        packet(kind, rid, part, FIRST if i == 0 else LAST if i == count - 1 else 0, i or count, policy)
        for i, part in enumerate(parts)
    ]


def payload_of(size: int) -> bytes:
    """Bytes in which every misplaced piece shows."""
    return random.Random(size).randbytes(size)


Handler = Callable[[Requests], ReplySequence]


def echo(requests: Requests) -> ReplySequence:
    """Each request back."""
    return list(requests)


class Net:
    """A server engine, a client engine and an outsider in one world."""

    def __init__(self, world: World, server: EngineConfig | None = None) -> None:
        self.world = world
        self.server_end, self.client_end, self.outsider = (world.open(8192) for _ in range(3))
        self.server = Engine(self.server_end.port_address, server)
        self.client = Engine(self.client_end.port_address)
        self.local_port = self.client_end.address.port
        self.client.client_open(self.local_port)
        self.handler: Handler = echo
        self.served: list[bytes] = []
        self.ended: list[Completion] = []
        self.seen: list[tuple[bytes, Address]] = []

    def call(
        self, payload: bytes, tag: int = 0, target: Address | None = None, timeout_ms: int = 2000, policy: int = 0
    ) -> int:
        """Begin a call of the client, to the server unless told otherwise; returns the rid."""
        to = target or self.server_end.address
        timeout_ns = timeout_ms * limits.MS
        rid = self.client.call(
            self.local_port, (to.ip, to.port), payload, policy=policy, timeout_ns=timeout_ns, tag=tag
        )
        self.client.flush()
        return rid

    def turn(self) -> None:
        """One poll of everybody; the server answers, the outsider looks."""
        if self.server.poll()[2]:
            requests = self.server.requests()
            self.served += requests
            self.server.reply(self.handler(requests))
            self.server.flush()
        self.client.poll()
        self.ended += self.client.completions()
        self.seen += [(got.data, got.source) for got in self.outsider.receive_now()]
        self.outsider.release()

    def until(self, condition: Callable[[], bool]) -> None:
        """Turns until the condition holds; fails the test after a while."""
        deadline = time.monotonic() + WAIT_S
        while True:
            self.turn()
            if condition():
                return
            assert time.monotonic() < deadline, f"ended {self.ended[:2]}, seen {self.seen[:2]}, {self.nonzero()}"
            self.world.wait_any([self.server_end, self.client_end, self.outsider], 5)

    def settle(self) -> None:
        """Until a datagram sent now has come back: whatever was under way before it has been handled."""
        self.outsider.send((self.server_end.address, packet(REQUEST, 0xFFFF, b"settle")))
        self.until(lambda: any(data == packet(RESPONSE, 0xFFFF, b"settle") for data, _ in self.seen))
        self.seen = [(data, source) for data, source in self.seen if data[8:] != b"settle"]
        self.served.remove(b"settle")

    def outsider_sends(self, *packets: bytes, target: Address | None = None) -> None:
        """In one burst, to the server unless told otherwise."""
        self.outsider.send(*((target or self.server_end.address, data) for data in packets))

    def answer(self) -> Completion:
        """The end of the only call."""
        self.until(lambda: len(self.ended) == 1)
        return self.ended.pop()

    def nonzero(self) -> dict[str, dict[str, int]]:
        """Counters that count something, by side."""
        sides = {"server": self.server, "client": self.client}
        return {side: {n: v for n, v in engine.counters().items() if v} for side, engine in sides.items()}

    def close(self) -> None:
        """Engines, then ports; every buffer must be back."""
        self.server.close()
        self.client.close()
        assert [self.world.close_endpoint(end) for end in (self.server_end, self.client_end)] == [0, 0]


@pytest.fixture
def net(world: World) -> Iterator[Net]:
    """A Net over each port in turn."""
    made = Net(world)
    yield made
    made.close()


SIZES = [0, 1, 14, 15, 1463, 1464, 1465, 1478, 1479, 2928, 2942, 2943, 50_000, 370_405, 370_406]


@pytest.mark.parametrize("size", SIZES)
def test_an_echo_of_any_size_comes_back_whole(net: Net, size: int) -> None:
    payload = payload_of(size)
    net.call(payload, tag=77)
    ended = net.answer()
    assert (ended.status, ended.tag) == (DONE_OK, 77)
    assert ended.payload == payload
    assert Address(ended.source_ip, ended.source_port) == net.server_end.address
    assert net.served == [payload]
    drops = {n: v for side in net.nonzero().values() for n, v in side.items() if "drop" in n or "bad" in n}
    assert drops == {}


@pytest.mark.parametrize("size", [0, 1464, 1465, 370_407, 371_855, 371_856])
def test_a_response_of_any_size_arrives_whole(net: Net, size: int) -> None:
    payload = payload_of(size)
    net.handler = lambda requests: [payload] * len(requests)
    net.call(b"?")
    ended = net.answer()
    assert (ended.status, ended.payload) == (DONE_OK, payload)


def test_the_golden_request_gets_the_golden_response(net: Net) -> None:
    net.outsider_sends(GOLDEN_REQUEST)
    net.until(lambda: len(net.seen) == 1)
    assert net.seen == [(GOLDEN_RESPONSE, net.server_end.address)]


def test_what_a_client_sends_is_the_golden_request(net: Net) -> None:
    assert net.call(b"1234", target=net.outsider.address) == 1
    net.until(lambda: len(net.seen) == 1)
    assert net.seen == [(GOLDEN_REQUEST, net.client_end.address)]


def test_a_request_too_large_is_refused_before_anything_is_sent(net: Net) -> None:
    before = net.client.counters()
    with pytest.raises(RequestTooLarge, match=r"370407.*370406"):
        net.call(bytes(370_407))
    assert net.client.counters() == before


def test_a_long_request_waits_for_its_ack_and_goes_where_that_came_from(net: Net, world: World) -> None:
    router, payload = world.open(), payload_of(5000)
    rid = net.call(payload, target=router.address)
    (first,) = router.receive(1)
    assert first.data == request_packets(rid, payload)[0]
    assert len(first.data) == 8 + 14
    # A router has passed the request on to the outsider, which answers for itself.
    net.settle()
    assert net.seen == [], "nothing more before the ACK"
    net.outsider_sends(packet(ACK, rid, b"ACK"), target=first.source)
    net.until(lambda: len(net.seen) == 4)
    assert [data for data, _ in net.seen] == request_packets(rid, payload)[1:]
    net.outsider_sends(packet(ACK, rid, b"ACK"), packet(RESPONSE, rid, b"done"), target=first.source)
    ended = net.answer()
    assert (ended.payload, ended.source_port) == (b"done", net.outsider.address.port)
    net.settle()
    assert len(net.seen) == 4, "a second ACK sends nothing again"


def test_the_first_packet_of_a_long_request_is_acknowledged_every_time_it_comes(net: Net) -> None:
    first = request_packets(9, payload_of(3000))[0]
    net.outsider_sends(first)
    net.until(lambda: len(net.seen) == 1)
    net.outsider_sends(first)  # the ACK was lost
    net.until(lambda: len(net.seen) == 2)
    assert net.seen == [(packet(ACK, 9, b"ACK"), net.server_end.address)] * 2
    assert net.served == []


@pytest.mark.parametrize("seed", range(5))
def test_packets_of_a_request_may_come_in_any_order_and_twice(net: Net, seed: int) -> None:
    payload = payload_of(20_000)
    packets = request_packets(9, payload) * 2
    random.Random(seed).shuffle(packets)
    # The second whole set may begin anew after the first is complete, so cut it off there.
    wanted = set(request_packets(9, payload))
    while len(wanted) > 0:
        data = packets.pop()
        wanted.discard(data)
        net.outsider_sends(data)
    net.until(lambda: len(net.served) == 1)
    assert net.served == [payload]


@pytest.mark.parametrize("seed", range(3))
def test_packets_of_a_response_may_come_in_any_order_from_anywhere(net: Net, seed: int) -> None:
    payload = payload_of(20_000)
    rid = net.call(b"?", target=Address(net.server_end.address.ip, 1))
    packets = response_packets(rid, payload)
    random.Random(seed).shuffle(packets)
    net.outsider_sends(*packets, target=net.client_end.address)
    ended = net.answer()
    assert (ended.status, ended.payload) == (DONE_OK, payload)


def test_two_requests_of_one_client_do_not_mix(net: Net) -> None:
    a, b = payload_of(4000), payload_of(4001)
    for one, other in zip(request_packets(1, a), request_packets(2, b), strict=True):
        net.outsider_sends(one, other)
    net.until(lambda: len(net.served) == 2)
    assert net.served == [a, b]


def test_a_new_first_packet_replaces_a_stale_half(net: Net) -> None:
    stale, fresh = payload_of(4000), payload_of(5000)
    net.outsider_sends(*request_packets(9, stale)[:2], *request_packets(9, fresh))
    net.until(lambda: len(net.served) == 1)
    assert net.served == [fresh]
    assert net.server.counters()["rx_replaced_halves"] == 1


def test_a_half_message_expires(net: Net, world: World) -> None:
    net.outsider_sends(*request_packets(9, payload_of(5000))[:2])
    net.until(lambda: net.server.counters()["rx_expired_halves"] == 1)
    net.outsider_sends(*request_packets(9, payload_of(5000))[2:])
    net.settle()
    assert net.served == []


def test_a_header_extension_is_skipped(net: Net) -> None:
    extended = bytes([0xCC, 32]) + GOLDEN_REQUEST[2:8] + bytes(24) + b"1234"
    net.outsider_sends(extended)
    net.until(lambda: len(net.seen) == 1)
    assert net.seen[0][0] == GOLDEN_RESPONSE


def test_a_drop_ends_the_call_at_once(net: Net) -> None:
    net.handler = lambda requests: [DROP] * len(requests)
    net.call(b"no")
    assert net.answer().status == DONE_DROPPED
    assert net.client.counters()["client_dropped"] == 1
    assert net.server.counters()["drops_application"] == 1


def test_a_replicated_request_without_a_group_is_dropped(net: Net) -> None:
    for policy in (2, 3):
        net.call(b"x", policy=policy)
        assert net.answer().status == DONE_DROPPED
    assert net.server.counters()["drops_no_service"] == 2


def test_no_answer_is_a_timeout_and_a_late_one_is_counted(net: Net) -> None:
    rid = net.call(b"?", target=net.outsider.address, timeout_ms=20)
    assert net.answer().status == DONE_TIMEOUT
    net.outsider_sends(packet(RESPONSE, rid, b"late"), target=net.client_end.address)
    net.until(lambda: net.client.counters()["rx_unmatched"] == 1)
    assert net.ended == []
    assert net.client.counters()["client_timeouts"] == 1


def test_a_rid_that_timed_out_is_not_used_again_at_once(net: Net) -> None:
    rid = net.call(b"?", target=net.outsider.address, timeout_ms=5)
    assert net.answer().status == DONE_TIMEOUT
    rids = {net.call(b"!") for _ in range(100)}
    assert rid not in rids
    net.until(lambda: len(net.ended) == 100)


def test_many_calls_wait_at_once_and_answers_match_their_calls(net: Net) -> None:
    for tag in range(1000):
        net.call(tag.to_bytes(4, "big"), tag=tag)
    net.until(lambda: len(net.ended) == 1000)
    assert {ended.tag: ended.payload for ended in net.ended} == {tag: tag.to_bytes(4, "big") for tag in range(1000)}
    assert net.client.counters()["rx_unmatched"] == 0


def test_request_ids_wrap(net: Net) -> None:
    count = 65_536 + 500
    started = 0
    rids = []
    while len(net.ended) < count:
        while started < count and started - len(net.ended) < 256:
            rids.append(
                net.client.call(
                    net.local_port,
                    (net.server_end.address.ip, net.server_end.address.port),
                    b"",
                    policy=0,
                    timeout_ns=10 * limits.SECOND,
                    tag=started,
                )
            )
            started += 1
        net.client.flush()
        net.turn()
        net.world.wait_any([net.server_end], 0)
    assert rids[0] == 1
    assert len(set(rids[:65_536])) == 65_536
    assert all(ended.status == DONE_OK for ended in net.ended)


def test_replies_laid_out_by_the_application_are_checked(net: Net) -> None:
    from array import array

    net.outsider_sends(GOLDEN_REQUEST)
    while not net.server.poll()[2]:
        net.world.wait_any([net.server_end], 5)
    for wrong in (Replies(b"12", array("I", [3])), Replies(b"1234", array("I", [2, 2])), Replies(b"", array("I"))):
        with pytest.raises(EngineError):
            net.server.reply(wrong)
    net.server.reply([b"1234"])
    net.server.flush()
    net.until(lambda: net.seen == [(GOLDEN_RESPONSE, net.server_end.address)])


def first(order: int, flags: int = FIRST, payload: bytes = b"x" * 14) -> bytes:
    """A FIRST request packet of a message of `order` packets."""
    return packet(REQUEST, 5, payload, flags, order)


BAD = {
    "empty": (b"", "rx_bad_short"),
    "seven bytes": (GOLDEN_REQUEST[:7], "rx_bad_short"),
    "foreign": (b"GET / HTTP/1.1\r\n\r\n", "rx_bad_magic"),
    "header size 7": (b"\xcc\x07" + GOLDEN_REQUEST[2:], "rx_bad_header_size"),
    "header size beyond the end": (b"\xcc\x0d" + GOLDEN_REQUEST[2:], "rx_bad_header_size"),
    "type 8": (packet(8, 1, b"x"), "rx_bad_type"),
    "type 15": (packet(15, 1, b"x"), "rx_bad_type"),
    "policy 4": (packet(REQUEST, 1, b"x", policy=4), "rx_bad_policy"),
    "unknown flag": (packet(REQUEST, 1, b"x", flags=FIRST | LAST | 1), "rx_bad_flags"),
    "first alone, but last too": (first(2, FIRST | LAST), "rx_bad_flags"),
    "one packet, not last": (first(1, FIRST), "rx_bad_flags"),
    "no packets": (first(0, FIRST | LAST), "rx_bad_order"),
    "255 packets": (first(255), "rx_bad_order"),
    "65535 packets": (first(65535), "rx_bad_order"),
    "index 0": (packet(REQUEST, 5, b"x", 0, 0), "rx_bad_order"),
    "index 254": (packet(REQUEST, 5, b"x", LAST, 254), "rx_bad_order"),
    "no payload in a part": (first(3, payload=b""), "rx_bad_length"),
    "ACK in parts": (packet(ACK, 5, b"ACK", FIRST, 2), "rx_bad_flags"),
    "ACK of nothing": (packet(ACK, 5, b"ACK"), "rx_unmatched"),
    "DROP of nothing": (packet(DROPPED, 5, b"DROP"), "rx_unmatched"),
    "response to nothing": (packet(RESPONSE, 5, b"x"), "rx_unmatched"),
    "part of a response to nothing": (packet(RESPONSE, 5, b"x" * 1464, FIRST, 2), "rx_unmatched"),
    "FEEDBACK": (packet(FEEDBACK, 5, bytes(8)), "rx_unexpected"),
    "Raft without a group": (packet(RAFT_REQ, 5, bytes(56)), "rx_unexpected"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_datagrams_are_dropped_under_their_reason(net: Net, name: str) -> None:
    data, counter = BAD[name]
    for end, engine in ((net.server_end, net.server), (net.client_end, net.client)):
        before = engine.counters()
        net.world.outsider_sends(end.address, data)
        net.until(lambda e=engine, b=before: e.counters()[counter] == b[counter] + 1)  # type: ignore[misc]
        changed = {n for n, v in engine.counters().items() if v != before[n]}
        assert changed == {counter, "rx_packets", *(["rx_bytes"] if data else [])}
    net.settle()
    assert (net.seen, net.served, net.ended) == ([], [], [])


def test_an_oversize_datagram_is_counted_by_the_port(net: Net) -> None:
    net.world.outsider_sends(net.server_end.address, GOLDEN_REQUEST + bytes(1472))
    net.settle()
    assert net.server.counters()["rx_drop_truncated"] == 1
    assert net.served == []


def test_random_bytes_are_always_counted_and_never_break_the_service(net: Net) -> None:
    chance = random.Random(1)
    for number in range(600):
        data = chance.randbytes(chance.choice([0, 1, 7, 8, 9, 22, 100, 1472]))
        if number % 2 and len(data) >= 8:
            # Past the first checks, so that the deeper ones are reached.
            data = bytes([0xCC, chance.choice([8, 8, 9, 40])]) + bytes([chance.randrange(8) << 4]) + data[3:]
        net.outsider_sends(data)  # an empty one is not sent
        if number % 50 == 49:
            net.settle()
    net.settle()
    counters = net.server.counters()
    assert sum(v for n, v in counters.items() if n.startswith("rx_bad_")) > 200
    net.call(b"still there")
    assert net.answer().payload == b"still there"


@pytest.fixture
def small_net(world: World) -> Iterator[Net]:
    """A Net whose server keeps few halves, and for longer than it takes to send them on a machine with other work."""
    made = Net(world, EngineConfig(reassembly_count_max=256, reassembly_timeout_ns=1500 * limits.MS))
    yield made
    made.close()


def test_a_flood_of_halves_is_held_to_its_quota_and_others_pass(small_net: Net) -> None:
    # What one source address may hold. On loopback the client has the same one.
    net, quota = small_net, 256 // limits.SOURCE_SHARE
    on_loopback = net.client_end.address.ip == net.outsider.address.ip
    for rid in range(quota + 50):
        net.outsider_sends(packet(REQUEST, rid, b"x" * 14, FIRST, 254))
        if rid % 50 == 49:
            net.turn()
    net.until(lambda: net.server.counters()["rx_drop_source_quota"] == 50)
    net.call(b"single packets pass")
    assert net.answer().payload == b"single packets pass"
    if not on_loopback:
        net.call(payload_of(5000))
        assert net.answer().payload == payload_of(5000)
    net.until(lambda: net.server.counters()["rx_expired_halves"] == quota)
    net.call(payload_of(6000))
    assert net.answer().payload == payload_of(6000)


def test_who_is_at_his_quota_pushes_out_nobody(probe_module: ModuleType) -> None:
    world = MemWorld(probe_module)
    end = world.open()
    engine = Engine(end.port_address, EngineConfig(reassembly_count_max=8))
    sources = range(0x0A000100, 0x0A000104)
    half = packet(REQUEST, 1, b"x" * 14, FIRST, 3)

    def send(ip: int, rid: int) -> None:
        data = half[:4] + rid.to_bytes(2, "big") + half[6:]
        assert world.lib.r2p2_mem_switch_inject(world.switch, ip, 5, end.address.ip, 9000, data, len(data)) == 0
        world.wait(end)
        engine.poll()

    for ip in sources:
        for rid in (1, 2):
            send(ip, rid)
    assert engine.counters()["rx_drop_source_quota"] == engine.counters()["rx_evicted_halves"] == 0
    send(sources[3], 3)
    assert engine.counters()["rx_drop_source_quota"] == 1
    assert engine.counters()["rx_evicted_halves"] == 0
    send(0x0A000200, 1)
    assert engine.counters()["rx_evicted_halves"] == 1, "the table is full: the oldest half of one packet gives way"
    engine.close()
    world.close()


# ---- a bad network: only the in-memory port can have one on order ----


MESSAGES_COUNT = int(os.environ.get("R2P2_MESSAGES", "3000"))
"""Calls of the test under loss; a million by hand: ``R2P2_MESSAGES=1000000 pytest --timeout 3600 -s -k under_loss
tests/ports``, which prints the counts."""


def pump(world: MemWorld, ends: Sequence[Endpoint], turn: Callable[[], None], done: Callable[[], bool]) -> None:
    """Turns until done; a bounded number."""
    for _ in range(100 * (MESSAGES_COUNT + 1000)):
        turn()
        if done():
            return
        world.wait_any(ends, 1)
    raise AssertionError("not done")


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    sizes=st.lists(
        st.one_of(st.integers(0, 4000), st.integers(0, limits.REQUEST_BYTES_MAX), st.sampled_from(SIZES)),
        min_size=1,
        max_size=8,
    ),
    duplicate_ppm=st.sampled_from([0, 100_000, 1_000_000]),
    reorder_ppm=st.sampled_from([0, 500_000, 1_000_000]),
)
def test_without_loss_every_message_arrives_whole_whatever_the_order_and_duplication(
    probe_module: ModuleType, seed: int, sizes: list[int], duplicate_ppm: int, reorder_ppm: int
) -> None:
    world = MemWorld(probe_module)
    net = Net(world)
    world.lib.r2p2_mem_switch_faults(world.switch, 0, duplicate_ppm, reorder_ppm, 0, 50_000)
    payloads = [payload_of(size) for size in sizes]
    for tag, payload in enumerate(payloads):
        net.call(payload, tag=tag)
    pump(world, [], net.turn, lambda: len(net.ended) == len(payloads))
    assert {ended.tag: ended.status for ended in net.ended} == dict.fromkeys(range(len(payloads)), DONE_OK)
    assert [ended.payload for ended in sorted(net.ended)] == payloads
    assert set(net.served) == set(payloads), "no mixture of two messages was ever served"
    net.close()
    world.close()


@pytest.mark.parametrize("seed", range(3))
def test_under_loss_every_call_ends_once_and_every_buffer_comes_back(probe_module: ModuleType, seed: int) -> None:
    world = MemWorld(probe_module)
    net = Net(world)
    world.lib.r2p2_mem_switch_faults(world.switch, 10_000, 10_000, 10_000, 1_000, 20_000)
    chance = random.Random(seed)
    count, started = MESSAGES_COUNT, 0
    waiting: dict[int, bytes] = {}
    statuses = {DONE_OK: 0, DONE_TIMEOUT: 0}

    def turn() -> None:
        nonlocal started
        while started < count and len(waiting) < 64:
            waiting[started] = payload_of(chance.choice([0, 64, 64, 64, 1464, 3000, 20_000]) + started % 5)
            net.call(waiting[started], tag=started, timeout_ms=30)
            started += 1
        net.turn()
        # Judged and forgotten at once: a million of them do not fit into memory.
        for ended in net.ended:
            payload = waiting.pop(ended.tag)  # KeyError: a call ended twice
            statuses[ended.status] += 1
            assert ended.status != DONE_OK or ended.payload == payload
        net.ended.clear()
        net.served.clear()

    pump(world, [], turn, lambda: started == count and not waiting)
    assert sum(statuses.values()) == count
    assert statuses[DONE_OK] > count * 0.8
    counters = net.client.counters()
    assert counters["client_calls"] == count
    assert counters["rx_responses"] == statuses[DONE_OK]
    assert counters["client_timeouts"] == statuses[DONE_TIMEOUT]
    # What was sent to an engine arrived there or was lost on the way, and nothing else arrived.
    totals = world.probe_module.ffi.new("r2p2_mem_counts *")
    pump(world, [], net.turn, lambda: world.lib.r2p2_mem_switch_next_ns(world.switch) == 2**64 - 1)
    world.lib.r2p2_mem_switch_counts(world.switch, totals)
    sides = [net.server.counters(), net.client.counters()]
    assert totals.sent == sum(side["tx_packets"] for side in sides)
    assert totals.delivered == sum(side["rx_packets"] for side in sides)
    assert totals.sent + totals.duplicated == totals.delivered + totals.lost
    assert min(totals.lost, totals.duplicated, totals.reordered) > 0
    print(
        f"\n{count:,} messages: {statuses[DONE_OK]:,} answered, {statuses[DONE_TIMEOUT]:,} timed out; "
        f"of {totals.sent:,} datagrams {totals.lost:,} lost, {totals.duplicated:,} duplicated, "
        f"{totals.reordered:,} reordered"
    )
    net.close()
    world.close()
