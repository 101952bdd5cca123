"""Pools of packet buffers that several devices share, for :class:`~dpdk_backend.ethdev.EthDev`.

A device without one gets a pool of its own. Frames may go out by another device than they came in by, whosever pool
their buffers are of; with a shared one no device runs out while another has buffers to spare.
"""

from __future__ import annotations

import itertools
from types import TracebackType
from typing import Any, Literal

from dpdk_backend._native import load
from dpdk_backend.eal import remedy_for
from dpdk_backend.errors import DeviceError, DpdkError

_numbers = itertools.count()


class Mempool:
    """``mbufs_count`` buffers of ``mbuf_data_bytes`` (128 of them headroom); a context manager.

    The EAL runs before one is made, and every device that uses it is closed before it is.

    Raises:
        DeviceError: no memory for it, or the EAL is not running.
    """

    def __init__(self, mbufs_count: int = 8_191, mbuf_data_bytes: int = 2_176) -> None:
        """Takes the memory; a count of 2**n - 1 wastes none."""
        self._native = load()
        self.leaked_mbufs: int = 0
        """Buffers that did not come back at close: some burst, or some device, has them still."""
        name = f"pool_{next(_numbers)}".encode()
        pool = self._native.lib.dpdk_pool_new(name, mbufs_count, mbuf_data_bytes)
        if pool == self._native.ffi.NULL:
            message = self._native.error_text()
            raise DeviceError(
                message, remedy=remedy_for(message) or "raise EalConfig.memory_mb, or ask for fewer buffers"
            )
        self._pool: Any = pool

    def pointer(self) -> Any:
        """For EthDev alone.

        Raises:
            DpdkError: it is closed.
        """
        if self._pool is None:
            raise DpdkError("the pool is closed")
        return self._pool

    def in_use(self) -> int:
        """Buffers that are not free."""
        return self._native.lib.dpdk_pool_in_use(self.pointer())

    def close(self) -> None:
        """Gives the memory back, unless a buffer is still out; a second call does nothing."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            self.leaked_mbufs = self._native.lib.dpdk_pool_free(pool)

    def __enter__(self) -> Mempool:
        """The pool itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        """Closes."""
        self.close()
        return False
