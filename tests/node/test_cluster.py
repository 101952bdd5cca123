"""Replicated service over the in-memory network: real engines, real Raft, virtual time."""

from __future__ import annotations

import json
import random
from typing import Final

import pytest

from r2p2 import limits
from r2p2.app import RequestMachine, StateMachine, state_machine
from r2p2.apps.echo import Echo
from r2p2.apps.kv import KeyValue, encode_command
from r2p2.engine import DONE_DROPPED, DONE_OK, DONE_TIMEOUT
from r2p2.errors import UserError
from r2p2.memory import MemoryNetwork
from r2p2.node import STATE_REQUEST, STATUS_REQUEST, Node, NodeConfig
from r2p2.node.forming import SupersededError
from r2p2.requests import Replies, ReplySequence, Requests
from tests.engine.support import Caller, packet
from tests.node.support import MS, World, group_of

OK = b"+OK\r\n"


def set_command(key: str, value: str) -> bytes:
    return encode_command("SET", key, value)


def test_every_member_answers_with_the_leaders_word() -> None:
    with World() as world:
        world.elect()
        for i in world.nodes:
            assert world.ask(set_command(f"k{i}", "v"), i) == (DONE_OK, OK)
        for i in world.nodes:
            for j in world.nodes:
                assert world.ask(encode_command("GET", f"k{j}"), i, policy=3) == (DONE_OK, b"$1\r\nv\r\n")
        world.run(100)
        assert len(world.digests()) == 1


@pytest.mark.parametrize("size", [0, 1, 1400, 1465, 60_000, 370_000])
def test_requests_of_any_size_through_leader_and_follower(size: int) -> None:
    with World(make_app=lambda: state_machine(lambda request: request[::-1])) as world:
        leader = world.elect()
        payload = random.Random(size).randbytes(size)
        for to in (leader, (leader + 1) % 3):
            assert world.ask(payload, to) == (DONE_OK, payload[::-1])
        world.run(100)
        assert len(world.digests()) == 1


def test_a_cluster_of_one_commits_by_itself() -> None:
    with World(size=1) as world:
        world.elect()
        assert world.ask(set_command("a", "1"), 0) == (DONE_OK, OK)


def test_acknowledged_writes_survive_the_leader() -> None:
    with World(size=3, seed=5) as world:
        leader = world.elect()
        tags = {world.call(set_command(f"k{i}", str(i)), leader, ms=5000): i for i in range(300)}
        world.run(0.3)  # in the middle of it
        world.kill(leader)
        acked = [tags[tag] for tag, (status, _) in world.client.ended.items() if status == DONE_OK]
        killed_at = world.network.now_ns
        new = world.elect()
        assert new != leader
        assert (world.network.now_ns - killed_at) / MS < 500
        for i in acked:
            assert world.ask(encode_command("GET", f"k{i}"), new, policy=3)[1] == b"$%d\r\n%d\r\n" % (len(str(i)), i)
        world.run(100)
        assert len(world.digests()) == 1


def test_the_log_is_dropped_on_global_commit() -> None:
    with World() as world:
        leader = world.elect()
        for i in range(200):
            world.call(set_command(f"k{i}", "v" * 500), leader)
        world.run(100)
        for node in world.nodes.values():
            status = node.status()
            assert status["log_last_index"] > 200
            assert status["log_first_index"] == status["log_last_index"] + 1
            assert status["log_bytes"] == 0


def test_a_member_that_is_down_holds_the_log_and_then_requests_are_refused() -> None:
    with World(log_bytes_max=100_000, truncation="block") as world:
        leader = world.elect()
        world.kill((leader + 1) % 3)
        statuses = [world.ask(set_command(f"k{i}", "v" * 1000), leader)[0] for i in range(150)]
        assert statuses[:90] == [DONE_OK] * 90
        assert statuses[-1] == DONE_DROPPED
        status = world.nodes[leader].status()
        assert status["counters"]["drops_log_full"] >= 30
        assert status["log_bytes"] <= 102_000


def test_a_member_cut_off_comes_back_and_catches_up() -> None:
    with World(seed=3) as world:
        leader = world.elect()
        other = (leader + 1) % 3
        ip = world.addresses[other][0]
        world.cut_off(ip)
        for i in range(2000):
            world.call(set_command(f"k{i}", "v" * 100), leader)
            if i % 100 == 0:
                world.run(2)
        world.run(1000)
        assert len(world.digests()) == 2
        world.cut_off(ip, blocked=False)
        world.run(500)
        assert len(world.digests()) == 1
        assert world.leader == leader, "who was away does not depose the leader"


def test_without_a_majority_requests_are_refused_in_time_and_none_is_executed() -> None:
    with World(hold_timeout_ns=100 * MS) as world:
        leader = world.elect()
        for i in range(3):
            if i != leader:
                world.kill(i)
        # The old leader accepts until it notices; afterwards it holds requests within its bound, then refuses.
        assert world.ask(set_command("a", "1"), leader, ms=400)[0] == DONE_TIMEOUT
        world.run(500)
        assert world.ask(set_command("b", "1"), leader, ms=400)[0] == DONE_DROPPED
        assert world.nodes[leader].status()["counters"]["drops_no_leader"] == 1
        assert world.nodes[leader].app.query(encode_command("GET", "a")) == b"$-1\r\n"


def test_requests_before_the_first_election_are_held_and_answered() -> None:
    with World() as world:
        assert world.ask(set_command("early", "1"), 2) == (DONE_OK, OK)


@pytest.mark.parametrize("seed", range(8))
def test_faults_all_at_once(seed: int) -> None:
    """Loss, duplication, reordering, cuts and a killed member: what is acknowledged is there, on all, in one order."""
    rng = random.Random(seed)
    with World(size=5, seed=seed) as world:
        world.network.faults(
            loss_ppm=20_000, duplicate_ppm=20_000, reorder_ppm=50_000, delay_min_ns=5_000, delay_max_ns=300_000
        )
        world.run_until(lambda: world.leader is not None, 5000)
        acked: dict[str, str] = {}
        tags: dict[int, str] = {}
        victim = rng.randrange(5)
        for step in range(40):
            if step == 15:
                world.kill(victim)
            if step % 7 == 3:
                a, b = rng.sample(sorted(world.nodes), 2)
                world.network.block(world.addresses[a][0], world.addresses[b][0])
            if step % 7 == 6:
                for a in world.addresses:
                    for b in world.addresses:
                        world.network.block(world.addresses[a][0], world.addresses[b][0], False)
            for _ in range(rng.randrange(30)):
                key = f"k{len(tags)}"
                size = rng.choice([1, 100, 4000])
                tags[world.call(set_command(key, "v" * size), rng.choice(sorted(world.nodes)), ms=2000)] = key
            world.run(rng.randrange(40))
        for a in world.addresses:
            for b in world.addresses:
                world.network.block(world.addresses[a][0], world.addresses[b][0], False)
        world.network.faults()
        world.run(3000)
        assert len(world.client.ended) == len(tags)
        acked = {tags[tag]: "" for tag, (status, _) in world.client.ended.items() if status == DONE_OK}
        assert len(acked) > len(tags) // 2
        leader = world.elect()
        for key in acked:
            assert world.ask(encode_command("GET", key), leader, policy=3)[1].startswith(b"$"), key
            assert world.ask(encode_command("GET", key), leader, policy=3)[1] != b"$-1\r\n", key
        world.run(300)
        assert len(world.digests()) == 1


def test_the_same_seed_is_the_same_run() -> None:
    def once() -> object:
        with World(seed=11) as world:
            world.network.faults(loss_ppm=50_000, duplicate_ppm=50_000, reorder_ppm=50_000)
            leader = world.elect()
            for i in range(100):
                world.call(set_command(f"k{i}", "v"), (leader + i) % 3, ms=50)
            world.run(300)
            return world.events, sorted(world.client.ended.items()), world.nodes[0].status()

    assert once() == once()


# ---- bad input ----


def test_garbage_at_a_live_cluster_is_counted_and_harms_nobody() -> None:
    rng = random.Random(4)
    with World() as world:
        leader = world.elect()
        stranger = (0x0A000063, 4444)
        term = world.nodes[leader].status()["term"]
        for round_ in range(20):
            for i in world.nodes:
                for _ in range(30):
                    body = rng.randbytes(rng.randrange(200))
                    kind = rng.randrange(4)
                    if kind == 1:
                        body = b"\xcc\x08" + body
                    elif kind == 2:
                        body = packet(rng.choice([5, 6, 7]), 1, rng.randrange(65536), body)
                    elif kind == 3:
                        head = bytes([1, rng.randrange(12)]) + rng.randbytes(2) + rng.choice([1, 2]).to_bytes(4, "big")
                        body = packet(rng.choice([5, 6, 7]), 1, rng.randrange(65536), head + body)
                    world.network.inject(stranger, world.addresses[i], body)
            assert world.ask(set_command(f"k{round_}", "v"), round_ % 3) == (DONE_OK, OK)
        world.run(100)
        assert world.leader == leader
        assert world.nodes[leader].status()["term"] == term
        assert len(world.digests()) == 1
        counters = world.nodes[0].status()["counters"]
        for reason in ("rx_bad_magic", "rx_bad_short", "raft_bad_short", "raft_bad_cluster", "raft_bad_kind"):
            assert counters[reason] > 0, reason
        assert counters["raft_bad_length"] > 0


def test_a_forward_to_who_does_not_lead_is_refused_and_goes_no_further() -> None:
    """Two members that take each other for the leader must not pass a request round."""
    with World() as world:
        leader = world.elect()
        a, b = (i for i in world.nodes if i != leader)
        group_of(world.nodes[a]).leadership._leader_address = world.addresses[b]
        assert world.ask(set_command("k", "v"), a)[0] == DONE_DROPPED
        status = world.nodes[b].status()
        assert status["counters"]["forwards_refused"] == 1
        assert status["counters"]["drops_forwarded"] == 1
        assert "forwarded_requests" not in status["counters"]


# ---- forming ----


def test_a_second_launch_in_a_slot_stops_and_says_why_when_nothing_could_bring_it_up() -> None:
    class Forgetful(Echo):
        has_snapshots = False

    with World(make_app=Forgetful) as world:
        leader = world.elect()
        victim = (leader + 1) % 3
        world.kill(victim)
        world.launch(victim, incarnation=99)
        with pytest.raises(SupersededError, match=f"member {victim} was launched before.*has no snapshots"):
            world.run(5000)
        world.kill(victim)
        assert world.ask(b"still", leader) == (DONE_OK, b"still")


def test_a_cluster_does_not_form_without_all_its_members() -> None:
    with World() as world:
        world.kill(1)
        world.run(1000)
        assert all(not node.status()["formed"] for node in world.nodes.values())
        assert world.nodes[0].status()["waiting_for"] == [1]
        world.launch(1)
        assert world.elect() in (0, 1, 2)


def test_members_launched_again_before_the_cluster_forms() -> None:
    with World() as world:
        for i in (1, 0, 2, 0):
            world.run(0.03)
            world.kill(i)
            world.launch(i, incarnation=500 + i + len(world.events))
        world.elect()
        assert world.ask(set_command("k", "v"), 0) == (DONE_OK, OK)


def test_two_clusters_on_one_network_do_not_mix() -> None:
    with World() as world:
        world.elect()
        config = NodeConfig(node_id=0, members=world.addresses, cluster_id=2, incarnation=7)
        port = world.network.open(0x0A0000C8, 8000)
        stranger = Node(config, port, world.make_app())
        world.network.run([*world.nodes.values(), stranger], 300 * MS)
        assert not stranger.status()["formed"]
        assert sum(node.engine.counters()["raft_bad_cluster"] for node in world.nodes.values()) > 0
        stranger.close()


# ---- the application ----


def test_status_is_json() -> None:
    with World() as world:
        leader = world.elect()
        status, reply = world.ask(STATUS_REQUEST, leader, policy=1)
        assert status == DONE_OK
        told = json.loads(reply)
        assert told["role"] == "leader" and told["leader"] == leader and told["formed"]


class CountingDigests(KeyValue):
    """How often each was asked for the whole state."""

    digests = 0

    def state_digest(self) -> str:
        self.digests += 1
        return super().state_digest()


def test_only_a_question_for_the_state_goes_through_all_of_it_and_once_for_an_index() -> None:
    made: list[CountingDigests] = []

    def make() -> CountingDigests:
        made.append(CountingDigests())
        return made[-1]

    with World(make_app=make) as world:
        leader = world.elect()

        def told(request: bytes, member: int = leader) -> dict[str, object]:
            status, reply = world.ask(request, member, policy=1)
            assert status == DONE_OK
            return dict(json.loads(reply))

        assert world.ask(set_command("a", "1"), leader) == (DONE_OK, OK)
        world.run(100)
        assert "state_digest" not in told(STATUS_REQUEST)
        assert [app.digests for app in made] == [0, 0, 0], "a status costs the same however much there is"
        first = told(STATE_REQUEST)
        assert first["state_digest"] == made[leader].store.digest() and first["role"] == "leader"
        assert {told(STATE_REQUEST, member)["state_digest"] for member in range(3)} == {first["state_digest"]}
        assert [app.digests for app in made] == [1, 1, 1], "asked again, and nothing was applied meanwhile"
        assert world.ask(set_command("a", "2"), leader) == (DONE_OK, OK)
        assert told(STATE_REQUEST)["state_digest"] == made[leader].store.digest() != first["state_digest"]


def test_a_server_without_a_group_tells_its_state_as_it_is() -> None:
    with MemoryNetwork() as network:
        app = KeyValue()
        node = Node(NodeConfig(), network.open(0x0A000001, 8000), app)
        client = Caller(network, (0x0A000064, 9000))
        for tag, request in enumerate((STATE_REQUEST, set_command("a", "1"), STATE_REQUEST, STATUS_REQUEST)):
            client.call(tag, request, (0x0A000001, 8000), 1, 1000)
            network.run([node, client], 10 * MS)
        before, reply, after, plain = (client.ended[tag][1] for tag in range(4))
        assert reply == OK
        assert json.loads(before)["state_digest"] != json.loads(after)["state_digest"] == app.state_digest()
        assert "state_digest" not in json.loads(plain)
        node.close()


def test_what_is_no_reply_beside_a_question_for_the_status_ends_no_server() -> None:
    with MemoryNetwork() as network:
        node = Node(NodeConfig(), network.open(0x0A000001, 8000), ReturningBatches(laid_out=False))
        client = Caller(network, (0x0A000064, 9000))
        for tag, request in enumerate((STATUS_REQUEST, b"text", b"ok")):
            client.call(tag, request, (0x0A000001, 8000), 1, 1000)
        network.run([node, client], 10 * MS)  # one poll takes them all
        assert [client.ended[tag][1] for tag in (1, 2)] == [b"-ERR TypeError\r\n", b"ok"]
        node.close()


def test_unreplicated_requests_ask_this_member_only() -> None:
    with World() as world:
        leader = world.elect()
        assert world.ask(encode_command("GET", "k"), leader, policy=1) == (DONE_OK, b"$-1\r\n")
        assert world.ask(set_command("k", "v"), leader, policy=0)[1].startswith(b"-READONLY")


def test_an_exception_in_a_function_is_the_same_reply_everywhere_and_the_log_goes_on() -> None:
    def divide(request: bytes) -> bytes:
        return b"%d" % (100 // int(request))

    with World(make_app=lambda: state_machine(divide)) as world:
        leader = world.elect()
        assert world.ask(b"5", leader) == (DONE_OK, b"20")
        assert world.ask(b"0", leader) == (DONE_OK, b"-ERR ZeroDivisionError\r\n")
        assert world.ask(b"4", leader) == (DONE_OK, b"25")


def test_an_exception_in_a_batch_ends_the_node() -> None:
    class Broken(StateMachine):
        def apply(self, requests: Requests) -> list[bytes]:
            raise RuntimeError("half way")

    with World(make_app=Broken) as world:
        leader = world.elect()
        world.call(b"x", leader)
        with pytest.raises(RuntimeError, match="half way"):
            world.run(50)


def test_a_wrong_number_of_replies_ends_the_node() -> None:
    class Short(StateMachine):
        def apply(self, requests: Requests) -> list[bytes]:
            return [b"x"] * (len(requests) - 1)

    with World(make_app=Short) as world:
        leader = world.elect()
        world.call(b"x", leader)
        with pytest.raises(UserError, match="gave 0 replies to 1 requests"):
            world.run(50)


def test_lists_of_members_that_differ_are_said_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with World(launch=False) as world:
        right = world.addresses
        world.launch(0)
        world.launch(2)
        first = world.nodes[9] = world.nodes.pop(0)
        world.addresses = {0: right[1], 1: right[0], 2: right[2], 9: right[0]}
        world.launch(0, ip=right[1][0])
        world.run(1000)
        assert not any(node.is_leader for node in world.nodes.values())
        assert (
            "10.0.0.2:8000 says that it is member 0; in the list of members here that is 10.0.0.1:8000" in caplog.text
        )
        assert first.counters["raft_drop_forming"] > 0
        assert world.nodes[0].counters["raft_drop_forming"] > 0


def test_a_node_must_be_a_member() -> None:
    with pytest.raises(UserError, match="node_id 9"), World() as world:
        Node(NodeConfig(node_id=9, members=world.addresses), world.ports[0], world.make_app())


@pytest.mark.parametrize("reply_bytes", [371_832, 371_833, 371_856])
def test_a_reply_as_large_as_a_response_is_answered_and_one_larger_is_an_error(reply_bytes: int) -> None:
    """A replicated response has 24 bytes less than others: a session's extension goes back in it."""
    value_bytes = 185_000
    rest_bytes = reply_bytes - len(b"*2\r\n") - 2 * len(b"$185000\r\n\r\n") - value_bytes
    with World() as world:
        leader = world.elect()
        assert world.ask(encode_command("SET", "a", b"x" * value_bytes), leader) == (DONE_OK, OK)
        assert world.ask(encode_command("SET", "b", b"x" * rest_bytes), leader) == (DONE_OK, OK)
        status, reply = world.ask(encode_command("MGET", "a", "b"), leader)
        assert status == DONE_OK
        if reply_bytes <= limits.REPLICATED_REPLY_BYTES_MAX:
            assert len(reply) == reply_bytes
        else:
            assert reply == b"-ERR the reply is larger than the 371832 bytes of a response\r\n"
        assert world.ask(encode_command("STRLEN", "a"), leader) == (DONE_OK, b":185000\r\n")


class Returning(RequestMachine):
    """Returns what the request asks for."""

    RETURNED: Final[dict[bytes, object]] = {
        b"nothing": None,
        b"text": "text",
        b"large": bytes(371_833),
        b"as large as can be": bytes(371_832),
        b"bytearray": bytearray(b"bytes"),
        b"ok": b"ok",
    }

    def handle(self, request: bytes, time_ms: int) -> bytes:
        return self.RETURNED[request]  # type: ignore[return-value]  # what is tested

    def query(self, request: bytes) -> bytes:
        return self.RETURNED[request]  # type: ignore[return-value]  # what is tested


@pytest.mark.parametrize("policy", [1, 2, 3])
def test_what_is_no_reply_is_an_error_of_that_request_and_the_members_go_on(policy: int) -> None:
    with World(make_app=Returning) as world:
        leader = world.elect()
        for request, reply in (
            (b"nothing", b"-ERR TypeError\r\n"),
            (b"text", b"-ERR TypeError\r\n"),
            (b"large", b"-ERR ReplyTooLarge\r\n"),
            (b"as large as can be", bytes(371_832)),
            (b"bytearray", b"bytes"),
            (b"ok", b"ok"),
        ):
            assert world.ask(request, leader, policy) == (DONE_OK, reply)


class ReturningBatches(StateMachine):
    """The same for a batch, as a list or laid out; and counts what it has executed."""

    def __init__(self, laid_out: bool) -> None:
        self.laid_out = laid_out
        self.executed = 0

    def apply(self, requests: Requests) -> ReplySequence:
        self.executed += len(requests)
        replies = self.query_batch(requests)
        return Replies.pack(replies) if self.laid_out and not isinstance(replies, Replies) else replies

    def query_batch(self, requests: Requests) -> ReplySequence:
        return [Returning.RETURNED[request] for request in requests]  # type: ignore[misc]  # what is tested

    def state_digest(self) -> str:
        return str(self.executed)


@pytest.mark.parametrize("check", [0, 1])
@pytest.mark.parametrize("policy", [2, 3])
@pytest.mark.parametrize("laid_out", [False, True])
def test_a_batch_with_what_is_no_reply_is_answered_and_the_members_go_on(
    policy: int, laid_out: bool, check: int
) -> None:
    with World(make_app=lambda: ReturningBatches(laid_out), check_determinism=check) as world:
        leader = world.elect()
        cases = [
            (b"large", b"-ERR ReplyTooLarge\r\n" if policy == 2 else bytes(371_833)),
            (b"as large as can be", bytes(371_832)),
            (b"bytearray", b"bytes"),
            (b"ok", b"ok"),
        ]
        if not laid_out:
            cases += [(b"nothing", b"-ERR TypeError\r\n"), (b"text", b"-ERR TypeError\r\n")]
        for request, reply in cases:
            assert world.ask(request, leader, policy) == (DONE_OK, reply)
        world.run(100)
        errors = sum(reply.startswith(b"-ERR") for _, reply in cases)
        if policy == 2:
            assert all(node.status()["counters"]["handler_errors"] == errors for node in world.nodes.values())
            assert {node.app.state_digest() for node in world.nodes.values()} == {str(len(cases))}
        assert not any(node.counters.get("determinism_differences") for node in world.nodes.values())


def test_a_function_that_returns_nothing_ends_no_member() -> None:
    with World(make_app=lambda: state_machine(lambda request: None)) as world:  # type: ignore[arg-type,return-value]
        leader = world.elect()
        for policy in (1, 2, 3):
            assert world.ask(b"x", leader, policy) == (DONE_OK, b"-ERR TypeError\r\n")
        assert world.nodes[leader].status()["counters"]["handler_errors"] == 3
