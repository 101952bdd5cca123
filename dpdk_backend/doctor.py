"""What this machine has for DPDK, and the commands for what is missing: part of ``r2p2 doctor``.

It only reads: files under ``/proc`` and ``/sys``, pkg-config, and the compiled module where there is one. Nothing here
starts the EAL or binds a device. What it leaves to others: binding a NIC (``dpdk-devbind.py``, docs/nic.md).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from dpdk_backend import hugepages
from dpdk_backend._native import load
from dpdk_backend.devices import BIFURCATED_DRIVERS, USER_DRIVERS
from dpdk_backend.errors import DpdkMissingError
from r2p2.doctor import Finding, can_run, render

_NETWORK_CLASS = "0x02"
_CAP_NET_ADMIN, _CAP_NET_RAW, _CAP_SYS_ADMIN = 12, 13, 21
_MEMLOCK_MB_WANTED = 128
_HUGEPAGES_WANTED = 256


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


def _headers(is_built: bool) -> Finding:
    """Needed to build the module; to run it, not."""
    status: Literal["missing", "optional"] = "optional" if is_built else "missing"
    if shutil.which("pkg-config") is None:
        return Finding("headers", status, "no pkg-config, which finds DPDK", "apt install pkg-config libdpdk-dev")
    command = ["pkg-config", "--modversion", "libdpdk"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        return Finding("headers", status, "DPDK's headers are not installed", "apt install libdpdk-dev")
    return Finding("headers", "ok", f"DPDK {run.stdout.strip()}")


def _module() -> Finding:
    try:
        native = load()
    except DpdkMissingError as error:
        return Finding("module", "missing", str(error).partition("\n")[0], error.remedy)
    return Finding("module", "ok", f"built, on {native.text(native.lib.dpdk_version_text())}")


def _hugepages(root: Path) -> Finding:
    pools = hugepages.pools(root)
    if not pools:
        return Finding("hugepages", "optional", "this kernel has none: a NIC needs vfio-pci then, and is slower")
    free = [f"{p.free_count} of {p.pages_count} pages of {_size(p.page_kb)}" for p in pools if p.pages_count]
    if not hugepages.free_mb(root):
        had = f"none free ({', '.join(free)})" if free else "none reserved"
        sizes = ", ".join(_size(pool.page_kb) for pool in pools)
        text = f"{had}; sizes: {sizes}. Virtual devices do without; a NIC under uio_pci_generic does not"
        return Finding("hugepages", "optional", text, f"sysctl -w vm.nr_hugepages={_HUGEPAGES_WANTED}")
    mounts = hugepages.mounts(root)
    mounted = f"hugetlbfs at {', '.join(mounts)}" if mounts else "no hugetlbfs mounted, none is needed"
    return Finding("hugepages", "ok", f"free: {', '.join(free)}; {mounted}")


def _size(page_kb: int) -> str:
    return f"{page_kb >> 20} GB" if page_kb >= 1 << 20 else f"{page_kb >> 10} MB"


def _has_iommu(root: Path) -> int:
    groups = root / "sys/kernel/iommu_groups"
    return len(list(groups.iterdir())) if groups.is_dir() else 0


def _iommu(root: Path) -> Finding:
    count = _has_iommu(root)
    if count:
        return Finding("iommu", "ok", f"{count} groups: vfio-pci works")
    return Finding(
        "iommu",
        "optional",
        "none: a NIC needs uio_pci_generic, hugepages and root (or vfio-pci without IOMMU, not in every kernel)",
        "boot with intel_iommu=on iommu=pt (AMD: iommu=pt), with VT-d or AMD-Vi on in the firmware's settings",
    )


def _drivers(root: Path) -> Finding:
    drivers = root / "sys/bus/pci/drivers"
    loaded = [name for name in USER_DRIVERS if (drivers / name).is_dir()]
    if loaded:
        return Finding("drivers", "ok", f"loaded: {', '.join(loaded)}")
    release = _read(root / "proc/sys/kernel/osrelease")
    modules = _read(root / "lib/modules" / release / "modules.dep") if release else ""
    there = [name for name in USER_DRIVERS if f"/{name}.ko" in modules]
    if not there:
        text = f"this kernel ({release or 'unknown'}) has no module that hands a NIC to DPDK; no NIC without one"
        return Finding("drivers", "optional", text, "boot a distribution's kernel, with its modules installed")
    text = f"none loaded that hands a NIC to DPDK; the kernel has {', '.join(there)}"
    return Finding("drivers", "optional", text, f"modprobe {_best_driver(root, there)}")


def _best_driver(root: Path, there: Sequence[str] = USER_DRIVERS) -> str:
    """vfio-pci behind an IOMMU, else one that works without."""
    wanted = USER_DRIVERS if _has_iommu(root) else USER_DRIVERS[1:]
    return next((name for name in wanted if name in there), there[0])


def _default_routes(root: Path) -> set[str]:
    """The interfaces the machine reaches the world by."""
    rows = [line.split() for line in _read(root / "proc/net/route").splitlines()[1:]]
    found = {row[0] for row in rows if len(row) > 7 and row[1] == row[7] == "00000000"}
    rows = [line.split() for line in _read(root / "proc/net/ipv6_route").splitlines()]
    # Its line for what has no route names lo.
    return found | {row[9] for row in rows if len(row) > 9 and row[0] == "0" * 32 and row[1] == "00"} - {"lo"}


def _interfaces(device: Path) -> dict[str, set[str]]:
    """The kernel's interfaces of a NIC, each with those that are built on it: bonds, bridges, VLANs.

    A virtio NIC has one device more between its PCI address and its interface.
    """
    paths = sorted([*device.glob("net/*"), *device.glob("virtio*/net/*")])
    return {path.name: {upper.name.removeprefix("upper_") for upper in path.glob("upper_*")} for path in paths}


def _nics(root: Path) -> Iterator[Finding]:
    default_routes = _default_routes(root)
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        if not _read(device / "class").startswith(_NETWORK_CLASS):
            continue
        address = device.name
        driver = _link_name(device / "driver") or "no driver"
        name = f"nic {address}"
        kind = f"{_read(device / 'vendor')}:{_read(device / 'device')}"
        interfaces = _interfaces(device)
        if driver in USER_DRIVERS:
            yield _taken_nic(root, device, name, kind, driver)
            continue
        if driver in BIFURCATED_DRIVERS:
            text = f"{kind} bound to {driver}, beside which DPDK works: r2p2 serve --backend dpdk --pci {address}"
            yield Finding(name, "ok", text)
            continue
        used_by = f", interface {', '.join(interfaces)}" if interfaces else ""
        text = f"{kind} bound to {driver}{used_by}: af_packet and af_xdp can use the interface, DPDK's NIC drivers not"
        if default_routes.intersection(set(interfaces).union(*interfaces.values())):
            text += "; it carries the default route: bound to DPDK, this machine would be cut off"
            yield Finding(name, "optional", text)
        else:
            wanted = _best_driver(root)
            yield Finding(name, "optional", text, f"modprobe {wanted} && dpdk-devbind.py --bind={wanted} {address}")


def _taken_nic(root: Path, device: Path, name: str, kind: str, driver: str) -> Finding:
    """A NIC that is bound to a driver for us: whether we may open it."""
    serve = f"{kind} bound to {driver}: r2p2 serve --backend dpdk --pci {device.name}"
    if driver != "vfio-pci":
        return Finding(name, "ok", f"{serve} (needs hugepages and root)")
    group = root / "dev/vfio" / _link_name(device / "iommu_group")
    if group.exists() and not os.access(group, os.R_OK | os.W_OK):
        text = f"{kind} bound to {driver}, but {group} may not be opened by this user"
        return Finding(name, "optional", text, f"chown {os.geteuid()} {group} (as root), or run as root")
    return Finding(name, "ok", serve)


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
    yield from _memlock(root)
    tun = root / "dev/net/tun"
    if not tun.exists():
        yield Finding("tap", "optional", "no /dev/net/tun, which tap needs", "modprobe tun")


def _memlock(root: Path) -> Iterator[Finding]:
    """vfio-pci and AF_XDP lock memory; root is above the limit."""
    for line in _read(root / "proc/self/limits").splitlines():
        if line.startswith("Max locked memory"):
            limit = line.removeprefix("Max locked memory").split()[0]
            if limit == "unlimited" or int(limit) >= _MEMLOCK_MB_WANTED << 20:
                yield Finding("memlock", "ok", f"limit of locked memory: {limit} bytes")
            else:
                text = f"this process may lock {limit} bytes: too little for vfio-pci and AF_XDP unless root"
                yield Finding("memlock", "optional", text, "ulimit -l unlimited (limits.conf: memlock)")


def examine(root: Path = Path("/")) -> list[Finding]:
    """Everything, in the order a user would put it right. ``root``: where /proc, /sys and /dev hang, for tests."""
    module = _module()
    return [
        module,
        _headers(module.status == "ok"),
        *_permissions(root),
        _hugepages(root),
        _iommu(root),
        _drivers(root),
        *_nics(root),
    ]


def main() -> int:
    """Prints the findings; 1 where DPDK cannot be used at all."""
    findings = examine()
    print(f"cores: {sorted(os.sched_getaffinity(0))}")
    print(render(findings))
    return 0 if can_run(findings) else 1


if __name__ == "__main__":
    sys.exit(main())
