"""``r2p2 craft FILE -o OUT.pcap``: builds a capture from a short text description.

What: the command line and the file format; the language is :mod:`r2p2.craft.language`, what its verbs build
:mod:`r2p2.craft.script`. The same description gives the same bytes each time. The captures are food for ``r2p2
replay``, ``r2p2 dissect``, Wireshark and tests. docs/craft.md describes the language.
"""

from __future__ import annotations

import argparse
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from r2p2.craft.language import CraftError
from r2p2.craft.script import Frame, frames
from r2p2.errors import UserError

NAME: Final = "craft"
HELP: Final = "build a capture from a short text description"
__all__ = ["HELP", "NAME", "CraftError", "add_arguments", "craft", "run"]

_MAGIC_NANOSECONDS: Final = 0xA1B23C4D
_LINKTYPE_ETHERNET: Final = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("file", metavar="FILE", help="the description; - reads standard input")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.pcap", help="the capture to write")


def craft(text: str) -> bytes:
    """The pcap file (Ethernet, nanoseconds) that ``text`` describes. Raises CraftError, and UserError without scapy."""
    return _file(frames(text))


def run(args: argparse.Namespace) -> int:
    """Writes the capture; nothing is written when the description is wrong."""
    try:
        text = sys.stdin.read() if args.file == "-" else Path(args.file).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{args.file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{args.file}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    output = Path(args.output)
    if args.file != "-" and output.exists() and output.samefile(args.file):
        raise UserError(f"-o {output} is the description, which would be lost", "Name another -o.")
    try:
        made = list(frames(text))
    except CraftError as error:
        raise UserError(f"{args.file}:{error.line}:{error.column}: {error.message}") from error
    try:
        output.write_bytes(_file(made))
    except OSError as error:
        raise UserError(f"{args.output}: {error.strerror}") from error
    print(f"r2p2: {args.output}: {len(made)} packets")
    return 0


def _file(made: Iterable[Frame]) -> bytes:
    parts = [struct.pack("<IHHiIII", _MAGIC_NANOSECONDS, 2, 4, 0, 0, 65_535, _LINKTYPE_ETHERNET)]
    for frame in made:
        seconds, nanoseconds = divmod(frame.time_ns, 1_000_000_000)
        parts.append(struct.pack("<IIII", seconds, nanoseconds, len(frame.data), len(frame.data)) + frame.data)
    return b"".join(parts)
