"""Forming a cluster, and finding out that there is one: the rules one by one, message by message."""

from __future__ import annotations

import pytest

from r2p2.node.forming import (
    BELIEVE_AFTER_NS,
    DEAD_MAX,
    ELSEWHERE,
    HELLO_INTERVAL_NS,
    JOIN_INTERVAL_NS,
    Forming,
    SupersededError,
)
from raft import Formed, Hello
from raft.messages import HELLO_FORMED, HELLO_FRESH

SLOTS = (0, 1, 2)
A, B, C = 10, 11, 12


def coordinator() -> Forming:
    return Forming(0, SLOTS, A, 0)


def other(slot: int = 1, incarnation: int = B, **options: bool) -> Forming:
    return Forming(slot, SLOTS, incarnation, 0, **options)


def asks(incarnation: int) -> Hello:
    """The coordinator's Hello."""
    return Hello(0, 0, 0, HELLO_FRESH, True, 0)


def told(*pairs: tuple[int, int], index: int = 0) -> Formed:
    return Formed(0, 0, index, pairs)


def test_the_coordinator_forms_once_all_have_answered_this_launch() -> None:
    forming = coordinator()
    forming.receive(Hello(0, 0, 0, HELLO_FRESH, False, 99), 1, B, 0)  # to another launch
    assert (forming.waiting_for, forming.incarnations) == ((1, 2), None)
    forming.receive(Hello(0, 0, 0, HELLO_FRESH, False, A), 1, B, 0)
    assert forming.waiting_for == (2,)
    forming.receive(Hello(0, 0, 0, HELLO_FRESH, False, A), 2, C, 0)
    assert forming.incarnations == {0: A, 1: B, 2: C}
    forming.tick(1)
    assert [m.target for m in forming.take_messages() if isinstance(m, Formed)] == [1, 2]
    forming.receive(Hello(0, 0, 0, HELLO_FORMED, False, A), 1, B, 0)
    forming.receive(Hello(0, 0, 0, HELLO_FORMED, False, A), 2, C, 0)
    assert forming.deadline_ns is None, "everybody knows"


def test_a_member_adopts_only_the_set_of_the_launch_it_is_bound_to() -> None:
    forming = other()
    forming.receive(asks(A), 0, A, 0)
    forming.receive(asks(20), 0, 20, 0)  # a later launch of the coordinator: the first is dead
    forming.receive(told((0, A), (1, B), (2, C)), 0, A, 0)
    assert forming.incarnations is None
    forming.receive(told((0, 20), (1, B), (2, C)), 0, 20, 0)
    assert forming.incarnations == {0: 20, 1: B, 2: C}


def test_a_coordinator_that_joins_sets_free_who_was_bound_to_it() -> None:
    """The first launch had formed the cluster with this member, which was not told; the second finds the cluster."""
    forming = other()
    forming.receive(asks(A), 0, A, 0)
    forming.receive(asks(20), 0, 20, 0)
    forming.receive(told((0, A), (1, B), (2, C)), 2, C, 0)
    assert forming.incarnations is None
    forming.receive(Hello(0, 0, 0, HELLO_FRESH, False, 0), 0, 20, 0)
    forming.receive(told((0, A), (1, B), (2, C)), 2, C, 0)
    assert forming.incarnations == {0: A, 1: B, 2: C}


def test_who_has_formed_tells_a_member_that_was_not_told() -> None:
    forming = other()
    forming.receive(asks(A), 0, A, 0)
    forming.receive(told((0, A), (1, B), (2, C)), 0, A, 0)
    forming.take_messages()
    forming.receive(Hello(0, 0, 0, HELLO_FRESH, False, 0), 2, C, 0)
    assert forming.take_messages() == [Formed(1, 2, 0, ((0, A), (1, B), (2, C)))]
    forming.receive(Hello(0, 0, 0, HELLO_FRESH, False, 0), 2, 99, 0)
    assert forming.take_messages() == [], "a later launch is for the configuration to answer"


@pytest.mark.parametrize("slot", [0, 1], ids=["the coordinator", "another"])
def test_a_later_launch_joins_and_forms_nothing_any_more(slot: int) -> None:
    forming = Forming(slot, SLOTS, 99, 0)
    forming.receive(told((0, A), (1, B), (2, C), index=7), 2, C, 0)
    assert forming.joining == ((0, A), (1, B), (2, C))
    forming.tick(1)
    hellos = forming.take_messages()
    assert [(m.state, m.coordinator, m.to_incarnation) for m in hellos if isinstance(m, Hello)] == [
        (HELLO_FRESH, False, 0)
    ] * 3
    assert forming.deadline_ns == 1 + JOIN_INTERVAL_NS
    forming.receive(Hello(0, 0, 0, HELLO_FRESH, False, 99), 2, 50, 0)
    forming.receive(Hello(0, 0, 0, HELLO_FRESH, False, 99), 1 - slot, 51, 0)
    assert forming.incarnations is None
    forming.let_in()
    assert forming.deadline_ns is None


def test_one_that_reads_itself_in_a_later_configuration_has_been_let_in_before_it_was_told() -> None:
    forming = other(incarnation=99)
    forming.receive(told((0, A), (1, 99), (2, C), index=7), 0, A, 0)
    assert forming.joining == ((0, A), (2, C))


def test_nobody_who_remembers_answers_any_more() -> None:
    forming = other(incarnation=99)
    forming.receive(told((0, A), (1, B), (2, C)), 2, C, 5)
    forming.tick(4 + BELIEVE_AFTER_NS)
    assert (forming.abandoned, forming.incarnations) == (False, None)
    forming.receive(told((0, A), (1, B), (2, C)), 2, C, 100)
    forming.tick(5 + BELIEVE_AFTER_NS + JOIN_INTERVAL_NS)
    assert forming.abandoned
    forming.keep_asking(10**10)
    forming.tick(10**10 + BELIEVE_AFTER_NS - 1)
    assert not forming.abandoned


def test_a_process_that_joins_by_request_asks_for_ever_and_forms_nothing() -> None:
    forming = Forming(7, (0, 1), 99, 0, join=True)
    forming.tick(0)
    assert [m.target for m in forming.take_messages()] == [0, 1]
    forming.receive(asks(A), 0, A, 0)
    assert forming.take_messages() == []
    forming.receive(told((0, A), (1, B)), 0, A, 0)
    forming.tick(10 * BELIEVE_AFTER_NS)
    assert not forming.abandoned
    assert forming.joining == ((0, A), (1, B))


def test_who_joins_asks_those_who_told_unasked_and_knows_its_cluster() -> None:
    forming = Forming(7, (0,), 99, 0, join=True)
    assert not forming.knows(told((0, A), (1, B))), "nobody it asked has told it of a cluster"
    forming.receive(told((0, A), (1, B)), 0, A, 0)
    assert forming.knows(told((1, B), (2, C)))
    assert not forming.knows(told((0, 20), (1, 21)))
    forming.tick(0)
    assert [m.target for m in forming.take_messages()] == [0, ELSEWHERE]


def test_without_snapshots_a_later_launch_stops_when_it_has_been_told_for_long() -> None:
    forming = other(incarnation=99, can_join=False)
    forming.receive(told((0, A), (1, B), (2, C)), 2, C, 5)
    forming.receive(told((0, A), (1, B), (2, C)), 2, C, 4 + BELIEVE_AFTER_NS)
    with pytest.raises(SupersededError, match=r"has no snapshots"):
        forming.receive(told((0, A), (1, B), (2, C)), 2, C, 5 + BELIEVE_AFTER_NS)


def test_the_launches_remembered_are_bounded() -> None:
    forming = other()
    for launch in range(100, 100 + 2 * DEAD_MAX):
        forming.receive(asks(launch), 0, launch, 0)
    assert len(forming._dead) == DEAD_MAX


def test_hellos_are_repeated_at_their_interval() -> None:
    forming = other()
    forming.tick(0)
    assert len(forming.take_messages()) == 2
    forming.tick(HELLO_INTERVAL_NS - 1)
    assert forming.take_messages() == []
    forming.tick(HELLO_INTERVAL_NS)
    assert len(forming.take_messages()) == 2
