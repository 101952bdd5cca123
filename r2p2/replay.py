"""``r2p2 replay``: runs a server over a capture and writes its answers as another.

The whole stack runs, Ethernet to application, on DPDK's pcap device: what the capture holds is received as from a
wire, what the server sends is written to the other file. The capture is also the clock: when a frame is received it is
the frame's time, and nothing else moves it. So the same capture makes the same answers at the same times, byte for
byte, and a member of a Raft group, with its incarnation and seed as they were, repeats the elections it took part in.

The node is polled at the time of each frame (frames of one time are one burst) and whenever a timer is due; between
two frames that are far apart also every millisecond, for what has no deadline of its own (requests held for a leader,
half messages, ARP). A capture that holds what the server itself sent, too, says better when it looked at its timers: it
is polled at the times of the capture and no others, and ``--check`` compares what it sends with what it sent then.

Leaves to others: the files (:mod:`r2p2.replay_capture`), the port's clock (``dpdk_backend/csrc/replay.c``).
"""

from __future__ import annotations

import argparse
import tempfile
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final

from r2p2 import limits
from r2p2.address import format_address, format_ip, parse_address
from r2p2.app import load_application
from r2p2.arguments import CLUSTER_ID_MAX, in_range
from r2p2.dissect.datagrams import Datagram
from r2p2.engine import EngineConfig
from r2p2.errors import UserError
from r2p2.node import Node, NodeConfig, Timers
from r2p2.ports import ReplayPort, open_replay_port
from r2p2.replay_capture import Server, Split, mac_of, own_datagrams, sent_datagrams, split, stamp

NAME = "replay"
HELP = "run a server over a capture (DPDK's pcap device) and write its answers as another"

_LOOPBACK: Final = 127
STEP_NS: Final = 1 * limits.MS
# How long after a frame the steps go on: nothing without a deadline waits longer (ARP gives up after a second and is
# dead for one more; requests are held, and half messages kept, for less).
SETTLE_NS: Final = 4 * limits.SECOND
assert max(limits.HOLD_TIMEOUT_NS, limits.REASSEMBLY_TIMEOUT_NS) < SETTLE_NS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--rx", required=True, metavar="IN.pcap", help="the capture to receive: Ethernet or raw IPv4")
    parser.add_argument("--tx", required=True, metavar="OUT.pcap", help="where what the server sends is written")
    parser.add_argument("--app", default="echo", help="echo, kv, or MODULE:NAME")
    parser.add_argument("--bind", default="10.0.0.1:8000", metavar="IP:PORT", help="who the server is")
    parser.add_argument("--mac", help="its MAC in a capture of Ethernet; default: 02:00 and the four bytes of IP")
    parser.add_argument(
        "--router",
        default="",
        metavar="IP[:PORT]",
        help="who is told of every answer (FEEDBACK); port 9000",
    )
    parser.add_argument(
        "--members",
        default="",
        metavar="IP:PORT,...",
        help="every member of the Raft group in order of their slots, the one at --bind too; empty: not replicated",
    )
    # Without a value of their own here, so that those which say nothing of a server alone are noticed.
    parser.add_argument("--cluster-id", type=int, metavar="N", help="the Raft group's; default: 1")
    parser.add_argument("--timers", choices=("default", "datacenter"), help="Raft's timers; default: default")
    parser.add_argument(
        "--incarnation", metavar="HEX", help="the member's; it is in its status and in what it sent; default: 1"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of the member's election timeouts; default: 1")
    parser.add_argument(
        "--start", default="", metavar="SECONDS", help="when the server started, since 1970; default: with the capture"
    )
    parser.add_argument(
        "--check", action="store_true", help="compare with what the capture says the server sent; exit code 1: differs"
    )


@dataclass(frozen=True, slots=True)
class _Played:
    """What came of it."""

    counters: dict[str, int]
    sent_times_ns: array[int]


def run(args: argparse.Namespace) -> int:
    """Replays to the end of the input; 0, and a summary of what came in and out. With ``--check`` 1 on a difference."""
    source, target = Path(args.rx), Path(args.tx)
    if not source.is_file():
        raise UserError(f"--rx {source}: there is no such file")
    if not target.parent.is_dir():
        raise UserError(f"--tx {target}: the folder {target.parent} does not exist")
    if target.exists() and target.samefile(source):
        raise UserError(f"--tx {target} is the capture of --rx, which would be lost", "Name another --tx.")
    bind = parse_address(args.bind)
    server = Server(_mac(args.mac) if args.mac else mac_of(bind[0]), *bind)
    config = _node_config(args, bind)
    peers = {ip for ip, _ in config.members.values()} - {bind[0]} | {config.engine.router_ip} - {0}
    with tempfile.TemporaryDirectory(prefix="r2p2-") as folder:
        rx, tx = Path(folder, "rx.pcap"), Path(folder, "tx.pcap")
        with rx.open("wb") as stream:
            found = split(source, server, peers, stream)
        if args.check and not found.own_times_ns:
            raise UserError(f"--check: {source} holds nothing that the server at {args.bind} sent")
        start_ns = _start_ns(args.start, found)
        macs = {format_ip(ip): mac.hex(":") for ip, mac in ({ip: mac_of(ip) for ip in peers} | found.peer_macs).items()}
        where = (format_ip(bind[0]), bind[1])
        with open_replay_port(where, str(rx), str(tx), mac=server.mac.hex(":"), neighbours=macs) as port:
            played = _play(port, config, args.app, found, start_ns)
        stamp(tx, played.sent_times_ns, target)
    _print_summary(source, target, found, played)
    return _check(source, target, server, start_ns) if args.check else 0


def _mac(text: str) -> bytes:
    try:
        mac = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        mac = b""
    if len(mac) != 6:
        raise UserError(f"--mac {text!r} is no MAC", "Six hex bytes with colons, like 02:00:0a:00:00:01.")
    return mac


def _node_config(args: argparse.Namespace, bind: tuple[int, int]) -> NodeConfig:
    cluster_id = 1 if args.cluster_id is None else args.cluster_id
    seed = 1 if args.seed is None else args.seed
    in_range("--cluster-id", cluster_id, 0, CLUSTER_ID_MAX)
    in_range("--seed", seed, 0, (1 << 64) - 1)
    incarnation = _incarnation(args.incarnation)
    engine = EngineConfig()
    if args.router:
        router_ip, router_port = parse_address(args.router, default_port=limits.ROUTER_CONTROL_PORT)
        engine = EngineConfig(router_ip=router_ip, router_port=router_port)
    if not args.members:
        of_members = ("cluster_id", "timers", "incarnation", "seed")
        if given := [name for name in of_members if getattr(args, name) is not None]:
            raise UserError(
                f"--{given[0].replace('_', '-')} without --members",
                "Name the members of the Raft group, or leave it out: a server alone has none.",
            )
        return NodeConfig(engine=engine, unix_clock_ns=None)
    addresses = [parse_address(text) for text in args.members.split(",")]
    if bind not in addresses:
        raise UserError(f"--bind {args.bind} is not one of --members {args.members}")
    if len({ip for ip, _ in addresses}) < len(addresses) or bind[0] >> 24 == _LOOPBACK:
        raise UserError(
            "members that share an address, or have one of loopback, cannot be replayed: on a wire they do not exist",
            "Record members with an address each; on one machine: ip address add 10.7.0.1/32 dev lo, and so on.",
        )
    return NodeConfig(
        node_id=addresses.index(bind),
        members=dict(enumerate(addresses)),
        cluster_id=cluster_id,
        timers=Timers.profile(args.timers or "default"),
        engine=engine,
        incarnation=incarnation,
        seed=seed,
        unix_clock_ns=None,
    )


def _incarnation(text: str | None) -> int:
    try:
        incarnation = 1 if text is None else int(text, 16)
    except ValueError:
        incarnation = 0
    if not 0 < incarnation < 1 << 64:
        raise UserError(f"--incarnation {text!r} is no number of 64 bits above 0, in hex")
    return incarnation


def _start_ns(text: str, found: Split) -> int:
    first_ns = min([*found.times_ns[:1], *found.own_times_ns[:1]], default=0)
    if not text:
        return first_ns
    seconds, _, fraction = text.partition(".")
    if not (seconds + fraction).isdecimal() or len(fraction) > 9:
        raise UserError(f"--start {text!r} is no time in seconds since 1970, with at most nine decimals")
    start_ns = int(seconds or "0") * limits.SECOND + int(fraction.ljust(9, "0"))
    if start_ns > first_ns:
        raise UserError(f"--start {text} is after the first packet of the capture")
    return start_ns


# ---- the run ----


def _play(port: ReplayPort, config: NodeConfig, app: str, found: Split, start_ns: int) -> _Played:
    """Runs the server from its start to the last frame."""
    sent_times_ns: array[int] = array("Q")
    port.advance(start_ns, 0)
    node = Node(config, port.address, load_application(app), keep=port)

    def poll(now_ns: int, frames_count: int) -> None:
        port.advance(now_ns, frames_count)
        while node.poll_once() or port.frames_left():
            pass
        sent_times_ns.extend([now_ns] * (port.frames_sent() - len(sent_times_ns)))

    try:
        now_ns = start_ns
        is_timed = not found.own_times_ns
        if is_timed:
            poll(now_ns, 0)
        for next_ns, frames_count in _bursts(found):
            if is_timed:
                _let_pass(node, poll, now_ns, next_ns)
            poll(next_ns, frames_count)
            now_ns = next_ns
        return _Played(node.all_counters(), sent_times_ns)
    finally:
        node.close()


def _bursts(found: Split) -> Iterator[tuple[int, int]]:
    """Every time of the capture, in order, with the frames that came then: 0 when the server only sent."""
    received, sent = found.times_ns, found.own_times_ns
    at_received = at_sent = 0
    while at_received < len(received) or at_sent < len(sent):
        now_ns = min([*received[at_received : at_received + 1], *sent[at_sent : at_sent + 1]])
        first = at_received
        while at_received < len(received) and received[at_received] == now_ns:
            at_received += 1
        while at_sent < len(sent) and sent[at_sent] == now_ns:
            at_sent += 1
        yield now_ns, at_received - first


def _let_pass(node: Node, poll: Callable[[int, int], None], start_ns: int, end_ns: int) -> None:
    """Timers between two frames: at their deadlines, and on whole steps as long as something may wait without one."""
    now_ns = start_ns
    while True:
        deadline_ns = node.next_deadline_ns()
        if now_ns - start_ns < SETTLE_NS:
            step_ns = (now_ns // STEP_NS + 1) * STEP_NS
            deadline_ns = step_ns if deadline_ns is None else min(step_ns, deadline_ns)
        if deadline_ns is None or deadline_ns >= end_ns:
            return
        now_ns = max(deadline_ns, now_ns)
        poll(now_ns, 0)


# ---- what is said about it ----


def _print_summary(source: Path, target: Path, found: Split, played: _Played) -> None:
    counters = played.counters
    marks = ("drop", "bad", "unmatched", "stranger", "expired")
    dropped = {name: n for name, n in counters.items() if n and any(mark in name for mark in marks)}
    print(
        f"{source}: {len(found.times_ns)} frames, {counters['rx_packets']} R2P2 packets in, "
        f"{counters['rx_requests']} requests, "
        f"{counters['arp_requests']} ARP and {counters['icmp_echoes']} ping answered"
    )
    print(f"{target}: {len(played.sent_times_ns)} frames, {counters['tx_packets']} R2P2 packets out")
    print(f"dropped: {', '.join(f'{name} {n}' for name, n in dropped.items()) or 'nothing'}")


def _check(source: Path, target: Path, server: Server, start_ns: int) -> int:
    """Holds the datagrams of the replay against those the capture says the server sent, in order."""
    count = 0
    for was, now in zip_longest(own_datagrams(source, server), sent_datagrams(target)):
        count += 1
        if was is None or now is None or _content(was) != _content(now):
            print(f"differs at datagram {count} that the server sent:")
            print(f"  in the capture: {_shown(was, start_ns)}")
            print(f"  in the replay:  {_shown(now, start_ns)}")
            return 1
    print(f"the same {count} datagrams as in the capture")
    return 0


def _content(found: Datagram) -> tuple[int, int, int, int, bytes]:
    return found.source_ip, found.source_port, found.target_ip, found.target_port, found.payload


def _shown(found: Datagram | None, start_ns: int) -> str:
    if found is None:
        return "nothing"
    target = format_address((found.target_ip, found.target_port))
    shown = found.payload[:64].hex() + ("..." if len(found.payload) > 64 else "")
    seconds = (found.time_ns - start_ns) / limits.SECOND
    return f"{seconds:.6f} s after the start to {target}, {len(found.payload)} bytes: {shown}"
