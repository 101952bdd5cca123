"""``r2p2 replay``: runs a server over a capture and writes its answers as another.

The whole stack runs, Ethernet to application, on DPDK's pcap device: what the capture holds is received as from a
wire, what the server sends is written to the other file. Frames are compared best without their times, which are
those of the replay.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from r2p2.address import format_ip, parse_address
from r2p2.app import load_application
from r2p2.engine import EngineConfig
from r2p2.errors import UserError
from r2p2.node import Node, NodeConfig
from r2p2.ports import PortSpec, open_port

NAME = "replay"
HELP = "run a server over a capture (DPDK's pcap device) and write its answers as another"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--rx", required=True, metavar="IN.pcap", help="the capture to receive; Ethernet, pcap format")
    parser.add_argument("--tx", required=True, metavar="OUT.pcap", help="where what the server sends is written")
    parser.add_argument("--app", default="echo", help="echo, kv, or MODULE:NAME")
    parser.add_argument(
        "--bind",
        default="10.0.0.1:8000",
        metavar="IP:PORT",
        help="who the server is; its MAC is 02:00 and the four bytes of IP",
    )


def run(args: argparse.Namespace) -> int:
    """Replays to the end of the input; 0, and a summary of what came in and out."""
    source, target = Path(args.rx), Path(args.tx)
    if not source.is_file():
        raise UserError(f"--rx {source}: there is no such file")
    if not target.parent.is_dir():
        raise UserError(f"--tx {target}: the folder {target.parent} does not exist")
    ip, port_number = parse_address(args.bind)
    app = load_application(args.app)
    with tempfile.TemporaryDirectory(prefix="r2p2-") as folder:
        # DPDK's device arguments take no comma and no space in a path: it gets links without them.
        rx, tx = Path(folder, "rx.pcap"), Path(folder, "tx.pcap")
        rx.symlink_to(source.resolve())
        tx.symlink_to(target.resolve())
        spec = PortSpec("dpdk", format_ip(ip), port_number, vdevs=(f"net_pcap0,rx_pcap={rx},tx_pcap={tx}",))
        with open_port(spec) as port:
            # One datagram a poll: answers come in the order of what they answer, whatever a burst would hold.
            node = Node(NodeConfig(engine=EngineConfig(packets_per_poll_max=1)), port.address, app, keep=port)
            try:
                while not port.exhausted():
                    node.poll_once()
                # What the last poll answered is sent; half messages that never become whole are not waited for.
                node.engine.flush()
                counters = node.engine.counters()
            finally:
                node.close()
    dropped = {
        name: n for name, n in counters.items() if n and ("drop" in name or "bad" in name or "unmatched" in name)
    }
    print(
        f"{source}: {counters['rx_packets']} R2P2 packets in, {counters['rx_requests']} requests, "
        f"{counters['arp_requests']} ARP and {counters['icmp_echoes']} ping answered"
    )
    print(f"{target}: {counters['tx_packets']} R2P2 packets out")
    print(f"dropped: {', '.join(f'{name} {n}' for name, n in dropped.items()) or 'nothing'}")
    return 0
