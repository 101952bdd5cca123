"""``r2p2 serve``: one node, an application behind a backend, replicated or not."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from r2p2 import limits
from r2p2.address import format_address, format_ip, parse_address, parse_own_address, parse_peer_address
from r2p2.app import canonical_name, load_application, load_object
from r2p2.arguments import CHECK_ENTRIES_MAX, CLUSTER_ID_MAX, CPU_MAX, LOG_MIB_MAX, SECONDS_MAX, in_range, seconds
from r2p2.busy_loop import IDLE_POLICIES
from r2p2.capture import RotatingPcapWriter
from r2p2.engine import EngineConfig
from r2p2.errors import UserError
from r2p2.link_options import add_link_arguments, parse_link
from r2p2.logs import FORMATS, configure
from r2p2.node import Node, NodeConfig, Timers
from r2p2.node.log_time import ShiftedClock, UnixClock
from r2p2.node.truncation import POLICIES
from r2p2.ports import BACKENDS, OpenPort, PortSpec, drive, open_port
from r2p2.processes import pin
from r2p2.server import Server, ServerConfig, Service
from r2p2.service_manager import ServiceManager
from r2p2.stopping import stop_on_signals
from raft.configuration import SLOT_MAX

log = logging.getLogger("r2p2.serve")

NAME = "serve"
HELP = "run one node: an application behind a backend, alone or as a member of a Raft group"

EPILOG = """exit codes: 0 after SIGINT or SIGTERM; 1 for an error; 3 when the member was removed from its cluster, which
a restart does not mend.

examples:
  r2p2 serve --app echo
  r2p2 serve --config cluster.toml --node 0
  r2p2 serve --app kv --bind 10.0.0.4:8000 --node-id 3 --join 10.0.0.1:8000,10.0.0.2:8000"""

READY_PREFIX = "r2p2: serving "
"""A line that begins so says that the node answers; processes that start nodes wait for it."""

CAPTURE_MIB = 64

# With --config these would say nothing.
_OF_THE_FILE = (
    *("app", "backend", "idle", "log_mib", "link", "vdev", "bind", "members", "node_id", "storage"),
    *("cluster_id", "timers", "truncation", "apply_thread", "check_determinism"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="a cluster's file (docs/operations.md); it decides, with --node"
    )
    parser.add_argument("--log-format", default="text", choices=FORMATS, help="json: an object a line, for collectors")
    parser.add_argument("--node", type=int, metavar="SLOT", help="with --config: which of its nodes this is")
    parser.add_argument(
        "--app",
        default="echo",
        help="echo, kv, redis, spin, stss, or MODULE:NAME (a StateMachine, a Service, or a function bytes -> bytes)",
    )
    parser.add_argument("--backend", choices=BACKENDS, default="uv", help="uv: kernel UDP; dpdk: kernel bypass")
    parser.add_argument("--bind", default="127.0.0.1:8000", metavar="IP:PORT", help="where to listen")
    parser.add_argument(
        "--members",
        default="",
        metavar="IP:PORT,...",
        help="every member of the Raft group in order of their slots, this one too; empty: not replicated",
    )
    parser.add_argument(
        "--node-id",
        type=int,
        metavar="SLOT",
        default=None,
        help="this member's slot; by default the one with --bind's address",
    )
    parser.add_argument(
        "--join",
        default="",
        metavar="IP:PORT,...",
        help="instead of --members, or with --config: some members of a group that runs already; waits to be let in "
        "(r2p2 member add)",
    )
    parser.add_argument(
        "--truncation",
        default=None,
        choices=POLICIES,
        help="what gives way when a member that is down holds the log; by default snapshot where the application has "
        "snapshots, else block",
    )
    parser.add_argument(
        "--storage",
        type=Path,
        default=None,
        metavar="DIR",
        help="keep term, vote, log and snapshots there, durably: the member comes back as who it was",
    )
    parser.add_argument("--cluster-id", type=int, default=1, metavar="N", help="tells Raft groups apart")
    parser.add_argument(
        "--router",
        default="",
        metavar="IP[:PORT]",
        help="the router that is told of every answer (FEEDBACK); port 9000",
    )
    parser.add_argument(
        "--drain", type=float, default=2.0, metavar="SECONDS", help="a Service: how long replies may take after a stop"
    )
    parser.add_argument("--timers", default="default", choices=("default", "datacenter"), help="Raft's timers")
    add_link_arguments(parser)
    parser.add_argument(
        "--pci",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="dpdk: a NIC by its PCI address, bound to vfio-pci or uio_pci_generic (docs/nic.md)",
    )
    parser.add_argument(
        "--hugepages",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="dpdk: memory from hugepages; by default for a --pci where enough are free",
    )
    parser.add_argument(
        "--cpu", type=int, default=None, metavar="N", help="run on that processor alone; by default on any"
    )
    parser.add_argument("--idle", default="yield", choices=IDLE_POLICIES, help="dpdk: what an idle poll does")
    parser.add_argument(
        "--log-mib",
        metavar="N",
        type=int,
        default=limits.LOG_BYTES_MAX >> 20,
        help="MiB of log kept at most; beyond it requests are refused",
    )
    parser.add_argument(
        "--apply-thread",
        action="store_true",
        help="handlers run on a thread of their own: slow ones cost no elections (docs/applications.md)",
    )
    parser.add_argument(
        "--check-determinism",
        type=int,
        nargs="?",
        const=limits.CHECK_INTERVAL_ENTRIES,
        default=0,
        metavar="ENTRIES",
        help="debug: replicas compare replies and states every so many entries "
        f"(without a number: {limits.CHECK_INTERVAL_ENTRIES})",
    )
    parser.add_argument(
        "--clock-offset",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="for tests: the wall clock is read as if it were wrong by so much (docs/log-time.md)",
    )
    parser.add_argument(
        "--pcap", metavar="FILE", help="write what is received and sent: a sample under load, elections always"
    )
    parser.add_argument(
        "--pcap-rate", type=int, default=2000, metavar="N", help="packets a second that --pcap takes under load"
    )
    parser.add_argument(
        "--pcap-mib", type=int, metavar="N", default=CAPTURE_MIB, help="MiB that a file of --pcap has at most"
    )
    parser.add_argument(
        "--pcap-files",
        metavar="N",
        type=int,
        default=1,
        help="files that --pcap keeps: FILE, and those before it FILE.1, ...; with 1 it ends when that is full",
    )


def node_config(args: argparse.Namespace) -> NodeConfig:
    """The node that the arguments describe.

    Raises:
        UserError: they contradict each other; the message names the argument.
    """
    in_range("--cluster-id", args.cluster_id, 0, CLUSTER_ID_MAX)
    in_range("--check-determinism", args.check_determinism, 0, CHECK_ENTRIES_MAX)
    log_bytes = in_range("--log-mib", args.log_mib, 1, LOG_MIB_MAX) << 20
    router_ip, router_port = (
        parse_address(args.router, default_port=limits.ROUTER_CONTROL_PORT) if args.router else (0, 0)
    )
    engine = EngineConfig(
        router_ip=router_ip,
        router_port=router_port,
        log_bytes_max=log_bytes,
        log_entries_max=max(limits.LOG_ENTRIES_MAX, log_bytes // limits.ENTRY_HEADER_BYTES // 4),
    )
    if not -SECONDS_MAX < args.clock_offset < SECONDS_MAX:
        raise UserError(f"--clock-offset is {args.clock_offset}, not within a million seconds")
    clock = ShiftedClock(args.clock_offset)
    if args.join:
        return _joining_config(args, engine, clock)
    if not args.members:
        if args.apply_thread or args.check_determinism:
            which = "--apply-thread" if args.apply_thread else "--check-determinism"
            raise UserError(f"{which} without --members", "Name the members of the Raft group, or --join one.")
        if args.node_id is not None:
            raise UserError("--node-id without --members", "Name the members of the Raft group, or --join one.")
        if args.storage is not None:
            raise UserError("--storage without --members", "Name the members of the Raft group, or --join one.")
        return NodeConfig(engine=engine, unix_clock_ns=clock)
    bind = parse_address(args.bind)  # whose port may be 0: the kernel's choice
    named = args.members.split(",")
    addresses = [bind if text == args.bind else parse_peer_address("--members", text) for text in named]
    if len(set(addresses)) != len(addresses):
        raise UserError(f"--members {args.members} names one twice")
    node_id = args.node_id
    if node_id is None:
        if bind not in addresses:
            raise UserError(f"--bind {args.bind} is not one of --members {args.members}", "Add it, or give --node-id.")
        node_id = addresses.index(bind)
    if bind in addresses and node_id != addresses.index(bind):
        raise UserError(
            f"--node-id is {node_id}, and --members has --bind {args.bind} in slot {addresses.index(bind)}",
            "Leave --node-id out.",
        )
    if not 0 <= node_id < len(addresses):
        raise UserError(f"--node-id {node_id} is outside 0..{len(addresses) - 1}, the slots of --members")
    return replace(_member_config(args, engine, clock), node_id=node_id, members=dict(enumerate(addresses)))


def _joining_config(args: argparse.Namespace, engine: EngineConfig, clock: UnixClock) -> NodeConfig:
    """A node that is to become a member of a group that runs already."""
    if args.members:
        raise UserError("--join and --members", "Give --join to a new member, --members to those a group begins with.")
    if args.node_id is None:
        raise UserError("--join without --node-id", "Choose a slot that no member has; r2p2 member list shows them.")
    if not 0 <= args.node_id <= SLOT_MAX:
        raise UserError(f"--node-id {args.node_id} is outside 0..{SLOT_MAX}")
    join = tuple(parse_peer_address("--join", text) for text in args.join.split(","))
    return replace(_member_config(args, engine, clock), node_id=args.node_id, join=join)


def _member_config(args: argparse.Namespace, engine: EngineConfig, clock: UnixClock) -> NodeConfig:
    """What the arguments say of any member of a group; which one, and of which, is for others to fill in."""
    return NodeConfig(
        cluster_id=args.cluster_id,
        timers=Timers.profile(args.timers),
        engine=engine,
        truncation=args.truncation,
        storage=args.storage,
        unix_clock_ns=clock,
        apply_thread=args.apply_thread,
        check_determinism=args.check_determinism,
    )


def _configured(args: argparse.Namespace) -> NodeConfig:
    """The node that ``--config`` and ``--node`` name; what the file decides is put into ``args``.

    Raises:
        UserError: the file is wrong, or has no such node.
    """
    from r2p2.cluster.config import load

    if args.node is None:
        raise UserError("--config without --node", "Say which of the file's nodes this is: its slot.")
    defaults = argparse.ArgumentParser()
    add_arguments(defaults)
    for name in _OF_THE_FILE:
        if getattr(args, name) != defaults.get_default(name):
            raise UserError(f"--{name.replace('_', '-')} with --config, which decides it", "Write it into the file.")
    cluster = load(args.config)
    node = cluster.node(args.node)
    args.app, args.backend, args.idle, args.log_mib = cluster.app, cluster.backend, cluster.idle, cluster.log_mib
    args.link, args.vdev = list(node.links), list(node.vdevs)
    args.bind = format_address(node.address)
    join = tuple(parse_peer_address("--join", text) for text in args.join.split(",")) if args.join else ()
    args.members = args.join = ""
    args.storage = None
    args.node_id = None
    args.cpu = node.cpu if args.cpu is None else args.cpu
    return replace(
        node_config(args),
        node_id=node.slot,
        members={} if join else cluster.members,
        join=join,
        cluster_id=cluster.cluster_id,
        timers=cluster.timers,
        truncation=cluster.truncation,
        storage=node.storage,
        apply_thread=cluster.apply_thread,
        check_determinism=cluster.check_determinism,
    )


class CapturingNode:
    """A node or server whose datagrams go to a capture file after each poll."""

    def __init__(
        self,
        node: Node | Server,
        path: str,
        rate: int,
        mib: int = CAPTURE_MIB,
        files: int = 1,
        *,
        offset_ns: int | None = None,
    ) -> None:
        """``offset_ns``: of unix time to the port's clock, as the log's time has it; by default measured here."""
        self._node = node
        in_range("--pcap-rate", rate, 1, limits.SECOND)
        if mib < 1 or files < 1:
            raise UserError(f"--pcap-mib {mib} and --pcap-files {files}: both are at least 1")
        try:
            self._writer = RotatingPcapWriter(Path(path), files_count=files, max_bytes=mib << 20)
        except OSError as error:
            raise UserError(f"--pcap {path}: {error.strerror}") from error
        # The port's clock starts anywhere; a capture's counts from 1970. A replay gives entries the capture's time, so
        # a leader's must be the log's to the microsecond: entries have it in milliseconds.
        self._offset_ns = time.time_ns() - node.now_ns() if offset_ns is None else offset_ns
        self.missed = 0
        self._failed = ""
        node.engine.capture_start(rate, limits.DATAGRAM_BYTES_MAX)
        self.next_deadline_ns = node.next_deadline_ns
        self.now_ns = node.now_ns

    @property
    def wake_from_thread(self) -> Callable[[], None] | None:
        """The node's, where it has one."""
        return self._node.wake_from_thread if isinstance(self._node, Node) else None

    @wake_from_thread.setter
    def wake_from_thread(self, wake: Callable[[], None] | None) -> None:
        if isinstance(self._node, Node):
            self._node.wake_from_thread = wake

    def poll_once(self) -> int:
        """Polls the node, then writes."""
        count = self._node.poll_once()
        self._drain()
        return count

    def _drain(self) -> None:
        taken, self.missed = self._node.engine.capture_take()
        if self._failed:
            return
        try:
            for d in taken:
                self._writer.write(
                    d.time_ns + self._offset_ns, d.source_ip, d.source_port, d.target_ip, d.target_port, d.payload
                )
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        """The capture has ended; what it looks at goes on."""
        self._failed = f"ended by an error: {error.strerror}"
        log.error("--pcap %s has ended: %s; the node goes on without it", self._writer.path, error.strerror)

    def close(self) -> None:
        """Writes the rest."""
        self._drain()
        try:
            self._writer.close()
        except OSError as error:  # of what the file's buffer still had
            if not self._failed:
                self._fail(error)

    def summary(self) -> str:
        """What was written and what was not, for the operator; after :meth:`close`."""
        writer = self._writer
        left_out = [
            (self.missed, "left out by the sample (--pcap-rate)"),
            (writer.left_out_count, "after the file was full (--pcap-mib)"),
            (writer.removed_count, "older files removed (--pcap-files)"),
        ]
        parts = [f"{writer.packets_count} datagrams", *(f"{count} {what}" for count, what in left_out if count)]
        return f"--pcap {writer.path}: {', '.join([*parts, *([self._failed] if self._failed else [])])}"


def replay_command(args: argparse.Namespace, node: Node) -> str:
    """What repeats a member's capture (:mod:`r2p2.replay`), with its incarnation and its seed."""
    config = node.config
    members = ",".join(format_address(address) for _, address in sorted(config.members.items()))
    return (
        f"r2p2 replay --check --rx {args.pcap} --tx OUT.pcap --app {args.app} --bind {args.bind} --members {members} "
        f"--cluster-id {config.cluster_id} --timers {args.timers} "
        f"--incarnation {node.incarnation:x} --seed {config.seed}"
    )


def waits_for(node: Node | Server, config: NodeConfig) -> str | None:
    """The addresses of the other members, where the node has no cluster yet and is no newcomer to one."""
    if not isinstance(node, Node) or config.join or node.status().get("formed", True):
        return None
    others = (address for slot, address in sorted(config.members.items()) if slot != config.node_id)
    return ", ".join(format_address(address) for address in others) or None


def capturing_node(args: argparse.Namespace, node: Node | Server, config: NodeConfig) -> CapturingNode:
    """``node`` and its ``--pcap``, whose times are the log's where the node has a log."""
    clock = config.unix_clock_ns
    offset_ns = clock.port_offset_ns if isinstance(clock, ShiftedClock) else None
    return CapturingNode(node, args.pcap, args.pcap_rate, args.pcap_mib, args.pcap_files, offset_ns=offset_ns)


def _make(args: argparse.Namespace, config: NodeConfig, port: OpenPort, tell: Callable[[str], None]) -> Node | Server:
    """The node, or for a Service its server."""
    found = load_object(args.app)
    if isinstance(found, Service):
        if config.members or config.join:
            raise UserError(f"--app {args.app} is a Service, which has no replicas", "Leave --members out.")
        if found.needs_asyncio and port.fileno() < 0:
            raise UserError(f"--app {args.app} has async handlers, which need asyncio", "Use --backend uv.")
        return Server(found, port.address, ServerConfig(engine=config.engine), keep=port)
    return Node(
        config,
        port.address,
        load_application(args.app),
        keep=port,
        on_event=tell,
    )


def run(args: argparse.Namespace) -> int:
    """Serves until SIGINT or SIGTERM; 0 after a clean stop."""
    if args.node is not None and args.config is None:
        raise UserError("--node without --config", "Give the cluster's file; without one a member's slot is --node-id.")
    config = _configured(args) if args.config is not None else node_config(args)
    config = replace(config, application=canonical_name(args.app))
    fields: dict[str, object] = (
        {"node": config.node_id, "cluster": config.cluster_id} if config.members or config.join else {}
    )
    ip, port_number = parse_own_address("--bind", args.bind)
    if args.cpu is not None:  # before any thread, and before DPDK looks at where it may run
        pin(os.getpid(), in_range("--cpu", args.cpu, 0, CPU_MAX))
    manager = ServiceManager()
    tell = manager.telling(configure(args.log_format, fields))
    seconds("--drain", args.drain)
    load_object(args.app)
    if args.pcap and config.members:
        config = replace(config, seed=secrets.randbits(32))  # told at the end, so that the capture can be replayed
    links = tuple(parse_link(text) for text in args.link)
    spec = PortSpec(
        args.backend,
        format_ip(ip),
        port_number,
        links,
        tuple(args.vdev),
        pcis=tuple(args.pci),
        hugepages=args.hugepages,
    )
    stop = stop_on_signals()
    with open_port(spec) as port:
        node = _make(args, config, port, tell)
        capture = capturing_node(args, node, config) if args.pcap else None
        try:
            where = format_address((ip, port.local_port))
            what = f"member {config.node_id} of {len(config.members)}" if config.members else "not replicated"
            if config.join:
                what = f"asks to be let in as slot {config.node_id}"
            tell(f"{READY_PREFIX.removeprefix('r2p2: ')}{args.app} on {where} ({args.backend}, {what})")
            manager.ready()
            if (others := waits_for(node, config)) is not None:
                tell(f"waits for {others}: a cluster forms once all its members have been there")
            # What exists now stays: the collector need not look at it again.
            gc.collect()
            gc.freeze()
            server = node if isinstance(node, Server) else None
            drive(port, capture or node, stop, args.idle, server, args.drain)
        finally:
            manager.stopping()
            if capture is not None:
                capture.close()
                tell(capture.summary())
                if isinstance(node, Node) and config.members:
                    tell(f"replay it with {replay_command(args, node)}")
            counted = node.all_counters()
            counters = {name: n for name, n in counted.items() if n and ("drop" in name or "bad" in name)}
            if isinstance(node, Node) and config.storage is not None:
                tell(f"storage: {json.dumps(node.status()['storage'])}")
            node.close()
    tell(f"stopped; dropped: {counters or 'nothing'}")
    return 0
