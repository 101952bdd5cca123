"""Five members of a file: one is killed, one removed, one added; `status`, `top` and the metrics see each of it."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from r2p2 import cli
from r2p2.cluster.config import load
from r2p2.cluster.launcher import Launcher
from r2p2.cluster.metrics import READY_PREFIX
from r2p2.processes import Supervisor
from tests.cluster.test_local_cluster import r2p2
from tests.gateway.support import free_udp_ports

WAIT_SECONDS = 40


class Five:
    """A cluster of five, and a sixth address."""

    def __init__(self, folder: Path) -> None:
        self.addresses = [f"127.0.0.1:{port}" for port in free_udp_ports(6)]
        self.file = folder / "five.toml"
        self.write(range(5))

    def write(self, slots: range | list[int]) -> None:
        nodes = "".join(f'[[nodes]]\nslot = {slot}\naddress = "{self.addresses[slot]}"\n' for slot in slots)
        self.file.write_text(f'[cluster]\napp = "kv"\n{nodes}')

    def run(self, *words: str, code: int = 0) -> str:
        ended = r2p2(*words, "--config", str(self.file))
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout if code == 0 or ended.stdout else ended.stderr

    def look(self, *words: str) -> tuple[int, str]:
        """As :meth:`run`, without a process: it is done often."""
        with contextlib.redirect_stdout(io.StringIO()) as out:
            return cli.main([*words, "--config", str(self.file)]), out.getvalue()

    def top(self, code: int = 0) -> str:
        ended, text = self.look("top", "--count", "1", "--period", "0.3")
        assert ended == code, text
        return text

    def status(self) -> dict[str, Any]:
        code, text = self.look("status", "--json", "--timeout", "0.3")
        seen: dict[str, Any] = json.loads(text)
        return seen | {"code": code}

    def wait(self, healthy: bool, **kinds: str) -> dict[str, Any]:
        """Until the status is so, and the members are of these kinds, as in ``n3="down"``."""
        end = time.monotonic() + WAIT_SECONDS
        while True:
            seen = self.status()
            found = {f"n{self.addresses.index(address)}": one["kind"] for address, one in seen["members"].items()}
            if seen["healthy"] == healthy and kinds.items() <= found.items():
                assert seen["code"] == (0 if healthy else 1)
                return seen
            assert time.monotonic() < end, json.dumps(seen, indent=1)[:6000]

    def row(self, slot: int, text: str) -> str:
        (line,) = (line for line in text.splitlines() if line.startswith(f"{self.addresses[slot]}  {slot} "))
        return line


@pytest.fixture
def five(tmp_path: Path) -> Iterator[Five]:
    made = Five(tmp_path)
    yield made
    made.write(range(6))
    assert r2p2("cluster", "down", "--config", str(made.file)).returncode == 0


@pytest.mark.slow
def test_one_killed_one_removed_one_added(five: Five, tmp_path: Path) -> None:
    launcher = Launcher(load(five.file), tmp_path / ".r2p2" / "five")
    up = five.run("cluster", "up")
    assert up.count(" follower ") == 4
    with Supervisor(tmp_path / "logs") as supervisor:
        metrics = supervisor.start(
            "metrics",
            [sys.executable, "-m", "r2p2", "metrics", "--config", str(five.file), "--listen", "127.0.0.1:0"],
        )
        line = metrics.wait_line(lambda line: line.startswith(READY_PREFIX), WAIT_SECONDS)
        url = f"http://{line.removeprefix(READY_PREFIX).split()[0]}/metrics"

        def scrape() -> dict[str, float]:
            with urllib.request.urlopen(url, timeout=WAIT_SECONDS) as answer:
                lines = answer.read().decode().splitlines()
            return {name: float(value) for name, value in (x.rsplit(" ", 1) for x in lines if not x.startswith("#"))}

        def of(name: str, slot: int, scraped: dict[str, float]) -> float | None:
            return scraped.get(f'r2p2_{name}{{member="{five.addresses[slot]}"}}')

        seen = scrape()
        assert (seen["r2p2_healthy"], seen["r2p2_members"]) == (1.0, 5.0)

        # Killed: a member that is down, in every view.
        leader = five.status()["leader"]
        killed, removed = [slot for slot in range(5) if slot != leader][:2]
        five.run("cluster", "kill", str(killed))
        told = five.wait(False, **{f"n{killed}": "down"})
        assert "the leader has not heard of it for" in told["members"][five.addresses[killed]]["state"]
        top = five.top(1)
        assert top.startswith("NOT HEALTHY") and " down " in five.row(killed, top)
        seen = scrape()
        assert (seen["r2p2_healthy"], of("up", killed, seen), of("is_member", killed, seen)) == (0.0, 0.0, 1.0)
        silent = of("silent_seconds", killed, seen)
        assert silent is not None and silent > 0

        # Removed: no member any more, and the cluster is healthy without it. Twice is as once.
        five.run("cluster", "restart", str(killed))
        five.wait(True)
        said = five.run("cluster", "remove", str(removed))
        assert f"slot {removed} is not a member any more" in said and f"take node {removed} out of" in said
        assert launcher.pid(removed) is None
        told = five.wait(True, **{f"n{removed}": "no member"})
        assert any(f"{five.addresses[removed]} is named, but is no member" in note for note in told["notes"])
        top = five.top()
        assert top.startswith("healthy") and " no member " in five.row(removed, top)
        seen = scrape()
        assert (seen["r2p2_healthy"], seen["r2p2_members"]) == (1.0, 4.0)
        assert (of("up", removed, seen), of("is_member", removed, seen)) == (0.0, 0.0)
        again = five.run("cluster", "up")
        assert f"node {removed} is no member and was not started: r2p2 cluster add {removed}" in again
        assert launcher.pid(removed) is None

        # Added: with the old file it is found and asked all the same, with the new one it is one of its nodes.
        stays = [slot for slot in range(6) if slot != removed]
        five.write(stays)
        said = five.run("cluster", "add", "5")
        assert f"slot 5 at {five.addresses[5]} is a member" in said
        told = five.wait(True)
        assert set(told["members"]) == {five.addresses[slot] for slot in stays} and told["notes"] == []
        five.write([slot for slot in stays if slot != 5])
        told = five.wait(True)
        assert told["members"][five.addresses[5]]["state"] == "ok"
        assert told["notes"] == [f"slot 5 at {five.addresses[5]} is a member and is not in the file: add it there."]
        assert re.search(rf"^{five.addresses[5]}  5 ", five.top(), re.MULTILINE)
        seen = scrape()
        assert (seen["r2p2_healthy"], seen["r2p2_members"]) == (1.0, 5.0)
        assert (of("up", 5, seen), of("is_voter", 5, seen), of("is_learner", 5, seen)) == (1.0, 1.0, 0.0)

        # What was added comes back as any other.
        five.write(stays)
        refused = five.run("cluster", "add", "5", code=1)
        assert "node 5 at" in refused and "is a member already" in refused
        five.run("cluster", "kill", "5")
        five.run("cluster", "up")
        five.wait(True)
