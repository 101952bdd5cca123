"""Durable members on the in-memory network: they come back as who they were, and nothing acknowledged is lost, wherever
the power fails.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from r2p2.app import StateMachine, state_machine
from r2p2.apps.kv import KeyValue, encode_command
from r2p2.engine import DONE_DROPPED, DONE_OK
from r2p2.errors import UserError
from r2p2.storage import StorageError
from tests.node.support import MS, World, group_of, replica_of
from tests.storage.crashing import CrashingFiles, PowerLost

OK = b"+OK\r\n"
READ = 3


def put(key: str, value: str) -> bytes:
    return encode_command("SET", key, value)


def get(key: str) -> bytes:
    return encode_command("GET", key)


def bulk(value: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value.encode())


def kill_all(world: World) -> None:
    for member in list(world.nodes):
        world.kill(member)


def launch_all(world: World) -> None:
    for member in world.addresses:
        world.launch(member)


def test_the_whole_cluster_comes_back(tmp_path: Path) -> None:
    with World(storage=tmp_path) as world:
        for life in range(4):
            leader = world.elect()
            for i in range(20):
                assert world.ask(put(f"k{life}-{i}", str(i)), leader) == (DONE_OK, OK)
            incarnations = [world.nodes[m].status()["incarnation"] for m in sorted(world.nodes)]
            kill_all(world)
            launch_all(world)
            assert [world.nodes[m].status()["incarnation"] for m in sorted(world.nodes)] == incarnations
        leader = world.elect()
        for life in range(4):
            for i in range(20):
                assert world.ask(get(f"k{life}-{i}"), i % 3, READ) == (DONE_OK, bulk(str(i)))
        world.run(100)
        assert len(world.digests()) == 1


def test_one_member_comes_back_as_the_same_and_catches_up(tmp_path: Path) -> None:
    with World(storage=tmp_path) as world:
        leader = world.elect()
        other = (leader + 1) % 3
        assert world.ask(put("a", "1"), leader) == (DONE_OK, OK)
        world.kill(other)
        for i in range(100):
            assert world.ask(put(f"k{i}", str(i)), leader) == (DONE_OK, OK)
        world.launch(other)
        world.run(200)
        assert len(world.digests()) == 1
        assert world.ask(get("k99"), other, READ) == (DONE_OK, bulk("99"))
        assert replica_of(world.nodes[leader]).raft.configuration_index == 0, "no change of members was needed"


def terms_and_votes(world: World) -> dict[int, tuple[int, int | None]]:
    rafts = {slot: replica_of(node).raft for slot, node in world.nodes.items()}
    return {slot: (raft.term, raft.vote) for slot, raft in rafts.items()}


def test_a_vote_survives(tmp_path: Path) -> None:
    """S1: a member that has voted in a term remembers it."""
    with World(storage=tmp_path) as world:
        world.elect()
        world.run(50)
        before = terms_and_votes(world)
        kill_all(world)
        launch_all(world)
        after = terms_and_votes(world)
        assert after == before
        assert any(vote is not None for _, vote in after.values())


def test_answers_to_old_entries_are_not_sent_again(tmp_path: Path) -> None:
    """A client may have used the rid for another call by then."""
    with World(size=1, storage=tmp_path) as world:
        world.elect()
        for i in range(10):
            assert world.ask(put("k", str(i)), 0) == (DONE_OK, OK)
        world.kill(0)
        unmatched = world.client.engine.counters()["rx_unmatched"]
        world.launch(0)
        world.elect()
        assert world.ask(get("k"), 0, READ) == (DONE_OK, bulk("9"))
        assert world.client.engine.counters()["rx_unmatched"] == unmatched


def test_entries_in_the_place_of_truncated_ones_are_answered(tmp_path: Path) -> None:
    """A member comes back with a tail that its cluster never had, and leads later: new requests take those indices."""
    with World(storage=tmp_path) as world:
        lost = world.elect()
        world.part(lost)
        for i in range(30):
            world.call(put(f"lost{i}", "v"), lost, ms=50)
        world.run(20)
        world.kill(lost)
        world.part(lost, False)
        leader = world.elect()
        world.launch(lost)
        world.run(300)
        raft, disk = replica_of(world.nodes[leader]).raft, world.nodes[lost]._disk
        assert disk is not None
        assert disk.replay_through < raft.last_index < 30, "the tail has been truncated"
        raft.transfer(group_of(world.nodes[lost]).member, world.network.now_ns)
        world.run_until(lambda: world.nodes[lost].is_leader)
        for i in range(5):
            assert world.ask(put(f"k{i}", "new"), lost) == (DONE_OK, OK)


def test_snapshots_let_the_log_go(tmp_path: Path) -> None:
    with World(storage=tmp_path, log_bytes_max=64_000) as world:
        leader = world.elect()
        for i in range(0, 1000, 10):
            tags = [world.call(put(f"k{j % 10}", f"{j:0500d}"), leader) for j in range(i, i + 10)]
            world.run_until(lambda tags=tags: all(tag in world.client.ended for tag in tags))  # type: ignore[misc]
            assert all(world.client.ended[tag] == (DONE_OK, OK) for tag in tags)
        for node in world.nodes.values():
            status = node.status()
            assert status["counters"]["storage_snapshots"] >= 5
            assert status["storage"]["log_bytes"] < 64_000
        on_disk = sum(path.stat().st_size for path in (tmp_path / "member0").iterdir())
        assert on_disk < 500_000
        kill_all(world)
        launch_all(world)
        world.elect()
        for i in range(990, 1000):
            assert world.ask(get(f"k{i % 10}"), i % 3, READ) == (DONE_OK, bulk(f"{i:0500d}"))
        world.run(100)
        assert len(world.digests()) == 1


class NoSnapshots(KeyValue):
    snapshot = StateMachine.snapshot  # type: ignore[assignment]


def test_without_snapshots_a_full_disk_share_refuses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with World(storage=tmp_path, make_app=NoSnapshots, log_bytes_max=64_000) as world:
        leader = world.elect()
        statuses = [world.ask(put("k", "v" * 500), member % 3)[0] for member in range(300)]
        accepted = statuses.count(DONE_OK)
        assert 100 <= accepted <= 130
        assert statuses == [DONE_OK] * accepted + [DONE_DROPPED] * (300 - accepted)
        assert world.nodes[leader].status()["counters"]["drops_storage_full"] > 0
        assert "has no snapshot() to make room" in caplog.text
        kill_all(world)
        launch_all(world)
        world.elect()
        assert world.ask(get("k"), 0, READ) == (DONE_OK, bulk("v" * 500))


def test_one_poll_takes_no_more_than_the_disk_has_room_for(tmp_path: Path) -> None:
    """Else followers, whose disks are as full, never take what is beyond, and it does not fit after a restart."""
    with World(storage=tmp_path, make_app=lambda: state_machine(lambda _: b""), log_bytes_max=1 << 20) as world:
        leader = world.elect()
        while len(world.client.ended) < 64:
            assert world.ask(bytes(16_000), leader) == (DONE_OK, b"")
        tags = [world.call(bytes(1400), leader) for _ in range(1000)]
        world.network.run([world.client], MS)  # all of them wait when the leader looks
        world.run_until(lambda: all(tag in world.client.ended for tag in tags))
        assert {world.client.ended[tag][0] for tag in tags} == {DONE_OK, DONE_DROPPED}
        for node in world.nodes.values():
            assert 1 << 20 <= node.status()["storage"]["log_bytes"] < (1 << 20) + 1500
        kill_all(world)
        launch_all(world)
        assert world.ask(b"", world.elect(), READ) == (DONE_OK, b"")


def test_a_member_far_behind_gets_a_snapshot_and_keeps_it(tmp_path: Path) -> None:
    with World(storage=tmp_path, log_bytes_max=64_000, truncation="snapshot") as world:
        leader = world.elect()
        other = (leader + 1) % 3
        world.ask(put("first", "1"), leader)
        world.kill(other)
        for i in range(400):
            assert world.ask(put(f"k{i}", f"{i:0500d}"), leader) == (DONE_OK, OK), i
        world.launch(other)
        world.run_until(lambda: len(world.digests()) == 1, 3000)
        assert any("restored a snapshot" in text for _, member, text in world.events if member == other)
        world.kill(other)
        world.launch(other)
        assert world.nodes[other].engine.applied_index > 0, "it begins where the snapshot ends"
        world.run_until(lambda: len(world.digests()) == 1, 3000)
        assert world.ask(get("k0"), other, READ) == (DONE_OK, bulk(f"{0:0500d}"))


def test_a_change_of_members_is_remembered(tmp_path: Path) -> None:
    """A member without its directory comes back as somebody else; then everybody is restarted from disk."""
    import shutil

    with World(storage=tmp_path) as world:
        leader = world.elect()
        assert world.ask(put("k", "v"), leader) == (DONE_OK, OK)
        other = (leader + 1) % 3
        world.kill(other)
        shutil.rmtree(tmp_path / f"member{other}")
        world.launch(other)
        world.run_until(lambda: any("let in" in text for _, member, text in world.events if member == other), 5000)
        world.run(200)
        kill_all(world)
        launch_all(world)
        world.elect()
        for member in range(3):
            assert world.ask(get("k"), member, READ) == (DONE_OK, bulk("v"))
        assert world.ask(put("k", "w"), other) == (DONE_OK, OK)
        world.run(100)
        assert len(world.digests()) == 1


def test_a_function_application_comes_back(tmp_path: Path) -> None:
    with World(storage=tmp_path, make_app=lambda: state_machine(lambda request: request[::-1])) as world:
        leader = world.elect()
        assert world.ask(b"abc", leader) == (DONE_OK, b"cba")
        kill_all(world)
        launch_all(world)
        assert world.ask(b"def", world.elect()) == (DONE_OK, b"fed")


# ---- who a directory belongs to ----


def test_a_directory_in_use(tmp_path: Path) -> None:
    with World(size=1, storage=tmp_path) as world:
        world.elect()
        with pytest.raises(UserError, match=r"in use by another process \(pid \d+\)"):
            type(world.nodes[0])(world.nodes[0].config, world.network.open(0x0A0000F0, 8000), KeyValue())


def test_a_node_that_could_not_be_made_lets_its_directory_go(tmp_path: Path) -> None:
    with World(size=1, storage=tmp_path) as world:
        world.elect()
        world.kill(0)
        world.truncation = "nonsense"
        with pytest.raises(UserError, match="'nonsense' is not one of"):
            world.launch(0)
        world.truncation = None
        world.launch(0)
        world.elect()


def test_a_directory_of_another_member(tmp_path: Path) -> None:
    with World(storage=tmp_path) as world:
        world.elect()
        kill_all(world)
        (tmp_path / "member0").rename(tmp_path / "kept")
        (tmp_path / "member1").rename(tmp_path / "member0")
        with pytest.raises(UserError, match=r"belongs to member 1 of cluster 1, and this is member 0 of cluster 1"):
            world.launch(0)


def test_a_log_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with World(storage=tmp_path) as world:
        world.elect()
        world.kill(0)
        for path in (tmp_path / "member0").glob("*.log"):
            path.unlink()
        with pytest.raises(StorageError, match="the log is gone"):
            world.launch(0)


@pytest.mark.parametrize("left_bytes", [0, 40])
def test_a_log_whose_files_are_empty_is_gone_too(tmp_path: Path, left_bytes: int) -> None:
    """Its term and vote are lost with it: the member could vote again in a term it has voted in."""
    with World(storage=tmp_path) as world:
        world.elect()
        world.kill(0)
        logs = list((tmp_path / "member0").glob("*.log"))
        for path in logs:
            os.truncate(path, left_bytes)
        for _ in range(2):  # nothing is touched, so the second start says it, too
            with pytest.raises(StorageError, match="the log is gone"):
                world.launch(0)
        assert [path.stat().st_size for path in logs] == [left_bytes] * len(logs)


def test_a_directory_without_its_record(tmp_path: Path) -> None:
    with World(storage=tmp_path) as world:
        world.elect()
        world.kill(0)
        (tmp_path / "member0" / "member.json").unlink()
        with pytest.raises(UserError, match=r"holds a log .* and no member\.json"):
            world.launch(0)


# ---- power failures ----


class Torment:
    """A cluster whose members lose their power at chosen calls, a client that writes, and what it was promised."""

    def __init__(self, path: Path, seed: int, crash_at: Callable[[], int | None]) -> None:
        self.rng = random.Random(seed)
        self.crash_at = crash_at
        self.files: dict[int, CrashingFiles] = {}
        self.down = {0, 1, 2}
        self.crashes = 0
        self.tags: dict[int, tuple[str, int]] = {}
        self.world = World(seed=seed, storage=path, launch=False, log_bytes_max=24_000, truncation="snapshot")
        self.lift_all()

    def _new_files(self, member: int) -> CrashingFiles:
        self.files[member] = CrashingFiles(self.rng, self.crash_at())
        return self.files[member]

    def _fell(self, member: int) -> None:
        self.crashes += 1
        if member in self.world.nodes:
            self.world.kill(member)
        self.files[member].lose_power()
        self.down.add(member)

    def run(self, ms: float) -> None:
        end_ns = self.world.network.now_ns + int(ms * MS)
        while self.world.network.now_ns < end_ns:
            try:
                self.world.run((end_ns - self.world.network.now_ns) / MS)
            except PowerLost:
                fallen = [member for member, files in self.files.items() if files._gone and member not in self.down]
                assert len(fallen) == 1
                self._fell(fallen[0])

    def lift(self, member: int) -> None:
        self.world.files[member] = self._new_files(member)
        self.down.discard(member)
        try:
            self.world.launch(member)
        except PowerLost:
            self._fell(member)

    def lift_all(self) -> None:
        for member in sorted(self.down):
            self.lift(member)

    def write(self, count: int) -> None:
        for _ in range(count):
            if not self.world.nodes:
                return
            number = len(self.tags)
            key = f"k{number}"
            payload = put(key, f"{number:0{self.rng.choice([10, 300])}d}")
            self.tags[self.world.call(payload, self.rng.choice(sorted(self.world.nodes)), ms=3000)] = (key, number)

    def check(self) -> None:
        """Everybody is there, and so is everything that was acknowledged."""
        self.crash_at = lambda: None
        for files in self.files.values():
            files.crash_at = None
        self.run(10)
        self.lift_all()
        world = self.world
        world.run_until(lambda: world.leader is not None, 5000)
        self.run(3100)  # longer than any call may take
        acked = [self.tags[tag] for tag, (status, _) in world.client.ended.items() if status == DONE_OK]
        leader = world.elect()
        for key, number in acked:
            status, payload = world.ask(get(key), leader, READ)
            assert status == DONE_OK
            assert int(payload.split(b"\r\n")[1]) == number, f"{key} was acknowledged and is lost"
        world.run_until(lambda: len(world.digests()) == 1, 3000)
        assert acked


def calls_of_a_run(path: Path) -> int:
    """How many calls member 0 makes in the run that the next test repeats."""
    with_calls = Torment(path, 1, lambda: None)
    with with_calls.world:
        one_run(with_calls)
        return with_calls.files[0].calls


def one_run(torment: Torment) -> None:
    for _ in range(20):
        torment.write(8)
        torment.run(10)
        torment.lift_all()
    torment.check()


def test_power_fails_at_every_call_of_one_member(tmp_path: Path) -> None:
    """Each call that writes, one run for each: member 0 falls in it, with what it had not synced half lost."""
    count = calls_of_a_run(tmp_path / "count")
    assert count > 60
    for at in range(1, count + 1):
        crashes = iter([at])
        torment = Torment(tmp_path / str(at), 1, lambda crashes=crashes: next(crashes, None))  # type: ignore[misc]
        with torment.world:
            one_run(torment)
        assert torment.crashes == 1, at


@pytest.mark.parametrize("seed", range(12))
def test_power_fails_again_and_again(tmp_path: Path, seed: int) -> None:
    """Every member at random calls, in recovery too, sometimes all at once."""
    chance = random.Random(seed + 1000)
    torment = Torment(tmp_path, seed, lambda: chance.choice([3, 8, 20, 60, 150, 400]))
    with torment.world:
        for _ in range(60):
            torment.write(chance.randrange(12))
            torment.run(chance.random() * 60)
            if chance.random() < 0.05:
                for member in sorted(torment.world.nodes):
                    torment._fell(member)
            for member in sorted(torment.down):
                if chance.random() < 0.5:
                    torment.lift(member)
        assert torment.crashes > 10
        torment.check()
