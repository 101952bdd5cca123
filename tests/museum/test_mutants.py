"""Each known bug, put back into the core, is noticed; without it the same run is clean."""

from __future__ import annotations

import re

import pytest

from r2p2.sim.mutants import MUTANTS, Mutant, applied
from r2p2.sim.world import World
from tests.museum.mutants import EVENTS, kill


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_mutant_is_killed(mutant: Mutant) -> None:
    """By a seed or a scenario; and the seed that kills it is clean without it, so that it is the bug that was seen."""
    killed = kill(mutant)
    assert killed, f"{mutant.name} lives: {mutant.row}"
    seed = re.match(r"seed (\d+):", killed)
    if seed:
        World(int(seed[1]), mutant.options).run(EVENTS)


def test_a_mutant_that_no_longer_applies_says_so() -> None:
    """The core moved on: the mutant has to as well."""
    with pytest.raises(AssertionError, match="occurs 0 times"), applied(Mutant("gone", "", "no such text", "")):
        pass
