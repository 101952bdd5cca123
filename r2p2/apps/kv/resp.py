"""RESP2 as bytes: the replies of the store, Redis's error texts, numbers as Redis reads them.

Leaves to others: which command answers what.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import hiredis

from r2p2 import limits

__all__ = [
    "EMPTY",
    "INT64_MAX",
    "INT64_MIN",
    "MINUS_ONE",
    "NIL",
    "NIL_ARRAY",
    "NOT_AN_INTEGER",
    "OK",
    "ONE",
    "PATTERN_TOO_LONG",
    "PONG",
    "SYNTAX",
    "TOO_LARGE",
    "VALUE_TOO_LARGE",
    "ZERO",
    "array_of",
    "bulk",
    "encode_command",
    "error",
    "integer",
    "parse_int64",
    "unknown_command",
    "wrong_number",
]

OK: Final = b"+OK\r\n"
NIL: Final = b"$-1\r\n"
NIL_ARRAY: Final = b"*-1\r\n"
PONG: Final = b"+PONG\r\n"
EMPTY: Final = b"$0\r\n\r\n"
ZERO: Final = b":0\r\n"
ONE: Final = b":1\r\n"
MINUS_ONE: Final = b":-1\r\n"
MINUS_TWO: Final = b":-2\r\n"
SYNTAX: Final = b"-ERR syntax error\r\n"
NOT_AN_INTEGER: Final = b"-ERR value is not an integer or out of range\r\n"
VALUE_TOO_LARGE: Final = b"-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n"
TOO_LARGE: Final = b"-ERR the reply is larger than the %d bytes of a response\r\n" % limits.REPLICATED_REPLY_BYTES_MAX
PATTERN_TOO_LONG: Final = b"-ERR a pattern has at most %d bytes\r\n" % limits.KV_PATTERN_BYTES_MAX

INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1
# No sign but a minus, no leading zero, no minus zero: the only way Redis itself writes a number.
_INT64: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}")
# Bytes of an unknown command and of its arguments that an error repeats.
_SHOWN_BYTES_MAX: Final = 128
_LINE_ENDS: Final = bytes.maketrans(b"\r\n", b"  ")


def encode_command(*words: bytes | str | int) -> bytes:
    """A RESP command, ready to be a request's payload: ``encode_command("SET", "k", "v")``."""
    return bytes(hiredis.pack_command(words))  # type: ignore[arg-type]  # the stub asks for one word only


def bulk(value: bytes | None) -> bytes:
    """A bulk string; nil for None."""
    return NIL if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def integer(value: int) -> bytes:
    """An integer reply."""
    return b":%d\r\n" % value


def array_of(replies: Iterable[bytes], count: int) -> bytes:
    """An array of `count` encoded replies, or TOO_LARGE when a response cannot carry it: then no more of them are made
    than make it so, since one short request may ask for thousands of long values.
    """
    parts = [b"*%d\r\n" % count]
    room = limits.REPLICATED_REPLY_BYTES_MAX - len(parts[0])
    for reply in replies:
        room -= len(reply)
        if room < 0:
            return TOO_LARGE
        parts.append(reply)
    return b"".join(parts)


def error(text: bytes) -> bytes:
    """An error of one line, whatever bytes `text` repeats; as in Redis it ends at a zero byte."""
    return b"-ERR %b\r\n" % text.partition(b"\0")[0].strip(b"\r\n").translate(_LINE_ENDS)


def wrong_number(name: bytes) -> bytes:
    """The error for a count of arguments that `name` does not take."""
    return b"-ERR wrong number of arguments for '%b' command\r\n" % name.lower()


def unknown_command(words: list[bytes]) -> bytes:
    """The error for a command that is not there; it repeats the first 128 bytes of the arguments, as Redis does."""
    shown = b""
    for word in words[1:]:
        if len(shown) >= _SHOWN_BYTES_MAX:
            break
        shown += b"'%b' " % word[: _SHOWN_BYTES_MAX - len(shown)].partition(b"\0")[0]
    name = words[0][:_SHOWN_BYTES_MAX].partition(b"\0")[0]
    return error(b"unknown command '%b', with args beginning with: %b" % (name, shown))


def parse_int64(text: bytes) -> int | None:
    """A signed 64-bit number in decimal, or None: anything Redis would not take for one."""
    if len(text) <= 20 and _INT64.fullmatch(text):
        value = int(text)
        if INT64_MIN <= value <= INT64_MAX:
            return value
    return None
