"""The Wireshark dissector: made from the layers, and reading the golden captures as they do, field by field."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from r2p2.craft import craft
from r2p2.dissect.captures import records
from r2p2.dissect.datagrams import Datagram, datagram
from scapy_layers import (
    R2P2,
    R2P2Feedback,
    R2P2SessionExtension,
    RaftConfiguration,
    RaftConfigured,
    RaftFormed,
    RaftInstallSnapshot,
    RaftInstallSnapshotReply,
    RaftMessage,
    Reassembler,
    body,
)
from scapy_layers.raft import MESSAGES
from scapy_layers.wireshark import lua

ROOT = Path(__file__).resolve().parent.parent.parent
PCAPS = ROOT / "pcaps"
SCRIPT = ROOT / "wireshark" / "r2p2.lua"

HEADER = ("magic", "header_size", "type", "policy", "flags", "rid", "p_order")
COMMON = ("version", "kind", "sender", "cluster_id", "incarnation", "term")
# Of all kinds together, each once.
OWN = list(
    dict.fromkeys(
        field.name
        for layer in MESSAGES.values()
        for field in layer.fields_desc[len(COMMON) :]
        if field.name not in ("reserved", "entries", "members")
    )
)
ENTRY = (
    "body_length",
    "client_ip",
    "client_port",
    "rid",
    "kind",
    "policy",
    "reserved",
    "flags",
    "flags.timed",
    "time_ms",
    "body",
)
FIELDS = [
    *(f"r2p2.{name}" for name in HEADER),
    "r2p2.flags.first",
    "r2p2.flags.last",
    "r2p2.problem",
    "r2p2.message_bytes",
    "r2p2.payload",
    *(f"r2p2.session.{name}" for name in ("client_id", "sequence", "oldest_pending")),
    *(f"r2p2.feedback.{name}" for name in ("rid", "client_port", "client_ip")),
    *(f"r2p2.raft.{name}" for name in (*COMMON, *OWN)),
    "r2p2.raft.formed.count",
    "r2p2.member.member",
    "r2p2.member.incarnation",
    *(f"r2p2.entry.{name}" for name in ENTRY),
]
TEXTS = {
    "r2p2.problem",
    "r2p2.payload",
    "r2p2.entry.body",
    "r2p2.entry.client_ip",
    "r2p2.feedback.client_ip",
    "r2p2.raft.configuration",
    "r2p2.raft.chunk",
}


def test_the_file_is_made_from_the_layers() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "scapy_layers.wireshark"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert made == lua()
    assert SCRIPT.read_text() == made, "run: python -m scapy_layers.wireshark > wireshark/r2p2.lua"


def read_by_tshark(capture: Path) -> list[dict[str, list[str]]]:
    """The values of every field in every frame; hexadecimal and truth values as plain numbers."""
    fields = [part for name in FIELDS for part in ("-e", name)]
    command = ["tshark", "-X", f"lua_script:{SCRIPT}", "-r", str(capture), "-T", "fields", "-E", "separator=|"]
    done = subprocess.run([*command, "-E", "occurrence=a", *fields], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr.lower(), done.stderr

    def plain(name: str, value: str) -> str:
        if name in TEXTS or not value:
            return value
        return str(int({"True": "1", "False": "0"}.get(value, value), 0))

    found = []
    for line in done.stdout.split("\n")[:-1]:
        cells = dict(zip(FIELDS, line.split("|"), strict=True))
        found.append({name: [plain(name, one) for one in cell.split(",")] for name, cell in cells.items() if cell})
    return found


def put(values: dict[str, list[str]], name: str, value: Any) -> None:
    """Adds a value as tshark spells it; of empty bytes it says nothing."""
    text = value.hex() if isinstance(value, bytes) else str(value if isinstance(value, str) else int(value))
    if text:
        values.setdefault(name, []).append(text)


def read_by_layers(packet: Packet, reassembler: Reassembler) -> dict[str, list[str]]:
    """The same from the Scapy layers."""
    values: dict[str, list[str]] = {}
    header = packet[R2P2]
    for name in HEADER:
        put(values, f"r2p2.{name}", header.getfieldval(name))
    put(values, "r2p2.flags.first", int(header.flags) >> 7)
    put(values, "r2p2.flags.last", int(header.flags) >> 6 & 1)
    problem = header.problem()
    if problem:
        put(values, "r2p2.problem", problem)
        return values
    if isinstance(header.extension, R2P2SessionExtension):
        for name in ("client_id", "sequence", "oldest_pending"):
            put(values, f"r2p2.session.{name}", header.extension.getfieldval(name))
    whole = reassembler.add(packet)
    if whole is None:
        return values
    message = whole[R2P2].payload
    put(values, "r2p2.message_bytes", len(body(whole[R2P2])))
    if isinstance(message, R2P2Feedback):
        for name in ("rid", "client_port", "client_ip"):
            put(values, f"r2p2.feedback.{name}", message.getfieldval(name))
    elif isinstance(message, RaftMessage):
        raft_values(values, message)
    elif whole[R2P2].type < 5:
        put(values, "r2p2.payload", body(whole[R2P2]))
    return values


def raft_values(values: dict[str, list[str]], message: RaftMessage) -> None:
    """The fields of a Raft message, its entries and members."""
    for name in (*COMMON, *OWN):
        if name in {field.name for field in message.fields_desc}:
            formed = isinstance(message, RaftFormed) and name == "count"
            put(values, "r2p2.raft.formed.count" if formed else f"r2p2.raft.{name}", message.getfieldval(name))
    for entry in getattr(message, "entries", []):
        for name in ENTRY:
            if name == "flags.timed":
                put(values, f"r2p2.entry.{name}", int(entry.flags) & 1)
            elif name != "time_ms" or entry.time_bytes:
                value = entry.getfieldval(name)
                put(values, f"r2p2.entry.{name}", int(value) if name == "flags" else value)
    for member in getattr(message, "members", []):
        put(values, "r2p2.member.member", member.member)
        put(values, "r2p2.member.incarnation", member.incarnation)


def compare(capture: Path) -> int:
    """Holds both readings of a capture together; the number of R2P2 packets compared."""
    with capture.open("rb") as stream:
        captured = list(records(stream))
    found = read_by_tshark(capture)
    assert len(found) == len(captured)
    reassembler, compared = Reassembler(), 0
    for record, values in zip(captured, found, strict=True):
        one = datagram(record)
        if not isinstance(one, Datagram):
            continue  # broken below R2P2: each tool has its own idea how far to read on
        packet = Ether(record.data)
        if R2P2 not in packet:
            # Too short for the layer, or of a port that only the heuristic looks at; nobody dissects an empty datagram.
            known = one.payload and {8000, 9000} & {one.source_port, one.target_port}
            assert values.get("r2p2.problem") == (["short"] if known else None), record.number
            continue
        assert values == read_by_layers(packet, reassembler), record.number
        compared += 1
    return compared


@pytest.mark.needs("tshark")
@pytest.mark.parametrize("path", sorted(PCAPS.glob("*.pcap")), ids=lambda path: str(path.stem))
def test_tshark_and_the_layers_agree_on_the_golden_captures(path: Path) -> None:
    # In these two nothing is R2P2.
    assert (compare(path) == 0) == (path.stem.partition("-")[0] in ("arp", "ping"))


@pytest.mark.needs("tshark")
def test_tshark_and_the_layers_agree_on_what_the_golden_captures_lack(tmp_path: Path) -> None:
    path = tmp_path / "more.pcap"
    to_server = Ether() / IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=30000, dport=8000)
    session = R2P2SessionExtension(client_id=2**63 + 1, sequence=2**40, oldest_pending=7)
    parts = [
        to_server / R2P2(rid=1, policy=2, extension=session) / Raw(b"set"),
        Ether() / IP() / UDP(sport=8000, dport=9000) / R2P2() / R2P2Feedback(rid=9, client_port=5, client_ip="1.2.3.4"),
        Ether() / IP() / UDP(sport=40000, dport=7777) / R2P2(rid=3) / Raw(b"another port"),
        Ether() / IP() / UDP(sport=40000, dport=7777) / Raw(b"\xcc but not ours"),
        to_server / R2P2(rid=4) / Raw(bytes(1465)),
        to_server / R2P2(rid=5, type="ACK") / Raw(b"NAK"),
        to_server / R2P2(rid=6, flags="FIRST", p_order=2) / Raw(b"fifteen bytes.."),
    ]
    wrpcap(str(path), [Ether(bytes(part)) for part in parts])
    found = read_by_tshark(path)
    assert [values.get("r2p2.problem") for values in found[4:]] == [["oversize"], ["payload"], ["payload"]]
    assert found[2]["r2p2.payload"] == [b"another port".hex()]
    assert found[3] == {}
    reassembler = Reassembler()
    for index in (0, 1, 4, 5, 6):
        assert found[index] == read_by_layers(Ether(bytes(parts[index])), reassembler), index


@pytest.mark.needs("tshark")
def test_tshark_and_the_layers_agree_on_reads_and_transfers(tmp_path: Path) -> None:
    path = tmp_path / "crafted.pcap"
    path.write_bytes(
        craft(
            """
            member a 10.0.0.1
            member b 10.0.0.2
            cluster term=7
            raft READ_INDEX b > a context=0xFFFFFFFFFFFFFFFF
            raft READ_INDEX_REPLY a > b context=0xFFFFFFFFFFFFFFFF index=9 granted=1
            raft READ_INDEX_REPLY a > b context=1
            raft TIMEOUT_NOW a > b
            raft VOTE_TRANSFER b > a term=8 last_index=9 last_term=7
            """
        )
    )
    assert compare(path) == 5
    found = read_by_tshark(path)
    assert [values["r2p2.raft.kind"] for values in found] == [["10"], ["11"], ["11"], ["12"], ["13"]]
    assert found[0]["r2p2.raft.context"] == [str(2**64 - 1)]
    assert found[1]["r2p2.raft.index"] == ["9"]


@pytest.mark.needs("tshark")
def test_tshark_and_the_layers_agree_on_snapshots(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.pcap"
    configuration = bytes(RaftConfiguration(members=[RaftConfigured(slot=1, port=8000, ip="10.0.0.1")]))
    first = RaftInstallSnapshot(index=9, index_term=7, total_bytes=9, chunk=b"abcd", configuration=configuration)
    messages = [
        first,
        RaftInstallSnapshot(index=9, index_term=7, total_bytes=9, offset=4, chunk=b"efghi"),
        RaftInstallSnapshotReply(index=9, offset=9, installed=1, applied_index=9),
    ]
    frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src="10.0.0.1", dst="10.0.0.2")
    wrpcap(str(path), [frame / UDP(sport=8000, dport=8000) / R2P2(rid=7) / message for message in messages])
    assert compare(path) == 3
