"""One line a message, and the same as a JSON object.

The line: time since the first packet of the capture, in seconds with microseconds; from > to; type; rid; what. The
object has the same and every field of a Raft message; docs/dissect.md lists its keys.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from r2p2.dissect.datagrams import Other, dotted
from r2p2.dissect.messages import Message
from r2p2.dissect.preview import preview
from r2p2.dissect.wire import ENTRY_KINDS, FEEDBACK, POLICY_NAMES, REQUEST, RESPONSE, TYPE_NAMES, Entry, Raft, entries

Json = dict[str, Any]


def seconds(time_ns: int) -> str:
    """0.000123 for 123,456 ns: microseconds, cut, not rounded, so that equal means not later."""
    sign, time_ns = ("-", -time_ns) if time_ns < 0 else ("", time_ns)
    return f"{sign}{time_ns // 1_000_000_000}.{time_ns % 1_000_000_000 // 1000:06d}"


def duration(time_ns: int) -> str:
    """A length of time in the unit that suits it: 12.3 us, 4.56 ms, 1.234 s."""
    if time_ns < 1_000_000:
        return f"{time_ns / 1000:.1f} us"
    return f"{time_ns / 1_000_000:.2f} ms" if time_ns < 1_000_000_000 else f"{time_ns / 1_000_000_000:.3f} s"


def size(count: int) -> str:
    """1 byte, 2 bytes."""
    return "1 byte" if count == 1 else f"{count} bytes"


def endpoint(ip: int, port: int) -> str:
    """10.0.0.1:8000."""
    return f"{dotted(ip)}:{port}"


def type_name(number: int) -> str:
    """REQUEST and so on; the number where it has no name."""
    if number < 0:
        return "?"
    return TYPE_NAMES[number] if number < len(TYPE_NAMES) else f"TYPE{number}"


def line(message: Message, start_ns: int) -> str:
    """The line of a message."""
    parts = (
        f"{seconds(message.time_ns - start_ns):>11}",
        f"{endpoint(message.source_ip, message.source_port):>21} > "
        f"{endpoint(message.target_ip, message.target_port):<21}",
        f"{type_name(message.type):<8}",
        f"rid {message.rid:<5}",
        what(message),
    )
    return " ".join(parts).rstrip()


def what(message: Message) -> str:
    """What a message says, without its addresses."""
    if message.problem:
        text = f"malformed ({message.problem})" if not message.problem.startswith("incomplete") else message.problem
        if message.body:
            text += f" {size(len(message.body))} {message.body[:24].hex()}"
    elif message.raft is not None:
        text = _RAFT[message.raft.kind](message.raft)
    else:
        text = _payload(message)
    if message.packets_count > 1:
        text += f" [{message.packets_count} packets in {duration(message.time_ns - message.first_time_ns)}]"
    return text + "".join(f" [{note}]" for note in message.notes)


def _payload(message: Message) -> str:
    if message.type == FEEDBACK:
        rid, port = (int.from_bytes(message.body[at : at + 2], "big") for at in (0, 2))
        return f"for {endpoint(int.from_bytes(message.body[4:8], 'big'), port)} rid {rid}"
    parts = []
    if message.type == REQUEST:
        parts.append(POLICY_NAMES[message.policy])
    if message.extension:
        parts.append(_extension(message.extension))
    if message.type in (REQUEST, RESPONSE):
        parts.append(size(len(message.body)))
        parts.append(preview(message.body))
    return " ".join(part for part in parts if part)


def _extension(extension: bytes) -> str:
    if len(extension) != 24:
        return f"extension of {size(len(extension))}"
    client, sequence, oldest = (int.from_bytes(extension[at : at + 8], "big") for at in (0, 8, 16))
    return f"session {client:016x} sequence {sequence} oldest {oldest}"


def _head(raft: Raft) -> str:
    return f"{raft.kind} member {raft.sender} term {raft.term}"


def _last(raft: Raft) -> str:
    return f"{_head(raft)} last {raft.fields['last_index']}@{raft.fields['last_term']}"


def _granted(raft: Raft) -> str:
    return f"{_head(raft)} {'granted' if raft.fields['granted'] else 'refused'}"


def _append(raft: Raft) -> str:
    fields = raft.fields
    prev, count = fields["prev_index"], fields["count"]
    tail = f"commit {fields['commit']} global {fields['global_commit']} round {fields['round']}"
    if not count:
        return f"{_head(raft)} heartbeat after {prev}@{fields['prev_term']} {tail}"
    span = f"{prev + 1}..{prev + count}" if count > 1 else f"{prev + 1}"
    amount = f"{count} entries, {size(fields['bytes'])}" if count > 1 else size(fields["bytes"])
    return f"{_head(raft)} entries {span}@{fields['entries_term']} ({amount}) after {prev}@{fields['prev_term']} {tail}"


def _append_reply(raft: Raft) -> str:
    fields = raft.fields
    tail = f"applied {fields['applied_index']} round {fields['round']}"
    if fields["accepted"]:
        return f"{_head(raft)} accepted through {fields['match_index']} {tail}"
    hint = f"hint {fields['hint_index']}@{fields['hint_term']}"
    return f"{_head(raft)} rejected at {fields['match_index']} {hint} {tail}"


def _forward(raft: Raft) -> str:
    count = raft.fields["count"]
    amount = "1 entry" if count == 1 else f"{count} entries"
    return f"{_head(raft)} {amount}, {size(raft.fields['bytes'])}"


def _hello(raft: Raft) -> str:
    state = "formed" if raft.fields["state"] else "fresh"
    coordinator = " coordinator" if raft.fields["coordinator"] else ""
    return f"{_head(raft)} {state}{coordinator} to {raft.fields['to_incarnation']:016x}"


def _formed(raft: Raft) -> str:
    return f"{_head(raft)} " + ", ".join(f"{member.member}: {member.incarnation:016x}" for member in raft.members)


def _read_index(raft: Raft) -> str:
    return f"{_head(raft)} read {raft.fields['context']:016x}"


def _read_index_reply(raft: Raft) -> str:
    granted = f"granted after {raft.fields['index']}" if raft.fields["granted"] else "refused"
    return f"{_read_index(raft)} {granted}"


def _install_snapshot(raft: Raft) -> str:
    fields = raft.fields
    end = fields["offset"] + fields["chunk_bytes"]
    piece = f"bytes {fields['offset']}..{end} of {fields['total_bytes']}"
    return f"{_head(raft)} snapshot {fields['index']}@{fields['index_term']} {piece}"


def _install_snapshot_reply(raft: Raft) -> str:
    fields = raft.fields
    state = "installed" if fields["installed"] else f"has {size(fields['offset'])}"
    return f"{_head(raft)} snapshot {fields['index']} {state} applied {fields['applied_index']}"


# How the message of each kind reads; every kind of wire.KINDS is here.
_RAFT: Final[dict[str, Callable[[Raft], str]]] = {
    "PRE_VOTE": _last,
    "PRE_VOTE_REPLY": _granted,
    "VOTE": _last,
    "VOTE_REPLY": _granted,
    "APPEND": _append,
    "APPEND_REPLY": _append_reply,
    "FORWARD": _forward,
    "HELLO": _hello,
    "FORMED": _formed,
    "READ_INDEX": _read_index,
    "READ_INDEX_REPLY": _read_index_reply,
    "TIMEOUT_NOW": _head,
    "VOTE_TRANSFER": _last,
    "INSTALL_SNAPSHOT": _install_snapshot,
    "INSTALL_SNAPSHOT_REPLY": _install_snapshot_reply,
}


def moment(unix_ms: int) -> str:
    """A time of the log: UTC to the millisecond, or the number where no calendar has it."""
    try:
        when = datetime.fromtimestamp(unix_ms // 1000, UTC)
    except (OverflowError, ValueError):
        return f"{unix_ms} ms"
    return f"{when:%Y-%m-%d %H:%M:%S}.{unix_ms % 1000:03d}"


def entry_lines(message: Message) -> list[str]:
    """A line for each entry of an APPEND or FORWARD, indented under its message."""
    raft = message.raft
    if raft is None:
        return []
    first = raft.fields["prev_index"] + 1 if raft.kind == "APPEND" else None
    lines = []
    for offset, entry in enumerate(entries(raft)):
        index = f"{first + offset:>8}" if first is not None else f"{'-':>8}"
        origin = f"{endpoint(entry.client_ip, entry.client_port)} rid {entry.rid} " if entry.kind else ""
        when = f"at {moment(entry.time_ms)} " if entry.time_ms else ""
        text = f"{ENTRY_KINDS[entry.kind]} {origin}{when}{size(len(entry.body))} {preview(entry.body)}"
        lines.append(f"{'':>12}{index} {text}".rstrip())
    return lines


def other_line(other: Other, start_ns: int) -> str:
    """The line of a packet without a readable datagram."""
    text = f"malformed ({other.kind})" if other.malformed else other.kind
    return f"{seconds(other.time_ns - start_ns):>11} {text}"


def as_json(message: Message, start_ns: int, *, with_entries: bool = False) -> Json:
    """The message as a JSON object; times in nanoseconds."""
    made: Json = {
        "number": message.number,
        "time_ns": message.time_ns - start_ns,
        "source": endpoint(message.source_ip, message.source_port),
        "target": endpoint(message.target_ip, message.target_port),
        "type": type_name(message.type),
        "rid": message.rid,
        "bytes": len(message.body),
        "packets": message.packets_count,
        "what": what(message),
    }
    if message.type == REQUEST and not message.problem:
        made["policy"] = POLICY_NAMES[message.policy]
    if message.problem:
        made["problem"] = message.problem
    if message.notes:
        made["notes"] = list(message.notes)
    if message.raft is not None:
        raft = message.raft
        made["raft"] = {
            "kind": raft.kind,
            "sender": raft.sender,
            "cluster_id": raft.cluster_id,
            "incarnation": f"{raft.incarnation:016x}",
            "term": raft.term,
            **raft.fields,
        }
        if raft.members:
            made["raft"]["members"] = [[member.member, f"{member.incarnation:016x}"] for member in raft.members]
        if with_entries and raft.entries:
            made["raft"]["entries"] = [_entry_json(entry) for entry in entries(raft)]
    return made


def _entry_json(entry: Entry) -> Json:
    return {
        "kind": ENTRY_KINDS[entry.kind],
        "client": endpoint(entry.client_ip, entry.client_port),
        "rid": entry.rid,
        "policy": POLICY_NAMES[entry.policy],
        **({"time_ms": entry.time_ms} if entry.time_ms else {}),
        "bytes": len(entry.body),
        "what": preview(entry.body),
    }
