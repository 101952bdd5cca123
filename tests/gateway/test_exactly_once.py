"""What a gateway has answered was executed once, though the leader dies again and again meanwhile."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from pathlib import Path

import pytest
import redis

from r2p2.client import BlockingClient
from r2p2.errors import CallError
from r2p2.gateway.command import READY_PREFIX
from r2p2.node import STATUS_REQUEST
from r2p2.processes import ManagedProcess, Supervisor
from r2p2.serve import READY_PREFIX as SERVING
from tests.gateway.support import free_udp_ports

pytestmark = pytest.mark.needs("redis")

KILLS = 3


class Counting(threading.Thread):
    """Counts up through the gateway, one INCR after the other, until it is stopped."""

    def __init__(self, port: int, key: str) -> None:
        super().__init__()
        self.key = key
        self.answers: list[int] = []
        self.unknown = 0
        self.stopped = threading.Event()
        self._port = port

    def run(self) -> None:
        with redis.Redis(port=self._port, socket_timeout=60) as client:
            while not self.stopped.is_set():
                try:
                    self.answers.append(client.incr(self.key))
                except redis.ResponseError as error:
                    assert "it may or may not have been executed" in str(error), error
                    self.unknown += 1


def test_increments_are_counted_once_over_kills_of_the_leader(tmp_path: Path) -> None:
    members = [f"127.0.0.1:{port}" for port in free_udp_ports(3)]
    r2p2 = [sys.executable, "-m", "r2p2"]

    with Supervisor(tmp_path) as supervisor, BlockingClient("127.0.0.1") as asker:

        def start(slot: int) -> ManagedProcess:
            argv = [*r2p2, "serve", "--app", "kv", "--bind", members[slot], "--members", ",".join(members)]
            process = supervisor.start(f"member{slot}", argv)
            process.wait_line(lambda line: line.startswith(SERVING), 30)
            return process

        def leader_of_a_whole_cluster() -> int:
            end = time.monotonic() + 60
            while time.monotonic() < end:
                found = []
                for address in members:
                    try:
                        found.append(json.loads(asker.call(address, STATUS_REQUEST, timeout_s=1)))
                    except CallError:
                        break
                leaders = [slot for slot, node in enumerate(found) if node.get("role") == "leader"]
                if len(found) == 3 and len(leaders) == 1 and all(node.get("voter") for node in found):
                    return leaders[0]
            raise TimeoutError("the cluster has not become whole")

        processes = [start(slot) for slot in range(3)]
        gateway = supervisor.start(
            "gateway", [*r2p2, "gateway", "--listen", "127.0.0.1:0", "--cluster", ",".join(members), "--timeout", "20"]
        )
        line = gateway.wait_line(lambda line: line.startswith(READY_PREFIX), 30)
        match = re.search(r"127\.0\.0\.1:(\d+) ", line)
        assert match
        counting = [Counting(int(match[1]), f"n{i}") for i in range(4)]
        for each in counting:
            each.start()
        try:
            for _ in range(KILLS):
                slot = leader_of_a_whole_cluster()
                before = [len(each.answers) for each in counting]
                processes[slot].kill()
                processes[slot] = start(slot)
                end = time.monotonic() + 60
                # Everybody has gone on under the next leader.
                while any(len(each.answers) < count + 20 for each, count in zip(counting, before, strict=True)):
                    assert time.monotonic() < end and all(each.is_alive() for each in counting)
                    counting[0].join(0.01)
        finally:
            for each in counting:
                each.stopped.set()
            for each in counting:
                each.join(60)
        with redis.Redis(port=int(match[1]), socket_timeout=30) as client:
            for each in counting:
                count = int(client.get(each.key))
                assert len(each.answers) <= count <= len(each.answers) + each.unknown
                # A write is sent until it is answered, and a leader is found well within the gateway's time.
                assert not each.unknown
                assert each.answers == list(range(1, count + 1))
