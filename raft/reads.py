"""Linearizable reads without log entries: ReadIndex (dissertation 6.4).

A leader notes its commit index, then proves that it still led afterwards: a majority has to answer an Append of a
round that began later than the read. Rounds never repeat within a term, so an answer that is late, duplicated or
meant for an earlier read proves nothing. The read may be answered from a state machine that has applied the noted
index.

A term's leader does not know what is committed before its own first entry is (6.4, step 1): a read in that time gets
that entry's index, and so waits for it by itself.

Left to others: rounds and Appends (core.py), the state machine, giving up on time.
"""

from __future__ import annotations

from collections import deque

LOCAL = -1
EVERY_ROUND = 1 << 63  # what a leader has "answered" to itself
ASKED_MAX = 1_024  # reads a follower waits for; more push out the oldest


class Read:
    """One read, or batch of reads: confirmed when a majority has answered ``round`` or a later one."""

    __slots__ = ("context", "index", "member", "request_id", "round")

    def __init__(self, round_: int, index: int, member: int, context: int, request_id: int) -> None:
        """``member``: who asked, LOCAL for this node; ``context``: its ticket there."""
        self.round = round_
        self.index = index
        self.member = member
        self.context = context
        self.request_id = request_id


class Reads:
    """Reads of one node: those it confirms as leader, those it asked a leader to confirm, those that are done."""

    __slots__ = ("asked", "done", "failed", "last_ticket", "waiting")

    def __init__(self, chance: float) -> None:
        """None yet. ``chance`` in [0, 1) tells the tickets of this process from those of another in its place.

        Without it, the answer to a read of the process before a restart would confirm one of the process after it.
        """
        self.last_ticket = int(chance * (1 << 52)) << 10
        self.waiting: deque[Read] = deque()  # at the leader, ascending by round
        self.asked: dict[int, None] = {}  # tickets at a follower, oldest first
        self.done: list[tuple[int, int]] = []  # (ticket, index) to hand out
        self.failed: list[int] = []  # tickets to hand out

    def ticket(self) -> int:
        """A number no read of this process had before."""
        self.last_ticket += 1
        return self.last_ticket

    def confirmed(self, round_: int) -> list[Read]:
        """A majority has answered ``round_``: the reads of others that this confirms; local ones are done."""
        others: list[Read] = []
        waiting = self.waiting
        while waiting and waiting[0].round <= round_:
            read = waiting.popleft()
            if read.member == LOCAL:
                self.done.append((read.context, read.index))
            else:
                others.append(read)
        return others

    def fail(self) -> list[Read]:
        """Nobody leads any more, as far as known: local reads fail; returns those of others, to be refused."""
        others = [read for read in self.waiting if read.member != LOCAL]
        self.failed += [read.context for read in self.waiting if read.member == LOCAL]
        self.failed += self.asked
        self.waiting.clear()
        self.asked.clear()
        return others
