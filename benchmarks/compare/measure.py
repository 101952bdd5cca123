"""What every system of the comparison is measured with: a stage to start servers on, a client to watch, a sample.

A *system* is something a user may pick. Each of its *settings* is started once a round and measured under several
*loads*; one run of load gives one :class:`Sample`. Every client prints a line when its warm-up is over and another at
the end of the measured time; the servers' processor time is read at these two lines, and the client says its own.

Who is compared with whom, and what is printed, is :mod:`benchmarks.compare.table`'s business.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from r2p2.processes import ManagedProcess, ProcessFailed, Supervisor, pin

ROOT = Path(__file__).resolve().parents[2]
SERVERS = Path(__file__).resolve().parent / "servers"
READY_SECONDS = 30.0
SETTLE_SECONDS = 15.0  # for a client to start and to end, beyond the time it was told to take

# One RESP SET of 64 bytes has a key of 12 and a value of 25; every store is given a key and a value of these sizes.
REQUEST_BYTES = 64
KEY_BYTES = 12
VALUE_BYTES = 25
KEYS_COUNT = 16_384


@dataclass(frozen=True, slots=True)
class Times:
    """Of one run of load, seconds."""

    warmup_s: float
    measure_s: float


@dataclass(frozen=True, slots=True)
class Load:
    """`outstanding` requests wait at any time, in equal shares on so many connections (streams and HTTP/2 only)."""

    outstanding: int
    connections: int = 1

    @property
    def depth(self) -> int:
        """Requests that wait on one connection."""
        return max(1, self.outstanding // self.connections)


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of load. Cores: processor seconds a second; `client_cores` None where the caller is inside a server."""

    rate_rps: float
    p50_us: float
    p99_us: float
    server_cores: float
    client_cores: float | None
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a setting's processes live: addresses of its own on loopback, folders, programs."""

    supervisor: Supervisor
    folder: Path
    """For logs and sockets."""
    memory: Path
    """On a file system in memory."""
    disk: Path
    """On a disk."""
    python: Path
    """Of the comparison's virtual environment, which has what is compared."""
    our_python: Path
    tcp_load: Path
    """The compiled TCP client."""
    prefix: str
    """Three bytes of an address in 127.0.0.0/8."""
    is_pinned: bool = False
    """The leader and the client on the first processor, the others on the second; else wherever the kernel likes."""

    def ip(self, index: int) -> str:
        """Server `index`; the client is 100."""
        return f"{self.prefix}.{index + 1}"

    @property
    def client_ip(self) -> str:
        """Of a client that binds an address."""
        return f"{self.prefix}.100"

    def pin_servers(self, leader: ManagedProcess, others: Sequence[ManagedProcess]) -> None:
        """What ``r2p2 bench --pin leader+generator`` does, for servers of another make."""
        if self.is_pinned:
            first, *further = sorted(os.sched_getaffinity(0))
            pin(leader.pid, first)
            for index, process in enumerate(others):
                pin(process.pid, (further or [first])[index % max(1, len(further))])

    def pin_client(self, client: ManagedProcess) -> None:
        """Its client beside the leader."""
        if self.is_pinned:
            pin(client.pid, min(os.sched_getaffinity(0)))


Measure = Callable[[Load, Times], Sample]
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run a system, and the loads that it is measured under.

    `category`: what it may be compared with (a key of table.CATEGORIES). `start` gives a context in which the servers
    run and a function measures them. Who starts a setting ends all that the stage's supervisor then has, right after
    the context; only one whose servers must have ended before does that itself.
    """

    category: str
    name: str
    loads: Sequence[Load]
    start: Callable[[Stage], AbstractContextManager[Measure]]


@dataclass(frozen=True, slots=True)
class System:
    """`key` is its name on the command line; `needs`: programs and modules, without which it cannot be measured."""

    key: str
    title: str
    settings: Sequence[Setting]
    programs: Sequence[str] = ()
    modules: Sequence[str] = ()
    backend: str = ""
    """Of ours: the backend that must be there."""


def pinned(stage: Stage) -> Stage:
    """The same stage with processes pinned."""
    return replace(stage, is_pinned=True)


def closed_loops(*outstanding: int) -> tuple[Load, ...]:
    """Loads of so many requests each, on one connection."""
    return tuple(Load(count) for count in outstanding)


def start_server(stage: Stage, argv: Sequence[str], ready: str = "ready") -> ManagedProcess:
    """Starts the one server of a setting and waits for its line that begins with `ready`."""
    server = stage.supervisor.start("server", argv)
    server.wait_line(lambda line: line.startswith(ready), READY_SECONDS, what="the ready line")
    return server


def wait_for(
    look: Callable[[], Found | None], processes: Sequence[ManagedProcess], what: str, pause_s: float = 0.02
) -> Found:
    """What `look` finds, once that is not None. ProcessFailed when a process ends before, or after READY_SECONDS."""
    end = time.monotonic() + READY_SECONDS
    while (found := look()) is None:
        for process in processes:
            process.check_running(what)
        if time.monotonic() > end:
            raise ProcessFailed(f"waited {READY_SECONDS:g} s for: {what}")
        time.sleep(pause_s)
    return found


def cpu_seconds_of(processes: Sequence[ManagedProcess]) -> float:
    """Processor seconds so far. ProcessFailed when one has ended."""
    total = 0.0
    for process in processes:
        used = process.cpu_seconds()
        if used is None:
            process.check_running("the measurement")
        total += used or 0.0
    return total


def watch_client(
    client: ManagedProcess,
    servers: Sequence[ManagedProcess],
    begins: Callable[[str], bool],
    ends: Callable[[str], bool],
    timeout_seconds: float,
    after: int = 0,
) -> tuple[str, float]:
    """Waits for the two lines of the client. The line that ended it, and the cores that the servers used between.

    `after`: a mark in the client's output, for one that lives longer than a measurement.
    """
    client.wait_line(begins, timeout_seconds, after=after, what="the end of the warm-up")
    begun, before = time.monotonic(), cpu_seconds_of(servers)
    line = client.wait_line(ends, timeout_seconds, after=after, what="the end of the measured time")
    seconds = time.monotonic() - begun
    return line, (cpu_seconds_of(servers) - before) / seconds


def is_result(line: str) -> bool:
    """Whether a line is the JSON object that our clients print at the end."""
    return line.startswith("{")


def run_to_end(
    stage: Stage,
    client: ManagedProcess,
    servers: Sequence[ManagedProcess],
    times: Times,
    begins: Callable[[str], bool],
    ends: Callable[[str], bool],
) -> tuple[str, float]:
    """Has a client that was just started make its load, as :func:`watch_client` says, and end well. ProcessFailed when
    it does not.
    """
    stage.pin_client(client)
    timeout = times.warmup_s + times.measure_s + SETTLE_SECONDS
    line, server_cores = watch_client(client, servers, begins, ends, timeout)
    code = client.wait(SETTLE_SECONDS)
    if code != 0:
        raise ProcessFailed(f"{client.name} ended with exit code {code}\n{client.tail()}")
    return line, server_cores


def is_begin(line: str) -> bool:
    """Whether a line is the one that our clients print when their warm-up is over."""
    return line == "measuring"


def run_client(
    stage: Stage,
    argv: Sequence[str],
    servers: Sequence[ManagedProcess],
    times: Times,
) -> Sample:
    """Runs one of our clients (``measuring``, then a JSON object) to its end."""
    client = stage.supervisor.start("client", argv, {"PYTHONPATH": str(ROOT)})
    return sample_of(*run_to_end(stage, client, servers, times, is_begin, is_result))


def sample_of(line: str, server_cores: float) -> Sample:
    """From a client's JSON object; one without ``cpu_seconds`` is inside a server. ProcessFailed without an answer."""
    result = json.loads(line)
    if not result["answered"]:
        raise ProcessFailed(f"nothing was answered: {line}")
    rate = result["answered"] / result["seconds"]
    client_cores = result["cpu_seconds"] / result["seconds"] if "cpu_seconds" in result else None
    return Sample(rate, result["p50_us"], result["p99_us"], server_cores, client_cores, result["failed"])


def udp_client(stage: Stage, target: str, workload: str, load: Load, times: Times, memif: str = "") -> list[str]:
    """The command line of the project's load generator."""
    argv = [str(stage.our_python), "-m", "benchmarks.compare.udp_load", "--target", target, "--workload", workload]
    argv += ["--outstanding", str(load.outstanding), "--size", str(REQUEST_BYTES)]
    argv += ["--warmup", str(times.warmup_s), "--seconds", str(times.measure_s)]
    return argv + (["--memif", memif, "--ip", "10.0.0.100"] if memif else ["--ip", stage.client_ip])


def tcp_client(stage: Stage, target: str, load: Load, times: Times, requests: Path, reply: bytes) -> list[str]:
    """The command line of the TCP client; `reply` is what the answers begin with, padded to their length."""
    ip, _, port = target.partition(":")
    argv = [str(stage.tcp_load), ip, port, str(load.connections), str(load.depth), str(len(reply))]
    return [*argv, str(times.warmup_s), str(times.measure_s), reply.decode().strip("\0\r\n"), str(requests)]


def write_requests(path: Path, requests: Sequence[bytes]) -> Path:
    """The TCP client's file: the count, then the requests, all of one length."""
    lengths = {len(request) for request in requests}
    assert len(lengths) == 1, f"requests of {sorted(lengths)} bytes"
    path.write_bytes(b"%d\n" % len(requests) + b"".join(requests))
    return path


def key(index: int) -> bytes:
    """A key of 12 bytes."""
    return b"key:%08d" % index


def resp_set(index: int) -> bytes:
    """A RESP SET of 64 bytes."""
    request = b"*3\r\n$3\r\nSET\r\n$12\r\n%b\r\n$25\r\n%b\r\n" % (key(index), b"v" * VALUE_BYTES)
    assert len(request) == REQUEST_BYTES, f"{len(request)} bytes"
    return request


@contextmanager
def fresh_folder(parent: Path, name: str) -> Iterator[Path]:
    """A folder that is not there before and not afterwards."""
    folder = parent / f"{name}-{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
