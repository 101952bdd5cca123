"""``make test-nic``: R2P2 on real PCI drivers, in an emulated machine, called from outside over a wire.

Three NICs, each under uio_pci_generic and under vfio-pci behind an emulated IOMMU, with and without hugepages: bind,
start ``r2p2 serve``, then ARP, ping and calls of the kernel's UDP from outside. What it leaves to others: the file
system (``image.py``), QEMU (``machine.py``), the namespace (``wire.py``), the calls (``outside.py``).

    python -m tools.nic [--only KIND[:DRIVER]] [--keep]

Exit code 0: everything answered; 1: something did not, and the logs and captures are kept and named.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from r2p2.cli import guard
from tools.nic.image import ROOT, fetch_kernel, install_programs, make_initramfs
from tools.nic.machine import Machine, MachineError, Nic
from tools.nic.wire import Namespace, Wire

BOOT_S = 60.0
SERVE_S = 40.0
SPEAK_S = 90.0
PORT = 8000
HUGEPAGES_COUNT = 96
# What a kernel says on any wire by itself: IGMP, neighbour discovery of IPv6.
NOT_FOR_US = {"rx_drop_foreign_address", "rx_drop_not_ipv4", "rx_drop_not_udp"}
CACHE = ROOT / "out" / "nic"
NICS = (
    Nic("e1000", 4, "52:54:00:00:00:01", "nic1"),
    Nic("e1000e", 5, "52:54:00:00:00:02", "nic2"),
    Nic("virtio-net-pci", 6, "52:54:00:00:00:03", "nic3", "disable-legacy=on,iommu_platform=on"),
)
WIRES = tuple(Wire(nic.tap, f"10.77.{i}.1", f"10.77.{i}.2") for i, nic in enumerate(NICS, 1))


@dataclass(frozen=True)
class Case:
    """A NIC under a driver, with or without hugepages."""

    nic: Nic
    wire: Wire
    driver: str
    hugepages: bool

    def __str__(self) -> str:
        """As it is printed."""
        return f"{self.nic.kind}, {self.driver}, {'hugepages' if self.hugepages else 'no hugepages'}"


def cases() -> Iterator[Case]:
    """Every case. uio_pci_generic without hugepages cannot work: DPDK could not tell the NIC where memory is."""
    for driver, hugepages in (("uio_pci_generic", True), ("vfio-pci", True), ("vfio-pci", False)):
        for nic, wire in zip(NICS, WIRES, strict=True):
            yield Case(nic, wire, driver, hugepages)


def say(text: str) -> None:
    """A step, with the seconds since the start."""
    print(f"{time.monotonic() - STARTED:6.1f} s  {text}", flush=True)


def bind(machine: Machine, address: str, driver: str) -> None:
    """Gives a NIC to a driver, as dpdk-devbind.py does."""
    device = f"/sys/bus/pci/devices/{address}"
    machine.run(
        f"{{ [ ! -e {device}/driver ] || echo {address} >{device}/driver/unbind; }} && "
        f"echo {driver} >{device}/driver_override && echo {address} >/sys/bus/pci/drivers_probe"
    )
    bound = machine.run(f"readlink -f {device}/driver").rpartition("/")[2]
    assert bound == driver, f"{address} is bound to {bound or 'nothing'}, not to {driver}"


def serve(machine: Machine, case: Case) -> None:
    """Starts a server on the NIC; returns when it serves."""
    command = f"python -m r2p2 serve --backend dpdk --pci {case.nic.address} --bind {case.wire.theirs}:{PORT}"
    # Whatever comes first: it serves, it ended, or the time is over.
    machine.run(
        f"rm -f /run/serve.log; {command} >/run/serve.log 2>&1 & pid=$!; "
        "until grep -qs '^r2p2: serving' /run/serve.log; do kill -0 $pid || { cat /run/serve.log; false; break; }; "
        "usleep 50000; done",
        SERVE_S,
    )
    # By itself it takes hugepages where there are some.
    free = int(machine.run("cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"))
    assert free < HUGEPAGES_COUNT // 2, f"{free} hugepages are free: the server does not use them"


def stop(machine: Machine) -> None:
    """Ends the server, whose end must be clean: all buffers back, nothing dropped but what was not for it."""
    log = machine.run("kill -TERM $pid; wait $pid && cat /run/serve.log", SERVE_S)
    assert "did not come back" not in log, log
    drops = set(re.findall(r"'(\w+)': \d+", log.splitlines()[-1]))
    assert log.splitlines()[-1].startswith("r2p2: stopped"), log
    assert drops <= NOT_FOR_US, log


def uio_without_hugepages_says_why(machine: Machine, case: Case) -> None:
    """The remedy is named where a NIC cannot work."""
    bind(machine, case.nic.address, "uio_pci_generic")
    text = machine.run(
        f"python -m r2p2 serve --backend dpdk --pci {case.nic.address} --no-hugepages --bind {case.wire.theirs}:{PORT}"
        " 2>&1 || true",
        SERVE_S,
    )
    assert "needs hugepages and root" in text, text


def run_cases(machine: Machine, outside: Namespace, only: str) -> int:
    """Runs what ``only`` selects; how many there were."""
    count = 0
    kind, _, driver = only.partition(":")
    for case in cases():
        if kind not in ("", case.nic.kind) or driver not in ("", case.driver):
            continue
        pages = HUGEPAGES_COUNT if case.hugepages else 0
        machine.run(f"echo {pages} >/proc/sys/vm/nr_hugepages && [ $(cat /proc/sys/vm/nr_hugepages) = {pages} ]")
        bind(machine, case.nic.address, case.driver)
        serve(machine, case)
        found = outside.speak(case.wire, PORT, SPEAK_S)
        assert found["neighbour"] == case.nic.mac, f"ARP found {found['neighbour']}, the NIC has {case.nic.mac}"
        stop(machine)
        say(
            f"{case}: answered after {found['pings']} pings, ARP named its MAC, {found['calls']} calls of 64 bytes "
            f"(median {found['median_us']} us), messages up to 370,406 bytes"
        )
        count += 1
    return count


def test(folder: Path, only: str) -> None:
    """The whole of it; logs and captures go to ``folder``.

    Raises:
        UserError: something is missing here.
        MachineError, AssertionError: something did not work.
    """
    install_programs()
    CACHE.mkdir(parents=True, exist_ok=True)
    kernel = fetch_kernel(CACHE)
    image = folder / "initramfs.cpio"
    make_initramfs(image, kernel)
    say(f"kernel {kernel.name.removeprefix('linux-image-')}, file system of {image.stat().st_size >> 20} MiB made")
    vmlinuz = next((kernel / "boot").glob("vmlinuz-*"))
    with (
        Namespace(f"r2p2-nic-{os.getpid()}", WIRES) as outside,
        Machine(vmlinuz, image, NICS, folder, outside.prefix) as machine,
    ):
        machine.wait_up(BOOT_S)
        say(f"booted; IOMMU groups: {machine.run('ls /sys/kernel/iommu_groups | wc -l')}")
        uio_without_hugepages_says_why(machine, next(cases()))
        say("uio_pci_generic without hugepages: refused, with the remedy")
        count = run_cases(machine, outside, only)
        assert count, f"--only {only} selects nothing"
        say(f"{count} of {count} passed")


def main() -> int:
    """Runs it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.nic", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", metavar="KIND[:DRIVER]", help="e1000, e1000e or virtio-net-pci")
    parser.add_argument("--keep", action="store_true", help="keep the logs and captures of a good run too")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="r2p2-nic-"))
    good = False
    try:
        test(folder, args.only)
        good = True
    except (MachineError, AssertionError, subprocess.TimeoutExpired) as error:
        print(f"test-nic: failed: {error}", file=sys.stderr)
    finally:
        (folder / "initramfs.cpio").unlink(missing_ok=True)
        if good and not args.keep:
            shutil.rmtree(folder)
        else:
            print(f"test-nic: console, QEMU's log and the captures are in {folder}", file=sys.stderr)
    return 0 if good else 1


STARTED = time.monotonic()

if __name__ == "__main__":
    sys.exit(guard(main))
