"""The null responder answers what the generator asks, sessions included, and nothing else."""

from __future__ import annotations

import pytest

from r2p2._engine import ffi, lib
from r2p2.loadgen import ECHO, GET, SET, LoadConfig, LoadGenerator
from r2p2.memory import MemoryNetwork
from r2p2.node import STATUS_REQUEST
from tests.engine.support import CLIENT, SERVER, STRANGER, Caller, packet


@pytest.mark.parametrize(("workload", "policy", "sessions"), [(ECHO, 1, 0), (GET, 3, 0), (SET, 2, 0), (SET, 2, 3)])
def test_every_workload_is_answered_rightly(workload: int, policy: int, sessions: int) -> None:
    with MemoryNetwork(1) as network:
        port, caller = network.open(*SERVER), Caller(network)
        counts = ffi.new("r2p2_null_counts *")
        config = LoadConfig(workload, policy, CLIENT[1], outstanding=8, sessions=sessions)
        load = LoadGenerator(caller.engine, config, [SERVER])
        for _ in range(20):
            load.run(0)
            network.advance(2_000)
            assert lib.r2p2_null_run(port, 0, counts) == 0
            network.advance(2_000)
        stats = load.stats()
        assert stats.answered > 100
        assert (stats.wrong, stats.dropped, stats.timeouts) == (0, 0, 0)
        assert counts.ignored == 0
        load.close()
        caller.engine.close()


def test_it_tells_its_status_and_ignores_the_rest() -> None:
    with MemoryNetwork(1) as network:
        port, caller = network.open(*SERVER), Caller(network)
        counts = ffi.new("r2p2_null_counts *")
        caller.call(1, STATUS_REQUEST)
        for datagram in (b"", b"\xcc", packet(1, 1, 5, b"a response"), packet(0, 1, 5, b"half", last=False, order=2)):
            network.inject(STRANGER, SERVER, datagram)
        network.advance(10_000)
        assert lib.r2p2_null_run(port, 0, counts) == 0
        network.advance(10_000)
        caller.poll_once()
        assert caller.ended[1][1] == b"{}"
        assert (counts.answered, counts.ignored) == (1, 4)
        caller.engine.close()
