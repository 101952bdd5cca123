"""Raft messages of somebody who knows the cluster's id, mutated: safety may be lost, as in every Raft; no process ends.

Some thousand here; more by hand: ``R2P2_HOSTILE_MESSAGES=300000 pytest tests/node/test_hostile_messages.py``.
"""

from __future__ import annotations

import os
import random

import pytest

from r2p2.apps.kv import encode_command
from tests.node.support import World
from tests.processes.hostile import flipped, golden, is_raft

COUNT = int(os.environ.get("R2P2_HOSTILE_MESSAGES", "2000"))
GROUP = 20


def forged(rng: random.Random, world: World, payload: bytes) -> bytes:
    """A golden Raft packet in this cluster's name, with some fields as they are in use now, and then bits flipped."""
    out = bytearray(payload)
    body = out[1]  # behind the header
    out[body + 4 : body + 8] = (1).to_bytes(4, "big")
    if rng.random() < 0.7:
        victim = rng.choice(sorted(world.nodes))
        out[body + 2 : body + 4] = victim.to_bytes(2, "big")
        if rng.random() < 0.7:
            out[body + 8 : body + 16] = world.nodes[victim].incarnation.to_bytes(8, "big")
    if rng.random() < 0.7:
        term = max(node.status().get("term", 0) for node in world.nodes.values()) + rng.choice((-1, 0, 0, 0, 1))
        out[body + 16 : body + 24] = max(term, 0).to_bytes(8, "big")
    return (
        flipped(rng, bytes(out[:8]), 1) + bytes(out[8:])
        if rng.random() < 0.1
        else (bytes(out[: body + 24]) + flipped(rng, bytes(out[body + 24 :]), 3))
    )


@pytest.mark.timeout(60 + COUNT / 50)
@pytest.mark.parametrize("seed", range(3))
def test_no_forged_message_ends_a_member(seed: int) -> None:
    rng = random.Random(seed)
    packets = [payload for payload in golden() if is_raft(payload)]
    with World(seed=100 + seed) as world:
        world.elect()
        for number in range(COUNT // GROUP):
            for _ in range(GROUP):
                target = world.addresses[rng.randrange(3)]
                source = rng.choice(list(world.addresses.values())) if rng.random() < 0.5 else (0x0A0000C8, 8000)
                world.network.inject(source, target, forged(rng, world, rng.choice(packets)))
            world.call(encode_command("SET", f"k{number % 50}", "v"), rng.randrange(3), ms=100)
            world.run(rng.choice((1, 5, 30)))
        assert len(world.nodes) == 3
        counters = [node.status()["counters"] for node in world.nodes.values()]
        assert sum(one.get("raft_bad_field", 0) + one.get("raft_bad_entries", 0) for one in counters) > 0
