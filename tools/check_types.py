"""mypy --strict over the packages, the build files, the tools and the tests.

Each package is checked under its own name; a package without an ``__init__.py`` is not one. Settings: pyproject.toml.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("raft", "r2p2", "dpdk_backend", "uv_backend", "scapy_layers")
# Scripts are checked one by one: they are not modules of one program.
TOOLS = ("tools/*.py", "tools/nic/*.py")
BENCHMARKS = (
    "benchmarks/*.py",
    "benchmarks/figures/*.py",
    "benchmarks/compare/*.py",
    "benchmarks/compare/servers/*.py",
)
SCRIPTS = ("cffi_build.py", "setup.py", *TOOLS, "examples/*.py", *BENCHMARKS, "pcaps/*.py")


def main() -> int:
    """Runs mypy; its exit code is ours."""
    packages = [name for name in PACKAGES if (ROOT / name / "__init__.py").exists()]
    mypy = [sys.executable, "-m", "mypy"]
    runs = [[*mypy, *(arg for name in packages for arg in ("-p", name))]]
    scripts = [str(path.relative_to(ROOT)) for pattern in SCRIPTS for path in sorted(ROOT.glob(pattern))]
    runs.append([*mypy, "--scripts-are-modules", "--explicit-package-bases", *scripts])
    runs.append([*mypy, "tests"])
    return max(subprocess.run(run, cwd=ROOT, check=False).returncode for run in runs)


if __name__ == "__main__":
    sys.exit(main())
