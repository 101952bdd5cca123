"""The doctor reads a machine and says what is missing; here machines are folders."""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path

import pytest

from dpdk_backend import _native, doctor
from dpdk_backend.doctor import examine
from dpdk_backend.errors import DpdkMissingError
from r2p2.doctor import Finding, render


class Text:
    """An ffi that has one string."""

    def string(self, pointer: object) -> bytes:
        return b"DPDK 1.2.3"


class Version:
    """A module that knows its version."""

    def dpdk_version_text(self) -> int:
        return 0


def put(root: Path, files: dict[str, str]) -> None:
    """Files of a machine."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def found(root: Path) -> dict[str, Finding]:
    """Findings by name."""
    return {finding.name: finding for finding in examine(root)}


def test_a_bare_machine_gets_a_command_for_everything(tmp_path: Path) -> None:
    put(tmp_path, {"proc/self/status": "Name:\tpython\nCapEff:\t0000000000000000\n"})
    findings = found(tmp_path)
    for name in ("rights", "tap", "iommu", "drivers"):
        assert findings[name].status == "optional", name
        assert findings[name].command, name
    assert findings["hugepages"].status == "optional"
    assert "this kernel has none" in findings["hugepages"].text
    assert "CAP_NET_RAW, CAP_NET_ADMIN, CAP_SYS_ADMIN" in findings["rights"].text
    assert not [name for name in findings if name.startswith("nic ")]


def test_a_machine_that_has_it_all(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "proc/self/status": "CapEff:\t000001ffffffffff\n",
            "proc/self/limits": "Max locked memory         unlimited            unlimited            bytes\n",
            "proc/mounts": "hugetlbfs /dev/hugepages hugetlbfs rw 0 0\n",
            "dev/net/tun": "",
            "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "600\n",
            "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "512\n",
            "sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages": "0\n",
            "sys/kernel/iommu_groups/0/type": "DMA",
            "sys/bus/pci/drivers/vfio-pci/new_id": "",
            "sys/bus/pci/drivers/e1000/new_id": "",
            "sys/bus/pci/devices/0000:00:05.0/class": "0x020000\n",
            "sys/bus/pci/devices/0000:00:05.0/vendor": "0x8086\n",
            "sys/bus/pci/devices/0000:00:05.0/device": "0x100e\n",
            "sys/bus/pci/devices/0000:00:06.0/class": "0x020000\n",
            "sys/bus/pci/devices/0000:00:06.0/net/eth0/address": "",
            "sys/bus/pci/devices/0000:00:07.0/class": "0x010000\n",
        },
    )
    drivers = tmp_path / "sys/bus/pci/drivers"
    devices = tmp_path / "sys/bus/pci/devices"
    (devices / "0000:00:05.0/driver").symlink_to(drivers / "vfio-pci")
    (devices / "0000:00:06.0/driver").symlink_to(drivers / "e1000")
    findings = found(tmp_path)
    for name in ("rights", "memlock", "hugepages", "iommu", "drivers", "nic 0000:00:05.0"):
        assert findings[name].status == "ok", findings[name]
        assert not findings[name].command
    assert findings["hugepages"].text == "free: 512 of 600 pages of 2 MB; hugetlbfs at /dev/hugepages"
    assert "0x8086:0x100e bound to vfio-pci" in findings["nic 0000:00:05.0"].text
    assert "bound to e1000, interface eth0" in findings["nic 0000:00:06.0"].text
    assert findings["nic 0000:00:06.0"].command == "modprobe vfio-pci && dpdk-devbind.py --bind=vfio-pci 0000:00:06.0"
    assert "nic 0000:00:07.0" not in findings
    # The one the machine is reached by is never to be taken away.
    route = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
    put(tmp_path, {"proc/net/route": route + "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"})
    only_way_in = found(tmp_path)["nic 0000:00:06.0"]
    assert "cut off" in only_way_in.text
    assert only_way_in.command == ""
    assert "tap" not in findings


def test_a_missing_module_is_the_patient_not_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(name: str) -> None:
        raise ModuleNotFoundError(name, name=name)

    monkeypatch.setattr(_native, "_loaded", None)
    monkeypatch.setattr(importlib, "import_module", hidden)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    findings = found(tmp_path)
    assert findings["module"].status == findings["headers"].status == "missing"
    assert "apt install dpdk libdpdk-dev" in findings["module"].command
    assert "apt install pkg-config libdpdk-dev" in render(list(findings.values()))
    # Headers are for building: without them a built module is as good.
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor, "load", lambda: _native.Native(Text(), Version()))  # type: ignore[arg-type]
    assert {finding.name: finding.status for finding in examine(tmp_path)}["headers"] == "optional"


def test_a_missing_module_decides_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise DpdkMissingError("not built", remedy="build it")

    monkeypatch.setattr(doctor, "load", gone)
    assert doctor.main() == 1


@pytest.mark.needs("dpdk")
def test_here_it_finds_the_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main() == 0
    assert "built, on DPDK" in capsys.readouterr().out


def nic(root: Path, address: str, driver: str, group: str = "") -> Finding:
    """What is said of a NIC under a driver."""
    put(root, {f"sys/bus/pci/devices/{address}/class": "0x020000\n", f"sys/bus/pci/drivers/{driver}/new_id": ""})
    device = root / "sys/bus/pci/devices" / address
    (device / "driver").symlink_to(root / "sys/bus/pci/drivers" / driver)
    if group:
        put(root, {f"sys/kernel/iommu_groups/{group}/type": "DMA", f"dev/vfio/{group}": ""})
        (device / "iommu_group").symlink_to(root / "sys/kernel/iommu_groups" / group)
    return found(root)[f"nic {address}"]


def test_what_to_bind_to_follows_from_the_iommu(tmp_path: Path) -> None:
    free = nic(tmp_path, "0000:00:03.0", "e1000")
    assert free.command == "modprobe uio_pci_generic && dpdk-devbind.py --bind=uio_pci_generic 0000:00:03.0"
    bound = nic(tmp_path, "0000:00:04.0", "uio_pci_generic")
    assert bound.status == "ok"
    assert "r2p2 serve --backend dpdk --pci 0000:00:04.0 (needs hugepages and root)" in bound.text
    beside = nic(tmp_path, "0000:00:05.0", "mlx5_core")
    assert beside.status == "ok"
    assert not beside.command
    nic(tmp_path, "0000:00:06.0", "vfio-pci", "7")
    assert "--bind=vfio-pci" in found(tmp_path)["nic 0000:00:03.0"].command


def test_a_group_that_may_not_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert nic(tmp_path, "0000:00:06.0", "vfio-pci", "7").status == "ok"
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("dev/vfio/7"))
    closed = found(tmp_path)["nic 0000:00:06.0"]
    assert closed.status == "optional"
    assert closed.command.startswith("chown ")
    assert "dev/vfio/7" in closed.command


def test_pages_that_are_taken_are_not_free(tmp_path: Path) -> None:
    pool = "sys/kernel/mm/hugepages/hugepages-2048kB"
    put(tmp_path, {f"{pool}/nr_hugepages": "8\n", f"{pool}/free_hugepages": "3\n", f"{pool}/resv_hugepages": "3\n"})
    taken = found(tmp_path)["hugepages"]
    assert taken.status == "optional"
    assert taken.text.startswith("none free (0 of 8 pages of 2 MB)")
    assert taken.command == "sysctl -w vm.nr_hugepages=256"
    put(tmp_path, {f"{pool}/resv_hugepages": "1\n"})
    assert found(tmp_path)["hugepages"].text == "free: 2 of 8 pages of 2 MB; no hugetlbfs mounted, none is needed"


def test_a_driver_the_kernel_has_is_one_modprobe_away(tmp_path: Path) -> None:
    put(tmp_path, {"proc/sys/kernel/osrelease": "6.1.0\n"})
    assert "no module" in found(tmp_path)["drivers"].text
    put(tmp_path, {"lib/modules/6.1.0/modules.dep": "kernel/uio/uio_pci_generic.ko: kernel/uio/uio.ko\n"})
    assert found(tmp_path)["drivers"].command == "modprobe uio_pci_generic"


def test_a_low_limit_of_locked_memory_is_named(tmp_path: Path) -> None:
    put(tmp_path, {"proc/self/limits": "Max locked memory         65536                65536                bytes\n"})
    memlock = found(tmp_path)["memlock"]
    assert memlock.status == "optional"
    assert "65536" in memlock.text
    assert "ulimit -l" in memlock.command


@pytest.mark.parametrize(
    ("interface", "route"),
    [
        ("virtio0/net/eth0/address", "proc/net/route"),
        ("net/eth0/address", "proc/net/ipv6_route"),
        ("net/enp1s0/upper_eth0/address", "proc/net/route"),
    ],
)
def test_the_way_in_is_seen_behind_virtio_by_ipv6_and_under_a_bond(tmp_path: Path, interface: str, route: str) -> None:
    zeros = "0" * 32
    routes = {
        "proc/net/route": "Iface\neth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n",
        "proc/net/ipv6_route": f"{zeros} 00 {zeros} 00 fe80{zeros[4:]} 00000400 1 0 00000003 eth0\n"
        f"{zeros} 00 {zeros} 00 {zeros} ffffffff 1 0 00200200 lo\n",
    }
    put(tmp_path, {f"sys/bus/pci/devices/0000:00:03.0/{interface}": ""})
    assert nic(tmp_path, "0000:00:03.0", "e1000").command
    put(tmp_path, {route: routes[route]})
    way_in = found(tmp_path)["nic 0000:00:03.0"]
    assert "cut off" in way_in.text
    assert way_in.command == ""
