"""Requests and replies in batches: what the engine hands to an application and takes back.

A batch is one ``bytes`` slab of payloads laid end to end and their lengths; no Python object exists for a request until
somebody asks for it. Replies are a list of ``bytes``, one for each request in order, or :class:`Replies` where the
application has them laid out already.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Final, TypeAlias, overload

from r2p2.errors import ReplyTooLarge
from r2p2.logs import Sparing
from r2p2.requests._batch import Cut, call_each, pack

__all__ = ["DROP", "LATER", "Replies", "ReplySequence", "Requests", "SpecialReply", "laid_out", "reply_of"]

errors = Sparing(logging.getLogger("r2p2.app"))

_LENGTH_BYTES: Final = 4


class SpecialReply:
    """The type of :data:`DROP` and :data:`LATER`."""

    def __init__(self, name: str, length: int) -> None:
        self._name = name
        self.length = length

    def __repr__(self) -> str:
        return self._name


DROP: Final = SpecialReply("DROP", 0xFFFFFFFF)
"""A reply that refuses: the client gets R2P2's DROP. Only for unreplicated requests."""

LATER: Final = SpecialReply("LATER", 0xFFFFFFFE)
"""No reply yet: the application answers with :meth:`r2p2.engine.Engine.reply_later`."""


def reply_of(returned: object, bytes_max: int) -> bytes | SpecialReply:
    """What a handler of one request returned, as a reply: bytes of at most ``bytes_max``, or :data:`DROP`.

    Raises:
        TypeError: it is neither.
        ReplyTooLarge: it is larger.
    """
    if returned is DROP:
        return DROP
    if not isinstance(returned, bytes | bytearray | memoryview):
        raise TypeError(f"a handler returned {type(returned).__name__}, not bytes")
    reply = bytes(returned)
    if len(reply) > bytes_max:
        raise ReplyTooLarge(f"a handler returned {len(reply)} bytes; a response has at most {bytes_max}")
    return reply


class Requests(Sequence[bytes]):
    """A batch of requests: a sequence of ``bytes``.

    Attributes:
        slab: all payloads laid end to end.
        lengths: their lengths in bytes, as a memoryview of format ``I``.
        policies: the R2P2 policy of each request, one byte a request.
        time_ms: the time the log carries for these requests, unix ms: the same on every replica, never less than that
            of a batch before; 0 where the log carries none. What depends on time uses this and no clock.
    """

    __slots__ = ("_ends", "lengths", "policies", "slab", "time_ms")

    def __init__(self, slab: bytes, lengths: memoryview, policies: bytes, time_ms: int = 0) -> None:
        self.slab = slab
        self.lengths = lengths
        self.policies = policies
        self.time_ms = time_ms
        self._ends: list[int] | None = None

    @classmethod
    def of(cls, payloads: Sequence[bytes], policy: int = 2, *, time_ms: int = 0) -> Requests:
        """A batch of ``payloads``, for tests and tools."""
        lengths = memoryview(array("I", map(len, payloads)))
        return cls(b"".join(payloads), lengths, bytes([policy]) * len(payloads), time_ms)

    def behind(self, count: int) -> Requests:
        """The same batch without its first ``count`` requests."""
        if not count:
            return self
        return Requests(
            self.slab[sum(self.lengths[:count]) :], self.lengths[count:], self.policies[count:], self.time_ms
        )

    def __len__(self) -> int:
        return len(self.policies)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"request {index} of a batch of {len(self)}")
        if self._ends is None:
            self._ends = list(accumulate(self.lengths))
        end = self._ends[index]
        return self.slab[end - self.lengths[index] : end]

    def __iter__(self) -> Iterator[bytes]:
        return Cut(self.slab, self.lengths)

    def answer_each(
        self,
        handler: Callable[..., Any],
        *more: object,
        bytes_max: int,
        settle: Callable[[Callable[..., Any], bytes, object, Exception | None], bytes | SpecialReply],
    ) -> list[bytes | SpecialReply]:
        """The reply of ``handler(request, *more)`` to each request, in one call of C (docs/adr/0025).

        Where it is not bytes of at most ``bytes_max``, or the handler raised, ``settle`` is asked for the reply, with
        the handler, the request, what was returned and what was raised; what ``settle`` raises ends the batch.
        """
        return call_each(handler, self.slab, self.lengths, bytes_max, settle, *more)


class Replies:
    """Replies laid out by the application: ``slab`` and ``lengths``, one length a request, in order.

    Args:
        slab: all replies laid end to end.
        lengths: their lengths in bytes, an array or memoryview of format ``I``; those of the requests, where they fit.

    ``refused_count``: of these, those in whose place an error was laid out (:meth:`settled`).

    Raises:
        TypeError: the lengths are not 32 bits wide.
    """

    __slots__ = ("lengths", "refused_count", "slab")

    def __init__(self, slab: bytes, lengths: array[int] | memoryview) -> None:
        if lengths.itemsize != _LENGTH_BYTES:  # or C would read beyond them
            raise TypeError(f"lengths of replies are of format I, not of {lengths.itemsize} bytes each")
        self.slab = slab
        self.lengths = lengths
        self.refused_count = 0

    @classmethod
    def pack(cls, replies: Sequence[bytes | SpecialReply]) -> Replies:
        """Lays ``replies`` out.

        Raises:
            TypeError: one is neither bytes nor special.
        """
        if (packed := pack(replies)) is not None:
            return cls(packed[0], array("I", packed[1]))
        lengths = array("I")
        kept = []
        for i, reply in enumerate(replies):
            if isinstance(reply, SpecialReply):
                lengths.append(reply.length)
            elif isinstance(reply, bytes | bytearray | memoryview):
                kept.append(bytes(reply))
                lengths.append(len(kept[-1]))
            else:
                raise TypeError(f"reply {i} is {type(reply).__name__}, not bytes")
        return cls(b"".join(kept), lengths)

    @classmethod
    def settled(cls, replies: ReplySequence, bytes_max: int) -> Replies:
        """Lays out replies among which are some that are none: each of those is ``-ERR TypeError`` or, over
        ``bytes_max``, ``-ERR ReplyTooLarge``. The slow way.
        """
        if isinstance(replies, Replies):
            replies = replies.apart()
        kept: list[bytes | SpecialReply] = []
        first, refused_count = "", 0
        for i, reply in enumerate(replies):
            try:
                kept.append(reply if isinstance(reply, SpecialReply) else reply_of(reply, bytes_max))
            except (TypeError, ReplyTooLarge) as error:
                first = first or f"reply {i}: {error}"
                refused_count += 1
                kept.append(f"-ERR {type(error).__name__}\r\n".encode())
        if refused_count:
            errors.error("%d of a batch of %d replies were none, the first was %s", refused_count, len(kept), first)
        packed = cls.pack(kept)
        packed.refused_count = refused_count
        return packed

    def apart(self) -> list[bytes | SpecialReply]:
        """One by one."""
        special = {reply.length: reply for reply in (DROP, LATER)}
        replies: list[bytes | SpecialReply] = []
        start = 0
        for length in self.lengths:
            replies.append(special.get(length, self.slab[start : start + length]))
            start += 0 if length in special else length
        return replies


def laid_out(replies: ReplySequence, bytes_max: int) -> Replies:
    """What a handler of batches returned, laid out; what is not bytes is ``-ERR TypeError``."""
    if isinstance(replies, Replies):
        return replies
    if not isinstance(replies, list | tuple):
        replies = list(replies)
    try:
        return Replies.pack(replies)
    except TypeError:
        return Replies.settled(replies, bytes_max)


ReplySequence: TypeAlias = Sequence[bytes | SpecialReply] | Replies
