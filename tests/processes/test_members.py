"""Real processes: members are killed and come back under load, are added, removed, moved, and hold the log.

``R2P2_AWAY_REQUESTS`` is how many requests pass while a member is down (small by default; a million by hand:
``R2P2_AWAY_REQUESTS=1000000 pytest tests/processes/test_members.py -k away -s``, which prints figures).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from r2p2.errors import UserError
from tests.processes.members import R2P2, Load, Members, resident_bytes

pytestmark = pytest.mark.needs("linux")

AWAY_REQUESTS = int(os.environ.get("R2P2_AWAY_REQUESTS", "30000"))
# While requests are blocked, those are refused that come; refusing is quick, so the small number is smaller.
REFUSED_REQUESTS = int(os.environ.get("R2P2_AWAY_REQUESTS", "2000"))
MIB = 1 << 20


@pytest.mark.parametrize("who", ["a follower", "the leader"])
def test_killed_under_load_and_back_in_sync(who: str, tmp_path: Path) -> None:
    with Members(tmp_path) as members, Load(members.addresses[:3]) as load:
        load.wait_answered(1000)
        leader = members.leader()
        victim = leader if who == "the leader" else (leader + 1) % 3
        members.kill(victim)
        load.wait_answered(1000)
        process = members.launch(victim)
        process.wait_line(lambda line: "has been let in" in line, 30)
        load.wait_answered(1000)
        load.end()
        members.wait_in_sync(0, 1, 2)
        assert load.stats.wrong == 0


def test_each_in_turn_and_the_service_goes_on(tmp_path: Path) -> None:
    with Members(tmp_path) as members:
        for victim in range(3):
            members.write(f"before{victim}")
            members.kill(victim)
            members.launch(victim).wait_line(lambda line: "has been let in" in line, 30)
        members.write("after")
        nodes = members.wait_in_sync(0, 1, 2)
        assert len({node["incarnation"] for node in nodes.values()}) == 3


def test_a_fourth_comes_one_goes_one_moves_and_leadership_is_handed_over(tmp_path: Path) -> None:
    with Members(tmp_path) as members, Load(members.addresses) as load:
        members.launch(3, join=True)
        assert members.member("add", 3, members.addresses[3])["ok"]
        load.wait_answered(500)

        gone = members.leader()
        process = members.running[gone]
        assert members.member("remove", gone)["ok"]
        assert process.wait(20) == 3, "a removed member ends with an exit code of its own"
        assert any("was removed from the cluster" in line for line in process.lines)
        del members.running[gone]
        load.wait_answered(500)

        target = next(slot for slot in members.running if slot != members.leader())
        assert members.transfer(target) == f"slot {target} leads"
        load.wait_answered(500)

        mover = next(slot for slot in sorted(members.running) if slot != members.leader())
        old = members.running[mover]
        members.launch(mover, join=True, at=4)
        assert members.member("replace", mover, members.addresses[4])["ok"]
        assert old.wait(20) == 3
        members.addresses[mover] = members.addresses[4]
        load.wait_answered(500)
        load.end()
        members.wait_in_sync(*members.running)
        assert load.stats.wrong == 0


def test_the_command_line(tmp_path: Path) -> None:
    with Members(tmp_path) as members:
        cluster = ["--cluster", ",".join(members.addresses[:3])]

        def run(*words: str) -> tuple[int, str, str]:
            done = subprocess.run(
                [*R2P2, "member", *words, *cluster], capture_output=True, text=True, timeout=60, check=False
            )
            return done.returncode, done.stdout, done.stderr

        code, out, _ = run("list")
        assert code == 0
        assert [line.split()[:2] for line in out.splitlines()[1:4]] == [
            [str(slot), members.addresses[slot]] for slot in range(3)
        ]
        code, out, _ = run("list", "--json")
        assert json.loads(out)["ok"]
        code, _, error = run("add", "3", members.addresses[3], "--timeout", "1")
        assert code == 1
        assert f"nobody at {members.addresses[3]} asks to be let in as slot 3: start `r2p2 serve --join" in error
        members.launch(3, join=True, asks=[(members.leader() + 1) % 3])  # a follower alone
        code, out, _ = run("add", "3", members.addresses[3])
        assert code == 0
        assert f"slot 3 at {members.addresses[3]} is a member" in out
        code, _, error = run("transfer", "7")
        assert (code, "slot 7 is not a voter" in error) == (1, True)
        code, out, _ = run("remove", "3")
        assert (code, "slot 3 is not a member any more" in out) == (0, True)
        assert members.running.pop(3).wait(20) == 3


def test_a_majority_that_is_launched_anew_is_said_and_forms_nothing(tmp_path: Path) -> None:
    with Members(tmp_path) as members:
        members.write("k")
        survivor = members.leader()
        for slot in range(3):
            if slot != survivor:
                members.kill(slot)
        for slot in range(3):
            if slot != survivor:
                members.launch(slot)
        members.running[survivor].wait_line(lambda line: "A MAJORITY HAS LOST ITS MEMORY" in line, 30)
        nodes = members.wait(lambda nodes: len(nodes[survivor].get("majority_lost", ())) == 2, "word of the loss")
        assert [slot for slot, node in nodes.items() if not node["joining"]] == [survivor]
        assert members.leader_of(nodes) is None
        with pytest.raises(UserError, match="not done in 1 s"):
            members.member("transfer", survivor, seconds=1)


class Away:
    """A member that is down while requests pass, with a log of 1 MiB; what the others say of it meanwhile.

    Whoever leads: on a busy machine that changes.
    """

    def __init__(self, members: Members, load: Load, capsys: pytest.CaptureFixture[str]) -> None:
        self.members, self.load, self.capsys = members, load, capsys
        self.victim = members.victim()
        members.kill(self.victim)
        self.memory: list[int] = []  # of the larger of the others
        self.log_bytes: list[int] = []
        self.evicted: set[int] = set()
        self.began = time.monotonic()

    def look(self) -> dict[str, object]:
        """What the leader says."""
        members = self.members
        nodes = members.wait(lambda nodes: members.leader_of(nodes) is not None, "a leader")
        self.memory.append(max(resident_bytes(process.pid) for process in members.running.values()))
        self.log_bytes.append(max(node["log_bytes"] for node in nodes.values()))
        for node in nodes.values():
            self.evicted |= set(node["evicted"])
        leader = members.leader_of(nodes)
        assert leader is not None
        return nodes[leader]

    def wait_held(self) -> None:
        """Until the leader says that the victim holds the log."""

        def holds(nodes: dict[int, dict[str, Any]]) -> bool:
            leader = self.members.leader_of(nodes)
            held = None if leader is None else nodes[leader]["log_held_by"]
            return held is not None and held["slot"] == self.victim and held["bytes"] > 0

        self.members.wait(holds, f"leader that says that slot {self.victim} holds the log")

    def pass_requests(self, count: int) -> None:
        steps = 8
        for _ in range(steps):
            self.load.wait_answered(count // steps, 60 + count / 2000)
            self.look()

    def report(self, policy: str) -> None:
        with self.capsys.disabled():
            print(
                f"\n{policy}: {self.load.stats.answered:,} answered, {self.load.stats.dropped:,} refused in "
                f"{time.monotonic() - self.began:.1f} s; log at most {max(self.log_bytes):,} bytes; a member has "
                f"{self.memory[0] / MIB:.1f} -> {self.memory[-1] / MIB:.1f} MiB (most {max(self.memory) / MIB:.1f})"
            )

    def check_flat(self) -> None:
        assert max(self.log_bytes) <= MIB + MIB // 4
        # After the first eighth nothing grows but what the allocator does not give back.
        assert max(self.memory) - self.memory[1] < 24 * MIB


def test_away_snapshot_the_log_goes_behind_a_snapshot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Members(tmp_path, "--log-mib", "1") as members, Load(members.addresses[:3], rate=0) as load:
        load.wait_answered(500)
        away = Away(members, load, capsys)
        away.pass_requests(AWAY_REQUESTS)
        status = away.look()
        assert status["truncation"] == "snapshot"
        counters = status["counters"]
        assert isinstance(counters, dict) and counters["log_compactions"] >= 1
        away.wait_held()
        away.check_flat()
        process = members.launch(away.victim)
        process.wait_line(lambda line: "has been let in" in line, 60)
        assert any("restored a snapshot" in line for line in process.lines)
        load.end()
        members.wait_in_sync(0, 1, 2)
        away.report("snapshot")
        assert load.stats.wrong == 0


def test_away_evict_the_member_is_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--log-mib", "1", "--truncation", "evict")
    with Members(tmp_path, *options) as members, Load(members.addresses[:3], rate=0) as load:
        load.wait_answered(500)
        away = Away(members, load, capsys)
        away.pass_requests(AWAY_REQUESTS)
        away.look()
        assert away.evicted == {away.victim}
        members.wait(lambda nodes: members.voters(nodes) == sorted(members.running), "two voters")
        away.check_flat()
        members.launch(away.victim)
        assert members.member("add", away.victim, members.addresses[away.victim])["ok"]
        load.end()
        members.wait_in_sync(0, 1, 2)
        away.report("evict")
        assert load.stats.wrong == 0


def test_away_block_requests_are_refused_until_it_is_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--log-mib", "1", "--truncation", "block")
    with Members(tmp_path, *options) as members, Load(members.others(), rate=0) as load:
        load.wait_answered(500)
        away = Away(members, load, capsys)
        end = time.monotonic() + 60 + REFUSED_REQUESTS / 1000
        while load.stats.dropped < REFUSED_REQUESTS:
            assert time.monotonic() < end, load.stats
            away.look()
            time.sleep(0.05)
        load.end()
        status = away.look()
        counters = status["counters"]
        assert isinstance(counters, dict) and counters["drops_log_full"] >= 1
        assert "log_compactions" not in counters
        away.check_flat()
        members.launch(away.victim).wait_line(lambda line: "has been let in" in line, 60)
        members.write("taken again")
        members.wait_in_sync(0, 1, 2)
        away.report("block")
        assert load.stats.wrong == 0


def test_stopped_for_longer_than_the_log_reaches_and_continued(tmp_path: Path) -> None:
    """The same process, with its memory: it is brought up by a snapshot, and stays who it was."""
    with Members(tmp_path, "--log-mib", "1") as members, Load(members.addresses[:3], rate=0) as load:
        leader = members.leader()
        victim = (leader + 1) % 3
        load.wait_answered(500)
        before = members.status_of(members.addresses[victim])["incarnation"]
        members.running[victim].signal(signal.SIGSTOP)
        stopped = members.running.pop(victim)
        load.wait_answered(30_000)
        members.running[victim] = stopped
        stopped.signal(signal.SIGCONT)
        stopped.wait_line(lambda line: "restored a snapshot" in line, 60)
        load.end()
        nodes = members.wait_in_sync(0, 1, 2)
        assert nodes[victim]["incarnation"] == before
