"""The same small world over each port: endpoints that send and receive through the port's C functions.

What: :class:`World` and one subclass a port. A test written against it runs unchanged over all of them.
Leaves to others: what the ports must do (``test_conformance.py``).
"""

from __future__ import annotations

import ipaddress
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

WAIT_S = 5.0
"""How long a datagram may take on a loaded machine; only failing tests wait so long."""

SLAB_BYTES = 1 << 20


@dataclass(frozen=True)
class Address:
    """IPv4 and UDP port as integers."""

    ip: int
    port: int


@dataclass(frozen=True)
class Received:
    """One datagram as a port handed it over."""

    data: bytes
    source: Address
    local_port: int


class Endpoint:
    """One port with a probe in the engine's place."""

    def __init__(self, world: World, address: int) -> None:
        self.world = world
        self.port_address = address
        self._ffi = world.probe_module.ffi
        self._lib = world.probe_module.lib
        self.probe = self._lib.probe_new(address)
        assert self.probe != self._ffi.NULL, "the port speaks another ABI"
        self._slab = self._ffi.new("uint8_t[]", SLAB_BYTES)
        self._datagrams = self._ffi.new("probe_datagram[]", 64)

    @property
    def address(self) -> Address:
        """Where others reach it."""
        return Address(self._lib.probe_local_ip(self.probe), self._lib.probe_local_port(self.probe))

    @property
    def poll_fd(self) -> int:
        """-1 where the port must be polled."""
        return int(self._lib.probe_poll_fd(self.probe))

    def now_ns(self) -> int:
        """The port's clock."""
        return int(self._lib.probe_now_ns(self.probe))

    def counters(self) -> dict[str, int]:
        """All counters by name."""
        count = self._lib.probe_counters_count()
        values = self._ffi.new("uint64_t[]", count)
        self._lib.probe_counters(self.probe, values)
        names = (self._ffi.string(self._lib.probe_counter_name(i)).decode() for i in range(count))
        return dict(zip(names, values, strict=True))

    def nonzero(self) -> dict[str, int]:
        """The counters that count something."""
        return {name: value for name, value in self.counters().items() if value}

    def send(self, *datagrams: tuple[Address, bytes], local_port: int | Sequence[int] = 0) -> int:
        """One burst, at most 64, from one local port or one for each; returns how many buffers were reserved."""
        offset = 0
        from_ports = [local_port] * len(datagrams) if isinstance(local_port, int) else local_port
        for i, (target, data) in enumerate(datagrams):
            one = self._datagrams[i]
            one.ip, one.port, one.local_port = target.ip, target.port, from_ports[i]
            one.length, one.offset = len(data), offset
            offset += len(data)
        slab = b"".join(data for _, data in datagrams)
        return int(self._lib.probe_send(self.probe, self._datagrams, slab, len(datagrams)))

    def send_as(self, source: Address, target: Address, data: bytes) -> int:
        """One datagram with another's source; returns how many buffers were reserved."""
        one = self._datagrams[0]
        one.ip, one.port, one.local_port, one.length = target.ip, target.port, source.port, len(data)
        return int(self._lib.probe_send_as(self.probe, source.ip, self._datagrams, data))

    def broadcast(self, data: bytes, targets: Sequence[Address], local_port: int = 0) -> None:
        """The same bytes to each target."""
        for i, target in enumerate(targets):
            self._datagrams[i].ip, self._datagrams[i].port = target.ip, target.port
        self._lib.probe_broadcast(self.probe, data, len(data), local_port, self._datagrams, len(targets))

    def receive_now(self, maximum: int = 64) -> list[Received]:
        """One burst; its buffers stay held until :meth:`release`."""
        count = self._lib.probe_receive(self.probe, self._datagrams, self._slab, SLAB_BYTES, maximum)
        assert count <= maximum
        return [
            Received(
                bytes(self._ffi.buffer(self._slab + one.offset, one.length)),
                Address(one.ip, one.port),
                one.local_port,
            )
            for one in self._datagrams[0:count]
        ]

    def release(self, *, backwards: bool = False) -> None:
        """Give all held buffers back."""
        self._lib.probe_release(self.probe, backwards)

    def receive(self, count: int, *, hold: bool = False) -> list[Received]:
        """Bursts until `count` datagrams are there; fails the test after WAIT_S."""
        received: list[Received] = []
        deadline = time.monotonic() + WAIT_S
        while len(received) < count:
            assert time.monotonic() < deadline, f"{len(received)} of {count} datagrams arrived: {received[:3]}"
            self.world.wait(self)
            received += self.receive_now()
            if not hold:
                self.release()
        return received

    def held_is(self, index: int, data: bytes) -> bool:
        """Whether held buffer `index` still has these bytes."""
        return bool(self._lib.probe_held_is(self.probe, index, data, len(data)))

    def reserve(self, count: int) -> int:
        """Reserve and keep; returns how many there were."""
        return int(self._lib.probe_reserve(self.probe, count))

    def unreserve(self) -> None:
        """Hand everything reserved back unsent."""
        self._lib.probe_unreserve(self.probe)

    def free(self) -> None:
        """Free the probe."""
        self._lib.probe_free(self.probe)


class World:
    """Endpoints that reach each other, over one kind of port."""

    sends_as_others = True
    """Whether the port can send with another's source address."""

    def __init__(self, probe_module: ModuleType) -> None:
        self.probe_module: Any = probe_module

    def open(self, buffers_count: int = 1024) -> Endpoint:
        """One more endpoint; `buffers_count` datagrams may be reserved at once (of all endpoints, where they share)."""
        raise NotImplementedError

    def close_endpoint(self, endpoint: Endpoint) -> int:
        """Close it; returns the number of buffers it still held."""
        raise NotImplementedError

    def wait(self, endpoint: Endpoint) -> None:
        """Until a datagram may be there."""
        raise NotImplementedError

    def wait_any(self, endpoints: Sequence[Endpoint], timeout_ms: int) -> None:
        """Until a datagram may be there for one of them, or the time has passed."""
        raise NotImplementedError

    def outsider_sends(self, target: Address, data: bytes) -> Address:
        """A datagram of any size from somebody who is no port; returns the address it came from."""
        raise NotImplementedError

    def unreachable(self) -> Address:
        """An address no datagram gets to, and of which the sender learns at once."""
        raise NotImplementedError

    def close(self) -> None:
        """Close everything."""
        raise NotImplementedError


class MemWorld(World):
    """Over the in-memory switch. Its buffers are shared, so the first open() fixes their number."""

    def __init__(self, probe_module: ModuleType) -> None:
        super().__init__(probe_module)
        self.lib: Any = probe_module.lib
        self.switch: Any = None
        self.endpoints: list[Endpoint] = []
        self._next_ip = int(ipaddress.IPv4Address("10.0.0.1"))

    def open(self, buffers_count: int = 1024) -> Endpoint:
        if self.switch is None:
            self.switch = self.lib.r2p2_mem_switch_new(1, buffers_count)
        address = self.lib.r2p2_mem_port_open(self.switch, self._next_ip, 9000)
        assert address != 0
        self._next_ip += 1
        self.endpoints.append(Endpoint(self, address))
        return self.endpoints[-1]

    def close_endpoint(self, endpoint: Endpoint) -> int:
        self.endpoints.remove(endpoint)
        endpoint.free()
        return int(self.lib.r2p2_mem_port_close(self.switch, endpoint.port_address))

    def wait(self, endpoint: Endpoint) -> None:
        self.lib.r2p2_mem_switch_advance(self.switch, 1000)

    def wait_any(self, endpoints: Sequence[Endpoint], timeout_ms: int) -> None:
        now_ns = self.lib.r2p2_mem_switch_now_ns(self.switch)
        arrival_ns = self.lib.r2p2_mem_switch_next_ns(self.switch)
        self.lib.r2p2_mem_switch_advance(self.switch, max(0, min(arrival_ns - now_ns, timeout_ms * 1_000_000)))

    def outsider_sends(self, target: Address, data: bytes) -> Address:
        source = Address(int(ipaddress.IPv4Address("192.0.2.9")), 5353)
        status = self.lib.r2p2_mem_switch_inject(
            self.switch, source.ip, source.port, target.ip, target.port, data, len(data)
        )
        assert status == 0
        return source

    def unreachable(self) -> Address:
        return Address(int(ipaddress.IPv4Address("10.9.9.9")), 9000)

    def close(self) -> None:
        for endpoint in list(self.endpoints):
            self.close_endpoint(endpoint)
        if self.switch is not None:
            self.lib.r2p2_mem_switch_advance(self.switch, 10**12)  # what is still under way is for nobody now
            assert self.lib.r2p2_mem_switch_in_flight(self.switch) == 0, "a buffer was lost"
            self.lib.r2p2_mem_switch_free(self.switch)
            self.switch = None


class UdpWorld(World):
    """Over kernel UDP on loopback."""

    sends_as_others = False

    def __init__(self, probe_module: ModuleType) -> None:
        super().__init__(probe_module)
        self.ports: dict[int, Any] = {}
        self.endpoints: list[Endpoint] = []
        self._outsider = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._outsider.bind(("127.0.0.1", 0))

    def open_port(self, buffers_count: int) -> Any:
        """The port itself."""
        from uv_backend.port import UdpPort

        return UdpPort("127.0.0.1", buffers_count=buffers_count)

    def open(self, buffers_count: int = 1024) -> Endpoint:
        port = self.open_port(buffers_count)
        self.ports[port.address] = port
        self.endpoints.append(Endpoint(self, port.address))
        return self.endpoints[-1]

    def close_endpoint(self, endpoint: Endpoint) -> int:
        self.endpoints.remove(endpoint)
        endpoint.free()
        return int(self.ports.pop(endpoint.port_address).close())

    def wait(self, endpoint: Endpoint) -> None:
        select.select([endpoint.poll_fd], [], [], WAIT_S)

    def wait_any(self, endpoints: Sequence[Endpoint], timeout_ms: int) -> None:
        select.select([endpoint.poll_fd for endpoint in endpoints], [], [], timeout_ms / 1000)

    def outsider_sends(self, target: Address, data: bytes) -> Address:
        self._outsider.sendto(data, (str(ipaddress.IPv4Address(target.ip)), target.port))
        ip, port = self._outsider.getsockname()
        return Address(int(ipaddress.IPv4Address(ip)), port)

    def unreachable(self) -> Address:
        # A broadcast address is refused to a socket without SO_BROADCAST, whatever the routes of the machine.
        return Address(0xFFFFFFFF, 9000)

    def close(self) -> None:
        for endpoint in list(self.endpoints):
            self.close_endpoint(endpoint)
        self._outsider.close()


class PortableWorld(UdpWorld):
    """Over kernel UDP in plain Python."""

    def open_port(self, buffers_count: int) -> Any:
        from uv_backend.portable import PortablePort

        return PortablePort("127.0.0.1", buffers_count=buffers_count)


class PlainUdpWorld(UdpWorld):
    """Over kernel UDP, every datagram a message of its own: what kernels without segmentation do."""

    def open_port(self, buffers_count: int) -> Any:
        from uv_backend.port import UdpPort

        return UdpPort("127.0.0.1", buffers_count=buffers_count, segmentation=False)


WORLDS: dict[str, type[World]] = {
    "mem": MemWorld,
    "udp": UdpWorld,
    "udp_plain": PlainUdpWorld,
    "portable": PortableWorld,
}
"""The worlds a test runs over; dpdk_world.py's replaces them in a process of its own (conftest.py)."""
