"""Bit tables in the manner of RFCs, drawn from the layers: ``python -m scapy_layers.bit_tables`` prints docs/wire.md's.

Left to others: what the fields mean (docs/wire.md says it in words).
"""

from __future__ import annotations

import struct
import sys
from typing import Final

from scapy.fields import ConditionalField, Field, PacketListField, StrFixedLenField, _BitField
from scapy.packet import Packet

from scapy_layers.r2p2 import R2P2, R2P2Feedback, R2P2SessionExtension
from scapy_layers.raft import (
    COMMON_BYTES,
    KINDS,
    MESSAGES,
    RaftConfiguration,
    RaftConfigured,
    RaftEntry,
    RaftMember,
    RaftMessage,
)

__all__ = ["bit_tables", "table"]

ROW_BITS: Final = 32
BEGIN: Final = "<!-- bit tables: begin; made by python -m scapy_layers.bit_tables -->"
END: Final = "<!-- bit tables: end -->"


def _cells(layer: type[Packet], skip_bytes: int) -> list[tuple[str, int]]:
    """(name, bits) of each field behind the first ``skip_bytes``; 0 bits: as long as it likes, and then nothing."""
    cells: list[tuple[str, int]] = []
    at = 0
    for field in layer.fields_desc:
        name = field.name
        if isinstance(field, ConditionalField):
            name, field = f"{name}, in a timed entry", field.fld
        assert isinstance(field, Field)
        if isinstance(field, StrFixedLenField):
            bits = 8 * int(field.length_from(layer()))
        elif isinstance(field, _BitField):
            bits = int(field.size)
        elif isinstance(field, PacketListField) or getattr(field, "length_from", None) is not None:
            bits = 0
        else:
            bits = 8 * struct.calcsize(field.fmt)
        if at >= 8 * skip_bytes:
            cells.append((name, bits))
        at += bits
    return cells


def table(layer: type[Packet], skip_bytes: int = 0) -> str:
    """One layer, 32 bits a row; a field over several rows has its name in the first."""
    pieces: list[list[tuple[str, int]]] = [[]]
    used = 0
    for name, bits in _cells(layer, skip_bytes):
        if bits == 0:
            if used:  # the rest of the row is open
                used = 0
                pieces.append([])
            pieces[-1].append((f"{name} ...", ROW_BITS))
            pieces.append([])
            continue
        shown = name
        while bits:
            part = min(bits, ROW_BITS - used)
            pieces[-1].append((shown, part))
            shown = ""
            bits -= part
            used = (used + part) % ROW_BITS
            if used == 0:
                pieces.append([])
    rows = [row for row in pieces if row]
    ruler = "+-" * ROW_BITS + "+"
    lines = [" 0                   1                   2                   3", " " + " ".join("0123456789" * 3 + "01")]
    lines.append(ruler)
    for number, row in enumerate(rows):
        text = "|"
        for name, bits in row:
            width = 2 * bits - 1
            text += (name if len(name) <= width else name[: width - 1] + ".").center(width) + "|"
        lines.append(text)
        # A field that goes on has no line under it.
        following = rows[number + 1] if number + 1 < len(rows) else []
        goes_on = bool(following) and following[0][0] == ""
        filled = sum(bits for _, bits in row)
        if goes_on and following[0][1] == ROW_BITS and filled == ROW_BITS and len(row) == 1:
            lines.append("+" + " " * (2 * ROW_BITS - 1) + "+")
        else:
            lines.append(ruler)
    return "\n".join(lines)


def bit_tables() -> str:
    """All of them, between the marks of docs/wire.md."""
    parts: list[tuple[str, type[Packet], int]] = [
        ("R2P2 header", R2P2, 0),
        ("Session extension, behind the header of a first packet", R2P2SessionExtension, 0),
        ("FEEDBACK, behind the header", R2P2Feedback, 0),
        ("Common header of Raft messages", RaftMessage, 0),
        *((f"{KINDS[kind]}, behind the common header", layer, COMMON_BYTES) for kind, layer in MESSAGES.items()),
        ("Member in FORMED", RaftMember, 0),
        ("Entry", RaftEntry, 0),
        ("Configuration", RaftConfiguration, 0),
        ("Member in a configuration", RaftConfigured, 0),
    ]
    made = [BEGIN]
    for title, layer, skip_bytes in parts:
        if _cells(layer, skip_bytes):
            made += ["", f"{title}:", "", "```text", table(layer, skip_bytes), "```"]
    return "\n".join([*made, "", END]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(bit_tables())
