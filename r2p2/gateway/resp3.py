"""Replies for clients that speak RESP3 (HELLO 3): the store answers in RESP2, and of what it says only nil differs."""

from __future__ import annotations

__all__ = ["to_resp3"]

_NIL = (b"$-1", b"*-1")


def to_resp3(replies: bytes) -> bytes:
    """RESP2 replies, end to end, as RESP3: each nil becomes ``_``. Bytes inside values stay as they are."""
    if b"-1\r\n" not in replies:
        return replies
    pieces: list[bytes] = []
    at = kept = 0
    while at < len(replies):
        end = replies.index(b"\r\n", at)
        if replies[at:end] in _NIL:
            pieces += (replies[kept:at], b"_")
            kept = end
        elif replies[at] == ord("$"):
            end += 2 + int(replies[at + 1 : end])
        at = end + 2
    pieces.append(replies[kept:])
    return b"".join(pieces)
