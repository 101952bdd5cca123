"""Devices: what a port sends and receives through, as values; one function a kind, in DPDK's spelling inside.

A :class:`Device` is a description; ``port.py`` makes the device of it. What is checked here can be checked without
DPDK.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dpdk_backend.errors import DeviceError

MEMIF_RING_LOG2_MAX = 14
USER_DRIVERS = ("vfio-pci", "uio_pci_generic", "igb_uio")
"""Kernel modules that hand a PCI device to a user's program."""
BIFURCATED_DRIVERS = ("mlx4_core", "mlx5_core")
"""Their NICs stay with the kernel's driver, and DPDK works beside it."""
_SUN_PATH_BYTES_MAX = 107
_PCI_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")


@dataclass(frozen=True)
class Device:
    """One device of a port.

    Attributes:
        name: DPDK's name: ``net_memif0``, ``net_pcap1``, or a PCI address.
        args: the vdev's arguments; None: the device exists already (PCI, or given to the EAL).
        mac: our MAC on it, ``02:00:0a:00:00:01``; None: made of the port's address, 02:00 and its four bytes.
        routes: the prefixes it leads to, ``10.0.0.2`` or ``10.0.0.0/24``; ``0.0.0.0/0``: everything else.
        neighbours_derived: the hosts among ``routes`` have MACs made of their addresses, so nobody needs to ask.
        rx_ring_count, tx_ring_count: descriptors asked for; the driver's limits apply.
        rx_room_count: packets that wait in it to be received before one is dropped; 0: ``rx_ring_count``.
        is_memif: its control channel needs the gate (csrc/gate.h).
        is_reconnecting: a memif client, which calls its server until it answers.
        listen_path: the socket a memif server will listen on; a dead one left there is removed first.
    """

    name: str
    args: str | None = None
    mac: str | None = None
    routes: tuple[str, ...] = ("0.0.0.0/0",)
    neighbours_derived: bool = False
    rx_ring_count: int = 512
    tx_ring_count: int = 512
    rx_room_count: int = 0
    is_memif: bool = field(default=False, repr=False)
    is_reconnecting: bool = field(default=False, repr=False)
    listen_path: str | None = field(default=None, repr=False)


def _require_word(name: str, value: str) -> str:
    if not value or any(c in value for c in ", \t\n"):
        raise ValueError(f"{name} is {value!r}: DPDK's device arguments take no comma and no space")
    return value


def vdev(name: str, args: str = "", *, routes: tuple[str, ...] = ("0.0.0.0/0",), mac: str | None = None) -> Device:
    """Any virtual device, with DPDK's own arguments."""
    return Device(_require_word("name", name), args, mac=mac, routes=routes)


def memif(
    index: int,
    socket_path: str,
    *,
    role: Literal["server", "client"],
    link_id: int = 0,
    routes: tuple[str, ...] = ("0.0.0.0/0",),
    ring_log2: int = 12,
    buffer_bytes: int = 1728,
    mac: str | None = None,
    neighbours_derived: bool = True,
) -> Device:
    """Shared memory between two processes of one machine.

    ``index`` tells the memifs of a process apart (``net_memif<index>``); ``link_id`` tells links over one socket
    apart and is the same at both ends. One end is the server, the other the client; either may die and come back.
    ``ring_log2``: packets a direction holds, as a power of two, at most 14; a burst that does not fit is dropped. By
    default 4,096, in buffers of an odd number of cache lines, which spreads the headers over the cache's sets: a link
    takes up to 14 MiB of shared memory, once all of it has been used. ``socket_path``: at most 107 bytes.
    """
    if role not in ("server", "client"):
        raise ValueError(f"role is {role!r}: server or client")
    if not 1 <= ring_log2 <= MEMIF_RING_LOG2_MAX:
        raise ValueError(f"ring_log2 is {ring_log2}: 1..{MEMIF_RING_LOG2_MAX}")
    if not 1600 <= buffer_bytes <= 65535:
        raise ValueError(f"buffer_bytes is {buffer_bytes}: 1600..65535, one packet a buffer")
    if len(os.fsencode(socket_path)) > _SUN_PATH_BYTES_MAX:
        raise ValueError(f"socket_path has {len(os.fsencode(socket_path))} bytes, at most {_SUN_PATH_BYTES_MAX}")
    _require_word("socket_path", socket_path)
    args = f"role={role},id={link_id},socket={socket_path},socket-abstract=no,rsize={ring_log2},bsize={buffer_bytes}"
    return Device(
        f"net_memif{index}",
        args,
        mac=mac,
        routes=routes,
        neighbours_derived=neighbours_derived,
        rx_room_count=1 << ring_log2,
        is_memif=True,
        is_reconnecting=role == "client",
        listen_path=socket_path if role == "server" else None,
    )


def pcap(
    index: int,
    *,
    rx_path: str | os.PathLike[str] | None,
    tx_path: str | os.PathLike[str] | None,
    routes: tuple[str, ...] = ("0.0.0.0/0",),
    mac: str | None = None,
    neighbours_derived: bool = False,
) -> Device:
    """Receives the packets of one capture file, once, and writes what is sent to another."""
    parts = []
    if rx_path is not None:
        path = Path(rx_path)
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "no capture to receive from", str(path))
        parts.append(f"rx_pcap={_require_word('rx_path', str(path))}")
    if tx_path is not None:
        parts.append(f"tx_pcap={_require_word('tx_path', str(tx_path))}")
    if not parts:
        raise ValueError("a pcap device needs rx_path or tx_path")
    return Device(f"net_pcap{index}", ",".join(parts), mac=mac, routes=routes, neighbours_derived=neighbours_derived)


def af_packet(
    index: int, interface: str, *, routes: tuple[str, ...] = ("0.0.0.0/0",), mac: str | None = None
) -> Device:
    """A kernel interface through AF_PACKET's shared rings; needs CAP_NET_RAW. ``mac`` defaults to the interface's."""
    args = f"iface={_require_word('interface', interface)},qpairs=1"
    return Device(f"net_af_packet{index}", args, mac=mac or _interface_mac(interface), routes=routes)


def af_xdp(index: int, interface: str, *, routes: tuple[str, ...] = ("0.0.0.0/0",), mac: str | None = None) -> Device:
    """A kernel interface through AF_XDP; needs root. ``mac`` defaults to the interface's."""
    args = f"iface={_require_word('interface', interface)}"
    return Device(f"net_af_xdp{index}", args, mac=mac or _interface_mac(interface), routes=routes)


def tap(index: int, interface: str, *, routes: tuple[str, ...] = ("0.0.0.0/0",), mac: str | None = None) -> Device:
    """A new kernel interface whose other end is the port; needs CAP_NET_ADMIN and /dev/net/tun."""
    return Device(f"net_tap{index}", f"iface={_require_word('interface', interface)}", mac=mac, routes=routes)


def ring(index: int, *, routes: tuple[str, ...] = ("0.0.0.0/0",), mac: str | None = None) -> Device:
    """A ring in this process: what is sent is received by the same device."""
    return Device(f"net_ring{index}", "", mac=mac, routes=routes)


def null(index: int, *, routes: tuple[str, ...] = ("0.0.0.0/0",), mac: str | None = None) -> Device:
    """Receives nothing and swallows what is sent."""
    return Device(f"net_null{index}", "no-rx=1", mac=mac, routes=routes)


def pci(address: str, *, routes: tuple[str, ...] = ("0.0.0.0/0",), mac: str | None = None) -> Device:
    """A NIC by its PCI address, which ``EalConfig.pci_addresses`` must name too. ``mac`` defaults to the NIC's.

    ``00:05.0`` is ``0000:00:05.0``, as lspci prints it. ValueError: it is no PCI address.
    """
    full = address.lower() if address.count(":") == 2 else f"0000:{address.lower()}"
    if not _PCI_ADDRESS.fullmatch(full):
        raise ValueError(f"{address!r} is no PCI address like 0000:00:05.0: see dpdk-devbind.py --status")
    return Device(full, None, mac=mac, routes=routes)


def _interface_mac(interface: str) -> str | None:
    """A kernel interface's MAC, so that frames to it reach us; None where it cannot be read."""
    path = Path("/sys/class/net") / interface / "address"
    with contextlib.suppress(OSError):
        # The loopback has one of zeros, which no frame can be for.
        return path.read_text().strip().replace("00:00:00:00:00:00", "") or None
    return None


def remove_dead_socket(path: str) -> None:
    """Removes a unix socket nobody listens on: what a killed memif server leaves behind.

    Raises:
        DeviceError: somebody listens on it, or it is not a socket.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise DeviceError(f"memif: {path} exists and is not a socket", remedy="name another socket_path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as error:
            raise DeviceError(f"memif: {path}: {error}", code=error.errno or 0) from error
    raise DeviceError(
        f"memif: another process serves {path}", code=errno.EADDRINUSE, remedy="name another socket_path, or stop it"
    )
