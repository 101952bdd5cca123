"""Redis and memcached: one server, in memory, nothing replicated. The client is ``tcp_load.c`` with pipelining.

Redis once more with two replicas and a ``WAIT 1`` behind every SET: the answer comes when one replica has the write.
That is the nearest it has to a majority of three, although without a vote the write may still be lost.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.compare.measure import (
    KEYS_COUNT,
    VALUE_BYTES,
    Load,
    Measure,
    Setting,
    Stage,
    System,
    key,
    resp_set,
    run_client,
    tcp_client,
    wait_for,
    write_requests,
)
from r2p2.processes import ManagedProcess

PORT = 6379
WAIT = b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$1\r\n0\r\n"


def memcached_set(index: int) -> bytes:
    """A set in memcached's text protocol, with the sizes of the others."""
    return b"set %b 0 0 %d\r\n%b\r\n" % (key(index), VALUE_BYTES, b"v" * VALUE_BYTES)


def ask(ip: str, request: bytes) -> bytes:
    """What a server answers to one request; empty when it does not."""
    try:
        with socket.create_connection((ip, PORT), timeout=1.0) as connection:
            connection.sendall(request)
            return connection.recv(65536)
    except OSError:
        return b""


def wait_answer(server: ManagedProcess, ip: str, request: bytes, wanted: bytes) -> None:
    """Asks until `wanted` is in the answer."""
    wait_for(lambda: wanted in ask(ip, request) or None, [server], f"the answer {wanted!r}")


def _measure(stage: Stage, servers: Sequence[ManagedProcess], requests: Sequence[bytes], reply: bytes) -> Measure:
    path = write_requests(stage.folder / "set.requests", requests)
    target = f"{stage.ip(0)}:{PORT}"
    return lambda load, times: run_client(stage, tcp_client(stage, target, load, times, path, reply), servers, times)


@contextmanager
def start_redis(stage: Stage, replicas_count: int = 0) -> Iterator[Measure]:
    """A Redis that writes nothing to disk, and its replicas."""
    servers = []
    for i in range(replicas_count + 1):
        argv = ["redis-server", "--bind", stage.ip(i), "--port", str(PORT), "--save", "", "--appendonly", "no"]
        argv += ["--dir", str(stage.folder), "--dbfilename", f"redis{i}.rdb", "--daemonize", "no"]
        argv += ["--protected-mode", "no", "--repl-diskless-sync-delay", "0"]
        argv += ["--replicaof", stage.ip(0), str(PORT)] if i else []
        servers.append(stage.supervisor.start(f"redis{i}", argv))
        wait_answer(servers[-1], stage.ip(i), b"PING\r\n", b"+PONG")
    if replicas_count:

        def are_online() -> bool | None:
            return ask(stage.ip(0), b"INFO replication\r\n").count(b"state=online") >= replicas_count or None

        wait_for(are_online, servers, "Redis' replicas to be online")
    sets, reply = [resp_set(i) for i in range(KEYS_COUNT)], b"+OK\r\n"
    if replicas_count:
        sets, reply = [request + WAIT for request in sets], b"+OK\r\n\0\0\0\0"
    yield _measure(stage, servers, sets, reply)


@contextmanager
def start_memcached(stage: Stage) -> Iterator[Measure]:
    """A memcached with two threads, one for each core."""
    argv = ["memcached", "-l", stage.ip(0), "-p", str(PORT), "-U", "0", "-t", "2", "-m", "256", "-c", "4096"]
    server = stage.supervisor.start("memcached", [*argv, "-u", "root"])
    wait_answer(server, stage.ip(0), b"version\r\n", b"VERSION")
    requests = [memcached_set(i) for i in range(KEYS_COUNT)]
    yield _measure(stage, [server], requests, b"STORED\r\n")


SINGLE = (Load(1), Load(64, 64), Load(256, 256))
PIPELINED = (Load(64), Load(256, 4), Load(4096, 64))

REDIS = System(
    "redis",
    "Redis",
    (
        Setting("kv", "a request a connection", SINGLE, start_redis),
        Setting("kv", "pipelined", PIPELINED, start_redis),
        Setting("writes", "two replicas, WAIT 1", SINGLE, lambda stage: start_redis(stage, 2)),
    ),
    programs=("redis-server",),
)
MEMCACHED = System(
    "memcached",
    "memcached",
    (
        Setting("kv", "a request a connection", SINGLE, start_memcached),
        Setting("kv", "pipelined", PIPELINED, start_memcached),
    ),
    programs=("memcached",),
)
