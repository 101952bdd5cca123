"""ARP from our side: asked, asked again, given up, expired; all of it bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import ARP, Ether

from tests.dpdk.frames import OUR_IP, OUR_MAC, is_sound
from tests.dpdk.launch import Children

pytestmark = pytest.mark.needs("dpdk", "scapy")


def test_an_unknown_neighbour_is_asked_for_and_what_waits_is_sent(children: Children, shared_folder: Path) -> None:
    result = children.run("resolution", socket_path=str(shared_folder / "s"))
    (question,) = (Ether(bytes.fromhex(frame)) for frame in result["asked"])
    assert (question.dst, question.src) == ("ff:ff:ff:ff:ff:ff", OUR_MAC)
    arp = question[ARP]
    assert (arp.op, arp.hwsrc, arp.psrc, arp.hwdst, arp.pdst) == (1, OUR_MAC, OUR_IP, "00:00:00:00:00:00", "10.0.0.7")

    def payloads(frames: list[str]) -> list[tuple[str, bytes]]:
        assert all(is_sound(bytes.fromhex(frame)) for frame in frames)
        return [(f.dst, bytes(f[UDP].payload)) for f in (Ether(bytes.fromhex(frame)) for frame in frames)]

    mac = "02:00:0a:00:00:07"
    assert payloads(result["sent_after_answer"]) == [(mac, b"one"), (mac, b"two")]
    assert payloads(result["known"]) == [(mac, b"three")]
    assert [Ether(bytes.fromhex(frame))[ARP].pdst for frame in result["asked_again"]] == ["10.0.0.7"]
    assert payloads(result["sent_again"]) == [(mac, b"four")]
    # Four of six datagrams wait for one address.
    assert result["dropped_oldest"] == 2
    assert result["held"] == 4
    assert result["questions"] == 4
    assert result["given_up"] == 6
    assert result["dead"] == [0, 7]
    assert result["asked_later"] == 1
    # 64 addresses at once, one of which is taken.
    assert result["flood_dropped"] == 200 - 63
    assert result["flood_asked"] == 63
    assert [Ether(bytes.fromhex(frame))[ARP].pdst for frame in result["member_asked"]] == ["10.0.0.9"]
    assert payloads(result["member_sent"]) == [("02:00:0a:00:00:09", b"member")]
    assert result["nobody"] == 5
    assert result["nobody_asked"] == 0
    assert result["leaked"] == 0
