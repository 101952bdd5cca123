"""Operators' requests (``r2p2 member``): read, held until they are done or over, and answered.

One change of members is under way at a time, so requests wait here; a client that hears nothing repeats its own, and
one that a later one contradicts ends. Leaves to others: carrying them out (:mod:`r2p2.node.membership`), the command
(:mod:`r2p2.member_command`).

Sans-IO: time is an argument.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from r2p2 import limits
from r2p2.address import parse_address
from r2p2.errors import UserError
from r2p2.node.own_requests import MEMBER_REQUEST
from raft.configuration import SLOT_MAX

__all__ = ["Operation", "Operations", "parse_operation", "refusal"]

OPERATIONS: Final = ("add", "remove", "replace", "transfer", "list")
REQUEST_BYTES_MAX: Final = 1024
# Operators' requests at once. One change is under way at a time; the rest waits.
OPERATIONS_MAX: Final = 16
OPERATION_NS: Final = 60 * limits.SECOND
ASKERS_MAX: Final = 4  # of one request, sent again by a client that heard nothing
ASKER_PLACE_BYTES: Final = 8  # of who asked: address and ports, the same for a command's whole life
OVERRULED_MAX: Final = OPERATIONS_MAX * ASKERS_MAX
BRINGING: Final = ("add", "replace")  # requests that wait for a process

Key: TypeAlias = tuple[str, int, tuple[int, int] | None]


@dataclass(slots=True)
class Operation:
    """An operator's request under way; ``note`` is what it waits for."""

    kind: str
    slot: int
    address: tuple[int, int] | None
    until_ns: int
    asked_ns: int  # last
    askers: list[bytes]
    note: str = ""
    begun: bool = False
    old: int | None = field(default=None)  # replace: who is to go

    @property
    def key(self) -> Key:
        """Equal for a request and its repetition."""
        return self.kind, self.slot, self.address

    @property
    def brings(self) -> bool:
        """Whether it waits for a process that is to become a member."""
        return self.kind in BRINGING


def parse_operation(payload: bytes, asker: bytes, now_ns: int) -> Operation:
    """What an operator asks for. Raises UserError."""
    if len(payload) > REQUEST_BYTES_MAX:
        raise UserError(f"a member request of {len(payload)} bytes, over {REQUEST_BYTES_MAX}")
    try:
        asked = json.loads(payload[len(MEMBER_REQUEST) :])
    except (ValueError, RecursionError):
        raise UserError("a member request that is not JSON") from None
    if not isinstance(asked, dict) or asked.get("op") not in OPERATIONS:
        raise UserError(f"a member request without op, one of {', '.join(OPERATIONS)}")
    kind, slot, text = asked["op"], asked.get("slot", 0), asked.get("address")
    if not isinstance(slot, int) or isinstance(slot, bool) or not 0 <= slot <= SLOT_MAX:
        raise UserError(f"slot {slot!r} is not a number in 0..{SLOT_MAX}")
    if text is not None and not isinstance(text, str):
        raise UserError("address is not a text")
    address = parse_address(text) if text else None
    if kind in BRINGING and address is None:
        raise UserError(f"{kind} needs the address of the new member")
    return Operation(kind, slot, address, now_ns + OPERATION_NS, now_ns, [asker])


def refusal(error: str, text: str) -> bytes:
    """The answer to a request that is not carried out."""
    return json.dumps({"ok": False, "error": error, "text": text}).encode()


class Operations:
    """The requests under way at one member, oldest first. Iterating goes over those at the start of it: they may end
    meanwhile.
    """

    def __init__(self) -> None:
        self._waiting: list[Operation] = []
        # Requests that a later one has ended, by who asked: until when they are refused again, and why.
        self._overruled: dict[tuple[Key, bytes], tuple[int, str]] = {}
        self._answers: list[tuple[bytes, bytes]] = []

    def __iter__(self) -> Iterator[Operation]:
        return iter(tuple(self._waiting))

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self, operation: Operation, now_ns: int) -> bytes | None:
        """A request to be carried out. None: it waits, or did already; else its answer."""
        (asker,) = operation.askers
        for known in self._waiting:
            if known.key == operation.key:
                known.asked_ns = now_ns
                if asker not in known.askers:
                    known.askers = [*known.askers, asker][-ASKERS_MAX:]
                return None
        until_ns, text = self._overruled.get((operation.key, asker[:ASKER_PLACE_BYTES]), (0, ""))
        if now_ns < until_ns:  # a command that has not heard that it is over repeats its request
            return refusal("refused", text)
        # Those that wait to bring somebody to its slot end: carried out beside it, each would undo what the other does.
        ends: list[Operation] = []
        if operation.kind != "transfer":
            ends = [o for o in self._waiting if o.slot == operation.slot and o.brings]
        if len(self._waiting) - len(ends) >= OPERATIONS_MAX:
            return refusal("busy", f"{OPERATIONS_MAX} changes are waiting already")
        for known in ends:
            self._overrule(known, f"{operation.kind} {operation.slot} was asked for later and takes its place", now_ns)
        self._waiting.append(operation)
        return None

    def _overrule(self, operation: Operation, text: str, now_ns: int) -> None:
        for asker in operation.askers:
            if len(self._overruled) >= OVERRULED_MAX:
                del self._overruled[next(iter(self._overruled))]
            self._overruled[operation.key, asker[:ASKER_PLACE_BYTES]] = now_ns + limits.MEMBER_REPEAT_NS, text
        self.refuse(operation, "refused", text)

    def remove(self, operation: Operation) -> None:
        """It is over; :meth:`answer` follows."""
        self._waiting.remove(operation)

    def answer(self, operation: Operation, answer: bytes) -> None:
        """Answers all who asked."""
        self._answers.extend((asker, answer) for asker in operation.askers)

    def end(self, operation: Operation, answer: bytes) -> None:
        """It is over, with this answer."""
        self.remove(operation)
        self.answer(operation, answer)

    def refuse(self, operation: Operation, error: str, text: str) -> None:
        """It is over, and was not carried out."""
        self.end(operation, refusal(error, text))

    def expire(self, now_ns: int) -> None:
        """Ends what has taken too long, and what nobody asks for any more before it has begun."""
        for operation in self:
            if now_ns >= operation.until_ns:
                self.refuse(operation, "timeout", operation.note or "it was not done in time")
            elif not operation.begun and now_ns - operation.asked_ns >= limits.MEMBER_REPEAT_NS:
                self.refuse(operation, "timeout", "nobody asks for it any more")

    def take_answers(self) -> list[tuple[bytes, bytes]]:
        """(asker, answer) of requests that have ended, each once."""
        answers, self._answers = self._answers, []
        return answers
