"""Strangers' datagrams at a running cluster: nobody ends, nobody answers wrongly, honest clients are served.

A few thousand here; a million each by hand, with figures: ``R2P2_HOSTILE_DATAGRAMS=1000000 pytest
tests/processes/test_hostile_cluster.py -s``. How long honest calls take with and without the flood of first packets
means something on an otherwise idle machine only.
"""

from __future__ import annotations

import os
import random
import socket
import statistics
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from r2p2.address import parse_address
from r2p2.apps.kv import encode_command
from r2p2.client import REPLICATED_READ, BlockingSession
from tests.engine.support import request_packets
from tests.processes.hostile import datagrams
from tests.processes.members import Members, resident_bytes

pytestmark = [pytest.mark.needs("linux")]

COUNT = int(os.environ.get("R2P2_HOSTILE_DATAGRAMS", "9000"))
# Between two honest calls; few enough that a socket's buffer holds them, so that they are all taken in.
GROUP = 96
MIB = 1 << 20


class Honest:
    """A client that knows what the answers must be."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._session: BlockingSession = members.client.session(*members.addresses[:3])
        self.number = 0
        self.took_s: list[float] = []

    def call(self) -> None:
        """A write, and at one of the members a linearizable read of it."""
        self.number += 1
        value = f"{self.number:09d}"
        began = time.perf_counter()
        assert self._session.call(encode_command("SET", "honest", value), timeout_s=10.0) == b"+OK\r\n"
        self.took_s.append(time.perf_counter() - began)
        target = self._members.addresses[self.number % 3]
        read = self._members.client.call(
            target, encode_command("GET", "honest"), policy=REPLICATED_READ, timeout_s=10.0, retry_s=0.1
        )
        assert read == b"$9\r\n%b\r\n" % value.encode()

    def median_and_p99_ms(self, first: int, end: int | None = None) -> tuple[float, float]:
        """Of the writes from the ``first`` on."""
        took = sorted(self.took_s[first:end])
        return statistics.median(took) * 1e3, took[len(took) * 99 // 100] * 1e3


def throw(members: Members, honest: Honest, hostile: Iterator[bytes], count: int) -> float:
    """Sends them to the members in turn from one port after the other; the seconds that took."""
    targets = [parse_address(address) for address in members.addresses[:3]]
    where = [(socket.inet_ntoa(ip.to_bytes(4, "big")), port) for ip, port in targets]
    began, sent = time.monotonic(), 0
    while sent < count:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind((f"127.{1 + sent % 250}.{sent // 250 % 250}.{1 + sent // 62500 % 250}", 0))
            for _ in range(min(8 * GROUP, count - sent)):
                stranger.sendto(next(hostile), where[sent % 3])
                sent += 1
                if sent % GROUP == 0:
                    honest.call()
    return time.monotonic() - began


def taken_in(members: Members) -> int:
    """Datagrams that the members have received."""
    return sum(node["counters"]["rx_packets"] for node in members.statuses().values())


def halves_ended(nodes: dict[int, dict[str, Any]]) -> int:
    """Messages that began and were given up."""
    counters = [node["counters"] for node in nodes.values()]
    return sum(one.get("rx_evicted_halves", 0) + one.get("rx_expired_halves", 0) for one in counters)


def check_and_report(members: Members, before: dict[int, int], what: str) -> None:
    """The same processes run, and use hardly more memory than before."""
    pids = {slot: process.pid for slot, process in members.running.items()}
    for process in members.running.values():
        process.check_running(what)
    members.wait_in_sync(0, 1, 2)
    grown = {slot: resident_bytes(pid) - before[slot] for slot, pid in pids.items()}
    assert max(grown.values()) < 96 * MIB, grown
    print(f"{what}; memory grew by at most {max(grown.values()) / MIB:.1f} MiB")


@pytest.mark.timeout(120 + COUNT / 500)
def test_random_and_mutated_datagrams_end_nobody_and_change_no_answer(tmp_path: Path) -> None:
    rng = random.Random(COUNT)
    with Members(tmp_path, "--cluster-id", str(rng.randrange(2, 2**32))) as members:
        honest = Honest(members)
        honest.call()
        memory = {slot: resident_bytes(process.pid) for slot, process in members.running.items()}
        term = members.statuses()[0]["term"]
        seconds = throw(members, honest, datagrams(rng), COUNT)
        honest.call()
        assert taken_in(members) > 0.97 * COUNT
        counters = [node["counters"] for node in members.statuses().values()]
        for reason in ("rx_bad_magic", "rx_bad_flags", "rx_bad_type", "rx_bad_short", "raft_bad_cluster"):
            assert sum(one.get(reason, 0) for one in counters) > 0, reason
        elections = members.statuses()[0]["term"] - term
        calls = f"{honest.number:,} honest writes and reads"
        check_and_report(members, memory, f"\n{COUNT:,} in {seconds:.1f} s, {calls}, +{elections} terms")


@pytest.mark.timeout(120 + COUNT / 500)
def test_a_flood_of_first_packets_holds_up_nobody(tmp_path: Path) -> None:
    """Each announces a message of 300,000 bytes that never comes, from another address."""

    def halves() -> Iterator[bytes]:
        firsts = [request_packets(0, bytes(300_000), policy)[0] for policy in (1, 2, 3)]
        rid = 0
        while True:
            rid = (rid + 1) % 65536
            first = firsts[rid % 3]
            yield first[:4] + rid.to_bytes(2, "big") + first[6:]

    with Members(tmp_path) as members:
        honest = Honest(members)
        for _ in range(max(50, COUNT // GROUP // 4)):
            honest.call()
        calm = honest.number
        memory = {slot: resident_bytes(process.pid) for slot, process in members.running.items()}
        seconds = throw(members, honest, islice(halves(), COUNT), COUNT)
        assert taken_in(members) > 0.97 * COUNT
        members.wait(lambda nodes: halves_ended(nodes) > 0.97 * COUNT, "end of the halves")
        median, p99 = honest.median_and_p99_ms(0, calm)
        flooded_median, flooded_p99 = honest.median_and_p99_ms(calm)
        check_and_report(
            members,
            memory,
            f"\n{COUNT:,} first packets in {seconds:.1f} s; honest writes: median {median:.2f} -> "
            f"{flooded_median:.2f} ms, p99 {p99:.2f} -> {flooded_p99:.2f} ms",
        )
