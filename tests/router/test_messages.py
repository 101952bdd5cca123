"""Messages of several packets through the router, and servers that are real engines."""

from __future__ import annotations

import pytest

from tests.engine.support import packet
from tests.router.support import MS, RESPONSE, ROUTER, RouterWorld, check_books, server_address

MODES = ["relay", "direct"]
SIZES = [0, 1, 1464, 1465, 3000, 100_000, 370_406]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_any_size_goes_there_and_back(mode: str, size: int) -> None:
    payload = bytes(i * 7 % 251 for i in range(size))
    with RouterWorld(3, real=True, mode=mode) as world:
        tags = [world.call(payload) for _ in range(3)]
        world.run(20)
        assert [world.client.ended[tag] for tag in tags] == [(0, payload)] * 3
        assert [len(server.seen) for server in world.servers] == [1, 1, 1]  # type: ignore[union-attr]
        check_books(world)
        if mode == "direct":
            # Three first packets in, three out, FEEDBACK; the rest passes the router by.
            assert world.count("tx_packets") == 3
            assert world.count("packets_passed") == 0
        elif size > 1464:
            packets = 1 + -(-(size - 14) // 1464)
            assert world.count("packets_passed") == 3 * (packets - 1 + 1 + -(-size // 1464))


@pytest.mark.parametrize("mode", MODES)
def test_the_servers_see_whom_the_mode_says(mode: str) -> None:
    with RouterWorld(1, mode=mode) as world:
        world.calls(1)
        source = world.raw(0).held[0].source
        assert source == ((0x0A0000FE, 8000) if mode == "relay" else (0x0A000100, 5000))


@pytest.mark.parametrize("mode", MODES)
def test_disorder_and_duplicates(mode: str) -> None:
    with RouterWorld(3, real=True, mode=mode, seed=5) as world:
        world.network.faults(duplicate_ppm=100_000, reorder_ppm=100_000, delay_min_ns=1_000, delay_max_ns=90_000)
        payloads = [bytes([i]) * (1 + 700 * i) for i in range(40)]
        for payload in payloads:
            world.call(payload)
            world.run(1)
        world.run(1500)
        for i, payload in enumerate(payloads):
            assert world.client.ended[i + 1] == (0, payload)
        assert world.outstanding() == [0, 0, 0]
        assert world.router.pending_count == 0


@pytest.mark.parametrize("mode", MODES)
def test_loss_is_never_for_ever(mode: str) -> None:
    options = {"timeout_ns": 50_000_000, "misses_max": 100, "queue_timeout_ns": 200_000_000}
    with RouterWorld(3, real=True, mode=mode, seed=7, policy="jbsq:2", **options) as world:
        world.network.faults(loss_ppm=50_000, delay_min_ns=1_000, delay_max_ns=50_000)
        for i in range(600):
            world.call(bytes(i), ms=2000)
            if i % 5 == 4:
                world.run(10)
        world.run(3000)
        assert len(world.client.ended) == 600
        answered = sum(status == 0 for status, _ in world.client.ended.values())
        assert answered > 450
        assert (world.router.pending_count, world.router.queued_count) == (0, 0)
        assert world.outstanding() == [0, 0, 0]
        world.network.faults()
        tag = world.call(b"after")
        world.run(10)
        assert world.client.ended[tag] == (0, b"after")


def test_an_answer_may_take_longer_than_the_timeout_while_it_comes() -> None:
    with RouterWorld(1, timeout_ns=100 * MS) as world:
        (tag,) = world.calls(1)
        rid = world.raw(0).held[0].rid
        parts = [bytes([i]) * 1464 for i in range(3)]
        for i, part in enumerate(parts):
            world.run(80)
            one = packet(RESPONSE, 1, rid, part, first=i == 0, last=i == 2, order=3 if i == 0 else i)
            world.network.inject(server_address(0), ROUTER, one)
        world.run()
        assert world.client.ended[tag] == (0, b"".join(parts))
        check_books(world)


def test_an_answer_that_contradicts_itself_is_not_passed_on() -> None:
    with RouterWorld(1) as world:
        world.calls(1)
        rid = world.raw(0).held[0].rid
        wrong = [
            packet(RESPONSE, 1, rid, b"a", last=False, order=3),
            packet(RESPONSE, 1, rid, b"b", last=False, order=4),
            packet(RESPONSE, 1, rid, b"c", first=False, last=False, order=3),
            packet(RESPONSE, 1, rid, b"d", first=False, last=True, order=1),
        ]
        for one in wrong:
            world.network.inject(server_address(0), ROUTER, one)
        world.run()
        assert (world.count("rx_bad_order"), world.count("packets_passed")) == (3, 1)
        assert world.outstanding() == [1]
