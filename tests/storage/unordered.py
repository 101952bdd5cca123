"""A disk that loses its power and keeps changes of names in any order: what a file system may do, where crashing.py's
keeps the oldest first.

Beside the real directory it knows each file's bytes, how many of them are synced, and the names that are.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from r2p2.files import Files
from tests.storage.crashing import PowerLost


@dataclass(slots=True)
class _File:
    data: bytearray = field(default_factory=bytearray)
    synced: int = 0


class UnorderedFiles(Files):
    """Of one directory. ``crash_at``: the number of the call that fails, from 1 on; None: none does."""

    def __init__(self, directory: Path, rng: random.Random, crash_at: int | None) -> None:
        self._directory = directory
        self._rng = rng
        self._left = crash_at
        self._open: dict[int, _File] = {}
        self._names: dict[Path, _File] = {}
        for path in directory.iterdir():
            data = bytearray(path.read_bytes())
            self._names[path] = _File(data, len(data))
        self._durable = dict(self._names)
        self._changes: list[tuple[Path | None, Path | None, _File | None]] = []  # a name that goes, one that comes

    def _call(self) -> bool:
        """Whether this call is the one that fails; it may have its effect."""
        if self._left == 0:
            raise PowerLost
        if self._left is not None:
            self._left -= 1
        return self._left == 0

    def create(self, path: Path) -> int:
        crash = self._call()
        handle = super().create(path)
        self._open[handle] = self._names[path] = _File()
        self._changes.append((None, path, self._names[path]))
        if crash:
            raise PowerLost
        return handle

    def write(self, handle: int, data: bytes | bytearray) -> None:
        crash = self._call()
        if crash:
            data = data[: self._rng.randint(0, len(data))]
        super().write(handle, data)
        self._open[handle].data += data
        if crash:
            raise PowerLost

    def sync(self, handle: int) -> None:
        crash = self._call()
        if not crash or self._rng.random() < 0.5:
            self._open[handle].synced = len(self._open[handle].data)
        if crash:
            raise PowerLost

    def close(self, handle: int) -> None:
        super().close(handle)
        del self._open[handle]

    def replace(self, source: Path, target: Path) -> None:
        crash = self._call()
        super().replace(source, target)
        self._names[target] = self._names.pop(source)
        self._changes.append((source, target, self._names[target]))
        if crash:
            raise PowerLost

    def remove(self, path: Path) -> None:
        if not path.exists():
            return
        crash = self._call()
        super().remove(path)
        del self._names[path]
        self._changes.append((path, None, None))
        if crash:
            raise PowerLost

    def sync_directory(self, path: Path) -> None:
        crash = self._call()
        if path == self._directory and (not crash or self._rng.random() < 0.5):
            self._durable = dict(self._names)
            self._changes.clear()
        if crash:
            raise PowerLost

    def lose_power(self) -> None:
        """The directory is as a restart may find it."""
        self._left = 0
        for handle in list(self._open):
            self.close(handle)
        kept = self._rng.random()
        for gone, come, file in self._changes:
            if self._rng.random() < kept:
                if gone is not None:
                    self._durable.pop(gone, None)
                if come is not None and file is not None:
                    self._durable[come] = file
        for path in list(self._directory.iterdir()):
            path.unlink()
        for path, file in self._durable.items():
            data = file.data[: self._rng.randint(file.synced, len(file.data))]
            if len(data) > file.synced and self._rng.random() < 0.6:
                first = self._rng.randrange(file.synced, len(data))
                last = self._rng.randrange(first, len(data)) + 1
                data[first:last] = bytes(last - first)  # a block that was not written
            path.write_bytes(data)
