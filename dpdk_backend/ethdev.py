"""A DPDK device as bursts of Ethernet frames, without the stack: for tools, and for protocols of one's own.

A :class:`Burst` holds frames in DPDK's own buffers and is passed from call to call; Python touches no packet, so a
call costs a burst and not a packet. Whoever holds the burst holds its buffers: sending or freeing empties it.

    with EthDev(pcap(0, rx_path="in.pcap", tx_path=None)) as device:
        burst = Burst()
        while device.receive(burst):
            print(len(burst.frames()))
            burst.free()

What it leaves to others: IP and UDP (``port.py``), forwarding loops (``forward.py``).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, NamedTuple

from dpdk_backend._attach import Capabilities, DeviceStats, attach, device_error
from dpdk_backend._native import check, load
from dpdk_backend.devices import Device
from dpdk_backend.errors import DeviceError, DpdkError
from dpdk_backend.mempool import Mempool

BURST_MAX = 64
QUEUES_MAX = 64
_FRAME_BYTES_MAX = 65_535 + 14
_pool_numbers = itertools.count()


def _offload_bits(way: str, wanted: Sequence[str], offered: dict[str, int], device_name: str) -> int:
    """The bits of offloads by name; DeviceError names what the device has."""
    for name in wanted:
        if name not in offered:
            raise DeviceError(
                f"{device_name} has no {way} offload {name!r}: it has {', '.join(offered) or 'none'}",
                remedy=f"leave it out of {way}_offloads",
            )
    return sum({offered[name] for name in wanted})


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


class Link(NamedTuple):
    """A device's link as its driver tells it now."""

    is_up: bool
    speed_mbps: int
    """0: none or unknown."""
    is_full_duplex: bool


class EthDev:
    """One device, with some rx and as many tx queues and a pool of buffers; a context manager.

    The EAL runs before one is made. One thread drives all devices of a process.

    Raises:
        DeviceError: it could not be made, or has not that many queues or such an offload.
    """

    def __init__(
        self,
        device: Device,
        *,
        queues_count: int = 1,
        pool: Mempool | None = None,
        mbufs_count: int = 8_191,
        mbuf_data_bytes: int = 2_176,
        mtu: int | None = None,
        rx_offloads: Sequence[str] = (),
        tx_offloads: Sequence[str] = (),
        promiscuous: bool = True,
    ) -> None:
        """Makes or finds the device, configures and starts it.

        ``pool``: where its buffers come from; None: one of its own, of ``mbufs_count`` buffers of ``mbuf_data_bytes``.
        ``mtu``: bytes of IP a frame holds; None: as the device comes. Offloads by DPDK's names, like ``UDP_CKSUM``; a
        device does what it was told here, and what a frame's buffer asks of it is the sender's business.
        ``Device.mac`` is the stack's and has no effect here: :meth:`set_mac`.
        """
        self._native = load()
        self.leaked_mbufs: int = 0
        """Buffers of its own pool that did not come back at close; anything but 0: a burst was not sent or freed."""
        if not 1 <= queues_count <= QUEUES_MAX:
            raise ValueError(f"queues_count is {queues_count}: 1..{QUEUES_MAX}")
        self.queues_count = queues_count
        self._attached = attach(device)
        try:
            self._open(device, pool, mbufs_count, mbuf_data_bytes, mtu, rx_offloads, tx_offloads, promiscuous)
        except Exception:
            self._attached.detach()
            raise

    def _open(
        self,
        device: Device,
        pool: Mempool | None,
        mbufs_count: int,
        mbuf_data_bytes: int,
        mtu: int | None,
        rx_offloads: Sequence[str],
        tx_offloads: Sequence[str],
        promiscuous: bool,
    ) -> None:
        capabilities = self._attached.capabilities()
        config = self._native.ffi.new(
            "dpdk_ethdev_config *",
            {
                "rx_offloads": _offload_bits("rx", rx_offloads, capabilities.rx_offloads, device.name),
                "tx_offloads": _offload_bits("tx", tx_offloads, capabilities.tx_offloads, device.name),
                "mbufs_count": mbufs_count,
                "mbuf_data_bytes": mbuf_data_bytes,
                "queues_count": self.queues_count,
                "rx_ring_count": device.rx_ring_count,
                "tx_ring_count": device.tx_ring_count,
                "mtu": mtu or 0,
                "is_memif": int(self._attached.is_memif),
                "is_reconnecting": int(device.is_reconnecting),
                "is_promiscuous": int(promiscuous),
            },
        )
        if self.queues_count > capabilities.queues_max:
            raise DeviceError(
                f"{device.name} has {capabilities.queues_max} queues, not {self.queues_count}",
                remedy="ask for fewer, or give the device more: pcap takes a file a queue, af_packet qpairs=N",
            )
        own = self._native.ffi.NULL if pool is None else pool.pointer()
        pool_name = f"ethdev_{next(_pool_numbers)}".encode()
        ethdev = self._native.lib.dpdk_ethdev_open(pool_name, own, self._attached.port_id, config)
        if ethdev == self._native.ffi.NULL:
            raise device_error()
        self._ethdev: Any = ethdev
        self._pool = pool

    def _live(self) -> Any:
        if self._ethdev is None:
            raise DpdkError(f"{self.name} is closed")
        return self._ethdev

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
        """The device's MAC as it is now, 6 bytes."""
        return self._attached.now().mac

    @property
    def mtu(self) -> int:
        """Bytes of IP a frame may hold."""
        return self._attached.now().mtu

    def capabilities(self) -> Capabilities:
        """What the device can do: queues, and offloads by DPDK's names."""
        return self._attached.capabilities()

    def set_mac(self, mac: bytes) -> None:
        """Gives the device another MAC, 6 bytes. DeviceError: its driver cannot."""
        if len(mac) != 6:
            raise ValueError(f"a MAC has 6 bytes, not {len(mac)}")
        check(self._native.lib.dpdk_ethdev_set_mac(self._live(), mac), DeviceError)

    def set_mtu(self, mtu: int) -> None:
        """Bytes of IP a frame may hold. DeviceError: too large, or its driver cannot (some: only while stopped)."""
        self._live()
        check(self._native.lib.dpdk_device_set_mtu(self._attached.port_id, mtu), DeviceError)

    def set_promiscuous(self, is_promiscuous: bool) -> None:
        """Whether frames for other MACs are received. DeviceError: its driver cannot."""
        self._live()
        check(self._native.lib.dpdk_device_set_promiscuous(self._attached.port_id, int(is_promiscuous)), DeviceError)

    def set_link(self, is_up: bool) -> None:
        """Switches the link at our end. DeviceError: its driver cannot."""
        self._live()
        check(self._native.lib.dpdk_device_set_link(self._attached.port_id, int(is_up)), DeviceError)

    def stop(self) -> None:
        """Nothing comes or goes, and no memif peer is called, until :meth:`start`; settings stay."""
        check(self._native.lib.dpdk_ethdev_stop(self._live()), DeviceError)

    def start(self) -> None:
        """After :meth:`stop`; a started device stays as it is."""
        check(self._native.lib.dpdk_ethdev_start(self._live()), DeviceError)

    def receive(self, burst: Burst, count_max: int = BURST_MAX, *, queue: int = 0) -> int:
        """Appends what has arrived on a queue, as far as there is room; returns the frames added."""
        if queue >= self.queues_count:
            raise IndexError(f"queue {queue} of {self.queues_count}")
        return self._native.lib.dpdk_ethdev_receive(self._live(), queue, burst._c, count_max)

    def send(self, burst: Burst, retry_max: int = 8, *, queue: int = 0) -> int:
        """Sends the burst and empties it; what the device does not take is freed. Returns the frames taken."""
        if queue >= self.queues_count:
            raise IndexError(f"queue {queue} of {self.queues_count}")
        return self._native.lib.dpdk_ethdev_send(self._live(), queue, burst._c, retry_max)

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
        self._native.lib.dpdk_ethdev_control(self._live())

    @property
    def link_up(self) -> bool:
        """Whether it has a link, as of the last control round."""
        return bool(self._native.lib.dpdk_ethdev_is_link_up(self._live()))

    def link(self) -> Link:
        """The link as the driver tells it now."""
        self._live()
        now = self._attached.now()
        return Link(now.is_link_up, now.speed_mbps, now.is_full_duplex)

    def pool_in_use(self) -> int:
        """Buffers of its pool, its own or the one it was given, that are not free."""
        return self._native.lib.dpdk_ethdev_pool_in_use(self._live())

    def stats(self) -> DeviceStats:
        """The device's own counters."""
        self._live()
        return self._attached.stats()

    def xstats(self) -> dict[str, int]:
        """The device's extended statistics, by DPDK's names."""
        self._live()
        return self._attached.xstats()

    def close(self) -> None:
        """Stops and removes the device; a second call does nothing. A pool it was given stays."""
        if self._ethdev is not None:
            ethdev, self._ethdev = self._ethdev, None
            self.leaked_mbufs = self._native.lib.dpdk_ethdev_close(ethdev)
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
