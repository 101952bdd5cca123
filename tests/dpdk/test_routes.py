"""Several devices under one port: which one a datagram leaves by."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.dpdk.frames import udp
from tests.dpdk.launch import Children
from tests.dpdk.test_replay import read, write

pytestmark = pytest.mark.needs("dpdk", "scapy")


def test_the_longest_prefix_wins_and_answers_go_back_where_they_came_from(children: Children, tmp_path: Path) -> None:
    outs = [tmp_path / f"{number}.pcap" for number in range(3)]
    rx = write(tmp_path / "in.pcap", [udp(b"from elsewhere", src="10.1.5.5")])
    result = children.run("routes", paths=[str(path) for path in outs], rx_path=rx)
    assert result["sent"] == 5
    assert result["heard"] == ["10.1.5.5"]
    left_by = [[(f[IP].dst, f.dst, bytes(f[UDP].payload)) for f in map(Ether, read(path))] for path in outs]
    assert left_by == [
        [
            ("10.1.9.9", "02:00:00:00:00:01", b"10.1.9.9"),
            ("10.1.3.8", "02:00:00:00:00:04", b"10.1.3.8"),
        ],
        [
            ("10.1.2.3", "02:00:00:00:00:02", b"10.1.2.3"),
            ("10.1.3.7", "02:00:00:00:00:03", b"10.1.3.7"),
        ],
        [
            ("192.0.2.1", "02:00:00:00:00:05", b"192.0.2.1"),
            ("10.1.5.5", "02:00:0a:00:00:09", b"back"),
        ],
    ]
    assert (result["in_use"], result["leaked"]) == (0, 0)
