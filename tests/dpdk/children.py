"""What the tests run in processes of their own, since the EAL starts once a process: ``python children.py NAME JSON``.

A child prints JSON lines; the last one is its result. With ``"as_nobody"`` it gives up root after importing, before any
DPDK call.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import dpdk_backend as dpdk
from dpdk_backend import _native
from dpdk_backend.hugepages import free_mb
from r2p2.engine import Engine

NOBODY = 65534
Result = dict[str, Any]


def say(**values: Any) -> None:
    """One JSON line, at once."""
    print(json.dumps(values), flush=True)


def summary(port: dpdk.DpdkPort) -> Result:
    """What is left of a port after close, so that a leak shows."""
    counters = {name: value for name, value in port.counters().items() if value}
    in_use = port.pool_in_use()
    port.close()
    return {"counters": counters, "in_use": in_use, "leaked": port.leaked_mbufs}


def await_link(port: dpdk.DpdkPort, device: int = 0, is_up: bool = True, timeout_s: float = 20.0) -> None:
    """Polls until the link is as wanted."""
    deadline = time.monotonic() + timeout_s
    while port.link_up(device) != is_up:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the link did not become {'up' if is_up else 'down'}")
        port.echo(0.002)


def meet(port: dpdk.DpdkPort, ip: str, timeout_s: float = 20.0) -> None:
    """Sends until an answer comes: a link may be up at one end before the other, and then memif loses packets."""
    deadline = time.monotonic() + timeout_s
    while not port.receive():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{ip} does not answer")
        port.send([dpdk.Datagram(b"meet", ip, 9000)])
        time.sleep(0.01)
    while port.receive() or port.receive():
        time.sleep(0.05)


def replay(paths: list[list[str]], neighbours: dict[str, str] | None = None) -> Result:
    """Echoes each capture in turn through one port each."""
    results = []
    for rx_path, tx_path in paths:
        config = dpdk.PortConfig(
            "10.0.0.1", (dpdk.pcap(0, rx_path=rx_path, tx_path=tx_path),), neighbours=neighbours or {}, mbufs_count=2047
        )
        port = dpdk.DpdkPort(config)
        at_start = port.pool_in_use()
        echoed = port.echo(10.0, idle_polls_max=3)
        known = {ip: port.neighbour(ip) for ip in ("10.0.0.9", "10.0.0.8")}
        stats = port.stats()._asdict()
        xstats = port.xstats()
        results.append(
            summary(port) | {"echoed": echoed, "at_start": at_start, "known": known, "stats": stats, "xstats": xstats}
        )
    return {"results": results}


def flood(rx_path: str, sources: int) -> Result:
    """Datagrams from many sources; static entries must survive, memory must not grow."""
    statics = {f"10.1.{i // 256}.{i % 256}": f"02:00:00:01:{i // 256:02x}:{i % 256:02x}" for i in range(1000)}
    config = dpdk.PortConfig(
        "10.0.0.1", (dpdk.pcap(0, rx_path=rx_path, tx_path=None),), neighbours=statics, mbufs_count=2047
    )
    port = dpdk.DpdkPort(config)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    received = 0
    while not port.exhausted():
        received += len(port.receive())
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    kept = sum(port.neighbour(ip) == mac for ip, mac in statics.items())
    learned = sum(port.neighbour(f"10.2.{i // 256}.{i % 256}") is not None for i in range(sources))
    return summary(port) | {"received": received, "kept": kept, "learned": learned, "grown_kb": grown_kb}


def crowded(rx_path: str, peer: str, keep: bool, seed: int | None) -> Result:
    """Datagrams from many sources; keep: an engine has told the port that `peer` is a member's address."""
    device = dpdk.pcap(0, rx_path=rx_path, tx_path=None)
    port = dpdk.DpdkPort(dpdk.PortConfig("10.0.0.1", (device,), mbufs_count=2047, neighbour_seed=seed))
    engine = Engine(port.address)
    if keep:
        engine.set_group(1, [(int(IPv4Address(peer)), 9000)])
    port.replay(10**9, 5001)  # all at one time of the port's clock
    while port.replay_left():
        port.receive()
    known = port.neighbour(peer)
    learned = [i for i in range(5000) if port.neighbour(f"10.2.{i // 256}.{i % 256}") is not None]
    engine.close()
    return summary(port) | {"known": known, "learned": learned}


def memif_echo(socket_path: str, role: Any, duration_s: float = 60.0, ring_log2: int = 10) -> Result:
    """The far end: echoes for a time, or until killed."""
    device = dpdk.memif(0, socket_path, role=role, routes=("10.0.0.1",), ring_log2=ring_log2)
    with dpdk.DpdkPort(dpdk.PortConfig("10.0.0.2", (device,))) as port:
        await_link(port)
        say(ready=True, uid=os.getuid(), pid=os.getpid())
        until = time.monotonic() + duration_s
        while time.monotonic() < until and port.link_up():
            port.echo(0.05)
        return summary(port)


def bound_server(socket_path: str) -> Result:
    """The far end of whoever calls at last: serves until its peer is gone."""
    device = dpdk.memif(0, socket_path, role="server", routes=("10.0.0.1",))
    with dpdk.DpdkPort(dpdk.PortConfig("10.0.0.2", (device,))) as port:
        say(bound=True)
        await_link(port, timeout_s=40.0)
        while port.link_up():
            port.echo(0.05)
        return summary(port)


def memif_calls(socket_path: str, role: Any, checksum: bool = True) -> Result:
    """The near end: datagrams of every size, one at a time and in bursts, checked byte for byte."""
    device = dpdk.memif(0, socket_path, role=role, routes=("10.0.0.2",))
    port = dpdk.DpdkPort(
        dpdk.PortConfig("10.0.0.1", (device,), local_port=4000, local_ports_count=20, udp_checksum=checksum)
    )
    await_link(port)
    meet(port, "10.0.0.2")
    at_start = port.pool_in_use()
    before = port.counters()
    wrong = answered = 0
    sizes = [1, 2, 3, 7, 8, 63, 64, 65, 511, 1000, 1471, 1472]
    for base in range(0, 20):
        sent = [
            dpdk.Datagram(bytes((base + i + k) % 256 for k in range(size)), "10.0.0.2", 9000, 4000 + base)
            for i, size in enumerate(sizes)
        ]
        if port.send(sent) != len(sent):
            raise AssertionError("the pool ran out")
        got: list[dpdk.Datagram] = []
        deadline = time.monotonic() + 10
        while len(got) < len(sent):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(got)} of {len(sent)} answers: {summary(port)}")
            got += port.receive()
        answered += len(got)
        wrong += [d.payload for d in got] != [d.payload for d in sent]
        wrong += any((d.ip, d.port, d.local_port) != ("10.0.0.2", 9000, 4000 + base) for d in got)
    drops = {name: value for name, value in port.counters().items() if value > before[name] and "drop" in name}
    return summary(port) | {
        "wrong": wrong,
        "answered": answered,
        "drops": drops,
        "at_start": at_start,
        "uid": os.getuid(),
    }


def many(socket_path: str, packets: int, time_max_s: float) -> Result:
    """Traffic until so many datagrams have come back, with some to nowhere and some too long in between."""
    device = dpdk.memif(0, socket_path, role="server", routes=("10.0.0.2",))
    port = dpdk.DpdkPort(dpdk.PortConfig("10.0.0.1", (device,)))
    await_link(port)
    received = 0
    deadline = time.monotonic() + time_max_s
    while received < packets and time.monotonic() < deadline:
        _, count, _, _ = port.generate("10.0.0.2", 9000, payload_bytes=64, outstanding=512, duration_s=0.1)
        received += count
        port.send([dpdk.Datagram(bytes(1473), "10.0.0.2", 9000), dpdk.Datagram(b"x", "10.9.9.9", 9000)] * 32)
        port.broadcast(b"to both", [("10.0.0.2", 1), ("10.9.9.9", 1)])
    port.echo(0.1)
    return summary(port) | {"received": received}


def survivor(socket_path: str, role: Any) -> Result:
    """Stays while its peer is killed and comes back; the test says when by stdin lines."""
    device = dpdk.memif(0, socket_path, role=role, routes=("10.0.0.2",))
    port = dpdk.DpdkPort(dpdk.PortConfig("10.0.0.1", (device,)))
    for round_number in range(2):
        await_link(port)
        _, received, _, _ = port.generate("10.0.0.2", 9000, payload_bytes=64, outstanding=64, duration_s=0.2)
        say(round=round_number, received=received)
        # The peer is killed now, in the middle of traffic.
        deadline = time.monotonic() + 20
        while port.link_up():
            port.generate("10.0.0.2", 9000, payload_bytes=64, outstanding=64, duration_s=0.02)
            if time.monotonic() > deadline:
                raise TimeoutError("the peer's death went unnoticed")
        say(down=round_number, sent=port.send([dpdk.Datagram(b"x", "10.0.0.2", 9000)]))
    return summary(port) | {"link_changes": 4}


def ring_full(socket_path: str) -> Result:
    """Two ports in one process, one of which does not receive: the ring fills, the rest is dropped and counted."""
    near = dpdk.DpdkPort(
        dpdk.PortConfig(
            "10.0.0.1",
            (dpdk.memif(0, socket_path, role="server", routes=("10.0.0.2",), ring_log2=6),),
            mbufs_count=1023,
        ),
        dpdk.EalConfig(memory_mb=96),
    )
    far = dpdk.DpdkPort(
        dpdk.PortConfig(
            "10.0.0.2",
            (dpdk.memif(1, socket_path, role="client", routes=("10.0.0.1",), ring_log2=6),),
            mbufs_count=1023,
        )
    )
    while not (near.link_up() and far.link_up()):
        near.control()
        far.control()
    far.receive()  # a memif client offers its buffers when it receives
    sent = near.send([dpdk.Datagram(bytes([i]), "10.0.0.2", 9000) for i in range(200)])
    arrived = len(far.receive(64)) + len(far.receive(64))
    again = near.send([dpdk.Datagram(b"again", "10.0.0.2", 9000)])
    arrived_again = len(far.receive())
    near.send([dpdk.Datagram(b"x", "192.168.0.1", 9000), dpdk.Datagram(bytes(1473), "10.0.0.2", 9000)])
    far_summary = summary(far)
    near.control()
    gone = near.send([dpdk.Datagram(b"gone", "10.0.0.2", 9000)])
    return summary(near) | {
        "far": far_summary,
        "sent": sent,
        "arrived": arrived,
        "again": again,
        "arrived_again": arrived_again,
        "gone": gone,
    }


def ring_frames() -> Result:
    """Frames of many sizes through a ring device, buffers running out, and a burst that is forgotten."""
    dpdk.start_eal(dpdk.EalConfig(memory_mb=64))
    burst = dpdk.Burst()
    wrong = []
    with dpdk.EthDev(dpdk.ring(0), mbufs_count=511) as device:
        for size in (14, 60, 1514, 2048, 2049, 9000):
            frames = [bytes((size + i + k) % 256 for k in range(size)) for i in range(20)]
            if (device.write(burst, frames), len(burst), device.send(burst), len(burst)) != (20, 20, 20, 0):
                wrong.append(f"{size}: not sent")
            if (device.receive(burst, 15), device.receive(burst)) != (15, 5) or burst.frames() != frames:
                wrong.append(f"{size}: not received")
            burst.free()
        if device.pool_in_use() != 0:
            wrong.append("a buffer is in use")
        bursts = [dpdk.Burst() for _ in range(8)]
        made = [device.repeat(b, bytes(64), 64) for b in bursts]
        short = made[-1]
        for b in bursts:
            b.free()
        after = device.repeat(burst, bytes(64), 64)
        device.send(burst)
    leaked = device.leaked_mbufs
    careless = dpdk.EthDev(dpdk.ring(1), mbufs_count=511)
    careless.repeat(burst, bytes(64), 3)
    careless.close()
    return {"wrong": wrong, "short_of_buffers": short, "after": after, "leaked": leaked, "kept": careless.leaked_mbufs}


def resolution(socket_path: str) -> Result:
    """A port whose neighbours are not known, and the wire's other end as frames."""
    dpdk.start_eal(dpdk.EalConfig(memory_mb=96))
    device = dpdk.memif(0, socket_path, role="server", routes=("10.0.0.0/16",), neighbours_derived=False)
    port = dpdk.DpdkPort(dpdk.PortConfig("10.0.0.1", (device,), neighbour_ttl_s=1.0, mbufs_count=2047))
    wire = dpdk.EthDev(dpdk.memif(1, socket_path, role="client"), mbufs_count=2047)
    burst = dpdk.Burst()

    def turn(seconds: float = 0.0) -> list[bytes]:
        frames: list[bytes] = []
        end = time.monotonic() + seconds
        while True:
            port.receive()
            wire.receive(burst)
            frames += burst.frames()
            burst.free()
            if time.monotonic() >= end:
                return frames

    def answer(frame: bytes) -> None:
        ip, mac = frame[38:42], b"\x02\x00" + frame[38:42]
        head = frame[6:12] + mac + bytes.fromhex("0806 0001 0800 06 04 0002")
        wire.write(burst, [head + mac + ip + frame[22:32]])
        wire.send(burst)

    while not (port.link_up() and wire.link_up):
        turn()
    turn(0.05)

    def to(last: int, *payloads: bytes) -> None:
        port.send([dpdk.Datagram(payload, f"10.0.{last // 256}.{last % 256}", 9000) for payload in payloads])

    result: Result = {}
    to(7, b"one", b"two")
    asked = turn(0.02)
    result["asked"] = [frame.hex() for frame in asked]
    answer(asked[0])
    result["sent_after_answer"] = [frame.hex() for frame in turn(0.02)]
    to(7, b"three")
    result["known"] = [frame.hex() for frame in turn(0.02)]
    # Not heard of for its time to live: asked for again, though it was sent to in between.
    end = time.monotonic() + 1.4
    while time.monotonic() < end:
        turn(0.05)
    to(7, b"four")
    again = turn(0.02)
    result["asked_again"] = [frame.hex() for frame in again]
    answer(again[0])
    result["sent_again"] = [frame.hex() for frame in turn(0.02)]
    # Nobody answers: asked a few times, then given up; dead for a second, then asked again.
    before = port.counters()["tx_drop_no_route"]
    to(8, b"a", b"b", b"c", b"d", b"e", b"f")
    result["dropped_oldest"] = port.counters()["tx_drop_no_route"] - before
    result["held"] = port.pool_in_use()
    result["questions"] = len(turn(1.3))
    result["given_up"] = port.counters()["tx_drop_no_route"] - before
    to(8, b"x")
    result["dead"] = [len(turn(0.02)), port.counters()["tx_drop_no_route"] - before]
    turn(1.1)
    to(8, b"y")
    result["asked_later"] = len(turn(0.02))
    # More addresses than are kept, and addresses that are nobody's.
    before = port.counters()["tx_drop_no_route"]
    for last in range(1000, 1200):
        to(last, b"x")
    result["flood_dropped"] = port.counters()["tx_drop_no_route"] - before
    result["flood_asked"] = len(turn(0.05))
    # All of them hold a place while nobody answers; a member gets one all the same.
    engine = Engine(port.address)
    engine.set_group(1, [(0x0A000009, 9000)])
    to(9, b"member")
    to(10, b"x")
    asked = turn(0.02)
    result["member_asked"] = [frame.hex() for frame in asked]
    answer(asked[0])
    result["member_sent"] = [frame.hex() for frame in turn(0.02)]
    engine.close()
    before = port.counters()["tx_drop_no_route"]
    for ip in ("10.1.0.1", "255.255.255.255", "224.0.0.1", "0.0.0.0", "127.0.0.1"):
        port.send([dpdk.Datagram(b"x", ip, 9000)])
    result["nobody"] = port.counters()["tx_drop_no_route"] - before
    result["nobody_asked"] = len(turn(0.02))
    port.close()
    wire.close()
    return result | {"leaked": port.leaked_mbufs + wire.leaked_mbufs}


def routes(paths: list[str], rx_path: str) -> Result:
    """A port over three devices that write captures, of which the last receives one too."""
    prefixes = (("10.1.0.0/16",), ("10.1.2.0/24", "10.1.3.7"), ("0.0.0.0/0",))
    devices = tuple(
        dpdk.pcap(i, rx_path=rx_path if i == 2 else None, tx_path=path, routes=prefixes[i])
        for i, path in enumerate(paths)
    )
    # net_pcap without a capture to receive still answers polls, with nothing.
    hosts = ("10.1.9.9", "10.1.2.3", "10.1.3.7", "10.1.3.8", "192.0.2.1")
    neighbours = {host: f"02:00:00:00:00:{number:02x}" for number, host in enumerate(hosts, 1)}
    port = dpdk.DpdkPort(dpdk.PortConfig("10.0.0.1", devices, neighbours=neighbours, mbufs_count=2047))
    sent = port.send([dpdk.Datagram(host.encode(), host, 9000) for host in hosts])
    # 10.1.5.5 has a route to the first device and is heard on the third: it is answered where it was heard.
    got: list[dpdk.Datagram] = []
    while not port.exhausted(2):
        got += port.receive()
    port.send([dpdk.Datagram(b"back", datagram.ip, 9000) for datagram in got])
    return summary(port) | {"sent": sent, "heard": [datagram.ip for datagram in got]}


def pool_empty(socket_path: str) -> Result:
    """Datagrams that wait for neighbours hold every buffer: nothing can be sent or received until they are given up."""
    dpdk.start_eal(dpdk.EalConfig(memory_mb=96))
    near_link = dpdk.memif(0, socket_path, role="server", routes=("10.0.0.0/16",), neighbours_derived=False)
    far_link = dpdk.memif(1, socket_path, role="client", routes=("10.0.0.1",))
    config = dpdk.PortConfig("10.0.0.1", (near_link,), neighbours={"10.0.0.2": "02:00:0a:00:00:02"}, mbufs_count=127)
    near = dpdk.DpdkPort(config)
    far = dpdk.DpdkPort(dpdk.PortConfig("10.0.0.2", (far_link,), mbufs_count=1023))
    while not (near.link_up() and far.link_up()):
        near.control()
        far.control()
    far.receive()

    def exchange() -> bool:
        far.send([dpdk.Datagram(b"anybody?", "10.0.0.1", 9000)])
        return len(near.receive()) == 1

    before = exchange()
    reserved = near.send([dpdk.Datagram(b"x", f"10.0.1.{i // 4}", 9000) for i in range(200)])
    held = near.pool_in_use()
    blocked = [exchange() for _ in range(3)]
    refused = near.send([dpdk.Datagram(b"no room", "10.0.0.2", 9000)])
    failed = near.counters()["tx_reserve_failed"]
    deadline = time.monotonic() + 20
    while near.pool_in_use() > 0:  # asked for a while, then given up
        if time.monotonic() > deadline:
            raise TimeoutError(f"{near.pool_in_use()} buffers are still held")
        near.receive()
    resumed = exchange()
    answered = near.send([dpdk.Datagram(b"room", "10.0.0.2", 9000)])
    arrived = [d.payload for d in far.receive()]
    far_summary = summary(far)
    return summary(near) | {
        "far": far_summary,
        "before": before,
        "reserved": reserved,
        "held": held,
        "blocked": blocked,
        "refused": refused,
        "failed": failed,
        "resumed": resumed,
        "answered": answered,
        "arrived": b"room" in arrived,
    }


def interface_gone(kind: str) -> Result:
    """The kernel's interface under a port is deleted while the port works. Called as root."""
    make = dpdk.af_packet if kind == "af_packet" else dpdk.af_xdp
    for arguments in (["add", "veth0", "type", "veth", "peer", "name", "veth1"], ["set", "veth0", "up"]):
        subprocess.run(["ip", "link", *arguments], check=True)
    subprocess.run(["ip", "link", "set", "veth1", "up"], check=True)
    dpdk.start_eal(dpdk.EalConfig(memory_mb=96))
    device = make(0, "veth0", routes=("10.9.0.0/24",))
    neighbours = {"10.9.0.2": "02:00:0a:09:00:02"}
    port = dpdk.DpdkPort(dpdk.PortConfig("10.9.0.1", (device,), neighbours=neighbours, mbufs_count=8191))
    datagrams = [dpdk.Datagram(b"x", "10.9.0.2", 9000)] * 64
    port.send(datagrams)
    before = port.counters()["tx_packets"]
    subprocess.run(["ip", "link", "delete", "veth0"], check=True)
    for _ in range(100):
        port.send(datagrams)
        port.receive()
    counters = port.counters()
    accounted = counters["tx_packets"] + counters["tx_drop_full"] + counters["tx_drop_error"]
    return summary(port) | {"before": before, "accounted": accounted}


def kernel_peer(kind: str) -> Result:
    """The kernel's own stack as the other side, in a network namespace: ARP, ping, UDP both ways. Called as root."""

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)

    ours, theirs = "10.9.0.1", "10.9.0.2"
    dpdk.start_eal(dpdk.EalConfig(memory_mb=96))
    if kind == "tap":
        device = dpdk.tap(0, "tap0", routes=("10.9.0.0/24",))
        kernel_end = "tap0"
    else:
        ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
        ip("link", "set", "veth0", "up")
        make = dpdk.af_packet if kind == "af_packet" else dpdk.af_xdp
        device = make(0, "veth0", routes=("10.9.0.0/24",))
        kernel_end = "veth1"
    port = dpdk.DpdkPort(dpdk.PortConfig(ours, (device,), mbufs_count=8191))
    at_start = port.pool_in_use()
    ip("link", "set", kernel_end, "up")
    ip("address", "add", f"{theirs}/24", "dev", kernel_end)

    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.bind((theirs, 0))
    client.setblocking(False)
    answers = {}
    for size in (0, 1, 64, 1000, 1472):
        payload = bytes(i % 256 for i in range(size))
        deadline = time.monotonic() + 10
        client.sendto(payload, (ours, 9000))
        while str(size) not in answers and time.monotonic() < deadline:
            for datagram in port.receive():
                # An empty datagram cannot be sent back: length 0 hands a buffer back.
                port.send([datagram._replace(payload=datagram.payload or b"empty")])
            try:
                got, source = client.recvfrom(2048)
            except BlockingIOError:
                continue
            answers[str(size)] = got == (payload or b"empty") and source == (ours, 9000)

    ping = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    ping.setblocking(False)
    request = bytearray.fromhex("0800 0000 1234 0001") + bytes(range(56))
    total = sum(int.from_bytes(request[i : i + 2], "big") for i in range(0, len(request), 2))
    total = (total & 0xFFFF) + (total >> 16)
    request[2:4] = (0xFFFF - (total & 0xFFFF) - (total >> 16)).to_bytes(2, "big")
    ping.sendto(request, (ours, 0))
    pong = b""
    deadline = time.monotonic() + 10
    while not pong and time.monotonic() < deadline:
        port.receive()
        try:
            pong = ping.recv(2048)
        except BlockingIOError:
            continue

    # From our side to one nobody has told us of: ARP answered by the kernel.
    ip("address", "add", "10.9.0.3/24", "dev", kernel_end)
    other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    other.bind(("10.9.0.3", 7777))
    other.setblocking(False)
    port.send([dpdk.Datagram(b"asked for", "10.9.0.3", 7777)])
    asked = b""
    deadline = time.monotonic() + 10
    while not asked and time.monotonic() < deadline:
        port.receive()
        try:
            asked = other.recv(2048)
        except BlockingIOError:
            continue
    return summary(port) | {
        "answers": answers,
        "at_start": at_start,
        "pong": pong[20:].hex(),
        "ping": bytes(request).hex(),
        "asked": asked.decode(),
    }


def caught(call: Callable[[], object]) -> Result:
    """The error a call raises."""
    try:
        call()
    except Exception as error:
        return {"kind": type(error).__name__, "text": str(error)}
    return {"kind": "", "text": ""}


def second_start() -> Result:
    """The EAL twice, and a port with an EAL configuration on a running EAL."""
    dpdk.start_eal(dpdk.EalConfig(memory_mb=32))
    again = caught(dpdk.start_eal)
    null = dpdk.null(0)
    port = caught(lambda: dpdk.DpdkPort(dpdk.PortConfig("10.0.0.1", (null,)), dpdk.EalConfig()))
    state = dpdk.eal_state()
    dpdk.stop_eal()
    return {"again": again, "port": port, "state": state, "stopped": caught(dpdk.start_eal)}


def hold_prefix(prefix: str, hold_s: float) -> Result:
    """Holds a file prefix as DPDK's default configuration does: with shared files."""
    arguments = dpdk.EalConfig(memory_mb=32, file_prefix=prefix, shared_files=True)
    started = caught(lambda: dpdk.start_eal(arguments))
    say(ready=True, started=started)
    time.sleep(hold_s)
    return {"started": started}


def in_hugepages() -> Result:
    """A port whose buffers lie in hugepages; a ring brings back what it sends."""
    before = free_mb()
    config = dpdk.PortConfig(
        "10.0.0.1", (dpdk.ring(0),), mbufs_count=8191, neighbours={"10.0.0.2": "02:00:0a:00:00:02"}
    )
    port = dpdk.DpdkPort(config, dpdk.EalConfig(memory_mb=64, hugepages=True))
    taken = before - free_mb()
    at_start = port.pool_in_use()
    for _ in range(100):
        # The ring gives a port its own datagrams, which are for another: dropped and counted.
        port.send([dpdk.Datagram(bytes(1400), "10.0.0.2", 9000)] * 64)
        for _ in range(2):
            port.receive()
    return summary(port) | {"taken_mb": taken, "at_start": at_start}


def eal_error(**config: Any) -> Result:
    """An EAL start that fails."""
    return caught(lambda: dpdk.start_eal(dpdk.EalConfig(**config)))


def forbidden_device(kind: str) -> Result:
    """A device on the kernel's network, which not everybody may have."""
    device = dpdk.af_packet(0, "lo") if kind == "af_packet" else dpdk.tap(0, "r2p2test0")
    return caught(lambda: dpdk.DpdkPort(dpdk.PortConfig("10.0.0.1", (device,))).close())


def device_errors(directory: str) -> Result:
    """Devices that cannot be made, each leaving the process usable."""

    def open_port(device: dpdk.Device, **config: Any) -> Result:
        return caught(lambda: dpdk.DpdkPort(dpdk.PortConfig("10.0.0.1", (device,), **config)).close())

    dpdk.start_eal(dpdk.EalConfig(memory_mb=96))
    plain_file = Path(directory) / "file"
    plain_file.touch()
    return {
        "no driver": open_port(dpdk.vdev("net_nosuch0")),
        "bad argument": open_port(dpdk.vdev("net_pcap0", "rx_pcap=/nonexistent/x.pcap")),
        "not there": open_port(dpdk.pci("0000:99:00.0")),
        "no interface": open_port(dpdk.af_packet(0, "nosuchif0")),
        "socket in no folder": open_port(dpdk.memif(0, directory + "/no/such/s", role="server")),
        "no socket": open_port(dpdk.memif(0, str(plain_file), role="server")),
        "pool too large": open_port(dpdk.null(0), mbufs_count=1 << 20),
        "small mbufs": open_port(dpdk.null(0), mbuf_data_bytes=512),
        "good at last": open_port(dpdk.null(0), mbufs_count=1023),
    }


def main(functions: dict[str, Any]) -> None:
    """Runs one child, a function of ``functions``."""
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    if arguments.pop("as_nobody", False):
        _native.load()
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    say(**functions[name](**arguments))


if __name__ == "__main__":
    main(globals())
