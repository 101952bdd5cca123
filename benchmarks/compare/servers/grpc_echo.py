"""An echo on gRPC for Python, asyncio or threads.

Runs in the comparison's virtual environment: imports grpcio and the standard library. The method is
``/compare.Echo/Call``, bytes to bytes: no message class encodes or decodes, which is the least that gRPC can do.
Prints ``ready`` once it serves.
"""

from __future__ import annotations

import argparse
import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

SERVICE = "compare.Echo"
METHOD = "Call"
OPTIONS = (("grpc.max_concurrent_streams", 4096), ("grpc.so_reuseport", 0), ("grpc.optimization_target", "throughput"))


def call(request: bytes, _context: Any) -> bytes:
    """The handler of the server with threads."""
    return request


async def call_async(request: bytes, _context: Any) -> bytes:
    """The handler of the server on asyncio."""
    return request


def handlers(behaviour: Any) -> tuple[Any, ...]:
    """The service with `behaviour` as its only method; without serializers bytes go through as they are."""
    method = grpc.unary_unary_rpc_method_handler(behaviour)
    return (grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),)


async def serve_async(bind: str) -> None:
    """On asyncio, until the process is ended."""
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers(handlers(call_async))
    server.add_insecure_port(bind)
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


def serve_threads(bind: str, workers_count: int) -> None:
    """With a pool of threads, until the process is ended."""
    server = grpc.server(ThreadPoolExecutor(workers_count), options=OPTIONS)
    server.add_generic_rpc_handlers(handlers(call))
    server.add_insecure_port(bind)
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bind", required=True, metavar="IP:PORT")
    parser.add_argument("--workers", type=int, default=0, help="threads; 0: on asyncio")
    args = parser.parse_args()
    if args.workers:
        serve_threads(args.bind, args.workers)
    else:
        asyncio.run(serve_async(args.bind))


if __name__ == "__main__":
    main()
