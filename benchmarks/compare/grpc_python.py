"""gRPC for Python: an echo on asyncio, and one with threads. The client is h2load, in C."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.compare import h2load
from benchmarks.compare.measure import (
    REQUEST_BYTES,
    SERVERS,
    Load,
    Measure,
    Setting,
    Stage,
    System,
    start_server,
)

PORT = 8000
WORKERS_COUNT = 4  # of the server with threads


@contextmanager
def start(stage: Stage, workers_count: int) -> Iterator[Measure]:
    """One server."""
    bind = f"{stage.ip(0)}:{PORT}"
    argv = [str(stage.python), str(SERVERS / "grpc_echo.py"), "--bind", bind, "--workers", str(workers_count)]
    server = start_server(stage, argv)
    url, message = f"http://{bind}/compare.Echo/Call", b"e" * REQUEST_BYTES
    yield lambda load, times: h2load.run(stage, url, message, load, times, [server], REQUEST_BYTES)


LOADS = (Load(1), Load(64), Load(256), Load(1024, 4))

SYSTEM = System(
    "grpc",
    "gRPC for Python",
    (
        Setting("echo", "asyncio", LOADS, lambda stage: start(stage, 0)),
        Setting("echo", "threads", LOADS[:3], lambda stage: start(stage, WORKERS_COUNT)),
    ),
    programs=("h2load",),
    modules=("grpc",),
)
