"""What test_bindings.py runs in processes of their own: ``python bindings_children.py NAME JSON``; see children.py."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import dpdk_backend as dpdk
from dpdk_backend.forward import txonly_frame
from tests.dpdk import children

Result = dict[str, Any]


def _await_links(*devices: dpdk.EthDev) -> None:
    deadline = time.monotonic() + 20
    while not all(device.link_up for device in devices):
        if time.monotonic() > deadline:
            raise TimeoutError("no link")
        for device in devices:
            device.control()


def memif_queues(socket_path: str, queues: int) -> Result:
    """Two ends of a memif with several queues: what goes in on one comes out on the same, and on no other."""
    dpdk.start_eal(dpdk.EalConfig(memory_mb=128))
    burst = dpdk.Burst()
    with (
        dpdk.Mempool(4095) as pool,
        dpdk.EthDev(dpdk.memif(0, socket_path, role="server"), queues_count=queues, pool=pool) as near,
        dpdk.EthDev(dpdk.memif(1, socket_path, role="client"), queues_count=queues, pool=pool) as far,
    ):
        _await_links(near, far)
        got: list[list[int]] = []
        for queue in range(queues):
            far.receive(burst, queue=queue)  # a memif client offers its buffers when it receives
            near.write(burst, [bytes([queue]) * 60] * (queue + 1))
            near.send(burst, queue=queue)
        for queue in range(queues):
            far.receive(burst, queue=queue)
            got.append([frame[0] for frame in burst.frames()])
            burst.free()
        wrong_queue = children.caught(lambda: near.receive(burst, queue=queues))
        in_use = [pool.in_use(), near.pool_in_use(), far.pool_in_use()]
        # Stopped, nobody is called; started, the link comes back.
        far.stop()
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            near.receive(burst)
            far.receive(burst)
        stopped = [near.link_up, far.link_up]
        far.start()
        _await_links(near, far)
        back = [near.link_up, far.link_up]
    return {
        "got": got,
        "wrong_queue": wrong_queue,
        "in_use": in_use,
        "stopped": stopped,
        "back": back,
        "leaked": [near.leaked_mbufs, far.leaked_mbufs, pool.leaked_mbufs],
    }


def pools() -> Result:
    """A pool of several devices; one that is too large; one that is closed while a burst holds buffers."""
    not_running = children.caught(dpdk.Mempool)
    hz_before = dpdk.tsc_hz()
    dpdk.start_eal(dpdk.EalConfig(memory_mb=64))
    start, clock = dpdk.tsc(), time.monotonic()
    time.sleep(0.05)
    tsc_seconds, clock_seconds = (dpdk.tsc() - start) / dpdk.tsc_hz(), time.monotonic() - clock
    too_large = children.caught(lambda: dpdk.Mempool(1 << 22))
    burst = dpdk.Burst()
    pool = dpdk.Mempool(511)
    with dpdk.EthDev(dpdk.ring(0), pool=pool) as one, dpdk.EthDev(dpdk.ring(1), pool=pool) as other:
        one.repeat(burst, bytes(60), 30)
        one.send(burst)
        one.receive(burst)
        other.send(burst)  # the buffers of one device leave by another
        moved = [other.receive(burst), pool.in_use()]
        burst.free()
        after = pool.in_use()
        one.repeat(burst, bytes(60), 3)
    pool.close()
    closed = children.caught(lambda: dpdk.EthDev(dpdk.ring(3), pool=pool))
    return {
        "not_running": not_running,
        "hz_before": hz_before,
        "clocks": [tsc_seconds, clock_seconds],
        "too_large": too_large,
        "moved": moved,
        "after": after,
        "leaked": pool.leaked_mbufs,
        "closed": closed,
    }


def offloads() -> Result:
    """Offloads by name: those a device has, and one it has not."""
    dpdk.start_eal(dpdk.EalConfig(memory_mb=64))
    with dpdk.EthDev(dpdk.ring(0)) as ring:
        before = ring.capabilities()
    wanted = sorted(before.rx_offloads)[:1]
    with dpdk.EthDev(dpdk.ring(1), rx_offloads=wanted) as ring:
        on = ring.name
    missing = children.caught(lambda: dpdk.EthDev(dpdk.ring(2), tx_offloads=("UDP_TSO",)))
    mtu = children.caught(lambda: dpdk.EthDev(dpdk.ring(3), mtu=9000))
    after = children.caught(lambda: dpdk.EthDev(dpdk.ring(4)).close())
    return {"rx": wanted, "on": on, "missing": missing, "mtu": mtu, "after": after}


def tap_settings() -> Result:
    """A tap device's MAC, MTU, link and queues, as the kernel sees them. Called as root, in a network of its own."""
    dpdk.start_eal(dpdk.EalConfig(memory_mb=96))

    def kernel() -> Result:
        shown = subprocess.run(["ip", "-json", "link", "show", "tap0"], check=True, capture_output=True, text=True)
        (link,) = json.loads(shown.stdout)
        return {"mtu": link["mtu"], "mac": link["address"]}

    device = dpdk.EthDev(dpdk.tap(0, "tap0"), queues_count=4, mtu=1400, tx_offloads=("UDP_CKSUM",))
    first = [device.mtu, kernel()["mtu"]]
    device.set_mtu(1300)
    device.set_mac(bytes.fromhex("020000000042"))
    device.set_promiscuous(True)
    second = [{"mtu": device.mtu, "mac": device.mac.hex(":")}, kernel()]
    # What is sent on any queue reaches the kernel.
    for arguments in (["link", "set", "tap0", "up"], ["address", "add", "198.18.0.9/24", "dev", "tap0"]):
        subprocess.run(["ip", *arguments], check=True)
    reader = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    reader.bind(("tap0", 0))
    reader.settimeout(10)
    burst, seen = dpdk.Burst(), []
    frame = txonly_frame(60)
    for queue in range(4):
        device.write(burst, [frame[:-1] + bytes([queue])])
        device.send(burst, queue=queue)
        seen.append(reader.recv(2048)[-1])
    device.set_link(False)
    down = device.link()._asdict()
    device.set_link(True)
    up = device.link()._asdict()
    device.close()
    return {"first": first, "second": second, "seen": seen, "down": down, "up": up, "leaked": device.leaked_mbufs}


def fanned_out(queues: int) -> Result:
    """Many of the kernel's flows over af_packet's queues. Called as root, in a network of its own."""
    ip = [
        ["link", "add", "veth0", "type", "veth", "peer", "name", "veth1"],
        ["link", "set", "veth0", "up"],
        ["link", "set", "veth1", "up"],
        ["address", "add", "10.9.0.2/24", "dev", "veth1"],
        ["neighbour", "add", "10.9.0.1", "lladdr", "02:00:00:00:00:01", "dev", "veth1"],
    ]
    for arguments in ip:
        subprocess.run(["ip", *arguments], check=True)
    dpdk.start_eal(dpdk.EalConfig(memory_mb=96))
    too_many = children.caught(lambda: dpdk.EthDev(dpdk.vdev("net_af_packet1", "iface=veth0"), queues_count=queues))
    device = dpdk.EthDev(dpdk.vdev("net_af_packet0", f"iface=veth0,qpairs={queues}"), queues_count=queues)
    burst, counts = dpdk.Burst(), [0] * queues
    for i in range(64):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"flow %d" % i, ("10.9.0.1", 9000 + i))
    deadline = time.monotonic() + 10
    while sum(counts) < 64 and time.monotonic() < deadline:
        for queue in range(queues):
            device.receive(burst, queue=queue)
            counts[queue] += sum(b"flow " in frame for frame in burst.frames())
            burst.free()
    device.close()
    return {"counts": counts, "too_many": too_many, "leaked": device.leaked_mbufs}


if __name__ == "__main__":
    children.main(globals())
