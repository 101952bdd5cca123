"""The in-memory network: ports on one switch with a virtual clock, scripted loss, delay, duplication and reordering.

For tests, of users too: every run with the same seed is the same run. Wraps ``r2p2_mem_*`` of the engine's C.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final

from r2p2._engine import ffi, lib
from r2p2.driver import Pollable
from r2p2.errors import EngineError

__all__ = ["MemoryNetwork"]

PACKETS_MAX: Final = 65_536
_NEVER: Final = 2**64 - 1


class MemoryNetwork:
    """A switch that ports are opened on.

    Args:
        seed: of every fault and delay.
        packets_max: datagrams that can be in flight or held at once.
    """

    def __init__(self, seed: int = 0, packets_max: int = PACKETS_MAX) -> None:
        self._switch: Any = lib.r2p2_mem_switch_new(seed, packets_max)
        if not self._switch:
            raise EngineError("r2p2_mem_switch_new: no memory")
        self._ports: list[int] = []

    def open(self, ip: int, port: int) -> int:
        """A port at ``ip:port``: the address of its C struct, for :class:`~r2p2.engine.Engine`."""
        address = lib.r2p2_mem_port_open(self._switch, ip, port)
        if not address:
            raise EngineError(f"r2p2_mem_port_open: {ip:#x}:{port} cannot be opened (taken, or no memory)")
        self._ports.append(address)
        return address

    def close_port(self, address: int) -> None:
        """Takes a port off the switch, as a killed process would leave it. Its engine must be closed first."""
        self._ports.remove(address)
        lib.r2p2_mem_port_close(self._switch, address)

    def close(self) -> None:
        """Frees the ports and the switch. Engines on it must be closed first. Idempotent."""
        if self._switch:
            while self._ports:
                lib.r2p2_mem_port_close(self._switch, self._ports.pop())
            lib.r2p2_mem_switch_free(self._switch)
            self._switch = None

    def __enter__(self) -> MemoryNetwork:
        """The network."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()

    def faults(
        self,
        *,
        loss_ppm: int = 0,
        duplicate_ppm: int = 0,
        reorder_ppm: int = 0,
        delay_min_ns: int = 1_000,
        delay_max_ns: int = 1_000,
    ) -> None:
        """From now on: chances per million datagrams, and the range of delays."""
        status = lib.r2p2_mem_switch_faults(
            self._switch, loss_ppm, duplicate_ppm, reorder_ppm, delay_min_ns, delay_max_ns
        )
        if status:
            raise ValueError(f"faults out of range (status {status})")

    def block(self, source_ip: int, target_ip: int, blocked: bool = True) -> None:
        """Cuts or heals one direction; ip 0 is any address."""
        status = lib.r2p2_mem_switch_block(self._switch, source_ip, target_ip, 1 if blocked else 0)
        if status:
            raise ValueError(f"too many cuts (status {status})")

    def inject(self, source: tuple[int, int], target: tuple[int, int], data: bytes) -> None:
        """Puts a datagram on the switch as if ``source`` had sent it."""
        status = lib.r2p2_mem_switch_inject(
            self._switch, source[0], source[1], target[0], target[1], ffi.from_buffer(data), len(data)
        )
        if status:
            raise EngineError(f"r2p2_mem_switch_inject: status {status}")

    @property
    def now_ns(self) -> int:
        """The virtual time."""
        return lib.r2p2_mem_switch_now_ns(self._switch)

    @property
    def in_flight(self) -> int:
        """Datagrams under way or held by a port's user."""
        return lib.r2p2_mem_switch_in_flight(self._switch)

    def advance(self, ns: int) -> None:
        """Moves the clock."""
        lib.r2p2_mem_switch_advance(self._switch, ns)

    def run(self, pollables: Sequence[Pollable], duration_ns: int, step_max_ns: int = 1_000_000) -> None:
        """Polls everything until ``duration_ns`` have passed, moving the clock to whatever happens next."""
        end_ns = self.now_ns + duration_ns
        while True:
            busy = True
            while busy:
                busy = any([pollable.poll_once() for pollable in pollables])
            now_ns = self.now_ns
            if now_ns >= end_ns:
                return
            deadlines = [d for d in (p.next_deadline_ns() for p in pollables) if d is not None]
            arrival_ns = lib.r2p2_mem_switch_next_ns(self._switch)
            next_ns = min([*deadlines, arrival_ns, now_ns + step_max_ns, end_ns])
            self.advance(max(next_ns - now_ns, 1))
