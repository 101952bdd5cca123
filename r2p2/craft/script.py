"""What the verbs of ``r2p2 craft`` do: from statements to the frames of a capture.

What: :class:`Script` runs statements one after another. It knows hosts, the clock, request ids, and of the cluster as
much as the Raft verbs need to fill in numbers that were not given: term, end of the log, commit, rounds. Messages are
built by the Scapy layers, so a capture is independent of the codecs that will read it; nothing here draws lots or asks
a clock.

Frames are Ethernet, IPv4 and UDP as our own stack sends them, MAC addresses 02:00 and the four bytes of the address:
what ``r2p2 replay`` expects.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast

from r2p2.address import parse_address
from r2p2.capture import udp_packet
from r2p2.craft.language import BODY_BYTES_MAX, CraftError, Statement, Word, body, duration_ns, number, statements
from r2p2.errors import UserError

FRAMES_MAX: Final = 1_000_000
HOSTS_MAX: Final = 1000
DEFAULT_PORT: Final = 8000
DEFAULT_CLUSTER_ID: Final = 1
START_NS: Final = 1_700_000_000 * 1_000_000_000
STEP_NS: Final = 10_000  # between statements without a time
PACKET_STEP_NS: Final = 2_000  # between packets of a message
U64: Final = (1 << 64) - 1
_HEADER_LIMITS: Final = {
    "magic": 255,
    "header_size": 255,
    "type": 15,
    "policy": 15,
    "flags": 255,
    "rid": 65535,
    "p_order": 65535,
}


class Frame(NamedTuple):
    """One Ethernet frame and its time since the Unix epoch."""

    time_ns: int
    data: bytes


@dataclass(slots=True)
class _Host:
    """Somebody who sends; a member of the cluster when it has a slot."""

    ip: int
    port: int
    slot: int | None = None
    incarnation: int = 0
    rid: int = 0  # the last it used in a Raft message
    asked: dict[str, int] = field(default_factory=dict)  # whom it asked last, under which rid


@dataclass(slots=True)
class _Cluster:
    """What the Raft verbs know of the cluster."""

    cluster_id: int = DEFAULT_CLUSTER_ID
    term: int = 0
    last_index: int = 0
    last_term: int = 0
    commit: int = 0
    round: int = 0


@dataclass(slots=True)
class _Options:
    """The ``KEY=VALUE`` words of a statement, each to be used."""

    verb: Word
    left: list[tuple[Word, Word]]

    def take(self, key: str) -> Word | None:
        """The value of ``key``, or None. Raises CraftError where it is given twice."""
        found = self.take_all(key)
        if len(found) > 1:
            raise found[1].error(f"{key} is given a second time")
        return found[0] if found else None

    def take_all(self, key: str) -> list[Word]:
        """Every value of ``key``, in order."""
        found = [value for name, value in self.left if name.text == key]
        self.left = [(name, value) for name, value in self.left if name.text != key]
        return found

    def number(self, key: str, default: int, largest: int = U64) -> int:
        """A number, or the default."""
        word = self.take(key)
        return default if word is None else number(word, largest)


def frames(text: str) -> Iterator[Frame]:
    """The frames of a description, in order of time. Raises CraftError where it is wrong."""
    script = Script()
    for statement in statements(text):
        yield from script.run(statement)


class Script:
    """The state between statements."""

    def __init__(self) -> None:
        """No host, time 0. Raises UserError where scapy is not installed."""
        try:
            import scapy_layers
            from scapy_layers import raft
        except ImportError as error:
            raise UserError(f"craft builds messages with scapy: {error}", "pip install scapy") from error
        self._layers: Any = scapy_layers
        self._raft: Any = raft
        self._now_ns = 0
        self._frames_count = 0
        self._hosts: dict[str, _Host] = {}
        self._cluster = _Cluster()

    def run(self, statement: Statement) -> list[Frame]:
        """Does one statement; the frames it adds."""
        verb = statement.verb
        does = _VERBS.get(verb.text)
        if does is None:
            raise verb.error(f"no verb {verb.text!r}; there are {', '.join(_VERBS)}")
        self._move_clock(statement, moves=verb.text not in _SILENT)
        options = _Options(verb, list(statement.options))
        try:
            made = does(self, statement, options)
        except (struct.error, ValueError, OverflowError) as error:
            raise verb.error(f"cannot be built: {error}") from error
        if options.left:
            key = options.left[0][0]
            raise key.error(f"{verb.text} has no option {key.text!r}")
        self._frames_count += len(made)
        if self._frames_count > FRAMES_MAX:
            raise verb.error(f"more than {FRAMES_MAX} packets")
        return made

    # ---- time and hosts ----

    def _move_clock(self, statement: Statement, *, moves: bool) -> None:
        when = statement.when
        if when is None:
            self._now_ns += STEP_NS if moves and self._frames_count else 0
        elif when.text[0] == "+":
            self._now_ns += duration_ns(when.after(1))
        else:
            at_ns = duration_ns(when.after(1))
            if at_ns < self._now_ns:
                raise when.error(f"{when.text} is before the packet before it, at {self._now_ns} ns")
            self._now_ns = at_ns

    def _host(self, word: Word) -> _Host:
        if word.text not in self._hosts:
            raise word.error(f"no host {word.text!r}; there are {', '.join(self._hosts) or 'none yet'}")
        return self._hosts[word.text]

    def _member(self, word: Word) -> _Host:
        host = self._host(word)
        if host.slot is None:
            raise word.error(f"{word.text} is a host, not a member of the cluster")
        return host

    def _ends(self, statement: Statement) -> tuple[_Host, _Host, tuple[Word, ...]]:
        """``FROM > TO`` and the words after it."""
        words = statement.words
        if len(words) < 3 or words[1].text != ">":
            place = words[min(1, len(words) - 1)] if words else statement.verb
            raise place.error(f"{statement.verb.text} is followed by FROM > TO")
        return self._host(words[0]), self._host(words[2]), words[3:]

    def _declare(self, statement: Statement, slot: int | None, incarnation: int) -> list[Frame]:
        words = statement.words
        if len(words) != 2:
            raise statement.verb.error(f"{statement.verb.text} NAME IP[:PORT]")
        name, address = words
        if not re.fullmatch(r"[A-Za-z_][\w.-]*", name.text):
            raise name.error(f"{name.text!r} is not a name: a letter, then letters, digits, _ . -")
        if name.text in self._hosts:
            raise name.error(f"there is a host {name.text!r} already")
        if len(self._hosts) >= HOSTS_MAX:
            raise name.error(f"more than {HOSTS_MAX} hosts")
        try:
            ip, port = parse_address(address.text, default_port=DEFAULT_PORT)
        except UserError as error:
            raise address.error(str(error)) from error
        self._hosts[name.text] = _Host(ip, port, slot, incarnation)
        return []

    def host(self, statement: Statement, options: _Options) -> list[Frame]:
        """``host NAME IP[:PORT]``."""
        return self._declare(statement, None, 0)

    def member(self, statement: Statement, options: _Options) -> list[Frame]:
        """``member NAME IP[:PORT] [slot=N] [incarnation=N]``."""
        taken = [host.slot for host in self._hosts.values() if host.slot is not None]
        slot = options.number("slot", len(taken), 65534)
        if slot in taken:
            raise statement.verb.error(f"slot {slot} is taken")
        incarnation = options.number("incarnation", 0x1000_0000_0000_0000 + slot)
        return self._declare(statement, slot, incarnation)

    def cluster(self, statement: Statement, options: _Options) -> list[Frame]:
        """``cluster [id=N] [term=N] [last=INDEX@TERM] [commit=N]``."""
        cluster = self._cluster
        cluster.cluster_id = options.number("id", cluster.cluster_id, 0xFFFFFFFF)
        cluster.term = options.number("term", cluster.term)
        cluster.last_index, cluster.last_term = self._last(options)
        cluster.commit = options.number("commit", cluster.commit)
        return []

    # ---- datagrams ----

    def _datagram(self, source: _Host, target: _Host, data: bytes, options: _Options | None = None) -> Frame:
        mac = b"\x02\x00" + target.ip.to_bytes(4, "big") + b"\x02\x00" + source.ip.to_bytes(4, "big") + b"\x08\x00"
        packet = udp_packet(source.ip, source.port, target.ip, target.port, data)
        return Frame(START_NS + self._now_ns, mac + packet)

    def _message(self, source: _Host, target: _Host, message: Any, options: _Options) -> list[Frame]:
        """The packets of a message; ``packets=`` chooses them, ``cut=`` shortens each datagram."""
        parts = [bytes(part) for part in self._layers.packets(message)]
        chosen = options.take("packets")
        if chosen is not None:
            parts = [parts[self._part(chosen, text, len(parts))] for text in chosen.text.split(",")]
        cut = options.number("cut", 65_507, 65_507)
        made = []
        for place, part in enumerate(parts):
            self._now_ns += PACKET_STEP_NS if place else 0
            made.append(self._datagram(source, target, part[:cut]))
        return made

    def _part(self, word: Word, text: str, count: int) -> int:
        if not text.isdigit() or int(text) >= count:
            raise word.error(f"packet {text!r} of a message of {count}, counted from 0")
        return int(text)

    def _one_body(self, words: tuple[Word, ...]) -> bytes:
        if len(words) > 1:
            raise words[1].error("one body at most")
        return body(words[0]) if words else b""

    def _header(self, options: _Options, names: tuple[str, ...]) -> dict[str, int]:
        """The given header fields; types and policies by name or number."""
        named = {
            "type": {name: value for value, name in self._layers.r2p2.TYPES.items()},
            "policy": {name: value for value, name in self._layers.r2p2.POLICIES.items()},
        }
        made = {}
        for name in names:
            word = options.take(name)
            if word is not None:
                known = named.get(name, {})
                value = known.get(word.text)
                made[name] = number(word, _HEADER_LIMITS[name]) if value is None else value
        return made

    def _pair(self, statement: Statement, options: _Options, kind: str, payload: str = "") -> list[Frame]:
        source, target, words = self._ends(statement)
        fields = self._header(options, ("rid", "policy") if kind == "REQUEST" else ("rid",))
        head = self._layers.R2P2(type=kind, **fields)
        if payload:
            if words:
                raise words[0].error(f"{statement.verb.text} has no body")
            return self._message(source, target, head / getattr(self._layers, payload)(), options)
        return self._message(source, target, _over(head, self._one_body(words)), options)

    def request(self, statement: Statement, options: _Options) -> list[Frame]:
        """``request FROM > TO [rid=] [policy=] [BODY]``."""
        return self._pair(statement, options, "REQUEST")

    def response(self, statement: Statement, options: _Options) -> list[Frame]:
        """``response FROM > TO [rid=] [BODY]``."""
        return self._pair(statement, options, "RESPONSE")

    def ack(self, statement: Statement, options: _Options) -> list[Frame]:
        """``ack FROM > TO [rid=]``."""
        return self._pair(statement, options, "ACK", "R2P2Ack")

    def drop(self, statement: Statement, options: _Options) -> list[Frame]:
        """``drop FROM > TO [rid=]``."""
        return self._pair(statement, options, "DROP", "R2P2Drop")

    def packet(self, statement: Statement, options: _Options) -> list[Frame]:
        """``packet FROM > TO [FIELD=...] [BODY]``: one packet whose header is as given, right or wrong."""
        source, target, words = self._ends(statement)
        fields = self._header(options, tuple(_HEADER_LIMITS))
        cut = options.number("cut", BODY_BYTES_MAX, 65_507)  # without one all of it, which may be too much
        made = bytes(_over(self._layers.R2P2(**fields), self._one_body(words)))
        return [self._datagram(source, target, made[:cut])]

    def raw(self, statement: Statement, options: _Options) -> list[Frame]:
        """``raw FROM > TO [BODY]``: a datagram of any bytes."""
        source, target, words = self._ends(statement)
        return [self._datagram(source, target, self._one_body(words))]

    def flood(self, statement: Statement, options: _Options) -> list[Frame]:
        """``flood FROM > TO count=N [every=TIME] [rid=] [policy=] [BODY]``; {i} in the body counts from 0."""
        source, target, words = self._ends(statement)
        count_word = options.take("count")
        if count_word is None:
            raise statement.verb.error("flood needs count=N")
        count = number(count_word, FRAMES_MAX)
        every = options.take("every")
        step_ns = duration_ns(every) if every is not None else STEP_NS
        fields = self._header(options, ("rid", "policy"))
        first, load = fields.pop("rid", 1), self._one_body(words)
        counts = bool(words) and "{i}" in words[0].text
        made: list[Frame] = []
        start_ns = self._now_ns
        head = bytes(self._layers.R2P2(type="REQUEST", **fields))
        for i in range(count):
            self._now_ns = max(self._now_ns, start_ns + i * step_ns)
            rid, data = (first + i) & 0xFFFF, load
            if counts:
                # In the word, not in the bytes: resp: counts the bytes of its parts.
                data = body(words[0]._replace(text=words[0].text.replace("{i}", str(i))))
            if len(data) <= self._layers.r2p2.PAYLOAD_BYTES_MAX:
                # The same for every one but the request id: the layer builds it once.
                one = head[:4] + rid.to_bytes(2, "big") + head[6:] + data
                made.append(self._datagram(source, target, one))
            else:
                message = _over(self._layers.R2P2(type="REQUEST", rid=rid, **fields), data)
                made += self._message(source, target, message, _Options(statement.verb, []))
            if self._frames_count + len(made) > FRAMES_MAX:
                raise count_word.error(f"more than {FRAMES_MAX} packets")
        return made

    # ---- Raft ----

    def raft(self, statement: Statement, options: _Options) -> list[Frame]:
        """``raft KIND FROM > TO [FIELD=...] [rid=] [entry=...]``: one message, what is not given filled in."""
        if not statement.words:
            raise statement.verb.error("raft KIND FROM > TO")
        kind, *rest = statement.words
        numbers = {name: value for value, name in self._raft.KINDS.items()}
        if kind.text not in numbers:
            raise kind.error(f"no kind {kind.text!r}; there are {', '.join(numbers)}")
        ends = Statement(statement.verb, statement.when, tuple(rest), statement.options)
        source, target, words = self._ends(ends)
        if words:
            raise words[0].error("entries are given as entry=CLIENT/RID/BODY or entry=noop")
        self._member(rest[0])
        layer = self._raft.MESSAGES[numbers[kind.text]]
        fields: dict[str, Any] = {}
        for one in layer.fields_desc:
            if (word := options.take(one.name)) is not None:
                if one.name in ("reserved", "entries", "members"):
                    raise word.error(f"{one.name} cannot be given")
                fields[one.name] = number(word, (1 << 8 * struct.calcsize(one.fmt)) - 1)
        entries = self._entries(options, kind if kind.text not in ("APPEND", "FORWARD") else None)
        if entries:
            fields["entries"] = entries
            if kind.text == "APPEND":
                fields.setdefault("entries_term", fields.get("term", self._cluster.term))
        if kind.text == "FORMED":
            fields["members"] = self._members()
        rid = options.take("rid")
        return self._send(source, target, layer, fields, options, None if rid is None else number(rid, 65535))

    def _entries(self, options: _Options, refused_by: Word | None) -> list[Any]:
        words = options.take_all("entry")
        if words and refused_by is not None:
            raise words[0].error(f"{refused_by.text} has no entries")
        return [self._entry(word) for word in words]

    def _entry(self, word: Word) -> Any:
        if word.text == "noop":
            return self._layers.RaftEntry(kind="NOOP", policy=0)
        name, _, rest = word.text.partition("/")
        rid, slash, _ = rest.partition("/")
        if not slash:
            raise word.error("an entry is noop or CLIENT/RID/BODY")
        client = self._host(Word(name, word.line, word.column))
        rid_word = Word(rid, word.line, word.column + len(name) + 1)
        ip = ".".join(map(str, client.ip.to_bytes(4, "big")))
        return self._layers.RaftEntry(
            client_ip=ip,
            client_port=client.port,
            rid=number(rid_word, 65535),
            policy="REPLICATED_ROUTE",
            body=body(word.after(len(name) + len(rid) + 2)),
        )

    def _members(self) -> list[Any]:
        found = sorted((host.slot, host.incarnation) for host in self._hosts.values() if host.slot is not None)
        return [self._layers.RaftMember(member=slot, incarnation=incarnation) for slot, incarnation in found]

    def _send(
        self,
        source: _Host,
        target: _Host,
        layer: Any,
        fields: dict[str, Any],
        options: _Options,
        rid: int | None = None,
    ) -> list[Frame]:
        """One Raft message; a reply has the rid of what ``target`` asked ``source`` last."""
        r2p2_type = self._raft.R2P2_TYPES[layer().kind]
        to, frm = self._name(target), self._name(source)
        if rid is None and r2p2_type == self._raft.RAFT_REP:
            rid = target.asked.get(frm, 1)
        elif rid is None:
            source.rid = rid = source.rid % 65535 + 1
        if r2p2_type == self._raft.RAFT_REQ:
            source.asked[to] = rid
        common = {
            "sender": source.slot,
            "cluster_id": self._cluster.cluster_id,
            "incarnation": source.incarnation,
            "term": self._cluster.term,
        }
        message = self._layers.R2P2(rid=rid) / layer(**(common | fields))
        return self._message(source, target, message, options)

    def _name(self, host: _Host) -> str:
        return next(name for name, one in self._hosts.items() if one is host)

    def _others(self, word: Word | None, apart: _Host) -> list[_Host]:
        """The members a word lists, or all but one."""
        if word is None:
            return [host for host in self._hosts.values() if host.slot is not None and host is not apart]
        return [self._member(Word(name, word.line, word.column)) for name in word.text.split(",") if name]

    def _last(self, options: _Options) -> tuple[int, int]:
        word = options.take("last")
        if word is None:
            return self._cluster.last_index, self._cluster.last_term
        index = word.text.partition("@")[0]
        if index == word.text:
            raise word.error(f"{word.text!r} is not INDEX@TERM")
        return number(Word(index, *word[1:]), U64), number(word.after(len(index) + 1), U64)

    def _leader(self, statement: Statement) -> _Host:
        if len(statement.words) != 1:
            raise statement.verb.error(f"{statement.verb.text} MEMBER")
        return self._member(statement.words[0])

    def form(self, statement: Statement, options: _Options) -> list[Frame]:
        """``form MEMBER``: all say HELLO, and MEMBER tells that the cluster has formed."""
        leader = self._leader(statement)
        others = self._others(None, leader)
        made: list[Frame] = []
        for source, target in [(leader, other) for other in others] + [(other, leader) for other in others]:
            hello = {"coordinator": int(source is leader), "term": 0}
            made += self._step(made, source, target, self._layers.RaftHello, hello)
        for other in others:
            formed = {"members": self._members(), "term": 0}
            made += self._step(made, leader, other, self._layers.RaftFormed, formed)
        return made

    def _step(
        self,
        made: list[Frame],
        source: _Host,
        target: _Host,
        layer: Any,
        fields: dict[str, Any],
        rid: int | None = None,
    ) -> list[Frame]:
        """A further message of the same statement, 10 us after the one before."""
        self._now_ns += STEP_NS if made else 0
        return self._send(source, target, layer, fields, _Options(Word("", 0, 0), []), rid)

    def elect(self, statement: Statement, options: _Options) -> list[Frame]:
        """``elect MEMBER [term=N] [last=INDEX@TERM] [voters=A,B] [refusing=C]``: a pre-vote and a vote round."""
        winner = self._leader(statement)
        term = options.number("term", self._cluster.term + 1)
        last_index, last_term = self._last(options)
        refusing = self._others(options.take("refusing") or Word("", 0, 0), winner)
        voters = self._others(options.take("voters"), winner)
        voters += [host for host in refusing if host not in voters]
        fields = {"term": term, "last_index": last_index, "last_term": last_term}
        layers = self._layers
        made: list[Frame] = []
        rounds = ((layers.RaftPreVote, layers.RaftPreVoteReply), (layers.RaftVote, layers.RaftVoteReply))
        for asks, answers in rounds:
            for voter in voters:
                made += self._step(made, winner, voter, asks, fields)
            for voter in voters:
                granted = voter not in refusing
                # Only a granted pre-vote speaks of the term asked for.
                said = self._cluster.term if answers is layers.RaftPreVoteReply and not granted else term
                made += self._step(made, voter, winner, answers, {"term": said, "granted": int(granted)})
        cluster = self._cluster
        cluster.term, cluster.last_index, cluster.last_term = term, last_index, last_term
        return made

    def replicate(self, statement: Statement, options: _Options) -> list[Frame]:
        """``replicate MEMBER [entry=...] [to=A,B] [lost=C]``: an APPEND to each and its reply; without entries a
        heartbeat.
        """
        leader = self._leader(statement)
        targets = self._others(options.take("to"), leader)
        silent = self._others(options.take("lost") or Word("", 0, 0), leader)
        entries = self._entries(options, None)
        cluster = self._cluster
        cluster.round += 1
        append = {
            "prev_index": cluster.last_index,
            "prev_term": cluster.last_term,
            "entries_term": cluster.term if entries else 0,
            "commit": cluster.commit,
            "round": cluster.round,
            "entries": entries,
        }
        match = cluster.last_index + len(entries)
        reply = {"round": cluster.round, "match_index": match, "applied_index": cluster.commit, "accepted": 1}
        made: list[Frame] = []
        for target in targets:
            made += self._step(made, leader, target, self._layers.RaftAppend, append)
        answering = [target for target in targets if target not in silent]
        for target in answering:
            made += self._step(made, target, leader, self._layers.RaftAppendReply, reply)
        if entries:
            cluster.last_index, cluster.last_term = match, cluster.term
        members_count = sum(host.slot is not None for host in self._hosts.values())
        if cluster.last_term == cluster.term and 1 + len(answering) > members_count // 2:
            cluster.commit = max(cluster.commit, match)
        return made


def _over(head: Any, load: bytes) -> Any:
    """The bytes above the header; nothing where there are none."""
    from scapy.packet import Raw

    return head / Raw(load) if load else head


_Verb = Callable[[Script, Statement, _Options], list[Frame]]
_VERBS: Final = cast(
    "dict[str, _Verb]",
    {
        name: getattr(Script, name)
        for name in (
            "host",
            "member",
            "cluster",
            "request",
            "response",
            "ack",
            "drop",
            "flood",
            "packet",
            "raw",
            "raft",
            "form",
            "elect",
            "replicate",
        )
    },
)
# Verbs that put nothing on the wire take no time.
_SILENT: Final = {"host", "member", "cluster"}
__all__ = ["FRAMES_MAX", "CraftError", "Frame", "Script", "frames"]
