"""The terms of a log, as runs: one (first_index, term) per change of term instead of one number per entry.

A log of ten million entries under one leader is one run, so the core's cost depends on how often leaders changed,
not on the log's length. Lookups are O(log runs), O(1) in the newest run. The term of the last dropped entry is kept
as the base, so that an Append right behind the dropped prefix can still be checked.

Left to others: the entries.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable


class TermRuns:
    """Indices ``base_index + 1 .. last_index`` and their terms; the entry at ``base_index`` has ``base_term`` (0 and
    0: nothing dropped).

    Invariants: first indices and terms both ascend strictly; an entry's term is that of the last run that starts at
    or before it.
    """

    __slots__ = ("_firsts", "_terms", "base_index", "base_term", "last_index", "last_term")

    def __init__(
        self,
        runs: Iterable[tuple[int, int]] = (),
        last_index: int | None = None,
        *,
        base_index: int = 0,
        base_term: int = 0,
    ) -> None:
        """``runs``: (first_index, term) ascending, the first at base_index + 1; ValueError when they are not."""
        self.base_index = base_index
        self.base_term = base_term
        self._firsts: list[int] = []
        self._terms: list[int] = []
        self.last_index = base_index
        self.last_term = base_term
        for first, term in runs:
            if not self._firsts and (first != base_index + 1 or term < base_term):
                raise ValueError(f"runs: ({first}, {term}) does not follow ({base_index}, {base_term})")
            if self._firsts and (first <= self._firsts[-1] or term <= self.last_term):
                raise ValueError(f"runs: ({first}, {term}) does not follow ({self._firsts[-1]}, {self.last_term})")
            self._firsts.append(first)
            self._terms.append(term)
            self.last_index = first
            self.last_term = term
        if last_index is not None:
            if last_index < self.last_index or (not self._firsts and last_index != base_index):
                raise ValueError(f"last_index: {last_index} is before the last run's first {self.last_index}")
            self.last_index = last_index

    def copy(self) -> TermRuns:
        """An independent copy."""
        return TermRuns(self.runs(), self.last_index, base_index=self.base_index, base_term=self.base_term)

    def runs(self) -> list[tuple[int, int]]:
        """(first_index, term) of each run, ascending."""
        return list(zip(self._firsts, self._terms, strict=True))

    def __eq__(self, other: object) -> bool:
        """Equal logs, as far as terms go."""
        if not isinstance(other, TermRuns):
            return NotImplemented
        mine = (self.base_index, self.base_term, self.last_index, self._firsts, self._terms)
        return mine == (other.base_index, other.base_term, other.last_index, other._firsts, other._terms)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """The constructor's form."""
        return f"TermRuns({self.runs()}, {self.last_index}, base_index={self.base_index}, base_term={self.base_term})"

    def term_at(self, index: int) -> int:
        """The term of the entry at ``index``, base_index <= index <= last_index; IndexError outside."""
        firsts = self._firsts
        if firsts and firsts[-1] <= index <= self.last_index:
            return self.last_term
        if index == self.base_index:
            return self.base_term
        if not self.base_index < index <= self.last_index:
            raise IndexError(f"entry {index} is outside {self.base_index}..{self.last_index}")
        return self._terms[bisect_right(firsts, index) - 1]

    def extend(self, last_index: int, term: int) -> None:
        """Adds entries through ``last_index``, all of ``term``; ValueError where either goes back."""
        if last_index <= self.last_index or term < self.last_term or term == 0:
            raise ValueError(f"extend to {last_index} of term {term} behind {self.last_index} of term {self.last_term}")
        if term != self.last_term or not self._firsts:
            self._firsts.append(self.last_index + 1)
            self._terms.append(term)
            self.last_term = term
        self.last_index = last_index

    def truncate(self, from_index: int) -> None:
        """Forgets ``from_index`` and all behind it; the base stays. ValueError for an index not in the log."""
        if not self.base_index < from_index <= self.last_index:
            raise ValueError(f"truncate from {from_index}: the log has {self.base_index + 1}..{self.last_index}")
        kept = bisect_left(self._firsts, from_index)
        del self._firsts[kept:], self._terms[kept:]
        self.last_index = from_index - 1
        self.last_term = self._terms[-1] if kept else self.base_term

    def drop(self, through_index: int) -> None:
        """Forgets the prefix through ``through_index``, the new base. ValueError for an index not in the log."""
        if not self.base_index <= through_index <= self.last_index:
            raise ValueError(f"drop through {through_index}: the log has {self.base_index + 1}..{self.last_index}")
        if through_index == self.base_index:
            return
        self.base_term = self.term_at(through_index)
        self.base_index = through_index
        firsts = self._firsts
        if through_index == self.last_index:
            firsts.clear()
            self._terms.clear()
            return
        run = bisect_right(firsts, through_index + 1) - 1  # holds the new first entry
        if run:
            del firsts[:run], self._terms[:run]
        firsts[0] = through_index + 1

    def restart(self, base_index: int, base_term: int) -> None:
        """Forgets everything: the log begins behind ``base_index``, whose entry has ``base_term``."""
        self._firsts.clear()
        self._terms.clear()
        self.base_index = self.last_index = base_index
        self.base_term = self.last_term = base_term

    def run_first(self, index: int) -> int:
        """The first index of the run that holds ``index`` (base_index < index <= last_index)."""
        return self._firsts[bisect_right(self._firsts, index) - 1]

    def run_last(self, index: int) -> int:
        """The last index of the run that holds ``index`` (base_index < index <= last_index)."""
        firsts = self._firsts
        if index >= firsts[-1]:
            return self.last_index
        return firsts[bisect_right(firsts, index)] - 1

    def last_of_term(self, term: int) -> int:
        """The last index whose entry has ``term``; 0 when none has."""
        run = bisect_left(self._terms, term)
        if run < len(self._terms) and self._terms[run] == term:
            return self._firsts[run + 1] - 1 if run + 1 < len(self._firsts) else self.last_index
        return self.base_index if term and term == self.base_term else 0
