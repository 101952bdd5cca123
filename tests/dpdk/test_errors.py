"""What goes wrong is said: the call, DPDK's own text, the remedy."""

from __future__ import annotations

import importlib
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dpdk_backend as dpdk
from dpdk_backend import _native
from dpdk_backend.eal import remedy_for
from dpdk_backend.port import format_mac, mac_of_ip, memory_mb_for, parse_mac
from tests.dpdk.launch import Children

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.needs("dpdk")
def test_a_second_start_says_that_the_eal_starts_once(children: Children) -> None:
    result = children.run("second_start")
    for error in (result["again"], result["port"], result["stopped"]):
        assert error["kind"] == "EalAlreadyStartedError"
        assert "once a process" in error["text"]
        assert "remedy: " in error["text"]
    assert "running" in result["again"]["text"]
    assert "stopped" in result["stopped"]["text"]
    assert result["state"] == "running"


@pytest.mark.needs("dpdk")
def test_a_busy_prefix_names_itself(children: Children, shared_folder: Path) -> None:
    prefix = f"r2p2-test-{shared_folder.name}"
    first = children.start("hold_prefix", prefix=prefix, hold_s=60)
    assert first.line()["started"]["kind"] == ""
    second = children.run("hold_prefix", prefix=prefix, hold_s=0)["started"]
    assert second["kind"] == "EalError"
    assert "rte_eal_init" in second["text"]
    assert "own EalConfig.file_prefix" in second["text"]
    # Without shared files nobody is in the way, whatever the prefix.
    assert children.run("eal_error", memory_mb=32, file_prefix=prefix)["kind"] == ""


@pytest.mark.needs("dpdk")
@pytest.mark.parametrize(
    ("config", "texts"),
    [
        ({"hugepages": True, "memory_mb": 64}, ["rte_eal_init", "hugepage", "vm.nr_hugepages"]),
        ({"cpus": (1000,)}, ["rte_eal_init", "EalConfig.cpus"]),
        ({"extra_arguments": ("--no-such-thing",)}, ["rte_eal_init", "no-such-thing", "extra_arguments"]),
    ],
)
def test_an_eal_that_does_not_start_says_why(children: Children, config: dict[str, Any], texts: list[str]) -> None:
    if config.get("hugepages") and "HugePages_Total:       0" not in Path("/proc/meminfo").read_text():
        config = {**config, "memory_mb": 1 << 20}
    error = children.run("eal_error", **config)
    assert error["kind"] == "EalError"
    for text in texts:
        assert text in error["text"], error["text"]


@pytest.mark.needs("dpdk")
def test_a_device_that_cannot_be_made_says_why_and_the_process_goes_on(children: Children, shared_folder: Path) -> None:
    errors = children.run("device_errors", directory=str(shared_folder))
    wanted = {
        "no driver": ("DeviceError", "begin with a driver's of DPDK"),
        "bad argument": ("DeviceError", "/nonexistent/x.pcap"),
        "not there": ("DeviceError", "no such PCI device"),
        "no interface": ("DeviceError", "no interface of that name"),
        "socket in no folder": ("DeviceError", "the folder of the memif's socket"),
        "no socket": ("DeviceError", "is not a socket"),
        "pool too large": ("DeviceError", "EalConfig.memory_mb"),
        "small mbufs": ("DeviceError", "512 bytes"),
        "good at last": ("", ""),
    }
    wrong = {
        name: errors[name]
        for name, (kind, text) in wanted.items()
        if errors[name]["kind"] != kind or text not in errors[name]["text"]
    }
    assert not wrong


@pytest.mark.needs("dpdk", "root")
@pytest.mark.parametrize(("kind", "text"), [("af_packet", "CAP_NET_RAW"), ("tap", "CAP_NET_ADMIN")])
def test_a_device_one_may_not_have_says_what_it_needs(children: Children, kind: str, text: str) -> None:
    error = children.run("forbidden_device", kind=kind, as_nobody=True)
    assert error["kind"] == "DeviceError"
    assert "rte_vdev_init" in error["text"]
    assert text in error["text"]


@pytest.mark.parametrize(
    ("log", "text"),
    [
        ("EAL: Expecting 'PA' IOVA mode but current mode is 'VA', not initializing", "uio_pci_generic needs hugepages"),
        ("EAL: Error, directory path / is world-writable and insecure", "chmod o-w"),
        ("EAL: No DPDK runtime directory created", "XDG_RUNTIME_DIR"),
        ("EAL: Cannot get hugepage information.", "vm.nr_hugepages"),
        ('EAL: failed to parse device "nope"', "no driver"),
        ("all is well", ""),
    ],
)
def test_a_line_of_the_log_names_its_remedy(log: str, text: str) -> None:
    remedy = remedy_for(log)
    assert text in remedy
    assert bool(remedy) == bool(text)


def test_pci_addresses() -> None:
    assert dpdk.pci("00:05.0").name == dpdk.pci("0000:00:05.0").name == "0000:00:05.0"
    assert dpdk.pci("0000:AF:1F.7").name == "0000:af:1f.7"
    for text in ("", "eth0", "0:5.0", "00:05", "00:05.8", "00:25.0", "zz:05.0"):
        with pytest.raises(ValueError, match="no PCI address"):
            dpdk.pci(text)


HIDE = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name == "dpdk_backend._dpdk":
            raise {error}
sys.meta_path.insert(0, Hide())
import dpdk_backend as dpdk
assert dpdk.EalConfig().arguments()[0] == "r2p2"
for call in (dpdk.start_eal, dpdk.version, lambda: dpdk.DpdkPort(dpdk.PortConfig("10.0.0.1", (dpdk.null(0),)))):
    try:
        call()
    except dpdk.DpdkMissingError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ('ModuleNotFoundError("hidden", name=name)', "is not built"),
        ('ImportError("librte_eal.so.23: cannot open shared object file", name=name)', "librte_eal.so.23"),
    ],
)
def test_without_the_compiled_module_everything_but_dpdk_works(error: str, text: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", HIDE.format(error=error)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.count(text) == 3
    assert run.stdout.count("apt install dpdk libdpdk-dev") == 3


def test_a_bug_in_the_module_itself_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ModuleNotFoundError("No module named 'other'", name="other")

    monkeypatch.setattr(_native, "_loaded", None)
    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="other"):
        _native.load()


def test_the_default_arguments_need_no_rights() -> None:
    arguments = dpdk.EalConfig(cpus=(0, 3), file_prefix="p", memory_mb=64).arguments()
    for flag in ("--no-huge", "--no-pci", "--no-shconf", "--no-telemetry"):
        assert flag in arguments
    for pair in (("--lcores", "0@(0,3)"), ("--file-prefix", "p"), ("-m", "64")):
        assert pair in itertools.pairwise(arguments)


def test_arguments_of_other_configurations() -> None:
    config = dpdk.EalConfig(
        hugepages=True,
        pci_addresses=("0000:00:05.0",),
        vdevs=("net_null0",),
        extra_arguments=("--single-file-segments",),
    )
    arguments = config.arguments()
    assert not {"--no-huge", "--no-pci", "--no-shconf"} & set(arguments)
    assert "--in-memory" in arguments
    shared = dpdk.EalConfig(shared_files=True).arguments()
    assert "--no-huge" in shared
    assert not {"--in-memory", "--no-shconf"} & set(shared)
    assert arguments[-5:] == ["-a", "0000:00:05.0", "--vdev", "net_null0", "--single-file-segments"]
    assert dpdk.EalConfig().arguments() != dpdk.EalConfig(file_prefix="other").arguments()


@pytest.mark.parametrize("config", [{"memory_mb": 8}, {"cpus": ()}, {"log_level": "loud"}])
def test_a_wrong_eal_configuration_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(config))):
        dpdk.EalConfig(**config)  # type: ignore[arg-type]


NULL = dpdk.null(0)


@pytest.mark.parametrize(
    "config",
    [
        {"local_ip": "10.0.0.256"},
        {"devices": ()},
        {"devices": (NULL, NULL)},
        {"devices": (dpdk.null(0, routes=("10.0.0.1/8",)),)},
        {"local_port": 0},
        {"local_port": 65536},
        {"neighbours": {"10.0.0.2": "ff:ff:ff:ff:ff:ff"}},
        {"neighbours": {"x": "02:00:00:00:00:01"}},
    ],
)
def test_a_wrong_port_configuration_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        dpdk.PortConfig(**{"local_ip": "10.0.0.1", "devices": (NULL,), **config})  # type: ignore[arg-type]


def test_wrong_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="107"):
        dpdk.memif(0, "/tmp/" + "x" * 103, role="server")
    with pytest.raises(ValueError, match="comma"):
        dpdk.memif(0, "/tmp/a,b", role="server")
    with pytest.raises(ValueError, match="ring_log2"):
        dpdk.memif(0, "/tmp/a", role="server", ring_log2=15)
    with pytest.raises(ValueError, match="role"):
        dpdk.memif(0, "/tmp/a", role="boss")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        dpdk.pcap(0, rx_path="/nonexistent.pcap", tx_path=None)
    with pytest.raises(ValueError, match="rx_path or tx_path"):
        dpdk.pcap(0, rx_path=None, tx_path=None)


def test_macs() -> None:
    assert format_mac(mac_of_ip("10.0.0.1")) == "02:00:0a:00:00:01"
    assert parse_mac("02:00:0a:00:00:01") == mac_of_ip("10.0.0.1")
    for text in ("02:00:0a:00:00", "2:0:a:0:0:1", "01:00:5e:00:00:01", "00:00:00:00:00:00", "xx:00:00:00:00:00"):
        with pytest.raises(ValueError):
            parse_mac(text)


def test_memory_covers_the_pool() -> None:
    config = dpdk.PortConfig("10.0.0.1", (NULL,))
    assert config.mbufs_count * 4096 < memory_mb_for(config) * 1_000_000 < 200_000_000


def test_memif_buffers_share_a_page() -> None:
    links = tuple(dpdk.memif(i, f"/tmp/{i}", role="server") for i in range(4))
    small = dpdk.PortConfig("10.0.0.1", links)
    assert small.buffer_data_bytes == 1792
    assert memory_mb_for(small) < 100
    assert dpdk.PortConfig("10.0.0.1", (*links, NULL)).buffer_data_bytes == 2176
    assert dpdk.PortConfig("10.0.0.1", links, mbuf_data_bytes=2000).buffer_data_bytes == 2000
