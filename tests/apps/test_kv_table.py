"""The table is one dict to whoever reads and writes, whatever snapshots hold it; and holding costs nothing a key."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from r2p2 import limits
from r2p2.apps.kv import KeyValue, encode_command
from r2p2.apps.kv.table import Hold, Table
from r2p2.requests import Replies, Requests

keys = st.integers(0, 30).map(lambda i: b"%d" % i)


class Layers(RuleBasedStateMachine):
    """Against a dict, with up to three holders that come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.model = Table(), dict[bytes, bytes]()
        self.holds: list[tuple[Hold, dict[bytes, bytes]]] = []

    @rule(key=keys, value=st.binary(max_size=3))
    def set(self, key: bytes, value: bytes) -> None:
        self.table.top[key] = value
        self.model[key] = value

    @rule(key=keys)
    def remove(self, key: bytes) -> None:
        if key in self.model:
            self.table.remove(key)
            del self.model[key]

    @rule()
    def clear(self) -> None:
        self.table.clear()
        self.model.clear()

    @precondition(lambda self: len(self.holds) < 3)
    @rule()
    def hold(self) -> None:
        self.holds.append((self.table.hold(), dict(self.model)))

    @precondition(lambda self: self.holds)
    @rule(which=st.integers(0, 2))
    def let_go(self, which: int) -> None:
        del self.holds[which % len(self.holds)]

    @rule(keys_max=st.integers(0, 8))
    def settle(self, keys_max: int) -> None:
        self.table.settle(keys_max)

    @invariant()
    def same(self) -> None:
        table, model = self.table, self.model
        assert sorted(table.all_keys()) == sorted(model)
        assert table.count() == len(model) and table.copy() == model
        assert all(table.get(b"%d" % i) == model.get(b"%d" % i) for i in range(31))
        assert all(hold.data == was for hold, was in self.holds)

    def teardown(self) -> None:
        self.holds.clear()
        self.table.settle(len(self.table.top))
        assert self.table.under is None and self.table.top == self.model


Layers.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestLayers = Layers.TestCase


def full(count: int) -> KeyValue:
    kv = KeyValue()
    kv.apply(Requests.of([encode_command("SET", f"key {i}", "v" * 20) for i in range(count)]))
    return kv


def test_a_snapshot_begins_without_going_through_the_keys() -> None:
    kv = full(100_000)
    tracemalloc.start()
    pieces = kv.snapshot()
    next(pieces)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 50_000  # two lists of references would be 1.6 MB


def test_batches_move_what_was_written_meanwhile_down_when_the_snapshot_is_over() -> None:
    kv = full(1000)
    pieces = kv.snapshot()
    batch = Requests.of([encode_command("SET", f"key {i}", "new") for i in range(500, 2500)])
    one = Requests.of([encode_command("SET", "one", "more")])
    kv.apply(batch)
    kv.apply(one)
    assert len(kv.store.table.top) == 2001  # held: nothing moves
    size = sum(map(len, pieces))
    assert size > 1000 * 26
    steps = 0
    while kv.store.table.under is not None:
        kv.apply(one)
        steps += 1
    assert 2001 // (limits.KV_SETTLE_MIN + 2) <= steps <= 2001 // (limits.KV_SETTLE_MIN + 1) + 1
    assert kv.store.table.count() == 2501
    assert kv.query(encode_command("GET", "key 700")) == b"$3\r\nnew\r\n"
    assert kv.query(encode_command("GET", "key 300")) == b"$20\r\n" + b"v" * 20 + b"\r\n"


def test_a_snapshot_that_nobody_asks_for_a_piece_holds_nothing() -> None:
    for pieces_had in (0, 1, 3):
        kv = full(5000)
        pieces = kv.snapshot()
        for _ in range(pieces_had):
            next(pieces)
        assert kv.store.table.is_held
        del pieces
        kv.apply(Requests.of([encode_command("SET", "one", "more")]))
        assert kv.store.table.under is None


def test_reads_in_c_see_both_layers() -> None:
    kv = full(3)
    pieces = kv.snapshot()
    kv.apply(Requests.of([encode_command("DEL", "key 0"), encode_command("SET", "key 1", "n")]))
    reads = Requests.of([encode_command("GET", f"key {i}") for i in range(4)], policy=3)
    expected = [b"$-1\r\n", b"$1\r\nn\r\n", b"$20\r\n" + b"v" * 20 + b"\r\n", b"$-1\r\n"]
    replies = kv.query_batch(reads)
    assert isinstance(replies, Replies) and replies.slab == b"".join(expected)
    assert [kv.query(read) for read in reads] == expected
    kv.apply(Requests.of([encode_command("SET", "key 0", "b")]))
    assert kv.query(encode_command("GET", "key 0")) == b"$1\r\nb\r\n"
    assert kv.query(encode_command("DBSIZE")) == b":3\r\n"
    kv.apply(Requests.of([encode_command("FLUSHALL")]))
    assert kv.query(encode_command("DBSIZE")) == b":0\r\n"
    restored = KeyValue()
    restored.restore(b"".join(pieces))
    assert restored.state_digest() == full(3).state_digest()


@pytest.mark.parametrize("change", ["FLUSHALL", "PERSIST a", "PEXPIRE a 9", "DEL a", "SET a 2"])
def test_a_snapshot_has_the_deadlines_there_were(change: str) -> None:
    kv = KeyValue()
    kv.apply(Requests.of([encode_command("SET", name, "1", "PX", 500) for name in "ab"], time_ms=1000))
    digest, pieces = kv.state_digest(), kv.snapshot()
    header = next(pieces)
    kv.apply(Requests.of([encode_command(*change.split()), encode_command("SET", "c", "3", "PX", 500)]))
    restored = KeyValue()
    restored.restore(header + b"".join(pieces))
    assert restored.state_digest() == digest
    kv.apply(Requests.of([encode_command("PING")]))
    assert kv.store.table.under is None
    # Nothing is kept aside any more.
    assert kv.store._kept is None
