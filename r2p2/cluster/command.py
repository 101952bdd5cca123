"""``r2p2 cluster``: the members of a cluster file as processes of this machine."""

from __future__ import annotations

import argparse
import signal
import time
from pathlib import Path

from r2p2.cluster.config import load
from r2p2.cluster.launcher import Launcher
from r2p2.cluster.status import ask, is_healthy, table
from r2p2.errors import UserError

NAME = "cluster"
HELP = "start, look at, kill, restart and end the members of a cluster file on this machine"

_ACTIONS = {
    "up": "start every member that does not run, and wait for a leader",
    "status": "ask every member",
    "down": "end every member",
    "kill": "end one at once (SIGKILL), as a crash would",
    "restart": "end one in order, and start it again",
}
_ASK_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument(
        "action", choices=_ACTIONS, help="; ".join(f"{name}: {text}" for name, text in _ACTIONS.items())
    )
    parser.add_argument("node", nargs="?", type=int, help="kill, restart: the member's slot")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the cluster's file")
    parser.add_argument(
        "--dir", type=Path, default=None, help="for process ids and logs; by default .r2p2/NAME beside the file"
    )
    parser.add_argument("--timeout", type=float, default=15.0, metavar="SECONDS", help="how long each step may take")


def run(args: argparse.Namespace) -> int:
    """Does it; 0 when it worked and, for up and status, the cluster is healthy."""
    if not args.timeout > 0:
        raise UserError(f"--timeout is {args.timeout}, not above 0")
    if (args.node is not None) != (args.action in ("kill", "restart")):
        raise UserError(f"r2p2 cluster {args.action}: " + ("name one node" if args.node is None else "takes no node"))
    cluster = load(args.config)
    folder = args.dir or args.config.resolve().parent / ".r2p2" / args.config.stem
    launcher = Launcher(cluster, folder)
    slots = [node.slot for node in cluster.nodes]
    if args.action == "up":
        return _up(launcher, slots, args.timeout)
    if args.action == "status":
        return _status(launcher, slots)
    if args.action == "down":
        launcher.stop(slots, args.timeout)
        print(f"r2p2: {len(slots)} members are down", flush=True)
        return 0
    cluster.node(args.node)
    if args.action == "kill":
        if not launcher.signal(args.node, signal.SIGKILL):
            raise UserError(f"node {args.node} does not run", "r2p2 cluster status shows who does.")
        launcher.wait_ended([args.node], args.timeout)
    else:
        launcher.stop([args.node], args.timeout)
        launcher.start(args.node)
        launcher.wait_ready(args.node, args.timeout)
    print(f"r2p2: node {args.node}: {args.action} done", flush=True)
    return 0


def _up(launcher: Launcher, slots: list[int], timeout_s: float) -> int:
    started = [slot for slot in slots if launcher.pid(slot) is None]
    try:
        for slot in started:
            launcher.start(slot)
        for slot in started:
            launcher.wait_ready(slot, timeout_s)
    except UserError:
        launcher.stop(started, timeout_s)
        raise
    end = time.monotonic() + timeout_s
    while not is_healthy(statuses := ask(launcher.cluster.addresses, _ASK_S)) and time.monotonic() < end:
        time.sleep(_ASK_S / 10)
    print(table(statuses), flush=True)
    if not is_healthy(statuses):
        raise UserError(f"the members follow no leader after {timeout_s:g} s", f"Their logs are in {launcher.folder}.")
    return 0


def _status(launcher: Launcher, slots: list[int]) -> int:
    statuses = ask(launcher.cluster.addresses, _ASK_S)
    print(table(statuses))
    pids = ((slot, launcher.pid(slot)) for slot in slots)
    print("processes:", ", ".join(f"node {slot} {'does not run here' if pid is None else pid}" for slot, pid in pids))
    return 0 if is_healthy(statuses) else 1
