"""The capture writer's files, read back by Scapy, which checks headers and checksums on its own."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw
from scapy.utils import RawPcapReader, rdpcap

from r2p2.app import load_application
from r2p2.capture import (
    FILE_HEADER_BYTES,
    HEADERS_BYTES,
    PAYLOAD_BYTES_MAX,
    RECORD_HEADER_BYTES,
    PcapWriter,
    RotatingPcapWriter,
    udp_packet,
)
from r2p2.errors import UserError
from r2p2.memory import MemoryNetwork
from r2p2.node import Node, NodeConfig
from r2p2.node.log_time import ShiftedClock
from r2p2.serve import CapturingNode, capturing_node
from scapy_layers import R2P2

CLIENT, SERVER = 0x0A000002, 0x0A000001
TIME_NS = 1_700_000_000_123_456_789

addresses = st.integers(0, 2**32 - 1)
ports = st.integers(0, 65535)


def dotted(address: int) -> str:
    """10.0.0.1 for 0x0A000001."""
    return ".".join(str(byte) for byte in address.to_bytes(4, "big"))


@given(addresses, ports, addresses, ports, st.binary(max_size=1500))
def test_packet_is_what_scapy_builds(
    source_ip: int, source_port: int, target_ip: int, target_port: int, payload: bytes
) -> None:
    expected = (
        IP(src=dotted(source_ip), dst=dotted(target_ip), id=0, flags="DF", ttl=64)
        / UDP(sport=source_port, dport=target_port)
        / payload
    )
    assert udp_packet(source_ip, source_port, target_ip, target_port, payload) == bytes(expected)


def test_udp_checksum_zero_is_sent_as_ffff() -> None:
    # The payload is chosen so that the sum folds to 0xFFFF, whose complement would mean "no checksum".
    zero = udp_packet(CLIENT, 8000, SERVER, 8000, bytes(2))
    payload = zero[26:28]
    packet = udp_packet(CLIENT, 8000, SERVER, 8000, payload)
    assert packet[26:28] == b"\xff\xff"
    assert packet == bytes(
        IP(src=dotted(CLIENT), dst=dotted(SERVER), id=0, flags="DF") / UDP(sport=8000, dport=8000) / payload
    )


def test_times_ports_and_payloads_survive(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    with PcapWriter(path) as writer:
        assert writer.write(TIME_NS, CLIENT, 30000, SERVER, 8000, b"hello")
        assert writer.write(TIME_NS + 1, SERVER, 8000, CLIENT, 30000, b"")
    assert path.stat().st_size == writer.file_bytes
    assert writer.packets_count == 2
    first, second = rdpcap(str(path))
    assert (first[IP].src, first[UDP].sport, first[IP].dst, first[UDP].dport) == ("10.0.0.2", 30000, "10.0.0.1", 8000)
    assert bytes(first[UDP].payload) == b"hello"
    assert bytes(second[UDP].payload) == b""
    assert int(first.time * 10**9) == TIME_NS
    assert int(second.time * 10**9) == TIME_NS + 1


def test_snaplen_cuts_the_packet_and_keeps_its_length(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    with PcapWriter(path, snaplen=40) as writer:
        writer.write(TIME_NS, CLIENT, 30000, SERVER, 8000, bytes(100))
    with RawPcapReader(str(path)) as reader:
        [(data, metadata)] = list(reader)
    assert len(data) == 40
    assert metadata.wirelen == 100 + HEADERS_BYTES


def test_a_full_file_stops_and_counts_what_it_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    record = RECORD_HEADER_BYTES + HEADERS_BYTES + 10
    with PcapWriter(path, max_bytes=FILE_HEADER_BYTES + 2 * record) as writer:
        for _ in range(2):
            assert writer.write(TIME_NS, CLIENT, 1, SERVER, 2, bytes(10))
        assert writer.left_out_count == 0
        assert not writer.write(TIME_NS, CLIENT, 1, SERVER, 2, bytes(10))
        assert writer.is_full
        # Even what would fit stays out: a capture ends, it has no holes.
        assert not writer.write(TIME_NS, CLIENT, 1, SERVER, 2, b"")
        assert (writer.left_out_count, writer.left_out_bytes) == (2, 10)
    assert path.stat().st_size == writer.file_bytes == writer.max_bytes
    assert len(rdpcap(str(path))) == 2


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="snaplen 27"):
        PcapWriter(tmp_path / "a.pcap", snaplen=27)
    with pytest.raises(ValueError, match="max_bytes 23"):
        PcapWriter(tmp_path / "a.pcap", max_bytes=23)
    with PcapWriter(tmp_path / "a.pcap") as writer:
        with pytest.raises(ValueError, match="65508 bytes"):
            writer.write(TIME_NS, CLIENT, 1, SERVER, 2, bytes(PAYLOAD_BYTES_MAX + 1))
        assert writer.write(TIME_NS, CLIENT, 1, SERVER, 2, bytes(PAYLOAD_BYTES_MAX))


def rids(path: Path) -> list[int]:
    """The numbers that ``rotate`` wrote into a file."""
    with RawPcapReader(str(path)) as reader:
        return [int.from_bytes(data[HEADERS_BYTES : HEADERS_BYTES + 2], "big") for data, _ in reader]


def rotate(path: Path, datagrams_count: int, files_count: int) -> RotatingPcapWriter:
    """Writes numbered datagrams, three a file."""
    per_file = FILE_HEADER_BYTES + 3 * (RECORD_HEADER_BYTES + HEADERS_BYTES + 72)
    writer = RotatingPcapWriter(path, files_count=files_count, snaplen=100, max_bytes=per_file)
    for number in range(datagrams_count):
        kept = writer.write(TIME_NS + number, CLIENT, 30000, SERVER, 8000, number.to_bytes(2, "big") + bytes(70))
        assert kept or files_count == 1
    writer.close()
    return writer


def test_rotation_keeps_the_last_files_without_a_hole(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    (tmp_path / "a.pcap.2").write_bytes(b"of an earlier run")
    writer = rotate(path, 3, 3)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.pcap"]
    writer = rotate(path, 14, 3)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.pcap", "a.pcap.1", "a.pcap.2"]
    assert [rids(tmp_path / name) for name in ("a.pcap.2", "a.pcap.1", "a.pcap")] == [[6, 7, 8], [9, 10, 11], [12, 13]]
    assert (writer.packets_count, writer.removed_count, writer.left_out_count) == (14, 2, 0)


def test_one_file_ends_when_it_is_full(tmp_path: Path) -> None:
    writer = rotate(tmp_path / "a.pcap", 5, 1)
    assert [file.name for file in tmp_path.iterdir()] == ["a.pcap"]
    assert rids(tmp_path / "a.pcap") == [0, 1, 2]
    assert (writer.packets_count, writer.left_out_count) == (3, 2)


def test_rotation_refuses_files_that_hold_no_packet(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="files_count 0"):
        RotatingPcapWriter(tmp_path / "a.pcap", files_count=0)
    with pytest.raises(ValueError, match="max_bytes 1000 is below 65575"):
        RotatingPcapWriter(tmp_path / "a.pcap", files_count=2, max_bytes=1000)


def test_serve_rotates_what_a_node_sees(tmp_path: Path) -> None:
    path = tmp_path / "node.pcap"
    with MemoryNetwork(packets_max=4096) as network:
        node = Node(NodeConfig(), network.open(SERVER, 8000), load_application("echo"))
        capturing = CapturingNode(node, str(path), rate=10**9, mib=1, files=2)
        for rid in range(3000):
            network.inject((CLIENT, 30000), (SERVER, 8000), bytes(R2P2(rid=rid) / Raw(bytes(400))))
            network.run([capturing], 2_000)
        capturing.close()
        assert capturing.missed == 0
        node.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["node.pcap", "node.pcap.1"]
    seen = []
    for name in ("node.pcap.1", "node.pcap"):
        assert (tmp_path / name).stat().st_size <= 1 << 20
        with RawPcapReader(str(tmp_path / name)) as reader:
            seen += [R2P2(data[HEADERS_BYTES:]).rid for data, _ in reader]
    # The end of the traffic without a hole: each request and its answer.
    assert seen == sorted(seen) and seen[-2:] == [2999, 2999]
    assert 2000 < len(seen) < 6000 and set(seen) == set(range(seen[0], 3000))


@pytest.mark.parametrize(("mib", "files"), [(0, 1), (1, 0)])
def test_serve_refuses_a_capture_without_room(tmp_path: Path, mib: int, files: int) -> None:
    with MemoryNetwork() as network:
        node = Node(NodeConfig(), network.open(SERVER, 8000), load_application("echo"))
        with pytest.raises(UserError, match=f"--pcap-mib {mib} and --pcap-files {files}"):
            CapturingNode(node, str(tmp_path / "a.pcap"), 1, mib, files)
        node.close()


def test_a_capture_has_the_time_that_a_node_gives_its_entries(tmp_path: Path) -> None:
    """Else no replay of a leader would give them the same, which they have in milliseconds."""
    path = tmp_path / "a.pcap"
    with MemoryNetwork() as network:
        config = NodeConfig(unix_clock_ns=ShiftedClock(3.5))
        node = Node(config, network.open(SERVER, 8000), load_application("echo"))
        arguments = Namespace(pcap=str(path), pcap_rate=1000, pcap_mib=1, pcap_files=1)
        capturing = capturing_node(arguments, node, config)
        network.inject((CLIENT, 30000), (SERVER, 8000), bytes(R2P2(rid=1) / Raw(b"x")))
        network.run([capturing], 2_000)
        capturing.close()
        assert isinstance(config.unix_clock_ns, ShiftedClock)
        offset_ns = config.unix_clock_ns.port_offset_ns
        assert offset_ns is not None and abs(offset_ns + network.now_ns - time.time_ns() - 3_500_000_000) < 10**9
        end_ns = network.now_ns
        node.close()
    with RawPcapReader(str(path)) as reader:
        times = [metadata.sec * 10**9 + metadata.usec for _, metadata in reader]
    assert times and all(0 <= at - offset_ns <= end_ns for at in times)
