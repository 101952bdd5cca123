"""``r2p2 sim``: run seeds through the simulator, stop at the first that breaks a property, and say how to replay it.

Left to others: the runs (runner.py, world.py), what is right (checkers.py, histories.py), the search (exhaustive.py).
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import fields
from pathlib import Path

from r2p2.arguments import writable_file
from r2p2.errors import UserError
from r2p2.sim.exhaustive import Bounds, Search
from r2p2.sim.mutants import MUTANTS, Mutant
from r2p2.sim.runner import Outcome, run_many
from r2p2.sim.violation import Violation

NAME = "sim"
HELP = "run simulated clusters from seeds, with faults, and check Raft's properties"
PROGRESS_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--seeds", default="0:100", metavar="A:B", help="seeds A to B-1")
    parser.add_argument("--events", type=int, default=2_000, metavar="N", help="events of a seed's safety phase")
    parser.add_argument(
        "--jobs", type=int, default=0, metavar="N", help="processes to run seeds in; 0: one a processor"
    )
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="write the last events of a failing (or the last) seed as NDJSON, and beside it, with the suffix .mmd, as "
        "a mermaid sequence diagram",
    )
    parser.add_argument("--mutant", metavar="NAME", help="put a known bug back into the core first; ? lists them")
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
        if name not in known:
            raise UserError(f"--bounds {part}: not NAME=N", f"The names are {', '.join(sorted(known))}.")
        if not (number.isascii() and number.isdecimal()):
            raise UserError(f"--bounds {part}: {number!r} is not a number")
        chosen[name] = int(number)
        if name in ("members_count", "states_max") and not chosen[name]:
            raise UserError(f"--bounds {part}: at least 1")
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


def mutant_of(name: str) -> Mutant:
    """The one of that name."""
    for mutant in MUTANTS:
        if mutant.name == name:
            return mutant
    raise UserError(f"--mutant {name}: there is none of that name", "Write --mutant ? for a list.")


def write_trace(path: str, outcome: Outcome) -> None:
    """Both forms of it."""
    diagram = Path(path).with_suffix(".mmd")
    Path(path).write_text(outcome.ndjson)
    diagram.write_text(outcome.mermaid)
    print(f"the last events of seed {outcome.seed}: {path}, {diagram}")


def run(args: argparse.Namespace) -> int:
    """Run them; 1 when a property broke."""
    if args.bounds and not args.exhaustive:
        raise UserError("--bounds without --exhaustive", "They are of the exhaustive search.")
    if args.exhaustive:
        return search(bounds_of(args.bounds))
    if args.mutant == "?":
        print("\n".join(f"{mutant.name:42} {mutant.row}" for mutant in MUTANTS))
        return 0
    mutant = mutant_of(args.mutant) if args.mutant else None
    seeds = seeds_of(args.seeds)
    if args.events < 1:
        raise UserError(f"--events {args.events}: nothing to run", "Give a positive number.")
    if args.jobs < 0:
        raise UserError(f"--jobs {args.jobs}: not a number of processes", "Give 1 or more, or 0 for one a processor.")
    if args.trace:
        if Path(args.trace).suffix == ".mmd":
            raise UserError(f"--trace {args.trace}: the diagram beside it ends in .mmd", "Give it another suffix.")
        writable_file("--trace", Path(args.trace))
    began = told = time.monotonic()
    totals: dict[str, int] = {}
    failures = number = 0
    outcomes = run_many(
        seeds, events=args.events, jobs=args.jobs or os.cpu_count() or 1, mutant=mutant, trace=bool(args.trace)
    )
    last: Outcome | None = None
    try:
        for number, outcome in enumerate(outcomes, 1):
            for name, count in outcome.counts.items():
                totals[name] = totals.get(name, 0) + count
            if outcome.failure:
                failures += 1
                last = outcome
                print(f"FAILED {outcome.failure}", flush=True)
                if not args.keep_going:
                    break
            elif not failures:
                last = outcome
            if time.monotonic() - told > PROGRESS_S:
                told = time.monotonic()
                rate = totals["events"] / (told - began)
                print(f"{number} of {len(seeds)} seeds, {totals['events']} events, {rate:.0f} a second", flush=True)
    finally:
        outcomes.close()
    if args.trace and last is not None:
        write_trace(args.trace, last)
    counts = ", ".join(f"{count} {name}" for name, count in totals.items())
    print(f"{number} seeds, {failures} failed, {time.monotonic() - began:.1f} s: {counts}")
    return 1 if failures else 0
