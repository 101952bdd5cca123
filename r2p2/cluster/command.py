"""``r2p2 cluster``: the members of a cluster file as processes of this machine.

The file says how a cluster begins and where its processes run; who is a member of a cluster that runs is for its own
configuration to say. So ``up`` changes no configuration: what the file has more or less than the cluster it says, and
``add`` and ``remove`` are for an operator to ask for. Leaves to others: processes (`launcher.py`), statuses
(`status.py`), changes of the configuration (:mod:`r2p2.member_command`).
"""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from r2p2.address import format_address
from r2p2.arguments import positive_seconds
from r2p2.client import FIXED_ROUTE, BlockingClient
from r2p2.cluster.config import load
from r2p2.cluster.launcher import Launcher
from r2p2.cluster.status import Targets, look, table
from r2p2.cluster.view import View
from r2p2.errors import UserError
from r2p2.member_command import ask as ask_member

NAME = "cluster"
HELP = "start, look at, kill, restart, add, remove and end the members of a cluster file on this machine"

_ACTIONS: Final = {
    "up": "start every member that does not run, and wait for a leader",
    "status": "ask every member",
    "down": "end every member",
    "kill": "end one at once (SIGKILL), as a crash would",
    "restart": "end one in order, start it again, and wait until it votes again",
    "add": "start a node of the file that is no member of the running cluster, and have it let in",
    "remove": "have one taken out of the running cluster, and wait for its end",
}
_OF_ONE: Final = ("kill", "restart", "add", "remove")
EPILOG = """exit codes: 0 when it was done and, for up and status, all members answer and follow one leader; else 1.
The file does not change who is a member of a cluster that runs: add and remove do.

example:
  r2p2 cluster up --config cluster.toml
  r2p2 cluster kill 1 --config cluster.toml
  r2p2 cluster restart 1 --config cluster.toml"""
_ASK_S: Final = 0.5
_STEP_S: Final = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument(
        "action", choices=_ACTIONS, help="; ".join(f"{name}: {text}" for name, text in _ACTIONS.items())
    )
    parser.add_argument(
        "node", nargs="?", type=int, metavar="SLOT", help=f"{', '.join(_OF_ONE)}: the member's slot in the file"
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the cluster's file")
    parser.add_argument(
        "--dir", type=Path, default=None, help="for process ids and logs; by default .r2p2/NAME beside the file"
    )
    parser.add_argument("--timeout", type=float, default=15.0, metavar="SECONDS", help="how long each step may take")


def run(args: argparse.Namespace) -> int:
    """Does it; 0 when it worked and, for up and status, the cluster is healthy."""
    positive_seconds("--timeout", args.timeout)
    if (args.node is not None) != (args.action in _OF_ONE):
        raise UserError(f"r2p2 cluster {args.action}: " + ("name one node" if args.node is None else "takes no node"))
    cluster = load(args.config)
    folder = args.dir or args.config.resolve().parent / ".r2p2" / args.config.stem
    launcher = Launcher(cluster, folder)
    slots = [node.slot for node in cluster.nodes]
    if args.action == "up":
        return _up(launcher, args.timeout)
    if args.action == "status":
        return _status(launcher)
    if args.action == "down":
        with launcher.alone(args.timeout):
            launcher.stop(slots, args.timeout)
        print(f"r2p2: {len(slots)} members are down", flush=True)
        return 0
    cluster.node(args.node)
    _ONE[args.action](launcher, args.node, args.timeout)
    print(f"r2p2: node {args.node}: {args.action} done", flush=True)
    return 0


def _look(launcher: Launcher) -> View:
    cluster = launcher.cluster
    slots = {format_address(node.address): node.slot for node in cluster.nodes}
    return look(Targets(tuple(slots), slots), _ASK_S)


def _wait_healthy(launcher: Launcher, timeout_s: float) -> View:
    end = time.monotonic() + timeout_s
    while not (view := _look(launcher)).is_healthy and time.monotonic() < end:
        time.sleep(_STEP_S)
    return view


def _up(launcher: Launcher, timeout_s: float) -> int:
    launcher.make_folder()
    with launcher.alone(timeout_s):
        left = _start_what_is_down(launcher, timeout_s)
    view = _wait_healthy(launcher, timeout_s)
    print(table(view), flush=True)
    for slot in left:
        print(f"node {slot} is no member and was not started: r2p2 cluster add {slot} starts it and has it let in.")
    if not view.is_healthy:
        raise UserError(f"the members follow no leader after {timeout_s:g} s", f"Their logs are in {launcher.folder}.")
    return 0


def _start_what_is_down(launcher: Launcher, timeout_s: float) -> list[int]:
    """Starts the members that do not run; the slots of those that are no members, and were left alone."""
    nodes = launcher.cluster.nodes
    stopped = [node for node in nodes if launcher.pid(node.slot) is None]
    # A cluster that runs knows who is in it: a node that the file has besides is not let in by starting it.
    view = _look(launcher) if stopped else None
    slots = [node.slot for node in stopped if view is None or view.is_member(format_address(node.address))]
    try:
        for slot in slots:
            launcher.start(slot)
        for slot in slots:
            launcher.wait_ready(slot, timeout_s)
    except UserError:
        launcher.stop(slots, timeout_s)
        raise
    return [node.slot for node in stopped if node.slot not in slots]


def _status(launcher: Launcher) -> int:
    view = _look(launcher)
    print(table(view))
    pids = ((node.slot, launcher.pid(node.slot)) for node in launcher.cluster.nodes)
    print("processes:", ", ".join(f"node {slot} {'does not run here' if pid is None else pid}" for slot, pid in pids))
    return 0 if view.is_healthy else 1


def _kill(launcher: Launcher, slot: int, timeout_s: float) -> None:
    if not launcher.signal(slot, signal.SIGKILL):
        raise UserError(f"node {slot} does not run", "r2p2 cluster status shows who does.")
    launcher.wait_ended([slot], timeout_s)


def _restart(launcher: Launcher, slot: int, timeout_s: float) -> None:
    node = launcher.cluster.node(slot)
    address = format_address(node.address)
    launcher.make_folder()
    with launcher.alone(timeout_s):
        view = _look(launcher)
        if node.storage is None:
            _check_who_remembers(view, slot, address)
        launcher.stop([slot], timeout_s)
        launcher.start(slot)
        launcher.wait_ready(slot, timeout_s)
        if view.leader is None or not view.is_member(address):
            return
        # Only then may the next one be restarted.
        end = time.monotonic() + timeout_s
        while not ((view := _look(launcher)).votes(address) and view.statuses[address].get("leader") is not None):
            if time.monotonic() > end:
                raise UserError(
                    f"node {slot} was started, and is no member that votes after {timeout_s:g} s",
                    "r2p2 cluster status says what it waits for; restart no other one before.",
                )
            time.sleep(_STEP_S)


def _check_who_remembers(view: View, slot: int, address: str) -> None:
    """Whether enough voters are left that remember while one in memory is started anew.

    Raises:
        UserError: they are not: what they hold would be lost.
    """
    voters = view.voters
    left = {other for other in voters - {address} if view.votes(other)}
    if view.votes(address) and 2 * len(left) <= len(voters):
        raise UserError(
            f"node {slot} is in memory, and without it {len(left)} of {len(voters)} voters would remember: no majority",
            "Wait until r2p2 cluster status says that all are ok. To begin anew, empty: r2p2 cluster down, then up.",
        )


def _change(view: View, request: dict[str, object], timeout_s: float) -> None:
    """Asks the cluster for a change of its configuration; UserError with its reason when it refuses."""
    with BlockingClient() as client:

        def call(server: str, payload: bytes, seconds: float) -> bytes:
            return client.call(server, payload, policy=FIXED_ROUTE, timeout_s=seconds, retry_s=0.2)

        print(ask_member(call, list(view.rows), request, timeout_s).get("text", "done"), flush=True)


def _running(launcher: Launcher) -> View:
    view = _look(launcher)
    if not view.rows:
        raise UserError(
            "no member of a running cluster answers, so its configuration cannot be changed",
            "r2p2 cluster up starts the cluster that the file describes.",
        )
    return view


def _add(launcher: Launcher, slot: int, timeout_s: float) -> None:
    view = _running(launcher)
    address = format_address(launcher.cluster.node(slot).address)
    if address in view.rows:
        raise UserError(f"node {slot} at {address} is a member already", f"r2p2 cluster restart {slot} restarts it.")
    launcher.make_folder()
    with launcher.alone(timeout_s):
        if launcher.pid(slot) is None:
            launcher.start(slot, join=list(view.rows))
        launcher.wait_ready(slot, timeout_s)
    _change(view, {"op": "add", "slot": slot, "address": address}, timeout_s)


def _remove(launcher: Launcher, slot: int, timeout_s: float) -> None:
    view = _running(launcher)
    _change(view, {"op": "remove", "slot": slot}, timeout_s)
    # It learns that it was removed and ends by itself, unless it was down or stuck.
    launcher.wait_ended([slot], timeout_s)
    launcher.stop([slot], timeout_s)
    print(f"take node {slot} out of {launcher.cluster.path}: cluster up does not start it while the others run,")
    print("but when all are down it would begin a new cluster with it (in memory)", flush=True)


_ONE: Final[dict[str, Callable[[Launcher, int, float], None]]] = {
    "kill": _kill,
    "restart": _restart,
    "add": _add,
    "remove": _remove,
}
