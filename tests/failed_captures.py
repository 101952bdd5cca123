"""The last packets of a test, kept for the case that it fails.

What: an in-memory cluster gives its nodes' datagrams to a :class:`LastPackets` as it runs; when the test fails
:func:`attach` writes them to ``out/failed/<test>.pcap`` and names the file in the report. ``r2p2 dissect`` reads it.
Time 0 of the capture is the virtual clock's.

The engine's capture holds 1 MiB between two polls, so a test that moves more at once has holes in its capture.
"""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path
from typing import Final

import pytest

from r2p2.capture import PcapWriter
from r2p2.engine import CapturedDatagram, Engine
from r2p2.limits import DATAGRAM_BYTES_MAX

PACKETS_MAX: Final = 10_000
FOLDER: Final = Path("out") / "failed"
# Of the test that runs; emptied when the next one begins.
_kept: list[LastPackets] = []


class LastPackets:
    """The last datagrams of one network, in the order of its clock."""

    def __init__(self) -> None:
        """Of the test that runs now."""
        self._packets: deque[CapturedDatagram] = deque(maxlen=PACKETS_MAX)
        _kept.append(self)

    def watch(self, engine: Engine) -> None:
        """Captures everything the engine sends and receives from now on."""
        engine.capture_start(1_000_000_000, DATAGRAM_BYTES_MAX)

    def take(self, engine: Engine, ip: int, members: set[int]) -> None:
        """Takes over what ``engine`` at ``ip`` captured; of a packet that two members saw, the sender's copy."""
        for one in engine.capture_take()[0]:
            if one.source_ip == ip or one.source_ip not in members:
                self._packets.append(one)

    def write(self, path: Path) -> int:
        """Writes the capture; the number of packets in it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with PcapWriter(path) as writer:
            for one in sorted(self._packets, key=lambda one: one.time_ns):
                ends = (one.source_ip, one.source_port, one.target_ip, one.target_port)
                writer.write(one.time_ns, *ends, one.payload)
        return writer.packets_count

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._packets)


def forget() -> None:
    """A test begins: what was kept belongs to others."""
    _kept.clear()


def attach(item: pytest.Item, report: pytest.TestReport) -> None:
    """Writes the captures of a test that failed, and says where."""
    if not report.failed or report.when != "call":
        return
    name = re.sub(r"[^\w.-]+", "_", item.nodeid.partition("tests/")[2] or item.nodeid).strip("_")[-150:]
    told = []
    for number, kept in enumerate(one for one in _kept if len(one)):
        path = item.config.rootpath / FOLDER / f"{name}{f'-{number}' if number else ''}.pcap"
        count = kept.write(path)
        told.append(f"{path.relative_to(item.config.rootpath)}: the last {count} packets; r2p2 dissect reads it")
    if told:
        report.sections.append(("capture", "\n".join(told)))
