"""Proof that every mutant of the core dies: by the simulator, or by a scenario of the museum.

``make mutants`` runs all of them and says what killed each, and how long it took.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

from r2p2.sim.mutants import MUTANTS, Mutant, applied
from r2p2.sim.world import Violation, World

EVENTS = 3_000


def kill(mutant: Mutant, seeds: int = 1_500, events: int = EVENTS) -> str:
    """What killed it: the first seed that notices and what the checkers said, or the scenario; empty: it lives."""
    with applied(mutant):
        if mutant.scenario:
            module, _, function = mutant.scenario.partition(":")
            try:
                getattr(importlib.import_module(module), function)()
            except (AssertionError, LookupError, ValueError):
                return f"{module}.py::{function}"
            return ""
        for seed in range(seeds):
            try:
                World(seed, mutant.options).run(events)
            except Violation as violation:
                return f"seed {seed}: {str(violation).splitlines()[0]}"
    return ""


def main() -> int:
    """Runs all, or those named."""
    alive = 0
    for mutant in MUTANTS:
        if len(sys.argv) > 1 and mutant.name not in sys.argv[1:]:
            continue
        start = time.monotonic()
        killed = kill(mutant)
        alive += not killed
        print(f"{mutant.name:42} {time.monotonic() - start:6.1f} s  {killed[:110] or 'ALIVE'}", flush=True)
    return 1 if alive else 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "raft"))
    sys.exit(main())
