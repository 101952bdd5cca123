"""What one datagram with a forged source draws to whom it names, in UDP payload: docs/hostile.md has the table.

A request is answered to where it says it comes from, and a long answer needs no consent of whom it goes to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from r2p2.apps.kv import encode_command
from r2p2.node import STATUS_REQUEST
from raft import Hello, Identity, encode
from tests.engine.support import packet
from tests.engine.test_sessions import session_packets
from tests.node.support import MS, World

VICTIM, CLIENT = (0x0A000077, 7000), (0x0A000078, 7001)
VALUE = "v" * 300_000
PAGE = (Path(__file__).parents[2] / "docs" / "hostile.md").read_text()


class Reflector:
    """Three members with a long value; datagrams to their leader, and what goes out for each."""

    def __init__(self) -> None:
        self.world = World()
        self.leader = self.world.elect()
        self.engine = self.world.nodes[self.leader].engine
        assert self.world.ask(encode_command("SET", "k", VALUE), self.leader)[1] == b"+OK\r\n"

    def answers(self, source: tuple[int, int], *datagrams: bytes) -> list[tuple[int, bytes]]:
        """Length and first bytes of each."""
        self.engine.capture_start(10**9, 64)
        self.engine.capture_take()
        for datagram in datagrams:
            self.world.network.inject(source, self.world.addresses[self.leader], datagram)
        self.world.network.run([*self.world.nodes.values(), self.world.client], 20 * MS)
        taken = self.engine.capture_take()[0]
        return [(one.length, one.payload) for one in taken if one.target_ip == source[0]]

    def drawn(self, datagram: bytes) -> int:
        return sum(length for length, _ in self.answers(VICTIM, datagram))


@pytest.fixture(scope="module")
def reflector() -> Iterator[Reflector]:
    made = Reflector()
    yield made
    made.world.__exit__(None, None, None)


def told(row: str) -> tuple[int, int]:
    """Bytes in and out of a row of the page."""
    found = re.search(rf"^\| {re.escape(row)} \| ([\d,]+) \| ([\d,]+) \|", PAGE, re.MULTILINE)
    assert found, row
    return int(found[1].replace(",", "")), int(found[2].replace(",", ""))


def test_what_says_nothing_of_its_own_draws_about_as_much_as_it_is(reflector: Reflector) -> None:
    announced = packet(0, 1, 1, b"fourteen bytes", last=False, order=254)
    hello = packet(7, 1, 3, encode(Hello(9, 0, 0, 0, True, 0), Identity(1, 9, 77)))
    for row, datagram in {
        "the first packet of a long request": announced,
        "the opening of a session": session_packets(4, 0, 0, 0, b""),
        "HELLO with the cluster's id, three members": hello,
    }.items():
        assert (len(datagram), reflector.drawn(datagram)) == told(row), row
    assert reflector.drawn(packet(3, 1, 1, b"ACK")) == reflector.drawn(packet(4, 1, 1, b"DROP")) == 0
    assert reflector.drawn(packet(1, 1, 1, b"an answer")) == reflector.drawn(b"\xcc") == 0


def test_a_question_draws_whatever_its_answer_is(reflector: Reflector) -> None:
    for policy, row in ((1, "GET of 300,000 bytes, policy 1"), (3, "GET of 300,000 bytes, policy 3")):
        datagram = packet(0, policy, 5, encode_command("GET", "k"))
        assert (len(datagram), reflector.drawn(datagram)) == told(row)
    status = packet(0, 1, 6, STATUS_REQUEST)
    assert 20 * len(status) < reflector.drawn(status) < 10_000


def test_a_kept_reply_goes_to_whoever_asks_again(reflector: Reflector) -> None:
    ((_, opened),) = reflector.answers(CLIENT, session_packets(1, 0, 0, 0, b""))
    session = int.from_bytes(opened[32:40], "big")
    assert (
        sum(n for n, _ in reflector.answers(CLIENT, session_packets(2, session, 1, 1, encode_command("GET", "k"))))
        > 300_000
    )
    again = session_packets(9, session, 1, 1, b"")
    before = reflector.engine.counters()["sessions_answered_early"]
    assert (len(again), reflector.drawn(again)) == told("a session's request again, by its id and number")
    announced = session_packets(10, session, 1, 1, b"")
    announced = announced[:3] + b"\x80" + announced[4:6] + (254).to_bytes(2, "big") + announced[8:]
    assert reflector.drawn(announced) == told("a session's request again, by its id and number")[1]
    assert reflector.engine.counters()["sessions_answered_early"] == before + 2
