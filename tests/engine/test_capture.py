"""What an engine copies for a capture, and what not: nobody outside decides how much it costs."""

from __future__ import annotations

import pytest

from r2p2.engine import Engine, EngineConfig
from r2p2.memory import MemoryNetwork
from tests.engine.support import SERVER, STRANGER, packet

RATE = 100
HEAD = bytes((1, 1)) + bytes(22)


@pytest.mark.parametrize("kind", [1, 5, 8])
def test_a_flood_costs_no_more_than_the_rate_whatever_it_looks_like(kind: int) -> None:
    """Of votes as many again: they are taken where the rest is a sample."""
    with MemoryNetwork(1, packets_max=8192) as network:
        engine = Engine(network.open(*SERVER), EngineConfig(reassembly_count_max=64))
        engine.capture_start(RATE, 1472)
        junk = packet(5, 1, 1, HEAD[:1] + bytes((kind,)) + HEAD[2:])
        taken = 0
        for _ in range(100):
            for _ in range(50):
                network.inject(STRANGER, SERVER, junk)
            network.advance(10_000_000)
            engine.poll()
            taken += len(engine.capture_take()[0])
        buckets = 1 if kind == 5 else 2
        assert RATE <= taken <= buckets * (2 * RATE + 1), "in a second, and what a second has saved up before"
        engine.close()


@pytest.mark.parametrize("packets", [20, 254])
def test_the_rest_of_a_message_is_taken_once(packets: int) -> None:
    """However often it comes; and what it was beyond the rate is made up for by what comes later."""
    with MemoryNetwork(1, packets_max=8192) as network:
        engine = Engine(network.open(*SERVER), EngineConfig(reassembly_count_max=64))
        engine.capture_start(RATE, 1472)
        taken, firsts = 0, 0
        for turn in range(1000):
            network.inject(STRANGER, SERVER, packet(0, 1, turn, b"fourteen bytes", last=False, order=packets))
            for i in range(60):
                rest = packet(0, 1, turn, b"x", first=False, last=False, order=1 + (turn + i) % (packets - 1))
                network.inject(STRANGER, SERVER, rest)
            network.advance(10_000_000)
            engine.poll()
            copies = [one.payload for one in engine.capture_take()[0]]
            taken += len(copies)
            firsts += sum(copy[3] == 0x80 for copy in copies)
        assert 9 * RATE < taken <= 11 * RATE + packets
        assert firsts > 9
        engine.close()


def test_votes_are_taken_while_a_flood_of_others_uses_up_the_rate() -> None:
    with MemoryNetwork(1, packets_max=8192) as network:
        engine = Engine(network.open(*SERVER), EngineConfig(reassembly_count_max=64))
        engine.capture_start(RATE, 1472)
        vote, others = packet(5, 1, 1, HEAD), packet(0, 1, 2, b"a request")
        for _ in range(20):
            for _ in range(100):
                network.inject(STRANGER, SERVER, others)
            network.inject(STRANGER, SERVER, vote)
            network.advance(10_000_000)
            engine.poll()
            assert vote in [one.payload for one in engine.capture_take()[0]]
        engine.close()


def test_what_is_sent_is_taken_as_often_as_what_is_received() -> None:
    """A poll receives first, so what it sends comes when the token of the time since the last poll is gone."""
    with MemoryNetwork(1, packets_max=8192) as network:
        engine = Engine(network.open(*SERVER), EngineConfig())
        engine.capture_start(RATE, 1472)
        received, sent = 0, 0
        for turn in range(2_000):
            for i in range(20):
                network.inject(STRANGER, SERVER, packet(0, 1, turn * 20 + i & 0xFFFF, b"a request"))
            network.advance(10_000_000)
            engine.poll()
            engine.reply([b"a reply"] * len(engine.requests()))
            engine.flush()
            for copy in engine.capture_take()[0]:
                received += copy.payload.endswith(b"a request")
                sent += copy.payload.endswith(b"a reply")
        assert 0.8 < sent / received < 1.25
        assert 19 * RATE < received + sent < 22 * RATE
        engine.close()
