"""What tests of members do again and again: fill a group, ask an operator's questions, see who votes."""

from __future__ import annotations

import json
from typing import Any

from r2p2.apps.kv import encode_command
from r2p2.engine import DONE_OK
from r2p2.node.own_requests import MEMBER_REQUEST
from tests.node.support import World

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
