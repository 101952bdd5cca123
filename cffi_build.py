"""Builds the compiled modules with cffi in API mode.

Three modules, each from the C files of its own package:

* ``r2p2._engine``: the engine and the in-memory port (always);
* ``uv_backend._udp``: the kernel UDP port (Linux: recvmmsg, sendmmsg);
* ``dpdk_backend._dpdk``: the DPDK port, where ``pkg-config --exists libdpdk`` says the headers are there.

And two without cffi, since they make Python's own objects (always):

* ``r2p2.requests._batch``: what happens to each request of a batch around a handler in Python;
* ``r2p2.apps.kv._plain``: the key-value store's plain SETs and GETs.

``setup.py`` asks :func:`modules` for what this machine can build. ``python cffi_build.py`` builds the same in
place, which is what ``make`` does after a change of C. ``R2P2_SANITIZE=address,undefined`` builds with sanitizers.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from cffi import FFI
from setuptools import Distribution, Extension

ROOT = Path(__file__).resolve().parent
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wstrict-prototypes", "-Wno-unused-parameter"]
# cffi's generated glue is not ours to warn about; the same sources are compiled with WARNINGS by `make lint`.
BASE_FLAGS = ["-std=gnu11", "-O3", "-g", "-fno-strict-aliasing", "-fvisibility=hidden"]


def have_dpdk() -> bool:
    """True where pkg-config finds DPDK's headers."""
    try:
        return subprocess.run(["pkg-config", "--exists", "libdpdk"], check=False).returncode == 0
    except FileNotFoundError:
        return False


def c_declarations(*headers: Path) -> str:
    """The declarations of plain headers, with comments and include guards left for C alone removed."""
    text = "\n".join(header.read_text() for header in headers)
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def c_sources(package: str) -> list[str]:
    """The C files of a package, relative to the root as setuptools wants them."""
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / package / "csrc").glob("*.c"))


def _flags() -> tuple[list[str], list[str]]:
    sanitize = os.environ.get("R2P2_SANITIZE")
    extra = [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-O1"] if sanitize else []
    return BASE_FLAGS + extra, [f"-fsanitize={sanitize}"] if sanitize else []


def engine() -> FFI:
    """``r2p2._engine``."""
    ffi = FFI()
    csrc = ROOT / "r2p2" / "csrc"
    ffi.cdef(c_declarations(csrc / "r2p2_limits.h", *sorted(csrc.glob("*_api.h"))))
    compile_flags, link_flags = _flags()
    ffi.set_source(
        "r2p2._engine",
        '#include "r2p2_module.h"\n',
        sources=c_sources("r2p2"),
        include_dirs=["r2p2/csrc"],
        libraries=["m"],
        extra_compile_args=compile_flags,
        extra_link_args=link_flags,
    )
    return ffi


def udp() -> FFI:
    """``uv_backend._udp``."""
    ffi = FFI()
    ffi.cdef(c_declarations(*sorted((ROOT / "uv_backend" / "csrc").glob("*_api.h"))))
    compile_flags, link_flags = _flags()
    ffi.set_source(
        "uv_backend._udp",
        '#include "udp_module.h"\n',
        sources=c_sources("uv_backend"),
        include_dirs=["uv_backend/csrc", "r2p2/csrc"],
        extra_compile_args=compile_flags,
        extra_link_args=link_flags,
    )
    return ffi


def dpdk() -> FFI:
    """``dpdk_backend._dpdk``; pkg-config gives the flags."""
    ffi = FFI()
    ffi.cdef(c_declarations(*sorted((ROOT / "dpdk_backend" / "csrc").glob("*_api.h"))))
    compile_flags, link_flags = _flags()
    ffi.set_source_pkgconfig(
        "dpdk_backend._dpdk",
        ["libdpdk"],
        '#include "dpdk_module.h"\n',
        sources=c_sources("dpdk_backend"),
        include_dirs=["dpdk_backend/csrc", "r2p2/csrc"],
        libraries=["rte_bus_vdev"],  # a driver's library, so pkg-config leaves it out
        extra_compile_args=compile_flags,
        extra_link_args=link_flags,
    )
    return ffi


# Packages with a module over Python's own C interface -> that module.
PYTHON_MODULES = {"r2p2/requests": "r2p2.requests._batch", "r2p2/apps/kv": "r2p2.apps.kv._plain"}


def _headers(package: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / package / "csrc").glob("*.h"))


def python_extension(package: str) -> Extension:
    """The module of such a package."""
    compile_flags, link_flags = _flags()
    return Extension(
        PYTHON_MODULES[package],
        c_sources(package),
        include_dirs=["r2p2/csrc"],
        depends=[*_headers(package), *_headers("r2p2")],
        extra_compile_args=compile_flags,
        extra_link_args=link_flags,
    )


class _InPlace:
    """An extension that is compiled as cffi's modules are: beside its package."""

    def __init__(self, extension: Extension) -> None:
        self._extension = extension

    def compile(self, verbose: bool = False) -> str:
        """The shared object."""
        command = Distribution({"ext_modules": [self._extension]}).get_command_obj("build_ext")
        command.inplace, command.force, command.build_temp = True, True, str(ROOT / "build" / "python")
        command.ensure_finalized()
        command.run()
        return str(command.get_ext_fullpath(self._extension.name))


def batch() -> _InPlace:
    """``r2p2.requests._batch``."""
    return _InPlace(python_extension("r2p2/requests"))


def kv() -> _InPlace:
    """``r2p2.apps.kv._plain``."""
    return _InPlace(python_extension("r2p2/apps/kv"))


def modules() -> list[str]:
    """The ``cffi_modules`` this machine can build."""
    names = ["cffi_build.py:engine"]
    if sys.platform == "linux":
        names.append("cffi_build.py:udp")
        if have_dpdk():
            names.append("cffi_build.py:dpdk")
    return names


if __name__ == "__main__":
    os.chdir(ROOT)
    for name in [*modules(), "cffi_build.py:batch", "cffi_build.py:kv"]:
        builder = globals()[name.partition(":")[2]]
        print("built", builder().compile(verbose=False))
