"""UdpPort as Python sees it: addresses, several UDP ports, errors in words, the kernel's drops, nothing left open."""

from __future__ import annotations

import errno
import os
import select
import socket

import pytest

import uv_backend
from r2p2 import PortSpec, UserError, open_port
from uv_backend import PortablePort
from uv_backend.port import UdpPort

pytestmark = pytest.mark.needs("linux")


Port = type[UdpPort] | type[PortablePort]
either = pytest.mark.parametrize("kind", [UdpPort, PortablePort])


def open_files() -> int:
    """File descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


@either
def test_the_kernel_chooses_a_port_that_can_be_read_back(kind: Port) -> None:
    with kind("127.0.0.1") as port:
        ip, number = port.local_address
        assert (ip, number > 0) == ("127.0.0.1", True)
        assert port.local_ports == (number,)
        assert repr(port) == f"{kind.__name__}(127.0.0.1:{number})"


@either
def test_a_given_port_is_taken(kind: Port) -> None:
    with kind("127.0.0.1") as free:
        number = free.local_address[1]
    with kind("127.0.0.1", number) as port:
        assert port.local_address == ("127.0.0.1", number)


def test_fileno_is_readable_exactly_when_a_datagram_waits_on_any_udp_port() -> None:
    with UdpPort("127.0.0.1", extra_ports=(0, 0)) as port, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        assert len(set(port.local_ports)) == 3
        assert select.select([port.fileno()], [], [], 0)[0] == []
        other.sendto(b"x", ("127.0.0.1", port.local_ports[2]))
        assert select.select([port.fileno()], [], [], 5)[0] == [port.fileno()]


@either
def test_an_address_in_use_says_so_and_what_to_do(kind: Port) -> None:
    before = open_files()
    with kind("127.0.0.1") as port:
        number = port.local_address[1]
        with pytest.raises(OSError, match=rf"127\.0\.0\.1:{number}.*in use.*choose another") as caught:
            kind("127.0.0.1", number)
        assert caught.value.errno == errno.EADDRINUSE
    assert open_files() == before


def test_a_further_udp_port_in_use_changes_nothing() -> None:
    with UdpPort("127.0.0.1") as port:
        with pytest.raises(OSError, match="in use"):
            port.add_port(port.local_ports[0])
        assert len(port.local_ports) == 1


@either
def test_an_address_that_is_not_ours_says_so(kind: Port) -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.1:9000.*no interface") as caught:
        kind("192.0.2.1", 9000)
    assert caught.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"port": 65536}, "65536"),
        ({"port": -1}, "-1"),
        ({"ip": "::1"}, "::1"),
        ({"ip": "localhost"}, "localhost"),
        ({"buffers_count": 63}, "63"),
        ({"rcvbuf_bytes": -1}, "rcvbuf_bytes"),
        ({"extra_ports": (70000,)}, "70000"),
    ],
)
def test_bad_arguments_are_value_errors_with_the_value(arguments: dict[str, object], words: str) -> None:
    before = open_files()
    with pytest.raises(ValueError, match=words):
        UdpPort(**arguments)  # type: ignore[arg-type]
    assert open_files() == before


def test_close_is_final_repeatable_and_leaves_no_file_open() -> None:
    before = open_files()
    port = UdpPort("127.0.0.1", extra_ports=(0, 0))
    assert open_files() == before + 4, "three sockets and an epoll instance"
    assert port.close() == 0
    assert open_files() == before
    assert port.close() == 0
    assert port.closed
    assert repr(port) == "UdpPort(closed)"
    for use in (port.fileno, port.counters, lambda: port.address, lambda: port.local_ports, port.add_port):
        with pytest.raises(ValueError, match="closed"):
            use()


@either
def test_close_is_final_and_repeatable(kind: Port) -> None:
    before = open_files()
    port = kind("127.0.0.1")
    assert (port.close(), port.close()) == (0, 0)
    assert (port.closed, repr(port)) == (True, f"{kind.__name__}(closed)")
    assert open_files() == before
    for use in (port.fileno, port.counters, lambda: port.address, lambda: port.local_address):
        with pytest.raises(ValueError, match="closed"):
            use()


@pytest.mark.parametrize(
    ("ip", "port", "count", "words"),
    [("::1", 0, 64, "::1"), ("127.0.0.1", 65536, 64, "65536"), ("127.0.0.1", 0, 63, "63")],
)
def test_the_portable_port_checks_its_arguments_too(ip: str, port: int, count: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PortablePort(ip, port, buffers_count=count)


def test_the_package_gives_the_fast_port_here_and_the_portable_one_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert uv_backend.UdpPort is UdpPort
    with uv_backend.open_port() as port:
        assert isinstance(port, UdpPort)
    monkeypatch.setattr("sys.platform", "darwin")
    with uv_backend.open_port() as port:
        assert isinstance(port, PortablePort)
    with pytest.raises(AttributeError, match="TcpPort"):
        uv_backend.TcpPort  # noqa: B018


def test_a_failing_extra_port_leaves_no_file_open() -> None:
    with UdpPort("127.0.0.1") as taken:
        before = open_files()
        with pytest.raises(OSError, match="in use"):
            UdpPort("127.0.0.1", extra_ports=(0, taken.local_address[1]))
        assert open_files() == before


def test_the_number_of_udp_ports_is_bounded() -> None:
    with UdpPort("127.0.0.1", extra_ports=(0,) * 63, buffers_count=64, rcvbuf_bytes=0) as port:
        assert len(set(port.local_ports)) == 64
        with pytest.raises(OSError, match="as many UDP ports"):
            port.add_port()


def test_what_the_kernel_drops_is_counted_without_reading() -> None:
    with UdpPort("127.0.0.1", rcvbuf_bytes=4096) as port, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        for _ in range(200):
            other.sendto(bytes(1000), port.local_address)
        dropped = port.counters()["rx_drop_kernel"]
        assert 150 < dropped < 200
        assert port.counters()["rx_drop_kernel"] == dropped, "counted once"


def test_the_receive_buffer_grows_when_asked() -> None:
    with UdpPort(rcvbuf_bytes=65536) as small, UdpPort(rcvbuf_bytes=131072) as large:
        assert small.rcvbuf_bytes == 2 * 65536
        assert large.rcvbuf_bytes == 2 * 131072


def test_any_address_is_address_zero() -> None:
    with UdpPort("0.0.0.0") as port, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        assert port.local_address[0] == "0.0.0.0"
        other.sendto(b"x", ("127.0.0.1", port.local_address[1]))
        assert select.select([port.fileno()], [], [], 5)[0]


@pytest.mark.parametrize("backend", ["uv", "portable"])
def test_a_port_by_name_says_what_is_wrong_with_its_address(backend: str) -> None:
    with pytest.raises(UserError, match="'localhost' is not an IPv4 address"):
        open_port(PortSpec(backend, "localhost"))
    with pytest.raises(UserError, match=r"UDP port is 70000, not in 0\.\.65535"):
        open_port(PortSpec(backend, "127.0.0.1", 70_000))
