"""Patterns of KEYS and SCAN, as Redis reads them, as regular expressions: what the C code is held against.

``*`` any bytes, ``?`` one byte, ``[abc]``, ``[a-z]``, ``[^a]`` one of them or none of them, ``\\`` takes the next byte
as it is. An open ``[`` runs to the end of the pattern.
"""

from __future__ import annotations

import re

__all__ = ["compiled"]


def _class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """The class that begins after ``[``, as a regular expression, and where the pattern goes on."""
    inverted = pattern[at : at + 1] == b"^"
    at += inverted
    members: set[int] = set()
    while at < len(pattern) and pattern[at : at + 1] != b"]":
        if pattern[at : at + 1] == b"\\" and at + 1 < len(pattern):
            members.add(pattern[at + 1])
            at += 2
        elif at + 2 < len(pattern) and pattern[at + 1 : at + 2] == b"-":
            low, high = sorted((pattern[at], pattern[at + 2]))
            members.update(range(low, high + 1))
            at += 3
        else:
            members.add(pattern[at])
            at += 1
    if inverted:
        members = set(range(256)) - members
    if not members:
        return b"(?!)", at + 1
    # As ranges: each member by itself would cost a long pattern of classes tens of times its compilation.
    starts = sorted(member for member in members if member - 1 not in members)
    ends = sorted(member for member in members if member + 1 not in members)
    return b"[%b]" % b"".join(b"\\x%02x-\\x%02x" % pair for pair in zip(starts, ends, strict=True)), at + 1


def compiled(pattern: bytes) -> re.Pattern[bytes]:
    """The regular expression that matches what ``pattern`` matches, with ``fullmatch``."""
    # Pieces between stars. Where a middle piece fits first is as good as anywhere later, so each is matched once
    # (atomically): without that, a pattern of many stars would take exponential time.
    pieces = [b""]
    at = 0
    while at < len(pattern):
        byte = pattern[at : at + 1]
        at += 1
        if byte == b"*":
            if pieces[-1] or len(pieces) == 1:
                pieces.append(b"")
        elif byte == b"?":
            pieces[-1] += b"."
        elif byte == b"[":
            expression, at = _class(pattern, at)
            pieces[-1] += expression
        else:
            if byte == b"\\" and at < len(pattern):
                byte = pattern[at : at + 1]
                at += 1
            pieces[-1] += re.escape(byte)
    if pattern not in (b"", b"*"):
        pieces[0] = b"(?=.)" + pieces[0]  # Redis has the empty key match no other pattern
    first, *others = pieces
    if not others:
        return re.compile(first, re.DOTALL)
    middle = b"".join(b"(?>.*?%b)" % piece for piece in others[:-1])
    return re.compile(b"%b%b.*%b" % (first, middle, others[-1]), re.DOTALL)
