"""R2P2 over DPDK: the EAL, devices and a port for the engine.

What: a typed face of the installed DPDK (22.11, 23.11, 24.11) for poll-mode networking from Python, and
:class:`DpdkPort`, the port of the R2P2 engine on top of it. It runs without a NIC, hugepages or root: memif and pcap
need none of them.

Importing this package needs no DPDK; using it without the compiled module raises :class:`DpdkMissingError`, which
says what to install. CData never leaves the package.
"""

from dpdk_backend._attach import Capabilities, DeviceStats
from dpdk_backend.devices import Device, af_packet, af_xdp, memif, null, pcap, pci, ring, tap, vdev
from dpdk_backend.eal import EalConfig, eal_log, eal_state, start_eal, stop_eal, tsc, tsc_hz, version
from dpdk_backend.errors import DeviceError, DpdkError, DpdkMissingError, EalAlreadyStartedError, EalError
from dpdk_backend.ethdev import Burst, EthDev, Link
from dpdk_backend.mempool import Mempool
from dpdk_backend.port import Datagram, DpdkPort, PortConfig

__all__ = [
    "Burst",
    "Capabilities",
    "Datagram",
    "Device",
    "DeviceError",
    "DeviceStats",
    "DpdkError",
    "DpdkMissingError",
    "DpdkPort",
    "EalAlreadyStartedError",
    "EalConfig",
    "EalError",
    "EthDev",
    "Link",
    "Mempool",
    "PortConfig",
    "af_packet",
    "af_xdp",
    "eal_log",
    "eal_state",
    "memif",
    "null",
    "pcap",
    "pci",
    "ring",
    "start_eal",
    "stop_eal",
    "tap",
    "tsc",
    "tsc_hz",
    "vdev",
    "version",
]
