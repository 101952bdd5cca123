"""Following, rule by rule. Sections are those of Ongaro's dissertation."""

from __future__ import annotations

import pytest

from raft import (
    Append,
    AppendEntries,
    AppendReply,
    PreVote,
    TermRuns,
    Truncate,
)
from tests.raft.one_member import answers, append, node_of
from tests.raft.raft_harness import MS


def test_entries_are_appended_and_acknowledged_when_durable() -> None:
    """3.5: the acknowledgement says how far the logs are equal."""
    raft = node_of()
    raft.step(append(1, 0, 0, 3, 1, round=5, request_id=9), 0)
    ready = raft.ready()
    assert ready.log_ops == [AppendEntries(1, 0, 3, 1, "p")]
    assert ready.messages == []
    assert raft.persisted(ready.number) == [AppendReply(0, 1, 1, 5, 3, 0, 0, 0, True, request_id=9)]
    assert raft.leader_id == 1


def test_an_acknowledgement_of_what_is_not_durable_yet_waits_for_the_earlier_ready() -> None:
    """A duplicate Append needs no write of its own, yet its entries are still on their way to the disk."""
    raft = node_of()
    raft.step(append(1, 0, 0, 3, 1), 0)
    first = raft.ready()
    raft.step(append(1, 0, 0, 3, 1, round=2), 0)
    second = raft.ready()
    assert (second.messages, second.log_ops) == ([], [])
    assert raft.persisted(first.number) == [
        AppendReply(0, 1, 1, 1, 3, 0, 0, 0, True),
        AppendReply(0, 1, 1, 2, 3, 0, 0, 0, True),
    ]
    raft.step(append(1, 3, 1, round=3), 0)
    assert raft.ready().messages == [AppendReply(0, 1, 1, 3, 3, 0, 0, 0, True)], "nothing to wait for"


def test_what_was_handed_out_does_not_change_afterwards() -> None:
    """Neither a Ready, nor what waits for it, learns of messages that come later."""
    raft = node_of()
    raft.step(append(1, 0, 0, 3, 1), 0)
    raft._after.clear()
    first = raft.ready()
    raft.step(append(1, 3, 1, 2, 1, round=2), 0)
    assert (len(first.log_ops), first.messages) == (1, [])
    second = raft.ready()
    assert raft.persisted(first.number) == []
    assert [reply.match_index for reply in raft.persisted(second.number)] == [5]  # type: ignore[union-attr]
    empty = raft.ready()
    raft.step(append(1, 5, 1, round=3), 0)
    raft.step(PreVote(2, 0, 9, 9, 1), 10**9)
    raft.ready()
    assert (empty.messages, empty.log_ops) == ([], [])


@pytest.mark.parametrize(
    ("message", "ops", "match"),
    [
        (append(5, 6, 3, 2, 3), [AppendEntries(7, 0, 2, 3, "p")], 8),  # right behind
        (append(5, 4, 2, 2, 3), [], 6),  # all there
        (append(5, 4, 2, 1, 3), [], 5),  # a part of it: the rest stays
        (append(5, 4, 2, 4, 3), [AppendEntries(7, 2, 2, 3, "p")], 8),  # the new part only
        (append(5, 4, 2, 1, 4), [Truncate(5), AppendEntries(5, 0, 1, 4, "p")], 5),  # another term
        (append(5, 3, 2, 3, 2), [Truncate(5), AppendEntries(5, 1, 2, 2, "p")], 6),  # equal at first, then not
        (append(5, 2, 1, 0), [], 2),  # a heartbeat proves what lies before it, no more
        (append(5, 0, 0, 2, 1), [], 2),
        (append(5, 0, 0, 6, 1), [Truncate(3), AppendEntries(3, 2, 4, 1, "p")], 6),
    ],
)
def test_what_is_missing_is_added_and_only_a_conflict_removed(message: Append, ops: list[object], match: int) -> None:
    """3.5, on a log of terms 1 1 2 2 3 3."""
    raft = node_of(TermRuns([(1, 1), (3, 2), (5, 3)], 6), 5)
    raft.step(message, 0)
    ready = raft.ready()
    assert ready.log_ops == ops
    (reply,) = [*ready.messages, *raft.persisted(ready.number)]
    assert isinstance(reply, AppendReply)
    assert (reply.accepted, reply.match_index) == (True, match)


@pytest.mark.parametrize(
    ("prev", "prev_term", "hint_index", "hint_term"),
    [(7, 3, 6, 0), (99, 4, 6, 0), (6, 4, 5, 3), (5, 2, 5, 3), (4, 1, 3, 2), (2, 2, 1, 1)],
)
def test_a_gap_or_another_term_is_refused_with_a_hint(
    prev: int, prev_term: int, hint_index: int, hint_term: int
) -> None:
    """5.3 of the paper's fast backtracking: a term a step."""
    raft = node_of(TermRuns([(1, 1), (3, 2), (5, 3)], 6), 5)
    raft.step(append(5, prev, prev_term, 1, 4), 0)
    assert answers(raft) == [AppendReply(0, 1, 5, 1, prev, hint_index, hint_term, 0, False)]
    assert raft.last_index == 6


def test_commit_follows_the_leader_only_through_what_is_proven() -> None:
    """3.5: the rest of our log may be somebody else's."""
    raft = node_of(TermRuns([(1, 1)], 6), 5)
    raft.step(append(5, 3, 1, commit=6), 0)
    assert raft.commit_index == 3
    raft.step(append(5, 2, 1, commit=6), 0)
    assert raft.commit_index == 3
    raft.step(append(5, 3, 1, 2, 4, commit=4), 0)
    assert (raft.commit_index, raft.last_index) == (4, 5)


def test_committed_entries_are_neither_compared_nor_removed() -> None:
    """An old Append that reaches back behind the commit, or behind the kept log, is agreed to."""
    raft = node_of(TermRuns([(5, 2)], 8, base_index=4, base_term=2), 5)
    raft.step(append(5, 8, 2, commit=7), 0)
    answers(raft)
    raft.applied(7)
    for prev, count, match in ((0, 3, 3), (2, 4, 6), (3, 6, 9)):
        raft.step(append(5, prev, min(prev, 1), count, 2), 0)
        (reply,) = answers(raft)
        assert isinstance(reply, AppendReply)
        assert (reply.accepted, reply.match_index) == (True, match)
    assert raft.last_index == 9


def test_an_old_leader_is_told_the_term() -> None:
    """It steps down."""
    raft = node_of(TermRuns([(1, 1)], 2), 5)
    raft.step(append(4, 2, 1), 0)
    (reply,) = answers(raft)
    assert isinstance(reply, AppendReply)
    assert (reply.term, reply.accepted) == (5, False)
    assert raft.leader_id is None


def test_even_a_refused_append_keeps_the_election_timer_quiet() -> None:
    """A leader that is still looking for our match point is alive."""
    raft = node_of(TermRuns([(1, 1)], 2), 5)
    before = raft.deadline_ns
    raft.step(append(5, 9, 4), 50 * MS)
    assert raft.deadline_ns == before + 50 * MS


def test_forgetting_waits_for_the_own_state_machine() -> None:
    """Global commit announces what all have applied; nobody forgets more than it applied itself."""
    raft = node_of(TermRuns([(1, 1)], 6), 5)
    raft.step(append(5, 6, 1, commit=6, global_commit=0), 0)
    answers(raft)
    raft.applied(4)
    raft.step(append(5, 6, 1, commit=6, global_commit=6), 0)
    assert raft.ready().forget_index == 4
    assert raft.first_index == 5
    raft.applied(6)
    raft.step(append(5, 6, 1, commit=6, global_commit=6), 0)
    assert raft.ready().forget_index == 6
    raft.step(append(5, 6, 1, commit=6, global_commit=6), 0)
    assert raft.ready().forget_index == 0
