"""The engine's steady step is Python's: two nodes of the same past get the same datagrams, one takes them without the
step; every byte they send, and what they know, is the same. The usual and the unusual come mixed, several to a poll.

More by hand: ``R2P2_STEADY_SEEDS=1000 pytest tests/node/test_steady.py --timeout 900``.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from r2p2.apps.kv import encode_command
from r2p2.limits import PAYLOAD_BYTES_MAX
from r2p2.node import Node
from raft import Append, AppendReply, Identity, Message, PreVote, ReadIndex, encode, incarnation_of, slot_of
from tests.engine.support import packet
from tests.engine.test_logs_agree import wire
from tests.node.support import MS, World, group_of, replica_of

CLIENT = (0x0A000065, 9100)
SEEDS = int(os.environ.get("R2P2_STEADY_SEEDS", "12"))
DELAY_NS = 10_000
STATUS = ("role", "term", "leader", "log_last_index", "commit_index", "applied_index", "applied_digest", "state_digest")
TYPES = {1: 5, 2: 6, 4: 6, 5: 5, 6: 6, 7: 7, 10: 5}


class Lone:
    """A member whose fellows are gone: the test speaks for them."""

    def __init__(self, seed: int, *, leads: bool, steady: bool, **engine: int) -> None:
        size = 5 if seed % 2 else 3
        self.world = World(
            size,
            seed=seed,
            steady_step=steady,
            launch=False,
            **engine,  # type: ignore[arg-type]  # they are of EngineConfig alone
        )
        self.world.network.faults(delay_min_ns=DELAY_NS, delay_max_ns=DELAY_NS)
        for i in range(size):
            self.world.launch(i)
        leader = self.world.elect()
        self.here = leader if leads else (leader + 1) % size
        self.address = self.world.addresses[self.here]
        self.node: Node = self.world.nodes[self.here]
        self.raft = raft = replica_of(self.node).raft
        group = group_of(self.node)
        self.leader = raft.leader_id if raft.leader_id is not None else group.member
        self.others = sorted(group.peers.addresses.keys() - {group.member})
        self.other_incarnations = {slot_of(member): incarnation_of(member) for member in self.others}
        for i in range(size):
            if i != self.here:
                self.world.kill(i)
        if not leads:  # in a later term, so that there are older ones to be wrong about
            append = Append(self.leader, 0, 5, raft.last_index, raft.term, 5, raft.commit_index, 0, 999, 1, 16)
            self.say(append, 1, wire(None))
            self.poll(DELAY_NS)
            assert raft.term == 5
        self.look()

    def close(self) -> None:
        self.world.__exit__(None, None, None)

    def put(self, source: tuple[int, int], datagram: bytes) -> None:
        self.world.network.inject(source, self.address, datagram)

    def say(self, message: Message, rid: int, entries: bytes = b"") -> None:
        """A message of a fellow, in as many packets as it takes."""
        slot = slot_of(message.sender)
        data = encode(message, Identity(1, slot, self.other_incarnations[slot])) + entries
        parts = [data[i : i + PAYLOAD_BYTES_MAX] for i in range(0, len(data), PAYLOAD_BYTES_MAX)]
        for i, part in enumerate(parts):
            first, last = i == 0, i == len(parts) - 1
            order = len(parts) if first else i
            self.put(
                self.world.addresses[slot],
                packet(TYPES[message.KIND], 1, rid, part, first=first, last=last, order=order),
            )

    def poll(self, ns: int) -> None:
        self.world.network.advance(ns)
        while self.node.poll_once():
            pass

    def look(self) -> tuple[list[Any], dict[str, object]]:
        """What was sent since the last look, in no order, and what is known."""
        sent = sorted(
            (one.target_ip, one.target_port, one.payload)
            for one in self.node.engine.capture_take()[0]
            if one.source_ip == self.address[0]
        )
        status = self.node.status(with_state=True)
        known = {name: status[name] for name in STATUS} | {"ignored": dict(self.raft.ignored)}
        if not self.node.is_leader:  # whose is moved when it is next told to others
            known["global_commit"] = status["global_commit"]
        return sent, known


Script = Callable[[random.Random, Lone, int], None]


def entries_of(rng: random.Random, number: int) -> tuple[int, bytes]:
    count = rng.choice((1, 1, 2, 20, 60))
    bodies = [wire(encode_command("SET", f"k{rng.randrange(50)}", f"{number}:{i}")) for i in range(count)]
    return count, b"".join(bodies)


def to_a_follower(rng: random.Random, lone: Lone, number: int) -> None:
    """One message, mostly the next Append; what it says follows from the member's own log, which both share."""
    raft = lone.raft
    term, last = raft.term, raft.last_index + lone_ahead(lone)
    count, entries = entries_of(rng, number)
    chance = rng.random()
    commit = max(raft.commit_index, last + rng.randint(-3, count + 3))
    everywhere = min(commit, max(0, raft.applied_index + rng.randint(-9, 3)))
    prev, prev_term, entries_term = last, term, term
    if chance < 0.06:
        prev = max(raft.commit_index, last - 2)  # what is here already
    elif chance < 0.12:
        prev = last + 3  # a gap
    elif chance < 0.18:
        count, entries, entries_term = 0, b"", 0  # a heartbeat
    elif chance < 0.21:
        entries = entries[:-8] + b"\1" * 8  # no entries
    elif chance < 0.23:
        count += 1
    elif chance < 0.25:
        asks = next(member for member in lone.others if member != lone.leader)
        lone.say(PreVote(asks, 0, term + 1, last + 5, term), number)
        return
    elif chance < 0.27:
        everywhere = commit + 1  # malformed
    elif chance < 0.29:
        prev_term = term - 1 or 1
    elif chance < 0.30:
        term -= 1
    elif chance < 0.31:
        entries_term = term - 1
    append = Append(
        lone.leader, 0, term, prev, prev_term, entries_term, commit, everywhere, number + 1_000, count, len(entries)
    )
    if 0.31 < chance < 0.33:
        append.round = 0
    lone.say(append, number & 0xFFFF, entries)
    if chance > 0.97:
        lone.say(append, number & 0xFFFF, entries)  # twice
    if chance > 0.33 or chance < 0.18:
        AHEAD[lone] = AHEAD.get(lone, 0) + (count if prev == last else 0)


AHEAD: dict[Lone, int] = {}


def lone_ahead(lone: Lone) -> int:
    """Entries on their way: said since the last poll."""
    return AHEAD.get(lone, 0)


def to_a_leader(rng: random.Random, lone: Lone, number: int) -> None:
    raft = lone.raft
    chance = rng.random()
    if chance < 0.35:
        for i in range(rng.choice((1, 1, 8, 40))):
            body = encode_command("SET", f"k{rng.randrange(50)}", f"{number}:{i}")
            lone.put(CLIENT, packet(0, 2, (number * 40 + i) & 0xFFFF, body))
        return
    if chance < 0.37:
        lone.put(CLIENT, packet(0, 3, number & 0xFFFF, encode_command("GET", "k1")))
        return
    member = rng.choice(lone.others)
    peer = raft.peer(member)
    if peer is None:
        return
    match = rng.choice((raft.last_index, raft.last_index, max(peer.match_index, raft.last_index - rng.randint(0, 50))))
    applied = max(0, min(raft.commit_index, match) - rng.randint(0, 30))
    if rng.random() < 0.15:
        match = rng.randint(0, match)  # of an older Append, whose answer was on its way for long
        applied = rng.choice((applied, rng.randint(raft.commit_index, raft.last_index)))  # as of an older leader's
    reply = AppendReply(member, 0, raft.term, max(1, raft.round - rng.choice((0, 0, 1, 5))), match, 0, 0, applied, True)
    if chance < 0.40:
        reply.accepted = False
        reply.hint_index = rng.randint(0, match)
    elif chance < 0.42:
        reply.round += 1_000
    elif chance < 0.44:
        reply.match_index += 1_000
    elif chance < 0.46:
        reply.term -= 1
    elif chance < 0.48:
        lone.say(ReadIndex(member, 0, raft.term, number), number & 0xFFFF)
        return
    elif chance < 0.50:
        reply.hint_index = 3
    elif chance < 0.502:
        reply.term += 1  # and the office is lost
    lone.say(reply, number & 0xFFFF)
    if chance > 0.95:
        lone.say(reply, number & 0xFFFF)


def run(seed: int, script: Script, *, leads: bool, polls: int = 250) -> tuple[int, int]:
    """(steps that the engine took, last index)."""
    pair = [Lone(seed, leads=leads, steady=steady) for steady in (False, True)]
    steps = 0
    try:
        plain, steady = pair
        engine = steady.node.engine
        before = engine.poll

        def counted() -> list[int]:
            nonlocal steps
            result = before()
            steps += result[9] != 0
            return result

        engine.poll = counted  # type: ignore[method-assign]
        assert plain.look()[1] == steady.look()[1]
        rngs = [random.Random(seed), random.Random(seed)]
        number = 0
        for _ in range(polls):
            if plain.raft.role.value not in ("leader", "follower") or plain.node.is_leader != leads:
                break
            for rng, lone in zip(rngs, pair, strict=True):
                # What is due goes first, by itself: a heartbeat and entries in one poll have no order of their own.
                lone.poll(rng.choice((20_000, 20_000, 700_000, 12 * MS)))
                while lone.raft.deadline_ns <= lone.world.network.now_ns + DELAY_NS:
                    lone.poll(DELAY_NS)
                count = rng.choice((1, 1, 1, 2, 3))
                AHEAD.pop(lone, None)
                for i in range(count):
                    script(rng, lone, number + i)
                lone.poll(DELAY_NS)
            number += count
            seen, also_seen = plain.look(), steady.look()
            assert seen[1] == also_seen[1], f"after {number} messages"
            assert seen[0] == also_seen[0], f"after {number} messages"
        return steps, plain.raft.last_index
    finally:
        AHEAD.clear()
        for lone in pair:
            lone.close()


@pytest.mark.parametrize("steady_step", [True, False])
def test_members_under_load_take_it(steady_step: bool) -> None:
    """All of them, nearly always; unless they are told not to."""
    with World(seed=3, steady_step=steady_step) as world:
        leader = world.elect()
        for number in range(200):
            assert world.ask(encode_command("SET", "k", str(number)), leader) == (0, b"+OK\r\n")
        world.run(30)
        steps = [node.status()["counters"].get("steady_steps", 0) for node in world.nodes.values()]
        assert min(steps) > 180 if steady_step else max(steps) == 0
        assert len(world.digests()) == 1


@pytest.mark.parametrize(("script", "leads"), [(to_a_follower, False), (to_a_leader, True)])
def test_it_sends_the_same(script: Script, leads: bool) -> None:
    ran = [run(seed, script, leads=leads) for seed in range(SEEDS)]
    assert sum(steps for steps, _ in ran) > 30 * SEEDS
    assert sum(last_index for _, last_index in ran) > 500 * SEEDS
