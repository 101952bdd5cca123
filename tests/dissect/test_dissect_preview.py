"""Previews of payloads: RESP as people write it, text as text, and nothing that a terminal would obey."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2p2.dissect.preview import PREVIEW_MAX, preview


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"", ""),
        (b"*2\r\n$3\r\nget\r\n$1\r\na\r\n", 'GET "a"'),
        (b"*1\r\n$4\r\nPING\r\n", "PING"),
        (b"*2\r\n$3\r\nGET\r\n$30\r\n" + b"k" * 30 + b"\r\n", f'GET "{"k" * 24}"..'),
        (b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2\r\n\x1b[\r\n", 'SET "a" <1b5b>'),
        (b"*10\r\n" + b"$1\r\nx\r\n" * 10, 'X "x" "x" "x" "x" "x" "x" "x" ..'),
        (b"*0\r\n", "[]"),
        (b"+OK\r\n", "+OK"),
        (b"-ERR no\x07\r\n", "-ERR no\\x07"),
        (b":42\r\n", ":42"),
        (b"$-1\r\n", "nil"),
        (b"$5\r\nhello\r\n", '"hello"'),
        (b"+OK\r\n+OK\r\n", "<2b4f4b0d0a2b4f4b0d0a>"),
        (b"*2\r\n$3\r\nGET\r\nbroken", "<2a320d0a24330d0a4745540d0a62726f6b656e>"),
        (b'say "hi" \\', '"say \\"hi\\" \\\\"'),
        (b"hello", '"hello"'),
        ("grüß".encode(), "<6772c3bcc39f>"),
        (b"\x00\x01", "<0001>"),
    ],
)
def test_previews(body: bytes, shown: str) -> None:
    assert preview(body) == shown


@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(st.sampled_from([b"*", b"$", b"3", b"-1", b"\r\n", b"GET", b"+", b"\x1b", b":"]), max_size=20).map(
            b"".join
        ),
    )
)
def test_whatever_the_bytes_it_is_short_and_printable(body: bytes) -> None:
    shown = preview(body)
    assert len(shown) <= PREVIEW_MAX + 4
    assert shown.isascii()
    assert shown.isprintable()
