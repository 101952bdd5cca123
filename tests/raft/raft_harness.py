"""A cluster on a perfect network and a hand-turned clock, for tests that say themselves what gets lost.

Every message goes through the codec, so what the core says is always legal on the wire.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from r2p2.sim.node import SimNode
from raft import (
    Append,
    Config,
    Identity,
    InstallSnapshot,
    Message,
    Role,
    decode,
    decode_configuration,
    encode,
    encode_configuration,
)

MS = 1_000_000
CLUSTER_ID = 0x51


def over_the_wire(message: Message) -> Message:
    """What the target would decode, with the target and the entries put back."""
    data = encode(message, Identity(CLUSTER_ID, message.sender, 1))
    further_bytes = message.bytes_count if isinstance(message, Append | InstallSnapshot) else 0
    decoded, _ = decode(data, len(data) + further_bytes, cluster_id=CLUSTER_ID)
    if isinstance(message, Append) and message.configuration is not None:
        assert isinstance(decoded, Append)
        decoded.configuration = decode_configuration(encode_configuration(message.configuration))
    return replace(decoded, target=message.target, request_id=message.request_id, payload=message.payload)


class Cluster:
    """Members 0..n-1. ``pass_on`` decides about each message; what it refuses is lost (and kept in ``lost``)."""

    def __init__(self, count: int = 3, *, seed: int = 1, sync_at_once: bool = True, **settings: object) -> None:
        """All fresh, at time 0."""
        self.now = 0
        self.seed = seed
        self.sync_at_once = sync_at_once
        self.settings = settings
        self.members = tuple(range(count))
        self.lost: list[Message] = []
        self.stopped: set[int] = set()  # as by SIGSTOP: they neither act nor hear; what is sent to them is lost
        self.pass_on: Callable[[Message], bool] = lambda message: True
        self.nodes = [self.start(i) for i in self.members]

    def start(self, i: int, disk: object = None) -> SimNode:
        """A new process for member i."""
        config = Config(i, self.members, **self.settings)  # type: ignore[arg-type]
        rng = random.Random(self.seed * 1000 + i)
        return SimNode(config, rng=rng, now_ns=self.now, disk=disk, sync_at_once=self.sync_at_once)  # type: ignore[arg-type]

    def join(self, sync_at_once: bool = True) -> SimNode:
        """A new process that is no member yet."""
        i = len(self.members)
        config = Config(i, self.members[:3], joining=True, **self.settings)  # type: ignore[arg-type]
        rng = random.Random(self.seed * 1000 + i)
        node = SimNode(config, rng=rng, now_ns=self.now, sync_at_once=sync_at_once)
        self.members = (*self.members, i)
        self.nodes.append(node)
        return node

    def settle(self, *, limit: int = 10_000) -> list[Message]:
        """Delivers until nobody has anything to say; returns all that was delivered."""
        delivered: list[Message] = []
        queue = [message for i in set(self.members) - self.stopped for message in self.nodes[i].work()]
        while queue:
            message = queue.pop(0)
            if message.target in self.stopped or not self.pass_on(message):
                self.lost.append(message)
                continue
            delivered.append(message)
            assert len(delivered) < limit, "the cluster does not come to rest"
            node = self.nodes[message.target]
            node.raft.step(over_the_wire(message), self.now)
            queue += node.work()
        return delivered

    def run(self, ms: int) -> list[Message]:
        """Time passes; deadlines are kept to the millisecond."""
        delivered: list[Message] = []
        for _ in range(ms):
            self.now += MS
            for i in set(self.members) - self.stopped:
                self.nodes[i].raft.tick(self.now)
            delivered += self.settle()
        return delivered

    def elect(self, i: int = 0) -> SimNode:
        """Makes member i leader; the others have heard nobody for long enough."""
        while leaders := self.leaders:  # they hear nobody, and step down in time
            self.now += leaders[0].config.heartbeat_ns
            for leader in leaders:
                leader.raft.tick(self.now)
                leader.work()  # nobody hears them either
        self.now += 1000 * MS
        node = self.nodes[i]
        node.raft.tick(self.now)
        self.settle()
        assert node.raft.role is Role.LEADER, node.raft.status()
        return node

    @property
    def leaders(self) -> list[SimNode]:
        """Whoever thinks so."""
        return [node for node in self.nodes if node.raft.role is Role.LEADER]

    def propose(self, *values: object) -> list[Message]:
        """At the one leader, then settle."""
        (leader,) = self.leaders
        leader.propose(values, self.now)
        return self.settle()

    def cut(self, *members: int) -> None:
        """These hear nobody and nobody hears them."""
        self.pass_on = lambda message: message.sender not in members and message.target not in members

    def heal(self) -> None:
        """Everything arrives again."""
        self.pass_on = lambda message: True
