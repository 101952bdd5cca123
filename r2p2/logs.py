"""What a node tells its operator, as text or as JSON, a line each (``--log-format``), and not without end.

Leaves to others: what is told, and where the lines go (standard output).
"""

from __future__ import annotations

import io
import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

__all__ = ["FORMATS", "JsonFormatter", "Sparing", "configure", "line_writer"]

FORMATS: Final = ("text", "json")
ERRORS_A_SECOND: Final = 10


class JsonFormatter(logging.Formatter):
    """A record as one JSON object: ``time`` (unix seconds), ``level``, ``logger``, ``message``, and the fields that
    every line of this process has.
    """

    def __init__(self, fields: dict[str, object]) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, object] = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._fields,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(form: str, fields: dict[str, object] | None = None, out: TextIO | None = None) -> Callable[[str], None]:
    """Sets logging up for this process; returns what tells the operator one thing that happened.

    Args:
        form: ``text``: lines that begin with ``r2p2: ``; ``json``: an object a line.
        fields: in every line of JSON.
        out: where events go; by default standard output.
    """
    stream = sys.stdout if out is None else out
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # a path may be no text
    if form == "text":
        logging.basicConfig(format="r2p2: %(message)s", level=logging.INFO)
        write = line_writer(stream)
        return lambda text: write(f"r2p2: {text}")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(fields or {}))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    events = logging.getLogger("r2p2.event")
    return events.info


def line_writer(stream: TextIO) -> Callable[[str], None]:
    """Writes lines. One that cannot be written, on a full disk or when the reader has left, is no reason to end: the
    first is said in the log, on standard error.
    """
    lost = False

    def write(line: str) -> None:
        nonlocal lost
        try:
            print(line, file=stream, flush=True)
        except OSError as error:
            if not lost:
                logging.getLogger("r2p2.event").error("lines are lost, and the rest goes on: %s", error.strerror)
            lost = True

    return write


class Sparing:
    """Logs errors that requests cause, at most ``lines_max`` a second; the next second's first says how many there were
    besides. A client that makes every request fail must not fill a disk with tracebacks: they are counted, too.
    """

    def __init__(
        self, log: logging.Logger, lines_max: int = ERRORS_A_SECOND, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._lines_max = lines_max
        self._clock = clock
        self._second = -1
        self._count = 0

    def error(self, message: str, *arguments: object, exc_info: BaseException | None = None) -> None:
        """As :meth:`logging.Logger.error`."""
        second = int(self._clock())
        if second != self._second:
            left_out = self._count - self._lines_max
            if left_out > 0:
                self._log.error("%d more errors like the last were left out (handler_errors counts all)", left_out)
            self._second, self._count = second, 0
        self._count += 1
        if self._count <= self._lines_max:
            self._log.error(message, *arguments, exc_info=exc_info)
