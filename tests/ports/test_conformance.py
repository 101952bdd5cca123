"""What every port must do, the same tests over each (r2p2/csrc/r2p2_port.h is the contract)."""

from __future__ import annotations

import pytest

from tests.ports.worlds import Address, Endpoint, World

DATAGRAM_BYTES_MAX = 1472
BURST_MAX = 64


def numbered(count: int, size: int = 8) -> list[bytes]:
    """Payloads that differ, of growing length."""
    return [i.to_bytes(4, "big") + bytes([i % 251]) * (size - 4 + i % 7) for i in range(count)]


def assert_no_drops(endpoint: Endpoint) -> None:
    """No counter of a drop or failure is up."""
    assert {name: value for name, value in endpoint.nonzero().items() if "drop" in name or "failed" in name} == {}


def test_a_datagram_arrives_with_its_bytes_and_addresses(world: World) -> None:
    a, b = world.open(), world.open()
    assert a.send((b.address, b"hello")) == 1
    (got,) = b.receive(1)
    assert got.data == b"hello"
    assert got.source == a.address
    assert got.local_port == b.address.port
    assert a.nonzero() == {"tx_packets": 1, "tx_bytes": 5}
    assert b.nonzero() == {"rx_packets": 1, "rx_bytes": 5}


def test_an_answer_to_the_source_address_comes_back(world: World) -> None:
    a, b = world.open(), world.open()
    a.send((b.address, b"ping"))
    (request,) = b.receive(1)
    b.send((request.source, b"pong"), local_port=request.local_port)
    (answer,) = a.receive(1)
    assert (answer.data, answer.source) == (b"pong", b.address)


def test_nothing_there_is_an_empty_burst(world: World) -> None:
    a = world.open()
    assert a.receive_now() == []
    assert a.nonzero() == {}


def test_a_burst_keeps_its_order(world: World) -> None:
    a, b = world.open(), world.open()
    payloads = numbered(BURST_MAX)
    assert a.send(*((b.address, data) for data in payloads)) == BURST_MAX
    assert [got.data for got in b.receive(BURST_MAX)] == payloads
    assert_no_drops(a)
    assert_no_drops(b)


def test_many_bursts_keep_their_order_and_every_buffer_comes_back(world: World) -> None:
    a, b = world.open(128), world.open(128)
    for _ in range(20):
        payloads = numbered(BURST_MAX, size=1000)
        assert a.send(*((b.address, data) for data in payloads)) == BURST_MAX
        assert [got.data for got in b.receive(BURST_MAX)] == payloads
    assert_no_drops(a)
    assert_no_drops(b)
    assert b.counters()["rx_packets"] == a.counters()["tx_packets"] == 20 * BURST_MAX
    assert world.close_endpoint(a) == 0
    assert world.close_endpoint(b) == 0


def test_a_burst_takes_no_more_than_asked(world: World) -> None:
    a, b = world.open(), world.open()
    a.send(*((b.address, data) for data in numbered(10)))
    world.wait(b)
    assert [len(b.receive_now(3)), len(b.receive_now(3))] == [3, 3]
    assert [got.data for got in b.receive(4)] == numbered(10)[6:]


def test_the_longest_datagram_arrives_whole(world: World) -> None:
    a, b = world.open(), world.open()
    data = bytes(i % 256 for i in range(DATAGRAM_BYTES_MAX))
    a.send((b.address, data))
    assert b.receive(1)[0].data == data


def test_an_empty_datagram_arrives_empty(world: World) -> None:
    b = world.open()
    source = world.outsider_sends(b.address, b"")
    (got,) = b.receive(1)
    assert (got.data, got.source) == (b"", source)
    assert b.nonzero() == {"rx_packets": 1}


@pytest.mark.parametrize("length", [DATAGRAM_BYTES_MAX + 1, 9000, 65507])
def test_a_longer_datagram_is_dropped_and_counted(world: World, length: int) -> None:
    b = world.open(64)
    world.outsider_sends(b.address, b"before")
    world.outsider_sends(b.address, bytes(length))
    world.outsider_sends(b.address, b"after")
    assert [got.data for got in b.receive(2)] == [b"before", b"after"]
    assert b.nonzero() == {"rx_packets": 2, "rx_bytes": 11, "rx_drop_truncated": 1}


def test_length_zero_hands_a_buffer_back_unsent(world: World) -> None:
    a, b = world.open(64), world.open(64)
    for _ in range(10):
        assert a.send((b.address, b""), (b.address, b"")) == 2
    a.send((b.address, b"sentinel"))
    assert [got.data for got in b.receive(1)] == [b"sentinel"]
    assert a.counters()["tx_packets"] == 1
    assert_no_drops(a)


def test_running_out_of_transmit_buffers_is_counted_and_passes(world: World) -> None:
    a, b = world.open(64), world.open(64)
    assert a.reserve(60) == 60
    assert_no_drops(a)
    assert a.reserve(10) == 4
    assert a.reserve(1) == 0
    assert a.counters()["tx_reserve_failed"] == 2
    assert a.send((b.address, b"no room")) == 0
    a.unreserve()
    assert a.send((b.address, b"room")) == 1
    assert [got.data for got in b.receive(1)] == [b"room"]


def test_held_buffers_keep_their_bytes_while_others_come_and_go(world: World) -> None:
    a, b = world.open(256), world.open(256)
    kept = numbered(20, size=100)
    a.send(*((b.address, data) for data in kept))
    assert len(b.receive(20, hold=True)) == 20
    for _ in range(5):
        a.send(*((b.address, bytes([0xEE]) * 100) for _ in range(30)))
        world.wait(b)
        # Received while the first ones are held; give back only at the end.
        b.receive_now(30)
    assert all(b.held_is(i, data) for i, data in enumerate(kept))
    b.release(backwards=True)
    a.send((b.address, b"again"))
    while b.receive(1)[-1].data != b"again":
        pass


def test_closing_says_how_many_buffers_the_engine_kept(world: World) -> None:
    a, b = world.open(), world.open()
    a.send((b.address, b"1"), (b.address, b"2"))
    assert len(b.receive(2, hold=True)) == 2
    assert b.reserve(3) == 3
    assert world.close_endpoint(b) == 5
    assert world.close_endpoint(a) == 0


def test_a_broadcast_reaches_every_target(world: World) -> None:
    a = world.open()
    others = [world.open() for _ in range(3)]
    a.broadcast(b"to all", [other.address for other in others])
    for other in others:
        (got,) = other.receive(1)
        assert (got.data, got.source) == (b"to all", a.address)
    assert a.nonzero() == {"tx_packets": 3, "tx_bytes": 18}


def test_a_broadcast_to_nobody_is_nothing(world: World) -> None:
    a = world.open()
    a.broadcast(b"to none", [])
    assert a.nonzero() == {}


def test_one_unreachable_target_costs_only_itself(world: World) -> None:
    a, b = world.open(), world.open()
    nowhere = world.unreachable()
    a.broadcast(b"x", [b.address, nowhere, b.address])
    a.send((nowhere, b"lost"), (b.address, b"y"), (nowhere, b"lost"), (nowhere, b"lost"), (b.address, b"z"))
    assert [got.data for got in b.receive(4)] == [b"x", b"x", b"y", b"z"]
    counters = a.counters()
    assert counters["tx_packets"] == 4
    assert counters["tx_drop_no_route"] + counters["tx_drop_error"] == 4


def test_a_datagram_too_long_to_send_costs_only_itself(world: World) -> None:
    a, b = world.open(), world.open()
    a.send((b.address, b"y"), (b.address, bytes(DATAGRAM_BYTES_MAX + 1)), (b.address, b"z"))
    a.broadcast(bytes(DATAGRAM_BYTES_MAX + 1), [b.address, b.address])
    assert [got.data for got in b.receive(2)] == [b"y", b"z"]
    assert a.nonzero() == {"tx_packets": 2, "tx_bytes": 2, "tx_drop_error": 3}


def test_sending_as_somebody_else_is_done_or_refused_and_counted(world: World) -> None:
    """A router sends so; what a kernel's socket cannot do must not go out under our own address."""
    a, b = world.open(), world.open()
    client = Address(0xC6336407, 5353)  # 198.51.100.7, nobody's here
    assert a.send_as(client, b.address, b"as another") == 1
    a.send((b.address, b"as ourselves"))
    if world.sends_as_others:
        forwarded, own = b.receive(2)
        assert (forwarded.data, forwarded.source) == (b"as another", client)
        assert_no_drops(a)
    else:
        (own,) = b.receive(1)
        assert a.nonzero() == {"tx_packets": 1, "tx_bytes": 12, "tx_drop_error": 1}
    assert (own.data, own.source) == (b"as ourselves", a.address)
    assert world.close_endpoint(a) == 0


def test_a_closed_receiver_is_not_fatal(world: World) -> None:
    a, b, c = world.open(), world.open(), world.open()
    gone = b.address
    world.close_endpoint(b)
    for _ in range(3):
        a.send((gone, b"to nobody"), (c.address, b"to somebody"))
    assert len(c.receive(3)) == 3
    c.send((a.address, b"back"))
    assert a.receive(1)[0].data == b"back"


def test_datagrams_to_oneself_arrive(world: World) -> None:
    a = world.open()
    a.send((a.address, b"me"))
    assert a.receive(1)[0].source == a.address


def test_the_clock_does_not_go_back(world: World) -> None:
    a = world.open()
    times = []
    for _ in range(100):
        world.wait(a) if a.poll_fd < 0 else None
        times.append(a.now_ns())
    assert times == sorted(times)
    assert times[-1] > times[0]
