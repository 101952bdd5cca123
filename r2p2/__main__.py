"""``python -m r2p2`` and the console script ``r2p2``.

Ctrl-C ends it with the command line's exit code from the first line on, also while the rest is imported.
"""

import io
import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    os._exit(128 + signum)  # nothing has begun that is to be ended in order


def _fill_in_what_is_closed() -> None:
    """A stream that the caller has closed (``>&-``) leads nowhere; else a socket of ours would take its place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            stream = open(os.devnull, "r" if number == 0 else "w")  # noqa: SIM115 (open to the end)
            setattr(sys, name, stream)


def _write_whatever_is_said() -> None:
    """A character that the terminal's encoding does not have, of a path perhaps, is written as an escape: as standard
    error does it, and no reason for a member to end.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def main() -> int:
    """The command line; its exit code."""
    _fill_in_what_is_closed()
    _write_whatever_is_said()
    # A shell has its background jobs ignore it.
    is_heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heeded:
        signal.signal(signal.SIGINT, _leave)
    from r2p2 import cli

    def work() -> int:
        if is_heeded:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return cli.run(sys.argv[1:])

    return cli.guard(work)


if __name__ == "__main__":
    sys.exit(main())
