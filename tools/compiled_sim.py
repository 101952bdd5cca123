"""Runs ``r2p2 sim`` over a private copy of raft/ and r2p2/sim/, compiled by mypyc: the same seeds, about twice as fast.

    python tools/compiled_sim.py --seeds 0:20000 --events 20000

The copy is made anew in build/sim where a source is newer. Mutants need the sources: not here.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / "build" / "sim"
# Dataclasses with slots, and exceptions with fields, are made again by their decorators, which mypyc does not allow.
RAFT_AS_IT_IS = {"__init__", "codec", "config", "configuration", "messages", "ready", "roles", "snapshots"}
SIM_COMPILED = ("checkers", "clients", "faults", "histories", "machine", "node", "operators", "world")
SETUP = """
from mypyc.build import mypycify
from setuptools import setup
setup(name="compiled_sim", packages=[], ext_modules=mypycify({files!r}, opt_level="2", debug_level="0"))
"""


def compile_copy() -> None:
    """Copies and compiles, when there is something newer than the last copy."""
    sources = [*(ROOT / "raft").glob("*.py"), *(ROOT / "r2p2" / "sim").glob("*.py"), Path(__file__)]
    done = COPY / "done"
    if done.exists() and all(source.stat().st_mtime < done.stat().st_mtime for source in sources):
        return
    shutil.rmtree(COPY, ignore_errors=True)
    (COPY / "r2p2").mkdir(parents=True)
    shutil.copytree(ROOT / "raft", COPY / "raft", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "r2p2" / "sim", COPY / "r2p2" / "sim", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "r2p2" / "errors.py", COPY / "r2p2")
    (COPY / "r2p2" / "__init__.py").write_text('"""The part of it that the simulator needs."""\n')
    files = [f"raft/{path.name}" for path in sorted((ROOT / "raft").glob("*.py")) if path.stem not in RAFT_AS_IT_IS]
    files += [f"r2p2/sim/{name}.py" for name in SIM_COMPILED]
    (COPY / "setup.py").write_text(SETUP.format(files=files))
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=COPY, check=True, stdout=subprocess.DEVNULL)
    done.touch()


RUN = """
import argparse, sys
sys.path.insert(0, {copy!r})
from r2p2.sim import command, world
assert world.__file__.endswith((".so", ".pyd")), world.__file__
parser = argparse.ArgumentParser(prog="compiled_sim")
command.add_arguments(parser)
sys.exit(command.run(parser.parse_args()))
"""


def main() -> int:
    """The exit code of the run."""
    compile_copy()
    return subprocess.run([sys.executable, "-c", RUN.format(copy=str(COPY)), *sys.argv[1:]], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
