"""The calls that change a storage directory, behind one class, so that a test can count them and crash at each.

Every method is one call of the operating system (or a bounded few) whose effect a power failure may keep or lose until
the matching ``sync``. Errors are ``OSError``. What the bytes mean is :mod:`r2p2.storage`'s.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["Files"]


class Files:
    """The real ones."""

    def create(self, path: Path) -> int:
        """A new file, open for appending; its name is durable after :meth:`sync_directory`."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def write(self, handle: int, data: bytes | bytearray) -> None:
        """All of ``data`` behind what is there."""
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]

    def sync(self, handle: int) -> None:
        """What was written to this file is durable."""
        os.fdatasync(handle)

    def close(self, handle: int) -> None:
        """Closes it, durable or not."""
        os.close(handle)

    def replace(self, source: Path, target: Path) -> None:
        """Renames in one step; durable after :meth:`sync_directory`."""
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        """Removes a file if it is there; durable after :meth:`sync_directory`."""
        path.unlink(missing_ok=True)

    def sync_directory(self, path: Path) -> None:
        """Names created, replaced and removed in it are durable."""
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
