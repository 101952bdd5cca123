"""Makes what the virtual machine boots: Debian's kernel, and one file system in memory from this machine's own files.

The initramfs holds Python with its standard library, this project, DPDK's libraries with the drivers for the emulated
NICs, busybox, and the kernel's modules that hand a NIC to a program. So there is no disk image to download or to keep
up, and what runs in the machine is what was built here. What it leaves to others: running it (``machine.py``).
"""

from __future__ import annotations

import compileall
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from r2p2.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static", "ip": "iproute2"}
KERNEL_PACKAGE = "linux-image-cloud-amd64"
"""Boots in seconds: it has drivers for virtual machines only. Of the NICs it need not drive any, DPDK does."""
# In the order in which they must be loaded.
KERNEL_MODULES = (
    "uio",
    "uio_pci_generic",
    "irqbypass",
    "vfio",
    "vfio_virqfd",
    "vfio_iommu_type1",
    "vfio-pci-core",
    "vfio-pci",
)
OUR_PACKAGES = ("raft", "r2p2", "dpdk_backend", "uv_backend")
# DPDK loads these from a folder at its start, by what is in it: ldd does not show them.
PLUGINS = ("librte_bus_pci", "librte_bus_vdev", "librte_mempool_ring", "librte_net_e1000", "librte_net_virtio")
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
"""Where the program loader of the machine looks by itself."""
_STDLIB_LEFT_OUT = {"test", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "site-packages", "pydoc_data"}
_NAME_BYTES_MAX = 4095

INIT = """#!/bin/busybox sh
# The first process: mounts, modules, then whatever the second serial line says, line by line.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ PYTHONHOME=@HOME@ PYTHONPATH=/project:/site PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
chmod 755 /  # DPDK loads no driver from below a folder that anyone may write to
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
for module in @MODULES@; do
    insmod "/modules/$module.ko" || echo "init: no module $module"
done
stty -F /dev/ttyS1 raw -echo
# Not an interactive shell, which would prompt and echo.
exec </dev/ttyS1 >/dev/ttyS1 2>&1
echo @@up
while read -r line; do
    eval "$line" </dev/null
done
"""


def install_programs() -> None:
    """Gets QEMU, busybox and ip through apt where they are missing and we may.

    Raises:
        UserError: some are missing and cannot be installed here.
    """
    packages = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if not packages:
        return
    command = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages]
    remedy = f"as root: apt-get update && {' '.join(command)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise UserError(f"not installed: {', '.join(packages)}", remedy)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-q"], env=environment, capture_output=True, check=False)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"apt-get could not install {', '.join(packages)}: {done.stderr.strip()[-300:]}", remedy)


def fetch_kernel(folder: Path) -> Path:
    """Debian's newest cloud kernel, unpacked below ``folder`` and not installed: a folder with boot/ and lib/modules/.

    Raises:
        UserError: apt does not know it or cannot get it.
    """
    if platform.machine() != "x86_64":
        raise UserError(f"the emulated machine is x86_64, this one {platform.machine()}")
    remedy = "as root: apt-get update; this test is for Debian and its relatives"
    listed = subprocess.run(["apt-cache", "depends", KERNEL_PACKAGE], capture_output=True, text=True, check=False)
    found = re.search(r"Depends: (linux-image-\S+)", listed.stdout)
    if found is None:
        raise UserError(f"apt knows no package {KERNEL_PACKAGE}", remedy)
    target = folder / found[1]
    if not (target / "boot").is_dir():
        target.mkdir(parents=True, exist_ok=True)
        run = subprocess.run(["apt-get", "download", found[1]], cwd=target, capture_output=True, text=True, check=False)
        packages = list(target.glob("*.deb"))
        if run.returncode != 0 or not packages:
            shutil.rmtree(target)
            raise UserError(f"apt-get download {found[1]}: {run.stderr.strip()[-300:]}", remedy)
        subprocess.run(["dpkg-deb", "-x", str(packages[0]), str(target)], check=True)
        packages[0].unlink()
    return target


def _libraries_of(binaries: Iterable[Path]) -> set[Path]:
    """The shared libraries that files need, and those that these need, the program loader too."""
    found: set[Path] = set()
    for binary in binaries:
        listed = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
        for line in listed.splitlines():
            if "not found" in line:
                raise UserError(f"{binary}: {line.strip()}", "install the library, or build the modules again: make")
            match = re.search(r"(/\S+) \(0x", line)
            if match:
                found.add(Path(match[1]))
    return found


def _file_of_compiler(name: str) -> Path:
    """A library that belongs to the compiler."""
    cc = os.environ.get("CC", "cc")
    found = subprocess.run([cc, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
    return Path(found).resolve()


def _plugins() -> list[Path]:
    """DPDK's drivers that are wanted, each with the folder they are in."""
    library = subprocess.run(
        ["pkg-config", "--variable=libdir", "libdpdk"], capture_output=True, text=True, check=True
    ).stdout.strip()
    found = []
    for name in PLUGINS:
        # Of X.so, X.so.23 and X.so.23.0 the one whose name other libraries ask for.
        files = sorted(Path(library).glob(f"dpdk/pmds-*/{name}.so.*"), key=lambda path: len(path.name))
        if not files:
            raise UserError(f"DPDK's driver {name} is not installed", "apt-get install dpdk libdpdk-dev")
        found.append(files[0])
    return found


def _python_files(folder: Path, left_out: Collection[str] = ()) -> Iterator[Path]:
    """The modules below a folder, and this Python's compiled forms of them, which save the emulated processor time."""
    tag = f".{sys.implementation.cache_tag}.pyc"
    for path in sorted(folder.rglob("*")):
        first = path.relative_to(folder).parts[0]
        if first in left_out or first.startswith("config-") or not path.is_file():
            continue
        if path.suffix in (".py", ".so") or path.name.endswith(tag):
            yield path


class _Archive:
    """A cpio archive (newc) being written; folders come by themselves."""

    def __init__(self, path: Path) -> None:
        self._out = path.open("wb")
        self._inode = 0
        self._known: set[str] = set()

    def _entry(self, name: str, mode: int, data: bytes, mtime: int = 0) -> None:
        encoded = name.encode() + b"\0"
        assert len(encoded) <= _NAME_BYTES_MAX, name
        self._inode += 1
        fields = (self._inode, mode, 0, 0, 1, mtime, len(data), 0, 0, 0, 0, len(encoded), 0)
        head = b"070701" + "".join(f"{field:08x}" for field in fields).encode() + encoded
        self._out.write(head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4))

    def folder(self, name: str) -> None:
        """One, with those above it."""
        parts = Path(name.lstrip("/")).parts
        for count in range(1, len(parts) + 1):
            path = "/".join(parts[:count])
            if path not in self._known:
                self._known.add(path)
                self._entry(path, stat.S_IFDIR | 0o755, b"")

    def put(self, name: str, data: bytes, mode: int = 0o644, mtime: int = 0) -> None:
        """A file."""
        name = name.lstrip("/")
        if name in self._known:
            return
        self.folder(str(Path(name).parent))
        self._known.add(name)
        self._entry(name, stat.S_IFREG | mode, data, mtime)

    def copy(self, name: str, path: Path) -> None:
        """A file of this machine, with its time: compiled Python files name that of their source."""
        mode = 0o755 if os.access(path, os.X_OK) else 0o644
        self.put(name, path.read_bytes(), mode, int(path.stat().st_mtime))

    def link(self, name: str, target: str) -> None:
        """A symbolic link."""
        name = name.lstrip("/")
        self.folder(str(Path(name).parent))
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def close(self) -> None:
        """Writes the end."""
        self._entry("TRAILER!!!", 0, b"")
        self._out.close()


def make_initramfs(path: Path, kernel: Path) -> None:
    """Writes the machine's file system to ``path``.

    Raises:
        UserError: something that belongs into it is missing here.
    """
    modules = [*(ROOT / "r2p2").rglob("_*.so"), *(ROOT / "uv_backend").glob("_udp.*.so")]
    dpdk = list((ROOT / "dpdk_backend").glob("_dpdk.*.so"))
    if not dpdk:
        raise UserError("the DPDK module is not built", "apt-get install libdpdk-dev, then make setup")
    import _cffi_backend

    backend = Path(_cffi_backend.__file__)
    interpreter = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    plugins = _plugins()
    stdlib = list(_python_files(Path(sysconfig.get_path("stdlib")), _STDLIB_LEFT_OUT))
    for package in OUR_PACKAGES:
        compileall.compile_dir(ROOT / package, quiet=2)
    binaries = [interpreter, backend, *modules, *dpdk, *plugins]
    binaries += [file for file in stdlib if file.suffix == ".so"]

    archive = _Archive(path)
    for folder in ("proc", "sys", "dev", "tmp", "run", "var/run", "bin", "site"):
        archive.folder(folder)
    # A console before devtmpfs is there is not needed: the kernel says what init cannot.
    archive.copy("bin/busybox", Path(shutil.which("busybox") or "/bin/busybox"))
    archive.copy("bin/python", interpreter)
    for file in stdlib:
        archive.copy(str(file), file)
    for library in sorted(_libraries_of(binaries)):
        # Each once: what is loaded from two places is two libraries, and DPDK's drivers register themselves twice.
        is_loader = library.name.startswith("ld-linux")
        archive.copy(str(library) if is_loader else f"{LIBRARIES}/{library.name}", library)
    # glibc loads it when a thread is cancelled, as the EAL does, and aborts without it; ldd does not show it.
    libgcc = _file_of_compiler("libgcc_s.so.1")
    archive.copy(f"{LIBRARIES}/{libgcc.name}", libgcc)
    for plugin in plugins:
        archive.copy(f"{LIBRARIES}/{plugin.name}", plugin)
        archive.link(str(plugin).partition(".so.")[0] + ".so", f"{LIBRARIES}/{plugin.name}")
    archive.copy(f"site/{backend.name}", backend)
    for package in OUR_PACKAGES:
        for file in _python_files(ROOT / package):
            archive.copy(f"project/{file.relative_to(ROOT)}", file)
    for name in KERNEL_MODULES:
        found = list((kernel / "lib/modules").rglob(f"{name}.ko"))
        if found:  # later kernels have some of them in one module, or built in
            archive.copy(f"modules/{name}.ko", found[0])
    init = INIT.replace("@MODULES@", " ".join(KERNEL_MODULES)).replace("@HOME@", sys.base_prefix)
    archive.put("init", init.encode(), 0o755)
    archive.close()
