"""Hello and Formed between processes that are not in a group yet and those that are: whom this one asks, and whose word
it takes.

Leaves to others: the rules (:mod:`r2p2.node.forming`), what a member makes of a Hello
(:mod:`r2p2.node.membership`), sending (:mod:`r2p2.node.peers`).
"""

from __future__ import annotations

import logging
from typing import Any, Final

from r2p2 import limits
from r2p2.address import format_address
from r2p2.node.config import NodeConfig
from r2p2.node.forming import ELSEWHERE, Forming
from r2p2.node.peers import Peers
from raft import Formed, Hello, slot_of

__all__ = ["Hellos"]

log = logging.getLogger("r2p2.node")


class Hellos:
    """Of one launch.

    Args:
        config: whom to ask.
        incarnation: this launch's.
        can_join: whether this process could be brought up by a group that stands.
        peers: sends.
        counters: the node's.
        now_ns: the time.

    Attributes:
        forming: how far it has come.
    """

    COUNTERS: Final = ("raft_drop_forming",)

    def __init__(
        self,
        config: NodeConfig,
        incarnation: int,
        peers: Peers,
        counters: dict[str, int],
        now_ns: int,
        *,
        can_join: bool,
    ) -> None:
        # By slot, or, where the slots are not known yet, by number.
        self._addresses = dict(enumerate(config.join)) if config.join else dict(config.members)
        self._slot = config.node_id
        self._is_joining = bool(config.join)
        self._strange: set[tuple[int, tuple[int, int]]] = set()  # slots and addresses that are not on our list
        self._elsewhere: dict[tuple[int, int], None] = {}  # who has told of the cluster unasked
        self._peers = peers
        self._counters = counters
        self.forming = Forming(
            config.node_id,
            tuple(sorted(self._addresses)),
            incarnation,
            now_ns,
            join=bool(config.join),
            can_join=can_join,
        )
        for name in self.COUNTERS:
            counters.setdefault(name, 0)

    @property
    def asked(self) -> tuple[tuple[int, int], ...]:
        """The addresses of those that are asked."""
        return tuple(self._addresses.values())

    @property
    def elsewhere(self) -> tuple[tuple[int, int], ...]:
        """The addresses of those that have told of the cluster unasked, and are asked from then on."""
        return tuple(self._elsewhere)

    def receive(self, message: Hello | Formed, incarnation: int, address: tuple[int, int], now_ns: int) -> None:
        """Takes one in that the gateway has let through.

        Raises:
            SupersededError: a cluster stands without this launch, and cannot take it in.
        """
        forming = self.forming
        if isinstance(message, Hello) and forming.incarnations is None and not self._is_joining:
            self._compare(slot_of(message.sender), address)
        if (
            isinstance(message, Formed)
            and forming.incarnations is None
            and address not in self._elsewhere
            and address not in self._addresses.values()
        ):
            if not forming.knows(message):
                self._counters["raft_drop_forming"] += 1
                return
            if len(self._elsewhere) == limits.TARGETS_MAX:  # who leads now tells again, so the oldest may go
                del self._elsewhere[next(iter(self._elsewhere))]
            self._elsewhere[address] = None
        forming.receive(message, slot_of(message.sender), incarnation, now_ns)

    def _compare(self, slot: int, address: tuple[int, int]) -> None:
        """Two lists of members that differ form no cluster, and whoever wrote them waits and sees nothing."""
        ours = self._addresses.get(slot)
        if ours == address:
            return
        if ours is None or slot == self._slot:
            self._counters["raft_drop_forming"] += 1
        if (slot, address) in self._strange or len(self._strange) == limits.TARGETS_MAX:
            return
        self._strange.add((slot, address))
        here = "there is none" if ours is None else f"that is {format_address(ours)}"
        log.warning(
            "%s says that it is member %d; in the list of members here %s: all members need one list, in one order",
            format_address(address),
            slot,
            here,
        )

    def send(self, now_ns: int) -> None:
        """Sends what is due."""
        self.forming.tick(now_ns)
        for message in self.forming.take_messages():
            if message.target == ELSEWHERE:
                targets = self.elsewhere
            else:
                address = self._addresses.get(message.target)
                targets = () if address is None else (address,)
            if targets:
                self._peers.send(message, targets)

    def status(self) -> dict[str, Any]:
        """As JSON can say it."""
        forming = self.forming
        return {
            "formed": forming.incarnations is not None,
            "joining": forming.incarnations is None and forming.joining is not None,
            "waiting_for": list(forming.waiting_for),
        }
