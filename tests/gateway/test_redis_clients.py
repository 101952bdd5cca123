"""Ordinary Redis clients against a gateway of three replicas, all processes: redis-py, redis-cli, redis-benchmark."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import redis

from r2p2.gateway.command import READY_PREFIX
from r2p2.processes import ManagedProcess, Supervisor
from r2p2.serve import READY_PREFIX as SERVING
from tests.gateway.support import free_udp_ports

pytestmark = pytest.mark.needs("redis")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ManagedProcess, int]]:
    members = [f"127.0.0.1:{port}" for port in free_udp_ports(3)]
    r2p2 = [sys.executable, "-m", "r2p2"]
    with Supervisor(tmp_path_factory.mktemp("gateway")) as supervisor:
        for i, address in enumerate(members):
            serve = [*r2p2, "serve", "--app", "kv", "--bind", address, "--members", ",".join(members)]
            supervisor.start(f"member{i}", serve).wait_line(lambda line: line.startswith(SERVING), 30)
        process = supervisor.start(
            "gateway", [*r2p2, "gateway", "--listen", "127.0.0.1:0", "--cluster", ",".join(members), "--timeout", "20"]
        )
        line = process.wait_line(lambda line: line.startswith(READY_PREFIX), 30)
        found = re.search(r"127\.0\.0\.1:(\d+) ", line)
        assert found
        yield process, int(found[1])


@pytest.fixture
def client(gateway: tuple[ManagedProcess, int]) -> Iterator[redis.Redis]:
    with redis.Redis(port=gateway[1], socket_timeout=30, protocol=2) as client:
        client.flushall()
        yield client


def test_redis_py_strings_counters_and_deadlines(client: redis.Redis) -> None:
    assert client.ping()
    assert client.set("k", "v") and client.get("k") == b"v"
    assert client.set("k", "w", nx=True) is None
    assert client.set("k", "w", xx=True, get=True, ex=100) == b"v"
    assert 90 <= client.ttl("k") <= 100
    assert client.incr("n", 5) == 5 and client.decr("n") == 4
    assert client.mset({"a": 1, "b": 2}) and client.mget("a", "b", "c") == [b"1", b"2", None]
    assert client.append("k", "!") == 2 and client.strlen("k") == 2
    assert sorted(client.keys("[ab]")) == [b"a", b"b"]
    assert sorted(client.scan_iter(count=2)) == [b"a", b"b", b"k", b"n"]
    assert client.dbsize() == 4 and client.type("k") == b"string"
    assert client.delete("a", "zz") == 1 and client.exists("a", "b") == 1
    with pytest.raises(redis.ResponseError, match="not an integer"):
        client.incr("k")
    with pytest.raises(redis.ResponseError, match="unknown command"):
        client.execute_command("LPUSH", "list", "x")  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
    assert client.info("server")["r2p2_role"] == "gateway"
    assert client.config_get("save") == {"save": ""}


def test_redis_py_pipelines_and_transactions(client: redis.Redis) -> None:
    pipeline = client.pipeline(transaction=False)
    for i in range(300):
        pipeline.set(f"key{i}", i)
        pipeline.get(f"key{i}")
    assert pipeline.execute() == [item for i in range(300) for item in (True, b"%d" % i)]

    pipeline = client.pipeline()
    pipeline.incr("n")
    pipeline.incr("n")
    pipeline.get("n")
    assert pipeline.execute() == [1, 2, b"2"]

    def double(inside: redis.client.Pipeline) -> None:
        value = int(inside.get("n"))  # type: ignore[arg-type]
        if value == 2:  # somebody else is quicker, once
            client.set("n", 10)
        inside.multi()
        inside.set("n", 2 * value)

    assert client.transaction(double, "n") == [True]
    assert client.get("n") == b"20"


def test_redis_pys_own_choice_of_protocol_and_resp3(gateway: tuple[ManagedProcess, int]) -> None:
    for protocol in (None, 3):
        with redis.Redis(port=gateway[1], socket_timeout=30, protocol=protocol) as client:
            client.flushall()
            assert client.set("k", "v") and client.get("k") == b"v" and client.get("none") is None
            assert client.mget("k", "none") == [b"v", None]
            assert client.config_get("save") == {"save": ""}
            assert client.pipeline().get("none").incr("n").execute() == [None, 1]


def run(*argv: str, text: str = "") -> str:
    return subprocess.run(argv, input=text, capture_output=True, text=True, check=True, timeout=100).stdout


def test_redis_cli(gateway: tuple[ManagedProcess, int]) -> None:
    cli = ["redis-cli", "-p", str(gateway[1])]
    assert run(*cli, "SET", "cli", "a b") == "OK\n"
    assert run(*cli, "GET", "cli") == "a b\n"
    lines = run(*cli, text="MULTI\nINCR cli-n\nINCR cli-n\nEXEC\nGET\nLPUSH a b\n").split("\n")
    assert lines[:5] == ["OK", "QUEUED", "QUEUED", "1", "2"]
    assert lines[5].startswith("ERR wrong number of arguments for 'get'")
    assert any(line.startswith("ERR unknown command 'LPUSH'") for line in lines)
    assert "cli-n" in run(*cli, "--scan", "--pattern", "cli*")
    many = "".join(f"SET pipe{i} {i}\r\n" for i in range(1000))
    assert "errors: 0, replies: 1000" in run(*cli, "--pipe", text=many)


def test_redis_benchmark(gateway: tuple[ManagedProcess, int]) -> None:
    benchmark = ["redis-benchmark", "-p", str(gateway[1]), "-t", "set,get,incr", "--csv"]
    for options in (["-P", "16", "-n", "4000"], ["-P", "16", "-n", "4000", "-c", "1"], ["-n", "1000", "-c", "50"]):
        report = run(*benchmark, *options)
        assert [line.split(",")[0] for line in report.splitlines()[1:]] == ['"SET"', '"GET"', '"INCR"']


def test_it_ends_when_told(gateway: tuple[ManagedProcess, int]) -> None:
    """The last test of this module: afterwards the gateway is gone."""
    process, port = gateway
    with redis.Redis(port=port, socket_timeout=30, protocol=2) as client:
        assert client.ping()
        process.signal(signal.SIGTERM)
        stopped = process.wait_line(lambda line: line.startswith("r2p2: gateway stopped"), 30)
    assert "pipelines" in stopped and "errors_internal" not in stopped
    assert process.wait(30) == 0


def test_wrong_arguments_name_themselves() -> None:
    for arguments, told in (
        (["--listen", "nowhere", "--cluster", "127.0.0.1:1"], "--listen 'nowhere' is not HOST:PORT"),
        (["--cluster", "127.0.0.1:1", "--timeout", "0"], "--timeout is 0.0, not at least 0.001"),
        (["--cluster", "127.0.0.1:1", "--max-clients", "0"], "--max-clients is 0, outside 1.."),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "r2p2", "gateway", *arguments],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert ended.returncode == 1 and told in ended.stderr, ended.stderr
