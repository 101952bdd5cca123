"""Options for what a process reaches others by over DPDK: memif links and virtual devices."""

from __future__ import annotations

import argparse

from r2p2.address import format_ip, parse_address
from r2p2.errors import UserError
from r2p2.ports import Link

__all__ = ["add_link_arguments", "parse_link"]


def add_link_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares ``--link`` and ``--vdev``, each a list of texts."""
    parser.add_argument(
        "--link",
        action="append",
        default=[],
        metavar="ROLE:PEER_IP:SOCKET",
        help="dpdk: a memif to another process; ROLE is server or client, SOCKET a path",
    )
    parser.add_argument(
        "--vdev", action="append", default=[], metavar="NAME,ARGS", help="dpdk: a virtual device as testpmd spells it"
    )


def parse_link(text: str) -> Link:
    """``server:10.0.0.2:/run/r2p2/a.sock`` as a :class:`~r2p2.ports.Link`.

    Raises:
        UserError: it is not of this form.
    """
    role, _, rest = text.partition(":")
    peer, _, path = rest.partition(":")
    if role not in ("server", "client") or not peer or not path:
        raise UserError(f"--link {text!r} is not ROLE:PEER_IP:SOCKET", "For example server:10.0.0.2:/tmp/r2p2/0-1.sock")
    peer_ip, _ = parse_address(peer, default_port=0)
    return Link(path, "server" if role == "server" else "client", format_ip(peer_ip))
