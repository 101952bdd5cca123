"""The outside of the virtual machine: a network namespace with one tap for each of its NICs.

A namespace, so that nothing of this reaches the network of the machine the test runs on, and nothing is left when it
goes. What it leaves to others: who speaks on the wires (``outside.py``).
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from r2p2.errors import UserError

OUTSIDE = Path(__file__).with_name("outside.py")


@dataclass(frozen=True)
class Wire:
    """A tap, our address on it, and the address of who is at its other end."""

    tap: str
    ours: str
    theirs: str


class Namespace:
    """A network namespace with the wires; a context manager.

    Raises:
        UserError: this machine lets us make none.
    """

    def __init__(self, name: str, wires: tuple[Wire, ...]) -> None:
        """``name``: nobody else's."""
        self.name = name
        self._wires = wires

    @property
    def prefix(self) -> tuple[str, ...]:
        """What a command line begins with that is to run inside."""
        return ("ip", "netns", "exec", self.name)

    def _ip(self, *arguments: str) -> None:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise UserError(
                f"ip {' '.join(arguments)}: {done.stderr.strip()}", "run as root, with /dev/net/tun (modprobe tun)"
            )

    def __enter__(self) -> Namespace:
        """Makes it."""
        self._ip("netns", "add", self.name)
        try:
            for wire in self._wires:
                self._ip("-n", self.name, "tuntap", "add", wire.tap, "mode", "tap")
                self._ip("-n", self.name, "address", "add", f"{wire.ours}/24", "dev", wire.tap)
                self._ip("-n", self.name, "link", "set", wire.tap, "up")
        except BaseException:
            self._ip("netns", "delete", self.name)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Removes it with its taps."""
        self._ip("netns", "delete", self.name)

    def speak(self, wire: Wire, port: int, timeout_s: float) -> dict[str, Any]:
        """Runs ``outside.py`` on a wire; what it found.

        Raises:
            AssertionError: the other end did not do what it must.
        """
        command = [*self.prefix, sys.executable, str(OUTSIDE), wire.theirs, str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        if done.returncode != 0:
            raise AssertionError(f"{wire.theirs} from outside: {done.stderr.strip()[-1500:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        found["neighbour"] = self._neighbour(wire)
        return found

    def _neighbour(self, wire: Wire) -> str:
        """The MAC that ARP found for the other end."""
        command = ["ip", "-n", self.name, "-j", "neighbour", "show", wire.theirs]
        rows = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout or "[]")
        return str(rows[0].get("lladdr", "none")) if rows else "none"
