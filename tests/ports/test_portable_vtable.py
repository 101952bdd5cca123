"""What only the portable port has: a layout repeated by hand, and a Python socket that can be made to fail."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from cffi_build import ROOT, c_declarations
from tests.ports.worlds import Endpoint, PortableWorld
from uv_backend import portable


class Failing:
    """A socket that raises what the script says, in order, before it does anything."""

    def __init__(self, real: Any, script: list[Exception | None]) -> None:
        self.real = real
        self.script = script

    def _next(self) -> None:
        error = self.script.pop(0) if self.script else None
        if error is not None:
            raise error

    def sendto(self, data: bytes, address: tuple[str, int]) -> int:
        self._next()
        return int(self.real.sendto(data, address))

    def recvfrom_into(self, view: memoryview, size: int) -> Any:
        self._next()
        return self.real.recvfrom_into(view, size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.fixture
def world(probe_module: ModuleType) -> Iterator[PortableWorld]:
    """A world over the portable port."""
    made = PortableWorld(probe_module)
    yield made
    made.close()


def fail(world: PortableWorld, endpoint: Endpoint, *script: Exception | None) -> None:
    """What the endpoint's next socket calls raise."""
    port = world.ports[endpoint.port_address]
    port._socket = Failing(port._socket, list(script))


def words(text: str) -> str:
    """Declarations without preprocessor lines, comments and layout."""
    return " ".join(re.sub(r"^#.*$", "", text, flags=re.MULTILINE).split())


def test_the_layout_is_the_headers() -> None:
    header = ROOT / "r2p2" / "csrc" / "r2p2_port.h"
    declared = words(c_declarations(header))
    names = tuple(re.findall(r"X\((\w+),", header.read_text()))
    assert names == portable.COUNTER_NAMES
    structs = re.findall(r"typedef struct \w+ \{.*?\} \w+;", declared)
    assert [s for s in structs if "r2p2_port_counters {" not in s] == re.findall(
        r"typedef struct \w+ \{.*?\} \w+;", words(portable.STRUCTS)
    )
    assert f"#define R2P2_PORT_ABI {portable.PORT_ABI}u" in header.read_text()


def test_a_full_socket_is_tried_again_then_the_rest_is_dropped(world: PortableWorld) -> None:
    a, b = world.open(), world.open()
    full = BlockingIOError(errno.EAGAIN, "full")
    fail(world, a, full, full, None, None, full, full, full)
    a.send(*((b.address, bytes([i])) for i in range(5)))
    assert [got.data for got in b.receive(2)] == [b"\0", b"\1"]
    assert a.nonzero() == {"tx_packets": 2, "tx_bytes": 2, "tx_drop_full": 3}
    a.send((b.address, b"again"))
    assert b.receive(1)[0].data == b"again"


def test_errors_of_sending_are_counted_by_kind(world: PortableWorld) -> None:
    a, b = world.open(), world.open()
    fail(world, a, OSError(errno.ENETUNREACH, "no route"), OSError(errno.EPERM, "no"), None)
    a.send(*((b.address, bytes([i])) for i in range(3)))
    assert b.receive(1)[0].data == b"\2"
    assert a.nonzero() == {"tx_packets": 1, "tx_bytes": 1, "tx_drop_no_route": 1, "tx_drop_error": 1}


def test_errors_of_receiving_cost_nothing_else(world: PortableWorld) -> None:
    a, b = world.open(), world.open()
    a.send((b.address, b"x"))
    world.wait(b)
    # What Windows says of an ICMP error, and of a datagram that was cut.
    fail(world, b, ConnectionResetError(errno.ECONNRESET, "reset"), OSError(10040, "cut"))
    assert [got.data for got in b.receive_now()] == [b"x"]
    b.release()
    assert b.nonzero() == {"rx_packets": 1, "rx_bytes": 1, "tx_drop_error": 1, "rx_drop_truncated": 1}


def test_a_socket_that_only_fails_is_not_asked_for_ever(world: PortableWorld) -> None:
    b = world.open()
    fail(world, b, *[OSError(errno.EIO, "broken")] * 100)
    assert b.receive_now() == []
    assert 0 < b.counters()["tx_drop_error"] < 20


def test_an_unknown_local_port_is_an_error_of_that_datagram(world: PortableWorld) -> None:
    a, b = world.open(), world.open()
    a.send((b.address, b"x"), (b.address, b"y"), local_port=[b.address.port, a.address.port])
    assert b.receive(1)[0].data == b"y"
    assert a.counters()["tx_drop_error"] == 1
