-- R2P2 and its Raft messages for Wireshark and tshark.
-- Generated from the Scapy layers by `python -m scapy_layers.wireshark`; change those, not this.
-- Use: wireshark -X lua_script:wireshark/r2p2.lua, or copy it into the personal plugin folder.

local r2p2 = Proto("r2p2", "R2P2")
local F = {}
F["r2p2.magic"] = ProtoField.uint8("r2p2.magic", "magic", base.HEX)
F["r2p2.header_size"] = ProtoField.uint8("r2p2.header_size", "header_size", base.DEC)
F["r2p2.type"] = ProtoField.uint8("r2p2.type", "type", base.DEC, { [0] = "REQUEST", [1] = "RESPONSE", [2] = "FEEDBACK", [3] = "ACK", [4] = "DROP", [5] = "RAFT_REQ", [6] = "RAFT_REP", [7] = "RAFT_MSG" }, 0xf0)
F["r2p2.policy"] = ProtoField.uint8("r2p2.policy", "policy", base.DEC, { [0] = "LB_ROUTE", [1] = "FIXED_ROUTE", [2] = "REPLICATED_ROUTE", [3] = "REPLICATED_ROUTE_NO_SE" }, 0x0f)
F["r2p2.flags.last"] = ProtoField.bool("r2p2.flags.last", "last", 8, nil, 0x40)
F["r2p2.flags.first"] = ProtoField.bool("r2p2.flags.first", "first", 8, nil, 0x80)
F["r2p2.flags"] = ProtoField.uint8("r2p2.flags", "flags", base.HEX)
F["r2p2.rid"] = ProtoField.uint16("r2p2.rid", "rid", base.DEC)
F["r2p2.p_order"] = ProtoField.uint16("r2p2.p_order", "p_order", base.DEC)
F["r2p2.session.client_id"] = ProtoField.uint64("r2p2.session.client_id", "client_id", base.HEX)
F["r2p2.session.sequence"] = ProtoField.uint64("r2p2.session.sequence", "sequence", base.DEC)
F["r2p2.session.oldest_pending"] = ProtoField.uint64("r2p2.session.oldest_pending", "oldest_pending", base.DEC)
F["r2p2.feedback.rid"] = ProtoField.uint16("r2p2.feedback.rid", "rid", base.DEC)
F["r2p2.feedback.client_port"] = ProtoField.uint16("r2p2.feedback.client_port", "client_port", base.DEC)
F["r2p2.feedback.client_ip"] = ProtoField.ipv4("r2p2.feedback.client_ip", "client_ip")
F["r2p2.raft.version"] = ProtoField.uint8("r2p2.raft.version", "version", base.DEC)
F["r2p2.raft.kind"] = ProtoField.uint8("r2p2.raft.kind", "kind", base.DEC, { [1] = "PRE_VOTE", [2] = "PRE_VOTE_REPLY", [3] = "VOTE", [4] = "VOTE_REPLY", [5] = "APPEND", [6] = "APPEND_REPLY", [7] = "FORWARD", [8] = "HELLO", [9] = "FORMED", [10] = "READ_INDEX", [11] = "READ_INDEX_REPLY", [12] = "TIMEOUT_NOW", [13] = "VOTE_TRANSFER", [14] = "INSTALL_SNAPSHOT", [15] = "INSTALL_SNAPSHOT_REPLY" })
F["r2p2.raft.sender"] = ProtoField.uint16("r2p2.raft.sender", "sender", base.DEC)
F["r2p2.raft.cluster_id"] = ProtoField.uint32("r2p2.raft.cluster_id", "cluster_id", base.HEX)
F["r2p2.raft.incarnation"] = ProtoField.uint64("r2p2.raft.incarnation", "incarnation", base.HEX)
F["r2p2.raft.term"] = ProtoField.uint64("r2p2.raft.term", "term", base.DEC)
F["r2p2.entry.body_length"] = ProtoField.uint32("r2p2.entry.body_length", "body_length", base.DEC)
F["r2p2.entry.client_ip"] = ProtoField.ipv4("r2p2.entry.client_ip", "client_ip")
F["r2p2.entry.client_port"] = ProtoField.uint16("r2p2.entry.client_port", "client_port", base.DEC)
F["r2p2.entry.rid"] = ProtoField.uint16("r2p2.entry.rid", "rid", base.DEC)
F["r2p2.entry.kind"] = ProtoField.uint8("r2p2.entry.kind", "kind", base.DEC, { [0] = "NOOP", [1] = "REQUEST", [2] = "REQUEST_SESSION", [3] = "CONFIG" })
F["r2p2.entry.policy"] = ProtoField.uint8("r2p2.entry.policy", "policy", base.DEC, { [0] = "LB_ROUTE", [1] = "FIXED_ROUTE", [2] = "REPLICATED_ROUTE", [3] = "REPLICATED_ROUTE_NO_SE" })
F["r2p2.entry.reserved"] = ProtoField.uint8("r2p2.entry.reserved", "reserved", base.DEC)
F["r2p2.entry.flags.timed"] = ProtoField.bool("r2p2.entry.flags.timed", "timed", 8, nil, 0x1)
F["r2p2.entry.flags"] = ProtoField.uint8("r2p2.entry.flags", "flags", base.HEX)
F["r2p2.entry.time_ms"] = ProtoField.uint64("r2p2.entry.time_ms", "time_ms", base.DEC)
F["r2p2.entry.body"] = ProtoField.bytes("r2p2.entry.body", "body")
F["r2p2.member.member"] = ProtoField.uint16("r2p2.member.member", "member", base.DEC)
F["r2p2.member.reserved"] = ProtoField.bytes("r2p2.member.reserved", "reserved")
F["r2p2.member.incarnation"] = ProtoField.uint64("r2p2.member.incarnation", "incarnation", base.HEX)
F["r2p2.raft.last_index"] = ProtoField.uint64("r2p2.raft.last_index", "last_index", base.DEC)
F["r2p2.raft.last_term"] = ProtoField.uint64("r2p2.raft.last_term", "last_term", base.DEC)
F["r2p2.raft.granted"] = ProtoField.uint8("r2p2.raft.granted", "granted", base.DEC)
F["r2p2.raft.reserved"] = ProtoField.bytes("r2p2.raft.reserved", "reserved")
F["r2p2.raft.prev_index"] = ProtoField.uint64("r2p2.raft.prev_index", "prev_index", base.DEC)
F["r2p2.raft.prev_term"] = ProtoField.uint64("r2p2.raft.prev_term", "prev_term", base.DEC)
F["r2p2.raft.entries_term"] = ProtoField.uint64("r2p2.raft.entries_term", "entries_term", base.DEC)
F["r2p2.raft.commit"] = ProtoField.uint64("r2p2.raft.commit", "commit", base.DEC)
F["r2p2.raft.global_commit"] = ProtoField.uint64("r2p2.raft.global_commit", "global_commit", base.DEC)
F["r2p2.raft.round"] = ProtoField.uint64("r2p2.raft.round", "round", base.DEC)
F["r2p2.raft.count"] = ProtoField.uint32("r2p2.raft.count", "count", base.DEC)
F["r2p2.raft.bytes"] = ProtoField.uint32("r2p2.raft.bytes", "bytes", base.DEC)
F["r2p2.raft.match_index"] = ProtoField.uint64("r2p2.raft.match_index", "match_index", base.DEC)
F["r2p2.raft.hint_index"] = ProtoField.uint64("r2p2.raft.hint_index", "hint_index", base.DEC)
F["r2p2.raft.hint_term"] = ProtoField.uint64("r2p2.raft.hint_term", "hint_term", base.DEC)
F["r2p2.raft.applied_index"] = ProtoField.uint64("r2p2.raft.applied_index", "applied_index", base.DEC)
F["r2p2.raft.accepted"] = ProtoField.uint8("r2p2.raft.accepted", "accepted", base.DEC)
F["r2p2.raft.state"] = ProtoField.uint8("r2p2.raft.state", "state", base.DEC, { [0] = "fresh", [1] = "formed" })
F["r2p2.raft.coordinator"] = ProtoField.uint8("r2p2.raft.coordinator", "coordinator", base.DEC)
F["r2p2.raft.to_incarnation"] = ProtoField.uint64("r2p2.raft.to_incarnation", "to_incarnation", base.HEX)
F["r2p2.raft.formed.count"] = ProtoField.uint16("r2p2.raft.formed.count", "count", base.DEC)
F["r2p2.raft.context"] = ProtoField.uint64("r2p2.raft.context", "context", base.HEX)
F["r2p2.raft.index"] = ProtoField.uint64("r2p2.raft.index", "index", base.DEC)
F["r2p2.raft.index_term"] = ProtoField.uint64("r2p2.raft.index_term", "index_term", base.DEC)
F["r2p2.raft.offset"] = ProtoField.uint64("r2p2.raft.offset", "offset", base.DEC)
F["r2p2.raft.total_bytes"] = ProtoField.uint64("r2p2.raft.total_bytes", "total_bytes", base.DEC)
F["r2p2.raft.chunk_bytes"] = ProtoField.uint32("r2p2.raft.chunk_bytes", "chunk_bytes", base.DEC)
F["r2p2.raft.configuration_bytes"] = ProtoField.uint32("r2p2.raft.configuration_bytes", "configuration_bytes", base.DEC)
F["r2p2.raft.configuration"] = ProtoField.bytes("r2p2.raft.configuration", "configuration")
F["r2p2.raft.chunk"] = ProtoField.bytes("r2p2.raft.chunk", "chunk")
F["r2p2.raft.installed"] = ProtoField.uint8("r2p2.raft.installed", "installed", base.DEC)
local PORT = 8000
local FEEDBACK_PORT = 9000
local PACKETS_MAX = 254
local PAYLOAD_BYTES_MAX = 1464
local FIRST_PAYLOAD_BYTES = 14
local COMMON_BYTES = 24
local ENTRY_BYTES = 16
local TIME_BYTES = 8
local MEMBER_BYTES = 16
local TYPES = { [0] = "REQUEST", [1] = "RESPONSE", [2] = "FEEDBACK", [3] = "ACK", [4] = "DROP", [5] = "RAFT_REQ", [6] = "RAFT_REP", [7] = "RAFT_MSG" }
local POLICIES = { [0] = "LB_ROUTE", [1] = "FIXED_ROUTE", [2] = "REPLICATED_ROUTE", [3] = "REPLICATED_ROUTE_NO_SE" }
local HEADER = { { "r2p2.magic", 1 }, { "r2p2.header_size", 1 }, { "r2p2.type", 1, "r2p2.policy" }, { "r2p2.flags", 1, "r2p2.flags.last", "r2p2.flags.first" }, { "r2p2.rid", 2 }, { "r2p2.p_order", 2 } }
local SESSION = { { "r2p2.session.client_id", 8 }, { "r2p2.session.sequence", 8 }, { "r2p2.session.oldest_pending", 8 } }
local FEEDBACK = { { "r2p2.feedback.rid", 2 }, { "r2p2.feedback.client_port", 2 }, { "r2p2.feedback.client_ip", 4 } }
local COMMON = { { "r2p2.raft.version", 1 }, { "r2p2.raft.kind", 1 }, { "r2p2.raft.sender", 2 }, { "r2p2.raft.cluster_id", 4 }, { "r2p2.raft.incarnation", 8 }, { "r2p2.raft.term", 8 } }
local ENTRY = { { "r2p2.entry.body_length", 4 }, { "r2p2.entry.client_ip", 4 }, { "r2p2.entry.client_port", 2 }, { "r2p2.entry.rid", 2 }, { "r2p2.entry.kind", 1 }, { "r2p2.entry.policy", 1 }, { "r2p2.entry.reserved", 1 }, { "r2p2.entry.flags", 1, "r2p2.entry.flags.timed" } }
local MEMBER = { { "r2p2.member.member", 2 }, { "r2p2.member.reserved", 6 }, { "r2p2.member.incarnation", 8 } }
local KINDS = {
  [1] = { name = "PRE_VOTE", fields = { { "r2p2.raft.last_index", 8 }, { "r2p2.raft.last_term", 8 } } },
  [2] = { name = "PRE_VOTE_REPLY", fields = { { "r2p2.raft.granted", 1 }, { "r2p2.raft.reserved", 7 } } },
  [3] = { name = "VOTE", fields = { { "r2p2.raft.last_index", 8 }, { "r2p2.raft.last_term", 8 } } },
  [4] = { name = "VOTE_REPLY", fields = { { "r2p2.raft.granted", 1 }, { "r2p2.raft.reserved", 7 } } },
  [5] = { name = "APPEND", fields = { { "r2p2.raft.prev_index", 8 }, { "r2p2.raft.prev_term", 8 }, { "r2p2.raft.entries_term", 8 }, { "r2p2.raft.commit", 8 }, { "r2p2.raft.global_commit", 8 }, { "r2p2.raft.round", 8 }, { "r2p2.raft.count", 4 }, { "r2p2.raft.bytes", 4 } }, tail = "entries" },
  [6] = { name = "APPEND_REPLY", fields = { { "r2p2.raft.round", 8 }, { "r2p2.raft.match_index", 8 }, { "r2p2.raft.hint_index", 8 }, { "r2p2.raft.hint_term", 8 }, { "r2p2.raft.applied_index", 8 }, { "r2p2.raft.accepted", 1 }, { "r2p2.raft.reserved", 7 } } },
  [7] = { name = "FORWARD", fields = { { "r2p2.raft.count", 4 }, { "r2p2.raft.bytes", 4 } }, tail = "entries" },
  [8] = { name = "HELLO", fields = { { "r2p2.raft.state", 1 }, { "r2p2.raft.coordinator", 1 }, { "r2p2.raft.reserved", 6 }, { "r2p2.raft.to_incarnation", 8 } } },
  [9] = { name = "FORMED", fields = { { "r2p2.raft.formed.count", 2 }, { "r2p2.raft.reserved", 6 } }, tail = "members" },
  [10] = { name = "READ_INDEX", fields = { { "r2p2.raft.context", 8 } } },
  [11] = { name = "READ_INDEX_REPLY", fields = { { "r2p2.raft.context", 8 }, { "r2p2.raft.index", 8 }, { "r2p2.raft.granted", 1 }, { "r2p2.raft.reserved", 7 } } },
  [12] = { name = "TIMEOUT_NOW", fields = {  } },
  [13] = { name = "VOTE_TRANSFER", fields = { { "r2p2.raft.last_index", 8 }, { "r2p2.raft.last_term", 8 } } },
  [14] = { name = "INSTALL_SNAPSHOT", fields = { { "r2p2.raft.index", 8 }, { "r2p2.raft.index_term", 8 }, { "r2p2.raft.offset", 8 }, { "r2p2.raft.total_bytes", 8 }, { "r2p2.raft.chunk_bytes", 4 }, { "r2p2.raft.configuration_bytes", 4 } }, tail = "snapshot" },
  [15] = { name = "INSTALL_SNAPSHOT_REPLY", fields = { { "r2p2.raft.index", 8 }, { "r2p2.raft.offset", 8 }, { "r2p2.raft.installed", 1 }, { "r2p2.raft.reserved", 7 }, { "r2p2.raft.applied_index", 8 } } },
}
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
