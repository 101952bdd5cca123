"""Starts children (children.py) as processes of their own and reads what they say."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent
TIMEOUT_S = 50


class Child:
    """A process of its own that runs one function of children.py, or of another file here."""

    def __init__(
        self, name: str, arguments: dict[str, Any], *, own_network: bool = False, file: str = "children.py"
    ) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in end()
        self.process = subprocess.Popen(
            [
                *(["unshare", "-n"] if own_network else []),
                sys.executable,
                str(FOLDER / file),
                name,
                json.dumps(arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._watchdog = threading.Timer(TIMEOUT_S, self.process.kill)
        self._watchdog.start()

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def line(self) -> dict[str, Any]:
        """The next line it says."""
        text = self._read()
        if not text:
            self._fail()
        line: dict[str, Any] = json.loads(text)
        return line

    def result(self) -> dict[str, Any]:
        """Its last line; the process has ended well."""
        last = ""
        while text := self._read():
            last = text
        if self.process.wait(timeout=TIMEOUT_S) != 0 or not last:
            self._fail()
        result: dict[str, Any] = json.loads(last)
        return result

    def _fail(self) -> None:
        code = self.process.wait(timeout=TIMEOUT_S)
        self._errors.seek(0)
        pytest.fail(f"{self.name} ended with {code}: {self._errors.read()[-3000:]}")

    def end(self) -> None:
        """SIGKILL if it lives: it gets no chance to say good-bye."""
        self._watchdog.cancel()
        self.process.kill()
        self.process.wait(timeout=TIMEOUT_S)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._errors.close()


class Children:
    """Starts children; all are gone at the end of the test."""

    def __init__(self) -> None:
        self.started: list[Child] = []

    def start(self, name: str, *, file: str = "children.py", **arguments: Any) -> Child:
        """In the background."""
        self.started.append(Child(name, arguments, file=file))
        return self.started[-1]

    def run(self, name: str, *, file: str = "children.py", **arguments: Any) -> dict[str, Any]:
        """To its end."""
        return self.start(name, file=file, **arguments).result()

    def run_in_own_network(self, name: str, *, file: str = "children.py", **arguments: Any) -> dict[str, Any]:
        """To its end, in a network namespace of its own."""
        self.started.append(Child(name, arguments, own_network=True, file=file))
        return self.started[-1].result()
