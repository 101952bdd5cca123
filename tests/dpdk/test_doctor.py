"""The doctor reads a machine and says what is missing; here machines are folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpdk_backend import _native, doctor
from dpdk_backend.doctor import Finding, examine, render


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
    for name in ("rights", "tap", "hugepages", "iommu", "drivers"):
        assert findings[name].status == "optional", name
        assert findings[name].command, name
    assert "CAP_NET_RAW, CAP_NET_ADMIN, CAP_SYS_ADMIN" in findings["rights"].text
    assert not [name for name in findings if name.startswith("nic ")]


def test_a_machine_that_has_it_all(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "proc/self/status": "CapEff:\t000001ffffffffff\n",
            "dev/net/tun": "",
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
    for name in ("rights", "hugepages", "iommu", "drivers", "nic 0000:00:05.0"):
        assert findings[name].status == "ok", findings[name]
        assert not findings[name].command
    assert findings["hugepages"].text == "free: 512 of 2048kB"
    assert "0x8086:0x100e bound to vfio-pci" in findings["nic 0000:00:05.0"].text
    assert "bound to e1000, interface eth0" in findings["nic 0000:00:06.0"].text
    assert findings["nic 0000:00:06.0"].command == "dpdk-devbind.py --bind=vfio-pci 0000:00:06.0"
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
    monkeypatch.setattr(_native.importlib, "import_module", hidden)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    findings = found(tmp_path)
    assert findings["module"].status == findings["headers"].status == "missing"
    assert "apt install dpdk libdpdk-dev" in findings["module"].command
    assert "apt install pkg-config libdpdk-dev" in render(list(findings.values()))
    assert doctor.main() == 1


@pytest.mark.needs("dpdk")
def test_here_it_finds_the_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main() == 0
    assert "built, on DPDK" in capsys.readouterr().out
