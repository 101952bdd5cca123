"""The port tests' world over DPDK: endpoints of one process, each linked with each other by memif.

The EAL starts once a process and stays, so this world has a process of its own: tests/dpdk/test_dpdk_conformance.py
runs the conformance tests there with ``R2P2_PORT_WORLD=dpdk``. Links are made when an endpoint opens: it is the client
of all earlier ones and offers itself as server to as many later ones.
"""

from __future__ import annotations

import ipaddress
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import dpdk_backend as dpdk
from tests.ports.worlds import Address, Endpoint, World

ENDPOINTS_MAX = 5
LINK_WAIT_S = 20.0
"""How long a link may take where many processes share a core; only failing tests wait so long."""
OUTSIDER = Address(int(ipaddress.IPv4Address("192.0.2.9")), 5353)
_memif_numbers = itertools.count()


def address_of(number: int) -> str:
    """The IPv4 address of the n-th endpoint."""
    return f"10.0.0.{number + 1}"


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


class DpdkWorld(World):
    """Over memif; with ``R2P2_DPDK_HUGEPAGES=1`` out of hugepages."""

    def __init__(self, probe_module: ModuleType) -> None:
        super().__init__(probe_module)
        self._folder = tempfile.TemporaryDirectory(prefix="r2p2-")
        self._opened = 0
        self._wires: dict[int, dpdk.EthDev] = {}
        self.ports: dict[int, tuple[int, dpdk.DpdkPort]] = {}
        self.endpoints: list[Endpoint] = []
        if dpdk.eal_state() == "not started":
            hugepages = os.environ.get("R2P2_DPDK_HUGEPAGES") == "1"
            dpdk.start_eal(dpdk.EalConfig(memory_mb=192, hugepages=hugepages))

    def _link(self, low: int, high: int | str, role: str) -> dpdk.Device:
        path = str(Path(self._folder.name) / f"{low}-{high}")
        peer = address_of(low if role == "client" else high) if isinstance(high, int) else "192.0.2.9"
        assert role in ("server", "client")
        number = next(_memif_numbers)
        if role == "server":
            return dpdk.memif(number, path, role="server", routes=(peer,))
        return dpdk.memif(number, path, role="client", routes=(peer,))

    def open(self, buffers_count: int = 1024) -> Endpoint:
        number = self._opened
        assert number < ENDPOINTS_MAX
        self._opened += 1
        earlier = sorted(n for n, _ in self.ports.values())
        devices = [self._link(number, "outside", "server")]
        devices += [self._link(n, number, "client") for n in earlier]
        devices += [self._link(number, n, "server") for n in range(number + 1, ENDPOINTS_MAX)]
        config = dpdk.PortConfig(
            address_of(number),
            tuple(devices),
            local_ports_count=1024,
            mbufs_count=buffers_count,
        )
        port = dpdk.DpdkPort(config)
        self.ports[port.address] = (number, port)
        self.endpoints.append(Endpoint(self, port.address))
        for position, n in enumerate(earlier):
            other = next(p for m, p in self.ports.values() if m == n)
            # Of the other's devices: outside, its earlier ones, then its later ones in order.
            theirs = next(i for i, d in enumerate(other.config.devices) if f"/{n}-{number}," in str(d.args))
            self._await(lambda at=position + 1, them=other, i=theirs: port.link_up(at) and them.link_up(i))  # type: ignore[misc]
        return self.endpoints[-1]

    def _await(self, is_done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LINK_WAIT_S
        while not is_done():
            assert time.monotonic() < deadline, "a link does not come up"
            self._poll_all()
        self._poll_all()

    def _poll_all(self) -> None:
        """Links change, and clients offer buffers; nothing is received, since nothing is sent yet."""
        for _, port in self.ports.values():
            port.control()
            for datagram in port.receive():
                raise AssertionError(f"{datagram} came while a link was made")

    def close_endpoint(self, endpoint: Endpoint) -> int:
        self.endpoints.remove(endpoint)
        endpoint.free()
        _, port = self.ports.pop(endpoint.port_address)
        port.close()
        return port.leaked_mbufs

    def wait(self, endpoint: Endpoint) -> None:
        os.sched_yield()

    def wait_any(self, endpoints: Sequence[Endpoint], timeout_ms: int) -> None:
        os.sched_yield()

    def outsider_sends(self, target: Address, data: bytes) -> Address:
        number, port = next(
            v for v in self.ports.values() if v[0] == target.ip - int(ipaddress.IPv4Address("10.0.0.1"))
        )
        ip = bytearray.fromhex("45000000 00000000 40110000")
        ip += OUTSIDER.ip.to_bytes(4, "big") + target.ip.to_bytes(4, "big")
        ip[2:4] = (len(data) + 28).to_bytes(2, "big")
        ip[10:12] = checksum(bytes(ip)).to_bytes(2, "big")
        udp = OUTSIDER.port.to_bytes(2, "big") + target.port.to_bytes(2, "big") + (len(data) + 8).to_bytes(2, "big")
        mac = b"\x02\x00" + target.ip.to_bytes(4, "big")
        frame = mac + b"\x02\x00" + OUTSIDER.ip.to_bytes(4, "big") + b"\x08\x00" + bytes(ip) + udp + bytes(2) + data
        burst = dpdk.Burst()
        wire = self._wire(number, port)
        assert wire.write(burst, [frame]) == 1
        assert wire.send(burst) == 1
        return OUTSIDER

    def _wire(self, number: int, port: dpdk.DpdkPort) -> dpdk.EthDev:
        """The outsider's end of the n-th endpoint's first link."""
        if number not in self._wires:
            wire = dpdk.EthDev(self._link(number, "outside", "client"), mbufs_count=511)
            self._wires[number] = wire
            deadline = time.monotonic() + LINK_WAIT_S
            while not (wire.link_up and port.link_up(0)):
                assert time.monotonic() < deadline, "the outsider's link does not come up"
                wire.control()
                port.control()
        return self._wires[number]

    def unreachable(self) -> Address:
        return Address(int(ipaddress.IPv4Address("203.0.113.1")), 9000)

    def close(self) -> None:
        for endpoint in list(self.endpoints):
            self.close_endpoint(endpoint)
        for wire in self._wires.values():
            wire.close()
        self._folder.cleanup()
