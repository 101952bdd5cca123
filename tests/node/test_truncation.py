"""What gives way when a member holds the log: the decision, and how much of the log goes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2p2.errors import UserError
from r2p2.node.truncation import Act, Situation, choose_policy, compact_through, decide

FULL = Situation(
    log_bytes=760,
    log_bytes_max=1000,
    log_entries=1,
    log_entries_max=100,
    leads=True,
    holder_silent_ns=500,
    silent_ns_min=200,
)


def test_nothing_is_done_about_a_log_that_is_far_from_its_bound() -> None:
    for policy in ("snapshot", "evict", "block"):
        assert decide(policy, replace(FULL, log_bytes=749)) is Act.NOTHING


def test_each_policy_as_named() -> None:
    assert decide("snapshot", FULL) is Act.COMPACT
    assert decide("evict", FULL) is Act.EVICT
    assert decide("block", FULL) is Act.NOTHING


def test_many_small_entries_count_as_well() -> None:
    assert decide("snapshot", replace(FULL, log_bytes=10, log_entries=75)) is Act.COMPACT


@pytest.mark.parametrize(
    "change",
    [{"leads": False}, {"changing": True}, {"holder_silent_ns": None}, {"holder_silent_ns": 199}],
    ids=["not the leader", "a change is under way", "nobody", "only slow"],
)
def test_nobody_is_evicted_but_by_the_leader_and_for_being_down(change: dict[str, int | None]) -> None:
    assert decide("evict", replace(FULL, **change)) is Act.NOTHING  # type: ignore[arg-type]


def test_followers_compact_too() -> None:
    assert decide("snapshot", replace(FULL, leads=False, holder_silent_ns=None)) is Act.COMPACT


def test_the_policy_by_default_and_by_name() -> None:
    assert choose_policy(None, has_snapshots=True) == "snapshot"
    assert choose_policy(None, has_snapshots=False) == "block"
    assert choose_policy("evict", has_snapshots=False) == "evict"
    with pytest.raises(UserError, match="needs an application with snapshots"):
        choose_policy("snapshot", has_snapshots=False)
    with pytest.raises(UserError, match="'drop' is not one of snapshot, evict, block"):
        choose_policy("drop", has_snapshots=True)


@dataclass
class Log:
    """Entries of given sizes, from index 1 on."""

    sizes: list[int]

    def range_bytes(self, first_index: int, last_index: int) -> int:
        ends = [0, *accumulate(self.sizes)]
        return max(0, ends[last_index] - ends[first_index - 1]) if first_index <= last_index else 0


@given(st.data(), st.lists(st.integers(1, 50), min_size=1, max_size=80))
def test_what_stays_fits_a_quarter_and_no_more_goes_than_needed(data: st.DataObject, sizes: list[int]) -> None:
    log = Log(sizes)
    first = data.draw(st.integers(1, len(sizes)))
    applied = data.draw(st.integers(first - 1, len(sizes)))
    bytes_max, entries_max = data.draw(st.integers(4, 4000)), data.draw(st.integers(4, 100))
    through = compact_through(log, first, applied, bytes_max, entries_max)
    if through == 0:
        return
    assert first <= through <= applied
    assert log.range_bytes(through + 1, applied) <= bytes_max // 4
    assert applied - through <= entries_max // 4
    if through > first:
        more_bytes = log.range_bytes(through, applied)
        assert more_bytes > bytes_max // 4 or applied - through + 1 > entries_max // 4


def test_a_snapshot_is_not_taken_for_little() -> None:
    log = Log([10] * 100)
    assert compact_through(log, 1, 100, 1000, 1000) == 75
    assert compact_through(log, 70, 100, 1000, 1000) == 0  # 60 bytes would go
    assert compact_through(log, 50, 30, 1000, 1000) == 0  # nothing of it is applied
