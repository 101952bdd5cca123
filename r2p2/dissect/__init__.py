"""``r2p2 dissect FILE``: what a capture says, one line a message.

What: the command line. It pulls packets one at a time through :mod:`captures`, :mod:`datagrams` and :mod:`messages` and
hands whole messages to one view: lines (:mod:`text`), pairs (:mod:`pairs`), the Raft timeline (:mod:`timeline`) or a
sequence diagram (:mod:`mermaid`). A capture of any size takes constant memory.

Exit codes: 0 all was read; 1 the file is missing, no capture, or torn (what came before the tear has been printed); 2
wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from r2p2.cli import guard
from r2p2.dissect.captures import CaptureError, Record, records
from r2p2.dissect.datagrams import Datagram, Other, datagram
from r2p2.dissect.filters import Filter, FilterError, all_of, parse
from r2p2.dissect.mermaid import MermaidView
from r2p2.dissect.messages import DEFAULT_PORTS, Assembler, Message
from r2p2.dissect.pairs import PairsView
from r2p2.dissect.text import Json, as_json, entry_lines, line, other_line
from r2p2.dissect.timeline import TimelineView
from r2p2.errors import UserError

NAME: Final = "dissect"
HELP: Final = "print what a pcap or pcapng says, one line a message"
__all__ = ["HELP", "NAME", "add_arguments", "main", "run"]

_PROGRESS_BYTES_MIN: Final = 32 << 20
_PROGRESS_INTERVAL_S: Final = 0.5
_BUFFER_BYTES: Final = 1 << 20
# So many messages of which a part is missing are worth a word about captures that are samples.
_GAPS_MIN: Final = 10


class View(Protocol):
    """What is printed of a capture: each call gives lines, of text or of JSON."""

    def message(self, message: Message) -> Iterator[str]:
        """One message, in the order of the capture."""

    def other(self, other: Other) -> Iterator[str]:
        """One packet that holds no datagram."""

    def close(self) -> Iterator[str]:
        """The end of the capture."""


class LinesView:
    """The default view: a line a message that passes the filter."""

    def __init__(self, start_ns: int, passes: Filter, *, in_json: bool, with_entries: bool, is_filtered: bool) -> None:
        """``start_ns``: the time of the first packet."""
        self._start_ns = start_ns
        self._passes = passes
        self._in_json = in_json
        self._with_entries = with_entries
        self._is_filtered = is_filtered

    def message(self, message: Message) -> Iterator[str]:
        """Its line, and one an entry where asked for."""
        if not self._passes(message):
            return
        if self._in_json:
            yield json.dumps(as_json(message, self._start_ns, with_entries=self._with_entries))
            return
        yield line(message, self._start_ns)
        if self._with_entries:
            yield from entry_lines(message)

    def other(self, other: Other) -> Iterator[str]:
        """A line when it is malformed, and nothing is filtered: a packet without addresses passes no filter."""
        if not other.malformed or self._is_filtered:
            return
        when = other.time_ns - self._start_ns
        in_json: Json = {"number": other.number, "time_ns": when, "problem": other.kind}
        yield json.dumps(in_json) if self._in_json else other_line(other, self._start_ns)

    def close(self) -> Iterator[str]:
        """Nothing."""
        return iter(())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("file", metavar="FILE", nargs="?", help="a pcap or pcapng file; - reads standard input")
    parser.add_argument(
        "--live", metavar="IFACE", help="instead of a file: what passes this interface until Ctrl-C (Linux, root)"
    )
    view = parser.add_mutually_exclusive_group()
    view.add_argument("--pairs", action="store_true", help="each request with its answer and latency")
    view.add_argument("--raft", action="store_true", help="a timeline of elections, leaders, commits and truncations")
    view.add_argument("--mermaid", action="store_true", help="a Mermaid sequence diagram of the first messages")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--entries", action="store_true", help="list the log entries under APPEND and FORWARD")
    parser.add_argument(
        "--filter",
        action="append",
        type=_filter,
        default=argparse.SUPPRESS,
        metavar="KEY=VALUE",
        help="print only these; keys: type, kind, rid, term, member, policy, ip, port, problem. "
        "KEY!=VALUE and KEY=VALUE,VALUE too; of several all must hold",
    )
    parser.add_argument(
        "--count", type=_positive, default=argparse.SUPPRESS, metavar="N", help="stop after N lines or objects"
    )
    parser.add_argument(
        "--port",
        action="append",
        type=_port,
        default=argparse.SUPPRESS,
        metavar="PORT",
        help="read this UDP port as R2P2 whatever its first byte "
        "(default: 8000 and 9000; on other ports only what begins with 0xCC)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command on its own; the exit code."""
    parser = argparse.ArgumentParser(prog="r2p2 dissect", description=HELP)
    add_arguments(parser)
    return guard(lambda: run(parser.parse_args(argv)))


def run(args: argparse.Namespace) -> int:
    """Prints the capture to standard output; 0 when all of it was read."""
    if args.mermaid and args.json:
        raise UserError("--mermaid and --json exclude each other", "Leave one out.")
    if (args.file is None) == (args.live is None):
        raise UserError("dissect reads either FILE or --live IFACE", "r2p2 dissect --help")
    if args.live is not None:
        return _run_live(args)
    out = sys.stdout
    with ExitStack() as stack:
        try:
            stream = _open(args.file, stack)
        except OSError as error:
            raise UserError(f"{args.file}: {error.strerror}") from error
        reading = _Reading(args, _Progress(args.file, stream))
        try:
            for text in reading.output(records(stream)):
                out.write(text + "\n")
        except CaptureError as error:
            out.flush()
            raise UserError(f"{args.file}: {error}") from error
        finally:
            reading.progress.clear()
        out.flush()
        if note := reading.note():
            print(note, file=sys.stderr)
        if sys.stderr.isatty():
            print(reading.summary(), file=sys.stderr)
    return 0


def _run_live(args: argparse.Namespace) -> int:
    """Prints what passes an interface until SIGINT or SIGTERM, then what the view has at its end."""
    from r2p2.dissect.live import Live

    out = sys.stdout
    with Live(args.live) as live:
        reading = _Reading(args, _Progress("-", sys.stdin.buffer))
        before = {number: signal.signal(number, lambda *_: live.stop()) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            print(f"r2p2: reading {args.live}; Ctrl-C ends it", file=sys.stderr, flush=True)
            for text in reading.output(live.records(on_idle=out.flush)):
                out.write(text + "\n")
            out.flush()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    lost = f", {live.dropped_count} lost by the kernel" if live.dropped_count else ""
    print(f"r2p2: {reading.summary()}{lost}", file=sys.stderr)
    return 0


def _open(name: str, stack: ExitStack) -> BinaryIO:
    if name == "-":
        return sys.stdin.buffer
    return stack.enter_context(Path(name).open("rb", _BUFFER_BYTES))


class _Reading:
    """One pass over a capture."""

    def __init__(self, args: argparse.Namespace, progress: _Progress) -> None:
        given = vars(args)
        self.args = args
        self.count: int | None = given.get("count")
        self.passes = all_of(given.get("filter", []))
        self.progress = progress
        self.assembler = Assembler(frozenset(given.get("port", DEFAULT_PORTS)))
        self.packets_count = 0
        self.messages_count = 0
        self.incomplete_count = 0
        self.pairs: PairsView | None = None
        self.others: Counter[str] = Counter()

    def output(self, captured: Iterator[Record]) -> Iterator[str]:
        """What to print. A torn capture's complete part is printed, and closed, before CaptureError comes out."""
        left = self.count
        for item in self._all(captured):
            yield item
            if left is not None:
                left -= 1
                if left == 0:
                    return

    def _all(self, captured: Iterator[Record]) -> Iterator[str]:
        view: View | None = None
        torn: CaptureError | None = None
        while True:
            try:
                record = next(captured, None)
            except CaptureError as error:
                torn, record = error, None
            if record is None:
                break
            if view is None:
                view = self._view(record)
            yield from self._record(record, view)
        if view is not None:
            for message in self.assembler.close():
                self._count(message)
                yield from view.message(message)
            yield from view.close()
        if torn is not None:
            raise torn

    def _view(self, first: Record) -> View:
        is_filtered = "filter" in self.args
        if self.args.pairs:
            self.pairs = PairsView(first.time_ns, self.passes, in_json=self.args.json, is_filtered=is_filtered)
            return self.pairs
        if self.args.mermaid:
            return MermaidView(first.time_ns, self.passes)
        if self.args.raft:
            return TimelineView(first.time_ns, self.passes, in_json=self.args.json)
        return LinesView(
            first.time_ns,
            self.passes,
            in_json=self.args.json,
            with_entries=self.args.entries,
            is_filtered=is_filtered,
        )

    def _record(self, record: Record, view: View) -> Iterator[str]:
        self.packets_count += 1
        if not self.packets_count & 0xFFF:
            self.progress.show(self.packets_count)
        found = datagram(record)
        if isinstance(found, Datagram):
            for message in self.assembler.add(found):
                self._count(message)
                yield from view.message(message)
        else:
            self.others[found.kind] += 1
            yield from view.other(found)

    def _count(self, message: Message) -> None:
        self.messages_count += 1
        self.incomplete_count += message.problem is not None and message.problem.startswith("incomplete")

    def note(self) -> str:
        """What to make of many gaps; empty where there are few."""
        unanswered = self.pairs.unanswered_count if self.pairs is not None else 0
        if self.incomplete_count + unanswered < _GAPS_MIN:
            return ""
        return (
            f"r2p2: incomplete messages: {self.incomplete_count}, requests without an answer: {unanswered}; "
            "normal in a sample (r2p2 serve --pcap under load), losses in a full capture"
        )

    def summary(self) -> str:
        """What was read and what was passed over."""
        parts = [f"{self.packets_count} packets", f"{self.messages_count} messages"]
        if self.assembler.duplicates_count:
            parts.append(f"{self.assembler.duplicates_count} duplicate packets")
        if self.assembler.ignored_count:
            parts.append(f"{self.assembler.ignored_count} other datagrams")
        parts += [f"{count} {kind}" for kind, count in self.others.most_common()]
        return ", ".join(parts)


class _Progress:
    """A line on standard error while a large file is read on a terminal."""

    def __init__(self, name: str, stream: BinaryIO) -> None:
        self._stream = stream
        self._total = 0
        self._next = 0.0
        self._shown = False
        if name != "-" and sys.stderr.isatty() and not sys.stdout.isatty():
            self._total = os.fstat(stream.fileno()).st_size

    def show(self, packets_count: int) -> None:
        """Draws the line, at most twice a second."""
        if self._total < _PROGRESS_BYTES_MIN or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _PROGRESS_INTERVAL_S
        self._shown = True
        share = 100 * self._stream.tell() // self._total
        print(f"\r{share:3} % {packets_count:,} packets", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Takes the line away."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _filter(text: str) -> Filter:
    try:
        return parse(text)
    except FilterError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 < value < 65536:
        raise argparse.ArgumentTypeError(f"{value} is not a UDP port")
    return value
