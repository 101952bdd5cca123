"""``r2p2 router``: a process between clients and servers that chooses a server for each request."""

from __future__ import annotations

import argparse
import gc
import json
import sys

from r2p2 import limits
from r2p2.address import format_address, format_ip, parse_address, parse_own_address
from r2p2.arguments import in_range, nanoseconds
from r2p2.busy_loop import IDLE_POLICIES
from r2p2.errors import UserError
from r2p2.link_options import add_link_arguments, parse_link
from r2p2.logs import line_writer
from r2p2.ports import BACKENDS, PortSpec, drive, open_port
from r2p2.router import DEFAULT_POLICY, MODES, QUEUE_COUNT_MAX, Router, RouterConfig
from r2p2.stopping import stop_on_signals

NAME = "router"
HELP = "spread requests over servers: random, round-robin, join-shortest-queue, or jbsq:N"
EPILOG = """example: two servers that say when they are done, and a router that sends to the less busy one
  r2p2 serve --bind 127.0.0.1:8001 --router 127.0.0.1:9000 &
  r2p2 serve --bind 127.0.0.1:8002 --router 127.0.0.1:9000 &
  r2p2 router --bind 127.0.0.1:8000 --servers 127.0.0.1:8001,127.0.0.1:8002"""

READY_PREFIX = "r2p2: routing "
"""A line that begins so says that the router forwards; processes that start one wait for it."""

AUTO_MODES = {"uv": "relay", "portable": "relay", "dpdk": "direct"}
"""Servers answer clients themselves where the backend can send with a client's address."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--servers", required=True, metavar="IP:PORT,...", help="the servers to choose from")
    parser.add_argument("--bind", default="127.0.0.1:8000", metavar="IP:PORT", help="where clients send requests")
    parser.add_argument(
        "--control-port",
        type=int,
        default=limits.ROUTER_CONTROL_PORT,
        metavar="PORT",
        help="where servers send FEEDBACK; 0: to --bind's port",
    )
    parser.add_argument("--policy", default=DEFAULT_POLICY, help="random, round-robin, jsq, or jbsq:N")
    parser.add_argument(
        "--mode",
        choices=("auto", *MODES),
        default="auto",
        help="relay: answers pass the router; direct: servers answer clients (dpdk); auto: direct where possible",
    )
    parser.add_argument("--timeout", type=float, default=1.0, metavar="SECONDS", help="when to give a request up")
    parser.add_argument(
        "--queue",
        type=int,
        metavar="N",
        default=limits.ROUTER_QUEUE_COUNT_MAX,
        help="jbsq: requests that may wait for a slot",
    )
    parser.add_argument(
        "--queue-timeout", type=float, default=1.0, metavar="SECONDS", help="jbsq: how long one may wait"
    )
    parser.add_argument(
        "--misses",
        type=int,
        metavar="N",
        default=limits.ROUTER_MISSES_MAX,
        help="requests unanswered in a row that put a server out",
    )
    parser.add_argument("--down", type=float, default=1.0, metavar="SECONDS", help="for how long it is out")
    parser.add_argument(
        "--seed", type=int, default=None, metavar="N", help="of chance; by default another one each time"
    )
    parser.add_argument(
        "--report", type=float, default=0.0, metavar="SECONDS", help="print the status as JSON so often"
    )
    parser.add_argument("--backend", choices=BACKENDS, default="uv", help="uv: kernel UDP; dpdk: kernel bypass")
    add_link_arguments(parser)
    parser.add_argument("--idle", default="yield", choices=IDLE_POLICIES, help="dpdk: what an idle poll does")


def mode_of(mode: str, backend: str) -> str:
    """The mode that the arguments mean.

    Raises:
        UserError: the backend cannot do it.
    """
    if mode == "auto":
        return AUTO_MODES[backend]
    if mode == "direct" and AUTO_MODES[backend] != "direct":
        raise UserError(
            "--mode direct: the kernel does not send with a client's address", "Use --mode relay, or --backend dpdk."
        )
    return mode


def router_config(args: argparse.Namespace, local_port: int) -> RouterConfig:
    """The router that the arguments describe, on the UDP port that was opened.

    Raises:
        UserError: they are wrong; the message says which.
    """
    return RouterConfig(
        servers=tuple(parse_address(text) for text in args.servers.split(",")),
        local_port=local_port,
        control_port=args.control_port or local_port,
        mode=mode_of(args.mode, args.backend),
        policy=args.policy,
        timeout_ns=nanoseconds("--timeout", args.timeout),
        queue_timeout_ns=nanoseconds("--queue-timeout", args.queue_timeout),
        queue_count_max=in_range("--queue", args.queue, 1, QUEUE_COUNT_MAX),
        misses_max=in_range("--misses", args.misses, 1, 2**31),
        down_ns=nanoseconds("--down", args.down),
        seed=args.seed,
    )


class ReportingRouter:
    """A router whose status is printed every ``period_ns``."""

    def __init__(self, router: Router, period_ns: int) -> None:
        self._router = router
        self._period_ns = period_ns
        self._next_ns = router.now_ns() + period_ns
        self._write = line_writer(sys.stdout)
        self.now_ns = router.now_ns

    def poll_once(self) -> int:
        """Polls the router, then prints when it is time."""
        count = self._router.poll_once()
        now_ns = self._router.now_ns()
        if now_ns >= self._next_ns:
            self._next_ns = now_ns + self._period_ns
            self._write(json.dumps(self._router.status()))
        return count

    def next_deadline_ns(self) -> int | None:
        """The router's, or the next report."""
        deadline_ns = self._router.next_deadline_ns()
        return self._next_ns if deadline_ns is None else min(deadline_ns, self._next_ns)


def run(args: argparse.Namespace) -> int:
    """Routes until SIGINT or SIGTERM; 0 after a clean stop."""
    ip, port_number = parse_own_address("--bind", args.bind)
    in_range("--control-port", args.control_port, 0, 65_535)
    if (ip, port_number) in [parse_address(text) for text in args.servers.split(",")]:
        raise UserError(f"--bind {args.bind} is one of --servers {args.servers}", "Give the router another.")
    router_config(args, port_number or 1)  # what is wrong is said before anything is opened
    report_ns = nanoseconds("--report", args.report) if args.report else 0
    further_port = args.control_port if args.control_port != port_number else 0
    links = tuple(parse_link(text) for text in args.link)
    spec = PortSpec(args.backend, format_ip(ip), port_number, links, tuple(args.vdev), further_port=further_port)
    stop = stop_on_signals()
    with open_port(spec) as port:
        config = router_config(args, port.local_port)
        with Router(config, port.address, keep=port) as router:
            where, count = format_address((ip, port.local_port)), len(config.servers)
            print(
                f"{READY_PREFIX}{config.policy} on {where} ({args.backend}, {config.mode}, FEEDBACK to port "
                f"{config.control_port}) to {count} server{'s' * (count > 1)}",
                flush=True,
            )
            gc.collect()
            gc.freeze()
            drive(port, ReportingRouter(router, report_ns) if report_ns else router, stop, args.idle)
            counters = router.status()["counters"]
    print(f"r2p2: stopped; counted: {counters or 'nothing'}", flush=True)
    return 0
