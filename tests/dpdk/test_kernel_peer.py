"""The kernel's own network stack as the other side, through each device that leads to it."""

from __future__ import annotations

import pytest

from tests.dpdk.launch import Children

pytestmark = pytest.mark.needs("dpdk", "root", "netns")


@pytest.mark.parametrize("kind", ["af_packet", "af_xdp"])
def test_an_interface_that_is_deleted_costs_datagrams_and_nothing_else(children: Children, kind: str) -> None:
    result = children.run_in_own_network("interface_gone", kind=kind)
    assert result["before"] == 64
    assert result["accounted"] == 101 * 64, "each datagram is counted as sent or under a reason"
    assert result["counters"]["tx_packets"] < 101 * 64
    assert result["leaked"] == 0


@pytest.mark.parametrize("kind", ["af_packet", "af_xdp", "tap"])
def test_the_kernel_and_we_understand_each_other(children: Children, kind: str) -> None:
    result = children.run_in_own_network("kernel_peer", kind=kind)
    assert result["answers"] == {"0": True, "1": True, "64": True, "1000": True, "1472": True}
    # The reply differs from the request in its type, so in its checksum.
    assert result["pong"][:4] == "0000"
    assert result["pong"][8:] == result["ping"][8:]
    assert result["asked"] == "asked for"
    assert result["counters"]["icmp_echoes"] == 1
    assert result["counters"]["arp_requests"] >= 1
    assert result["counters"]["arp_replies"] >= 1
    assert "rx_drop_bad_checksum" not in result["counters"]
    # AF_XDP shares the pool with the kernel and takes sent buffers back late.
    assert 0 <= result["in_use"] - result["at_start"] <= (64 if kind == "af_xdp" else 0)
    assert result["leaked"] == 0
