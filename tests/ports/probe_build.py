"""Builds the tests' own compiled module: the probe (a stand-in for the engine) and the in-memory port alone.

Apart from ``r2p2._engine`` on purpose: a broken engine must not hide what the ports do. Only the in-memory section of
the engine's interface is declared, since the rest of the engine is not linked.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from cffi import FFI

from cffi_build import BASE_FLAGS, ROOT, c_declarations

MEM_SECTION = "typedef struct r2p2_mem_switch r2p2_mem_switch;"


def build(directory: Path) -> ModuleType:
    """Compile into `directory` and import; attributes ``ffi`` and ``lib``."""
    csrc = ROOT / "r2p2" / "csrc"
    here = Path(__file__).parent / "c"
    api = c_declarations(csrc / "r2p2_engine_api.h")
    assert api.count(MEM_SECTION) == 1, "the in-memory section of r2p2_engine_api.h starts with its typedef"
    ffi = FFI()
    ffi.cdef(MEM_SECTION + api.split(MEM_SECTION)[1])
    ffi.cdef(c_declarations(here / "port_probe.h"))
    ffi.set_source(
        "_port_probe",
        '#include <stdint.h>\n#include "r2p2_engine_api.h"\n#include "port_probe.h"\n',
        sources=[str(here / "port_probe.c"), str(csrc / "r2p2_mem_port.c")],
        include_dirs=[str(csrc), str(here)],
        extra_compile_args=BASE_FLAGS,
    )
    path = ffi.compile(tmpdir=str(directory))
    spec = importlib.util.spec_from_file_location("_port_probe", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
