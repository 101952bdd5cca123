"""Writes the type stub of a cffi module from its C declarations: ``python tools/make_pyi.py [--check]``.

Pointers are ``Any`` (cffi's CData is untyped), numbers ``int`` or ``float``, functions keep their parameter names.
``--check`` exits 1 when a stub differs from what the headers say, so that the two cannot drift.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = {
    "r2p2/_engine.pyi": [
        "r2p2/csrc/r2p2_limits.h",
        "r2p2/csrc/r2p2_engine_api.h",
        "r2p2/csrc/r2p2_install_api.h",
        "r2p2/csrc/r2p2_loadgen_api.h",
        "r2p2/csrc/r2p2_null_api.h",
        "r2p2/csrc/r2p2_router_api.h",
        "r2p2/csrc/r2p2_steady_api.h",
        "r2p2/csrc/r2p2_time_api.h",
    ],
    "dpdk_backend/_dpdk.pyi": ["dpdk_backend/csrc/dpdk_api.h"],
}


def python_type(c_type: str) -> str:
    """The Python type of a C parameter or result."""
    if "*" in c_type or "[" in c_type:
        return "Any"
    return {"void": "None", "double": "float"}.get(c_type.strip(), "int")


def stub(headers: list[str]) -> str:
    """The text of the stub for the declarations in ``headers``."""
    text = re.sub(r"/\*.*?\*/", "", "\n".join((ROOT / h).read_text() for h in headers), flags=re.DOTALL)
    lines = ["# Made by tools/make_pyi.py from the C declarations.", "from typing import Any, Final", "", "class Lib:"]
    for name in re.findall(r"#define (\w+) \w+", text):
        lines.append(f"    {name}: Final[int]")
    for body in re.findall(r"enum \w+ \{(.*?)\}", text, flags=re.DOTALL):
        lines.extend(f"    {name}: Final[int]" for name in re.findall(r"(\w+)\s*=", body))
    text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"typedef struct \w+ \{.*?\} \w+;|enum \w+ \{.*?\};|typedef [^{]*?;", "", text, flags=re.DOTALL)
    for result, name, parameters in re.findall(r"([\w ]+?[\s*]+)(\w+)\(([^)]*)\);", text):
        arguments = ["self"]
        for parameter in parameters.split(","):
            if parameter.strip() != "void":
                match = re.match(r"(.*?)(\w+)(\[\d*\])?$", parameter.strip().replace("\n", " "))
                assert match, parameter
                arguments.append(f"{match[2]}: {python_type(match[1] + (match[3] or ''))}")
        lines.append(f"    def {name}({', '.join(arguments)}) -> {python_type(result)}: ...")
    lines += ["", "lib: Lib", "ffi: Any", ""]
    return "\n".join(lines)


def main() -> int:
    """Writes or checks every stub; the exit code."""
    stale = 0
    for path, headers in MODULES.items():
        wanted, target = stub(headers), ROOT / path
        if "--check" in sys.argv:
            if target.read_text() != wanted:
                print(f"{path} is stale: run python tools/make_pyi.py", file=sys.stderr)
                stale = 1
        else:
            target.write_text(wanted)
    return stale


if __name__ == "__main__":
    sys.exit(main())
