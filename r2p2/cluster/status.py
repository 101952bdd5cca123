"""``r2p2 status``: every member asked for what it knows of itself, as a table or as JSON.

Leaves to others: what a member knows (:meth:`r2p2.node.Node.status`), what the answers say together (`view.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from string import hexdigits
from typing import Final

from r2p2.address import format_address, parse_address
from r2p2.arguments import positive_seconds
from r2p2.client import FIXED_ROUTE, Client
from r2p2.cluster.answers import status_of
from r2p2.cluster.config import load
from r2p2.cluster.view import Status, Statuses, View
from r2p2.columns import aligned
from r2p2.errors import CallError
from r2p2.node import STATE_REQUEST, STATUS_REQUEST

__all__ = ["Targets", "add_target_arguments", "ask", "look", "table", "targets_of"]

NAME = "status"
HELP = "ask every member of a cluster for its status"
EPILOG = """exit codes: 0 when every member answers and all follow one leader in one term; 1 when not.
A member that is in the cluster and was not named is found and asked, too.

example:
  r2p2 status --nodes 10.0.0.1:8000,10.0.0.2:8000"""

_COLUMNS: Final = ("address", "slot", "role", "term", "leader", "commit", "applied", "log", "state")
_DIGEST_SHOWN: Final = 16  # characters; JSON has the digest itself


@dataclass(frozen=True, slots=True)
class Targets:
    """Whom to ask.

    Attributes:
        addresses: ``IP:PORT`` each.
        slots: address -> slot, of a file; empty without one.
        only: nobody else, even if these name other members.
    """

    addresses: tuple[str, ...]
    slots: dict[str, int]
    only: bool = False


def add_target_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares how a command is told whom to ask; :func:`targets_of` reads it."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--config", type=Path, metavar="FILE", help="the cluster's file")
    which.add_argument(
        "--nodes", metavar="IP:PORT,...", help="some of the members; the others are found from what these say"
    )
    parser.add_argument("--only", action="store_true", help="ask those that are named and nobody else")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add_target_arguments(parser)
    parser.add_argument("--timeout", type=float, default=1.0, metavar="SECONDS", help="how long a member may take")
    parser.add_argument("--json", action="store_true", help="everything they say, as JSON")
    parser.add_argument(
        "--state",
        action="store_true",
        help="also a digest of each member's state, equal where that is. A member goes through all of its state for "
        "it and does nothing else meanwhile",
    )


async def _ask_all(addresses: Sequence[str], timeout_s: float, request: bytes) -> Statuses:
    async with Client(*addresses) as client:

        async def one(address: str) -> Status:
            try:
                # It may be repeated, and one datagram may be lost.
                reply = await client.call(
                    request, policy=FIXED_ROUTE, timeout_s=timeout_s, retry_s=timeout_s / 4, target=address
                )
            except CallError as error:
                return {"error": str(error)}
            return status_of(reply)

        return dict(zip(addresses, await asyncio.gather(*map(one, addresses)), strict=True))


def ask(addresses: Sequence[str], timeout_s: float, *, with_state: bool = False) -> Statuses:
    """What each member says of itself, by address; ``{"error": ...}`` for one that does not answer. All at once.

    Args:
        addresses: ``IP:PORT`` each.
        timeout_s: how long one may take, seconds.
        with_state: also a digest of its state, which holds it up (:data:`r2p2.node.STATE_REQUEST`).
    """
    request = STATE_REQUEST if with_state else STATUS_REQUEST
    return asyncio.run(_ask_all(list(dict.fromkeys(addresses)), timeout_s, request)) if addresses else {}


def look(targets: Targets, timeout_s: float, *, with_state: bool = False) -> View:
    """Asks the targets, and then the members that they tell of; as :func:`ask`."""
    view = View(ask(targets.addresses, timeout_s, with_state=with_state), targets.addresses, targets.slots)
    if not targets.only and view.unasked:
        more = ask(view.unasked, timeout_s, with_state=with_state)
        view = View(view.statuses | more, targets.addresses, targets.slots)
    return view


def _short(digest: str) -> str:
    """So much of a digest that two differ where the whole ones do. Applications may give any text, and then it need not
    differ in front.
    """
    is_hash = len(digest) >= 2 * _DIGEST_SHOWN and set(digest) <= set(hexdigits)
    if not is_hash and len(digest) > _DIGEST_SHOWN:
        digest = sha256(digest.encode(errors="surrogatepass")).hexdigest()
    return digest[:_DIGEST_SHOWN]


def _row(view: View, address: str, *, with_state: bool) -> tuple[str, ...]:
    status = view.statuses[address]
    fields = (view.slot(address), view.kind(address), status.get("term"), status.get("leader"))
    indices = (status.get("commit_index"), status.get("applied_index"))
    log = f"{status['log_bytes'] / (1 << 20):.1f} MiB" if "log_bytes" in status else None
    digest = [_short(status.get("state_digest", "")) or None] if with_state else []
    shown = ["-" if value is None else str(value) for value in (*fields, *indices, log, *digest)]
    return (address, *shown, view.state(address))


def table(view: View) -> str:
    """A line for each member, then what concerns them all; with digests where they were asked for."""
    with_state = any("state_digest" in status for status in view.statuses.values())
    columns = (*_COLUMNS[:-1], *(["digest"] if with_state else []), _COLUMNS[-1])
    rows = [columns, *(_row(view, address, with_state=with_state) for address in view.statuses)]
    return "\n".join([*aligned(rows), *view.notes])


def targets_of(args: argparse.Namespace) -> Targets:
    """The members that ``--config`` or ``--nodes`` names.

    Raises:
        UserError: the file or an address is wrong.
    """
    if args.config is not None:
        cluster = load(args.config)
        slots = {format_address(node.address): node.slot for node in cluster.nodes}
        return Targets(tuple(slots), slots, args.only)
    return Targets(tuple(format_address(parse_address(text)) for text in args.nodes.split(",")), {}, args.only)


def as_json(view: View) -> str:
    """Everything that was said, and what it means."""
    leader = view.leader
    said = {
        "healthy": view.is_healthy,
        "leader": None if leader is None else leader["node_id"],
        "members": {
            address: status | {"kind": view.kind(address), "state": view.state(address)}
            for address, status in view.statuses.items()
        },
        "notes": view.notes,
    }
    return json.dumps(said, indent=2)


def run(args: argparse.Namespace) -> int:
    """Prints the status; 0 when all members answer and follow one leader, else 1."""
    positive_seconds("--timeout", args.timeout)
    view = look(targets_of(args), args.timeout, with_state=args.state)
    print(as_json(view) if args.json else table(view), flush=True)
    return 0 if view.is_healthy else 1
