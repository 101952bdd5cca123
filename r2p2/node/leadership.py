"""Who leads, as it concerns clients' requests: a leader's engine takes them, a follower's forwards them, and in between
they are held.

The engine is told when Raft's role changes, and so is the operator. Leaves to others: who leads (Raft), what is held
and for how long (the engine).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from r2p2.engine import ROLE_FOLLOWER, ROLE_HOLD, ROLE_LEADER, ROLE_NONE, Engine
from r2p2.node.log_time import LogTime
from r2p2.node.peers import Peers
from raft import Forward, Raft, Role, encode, slot_of

__all__ = ["Leadership"]

_COUNTS_BYTES: Final = 8
# A leader that has not been heard for so many heartbeats is probably gone: what is sent to it would be lost with it.
SILENT_HEARTBEATS: Final = 3


class Leadership:
    """Of one node's group.

    Args:
        slot: this member's.
        engine: is told.
        peers: where the leader is.
        time: is told, too: only a leader's application waits for a time.
        heartbeat_ns: Raft's.
        app_is_busy: whether the application may not be called now.
        on_event: told what an operator wants to know.

    Attributes:
        heard_ns: when the leader was last heard.
    """

    def __init__(
        self,
        slot: int,
        engine: Engine,
        peers: Peers,
        time: LogTime,
        *,
        heartbeat_ns: int,
        app_is_busy: Callable[[], bool],
        on_event: Callable[[str], None],
    ) -> None:
        self.heard_ns = 0
        self._slot = slot
        self._engine = engine
        self._peers = peers
        self._time = time
        self._silent_ns = SILENT_HEARTBEATS * heartbeat_ns
        self._app_is_busy = app_is_busy
        self._on_event = on_event
        self._role = ROLE_NONE
        self._leader_address: tuple[int, int] | None = None
        self._forward_header = b""
        self._told: tuple[Role, int, int | None] | None = None
        self._moved = False  # the members may be at other addresses than when the role was last told

    def hold(self) -> None:
        """Until a group has formed, requests wait within the bounds of a follower without a leader."""
        self._set_role(ROLE_HOLD)

    def moved(self) -> None:
        """The leader may be at another address now."""
        self._moved = True

    def follow(self, raft: Raft) -> None:
        """Tells the engine what to do with replicated requests, and the operator what has changed."""
        told = (raft.role, raft.term, raft.leader_id)
        if told == self._told and not self._moved:
            return
        on_event: Callable[[str], None] = self._on_event if told != self._told else lambda text: None
        self._told = told
        self._moved = False
        if self._time.tells_app and not self._app_is_busy():
            self._time.look(self._engine.now_ns(), leads=raft.role is Role.LEADER)
        if raft.role is Role.LEADER:
            self._set_role(ROLE_LEADER)
            on_event(f"leader of term {raft.term}")
        elif raft.leader_id is not None:
            # A process that waits to be let in may not know yet where its leader is.
            address = next(iter(self._peers.addresses.get(raft.leader_id, ())), None)
            self._leader_address = address
            forward = Forward(self._slot, raft.leader_id, raft.term, 0, 0)
            self._forward_header = encode(forward, self._peers.identity)[:-_COUNTS_BYTES]
            self._set_role(ROLE_FOLLOWER if address is not None else ROLE_HOLD)
            on_event(f"follows member {slot_of(raft.leader_id)} in term {raft.term}")
        else:
            self._set_role(ROLE_HOLD)
            on_event(f"knows no leader in term {raft.term} ({raft.role.value})")

    def _set_role(self, role: int) -> None:
        self._role = role
        self._engine.set_role(role)

    def forward(self, now_ns: int) -> None:
        """Sends held requests to the leader; not to one that has been silent: they keep until the next is known."""
        if self._role != ROLE_FOLLOWER or now_ns - self.heard_ns > self._silent_ns:
            return
        assert self._leader_address is not None
        while self._engine.forward_held(self._forward_header, self._leader_address):
            pass
