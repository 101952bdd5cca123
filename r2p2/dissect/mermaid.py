"""``--mermaid``: the capture as a Mermaid sequence diagram, for documents and issue reports.

Members of a cluster and clients are the participants, messages the arrows (requests solid, answers dashed), and what
the Raft timeline has to say about leaders and dropped entries stands in notes. A picture of thousands of arrows helps
nobody, so it ends after :data:`MESSAGES_MAX` messages and says how many were left out; ``--filter`` chooses better.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from r2p2.dissect.datagrams import Other
from r2p2.dissect.filters import Filter
from r2p2.dissect.messages import Message
from r2p2.dissect.text import duration, endpoint, type_name, what
from r2p2.dissect.timeline import Timeline
from r2p2.dissect.wire import ACK, DROP, RAFT_REP, REQUEST, RESPONSE

MESSAGES_MAX: Final = 200
_TEXT_MAX: Final = 90
Address = tuple[int, int]
_NOTES: Final = frozenset({"leader", "two_leaders", "truncation", "answer"})
# What Mermaid takes for its own: the end of a statement, an entity, and what HTML would read.
_ESCAPES: Final = str.maketrans({"#": "#35;", ";": "#59;", "<": "#60;", ">": "#62;", '"': "#quot;"})


class MermaidView:
    """Collects the first messages that pass and draws them at the end, when it is known who is who."""

    def __init__(self, start_ns: int, passes: Filter) -> None:
        """``start_ns``: the time of the first packet."""
        self._start_ns = start_ns
        self._passes = passes
        self._timeline = Timeline()
        self._names: dict[Address, str] = {}
        self._lines: list[tuple[Address, str, Address, str]] = []
        self._notes: dict[int, list[str]] = {}
        self._left_out = 0

    def message(self, message: Message) -> Iterator[str]:
        """Nothing yet."""
        if not self._passes(message):
            return iter(())
        if len(self._lines) >= MESSAGES_MAX:
            self._left_out += 1
            return iter(())
        source, target = (message.source_ip, message.source_port), (message.target_ip, message.target_port)
        if message.raft is not None:
            self._names[source] = f"member {message.raft.sender}"
        elif message.type == REQUEST:
            self._names.setdefault(source, "client")
        arrow = "-->>" if message.type in (RESPONSE, ACK, DROP, RAFT_REP) else "->>"
        label = f"{duration(message.time_ns - self._start_ns)}: {self._label(message)}"
        self._lines.append((source, arrow, target, label))
        for event in self._timeline.events(message):
            if event.name in _NOTES:
                self._notes.setdefault(len(self._lines) - 1, []).append(event.text.translate(_ESCAPES))
        return iter(())

    def other(self, other: Other) -> Iterator[str]:
        """Nothing."""
        return iter(())

    def close(self) -> Iterator[str]:
        """The diagram."""
        yield "sequenceDiagram"
        short: dict[Address, str] = {}
        for source, _, target, _ in self._lines:
            for one in (source, target):
                if one not in short:
                    short[one] = f"n{len(short)}"
                    yield f"    participant {short[one]} as {self._names.get(one, 'host')} {endpoint(*one)}"
        for index, (source, arrow, target, label) in enumerate(self._lines):
            yield f"    {short[source]}{arrow}{short[target]}: {label}"
            for note in self._notes.get(index, []):
                yield f"    Note over {short[source]}: {note}"
        if self._left_out:
            first = next(iter(short.values()))
            yield f"    Note over {first}: {self._left_out} more messages left out"

    def _label(self, message: Message) -> str:
        text = what(message)
        if message.raft is None:
            text = f"{type_name(message.type)} rid {message.rid} {text}".rstrip()
        else:
            text = text.replace(f" member {message.raft.sender}", "", 1)
        return (text if len(text) <= _TEXT_MAX else text[:_TEXT_MAX] + "..").translate(_ESCAPES)
