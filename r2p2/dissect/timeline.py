"""``--raft``: what a cluster went through, as a timeline.

Told from the messages alone: who starts, who stands for election and with what votes, who leads from when and how long
nobody did, who is asked to take over, how the commit index and the forgotten prefix move, who rejects entries, which
entries of an old term a member drops for those of a new one, and what followers are told about reads. Two leaders in a
term, and a read granted behind the commit index, are named when they are seen. An election lasts from the first
candidate to the new leader, over split votes; one after which most go on answering the old leader has failed, and is no
part of the next. Every table is bounded.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, NamedTuple

from r2p2.dissect.datagrams import Other
from r2p2.dissect.filters import Filter
from r2p2.dissect.messages import Message
from r2p2.dissect.text import Json, duration, endpoint, seconds, size
from r2p2.dissect.wire import RESPONSE, Raft

COMMIT_INTERVAL_NS: Final = 100_000_000
READ_INTERVAL_NS: Final = 100_000_000
IN_FLIGHT_MAX: Final = 4096
RUNS_MAX: Final = 256
SEEN_MAX: Final = 4096
CLUSTERS_MAX: Final = 64

Address = tuple[int, int]


@dataclass(slots=True)
class _Append:
    """The entries of an APPEND on its way."""

    prev_index: int
    count: int
    term: int


@dataclass(slots=True)
class _Reads:
    """What followers asked their leader about reads."""

    asked: OrderedDict[tuple[int, int], int] = field(default_factory=OrderedDict)  # (member, context) -> commit then
    granted_count: int = 0
    index: int = 0  # the largest that was granted
    told_count: int = 0
    told_ns: int = 0


@dataclass(slots=True)
class _Log:
    """What a member's log holds as far as the capture shows: runs of (first index, last index, term), ascending."""

    runs: list[tuple[int, int, int]] = field(default_factory=list)

    def put(self, first: int, last: int, term: int) -> tuple[int, int, int] | None:
        """Entries first..last of ``term`` stand there now.

        Where entries of another term were known in that range, they and all after them are gone: the first and last
        index dropped, and the first one's term.
        """
        conflicts = [run for run in self.runs if run[2] != term and run[0] <= last and run[1] >= first]
        dropped: tuple[int, int, int] | None = None
        if conflicts:
            cut = max(conflicts[0][0], first)
            dropped = (cut, self.runs[-1][1], conflicts[0][2])
            self.runs = [(a, min(b, cut - 1), t) for a, b, t in self.runs if a < cut]
        apart = []
        for run in self.runs:
            if run[2] == term and run[0] <= last + 1 and run[1] >= first - 1:
                first, last = min(first, run[0]), max(last, run[1])
            else:
                apart.append(run)
        self.runs = sorted([*apart, (first, last, term)])[-RUNS_MAX:]
        return dropped


@dataclass(slots=True)
class _Cluster:
    """One cluster's story so far."""

    leader: int | None = None
    leader_address: Address = (0, 0)
    term: int = 0
    append_ns: int = 0  # of the leader's last APPEND
    round: int = 0  # the highest of its APPENDs
    answering: set[int] = field(default_factory=set)  # members seen to answer them
    commit: int = 0
    global_commit: int = 0
    told_commit: int = 0
    told_ns: int = 0
    election_ns: int | None = None  # when the first candidate of the election in hand stood up; None: there is none
    election_round: int = 0  # the leader's round then
    loyal: set[int] = field(default_factory=set)  # members seen to answer an APPEND of a later round
    answer_ns: int | None = None  # the last RESPONSE of a leader
    old_append_ns: int = 0  # the last APPEND of the leader before this one
    waits_for_answer: bool = False
    reads: _Reads = field(default_factory=_Reads)
    members: dict[Address, int] = field(default_factory=dict)
    logs: dict[int, _Log] = field(default_factory=dict)
    in_flight: OrderedDict[tuple[int, ...], _Append] = field(default_factory=OrderedDict)
    told: OrderedDict[tuple[object, ...], None] = field(default_factory=OrderedDict)

    def first_time(self, *what: object) -> bool:
        """True once for each ``what``, as far as memory reaches."""
        if what in self.told:
            return False
        self.told[what] = None
        if len(self.told) > SEEN_MAX:
            self.told.popitem(last=False)
        return True


class Event(NamedTuple):
    """Something that happened to a cluster."""

    time_ns: int
    cluster_id: int
    name: str
    text: str
    values: Json


class Timeline:
    """What happened, message by message."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._clusters: dict[int, _Cluster] = {}
        self._last_ns = 0

    def events(self, message: Message) -> Iterator[Event]:
        """What the message changes."""
        self._last_ns = message.time_ns
        if message.type == RESPONSE:
            yield from self._response(message)
        raft = message.raft
        if raft is None:
            return
        cluster = self._clusters.get(raft.cluster_id)
        if cluster is None:
            if len(self._clusters) >= CLUSTERS_MAX:
                return
            cluster = self._clusters[raft.cluster_id] = _Cluster()
        cluster.members[message.source_ip, message.source_port] = raft.sender
        handler = _HANDLERS.get(raft.kind)
        if handler is not None:
            for name, text, values in handler(cluster, message, raft):
                yield Event(message.time_ns, raft.cluster_id, name, text, values)

    def close(self) -> Iterator[Event]:
        """Where each cluster stood at the end."""
        for cluster_id, cluster in self._clusters.items():
            yield from self._told(cluster_id, cluster)
            leader = "no leader seen" if cluster.leader is None else f"member {cluster.leader} led term {cluster.term}"
            text = f"end of the capture: {leader}, commit {cluster.commit}"
            values: Json = {"leader": cluster.leader, "term": cluster.term, "commit": cluster.commit}
            yield Event(self._last_ns, cluster_id, "end", text, values)

    def _told(self, cluster_id: int, cluster: _Cluster) -> Iterator[Event]:
        told = (_commit(cluster, self._last_ns, at_once=True), _reads(cluster, self._last_ns, at_once=True))
        for name, text, values in chain.from_iterable(told):
            yield Event(self._last_ns, cluster_id, name, text, values)

    def _response(self, message: Message) -> Iterator[Event]:
        source = (message.source_ip, message.source_port)
        for cluster_id, cluster in self._clusters.items():
            if source != cluster.leader_address:
                continue
            if cluster.waits_for_answer:
                # Without the old leader's answers in the capture, its last APPEND says when it was last alive.
                before_ns, what = cluster.old_append_ns, "APPEND of the old leader"
                if cluster.answer_ns is not None:
                    before_ns, what = cluster.answer_ns, "one before"
                gap_ns = message.time_ns - before_ns
                text = f"first answer to a client, from {endpoint(*source)}: {duration(gap_ns)} after the last {what}"
                yield Event(message.time_ns, cluster_id, "answer", text, {"interruption_ns": gap_ns})
            cluster.waits_for_answer = False
            cluster.answer_ns = message.time_ns


class TimelineView:
    """The timeline as lines."""

    def __init__(self, start_ns: int, passes: Filter, *, in_json: bool = False) -> None:
        """Messages that do not pass are as if they were not in the capture."""
        self._in_json = in_json
        self._start_ns = start_ns
        self._passes = passes
        self._timeline = Timeline()
        self._first_cluster: int | None = None

    def message(self, message: Message) -> Iterator[str]:
        """A line an event."""
        if self._passes(message):
            yield from map(self._line, self._timeline.events(message))

    def other(self, other: Other) -> Iterator[str]:
        """Nothing."""
        return iter(())

    def close(self) -> Iterator[str]:
        """Where each cluster stood at the end."""
        return map(self._line, self._timeline.close())

    def _line(self, event: Event) -> str:
        when = event.time_ns - self._start_ns
        if self._in_json:
            return json.dumps({"time_ns": when, "cluster_id": event.cluster_id, "event": event.name} | event.values)
        if self._first_cluster is None:
            self._first_cluster = event.cluster_id
        prefix = "" if event.cluster_id == self._first_cluster else f"cluster {event.cluster_id:08x}: "
        return f"{seconds(when):>11} {prefix}{event.text}"


Told = Iterator[tuple[str, str, Json]]
_STANDS: Final = {"PRE_VOTE": "would stand", "VOTE": "stands", "VOTE_TRANSFER": "stands, as its leader asked,"}


def _hello(cluster: _Cluster, message: Message, raft: Raft) -> Told:
    if cluster.first_time("hello", raft.sender, raft.incarnation):
        state = "in a formed cluster" if raft.fields["state"] else "fresh"
        text = f"member {raft.sender} is there, {state}, incarnation {raft.incarnation:016x}"
        yield "hello", text, {"member": raft.sender, "incarnation": f"{raft.incarnation:016x}"}


def _formed(cluster: _Cluster, message: Message, raft: Raft) -> Told:
    members = [member.member for member in raft.members]
    if cluster.first_time("formed", *members):
        yield "formed", f"cluster formed of members {', '.join(map(str, members))}", {"members": members}


def _stands(cluster: _Cluster, message: Message, raft: Raft) -> Told:
    # Also of a candidate that was told of before: it may have failed and try again, in the same term after a PRE_VOTE.
    if cluster.election_ns is None and raft.term > cluster.term:
        cluster.election_ns, cluster.election_round = message.time_ns, cluster.round
        cluster.loyal.clear()
    if not cluster.first_time(raft.kind, raft.sender, raft.term):
        return
    how = _STANDS[raft.kind]
    last = f"{raft.fields['last_index']}@{raft.fields['last_term']}"
    text = f"member {raft.sender} {how} in term {raft.term}, log ends at {last}"
    if cluster.leader is not None:
        text += f", {duration(message.time_ns - cluster.append_ns)} after the last APPEND"
    yield raft.kind.lower(), text, {"member": raft.sender, "term": raft.term} | raft.fields


def _votes(cluster: _Cluster, message: Message, raft: Raft) -> Told:
    candidate = cluster.members.get((message.target_ip, message.target_port))
    if not cluster.first_time(raft.kind, raft.sender, raft.term, candidate, raft.fields["granted"]):
        return
    granted = bool(raft.fields["granted"])
    verb = "votes for" if granted else "refuses"
    if raft.kind == "PRE_VOTE_REPLY":
        verb = "would vote for" if granted else "would refuse"
    whom = f"member {candidate}" if candidate is not None else endpoint(message.target_ip, message.target_port)
    text = f"member {raft.sender} {verb} {whom} in term {raft.term}"
    yield raft.kind.lower(), text, {"member": raft.sender, "for": candidate, "term": raft.term, "granted": granted}


def _timeout_now(cluster: _Cluster, message: Message, raft: Raft) -> Told:
    target = cluster.members.get((message.target_ip, message.target_port))
    if cluster.first_time("transfer", raft.sender, raft.term, message.target_ip, message.target_port):
        whom = f"member {target}" if target is not None else endpoint(message.target_ip, message.target_port)
        text = f"member {raft.sender} asks {whom} to lead after it, in term {raft.term}"
        yield "transfer", text, {"member": raft.sender, "to": target, "term": raft.term}


def _read_index(cluster: _Cluster, message: Message, raft: Raft) -> Told:
    asked = cluster.reads.asked
    # A repeated question keeps what was committed when it was asked first: an answer to that one may come.
    asked.setdefault((raft.sender, raft.fields["context"]), cluster.commit)
    if len(asked) > IN_FLIGHT_MAX:
        asked.popitem(last=False)
    yield from _reads(cluster, message.time_ns)


def _read_index_reply(cluster: _Cluster, message: Message, raft: Raft) -> Told:
    reader = cluster.members.get((message.target_ip, message.target_port))
    index = raft.fields["index"]
    whom = f"member {reader}" if reader is not None else endpoint(message.target_ip, message.target_port)
    if not raft.fields["granted"]:
        if cluster.first_time("read_refused", raft.sender, raft.term, reader):
            text = f"member {raft.sender} refuses reads of {whom} in term {raft.term}"
            yield "read_refused", text, {"member": raft.sender, "for": reader, "term": raft.term}
        return
    commit = cluster.reads.asked.pop((reader, raft.fields["context"]), 0) if reader is not None else 0
    if index < commit:
        text = f"STALE READ: {whom} asked when {commit} was committed, and member {raft.sender} says {index}"
        yield "stale_read", text, {"member": raft.sender, "for": reader, "commit": commit, "index": index}
    cluster.reads.granted_count += 1
    cluster.reads.index = max(cluster.reads.index, index)
    yield from _reads(cluster, message.time_ns)


def _reads(cluster: _Cluster, now_ns: int, *, at_once: bool = False) -> Told:
    reads = cluster.reads
    if reads.granted_count == reads.told_count or not (at_once or now_ns - reads.told_ns >= READ_INTERVAL_NS):
        return
    more = reads.granted_count - reads.told_count
    text = f"reads granted to followers: {reads.granted_count} (+{more}), at most after {reads.index}"
    reads.told_count, reads.told_ns = reads.granted_count, now_ns
    yield "reads", text, {"granted": reads.granted_count, "index": reads.index}


def _append(cluster: _Cluster, message: Message, raft: Raft) -> Told:
    if raft.term < cluster.term:
        if cluster.first_time("late", raft.sender, raft.term):
            text = f"member {raft.sender} still sends APPEND of term {raft.term}; term is {cluster.term}"
            yield "deposed", text, {"member": raft.sender, "term": raft.term}
        return
    if raft.term == cluster.term and cluster.leader not in (None, raft.sender):
        if cluster.first_time("two", raft.sender, raft.term):
            text = f"TWO LEADERS in term {raft.term}: members {cluster.leader} and {raft.sender}"
            yield "two_leaders", text, {"members": [cluster.leader, raft.sender], "term": raft.term}
        return
    if raft.term > cluster.term or cluster.leader is None:
        yield from _leads(cluster, message, raft)
    cluster.append_ns = message.time_ns
    fields = raft.fields
    cluster.round = max(cluster.round, fields["round"])
    if fields["count"]:
        sent = _Append(fields["prev_index"], fields["count"], fields["entries_term"])
        cluster.in_flight[raft.term, fields["round"], message.target_ip, message.target_port] = sent
        if len(cluster.in_flight) > IN_FLIGHT_MAX:
            cluster.in_flight.popitem(last=False)
        yield from _stored(cluster, raft.sender, sent)
    cluster.commit = max(cluster.commit, fields["commit"])
    cluster.global_commit = max(cluster.global_commit, fields["global_commit"])
    yield from _commit(cluster, message.time_ns)


def _leads(cluster: _Cluster, message: Message, raft: Raft) -> Told:
    yield from _commit(cluster, message.time_ns, at_once=True)
    text = f"member {raft.sender} leads term {raft.term}"
    values: Json = {"member": raft.sender, "term": raft.term}
    if cluster.leader is not None:
        gap_ns = message.time_ns - cluster.append_ns
        text += f", {duration(gap_ns)} after the last APPEND of member {cluster.leader} in term {cluster.term}"
        values |= {"without_leader_ns": gap_ns}
    if cluster.election_ns is not None:
        values["election_ns"] = message.time_ns - cluster.election_ns
        text += f", {duration(message.time_ns - cluster.election_ns)} after the election began"
    cluster.waits_for_answer = cluster.leader is not None
    cluster.old_append_ns = cluster.append_ns
    cluster.leader, cluster.term, cluster.election_ns = raft.sender, raft.term, None
    cluster.leader_address = (message.source_ip, message.source_port)
    cluster.round = 0
    cluster.answering.clear()
    yield "leader", text, values


def _answers(cluster: _Cluster, member: int, round_: int) -> None:
    """``member`` takes the leader of the term for its leader, and did so when that sent ``round_``.

    Once most do, none of them has voted in a later term: the election in hand has come to nothing. Most of those whose
    answers the capture shows at all, since one taken at a follower shows its own only.
    """
    cluster.answering.add(member)
    if cluster.election_ns is not None and round_ > cluster.election_round:
        cluster.loyal.add(member)
        if 2 * (1 + len(cluster.loyal)) > 1 + len(cluster.answering):  # the leader itself is one of them
            cluster.election_ns = None


def _append_reply(cluster: _Cluster, message: Message, raft: Raft) -> Told:
    fields = raft.fields
    if raft.term == cluster.term:
        _answers(cluster, raft.sender, fields["round"])
    sent = cluster.in_flight.pop((raft.term, fields["round"], message.source_ip, message.source_port), None)
    if fields["accepted"]:
        if sent is not None:
            yield from _stored(cluster, raft.sender, sent)
    elif cluster.first_time("reject", raft.sender, raft.term, fields["match_index"]):
        hint = f"{fields['hint_index']}@{fields['hint_term']}"
        text = f"member {raft.sender} rejects entries after {fields['match_index']} in term {raft.term}, hint {hint}"
        yield "reject", text, {"member": raft.sender, "term": raft.term} | fields


def _stored(cluster: _Cluster, member: int, sent: _Append) -> Told:
    """``member`` holds the entries now; told when it dropped others for them."""
    log = cluster.logs.setdefault(member, _Log())
    dropped = log.put(sent.prev_index + 1, sent.prev_index + sent.count, sent.term)
    if dropped is not None:
        first, last, term = dropped
        which = f"entries {first}..{last}" if last > first else f"entry {first}"
        text = f"member {member} drops {which} of term {term} for term {sent.term}"
        values: Json = {"member": member, "first_index": first, "last_index": last, "term": term}
        yield "truncation", text, values


def _commit(cluster: _Cluster, now_ns: int, *, at_once: bool = False) -> Told:
    if cluster.commit == cluster.told_commit or not (at_once or now_ns - cluster.told_ns >= COMMIT_INTERVAL_NS):
        return
    text = f"commit {cluster.commit} (+{cluster.commit - cluster.told_commit}) in term {cluster.term}"
    if cluster.global_commit:
        text += f", forgotten through {cluster.global_commit}"
    cluster.told_commit, cluster.told_ns = cluster.commit, now_ns
    values: Json = {"commit": cluster.commit, "global_commit": cluster.global_commit, "term": cluster.term}
    yield "commit", text, values


def _install_snapshot(cluster: _Cluster, message: Message, raft: Raft) -> Told:
    fields = raft.fields
    target = cluster.members.get((message.target_ip, message.target_port))
    whom = f"member {target}" if target is not None else endpoint(message.target_ip, message.target_port)
    if cluster.first_time("snapshot", raft.sender, raft.term, fields["index"], message.target_ip, message.target_port):
        text = f"member {raft.sender} sends {whom} the snapshot of {fields['index']}: {size(fields['total_bytes'])}"
        values: Json = {"member": raft.sender, "to": target, "term": raft.term}
        yield "snapshot", text, values | {"index": fields["index"], "total_bytes": fields["total_bytes"]}


def _install_snapshot_reply(cluster: _Cluster, message: Message, raft: Raft) -> Told:
    fields = raft.fields
    if fields["installed"] and cluster.first_time("installed", raft.sender, raft.term, fields["index"]):
        text = f"member {raft.sender} has installed the snapshot of {fields['index']}"
        yield "installed", text, {"member": raft.sender, "term": raft.term, "index": fields["index"]}


_HANDLERS: Final = {
    "HELLO": _hello,
    "FORMED": _formed,
    "PRE_VOTE": _stands,
    "VOTE": _stands,
    "PRE_VOTE_REPLY": _votes,
    "VOTE_REPLY": _votes,
    "APPEND": _append,
    "APPEND_REPLY": _append_reply,
    "READ_INDEX": _read_index,
    "READ_INDEX_REPLY": _read_index_reply,
    "TIMEOUT_NOW": _timeout_now,
    "VOTE_TRANSFER": _stands,
    "INSTALL_SNAPSHOT": _install_snapshot,
    "INSTALL_SNAPSHOT_REPLY": _install_snapshot_reply,
}
