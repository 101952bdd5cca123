"""The judge of clients' histories, against the definition of linearizability by brute force."""

from __future__ import annotations

import itertools
import random

import pytest

from r2p2.sim.histories import NEVER, Call, check
from r2p2.sim.machine import READ, SWAP
from r2p2.sim.violation import Violation


def explained(calls: list[Call]) -> bool:
    """Whether some order of the answered calls, and of some of the others, that keeps real time gives the answers."""
    answered = [call for call in calls if call.returned != NEVER]
    open_swaps = [call for call in calls if call.returned == NEVER and call.kind == SWAP]
    for count in range(len(open_swaps) + 1):
        for some in itertools.combinations(open_swaps, count):
            if any(gives(order) for order in itertools.permutations([*answered, *some])):
                return True
    return False


def gives(order: tuple[Call, ...]) -> bool:
    """Whether a register that executes these one after the other answers so, and none before one that was over."""
    version = value = 0
    for at, call in enumerate(order):
        if any(later.returned < call.invoked for later in order[at + 1 :]):
            return False
        if call.kind == READ:
            if (call.version, call.value) != (version, value):
                return False
            continue
        if call.returned != NEVER and (call.version, call.before) != (version + 1, value):
            return False
        version, value = version + 1, call.value
    return True


def history(rng: random.Random) -> list[Call]:
    """A few operations on a real register, then perhaps a lie."""
    calls: list[Call] = []
    version = value = 0
    points = sorted(rng.sample(range(100), 5))
    for number, point in enumerate(points, 1):
        swap = rng.random() < 0.6
        invoked = point * 10 - rng.randrange(200)
        call = Call(0, SWAP if swap else READ, 7, number if swap else 0, invoked)
        if swap:
            call.before = value
            version, value = version + 1, number
            call.version = version
        else:
            call.version, call.value = version, value
        call.returned = point * 10 + 1 + rng.randrange(200)
        if rng.random() < 0.2:
            call.returned, call.version, call.before = NEVER, -1, -1
            call.value = call.value if swap else 0
        calls.append(call)
    if rng.random() < 0.6:
        call = rng.choice(calls)
        if call.returned != NEVER:
            lie = rng.randrange(4)
            if lie == 0:
                call.version += rng.choice((-1, 1))
            elif lie == 1 and call.kind == SWAP:
                call.before = rng.randrange(6)
            elif lie == 2 and call.kind == READ:
                call.value = rng.randrange(6)
            else:
                shift = rng.randrange(-600, 600)
                call.invoked += shift
                call.returned += shift
    return calls


def test_it_says_what_the_definition_says() -> None:
    """Thousands of small histories, good and bad."""
    verdicts = [0, 0]
    for seed in range(4_000):
        calls = history(random.Random(seed))
        if any(call.version < 0 and call.returned != NEVER for call in calls):
            continue
        good = explained(calls)
        verdicts[good] += 1
        if good:
            check(calls)
        else:
            with pytest.raises(Violation):
                check(calls)
    assert min(verdicts) > 500, verdicts


def test_an_operation_executed_twice_is_named() -> None:
    """Seen by whoever came next."""
    first, second = Call(1, SWAP, 0, 5, 0), Call(2, SWAP, 0, 6, 20)
    first.returned, first.version, first.before = 10, 1, 0
    second.returned, second.version, second.before = 30, 3, 5
    with pytest.raises(Violation, match="exactly once: r0 := 5 made version 1 and version 2"):
        check([first, second])
