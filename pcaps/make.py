"""Makes the golden captures of this folder from the Scapy layers, byte for byte the same each time.

``python pcaps/make.py`` writes them, ``python pcaps/make.py --check`` says which differ from what it would write (exit
code 1), ``--list`` what there is and how it is replayed. A test does the same. ``echo-in.pcap`` is what an echo server
at 10.0.0.1:8000 is sent, ``echo-out.pcap`` what docs/wire.md demands in answer, and no more: everything malformed gets
silence. ``election.pcap``, ``replication.pcap`` and ``forward.pcap`` are made-up exchanges of three nodes. The other
pairs, one a subject, are in pairs.py; what real members say is recorded by record.py.

A real server may order its answers differently across kinds (an ACK overtakes a RESPONSE that waits for its batch) and
stamps its own times, so answers to echo-in.pcap are compared kind by kind: tests/scapy/golden.py.
"""

from __future__ import annotations

import argparse
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from scapy_layers import (
    R2P2,
    R2P2Ack,
    R2P2Drop,
    RaftAppend,
    RaftAppendReply,
    RaftEntry,
    RaftFormed,
    RaftForward,
    RaftHello,
    RaftMember,
    RaftPreVote,
    RaftPreVoteReply,
    RaftVote,
    RaftVoteReply,
    packets,
)

FOLDER: Final = Path(__file__).resolve().parent
START_S: Final = 1_700_000_000
SERVER, CLIENT = 1, 2
PORT: Final = 8000
CLIENT_PORT: Final = 30000


def ip(host: int) -> str:
    """10.0.0.<host>."""
    return f"10.0.0.{host}"


def mac(host: int) -> str:
    """02:00:0a:00:00:<host>: locally administered, the IPv4 address in it."""
    return f"02:00:0a:00:00:{host:02x}"


def ether(source: int, target: int, packet: Packet, **fields: Any) -> Packet:
    """An IPv4 frame with the header our own stack would send; ``fields`` change it."""
    header: dict[str, Any] = {"src": ip(source), "dst": ip(target), "id": 0, "flags": "DF", "ttl": 64} | fields
    return Ether(src=mac(source), dst=mac(target)) / IP(**header) / packet


class Capture:
    """Frames with their times in microseconds since the start."""

    def __init__(self) -> None:
        """At time 0."""
        self.now_us = 0
        self.frames: list[tuple[int, bytes]] = []

    def frame(self, frame: Packet | bytes, after_us: int = 10) -> None:
        """Adds a frame ``after_us`` after the one before."""
        self.now_us += after_us
        self.frames.append((self.now_us, bytes(frame)))

    def message(
        self, source: int, target: int, message: Packet, *, after_us: int = 10, client_port: int = CLIENT_PORT
    ) -> None:
        """Adds the packets of an R2P2 message; hosts above 3 are clients and use ``client_port``."""
        for part in packets(message):
            ports = UDP(sport=_port(source, client_port), dport=_port(target, client_port))
            self.frame(ether(source, target, ports / part), after_us)
            after_us = 2

    def bytes(self) -> bytes:
        """The file: pcap, little-endian, microseconds, Ethernet."""
        made = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
        for time_us, frame in self.frames:
            seconds, microseconds = divmod(time_us, 1_000_000)
            made.append(struct.pack("<IIII", START_S + seconds, microseconds, len(frame), len(frame)) + frame)
        return b"".join(made)


def _port(host: int, client_port: int) -> int:
    return PORT if host <= 3 else client_port


# --- the echo server -------------------------------------------------------------------------------------------------


def _bodies() -> dict[str, bytes]:
    random = Random(2)
    return {name: random.randbytes(length) for name, length in (("full", 1464), ("large", 4000), ("pair", 1465))}


BODIES: Final = _bodies()


def to_server(packet: Packet, port: int = CLIENT_PORT, **fields: Any) -> Packet:
    return ether(CLIENT, SERVER, UDP(sport=port, dport=PORT) / packet, **fields)


def to_client(packet: Packet, port: int = CLIENT_PORT) -> Packet:
    return ether(SERVER, CLIENT, UDP(sport=PORT, dport=port) / packet)


def malformed() -> list[Packet | bytes]:
    """Frames that must get no answer, whatever the layer that refuses them."""
    good = R2P2(rid=200) / Raw(b"never answered")
    foreign_arp = ARP(op="who-has", hwsrc=mac(CLIENT), psrc=ip(CLIENT), pdst=ip(77))
    whole = bytes(to_server(good))
    return [
        to_server(R2P2(rid=200, magic=0xCD) / Raw(b"x")),
        to_server(R2P2(rid=200, header_size=7) / Raw(b"x")),
        to_server(R2P2(rid=200, header_size=0) / Raw(b"x")),
        to_server(R2P2(rid=200, header_size=200) / Raw(b"x")),
        to_server(R2P2(rid=200, type=9) / Raw(b"x")),
        to_server(R2P2(rid=200, policy=9) / Raw(b"x")),
        to_server(R2P2(rid=200, flags=0xE0) / Raw(b"x")),
        to_server(R2P2(rid=200, flags="FIRST+LAST", p_order=2) / Raw(b"x")),
        to_server(R2P2(rid=200, flags="FIRST", p_order=1) / Raw(b"x")),
        to_server(R2P2(rid=200, flags="FIRST+LAST", p_order=0) / Raw(b"x")),
        to_server(R2P2(rid=200, flags="FIRST", p_order=255) / Raw(bytes(14))),
        to_server(R2P2(rid=200, flags=0, p_order=0) / Raw(b"x")),
        to_server(R2P2(rid=200, flags=0, p_order=254) / Raw(b"x")),
        to_server(R2P2(rid=201, flags=0, p_order=1) / Raw(b"no first packet")),
        to_server(Raw(bytes(good)[:5])),
        to_server(Raw(b"")),
        # Valid, but not what a server is asked.
        to_server(R2P2(rid=202, type="RESPONSE") / Raw(b"x")),
        to_server(R2P2(rid=202) / R2P2Ack()),
        to_server(R2P2(rid=202) / R2P2Drop()),
        # Broken below R2P2.
        ether(CLIENT, SERVER, UDP(sport=CLIENT_PORT, dport=PORT, chksum=0x1234) / good),
        ether(CLIENT, SERVER, UDP(sport=CLIENT_PORT, dport=PORT, len=200) / good),
        ether(CLIENT, SERVER, UDP(sport=CLIENT_PORT, dport=PORT, len=7) / good),
        to_server(good, chksum=0x1234),
        to_server(good, len=200),
        to_server(good, ttl=0),
        to_server(good, flags="MF"),
        to_server(good, flags=0, frag=10),
        to_server(good, version=5),
        whole[:20],
        whole[:40],
        Ether(src=mac(CLIENT), dst=mac(SERVER)) / IPv6(src="fe80::2", dst="fe80::1") / UDP(sport=1, dport=PORT) / good,
        # For somebody else.
        ether(CLIENT, 77, UDP(sport=CLIENT_PORT, dport=PORT) / good),
        ether(CLIENT, SERVER, UDP(sport=CLIENT_PORT, dport=PORT + 1) / good),
        Ether(src=mac(CLIENT), dst="ff:ff:ff:ff:ff:ff") / foreign_arp,
    ]


def echo_in() -> Capture:
    """What the echo server is sent."""
    capture = Capture()
    ask = ARP(op="who-has", hwsrc=mac(CLIENT), psrc=ip(CLIENT), pdst=ip(SERVER))
    capture.frame(Ether(src=mac(CLIENT), dst="ff:ff:ff:ff:ff:ff") / ask)
    capture.frame(ether(CLIENT, SERVER, ICMP(type="echo-request", id=7, seq=1) / Raw(b"are you there?")))
    capture.frame(to_server(R2P2(rid=1) / Raw(b"1234")))
    capture.frame(to_server(R2P2(rid=2)))
    capture.frame(to_server(R2P2(rid=3) / Raw(BODIES["full"])))
    capture.frame(bytes(to_server(R2P2(rid=4) / Raw(b"padded"))).ljust(60, b"\xee"))
    capture.frame(to_server(R2P2(rid=5, policy="FIXED_ROUTE") / Raw(b"fixed")))
    capture.frame(to_server(R2P2(rid=6, extension=Raw(b"\xaa\xbb")) / Raw(b"skip the extension")))
    capture.frame(to_server(R2P2(rid=1) / Raw(b"same rid, other client"), port=CLIENT_PORT + 1))
    capture.frame(to_server(R2P2(rid=7, policy="REPLICATED_ROUTE") / Raw(b"nobody replicates here")))
    requests = [
        packets(R2P2(rid=rid) / Raw(BODIES[name])) for rid, name in ((10, "large"), (11, "large"), (12, "pair"))
    ]
    for parts in requests:
        capture.frame(to_server(parts[0]))
    in_order, mixed, repeated = requests
    mixed = [mixed[3], mixed[1], mixed[2]]
    repeated = [repeated[1]]
    for part in (*in_order[1:], *mixed, *repeated):
        capture.frame(to_server(part))
    for frame in malformed():
        capture.frame(frame)
    capture.frame(to_server(R2P2(rid=65535) / Raw(b"still alive")))
    return capture


def echo_out() -> Capture:
    """What it must answer, in the order of the requests."""
    capture = Capture()

    def respond(rid: int, body: bytes, port: int = CLIENT_PORT) -> None:
        for part in packets(R2P2(rid=rid, type="RESPONSE") / Raw(body)):
            capture.frame(to_client(part, port))

    reply = ARP(op="is-at", hwsrc=mac(SERVER), psrc=ip(SERVER), hwdst=mac(CLIENT), pdst=ip(CLIENT))
    capture.frame(Ether(src=mac(SERVER), dst=mac(CLIENT)) / reply)
    capture.frame(ether(SERVER, CLIENT, ICMP(type="echo-reply", id=7, seq=1) / Raw(b"are you there?")))
    respond(1, b"1234")
    respond(2, b"")
    respond(3, BODIES["full"])
    respond(4, b"padded")
    respond(5, b"fixed")
    respond(6, b"skip the extension")
    respond(1, b"same rid, other client", CLIENT_PORT + 1)
    capture.frame(to_client(R2P2(rid=7) / R2P2Drop()))
    for rid in (10, 11, 12):
        capture.frame(to_client(R2P2(rid=rid) / R2P2Ack()))
    respond(10, BODIES["large"])
    respond(11, BODIES["large"])
    respond(12, BODIES["pair"])
    respond(65535, b"still alive")
    return capture


# --- three nodes -----------------------------------------------------------------------------------------------------

USER: Final = 9  # the client of the cluster: 10.0.0.9
CLUSTER_ID: Final = 0xC0FFEE


def _incarnation(member: int) -> int:
    return 0x1000_0000_0000_0000 + member


class Cluster(Capture):
    """Nodes 1, 2, 3 and a client, and the words they use; each method is one message on the wire."""

    def __init__(self) -> None:
        """No message sent yet."""
        super().__init__()
        self.rid = 0

    def ask(self, source: int, target: int, layer: type[Packet], after_us: int = 10, **fields: Any) -> None:
        """A RAFT_REQ or RAFT_MSG with the next rid."""
        self.rid += 1
        self.message(source, target, R2P2(rid=self.rid) / self._raft(source, layer, fields), after_us=after_us)

    def reply(self, source: int, target: int, rid: int, layer: type[Packet], after_us: int = 10, **fields: Any) -> None:
        """A RAFT_REP to the request ``rid``."""
        self.message(source, target, R2P2(rid=rid) / self._raft(source, layer, fields), after_us=after_us)

    def _raft(self, source: int, layer: type[Packet], fields: dict[str, Any]) -> Packet:
        common: dict[str, Any] = {"sender": source, "cluster_id": CLUSTER_ID, "incarnation": _incarnation(source)}
        return layer(**common, **fields)

    def elect(self, winner: int, others: list[int], term: int, last: tuple[int, int], after_us: int) -> None:
        """A pre-vote round and a vote round, every one of ``others`` in favour."""
        fields = {"term": term, "last_index": last[0], "last_term": last[1]}
        for asks, answers in ((RaftPreVote, RaftPreVoteReply), (RaftVote, RaftVoteReply)):
            for other in others:
                self.ask(winner, other, asks, after_us, **fields)
                after_us = 10
            for place, other in enumerate(others):
                self.reply(other, winner, self.rid - len(others) + 1 + place, answers, 40, term=term, granted=1)

    def append(self, leader: int, others: list[int], after_us: int = 10, **fields: Any) -> dict[int, int]:
        """The same APPEND to each of ``others``; the rid each got."""
        rids = {}
        for other in others:
            self.ask(leader, other, RaftAppend, after_us, **fields)
            rids[other] = self.rid
            after_us = 2
        return rids

    def accept(self, leader: int, rids: dict[int, int], match: int, applied: int, **fields: Any) -> None:
        """Each follower's APPEND_REPLY."""
        for other, rid in rids.items():
            values = {"match_index": match, "applied_index": applied, "accepted": 1} | fields
            self.reply(other, leader, rid, RaftAppendReply, 45, **values)


def command(*words: bytes) -> bytes:
    """A RESP request."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def entry(rid: int, body: bytes, time_ms: int = 0) -> Packet:
    """A client's request in the log; with the time from then on, where the leader gave it one."""
    time: dict[str, Any] = {"flags": "TIMED", "time_ms": time_ms} if time_ms else {}
    return RaftEntry(client_ip=ip(USER), client_port=CLIENT_PORT, rid=rid, policy="REPLICATED_ROUTE", body=body, **time)


NOOP: Final = RaftEntry(kind="NOOP", policy=0)
OK: Final = b"+OK\r\n"


def _set(capture: Cluster, target: int, rid: int, body: bytes, after_us: int) -> None:
    capture.message(USER, target, R2P2(rid=rid, policy="REPLICATED_ROUTE") / Raw(body), after_us=after_us)


def _answer(capture: Cluster, source: int, rid: int, body: bytes = OK, after_us: int = 12) -> None:
    capture.message(source, USER, R2P2(rid=rid, type="RESPONSE") / Raw(body), after_us=after_us)


def election() -> Cluster:
    """A cluster forms, elects 1, loses it and elects 2; 1 comes back and drops what it never committed."""
    capture = Cluster()
    for source, target in ((1, 2), (1, 3), (2, 1), (3, 1)):
        capture.ask(source, target, RaftHello, coordinator=int(source == 1), to_incarnation=0)
    members = [RaftMember(member=member, incarnation=_incarnation(member)) for member in (1, 2, 3)]
    for target in (2, 3):
        capture.ask(1, target, RaftFormed, members=members)
    capture.elect(1, [2, 3], 1, (0, 0), after_us=120_000)
    rids = capture.append(1, [2, 3], term=1, entries_term=1, round=1, entries=[NOOP])
    capture.accept(1, rids, 1, 0, term=1, round=1)
    first, second = command(b"SET", b"colour", b"blue"), command(b"SET", b"colour", b"green")
    _set(capture, 1, 1, first, after_us=1000)
    rids = capture.append(
        1, [2, 3], term=1, prev_index=1, prev_term=1, entries_term=1, commit=1, round=2, entries=[entry(1, first)]
    )
    capture.accept(1, rids, 2, 1, term=1, round=2)
    _answer(capture, 1, 1)
    # Member 1 appends entry 3 and dies: the entry reaches nobody.
    _set(capture, 1, 2, second, after_us=500)
    capture.append(
        1, [2], term=1, prev_index=2, prev_term=1, entries_term=1, commit=2, round=3, entries=[entry(2, second)]
    )
    capture.elect(2, [3], 2, (2, 1), after_us=163_000)
    rids = capture.append(
        2, [1, 3], term=2, prev_index=2, prev_term=1, entries_term=2, commit=2, round=1, entries=[NOOP]
    )
    capture.accept(2, {3: rids[3]}, 3, 2, term=2, round=1)
    # The client tries the next server.
    _set(capture, 2, 2, second, after_us=5000)
    rids = capture.append(
        2, [3], term=2, prev_index=3, prev_term=2, entries_term=2, commit=3, round=2, entries=[entry(2, second)]
    )
    capture.accept(2, rids, 4, 3, term=2, round=2)
    _answer(capture, 2, 2)
    # Member 1 is back with entry 3 of term 1.
    rids = capture.append(2, [1, 3], 20_000, term=2, prev_index=4, prev_term=2, commit=4, global_commit=0, round=3)
    reject = {"match_index": 4, "accepted": 0, "hint_index": 3, "hint_term": 1}
    capture.reply(1, 2, rids[1], RaftAppendReply, 45, term=2, round=3, applied_index=2, **reject)
    capture.accept(2, {3: rids[3]}, 4, 4, term=2, round=3)
    missing = [NOOP, entry(2, second)]
    rids = capture.append(2, [1], term=2, prev_index=2, prev_term=1, entries_term=2, commit=4, round=4, entries=missing)
    capture.accept(2, rids, 4, 4, term=2, round=4)
    capture.append(2, [1, 3], 10_000, term=2, prev_index=4, prev_term=2, commit=4, global_commit=4, round=5)
    return capture


def replication() -> Cluster:
    """Normal operation: a batch, messages of several packets, a lost reply, a read, a heartbeat."""
    capture = Cluster()
    bodies = [command(b"SET", b"key:%d" % number, b"x" * 16) for number in range(3)]
    for number, body in enumerate(bodies):
        _set(capture, 1, number + 1, body, after_us=3)
    state = {"term": 5, "prev_term": 5, "entries_term": 5}
    batch = [entry(number + 1, body, 0 if number else START_S * 1000) for number, body in enumerate(bodies)]
    rids = capture.append(1, [2, 3], prev_index=100, commit=100, global_commit=90, round=1000, entries=batch, **state)
    capture.accept(1, rids, 103, 100, term=5, round=1000)
    for number in range(3):
        _answer(capture, 1, number + 1, after_us=4)
    value = b"v" * 3000
    large = command(b"SET", b"blob", value)
    parts = packets(R2P2(rid=4, policy="REPLICATED_ROUTE") / Raw(large))
    ports = UDP(sport=CLIENT_PORT, dport=PORT)
    capture.frame(ether(USER, 1, ports / parts[0]), 700)
    capture.message(1, USER, R2P2(rid=4) / R2P2Ack())
    for part in parts[1:]:
        capture.frame(ether(USER, 1, ports / part), 2)
    rids = capture.append(
        1,
        [2, 3],
        prev_index=103,
        commit=103,
        global_commit=95,
        round=1001,
        entries=[entry(4, large, START_S * 1000 + 1)],
        **state,
    )
    # The reply of member 3 is lost; the leader asks again.
    capture.accept(1, {2: rids[2]}, 104, 103, term=5, round=1001)
    _answer(capture, 1, 4)
    rids = capture.append(
        1,
        [3],
        10_000,
        prev_index=103,
        commit=104,
        global_commit=95,
        round=1002,
        entries=[entry(4, large, START_S * 1000 + 1)],
        **state,
    )
    capture.accept(1, rids, 104, 104, term=5, round=1002)
    capture.message(USER, 1, R2P2(rid=5, policy=3) / Raw(command(b"GET", b"blob")), after_us=300)
    _answer(capture, 1, 5, b"$3000\r\n" + value + b"\r\n")
    heartbeat = {"term": 5, "prev_index": 104, "prev_term": 5, "commit": 104, "global_commit": 104, "round": 1003}
    rids = capture.append(1, [2, 3], 10_000, **heartbeat)
    capture.accept(1, rids, 104, 104, term=5, round=1003)
    return capture


def forward() -> Cluster:
    """A client asks followers: forwarded and answered by the leader; repeated; refused; left without an answer."""
    capture = Cluster()
    body = command(b"SET", b"via", b"follower")
    _set(capture, 2, 1, body, after_us=10)
    capture.ask(2, 1, RaftForward, 8, term=3, entries=[entry(1, body)])
    rids = capture.append(
        1, [2, 3], term=3, prev_index=7, prev_term=3, entries_term=3, commit=7, round=20, entries=[entry(1, body)]
    )
    capture.accept(1, rids, 8, 7, term=3, round=20)
    _answer(capture, 1, 1)
    # The first attempt gets lost behind member 3: the client repeats it and is served.
    _set(capture, 3, 2, body, after_us=1000)
    _set(capture, 3, 2, body, after_us=50_000)
    capture.ask(3, 1, RaftForward, 8, term=3, entries=[entry(2, body)])
    rids = capture.append(
        1, [2, 3], term=3, prev_index=8, prev_term=3, entries_term=3, commit=8, round=21, entries=[entry(2, body)]
    )
    capture.accept(1, rids, 9, 8, term=3, round=21)
    _answer(capture, 1, 2)
    # No leader known: refused. And one that nobody answers.
    _set(capture, 3, 3, body, after_us=1000)
    capture.message(3, USER, R2P2(rid=3) / R2P2Drop(), after_us=100_000)
    _set(capture, 3, 4, body, after_us=1000)
    # A packet of a stranger, and one cut short.
    capture.frame(ether(USER, 1, UDP(sport=CLIENT_PORT, dport=PORT) / Raw(b"GET / HTTP/1.1\r\n")), 10)
    capture.frame(ether(2, 1, UDP(sport=PORT, dport=PORT) / R2P2(type="RAFT_MSG", rid=9) / Raw(b"\x01\x07\x00")), 10)
    return capture


CAPTURES: Final[dict[str, Callable[[], Capture]]] = {
    "echo-in.pcap": echo_in,
    "echo-out.pcap": echo_out,
    "election.pcap": election,
    "replication.pcap": replication,
    "forward.pcap": forward,
}


REPLAYED: Final[dict[str, tuple[str, str]]] = {"echo": ("what an echo server meets in its life, in one file", "")}


def files() -> dict[str, bytes]:
    """Every file that is made from the layers, by name."""
    from pcaps.pairs import pair_files

    return {name: make().bytes() for name, make in CAPTURES.items()} | pair_files()


def print_list() -> None:
    """What there is, and the command that replays it."""
    from pcaps.pairs import PAIRS

    pairs = REPLAYED | {name: (pair.shows, " ".join(pair.arguments)) for name, pair in PAIRS.items()}
    for name, (shows, arguments) in pairs.items():
        print(f"{name}-in.pcap, {name}-out.pcap: {shows}")
        print(f"  r2p2 replay --rx pcaps/{name}-in.pcap --tx out.pcap {arguments}".rstrip())
    for name, make in CAPTURES.items():
        if not name.startswith("echo"):
            print(f"{name}: {make.__doc__}")


def main() -> int:
    """Writes, checks or lists the captures."""
    parser = argparse.ArgumentParser(description="make the golden captures")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file differs")
    parser.add_argument("--list", action="store_true", help="what each shows, and how a pair is replayed")
    args = parser.parse_args()
    if args.list:
        print_list()
        return 0
    differing = []
    for name, content in files().items():
        path = FOLDER / name
        if args.check:
            if not path.exists() or path.read_bytes() != content:
                differing.append(name)
        else:
            path.write_bytes(content)
            print(f"{name}: {len(content)} bytes")
    for name in differing:
        print(f"{name} differs from what pcaps/make.py makes", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
