"""Keys with deadlines, real processes with wrong clocks, a killed leader, redis-py in front."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from r2p2.cluster.status import ask
from r2p2.gateway.command import READY_PREFIX
from r2p2.processes import ManagedProcess, Supervisor
from r2p2.serve import READY_PREFIX as SERVING
from tests.gateway.support import free_udp_ports

pytestmark = pytest.mark.needs("redis")

OFFSETS_S = (-3600, 0, 3600)
PATIENCE_S = 30


class Cluster:
    """Three stores whose clocks are hours apart, and a gateway."""

    def __init__(self, supervisor: Supervisor, folder: Path) -> None:
        self.addresses = [f"127.0.0.1:{port}" for port in free_udp_ports(3)]
        r2p2 = [sys.executable, "-m", "r2p2"]
        self.members: dict[str, ManagedProcess] = {}
        for i, (address, offset_s) in enumerate(zip(self.addresses, OFFSETS_S, strict=True)):
            serve = [*r2p2, "serve", "--app", "kv", "--bind", address, "--members", ",".join(self.addresses)]
            serve += ["--clock-offset", str(offset_s), "--storage", str(folder / f"member{i}")]
            self.members[address] = supervisor.start(f"member{i}", serve)
            self.members[address].wait_line(lambda line: line.startswith(SERVING), PATIENCE_S)
        gateway = [*r2p2, "gateway", "--listen", "127.0.0.1:0", "--cluster", ",".join(self.addresses)]
        line = supervisor.start("gateway", [*gateway, "--timeout", "2"]).wait_line(
            lambda line: line.startswith(READY_PREFIX), PATIENCE_S
        )
        found = re.search(r"127\.0\.0\.1:(\d+) ", line)
        assert found
        self.port = int(found[1])

    def statuses(self) -> list[dict[str, object]]:
        return list(ask(list(self.members), 2.0, with_state=True).values())

    def leader(self) -> str:
        by_role = {status.get("role"): address for address, status in ask(list(self.members), 2.0).items()}
        return by_role["leader"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Supervisor(tmp_path) as supervisor:
        yield Cluster(supervisor, tmp_path)


def eventually(condition: Callable[[], bool]) -> None:
    """Polls: what is waited for is in other processes."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_set(client: redis.Redis, key: str, px: int) -> bool:
    """Sets a key; False when the gateway cannot say whether it did, as while a leader is lost."""
    try:
        return bool(client.set(key, "1", px=px))
    except redis.ResponseError as error:
        assert str(error).startswith(("TIMEOUT", "TRYAGAIN"))
        return False


def test_deadlines_hold_on_every_replica_and_over_a_change_of_leaders(cluster: Cluster) -> None:
    with redis.Redis(port=cluster.port, socket_timeout=PATIENCE_S, protocol=2) as client:
        client.set("short", "1", px=300)
        client.set("long", "1", ex=500)
        client.set("never", "1")
        assert 290 < client.ttl("long") <= 500, "TTL goes by the log's time"
        eventually(lambda: client.get("short") is None)
        eventually(lambda: len({status["applied_index"] for status in cluster.statuses()}) == 1)
        for name in ("state_digest", "log_time_ms", "applied_digest"):
            assert len({status[name] for status in cluster.statuses()}) == 1, name

        before = max(int(str(status["log_time_ms"])) for status in cluster.statuses())
        leader = cluster.leader()
        killed = cluster.members.pop(leader)
        killed.kill()
        eventually(lambda: is_set(client, "after", 200))
        eventually(lambda: client.get("after") is None)
        left = client.ttl("long")
        # A leader whose clock is ahead by an hour or more ends what had 500 s left; one behind does not.
        is_ahead = cluster.addresses.index(cluster.leader()) > cluster.addresses.index(leader)
        assert left == -2 if is_ahead else 400 < left <= 500
        assert client.get("never") == b"1"
        eventually(lambda: len({status["applied_index"] for status in cluster.statuses()}) == 1)
        assert len({status["state_digest"] for status in cluster.statuses()}) == 1
        assert len({status["log_time_ms"] for status in cluster.statuses()}) == 1
        assert all(int(str(status["log_time_ms"])) > before for status in cluster.statuses())
