"""A whole cluster, or a server, in one process and one event loop: for examples, notebooks and tests of applications.

Real nodes, real UDP sockets on loopback, real elections; only the processes are missing, so it shows no parallel
speed and cannot lose one member to a crash of the process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from r2p2.address import format_address, parse_ip
from r2p2.app import StateMachine
from r2p2.client import Client
from r2p2.errors import UserError
from r2p2.node import Node, NodeConfig, Timers
from r2p2.ports import OpenPort, PortSpec, open_port, start_driver
from r2p2.server import Server, ServerConfig, Service

__all__ = ["LocalCluster", "LocalServer"]

_READY_STEP_SECONDS: Final = 0.005

_log = logging.getLogger("r2p2.local")


async def _tell_end(what: str, driver: Any) -> None:
    """Waits until it is stopped; what ends it before is said when it does, while its clients wait."""
    try:
        await driver.wait_closed()
    except Exception as error:
        _log.error("%s has ended: %r", what, error, exc_info=error)


class LocalServer:
    """``async with LocalServer(service) as server, Client(server.address) as client: ...``.

    Args:
        service: the handlers.
        ip: where it listens, on a UDP port of the kernel's choice.
        config: bounds.
    """

    def __init__(self, service: Service, *, ip: str = "127.0.0.1", config: ServerConfig | None = None) -> None:
        self._service = service
        self._ip = ip
        self._config = config

    @property
    def address(self) -> str:
        """``IP:PORT``."""
        return format_address((parse_ip(self._ip), self._port.local_port))

    async def __aenter__(self) -> LocalServer:
        """Starts it."""
        self._port = open_port(PortSpec("uv", self._ip))
        try:
            self.server = Server(self._service, self._port.address, self._config, keep=self._port)
        except BaseException:
            self._port.__exit__(None, None, None)
            raise
        self._driver = start_driver(self.server, self._port)
        self._telling = asyncio.create_task(_tell_end(f"the server at {self.address}", self._driver))
        self.server.wake = self._driver.wake
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it; what is still at work is refused."""
        self._driver.stop()
        self.server.close()
        self._port.__exit__(None, None, None)


class LocalCluster:
    """``async with LocalCluster(Counter) as cluster, cluster.client() as client: ...``.

    Args:
        make_app: called once for each member.
        size: members.
        ip: where they listen, each on a UDP port of the kernel's choice.
        timers: Raft's.
        ready_timeout_s: how long to wait for the first leader, seconds.

    Attributes:
        nodes: the members, by slot.
    """

    def __init__(
        self,
        make_app: Callable[[], StateMachine],
        size: int = 3,
        *,
        ip: str = "127.0.0.1",
        timers: Timers | None = None,
        ready_timeout_s: float = 5.0,
        apply_thread: bool = False,
    ) -> None:
        if size < 1:
            raise UserError(f"size is {size}, not at least 1")
        self._make_app = make_app
        self._size = size
        self._ip = ip
        self._timers = timers or Timers()
        self._ready_timeout_s = ready_timeout_s
        self._apply_thread = apply_thread
        self._ports: list[OpenPort] = []
        self._drivers: list[Any] = []
        self._telling: set[asyncio.Task[None]] = set()
        self._members: dict[int, tuple[int, int]] = {}
        self.nodes: list[Node] = []

    @property
    def addresses(self) -> list[str]:
        """``IP:PORT`` of every member, by slot."""
        return [format_address((parse_ip(self._ip), port.local_port)) for port in self._ports]

    @property
    def leader(self) -> int | None:
        """The slot of the member that leads, if one does."""
        # A member may have ended by itself, and is what it was last.
        runs = [driver.running for driver in self._drivers]
        return next((i for i, node in enumerate(self.nodes) if runs[i] and node.is_leader), None)

    def client(self, *, timeout_s: float = 1.0, session: bool = False, spread_reads: bool = False) -> Client:
        """A client of all members, with options of :class:`~r2p2.client.Client`."""
        return Client(*self.addresses, bind=self._ip, timeout_s=timeout_s, session=session, spread_reads=spread_reads)

    def start_member(self, slot: int) -> None:
        """Starts a stopped member anew at its address: without its memory, so the others bring it up and let it in."""
        port = open_port(PortSpec("uv", self._ip, self._members[slot][1]))
        self._ports[slot] = port
        self._start(slot, port)

    def stop_member(self, slot: int) -> None:
        """Stops a member: its memory is gone, as after a crash. :meth:`start_member` brings it back."""
        self._drivers[slot].stop()
        self.nodes[slot].close()
        self._ports[slot].__exit__(None, None, None)

    async def __aenter__(self) -> LocalCluster:
        """Starts the members and waits for a leader.

        Raises:
            UserError: none was elected in time.
        """
        try:
            self._ports = [open_port(PortSpec("uv", self._ip)) for _ in range(self._size)]
            self._members = {i: (parse_ip(self._ip), port.local_port) for i, port in enumerate(self._ports)}
            for slot, port in enumerate(self._ports):
                self._start(slot, port)
            async with asyncio.timeout(self._ready_timeout_s):
                while self.leader is None:
                    await asyncio.sleep(_READY_STEP_SECONDS)
        except BaseException as error:
            self._stop()
            if isinstance(error, TimeoutError):
                raise UserError(f"no leader after {self._ready_timeout_s} s") from error
            raise
        return self

    def _start(self, slot: int, port: OpenPort) -> None:
        config = NodeConfig(node_id=slot, members=self._members, timers=self._timers, apply_thread=self._apply_thread)
        node = Node(config, port.address, self._make_app(), keep=port)
        self.nodes[slot : slot + 1] = [node]
        driver = start_driver(node, port)
        self._drivers[slot : slot + 1] = [driver]
        task = asyncio.create_task(_tell_end(f"member {slot}", driver))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops everything."""
        self._stop()

    def _stop(self) -> None:
        for driver in self._drivers:
            driver.stop()
        for node in self.nodes:
            node.close()
        for port in self._ports:
            port.__exit__(None, None, None)
