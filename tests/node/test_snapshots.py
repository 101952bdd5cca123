"""A node's snapshots: bytes there and back, damage noticed, chunks in order, the application restored."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2p2 import limits
from r2p2.app import StateMachine, state_machine
from r2p2.apps.echo import Echo
from r2p2.apps.kv import KeyValue, encode_command
from r2p2.engine import Engine, EngineConfig
from r2p2.errors import UserError
from r2p2.memory import MemoryNetwork
from r2p2.node.snapshots import (
    Assembly,
    NodeSnapshot,
    SnapshotDamaged,
    Snapshots,
    Taking,
    decode_snapshot,
    encode_snapshot,
)
from r2p2.requests import Requests


@pytest.fixture
def engine() -> Iterator[Engine]:
    with MemoryNetwork() as network:
        engine = Engine(network.open(0x0A000001, 8000), EngineConfig(reassembly_count_max=64))
        yield engine
        engine.close()


def apply_noops(engine: Engine, count: int) -> None:
    for _ in range(count):
        engine.append_noop()
    engine.apply_prepare(engine.log_last_index)
    engine.apply_reply([], send=False)


def test_golden_bytes() -> None:
    data = encode_snapshot(NodeSnapshot(0x1122334455667788, 0x0123456789AB, b"ses", b"app"))
    rest = struct.pack(">QQQ", 0x1122334455667788, 0x0123456789AB, 3) + b"sesapp"
    assert data == struct.pack(">II", 2, zlib.crc32(rest)) + rest


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**48 - 1), st.binary(max_size=100), st.binary(max_size=100))
def test_there_and_back(digest: int, time_ms: int, sessions: bytes, application: bytes) -> None:
    snapshot = NodeSnapshot(digest, time_ms, sessions, application)
    assert decode_snapshot(encode_snapshot(snapshot)) == snapshot


@given(st.data())
def test_damage_is_noticed(data: st.DataObject) -> None:
    good = bytearray(encode_snapshot(NodeSnapshot(7, 5, b"sessions", b"application")))
    place = data.draw(st.integers(0, len(good) - 1))
    good[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SnapshotDamaged):
        decode_snapshot(bytes(good))
    with pytest.raises(SnapshotDamaged):
        decode_snapshot(bytes(good[:place]))


def test_a_crc_that_fits_does_not_make_lengths_right() -> None:
    rest = struct.pack(">QQQ", 1, 0, 1 << 40) + b"x"
    with pytest.raises(SnapshotDamaged):
        decode_snapshot(struct.pack(">II", 2, zlib.crc32(rest)) + rest)


def test_another_version_says_what_to_do() -> None:
    data = bytearray(encode_snapshot(NodeSnapshot(1, 0, b"", b"")))
    data[3] = 1
    with pytest.raises(SnapshotDamaged, match=r"version 1.*same version on every member"):
        decode_snapshot(bytes(data))


def test_chunks_come_in_order_or_start_over() -> None:
    assembly = Assembly()
    assembly.add(0, b"ab")
    with pytest.raises(ValueError, match="a chunk at 3 behind 2"):
        assembly.add(3, b"x")
    assembly.add(0, b"xyz")
    assembly.add(3, b"w")
    assert assembly.bytes_held == 4
    assert assembly.take() == b"xyzw"
    assert assembly.bytes_held == 0


def taken(snapshots: Snapshots, front: bytes = b"") -> Taking:
    """A complete one."""
    taking = snapshots.begin(front)
    while not snapshots.go_on(taking):
        pass
    return taking


def test_one_node_to_another(engine: Engine) -> None:
    kv = KeyValue()
    kv.apply(Requests.of([encode_command("SET", f"k{i}", "v" * i) for i in range(200)]))
    apply_noops(engine, 3)
    counters: dict[str, int] = {}
    mine = Snapshots(kv, engine, counters, 10**12)
    size = mine.hold(taken(mine))
    assert (mine.index, mine.held_bytes, counters["snapshots_taken"]) == (3, size, 1)
    assert mine.chunk(2, 0, 10) is None
    assert mine.chunk(3, size - 5, 6) is None
    with MemoryNetwork() as network:
        other_engine = Engine(network.open(0x0A000001, 8000), EngineConfig(reassembly_count_max=64))
        other_kv = KeyValue()
        other = Snapshots(other_kv, other_engine, {}, 10**12)
        for offset in range(0, size, 1000):
            chunk = mine.chunk(3, offset, min(1000, size - offset))
            assert chunk is not None
            other.receive(offset, chunk)
        other.install(3)
        assert dict(other_kv.data) == dict(kv.data)
        assert other_kv.state_digest() == kv.state_digest()
        assert other_engine.applied_index == 3
        assert other_engine.applied_digest == engine.applied_digest
        assert (other.index, other.held_bytes, other.incoming_bytes) == (0, 0, 0)
        other_engine.close()
    mine.release()
    assert (mine.index, mine.held_bytes) == (0, 0)


def test_what_came_of_one_whose_rest_will_not_come_is_let_go(engine: Engine) -> None:
    counters: dict[str, int] = {}
    snapshots = Snapshots(KeyValue(), engine, counters, 10**12)
    snapshots.receive(0, b"half")
    snapshots.abandon()
    assert (snapshots.incoming_bytes, counters["snapshots_abandoned"]) == (0, 1)


def test_one_over_the_budget_is_counted_and_said_once(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    counters: dict[str, int] = {}
    snapshots = Snapshots(KeyValue(), engine, counters, -1)
    taken(snapshots)
    taken(snapshots)
    assert counters["snapshots_over_budget"] == 2
    assert len(caplog.records) == 1
    assert "taking a snapshot of" in caplog.text


def test_an_application_that_does_not_take_it(engine: Engine) -> None:
    snapshots = Snapshots(KeyValue(), engine, {}, 10**12)
    snapshots.receive(0, encode_snapshot(NodeSnapshot(1, 0, b"", b"\0\0\0\0\0\0\0\x09")))
    with pytest.raises(SnapshotDamaged, match="the application does not take"):
        snapshots.install(5)
    assert engine.applied_index == 0


class Without(StateMachine):
    def apply(self, requests: Requests) -> list[bytes]:
        return [b""] * len(requests)


def test_what_has_snapshots() -> None:
    assert KeyValue().has_snapshots and Echo().has_snapshots
    assert not Without().has_snapshots
    assert Without().snapshot() is None
    with pytest.raises(NotImplementedError, match="Without has no snapshots"):
        Without().restore(b"")
    assert not state_machine(bytes).has_snapshots
    kept: list[bytes] = []
    hooked = state_machine(bytes, snapshot=lambda: b"state", restore=kept.append)
    assert hooked.has_snapshots and hooked.snapshot() == b"state"
    hooked.restore(b"then")
    assert kept == [b"then"]
    with pytest.raises(UserError, match="without restore"):
        state_machine(bytes, snapshot=lambda: b"")


def test_pieces_are_bytes(engine: Engine) -> None:
    class Texts(Without):
        def snapshot(self) -> Iterator[bytes]:
            return iter([b"a", "b"])  # type: ignore[list-item]

    with pytest.raises(UserError, match="a piece of the application's snapshot is 'b', not bytes"):
        taken(Snapshots(Texts(), engine, {}, 10**12))


def test_pieces_are_what_one_whole_would_be(engine: Engine) -> None:
    class Whole(Without):
        def snapshot(self) -> bytes:
            return b"state in pieces"

    class Pieces(Without):
        def snapshot(self) -> Iterator[bytes]:
            return iter([b"", b"state ", b"in", b"", b" pieces"])

    whole, pieces = (taken(Snapshots(app(), engine, {}, 10**12), b"front").data for app in (Whole, Pieces))
    assert whole == pieces and whole.startswith(b"front")
    assert decode_snapshot(bytes(pieces[5:])).application == b"state in pieces"


def test_one_over_the_bound_is_given_up_before_it_is_complete(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(Without):
        def snapshot(self) -> Iterator[bytes]:
            return iter(lambda: bytes(1000), None)

    monkeypatch.setattr(limits, "SNAPSHOT_BYTES_MAX", 100_000)
    counters: dict[str, int] = {}
    with pytest.raises(UserError, match="over the bound of 100000"):
        taken(Snapshots(Endless(), engine, counters, 10**12))
    assert counters["snapshots_taken"] == 0


def test_a_snapshot_of_none_is_the_applications_mistake(engine: Engine) -> None:
    class Half(Echo):
        def snapshot(self) -> bytes:
            return None  # type: ignore[return-value]

    with pytest.raises(UserError, match=r"Half.snapshot\(\) returned None"):
        Snapshots(Half(), engine, {}, 10**12).begin()
