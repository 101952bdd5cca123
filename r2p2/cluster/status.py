"""``r2p2 status``: every member asked for what it knows of itself, as a table or as JSON.

Leaves to others: what a member knows (:meth:`r2p2.node.Node.status`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from r2p2.address import format_address, parse_address
from r2p2.client import FIXED_ROUTE, BlockingClient
from r2p2.cluster.config import load
from r2p2.errors import CallError, UserError
from r2p2.node import STATUS_REQUEST

__all__ = ["ask", "is_healthy", "table"]

NAME = "status"
HELP = "ask every member of a cluster for its status"

_COLUMNS: Final = ("address", "slot", "role", "term", "leader", "commit", "applied", "log", "state")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--config", type=Path, metavar="FILE", help="the cluster's file")
    which.add_argument("--nodes", metavar="IP:PORT,...", help="the members, or some of them")
    parser.add_argument("--timeout", type=float, default=1.0, metavar="SECONDS", help="how long a member may take")
    parser.add_argument("--json", action="store_true", help="everything they say, as JSON")


def ask(addresses: Sequence[str], timeout_s: float) -> dict[str, dict[str, Any]]:
    """What each member says of itself, by address; ``{"error": ...}`` for one that does not answer."""
    found: dict[str, dict[str, Any]] = {}
    with BlockingClient() as client:
        for address in addresses:
            try:
                answer = json.loads(client.call(address, STATUS_REQUEST, policy=FIXED_ROUTE, timeout_s=timeout_s))
                found[address] = answer if isinstance(answer, dict) else {"error": "it does not answer with a status"}
            except CallError as error:
                found[address] = {"error": str(error)}
            except ValueError:
                found[address] = {"error": "it does not answer with a status; is it a server of another kind?"}
    return found


def is_healthy(statuses: dict[str, dict[str, Any]]) -> bool:
    """Whether all answer and follow one leader in one term."""
    views = {(status.get("leader"), status.get("term")) for status in statuses.values()}
    return len(views) == 1 and not any("error" in status for status in statuses.values()) and None not in views.pop()


def _row(address: str, status: dict[str, Any]) -> tuple[str, ...]:
    if "error" in status:
        return (address, "-", "-", "-", "-", "-", "-", "-", str(status["error"]))
    role = str(status.get("role", "alone" if not status.get("replicated") else "forming"))
    state = "ok"
    if status.get("replicated") and not status.get("formed", True):
        state = f"waits for members {status.get('waiting_for')}"
    elif status.get("replicated") and status.get("leader") is None:
        state = "knows no leader"
    fields = (status.get("node_id"), role, *(status.get(name) for name in ("term", "leader", "commit_index")))
    shown = ["-" if field is None else str(field) for field in (*fields, status.get("applied_index"))]
    return (address, *shown, f"{status.get('log_bytes', 0) / (1 << 20):.1f} MiB", state)


def table(statuses: dict[str, dict[str, Any]]) -> str:
    """A line for each member."""
    rows = [_COLUMNS, *(_row(address, status) for address, status in statuses.items())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def addresses_of(args: argparse.Namespace) -> list[str]:
    """The members that ``--config`` or ``--nodes`` names."""
    if args.config is not None:
        return load(args.config).addresses
    return [format_address(parse_address(text)) for text in args.nodes.split(",")]


def run(args: argparse.Namespace) -> int:
    """Prints the status; 0 when all answer and follow one leader, else 1."""
    if not args.timeout > 0:
        raise UserError(f"--timeout is {args.timeout}, not above 0")
    statuses = ask(addresses_of(args), args.timeout)
    healthy = is_healthy(statuses)
    print(json.dumps({"healthy": healthy, "members": statuses}, indent=2) if args.json else table(statuses), flush=True)
    return 0 if healthy else 1
