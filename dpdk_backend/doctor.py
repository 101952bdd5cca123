"""What this machine has for DPDK, and the commands for what is missing: ``python -m dpdk_backend.doctor``.

It only reads: files under ``/proc`` and ``/sys``, pkg-config, and the compiled module where there is one. Nothing here
starts the EAL or binds a device. What it leaves to others: binding a NIC (``dpdk-devbind.py``, docs).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dpdk_backend._native import load
from dpdk_backend.errors import DpdkMissingError

Status = Literal["ok", "missing", "optional"]

# Kernel modules that hand a PCI device to a user's program.
USER_DRIVERS = ("vfio-pci", "uio_pci_generic", "igb_uio")
_NETWORK_CLASS = "0x02"
_CAP_NET_ADMIN, _CAP_NET_RAW, _CAP_SYS_ADMIN = 12, 13, 21


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        name: what it is.
        status: ``missing`` stops DPDK as a whole; ``optional`` stops only what ``text`` says.
        text: what was found.
        command: what to run to get it; empty where nothing is to be done.
    """

    name: str
    status: Status
    text: str
    command: str = ""


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _link_name(path: Path) -> str:
    try:
        return path.resolve(strict=True).name
    except OSError:
        return ""


def _headers() -> Finding:
    if shutil.which("pkg-config") is None:
        return Finding("headers", "missing", "no pkg-config, which finds DPDK", "apt install pkg-config libdpdk-dev")
    command = ["pkg-config", "--modversion", "libdpdk"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        return Finding("headers", "missing", "DPDK's headers are not installed", "apt install libdpdk-dev")
    return Finding("headers", "ok", f"DPDK {run.stdout.strip()}")


def _module() -> Finding:
    try:
        native = load()
    except DpdkMissingError as error:
        return Finding("module", "missing", str(error).partition("\n")[0], error.remedy)
    return Finding("module", "ok", f"built, on {native.text(native.lib.dpdk_version_text())}")


def _hugepages(root: Path) -> Finding:
    free: list[str] = []
    for folder in sorted((root / "sys/kernel/mm/hugepages").glob("hugepages-*kB")):
        count = _read(folder / "free_hugepages")
        if count.isdigit() and int(count):
            free.append(f"{count} of {folder.name.removeprefix('hugepages-')}")
    if not free:
        text = "none free: memif, pcap and the other virtual devices do without; a NIC under load should have them"
        return Finding("hugepages", "optional", text, "dpdk-hugepages.py --setup 1G")
    return Finding("hugepages", "ok", f"free: {', '.join(free)}")


def _iommu(root: Path) -> Finding:
    groups = root / "sys/kernel/iommu_groups"
    count = len(list(groups.iterdir())) if groups.is_dir() else 0
    if count:
        return Finding("iommu", "ok", f"{count} groups: vfio-pci works")
    return Finding(
        "iommu",
        "optional",
        "none: a NIC needs vfio-pci without IOMMU (unsafe, and not in every kernel) or uio_pci_generic",
        "modprobe uio_pci_generic (or boot with intel_iommu=on or amd_iommu=on)",
    )


def _drivers(root: Path) -> Finding:
    drivers = root / "sys/bus/pci/drivers"
    loaded = [name for name in USER_DRIVERS if (drivers / name).is_dir()]
    if loaded:
        return Finding("drivers", "ok", f"loaded: {', '.join(loaded)}")
    return Finding("drivers", "optional", "no driver that hands a NIC to DPDK is loaded", "modprobe vfio-pci")


def _default_routes(root: Path) -> set[str]:
    """The interfaces the machine reaches the world by."""
    rows = (line.split() for line in _read(root / "proc/net/route").splitlines()[1:])
    return {row[0] for row in rows if len(row) > 7 and row[1] == row[7] == "00000000"}


def _nics(root: Path) -> Iterator[Finding]:
    default_routes = _default_routes(root)
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        if not _read(device / "class").startswith(_NETWORK_CLASS):
            continue
        address = device.name
        driver = _link_name(device / "driver") or "no driver"
        name = f"nic {address}"
        kind = f"{_read(device / 'vendor')}:{_read(device / 'device')}"
        interfaces = sorted(path.name for path in (device / "net").glob("*"))
        if driver in USER_DRIVERS:
            yield Finding(name, "ok", f"{kind} bound to {driver}: EalConfig(pci_addresses=({address!r},))")
            continue
        used_by = f", interface {', '.join(interfaces)}" if interfaces else ""
        text = f"{kind} bound to {driver}{used_by}: af_packet and af_xdp can use the interface, DPDK's NIC drivers not"
        if default_routes.intersection(interfaces):
            text += "; it carries the default route: bound to DPDK, this machine would be cut off"
            yield Finding(name, "optional", text)
        else:
            yield Finding(name, "optional", text, f"dpdk-devbind.py --bind=vfio-pci {address}")


def _permissions(root: Path) -> Iterator[Finding]:
    effective = 0
    for line in _read(root / "proc/self/status").splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
    wanted = {"CAP_NET_RAW": _CAP_NET_RAW, "CAP_NET_ADMIN": _CAP_NET_ADMIN, "CAP_SYS_ADMIN": _CAP_SYS_ADMIN}
    lacking = [name for name, bit in wanted.items() if not effective >> bit & 1]
    if lacking:
        text = f"without {', '.join(lacking)}: af_packet, af_xdp, tap and NICs need them; memif and pcap do not"
        yield Finding("rights", "optional", text, "run as root where you need those devices")
    else:
        yield Finding("rights", "ok", "enough for every device")
    tun = root / "dev/net/tun"
    if not tun.exists():
        yield Finding("tap", "optional", "no /dev/net/tun, which tap needs", "modprobe tun")


def examine(root: Path = Path("/")) -> list[Finding]:
    """Everything, in the order a user would put it right. ``root``: where /proc, /sys and /dev hang, for tests."""
    return [
        _headers(),
        _module(),
        *_permissions(root),
        _hugepages(root),
        _iommu(root),
        _drivers(root),
        *_nics(root),
    ]


def render(findings: list[Finding]) -> str:
    """The findings as a table with the commands below their lines."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:8} {finding.name:20} {finding.text}")
        if finding.command:
            lines.append(f"{'':8} {'':20}   -> {finding.command}")
    return "\n".join(lines)


def main() -> int:
    """Prints the findings; 1 where DPDK cannot be used at all."""
    findings = examine()
    print(f"cores: {sorted(os.sched_getaffinity(0))}")
    print(render(findings))
    return 1 if any(finding.status == "missing" for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
