"""``r2p2 doctor``: what this machine has for each backend, and the command for what it lacks.

Here are what a finding is, how it is printed and the subcommand; each backend knows itself what it needs and looks
for it (``uv_backend/doctor.py``, ``dpdk_backend/doctor.py``). Looking changes nothing: no device is bound, no memory
reserved.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

__all__ = ["Finding", "can_run", "render"]

NAME = "doctor"
HELP = "say what this machine has for each backend, and the commands for what it lacks"

BACKENDS = ("uv", "dpdk")
DEFAULT_BACKEND = "uv"
_NAME_CHARACTERS = 18

Status = Literal["ok", "missing", "optional"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        name: what it is.
        status: ``missing`` stops the backend as a whole; ``optional`` stops, or slows, only what ``text`` says.
        text: what was found.
        command: what to run to get it; empty where nothing is to be done.
    """

    name: str
    status: Status
    text: str
    command: str = ""


def can_run(findings: Sequence[Finding]) -> bool:
    """Whether nothing is missing."""
    return not any(finding.status == "missing" for finding in findings)


def render(findings: Sequence[Finding]) -> str:
    """The findings as a table with the commands below their lines."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:8} {finding.name:{_NAME_CHARACTERS}} {finding.text}")
        if finding.command:
            lines.append(f"{'':8} {'':{_NAME_CHARACTERS}}   -> {finding.command}")
    return "\n".join(lines)


def examine(backend: str) -> list[Finding]:
    """What the machine has for a backend."""
    if backend == "uv":
        from uv_backend import doctor as uv_doctor

        return uv_doctor.examine()
    from dpdk_backend import doctor as dpdk_doctor

    return dpdk_doctor.examine()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument(
        "--backend", choices=BACKENDS, default=DEFAULT_BACKEND, help="exit with 0 when this one can run here"
    )
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Prints everything; 0 when the backend asked about can run here, else 1."""
    found = {backend: examine(backend) for backend in BACKENDS}
    runs = {backend: can_run(findings) for backend, findings in found.items()}
    if args.json:
        backends = {
            backend: {"can_run": runs[backend], "findings": [asdict(finding) for finding in findings]}
            for backend, findings in found.items()
        }
        print(json.dumps({"python": platform.python_version(), "system": platform.platform(), "backends": backends}))
    else:
        print(f"Python {platform.python_version()} ({sys.executable}) on {platform.platform()}")
        for backend, findings in found.items():
            print(f"\n{backend}: {'can run' if runs[backend] else 'cannot run'}\n{render(findings)}")
    return 0 if runs[args.backend] else 1
