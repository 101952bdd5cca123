"""Makes the device a :class:`~dpdk_backend.devices.Device` describes, or finds it, and reads its counters.

What it leaves to others: taking it over with queues (``port.py``, ``ethdev.py``).
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dpdk_backend._native import check, load
from dpdk_backend.devices import BIFURCATED_DRIVERS, USER_DRIVERS, Device, remove_dead_socket
from dpdk_backend.eal import eal_log, remedy_for
from dpdk_backend.errors import DeviceError

_log = logging.getLogger(__name__)

_XSTATS_MAX = 512
_LOG_QUOTED_LINES = 5


class DeviceStats(NamedTuple):
    """A device's own counters, since it started."""

    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    rx_missed: int
    rx_errors: int
    rx_no_mbuf: int
    tx_errors: int


class Now(NamedTuple):
    """A device's settings and link as the driver tells them."""

    mac: bytes
    mtu: int
    is_link_up: bool
    speed_mbps: int
    is_full_duplex: bool


class Capabilities(NamedTuple):
    """What a device can do.

    ``queues_max``: rx queues, and as many tx queues. Offloads: DPDK's name -> its bit.
    """

    queues_max: int
    rx_offloads: dict[str, int]
    tx_offloads: dict[str, int]


@dataclass(frozen=True)
class Attached:
    """A device that exists.

    Attributes:
        name: DPDK's name.
        port_id: DPDK's number.
        driver: like ``net_memif``.
        mac: the device's own, 6 bytes.
        is_made: it was made here, so it is removed here.
    """

    name: str
    port_id: int
    driver: str
    mac: bytes
    is_made: bool

    @property
    def is_memif(self) -> bool:
        """Whether its control channel needs the gate (csrc/gate.h)."""
        return self.driver == "net_memif"

    def _info(self) -> Any:
        native = load()
        info = native.ffi.new("dpdk_device_info *")
        check(native.lib.dpdk_device_info_get(self.port_id, info), DeviceError)
        return info

    def now(self) -> Now:
        """Its settings and link."""
        info = self._info()
        return Now(bytes(info.mac), info.mtu, bool(info.is_link_up), info.speed_mbps, bool(info.is_full_duplex))

    def capabilities(self) -> Capabilities:
        """What it can do."""
        native, info = load(), self._info()

        def names(bits: int, name_of: Callable[[int], Any]) -> dict[str, int]:
            return {native.text(name_of(1 << i)): 1 << i for i in range(64) if bits >> i & 1}

        lib = native.lib
        return Capabilities(
            info.queues_max,
            names(info.rx_offloads, lib.dpdk_rx_offload_name),
            names(info.tx_offloads, lib.dpdk_tx_offload_name),
        )

    def stats(self) -> DeviceStats:
        """The device's own counters."""
        native = load()
        stats = native.ffi.new("dpdk_device_stats *")
        check(native.lib.dpdk_device_stats_get(self.port_id, stats), DeviceError)
        return DeviceStats(*struct.unpack("=8Q", native.ffi.buffer(stats)[:]))

    def xstats(self) -> dict[str, int]:
        """The device's extended statistics, by DPDK's names."""
        native = load()
        xstats = native.ffi.new("dpdk_xstat[]", _XSTATS_MAX)
        count = check(native.lib.dpdk_device_xstats(self.port_id, xstats, _XSTATS_MAX), DeviceError)
        return {native.text(xstats[i].name): int(xstats[i].value) for i in range(count)}

    def detach(self) -> None:
        """Removes it where it was made here. It must be closed."""
        native = load()
        if self.is_made and native.lib.dpdk_vdev_remove(self.name.encode()) < 0:
            _log.warning("%s", native.error_text())


def device_error(remedy: str = "") -> DeviceError:
    """The last error with the end of DPDK's log, where drivers say their reasons.

    ``remedy``: what to do where the log does not name anything better.
    """
    lines = [f"  dpdk: {line}" for line in eal_log().strip().splitlines()[-_LOG_QUOTED_LINES:]]
    message = "\n".join([load().error_text(), *lines])
    return DeviceError(message, remedy=remedy_for(message) or remedy)


_NO_VDEV = (
    "the name must begin with a driver's of DPDK (net_memif, net_pcap, net_af_packet, net_af_xdp, net_tap, net_ring, "
    "net_null), and the arguments be what that takes"
)


def _why_absent(name: str) -> str:
    """What to do about a device that DPDK does not know; ``name``: a vdev's, or a PCI address."""
    path = Path("/sys/bus/pci/devices") / name
    if ":" in name and not path.exists():
        return "this machine has no such PCI device: see dpdk-devbind.py --status"
    if path.exists():
        driver = (path / "driver").resolve().name if (path / "driver").exists() else "no driver"
        if driver not in USER_DRIVERS + BIFURCATED_DRIVERS:
            return f"it is bound to {driver}: dpdk-devbind.py --bind=vfio-pci {name} (docs/nic.md; r2p2 doctor)"
    return (
        "name it in EalConfig (pci_addresses or vdevs); a NIC must be bound to a DPDK driver, and DPDK must have one "
        "for it: see dpdk-devbind.py --status"
    )


def attach(device: Device) -> Attached:
    """Makes or finds a device; the EAL runs.

    Raises:
        DeviceError: it cannot be made, or is not there; nothing is left behind.
    """
    native = load()
    name = device.name.encode()
    if device.listen_path is not None:
        remove_dead_socket(device.listen_path)
    if device.args is not None and native.lib.dpdk_vdev_add(name, device.args.encode()) < 0:
        raise device_error(_NO_VDEV)
    port_id = native.lib.dpdk_device_find(name)
    info = native.ffi.new("dpdk_device_info *")
    if port_id < 0 or native.lib.dpdk_device_info_get(port_id, info) < 0:
        error = device_error(_why_absent(device.name))
        if device.args is not None:
            native.lib.dpdk_vdev_remove(name)
        raise error
    return Attached(device.name, port_id, native.text(info.driver), bytes(info.mac), device.args is not None)


def existing_names() -> list[str]:
    """The names of all devices the EAL knows: those of ``EalConfig`` and those made since."""
    native = load()
    name = native.ffi.new("char[64]")
    names = []
    for position in range(native.lib.dpdk_devices_count()):
        check(native.lib.dpdk_device_name(position, name), DeviceError)
        names.append(native.text(name))
    return names
