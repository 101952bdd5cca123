"""Opens a port by the name of its backend, so that a program can take the backend as an argument.

The one place of r2p2 that names the backends, and only when one is asked for: importing this imports neither. What a
backend cannot do here it says as a :class:`~r2p2.errors.UserError` with the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol

from r2p2.errors import UserError

__all__ = ["BACKENDS", "Link", "OpenPort", "PortSpec", "open_port"]

BACKENDS = ("uv", "dpdk")


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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PortSpec:
        """From :func:`dataclasses.asdict`. KeyError, TypeError for anything else."""
        links = tuple(Link(**link) for link in values["links"])
        return cls(values["backend"], values["ip"], values["port"], links)


class OpenPort(Protocol):
    """What both backends' ports offer."""

    @property
    def address(self) -> int:
        """Of the ``struct r2p2_port``, for the engine."""

    @property
    def local_port(self) -> int:
        """The first UDP port."""

    def counters(self) -> dict[str, int]:
        """Drops by reason and the like."""

    def __enter__(self) -> OpenPort: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class _Opened:
    """A backend's port with the one number it lacks."""

    def __init__(self, port: Any, local_port: int) -> None:
        self._port = port
        self.local_port = local_port

    @property
    def address(self) -> int:
        return int(self._port.address)

    def counters(self) -> dict[str, int]:
        return dict(self._port.counters())

    def __enter__(self) -> _Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._port.close()


def open_port(spec: PortSpec) -> OpenPort:
    """Open it; leaving its `with` block closes it.

    Raises:
        UserError: no such backend, or the backend's own reason and remedy.
    """
    if spec.backend == "uv":
        return _open_udp(spec)
    if spec.backend == "dpdk":
        return _open_dpdk(spec)
    raise UserError(f"there is no backend {spec.backend!r}", f"Choose one of: {', '.join(BACKENDS)}.")


def _open_udp(spec: PortSpec) -> OpenPort:
    if spec.links:
        raise UserError("the uv backend uses the kernel's network and has no links", "Leave the links out.")
    try:
        from uv_backend.port import UdpPort
    except ImportError as error:
        raise UserError(f"the uv backend is not built: {error}", "pip install . again, or make setup.") from error
    try:
        port = UdpPort(spec.ip, spec.port)
    except OSError as error:
        raise UserError(error.strerror or str(error)) from error
    return _Opened(port, port.local_ports[0])


def _open_dpdk(spec: PortSpec) -> OpenPort:
    try:
        from dpdk_backend.devices import memif
        from dpdk_backend.errors import DpdkError
        from dpdk_backend.port import DpdkPort, PortConfig
    except ImportError as error:
        raise UserError(f"the dpdk backend is not here: {error}", "pip install . again, or make setup.") from error
    if not spec.links:
        raise UserError("the dpdk backend needs a link to somebody", "Name one link a peer.")
    try:
        devices = tuple(
            memif(index, link.socket_path, role=link.role, routes=(link.peer_ip,))
            for index, link in enumerate(spec.links)
        )
        port = DpdkPort(PortConfig(spec.ip, devices, local_port=spec.port))
    except DpdkError as error:
        raise UserError(str(error).partition("\n  remedy: ")[0], error.remedy) from error
    except ValueError as error:
        raise UserError(f"the dpdk backend: {error}") from error
    return _Opened(port, spec.port)
