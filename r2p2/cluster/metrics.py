"""``r2p2 metrics``: the status of members for Prometheus, asked when it scrapes.

A process of its own, so that a node needs no HTTP and no thread; one serves a whole cluster, or one runs beside each
node. prometheus_client does the format and the HTTP. Leaves to others: asking (`status.py`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from r2p2 import limits
from r2p2.address import format_ip, parse_address
from r2p2.arguments import positive_seconds
from r2p2.cluster.status import Targets, add_target_arguments, look, targets_of
from r2p2.cluster.view import Statuses, View
from r2p2.errors import UserError
from r2p2.stopping import stop_on_signals

__all__ = ["ClusterCollector"]

NAME = "metrics"
HELP = "serve the status of a cluster's members to Prometheus"
EPILOG = """example, with a scrape by hand:
  r2p2 metrics --config cluster.toml &
  curl http://127.0.0.1:9464/metrics"""

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

# By the status's key in milliseconds; Prometheus wants seconds.
_SECONDS: Final = {
    "log_time_ms": (
        "log_time_seconds",
        "the log's time at the applied index, unix time; it stands while nothing is appended; 0: nothing was yet",
    ),
    "log_time_behind_ms": (
        "log_time_behind_seconds",
        "how far the member's clock is behind the newest time in its log; 0: it is not",
    ),
}

# One judgement of a member each, from all the statuses together; None: there is nothing to say of it.
_JUDGED: Final[dict[str, tuple[str, Callable[[View, str], float | None]]]] = {
    "up": ("whether the member answers", lambda view, address: float(address in view.answered)),
    "is_leader": ("whether it leads", lambda view, address: float(view.kind(address) == "leader")),
    "is_member": (
        "whether the cluster's configuration has it; 0 for one that was removed or is not let in yet",
        lambda view, address: float(view.is_member(address)),
    ),
    "is_voter": (
        "whether it votes by the configuration",
        lambda view, address: float(bool(view.rows.get(address, {}).get("voter"))),
    ),
    "is_learner": (
        "whether it is catching up and does not vote yet",
        lambda view, address: float(bool(view.rows.get(address, {}).get("learner"))),
    ),
    "held_log_bytes": (
        "bytes of log that the leader keeps because this member has not applied them",
        lambda view, address: float(view.held_bytes(address)),
    ),
    "silent_seconds": (
        "how long the leader has not heard of it",
        lambda view, address: None if (silent := view.silent_ms(address)) is None else silent / 1000,
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add_target_arguments(parser)
    parser.add_argument("--listen", default="127.0.0.1:9464", metavar="IP:PORT", help="where Prometheus scrapes (HTTP)")
    parser.add_argument("--timeout", type=float, default=1.0, metavar="SECONDS", help="how long a member may take")


class ClusterCollector(Collector):
    """Metrics of members, asked anew for each scrape.

    Args:
        targets: whom to ask.
        timeout_s: how long one may take, seconds.
    """

    def __init__(self, targets: Targets, timeout_s: float) -> None:
        self._targets = targets
        self._timeout_s = timeout_s

    def describe(self) -> Iterator[Metric]:
        """Nothing: the members are not asked before the first scrape."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Every family; of a member that does not answer, what the others say of it."""
        view = look(self._targets, self._timeout_s)
        healthy = GaugeMetricFamily("r2p2_healthy", "whether all members answer and follow one leader in one term")
        healthy.add_metric([], float(view.is_healthy))
        yield healthy
        members = GaugeMetricFamily("r2p2_members", "members by the cluster's configuration")
        members.add_metric([], float(len(view.rows)))
        yield members
        for name, (text, judge) in _JUDGED.items():
            gauge = GaugeMetricFamily(f"r2p2_{name}", text, labels=["member"])
            for address in view.statuses:
                value = judge(view, address)
                if value is not None:
                    gauge.add_metric([address], value)
            yield gauge
        for name, text in _GAUGES.items():
            yield _gauge(name, text, view.answered, name, 1)
        for key, (name, text) in _SECONDS.items():
            yield _gauge(name, text, view.answered, key, limits.SECOND // limits.MS)
        yield _counters(view.answered)


def _gauge(name: str, text: str, answered: Statuses, key: str, divisor: int) -> Metric:
    """A number of the status, of those members that have it."""
    gauge = GaugeMetricFamily(f"r2p2_{name}", text, labels=["member"])
    for address, status in answered.items():
        if isinstance(status.get(key), int):
            gauge.add_metric([address], status[key] / divisor)
    return gauge


def _counters(answered: Statuses) -> Metric:
    family = CounterMetricFamily("r2p2_events", "the member's counters, by name", labels=["member", "name"])
    for address, status in answered.items():
        for name, count in status.get("counters", {}).items():
            family.add_metric([address, name], count)
    return family


def run(args: argparse.Namespace) -> int:
    """Serves until SIGINT or SIGTERM; 0 after a clean stop."""
    positive_seconds("--timeout", args.timeout)
    ip, port = parse_address(args.listen)
    targets = targets_of(args)
    registry = CollectorRegistry()
    registry.register(ClusterCollector(targets, args.timeout))
    stop = stop_on_signals()
    try:
        server, thread = start_http_server(port, addr=format_ip(ip), registry=registry)
    except OSError as error:
        raise UserError(f"cannot listen on {args.listen}: {error.strerror}", "Choose another --listen.") from error
    print(f"{READY_PREFIX}{format_ip(ip)}:{server.server_port} of {','.join(targets.addresses)}", flush=True)
    stop.wait()
    server.shutdown()
    thread.join()
    return 0
