"""What servers are sent and what they must send, as pairs of captures: ``NAME-in.pcap`` and ``NAME-out.pcap``.

Made from the Scapy layers by hand, from docs/wire.md and the RFCs, never by our own stack; make.py writes and checks
them. Each answer has the time of the frame it answers, so ``r2p2 replay`` of the first file, whose clock is the
capture's, must give the second byte for byte. ``python pcaps/make.py --list`` says how each is replayed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from scapy.layers.inet import ICMP, IP, UDP, IPOption
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from pcaps.make import (
    BODIES,
    CLIENT,
    CLIENT_PORT,
    PORT,
    SERVER,
    START_S,
    Capture,
    command,
    ether,
    ip,
    mac,
    malformed,
    to_client,
    to_server,
)
from scapy_layers import R2P2, R2P2Ack, R2P2Drop, R2P2Feedback, packets

ROUTER: Final = 3
ROUTER_PORT: Final = 9000


class Exchange:
    """Both directions, on one clock."""

    def __init__(self) -> None:
        """Nothing sent."""
        self.asked = Capture()
        self.answered: list[tuple[int, bytes]] = []

    def ask(self, *frames: Packet | bytes) -> None:
        """The server receives frames, 10 us after one another."""
        for frame in frames:
            self.asked.frame(frame)

    def answer(self, *frames: Packet) -> None:
        """It sends frames at once."""
        self.answered += [(self.asked.now_us, bytes(frame)) for frame in frames]

    def responds(self, rid: int, body: bytes, port: int = CLIENT_PORT) -> None:
        """It sends a RESPONSE, in as many packets as it takes."""
        self.answer(*(to_client(part, port) for part in packets(R2P2(rid=rid, type="RESPONSE") / Raw(body))))

    def large(self, rid: int, body: bytes, order: tuple[int, ...] = ()) -> None:
        """It is sent a request of several packets and acknowledges the first; ``order``: of the others."""
        first, *others = packets(R2P2(rid=rid) / Raw(body))
        self.ask(to_server(first))
        self.answer(to_client(R2P2(rid=rid) / R2P2Ack()))
        self.ask(*(to_server(others[i]) for i in order or range(len(others))))

    def answered_bytes(self) -> bytes:
        """The file of the answers: pcap with nanoseconds, which is what a replay writes."""
        made = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)]
        for time_us, frame in self.answered:
            seconds, microseconds = divmod(time_us, 1_000_000)
            made.append(struct.pack("<IIII", START_S + seconds, microseconds * 1000, len(frame), len(frame)) + frame)
        return b"".join(made)


def _arp() -> Exchange:
    """Asked for our address, also by one who has none yet; nobody else's questions, no answers we did not ask for."""
    wire = Exchange()

    def question(**fields: str) -> Packet:
        about: dict[str, Any] = {"op": "who-has", "hwsrc": mac(CLIENT), "psrc": ip(CLIENT), "pdst": ip(SERVER)} | fields
        return Ether(src=mac(CLIENT), dst="ff:ff:ff:ff:ff:ff") / ARP(**about)

    def reply(target_ip: str) -> Packet:
        told = ARP(op="is-at", hwsrc=mac(SERVER), psrc=ip(SERVER), hwdst=mac(CLIENT), pdst=target_ip)
        return Ether(src=mac(SERVER), dst=mac(CLIENT)) / told

    wire.ask(question())
    wire.answer(reply(ip(CLIENT)))
    wire.ask(question(psrc="0.0.0.0"))
    wire.answer(reply("0.0.0.0"))
    wire.ask(bytes(question()).ljust(60, b"\0"))
    wire.answer(reply(ip(CLIENT)))
    wire.ask(question(pdst=ip(77)), question(psrc=ip(SERVER)), question(hwsrc=mac(66)), bytes(question())[:41])
    told = ARP(op="is-at", hwsrc=mac(CLIENT), psrc=ip(CLIENT), hwdst=mac(SERVER), pdst=ip(SERVER))
    wire.ask(Ether(src=mac(CLIENT), dst=mac(SERVER)) / told)
    return wire


def _ping() -> Exchange:
    """ICMP echo of several sizes; other ICMP and wrong checksums get silence."""
    wire = Exchange()
    for number, body in enumerate((b"", b"x", b"odd", bytes(range(256)), bytes(1472))):
        wire.ask(ether(CLIENT, SERVER, ICMP(type="echo-request", id=7, seq=number) / Raw(body)))
        wire.answer(ether(SERVER, CLIENT, ICMP(type="echo-reply", id=7, seq=number) / Raw(body)))
    wire.ask(
        ether(CLIENT, SERVER, ICMP(type="echo-reply", id=7, seq=9)),
        ether(CLIENT, SERVER, ICMP(type="dest-unreach")),
        ether(CLIENT, SERVER, ICMP(type="echo-request", id=7, seq=9, chksum=0x1234)),
        ether(CLIENT, 77, ICMP(type="echo-request", id=7, seq=9)),
    )
    return wire


def _single() -> Exchange:
    """Requests of one packet: empty, full, padded by Ethernet, with both policies and an unknown extension."""
    wire = Exchange()
    for rid, body in ((1, b"1234"), (2, b""), (3, BODIES["full"]), (65535, b"last rid"), (0, b"and 0 after it")):
        wire.ask(to_server(R2P2(rid=rid) / Raw(body)))
        wire.responds(rid, body)
    wire.ask(bytes(to_server(R2P2(rid=4) / Raw(b"padded"))).ljust(60, b"\xee"))
    wire.responds(4, b"padded")
    wire.ask(to_server(R2P2(rid=5, policy="FIXED_ROUTE") / Raw(b"fixed")))
    wire.responds(5, b"fixed")
    for rid, size in ((6, 1), (7, 2), (8, 24), (9, 247)):
        wire.ask(to_server(R2P2(rid=rid, extension=Raw(b"\xaa" * size)) / Raw(b"skip %d" % size)))
        wire.responds(rid, b"skip %d" % size)
    wire.ask(to_server(R2P2(rid=1) / Raw(b"same rid, other client"), port=CLIENT_PORT + 1))
    wire.responds(1, b"same rid, other client", CLIENT_PORT + 1)
    # A repeated request is another request: without a session nobody knows it again.
    for _ in range(2):
        wire.ask(to_server(R2P2(rid=10) / Raw(b"twice")))
        wire.responds(10, b"twice")
    return wire


def _large() -> Exchange:
    """Requests of several packets: in order, mixed, repeated, replaced by a new first packet, and never ended."""
    wire = Exchange()
    wire.large(1, BODIES["pair"])
    wire.responds(1, BODIES["pair"])
    wire.large(2, BODIES["large"], order=(2, 0, 1))
    wire.responds(2, BODIES["large"])
    wire.large(3, BODIES["large"], order=(0, 0, 1, 1, 2))
    wire.responds(3, BODIES["large"])
    # The client begins again under the same rid, with another message: the stale half goes.
    wire.large(4, BODIES["large"], order=(0,))
    wire.large(4, BODIES["pair"])
    wire.responds(4, BODIES["pair"])
    wire.large(5, BODIES["large"], order=(0, 2))
    # After its time the half is gone: the missing packet is nobody's.
    wire.asked.now_us += 1_000_000
    wire.ask(to_server(packets(R2P2(rid=5) / Raw(BODIES["large"]))[2]))
    wire.ask(to_server(R2P2(rid=6) / Raw(b"still there")))
    wire.responds(6, b"still there")
    return wire


def _drop() -> Exchange:
    """A server without replicas refuses replicated requests, small and large, and goes on."""
    wire = Exchange()
    for rid, policy in ((1, "REPLICATED_ROUTE"), (2, "REPLICATED_ROUTE_NO_SE")):
        wire.ask(to_server(R2P2(rid=rid, policy=policy) / Raw(b"nobody replicates here")))
        wire.answer(to_client(R2P2(rid=rid) / R2P2Drop()))
        wire.ask(to_server(R2P2(rid=100 + rid) / Raw(b"next")))
        wire.responds(100 + rid, b"next")
    return wire


def _feedback() -> Exchange:
    """A server behind a router tells it of each answer, a DROP too."""
    wire = Exchange()

    def feedback(rid: int, port: int = CLIENT_PORT) -> Packet:
        about = R2P2Feedback(rid=rid, client_port=port, client_ip=ip(CLIENT))
        return ether(SERVER, ROUTER, UDP(sport=PORT, dport=ROUTER_PORT) / R2P2(rid=rid) / about)

    for rid, port in ((1, CLIENT_PORT), (0xABCD, CLIENT_PORT + 1)):
        wire.ask(to_server(R2P2(rid=rid) / Raw(b"1234"), port=port))
        wire.responds(rid, b"1234", port)
        wire.answer(feedback(rid, port))
    wire.large(2, BODIES["pair"])
    wire.responds(2, BODIES["pair"])
    wire.answer(feedback(2))
    wire.ask(to_server(R2P2(rid=3, policy="REPLICATED_ROUTE") / Raw(b"refused")))
    wire.answer(to_client(R2P2(rid=3) / R2P2Drop()), feedback(3))
    return wire


def _kv() -> Exchange:
    """The key-value store without replicas: written, read, overwritten, deleted; values of several packets."""
    wire = Exchange()
    value = BODIES["large"]
    steps = [
        ((b"PING",), b"+PONG\r\n"),
        ((b"GET", b"colour"), b"$-1\r\n"),
        ((b"SET", b"colour", b"blue"), b"+OK\r\n"),
        ((b"GET", b"colour"), b"$4\r\nblue\r\n"),
        ((b"SET", b"colour", b""), b"+OK\r\n"),
        ((b"GET", b"colour"), b"$0\r\n\r\n"),
        ((b"SET", b"blob", value), b"+OK\r\n"),
        ((b"GET", b"blob"), b"$%d\r\n%b\r\n" % (len(value), value)),
        ((b"DEL", b"blob"), b":1\r\n"),
        ((b"DEL", b"blob"), b":0\r\n"),
    ]
    for rid, (words, reply) in enumerate(steps, 1):
        body = command(*words)
        if len(body) > 1464:
            wire.large(rid, body)
        else:
            wire.ask(to_server(R2P2(rid=rid) / Raw(body)))
        wire.responds(rid, reply)
    return wire


def _hostile() -> Exchange:
    """Everything malformed, at every layer, each followed by an honest request that must be answered."""
    wire = Exchange()
    good = R2P2(rid=200) / Raw(b"never answered")
    whole = bytes(to_server(good))
    ports = UDP(sport=CLIENT_PORT, dport=PORT)

    def patched(offset: int, value: bytes) -> bytes:
        return whole[:offset] + value + whole[offset + len(value) :]

    def from_ip(source: str) -> Packet:
        return to_server(good, src=source)

    below_udp: list[Packet | bytes] = [
        bytes(13),
        whole[:14],
        whole[:34],
        patched(12, b"\x86\xdd"),
        Ether(src=mac(CLIENT), dst=mac(SERVER)) / Dot1Q(vlan=7) / IP(src=ip(CLIENT), dst=ip(SERVER)) / ports / good,
        patched(12, b"\x00\x40"),
        patched(14, b"\x65"),
        patched(14, b"\x44"),
        patched(14, b"\x4f"),
        patched(24, b"\xde\xad"),
        to_server(good, len=19),
        to_server(good, options=[IPOption(b"\x01")] * 8, len=30),
        *(from_ip(source) for source in (ip(SERVER), "224.0.0.5", "255.255.255.255", "0.0.0.0", "127.0.0.1")),
        to_server(good, proto=6),
        ether(CLIENT, SERVER, ICMP(type="echo-request") / Raw(b"x"), proto=17),
        patched(38, b"\x00\x07"),
        patched(38, b"\xff\xff"),
        patched(len(whole) - 1, b"\xff"),
        patched(0, b"\x01\x00\x5e\x00\x00\x01"),
        patched(0, bytes.fromhex(mac(77).replace(":", ""))),
        to_server(good, dst="255.255.255.255"),
        Ether(src=mac(CLIENT), dst=mac(SERVER)) / ARP(op=3, hwsrc=mac(CLIENT), psrc=ip(CLIENT), pdst=ip(SERVER)),
    ]
    r2p2_only: list[Packet | bytes] = [
        to_server(R2P2(rid=200, type="FEEDBACK") / Raw(bytes(8))),
        to_server(R2P2(rid=200, type="RAFT_REQ") / Raw(bytes(24))),
        to_server(R2P2(rid=200, type="RAFT_MSG") / Raw(b"\xff" * 64)),
        to_server(R2P2(rid=200, header_size=8 + 200) / Raw(bytes(100))),
        to_server(R2P2(rid=200, flags=0x3F) / Raw(b"x")),
    ]
    for number, frame in enumerate([*malformed(), *below_udp, *r2p2_only], 1000):
        wire.ask(frame, to_server(R2P2(rid=number) / Raw(b"honest")))
        wire.responds(number, b"honest")
    return wire


@dataclass(frozen=True)
class Pair:
    """One of them; ``arguments``: of r2p2 replay, but for the files."""

    make: Callable[[], Exchange]
    arguments: tuple[str, ...] = ()

    @property
    def shows(self) -> str:
        """In a sentence."""
        return (self.make.__doc__ or "").strip()


PAIRS: Final[dict[str, Pair]] = {
    "arp": Pair(_arp),
    "ping": Pair(_ping),
    "single": Pair(_single),
    "large": Pair(_large),
    "drop": Pair(_drop),
    "feedback": Pair(_feedback, ("--router", f"{ip(ROUTER)}:{ROUTER_PORT}")),
    "kv": Pair(_kv, ("--app", "kv")),
    "hostile": Pair(_hostile),
}


def pair_files() -> dict[str, bytes]:
    """Every file by name."""
    files = {}
    for name, pair in PAIRS.items():
        wire = pair.make()
        files[f"{name}-in.pcap"], files[f"{name}-out.pcap"] = wire.asked.bytes(), wire.answered_bytes()
    return files
