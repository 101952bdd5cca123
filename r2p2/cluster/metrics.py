"""``r2p2 metrics``: the status of members for Prometheus, asked when it scrapes.

A process of its own, so that a node needs no HTTP and no thread; one serves a whole cluster, or one runs beside each
node. prometheus_client does the format and the HTTP. Leaves to others: asking (`status.py`).
"""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from r2p2.address import format_ip, parse_address
from r2p2.cluster.status import addresses_of, ask
from r2p2.errors import UserError

__all__ = ["ClusterCollector"]

NAME = "metrics"
HELP = "serve the status of a cluster's members to Prometheus"

READY_PREFIX = "r2p2: metrics on "
"""A line that begins so says that Prometheus may scrape."""

_GAUGES: Final = {
    "term": "Raft's term",
    "commit_index": "last index known as committed",
    "applied_index": "last index applied",
    "global_commit": "index applied by every member",
    "log_first_index": "first index kept",
    "log_last_index": "last index",
    "log_bytes": "bytes of log in memory",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--config", type=Path, metavar="FILE", help="the cluster's file")
    which.add_argument("--nodes", metavar="IP:PORT,...", help="the members, or some of them")
    parser.add_argument("--listen", default="127.0.0.1:9464", metavar="IP:PORT", help="where Prometheus scrapes (HTTP)")
    parser.add_argument("--timeout", type=float, default=1.0, metavar="SECONDS", help="how long a member may take")


class ClusterCollector(Collector):
    """Metrics of members, asked anew for each scrape.

    Args:
        addresses: of the members.
        timeout_s: how long one may take, seconds.
    """

    def __init__(self, addresses: Sequence[str], timeout_s: float) -> None:
        self._addresses = addresses
        self._timeout_s = timeout_s

    def describe(self) -> Iterator[Metric]:
        """Nothing: the members are not asked before the first scrape."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Every family; a member that does not answer has ``r2p2_up`` 0 and nothing else."""
        statuses = ask(self._addresses, self._timeout_s)
        answered = {address: status for address, status in statuses.items() if "error" not in status}
        up = GaugeMetricFamily("r2p2_up", "whether the member answers", labels=["member"])
        leads = GaugeMetricFamily("r2p2_is_leader", "whether the member leads", labels=["member"])
        for address in statuses:
            up.add_metric([address], float(address in answered))
        for address, status in answered.items():
            leads.add_metric([address], float(status.get("role") == "leader"))
        yield up
        yield leads
        for name, text in _GAUGES.items():
            gauge = GaugeMetricFamily(f"r2p2_{name}", text, labels=["member"])
            for address, status in answered.items():
                if isinstance(status.get(name), int):
                    gauge.add_metric([address], status[name])
            yield gauge
        yield _counters(answered)


def _counters(answered: dict[str, dict[str, Any]]) -> Metric:
    family = CounterMetricFamily("r2p2_events", "the member's counters, by name", labels=["member", "name"])
    for address, status in answered.items():
        for name, count in status.get("counters", {}).items():
            family.add_metric([address, name], count)
    return family


def run(args: argparse.Namespace) -> int:
    """Serves until SIGINT or SIGTERM; 0 after a clean stop."""
    if not args.timeout > 0:
        raise UserError(f"--timeout is {args.timeout}, not above 0")
    ip, port = parse_address(args.listen)
    addresses = addresses_of(args)
    registry = CollectorRegistry()
    registry.register(ClusterCollector(addresses, args.timeout))
    stop = threading.Event()

    def on_signal(signum: int, frame: FrameType | None) -> None:
        stop.set()

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, on_signal)
    try:
        server, thread = start_http_server(port, addr=format_ip(ip), registry=registry)
    except OSError as error:
        raise UserError(f"cannot listen on {args.listen}: {error.strerror}", "Choose another --listen.") from error
    print(f"{READY_PREFIX}{format_ip(ip)}:{server.server_port} of {','.join(addresses)}", flush=True)
    stop.wait()
    server.shutdown()
    thread.join()
    return 0
