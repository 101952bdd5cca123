"""Compiles every C file of the packages with all warnings as errors, and keeps nothing.

Why apart from the build: cffi's generated glue is not ours to warn about, so the modules are built without ``-Werror``.
The flags come from cffi_build.py. DPDK's own headers count as system headers. Files of dpdk_backend are left out, and
said to be, where libdpdk is missing.

Exit code 0, or 1 with gcc's messages on stderr.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import cffi_build  # noqa: E402

PACKAGES = ("r2p2", *cffi_build.PYTHON_MODULES, "uv_backend", "dpdk_backend")


def dpdk_flags() -> list[str]:
    """Flags of libdpdk's headers, as system headers."""
    run = subprocess.run(["pkg-config", "--cflags", "libdpdk"], check=True, capture_output=True, text=True)
    flags: list[str] = []
    for flag in shlex.split(run.stdout):
        flags += ["-isystem", flag[2:]] if flag.startswith("-I") else [flag]
    return flags


def command(path: Path, package: str, extra: list[str]) -> list[str]:
    """How one C file is checked: compiled with optimisation, since some warnings need it, into nothing."""
    compiler = shlex.split(os.environ.get("CC", "gcc"))
    includes = [f"-I{ROOT / folder / 'csrc'}" for folder in dict.fromkeys((package, "r2p2"))]
    flags = [*cffi_build.BASE_FLAGS, "-O2", *cffi_build.WARNINGS]
    return [*compiler, *flags, *includes, *extra, "-c", str(path), "-o", os.devnull]


def main() -> int:
    """Checks all files, two at a time."""
    jobs: list[tuple[Path, list[str]]] = []
    for package in PACKAGES:
        # Generated glue lies in the package's folder, not in csrc.
        files = sorted((ROOT / package / "csrc").glob("*.c"))
        if package == "dpdk_backend" and files and not cffi_build.have_dpdk():
            print(f"check_c: no libdpdk, {len(files)} files of dpdk_backend not checked", file=sys.stderr)
            continue
        extra = dpdk_flags() if package == "dpdk_backend" and files else []
        if package in cffi_build.PYTHON_MODULES:
            extra = ["-isystem", sysconfig.get_path("include")]
        jobs += [(path, command(path, package, extra)) for path in files]

    def check(job: tuple[Path, list[str]]) -> bool:
        run = subprocess.run(job[1], capture_output=True, text=True, check=False)
        if run.returncode:
            print(f"check_c: {job[0].relative_to(ROOT)}\n{run.stderr}", file=sys.stderr)
        return run.returncode == 0

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        results = list(pool.map(check, jobs))
    print(f"check_c: {sum(results)} of {len(results)} C files without a warning")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
