"""PySyncObj: three members on loopback, each with a front end on UDP; and the caller inside the leader's process.

As shipped it commits once in a tenth of a second; that is measured, and so are the settings that make it fast
(``servers/pysyncobj_kv.py``). Its members keep their log in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.compare.measure import (
    SERVERS,
    SETTLE_SECONDS,
    Load,
    Measure,
    Sample,
    Setting,
    Stage,
    System,
    Times,
    closed_loops,
    is_begin,
    is_result,
    pinned,
    run_client,
    sample_of,
    udp_client,
    wait_for,
    watch_client,
)
from r2p2.processes import ManagedProcess

RAFT_PORT = 7000
FRONT_PORT = 8000
MEMBERS_COUNT = 3


def _wait_leader(servers: list[ManagedProcess]) -> int:
    """Which member leads, once all serve."""

    def look() -> int | None:
        leaders = [i for i, server in enumerate(servers) if "leads" in server.lines]
        return leaders[-1] if leaders and all("ready" in server.lines for server in servers) else None

    return wait_for(look, servers, "PySyncObj's members to elect a leader")


@contextmanager
def members(stage: Stage, variant: str) -> Iterator[tuple[list[ManagedProcess], int]]:
    """Three members, and which of them leads."""
    own = [f"{stage.ip(i)}:{RAFT_PORT}" for i in range(MEMBERS_COUNT)]
    servers = []
    for i in range(MEMBERS_COUNT):
        others = ",".join(own[:i] + own[i + 1 :])
        argv = [str(stage.python), str(SERVERS / "pysyncobj_kv.py"), "--variant", variant, "--own", own[i]]
        argv += ["--others", others, "--front", f"{stage.ip(i)}:{FRONT_PORT}"]
        servers.append(stage.supervisor.start(f"member{i}", argv))
    leader = _wait_leader(servers)
    stage.pin_servers(servers[leader], servers[:leader] + servers[leader + 1 :])
    yield servers, leader


@contextmanager
def start(stage: Stage, variant: str) -> Iterator[Measure]:
    """Called from another process."""
    with members(stage, variant) as (servers, leader):
        target = f"{stage.ip(leader)}:{FRONT_PORT}"
        yield lambda load, times: run_client(stage, udp_client(stage, target, "set", load, times), servers, times)


@contextmanager
def start_inside(stage: Stage, variant: str) -> Iterator[Measure]:
    """Called from the leader's process."""
    with members(stage, variant) as (servers, leader):

        def measure(load: Load, times: Times) -> Sample:
            process = servers[leader]
            after = process.mark()
            process.write_line(f"inside {load.outstanding} {times.warmup_s} {times.measure_s}")
            timeout = times.warmup_s + times.measure_s + SETTLE_SECONDS
            line, cores = watch_client(process, servers, is_begin, is_result, timeout, after)
            return sample_of(line, cores)

        yield measure


NAMES = {"shipped": "as shipped", "unbatched": "without batching", "1ms": "period of 1 ms", "loop": "one thread"}


def _remote(variant: str, *outstanding: int) -> Setting:
    loads, name = closed_loops(*outstanding), f"{NAMES[variant]}, UDP front end"
    return Setting("writes", name, loads, lambda stage: start(stage, variant))


def _pinned(variant: str, *outstanding: int) -> Setting:
    loads, name = closed_loops(*outstanding), f"{NAMES[variant]}, UDP front end, pinned"
    return Setting("writes", name, loads, lambda stage: start(pinned(stage), variant))


def _inside(variant: str) -> Setting:
    return Setting("inside", NAMES[variant], (Load(4096),), lambda stage: start_inside(stage, variant))


SYSTEM = System(
    "pysyncobj",
    "PySyncObj",
    (
        _remote("shipped", 1, 64, 256),
        _remote("unbatched", 1, 64, 256),
        _remote("1ms", 1, 64, 256),
        _remote("loop", 1, 64, 256, 1024),
        _pinned("1ms", 64, 256),
        _pinned("loop", 64, 256, 1024),
        _inside("shipped"),
        _inside("1ms"),
        _inside("loop"),
        Setting("inside", "one thread, pinned", (Load(4096),), lambda stage: start_inside(pinned(stage), "loop")),
    ),
    modules=("pysyncobj",),
)
