"""Plain asyncio and uvloop: an echo over UDP, and one over TCP streams.

Over UDP the client is the same load generator as for R2P2, with the same datagrams. Over TCP it is ``tcp_load.c``: with
many requests on one stream both ends read and write dozens at once, which no transport of datagrams can match; nothing
is claimed against that but the latency of one request and the rate over many connections.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.compare.measure import (
    REQUEST_BYTES,
    SERVERS,
    Load,
    Measure,
    Sample,
    Setting,
    Stage,
    System,
    Times,
    run_client,
    start_server,
    tcp_client,
    udp_client,
    write_requests,
)

PORT = 8000


@contextmanager
def start(stage: Stage, transport: str, loop: str) -> Iterator[Measure]:
    """One server."""
    bind = f"{stage.ip(0)}:{PORT}"
    argv = [str(stage.python), str(SERVERS / "socket_echo.py"), transport, "--bind", bind]
    server = start_server(stage, argv + (["--uvloop"] if loop == "uvloop" else []))
    requests = write_requests(stage.folder / "echo.requests", [b"e" * REQUEST_BYTES] * 1024)

    def measure(load: Load, times: Times) -> Sample:
        if transport == "udp":
            argv = udp_client(stage, bind, "echo", load, times)
        else:
            argv = tcp_client(stage, bind, load, times, requests, b"e" + bytes(REQUEST_BYTES - 1))
        return run_client(stage, argv, [server], times)

    yield measure


UDP_LOADS = (Load(1), Load(64), Load(256))


def _system(loop: str) -> System:
    return System(
        loop,
        loop,
        (
            Setting("echo", "UDP", UDP_LOADS, lambda stage: start(stage, "udp", loop)),
            Setting("streams", "TCP, a request a connection", CONNECTIONS, lambda stage: start(stage, "tcp", loop)),
            Setting("streams", "TCP, one pipelined stream", PIPELINED, lambda stage: start(stage, "tcp", loop)),
        ),
        modules=("uvloop",) if loop == "uvloop" else (),
    )


CONNECTIONS = (Load(1), Load(64, 64), Load(256, 256))
PIPELINED = (Load(64), Load(256))

ASYNCIO = _system("asyncio")
UVLOOP = _system("uvloop")
