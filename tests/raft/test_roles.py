"""The table of roles: what the core does is in it, what it draws is in the documentation."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from raft import Config, Raft, Role
from raft.list_log import ListLog
from raft.roles import TRANSITIONS, diagram
from tests.raft.raft_harness import Cluster

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "raft.md"


def test_the_documentation_has_the_picture_of_the_table() -> None:
    """Word for word: a changed table is a changed picture."""
    assert f"```mermaid\n{diagram()}```\n" in DOCUMENT.read_text()


def test_the_picture_names_every_role_and_every_way() -> None:
    """One arrow a transition, in mermaid's form: nothing behind the first colon may be another one."""
    lines = diagram().splitlines()
    assert lines[:2] == ["stateDiagram-v2", "    [*] --> follower"]
    assert len(lines) == 2 + len(TRANSITIONS)
    for line in lines[2:]:
        arrow, _, why = line.partition(": ")
        before, _, after = arrow.strip().partition(" --> ")
        assert (Role(before), Role(after)) in TRANSITIONS
        assert why and not {":", ";"} & set(why)
    assert {role for pair in TRANSITIONS for role in pair} == set(Role)


def test_a_way_that_is_not_in_the_table_is_a_mistake_of_ours() -> None:
    """No peer can bring it about; the assertion names both roles."""
    raft = Raft(Config(0, (0, 1, 2)), ListLog(), rng=random.Random(1), now_ns=0)
    with pytest.raises(AssertionError, match=r"FOLLOWER.* to Role\.LEADER"):
        raft._change_role(Role.LEADER)
    assert raft.role is Role.FOLLOWER


def test_every_way_in_the_table_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with a line that nothing uses tells a story that is not true."""
    gone: set[tuple[Role, Role]] = set()
    change_role = Raft._change_role

    def noted(self: Raft, role: Role) -> None:
        gone.add((self.role, role))
        change_role(self, role)

    monkeypatch.setattr(Raft, "_change_role", noted)
    chance = random.Random(1)
    for pre_vote in (True, False):
        cluster = Cluster(3, pre_vote=pre_vote)
        for loss in (0.0, 0.5, 0.97, 0.5) * 12:
            cluster.pass_on = lambda message, loss=loss: chance.random() >= loss  # type: ignore[misc]
            if len(cluster.leaders) == 1:
                leader = cluster.leaders[0]
                leader.raft.transfer((leader.config.node_id + 1) % 3, cluster.now)
            cluster.run(300)
    assert set(TRANSITIONS) <= gone, set(TRANSITIONS) - gone
