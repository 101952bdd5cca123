"""The log's time: one for all replicas, whatever their clocks say, and never less than before."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from r2p2.app import StateMachine
from r2p2.apps.kv import KeyValue, encode_command
from r2p2.apps.redis import RedisServer
from r2p2.engine import DONE_OK
from r2p2.memory import MemoryNetwork
from r2p2.node import Node, NodeConfig
from r2p2.node.log_time import ShiftedClock
from r2p2.requests import ReplySequence, Requests
from tests.node.support import MS, World, group_of, replica_of

START_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
OK = b"+OK\r\n"
NIL = b"$-1\r\n"


class TimedKeyValue(KeyValue):
    """The store, and the time of each request that it was given, by log order."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[int] = []

    def apply(self, requests: Requests) -> ReplySequence:
        self.times += [requests.time_ms] * len(requests)
        return super().apply(requests)


class UnevenClock(ShiftedClock):
    """Unix time by the network's clock, read `late_ns` later."""

    def __init__(self, network: MemoryNetwork) -> None:
        super().__init__()
        self._network = network
        self.late_ns = 0

    def __call__(self) -> int:
        return START_MS * MS + self._network.now_ns + self.late_ns


class SkewedWorld(World):
    """Members whose wall clocks differ: `skews_ms` to the network's clock, which starts in the year 2027."""

    def __init__(
        self,
        skews_ms: tuple[int, ...],
        *,
        seed: int = 1,
        storage: Path | None = None,
        make_app: Callable[[], StateMachine] = TimedKeyValue,
        **engine: int,
    ) -> None:
        super().__init__(
            len(skews_ms),
            seed,
            make_app,
            storage=storage,
            launch=False,
            **engine,  # type: ignore[arg-type]  # they are of EngineConfig alone
        )
        self.skews_ms = list(skews_ms)
        self.clocks = {i: self._clock(i) for i in range(len(skews_ms))}
        for i in range(len(skews_ms)):
            self.launch(i)

    def _clock(self, i: int) -> Callable[[], int]:
        return lambda: self.network.now_ns + (START_MS + self.skews_ms[i]) * MS

    def lead(self, i: int) -> None:
        """Makes member `i` the leader."""
        self.elect()
        for _ in range(20):
            leader = self.leader
            if leader == i:
                return
            if leader is not None:
                replica_of(self.nodes[leader]).raft.transfer(group_of(self.nodes[i]).member, self.network.now_ns)
            self.run(300)
        raise AssertionError(f"member {i} does not get to lead")

    def command(self, *words: str) -> bytes:
        """Through the log, at the leader."""
        leader = self.elect()
        status, reply = self.ask(encode_command(*words), leader)
        assert status == DONE_OK
        return reply

    def log_times(self) -> set[int]:
        return {node.status()["log_time_ms"] for node in self.nodes.values()}

    def behind_ms(self, i: int) -> int:
        behind = self.nodes[i].status()["log_time_behind_ms"]
        assert isinstance(behind, int)
        return behind

    def apps(self) -> list[TimedKeyValue]:
        found = [node.app for node in self.nodes.values()]
        assert all(isinstance(app, TimedKeyValue) for app in found)
        return found  # type: ignore[return-value]


def agree(world: SkewedWorld) -> None:
    """All members have applied the same, at the same times, and those never went back."""
    world.run(100)
    assert len(world.digests()) == 1
    assert len(world.log_times()) == 1
    times = [app.times for app in world.apps()]
    longest = max(times, key=len)
    for mine in times:
        assert mine == longest[len(longest) - len(mine) :], "a restarted member has the last of them"
    assert longest == sorted(longest)


def test_deadlines_end_at_the_same_request_under_skew() -> None:
    with SkewedWorld((-HOUR_MS, 0, HOUR_MS)) as world:
        world.lead(1)
        assert world.command("SET", "a", "1", "PX", "500") == OK
        assert world.command("SET", "b", "1", "EX", "2") == OK
        assert world.command("SET", "c", "1") == OK
        assert world.command("EXPIRE", "c", "4") == b":1\r\n"
        left = int(world.command("PTTL", "b")[1:-2])
        assert 1800 <= left <= 2000
        world.run(1000)
        assert world.command("GET", "a") == NIL
        assert world.command("GET", "b") == b"$1\r\n1\r\n"
        world.run(1500)
        assert world.command("MGET", "a", "b", "c") == b"*3\r\n" + NIL + NIL + b"$1\r\n1\r\n"
        assert world.command("TTL", "c") in (b":1\r\n", b":2\r\n")
        agree(world)
        assert START_MS < world.log_times().pop() < START_MS + 60_000


def test_a_leader_whose_clock_is_behind_goes_on_at_half_speed() -> None:
    with SkewedWorld((0, -HOUR_MS, -HOUR_MS)) as world:
        world.lead(0)
        assert world.command("SET", "a", "1", "PX", "1000") == OK
        [before] = world.log_times()
        world.kill(0)
        leader = world.elect()
        assert leader != 0
        behind = world.behind_ms(leader)
        assert HOUR_MS - 60_000 < behind <= HOUR_MS
        assert world.command("GET", "a") == b"$1\r\n1\r\n", "time has gone on, but not by a second"
        world.run(2500)
        assert world.command("GET", "a") == NIL, "and it does not stand still"
        [after] = world.log_times()
        assert before + 1000 < after
        assert world.nodes[leader].engine.counters()["log_time_slow"] > 0
        assert world.behind_ms(leader) < behind
        world.launch(0)
        world.run(500)
        agree(world)


def test_a_clock_behind_catches_up() -> None:
    """Behind by two seconds, time runs at half speed until the clock is there."""
    with SkewedWorld((0, -2000, -2000)) as world:
        world.lead(0)
        world.command("SET", "a", "1")
        world.kill(0)
        leader = world.elect()
        for _ in range(50):
            world.run(100)
            world.command("SET", "a", "1")
        assert world.behind_ms(leader) == 0
        [log_ms] = world.log_times()
        assert abs(log_ms - (world.clocks[leader]() // MS)) < 100
        agree(world)


def test_a_clock_that_jumps_ahead_is_counted_and_not_followed_back() -> None:
    with SkewedWorld((0, 0, 0)) as world:
        leader = world.elect()
        assert world.command("SET", "a", "1", "EX", "100") == OK
        world.skews_ms[leader] = HOUR_MS
        world.run(50)  # the clock is read with every heartbeat
        assert world.command("GET", "a") == NIL
        assert world.nodes[leader].engine.counters()["log_time_jumps"] == 1
        [there] = world.log_times()
        assert there >= START_MS + HOUR_MS
        world.skews_ms[leader] = 0
        world.run(50)
        assert world.command("SET", "b", "1", "PX", "400") == OK
        world.run(1000)
        assert world.command("GET", "b") == NIL
        assert world.behind_ms(leader) > HOUR_MS - 60_000
        [after] = world.log_times()
        assert there <= after
        agree(world)


def test_forwarded_and_held_requests_get_a_time() -> None:
    with SkewedWorld((0, 5000, -5000)) as world:
        world.lead(0)
        ahead = 1
        assert world.ask(encode_command("SET", "a", "1", "PX", "300"), ahead) == (DONE_OK, OK)
        assert world.log_times().pop() < START_MS + 5000, "the leader's time, not the forwarder's"
        world.run(400)
        assert world.ask(encode_command("GET", "a"), ahead) == (DONE_OK, NIL)
        world.kill(0)
        world.run(60)  # the others have noticed: they hold what they get
        tags = [world.call(encode_command("INCR", "n"), i % 2 + 1, ms=3000) for i in range(20)]
        world.run_until(lambda: all(tag in world.client.ended for tag in tags), 4000)
        assert sum(world.client.ended[tag][0] == DONE_OK for tag in tags) > 0
        agree(world)


def test_time_survives_a_restart_of_all(tmp_path: Path) -> None:
    with SkewedWorld((0, -HOUR_MS, -HOUR_MS), storage=tmp_path) as world:
        world.lead(0)
        world.command("SET", "a", "1", "EX", "100")
        for i in range(50):
            world.command("SET", f"k{i}", "1")
        [before] = world.log_times()
        for i in (0, 1, 2):
            world.kill(i)
        for i in (1, 2):  # the one whose clock was right stays away
            world.launch(i)
        world.elect()
        ttl = world.command("PTTL", "a")
        assert 90_000 < int(ttl[1:-2]) <= 100_000
        assert world.log_times().pop() >= before
        assert sum(node.engine.counters()["log_time_jumps"] for node in world.nodes.values()) == 0
        agree(world)


def test_time_comes_with_a_snapshot() -> None:
    with SkewedWorld((0, 0, -HOUR_MS), log_bytes_max=40_000) as world:
        world.lead(0)
        world.command("SET", "a", "1", "EX", "60")
        world.kill(2)
        for i in range(600):
            world.command("SET", f"k{i}", "1" * 50)
        assert world.nodes[0].status()["snapshot_index"] > 0
        world.launch(2)
        world.run(1000)
        assert world.nodes[2].status()["counters"]["snapshots_restored"] > 0
        assert len(world.log_times()) == 1
        world.lead(2)  # its clock is an hour behind, its log is not
        assert 30_000 < int(world.command("PTTL", "a")[1:-2]) <= 60_000
        agree(world)


@pytest.mark.parametrize("make_app", [KeyValue, pytest.param(RedisServer, marks=pytest.mark.needs("redis"))])
def test_keys_end_without_requests(make_app: Callable[[], StateMachine]) -> None:
    """The leader moves the time to a deadline that has come: a read finds the key gone, on every member."""
    with SkewedWorld((0, 700, -700), make_app=make_app) as world:
        world.elect()
        world.command("SET", "a", "1", "PX", "300")
        world.command("SET", "b", "1", "PX", "900")
        world.run(20)
        indices = {node.engine.applied_index for node in world.nodes.values()}
        world.run(350)
        for i in world.nodes:
            assert world.ask(encode_command("MGET", "a", "b"), i, 3) == (DONE_OK, b"*2\r\n" + NIL + b"$1\r\n1\r\n")
            app = world.nodes[i].app
            left = app.data.keys() if isinstance(app, KeyValue) else app.query(encode_command("KEYS", "*"))
            assert b"a" not in left, "out of memory, too"
        world.run(700)
        assert {node.engine.applied_index - index for node in world.nodes.values() for index in indices} == {2}
        assert len(world.digests()) == 1


def test_time_moves_on_after_the_leader_that_waited_for_it_is_gone() -> None:
    with SkewedWorld((0, 0, 0)) as world:
        leader = world.elect()
        world.command("SET", "a", "1", "PX", "400")
        world.kill(leader)
        world.run(1500)
        for i in world.nodes:
            assert world.ask(encode_command("GET", "a"), i, 3) == (DONE_OK, NIL)


def test_nothing_waits_without_deadlines() -> None:
    with SkewedWorld((0, 0, 0)) as world:
        leader = world.elect()
        world.command("SET", "a", "1")
        index = world.nodes[leader].engine.log_last_index
        world.run(3000)
        assert world.nodes[leader].engine.log_last_index == index


def test_a_store_without_a_group_goes_by_its_own_clock() -> None:
    with MemoryNetwork() as network:
        now_ms = [START_MS]
        config = NodeConfig(unix_clock_ns=lambda: now_ms[0] * MS)
        node = Node(config, network.open(0x0A000001, 8000), KeyValue())
        times = []
        for ms in (START_MS, START_MS + 5, START_MS - 100, START_MS + 50):
            now_ms[0] = ms
            node._time.sync()
            times.append(node._time.own_ms())
        assert times == [START_MS, START_MS + 5, START_MS + 5, START_MS + 50]
        node.close()


def test_the_offset_of_the_clocks_stays_while_nobody_sets_one() -> None:
    """What differs is when they were read: a capture's times, and with them its replay, hang on one offset."""
    with MemoryNetwork() as network:
        clock = UnevenClock(network)
        node = Node(NodeConfig(unix_clock_ns=clock), network.open(0x0A000001, 8000), KeyValue())
        first = clock.port_offset_ns
        assert first is not None
        for late_ns in (0, 90_000, 400_000):  # between the two readings
            clock.late_ns = late_ns
            network.advance(20 * MS)
            node.poll_once()
            node._time.sync()
            assert clock.port_offset_ns == first
            assert node.engine.stamp_ms == (network.now_ns + first) // MS
        clock.late_ns = 5 * MS  # set ahead
        node._time.sync()
        assert clock.port_offset_ns == first + 5 * MS
        node.close()


# More of them: R2P2_LOG_TIME_SEEDS=200 pytest tests/node/test_log_time.py
@pytest.mark.parametrize("seed", range(int(os.environ.get("R2P2_LOG_TIME_SEEDS", "6"))))
def test_under_faults_time_is_equal_everywhere_and_never_goes_back(seed: int) -> None:
    """Loss, cuts, kills, clocks that jump: what each replica was told of time is the same, and does not fall."""
    check_under_faults(seed)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_under_faults_with_disks(seed: int, tmp_path: Path) -> None:
    check_under_faults(seed, tmp_path)


def check_under_faults(seed: int, storage: Path | None = None) -> None:
    chance = random.Random(seed)
    skews = tuple(chance.choice([-HOUR_MS, -500, 0, 3, 800, HOUR_MS]) for _ in range(3))
    with SkewedWorld(skews, seed=seed % 1000 + 1, storage=storage) as world:
        world.elect()
        world.network.faults(loss_ppm=20_000, duplicate_ppm=10_000, delay_min_ns=5_000, delay_max_ns=400_000)
        for _ in range(12):
            act = chance.randrange(5)
            whole = len(world.nodes) == 3 and all(node.status().get("voter") for node in world.nodes.values())
            if act == 0 and whole:  # in memory, a second one gone too soon would be a majority lost
                world.kill(chance.randrange(3))
            elif act == 1:
                for i in set(range(3)) - set(world.nodes):
                    world.launch(i)
            elif act == 2:
                world.skews_ms[chance.randrange(3)] += chance.choice([-2000, -3, 5, 1500])
            for i in range(chance.randrange(1, 12)):
                to = chance.choice(sorted(world.nodes))
                if chance.randrange(2):
                    world.call(encode_command("SET", f"k{i}", "v", "PX", str(chance.randrange(1, 400))), to)
                else:
                    world.call(encode_command("INCR", f"n{i}"), to)
                world.run(chance.randrange(3))
            world.run(chance.randrange(120))
        for i in set(range(3)) - set(world.nodes):
            world.launch(i)
        world.network.faults(delay_min_ns=5_000, delay_max_ns=60_000)
        world.run(1500)
        world.command("SET", "last", "1")
        agree(world)
