"""What the engine's calls return when they could not do what was asked, and the errors that it becomes."""

from __future__ import annotations

from typing import Final, NoReturn

from r2p2._engine import lib
from r2p2.engine.records import STEADY_HEAD_BYTES
from r2p2.errors import EngineError, ReplyCountError
from r2p2.requests import Replies

FULL: Final[int] = lib.R2P2_ERROR_FULL
TOO_LARGE: Final[int] = lib.R2P2_ERROR_TOO_LARGE

STATUS_TEXT: Final = {
    lib.R2P2_ERROR_NO_MEMORY: "no memory",
    lib.R2P2_ERROR_ARGUMENT: "bad argument",
    lib.R2P2_ERROR_TOO_LARGE: "message over 254 packets",
    lib.R2P2_ERROR_FULL: "a bound is reached",
    lib.R2P2_ERROR_RANGE: "index outside the log",
    lib.R2P2_ERROR_MALFORMED: "malformed entries",
    lib.R2P2_ERROR_STATE: "not legal now",
}


def check(call: str, status: int) -> int:
    """``status`` when it is good; raises :class:`EngineError` naming the call when not."""
    if status < 0:
        raise EngineError(f"{call}: {STATUS_TEXT.get(status, 'unknown status')} ({status})")
    return status


def refuse_replies(call: str, status: int, packed: Replies, requests_count: int) -> NoReturn:
    count = len(packed.lengths)
    if count != requests_count:
        raise ReplyCountError.of(count, requests_count)
    raise EngineError(f"{call}: {STATUS_TEXT.get(status, 'unknown status')} ({status})")


def check_head(heads: bytes, count: int) -> None:
    if len(heads) != count * STEADY_HEAD_BYTES:
        raise ValueError(f"heads: {len(heads)} bytes for {count} of {STEADY_HEAD_BYTES}")
