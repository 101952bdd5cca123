"""``r2p2 torture``: a cluster under load and faults, and the proof of what its clients saw.

Replicas are real processes, killed, stopped and started anew; clients add elements to lists and read them. Afterwards
the history is judged: every acknowledged addition is there, none twice, and reads are linearizable.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import tempfile
import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from r2p2.arguments import in_range, make_folder, positive_seconds, seconds
from r2p2.bench.cluster import Plan, plan, replica_name, serve_command
from r2p2.errors import UserError
from r2p2.ports import BACKENDS, missing
from r2p2.processes import ManagedProcess, Supervisor, python_module
from r2p2.torture.checker import Verdict, check
from r2p2.torture.client import Spec
from r2p2.torture.history import read_history
from r2p2.torture.nemesis import ALL, FAULTS, Fault, Nemesis
from raft.configuration import VOTERS_MAX

__all__ = ["HELP", "NAME", "TorturedCluster", "add_arguments", "run"]

NAME = "torture"
HELP = (
    "a cluster under load whose members are killed and stopped, and the proof that nothing was lost, repeated or stale"
)

APPS: Final = ("kv", "redis")
CLIENTS_MAX: Final = 1024
MIXED_PERCENT: Final = 50
CLOCKS_APART_SECONDS: Final = 2
READY_SECONDS: Final = 20.0
STATUS_SECONDS: Final = 20.0  # of a machine that has no time for this
DONE_SECONDS: Final = 300.0  # for the calls under way, the last reads, and the history's file
PAUSE_STEP_SECONDS: Final = 0.02


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--backend", choices=BACKENDS, default="uv", help="of replicas and clients")
    parser.add_argument("--app", choices=APPS, default="kv", help="of the replicas; redis: commands on all its types")
    parser.add_argument("--nodes", type=int, default=3, metavar="N", help="replicas")
    parser.add_argument("--seconds", type=float, default=30.0, metavar="S", help="of faults")
    parser.add_argument("--rounds", type=int, metavar="N", help="faults, however long they take, instead of --seconds")
    parser.add_argument("--every", type=float, default=3.0, metavar="S", help="at most between faults")
    parser.add_argument(
        "--faults", default=",".join(FAULTS), metavar="KIND,...", help="of " + ", ".join((*FAULTS, ALL))
    )
    parser.add_argument("--leader", action="store_true", help="every fault hits the leader, not only half of them")
    parser.add_argument("--clients", type=int, default=16, metavar="N", help="logical clients, a call at a time each")
    parser.add_argument("--no-sessions", action="store_true", help="additions are not retried, so some have no answer")
    parser.add_argument("--seed", type=int, default=1, help="of faults, keys and operations")
    parser.add_argument(
        "--storage", type=Path, metavar="DIR", help="durable replicas, each in a folder of its own there"
    )
    parser.add_argument("--out", type=Path, default=Path("out/torture"), metavar="DIR", help="for logs and the history")


class TorturedCluster:
    """Replicas and the client process; a context manager. :class:`~r2p2.torture.nemesis.Victims`."""

    def __init__(self, layout: Plan, folder: Path, spec: Spec, extra: Mapping[str, list[str]], app: str = "kv") -> None:
        """`extra`: further arguments of `r2p2 serve`, by name."""
        self._app = app
        self._plan = layout
        self._spec = spec
        self._extra = extra
        self._supervisor = Supervisor(folder)
        self._starts = 0
        self._seen = 0
        self.names = [replica_name(index) for index in range(len(layout.replicas))]
        self.replicas: dict[str, ManagedProcess] = {}

    def __enter__(self) -> TorturedCluster:
        """Starts all processes."""
        self._supervisor.__enter__()
        try:
            for name in self.names:
                self.start(name)
            argv = [*python_module("r2p2.torture.client"), self._spec.to_json()]
            self.client = self._supervisor.start("clients", argv)
            self._event("ready", READY_SECONDS)
        except BaseException:
            self._supervisor.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """Ends all processes, stopped ones too."""
        for process in self.replicas.values():
            process.signal(signal.SIGCONT)
        self._supervisor.close()

    def start(self, name: str) -> None:
        """Starts a replica, or starts it anew."""
        self._starts += 1
        command = serve_command(self._plan, self.names.index(name), app=self._app, replicated=True)
        process = self._supervisor.start(f"{name}.{self._starts}", command + self._extra.get(name, []))
        self.replicas[name] = process

    def send(self, name: str, number: signal.Signals) -> None:
        """Sends a signal."""
        self.replicas[name].signal(number)

    def end(self, name: str, number: signal.Signals) -> None:
        """Sends it and waits for the end."""
        process = self.replicas[name]
        process.signal(number)
        process.wait(STATUS_SECONDS)

    def check(self) -> None:
        """Everybody runs."""
        for process in (*self.replicas.values(), self.client):
            process.check_running("the cluster to be whole")

    def pause(self, seconds: float) -> None:
        """Lets time pass."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.client.check_running("load")
            time.sleep(min(left, PAUSE_STEP_SECONDS))

    def status(self) -> Mapping[str, dict[str, Any]]:
        """The first answer to a question that was asked after this call began."""
        began = time.monotonic()
        while True:
            event = self._event("status", STATUS_SECONDS)
            if event["asked"] >= began:
                nodes: dict[str, dict[str, Any]] = event["nodes"]
                return {self._plan.name_of(address.partition(":")[0]): node for address, node in nodes.items()}

    def finish(self) -> dict[str, Any]:
        """Ends the load; what the clients counted."""
        self.client.write_line("stop")
        return self._event("done", DONE_SECONDS)

    def _event(self, name: str, timeout_s: float) -> dict[str, Any]:
        while True:
            self._seen, line = self.client.next_line(self._seen, timeout_s, what=f"the event {name!r}")
            if line.startswith("{"):
                event: dict[str, Any] = json.loads(line)
                if event["event"] == name:
                    return event


def run(args: argparse.Namespace) -> int:
    """Tortures a cluster; 0 only if it held."""
    kinds = tuple(args.faults.split(","))
    if wrong := [kind for kind in kinds if kind not in (*FAULTS, ALL)]:
        raise UserError(f"--faults {args.faults}: {wrong[0]!r} is none of {', '.join((*FAULTS, ALL))}")
    if ALL in kinds and args.storage is None:
        raise UserError("--faults all: nodes in memory do not live through it", "Give --storage DIR.")
    if args.rounds is not None and args.rounds < 1:
        raise UserError(f"--rounds {args.rounds}: no faults", "Give 1 or more, or --seconds.")
    if not 3 <= args.nodes <= VOTERS_MAX:
        raise UserError(f"--nodes {args.nodes}: a cluster that shall live through a fault has 3..{VOTERS_MAX}")
    positive_seconds("--seconds", args.seconds)
    seconds("--every", args.every)
    in_range("--clients", args.clients, 1, CLIENTS_MAX)
    if reason := missing(args.backend):
        raise reason
    folder = args.out / f"{args.backend}-{args.nodes}-{args.seed}"
    make_folder("--out", args.out)
    if folder.exists():
        shutil.rmtree(folder)
    make_folder("--out", folder)
    if args.storage is not None:
        make_folder("--storage", args.storage)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    with tempfile.TemporaryDirectory(prefix="r2p2-") as sockets:
        layout = plan(args.backend, args.nodes, Path(sockets))
        history = folder / "history.ndjson"
        spec = Spec(layout.client, layout.addresses, str(history), clients_count=args.clients, seed=args.seed)
        spec = replace(spec, sessions=not args.no_sessions, timeout_s=1.0 if args.no_sessions else spec.timeout_s)
        if args.app == "redis":
            spec = replace(spec, mixed_percent=MIXED_PERCENT)
        extra: dict[str, list[str]] = {}
        for index in range(args.nodes):
            # Clocks are seconds apart: deadlines must not show it.
            extra[replica_name(index)] = ["--clock-offset", str(CLOCKS_APART_SECONDS * (index - args.nodes // 2))]
            if args.storage is not None:
                extra[replica_name(index)] += ["--storage", str(args.storage / replica_name(index))]
        with TorturedCluster(layout, folder, spec, extra, args.app) as cluster:
            share = 1.0 if args.leader else 0.5
            nemesis = Nemesis(cluster, seed=args.seed, kinds=kinds, leader_share=share, every_s=args.every, say=say)
            nemesis.wait_whole()
            say(f"{args.nodes} replicas of {args.app} over {args.backend}; {args.clients} clients")
            nemesis.run(args.seconds, args.rounds)
            nemesis.wait_whole()
            say("faults ended; reading every list at every node")
            done = cluster.finish()
    operations = list(read_history(history))
    verdict = check(operations)
    without = interruptions(
        nemesis.faults, sorted(o.returned_ns for o in operations if o.element is not None and o.returned_ns is not None)
    )
    report = folder / "report.json"
    report.write_text(json.dumps(_report(verdict, nemesis.faults, without, done), indent=2) + "\n")
    print(summary(verdict, nemesis.faults, without, done))
    print(f"Written: {history}, {report}, and the log of each process beside them")
    held = verdict.holds and not done["unread"] and not done["differing"]
    held = held and are_equal(done["states"], args.nodes)
    if nothing := nothing_shown(verdict, nemesis.faults):
        print(f"FAILED: {nothing}, so nothing was shown")
        return 1
    print("Everything held." if held else "FAILED")
    return 0 if held else 1


def nothing_shown(verdict: Verdict, faults: list[Fault]) -> str:
    """Why a run that found nothing wrong proves nothing; empty when it does prove something."""
    if not faults:
        return "no fault was made"
    return "" if verdict.acknowledged else "no addition was answered"


def are_equal(states: Mapping[str, Mapping[str, Any]], count: int) -> bool:
    """Whether all ``count`` replicas have applied the same and hold the same."""
    return len(states) == count and len({(s["applied_index"], s["state_digest"]) for s in states.values()}) == 1


def interruptions(faults: list[Fault], returned_ns: list[int]) -> list[float]:
    """Of each fault that ended the leader: the longest time without an answer to an addition, in seconds.

    ``returned_ns``: when additions were answered, ascending. It is looked for from the last answer before the fault on,
    until the cluster is whole again.
    """
    found = []
    for fault in faults:
        if not fault.leader or fault.kind == "stop":
            continue
        first = max(0, bisect_left(returned_ns, int(fault.at * 1e9)) - 1)
        last = bisect_left(returned_ns, int((fault.at + fault.whole_after_s) * 1e9))
        gaps = [after - before for before, after in pairwise(returned_ns[first : last + 1])]
        if gaps:
            found.append(max(gaps) / 1e9)
    return found


def _report(verdict: Verdict, faults: list[Fault], without: list[float], done: dict[str, Any]) -> dict[str, Any]:
    return {
        "verdict": asdict(verdict),
        "faults": [asdict(fault) for fault in faults],
        "interruptions_s": without,
        "clients": done,
    }


def summary(verdict: Verdict, faults: list[Fault], without: list[float], done: dict[str, Any]) -> str:
    """A few lines."""
    times = [fault.whole_after_s for fault in faults]
    by_kind = ", ".join(f"{sum(f.kind == kind for f in faults)} {kind}" for kind in (*FAULTS, ALL))
    lines = [
        "",
        f"  {len(faults)} faults ({by_kind}), {sum(f.leader for f in faults)} of the leader; "
        f"whole again after {statistics.median(times):.2f} s (median), {max(times):.2f} s at most"
        if times
        else "  no faults",
        f"  {verdict.acknowledged:,} acknowledged additions, {verdict.reads:,} reads, {verdict.keys:,} lists; "
        f"{verdict.unanswered:,} calls without an answer {done['errors'] or ''}",
        "  " + ", ".join(f"{count} {kind}" for kind, count in verdict.counts.items()),
        *(f"    {text}" for text in verdict.violations),
    ]
    if without:
        median, most = 1e3 * statistics.median(without), 1e3 * max(without)
        lines.append(
            f"  {len(without)} times the leader ended: no addition answered for {median:.0f} ms (median), "
            f"{most:.0f} ms at most"
        )
    if are_equal(states := done["states"], len(states)) and states:
        state = next(iter(states.values()))
        lines.append(
            f"  {len(states)} replicas hold the same at index {state['applied_index']:,}: {state['state_digest'][:16]}"
        )
    else:
        shown = "; ".join(f"{at}: index {s['applied_index']}, {s['state_digest'][:16]}" for at, s in states.items())
        lines.append(f"  THE REPLICAS DIFFER, or are not at one index: {shown}")
    lines.append(
        f"  {done['compared']:,} times two replicas were found at one index: {len(done['differing'])} differed"
    )
    if done["unread"]:
        lines.append(f"  lists that could not be read in the end: {', '.join(done['unread'][:10])}")
    return "\n".join(lines)
