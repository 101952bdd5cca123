"""The reference log, and what any entry storage owes the core."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft import AppendEntries, AppendNoop, Truncate
from raft.list_log import ListLog

SIZES = st.lists(st.integers(2, 60).map(lambda words: 8 * words), min_size=1, max_size=40)


@given(SIZES, st.integers(0, 2_000), st.data())
def test_fit_is_the_longest_run_within_the_bound_and_at_least_one(
    sizes: list[int], bound: int, data: st.DataObject
) -> None:
    """Against the definition, and range_bytes with it."""
    log = ListLog([(1, i, size) for i, size in enumerate(sizes)], first_index=5)
    first = data.draw(st.integers(5, log.last_index))
    last = data.draw(st.integers(first, log.last_index))
    fitting = log.fit(first, last, bound)
    assert first <= fitting <= last
    assert fitting == first or log.range_bytes(first, fitting) <= bound
    assert fitting == last or log.range_bytes(first, fitting + 1) > bound
    assert log.range_bytes(first, last) == sum(sizes[first - 5 : last - 4])


def test_operations_in_order() -> None:
    """As a Ready has them."""
    log = ListLog()
    payload = ((2, "a", 16), (2, "b", 24), (2, "c", 32))
    for op in (AppendNoop(1, 1), AppendEntries(2, 1, 2, 2, payload), Truncate(3), AppendEntries(3, 0, 1, 2, payload)):
        log.execute(op)
    assert log.entries == [(1, None, 16), (2, "b", 24), (2, "a", 16)]
    log.drop_prefix(2)
    assert (log.first_index, log.last_index) == (3, 3)
    assert log.slice(3, 2) == []


@pytest.mark.parametrize(
    "op",
    [
        AppendNoop(5, 1),
        AppendEntries(4, 0, 1, 1, 7),
        AppendEntries(4, 1, 1, 1, ((1, "a", 16),)),
        AppendEntries(4, 0, 1, 2, ((1, "a", 16),)),
        Truncate(4),
        Truncate(1),
    ],
)
def test_what_does_not_fit_is_refused(op: AppendNoop | AppendEntries | Truncate) -> None:
    """A core and a storage that disagree are a mistake of ours, and loud."""
    log = ListLog([(1, "x", 16)] * 2, first_index=2)
    with pytest.raises(ValueError):
        log.execute(op)
    for index in (1, 4):
        with pytest.raises(IndexError):
            log.entry(index)
    for through in (0, 4):
        with pytest.raises(ValueError):
            log.drop_prefix(through)
