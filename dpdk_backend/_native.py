"""Loads the compiled module, late: importing ``dpdk_backend`` must work on a machine without DPDK.

What it leaves to others: turning error codes of single calls into exceptions is shared here by :func:`check`;
remedies are the business of the caller.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, cast

from dpdk_backend.errors import DpdkError, DpdkMissingError

if TYPE_CHECKING:
    from dpdk_backend._dpdk import Lib

_REBUILD = "pip install --force-reinstall --no-deps . (in the project's directory)"


class Native:
    """The two objects of the compiled module."""

    def __init__(self, ffi: Any, lib: Lib) -> None:
        """``ffi`` and ``lib`` as cffi makes them."""
        self.ffi = ffi
        self.lib = lib

    def text(self, pointer: Any) -> str:
        """A C string."""
        return bytes(self.ffi.string(pointer)).decode("utf-8", "replace")

    def error_text(self) -> str:
        """The sentence the last failed call of this thread left."""
        return self.text(self.lib.dpdk_error_text())


_loaded: Native | None = None


def load() -> Native:
    """The compiled module.

    Raises:
        DpdkMissingError: it was not built, or DPDK's shared libraries are gone.
    """
    global _loaded
    if _loaded is None:
        try:
            module = importlib.import_module("dpdk_backend._dpdk")
        except ModuleNotFoundError as error:
            if error.name != "dpdk_backend._dpdk":
                raise
            raise DpdkMissingError(
                "the DPDK backend is not built: DPDK's headers were not found when this package was installed",
                remedy=f"apt install dpdk libdpdk-dev pkg-config gcc, then {_REBUILD}; or use the uv backend",
            ) from error
        except ImportError as error:
            raise DpdkMissingError(
                f"the DPDK backend does not load: {error}",
                remedy=f"apt install dpdk libdpdk-dev (the version it was built with), or build it again: {_REBUILD}",
            ) from error
        _loaded = Native(module.ffi, cast("Lib", module.lib))
    return _loaded


def check(status: int, error: type[DpdkError], remedy: str = "") -> int:
    """``status`` when it is no error code; else raises ``error`` with the call's own sentence."""
    if status < 0:
        raise error(load().error_text(), code=-status, remedy=remedy)
    return status
