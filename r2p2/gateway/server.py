"""The gateway as a whole: a TCP listener, the connections, R2P2 clients, counters.

Leaves to others: one connection's life (`connection.py`), the command line (`command.py`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import cast

from r2p2 import limits
from r2p2.client import Client
from r2p2.errors import UserError
from r2p2.gateway.connection import Connection
from r2p2.gateway.dialect import dialect_of
from r2p2.gateway.local import ClientState
from r2p2.gateway.upstream import Upstream

__all__ = ["Gateway", "GatewayConfig"]

_FULL = b"-ERR max number of clients reached\r\n"


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """A gateway.

    Attributes:
        cluster: the members, ``IP:PORT`` each.
        app: what they run: ``kv`` or ``redis``.
        host, port: where it listens for TCP; port 0: the kernel's choice.
        timeout_s: what a command may take in all, seconds.
        drain_s: what commands under way may take after a stop, seconds.
        clients_max: connections at once; one more is told so and closed.
    """

    cluster: Sequence[str]
    host: str = "127.0.0.1"
    port: int = 6379
    timeout_s: float = 2.0
    drain_s: float = 2.0
    clients_max: int = limits.GATEWAY_CLIENTS_MAX
    app: str = "kv"


class _Refused(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        refused = cast(asyncio.Transport, transport)
        refused.write(_FULL)
        refused.close()


class Gateway:
    """``async with Gateway(GatewayConfig(cluster)) as gateway: ...`` serves until the block is left.

    Attributes:
        counters: what happened so far, by name (docs/gateway.md).
    """

    def __init__(self, config: GatewayConfig) -> None:
        if not config.cluster:
            raise UserError("a gateway without a cluster", "Name its members.")
        if config.timeout_s <= 0 or config.drain_s < 0 or config.clients_max < 1:
            raise UserError("a gateway's timeout is above 0, its drain not below 0, and it takes at least one client")
        self._dialect = dialect_of(config.app)
        self.config = config
        self.counters: Counter[str] = Counter()
        self._connections: set[Connection] = set()
        self._all_gone = asyncio.Event()
        self._next_id = 0
        self._upstreams: list[Upstream] = []
        self._began = time.monotonic()

    @property
    def connections_count(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Gateway:
        """Listens.

        Raises:
            UserError: the address cannot be had.
        """
        self._upstreams.clear()
        async with AsyncExitStack() as stack:
            for _ in range(limits.GATEWAY_SESSIONS_COUNT):
                client = Client(*self.config.cluster, timeout_s=self.config.timeout_s, session=True)
                await stack.enter_async_context(client)
                self._upstreams.append(Upstream(client, self._dialect, self.config.timeout_s, self.counters))
            await self._listen()
            self._clients = stack.pop_all()
        return self

    async def _listen(self) -> None:
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._make, self.config.host, self.config.port, backlog=512
            )
        except OSError as error:
            raise UserError(
                f"cannot listen on {self.config.host}:{self.config.port}: {error.strerror or error}",
                "Choose another --listen.",
            ) from error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes no more connections and commands, answers those under way, closes."""
        self._server.close()
        for connection in list(self._connections):
            connection.finish()
        try:
            async with asyncio.timeout(self.config.drain_s):
                while self._connections:
                    self._all_gone.clear()
                    await self._all_gone.wait()
        except TimeoutError:
            for connection in list(self._connections):
                connection.abort()
            await asyncio.sleep(0)  # the transports' last callbacks
        await self._clients.aclose()

    def _make(self) -> asyncio.Protocol:
        if len(self._connections) >= self.config.clients_max:
            self.counters["connections_refused"] += 1
            return _Refused()
        self.counters["connections"] += 1
        self._next_id += 1
        state = ClientState(self._next_id, "", self.info)
        upstream = self._upstreams[self._next_id % len(self._upstreams)]
        connection = Connection(upstream, self._dialect, state, self.counters, self._on_end)
        self._connections.add(connection)
        return connection

    def _on_end(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._all_gone.set()

    def info(self) -> Mapping[str, Mapping[str, object]]:
        """What INFO says, by section."""
        return {
            "Server": {
                "redis_version": "7.0.0",
                "redis_mode": "standalone",
                "r2p2_role": "gateway",
                "process_id": os.getpid(),
                "tcp_port": self.port,
                "uptime_in_seconds": int(time.monotonic() - self._began),
            },
            "Replication": {"role": "master", "connected_slaves": 0},
            "Persistence": {"loading": 0},
            "Keyspace": {},
            "Clients": {"connected_clients": len(self._connections), "maxclients": self.config.clients_max},
            "Stats": {
                "total_connections_received": self.counters["connections"],
                "total_commands_processed": self.counters["commands"],
                **{f"r2p2_{name}": count for name, count in sorted(self.counters.items())},
            },
            "Cluster": {"r2p2_members": ",".join(self.config.cluster)},
        }
