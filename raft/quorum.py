"""Majorities: how many make one, and what a majority has reached.

Left to others: who the members are.
"""

from __future__ import annotations

from collections.abc import Collection


def majority(members_count: int) -> int:
    """The smallest number of members of which any two such groups share one."""
    return members_count // 2 + 1


def has_majority(members: Collection[int], votes: Collection[int]) -> bool:
    """Whether ``votes`` hold a majority of ``members``; votes of others do not count, nor does one counted twice."""
    return sum(member in votes for member in members) >= majority(len(members))


def reached_by_majority(values: list[int]) -> int:
    """The largest value that a majority of the members has reached; ``values`` has one value a member. O(members)."""
    count = len(values)
    if count == 3:  # the usual cluster, and the leader asks for every reply: the median without a sort
        a, b, c = values
        if a > b:
            a, b = b, a
        return b if b <= c else (c if c > a else a)
    return sorted(values)[count - majority(count)]
