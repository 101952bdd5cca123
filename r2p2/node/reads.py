"""Linearizable reads at one member: groups of them, from their arrival to their answer (docs/reads.md).

All requests of policy 3 that have arrived become one group. Raft gives the group an index (ReadIndex, dissertation
6.4): what was committed when a leader proved, after the group's arrival, that it still leads. Once this member has
applied that much, its application answers the whole group from its own state. Nothing of it enters the log, and no
read travels to another member: a follower asks its leader for the index alone.

Groups are few (``limits.READ_GROUPS_MAX``): while all of them wait, the next one grows in the engine, so the work of
confirming is shared by more reads the more of them come. A question or its answer may be lost: it is asked again, with
a ticket of its own. A group that nobody confirms in time is refused.

Left to others: gathering and its bounds (``csrc/r2p2_reads.c``), the index (``raft/reads.py``).
"""

from __future__ import annotations

import logging
from typing import Final

from r2p2 import limits
from r2p2.app import ApplicationFailed, StateMachine
from r2p2.engine import Engine
from r2p2.requests import Requests
from raft import Raft, Role

__all__ = ["ReadGroups"]

log = logging.getLogger("r2p2.reads")


class _Group:
    """Reads that are confirmed and answered together.

    ``index`` is None until a leader has confirmed one of ``tickets``; ``ask_ns``: when to ask (again).
    """

    __slots__ = ("ask_ns", "askers", "end_ns", "index", "requests", "tickets")

    def __init__(self, requests: Requests, askers: bytes, now_ns: int, end_ns: int) -> None:
        self.requests = requests
        self.askers = askers
        self.ask_ns = now_ns
        self.end_ns = end_ns
        self.index: int | None = None
        self.tickets: list[int] = []


class ReadGroups:
    """The groups of one member that are not answered yet.

    Args:
        engine: gathers the reads and sends the answers.
        app: answers them (:meth:`~r2p2.app.StateMachine.query_batch`).
        heartbeat_ns: Raft's; a question is repeated after ``limits.READ_RETRY_HEARTBEATS`` of them.
        hold_timeout_ns: how long a group waits for a leader's word before it is refused.

    Attributes:
        waiting: the groups, oldest first; at most ``limits.READ_GROUPS_MAX``.
        counters: read_groups (groups taken), reads_asked_again, reads_failed (answered with an error: the application
            raised).
    """

    def __init__(self, engine: Engine, app: StateMachine, *, heartbeat_ns: int, hold_timeout_ns: int) -> None:
        self.waiting: list[_Group] = []
        self.counters = {"read_groups": 0, "reads_asked_again": 0, "reads_failed": 0}
        self._engine = engine
        self._app = app
        self._retry_ns: Final = limits.READ_RETRY_HEARTBEATS * heartbeat_ns
        self._hold_timeout_ns: Final = hold_timeout_ns
        self._by_ticket: dict[int, _Group] = {}

    @property
    def deadline_ns(self) -> int | None:
        """When :meth:`ask` and :meth:`serve` are due even if nothing arrives; None: never."""
        return min((min(g.ask_ns, g.end_ns) if g.index is None else g.end_ns for g in self.waiting), default=None)

    def ask(self, raft: Raft, now_ns: int, gathered: int) -> None:
        """Takes what has been gathered (``gathered`` reads) as a group, and asks for the indices that are due.

        Call it before Raft's Ready is carried out: the questions, and the leader's rounds, travel with it.
        """
        if gathered and len(self.waiting) < limits.READ_GROUPS_MAX:
            requests, askers = self._engine.take_reads()
            self.waiting.append(_Group(requests, askers, now_ns, now_ns + self._hold_timeout_ns))
            self.counters["read_groups"] += 1
        if raft.role is not Role.LEADER and raft.leader_id is None:
            for group in self.waiting:  # not due before a leader is known: the deadline must not spin
                group.ask_ns = max(group.ask_ns, now_ns + self._retry_ns) if not group.tickets else group.ask_ns
            return
        for group in self.waiting:
            if group.index is None and (now_ns >= group.ask_ns or not group.tickets):
                ticket = raft.read_index(now_ns)
                if group.tickets:
                    self.counters["reads_asked_again"] += 1
                group.tickets.append(ticket)
                group.ask_ns = now_ns + self._retry_ns
                self._by_ticket[ticket] = group

    def confirmed(self, reads: tuple[tuple[int, int], ...], failed: tuple[int, ...]) -> None:
        """What a Ready says: (ticket, index) of groups that may be answered, tickets that nobody will confirm."""
        for ticket in failed:
            group = self._by_ticket.pop(ticket, None)
            if group is not None:
                group.tickets.remove(ticket)
        for ticket, index in reads:
            group = self._by_ticket.get(ticket)
            if group is not None:
                group.index = index
                self._forget_tickets(group)

    def serve(self, applied_index: int, now_ns: int) -> None:
        """Answers the groups whose index is applied; refuses those that have waited too long."""
        kept = []
        for group in self.waiting:
            if group.index is not None and group.index <= applied_index:
                self._answer(group)
            elif now_ns >= group.end_ns:
                self._forget_tickets(group)
                self._engine.reads_drop(group.requests, group.askers)
            else:
                kept.append(group)
        self.waiting = kept

    def _answer(self, group: _Group) -> None:
        try:
            replies = self._app.query_batch(group.requests)
            self._engine.reads_reply(group.requests, group.askers, replies)
        except ApplicationFailed:
            raise
        except Exception as error:
            # A read changes nothing, so its failure is the client's to know and no reason to end the member.
            log.exception("query_batch failed on %d reads", len(group.requests))
            self.counters["reads_failed"] += len(group.requests)
            text = f"-ERR {type(error).__name__}\r\n".encode()
            self._engine.reads_reply(group.requests, group.askers, [text] * len(group.requests))

    def _forget_tickets(self, group: _Group) -> None:
        for ticket in group.tickets:
            self._by_ticket.pop(ticket, None)
        group.tickets.clear()
