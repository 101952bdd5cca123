"""One log, three ways: the list that simulations use, the pages in C, the files on disk. Same operations, same log."""

from __future__ import annotations

import random
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2p2.engine import ROLE_HOLD, Engine, EngineConfig
from r2p2.memory import MemoryNetwork
from r2p2.storage import Storage
from raft import Append, AppendEntries, AppendNoop, LogOp, Truncate
from raft.list_log import ListLog
from tests.engine.support import CLIENT, SERVER, packet

HEADER_BYTES = Append.HEADER_BYTES


def wire(body: bytes | None) -> bytes:
    """An entry of docs/wire.md: a request of CLIENT's, or a no-op."""
    length, kind = (0, 0) if body is None else (len(body), 1)
    head = length.to_bytes(4, "big") + CLIENT[0].to_bytes(4, "big") + CLIENT[1].to_bytes(2, "big") + b"\0\7"
    if body is None:
        head = bytes(12)
    data = head + bytes((kind, 2 if kind else 0)) + bytes(2) + (body or b"")
    return data + bytes(-len(data) % 8)


class Logs:
    """All of them; every operation goes to each."""

    def __init__(self, network: MemoryNetwork, directory: str) -> None:
        self.network = network
        self.engine = Engine(network.open(*SERVER), EngineConfig(reassembly_count_max=64))
        self.engine.set_role(ROLE_HOLD)  # a member of a group, or it takes no Raft messages
        self.directory = directory
        self.storage = Storage(directory)
        self.log = ListLog()
        self.applied = 0
        self.term = 1

    def execute(self, op: LogOp) -> None:
        self.log.execute(op)
        if isinstance(op, AppendNoop):
            self.engine.append_noop()
            self.storage.append(op.index, op.term, 1, wire(None))
        elif isinstance(op, Truncate):
            self.engine.truncate_suffix(op.from_index)
            last_term = self.log.entry(self.log.last_index)[0] if self.log.entries else 0
            self.storage.truncate(op.from_index, last_term)
        elif isinstance(op, AppendEntries):
            assert isinstance(op.payload, tuple)
            entries = [wire(body) for _, body, _ in op.payload]
            data = b"".join(entries)
            counts = len(entries).to_bytes(4, "big") + len(data).to_bytes(4, "big")  # what ends an Append's header
            self.network.inject(CLIENT, SERVER, packet(5, 1, 9, bytes(HEADER_BYTES - 8) + counts + data))
            self.network.advance(10_000_000)
            self.engine.poll()
            (raw,) = self.engine.raft_messages()
            assert self.engine.check_entries(raw.handle, HEADER_BYTES)
            assert self.engine.append_message(raw.handle, HEADER_BYTES, op.skip, op.count)
            chosen = b"".join(entries[op.skip : op.skip + op.count])
            self.storage.append(op.first_index, op.term, op.count, chosen)

    def apply(self, through_index: int) -> None:
        """The bodies come out in order, no-ops left out."""
        bodies = [body for _, body, _ in self.log.slice(self.applied + 1, through_index) if body is not None]
        seen: list[bytes] = []
        while self.applied < through_index:
            requests, self.applied = self.engine.apply_prepare(through_index, 7)
            seen += list(requests)
            self.engine.apply_reply([b""] * len(requests), send=False)
        assert seen == bodies

    def compare(self, rng: random.Random) -> None:
        log, engine = self.log, self.engine
        if log.entries:
            assert (engine.log_first_index, engine.log_last_index) == (log.first_index, log.last_index)
            first = rng.randint(log.first_index, log.last_index)
            last = rng.randint(first, log.last_index)
            assert engine.range_bytes(first, last) == log.range_bytes(first, last)
            for bound in (1, 16, 100, rng.randrange(2_000)):
                assert engine.fit(first, last, bound) == log.fit(first, last, bound)
            assert engine.log_bytes == log.range_bytes(log.first_index, log.last_index)
        assert self.storage.last_index == log.last_index

    def close(self) -> None:
        """What the files hold when they are opened again; then everything is closed."""
        self.storage.sync()
        self.storage.close()
        again = Storage(self.directory)
        stored = [(piece.first_index, piece.term, piece.count, piece.data) for piece in again.take_recovered().entries]
        again.close()
        index = 1
        data = b""
        for first, term, count, piece in stored:
            assert first == index
            if first + count > self.log.first_index:
                kept = range(max(first, self.log.first_index), first + count)
                assert {self.log.entry(i)[0] for i in kept} == {term}
            index += count
            data += piece
        assert index == self.log.last_index + 1
        tail = b"".join(wire(body) for _, body, _ in self.log.entries)  # type: ignore[arg-type]
        assert data.endswith(tail)
        self.engine.close()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30))
def test_the_same_operations_make_the_same_log(seed: int) -> None:
    """Appends with some entries skipped, no-ops, truncations, applying, forgetting; sizes asked for after each."""
    rng = random.Random(seed)
    with MemoryNetwork(1, packets_max=64) as network, tempfile.TemporaryDirectory() as directory:
        logs = Logs(network, directory)
        for _ in range(40):
            log = logs.log
            what = rng.randrange(6)
            if what == 0:
                logs.term += rng.random() < 0.3
                logs.execute(AppendNoop(log.last_index + 1, logs.term))
            elif what <= 2:
                bodies = [rng.randbytes(rng.randrange(100)) for _ in range(rng.randint(1, 8))]
                payload = tuple((logs.term, body, len(wire(body))) for body in bodies)
                skip = rng.randrange(len(payload))
                count = rng.randint(1, len(payload) - skip)
                logs.execute(AppendEntries(log.last_index + 1, skip, count, logs.term, payload))
            elif what == 3 and log.last_index > logs.applied:
                logs.execute(Truncate(rng.randint(logs.applied + 1, log.last_index)))
            elif what == 4:
                logs.apply(rng.randint(logs.applied, log.last_index))
            elif logs.applied >= log.first_index:
                through_index = rng.randint(log.first_index, logs.applied)
                log.drop_prefix(through_index)
                logs.engine.drop_prefix(through_index)
            logs.compare(rng)
        logs.close()


def test_a_difference_would_be_seen() -> None:
    """The comparison looks: a list with one entry too many is not the engine's log."""
    with MemoryNetwork(1, packets_max=64) as network, tempfile.TemporaryDirectory() as directory:
        logs = Logs(network, directory)
        logs.execute(AppendNoop(1, 1))
        logs.compare(random.Random(1))
        logs.log.append(1, None, 16)
        with pytest.raises(AssertionError):
            logs.compare(random.Random(1))
        logs.engine.close()
        logs.storage.close()
