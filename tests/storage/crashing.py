"""A disk that loses its power: counts the calls that write, fails at a chosen one, and then keeps what a disk may keep.

Everything goes to a real directory. Beside it this file knows what is durable: how much of each file was synced, and
which changes of names were. :meth:`CrashingFiles.lose_power` takes back a random part of the rest: the tail of a file
is cut and perhaps garbled, the newest changes of names are undone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from r2p2.files import Files


class PowerLost(Exception):
    """The member is gone in the middle of a call."""


class CrashingFiles(Files):
    """``crash_at``: the number of the call that fails, from 1 on; None: none does."""

    def __init__(self, rng: random.Random, crash_at: int | None = None) -> None:
        self.calls = 0
        self.crash_at = crash_at
        self._rng = rng
        self._gone = False
        self._paths: dict[int, Path] = {}
        self._synced: dict[Path, int] = {}  # bytes; a file that is not here is whole
        self._undo: list[Callable[[], None]] = []  # of changes of names that are not durable, oldest first

    def _call(self) -> bool:
        """Whether this call is the one that fails."""
        if self._gone:
            raise PowerLost
        self.calls += 1
        if self.calls == self.crash_at:
            self._gone = True
            return True
        return False

    def create(self, path: Path) -> int:
        crash = self._call()
        handle = super().create(path)
        self._paths[handle] = path
        self._synced[path] = 0
        self._undo.append(lambda: path.unlink(missing_ok=True))
        if crash:
            raise PowerLost
        return handle

    def write(self, handle: int, data: bytes | bytearray) -> None:
        if self._call():
            super().write(handle, data[: self._rng.randint(0, len(data))])
            raise PowerLost
        super().write(handle, data)

    def sync(self, handle: int) -> None:
        crash = self._call()
        if not crash or self._rng.random() < 0.5:
            path = self._paths[handle]
            self._synced[path] = path.stat().st_size
        if crash:
            raise PowerLost

    def close(self, handle: int) -> None:
        super().close(handle)
        self._paths.pop(handle)

    def replace(self, source: Path, target: Path) -> None:
        crash = self._call()
        old = target.read_bytes() if target.exists() else None
        super().replace(source, target)
        synced = self._synced.pop(source, None)
        if synced is not None:
            self._synced[target] = synced

        def undo() -> None:
            target.replace(source)
            if synced is not None:
                self._synced.pop(target, None)
            if old is not None:
                target.write_bytes(old)

        self._undo.append(undo)
        if crash:
            raise PowerLost

    def remove(self, path: Path) -> None:
        if not path.exists():
            return
        crash = self._call()
        old = path.read_bytes()
        super().remove(path)
        synced = self._synced.pop(path, None)

        def undo() -> None:
            path.write_bytes(old if synced is None else old[:synced])

        self._undo.append(undo)
        if crash:
            raise PowerLost

    def sync_directory(self, path: Path) -> None:
        crash = self._call()
        if not crash or self._rng.random() < 0.5:
            self._undo.clear()
        if crash:
            raise PowerLost

    def lose_power(self) -> None:
        """What was not synced is kept in part. Afterwards the directory may be opened again, with new files."""
        self._gone = True
        for path, synced in self._synced.items():
            if not path.exists():
                continue
            data = bytearray(path.read_bytes())
            if len(data) > synced:
                del data[self._rng.randint(synced, len(data)) :]
                if len(data) > synced and self._rng.random() < 0.5:
                    data[self._rng.randrange(synced, len(data))] ^= 1 << self._rng.randrange(8)
                path.write_bytes(data)
        for _ in range(self._rng.randint(0, len(self._undo))):
            self._undo.pop()()
