"""``--pairs``: each request with its answer and how long that took.

A REQUEST is paired with the RESPONSE or DROP that goes to its sender with its rid, whoever sends it; a RAFT_REQ with
the RAFT_REP that comes back from its target. Latency runs from the first packet of the request seen to the last of the
answer seen, where the capture was taken. A request repeated while it waits is one pair with a retry. A sample has the
answers of few, and rids come again after 65,536 requests: whoever asks is followed over its rounds, so that an answer
is not taken for that to an earlier request of the same rid. Bounded: of the waiting requests the oldest is given up
first.
"""

from __future__ import annotations

import json
import math
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from r2p2.dissect.datagrams import Other
from r2p2.dissect.filters import Filter
from r2p2.dissect.messages import Message
from r2p2.dissect.text import Json, as_json, duration, endpoint, seconds, type_name, what
from r2p2.dissect.wire import DROP, RAFT_REP, RAFT_REQ, REQUEST, RESPONSE

WAITING_MAX: Final = 1 << 17
# Latencies kept for the percentiles at the end; beyond it they describe the first part of the capture.
LATENCIES_MAX: Final = 1 << 24

# Askers that are followed; of more than that the first is forgotten.
ASKERS_MAX: Final = 1 << 16
RIDS: Final = 1 << 16
ROUND_NS_MIN: Final = 1_000_000  # nobody goes through half of its rids in less
# Who is seen less often than once in so many of its rids is seen in a sample.
SAMPLE_SHARE: Final = 16

Key = tuple[int, ...]


@dataclass(slots=True)
class _Waiting:
    request: Message
    place: int
    retries_count: int = 0


class _Asker:
    """Where a client or member is in its rids, which go up by one and around."""

    __slots__ = ("_first_ns", "_first_place", "_last_ns", "_place", "_seen_count")

    def __init__(self, rid: int, time_ns: int) -> None:
        self._place = self._first_place = rid  # of the latest that was seen, counted on over the rounds
        self._first_ns = self._last_ns = time_ns
        self._seen_count = 0

    def place(self, rid: int, time_ns: int) -> int:
        """Of a request or answer with ``rid`` that is seen now: equal for both, and another in each round."""
        step = (rid - self._place) % RIDS
        if step >= RIDS // 2:
            step -= RIDS  # one from before that came late
        if time_ns - self._last_ns > ROUND_NS_MIN:
            passed = self._place - self._first_place
            is_sample = self._seen_count * SAMPLE_SHARE < passed
            if is_sample and passed * (time_ns - self._last_ns) >= RIDS // 2 * (time_ns - self._first_ns):
                step += RIDS  # at the rate so far it has gone around unseen, nobody knows how often
        place = self._place + step
        self._place = max(self._place, place)
        self._last_ns = time_ns
        self._seen_count += 1
        return place


class _Totals:
    """What a kind of pairs adds up to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.answered = self.dropped = self.unanswered = self.without_request = self.retries = 0
        self.latencies_ns = array("Q")

    def add(self, is_drop: bool, latency_ns: int) -> None:
        """One answer."""
        self.answered += not is_drop
        self.dropped += is_drop
        if not is_drop and len(self.latencies_ns) < LATENCIES_MAX:
            self.latencies_ns.append(max(0, latency_ns))

    def counts(self) -> dict[str, int]:
        """By name, those that are not 0."""
        names = ("answered", "dropped", "unanswered", "without_request", "retries")
        return {name: count for name in names if (count := getattr(self, name))}

    def summary(self) -> tuple[str, Json]:
        """The counts and percentiles of the latency of what was answered, DROP not included."""
        counts = self.counts()
        value: Json = {"summary": self.name, **counts}
        text = f"{self.name}: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
        ordered = sorted(self.latencies_ns)
        if ordered:
            shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
            found = {name: ordered[math.ceil(share * len(ordered)) - 1] for name, share in shares.items()}
            value["latency_ns"] = found
            text += "; latency " + ", ".join(f"{name} {duration(latency)}" for name, latency in found.items())
        return text, value


class PairsView:
    """A line a pair, in the order of the answers, then the requests without one and a summary."""

    def __init__(self, start_ns: int, passes: Filter, *, in_json: bool = False, is_filtered: bool = False) -> None:
        """``passes`` is asked about requests, not about answers."""
        self._start_ns = start_ns
        self._in_json = in_json
        self._is_filtered = is_filtered
        self._passes = passes
        self._waiting: OrderedDict[Key, _Waiting] = OrderedDict()
        self._askers: dict[tuple[int, int], _Asker] = {}
        self._totals = {REQUEST: _Totals("requests"), RAFT_REQ: _Totals("raft")}

    @property
    def unanswered_count(self) -> int:
        """Requests, of clients and of members, that were given up without an answer so far."""
        return sum(totals.unanswered for totals in self._totals.values())

    def message(self, message: Message) -> Iterator[str]:
        """The pair it completes, and what has waited too long."""
        if message.problem:
            return
        if message.type in (REQUEST, RAFT_REQ):
            yield from self._request(message)
        elif message.type in (RESPONSE, DROP, RAFT_REP):
            yield from self._answer(message)

    def other(self, other: Other) -> Iterator[str]:
        """Nothing."""
        return iter(())

    def close(self) -> Iterator[str]:
        """The requests that have no answer, and the summary."""
        while self._waiting:
            yield self._unanswered(self._waiting.popitem(last=False)[1])
        for totals in self._totals.values():
            if totals.counts():
                text, value = totals.summary()
                yield json.dumps(value) if self._in_json else text

    def _request(self, message: Message) -> Iterator[str]:
        place = self._place(message.source_ip, message.source_port, message)
        if not self._passes(message):
            return
        key = _request_key(message)
        waiting = self._waiting.get(key)
        if waiting is not None and waiting.place == place and waiting.request.body == message.body:
            waiting.retries_count += 1
            self._totals[message.type].retries += 1
            return
        if waiting is not None:
            del self._waiting[key]
            yield self._unanswered(waiting)
        self._waiting[key] = _Waiting(message, place)
        if len(self._waiting) > WAITING_MAX:
            yield self._unanswered(self._waiting.popitem(last=False)[1])

    def _place(self, ip: int, port: int, message: Message) -> int:
        """Of a request or answer among all of who asks."""
        key = (ip, port)
        asker = self._askers.get(key)
        if asker is None:
            asker = self._askers[key] = _Asker(message.rid, message.time_ns)
            if len(self._askers) > ASKERS_MAX:
                del self._askers[next(iter(self._askers))]
        return asker.place(message.rid, message.time_ns)

    def _answer(self, answer: Message) -> Iterator[str]:
        place = self._place(answer.target_ip, answer.target_port, answer)
        waiting = self._waiting.pop(_answer_key(answer), None)
        if waiting is not None and waiting.place != place:
            yield self._unanswered(waiting)
            waiting = None
        if waiting is None:
            # Seen only in part, or the answer came twice; or the filter left its request out.
            if not self._is_filtered:
                self._totals[RAFT_REQ if answer.type == RAFT_REP else REQUEST].without_request += 1
            return
        request = waiting.request
        latency_ns = answer.time_ns - request.first_time_ns
        self._totals[request.type].add(answer.type == DROP, latency_ns)
        if self._in_json:
            yield self._json(waiting, answer, latency_ns)
            return
        text = f"{_request_text(request, self._start_ns)} => {type_name(answer.type)}"
        if (answer.source_ip, answer.source_port) != (request.target_ip, request.target_port):
            text += f" from {endpoint(answer.source_ip, answer.source_port)}"
        text += f" after {duration(latency_ns)}"
        if answer.type != DROP:
            text += f": {what(answer)}"
        yield text + _retries_text(waiting)

    def _unanswered(self, waiting: _Waiting) -> str:
        self._totals[waiting.request.type].unanswered += 1
        if self._in_json:
            return self._json(waiting, None, None)
        return f"{_request_text(waiting.request, self._start_ns)} => no answer{_retries_text(waiting)}"

    def _json(self, waiting: _Waiting, answer: Message | None, latency_ns: int | None) -> str:
        value: Json = {
            "request": as_json(waiting.request, self._start_ns),
            "answer": None if answer is None else as_json(answer, self._start_ns),
            "latency_ns": latency_ns,
            "retries": waiting.retries_count,
        }
        return json.dumps(value)


def _request_key(message: Message) -> Key:
    own = (message.type, message.rid, message.source_ip, message.source_port)
    return (*own, message.target_ip, message.target_port) if message.type == RAFT_REQ else own


def _answer_key(message: Message) -> Key:
    if message.type == RAFT_REP:
        asked = (RAFT_REQ, message.rid, message.target_ip, message.target_port)
        return (*asked, message.source_ip, message.source_port)
    return (REQUEST, message.rid, message.target_ip, message.target_port)


def _retries_text(waiting: _Waiting) -> str:
    return f" [sent {waiting.retries_count + 1} times]" if waiting.retries_count else ""


def _request_text(request: Message, start_ns: int) -> str:
    return (
        f"{seconds(request.first_time_ns - start_ns):>11} {endpoint(request.source_ip, request.source_port)} > "
        f"{endpoint(request.target_ip, request.target_port)} rid {request.rid} {what(request)}"
    )
