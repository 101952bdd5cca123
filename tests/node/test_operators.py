"""Members come and go because an operator says so, on the in-memory network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from r2p2.app import StateMachine
from r2p2.apps.kv import encode_command
from r2p2.engine import DONE_OK
from r2p2.errors import UserError
from r2p2.limits import MEMBER_REPEAT_NS, TARGETS_MAX
from r2p2.node import Node, NodeConfig
from r2p2.node.forming import RemovedError
from r2p2.node.own_requests import MEMBER_REQUEST
from r2p2.requests import Requests
from raft import Formed, member_id
from tests.node.members import OK, fill, in_sync, member, slots, votes
from tests.node.support import MS, World, group_of, replica_of


def test_a_fourth_member_is_added_and_counts() -> None:
    with World(seed=12) as world:
        leader = world.elect()
        fill(world, leader, 300)
        world.launch(3, join=True)
        world.run(500)
        assert slots(world, leader) == [0, 1, 2], "nobody comes in unasked"
        answer = member(world, (leader + 1) % 3, "add", 3, "10.0.0.4:8000")
        assert answer["error"] == "not_leader"
        assert answer["leader"] == f"10.0.0.{leader + 1}:8000"
        answer = member(world, leader, "add", 3, "10.0.0.4:8000")
        assert answer["ok"] and answer["text"] == "slot 3 at 10.0.0.4:8000 is a member"
        world.run_until(lambda: votes(world, 3) and in_sync(world), 2000)
        assert slots(world, leader) == [0, 1, 2, 3]
        world.kill((leader + 1) % 4 if leader != 3 else 0)
        fill(world, world.elect(), 10, start=500)
        assert member(world, world.elect(), "add", 3, "10.0.0.4:8000")["ok"], "asked again it is done already"


def test_one_that_does_not_knock_is_waited_for_and_let_in_when_it_does() -> None:
    with World(seed=13) as world:
        leader = world.elect()
        tag = world.call(MEMBER_REQUEST + b'{"op":"add","slot":3,"address":"10.0.0.4:8000"}', leader, policy=1, ms=9000)
        world.run(1000)
        told = member(world, leader, "list")
        assert "nobody at 10.0.0.4:8000 asks to be let in as slot 3" in told["waiting"][0]["note"]
        world.launch(3, join=True)
        world.run_until(lambda: tag in world.client.ended, 5000)
        assert json.loads(world.client.ended[tag][1])["ok"]
        world.run_until(lambda: in_sync(world), 1000)


def test_one_that_asks_a_follower_alone_is_let_in() -> None:
    with World(seed=24) as world:
        leader = world.elect()
        world.launch(3, join=True, asks=((leader + 1) % 3,))
        world.run(500)
        assert slots(world, leader) == [0, 1, 2], "nobody comes in unasked"
        assert member(world, leader, "add", 3, "10.0.0.4:8000")["ok"]
        world.run_until(lambda: votes(world, 3) and in_sync(world), 2000)


def test_one_that_asks_a_follower_alone_is_let_in_by_whoever_leads_next() -> None:
    with World(size=5, seed=25) as world:
        leader = world.elect()
        follower, heir = (leader + 1) % 5, (leader + 2) % 5
        add = MEMBER_REQUEST + b'{"op":"add","slot":5,"address":"10.0.0.6:8000"}'
        world.call(add, leader, policy=1)
        world.launch(5, join=True, asks=(follower,))
        world.run_until(lambda: len(group_of(world.nodes[5])._hellos.elsewhere) == 1)  # where the leader is
        member(world, leader, "transfer", heir)
        world.run_until(lambda: world.leader == heir)
        assert member(world, heir, "add", 5, "10.0.0.6:8000")["ok"]
        world.run_until(lambda: votes(world, 5) and in_sync(world), 2000)


def test_a_killed_member_comes_back_that_knows_a_follower_alone() -> None:
    with World(seed=26) as world:
        leader = world.elect()
        victim, follower = (leader + 1) % 3, (leader + 2) % 3
        world.kill(victim)
        world.launch(victim, join=True, asks=(follower,))
        world.run_until(lambda: votes(world, victim) and in_sync(world), 3000)


def test_one_that_forms_or_joins_another_cluster_is_not_drawn_into_this_one() -> None:
    """It runs where this cluster looks for a member, with the same cluster id, and has not asked here."""
    with World(seed=27) as world:
        leader = world.elect()
        asked: list[tuple[int, int]] = [(0x0A000050, 8000), (0x0A000051, 8000)]
        configs = [
            NodeConfig(node_id=1, members=dict(enumerate(asked)), incarnation=77),
            NodeConfig(node_id=3, join=(asked[0],), incarnation=78),
        ]
        for config, address in zip(configs, (asked[1], (0x0A000052, 8000)), strict=True):
            stranger = Node(config, world.network.open(*address), world.make_app())
            op, slot, last = ("replace", 1, 81) if config.node_id == 1 else ("add", 3, 82)
            payload = json.dumps({"op": op, "slot": slot, "address": f"10.0.0.{last}:8000"}).encode()
            world.call(MEMBER_REQUEST + payload, leader, policy=1)
            world.network.run([*world.nodes.values(), world.client, stranger], 1000 * MS)
            assert not stranger.status().get("joining")
            assert stranger.counters["raft_drop_forming"] > 0
            stranger.close()
        assert slots(world, leader) == [0, 1, 2]


def test_those_who_told_unasked_are_bounded() -> None:
    with World(seed=28) as world:
        leader = world.elect()
        follower = (leader + 1) % 3
        world.launch(3, join=True, asks=(follower,))
        world.run_until(lambda: bool(world.nodes[3].status().get("joining")))
        hellos = group_of(world.nodes[3])._hellos
        assert hellos.forming.joining is not None
        told = Formed(member_id(0, 1), 3, 0, hellos.forming.joining)
        for i in range(100):
            hellos.receive(told, 1, (i, 1), world.network.now_ns)
        assert len(hellos.elsewhere) == TARGETS_MAX
        assert (99, 1) in hellos.elsewhere, "who told last is asked"


def test_what_nobody_asks_for_any_more_is_given_up() -> None:
    with World(seed=34) as world:
        leader = world.elect()
        add = MEMBER_REQUEST + b'{"op":"add","slot":3,"address":"10.0.0.4:8000"}'
        for _ in range(3):  # as long as it is repeated, it waits
            world.call(add, leader, policy=1)
            world.run(MEMBER_REPEAT_NS / MS - 100)
            assert [o["slot"] for o in member(world, leader, "list")["waiting"]] == [3]
        world.run(300)
        assert member(world, leader, "list")["waiting"] == []
        world.launch(3, join=True)
        world.run(1000)
        assert slots(world, leader) == [0, 1, 2], "who comes now is not let in"


def test_what_has_begun_goes_on_when_nobody_asks_for_it_any_more() -> None:
    with World(seed=35) as world:
        leader = world.elect()
        fill(world, leader, 300, size=2000)
        world.launch(3, join=True)
        world.call(MEMBER_REQUEST + b'{"op":"add","slot":3,"address":"10.0.0.4:8000"}', leader, policy=1)
        world.run_until(lambda: any(m["learner"] for m in member(world, leader, "list")["members"]), 3000)
        world.cut_off(world.addresses[3][0])
        world.run(MEMBER_REPEAT_NS / MS + 1000)
        world.cut_off(world.addresses[3][0], blocked=False)
        world.run_until(lambda: votes(world, 3) and in_sync(world), 3000)


ADD = MEMBER_REQUEST + b'{"op":"add","slot":3,"address":"10.0.0.4:8000"}'


@pytest.mark.parametrize("catches_up", [False, True], ids=["nobody is there", "it is catching up"])
def test_a_remove_ends_an_add_that_waits(catches_up: bool) -> None:
    """At once, and not only when nobody asks for it any more: until then whoever comes would be let in after all."""
    with World(seed=36) as world:
        leader = world.elect()
        if catches_up:
            fill(world, leader, 300, size=2000)
            world.launch(3, join=True)
        tag = world.call(ADD, leader, policy=1, ms=9000)
        world.run_until(lambda: bool(member(world, leader, "list")["waiting"][0]["note"]), 3000)
        learners = [m["slot"] for m in member(world, leader, "list")["members"] if m["learner"]]
        assert learners == [3] * catches_up
        if catches_up:
            world.cut_off(world.addresses[3][0])
        assert member(world, leader, "remove", 3)["ok"]
        world.run_until(lambda: tag in world.client.ended, 50)
        answer = json.loads(world.client.ended[tag][1])
        assert (answer["error"], answer["text"]) == ("refused", "remove 3 was asked for later and takes its place")
        assert member(world, leader, "list")["waiting"] == []
        if catches_up:
            world.cut_off(world.addresses[3][0], blocked=False)
            with pytest.raises(RemovedError):
                world.run(1000)
            world.kill(3)
        world.launch(3, join=True)
        world.call(ADD, leader, policy=1)  # the command has not heard that it is over
        world.run(1000)
        assert [m["slot"] for m in member(world, leader, "list")["members"]] == [0, 1, 2], "who comes is not let in"
        world.run(MEMBER_REPEAT_NS / MS)
        assert member(world, leader, "add", 3, "10.0.0.4:8000")["ok"], "until somebody asks for it anew"


@pytest.mark.parametrize(
    ("first", "later"),
    [
        ({"op": "add", "slot": 3, "address": "10.0.0.9:8000"}, {"op": "add", "slot": 3, "address": "10.0.0.4:8000"}),
        ({"op": "replace", "slot": 1, "address": "10.0.0.9:8000"}, {"op": "remove", "slot": 1}),
        (
            {"op": "replace", "slot": 1, "address": "10.0.0.9:8000"},
            {"op": "replace", "slot": 1, "address": "10.0.0.8:8000"},
        ),
    ],
    ids=["add add", "replace remove", "replace replace"],
)
def test_the_later_of_two_that_contradict_each_other_counts(first: dict[str, Any], later: dict[str, Any]) -> None:
    """One would make a learner and the other take it out, again and again."""
    with World(seed=37) as world:
        upkeep = replica_of(world.nodes[world.elect()]).upkeep
        membership, core = upkeep.membership, upkeep._core
        for number, asked in enumerate((first, {"op": "transfer", "slot": asked_slot(first)}, later, later)):
            payload = MEMBER_REQUEST + json.dumps(asked).encode()
            assert membership.request(payload, b"%12d" % number, core, world.network.now_ns) is None
        assert [(o.kind, o.address is not None) for o in membership._operations] == [
            ("transfer", False),
            (later["op"], later["op"] != "remove"),
        ]
        ((asker, answer),) = membership.take_answers()
        assert (asker, json.loads(answer)["error"]) == (b"%12d" % 0, "refused")


def asked_slot(asked: dict[str, Any]) -> int:
    """Of whom a request is."""
    return int(asked["slot"])


@pytest.mark.parametrize("leads", [False, True], ids=["a follower", "the leader"])
def test_a_removed_member_says_so_and_stops(leads: bool) -> None:
    with World(seed=14) as world:
        leader = world.elect()
        fill(world, leader, 100)
        victim = leader if leads else (leader + 1) % 3
        tag = world.call(MEMBER_REQUEST + json.dumps({"op": "remove", "slot": victim}).encode(), leader, policy=1)
        with pytest.raises(RemovedError, match=f"member {victim} .*was removed from the cluster"):
            world.run(3000)
        world.kill(victim)
        world.run_until(lambda: tag in world.client.ended, 2000)
        assert json.loads(world.client.ended[tag][1])["text"] == f"slot {victim} is not a member any more"
        new = world.elect()
        assert sorted(slots(world, new)) == sorted(world.nodes)
        fill(world, new, 20, start=200)
        world.run_until(lambda: in_sync(world), 1000)
        assert member(world, new, "remove", victim)["ok"]


def test_a_member_removed_while_it_was_away_learns_it_when_it_is_back() -> None:
    with World(seed=15) as world:
        leader = world.elect()
        victim = (leader + 1) % 3
        ip = world.addresses[victim][0]
        world.cut_off(ip)
        world.run(300)
        assert member(world, leader, "remove", victim)["ok"]
        world.run(2000)  # nobody tells it any more
        term = world.nodes[leader].status()["term"]
        world.cut_off(ip, blocked=False)
        with pytest.raises(RemovedError):
            world.run(3000)
        world.kill(victim)
        assert world.leader == leader
        assert world.nodes[leader].status()["term"] == term, "and it disturbs nobody meanwhile"


@pytest.mark.parametrize("away", ["cut off", "down", "the others were, too"])
def test_a_member_that_has_its_removal_and_not_its_commit_learns_it_when_it_is_back(tmp_path: Path, away: str) -> None:
    """It is no member of the configuration in its log: it stood for election for ever, and believed nobody."""
    with World(4, seed=38, storage=None if away == "cut off" else tmp_path) as world:
        leader = world.elect()
        victim = (leader + 1) % 4
        raft = replica_of(world.nodes[victim]).raft
        world.call(MEMBER_REQUEST + json.dumps({"op": "remove", "slot": victim}).encode(), leader, policy=1)
        while raft.is_voter or raft.configuration.joint:
            world.run(0.01)
        assert not raft.removed
        if away == "cut off":
            world.cut_off(world.addresses[victim][0])
        else:
            world.kill(victim)
        fill(world, leader, 10)
        world.run(1000)
        assert slots(world, leader) == [i for i in range(4) if i != victim]
        for other in [i for i in world.nodes if i != victim and away == "the others were, too"]:
            world.kill(other)
            world.launch(other)
            world.run(500)
        if away == "cut off":
            world.cut_off(world.addresses[victim][0], blocked=False)
        else:
            world.launch(victim)
        with pytest.raises(RemovedError, match=f"member {victim} "):
            world.run(1000)


def test_a_member_moves_to_another_address() -> None:
    with World(seed=16) as world:
        leader = world.elect()
        fill(world, leader, 100)
        victim = (leader + 1) % 3
        old = world.nodes.pop(victim)
        world.ports.pop(victim)
        world.launch(victim, join=True, ip=0x0A000050)
        tag = world.call(
            MEMBER_REQUEST + json.dumps({"op": "replace", "slot": victim, "address": "10.0.0.80:8000"}).encode(),
            leader,
            policy=1,
            ms=5000,
        )
        with pytest.raises(RemovedError):
            world.network.run([*world.nodes.values(), world.client, old], 5000 * MS)
        old.close()
        world.run_until(lambda: tag in world.client.ended, 2000)
        assert json.loads(world.client.ended[tag][1])["ok"]
        world.run_until(lambda: votes(world, victim) and in_sync(world), 2000)
        where = {m["slot"]: m["address"] for m in world.nodes[leader].status()["configuration"]["members"]}
        assert where[victim] == "10.0.0.80:8000"
        assert world.ask(encode_command("SET", "x", "y"), victim) == (DONE_OK, OK), "it forwards from there"


def test_leadership_is_handed_over() -> None:
    with World(seed=17) as world:
        leader = world.elect()
        target = (leader + 1) % 3
        answer = member(world, leader, "transfer", target)
        assert answer["ok"] or answer["error"] == "not_leader", answer
        world.run_until(lambda: world.leader == target, 1000)
        answer = member(world, target, "transfer", target)
        assert answer == answer | {"ok": True, "text": f"slot {target} leads", "waiting": []}


def test_leadership_is_not_handed_to_one_that_is_down() -> None:
    with World(seed=18) as world:
        leader = world.elect()
        target = (leader + 1) % 3
        world.kill(target)
        answer = member(world, leader, "transfer", target)
        assert (answer["ok"], answer["error"]) == (False, "refused")
        assert "has not taken over" in answer["text"]
        assert world.leader == leader


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"op": "add", "slot": 1, "address": "10.0.0.9:8000"}, "slot 1 is a member at"),
        ({"op": "add", "slot": 3, "address": "10.0.0.1:8000"}, "is the address of slot 0"),
        ({"op": "replace", "slot": 3, "address": "10.0.0.9:8000"}, "slot 3 is not a member"),
        ({"op": "transfer", "slot": 9}, "slot 9 is not a voter"),
        ({"op": "add", "slot": 3}, "needs the address"),
        ({"op": "add", "slot": 70000, "address": "10.0.0.9:8000"}, "slot 70000 is not a number in 0..65534"),
        ({"op": "add", "slot": True, "address": "10.0.0.9:8000"}, "slot True is not a number"),
        ({"op": "add", "slot": 3, "address": 5}, "address is not a text"),
        ({"op": "add", "slot": 3, "address": "here"}, "has no port"),
        ({"op": "fly"}, "without op"),
        ([], "without op"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(asked: object, reason: str) -> None:
    with World(seed=19) as world:
        leader = world.elect()
        status, reply = world.ask(MEMBER_REQUEST + json.dumps(asked).encode(), leader, policy=1)
        answer = json.loads(reply)
        assert status == DONE_OK and not answer["ok"]
        assert reason in answer["text"]
        assert slots(world, leader) == [0, 1, 2]


def test_a_change_that_would_leave_no_majority_alive_is_refused() -> None:
    with World(seed=20) as world:
        leader = world.elect()
        dead, other = ((leader + i) % 3 for i in (1, 2))
        world.kill(dead)
        world.run(300)
        answer = member(world, leader, "remove", other)
        assert not answer["ok"]
        assert f"too many are down: slots [{dead}]" in answer["text"]
        assert member(world, leader, "remove", dead)["ok"]
        assert slots(world, leader) == sorted((leader, other))


def test_the_last_member_cannot_be_removed() -> None:
    with World(size=1) as world:
        world.elect()
        assert "voters: none" in member(world, 0, "remove", 0)["text"]


def test_a_list_comes_from_any_member_and_garbage_is_answered() -> None:
    with World(seed=21) as world:
        leader = world.elect()
        for i in range(3):
            answer = member(world, i, "list")
            assert [m["slot"] for m in answer["members"]] == [0, 1, 2]
            assert [m["slot"] for m in answer["members"] if m["leader"]] == [leader]
        for garbage in (b"", b"{", b"\xff", b"[" * 900, b"x" * 2000):
            status, reply = world.ask(MEMBER_REQUEST + garbage, leader, policy=1)
            assert status == DONE_OK and json.loads(reply)["error"] == "bad_request"


def test_requests_in_one_batch_with_an_operators() -> None:
    with World(seed=22) as world:
        leader = world.elect()
        a = world.call(encode_command("PING"), leader, policy=1)
        b = world.call(MEMBER_REQUEST + b'{"op":"list"}', leader, policy=1)
        c = world.call(encode_command("PING", "x"), leader, policy=1)
        world.run(50)
        assert world.client.ended[a][1] == b"+PONG\r\n"
        assert json.loads(world.client.ended[b][1])["ok"]
        assert world.client.ended[c][1] == b"$1\r\nx\r\n"


def test_a_member_request_before_the_cluster_has_formed() -> None:
    with World(seed=23) as world:
        world.kill(2)
        assert member(world, 0, "list")["error"] == "not_formed"


def test_a_new_member_needs_an_application_with_snapshots() -> None:
    class Without(StateMachine):
        def apply(self, requests: Requests) -> list[bytes]:
            return [b""] * len(requests)

    with World() as world, pytest.raises(UserError, match="Without has no snapshots"):
        Node(NodeConfig(node_id=3, join=(world.addresses[0],)), world.ports[0], Without())
