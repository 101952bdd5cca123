"""What membership believes, and its bounds."""

from __future__ import annotations

import json

from r2p2.node.configurations import lost_members, majority_is_lost
from r2p2.node.member_requests import ASKERS_MAX, OPERATIONS_MAX, OVERRULED_MAX
from r2p2.node.membership import Membership
from r2p2.node.outsiders import CANDIDATES_MAX, GONE_MAX
from r2p2.node.own_requests import MEMBER_REQUEST
from raft import Configuration, Formed, Identity, encode, member_id, slot_of
from tests.engine.support import packet
from tests.node.support import World, replica_of


def configuration(*voters: int, outgoing: tuple[int, ...] = ()) -> Configuration:
    members = sorted({*voters, *outgoing})
    return Configuration(voters, outgoing, (), tuple((m, 0x0A000001 + slot_of(m), 8000) for m in members))


def knocks(slot: int, incarnation: int, ip: int = 0) -> tuple[int, tuple[int, int]]:
    return member_id(slot, incarnation), (ip or 0x0A000001 + slot, 8000)


def test_whose_memory_is_gone() -> None:
    old = [member_id(slot, 5) for slot in range(3)]
    three = configuration(*old)
    assert lost_members(three, [knocks(1, 9)]) == (old[1],)
    assert lost_members(three, [knocks(1, 5)]) == ()
    assert lost_members(three, [knocks(1, 9, ip=77)]) == (), "a process elsewhere says nothing about this one"
    assert not majority_is_lost(three, old[:1])
    assert majority_is_lost(three, old[:2])
    joint = configuration(*old, outgoing=(old[0],))
    assert majority_is_lost(joint, old[:1]), "of the old voters none is left"


def test_a_formed_is_believed_only_when_it_is_newer_and_leaves_this_member_out() -> None:
    class Core:
        configuration = configuration(member_id(0, 5), member_id(1, 5))
        configuration_index = 10
        has_been_member = True

    membership = Membership(member_id(0, 5), Core.configuration, 1, print)

    def says(index: int, *pairs: tuple[int, int]) -> bool:
        return membership.told(Formed(1, 0, index, pairs), Core())  # type: ignore[arg-type]

    assert says(11, (1, 5))
    assert says(11, (0, 6), (1, 5))
    assert not says(10, (1, 5)), "this member's own configuration is as new"
    assert not says(11, (0, 5), (1, 5))
    assert not says(11, (0, 6), (1, 6)), "it knows none of them: another cluster's, or nobody's"
    Core.configuration = configuration(member_id(1, 5))
    assert says(10, (1, 5)), "its removal is committed"
    assert not says(9, (1, 5)), "this is from before it came"
    assert not says(10, (0, 5), (1, 5)), "another change was committed there"
    Core.has_been_member = False
    assert not says(11, (1, 5)), "it was none before"


def test_a_formed_of_another_cluster_with_the_same_id_ends_nobody() -> None:
    """One datagram from anywhere ended a process, as long as it named the cluster's id."""
    with World(seed=34) as world:
        world.elect()
        told = Formed(2, 0, 1 << 40, ((1, 77), (2, 78)))
        body = encode(told, Identity(1, 2, 78))
        for address in world.addresses.values():
            world.network.inject((0x0A0000C8, 8000), address, packet(7, 1, 1, body))
        world.run(200)
        assert world.leader is not None
        assert len(world.nodes) == 3


def test_tables_are_bounded() -> None:
    with World(seed=33) as world:
        leader = world.elect()
        upkeep = replica_of(world.nodes[leader]).upkeep
        membership, now_ns = upkeep.membership, world.network.now_ns
        for i in range(1000):
            membership.hello(member_id(i, 7), (i, 1), now_ns)
            membership.stranger(member_id(i, 7), (i, 1), now_ns)
        assert len(list(membership._outsiders)) == CANDIDATES_MAX
        assert len(membership._outsiders._told_ns) <= CANDIDATES_MAX
        assert len(membership.take_formed()) == 2000
        for i in range(100):
            payload = MEMBER_REQUEST + json.dumps({"op": "add", "slot": i + 10, "address": "10.9.9.9:1"}).encode()
            answer = upkeep.request(payload, b"%12d" % i, now_ns)
            assert (answer is None) == (i < OPERATIONS_MAX)
        for i in range(20):  # one request, sent again and again from other ports
            payload = MEMBER_REQUEST + json.dumps({"op": "add", "slot": 10, "address": "10.9.9.9:1"}).encode()
            assert upkeep.request(payload, b"x%11d" % i, now_ns) is None
        assert len(next(iter(membership._operations)).askers) == ASKERS_MAX
        for i in range(1000):  # each takes the place of the one before
            payload = MEMBER_REQUEST + json.dumps({"op": "add", "slot": 10, "address": f"10.9.9.8:{i + 1}"}).encode()
            assert upkeep.request(payload, b"y%11d" % i, now_ns) is None
        operations = membership._operations
        assert (len(list(operations)), len(operations._overruled)) == (OPERATIONS_MAX, OVERRULED_MAX)
        for i in range(1000):
            membership.configuration_changed(configuration(member_id(0, i + 1)))
        assert len(membership._outsiders._gone) == GONE_MAX
