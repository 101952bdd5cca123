"""docs/wire.md against the code: each row of its tables is a field of the layers at that offset, and vice versa.

The document is what people implement from, so a change of the wire that forgets it, or the other way round, fails here.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from scapy.fields import ConditionalField, Field, PacketListField, StrFixedLenField, _BitField
from scapy.packet import Packet

from r2p2.dissect import wire
from scapy_layers import (
    R2P2,
    R2P2SessionExtension,
    RaftConfiguration,
    RaftConfigured,
    RaftEntry,
    RaftMember,
    RaftMessage,
    bit_tables,
)
from scapy_layers import r2p2 as layers
from scapy_layers.raft import COMMON_BYTES, ENTRY_KINDS, KINDS, MESSAGES, R2P2_TYPES

TEXT = (Path(__file__).resolve().parent.parent.parent / "docs" / "wire.md").read_text()
Row = tuple[int, int, str]


def section(title: str) -> str:
    """The text under a heading, to the next heading."""
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/wire.md has no section {title!r}"
    return found[1]


def table(title: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    rows = []
    for line in section(title).splitlines():
        if line.startswith("|"):
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            rows.append(cells)
        elif rows:
            break
    return rows[2:]


def documented(title: str) -> list[Row]:
    """(offset, size, field) of a table of bytes."""
    return [(int(row[0]), int(row[1]), row[2]) for row in table(title)]


def size_of(field: object) -> int:
    """Bits of a field with a fixed size."""
    if isinstance(field, _BitField):
        return int(field.size)
    if isinstance(field, StrFixedLenField):
        return 8 * int(field.length_from(RaftMessage()))
    assert isinstance(field, Field)
    return 8 * struct.calcsize(field.fmt)


def laid_out(layer: type[Packet]) -> list[Row]:
    """(offset, size, field) of the fixed fields of a layer; what has no fixed size ends it. Half bytes share a row."""
    rows: list[Row] = []
    bits = 0
    pending: list[str] = []
    for field in layer.fields_desc:
        is_fixed = isinstance(field, StrFixedLenField) or getattr(field, "length_from", None) is None
        if not is_fixed or isinstance(field, PacketListField | ConditionalField):
            break
        size = size_of(field)
        pending.append(str(getattr(field, "name", "")))
        bits += size
        if bits % 8 == 0:
            first = (bits - (size if size % 8 == 0 else 8)) // 8
            rows.append((first, bits // 8 - first, " << 4 | ".join(pending)))
            pending = []
    return rows


def test_the_r2p2_header() -> None:
    assert documented("R2P2 header") == laid_out(R2P2)


def test_the_common_header_of_raft_messages() -> None:
    assert documented("Raft messages") == laid_out(RaftMessage)
    assert sum(size for _, size, _ in documented("Raft messages")) == COMMON_BYTES == wire.COMMON.size


def test_the_entry() -> None:
    assert documented("Entries") == laid_out(RaftEntry)
    assert sum(size for _, size, _ in documented("Entries")) == wire.ENTRY.size == 16


def test_configurations() -> None:
    assert documented("Configurations") == laid_out(RaftConfiguration)
    second = section("Configurations").split("A member of a configuration:")[1]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in second.splitlines() if line.startswith("|")]
    assert [(int(row[0]), int(row[1]), row[2]) for row in rows[2:]] == laid_out(RaftConfigured)


def test_the_bit_tables_are_made_from_the_layers() -> None:
    begin, end = TEXT.index(bit_tables.BEGIN), TEXT.index(bit_tables.END)
    made = bit_tables.bit_tables()
    again = "run python -m scapy_layers.bit_tables and put what it prints into docs/wire.md"
    assert TEXT[begin : end + len(bit_tables.END)] + "\n" == made, again
    for rows in re.findall(r"```text\n(.*?)```", made, re.DOTALL):
        assert {len(row) for row in rows.splitlines()[2:]} == {65}


def test_what_c_asserts_of_its_structs_is_what_the_layers_say() -> None:
    """Offsets and sizes are asserted by the compiler; here each assertion is held to the layer."""
    header = (Path(__file__).resolve().parent.parent.parent / "r2p2" / "csrc" / "r2p2_wire.h").read_text()
    offsets = re.findall(r"_Static_assert\(offsetof\(struct r2p2_wire_header, (\w+)\) == (\d+)", header)
    assert len(offsets) == 2
    where = {name: offset for offset, _, name in laid_out(R2P2)}
    assert {name: int(offset) for name, offset in offsets} == {name: where[name] for name, _ in offsets}
    for struct_name, constant, layer in (
        ("struct r2p2_wire_header", "R2P2_HEADER_BYTES", R2P2),
        ("r2p2_session_extension", "R2P2_SESSION_BYTES", R2P2SessionExtension),
    ):
        assert f"_Static_assert(sizeof({struct_name}) == {constant}," in header
        assert lib_constant(constant) == sum(size for _, size, _ in laid_out(layer))
    assert lib_constant("R2P2_ENTRY_HEADER_BYTES") == sum(size for _, size, _ in laid_out(RaftEntry))


def lib_constant(name: str) -> int:
    """A #define of the C limits."""
    limits = (Path(__file__).resolve().parent.parent.parent / "r2p2" / "csrc" / "r2p2_limits.h").read_text()
    found = re.search(rf"^#define {name} (\d+)$", limits, re.MULTILINE)
    assert found is not None, name
    return int(found[1])


def kinds() -> list[list[str]]:
    """The rows of the table of kinds: number, name, R2P2 type, fields."""
    rows = [line for line in section("Raft messages").split("Then, by kind:")[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows[2:]]


def fields_of(text: str) -> list[tuple[str, int]]:
    """(name, bytes) of each field in a list like "round u64, accepted u8 (0 or 1), reserved 7 bytes, then ..."."""
    found = []
    text = re.sub(r"\([^()]*\)", "", text)
    # "as KIND; why" has the fields of that kind, and a colon begins an explanation, but for that of a repeated group.
    if match := re.match(r"as (\w+);", text):
        return fields_of({row[1]: row[3] for row in kinds()}[match[1]])
    if "count times:" not in text:
        text = text.partition(":")[0]
    if text == "nothing":
        return []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(?:(\w+) u(8|16|32|64)|(reserved) (\d+) bytes|then .*)\s*", part)
        assert match is not None, f"docs/wire.md: cannot read the field {part!r}"
        if match[1]:
            found.append((match[1], int(match[2]) // 8))
        elif match[3]:
            found.append(("reserved", int(match[4])))
        else:
            break
    return found


def test_every_kind_is_documented() -> None:
    found = {int(row[0]): row[1] for row in kinds()}
    assert found == KINDS
    assert {number: kind.name for number, kind in wire.KINDS.items()} == found
    assert {int(row[0]): int(row[2]) for row in kinds()} == R2P2_TYPES
    assert {number: kind.type for number, kind in wire.KINDS.items()} == R2P2_TYPES


@pytest.mark.parametrize("row", kinds(), ids=lambda row: row[1])
def test_the_fields_of_each_kind(row: list[str]) -> None:
    text = row[3]
    layer = MESSAGES[int(row[0])]
    own = [(name, size) for offset, size, name in laid_out(layer) if offset >= COMMON_BYTES]
    assert own == fields_of(text)
    quick = wire.KINDS[int(row[0])]
    assert quick.fields == tuple(name for name, _ in own)
    assert quick.layout.size == sum(size for _, size in own)
    last = layer.fields_desc[-1]
    if "then the entries" in text:
        assert isinstance(last, PacketListField) and last.name == "entries"
    elif "count times:" in text:
        each = text.split("count times:")[1]
        assert fields_of(each) == [(name, size) for _, size, name in laid_out(RaftMember)]
    else:
        assert not isinstance(last, PacketListField)


def test_the_names_of_numbers() -> None:
    header = {row[2]: row[3] for row in table("R2P2 header")}
    types, policies = header["type << 4 | policy"].split("; policy:")
    assert {int(number): name for name, number in re.findall(r"([A-Z_]+) (\d)", types)} == layers.TYPES
    assert {int(number): name for name, number in re.findall(r"([A-Z_]+) (\d)", policies)} == layers.POLICIES
    assert list(layers.TYPES.values()) == list(wire.TYPE_NAMES)
    assert list(layers.POLICIES.values()) == list(wire.POLICY_NAMES)
    assert int(header["magic"], 16) == layers.MAGIC == wire.MAGIC
    first, last = re.findall(r"(0x[0-9a-f]+) (?:FIRST|LAST)", header["flags"])
    assert (int(first, 16), int(last, 16)) == (layers.FIRST, layers.LAST) == (wire.FIRST, wire.LAST)
    kind = {row[2]: row[3] for row in table("Entries")}["kind"]
    assert [int(number) for number in re.findall(r"(\d) [A-Z]", kind)] == sorted(ENTRY_KINDS)
    assert len(wire.ENTRY_KINDS) == len(ENTRY_KINDS)


def test_the_limits() -> None:
    numbers = {int(text.replace(",", "")) for text in re.findall(r"\b\d[\d,]*\d\b", section("R2P2 header"))}
    request = layers.FIRST_PAYLOAD_BYTES + (layers.PACKETS_MAX - 1) * layers.PAYLOAD_BYTES_MAX
    other = layers.PACKETS_MAX * layers.PAYLOAD_BYTES_MAX
    assert {layers.PAYLOAD_BYTES_MAX, layers.FIRST_PAYLOAD_BYTES, layers.PACKETS_MAX, request, other} <= numbers
    quick = (wire.PAYLOAD_BYTES_MAX, wire.FIRST_PAYLOAD_BYTES, wire.PACKETS_MAX)
    assert quick == (layers.PAYLOAD_BYTES_MAX, layers.FIRST_PAYLOAD_BYTES, layers.PACKETS_MAX)


def test_the_example() -> None:
    request, answer = (bytes.fromhex(text) for text in re.findall(r"`(cc[0-9a-f ]+)`", section("R2P2 header")))
    assert R2P2(request).problem() is None
    assert R2P2(answer).answers(R2P2(request))
