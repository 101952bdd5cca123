"""Whole nodes on bad days, from seeds: kills, cuts, loss, operators' requests, logs that are soon full.

Then all is well again, and every member is in sync with all that was acknowledged; no read had missed any of it.
The core's own days are the simulator's; these have the engine, snapshots of an application, forming and membership.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from r2p2.address import format_address
from r2p2.apps.kv import KeyValue, encode_command
from r2p2.engine import DONE_OK
from r2p2.node.forming import RemovedError
from r2p2.node.own_requests import MEMBER_REQUEST
from tests.node.support import MS, World

DAYS = int(os.environ.get("R2P2_BAD_DAYS", "6"))
STEPS = 60


class Day:
    """One world, what is wrong with it, and what clients were told."""

    def __init__(self, seed: int, storage: Path | None) -> None:
        self.rng = rng = random.Random(seed)
        self.storage = storage
        self.world = World(
            rng.choice((3, 3, 4, 5)),
            seed=seed,
            storage=storage,
            truncation=rng.choice(("snapshot", "snapshot", "evict", "block")),
            log_bytes_max=rng.choice((40_000, 64_000, 200_000)),
            steady_step=rng.random() < 0.7,
        )
        self.down: set[int] = set()
        self.cut: set[int] = set()
        self.gone: set[int] = set()  # removed or evicted
        self.acknowledged: dict[str, str] = {}
        self.writes: dict[int, tuple[str, str]] = {}
        self.reads: dict[int, tuple[str, str]] = {}
        self.written = 0

    def run(self, ms: float) -> None:
        """Time passes; who is removed ends."""
        world = self.world
        end_ns = world.network.now_ns + ms * MS
        while world.network.now_ns < end_ns:
            try:
                world.run((end_ns - world.network.now_ns) / MS)
            except RemovedError as error:
                slot = int(error.message.split()[1])
                world.kill(slot)
                self.gone.add(slot)
                if self.storage is not None:
                    shutil.rmtree(self.storage / f"member{slot}")
        ended = world.client.ended
        for tag in [tag for tag in self.writes if tag in ended]:
            key, value = self.writes.pop(tag)
            if ended[tag] == (DONE_OK, b"+OK\r\n"):
                self.acknowledged[key] = value
        for tag in [tag for tag in self.reads if tag in ended]:
            key, value = self.reads.pop(tag)
            status, reply = ended[tag]
            assert status != DONE_OK or value.encode() in reply, f"a stale read of {key}: {reply!r}"

    # ---- what happens ----

    def write(self) -> None:
        to = self.rng.choice(sorted(self.world.nodes))
        for _ in range(self.rng.choice((1, 5, 40))):
            self.written += 1
            key, value = f"k{self.written}", f"v{self.written}." + "x" * self.rng.choice((1, 100, 700))
            self.writes[self.world.call(encode_command("SET", key, value), to, ms=1500)] = key, value

    def read(self) -> None:
        if self.acknowledged:
            key = self.rng.choice(list(self.acknowledged)[-20:])
            tag = self.world.call(encode_command("GET", key), self.rng.choice(sorted(self.world.nodes)), 3, 800)
            self.reads[tag] = key, self.acknowledged[key]

    def kill(self) -> None:
        """Members in memory one at a time, and not before the last one is a voter again."""
        nodes = self.world.nodes
        if self.storage is None and (
            len(nodes) < 3
            or self.down
            or self.cut
            or self.gone
            or not all(n.status().get("voter") for n in nodes.values())
        ):
            return
        if len(nodes) > 1:
            slot = self.rng.choice(sorted(nodes))
            self.heal(slot)
            self.world.kill(slot)
            self.down.add(slot)

    def launch(self) -> None:
        if self.down:
            slot = self.rng.choice(sorted(self.down))
            self.down.remove(slot)
            self.world.launch(slot)

    def cut_off(self) -> None:
        if not (self.cut or self.down or self.gone):
            slot = self.rng.choice(sorted(self.world.nodes))
            self.cut.add(slot)
            self.world.cut_off(self.world.addresses[slot][0])

    def heal(self, slot: int | None = None) -> None:
        for healed in self.cut & ({slot} if slot is not None else self.cut):
            self.cut.remove(healed)
            self.world.cut_off(self.world.addresses[healed][0], blocked=False)

    def weather(self) -> None:
        self.world.network.faults(
            loss_ppm=self.rng.choice((0, 0, 20_000, 200_000)),
            duplicate_ppm=self.rng.choice((0, 100_000)),
            reorder_ppm=self.rng.choice((0, 100_000)),
            delay_min_ns=5_000,
            delay_max_ns=self.rng.choice((60_000, 600_000, 3 * MS)),
        )

    def transfer(self) -> None:
        self.ask("transfer", self.rng.choice(sorted(self.world.nodes)))

    def remove(self) -> None:
        if len(self.world.nodes) > 3 and not (self.down or self.cut or self.gone):
            self.ask("remove", self.rng.choice(sorted(self.world.nodes)))

    def add(self) -> None:
        if self.gone and self.world.nodes:
            slot = self.gone.pop()
            self.world.launch(slot, join=True)
            self.ask("add", slot)

    def ask(self, op: str, slot: int) -> None:
        leader = self.world.leader
        if leader is not None:
            asked = {"op": op, "slot": slot, "address": format_address(self.world.addresses[slot])}
            self.world.call(MEMBER_REQUEST + json.dumps(asked).encode(), leader, policy=1)

    # ---- and in the end ----

    def is_whole(self) -> bool:
        nodes = self.world.nodes
        return (
            not self.gone
            and self.world.leader is not None
            and all(node.status().get("voter") for node in nodes.values())
            and len(self.world.digests()) == 1
        )

    def recover(self) -> None:
        """Everybody is back, and asked for where it is no member."""
        self.world.network.faults(delay_min_ns=5_000, delay_max_ns=60_000)
        self.heal()
        while self.down:
            self.launch()
        end_ns = self.world.network.now_ns + 30_000 * MS
        while not self.is_whole():
            assert self.world.network.now_ns < end_ns, f"not whole: {self.world.events[-12:]}"
            self.run(1000)
            while self.gone and self.world.leader is not None:
                self.add()
            for slot in [slot for slot, node in self.world.nodes.items() if not node.status().get("voter")]:
                self.ask("add", slot)


ACTIONS: list[tuple[Callable[[Day], None], int]] = [
    (Day.write, 45),
    (Day.read, 15),
    (Day.kill, 10),
    (Day.launch, 8),
    (Day.cut_off, 6),
    (Day.heal, 6),
    (Day.weather, 4),
    (Day.transfer, 2),
    (Day.remove, 2),
    (Day.add, 4),
]


@pytest.mark.parametrize("seed", range(1, DAYS + 1))
@pytest.mark.parametrize("durable", [False, True], ids=["in memory", "durable"])
def test_what_was_acknowledged_is_there_when_the_day_is_over(seed: int, durable: bool, tmp_path: Path) -> None:
    day = Day(seed, tmp_path if durable else None)
    with day.world as world:
        world.elect()
        actions, weights = zip(*ACTIONS, strict=True)
        for _ in range(STEPS):
            if world.nodes:
                day.rng.choices(actions, weights)[0](day)
            day.run(day.rng.choice((1, 5, 20, 100, 400)))
        day.recover()
        assert day.acknowledged
        for node in world.nodes.values():
            app = node.app
            assert isinstance(app, KeyValue)
            missed = [k for k, v in day.acknowledged.items() if app.store.table.get(k.encode()) != v.encode()]
            assert not missed
