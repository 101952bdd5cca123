"""Parts of answers to one call, from ever new addresses: they cost no other call its answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from r2p2 import limits
from r2p2.engine import DONE_OK
from r2p2.memory import MemoryNetwork
from tests.engine.support import CLIENT, SERVER, Caller, packet

FULL = bytes(limits.PAYLOAD_BYTES_MAX)
TABLE = 256  # halves of a Caller
LONG = bytes(range(250)) * 30


def part(rid: int, index: int, packets: int, payload: bytes = FULL) -> bytes:
    """Of a RESPONSE."""
    order = index or packets
    return packet(1, 1, rid, payload, first=index == 0, last=index == packets - 1, order=order)


def answer(rid: int, payload: bytes) -> list[bytes]:
    pieces = [payload[i : i + len(FULL)] for i in range(0, len(payload), len(FULL))]
    return [part(rid, i, len(pieces), piece) for i, piece in enumerate(pieces)]


@pytest.fixture
def world() -> Iterator[tuple[MemoryNetwork, Caller]]:
    with MemoryNetwork(1, packets_max=8192) as network:
        network.open(*SERVER)
        caller = Caller(network)
        yield network, caller
        caller.engine.close()


def send(network: MemoryNetwork, source: tuple[int, int], *datagrams: bytes) -> None:
    for datagram in datagrams:
        network.inject(source, CLIENT, datagram)


def polled(network: MemoryNetwork, caller: Caller) -> dict[str, int]:
    network.advance(10_000)
    while caller.poll_once():
        pass
    return caller.engine.counters()


def test_one_call_does_not_fill_the_table(world: tuple[MemoryNetwork, Caller]) -> None:
    """Two packets each, so that a full table would keep them; the answer to another call comes through a router."""
    network, caller = world
    asked, other = caller.call(1, b"who is asked"), caller.call(2, b"another")
    for port in range(3 * TABLE):
        send(network, (0x0A010000, 1000 + port), part(asked, 0, 9), part(asked, 1, 9))
    counters = polled(network, caller)
    assert counters["rx_drop_reassembly_full"] == 0
    assert counters["rx_evicted_halves"] == 3 * TABLE - limits.ANSWER_HALVES_MAX
    packets = answer(other, LONG)
    send(network, (0x0A000009, 9), *packets)
    polled(network, caller)
    assert caller.ended == {2: (DONE_OK, LONG)}


def test_the_answer_of_who_was_asked_does_not_give_way(world: tuple[MemoryNetwork, Caller]) -> None:
    """However many come between two of its packets; that of somebody else has to come among the next ones."""
    network, caller = world
    rid, packets = caller.call(1, b"who is asked"), answer(1, LONG)
    assert rid == 1
    ports = iter(range(1000, 60_000))
    for datagram in packets:
        send(network, SERVER, datagram)
        for _ in range(TABLE):
            send(network, (0x0A010000, next(ports)), part(rid, 0, 9), part(rid, 1, 9))
    polled(network, caller)
    assert caller.ended == {1: (DONE_OK, LONG)}


def test_somebody_elses_answer_comes_through_between_others(world: tuple[MemoryNetwork, Caller]) -> None:
    network, caller = world
    rid, packets = caller.call(1, b"a router"), answer(1, LONG)
    for port in range(TABLE):
        send(network, (0x0A010000, 1000 + port), part(rid, 0, 9))
    for number, datagram in enumerate(packets):
        send(network, (0x0A000009, 9), datagram)
        if number < limits.ANSWER_HALVES_MAX - 1:
            send(network, (0x0A010000, 5000 + number), part(rid, 0, 9))
    polled(network, caller)
    assert caller.ended == {1: (DONE_OK, LONG)}


def test_many_calls_that_strangers_answer_leave_room_for_who_was_asked(world: tuple[MemoryNetwork, Caller]) -> None:
    network, caller = world
    rids = [caller.call(tag, b"x") for tag in range(200)]
    for rid in rids:
        for port in range(limits.ANSWER_HALVES_MAX):
            send(network, (0x0A010000, 1000 + port), part(rid, 0, 9), part(rid, 1, 9))
    polled(network, caller)
    send(network, SERVER, *answer(rids[50], LONG))
    assert polled(network, caller)["rx_drop_reassembly_full"] == 0
    assert caller.ended == {50: (DONE_OK, LONG)}


def test_whole_answers_that_are_not_believed_leave_few_memories(world: tuple[MemoryNetwork, Caller]) -> None:
    """A session's, to a call without one: each would be remembered as whole."""
    network, caller = world
    rid = caller.call(1, b"x")
    for port in range(TABLE):
        first = part(rid, 0, 2, bytes(24) + b"stale")
        send(network, (0x0A010000, 1000 + port), first[:1] + bytes([32]) + first[2:], part(rid, 1, 2, b"answer"))
    counters = polled(network, caller)
    assert counters["rx_stale_answers"] == TABLE and counters["rx_evicted_halves"] == 0
    assert caller.ended == {}
    send(network, SERVER, *answer(rid, LONG))
    polled(network, caller)
    assert caller.ended == {1: (DONE_OK, LONG)}
