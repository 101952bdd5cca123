"""Many seeds, on all processors: results come back in the order of the seeds, whoever ran them.

Left to others: one seed's run (world.py), what the user is told (command.py).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial

from r2p2.sim.mutants import Mutant, applied
from r2p2.sim.world import Violation, World


@dataclass(frozen=True)
class Outcome:
    """One seed's. ``failure``: what broke, with the line that replays it; empty: nothing. The trace only where asked
    for or where something broke.
    """

    seed: int
    counts: dict[str, int]
    failure: str = ""
    ndjson: str = ""
    mermaid: str = ""


def run_one(seed: int, *, events: int, mutant: Mutant | None = None, trace: bool = False) -> Outcome:
    """Runs a seed; ``mutant``: over the core with that bug."""
    if mutant is not None:
        with applied(mutant):
            return _run(seed, events, trace, mutant)
    return _run(seed, events, trace, None)


def _run(seed: int, events: int, trace: bool, mutant: Mutant | None) -> Outcome:
    world = World(seed, mutant.options if mutant is not None else None)
    failure = ""
    try:
        world.run(events)
    except Violation as violation:
        failure = str(violation)
        if mutant is not None:
            failure += f" --mutant {mutant.name}"
    counts = {"events": world.events_count} | world.counts
    if failure or trace:
        return Outcome(seed, counts, failure, world.trace.ndjson(), world.trace.mermaid())
    return Outcome(seed, counts)


def run_many(
    seeds: range, *, events: int, jobs: int, mutant: Mutant | None = None, trace: bool = False
) -> Generator[Outcome, None, None]:
    """Each seed's outcome, in order; ``jobs`` processes. Close the generator to end early."""
    one = partial(run_one, events=events, mutant=mutant, trace=trace)
    jobs = min(jobs, len(seeds))
    if jobs == 1:
        yield from map(one, seeds)
        return
    # Forked, so that the workers run the very modules of this process, compiled or not.
    with multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else None).Pool(
        jobs
    ) as pool:
        yield from pool.imap(one, seeds, chunksize=1)
