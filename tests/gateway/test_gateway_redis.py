"""Ordinary Redis clients against a gateway before three members with a redis-server each, all processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from r2p2.apps.kv import encode_command
from r2p2.client import BlockingClient
from r2p2.gateway.command import READY_PREFIX
from r2p2.node import STATE_REQUEST
from r2p2.processes import ManagedProcess, Supervisor
from r2p2.serve import READY_PREFIX as SERVING
from tests.apps.redis_server import redis_server
from tests.gateway.support import free_udp_ports

pytestmark = pytest.mark.needs("redis")


@dataclass
class Cluster:
    members: list[str]
    processes: list[ManagedProcess]
    port: int
    supervisor: Supervisor

    def start(self, slot: int) -> None:
        self.processes[slot : slot + 1] = [start(self.supervisor, self.members, slot)]

    def status(self, slot: int) -> dict[str, object]:
        with BlockingClient("127.0.0.1") as client:
            found: dict[str, object] = json.loads(client.call(self.members[slot], STATE_REQUEST, timeout_s=10))
        return found


def start(supervisor: Supervisor, members: list[str], slot: int) -> ManagedProcess:
    argv = [sys.executable, "-m", "r2p2", "serve", "--app", "redis", "--bind", members[slot]]
    process = supervisor.start(f"member{slot}", [*argv, "--members", ",".join(members)])
    process.wait_line(lambda line: line.startswith(SERVING), 30)
    return process


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    members = [f"127.0.0.1:{port}" for port in free_udp_ports(3)]
    with Supervisor(tmp_path_factory.mktemp("redis")) as supervisor:
        processes = [start(supervisor, members, slot) for slot in range(3)]
        argv = [sys.executable, "-m", "r2p2", "gateway", "--app", "redis", "--listen", "127.0.0.1:0"]
        gateway = supervisor.start("gateway", [*argv, "--cluster", ",".join(members), "--timeout", "20"])
        line = gateway.wait_line(lambda line: line.startswith(READY_PREFIX), 30)
        found = re.search(r"127\.0\.0\.1:(\d+) ", line)
        assert found
        yield Cluster(members, processes, int(found[1]), supervisor)


@pytest.fixture(params=[2, 3])
def client(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with redis.Redis(port=cluster.port, socket_timeout=30, protocol=request.param) as client:
        client.flushall()
        yield client


def test_all_types_through_redis_py(client: redis.Redis) -> None:
    assert client.hset("h", mapping={"a": 1, "b": 2}) == 2 and client.hgetall("h") == {b"a": b"1", b"b": b"2"}
    assert client.rpush("l", 1, 2, 3) == 3 and client.lrange("l", 0, -1) == [b"1", b"2", b"3"]
    assert client.sadd("s", "x", "y") == 2 and client.smembers("s") == {b"x", b"y"}
    assert client.zadd("z", {"a": 1, "b": 2.5}) == 2
    assert [tuple(item) for item in client.zrange("z", 0, -1, withscores=True)] == [(b"a", 1.0), (b"b", 2.5)]
    assert client.zscore("z", "b") == 2.5
    stream_id = client.xadd("x", {"f": 1})
    assert client.xrange("x") == [(stream_id, {b"f": b"1"})]
    assert client.pfadd("p", 1, 2, 3) and client.pfcount("p") == 3
    assert client.setbit("bits", 7, 1) == 0 and client.bitcount("bits") == 1
    assert client.geoadd("g", (13.4, 52.5, "berlin")) == 1
    assert sorted(client.scan_iter(count=3)) == [b"bits", b"g", b"h", b"l", b"p", b"s", b"x", b"z"]
    assert dict(client.hscan_iter("h")) == {b"a": b"1", b"b": b"2"} and set(client.sscan_iter("s")) == {b"x", b"y"}
    assert client.set("e", "v", ex=100) and 90 <= client.ttl("e") <= 100 and client.get("none") is None
    assert client.sort("l", desc=True) == [b"3", b"2", b"1"] and client.type("z") == b"zset"
    assert client.dbsize() == 9 and len(client.command()) > 200


def test_pipelines_transactions_and_errors(client: redis.Redis) -> None:
    pipeline = client.pipeline(transaction=False)
    for i in range(100):
        pipeline.set(f"k{i}", i)
        pipeline.get(f"k{i}")
        pipeline.hset("h", f"f{i % 3}", i)
        pipeline.hlen("h")
    replies = pipeline.execute()
    assert replies[:4] == [True, b"0", 1, 1] and replies[-3:-2] == [b"99"] and len(replies) == 400
    pipeline = client.pipeline()
    pipeline.incr("n")
    pipeline.hgetall("h")
    pipeline.lpop("none")
    assert pipeline.execute() == [
        1,
        {b"f0": b"99", b"f1": b"97", b"f2": b"98"},
        None,
    ]

    def double(inside: redis.client.Pipeline) -> None:
        value = int(inside.get("n"))  # type: ignore[arg-type]
        if value == 1:  # somebody else is quicker, once
            client.set("n", 10)
        inside.multi()
        inside.set("n", 2 * value)

    assert client.transaction(double, "n") == [True] and client.get("n") == b"20"
    for words, told in (
        (("SPOP", "s"), "'spop' is refused: it draws lots"),
        (("EVAL", "return 1", 0), "'eval' is refused: a script may do what commands may not"),
        (("BLPOP", "l", 0), "'blpop' is refused: it waits"),
        (("FLY", "high"), "unknown command 'FLY'"),
        (("LPUSH", "n", "x"), "WRONGTYPE"),
        (("GET",), "wrong number of arguments for 'get' command"),
    ):
        with pytest.raises(redis.ResponseError, match=told):
            client.execute_command(*words)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
    with pytest.raises(redis.ResponseError, match="'spop' is refused"):
        pipeline = client.pipeline()
        pipeline.set("a", 1)
        pipeline.spop("s")
        pipeline.execute()
    assert client.get("a") is None


TRANSACTIONS = [
    "MULTI|SET a 1|GET|EXEC|GET a",
    "MULTI|XINFO FOO a|EXEC",
    "MULTI|XINFO STREAM|SET a 1|EXEC|EXISTS a",
    "MULTI|HSET h f|EXEC|HGETALL h",
    "MULTI|FLY|DISCARD|GET a",
    "MULTI|COMMAND COUNT x|EXEC",
    "MULTI|SET a 1|LPUSH a x|PING|ECHO x|EXEC",
]


def test_broken_transactions_are_answered_as_by_redis(cluster: Cluster) -> None:
    def reply(client: redis.Redis, text: str) -> object:
        try:
            return client.execute_command(*text.split())  # type: ignore[no-untyped-call]
        except redis.RedisError as error:
            return type(error), str(error)

    with redis_server() as server:
        for line in TRANSACTIONS:
            with redis.Redis(port=cluster.port, socket_timeout=30, single_connection_client=True) as client:
                client.flushall()
                server.raw(encode_command("FLUSHALL"))
                with redis.Redis(unix_socket_path=server.path, single_connection_client=True) as other:
                    for text in line.split("|"):
                        assert repr(reply(client, text)) == repr(reply(other, text)), (line, text)


def test_redis_cli_and_redis_benchmark(cluster: Cluster) -> None:
    def run(*argv: str, text: str = "") -> str:
        return subprocess.run(argv, input=text, capture_output=True, text=True, check=True, timeout=100).stdout

    port = ["-p", str(cluster.port)]
    lines = run("redis-cli", *port, text="DEL q\nMULTI\nHSET q a 1\nHGETALL q\nEXEC\nSPOP q\n").split("\n")
    assert lines[1:7] == ["OK", "QUEUED", "QUEUED", "1", "a", "1"]
    assert lines[7].startswith("ERR 'spop' is refused")
    tests = ["-t", "set,get,incr,lpush,hset,zadd", "-P", "16", "-n", "640", "-c", "5", "--csv"]
    report = run("redis-benchmark", *port, *tests)
    assert [line.split(",")[0] for line in report.splitlines()[1:]] == [
        f'"{name}"' for name in ("SET", "GET", "INCR", "LPUSH", "HSET", "ZADD")
    ]


def test_a_running_redis_is_copied_as_the_document_says(cluster: Cluster, tmp_path: Path) -> None:
    document = (Path(__file__).resolve().parents[2] / "docs" / "redis.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", document, re.MULTILINE | re.DOTALL)
    (port,) = free_udp_ports(1)
    with Supervisor(tmp_path) as supervisor:
        old_server = supervisor.start(
            "old", ["redis-server", "--port", str(port), "--save", "", "--dir", str(tmp_path), "--bind", "127.0.0.1"]
        )
        old_server.wait_line(lambda line: "ready to accept connections" in line.lower(), 30)
        with redis.Redis(port=port) as old, redis.Redis(port=cluster.port, socket_timeout=30) as new:
            old.hset("h", mapping={"a": 1})
            old.set("ends", "v", px=500_000)
            old.rpush("l", *range(1000))
            new.flushall()
            exec(code.replace("6379", str(port)).replace("6380", str(cluster.port)), {})
            assert new.hgetall("h") == {b"a": b"1"} and new.llen("l") == 1000
            assert new.pexpiretime("ends") == old.pexpiretime("ends") and new.pexpiretime("l") == -1


def test_a_member_whose_redis_dies_ends_and_comes_back_equal(cluster: Cluster, tmp_path: Path) -> None:
    """The last test of this module, though the cluster is whole afterwards."""
    with redis.Redis(port=cluster.port, socket_timeout=30) as client:
        assert client.rpush("survives", *range(100)) == 100
        victim = cluster.processes[1]
        (child,) = Path(f"/proc/{victim.pid}/task/{victim.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        assert client.rpush("survives", "more") == 101
        assert victim.wait(30) == 1
        assert "closed the connection" in victim.tail() and "has ended with exit code -9" in victim.tail()
        cluster.start(1)
        assert client.hset("after", "f", 1) == 1
        whole = cluster.processes[1].wait_line(lambda line: "has been let in" in line, 60)
        assert whole
        while len({str(cluster.status(slot)["applied_index"]) for slot in range(3)}) > 1:
            assert client.ping()
        assert len({str(cluster.status(slot)["state_digest"]) for slot in range(3)}) == 1
