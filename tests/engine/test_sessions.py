"""The session table against a model, whatever the batches: replicas that apply the same log in different batches agree
byte for byte. And what it exports, imports and refuses.
"""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2p2 import limits
from r2p2.engine import ROLE_LEADER, Engine, EngineConfig
from r2p2.errors import EngineError
from r2p2.memory import MemoryNetwork
from r2p2.requests import DROP
from tests.engine.session_model import ModelTable
from tests.engine.support import SERVER, packet

BYTES_MIN = 2 * limits.SESSION_WINDOW_MAX * limits.SESSION_KEPT_BYTES
CLIENT = (0x0A000002, 4000)
Entry = tuple[int, int, int, bytes] | None


def session_packets(rid: int, client_id: int, sequence: int, oldest: int, payload: bytes) -> bytes:
    plain = packet(0, 2, rid, struct.pack(">QQQ", client_id, sequence, oldest) + payload)
    return plain[:1] + b"\x20" + plain[2:]


class Replica:
    """A leader without a cluster: what is put into its log is committed; answers are read off the network."""

    def __init__(self, count_max: int = 8, bytes_max: int = BYTES_MIN) -> None:
        self.network = MemoryNetwork(1, packets_max=8192)
        config = EngineConfig(
            reassembly_count_max=64, sessions_count_max=count_max, sessions_bytes_max=bytes_max, packets_per_poll_max=64
        )
        self.engine = Engine(self.network.open(*SERVER), config)
        self.engine.set_role(ROLE_LEADER)
        self.engine.capture_start(10**9, limits.DATAGRAM_BYTES_MAX)
        self.executed: list[bytes] = []
        self.answers: dict[int, tuple[str, bytes]] = {}

    def append(self, entry: Entry) -> None:
        if entry is None:
            self.engine.append_noop()
            return
        rid = self.engine.log_last_index + 1 & 0xFFFF
        self.network.inject(CLIENT, SERVER, session_packets(rid, *entry))
        self.network.advance(10_000)
        self.engine.poll()

    def execute(self, request: bytes) -> bytes:
        self.executed.append(request)
        return execute(request)

    def apply(self, entries_max: int) -> None:
        requests, _ = self.engine.apply_prepare(self.engine.log_last_index, entries_max)
        self.engine.apply_reply([self.execute(request) for request in requests], send=True)
        self.engine.flush()
        self._read_answers()

    def apply_all(self, cuts: random.Random) -> None:
        while self.engine.applied_index < self.engine.log_last_index:
            self.apply(cuts.choice([1, 2, 3, 10, 1000, 5000]))

    def _read_answers(self) -> None:
        for one in self.engine.capture_take()[0]:
            data = one.payload
            if one.source_ip != SERVER[0] or not data[3] & 0x80:
                continue
            assert data[1] == 32, "an answer says which request it is to"
            kind = "reply" if data[2] == 0x11 else "expired"
            self.answers[int.from_bytes(data[4:6], "big")] = (kind, data[32:])

    def close(self) -> None:
        self.engine.close()
        self.network.close()


def execute(request: bytes) -> bytes:
    """A reply as long as the request says."""
    name, _, length = request.partition(b"/")
    return (name + b".").ljust(int(length), b"r")[: int(length)]


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """Sessions opened and used, with duplicates, gaps, passed sequences, unknown sessions and long replies."""
    entries: list[Entry] = []
    opened: list[int] = []
    newest: dict[int, int] = {}
    for step in range(draw(st.integers(1, 60))):
        kind = draw(st.sampled_from(["open", "next", "next", "next", "again", "jump", "unknown", "noops", "long"]))
        if kind == "open" or not opened:
            entries.append((0, 0, 0, b"open"))
            opened.append(len(entries))
        elif kind == "noops":
            entries += [None] * draw(st.sampled_from([1, 5, 500, 1030]))
        elif kind == "unknown":
            entries.append((len(entries) + 5000, 1, 1, b"%d/1" % step))
        else:
            client_id = draw(st.sampled_from(opened))
            last = newest.get(client_id, 0)
            sequence = last + 1
            if kind == "again":
                sequence = max(1, last - draw(st.integers(0, 3)))
            elif kind == "jump":
                sequence = last + draw(st.integers(1, 65_000))
            newest[client_id] = max(last, sequence)
            behind = draw(st.sampled_from([0, 0, 1, 5, 60_000]))
            oldest = max(1, sequence - behind)
            size = 300_000 if kind == "long" else draw(st.sampled_from([0, 5, 24, 25, 100, 5000]))
            entries.append((client_id, sequence, oldest, b"%d/%d" % (step, size)))
    return entries


@settings(max_examples=100, deadline=None)
@given(logs(), st.integers(0, 2**32), st.integers(1, 5))
def test_any_batches_give_what_one_entry_after_the_other_gives(log: list[Entry], seed: int, count_max: int) -> None:
    compare(log, seed, count_max)


def test_bounds_on_bytes_and_places_hold_alike_in_any_batches() -> None:
    assert sum(compare(over_the_bounds(seed), seed, 4) for seed in range(12)) > 4


def over_the_bounds(seed: int) -> list[Entry]:
    """Long replies and wide spans, often beyond a bound, around the indices at which bytes are bounded."""
    rng = random.Random(seed)
    log: list[Entry] = [(0, 0, 0, b"open")] * 4
    while len(log) < 2 * 1024 - 20:
        log.append(None)
    sequences = dict.fromkeys(range(1, 5), 0)
    for step in range(40):
        client_id = rng.choice([1, 1, 2, 3, 4])
        sequences[client_id] += rng.choice([1, 1, 1, 30_000])
        sequence = sequences[client_id]
        oldest = max(1, sequence - rng.choice([5, 100, 65_000]))
        log.append((client_id, sequence, oldest, b"%d/%d" % (step, rng.choice([10, 300_000, 370_000]))))
    return log


def compare(log: list[Entry], seed: int, count_max: int) -> int:
    """Three replicas and the model; returns the sessions evicted."""
    expected_runs: list[bytes] = []

    def model_execute(request: bytes) -> bytes:
        expected_runs.append(request)
        return execute(request)

    model = ModelTable(count_max, BYTES_MIN, model_execute)
    answers = {i & 0xFFFF: model.entry(entry) for i, entry in enumerate(log, 1)}
    replicas = [Replica(count_max) for _ in range(3)]
    try:
        for cuts, replica in enumerate(replicas):
            for entry in log:
                if entry is not None:
                    replica.append(entry)
                else:
                    replica.engine.append_noop()
            replica.apply_all(random.Random(seed + cuts))
            assert replica.executed == expected_runs
            assert replica.engine.sessions_export() == model.save()
            for rid, (kind, payload) in replica.answers.items():
                assert kind == answers[rid][0]
                assert answers[rid][1].startswith(payload), "the first packet's part"
        return replicas[0].engine.counters()["sessions_evicted"]
    finally:
        for replica in replicas:
            replica.close()


def test_long_replies_are_held_to_their_bound_and_the_greedy_session_goes_first() -> None:
    replica = Replica()
    for _ in range(3):
        replica.append((0, 0, 0, b""))
    replica.append((1, 1, 1, b"small/10"))
    for i in range(1, 30):
        replica.append((2, i, 1, b"%d/300000" % i))
    replica.append((3, 1, 1, b"small/10"))
    replica.apply_all(random.Random(1))
    assert replica.engine.sessions_size()[1] > BYTES_MIN
    while replica.engine.log_last_index < 1024:
        replica.engine.append_noop()
    replica.apply_all(random.Random(1))
    assert replica.engine.sessions_size() == (2, 64)
    assert replica.engine.counters()["sessions_evicted"] == 1
    replica.append((1, 1, 1, b"small/10"))
    replica.append((2, 30, 1, b"30/300000"))
    replica.apply_all(random.Random(1))
    assert [kind for kind, _ in list(replica.answers.values())[-2:]] == ["reply", "expired"]
    replica.close()


def expired(replica: Replica) -> list[int]:
    return [rid for rid, (kind, _) in replica.answers.items() if kind == "expired"]


def test_who_keeps_little_does_not_give_way_to_who_keeps_much() -> None:
    """Spans of whole windows, and replies of 370,000 bytes: of whoever has those, not of whoever rests."""
    for width, reply, count_max in ((60_000, 10, 8), (1, 370_000, 16)):
        replica = Replica(count_max)
        for _ in range(count_max):
            replica.append((0, 0, 0, b""))
        replica.append((1, 1, 1, b"rests/2000"))
        replica.append((2, 30, 1, b"some replies/10"))
        for client_id in range(3, count_max + 1):
            replica.append((client_id, width, 1, b"much/%d" % reply))
            replica.append((client_id, width, 1, b"much/%d" % reply))
        while replica.engine.log_last_index < 1024:
            replica.engine.append_noop()
        replica.apply_all(random.Random(1))
        assert replica.engine.counters()["sessions_evicted"] > 0
        executed = len(replica.executed)
        rid = replica.engine.log_last_index + 1
        replica.append((2, 31, 31, b"goes on/10"))
        for client_id in range(1, count_max + 1):
            replica.append((client_id, 1 if client_id == 1 else 70_000, 1 if client_id == 1 else 70_000, b"again/10"))
        replica.apply_all(random.Random(1))
        # The first was answered from what it keeps; the second went on; others were told that they have ended.
        assert len(expired(replica)) == replica.engine.counters()["sessions_evicted"]
        assert min(expired(replica)) > rid + 1 and replica.executed[executed] == b"goes on/10"
        replica.close()


def inject_openings(replica: Replica, count: int, source: tuple[int, int]) -> int:
    """How many of so many openings at once were let in."""
    before = replica.engine.log_last_index
    for at in range(0, count, 500):
        for rid in range(at, min(at + 500, count)):
            replica.network.inject(source, SERVER, session_packets(rid & 0xFFFF, 0, 0, 0, b""))
        replica.network.advance(10_000)
        while replica.engine.poll()[1]:
            pass
        replica.engine.flush()
    return replica.engine.log_last_index - before


def test_openings_are_bounded_of_one_address_and_of_all() -> None:
    replica = Replica()
    most = limits.OPENINGS_ADDRESS_BURST
    assert most <= inject_openings(replica, 13_000, CLIENT) <= most + 2
    refused = replica.engine.counters()["drops_openings"]
    assert 13_000 - most - 2 <= refused <= 13_000 - most
    # Whatever port of it.
    assert inject_openings(replica, 10, (CLIENT[0], 77)) == 0
    # So many a second again, and another address has its own; requests of sessions that are there are none of it.
    replica.network.advance(10**9)
    assert inject_openings(replica, 10, (CLIENT[0] + 1, 77)) == 10
    again = limits.OPENINGS_ADDRESS_PER_SECOND
    assert again - 1 <= inject_openings(replica, 1000, CLIENT) <= again + 2
    before = replica.engine.log_last_index
    replica.append((1, 1, 1, b"a request/10"))
    assert replica.engine.log_last_index == before + 1
    # Of ever new addresses.
    replica.network.advance(2 * 10**9)
    taken = sum(inject_openings(replica, 1, (0x0B000000 + i, 1)) for i in range(5000))
    assert 3 * limits.OPENINGS_PER_SECOND - again - 20 < taken < 3 * limits.OPENINGS_PER_SECOND
    replica.close()


def test_export_and_import_round_trip_and_execution_goes_on() -> None:
    one, two = Replica(), Replica()
    one.append((0, 0, 0, b""))
    for i in range(1, 50):
        one.append((1, i, max(1, i - 20), b"%d/%d" % (i, i * 37 % 200)))
    one.apply_all(random.Random(3))
    saved = one.engine.sessions_export()
    assert two.engine.sessions_import(saved, 50)
    assert two.engine.sessions_export() == saved
    two.append((1, 45, 30, b"45/1"))
    two.append((1, 50, 30, b"50/1"))
    two.apply_all(random.Random(3))
    assert two.executed == [b"50/1"], "what the other had executed is not executed again"
    one.close()
    two.close()


def saved_table() -> bytes:
    replica = Replica()
    for _ in range(2):
        replica.append((0, 0, 0, b""))
    replica.append((1, 2, 1, b"a/30"))
    replica.append((2, 1, 1, b"b/5"))
    replica.apply_all(random.Random(1))
    saved = replica.engine.sessions_export()
    replica.close()
    return saved


SAVED = [
    # offset, bytes there instead, what it is
    (0, b"\0\0\0\2", "version"),
    (4, b"\1", "reserved"),
    (8, b"\xff" * 8, "more sessions than bytes"),
    (16, bytes(8), "no id"),
    (16, b"\0\0\0\0\0\0\0\5", "an id that the log has not reached"),
    (16, b"\0\0\0\0\0\0\0\2", "an id twice"),
    (24, bytes(8), "first 0"),
    (32, b"\xff" * 8, "a span beyond the window"),
    (40, bytes(8), "a span with nothing at its end"),
    (48, b"\0\0\0\0\0\0\0\1", "not the end of its span"),
    (48, b"\0\0\0\0\0\0\0\3", "beyond its span"),
    (56, b"\xff\xff\xff\xff", "a reply longer than any"),
    (60, b"\1", "a state that is not final"),
    (60, b"\3", "a refusal with bytes"),
    (61, b"\1", "reserved"),
    (64 + 30, b"\1", "padding"),
]


@pytest.mark.parametrize(("offset", "there", "what"), SAVED, ids=[what for _, _, what in SAVED])
def test_a_table_that_is_not_one_is_refused_and_changes_nothing(offset: int, there: bytes, what: str) -> None:
    saved = saved_table()
    replica = Replica()
    assert replica.engine.sessions_import(saved, 4)
    changed = saved[:offset] + there + saved[offset + len(there) :]
    assert changed != saved
    assert not replica.engine.sessions_import(changed, 4)
    for cut in range(len(saved)):
        assert not replica.engine.sessions_import(saved[:cut], 4)
    assert not replica.engine.sessions_import(saved + bytes(8), 4)
    assert replica.engine.sessions_export() == saved
    replica.close()


def test_a_table_beyond_this_members_bounds_is_refused() -> None:
    saved = saved_table()
    small = Replica(count_max=1)
    assert not small.engine.sessions_import(saved, 4)
    assert small.engine.sessions_size() == (0, 0)
    small.close()


def test_no_export_and_no_second_batch_while_one_is_prepared() -> None:
    replica = Replica()
    replica.append((0, 0, 0, b""))
    replica.engine.apply_prepare(1)
    with pytest.raises(EngineError, match="a batch is prepared"):
        replica.engine.sessions_export()
    with pytest.raises(EngineError, match="not legal now"):
        replica.engine.apply_prepare(1)
    with pytest.raises(EngineError, match="not legal now"):
        replica.engine.sessions_import(b"", 4)
    replica.engine.apply_reply([], send=False)
    assert replica.engine.sessions_size() == (1, 0)
    replica.close()


def test_what_the_application_refuses_is_refused_again_and_not_executed_again() -> None:
    replica = Replica()
    replica.append((0, 0, 0, b""))
    replica.append((1, 1, 1, b"x/1"))
    requests, _ = replica.engine.apply_prepare(2)
    assert list(requests) == [b"x/1"]
    replica.engine.apply_reply([DROP], send=True)
    replica.append((1, 1, 1, b"x/1"))  # the leader refuses it before it reaches the log
    replica.engine.set_role(ROLE_LEADER)
    assert replica.engine.log_last_index == 2
    assert replica.engine.counters()["sessions_answered_early"] == 1
    other = Replica()
    assert other.engine.sessions_import(replica.engine.sessions_export(), 2)
    replica.close()
    other.close()


def test_memory_follows_what_is_kept() -> None:
    """Five thousand requests with long replies through one session: the table holds what is not passed yet."""
    replica = Replica()
    replica.append((0, 0, 0, b""))
    for i in range(1, 5_001):
        replica.append((1, i, max(1, i - 3), b"%d/1000" % i))
        if i % 100 == 0:
            replica.apply_all(random.Random(i))
            replica.engine.drop_prefix(replica.engine.applied_index)
    assert replica.engine.sessions_size() == (1, 4 * (1000 + 32))
    replica.close()
