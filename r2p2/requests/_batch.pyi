from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

from typing_extensions import Buffer

@final
class Cut(Iterator[bytes]):
    """The requests of a batch, one after the other.

    Raises:
        ValueError: the lengths are no 32-bit numbers or, once it comes there, reach beyond the slab.
    """

    def __init__(self, slab: Buffer, lengths: Buffer, /) -> None: ...
    def __next__(self) -> bytes: ...
    def __length_hint__(self) -> int: ...

def call_each(
    handler: Callable[..., Any],
    slab: Buffer,
    lengths: Buffer,
    bytes_max: int,
    settle: Callable[[Callable[..., Any], bytes, object, Exception | None], Any],
    /,
    *more: object,
) -> list[Any]:
    """Calls ``handler(request, *more)`` for each request of a batch; at most two `more`.

    Args:
        slab, lengths: the batch as :class:`r2p2.requests.Requests` has it.
        bytes_max: a reply is bytes, and no more.
        settle: called with the handler, the request, what it returned where that is no reply, and what it raised; gives
            the reply. What it raises ends the batch, and so does what the handler raises that is no ``Exception``.

    Returns:
        The replies in order.

    Raises:
        ValueError: as :class:`Cut` does.
    """

def pack(replies: Sequence[object], /) -> tuple[bytes, bytes] | None:
    """Replies laid end to end and their lengths (format ``I``); None where they are anything else than a list or tuple
    of bytes, or one has as many bytes as the lengths of special replies stand for.
    """
