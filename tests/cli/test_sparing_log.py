"""Errors that requests cause are logged a bounded number of times a second, and none goes without a word."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

import pytest

from r2p2.app import handler_errors, state_machine
from r2p2.logs import ERRORS_A_SECOND, Sparing, configure, line_writer
from r2p2.requests import Requests


def test_what_is_left_out_is_told_in_the_next_second(caplog: pytest.LogCaptureFixture) -> None:
    now_s = [5.0]
    errors = Sparing(logging.getLogger("r2p2.test"), 3, lambda: now_s[0])
    for i in range(8):
        errors.error("error %d", i)
    now_s[0] = 5.99
    errors.error("error %d", 8)
    now_s[0] = 6.0
    errors.error("error %d", 9)
    now_s[0] = 7.5
    errors.error("error %d", 10)
    assert [record.getMessage() for record in caplog.records] == [
        "error 0",
        "error 1",
        "error 2",
        "6 more errors like the last were left out (handler_errors counts all)",
        "error 9",
        "error 10",
    ]


def test_a_thousand_failing_requests_are_counted_and_logged_a_few_times(caplog: pytest.LogCaptureFixture) -> None:
    app = state_machine(lambda request: {b"": b""}[request])
    replies = app.apply(Requests.of([b"%d" % i for i in range(1_000)]))
    assert list(replies) == [b"-ERR KeyError\r\n"] * 1_000  # type: ignore[arg-type]
    assert handler_errors(app) == 1_000
    texts = [record.getMessage() for record in caplog.records]
    # A second may have begun in between, or several on a busy machine, each with as many and a word about the rest.
    assert ERRORS_A_SECOND <= len(texts) < 200
    assert "KeyError: b'0'" in caplog.text


def test_a_path_that_is_no_text_is_told(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w", encoding="utf-8") as out:
        configure("text", out=out)(f"comes back from {os.fsdecode(bytes([0xFF]))}")
    assert (tmp_path / "out").read_text() == "r2p2: comes back from \\udcff\n"


def test_lines_that_cannot_be_written_end_nobody_and_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    full = open("/dev/full", "w")  # noqa: SIM115 - what is left of it cannot be written at its end either
    write = line_writer(full)
    for i in range(3):
        write(f"line {i}")
    assert [record.getMessage() for record in caplog.records] == [
        "lines are lost, and the rest goes on: No space left on device"
    ]
    with contextlib.suppress(OSError):
        full.close()
