"""What only the kernel UDP port has: several UDP ports, separate pools, drops of the kernel seen while receiving."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.ports.worlds import Address, Endpoint, UdpWorld
from uv_backend.port import UdpPort

LOOPBACK = 0x7F000001
pytestmark = pytest.mark.needs("linux")


@pytest.fixture
def udp(probe_module: ModuleType) -> Iterator[UdpWorld]:
    """A world over kernel UDP."""
    made = UdpWorld(probe_module)
    yield made
    made.close()


def open_with(udp: UdpWorld, port: UdpPort) -> Endpoint:
    """An endpoint over a port made by the test; the world closes both."""
    udp.ports[port.address] = port
    udp.endpoints.append(Endpoint(udp, port.address))
    return udp.endpoints[-1]


def test_each_udp_port_receives_and_sends_as_itself(udp: UdpWorld) -> None:
    server = udp.open()
    port = UdpPort("127.0.0.1", extra_ports=(0, 0, 0))
    client = open_with(udp, port)
    for number in port.local_ports:
        client.send((server.address, b"from"), local_port=number)
    sources = [got.source for got in server.receive(4)]
    assert sources == [Address(LOOPBACK, number) for number in port.local_ports]
    for source in sources:
        server.send((source, source.port.to_bytes(2, "big")))
    answers = client.receive(4)
    assert sorted(got.local_port for got in answers) == sorted(port.local_ports)
    assert all(int.from_bytes(got.data, "big") == got.local_port for got in answers)


def test_one_burst_may_leave_through_several_udp_ports(udp: UdpWorld) -> None:
    server = udp.open()
    port = UdpPort("127.0.0.1", extra_ports=(0, 0))
    client = open_with(udp, port)
    x, y, z = port.local_ports
    order = [x, x, y, z, z, y, x]
    client.send(*((server.address, bytes([i])) for i in range(len(order))), local_port=order)
    received = server.receive(len(order))
    assert [(got.data[0], got.source.port) for got in received] == list(enumerate(order))


def test_local_port_zero_is_the_first_one(udp: UdpWorld) -> None:
    server = udp.open()
    port = UdpPort("127.0.0.1", extra_ports=(0,))
    client = open_with(udp, port)
    client.send((server.address, b"x"), local_port=0)
    assert server.receive(1)[0].source.port == port.local_ports[0]


def test_a_flood_on_one_udp_port_does_not_starve_another(udp: UdpWorld) -> None:
    server = udp.open()
    port = UdpPort("127.0.0.1", extra_ports=(0,))
    client = open_with(udp, port)
    flooded, quiet = (Address(LOOPBACK, number) for number in port.local_ports)
    for _ in range(10):
        server.send(*((flooded, b"flood") for _ in range(64)))
    server.send((quiet, b"quiet"))
    bursts = 0
    while not any(got.data == b"quiet" for got in client.receive_now()):
        client.release()
        bursts += 1
        assert bursts < 5, "ten bursts of the flood wait; the quiet one must not wait for them"
    client.release()


def test_an_unknown_local_port_is_an_error_of_that_datagram(udp: UdpWorld) -> None:
    a, b = udp.open(), udp.open()
    wrong = b.address.port
    a.send((b.address, b"x"), (b.address, b"x"), local_port=wrong)
    a.broadcast(b"x", [b.address], local_port=wrong)
    assert a.nonzero() == {"tx_drop_error": 3}
    a.send((b.address, b"y"))
    assert b.receive(1)[0].data == b"y"


def test_all_receive_buffers_held_leaves_datagrams_in_the_kernel(udp: UdpWorld) -> None:
    a = udp.open()
    b = open_with(udp, UdpPort("127.0.0.1", buffers_count=64, segmentation=False))
    for start in (0, 50):
        a.send(*((b.address, bytes([start + i])) for i in range(50)))
    held = b.receive(64, hold=True)
    assert b.receive_now() == []
    assert b.reserve(64) == 64, "the flood takes no room from answers"
    b.unreserve()
    b.release()
    rest = b.receive(36)
    assert [got.data for got in held + rest] == [bytes([i]) for i in range(100)]
    assert b.nonzero() == {"rx_packets": 100, "rx_bytes": 100}


def test_kernel_drops_show_while_receiving(udp: UdpWorld) -> None:
    port = UdpPort("127.0.0.1", rcvbuf_bytes=4096)
    b = open_with(udp, port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        for _ in range(200):
            other.sendto(bytes(1000), port.local_address)
        world_received = len(b.receive_now())
        b.release()
        other.sendto(b"tells of the drops before it", port.local_address)
        b.receive(1)
    assert b.counters()["rx_drop_kernel"] == 200 - world_received
    assert port.counters()["rx_drop_kernel"] == 200 - world_received, "looked at another way, counted once"


def test_kernel_drops_told_late_are_not_counted_again(udp: UdpWorld) -> None:
    port = UdpPort("127.0.0.1", rcvbuf_bytes=4096)
    b = open_with(udp, port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        received = 0
        for _ in range(2):
            # The second time around, what waits was queued after the first drops and before the next ones.
            for _ in range(100):
                other.sendto(bytes(1000), port.local_address)
            assert port.counters()["rx_drop_kernel"] > 50
            received += len(b.receive_now())
            b.release()
    assert b.counters()["rx_drop_kernel"] == 200 - received


def test_a_burst_of_truncated_datagrams_loses_no_buffer(udp: UdpWorld) -> None:
    b = udp.open(64)
    for number in range(300):
        udp.outsider_sends(b.address, bytes(1473 if number % 3 else 10))
        if number % 60 == 59:
            assert len(b.receive(20)) == 20
    assert b.counters()["rx_drop_truncated"] == 200
    assert udp.close_endpoint(b) == 0


def test_a_burst_of_refused_datagrams_does_not_look_like_none(udp: UdpWorld) -> None:
    b = udp.open()
    for _ in range(100):
        udp.outsider_sends(b.address, bytes(1473))
    udp.outsider_sends(b.address, b"behind them")
    udp.wait(b)
    assert [got.data for got in b.receive_now()] == [b"behind them"]
    b.release()


def test_the_names_of_counters_are_the_contract(udp: UdpWorld) -> None:
    b = udp.open()
    assert list(b.counters()) == list(udp.ports[b.port_address].counters())


def test_segmented_bursts_of_any_sizes_arrive_in_order(udp: UdpWorld) -> None:
    a, b, c = udp.open(), udp.open(), udp.open()
    sizes = [64] * 20 + [64, 30, 64, 64, 100, 100, 7, 1472, 1472, 1, 1472] + [1472] * 20
    payloads = [bytes([i]) * size for i, size in enumerate(sizes)]
    # Every tenth goes to another target: a run ends there.
    burst = [((c if i % 10 == 9 else b).address, data) for i, data in enumerate(payloads)]
    a.send(*burst)
    to_c = payloads[9::10]
    assert [got.data for got in b.receive(len(payloads) - len(to_c))] == [p for p in payloads if p not in to_c]
    assert [got.data for got in c.receive(len(to_c))] == to_c
    assert a.nonzero() == {"tx_packets": len(sizes), "tx_bytes": sum(sizes)}


def test_the_longest_datagrams_fill_several_messages(udp: UdpWorld) -> None:
    a, b = udp.open(), udp.open()
    payloads = [bytes([i]) * 1472 for i in range(64)]  # 94,208 bytes; a message has at most 65,507
    a.send(*((b.address, data) for data in payloads))
    assert [got.data for got in b.receive(64)] == payloads


def test_a_message_is_handed_over_in_as_many_bursts_as_asked(udp: UdpWorld) -> None:
    a, b = udp.open(), udp.open()
    a.send(*((b.address, bytes([i])) for i in range(64)))
    udp.wait(b)
    received = []
    for expected in [10] * 6 + [4, 0]:
        burst = b.receive_now(10)
        assert len(burst) == expected
        received += [got.data[0] for got in burst]
    assert received == list(range(64))
    b.release(backwards=True)


def test_a_plain_receiver_gets_a_segmented_burst_as_datagrams(udp: UdpWorld) -> None:
    a = udp.open()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.bind(("127.0.0.1", 0))
        plain.settimeout(5)
        a.send(*((Address(LOOPBACK, plain.getsockname()[1]), bytes([i]) * 50) for i in range(30)))
        assert [plain.recv(65535) for _ in range(30)] == [bytes([i]) * 50 for i in range(30)]


def test_a_message_of_datagrams_that_are_too_long_is_refused_one_by_one(udp: UdpWorld) -> None:
    b = udp.open(64)
    udp_segment = 103
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.IPPROTO_UDP, udp_segment, 2000)
        for _ in range(100):
            other.sendto(bytes(2000 * 4) + b"short", ("127.0.0.1", b.address.port))
            assert [got.data for got in b.receive(1)] == [b"short"]
    assert b.counters()["rx_drop_truncated"] == 400
    assert udp.close_endpoint(b) == 0
