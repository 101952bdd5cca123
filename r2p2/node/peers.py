"""The other processes of a group, as messages go to them: where each is, and sending.

Leaves to others: what is said and to whom (Raft, :mod:`r2p2.node.hellos`), where members are (the configuration),
packets and entries (the engine).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from r2p2 import limits
from r2p2.engine import Engine
from r2p2.node.configurations import addresses_of
from r2p2.node.incoming import R2P2_TYPES
from raft import Append, Configuration, Identity, InstallSnapshot, Message, encode

__all__ = ["Peers"]

# Addresses of members that have left are kept for their last messages, so many in all.
ADDRESSES_MAX: Final = 128
_REPLY: Final = 6
_RID_MASK: Final = 0xFFFF


class Peers:
    """The peers of one member.

    Args:
        engine: sends.
        cluster_id: of the group.
        counters: the node's.

    Attributes:
        identity: this launch's, in every message.
        addresses: member -> where it is: one address, or none while another launch lives there.
        rid: of the last message that was sent.
        chunk: gives the bytes of a piece of a snapshot; None: it is not held any more.
    """

    COUNTERS: Final = ("raft_drop_stranger", "appends_sent", "append_entries")

    def __init__(self, engine: Engine, cluster_id: int, counters: dict[str, int]) -> None:
        self.identity = Identity(cluster_id, 0, 0)
        self.addresses: dict[int, tuple[tuple[int, int], ...]] = {}
        self.rid = 0
        self.chunk: Callable[[InstallSnapshot], bytes | None] = lambda message: None
        self._engine = engine
        self._cluster_id = cluster_id
        self._asked: tuple[tuple[int, int], ...] = ()
        self._counters = counters
        for name in self.COUNTERS:
            counters.setdefault(name, 0)

    # ---- who and where ----

    def begin(self, identity: Identity, asked: Iterable[tuple[int, int]]) -> None:
        """A launch begins: nobody is known but those ``asked``, who are to be heard in any case."""
        self.identity = identity
        self.addresses = {}
        self._asked = tuple(asked)
        self._tell_engine(())

    def configured(self, configuration: Configuration) -> None:
        """Another configuration is in force: where its members are."""
        where = addresses_of(configuration)
        # One address has one living member, the newest: what is meant for its dead predecessor is not sent.
        living: dict[tuple[int, int], int] = {}
        for member in (*configuration.outgoing, *configuration.voters, *configuration.learners):
            if member in where:
                living[where[member]] = member
        self.addresses |= {m: (where[m],) if living[where[m]] == m else () for m in where}
        members = set(configuration.members)
        if len(self.addresses) >= ADDRESSES_MAX:
            self.addresses = {m: address for m, address in self.addresses.items() if m in members}
        self._tell_engine(where.values())

    def _tell_engine(self, members: Iterable[tuple[int, int]]) -> None:
        """The engine's part of the gateway: whose messages are taken in, and for whom there is room in any case."""
        known = dict.fromkeys((*members, *self._asked))
        self._engine.set_group(self._cluster_id, list(known)[: limits.PEERS_MAX])

    def can_answer(self, sender: int, address: tuple[int, int]) -> bool:
        """Where a sender is to be answered: members are where the configuration says. Others may be in one that has
        not come here yet, as the leader of a process that waits to be let in.
        """
        if sender not in self.addresses:
            if len(self.addresses) >= ADDRESSES_MAX:
                self._counters["raft_drop_stranger"] += 1
                return False
            self.addresses[sender] = (address,)
        return True

    # ---- sending ----

    def next_rid(self) -> int:
        """Of a message that is about to be sent, or that the engine has sent by itself."""
        rid = self.rid = (self.rid + 1) & _RID_MASK
        return rid

    def send_all(self, messages: list[Message]) -> None:
        """Sends messages; Appends that differ in their target alone (same round) go out as one."""
        addresses = self.addresses
        count = len(messages)
        i = 0
        while i < count:
            message = messages[i]
            i += 1
            targets = addresses.get(message.target, ())
            if isinstance(message, Append):
                while i < count:
                    other = messages[i]
                    if not isinstance(other, Append) or other.round != message.round:
                        break
                    targets += addresses.get(other.target, ())
                    i += 1
            if targets:
                self.send(message, targets)

    def send(self, message: Message, targets: tuple[tuple[int, int], ...]) -> None:
        """Sends one to addresses."""
        header = encode(message, self.identity)
        r2p2_type = R2P2_TYPES[message.KIND]
        rid = message.request_id if r2p2_type == _REPLY else self.next_rid()
        if isinstance(message, InstallSnapshot):
            chunk = self.chunk(message)
            if chunk is not None:
                self._engine.raft_send(r2p2_type, rid, header + chunk, targets)
        elif isinstance(message, Append) and message.count:
            self._counters["appends_sent"] += 1
            self._counters["append_entries"] += message.count
            first = message.prev_index + 1
            self._engine.raft_send(r2p2_type, rid, header, targets, first, message.prev_index + message.count)
        else:
            self._engine.raft_send(r2p2_type, rid, header, targets)
