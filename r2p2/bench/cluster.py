"""Server processes and a load generator process on one machine, connected over a backend.

uv: every process has a loopback address of its own (127.x.y.i, drawn from our process id, so that runs do not meet).
dpdk: every process has an address in 10.0.0.0/24 and a memif link (shared memory) to every other one, over sockets in
the cluster's folder; no NIC, no hugepages and no root are needed.

Who measures and who kills: :mod:`r2p2.bench.command`, :mod:`r2p2.demo`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from r2p2.bench.generator import Spec
from r2p2.errors import UserError
from r2p2.ports import Link, PortSpec
from r2p2.processes import ManagedProcess, ProcessFailed, Supervisor, python_module

__all__ = ["Cluster", "GeneratorProcess", "Plan", "plan", "replica_name", "serve_command"]

SERVER_PORT = 8000
CLIENT_PORT = 9100
READY_SECONDS = 60.0  # a machine may have more to do than this
STATUS_PAUSE_SECONDS = 0.02  # between rounds of asking nodes that are not ready yet


@dataclass(frozen=True, slots=True)
class Plan:
    """Addresses and links of a cluster: replica i has slot i of the Raft group."""

    backend: str
    replicas: tuple[PortSpec, ...]
    client: PortSpec

    @property
    def addresses(self) -> tuple[str, ...]:
        """IP:PORT of each replica."""
        return tuple(f"{replica.ip}:{replica.port}" for replica in self.replicas)

    def name_of(self, ip: str) -> str:
        """The replica's process name; the ip itself for a stranger."""
        return next((replica_name(i) for i, spec in enumerate(self.replicas) if spec.ip == ip), ip)


def replica_name(slot: int) -> str:
    """The name of a replica's process in reports."""
    return f"replica{slot}"


def plan(backend: str, replicas_count: int, folder: Path) -> Plan:
    """Lay out a cluster; `folder` is for the memif sockets."""
    if backend in ("uv", "portable"):  # the generator is compiled in any case
        pid = os.getpid()
        prefix = f"127.{64 + pid // 256 % 128}.{pid % 256}"
        specs = [PortSpec(backend, f"{prefix}.{i + 1}", SERVER_PORT) for i in range(replicas_count)]
        return Plan(backend, tuple(specs), PortSpec("uv", f"{prefix}.100", CLIENT_PORT))
    if backend != "dpdk":
        raise UserError(f"there is no backend {backend!r}")
    ips = [f"10.0.0.{i + 1}" for i in range(replicas_count)] + ["10.0.0.100"]

    def links(own: int) -> tuple[Link, ...]:
        # The client links to replicas as everybody to everybody; the lower index serves the socket.
        found = []
        for other, ip in enumerate(ips):
            if other != own:
                low, high = sorted((own, other))
                found.append(Link(str(folder / f"{low}-{high}.sock"), "server" if own == low else "client", ip))
        return tuple(found)

    ports = [SERVER_PORT] * replicas_count + [CLIENT_PORT]
    *servers, client = (PortSpec("dpdk", ips[i], ports[i], links(i)) for i in range(len(ips)))
    return Plan(backend, tuple(servers), client)


def serve_command(layout: Plan, index: int, *, app: str, replicated: bool) -> list[str]:
    """The command line of a replica of ``layout``."""
    spec = layout.replicas[index]
    bind = f"{spec.ip}:{spec.port}"
    command = [*python_module("r2p2"), "serve", "--app", app, "--backend", spec.backend, "--bind", bind]
    if replicated:
        command += ["--members", ",".join(layout.addresses)]
    for link in spec.links:
        command += ["--link", f"{link.role}:{link.peer_ip}:{link.socket_path}"]
    return command


class GeneratorProcess:
    """The load generator as seen from its parent: words go in, events come out."""

    def __init__(self, process: ManagedProcess) -> None:
        self.process = process
        self._seen = 0  # lines of output looked at

    def tell(self, *words: str) -> None:
        """Send a command."""
        self.process.write_line(" ".join(words))

    def event(
        self, name: str, timeout_seconds: float, on_progress: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        """Wait for the next event `name`; progress events on the way go to `on_progress`.

        ProcessFailed when it ends or says nothing of the kind in time.
        """
        end = time.monotonic() + timeout_seconds
        while True:
            left = max(0.0, end - time.monotonic())
            self._seen, line = self.process.next_line(self._seen, left, what=f"the event {name!r}")
            if not line.startswith("{"):
                continue  # a warning of a library
            event: dict[str, Any] = json.loads(line)
            if event["event"] == "progress" and on_progress is not None:
                on_progress(event)
            if event["event"] == name:
                return event


class Cluster:
    """Replicas and a load generator, from start to end; a context manager. Everything ends with its block."""

    def __init__(
        self,
        layout: Plan,
        folder: Path,
        *,
        app: str,
        replicated: bool,
        load: Spec,
        pcap: bool = False,
        plain: str = "",
        log_mib: int = 0,
        storage: Path | None = None,
        idle: str = "yield",
    ) -> None:
        """`load`'s port and targets are filled in from `layout`; logs, and with `pcap` captures, go to `folder`.

        `storage`: durable replicas, each in a folder of its own there.
        `log_mib`: of log each replica keeps at most; 0: the default. `plain`: instead of our server, "asyncio" or
        "uvloop" without this project (plain_echo.py), or "null" (null_responder.py). `idle`: dpdk: what an idle poll
        does.
        """
        self._idle = idle
        self._plain = plain
        self._log_mib = log_mib
        self._storage = storage
        self.plan = layout
        self.replicas: dict[str, ManagedProcess] = {}
        self._supervisor = Supervisor(folder)
        self._app = app
        self._replicated = replicated
        self._pcap = pcap
        self._folder = folder
        self._load = replace(load, port=layout.client, targets=layout.addresses)

    def __enter__(self) -> Cluster:
        """Start all processes and wait until the service answers."""
        self._supervisor.__enter__()
        try:
            for index in range(len(self.plan.replicas)):
                name = replica_name(index)
                self.replicas[name] = self._supervisor.start(name, self.serve_command(index))
            spec = self._load.to_json()
            process = self._supervisor.start("generator", [*python_module("r2p2.bench.generator"), spec])
            self.generator = GeneratorProcess(process)
            self.generator.event("ready", READY_SECONDS)
        except BaseException:
            self._supervisor.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """End all processes."""
        self._supervisor.close()

    def serve_command(self, index: int) -> list[str]:
        """The command line of a replica."""
        spec = self.plan.replicas[index]
        if self._plain == "null":
            port = json.dumps(asdict(spec))
            return [*python_module("r2p2.bench.null_responder"), port]
        if self._plain:
            command = [*python_module("r2p2.bench.plain_echo"), "--bind", f"{spec.ip}:{spec.port}"]
            return command + (["--uvloop"] if self._plain == "uvloop" else [])
        command = serve_command(self.plan, index, app=self._app, replicated=self._replicated)
        command += ["--idle", self._idle]
        if self._log_mib:
            command += ["--log-mib", str(self._log_mib)]
        if self._storage is not None:
            command += ["--storage", str(self._storage / replica_name(index))]
        if self._pcap:
            command += ["--pcap", str(self.pcap_path(replica_name(index)))]
        return command

    def pcap_path(self, name: str) -> Path:
        """Where the capture of a replica goes."""
        return self._folder / f"{name}.pcap"

    def status(self, *, with_state: bool = False) -> dict[str, dict[str, Any]]:
        """What each node that answers says of itself, by process name, ``state_digest`` on demand. Not while there is
        load.
        """
        self.generator.tell("status", *(["state"] if with_state else []))
        nodes = self.generator.event("status", READY_SECONDS)["nodes"]
        return {self.plan.name_of(address.partition(":")[0]): status for address, status in nodes.items()}

    def wait_status(
        self,
        wanted: Callable[[Mapping[str, dict[str, Any]]], bool],
        timeout_seconds: float,
        what: str,
        *,
        with_state: bool = False,
        needed: Sequence[str] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Ask until `wanted` holds. ProcessFailed when one of `needed` (by default the replicas that run now) has
        ended, or in `timeout_seconds`.
        """
        end = time.monotonic() + timeout_seconds
        needed = self.running() if needed is None else needed
        while True:
            status = self.status(with_state=with_state)
            if wanted(status):
                return status
            for name in needed:
                self.replicas[name].check_running(what)
            if time.monotonic() > end:
                shown = json.dumps(status, indent=1)
                raise ProcessFailed(f"waited {timeout_seconds:g} s for: {what}; the nodes say {shown[:2000]}")
            time.sleep(STATUS_PAUSE_SECONDS)

    def wait_ready(self) -> dict[str, dict[str, Any]]:
        """Wait until every node answers and, when replicated, all know the same leader; their status."""
        what = "all nodes up and a leader known to all"
        return self.wait_status(self._is_ready, READY_SECONDS, what, needed=list(self.replicas))

    def _is_ready(self, status: Mapping[str, dict[str, Any]]) -> bool:
        if len(status) < len(self.replicas):
            return False
        if not self._replicated:
            return True
        leaders = {node.get("leader") for node in status.values()}
        return len(leaders) == 1 and None not in leaders

    def watch(self, names: Sequence[str] | None = None) -> None:
        """Have the generator read the cpu time of these (default: all replicas) when it resets and stops."""
        watched = {name: self.replicas[name].pid for name in names or self.replicas}
        self.generator.tell("watch", *(f"{name}={pid}" for name, pid in watched.items()))

    def running(self) -> list[str]:
        """Names of the replicas that have not ended."""
        return [name for name, process in self.replicas.items() if process.exit_code is None]
