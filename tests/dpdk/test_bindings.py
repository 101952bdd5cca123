"""The bindings' devices beyond one queue: queues, shared pools, MAC, MTU, link, offloads, the clock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.dpdk.frames import udp
from tests.dpdk.launch import Children
from tests.dpdk.test_replay import read, write

pytestmark = pytest.mark.needs("dpdk", "scapy")

ROOT = Path(__file__).resolve().parents[2]
FILE = "bindings_children.py"


def test_what_goes_in_on_a_queue_comes_out_on_it(children: Children, shared_folder: Path) -> None:
    result = children.run("memif_queues", file=FILE, socket_path=str(shared_folder / "s"), queues=4)
    assert result["got"] == [[queue] * (queue + 1) for queue in range(4)]
    assert result["wrong_queue"]["kind"] == "IndexError"
    assert len(set(result["in_use"])) == 1, "one pool, whoever is asked"
    assert result["stopped"] == [False, False]
    assert result["back"] == [True, True]
    assert result["leaked"] == [0, 0, 0]


def test_pools_are_shared_and_the_clock_is_the_processors(children: Children) -> None:
    result = children.run("pools", file=FILE)
    assert "the EAL is not running" in result["not_running"]["text"]
    assert result["hz_before"] == 0
    assert result["clocks"][0] == pytest.approx(result["clocks"][1], rel=0.2)
    assert "rte_pktmbuf_pool_create" in result["too_large"]["text"]
    assert "memory_mb" in result["too_large"]["text"]
    assert result["moved"] == [30, 30]
    assert result["after"] == 0
    assert result["leaked"] == 3
    assert "closed" in result["closed"]["text"]


def test_offloads_go_by_name(children: Children) -> None:
    result = children.run("offloads", file=FILE)
    assert result["rx"] and result["on"] == "net_ring1"
    assert "no tx offload 'UDP_TSO'" in result["missing"]["text"]
    assert "rte_eth_dev_set_mtu(net_ring3)" in result["mtu"]["text"]
    assert result["after"]["kind"] == "", "a failure leaves nothing behind"


@pytest.mark.needs("root", "netns")
def test_the_kernel_sees_what_was_set(children: Children) -> None:
    result = children.run_in_own_network("tap_settings", file=FILE)
    assert result["first"] == [1400, 1400]
    assert result["second"] == [{"mtu": 1300, "mac": "02:00:00:00:00:42"}] * 2, "the device's word and the kernel's"
    assert result["seen"] == [0, 1, 2, 3]
    assert (result["down"]["is_up"], result["up"]["is_up"]) == (False, True)
    assert result["up"]["speed_mbps"] > 0 and result["up"]["is_full_duplex"]
    assert result["leaked"] == 0


@pytest.mark.needs("root", "netns")
def test_flows_are_fanned_out_over_queues(children: Children) -> None:
    result = children.run_in_own_network("fanned_out", file=FILE, queues=3)
    assert sum(result["counts"]) == 64
    assert sum(count > 0 for count in result["counts"]) > 1
    assert "has 1 queues, not 3" in result["too_many"]["text"]
    assert result["leaked"] == 0


def test_forwarding_keeps_queues_apart(tmp_path: Path) -> None:
    frames = [[bytes(udp(bytes([queue]) * i)) for i in range(1, 100)] for queue in range(2)]
    rx = [write(tmp_path / f"in{queue}.pcap", [*some]) for queue, some in enumerate(frames)]
    device = "net_pcap0," + ",".join(f"rx_pcap={path},tx_pcap={tmp_path}/out{q}.pcap" for q, path in enumerate(rx))
    command = [sys.executable, "-m", "dpdk_backend", "--vdev", device, "--queues", "2", "--forward", "io"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    assert "io: 198 frames moved" in run.stdout
    assert [read(tmp_path / f"out{queue}.pcap") for queue in range(2)] == frames
    # The capture has no third queue.
    command[command.index("2")] = "3"
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 1
    assert "net_pcap0 has 2 queues, not 3" in run.stderr
