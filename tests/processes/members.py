"""A cluster of `r2p2 serve` processes whose members are killed, started again, added and removed; and a load on it."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from r2p2.address import parse_address
from r2p2.apps.kv import encode_command
from r2p2.bench.verify import Verdict, get_command, verify
from r2p2.client import FIXED_ROUTE, REPLICATED, REPLICATED_READ, BlockingClient
from r2p2.engine import Engine
from r2p2.errors import CallError, UserError
from r2p2.loadgen import SET, LoadConfig, LoadGenerator, LoadStats
from r2p2.member_command import ask
from r2p2.node import STATE_REQUEST
from r2p2.ports import PortSpec, open_port
from r2p2.processes import ManagedProcess, Supervisor

R2P2 = [sys.executable, "-m", "r2p2"]
WAIT_SECONDS = 30.0


def free_addresses(count: int) -> list[str]:
    """Addresses on loopback that nobody has at the moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]


def resident_bytes(pid: int) -> int:
    """Memory of a process."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGESIZE")


class Members:
    """``size`` members, more where asked; addresses for ``spare`` more. `each`: further options of a slot's member."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        size: int = 3,
        spare: int = 2,
        each: Callable[[int], Sequence[str]] = lambda slot: (),
    ) -> None:
        self.addresses = free_addresses(size + spare)
        self.size = size
        self.options = options
        self.each = each
        self.supervisor = Supervisor(folder)
        self.running: dict[int, ManagedProcess] = {}
        self.client = BlockingClient()
        self.launches = 0
        self.spared: int | None = None

    def __enter__(self) -> Members:
        for slot in range(self.size):
            self.launch(slot)
        self.wait(lambda nodes: len(nodes) == self.size and self.leader_of(nodes) is not None, "a leader")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self.supervisor.close()

    def launch(
        self, slot: int, *, join: bool = False, asks: Sequence[int] = (), at: int | None = None
    ) -> ManagedProcess:
        """A process in `slot`; join: one that knows the others' addresses only, or `asks`'; at: its address."""
        self.launches += 1
        if join:
            others = [self.addresses[i] for i in asks or self.running if i != slot]
            who = ["--join", ",".join(others), "--node-id", str(slot)]
        else:
            who = ["--members", ",".join(self.addresses[: self.size])]
        bind = ["--bind", self.addresses[slot if at is None else at]]
        command = [*R2P2, "serve", "--app", "kv", *bind, *who, *self.options, *self.each(slot)]
        process = self.supervisor.start(f"member{slot}-{self.launches}", command)
        self.running[slot] = process
        process.wait_line(lambda line: line.startswith("r2p2: serving"), WAIT_SECONDS)
        return process

    def kill(self, slot: int) -> None:
        self.running.pop(slot).kill()

    def status_of(self, address: str) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(
            self.client.call(address, STATE_REQUEST, policy=FIXED_ROUTE, timeout_s=1.0, retry_s=0.2)
        )
        return status

    def statuses(self) -> dict[int, dict[str, Any]]:
        """Of those that answer."""
        found = {}
        for slot in self.running:
            try:
                found[slot] = self.status_of(self.addresses[slot])
            except CallError:
                continue
        return found

    @staticmethod
    def leader_of(nodes: dict[int, dict[str, Any]]) -> int | None:
        leaders = [(node["term"], slot) for slot, node in nodes.items() if node.get("role") == "leader"]
        return max(leaders)[1] if leaders else None

    def leader(self) -> int:
        nodes = self.wait(lambda nodes: self.leader_of(nodes) is not None, "a leader")
        leader = self.leader_of(nodes)
        assert leader is not None
        return leader

    def others(self) -> list[str]:
        """The addresses of all but one follower, who is `victim`: nobody's calls are to wait for the dead."""
        self.spared = self.leader()
        return [self.addresses[slot] for slot in range(self.size) if slot != self.victim()]

    def victim(self) -> int:
        """A follower, the same whoever leads meanwhile, once `others` has been asked."""
        leader = self.leader() if self.spared is None else self.spared
        return (leader + 1) % self.size

    def wait(
        self, condition: Callable[[dict[int, dict[str, Any]]], bool], what: str, seconds: float = WAIT_SECONDS
    ) -> dict[int, dict[str, Any]]:
        """Asks until `condition` holds for the statuses."""
        end = time.monotonic() + seconds
        while True:
            nodes = self.statuses()
            if condition(nodes):
                return nodes
            assert time.monotonic() < end, f"no {what} in {seconds} s: {json.dumps(nodes, indent=1)[:4000]}"
            for process in self.running.values():
                process.check_running(what)
            time.sleep(0.02)

    def voters(self, nodes: dict[int, dict[str, Any]]) -> list[int]:
        """Of a configuration that is settled; else none."""
        leader = self.leader_of(nodes)
        if leader is None or not nodes[leader]["configuration"]["committed"]:
            return []
        rows = nodes[leader]["configuration"]["members"]
        return sorted(row["slot"] for row in rows) if all(row["voter"] and not row["outgoing"] for row in rows) else []

    def wait_in_sync(self, *slots: int, seconds: float = WAIT_SECONDS) -> dict[int, dict[str, Any]]:
        """All of `slots` are voters, at the same index, with the same history and state."""

        def holds(nodes: dict[int, dict[str, Any]]) -> bool:
            keys = ("applied_index", "applied_digest", "state_digest")
            facts = {tuple(node[key] for key in keys) for node in nodes.values()}
            return sorted(nodes) == sorted(slots) == self.voters(nodes) and len(facts) == 1

        return self.wait(holds, f"members {slots} in sync", seconds)

    def member(self, op: str, slot: int, address: str | None = None, seconds: float = WAIT_SECONDS) -> dict[str, Any]:
        """An operator's request, as `r2p2 member` makes it."""
        request: dict[str, Any] = {"op": op, "slot": slot} | ({"address": address} if address else {})

        def call(server: str, payload: bytes, seconds: float) -> bytes:
            return self.client.call(server, payload, policy=FIXED_ROUTE, timeout_s=seconds, retry_s=0.2)

        return ask(call, [self.addresses[i] for i in self.running], request, seconds)

    def transfer(self, slot: int) -> str:
        """Hand leadership over; again when the member did not take over in an election timeout, as an operator would:
        one that gets no processor for so long is refused rightly.
        """
        end = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                return str(self.member("transfer", slot)["text"])
            except UserError as error:
                if "has not taken over" not in str(error) or time.monotonic() > end:
                    raise

    def read_all(self, load: Load) -> Verdict:
        """What became of all that a load, which has ended, has written."""
        leader = self.addresses[self.leader()]
        replies = {
            i: self.client.call(leader, get_command(name), policy=REPLICATED_READ, timeout_s=WAIT_SECONDS, retry_s=0.5)
            for i, name in load.names.items()
        }
        return verify(load.versions, replies, width=None)

    def write(self, key: str, value: str = "v") -> None:
        """A write, repeated until it is acknowledged."""
        end = time.monotonic() + WAIT_SECONDS
        turn = 0
        while True:
            target = self.addresses[sorted(self.running)[turn % len(self.running)]]
            try:
                reply = self.client.call(target, encode_command("SET", key, value), policy=REPLICATED, timeout_s=0.3)
                assert reply == b"+OK\r\n"
                return
            except CallError:
                assert time.monotonic() < end, f"{key} was not acknowledged in {WAIT_SECONDS} s"
                turn += 1


class Load:
    """SETs from a thread of this process, in a closed loop or at a rate, to whoever answers."""

    def __init__(
        self, addresses: list[str], *, rate: float = 3000.0, outstanding: int = 32, keys_count: int = 60_000
    ) -> None:
        self._port = open_port(PortSpec("uv", "127.0.0.1"))
        self._engine = Engine(self._port.address, keep=self._port)
        self._engine.client_open(self._port.local_port, outstanding)
        config = LoadConfig(
            SET,
            REPLICATED,
            self._port.local_port,
            outstanding=outstanding,
            rate=rate,
            # A key whose call had no answer is not used again.
            keys_count=keys_count,
            timeout_ns=300_000_000,
        )
        self._load = LoadGenerator(self._engine, config, [parse_address(text) for text in addresses])
        self._end = threading.Event()
        self._stats = self._load.stats()
        # After the end: what was written to each key, and their names.
        self.versions = self._load.keys()
        self.names: dict[int, bytes] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._end.is_set():
            self._load.run(0.02)  # without the GIL
            self._stats = self._load.stats()
        self._load.run(1.0, issue=False)
        self._stats = self._load.stats()

    @property
    def stats(self) -> LoadStats:
        """A few milliseconds old."""
        return self._stats

    def wait_answered(self, more: int, seconds: float = WAIT_SECONDS) -> None:
        """Until `more` calls than now have been answered."""
        wanted, end = self._stats.answered + more, time.monotonic() + seconds
        while self._stats.answered < wanted:
            assert time.monotonic() < end, f"{more} more answers did not come in {seconds} s: {self._stats}"
            time.sleep(0.01)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def end(self) -> None:
        """No more calls; those that wait have ended. Idempotent."""
        if self._end.is_set():  # ended earlier, by the test
            return
        self._end.set()
        self._thread.join()
        self.versions = self._load.keys()
        self.names = {i: self._load.key(i) for i, issued in enumerate(self.versions.issued) if issued}
        self._load.close()
        self._engine.close()
        self._port.__exit__(None, None, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
