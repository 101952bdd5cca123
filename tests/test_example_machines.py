"""The state machines of the examples: what they answer, and that batches and snapshots make no difference."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import r2p2

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


locks, jobs = example("locks"), example("jobs")


def ask(machine: r2p2.StateMachine, time_ms: int, *requests: str) -> list[str]:
    replies = machine.apply(r2p2.Requests.of([request.encode() for request in requests], time_ms=time_ms))
    assert isinstance(replies, list)
    return [reply.decode() for reply in replies]


def test_a_lease_ends_by_the_logs_time_and_the_next_token_is_higher() -> None:
    machine = locks.Locks()
    assert ask(machine, 1000, "acquire a anna 500", "acquire a ben 500") == ["granted 1 1500", "held anna 1 1500"]
    assert ask(machine, 1400, "renew a anna 1 500", "renew a ben 1 500", "renew a anna 2 500") == [
        "granted 1 1900",
        "lost",
        "lost",
    ]
    assert machine.next_deadline_ms() == 1500, "of the first grant; then it is looked at again"
    assert ask(machine, 1899, "acquire a ben 500") == ["held anna 1 1900"]
    assert machine.next_deadline_ms() == 1900
    assert ask(machine, 1900, "acquire a ben 500", "release a anna 1", "release a ben 2") == [
        "granted 2 2400",
        "lost",
        "released",
    ]
    assert ask(machine, 1900, "who a") == ["free"] and machine.query(b"who a") == b"free"


def test_time_never_goes_back() -> None:
    machine = locks.Locks()
    ask(machine, 2000, "acquire a anna 500")
    assert ask(machine, 1000, "acquire b ben 500") == ["granted 2 2500"]


def test_a_job_goes_back_is_late_and_dies() -> None:
    machine = jobs.Jobs()
    assert ask(machine, 0, "submit 2 cut the  hedge", "take w 100", "take w 100") == [
        "job 1",
        "job 1 1 cut the  hedge",
        "empty",
    ]
    assert machine.next_deadline_ms() == 100
    assert ask(machine, 100, "done 1 1", "take v 100", "done 1 1", "fail 1 2", "take w 100") == [
        "late",
        "job 1 2 cut the  hedge",
        "late",
        "dead",
        "empty",
    ]
    stats = json.loads(machine.query(b"stats"))
    assert stats == {"waiting": 0, "taken": 0, "done": 0, "dead": 1, "dead_letters": ["cut the  hedge"]}
    assert ask(machine, 100, "submit 1 x", "take w 10", "done 2 1", "done 2 1") == ["job 2", "job 2 1 x", "ok", "late"]


@pytest.mark.parametrize("machine", [locks.Locks(), jobs.Jobs()], ids=["locks", "jobs"])
@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "no such verb",
        "acquire",
        "acquire a b 0",
        "acquire a b x",
        "acquire a b 99999999999",
        "submit",
        "submit 0 x",
        "take w -1",
        "done 1 x",
        "renew a b c 5",
        "who",
        "\udcff",
    ],
)
def test_wrong_requests_are_answered(machine: r2p2.StateMachine, wrong: str) -> None:
    payload = wrong.encode(errors="surrogateescape")
    replies = machine.apply(r2p2.Requests.of([payload]))
    assert isinstance(replies, list)
    (reply,) = replies
    assert isinstance(reply, bytes) and reply.startswith(b"error: ")


def test_renewing_for_ever_takes_no_memory() -> None:
    machine = locks.Locks()
    ask(machine, 0, "acquire a anna 3600000")
    ask(machine, 0, *["renew a anna 1 3600000"] * 1000)
    queue = jobs.Jobs()
    ask(queue, 0, "submit 100 x", *["take w 3600000", "fail 1 1"] * 50)
    ask(queue, 0, *[word for n in range(2, 600) for word in (f"submit 1 {n}", "take w 3600000", f"done {n} 1")])
    assert len(machine._ends) < 100 and len(queue._ends) < 100


names, owners = st.sampled_from("ab"), st.sampled_from("xyz")
numbers = st.integers(1, 6)
lock_requests = st.one_of(
    st.builds("acquire {} {} {}".format, names, owners, st.sampled_from([1, 10, 100])),
    st.builds("renew {} {} {} {}".format, names, owners, numbers, st.sampled_from([1, 10])),
    st.builds("release {} {} {}".format, names, owners, numbers),
)
job_requests = st.one_of(
    st.builds("submit {} text".format, st.integers(1, 3)),
    st.builds("take w {}".format, st.sampled_from([1, 10, 100])),
    st.builds("{} {} {}".format, st.sampled_from(["done", "fail"]), numbers, st.integers(1, 3)),
)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([(locks.Locks, True), (jobs.Jobs, False)]),
    st.lists(st.tuples(st.integers(0, 40), lock_requests, job_requests), max_size=30),
    st.data(),
)
def test_batches_and_snapshots_make_no_difference(
    kind: tuple[type[r2p2.StateMachine], bool], steps: list[tuple[int, str, str]], data: st.DataObject
) -> None:
    make, is_locks = kind
    whole, pieces = make(), make()
    time_ms, batches = 1, []
    for gap, lock, job in steps:
        time_ms += gap
        batches.append((time_ms, lock if is_locks else job))
    together: dict[int, list[str]] = {}
    for when, request in batches:
        together.setdefault(when, []).append(request)
    replies = [reply for when, requests in together.items() for reply in ask(whole, when, *requests)]
    singly = []
    for when, request in batches:
        if data.draw(st.booleans(), label="restored here"):
            again = make()
            state = pieces.snapshot() or b""
            assert isinstance(state, bytes)
            again.restore(state)
            pieces = again
        singly += ask(pieces, when, request)
    assert singly == replies
    assert pieces.state_digest() == whole.state_digest() or not batches
