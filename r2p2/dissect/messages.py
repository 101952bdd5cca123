"""Whole R2P2 messages from datagrams.

What: :class:`Assembler` turns each datagram into at most one :class:`Message`: a single-packet message, the message a
packet completes, a malformed packet with its reason, or a message given up because packets of it never came. Bounded in
count and capture time. It reads from outside, so no handshake is enforced. What a message looks like in print is left
to :mod:`r2p2.dissect.text`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from r2p2.dissect.datagrams import CUT, Datagram
from r2p2.dissect.segments import segments
from r2p2.dissect.wire import FIRST, HEADER_BYTES, MAGIC, RAFT_REQ, REQUEST, WHOLE, Header, Raft, header, raft

HALF_MESSAGES_MAX: Final = 4096
HALF_MESSAGE_NS: Final = 10_000_000_000
DEFAULT_PORTS: Final = frozenset({8000, 9000})
_TWO_PACKETS_BYTES: Final = 2 * HEADER_BYTES

Key = tuple[int, ...]


@dataclass(slots=True)
class Message:
    """A message, or what stands for one that could not be read (``problem`` is set then)."""

    number: int  # of the captured packet that completed it
    time_ns: int  # of that packet
    source_ip: int
    source_port: int
    target_ip: int
    target_port: int
    type: int  # -1 when not even the header could be read
    policy: int
    rid: int
    body: bytes
    packets_count: int = 1
    first_time_ns: int = 0  # of the packet seen first
    extension: bytes = b""
    problem: str | None = None
    notes: tuple[str, ...] = ()
    raft: Raft | None = None


@dataclass(slots=True)
class _Half:
    """A message of which packets are missing."""

    seen_first: Datagram
    head: Header
    first_extension: bytes | None = None  # set once the FIRST packet came
    packets_count: int = 0  # known with it
    parts: dict[int, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Assembler:
    """Put datagrams in with :meth:`add`, in the order of the capture; get the rest with :meth:`close`.

    A request is known by its sender and rid alone, since its packets may go to two addresses (a router and the server
    it chose); any other message by both addresses, type and rid.
    """

    ports: frozenset[int] = DEFAULT_PORTS  # a datagram of another port is R2P2 when it begins with the magic
    ignored_count: int = 0  # datagrams that are not R2P2
    duplicates_count: int = 0  # packets of messages that were complete already
    _halves: OrderedDict[Key, _Half] = field(default_factory=OrderedDict)
    _done: OrderedDict[Key, bytes] = field(default_factory=OrderedDict)  # to the first part, of recent messages

    def add(self, datagram: Datagram) -> Iterator[Message]:
        """The messages this datagram completes, and those given up by now: mostly exactly one."""
        payload = datagram.payload
        if len(payload) >= _TWO_PACKETS_BYTES and len(pieces := segments(payload)) > 1:
            for piece in pieces:
                yield from self._add(datagram._replace(payload=piece))
            return
        yield from self._add(datagram)

    def _add(self, datagram: Datagram) -> Iterator[Message]:
        payload = datagram.payload
        ours = datagram.target_port in self.ports or datagram.source_port in self.ports
        if not ours and payload[:1] != b"\xcc":
            self.ignored_count += 1
            return
        if self._halves:
            yield from self._expired(datagram.time_ns)
        head = header(payload)
        if isinstance(head, str):
            yield _malformed(datagram, head)
        elif head.flags & WHOLE == WHOLE:
            size = head.header_size
            yield _message(datagram, head, payload[size:], payload[8:size], datagram.notes)
        else:
            yield from self._part(datagram, head)

    def close(self) -> Iterator[Message]:
        """What never got complete, at the end of the capture."""
        while self._halves:
            yield _given_up(self._halves.popitem(last=False)[1])

    def _part(self, datagram: Datagram, head: Header) -> Iterator[Message]:
        key = _key(datagram, head)
        is_first = head.flags & FIRST != 0
        part = datagram.payload[head.header_size :]
        half = self._halves.get(key)
        if half is None:
            if key in self._done and (not is_first or self._done[key] == part):
                self.duplicates_count += 1
                return
            if len(self._halves) >= HALF_MESSAGES_MAX:
                yield _given_up(self._halves.popitem(last=False)[1])
            half = self._halves[key] = _Half(datagram, head)
        if is_first:
            if half.first_extension is not None and (half.packets_count, half.parts[0]) != (head.p_order, part):
                yield _given_up(half)
                half = self._halves[key] = _Half(datagram, head)
            half.first_extension = datagram.payload[8 : head.header_size]
            half.packets_count = head.p_order
            half.head = head
        index = 0 if is_first else head.p_order
        self.duplicates_count += index in half.parts
        half.parts[index] = part
        half.notes += datagram.notes
        count = half.packets_count
        if count and len(half.parts) >= count and all(index in half.parts for index in range(count)):
            del self._halves[key]
            self._remember(key, half.parts[0])
            yield _whole(datagram, half)

    def _remember(self, key: Key, first_part: bytes) -> None:
        self._done[key] = first_part
        self._done.move_to_end(key)
        if len(self._done) > HALF_MESSAGES_MAX:
            self._done.popitem(last=False)

    def _expired(self, now_ns: int) -> Iterator[Message]:
        while self._halves:
            key, half = next(iter(self._halves.items()))
            if now_ns - half.seen_first.time_ns <= HALF_MESSAGE_NS:
                return
            del self._halves[key]
            yield _given_up(half)


def _key(datagram: Datagram, head: Header) -> Key:
    source = (head.type, head.rid, datagram.source_ip, datagram.source_port)
    return source if head.type == REQUEST else (*source, datagram.target_ip, datagram.target_port)


def _whole(last: Datagram, half: _Half) -> Message:
    body = b"".join(half.parts[index] for index in range(half.packets_count))
    message = _message(last, half.head, body, half.first_extension or b"", tuple(dict.fromkeys(half.notes)))
    message.packets_count = half.packets_count
    message.first_time_ns = half.seen_first.time_ns
    return message


def _message(datagram: Datagram, head: Header, body: bytes, extension: bytes, notes: tuple[str, ...]) -> Message:
    message = Message(
        datagram.number,
        datagram.time_ns,
        datagram.source_ip,
        datagram.source_port,
        datagram.target_ip,
        datagram.target_port,
        head.type,
        head.policy,
        head.rid,
        body,
        1,
        datagram.time_ns,
        extension,
        None,
        notes,
    )
    if head.type >= RAFT_REQ:
        found = raft(body, head.type, any(note.startswith(CUT) for note in notes))
        if isinstance(found, str):
            message.problem = f"raft {found}"
        else:
            message.raft = found
    return message


def _malformed(datagram: Datagram, problem: str) -> Message:
    payload = datagram.payload
    is_ours = payload[:1] == bytes((MAGIC,)) and len(payload) >= 8
    return Message(
        datagram.number,
        datagram.time_ns,
        datagram.source_ip,
        datagram.source_port,
        datagram.target_ip,
        datagram.target_port,
        payload[2] >> 4 if is_ours else -1,
        payload[2] & 3 if is_ours else 0,
        int.from_bytes(payload[4:6], "big") if is_ours else 0,
        payload,
        first_time_ns=datagram.time_ns,
        problem=problem,
        notes=datagram.notes,
    )


def _given_up(half: _Half) -> Message:
    message = _message(half.seen_first, half.head, b"", b"", half.notes)
    message.raft = None
    total = str(half.packets_count) if half.packets_count else "an unknown number of"
    message.problem = f"incomplete: {len(half.parts)} of {total} packets"
    return message
