"""Configurations and snapshots below Raft: entries that travel alone, bytes copied out, a log that begins anew."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from r2p2 import limits
from r2p2.engine import Engine, EngineConfig
from r2p2.errors import EngineError
from r2p2.memory import MemoryNetwork
from tests.engine.support import CLIENT, SERVER, packet

HEADER = 80  # of an Append; its last 8 bytes are count and bytes
ENTRY = struct.Struct(">IIHHBBxx")


def entry(kind: int, body: bytes, ip: int = 0) -> bytes:
    return (ENTRY.pack(len(body), ip, 0, 0, kind, 0) + body).ljust((16 + len(body) + 7) & ~7, b"\0")


def append(*entries: bytes) -> bytes:
    return bytes(HEADER - 8) + struct.pack(">II", len(entries), sum(map(len, entries))) + b"".join(entries)


class Place:
    """An engine, and whoever sends it Raft messages."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        # Three pages of log: what is not given back is missed soon.
        self.engine = Engine(network.open(*SERVER), EngineConfig(reassembly_count_max=64, log_bytes_max=600_000))
        self.engine.set_role(3)

    def receive(self, body: bytes) -> int:
        """The handle of a message of one packet."""
        self.network.inject(CLIENT, SERVER, packet(5, 1, 1, body))
        self.network.advance(1_000_000)
        self.engine.poll()
        [message] = self.engine.raft_messages()
        return message.handle

    def take(self, *entries: bytes) -> None:
        handle = self.receive(append(*entries))
        assert self.engine.check_entries(handle, HEADER)
        assert self.engine.append_message(handle, HEADER, 0, len(entries))


@pytest.fixture
def place() -> Iterator[Place]:
    with MemoryNetwork() as network:
        place = Place(network)
        yield place
        place.engine.close()


def test_a_configuration_comes_out_as_it_went_in(place: Place) -> None:
    body = bytes(range(28))
    handle = place.receive(append(entry(3, body)))
    assert place.engine.check_entries(handle, HEADER)
    assert place.engine.configuration_bytes(handle, HEADER) == body


def test_requests_are_no_configuration(place: Place) -> None:
    handle = place.receive(append(entry(1, b"set", ip=7), entry(1, b"get", ip=7)))
    assert place.engine.check_entries(handle, HEADER)
    assert place.engine.configuration_bytes(handle, HEADER) == b""


@pytest.mark.parametrize(
    "entries",
    [
        (entry(3, b"x" * 28), entry(1, b"r", ip=7)),
        (entry(1, b"r", ip=7), entry(3, b"x" * 28)),
        (entry(3, b""),),
        (entry(3, b"x" * (limits.CONFIGURATION_BYTES_MAX + 1)),),
        (entry(3, b"x" * 28, ip=7),),
        (entry(4, b"x" * 28),),
    ],
    ids=["before", "behind", "empty", "long", "asked for", "unknown"],
)
def test_a_configuration_travels_alone_and_within_its_bounds(place: Place, entries: tuple[bytes, ...]) -> None:
    assert not place.engine.check_entries(place.receive(append(*entries)), HEADER)


def test_nothing_is_told_of_an_unchecked_message(place: Place) -> None:
    handle = place.receive(append(entry(3, b"x" * 28)))
    assert place.engine.configuration_bytes(handle, HEADER) == b""


def test_bytes_of_a_message_stay_within_it(place: Place) -> None:
    body = bytes(range(200))
    handle = place.receive(body)
    assert place.engine.message_bytes(handle, 0, 200) == body
    assert place.engine.message_bytes(handle, 150, 50) == body[150:]
    assert place.engine.message_bytes(handle, 200, 0) == b""
    assert place.engine.message_tail(handle, 3) == body[197:]
    for offset, length in ((0, 201), (150, 51), (201, 0)):
        with pytest.raises(EngineError, match="outside"):
            place.engine.message_bytes(handle, offset, length)
    with pytest.raises(EngineError, match="bad argument"):
        place.engine.message_bytes(handle + 1, 0, 0)


def test_a_configuration_is_applied_without_a_request(place: Place) -> None:
    engine = place.engine
    engine.append_configuration(b"x" * 28)
    requests, last_index = engine.apply_prepare(1)
    assert (len(requests), last_index) == (0, 1)
    engine.apply_reply([], send=False)
    # A member that gets it from its leader has the same history.
    with MemoryNetwork() as network:
        other = Place(network)
        other.take(entry(3, b"x" * 28))
        other.engine.apply_prepare(1)
        other.engine.apply_reply([], send=False)
        assert other.engine.applied_digest == engine.applied_digest != 0
        other.engine.close()


def test_a_log_begins_anew_behind_a_snapshot(place: Place) -> None:
    engine = place.engine
    for _ in range(3):
        place.take(entry(1, b"old", ip=7))
    engine.apply_prepare(2)
    engine.apply_reply([b"", b""], send=False)
    engine.reset_log(1_000_000, 0xABCDEF)
    assert (engine.log_first_index, engine.log_last_index, engine.log_bytes) == (1_000_001, 1_000_000, 0)
    assert (engine.applied_index, engine.applied_digest) == (1_000_000, 0xABCDEF)
    place.take(entry(1, b"new", ip=7), entry(1, b"newer", ip=7))
    requests, last_index = engine.apply_prepare(1_000_002)
    assert (list(requests), last_index) == ([b"new", b"newer"], 1_000_002)
    engine.apply_reply([b"", b""], send=False)
    engine.drop_prefix(1_000_001)
    assert engine.log_first_index == 1_000_002


def test_the_log_never_begins_anew_behind_what_was_applied(place: Place) -> None:
    place.take(entry(1, b"a", ip=7), entry(1, b"b", ip=7))
    place.engine.apply_prepare(2)
    with pytest.raises(EngineError, match="not legal now"):
        place.engine.reset_log(5, 1)
    place.engine.apply_reply([b"", b""], send=False)
    with pytest.raises(EngineError, match="outside"):
        place.engine.reset_log(1, 1)
    place.engine.reset_log(2, 1)
    assert place.engine.applied_digest == 1


def test_beginning_anew_gives_every_page_back(place: Place) -> None:
    """More bytes pass through than the bound: each time anew from another place in a page."""
    engine = place.engine
    big = entry(1, b"x" * 1300, ip=7)
    index = 0
    for round_ in range(6):
        for _ in range(350 + round_):
            place.take(big)
        index += 1000 + 32_768 * round_
        engine.reset_log(index, round_)
        assert engine.log_bytes == 0
        place.take(big)
        assert engine.range_bytes(index + 1, index + 1) == len(big)
        index += 1
        engine.reset_log(index, round_)
