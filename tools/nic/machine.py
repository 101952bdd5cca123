"""A small virtual machine under software emulation, driven by a shell on its second serial line.

No KVM, so it runs wherever QEMU does, inside other virtual machines too. The NICs sit behind an emulated VT-d with
the identity mapping as default: vfio-pci has its IOMMU, and uio_pci_generic reaches memory as if there were none.
What it leaves to others: what is in it (``image.py``), the wires (``wire.py``), what is done in it (``__main__.py``).
"""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

MEMORY_MB = 1024
END = "@@end"
_QUIT_S = 5.0


class MachineError(Exception):
    """The machine did not do what it was told: its last words are in the message."""


@dataclass(frozen=True)
class Nic:
    """One emulated NIC: QEMU's name of the device, further properties of it, its slot, MAC, and the tap it is wired to.

    ``kind`` is also the name that is printed.
    """

    kind: str
    slot: int
    mac: str
    tap: str
    properties: str = ""

    @property
    def address(self) -> str:
        """Its PCI address in the machine."""
        return f"0000:00:{self.slot:02x}.0"


class Machine:
    """A running machine; a context manager, at whose end it is gone."""

    def __init__(
        self, kernel: Path, initramfs: Path, nics: Sequence[Nic], folder: Path, prefix: Sequence[str] = ()
    ) -> None:
        """Boots. ``prefix``: what runs QEMU, as in ``ip netns exec NAME``. Logs and captures go to ``folder``."""
        self.console = folder / "console.log"
        arguments = [
            *prefix,
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-machine", "q35,kernel-irqchip=split", "-accel", "tcg", "-cpu", "max", "-smp", "1"),
            *("-m", str(MEMORY_MB), "-device", "intel-iommu,intremap=on,aw-bits=48"),
            *("-kernel", str(kernel), "-initrd", str(initramfs)),
            *("-append", "console=ttyS0 intel_iommu=on iommu=pt panic=-1 quiet loglevel=4 tsc=reliable"),
            *("-serial", f"file:{self.console}"),
            *("-chardev", "stdio,id=shell,signal=off", "-serial", "chardev:shell"),
        ]
        for number, nic in enumerate(nics):
            net = f"net{number}"
            device = f"{nic.kind},netdev={net},mac={nic.mac},bus=pcie.0,addr={nic.slot:#x},romfile="
            capture = folder / f"{nic.kind}.pcap"
            arguments += ["-netdev", f"tap,id={net},ifname={nic.tap},script=no,downscript=no"]
            arguments += ["-device", device + (f",{nic.properties}" if nic.properties else "")]
            arguments += ["-object", f"filter-dump,id=dump{number},netdev={net},file={capture}"]
        self._errors = (folder / "qemu.log").open("w+b")
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0
        )
        assert self._process.stdout is not None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._pending = b""

    def _read_until(self, mark: str, timeout_s: float) -> str:
        """What comes before ``mark``, and the mark's line."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        wanted = mark.encode()
        while True:
            place = self._pending.find(wanted)
            end = self._pending.find(b"\n", place)
            if place >= 0 and end >= 0:
                text, self._pending = self._pending[: end + 1], self._pending[end + 1 :]
                return text.decode(errors="replace").replace("\r", "")
            left = deadline - time.monotonic()
            if left <= 0 or not self._selector.select(left):
                raise MachineError(f"nothing within {timeout_s:g} s\n{self._last_words()}")
            chunk = os.read(self._process.stdout.fileno(), 65536)
            if not chunk:
                raise MachineError(f"the machine is gone\n{self._last_words()}")
            self._pending += chunk

    def _last_words(self) -> str:
        self._errors.flush()
        logs = [(path.name, path.read_text(errors="replace")) for path in (Path(self._errors.name), self.console)]
        logs.append(("shell", self._pending.decode(errors="replace")))
        return "\n".join(f"--- {name}\n{text[-1500:]}" for name, text in logs if text)

    def wait_up(self, timeout_s: float) -> None:
        """Waits for its shell."""
        self._read_until("@@up", timeout_s)

    def run(self, command: str, timeout_s: float = 30.0) -> str:
        """Runs a command of the shell; what it printed.

        Raises:
            MachineError: it failed, or did not end in time.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\necho {END} $?\n".encode())
        text = self._read_until(END, timeout_s)
        output, _, code = text.rpartition(END)
        if code.strip() != "0":
            raise MachineError(f"exit code {code.strip()} of: {command}\n{output.strip()}")
        return output.strip()

    def __enter__(self) -> Machine:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it: there is nothing in it worth a shutdown."""
        self._process.terminate()
        try:
            self._process.wait(_QUIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream is not None
            stream.close()
