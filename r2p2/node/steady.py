"""The node's side of the steady step: the engine is told when it may take it, and Raft what was done.

A poll of the engine may take in Appends, count answers and send what came in without asking (``r2p2/csrc/
r2p2_steady.c``); :meth:`SteadyStep.take` tells Raft, before anything else is done. After whatever else the node did
with Raft, :meth:`SteadyStep.arm` says anew whether, and with what, that may go on.

Leaves to others: the rules (``raft/steady.py``); bytes (the engine).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from r2p2.engine import STEADY_FOLLOWED, STEADY_HEAD_BYTES, STEADY_SENT, Engine
from raft import Append, AppendReply, Identity, Raft, common_head, incarnation_of, slot_of
from raft.codec import COMMON_BYTES

__all__ = ["SteadyStep"]

# With room for fewer Appends than this the engine is told how much there is.
ROOM_LOW: Final = 16
assert STEADY_HEAD_BYTES == COMMON_BYTES

Addresses = Mapping[int, tuple[tuple[int, int], ...]]


class SteadyStep:
    """Of one member."""

    def __init__(self, engine: Engine, identity: Identity, counters: dict[str, int]) -> None:
        """``counters``: the node's."""
        self._engine = engine
        self._identity = identity
        self._counters = counters
        self._peers: list[int] = []
        self._armed = False

    def take(self, raft: Raft, done: int, last_index: int, now_ns: int) -> bool:
        """Tells Raft what the last poll has done; ``last_index``: of the engine's log. True: it heard its leader."""
        self._counters["steady_steps"] += 1
        commit_index, global_commit, _, room, sent_bytes, answered_mask = self._engine.steady()
        if done & STEADY_FOLLOWED:
            raft.followed(last_index, commit_index, global_commit, now_ns)
            return True
        if answered_mask:
            peers, answers = self._peers, self._engine.steady_answers()
            raft.answered(
                [
                    (peers[i], answers[3 * i], answers[3 * i + 1], answers[3 * i + 2])
                    for i in range(len(peers))
                    if answered_mask >> i & 1
                ],
                now_ns,
                sent_next=done & STEADY_SENT != 0,
            )
        if done & STEADY_SENT:
            self._counters["appends_sent"] += 1
            self._counters["append_entries"] += last_index - raft.last_index
            raft.sent(last_index, sent_bytes, global_commit, now_ns)
        if room < ROOM_LOW:
            self._engine.steady_room(raft.appends_room())
        return False

    def arm(self, raft: Raft, addresses: Addresses, rid: int) -> None:
        """Tells the engine what it may do from now on; ``rid``: of the last message that was sent."""
        engine = self._engine
        if raft.last_index == engine.log_last_index:
            if raft.follows_steadily and self._follow(raft, addresses):
                return
            if raft.leads_steadily and self._lead(raft, addresses, rid):
                return
        if self._armed:
            self._armed = False
            engine.steady_off()

    def _head(self, kind: int, member: int, term: int) -> bytes:
        identity = Identity(self._identity.cluster_id, slot_of(member), incarnation_of(member))
        return common_head(kind, term, identity)

    def _follow(self, raft: Raft, addresses: Addresses) -> bool:
        leader = raft.leader_id
        assert leader is not None
        address = addresses.get(leader, ())
        if len(address) != 1:
            return False
        self._engine.steady_follow(
            self._head(Append.KIND, leader, raft.term),
            common_head(AppendReply.KIND, raft.term, self._identity),
            address,
            raft.commit_index,
            raft.global_commit,
        )
        self._armed = True
        return True

    def _lead(self, raft: Raft, addresses: Addresses, rid: int) -> bool:
        peers = raft.steady_peers()
        targets: tuple[tuple[int, int], ...] = ()
        for member, _, _ in peers:
            targets += addresses.get(member, ())
        if len(targets) != len(peers):
            return False
        self._peers = [member for member, _, _ in peers]
        self._engine.steady_lead(
            common_head(Append.KIND, raft.term, self._identity),
            b"".join(self._head(AppendReply.KIND, member, raft.term) for member in self._peers),
            targets,
            [index for _, match, applied in peers for index in (match, applied)],
            raft.commit_index,
            raft.global_commit,
            raft.round,
            rid,
            raft.appends_room(),
        )
        self._armed = True
        return True
