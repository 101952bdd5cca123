"""etcd: three members on loopback, called at the leader over gRPC.

In memory its data lies on a file system in memory (it has no other way); durable, on the disk. The client is h2load
with a ``KV.Put`` laid out by hand: the public message has the key as field 1 and the value as field 2. All puts are of
one key, since h2load sends one body; that is no more work for etcd than many keys.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compare import h2load
from benchmarks.compare.measure import (
    VALUE_BYTES,
    Load,
    Measure,
    Sample,
    Setting,
    Stage,
    System,
    Times,
    fresh_folder,
    key,
    pinned,
    wait_for,
)
from r2p2.processes import ManagedProcess, ProcessFailed

CLIENT_PORT = 2379
PEER_PORT = 2380
MEMBERS_COUNT = 3
ANSWER_BYTES_MIN = 10  # the header: two member numbers, revision, term
POLL_SECONDS = 0.1  # each time a process of etcdctl
VALUE = b"v" * VALUE_BYTES


@dataclass(frozen=True, slots=True)
class Status:
    """What one member says."""

    endpoint: str
    is_leader: bool
    has_leader: bool
    revision: int


def put_message(name: bytes, value: bytes) -> bytes:
    """etcdserverpb.PutRequest with a key and a value of under 128 bytes each."""
    return b"\x0a" + bytes([len(name)]) + name + b"\x12" + bytes([len(value)]) + value


def parse_status(text: str) -> list[Status]:
    """From ``etcdctl endpoint status -w json``."""
    rows = json.loads(text)
    return [
        Status(
            row["Endpoint"],
            row["Status"]["leader"] == row["Status"]["header"]["member_id"],
            row["Status"].get("leader", 0) != 0,
            row["Status"]["header"]["revision"],
        )
        for row in rows
    ]


def etcdctl(endpoints: str, *words: str) -> str:
    """What etcdctl prints; empty when it fails."""
    argv = ["etcdctl", "--endpoints", endpoints, "--command-timeout", "2s", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "ETCDCTL_API": "3"})
    return done.stdout if done.returncode == 0 else ""


def _wait_leader(servers: Sequence[ManagedProcess], endpoints: str) -> str:
    """The leader's endpoint, once all members know one."""

    def look() -> str | None:
        text = etcdctl(endpoints, "endpoint", "status", "-w", "json")
        members = parse_status(text) if text else []
        if len(members) != MEMBERS_COUNT or not all(member.has_leader for member in members):
            return None
        return next(member.endpoint for member in members if member.is_leader)

    return wait_for(look, servers, "etcd's members to elect a leader", POLL_SECONDS)


@contextmanager
def start(stage: Stage, parent: Path) -> Iterator[Measure]:
    """Three members with their data in `parent`."""
    with fresh_folder(parent, "etcd") as folder:
        peers = [f"http://{stage.ip(i)}:{PEER_PORT}" for i in range(MEMBERS_COUNT)]
        clients = [f"http://{stage.ip(i)}:{CLIENT_PORT}" for i in range(MEMBERS_COUNT)]
        cluster = ",".join(f"n{i}={peer}" for i, peer in enumerate(peers))
        servers = []
        for i, (peer, client) in enumerate(zip(peers, clients, strict=True)):
            argv = ["etcd", "--name", f"n{i}", "--data-dir", str(folder / f"n{i}"), "--logger", "zap"]
            argv += ["--log-level", "error", "--listen-client-urls", client, "--advertise-client-urls", client]
            argv += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster]
            argv += ["--initial-cluster-state", "new", "--initial-cluster-token", folder.name]
            argv += ["--quota-backend-bytes", str(8 << 30)]
            servers.append(stage.supervisor.start(f"etcd{i}", argv))
        leader = _wait_leader(servers, ",".join(clients))
        leading = servers[clients.index(leader)]
        stage.pin_servers(leading, [server for server in servers if server is not leading])

        def measure(load: Load, times: Times) -> Sample:
            url, message = f"{leader}/etcdserverpb.KV/Put", put_message(key(0), VALUE)
            before = _revision(leader)
            sample = h2load.run(stage, url, message, load, times, servers, ANSWER_BYTES_MIN)
            written, answered = _revision(leader) - before, round(sample.rate_rps * times.measure_s)
            if written < answered:
                raise ProcessFailed(f"{answered} puts were answered and {written} were executed")
            return sample

        try:
            yield measure
            if etcdctl(leader, "get", key(0).decode(), "--print-value-only").strip() != VALUE.decode():
                raise ProcessFailed("the value that was put is not there")
        finally:
            stage.supervisor.close()  # before the folder that they write to is removed


def _revision(endpoint: str) -> int:
    """The store's revision: one more for each put."""
    text = etcdctl(endpoint, "endpoint", "status", "-w", "json")
    if not text:
        raise ProcessFailed("etcdctl does not get the status of the leader")
    return parse_status(text)[0].revision


LOADS = (Load(1), Load(64), Load(256, 4), Load(1024, 4))

SYSTEM = System(
    "etcd",
    "etcd",
    (
        Setting("writes", "files in memory", LOADS, lambda stage: start(stage, stage.memory)),
        Setting("writes", "files in memory, pinned", LOADS[1:], lambda stage: start(pinned(stage), stage.memory)),
        Setting("durable", "files on disk", LOADS, lambda stage: start(stage, stage.disk)),
    ),
    programs=("etcd", "etcdctl", "h2load"),
)
