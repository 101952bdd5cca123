"""``r2p2 gateway``: Redis clients over TCP in front of a replicated key-value store."""

from __future__ import annotations

import argparse
import asyncio
import resource
import signal

from r2p2 import limits
from r2p2.address import format_address, parse_address
from r2p2.arguments import SECONDS_MAX, in_range, seconds
from r2p2.errors import UserError
from r2p2.gateway.dialect import DIALECTS
from r2p2.gateway.server import Gateway, GatewayConfig

NAME = "gateway"
HELP = "let Redis clients over TCP use a replicated key-value store, or a replicated Redis"
EPILOG = """example:
  r2p2 gateway --cluster 10.0.0.1:8000,10.0.0.2:8000,10.0.0.3:8000 &
  redis-cli -p 6379 SET name R2P2"""

_DESCRIPTORS_BESIDES = 64

READY_PREFIX = "r2p2: gateway on "
"""A line that begins so says that clients may connect."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--listen", default="127.0.0.1:6379", metavar="HOST:PORT", help="where Redis clients connect")
    parser.add_argument("--cluster", required=True, metavar="IP:PORT,...", help="the members of the cluster")
    parser.add_argument("--app", choices=tuple(DIALECTS), default="kv", help="what the members run")
    parser.add_argument("--timeout", type=float, default=2.0, metavar="SECONDS", help="what a command may take in all")
    parser.add_argument(
        "--drain", type=float, default=2.0, metavar="SECONDS", help="what commands under way may take after a stop"
    )
    parser.add_argument(
        "--max-clients", type=int, default=limits.GATEWAY_CLIENTS_MAX, help="connections at once; more are refused"
    )


def config_of(args: argparse.Namespace) -> GatewayConfig:
    """The gateway that the arguments describe.

    Raises:
        UserError: one of them is wrong; the message names it.
    """
    host, colon, port_text = args.listen.rpartition(":")
    if not colon or not port_text.isdecimal() or int(port_text) > 65535:
        raise UserError(f"--listen {args.listen!r} is not HOST:PORT", "For example 127.0.0.1:6379, or 0.0.0.0:6379.")
    if not 0.001 <= args.timeout < SECONDS_MAX:
        raise UserError(f"--timeout is {args.timeout}, not at least 0.001 and below a million seconds")
    seconds("--drain", args.drain)
    in_range("--max-clients", args.max_clients, 1, 1 << 20)
    cluster = tuple(format_address(parse_address(text)) for text in args.cluster.split(","))
    if len(cluster) > limits.TARGETS_MAX:
        raise UserError(
            f"--cluster has {len(cluster)} addresses; at most {limits.TARGETS_MAX}", "Some members will do."
        )
    return GatewayConfig(cluster, host, int(port_text), args.timeout, args.drain, args.max_clients, args.app)


def _allow_descriptors(clients_max: int) -> None:
    """Has the kernel allow a descriptor for each client, as far as this user may.

    Raises:
        UserError: it does not.
    """
    wanted = clients_max + _DESCRIPTORS_BESIDES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise UserError(
            f"--max-clients {clients_max} needs {wanted} open files, and this user may have {hard}",
            f"Give --max-clients {max(hard - _DESCRIPTORS_BESIDES, 1)}, or raise the bound (ulimit -n).",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve(config: GatewayConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    async with Gateway(config) as gateway:
        print(f"{READY_PREFIX}{config.host}:{gateway.port} to {','.join(config.cluster)}", flush=True)
        await stop.wait()
    counted = ", ".join(f"{name} {count}" for name, count in sorted(gateway.counters.items()))
    print(f"r2p2: gateway stopped: {counted or 'nobody came'}", flush=True)


def run(args: argparse.Namespace) -> int:
    """Serves until SIGINT or SIGTERM; 0 after a clean stop."""
    config = config_of(args)
    _allow_descriptors(config.clients_max)
    from uv_backend.driver import run as run_loop

    run_loop(_serve(config))
    return 0
