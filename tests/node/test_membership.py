"""Members come, go and come back, on the in-memory network: real engines, real Raft, virtual time."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from r2p2.app import StateMachine
from r2p2.apps.kv import encode_command
from r2p2.engine import DONE_DROPPED, DONE_OK
from r2p2.errors import UserError
from r2p2.limits import MEMBER_REPEAT_NS, TARGETS_MAX
from r2p2.node import Node, NodeConfig
from r2p2.node.configurations import lost_members, majority_is_lost
from r2p2.node.forming import RemovedError
from r2p2.node.member_requests import ASKERS_MAX, MEMBER_REQUEST, OPERATIONS_MAX, OVERRULED_MAX
from r2p2.node.membership import Membership
from r2p2.node.outsiders import CANDIDATES_MAX, GONE_MAX
from r2p2.requests import Requests
from raft import Configuration, Formed, Identity, encode, member_id, slot_of
from tests.engine.support import packet
from tests.node.support import MS, World, group_of, replica_of

OK = b"+OK\r\n"


def fill(world: World, leader: int, count: int, size: int = 100, start: int = 0) -> None:
    """Writes, all acknowledged; the network moves on meanwhile."""
    tags = []
    for i in range(start, start + count):
        tags.append(world.call(encode_command("SET", f"k{i}", "v" * size), leader, ms=5000))
        if i % 50 == 49:
            world.run_until(lambda: all(tag in world.client.ended for tag in tags), 5000)
    world.run_until(lambda: all(tag in world.client.ended for tag in tags), 5000)
    assert {world.client.ended[tag] for tag in tags} == {(DONE_OK, OK)}


def in_sync(world: World) -> bool:
    return len(world.digests()) == 1 and all(node.status()["role"] for node in world.nodes.values())


def votes(world: World, i: int) -> bool:
    """Whether member i is a voter, as it knows itself, for good."""
    status = world.nodes[i].status()
    return bool(
        status.get("formed")
        and status["configuration"]["committed"]
        and any(m["slot"] == i and m["voter"] and not m["outgoing"] for m in status["configuration"]["members"])
    )


def slots(world: World, i: int) -> list[int]:
    members = world.nodes[i].status()["configuration"]["members"]
    return [m["slot"] for m in members if m["voter"]]


def member(world: World, to: int, op: str, slot: int = 0, address: str = "", ms: int = 5000) -> dict[str, Any]:
    asked = {"op": op, "slot": slot} | ({"address": address} if address else {})
    status, reply = world.ask(MEMBER_REQUEST + json.dumps(asked).encode(), to, policy=1, ms=ms)
    assert status == DONE_OK
    answer: dict[str, Any] = json.loads(reply)
    return answer


# ---- a member comes back without its memory ----


@pytest.mark.parametrize("leads", [False, True], ids=["a follower", "the leader"])
def test_a_killed_member_comes_back_as_another_and_is_in_sync(leads: bool) -> None:
    with World(seed=7) as world:
        leader = world.elect()
        fill(world, leader, 300)
        victim = leader if leads else (leader + 1) % 3
        world.kill(victim)
        world.launch(victim, incarnation=4711)
        world.run_until(lambda: votes(world, victim), 3000)
        world.run_until(lambda: in_sync(world), 1000)
        # It counts: with one more gone there is still a majority, and it may even lead.
        other = next(i for i in world.nodes if i not in (victim, world.leader))
        world.kill(other)
        fill(world, world.elect(), 20, start=1000)
        status = world.nodes[victim].status(with_state=True)
        assert status["incarnation"] == f"{4711:016x}"
        assert status["state_digest"] == world.nodes[world.elect()].status(with_state=True)["state_digest"]


def test_every_member_one_after_the_other_and_then_all_of_them_again() -> None:
    with World(seed=2) as world:
        fill(world, world.elect(), 50)
        for round_ in range(2):
            for victim in range(3):
                world.kill(victim)
                world.launch(victim)
                world.run_until(partial(votes, world, victim), 3000)
                fill(world, world.elect(), 10, start=1000 + 100 * round_ + 10 * victim)
        world.run_until(lambda: in_sync(world), 1000)
        assert len(world.nodes[0].app.data) == 110  # type: ignore[attr-defined]


def test_it_comes_back_under_load_when_the_log_has_gone_on_without_it() -> None:
    with World(seed=3, log_bytes_max=200_000) as world:
        leader = world.elect()
        victim = (leader + 1) % 3
        world.kill(victim)
        fill(world, leader, 1000, size=500)  # two and a half times the log's bound
        assert world.nodes[leader].status()["counters"]["log_compactions"] >= 2
        world.launch(victim)
        done = world.client.ended
        tags: list[int] = []
        for i in range(4000):
            tags.append(world.call(encode_command("SET", f"load{i}", "v" * 200), leader, ms=2000))
            world.run(0.1)
            if i % 500 == 499 and votes(world, victim):
                break
        world.run_until(lambda: votes(world, victim), 3000)
        world.run_until(lambda: all(tag in done for tag in tags), 3000)
        assert sum(done[tag][0] == DONE_OK for tag in tags) == len(tags)
        world.run_until(lambda: in_sync(world), 1000)
        assert world.nodes[victim].status()["counters"]["snapshots_restored"] >= 1
        assert world.leader == leader, "bringing it back cost no leadership"


def test_with_loss_duplication_and_reordering_it_still_comes_back() -> None:
    with World(seed=4) as world:
        leader = world.elect()
        fill(world, leader, 300, size=2000)  # a snapshot of several chunks
        world.network.faults(
            loss_ppm=10_000, duplicate_ppm=10_000, reorder_ppm=20_000, delay_min_ns=5_000, delay_max_ns=100_000
        )
        victim = (leader + 1) % 3
        world.kill(victim)
        world.launch(victim)
        world.run_until(lambda: votes(world, victim), 20_000)
        world.network.faults()
        world.run_until(lambda: in_sync(world), 1000)


def test_killed_again_while_it_catches_up() -> None:
    with World(seed=5) as world:
        leader = world.elect()
        fill(world, leader, 300, size=2000)
        victim = (leader + 1) % 3
        for launch in range(5):
            world.kill(victim)
            world.launch(victim)
            world.run(100 + 1.3 * launch)
        world.run_until(lambda: votes(world, victim), 3000)
        world.run_until(lambda: in_sync(world), 1000)
        members = world.nodes[leader].status()["configuration"]["members"]
        assert len(members) == 3, members


def test_the_leader_dies_while_another_catches_up() -> None:
    with World(size=5, seed=6) as world:
        leader = world.elect()
        fill(world, leader, 300, size=2000)
        victim = (leader + 1) % 5
        world.kill(victim)
        world.launch(victim)
        world.run_until(
            lambda: any(m["learner"] for m in world.nodes[leader].status()["configuration"]["members"]), 3000
        )
        world.kill(leader)
        world.run_until(lambda: votes(world, victim), 5000)
        assert world.elect() != leader
        world.run_until(lambda: in_sync(world), 1000)


def test_what_a_dead_incarnation_still_says_is_dropped_and_counted() -> None:
    with World(seed=8) as world:
        leader = world.elect()
        victim = (leader + 1) % 3
        # The old process is only cut off; the new one runs elsewhere, so both exist.
        ip = world.addresses[victim][0]
        world.cut_off(ip)
        old = world.nodes.pop(victim)
        world.ports.pop(victim)
        world.launch(victim, join=True, ip=0x0A000050)
        assert member(world, leader, "replace", victim, "10.0.0.80:8000")["ok"]
        world.cut_off(ip, blocked=False)
        with pytest.raises(RemovedError, match=f"member {victim} .*was removed"):
            world.network.run([*world.nodes.values(), old], 3000 * MS)
        dropped = sum(node.counters["raft_drop_gone"] for node in world.nodes.values())
        assert dropped > 0
        old.close()
        fill(world, leader, 10)
        assert world.leader == leader
        world.run_until(lambda: in_sync(world), 1000)


def test_a_process_in_the_place_of_a_living_member_is_not_let_in() -> None:
    with World(seed=9) as world:
        leader = world.elect()
        world.network.open(0x0A000060, 8000)
        config = NodeConfig(node_id=(leader + 1) % 3, members=world.addresses, incarnation=77)
        imposter = Node(config, world.network.open(0x0A000061, 8000), world.make_app())
        world.network.run([*world.nodes.values(), imposter], 1000 * MS)
        status = imposter.status()
        assert status["joining"] and not status["formed"]
        knocking = world.nodes[leader].status()["configuration"]["knocking"]
        assert knocking == [{"slot": (leader + 1) % 3, "address": "10.0.0.97:8000"}]
        assert slots(world, leader) == [0, 1, 2]
        imposter.close()


# ---- a majority loses its memory ----


def test_a_majority_lost_at_once_is_said_and_nothing_restarts_empty() -> None:
    with World(seed=10) as world:
        leader = world.elect()
        fill(world, leader, 20)
        survivor = (leader + 1) % 3
        gone = [i for i in range(3) if i != survivor]
        for i in gone:
            world.kill(i)
        for i in gone:
            world.launch(i)
        world.run(5000)
        status = world.nodes[survivor].status()
        assert status["majority_lost"] == gone
        said = [text for _, i, text in world.events if i == survivor and "A MAJORITY HAS LOST ITS MEMORY" in text]
        assert len(said) == 1
        assert f"slots {gone[0]}, {gone[1]}" in said[0]
        assert world.leader is None
        assert status["applied_index"] >= 20
        assert all(world.nodes[i].status()["applied_index"] == 0 for i in gone)
        # Once the survivor is launched anew, too, nobody remembers anything; that is said as well.
        world.kill(survivor)
        world.launch(survivor)
        world.run_until(lambda: world.leader is not None, 10_000)
        assert any("THE CLUSTER THAT THIS WAS TO JOIN IS GONE" in text for _, i, text in world.events if i in gone)
        assert world.ask(encode_command("GET", "k1"), world.elect(), policy=3) == (DONE_OK, b"$-1\r\n")


def test_a_survivor_that_is_cut_off_is_not_forgotten() -> None:
    """Two of three restart and the third cannot be reached for long: no empty cluster."""
    with World(seed=11) as world:
        leader = world.elect()
        fill(world, leader, 20)
        survivor = (leader + 1) % 3
        ip = world.addresses[survivor][0]
        for i in range(3):
            if i != survivor:
                world.kill(i)
                world.launch(i)
        world.run(200)
        world.cut_off(ip)
        world.run(10_000)
        assert world.leader is None
        assert not any(node.status()["formed"] for i, node in world.nodes.items() if i != survivor)


# ---- operators ----


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


# ---- a member that holds the log ----


def test_a_member_that_is_down_is_evicted_and_taken_in_again() -> None:
    with World(seed=30, log_bytes_max=100_000, truncation="evict") as world:
        leader = world.elect()
        victim = (leader + 1) % 3
        world.kill(victim)
        world.run(300)
        fill(world, leader, 400, size=500)
        status = world.nodes[leader].status()
        assert status["evicted"] == [victim]
        assert status["counters"]["members_evicted"] == 1
        assert sorted(slots(world, leader)) == sorted(world.nodes)
        assert any(f"evicts slot {victim}" in text for _, i, text in world.events if i == leader)
        world.launch(victim)
        world.run(1000)
        assert not votes(world, victim), "who was evicted is not let in unasked"
        assert member(world, leader, "add", victim, f"10.0.0.{victim + 1}:8000")["ok"]
        world.run_until(lambda: votes(world, victim) and in_sync(world), 2000)


def test_a_member_that_only_lags_is_not_evicted() -> None:
    """It answers, and its answers say that it has applied little: it is slow, not down."""
    with World(seed=31, log_bytes_max=100_000, truncation="evict") as world:
        leader = world.elect()
        slow = world.nodes[(leader + 1) % 3]
        raft = replica_of(slow).raft
        slow._applying.apply = lambda raft: None  # type: ignore[method-assign]
        # Nor does it say that there is more to do at once.
        poll_once = slow.poll_once
        slow.poll_once = lambda: poll_once() and 0  # type: ignore[method-assign]
        slow.next_deadline_ns = lambda: raft.deadline_ns  # type: ignore[method-assign]
        tags = [world.call(encode_command("SET", f"k{i}", "v" * 500), leader) for i in range(300)]
        world.run(1000)
        assert all(tag in world.client.ended for tag in tags)
        status = world.nodes[leader].status()
        assert status["evicted"] == []
        assert slots(world, leader) == [0, 1, 2]
        assert status["log_held_by"]["slot"] == (leader + 1) % 3
        assert status["counters"]["drops_log_full"] > 0


def test_requests_are_refused_until_the_member_is_back() -> None:
    with World(seed=32, log_bytes_max=100_000, truncation="block") as world:
        leader = world.elect()
        victim = (leader + 1) % 3
        world.kill(victim)
        statuses = [world.ask(encode_command("SET", f"k{i}", "v" * 1000), leader)[0] for i in range(120)]
        assert statuses[-1] == DONE_DROPPED
        status = world.nodes[leader].status()
        assert status["log_bytes"] <= 102_000
        assert status["log_held_by"] | {"silent_ms": 0, "incarnation": ""} == {
            "slot": victim,
            "incarnation": "",
            "address": f"10.0.0.{victim + 1}:8000",
            "bytes": status["log_bytes"],
            "silent_ms": 0,
        }
        world.launch(victim)
        world.run_until(lambda: votes(world, victim), 3000)
        fill(world, leader, 20, start=1000)
        world.run_until(lambda: in_sync(world), 1000)
        world.run_until(lambda: world.nodes[leader].status()["log_held_by"] is None, 100)


# ---- bounds and judgements ----


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
