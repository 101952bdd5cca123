"""Commands out of the bytes of a Redis client: arrays of bulk strings, or lines of words.

What is wrong is answered in Redis's words. What is more than a request to the cluster can carry is read to its end and
not kept, so the client gets an error and the connection goes on. A piece that holds whole arrays and nothing else, the
common case, is parsed in C. Leaves to others: what a command means.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

from r2p2 import limits
from r2p2.apps.kv._plain import commands
from r2p2.apps.kv.resp import parse_int64

__all__ = ["CommandParser", "Item", "TooLarge"]

# Redis's own bounds: a line, a count of words, a word.
_LINE_BYTES_MAX: Final = 64 << 10
_WORDS_MAX: Final = (1 << 31) - 1
_WORD_BYTES_MAX: Final = 512 << 20
# What a word costs on the wire besides its bytes.
_WORD_HEADER_BYTES: Final = 6
# A quoted part ends its word.
_QUOTED: Final = re.compile(rb""""(?:[^"\\]|\\.)*"(?=\s|$)|'(?:[^'\\]|\\'|\\(?!'))*'(?=\s|$)""", re.DOTALL)
_INLINE_WORD: Final = re.compile(rb"""\s*((?:[^\s"']|%b)+)""" % _QUOTED.pattern, re.DOTALL)
_ESCAPE: Final = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPES: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A command that no request can carry; ``bytes_count`` is about how large it is."""

    bytes_count: int


Item: TypeAlias = list[bytes] | TooLarge


class _Broken(Exception):
    """The client does not speak RESP; the argument is Redis's text for it."""


class CommandParser:
    """One connection's bytes, in pieces as they come.

    Attributes:
        error: the reply to a client that broke the protocol; nothing more is parsed then, and it is to be cut off.
    """

    def __init__(self) -> None:
        self.error = b""
        self._buffer = bytearray()
        self._at = 0
        self._words_left = 0
        self._word_bytes = -1  # of the word in hand; -1: its length is to come
        self._words: list[bytes] = []
        self._bytes_count = 0
        self._skip_bytes = 0
        self._step: Callable[[], Item | None] = self._begin

    def feed(self, data: bytes) -> list[Item]:
        """The commands that ``data`` completes, in order."""
        if self.error:
            return []
        if not self._buffer and self._step == self._begin and data[:1] == b"*" and data[-2:] == b"\r\n":
            whole = commands(data)
            if whole is not None:
                return cast(list[Item], whole)
        self._buffer += data
        items: list[Item] = []
        try:
            while (item := self._next()) is not None:
                if item:
                    items.append(item)
        except _Broken as broken:
            self.error = b"-ERR Protocol error: %b\r\n" % broken.args[0]
            self._buffer.clear()
            return items
        del self._buffer[: self._at]
        self._at = 0
        return items

    def _next(self) -> Item | None:
        """The next command, an empty list for one without words, None when more bytes are needed."""
        while True:
            before = self._step
            item = self._step()
            if item is not None or self._step == before:
                return item

    def _line(self, what: bytes) -> bytes | None:
        """The bytes up to the line's end, which is taken; None: it is not here yet."""
        end = self._buffer.find(b"\r\n", self._at)
        if end < 0:
            if len(self._buffer) - self._at > _LINE_BYTES_MAX:
                raise _Broken(b"too big %b" % what)
            return None
        line = bytes(self._buffer[self._at : end])
        self._at = end + 2
        return line

    # Each step takes what it can. It returns a command, or None; None with the same step means: more bytes, please.

    def _begin(self) -> Item | None:
        if self._at >= len(self._buffer):
            return None
        if self._buffer[self._at] != ord("*"):
            return self._inline()
        line = self._line(b"mbulk count string")
        if line is None:
            return None
        count = parse_int64(line[1:])
        if count is None or count > _WORDS_MAX:
            raise _Broken(b"invalid multibulk length")
        if count <= 0:
            return []
        self._words_left, self._words, self._bytes_count = count, [], 0
        self._step = self._word_length
        return None

    def _word_length(self) -> Item | None:
        line = self._line(b"bulk count string")
        if line is None:
            return None
        if line[:1] != b"$":
            raise _Broken(b"expected '$', got '%b'" % (line[:1] or b"\r").replace(b"\r", b" ").replace(b"\n", b" "))
        count = parse_int64(line[1:])
        if count is None or not 0 <= count <= _WORD_BYTES_MAX:
            raise _Broken(b"invalid bulk length")
        self._word_bytes = count
        self._bytes_count += count + _WORD_HEADER_BYTES
        if self._bytes_count > limits.REQUEST_BYTES_MAX:
            self._words = []
            self._skip_bytes = count + 2
            self._step = self._skip
        else:
            self._step = self._word
        return None

    def _word(self) -> Item | None:
        end = self._at + self._word_bytes
        if len(self._buffer) < end + 2:
            return None
        self._words.append(bytes(self._buffer[self._at : end]))
        self._at = end + 2
        return self._word_done()

    def _skip(self) -> Item | None:
        taken = min(self._skip_bytes, len(self._buffer) - self._at)
        self._at += taken
        self._skip_bytes -= taken
        return None if self._skip_bytes else self._word_done()

    def _word_done(self) -> Item | None:
        self._words_left -= 1
        if self._words_left:
            self._step = self._word_length
            return None
        self._step = self._begin
        too_large = self._bytes_count > limits.REQUEST_BYTES_MAX
        return TooLarge(self._bytes_count) if too_large else self._words

    def _inline(self) -> Item | None:
        end = self._buffer.find(b"\n", self._at)
        if end < 0:
            if len(self._buffer) - self._at > _LINE_BYTES_MAX:
                raise _Broken(b"too big inline request")
            return None
        line = bytes(self._buffer[self._at : end]).strip()
        self._at = end + 1
        words: list[bytes] = []
        at = 0
        while at < len(line):
            found = _INLINE_WORD.match(line, at)
            if found is None:
                raise _Broken(b"unbalanced quotes in request")
            words.append(_QUOTED.sub(_unquote, found[1]))
            at = found.end()
        return words


def _unescape(match: re.Match[bytes]) -> bytes:
    escaped = match[1]
    return bytes([int(escaped[1:], 16)]) if len(escaped) == 3 else _ESCAPES.get(escaped, escaped)


def _unquote(match: re.Match[bytes]) -> bytes:
    quoted = match[0]
    if quoted[:1] == b'"':
        return _ESCAPE.sub(_unescape, quoted[1:-1])
    return quoted[1:-1].replace(b"\\'", b"'")
