"""The judge of writes is itself judged: every way to lose or invent a write is found, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2p2.bench.verify import count_executions, get_command, stored_version, verify
from r2p2.loadgen import KeyVersions, LoadStats

WIDTH = 25


def reply(version: int) -> bytes:
    return b"$%d\r\n%s\r\n" % (WIDTH, str(version).zfill(WIDTH).encode()) if version else b"$-1\r\n"


@given(st.integers(0, 10**18))
def test_stored_version_reads_what_the_generator_writes(version: int) -> None:
    assert stored_version(reply(version), WIDTH) == version


@pytest.mark.parametrize(
    "garbage",
    [b"", b"+OK\r\n", b"-ERR x\r\n", b"$25\r\n123\r\n", reply(7)[:-1], b"$3\r\n123\r\n", reply(7).replace(b"7", b"x")],
)
def test_stored_version_refuses_garbage(garbage: bytes) -> None:
    assert stored_version(garbage, WIDTH) is None


@pytest.mark.parametrize(
    ("acked", "issued", "certain", "stored", "verdict"),
    [
        (5, 5, True, 5, "exact"),
        (5, 5, True, 4, "lost"),
        (5, 5, True, 0, "lost"),
        (5, 6, True, 6, "invented"),
        (5, 6, False, 6, "uncertain"),
        (5, 6, False, 5, "uncertain"),
        (5, 6, False, 4, "lost"),
        (5, 6, False, 7, "invented"),
        (0, 1, False, 0, "uncertain"),
        (0, 1, False, 1, "uncertain"),
    ],
)
def test_verdicts(acked: int, issued: int, certain: bool, stored: int, verdict: str) -> None:
    result = verify(KeyVersions([acked], [issued], [certain]), {0: reply(stored)}, WIDTH)
    counts = {name: getattr(result, name) for name in ("exact", "uncertain", "lost", "invented", "unread")}
    assert counts == {name: int(name == verdict) for name in counts}
    assert result.holds == (verdict in ("exact", "uncertain"))
    assert bool(result.examples) != result.holds


def test_a_key_that_could_not_be_read_is_a_failure_and_an_unused_key_is_not() -> None:
    result = verify(KeyVersions([3, 0], [3, 0], [True, True]), {}, WIDTH)
    assert (result.keys, result.unread, result.holds) == (1, 1, False)


def test_nothing_written_proves_nothing() -> None:
    assert not verify(KeyVersions([0], [0], [True]), {}, WIDTH).holds


def test_get_command() -> None:
    assert get_command(b"k1") == b"*2\r\n$3\r\nGET\r\n$2\r\nk1\r\n"


def _node(applied: int, **counters: int) -> dict[str, object]:
    return {"applied_index": applied, "counters": counters}


def test_executions_are_counted_where_no_snapshot_stands_for_some_of_them() -> None:
    """A member that was sent a snapshot has applied as much as the others and executed less."""
    load = LoadStats(*[0] * len(LoadStats._fields))._replace(answered=100, reads_answered=20)
    nodes = {
        "replica0": _node(90, sessions_executed=80),
        "replica1": _node(91, sessions_executed=30, snapshots_restored=1),
        "replica2": _node(88, sessions_executed=78),
    }
    executions = count_executions([load], nodes)
    assert executions.holds
    assert executions.executed == 80
    nodes["replica0"] = _node(90, sessions_executed=81)
    assert not count_executions([load], nodes).holds, "one twice"
