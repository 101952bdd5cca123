"""``r2p2 sim``: run seeds through the simulator, stop at the first that breaks a property, and say how to replay it.

Left to others: the runs (world.py), what is right (checkers.py).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import fields

from r2p2.errors import UserError
from r2p2.sim.exhaustive import Bounds, Search
from r2p2.sim.world import Violation, World

NAME = "sim"
HELP = "run simulated clusters from seeds, with faults, and check Raft's properties"
PROGRESS_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--seeds", default="0:100", metavar="A:B", help="seeds A to B-1 (default: %(default)s)")
    parser.add_argument(
        "--events", type=int, default=2_000, metavar="N", help="events of a seed's safety phase (default: %(default)s)"
    )
    parser.add_argument(
        "--trace", metavar="FILE", help="write the last events of a failing (or the last) seed as NDJSON"
    )
    parser.add_argument(
        "--exhaustive", action="store_true", help="instead of seeds: every run of a tiny cluster, breadth first"
    )
    parser.add_argument(
        "--bounds",
        default="",
        metavar="NAME=N,...",
        help=f"of the exhaustive search: {', '.join(field.name for field in fields(Bounds))}",
    )
    parser.add_argument("--keep-going", action="store_true", help="run all seeds, whatever fails")


def seeds_of(text: str) -> range:
    """``A:B`` or one seed ``A``."""
    first, colon, end = text.partition(":")
    try:
        seeds = range(int(first), int(end) if colon else int(first) + 1)
    except ValueError:
        raise UserError(f"--seeds {text}: not two numbers", "Write A:B, for the seeds A to B-1.") from None
    if not seeds:
        raise UserError(f"--seeds {text}: no seeds", "Write A:B with A below B.")
    return seeds


def bounds_of(text: str) -> Bounds:
    """``name=number,...``; what is not named keeps its default."""
    known = {field.name for field in fields(Bounds)}
    chosen: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        name, _, number = part.partition("=")
        if name not in known or not number.isdecimal():
            raise UserError(f"--bounds {part}: not NAME=N", f"The names are {', '.join(sorted(known))}.")
        chosen[name] = int(number)
    return Bounds(**chosen)


def search(bounds: Bounds) -> int:
    """Explore; 1 when a property broke."""
    began = time.monotonic()
    try:
        explored = Search(bounds).run()
    except Violation as violation:
        print(f"FAILED {violation}")
        return 1
    end = "all there are" if explored.complete else "stopped at states_max"
    print(
        f"{explored.states} states ({end}), {explored.transitions} transitions, depth {explored.depth}, "
        f"{time.monotonic() - began:.1f} s, no violation: {bounds}"
    )
    return 0


def run(args: argparse.Namespace) -> int:
    """Run them; 1 when a property broke."""
    if args.exhaustive:
        return search(bounds_of(args.bounds))
    seeds = seeds_of(args.seeds)
    if args.events < 1:
        raise UserError(f"--events {args.events}: nothing to run", "Give a positive number.")
    began = told = time.monotonic()
    totals: dict[str, int] = {"events": 0}
    failures = 0
    for number, seed in enumerate(seeds, 1):
        world = World(seed)
        failed = False
        try:
            world.run(args.events)
        except Violation as violation:
            failed = True
            failures += 1
            print(f"FAILED {violation}", flush=True)
        totals["events"] += world.events_count
        for name, count in world.counts.items():
            totals[name] = totals.get(name, 0) + count
        last = number == len(seeds) or (failed and not args.keep_going)
        if args.trace and (failed or last):
            world.write_trace(args.trace)
        if last:
            break
        if time.monotonic() - told > PROGRESS_S:
            told = time.monotonic()
            print(f"{number} of {len(seeds)} seeds, {totals['events']} events", flush=True)
    counts = ", ".join(f"{count} {name}" for name, count in totals.items())
    print(f"{number} seeds, {failures} failed, {time.monotonic() - began:.1f} s: {counts}")
    return 1 if failures else 0
