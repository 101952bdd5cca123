"""A few words about a payload: RESP where it is RESP, text where it is text, bytes otherwise.

Never raises and never lets a control character through to a terminal, whatever the bytes.
"""

from __future__ import annotations

from typing import Final

PREVIEW_MAX: Final = 60  # characters
_WORD_MAX: Final = 24


def preview(body: bytes) -> str:
    """At most about 60 characters on what ``body`` holds; empty for an empty body."""
    if not body:
        return ""
    text = _resp(body) or _text(body, PREVIEW_MAX)
    return text if len(text) <= PREVIEW_MAX + 2 else text[:PREVIEW_MAX] + ".."


def _resp(body: bytes) -> str | None:
    """One RESP value, or None when ``body`` does not begin with one. A value cut short is shown as far as it goes."""
    head, separator, _ = body[:64].partition(b"\r\n")
    if not separator:
        return None
    mark, rest = head[:1], head[1:]
    if mark in (b"+", b"-", b":"):
        return _plain(head) if body == head + b"\r\n" else None
    if not rest.lstrip(b"-").isdigit():
        return None
    if mark == b"$":
        return _bulk(body)
    return _command(body, int(rest)) if mark == b"*" and int(rest) >= 0 else None


def _bulk(body: bytes) -> str | None:
    word = _next_bulk(body, 0)
    if body == b"$-1\r\n":
        return "nil"
    return None if word is None else _text(word[0], PREVIEW_MAX)


def _command(body: bytes, count: int) -> str | None:
    """An array of bulk strings as a command line."""
    at = body.index(b"\r\n") + 2
    words: list[str] = []
    while len(words) < min(count, 8):
        found = _next_bulk(body, at)
        if found is None:
            return None
        value, at = found
        is_verb = not words and value.isalpha() and value.isascii()
        words.append(value.decode().upper() if is_verb else _text(value, _WORD_MAX))
    return " ".join(words) + (" .." if count > len(words) else "") if words else "[]"


def _next_bulk(body: bytes, at: int) -> tuple[bytes, int] | None:
    """The bulk string at ``at`` and what follows it."""
    end = body.find(b"\r\n", at, at + 16)
    if end < 0 or body[at : at + 1] != b"$" or not body[at + 1 : end].isdigit():
        return None
    length = int(body[at + 1 : end])
    return body[end + 2 : end + 2 + length], end + 4 + length


def _plain(line: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in line)


def _text(value: bytes, width: int) -> str:
    """Quoted where it is printable ASCII, else hexadecimal in angle brackets."""
    part = value[:width]
    if part.isascii() and (shown := part.decode("ascii")).isprintable():
        if "\\" in shown or '"' in shown:
            shown = shown.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{shown}"' + (".." if len(value) > width else "")
    part = value[: width // 2]
    return f"<{part.hex()}>" + (".." if len(value) > len(part) else "")
