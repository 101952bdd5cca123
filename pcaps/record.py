"""Records golden captures of one member of a running Raft group, byte for byte the same each time.

``python pcaps/record.py`` writes them, ``--check`` says which differ from what it would write (exit code 1), ``--list``
says what each pair shows and the command that replays it. Three real members and a client run over the in-memory
network with its virtual clock, with fixed seeds and incarnations; of one member everything it is sent goes to
``NAME-in.pcap`` and everything it sends to ``NAME-out.pcap``, with Ethernet headers by Scapy and the times of that
clock. ``r2p2 replay`` of the first over the DPDK port must give the second, times and all: other port, other code for
every header, same member.

What the members say to each other is the project's own word here (make.py's captures come from the specification), so
these files are made anew when that changes; the tests say so.
"""

from __future__ import annotations

import argparse
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scapy.layers.inet import UDP
from scapy.packet import Raw

from pcaps.make import CLIENT_PORT, PORT, START_S, ether
from r2p2.apps.kv import KeyValue, encode_command
from r2p2.engine import DONE_DROPPED, DONE_OK, DONE_TIMEOUT, Engine, EngineConfig
from r2p2.memory import MemoryNetwork
from r2p2.node import Node, NodeConfig

FOLDER: Final = Path(__file__).resolve().parent
MS: Final = 1_000_000
START_NS: Final = START_S * 1_000 * MS
MEMBERS: Final = {slot: (0x0A000001 + slot, PORT) for slot in range(3)}
CLIENT: Final = (0x0A000009, CLIENT_PORT)
REPLICATED, READ, FIXED = 2, 3, 1
_FILE_HEADER: Final = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65_535, 1)
_SNAP_BYTES: Final = 65_535
_CAPTURE_RATE: Final = 1_000_000_000  # every packet


@dataclass(frozen=True)
class Pair:
    """One recorded member."""

    make: Callable[[], World]
    member: int
    shows: str

    def replay_arguments(self) -> list[str]:
        """What makes ``r2p2 replay`` this member, but for the files."""
        members = ",".join(f"10.0.0.{slot + 1}:{PORT}" for slot in MEMBERS)
        return [
            *("--app", "kv", "--bind", f"10.0.0.{self.member + 1}:{PORT}", "--members", members),
            *("--incarnation", f"{incarnation_of(self.member):x}", "--seed", str(seed_of(self.member))),
            *("--start", str(START_S)),
        ]


def incarnation_of(member: int) -> int:
    """Of the one launch of a member."""
    return 0x1000_0000_0000_0000 + member


def seed_of(member: int) -> int:
    """Of a member's election timeouts: the first ones are short for member 0, middling for 1, long for 2."""
    return (8183, 31257, 5598)[member]


class Caller:
    """The client."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.engine = Engine(network.open(*CLIENT), EngineConfig())
        self.engine.client_open(CLIENT_PORT)
        self.ended: dict[int, tuple[int, bytes]] = {}

    def poll_once(self) -> int:
        """Fetches what has ended."""
        packets = self.engine.poll()[1]
        for ended in self.engine.completions():
            self.ended[ended.tag] = (ended.status, ended.payload)
        return packets

    def next_deadline_ns(self) -> int | None:
        """None: the network's steps are enough."""
        return None

    def now_ns(self) -> int:
        """The network's."""
        return self.engine.now_ns()


class World:
    """Members and a client, all of whose packets are kept."""

    def __init__(self) -> None:
        self.network = MemoryNetwork(seed=7)
        self.network.faults(delay_min_ns=5_000, delay_max_ns=60_000)
        self.network.advance(START_NS - self.network.now_ns)
        self.nodes: dict[int, Node] = {}
        self.packets: dict[int, list[Any]] = {slot: [] for slot in MEMBERS}
        self.ports: dict[int, int] = {}
        self.tag = 0
        for slot, address in MEMBERS.items():
            config = NodeConfig(
                node_id=slot,
                members=MEMBERS,
                incarnation=incarnation_of(slot),
                seed=seed_of(slot),
                unix_clock_ns=None,
            )
            self.ports[slot] = self.network.open(*address)
            node = Node(config, self.ports[slot], KeyValue(), on_event=lambda text: None)
            node.engine.capture_start(_CAPTURE_RATE, _SNAP_BYTES)
            self.nodes[slot] = node
        self.client = Caller(self.network)

    def _keep(self, slot: int) -> None:
        taken, missed = self.nodes[slot].engine.capture_take()
        assert missed == 0
        self.packets[slot] += taken

    def run(self, ms: int) -> None:
        """Lets time pass, looking at everything on every whole millisecond, too, as a replay does."""
        for _ in range(ms):
            self.network.run([*self.nodes.values(), self.client], MS - self.network.now_ns % MS)
            for slot in self.nodes:
                self._keep(slot)

    def kill(self, slot: int) -> None:
        """The process is gone."""
        self._keep(slot)
        self.nodes.pop(slot).close()
        self.network.close_port(self.ports.pop(slot))

    def leader(self, ms: int = 1000) -> int:
        """Runs until a member leads; its slot."""
        for _ in range(ms):
            leaders = [slot for slot, node in self.nodes.items() if node.is_leader]
            if leaders:
                return leaders[0]
            self.run(1)
        raise RuntimeError(f"no leader within {ms} ms")

    def call(self, to: int, payload: bytes, policy: int = REPLICATED, ms: int = 1000) -> int:
        """Begins a call; its tag."""
        self.tag += 1
        self.client.engine.call(CLIENT_PORT, MEMBERS[to], payload, policy=policy, timeout_ns=ms * MS, tag=self.tag)
        return self.tag

    def ends(self, tags: list[int], status: int = DONE_OK, ms: int = 1000) -> None:
        """Runs until calls have ended, all of them so."""
        for _ in range(ms):
            if all(tag in self.client.ended for tag in tags):
                break
            self.run(1)
        found = [self.client.ended.get(tag) for tag in tags]
        if any(end is None or end[0] != status for end in found):
            raise RuntimeError(f"calls ended as {found}, not all as {status}")

    def close(self) -> None:
        """Frees everything."""
        for slot in list(self.nodes):
            self.kill(slot)
        self.client.engine.close()
        self.network.close()


# --- what happens ----------------------------------------------------------------------------------------------------


def election() -> World:
    """Member 0 leads, writes and is killed; of the others one is elected and takes writes on."""
    world = World()
    first = world.leader()
    assert first == 0
    world.ends([world.call(first, encode_command("SET", "colour", "blue"))])
    world.call(first, encode_command("SET", "colour", "green"))
    world.kill(first)  # before the request arrives
    second = world.leader()
    assert second == ELECTED
    world.ends([world.call(second, encode_command("GET", "colour"), READ)])
    world.ends([world.call(second, encode_command("SET", "colour", "red"))])
    world.run(30)
    return world


def replication() -> World:
    """A leader's day: a batch, messages of several packets, a follower that hears nothing for a while, reads."""
    world = World()
    leader = world.leader()
    assert leader == 0
    world.ends([world.call(leader, encode_command("SET", f"key:{i}", "x" * 16)) for i in range(8)])
    world.ends([world.call(leader, encode_command("SET", "blob", "v" * 3000))])
    world.ends([world.call(leader, encode_command("GET", "blob"), READ)])
    cut, quiet = MEMBERS[leader][0], MEMBERS[(leader + 1) % 3][0]
    world.network.block(cut, quiet)
    world.ends([world.call(leader, encode_command("SET", f"key:{i}", "y" * 500)) for i in range(8)])
    world.run(30)
    world.network.block(cut, quiet, False)
    world.run(40)
    world.ends([world.call(leader, encode_command("GET", "key:3"), READ), world.call(leader, b"not RESP")])
    world.ends([world.call(leader, encode_command("DEL", "blob"))])
    world.run(25)
    return world


def forwarding() -> World:
    """A follower forwards and answers reads; the leader goes, then the other: it holds requests and refuses them."""
    world = World()
    leader = world.leader()
    assert leader == 0
    world.run(20)
    follower = FORWARDING
    world.ends([world.call(follower, encode_command("SET", f"key:{i}", "x" * 16)) for i in range(4)])
    world.ends([world.call(follower, encode_command("SET", "blob", "v" * 3000))])
    world.ends([world.call(follower, encode_command("GET", "key:2"), READ)])
    # To a follower that does not know yet that its leader is gone: an answer may never come.
    world.kill(leader)
    world.kill(3 - follower)
    lost = world.call(follower, encode_command("SET", "late", "1"), ms=900)
    world.run(100)
    held = world.call(follower, encode_command("SET", "later", "2"))
    world.ends([held], DONE_DROPPED)
    world.run(200)
    assert world.client.ended.get(lost, (DONE_TIMEOUT,))[0] in (DONE_TIMEOUT, DONE_DROPPED)
    world.ends([world.call(follower, encode_command("GET", "key:1"), FIXED)])
    return world


ELECTED: Final = 1
FORWARDING: Final = 1
PAIRS: Final = {
    "member-election": Pair(election, ELECTED, "forming, two elections, the second won by this member"),
    "member-replication": Pair(replication, 0, "a leader: batches, large values, a follower cut off, reads"),
    "member-forwarding": Pair(forwarding, FORWARDING, "a follower: forwards, reads; alone: held requests, DROP"),
}


# --- files -----------------------------------------------------------------------------------------------------------


def _file(packets: list[Any]) -> bytes:
    made = [_FILE_HEADER]
    for packet in packets:
        ports = UDP(sport=packet.source_port, dport=packet.target_port)
        frame = bytes(ether(packet.source_ip & 255, packet.target_ip & 255, ports / Raw(packet.payload)))
        seconds, nanoseconds = divmod(packet.time_ns, 1_000 * MS)
        made.append(struct.pack("<IIII", seconds, nanoseconds, len(frame), len(frame)) + frame)
    return b"".join(made)


def record(pair: Pair) -> tuple[bytes, bytes]:
    """Both files of a pair. What the member sends after the last packet it is sent is not kept."""
    world = pair.make()
    try:
        world.run(1)
        packets = world.packets[pair.member]
    finally:
        world.close()
    own = MEMBERS[pair.member]
    received = [p for p in packets if (p.source_ip, p.source_port) != own]
    last_ns = received[-1].time_ns
    sent = [p for p in packets if (p.source_ip, p.source_port) == own and p.time_ns <= last_ns]
    return _file(received), _file(sent)


def main() -> int:
    """Writes, checks or lists."""
    parser = argparse.ArgumentParser(description="record the golden captures of members")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file differs")
    parser.add_argument("--list", action="store_true", help="what each pair shows and how it is replayed")
    args = parser.parse_args()
    differing = []
    for name, pair in PAIRS.items():
        if args.list:
            print(f"{name}-in.pcap, {name}-out.pcap: {pair.shows}")
            print(f"  r2p2 replay --rx pcaps/{name}-in.pcap --tx out.pcap {' '.join(pair.replay_arguments())}")
            continue
        for path, content in zip(paths(name), record(pair), strict=True):
            if args.check:
                if not path.exists() or path.read_bytes() != content:
                    differing.append(path.name)
            else:
                path.write_bytes(content)
                print(f"{path.name}: {len(content)} bytes")
    for file in differing:
        print(f"{file} differs from what pcaps/record.py records", file=sys.stderr)
    if differing:
        print("where members are meant to say something new now, run it without --check", file=sys.stderr)
    return 1 if differing else 0


def paths(name: str) -> tuple[Path, Path]:
    """The files of a pair: what the member is sent, what it sends."""
    return FOLDER / f"{name}-in.pcap", FOLDER / f"{name}-out.pcap"


if __name__ == "__main__":
    sys.exit(main())
