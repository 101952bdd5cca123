"""Term runs against a plain list of terms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from raft import TermRuns


class TermRunsAgainstAList(RuleBasedStateMachine):
    """The model: every term in a dict by index, the dropped boundary included."""

    def __init__(self) -> None:
        """Empty both."""
        super().__init__()
        self.runs = TermRuns()
        self.terms = {0: 0}
        self.base = self.last = 0

    @rule(count=st.integers(1, 4), up=st.integers(0, 2))
    def extend(self, count: int, up: int) -> None:
        """A leader appends."""
        term = self.terms[self.last] + (up or not self.last)
        self.runs.extend(self.last + count, term)
        for _ in range(count):
            self.last += 1
            self.terms[self.last] = term

    @precondition(lambda self: self.last > self.base)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        """A conflict."""
        cut = data.draw(st.integers(self.base + 1, self.last))
        self.runs.truncate(cut)
        for index in range(cut, self.last + 1):
            del self.terms[index]
        self.last = cut - 1

    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        """A prefix goes."""
        through = data.draw(st.integers(self.base, self.last))
        self.runs.drop(through)
        for index in range(self.base, through):
            del self.terms[index]
        self.base = through

    @invariant()
    def same(self) -> None:
        """Every question has the list's answer."""
        runs, terms = self.runs, self.terms
        assert (runs.base_index, runs.base_term) == (self.base, terms[self.base])
        assert (runs.last_index, runs.last_term) == (self.last, terms[self.last])
        for index in range(self.base + 1, self.last + 1):
            same = [i for i in range(self.base + 1, self.last + 1) if terms[i] == terms[index]]
            assert runs.term_at(index) == terms[index]
            assert (runs.run_first(index), runs.run_last(index)) == (same[0], same[-1])
        assert runs.term_at(self.base) == terms[self.base]
        for term in range(terms[self.last] + 2):
            of_term = [i for i in range(self.base, self.last + 1) if i and terms[i] == term]
            assert runs.last_of_term(term) == (of_term[-1] if of_term else 0)
        for outside in (self.base - 1, self.last + 1):
            with pytest.raises(IndexError):
                runs.term_at(outside)
        assert runs.copy() == runs
        assert len(runs.runs()) == len({terms[i] for i in range(self.base + 1, self.last + 1)})


TestTermRuns = TermRunsAgainstAList.TestCase


@pytest.mark.parametrize(
    ("runs", "last"),
    [([(2, 1)], 2), ([(1, 1), (1, 2)], 3), ([(1, 2), (3, 2)], 4), ([(1, 1)], 0), ([], 4)],
)
def test_what_is_no_log_is_refused(runs: list[tuple[int, int]], last: int) -> None:
    """A restart from nonsense says so."""
    with pytest.raises(ValueError, match=r"runs|last_index"):
        TermRuns(runs, last)


def test_changes_outside_the_log_are_refused() -> None:
    """Mistakes of ours are loud."""
    runs = TermRuns([(1, 3)], 4)
    changes: tuple[Callable[[], object], ...] = (
        lambda: runs.extend(4, 3),
        lambda: runs.extend(5, 2),
        lambda: runs.truncate(5),
        lambda: runs.truncate(0),
        lambda: runs.drop(5),
    )
    for change in changes:
        with pytest.raises(ValueError):
            change()
    assert runs != 3
    assert "TermRuns([(1, 3)], 4" in repr(runs)


@given(st.integers(1, 2**62))
def test_a_log_of_any_length_under_one_leader_is_one_run(length: int) -> None:
    """Size does not matter."""
    runs = TermRuns([(1, 1)], length)
    assert runs.term_at(length) == runs.term_at(length // 2 + 1) == 1
    assert runs.runs() == [(1, 1)]
