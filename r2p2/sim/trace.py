"""The last events of a run, for people: NDJSON and a mermaid sequence diagram.

One vocabulary for both: an event has a time, a name, and fields; a message's fields are those of its class.

Left to others: what is worth an event (world.py and its parts).
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import fields

from r2p2.sim.machine import Reply, Request
from raft import Configuration, Message, incarnation_of, slot_of

EVENTS_MAX = 300
DIAGRAM_EVENTS = 80
_HIDDEN = {"sender", "target", "payload", "request_id"}


def name_of(member: object) -> str:
    """``n2`` for the first launch in slot 2, ``n2.1`` for the next one without its disk."""
    if not isinstance(member, int):
        return "?"
    return f"n{slot_of(member)}" + (f".{incarnation_of(member)}" if incarnation_of(member) else "")


class Trace:
    """A ring of events: ``note`` costs a tuple, the text is made when somebody wants it."""

    def __init__(self) -> None:
        """Nothing has happened."""
        self.events: deque[tuple[int, str, dict[str, object]]] = deque(maxlen=EVENTS_MAX)

    def note(self, now_ns: int, event: str, more: dict[str, object]) -> None:
        """Something happened."""
        self.events.append((now_ns, event, more))

    def ndjson(self) -> str:
        """One object a line: t_ns, event, then from, to, member, message, detail as the event has them."""
        lines = []
        for now_ns, event, more in self.events:
            line: dict[str, object] = {"t_ns": now_ns, "event": event}
            for name, value in more.items():
                if isinstance(value, Message):
                    line["kind"] = type(value).__name__
                    line |= {"from": name_of(value.sender), "to": name_of(value.target)} | _of_message(value)
                else:
                    line[name] = name_of(value) if name in ("member", "other") else _plain(value)
            lines.append(json.dumps(line))
        return "\n".join(lines) + "\n"

    def mermaid(self) -> str:
        """A sequence diagram of the last events: arrows for messages, crossed out where they got lost."""
        rows: list[str] = []
        seen: set[str] = set()
        for now_ns, event, more in list(self.events)[-DIAGRAM_EVENTS:]:
            time = f"{now_ns / 1e6:.2f} ms"
            message = more.get("message")
            if isinstance(message, Message):
                sender, target = name_of(message.sender), name_of(message.target)
                seen |= {sender, target}
                arrow = "-x" if event == "lost" else "->>"
                rows.append(f"    {sender}{arrow}{target}: {time} {_short(message)}")
                continue
            member = more.get("member")
            # A change of role says no more than "role candidate".
            told = ((name, _plain(value)) for name, value in more.items() if name != "member")
            rest = ", ".join(str(value) if name == event else f"{name} {value}" for name, value in told)
            text = f"{time} {event} {rest}".replace(";", ",").replace("#", "no ").rstrip()
            if isinstance(member, int):
                seen.add(name_of(member))
                rows.append(f"    Note over {name_of(member)}: {text}")
            else:
                rows.append(f"    Note over {{all}}: {text}")
        order = sorted(seen) or ["n0"]
        over = ",".join(dict.fromkeys((order[0], order[-1])))
        head = ["sequenceDiagram", *(f"    participant {name}" for name in order)]
        return "\n".join([*head, *(row.replace("{all}", over) for row in rows)]) + "\n"


def _of_message(message: Message) -> dict[str, object]:
    found: dict[str, object] = {}
    for field in fields(message):
        value = getattr(message, field.name)
        if field.name not in _HIDDEN and value is not None:
            found[field.name] = _plain(value)
    return found


def _short(message: Message) -> str:
    parts = [f"{name} {value}" for name, value in _of_message(message).items() if value not in (0, False, "")]
    return f"{type(message).__name__} " + " ".join(parts).replace(";", ",").replace("#", "no ")


def _plain(value: object) -> object:
    if isinstance(value, Configuration):
        halves = [",".join(map(name_of, value.voters))]
        halves += [f"outgoing {','.join(map(name_of, value.outgoing))}"] if value.outgoing else []
        halves += [f"learners {','.join(map(name_of, value.learners))}"] if value.learners else []
        return " ".join(halves)
    if isinstance(value, Request | Reply):
        return repr(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return repr(value)
