"""The EAL, DPDK's process-wide environment, from a typed configuration.

The defaults run anywhere: no hugepages, no PCI, no shared files, no telemetry socket, no root. DPDK pins the thread
that starts the EAL to one core; here it may run on every core the process may, because replicas outnumber the cores
of a laptop.

The EAL starts once a process, ever. What it leaves to others: devices (``devices.py``), ports (``port.py``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from dpdk_backend._native import load
from dpdk_backend.errors import EalAlreadyStartedError, EalError
from dpdk_backend.hugepages import free_mb

LogLevel = Literal["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"]
EalState = Literal["not started", "running", "failed", "stopped"]

_LOG_NAMES: dict[LogLevel, str] = {
    "emergency": "emergency",
    "alert": "alert",
    "critical": "critical",
    "error": "error",
    "warning": "warning",
    "notice": "notice",
    "info": "info",
    "debug": "debug",
}
_STATES: tuple[EalState, ...] = ("not started", "running", "failed", "stopped")
_LOG_BYTES = 8192
_LOG_QUOTED_LINES = 6

_NO_HUGETLBFS = (
    "hugepages are free, but EalConfig.shared_files keeps them as files: mount -t hugetlbfs none /dev/hugepages, "
    "writable for this user, or leave shared_files off"
)

# A text in DPDK's log -> what to do. The first that occurs is taken.
_REMEDIES: tuple[tuple[str, str], ...] = (
    (
        "Is another primary process running?",
        "another process uses this file prefix: give each process its own EalConfig.file_prefix, or leave "
        "EalConfig.shared_files off",
    ),
    (
        "Expecting 'PA' IOVA mode",
        "a NIC under uio_pci_generic needs hugepages and root, since DPDK must know physical addresses: "
        "EalConfig(hugepages=True), or bind the NIC to vfio-pci behind an IOMMU",
    ),
    (
        "is world-writable and insecure",
        "DPDK loads no drivers from below a folder that anyone may write to: chmod o-w the one its log names",
    ),
    (
        "No DPDK runtime directory",
        "DPDK could not make its runtime directory: let XDG_RUNTIME_DIR (root: /var/run) name one that can be written",
    ),
    (
        "hugepage",
        "not enough hugepages are free: reserve some (sysctl -w vm.nr_hugepages=256), or do without: --no-hugepages, "
        "EalConfig(hugepages=False)",
    ),
    (
        "cannot open '/proc/self/numa_maps'",
        "the kernel does not show its memory maps here: use EalConfig(hugepages=False)",
    ),
    (
        "ermission denied",
        "the process may not do that: run it as root, or with EalConfig(hugepages=False, pci_addresses=())",
    ),
    (
        "Could not open AF_PACKET socket",
        "af_packet needs CAP_NET_RAW: run it as root",
    ),
    (
        "peration not permitted",
        "af_packet needs CAP_NET_RAW, tap and af_xdp CAP_NET_ADMIN: run it as root",
    ),
    (
        "not enough memory",
        "EalConfig.memory_mb is more than the machine can give: make it smaller",
    ),
    ("Cannot allocate memory", "EalConfig.memory_mb is more than the machine can give: make it smaller"),
    ("Invalid socket directory", "the folder of the memif's socket is not there: make it, or name another"),
    ("(SIOCGIFINDEX)", "there is no interface of that name: see ip -br link"),
    ("failed to parse device", "DPDK has no driver for a device of that name: net_null0, net_pcap0,... and the like"),
    ("invalid core", "EalConfig.cpus names a core this process may not run on: see taskset -p $$"),
    ("lcore", "EalConfig.cpus names a core this process may not run on: see taskset -p $$"),
    (
        "Invalid 'command line' arguments",
        "an argument is not known to this DPDK: look at EalConfig.extra_arguments and vdevs; getopt's word: stderr",
    ),
)


@dataclass(frozen=True)
class EalConfig:
    """How the EAL starts.

    Attributes:
        memory_mb: megabytes for DPDK's heap: the mbufs of all ports (2 to 4 kB each) and the drivers'
            own. Taken as it is touched.
        hugepages: use them; else ordinary pages, which need no preparation and no rights. Without
            ``shared_files`` no hugetlbfs need be mounted, and no file of them is left behind.
        shared_files: keep DPDK's files of this process, for dpdk-proc-info and other secondary processes; then
            the file prefix must be nobody else's, and hugepages need a hugetlbfs mount one may write to, where
            they stay taken until :func:`stop_eal`.
        file_prefix: tells DPDK processes of one machine apart; None: one of this process.
        cpus: the cores the polling thread may run on; None: those of the process.
        pci_addresses: PCI devices to use, like ``0000:00:05.0``; none: the PCI bus is not looked at.
        vdevs: ``--vdev`` arguments as DPDK spells them; a device can also be added later.
        log_level: what DPDK logs; the end of the log is kept for error messages.
        log_to_stderr: DPDK's log goes to stderr as well.
        extra_arguments: passed to DPDK as they are, after all others.
    """

    memory_mb: int = 96
    hugepages: bool = False
    shared_files: bool = False
    file_prefix: str | None = None
    cpus: tuple[int, ...] | None = None
    pci_addresses: tuple[str, ...] = ()
    vdevs: tuple[str, ...] = ()
    log_level: LogLevel = "warning"
    log_to_stderr: bool = False
    extra_arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks what can be checked without DPDK."""
        if self.memory_mb < 16:
            raise ValueError(f"memory_mb is {self.memory_mb}: the EAL needs at least 16")
        if self.cpus is not None and not self.cpus:
            raise ValueError("cpus is empty: the polling thread needs a core")
        if self.log_level not in _LOG_NAMES:
            raise ValueError(f"log_level is {self.log_level!r}: one of {', '.join(_LOG_NAMES)}")

    def arguments(self) -> list[str]:
        """The arguments of ``rte_eal_init``, the program's name first."""
        cpus = self.cpus if self.cpus is not None else tuple(sorted(os.sched_getaffinity(0)))
        prefix = self.file_prefix if self.file_prefix is not None else f"r2p2-{os.getpid()}"
        arguments = [
            "r2p2",
            "--lcores",
            f"0@({','.join(str(cpu) for cpu in cpus)})",
            "--file-prefix",
            prefix,
            "-m",
            str(self.memory_mb),
            "--no-telemetry",
            f"--log-level={_LOG_NAMES[self.log_level]}",
        ]
        if not self.hugepages:
            arguments.append("--no-huge")
        if not self.shared_files:
            arguments.append("--in-memory" if self.hugepages else "--no-shconf")
        if not self.pci_addresses:
            arguments.append("--no-pci")
        for address in self.pci_addresses:
            arguments += ["-a", address]
        for device in self.vdevs:
            arguments += ["--vdev", device]
        return arguments + list(self.extra_arguments)


def version() -> str:
    """DPDK's own version text.

    Raises:
        DpdkMissingError: the backend is not built.
    """
    native = load()
    return native.text(native.lib.dpdk_version_text())


def tsc() -> int:
    """The processor's time stamp counter, now: the clock that poll loops look at. Works before the EAL runs.

    Raises:
        DpdkMissingError: the backend is not built.
    """
    return load().lib.dpdk_tsc()


def tsc_hz() -> int:
    """Its ticks a second; 0 where the EAL does not run.

    Raises:
        DpdkMissingError: the backend is not built.
    """
    return load().lib.dpdk_tsc_hz()


def eal_state() -> EalState:
    """Where the EAL of this process is.

    Raises:
        DpdkMissingError: the backend is not built.
    """
    return _STATES[load().lib.dpdk_eal_state()]


def eal_log() -> str:
    """The end of DPDK's log in this process, a few kilobytes at most."""
    native = load()
    out = native.ffi.new("char[]", _LOG_BYTES)
    native.lib.dpdk_log_tail(out, _LOG_BYTES)
    return native.text(out)


def remedy_for(log: str) -> str:
    """What to do about what DPDK's log says; empty where nothing is known."""
    return next((remedy for text, remedy in _REMEDIES if text in log), "")


def start_eal(config: EalConfig | None = None) -> None:
    """Starts the EAL; ``config`` defaults to ``EalConfig()``.

    Raises:
        DpdkMissingError: the backend is not built.
        EalAlreadyStartedError: it was started before in this process, whatever became of it.
        EalError: DPDK refused; the message quotes its log and names a remedy where one is known.
    """
    native = load()
    state = eal_state()
    if state != "not started":
        raise EalAlreadyStartedError(
            f"rte_eal_init: the EAL of this process is {state}; DPDK starts it once a process",
            remedy="open further ports on the running EAL, or start another process",
        )
    config = config if config is not None else EalConfig()
    arguments = config.arguments()
    keep = [native.ffi.new("char[]", argument.encode()) for argument in arguments]
    status = native.lib.dpdk_eal_start(len(keep), native.ffi.new("char *[]", keep), int(config.log_to_stderr))
    if status < 0:
        log = eal_log()
        remedy = remedy_for(log)
        if "hugepage" in log and config.shared_files and free_mb() >= config.memory_mb:
            remedy = _NO_HUGETLBFS
        quoted = "\n".join(f"  dpdk: {line}" for line in log.strip().splitlines()[-_LOG_QUOTED_LINES:])
        message = f"{native.error_text()} (arguments: {' '.join(arguments[1:])})"
        raise EalError(f"{message}\n{quoted}" if quoted else message, code=-status, remedy=remedy)


def stop_eal() -> None:
    """Stops the EAL and gives its memory back; it cannot start again in this process. Close every port before.

    Raises:
        EalError: it is not running.
    """
    native = load()
    if native.lib.dpdk_eal_stop() < 0:
        raise EalError(native.error_text())
