"""What arguments of commands may be: numbers and what is written to, checked the same way everywhere.

Every check raises a :class:`~r2p2.errors.UserError` that names the option, what was given and what is allowed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from r2p2 import limits
from r2p2.errors import UserError

__all__ = ["CHECK_ENTRIES_MAX", "CLUSTER_ID_MAX", "CPU_MAX", "LOG_MIB_MAX", "SECONDS_MAX"]
__all__ += ["in_range", "make_folder", "nanoseconds", "positive_seconds", "seconds", "writable_file"]

# Of the cluster file, too.
CLUSTER_ID_MAX: Final = (1 << 32) - 1
LOG_MIB_MAX: Final = 1 << 20
CHECK_ENTRIES_MAX: Final = 1 << 20
CPU_MAX: Final = 4095

SECONDS_MAX: Final = 1_000_000


def in_range(name: str, value: int, least: int, most: int) -> int:
    """The value of an option, if it is in least..most."""
    if not least <= value <= most:
        raise UserError(f"{name} is {value}, outside {least}..{most}")
    return value


def seconds(name: str, value: float) -> float:
    """A length of time, 0 too; nan and infinity are none."""
    if not 0 <= value < SECONDS_MAX:
        raise UserError(f"{name} is {value}, not at least 0 and below a million seconds")
    return value


def positive_seconds(name: str, value: float) -> float:
    """A length of time above 0; nan and infinity are none."""
    if not 0 < value < SECONDS_MAX:
        raise UserError(f"{name} is {value}, not above 0 and below a million seconds")
    return value


def nanoseconds(name: str, value: float) -> int:
    """As :func:`positive_seconds`, in nanoseconds, at least one."""
    return max(int(positive_seconds(name, value) * limits.SECOND), 1)


def writable_file(name: str, path: Path) -> None:
    """A file that is written at the end can be written: said before the work. What is in it stays."""
    if path.exists() and not path.is_file() and not path.is_dir():
        return  # a device or a pipe, which may not be opened twice
    is_new = not path.exists()
    try:
        with path.open("ab"):
            pass
        if is_new:
            path.unlink()
    except OSError as error:
        raise UserError(f"{name} {path} cannot be written: {error.strerror}", f"Name another {name}.") from error


def make_folder(name: str, path: Path) -> None:
    """A folder that is written into is there and can be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{name}: no folder {path} can be made: {error.strerror}", f"Name another {name}.") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"{name}: the folder {path} cannot be written", f"Name another {name}.")
