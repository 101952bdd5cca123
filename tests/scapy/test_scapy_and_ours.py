"""The layers against what we run: the engine's header check, the Raft codec, and what real nodes send.

Three readings of docs/wire.md, written apart: C for the header and entries, raft.codec for the messages, Scapy for all.
Built by one, read by the other, equal; refused by one, refused by the other.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.packet import Packet, Raw

from r2p2._engine import ffi, lib
from r2p2.address import format_ip
from r2p2.app import load_application
from r2p2.dissect.captures import records
from r2p2.dissect.datagrams import Datagram, datagram, dotted
from r2p2.engine import ROLE_HOLD, CapturedDatagram, Engine
from r2p2.memory import MemoryNetwork
from r2p2.node import Node, NodeConfig
from raft import Configuration, member_id, messages
from raft.codec import (
    VOTE_TRANSFER,
    Identity,
    MessageError,
    decode,
    decode_configuration,
    encode,
    encode_configuration,
)
from scapy_layers import (
    R2P2,
    R2P2Ack,
    RaftAppend,
    RaftConfiguration,
    RaftConfigured,
    RaftEntry,
    RaftForward,
    RaftInstallSnapshot,
    RaftMessage,
    Reassembler,
    body,
    packets,
)
from scapy_layers.raft import MESSAGES, R2P2_TYPES

PCAPS = Path(__file__).resolve().parent.parent.parent / "pcaps"
SERVER, CLIENT = 0x0A000001, 0x0A000002
# The order of enum r2p2_header_error.
C_ERRORS = [None, "short", "magic", "size", "type", "policy", "flags", "order"]


def c_header(data: bytes) -> tuple[str | None, list[int]]:
    """The engine's verdict on a packet, and the fields it read."""
    fields = ffi.new("uint16_t[8]")
    verdict = lib.r2p2_header_check(ffi.from_buffer(data), len(data), fields)
    return C_ERRORS[verdict], list(fields)


@given(
    st.sampled_from((0xCC, 0xCC, 0xCC, 0xCD)),
    st.sampled_from((0, 7, 8, 8, 8, 8, 10, 32, 255)),
    st.integers(0, 255),
    st.sampled_from((0, 0x40, 0x80, 0xC0, 0xC0, 0xE0, 0xC1)),
    st.integers(0, 65535),
    st.sampled_from((0, 1, 1, 1, 2, 253, 254, 255, 256, 65535)),
    st.binary(max_size=40),
)
def test_the_engine_reads_headers_as_the_layers_do(
    magic: int, size: int, type_policy: int, flags: int, rid: int, p_order: int, rest: bytes
) -> None:
    data = struct.pack(">BBBBHH", magic, size, type_policy, flags, rid, p_order) + rest
    layer = R2P2(data)
    verdict, fields = c_header(data)
    problem = layer.problem()
    if layer.type == 2 and magic == 0xCC:
        return  # a FEEDBACK's header is not to be trusted; the engine does not speak it yet
    if problem in ("payload", "oversize"):
        problem = None  # said of what follows the header, which is another function's business
    assert verdict == problem
    if verdict is None:
        bits = int(layer.flags)
        expected = [layer.header_size, layer.type, layer.policy, bits >> 7, bits >> 6 & 1, layer.rid, layer.p_order, 0]
        assert fields == expected


def test_short_packets_are_short_for_the_engine() -> None:
    for length in range(8):
        assert c_header(bytes(R2P2())[:length])[0] == "short"


IDENTITY = Identity(cluster_id=0xA1B2C3D4, node_id=7, incarnation=0x1122334455667788)


def random_messages(random: Random) -> list[Any]:
    """One message of each kind that the codec's rules allow, with entries as bytes for those that have them."""

    def index() -> int:
        return random.getrandbits(random.choice((3, 20, 62)))

    term = 5 + index()
    made_of: dict[str, Any] = {"sender": 7, "target": 0, "term": term}
    last = 1 + index()
    append = random_entries(random)
    append_bytes = sum(len(bytes(entry)) for entry in append)
    forward = random_entries(random, timed=False) or [RaftEntry(body=b"x")]
    global_commit = index()
    return [
        messages.PreVote(**made_of, last_index=last, last_term=random.randrange(1, term)),
        messages.PreVoteReply(**made_of, granted=bool(random.getrandbits(1))),
        messages.Vote(**made_of, last_index=last, last_term=random.randrange(1, term)),
        messages.VoteReply(**made_of, granted=bool(random.getrandbits(1))),
        messages.Append(
            **made_of,
            prev_index=last,
            prev_term=2,
            entries_term=random.randrange(2, term + 1) if append else 0,
            commit=global_commit + index() % 1000,
            global_commit=global_commit,
            round=1 + index(),
            count=len(append),
            bytes_count=append_bytes,
            payload=append,
        ),
        messages.AppendReply(
            **made_of,
            round=1 + index(),
            match_index=index(),
            hint_index=index(),
            hint_term=random.randrange(term + 1),
            applied_index=index(),
            accepted=bool(random.getrandbits(1)),
        ),
        messages.Forward(
            **made_of, count=len(forward), bytes_count=sum(len(bytes(entry)) for entry in forward), payload=forward
        ),
        messages.Hello(
            **made_of, state=random.getrandbits(1), coordinator=bool(random.getrandbits(1)), to_incarnation=index()
        ),
        messages.Formed(**made_of, members=tuple((slot, 1 + index()) for slot in range(random.randrange(1, 6)))),
        messages.ReadIndex(**made_of, context=random.getrandbits(64)),
        messages.ReadIndexReply(**made_of, context=random.getrandbits(64), index=last, granted=True),
        messages.ReadIndexReply(**made_of, context=random.getrandbits(64), index=0, granted=False),
        messages.TimeoutNow(**made_of),
        messages.Vote(**made_of, last_index=last, last_term=random.randrange(1, term), transfer=True),
        messages.InstallSnapshot(
            **made_of,
            index=last,
            index_term=random.randrange(1, term + 1),
            offset=7,
            total_bytes=1000,
            bytes_count=2,
            payload=b"xy",
        ),
        messages.InstallSnapshot(
            **made_of,
            index=last,
            index_term=random.randrange(1, term + 1),
            offset=0,
            total_bytes=1000,
            bytes_count=2,
            configuration=random_configuration(random),
            payload=b"xy",
        ),
        messages.InstallSnapshotReply(
            **made_of, index=last, offset=index(), installed=bool(random.getrandbits(1)), applied_index=index()
        ),
    ]


def random_configuration(random: Random) -> Configuration:
    """Some members, some of them with addresses."""
    members = sorted(member_id(random.randrange(0xFFFF), random.getrandbits(64)) for _ in range(random.randrange(1, 9)))
    voters = tuple(members[: random.randrange(1, len(members) + 1)])
    outgoing = tuple(sorted(random.sample(voters, random.randrange(len(voters)))))
    learners = tuple(member for member in members if member not in voters)
    addresses = tuple((member, 1 + random.getrandbits(31), random.getrandbits(16)) for member in members[::2])
    return Configuration(voters, outgoing, learners, addresses)


@given(st.integers(0, 2**32))
def test_configurations_are_read_alike(seed: int) -> None:
    configuration = random_configuration(Random(seed))
    wire = encode_configuration(configuration)
    assert decode_configuration(wire) == configuration
    layer = RaftConfiguration(wire)
    addresses = {member: (ip, port) for member, ip, port in configuration.addresses}
    assert layer.count == len(layer.members) == len(configuration.members)
    for member in layer.members:
        identity = member_id(member.slot, member.incarnation)
        ip, port = addresses.get(identity, (0, 0))
        assert (member.ip, member.port) == (format_ip(ip), port)
        flags = {"voter": configuration.voters, "outgoing": configuration.outgoing, "learner": configuration.learners}
        assert [name for name, where in flags.items() if identity in where] == str(member.flags).split("+")
    rebuilt = RaftConfiguration(members=[RaftConfigured(bytes(member)) for member in layer.members])
    assert bytes(rebuilt) == wire


def kind_of(message: Any) -> int:
    """The kind a message travels as."""
    return VOTE_TRANSFER if getattr(message, "transfer", False) else message.KIND


def wire_of(message: Any) -> bytes:
    """The whole message, with its entries or its chunk."""
    tail = message.payload or []
    return encode(message, IDENTITY) + (tail if isinstance(tail, bytes) else b"".join(map(bytes, tail)))


def random_entries(random: Random, *, timed: bool = True) -> list[Packet]:
    """Up to four entries of clients, some of which carry the time where they may."""
    time = {"flags": "TIMED", "time_ms": random.randrange(1, 1 << 48)}
    times: list[dict[str, Any]] = [{}, time] if timed else [{}]
    return [
        RaftEntry(client_ip="10.0.0.9", client_port=30000, rid=rid, policy=2, body=random.randbytes(rid * 3), **time)
        for rid, time in enumerate(random.choices(times, k=random.randrange(5)))
    ]


@given(st.integers(0, 2**32))
def test_what_the_codec_writes_the_layers_read_and_the_other_way_round(seed: int) -> None:
    for message in random_messages(Random(seed)):
        wire = wire_of(message)
        entries = message.payload or []
        layer = R2P2(bytes(R2P2(type=R2P2_TYPES[kind_of(message)]) / Raw(wire))).payload
        assert type(layer) is MESSAGES[kind_of(message)]
        assert layer.problem() is None
        assert (layer.sender, layer.cluster_id, layer.incarnation) == (7, 0xA1B2C3D4, 0x1122334455667788)
        built: dict[str, Any] = {"sender": 7, "cluster_id": 0xA1B2C3D4, "incarnation": 0x1122334455667788}
        for name in (field.name for field in dataclasses.fields(message)):
            if name in ("target", "sender", "request_id", "payload", "transfer", "configuration"):
                continue
            value = getattr(message, name)
            if name == "members":
                assert [(member.member, member.incarnation) for member in layer.members] == list(value)
                built["members"] = layer.members
                continue
            snapshot = isinstance(layer, RaftInstallSnapshot)
            spelled = ("chunk_bytes" if snapshot else "bytes") if name == "bytes_count" else name
            assert layer.getfieldval(spelled) == value, name
            built[spelled] = int(value)
        if isinstance(layer, RaftAppend | RaftForward):
            assert [bytes(entry) for entry in layer.entries] == [bytes(entry) for entry in entries]
            built["entries"] = layer.entries
            del built["count"], built["bytes"]
        if isinstance(layer, RaftInstallSnapshot):
            assert layer.chunk == b"xy"
            built |= {"chunk": layer.chunk, "configuration": layer.configuration}
        assert bytes(type(layer)(**built)) == wire
        message.payload = None
        assert decode(wire[: max(104, len(wire))], len(wire), cluster_id=0xA1B2C3D4) == (message, IDENTITY.incarnation)


@given(st.integers(0, 2**32), st.data())
def test_what_the_layers_refuse_the_codec_refuses(seed: int, data: st.DataObject) -> None:
    message = data.draw(st.sampled_from(random_messages(Random(seed))))
    wire = bytearray(wire_of(message))
    header = message.HEADER_BYTES
    for place in data.draw(st.lists(st.integers(0, header - 1), max_size=3)):
        wire[place] ^= 1 << data.draw(st.integers(0, 7))
    if data.draw(st.booleans()):
        del wire[data.draw(st.integers(0, len(wire))) :]
    layer = R2P2(bytes(R2P2(type=R2P2_TYPES[kind_of(message)]) / Raw(bytes(wire)))).payload
    refused = not isinstance(layer, RaftMessage) or layer.problem() not in (None, "entry", "type")
    if refused:
        with pytest.raises(MessageError):
            decode(bytes(wire), len(wire), cluster_id=int.from_bytes(wire[4:8], "big"))


def checked_by_engine(network: MemoryNetwork, engine: Engine, packet: bytes, header_bytes: int, *, timed: bool) -> bool:
    """The engine's verdict on the entries of a message of one packet."""
    network.inject((CLIENT, 8000), (SERVER, 8000), packet)
    network.advance(1_000_000)
    engine.poll()
    [message] = engine.raft_messages()
    return engine.check_entries(message.handle, header_bytes, timed=timed)


@pytest.fixture(scope="module")
def engine_in_memory() -> Iterator[tuple[MemoryNetwork, Engine]]:
    """An engine at the server's address."""
    with MemoryNetwork() as network:
        engine = Engine(network.open(SERVER, 8000))
        engine.set_role(ROLE_HOLD)
        yield network, engine
        engine.close()


@given(seed=st.integers(0, 2**32), data=st.data())
def test_the_engine_checks_entries_as_the_layers_do(
    engine_in_memory: tuple[MemoryNetwork, Engine], seed: int, data: st.DataObject
) -> None:
    entries = random_entries(Random(seed)) or [RaftEntry(body=b"abc")]
    is_append = seed % 2 == 1
    made = RaftAppend(sender=1, term=3, entries_term=3, entries=entries) if is_append else None
    wire = bytearray(bytes(made or RaftForward(sender=1, term=3, entries=entries)))
    header = 80 if is_append else 32
    for place in data.draw(st.lists(st.integers(header - 8, len(wire) - 1), max_size=2)):
        wire[place] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.sampled_from((0, 0, 0, 1, 8, 16)))
    packet = R2P2(
        bytes(
            R2P2(type=R2P2_TYPES[5 if is_append else 7], rid=seed & 0xFFFF)
            / Raw(bytes(wire[: max(header, len(wire) - cut)]))
        )
    )
    message = packet.payload
    # What the document reserves for later the engine refuses already; and it does not look at a no-op's client.
    if any(isinstance(entry, RaftEntry) and (entry.kind > 1 or entry.problem() == "noop") for entry in message.entries):
        return
    good = checked_by_engine(*engine_in_memory, bytes(packet), header, timed=is_append)
    assert good == (message.problem() is None)


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32))
def test_what_the_engine_sends_is_what_the_layers_build(seed: int) -> None:
    """Requests built by the layers, read by the engine; its RESPONSE and ACK packets equal those the layers build."""
    random = Random(seed)
    with MemoryNetwork() as network:
        node = Node(NodeConfig(), network.open(SERVER, 8000), load_application("echo"))
        node.engine.capture_start(10**9, 2000)
        expected = []
        for rid in random.sample(range(65536), 4):
            load = random.randbytes(random.choice((0, 1, 64, 1464, 1465, random.randrange(9000))))
            policy = random.choice(("LB_ROUTE", "FIXED_ROUTE"))
            parts = packets(R2P2(rid=rid, policy=policy) / Raw(load))
            if len(parts) > 1:
                expected.append(bytes(R2P2(type="ACK", rid=rid) / R2P2Ack()))
            expected += map(bytes, packets(R2P2(type="RESPONSE", rid=rid) / Raw(load)))
            for part in parts:
                network.inject((CLIENT, 30000), (SERVER, 8000), bytes(part))
                network.run([node], 1_000_000)
        assert [one.payload for one in sent_by(node, SERVER)] == expected
        node.close()


def sent_by(node: Node, ip: int) -> list[CapturedDatagram]:
    """What the node at ``ip`` has sent since the capture began."""
    return [one for one in node.engine.capture_take()[0] if one.source_ip == ip]


def as_packet(taken: CapturedDatagram) -> Packet:
    """A captured datagram as Scapy reads it."""
    assert taken.length == len(taken.payload)
    packet = IP(
        bytes(
            IP(src=dotted(taken.source_ip), dst=dotted(taken.target_ip))
            / UDP(sport=taken.source_port, dport=taken.target_port)
            / Raw(taken.payload)
        )
    )
    if R2P2 not in packet:
        packet[UDP].remove_payload()
        packet /= R2P2(taken.payload)
    packet.time = taken.time_ns / 1e9
    return packet


def test_an_echo_server_in_memory_answers_the_golden_capture() -> None:
    """The R2P2 part of echo-in.pcap against the engine without any device: the answers are those of echo-out.pcap."""

    def golden(name: str, server: str) -> list[Datagram]:
        with (PCAPS / name).open("rb") as stream:
            found = [datagram(record) for record in records(stream)]
        return [
            one
            for one in found
            if isinstance(one, Datagram)
            and "wrong UDP checksum" not in one.notes
            and (getattr(one, f"{server}_ip"), getattr(one, f"{server}_port")) == (SERVER, 8000)
        ]

    with MemoryNetwork() as network:
        node = Node(NodeConfig(), network.open(SERVER, 8000), load_application("echo"))
        node.engine.capture_start(10**9, 2000)
        for one in golden("echo-in.pcap", "target"):
            network.inject((one.source_ip, one.source_port), (SERVER, 8000), one.payload)
            network.run([node], 2_000)
        answers = sent_by(node, SERVER)
        node.close()

    def by_kind(found: list[tuple[int, int, bytes]]) -> dict[int, list[tuple[int, int, bytes]]]:
        kinds: dict[int, list[tuple[int, int, bytes]]] = {}
        for one in found:
            kinds.setdefault(one[2][2] >> 4, []).append(one)
        return kinds

    expected = [(one.target_ip, one.target_port, one.payload) for one in golden("echo-out.pcap", "source")]
    assert by_kind([(one.target_ip, one.target_port, one.payload) for one in answers]) == by_kind(expected)
    assert len(expected) == 20


def test_everything_three_nodes_send_is_valid_to_the_layers() -> None:
    """An election, small and large replicated requests, forwarding by followers, a read: all read back by Scapy."""
    members = {slot: (SERVER + slot, 8000) for slot in range(3)}
    large = Random(1).randbytes(5000)
    requests = {1: b"at the leader or not", 2: large, 3: b""}
    reassembler, problems, found = Reassembler(), [], []
    with MemoryNetwork(seed=3) as network:
        nodes = []
        for slot, (ip, port) in members.items():
            config = NodeConfig(node_id=slot, members=members, seed=slot, incarnation=1 + slot, unix_clock_ns=None)
            nodes.append(Node(config, network.open(ip, port), load_application("echo")))
            nodes[-1].engine.capture_start(10**9, 2000)
        network.run(nodes, 1_000_000_000)
        for slot, node in enumerate(nodes):
            for rid, request in requests.items():
                client = (CLIENT + 100, 30000 + slot)
                for part in packets(R2P2(rid=rid, policy="REPLICATED_ROUTE") / Raw(request)):
                    network.inject(client, members[slot], bytes(part))
                    network.run(nodes, 1_000_000)
            assert node.engine.counters()["rx_packets"] > 0
        network.run(nodes, 100_000_000)
        for node in nodes:
            found += [as_packet(one) for one in sent_by(node, node.config.members[node.config.node_id][0])]
            node.close()
    kinds, answers, bodies = set(), {}, set()
    for packet in found:
        problems.append(packet[R2P2].problem())
        whole = reassembler.add(packet)
        if whole is None:
            continue
        message = whole[R2P2].payload
        if whole[R2P2].type in (5, 6, 7):
            assert isinstance(message, RaftMessage)
            problems.append(message.problem())
            kinds.add(message.kind)
            bodies |= {bytes(entry.body) for entry in getattr(message, "entries", [])}
        elif whole[R2P2].type == 1:
            answers[whole[UDP].dport, whole[R2P2].rid] = body(whole[R2P2])
    assert set(problems) == {None}
    assert {1, 2, 3, 4, 5, 6, 7, 8, 9} <= kinds
    assert set(requests.values()) <= bodies
    assert answers == {(30000 + slot, rid): request for slot in range(3) for rid, request in requests.items()}
