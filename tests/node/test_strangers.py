"""Strangers who speak as members, from ever new addresses: none of it costs a member's message its place."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from r2p2 import limits
from raft import Append, Identity, InstallSnapshot, encode, slot_of
from tests.engine.support import packet
from tests.engine.test_logs_agree import wire
from tests.node.test_steady import DELAY_NS, Lone

OURS, OTHER = 1, 2  # cluster ids
FULL = bytes(limits.PAYLOAD_BYTES_MAX)
MANY = 2 * limits.RAFT_MESSAGES_MAX  # of a poll's messages, and more than there are halves in these tests


def head(cluster_id: int, version: int = 1) -> bytes:
    """What every Raft message begins with, from the specification: of a launch that nobody knows."""
    return struct.pack(">BBHIQQ", version, 1, 9, cluster_id, 77, 1)


def first_of(start: bytes, packets: int = 3) -> bytes:
    return packet(5, 1, 1, start + FULL[len(start) :], last=False, order=packets)


def later(index: int) -> bytes:
    return packet(5, 1, 1, FULL, first=False, last=False, order=index)


@pytest.fixture(params=[False, True], ids=["python", "steady"])
def lone(request: pytest.FixtureRequest) -> Iterator[Lone]:
    """A follower whose leader is played by the test."""
    made = Lone(2, leads=False, steady=request.param, reassembly_bytes_max=4 << 20)
    yield made
    made.close()


def from_strangers(lone: Lone, *datagrams: bytes, times: int = MANY) -> None:
    for number in range(times):
        for datagram in datagrams:
            lone.put((0x0A010000 + number, 7777), datagram)


def is_followed(lone: Lone, body: bytes) -> bool:
    """Whether the leader's next Append is taken, in the poll that takes in everything sent before, and answered."""
    raft, entry = lone.raft, wire(body)
    last = raft.last_index
    lone.look()
    lone.say(Append(lone.leader, 0, 5, last, 5, 5, raft.commit_index, 0, 1_000 + last, 1, len(entry)), 9, entry)
    lone.poll(DELAY_NS)
    leader = lone.world.addresses[slot_of(lone.leader)]
    answers = [sent for sent in lone.look()[0] if sent[:2] == leader and sent[2][2] >> 4 == 6]
    return raft.last_index == last + 1 and len(answers) == 1


@pytest.mark.parametrize("body", [b"short", b"long" * 1000], ids=["short", "long"])
@pytest.mark.parametrize(
    ("start", "counter"),
    [
        (head(OTHER), "raft_bad_cluster"),
        (head(OURS, 2), "raft_bad_version"),
        (head(OURS)[:-1], "rx_bad_raft"),
        (b"x", "rx_bad_raft"),
    ],
    ids=["cluster", "version", "head cut", "nothing"],
)
def test_messages_of_others_take_no_place(lone: Lone, start: bytes, counter: str, body: bytes) -> None:
    from_strangers(lone, packet(5, 1, 1, start))
    assert is_followed(lone, body)
    counters = lone.node.status()["counters"]
    assert counters[counter] == MANY
    assert "rx_drop_raft_full" not in counters


def test_first_packets_of_others_take_no_half(lone: Lone) -> None:
    from_strangers(lone, first_of(head(OTHER)))
    lone.poll(DELAY_NS)
    assert lone.node.status()["counters"]["raft_bad_cluster"] == MANY
    lone.poll(2 * limits.REASSEMBLY_TIMEOUT_NS)
    assert "rx_expired_halves" not in lone.node.status()["counters"]


@pytest.mark.parametrize("body", [b"short", b"long" * 1000, b"longest" * 10_000], ids=["short", "long", "longest"])
@pytest.mark.parametrize(
    "parts",
    [
        [first_of(head(OTHER)), later(1)],
        [later(1)],
        [later(1), later(2)],
        [first_of(head(OURS))],
        [first_of(head(OURS)), later(1)],
        [first_of(head(OURS), 20), *map(later, range(1, 12))],  # more bytes than there may be, in fewer halves
    ],
    ids=["others", "one without a first", "two without a first", "one of ours", "two of ours", "many of ours"],
)
def test_parts_of_messages_of_strangers_give_way(lone: Lone, parts: list[bytes], body: bytes) -> None:
    """Also of those who know the cluster's id, which is no secret: they are not where a member is."""
    for _ in range(2):
        from_strangers(lone, *parts, times=300)
        lone.poll(DELAY_NS)
    assert is_followed(lone, body)


@pytest.mark.parametrize("bytes_count", [24, 1464])
def test_half_of_what_a_poll_keeps_is_for_members(lone: Lone, bytes_count: int) -> None:
    data = head(OURS) + bytes(bytes_count - 24)
    from_strangers(lone, packet(5, 1, 1, data))
    assert is_followed(lone, b"short")
    taken = min(limits.RAFT_MESSAGES_MAX // 2, (256 << 10) // bytes_count)
    assert lone.node.status()["counters"]["rx_drop_raft_full"] == MANY - taken


def test_whoever_is_no_member_is_served_while_there_is_room(lone: Lone) -> None:
    before = lone.node.engine.counters()["rx_raft_messages"]
    last = packet(5, 1, 1, FULL, first=False, last=True, order=2)
    from_strangers(lone, packet(5, 1, 2, head(OURS)), first_of(head(OURS)), last, later(1), times=60)
    lone.poll(DELAY_NS)
    counters = lone.node.engine.counters()
    assert counters["rx_raft_messages"] - before == 2 * 60 < limits.RAFT_MESSAGES_MAX // 2
    assert counters["rx_evicted_halves"] == counters["rx_drop_raft_full"] == 0


def test_a_version_behind_the_head_is_no_version_of_a_message(lone: Lone) -> None:
    """A snapshot's configuration has a version of its own, which is for Python to refuse."""
    snapshot = InstallSnapshot(
        lone.leader, 0, 5, 9, 5, offset=0, total_bytes=100, bytes_count=8, configuration=lone.raft.configuration
    )
    slot = slot_of(lone.leader)
    data = bytearray(encode(snapshot, Identity(OURS, slot, lone.other_incarnations[slot])) + bytes(8))
    data[InstallSnapshot.HEADER_BYTES] ^= 3
    lone.put(lone.world.addresses[slot], packet(5, 1, 3, bytes(data)))
    lone.poll(DELAY_NS)
    counters = lone.node.status()["counters"]
    assert counters["raft_bad_field"] == 1 and "raft_bad_version" not in counters


def test_long_messages_of_strangers_that_are_whole_leave_nothing_to_give_way(lone: Lone) -> None:
    """More of them than there are halves: what is remembered of one is no half."""
    for turn in range(8):
        for number in range(100):
            source = (0x0A010000 + turn * 100 + number, 7777)
            lone.put(source, packet(5, 1, 1, head(OURS) + FULL[24:], last=False, order=2))
            lone.put(source, packet(5, 1, 1, FULL, first=False, order=1))
        lone.poll(DELAY_NS)
    assert is_followed(lone, b"long" * 1000)
