"""Makes the Wireshark dissector from the layers: ``python -m scapy_layers.wireshark > wireshark/r2p2.lua``.

What: names, sizes, order and value names of every field come from ``fields_desc``, so Wireshark and Scapy cannot drift
apart; what a table cannot say (which packets make a message, what is malformed, the text of the info column) is the Lua
below. A test makes the file anew and compares, and another one compares what tshark reads from the golden captures with
what the layers read.
"""

from __future__ import annotations

import struct
import sys
from typing import Any, Final

from scapy.fields import (
    ConditionalField,
    Field,
    FlagsField,
    IPField,
    PacketListField,
    StrFixedLenField,
    StrLenField,
    XIntField,
    XLongField,
    XShortField,
)
from scapy.packet import Packet

from scapy_layers.r2p2 import (
    FEEDBACK_PORT,
    FIRST_PAYLOAD_BYTES,
    PACKETS_MAX,
    PAYLOAD_BYTES_MAX,
    POLICIES,
    PORT,
    R2P2,
    TYPES,
    R2P2Feedback,
    R2P2SessionExtension,
)
from scapy_layers.raft import (
    COMMON_BYTES,
    KINDS,
    MESSAGES,
    TIME_BYTES,
    RaftEntry,
    RaftInstallSnapshot,
    RaftMember,
    RaftMessage,
)

_SIZES: Final = {1: "uint8", 2: "uint16", 4: "uint32", 8: "uint64"}

_HEAD: Final = """\
-- R2P2 and its Raft messages for Wireshark and tshark.
-- Generated from the Scapy layers by `python -m scapy_layers.wireshark`; change those, not this.
-- Use: wireshark -X lua_script:wireshark/r2p2.lua, or copy it into the personal plugin folder.

local r2p2 = Proto("r2p2", "R2P2")
local F = {}
"""

_BODY: Final = """\
F["r2p2.problem"] = ProtoField.string("r2p2.problem", "problem")
F["r2p2.payload"] = ProtoField.bytes("r2p2.payload", "payload")
F["r2p2.message_bytes"] = ProtoField.uint32("r2p2.message_bytes", "bytes of the whole message")
local all = {}
for _, field in pairs(F) do all[#all + 1] = field end
r2p2.fields = all

local FIRST, LAST = 0x80, 0x40
local halves, halves_count, whole = {}, 0, {}

function r2p2.init()
  halves, halves_count, whole = {}, 0, {}
end

-- Adds the fields of a table; returns the offset after them, or nil where the bytes end before.
local function add(tree, fields, tvb, at)
  for _, field in ipairs(fields) do
    if at + field[2] > tvb:len() then return nil end
    for key = 3, #field do tree:add(F[field[key]], tvb(at, field[2])) end
    tree:add(F[field[1]], tvb(at, field[2]))
    at = at + field[2]
  end
  return at
end

local function add_entries(tree, tvb, at)
  while at + ENTRY_BYTES <= tvb:len() do
    local body = tvb(at, 4):uint()
    local padded = body + (8 - body % 8) % 8
    if at + ENTRY_BYTES + padded > tvb:len() then return end
    local entry = tree:add(r2p2, tvb(at, ENTRY_BYTES + padded), "entry")
    local timed = tvb(at + ENTRY_BYTES - 1, 1):uint() % 2 == 1 and body >= TIME_BYTES
    at = add(entry, ENTRY, tvb, at)
    local after = at + padded
    if timed then
      entry:add(F["r2p2.entry.time_ms"], tvb(at, TIME_BYTES))
      at, body = at + TIME_BYTES, body - TIME_BYTES
    end
    if body > 0 then entry:add(F["r2p2.entry.body"], tvb(at, body)) end
    at = after
  end
end

local function add_raft(tree, tvb, pinfo)
  if tvb:len() < COMMON_BYTES then return end
  local kind = KINDS[tvb(1, 1):uint()] or { name = "kind " .. tvb(1, 1):uint(), fields = {} }
  local raft = tree:add(r2p2, tvb(), "Raft " .. kind.name)
  local at = add(raft, COMMON, tvb, 0)
  pinfo.cols.info:append(string.format(" %s member %d term %s", kind.name, tvb(2, 2):uint(),
    tostring(tvb(16, 8):uint64())))
  at = add(raft, kind.fields, tvb, at)
  if not at then return end
  if kind.tail == "entries" then add_entries(raft, tvb, at) end
  if kind.tail == "snapshot" then
    local chunk, configuration = tvb(at - 8, 4):uint(), tvb(at - 4, 4):uint()
    if at + configuration + chunk > tvb:len() then return end
    if configuration > 0 then raft:add(F["r2p2.raft.configuration"], tvb(at, configuration)) end
    if chunk > 0 then raft:add(F["r2p2.raft.chunk"], tvb(at + configuration, chunk)) end
  end
  while kind.tail == "members" and at + MEMBER_BYTES <= tvb:len() do
    at = add(raft:add(r2p2, tvb(at, MEMBER_BYTES), "member"), MEMBER, tvb, at)
  end
end

local function add_message(tree, tvb, pinfo, kind)
  tree:add(F["r2p2.message_bytes"], tvb:len()):set_generated()
  if tvb:len() == 0 then return end
  if kind >= 5 then return add_raft(tree, tvb, pinfo) end
  if kind == 2 then return add(tree, FEEDBACK, tvb, 0) end
  tree:add(F["r2p2.payload"], tvb())
end

-- What is wrong with a packet, in the order and the words of the layers; nil when nothing is.
local function problem_of(tvb)
  local size, flags, order = tvb(1, 1):uint(), tvb(3, 1):uint(), tvb(6, 2):uint()
  local kind, policy = tvb(2, 1):bitfield(0, 4), tvb(2, 1):bitfield(4, 4)
  local first, last = flags >= FIRST, flags % FIRST >= LAST
  if tvb(0, 1):uint() ~= 0xCC then return "magic" end
  if kind == 2 then return tvb:len() ~= 16 and "payload" or nil end
  if size < 8 or size > tvb:len() then return "size" end
  if kind > 7 then return "type" end
  if policy > 3 then return "policy" end
  if flags % LAST ~= 0 then return "flags" end
  if order == 0 or order > PACKETS_MAX or (not first and order == PACKETS_MAX) then return "order" end
  if first and (order == 1) ~= last then return "flags" end
  local length = tvb:len() - size
  if length > PAYLOAD_BYTES_MAX - (size - 8) then return "oversize" end
  local load = length > 0 and tvb(size):string() or ""
  if kind == 3 and load ~= "ACK" or kind == 4 and load ~= "DROP" and
      not (size == 32 and (load == "" or load == "SESSION_EXPIRED")) then return "payload" end
  if kind == 0 and first and not last and length ~= FIRST_PAYLOAD_BYTES then return "payload" end
  return nil
end

-- Remembers a part when it is seen first; the whole message belongs to the frame that completes it.
local function assemble(tvb, pinfo, size, kind, flags)
  local key = string.format("%s:%d %d %d", tostring(pinfo.src), pinfo.src_port, kind, tvb(4, 2):uint())
  if kind ~= 0 then key = string.format("%s %s:%d", key, tostring(pinfo.dst), pinfo.dst_port) end
  local half = halves[key]
  if not half then
    if halves_count >= 4096 then halves, halves_count = {}, 0 end
    half = { parts = {} }
    halves[key], halves_count = half, halves_count + 1
  end
  local order = tvb(6, 2):uint()
  local part = tvb:len() > size and tvb(size):bytes() or ByteArray.new()
  if flags >= FIRST then
    -- Begun again under the same number: what was there is of another message.
    if half.count and (half.count ~= order or half.parts[0] ~= part) then half.parts = {} end
    half.count, order = order, 0
  end
  half.parts[order] = part
  if not half.count then return end
  local bytes = ByteArray.new()
  for index = 0, half.count - 1 do
    if not half.parts[index] then return end
    bytes = bytes .. half.parts[index]
  end
  halves[key], halves_count = nil, halves_count - 1
  whole[pinfo.number] = bytes
end

function r2p2.dissector(tvb, pinfo, root)
  pinfo.cols.protocol = "R2P2"
  if tvb:len() < 8 then
    root:add(r2p2, tvb()):add(F["r2p2.problem"], "short"):set_generated()
    pinfo.cols.info = "malformed (short)"
    return tvb:len()
  end
  local tree = root:add(r2p2, tvb())
  add(tree, HEADER, tvb, 0)
  local size, kind, flags = tvb(1, 1):uint(), tvb(2, 1):bitfield(0, 4), tvb(3, 1):uint()
  local problem = problem_of(tvb)
  pinfo.cols.info = string.format("%s rid %d", TYPES[kind] or "type " .. kind, tvb(4, 2):uint())
  if problem then
    tree:add(F["r2p2.problem"], problem):set_generated()
    pinfo.cols.info:append(" malformed (" .. problem .. ")")
    return tvb:len()
  end
  if kind == 0 then pinfo.cols.info:append(" " .. POLICIES[tvb(2, 1):bitfield(4, 4)]) end
  if kind == 2 then size, flags = 8, FIRST + LAST end
  if size == 32 then add(tree, SESSION, tvb, 8) end
  if flags == FIRST + LAST then
    local body = tvb:len() > size and tvb(size):tvb() or ByteArray.new():tvb("empty")
    add_message(tree, body, pinfo, kind)
    return tvb:len()
  end
  pinfo.cols.info:append(string.format(flags >= FIRST and " first of %d" or " packet %d", tvb(6, 2):uint()))
  if not pinfo.visited then assemble(tvb, pinfo, size, kind, flags) end
  if whole[pinfo.number] then add_message(tree, whole[pinfo.number]:tvb("R2P2 message"), pinfo, kind) end
  return tvb:len()
end

for _, port in ipairs({ PORT, FEEDBACK_PORT }) do DissectorTable.get("udp.port"):add(port, r2p2) end
-- On any other port what cannot be anything else by its first bytes.
r2p2:register_heuristic("udp", function(tvb, pinfo, root)
  if tvb:len() < 8 or tvb(0, 1):uint() ~= 0xCC or problem_of(tvb) then return false end
  r2p2.dissector(tvb, pinfo, root)
  return true
end)
"""


def _quoted(values: dict[int, str]) -> str:
    return "{ " + ", ".join(f'[{number}] = "{name}"' for number, name in sorted(values.items())) + " }"


class _Writer:
    """Collects the ProtoFields, each once, and the tables that name them."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.tables: list[str] = []

    def declare(self, key: str, kind: str, *arguments: str, other: str = "") -> str:
        """The field ``key``, or ``other`` where another kind of message has a different field of that name."""
        text = ", ".join([f'"{key}"', f'"{key.rpartition(".")[2]}"', *arguments])
        made = f"ProtoField.{kind}({text})"
        if self.fields.setdefault(key, made) != made:
            if other:
                return self.declare(other, kind, *arguments)
            raise ValueError(f"{key} is {self.fields[key]} and {made}")
        return key

    def rows(self, layer: type[Packet], prefix: str, skip: int = 0, own: str = "") -> list[str]:
        """The fixed fields of a layer as Lua rows {key, bytes, further keys}, without its first ``skip``.

        ``own`` is the prefix for names that mean something else elsewhere.
        """
        made: list[str] = []
        half: list[tuple[str, dict[int, str]]] = []
        for field in layer.fields_desc[skip:]:
            if isinstance(field, PacketListField | ConditionalField) or (
                getattr(field, "length_from", None) is not None and not isinstance(field, StrFixedLenField)
            ):
                break
            assert isinstance(field, Field)
            key = f"{prefix}.{field.name}"
            bits = getattr(field, "size", 0)
            if isinstance(field, FlagsField):
                # The lowest bit comes first in the names.
                more = [
                    self.declare(f"{key}.{name.lower()}", "bool", "8", "nil", hex(1 << bit))
                    for bit, name in enumerate(field.names)
                    if not name.startswith("bit")
                ]
                made.append(_row([self.declare(key, "uint8", "base.HEX"), *more], 1))
            elif bits and bits < 8:
                half.append((key, dict(getattr(field, "i2s", {}))))
                if len(half) == 2:
                    masks = ("0xf0", "0x0f")
                    keys = [
                        self.declare(name, "uint8", "base.DEC", _quoted(values), mask)
                        for (name, values), mask in zip(half, masks, strict=True)
                    ]
                    made.append(_row(keys, 1))
                    half = []
            else:
                other = f"{own}.{field.name}" if own else ""
                made.append(_row([self._plain(key, field, other)], _size(layer, field)))
        return made

    def _plain(self, key: str, field: Field[Any, Any], other: str) -> str:
        if isinstance(field, IPField):
            return self.declare(key, "ipv4")
        if isinstance(field, StrFixedLenField | StrLenField):
            return self.declare(key, "bytes")
        names = getattr(field, "i2s", None)
        is_hex = isinstance(field, XIntField | XLongField | XShortField) or type(field).__name__ == "XByteField"
        base = "base.HEX" if is_hex else "base.DEC"
        kind = _SIZES[struct.calcsize(field.fmt)]
        return self.declare(key, kind, base, *([_quoted(dict(names))] if names else []), other=other)

    def table(self, name: str, rows: list[str]) -> None:
        """A Lua table of rows."""
        self.tables.append(f"local {name} = {{ {', '.join(rows)} }}")


def _row(keys: list[str], size: int) -> str:
    first, *more = keys
    return "{ " + ", ".join([f'"{first}"', str(size), *(f'"{key}"' for key in more)]) + " }"


def _size(layer: type[Packet], field: Field[Any, Any]) -> int:
    if isinstance(field, StrFixedLenField):
        return int(field.length_from(layer()))
    return struct.calcsize(field.fmt)


def lua() -> str:
    """The whole file."""
    writer = _Writer()
    common = len(RaftMessage.fields_desc)
    writer.table("HEADER", writer.rows(R2P2, "r2p2"))
    writer.table("SESSION", writer.rows(R2P2SessionExtension, "r2p2.session"))
    writer.table("FEEDBACK", writer.rows(R2P2Feedback, "r2p2.feedback"))
    writer.table("COMMON", writer.rows(RaftMessage, "r2p2.raft"))
    writer.table("ENTRY", writer.rows(RaftEntry, "r2p2.entry"))
    writer.declare("r2p2.entry.time_ms", "uint64", "base.DEC")
    writer.declare("r2p2.entry.body", "bytes")
    writer.table("MEMBER", writer.rows(RaftMember, "r2p2.member"))
    kinds = []
    for number, layer in MESSAGES.items():
        rows = writer.rows(layer, "r2p2.raft", common, f"r2p2.raft.{KINDS[number].lower()}")
        last = layer.fields_desc[-1]
        tail = f', tail = "{last.name}"' if isinstance(last, PacketListField) else ""
        if layer is RaftInstallSnapshot:
            tail = ', tail = "snapshot"'
            writer.declare("r2p2.raft.configuration", "bytes")
            writer.declare("r2p2.raft.chunk", "bytes")
        kinds.append(f'  [{number}] = {{ name = "{KINDS[number]}", fields = {{ {", ".join(rows)} }}{tail} }},')
    numbers = {
        "PORT": PORT,
        "FEEDBACK_PORT": FEEDBACK_PORT,
        "PACKETS_MAX": PACKETS_MAX,
        "PAYLOAD_BYTES_MAX": PAYLOAD_BYTES_MAX,
        "FIRST_PAYLOAD_BYTES": FIRST_PAYLOAD_BYTES,
        "COMMON_BYTES": COMMON_BYTES,
        "ENTRY_BYTES": len(bytes(RaftEntry())),
        "TIME_BYTES": TIME_BYTES,
        "MEMBER_BYTES": len(bytes(RaftMember())),
    }
    return "\n".join(
        [
            _HEAD + "\n".join(f'F["{key}"] = {made}' for key, made in writer.fields.items()),
            "\n".join(f"local {name} = {value}" for name, value in numbers.items()),
            f"local TYPES = {_quoted(TYPES)}",
            f"local POLICIES = {_quoted(POLICIES)}",
            *writer.tables,
            "local KINDS = {",
            *kinds,
            "}",
            _BODY,
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(lua())
