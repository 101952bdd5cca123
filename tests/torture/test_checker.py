"""The checker of histories, held against a search through all orders, and shown each kind of wrong history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2p2.torture.checker import check
from r2p2.torture.history import ELEMENT_BYTES, Operation, element, elements, read_history, write_history


def add(number: int, start: int, end: int | None, length: int | None = None, key: str = "k") -> Operation:
    return Operation(number, key, start, end, element(number), None, length)


def read(start: int, end: int | None, *numbers: int, key: str = "k") -> Operation:
    return Operation(99, key, start, end, None, tuple(map(element, numbers)) if end is not None else None)


def linearizable(operations: Sequence[Operation]) -> bool:
    """By trying every order (Wing and Gong): fit for a handful of operations."""

    def search(left: frozenset[int], state: tuple[str, ...]) -> bool:
        if all(operations[i].returned_ns is None for i in left):
            return True
        horizon = min(end for i in left if (end := operations[i].returned_ns) is not None)
        for i in left:
            operation = operations[i]
            if operation.invoked_ns > horizon:
                continue  # something else ended before this began
            if operation.element is None:
                if operation.values is not None and operation.values != state:
                    continue
                after = state
            else:
                after = (*state, operation.element)
                if operation.length is not None and operation.length != len(after):
                    continue
            if search(left - {i}, after):
                return True
        return False

    return search(frozenset(range(len(operations))), ())


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    """A true history of up to six operations, with up to two answers changed."""
    count = draw(st.integers(1, 6))
    state: tuple[str, ...] = ()
    operations: list[Operation] = []
    for number in range(count):
        at = 10 * number + 5
        start = at - draw(st.integers(1, 25))
        end = None if draw(st.integers(0, 4)) == 0 else at + draw(st.integers(1, 25))
        if draw(st.booleans()):
            takes_effect = end is not None or draw(st.booleans())
            if takes_effect:
                state = (*state, element(number))
            operations.append(add(number, start, end, len(state) if end is not None else None))
        else:
            operations.append(Operation(99, "k", start, end, None, state if end is not None else None))
    for _ in range(draw(st.integers(0, 2))):
        i = draw(st.integers(0, count - 1))
        operation = operations[i]
        if operation.returned_ns is None:
            continue
        if operation.element is not None:
            operations[i] = replace(operation, length=draw(st.integers(1, count)))
        else:
            known = [one.element for one in operations if one.element is not None]
            operations[i] = replace(
                operation, values=tuple(draw(st.permutations(known))[: draw(st.integers(0, count))])
            )
    # As a torture run ends: reads that see everything.
    last = max((one.values for one in operations if one.values is not None), key=len, default=())
    longest = last if len(last) > len(state) else state
    return [*operations, Operation(100, "k", 1000, 1001, None, longest)]


@given(histories())
@settings(max_examples=600, deadline=None)
def test_it_agrees_with_the_search_through_all_orders(operations: list[Operation]) -> None:
    assert check(operations).holds == linearizable(operations)


def kinds(*operations: Operation) -> set[str]:
    return {kind for kind, count in check(operations).counts.items() if count}


def test_a_true_history_holds_and_is_counted() -> None:
    verdict = check(
        [add(1, 0, 10, 1), add(2, 5, None), read(20, 30, 1, 2), read(31, 40, 1, 2), add(7, 0, 9, 1, key="j")]
    )
    assert verdict.holds
    assert (verdict.acknowledged, verdict.unanswered, verdict.reads, verdict.keys) == (2, 1, 2, 2)


@pytest.mark.parametrize(
    ("kind", "operations"),
    [
        ("lost", [add(1, 0, 10, 1), add(2, 0, 10, 2), read(20, 30, 2, 3), add(3, 0, None)]),
        ("lost", [add(1, 0, 10, 1), add(2, 20, 30, 1)]),
        ("repeated", [add(1, 0, 10, 1), read(20, 30, 1, 1)]),
        ("invented", [add(1, 0, 10, 1), read(20, 30, 1, 2)]),
        ("disordered", [add(1, 0, 10, 1), add(2, 0, 10, 2), read(5, 30, 2), read(20, 30, 1, 2)]),
        ("disordered", [add(1, 0, 10, 2), add(2, 0, 10, 1), read(20, 30, 1, 2)]),
        ("stale", [add(1, 0, 10, 1), read(20, 30), read(40, 50, 1)]),
        ("stale", [add(1, 0, 10, 1), add(2, 20, 30, 2), read(15, 18, 1, 2)]),
    ],
)
def test_each_kind_of_wrong_history_is_named(kind: str, operations: list[Operation]) -> None:
    assert kind in kinds(*operations)
    assert not linearizable(operations)


def test_a_history_keeps_in_a_file(tmp_path: Path) -> None:
    operations = [add(1, 0, 10, 1), add(2, 5, None), read(20, 30, 1)]
    path = tmp_path / "history.ndjson"
    write_history(path, operations)
    assert list(read_history(path)) == operations


def test_a_value_is_whole_elements() -> None:
    value = (element(3) + element(10**10)).encode()
    assert elements(value) == (element(3), element(10**10))
    for broken in (value[:-1], value[1:] + b"x", b"x" * ELEMENT_BYTES):
        with pytest.raises(ValueError, match="element"):
            elements(broken)
    with pytest.raises(ValueError, match="is not in"):
        element(10 ** (ELEMENT_BYTES - 1))
