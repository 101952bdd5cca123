"""The line language of ``r2p2 craft``: from text to statements, each value with the place it stands at.

A line is ``[+TIME | @TIME] VERB WORD...``; ``#`` begins a comment. A word is a name, ``>``, ``KEY=VALUE`` or a body.
This file knows words, numbers, times and bodies; what the verbs mean is :mod:`r2p2.craft.script`'s. docs/craft.md is
the language's description.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple

BODY_BYTES_MAX: Final = 371_856
NUMBER_BITS_MAX: Final = 64

_WORD: Final = re.compile(r'(?:[^\s"#]|"(?:[^"\\]|\\.)*")+')
_SPACE: Final = re.compile(r"\s*(?:#.*)?")
_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s)")
_UNITS_NS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_ESCAPE: Final = re.compile(r"\\(x[0-9a-fA-F]{2}|.)")
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "\\": "\\", '"': '"'}


class CraftError(Exception):
    """A description that is not one: the line and the column (both from 1), and what is wrong there."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.line = line
        self.column = column
        self.message = message


class Word(NamedTuple):
    """Characters without a space between them (but in quotes), and where they stand."""

    text: str
    line: int
    column: int

    def error(self, message: str) -> CraftError:
        """Something is wrong with this word."""
        return CraftError(self.line, self.column, message)

    def after(self, count: int) -> Word:
        """The word without its first ``count`` characters."""
        return Word(self.text[count:], self.line, self.column + count)


@dataclass(frozen=True, slots=True)
class Statement:
    """One line: when, the verb, and its words, split into plain ones and ``KEY=VALUE``."""

    verb: Word
    when: Word | None
    words: tuple[Word, ...]
    options: tuple[tuple[Word, Word], ...]


def statements(text: str) -> Iterator[Statement]:
    """The statements of a description, in order. Raises CraftError at the first line that is none."""
    for number, line in enumerate(text.splitlines(), 1):
        words = list(_words(line, number))
        if not words:
            continue
        when = words.pop(0) if words[0].text[0] in "+@" else None
        if not words:
            assert when is not None
            raise when.error(f"a time alone: {when.text!r} is followed by no verb")
        verb, *rest = words
        plain, options = [], []
        for word in rest:
            key = re.match(r"(\w+)=", word.text)
            if key is None:
                plain.append(word)
            else:
                options.append((Word(key[1], word.line, word.column), word.after(key.end())))
        yield Statement(verb, when, tuple(plain), tuple(options))


def _words(line: str, number: int) -> Iterator[Word]:
    at = 0
    while True:
        space = _SPACE.match(line, at)
        assert space is not None, "it matches nothing too"
        at = space.end()
        if at == len(line):
            return
        found = _WORD.match(line, at)
        # A word ends before a space, at the end or where a quotation never ends; "#" inside a word begins a comment.
        if found is None:
            raise CraftError(number, at + 1, "a quotation that does not end")
        if found.end() < len(line) and line[found.end()] == '"':
            raise CraftError(number, found.end() + 1, "a quotation that does not end")
        yield Word(found[0], number, at + 1)
        at = found.end()


def number(word: Word, largest: int) -> int:
    """A decimal or 0x number from 0 to ``largest``."""
    if not re.fullmatch(r"0x[0-9a-fA-F]+|\d+", word.text):
        raise word.error(f"{word.text!r} is not a number")
    value = int(word.text, 16 if word.text[:2] == "0x" else 10)
    if value > largest:
        raise word.error(f"{word.text} is more than {largest}")
    return value


def duration_ns(word: Word) -> int:
    """A length of time such as 10us, 1.5ms or 2s, in nanoseconds."""
    found = _TIME.fullmatch(word.text)
    if found is None:
        raise word.error(f"{word.text!r} is not a time such as 10us, 1.5ms or 2s")
    whole, _, part = found[1].partition(".")
    unit_ns = _UNITS_NS[found[2]]
    value_ns = int(whole) * unit_ns + (int(part) * unit_ns // 10 ** len(part) if part else 0)
    if value_ns >= 1 << 62:
        raise word.error(f"{word.text} is more than a capture's clock counts")
    return value_ns


def body(word: Word) -> bytes:
    """The bytes a body stands for.

    ``"text"`` with escapes, ``hex:0a0b``, ``resp:SET:key:value``, ``random:N`` (the same bytes for the same N) or
    ``zero:N``.
    """
    text = word.text
    if text.startswith('"'):
        made = _quoted(word)
    elif text.startswith("hex:"):
        try:
            made = bytes.fromhex(text[4:])
        except ValueError as error:
            raise word.after(4).error(f"{text[4:]!r} is not hexadecimal") from error
    elif text.startswith("resp:"):
        parts = [part.encode() for part in text[5:].split(":")]
        made = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
    elif text.startswith("random:"):
        length = number(word.after(7), BODY_BYTES_MAX)
        made = Random(length).randbytes(length)
    elif text.startswith("zero:"):
        made = bytes(number(word.after(5), BODY_BYTES_MAX))
    else:
        raise word.error(f'{text!r} is not a body: "text", hex:..., resp:A:B, random:N or zero:N')
    if len(made) > BODY_BYTES_MAX:
        raise word.error(f"a body of {len(made)} bytes; {BODY_BYTES_MAX} are the most")
    return made


def _quoted(word: Word) -> bytes:
    found = re.fullmatch(r'"((?:[^"\\]|\\.)*)"', word.text)
    if found is None:
        raise word.error(f"{word.text}: something follows the quotation without a space")

    def escape(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] == "x" and len(code) == 3:
            return chr(0xDC00 + int(code[1:], 16)) if int(code[1:], 16) > 127 else chr(int(code[1:], 16))
        if code not in _ESCAPES:
            raise word.after(1 + match.start()).error(
                f'\\{code} is not an escape; there are \\n \\r \\t \\0 \\\\ \\" \\xHH'
            )
        return _ESCAPES[code]

    return _ESCAPE.sub(escape, found[1]).encode("utf-8", "surrogateescape")
