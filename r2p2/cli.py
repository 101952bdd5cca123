"""The command line: ``r2p2 SUBCOMMAND ...``, also ``python -m r2p2``.

This file only finds the subcommand and turns its end into an exit code; what a subcommand does is in its own module,
imported when it is asked for (scapy and matplotlib are slow to import, DPDK may be missing). A subcommand's module has
``NAME``, ``HELP``, ``add_arguments(parser)`` and ``run(args) -> int``, and may have an ``EPILOG``, how its help ends.

Exit codes: 0 it worked, 1 it failed, 2 wrong usage, 3 this member was removed from its cluster, 130 stopped by Ctrl-C,
143 by SIGTERM. A :class:`~r2p2.errors.UserError` is printed as ``r2p2: error: ...`` with its remedy below it. Anything
else is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import importlib.metadata
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn, Protocol, cast

from r2p2.errors import UserError

__all__ = ["SUBCOMMANDS", "Subcommand", "guard", "load_subcommand", "main", "parser_of", "run"]

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_TERMINATED = 128 + signal.SIGTERM
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Subcommand(Protocol):
    """What a subcommand's module offers."""

    NAME: str
    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; the exit code."""


# Name -> module and the line `r2p2 --help` prints, so that help imports nothing.
SUBCOMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("r2p2.serve", "run one node: an application behind a backend"),
    "router": ("r2p2.router_command", "spread requests over servers: random, round-robin, jsq or jbsq:N"),
    "gateway": ("r2p2.gateway.command", "let Redis clients over TCP use a replicated key-value store"),
    "member": (
        "r2p2.member_command",
        "list, add, remove or replace members of a running cluster, hand leadership over",
    ),
    "cluster": (
        "r2p2.cluster.command",
        "start, look at, kill, restart, add, remove and end the members of a cluster file here",
    ),
    "status": ("r2p2.cluster.status", "ask every member of a cluster for its status"),
    "top": ("r2p2.cluster.top", "watch a cluster: roles, indices, rates, drops"),
    "metrics": ("r2p2.cluster.metrics", "serve the status of a cluster's members to Prometheus"),
    "call": ("r2p2.call", "send one request and print the reply"),
    "bench": ("r2p2.bench.command", "measure throughput and latency, with the cpu time of each process"),
    "demo": ("r2p2.demo.command", "three replicas under load, the leader killed, and the proof that nothing was lost"),
    "torture": ("r2p2.torture.command", "members killed and stopped under load, and the proof of what clients saw"),
    "dissect": ("r2p2.dissect", "print the messages of a capture line by line"),
    "craft": ("r2p2.craft", "build a capture from a short text description"),
    "sim": ("r2p2.sim.command", "run simulated clusters from seeds, with faults, and check Raft's properties"),
    "doctor": ("r2p2.doctor", "say what this machine has for each backend, and the commands for what it lacks"),
    "replay": ("r2p2.replay", "run a server over a capture and write its answers as another"),
}


class _Terminated(BaseException):
    """SIGTERM, as an exception, so that `finally` blocks run."""


def _on_sigterm(signum: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated


def _version() -> str:
    try:
        return importlib.metadata.version("r2p2")
    except importlib.metadata.PackageNotFoundError:
        return "unknown (not installed)"


def _usage() -> str:
    width = max(map(len, SUBCOMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in SUBCOMMANDS.items()]
    return "\n".join(
        [
            "usage: r2p2 [-h] [--version] SUBCOMMAND ...",
            "",
            "R2P2: request-response pairs over UDP, with Raft inside the transport.",
            "",
            *lines,
            "",
            "r2p2 SUBCOMMAND --help describes one.",
        ]
    )


def load_subcommand(name: str) -> Subcommand:
    """The module of a subcommand.

    Raises:
        UserError: it needs something that is not installed.
    """
    module_name = SUBCOMMANDS[name][0]
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and not error.name.startswith(("r2p2", "raft", "uv_backend", "dpdk_backend")):
            raise UserError(
                f"`r2p2 {name}` needs the package {error.name}, which is not installed",
                f"pip install {error.name.partition('.')[0]}",
            ) from error
        if error.name in ("r2p2._engine", "uv_backend._udp", "dpdk_backend._dpdk"):
            raise UserError(
                f"the compiled module {error.name} is missing",
                "pip install . in the project's folder, or make setup in a clone",
            ) from error
        if error.name == module_name or module_name.startswith(f"{error.name}."):
            raise UserError(f"`r2p2 {name}` is not part of this version ({_version()})") from error
        raise
    return cast(Subcommand, module)


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind each option; the epilog's lines, an example most often, as they are."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        # "(default: None)" and "(default: [])" tell nobody anything.
        if action.default in (None, "", []) or isinstance(action.default, bool):
            return action.help
        return super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """One whose help is not lost in silence where there is no room for it."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            (file or sys.stderr).write(message)


def parser_of(name: str, module: Subcommand) -> argparse.ArgumentParser:
    """The parser of a subcommand, complete; docs/reference/cli.md is made from it."""
    parser = _Parser(
        prog=f"r2p2 {name}",
        description=module.HELP,
        epilog=getattr(module, "EPILOG", None),
        formatter_class=_HelpFormatter,
    )
    module.add_arguments(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Runs the subcommand of ``argv``; for :func:`guard`."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage(), file=sys.stdout if argv else sys.stderr)
        return EXIT_OK if argv else EXIT_USAGE
    if argv[0] in ("--version", "-V"):
        print(f"r2p2 {_version()}")
        return EXIT_OK
    name = argv[0]
    if name not in SUBCOMMANDS:
        print(f"{_usage()}\n\nr2p2: error: no subcommand {name!r}", file=sys.stderr)
        return EXIT_USAGE
    module = load_subcommand(name)
    parser = parser_of(name, module)
    # Intermixed: what stands for itself may come after options, as in `call ADDRESS --policy replicated PAYLOAD`.
    return module.run(parser.parse_intermixed_args(argv[1:]))


def guard(work: Callable[[], int]) -> int:
    """Run `work` and turn its end, whatever it is, into an exit code; for every process of ours.

    A user's error is printed; Ctrl-C and SIGTERM unwind the stack, so that `finally` and `with` do their work.
    """
    previous = signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        try:
            code = work()
        except SystemExit as stop:  # argparse: 2 after a usage error, 0 after --help
            code = stop.code if isinstance(stop.code, int) else EXIT_FAILED
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"r2p2: error: {error.message}", file=sys.stderr)
        if error.remedy:
            print(f"r2p2: to mend it: {error.remedy}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except _Terminated:
        return EXIT_TERMINATED
    except OSError as error:
        if error.errno in _NO_ROOM:
            print(f"r2p2: error: what was to be written has no room: {error.strerror}", file=sys.stderr)
        elif not isinstance(error, BrokenPipeError):
            raise
        # Or the reader of our output (a pager, head) has left; keep Python from complaining again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    finally:
        signal.signal(signal.SIGTERM, previous)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand of `argv` (default: the process's arguments); returns the exit code."""
    return guard(lambda: run(sys.argv[1:] if argv is None else argv))
