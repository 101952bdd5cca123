"""The exhaustive search: whole spaces without a violation, and mutants that it finds with the steps that lead there."""

from __future__ import annotations

import pytest

from r2p2.cli import main
from r2p2.sim import node as sim_node
from r2p2.sim.exhaustive import Bounds, Search
from r2p2.sim.mutants import MUTANTS, applied
from r2p2.sim.violation import Violation
from raft import Raft


@pytest.mark.parametrize(
    ("bounds", "at_least"),
    [
        (Bounds(2, term_max=1, round_max=2), 600),
        (Bounds(2, term_max=2, round_max=1, proposals_max=0), 1_000),
        (Bounds(2, term_max=1, round_max=1, restarts_max=1), 100),
        (Bounds(3, term_max=1, round_max=1), 5_000),
        (Bounds(2, term_max=1, round_max=3, proposals_max=0, changes_max=1), 300),
    ],
)
def test_a_whole_space_holds_no_violation(bounds: Bounds, at_least: int) -> None:
    """Every message lost, repeated or late in every way."""
    explored = Search(bounds).run()
    assert explored.complete
    assert explored.states >= at_least
    assert explored.depth > 10


@pytest.mark.timeout(400)  # 15 s on an idle core
def test_more_than_a_million_states() -> None:
    """Two terms of three members, a proposal, a restart: breadth first, as far as a few seconds go."""
    explored = Search(Bounds(3, term_max=2, round_max=2, restarts_max=1, states_max=1_100_000)).run()
    assert not explored.complete
    assert explored.states >= 1_100_000
    assert explored.depth >= 8


def test_the_beginning_of_a_change_of_members() -> None:
    """One member leaves, through a joint configuration, while leaders come and go."""
    explored = Search(Bounds(3, term_max=2, round_max=2, changes_max=1, proposals_max=0, states_max=200_000)).run()
    assert explored.states >= 200_000


@pytest.mark.parametrize("name", ["a_vote_for_whoever_asks", "vote_not_persisted"])
def test_mutants_are_found_with_the_steps_that_lead_there(name: str) -> None:
    """Breadth first: the path is a shortest one."""
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == name)
    bounds = Bounds(3, term_max=1, round_max=1, restarts_max=1, states_max=60_000)
    with applied(mutant), pytest.raises(Violation, match="election safety") as caught:
        core: type[Raft] = vars(sim_node)["Raft"]  # the mutant
        Search(bounds, core).run()
    steps = str(caught.value).splitlines()[1:]
    assert steps[0].strip() == "start"
    assert sum("timeout" in step for step in steps) == 2
    assert len(steps) <= 9


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`r2p2 sim --exhaustive` reports states and depth."""
    assert main(["sim", "--exhaustive", "--bounds", "members_count=2,term_max=1,round_max=1"]) == 0
    out = capsys.readouterr().out
    assert "all there are" in out
    assert "depth" in out
    for wrong in ("members=2", "term_max=x"):
        assert main(["sim", "--exhaustive", "--bounds", wrong]) == 1
        assert "--bounds" in capsys.readouterr().err
