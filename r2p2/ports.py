"""Opens a port by the name of its backend, and drives a node over it, so that a program can take the backend as an
argument.

The one place of r2p2 that names the backends, and only when one is asked for: importing this imports neither. What a
backend cannot do here it says as a :class:`~r2p2.errors.UserError` with the remedy.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self

from r2p2.address import parse_ip
from r2p2.busy_loop import run_busy
from r2p2.driver import Pollable, WakeableFromThread
from r2p2.errors import UserError

__all__ = [
    "BACKENDS",
    "Link",
    "OpenPort",
    "PortSpec",
    "ReplayPort",
    "drive",
    "missing",
    "open_port",
    "open_replay_port",
    "start_driver",
]

BACKENDS = ("uv", "dpdk", "portable")
STOP_CHECK_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Link:
    """DPDK: shared memory (memif) to one other process of this machine. One end is the server of the socket."""

    socket_path: str
    role: Literal["server", "client"]
    peer_ip: str


@dataclass(frozen=True, slots=True)
class PortSpec:
    """Which backend, our IPv4 address and UDP port (uv: 0 lets the kernel choose), and for dpdk the links."""

    backend: str
    ip: str
    port: int = 0
    links: tuple[Link, ...] = ()
    vdevs: tuple[str, ...] = ()
    """DPDK: further devices as testpmd spells them, ``NAME,KEY=VALUE,...``; each may lead anywhere."""
    ports_count: int = 1
    """UDP ports to open, for clients with many calls; dpdk: ``port`` and those after it, uv: the kernel chooses the
    others.
    """
    further_port: int = 0
    """A second UDP port of ours; 0: none. DPDK: above ``port``, and all between them are open too."""
    pcis: tuple[str, ...] = ()
    """DPDK: NICs by their PCI addresses, bound to a driver of DPDK; each may lead anywhere."""
    hugepages: bool | None = None
    """DPDK: take memory from hugepages; None: for NICs, where enough of them are free."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PortSpec:
        """From :func:`dataclasses.asdict`. KeyError, TypeError for anything else."""
        links = tuple(Link(**link) for link in values["links"])
        further = values.get("ports_count", 1), values.get("further_port", 0)
        nics = tuple(values.get("pcis", ())), values.get("hugepages")
        return cls(
            values["backend"], values["ip"], values["port"], links, tuple(values.get("vdevs", ())), *further, *nics
        )


class OpenPort(Protocol):
    """What both backends' ports offer."""

    @property
    def address(self) -> int:
        """Of the ``struct r2p2_port``, for the engine."""

    @property
    def local_port(self) -> int:
        """The first UDP port."""

    @property
    def local_ports(self) -> tuple[int, ...]:
        """All of them."""

    def fileno(self) -> int:
        """A descriptor that is readable when datagrams wait; -1: the port must be polled."""

    def exhausted(self) -> bool:
        """Whether a capture that is being received has come to its end; never for ports to the world."""

    def counters(self) -> dict[str, int]:
        """Drops by reason and the like."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def missing(backend: str) -> UserError | None:
    """Why this machine cannot use a backend, with the remedy; None when it can, as far as is known before opening."""
    if backend != "dpdk":
        return None
    try:
        from dpdk_backend._native import load
        from dpdk_backend.errors import DpdkError
    except ImportError as error:
        return UserError(f"the dpdk backend is not here: {error}", "pip install . again, or make setup.")
    try:
        load()
    except DpdkError as error:
        return UserError(str(error).partition("\n  remedy: ")[0], error.remedy)
    return None


class _Opened:
    """A backend's port with its numbers."""

    def __init__(self, port: Any, local_ports: tuple[int, ...]) -> None:
        self._port = port
        self.engines: weakref.WeakSet[Closable] = weakref.WeakSet()
        self.local_ports = local_ports
        self.local_port = local_ports[0]

    @property
    def address(self) -> int:
        return int(self._port.address)

    def fileno(self) -> int:
        return int(self._port.fileno()) if hasattr(self._port, "fileno") else -1

    def exhausted(self) -> bool:
        return bool(self._port.exhausted()) if hasattr(self._port, "exhausted") else False

    def counters(self) -> dict[str, int]:
        return dict(self._port.counters())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for engine in list(self.engines):  # which would go on with memory that is no more
            engine.close()
        self._port.close()


class Closable(Protocol):
    """An engine or a router."""

    def close(self) -> None:
        """Idempotent."""


def open_port(spec: PortSpec) -> OpenPort:
    """Open it; leaving its `with` block closes it.

    Raises:
        UserError: no such backend, or the backend's own reason and remedy.
    """
    if spec.backend == "uv":
        return _open_udp(spec)
    if spec.backend == "portable":
        return _open_portable(spec)
    if spec.backend == "dpdk":
        return _open_dpdk(spec)
    raise UserError(f"there is no backend {spec.backend!r}", f"Choose one of: {', '.join(BACKENDS)}.")


def _open_udp(spec: PortSpec) -> OpenPort:
    if spec.links or spec.vdevs or spec.pcis:
        raise UserError(
            "the uv backend uses the kernel's network and has no devices", "Leave --link, --vdev and --pci out."
        )
    try:
        from uv_backend.port import UdpPort
    except ImportError as error:
        raise UserError(f"the uv backend is not built: {error}", "pip install . again, or make setup.") from error
    try:
        further = (spec.further_port,) if spec.further_port else ()
        port = UdpPort(spec.ip, spec.port, extra_ports=further + (0,) * (spec.ports_count - 1))
    except (OSError, ValueError) as error:
        raise _said_of(spec, error) from error
    return _Opened(port, port.local_ports)


def _said_of(spec: PortSpec, error: OSError | ValueError) -> UserError:
    """What kernel UDP has against it, in words."""
    if isinstance(error, OSError):
        return UserError(error.strerror or str(error))
    try:
        parse_ip(spec.ip)
    except UserError as about_ip:
        return about_ip
    return UserError(str(error))


def _open_portable(spec: PortSpec) -> OpenPort:
    """Kernel UDP in plain Python: slower, and without a compiled port."""
    if spec.links or spec.vdevs or spec.pcis or spec.further_port or spec.ports_count > 1:
        raise UserError("the portable backend has one socket and no devices", "Use --backend uv.")
    from uv_backend.portable import PortablePort

    try:
        port = PortablePort(spec.ip, spec.port)
    except (OSError, ValueError) as error:
        raise _said_of(spec, error) from error
    return _Opened(port, port.local_ports)


def _open_dpdk(spec: PortSpec) -> OpenPort:
    try:
        from dpdk_backend.devices import memif, pci, vdev
        from dpdk_backend.eal import EalConfig
        from dpdk_backend.errors import DpdkError
        from dpdk_backend.hugepages import free_mb
        from dpdk_backend.port import DpdkPort, PortConfig, memory_mb_for
    except ImportError as error:
        raise UserError(f"the dpdk backend is not here: {error}", "pip install . again, or make setup.") from error
    if not spec.links and not spec.vdevs and not spec.pcis:
        raise UserError("the dpdk backend needs a device", "Name a --link for each peer, a --vdev, or a --pci.")
    if 0 < spec.further_port <= spec.port:
        raise UserError(f"the dpdk backend opens UDP ports upwards, and {spec.further_port} is not above {spec.port}")
    ports_count = max(spec.ports_count, spec.further_port - spec.port + 1 if spec.further_port else 1)
    try:
        devices = tuple(
            memif(index, link.socket_path, role=link.role, routes=(link.peer_ip,))
            for index, link in enumerate(spec.links)
        ) + tuple(vdev(name, arguments) for name, _, arguments in (text.partition(",") for text in spec.vdevs))
        nics = tuple(map(pci, spec.pcis))
        config = PortConfig(spec.ip, devices + nics, local_port=spec.port, local_ports_count=ports_count)
        eal = None
        if nics or spec.hugepages:
            memory_mb = memory_mb_for(config)
            hugepages = spec.hugepages if spec.hugepages is not None else free_mb() >= memory_mb
            eal = EalConfig(memory_mb, hugepages=hugepages, pci_addresses=tuple(nic.name for nic in nics))
        port = DpdkPort(config, eal)
    except DpdkError as error:
        raise UserError(str(error).partition("\n  remedy: ")[0], error.remedy) from error
    except ValueError as error:
        raise UserError(f"the dpdk backend: {error}") from error
    return _Opened(port, tuple(range(spec.port, spec.port + spec.ports_count)))


class ReplayPort(OpenPort, Protocol):
    """A port over two captures, with the clock of its user (:mod:`r2p2.replay`)."""

    def advance(self, now_ns: int, frames_count: int) -> None:
        """Moves the clock and lets so many more frames of the capture in."""

    def frames_left(self) -> int:
        """Frames let in and not received yet."""

    def frames_sent(self) -> int:
        """Frames written so far."""


class _Replaying(_Opened):
    """:class:`ReplayPort` over DPDK's pcap device."""

    def advance(self, now_ns: int, frames_count: int) -> None:
        self._port.replay(now_ns, frames_count)

    def frames_left(self) -> int:
        return int(self._port.replay_left())

    def frames_sent(self) -> int:
        return int(self._port.stats().tx_packets)


def open_replay_port(
    address: tuple[str, int], rx_path: str, tx_path: str, *, mac: str | None, neighbours: Mapping[str, str]
) -> ReplayPort:
    """A port at ``address`` that receives one Ethernet capture and writes another, both nanosecond or microsecond pcap.

    ``mac``: its own, None: 02:00 and its address. ``neighbours``: IPv4 address -> MAC of hosts that need not be asked.

    Raises:
        UserError: no DPDK here, or the backend's own reason and remedy.
    """
    problem = missing("dpdk")
    if problem is not None:
        raise problem
    from dpdk_backend.devices import pcap
    from dpdk_backend.errors import DpdkError
    from dpdk_backend.port import DpdkPort, PortConfig

    ip, port = address
    try:
        device = pcap(0, rx_path=rx_path, tx_path=tx_path, mac=mac)
        opened = DpdkPort(PortConfig(ip, (device,), local_port=port, neighbours=neighbours, neighbour_seed=0))
    except DpdkError as error:
        raise UserError(str(error).partition("\n  remedy: ")[0], error.remedy) from error
    except ValueError as error:
        raise UserError(f"the dpdk backend: {error}") from error
    return _Replaying(opened, (port,))


class Drainable(Protocol):
    """A pollable with work of its own that can be brought to an end (:class:`r2p2.server.Server`)."""

    wake: Callable[[], None] | None

    def drain(self) -> None:
        """Takes nothing new from now on."""

    @property
    def drained(self) -> bool:
        """Whether nothing is at work."""


def drive(
    port: OpenPort,
    pollable: Pollable,
    stop: threading.Event,
    idle: str = "yield",
    drainable: Drainable | None = None,
    drain_seconds: float = 0.0,
) -> None:
    """Polls until ``stop`` is set: over asyncio where the port has a descriptor, else in a busy loop.

    Args:
        port: the pollable's.
        pollable: a node.
        stop: set by a signal handler; seen within a few milliseconds.
        idle: what the busy loop does when nothing comes, see :mod:`r2p2.busy_loop`.
        drainable: polled on after ``stop`` until it is drained, at most ``drain_seconds``.
        drain_seconds: how long a drain may take.

    Raises:
        Exception: what a poll raised.
    """
    if port.fileno() < 0:
        run_busy(pollable, stop, idle)
        if drainable is not None:
            drainable.drain()
            end = time.monotonic() + drain_seconds
            while not drainable.drained and time.monotonic() < end:
                pollable.poll_once()
        return
    from uv_backend.driver import run

    async def main() -> None:
        driver = start_driver(pollable, port)
        if drainable is not None:
            drainable.wake = driver.wake
        while not stop.is_set() and driver.running:
            await asyncio.sleep(STOP_CHECK_SECONDS)
        if drainable is not None and driver.running:
            drainable.drain()
            end = time.monotonic() + drain_seconds
            while not drainable.drained and time.monotonic() < end and driver.running:
                await asyncio.sleep(STOP_CHECK_SECONDS)
            if driver.running:  # the last reply may have asked for a poll that the stop would cancel
                pollable.poll_once()
        driver.stop()
        await driver.wait_closed()

    run(main())


def start_driver(pollable: Pollable, port: OpenPort) -> Any:
    """An :class:`uv_backend.driver.AsyncDriver` in the running event loop: started, to be stopped with its
    ``stop()``.
    """
    from uv_backend.driver import AsyncDriver

    driver = AsyncDriver(pollable, port.fileno())
    driver.start()
    if isinstance(pollable, WakeableFromThread):
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody polls any more
                loop.call_soon_threadsafe(driver.wake)

        pollable.wake_from_thread = wake
    return driver
