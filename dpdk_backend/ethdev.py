"""A DPDK device as bursts of Ethernet frames, without the stack: for tools, and for protocols of one's own.

A :class:`Burst` holds frames in DPDK's own buffers and is passed from call to call; Python touches no packet, so a
call costs a burst and not a packet. Whoever holds the burst holds its buffers: sending or freeing empties it.

What it leaves to others: IP and UDP (``port.py``), forwarding loops (``forward.py``).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal

from dpdk_backend._attach import DeviceStats, attach, device_error
from dpdk_backend._native import load
from dpdk_backend.devices import Device
from dpdk_backend.errors import DeviceError, DpdkError

BURST_MAX = 64
_FRAME_BYTES_MAX = 65_535 + 14
_pool_numbers = itertools.count()


class Burst:
    """Up to 64 frames in DPDK's buffers. It must be empty when the device it was filled from is closed."""

    __slots__ = ("_c", "_native")

    def __init__(self) -> None:
        """An empty one."""
        self._native = load()
        self._c: Any = self._native.ffi.new("dpdk_burst *")

    def __len__(self) -> int:
        """The frames in it."""
        return int(self._c.count)

    def frames(self) -> list[bytes]:
        """The frames, copied out."""
        ffi, lib = self._native.ffi, self._native.lib
        slab = ffi.new("uint8_t[]", BURST_MAX * 2048 + _FRAME_BYTES_MAX)
        lengths = ffi.new("uint32_t[]", BURST_MAX)
        count = lib.dpdk_burst_read(self._c, slab, len(slab), lengths)
        if count < len(self):
            raise DeviceError(f"a burst of {len(self)} frames has more than {len(slab)} bytes")
        view, frames, offset = ffi.buffer(slab), [], 0
        for i in range(count):
            frames.append(view[offset : offset + lengths[i]])
            offset += lengths[i]
        return frames

    def swap_macs(self) -> None:
        """Source and target MAC of every frame change places."""
        self._native.lib.dpdk_burst_swap_macs(self._c)

    def free(self) -> None:
        """Gives the buffers back; the burst is empty then."""
        self._native.lib.dpdk_burst_free(self._c)


class EthDev:
    """One device with one rx and one tx queue and a pool of its own; a context manager.

    The EAL runs before one is made. One thread drives all devices of a process.

    Raises:
        DeviceError: it could not be made.
    """

    def __init__(
        self,
        device: Device,
        *,
        mbufs_count: int = 8_191,
        mbuf_data_bytes: int = 2_176,
        promiscuous: bool = True,
    ) -> None:
        """Makes or finds the device, configures and starts it."""
        self._native = load()
        self.leaked_mbufs: int = 0
        """Buffers that did not come back at close; anything but 0: a burst was not sent or freed."""
        self._attached = attach(device)
        config = self._native.ffi.new(
            "dpdk_queue_config *",
            {
                "mbufs_count": mbufs_count,
                "mbuf_data_bytes": mbuf_data_bytes,
                "rx_ring_count": device.rx_ring_count,
                "tx_ring_count": device.tx_ring_count,
                "is_memif": int(self._attached.is_memif),
                "is_reconnecting": int(device.is_reconnecting),
                "is_promiscuous": int(promiscuous),
            },
        )
        pool_name = f"ethdev_{next(_pool_numbers)}".encode()
        queue = self._native.lib.dpdk_queue_open(pool_name, self._attached.port_id, config)
        if queue == self._native.ffi.NULL:
            error = device_error()
            self._attached.detach()
            raise error
        self._queue: Any = queue

    def _live(self) -> Any:
        if self._queue is None:
            raise DpdkError(f"{self.name} is closed")
        return self._queue

    @property
    def name(self) -> str:
        """DPDK's name of the device."""
        return self._attached.name

    @property
    def driver(self) -> str:
        """DPDK's name of its driver, like ``net_pcap``."""
        return self._attached.driver

    @property
    def mac(self) -> bytes:
        """The device's own MAC."""
        return self._attached.mac

    def receive(self, burst: Burst, count_max: int = BURST_MAX) -> int:
        """Appends what has arrived, as far as there is room; returns the frames added."""
        return self._native.lib.dpdk_queue_receive(self._live(), burst._c, count_max)

    def send(self, burst: Burst, retry_max: int = 8) -> int:
        """Sends the burst and empties it; what the device does not take is freed. Returns the frames taken."""
        return self._native.lib.dpdk_queue_send(self._live(), burst._c, retry_max)

    def write(self, burst: Burst, frames: Sequence[bytes]) -> int:
        """Appends frames, in buffers of this device; returns how many found room."""
        ffi = self._native.ffi
        slab = ffi.from_buffer("uint8_t[]", b"".join(frames))
        lengths = ffi.new("uint32_t[]", [len(frame) for frame in frames])
        return self._native.lib.dpdk_burst_write(self._live(), burst._c, slab, lengths, len(frames))

    def repeat(self, burst: Burst, frame: bytes, count: int) -> int:
        """Appends copies of one frame; all that fit into the burst, or none where buffers are short."""
        return self._native.lib.dpdk_burst_repeat(self._live(), burst._c, frame, len(frame), count)

    def answer_pings(self, burst: Burst) -> None:
        """Turns ARP and ICMP echo requests, for any address, into their replies; frees all other frames."""
        self._native.lib.dpdk_burst_answer_pings(self._live(), burst._c)

    def control(self) -> None:
        """Lets links change; :meth:`receive` does so by itself every few milliseconds."""
        self._native.lib.dpdk_queue_control(self._live())

    @property
    def link_up(self) -> bool:
        """Whether it has a link, as of the last control round."""
        return bool(self._native.lib.dpdk_queue_is_link_up(self._live()))

    def pool_in_use(self) -> int:
        """Buffers of its pool that are not free."""
        return self._native.lib.dpdk_queue_pool_in_use(self._live())

    def stats(self) -> DeviceStats:
        """The device's own counters."""
        self._live()
        return self._attached.stats()

    def xstats(self) -> dict[str, int]:
        """The device's extended statistics, by DPDK's names."""
        self._live()
        return self._attached.xstats()

    def close(self) -> None:
        """Stops and removes the device; a second call does nothing."""
        if self._queue is not None:
            queue, self._queue = self._queue, None
            self.leaked_mbufs = self._native.lib.dpdk_queue_close(queue)
            self._attached.detach()

    def __enter__(self) -> EthDev:
        """The device itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        """Closes."""
        self.close()
        return False
